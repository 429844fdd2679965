// A gradient step of SoftAC_v1, arXiv:1801.01290v2.
#ifndef SB3_SOFTAC_SOFTAC_V1_H
#define SB3_SOFTAC_SOFTAC_V1_H

#include "step.h"

// What a step logs, in this order.
enum { SOFTAC_ACTOR_LOSS, SOFTAC_CRITIC_LOSS, SOFTAC_VALUE_LOSS, SOFTAC_ENTROPY, SOFTAC_Q_MEAN, SOFTAC_V_MEAN, SOFTAC_N_LOGS };

typedef struct {
    Step step;
    int64_t n_obs, n_actions, n_critics;
    // The batch: [batch, n_obs] twice, [batch, n_actions], three times [batch]; standard normal noise [batch, n_actions]
    const float *obs, *next_obs, *actions, *rewards, *dones, *discounts, *noise;
    const Network *actor, *value, *value_target, *critics;
    int64_t min_q;  // whether the policy loss uses the smallest Q-value, not the first
    double alpha, target_entropy;
    int64_t temperature_gradient;  // where the gradient of log alpha stands; -1 if it is not learned
} SoftACStep;

// Size of a SoftACStep, by which the caller knows that it uses the same structures.
extern const int64_t softac_v1_size;

// Floats of workspace that a thread needs.
int64_t softac_v1_workspace(const SoftACStep* job);

// Do the step; see run_step. The losses are those of actor, critics and V.
int softac_v1_step(SoftACStep* job);

#endif
