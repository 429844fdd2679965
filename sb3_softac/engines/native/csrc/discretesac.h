// A gradient step of DiscreteSAC, arXiv:1910.07207v2.
#ifndef SB3_SOFTAC_DISCRETESAC_H
#define SB3_SOFTAC_DISCRETESAC_H

#include "step.h"

// What a step logs, in this order.
enum { DISCRETE_ACTOR_LOSS, DISCRETE_CRITIC_LOSS, DISCRETE_ENTROPY, DISCRETE_MAX_ENTROPY, DISCRETE_Q_MEAN, DISCRETE_N_LOGS };

typedef struct {
    Step step;
    int64_t n_obs, n_options, n_branches, n_critics;
    const int64_t* sizes;  // [n_branches]: options of each branch
    // The batch: [batch, n_obs] twice, [batch, n_branches], three times [batch]
    const float *obs, *next_obs;
    const int64_t* actions;
    const float *rewards, *dones, *discounts;
    const uint8_t *masks, *next_masks;  // [batch, n_options]: 1 where an option is allowed; NULL if all are
    const Network *actor, *critics, *critic_targets;
    int64_t mean_q;  // whether the critics' mean counts, not the smallest of them
    double alpha, critic_alpha, target_ratio;
    int64_t temperature_gradient;  // where the gradient of log alpha stands; -1 if it is not learned
} DiscreteStep;

// Size of a DiscreteStep, by which the caller knows that it uses the same structures.
extern const int64_t discretesac_size;

// Floats of workspace that a thread needs.
int64_t discretesac_workspace(const DiscreteStep* job);

// Do the step; see run_step. The losses are those of actor and critics. Returns -1, and does nothing, if an action is not one of
// its branch's options.
int discretesac_step(DiscreteStep* job);

#endif
