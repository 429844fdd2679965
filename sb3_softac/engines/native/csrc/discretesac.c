// Algorithm 1 of arXiv:1910.07207v2, on rows of the batch.
#include "discretesac.h"

#include <math.h>
#include <string.h>

static const float MASKED_LOGIT = -1e8f;  // as in discrete/branches.py

typedef struct {
    float* x;                             // [2 rows, n_obs]: observations, then next observations
    float *actor_hidden, *critic_hidden;  // of 2 rows; of `rows` for each critic
    float* target_hidden;                 // of `rows`, for one target after the other
    float* log_pi;                        // [2 rows, n_options]
    float *q, *q_next;                    // [n_critics, rows, n_options]
    float* utility;                       // [n_options]: one number per option from those of the critics
    float* d_logits;                      // [rows, n_options]
    float* scratch;
} Memory;

static Memory lay_out(const DiscreteStep* job, int64_t rows, Workspace* w) {
    const int64_t n = job->n_options, critic = hidden_size(job->critics), actor = hidden_size(job->actor);
    Memory m;
    m.x = take(w, 2 * rows * job->n_obs);
    m.actor_hidden = take(w, 2 * rows * actor);
    m.critic_hidden = take(w, job->n_critics * rows * critic);
    m.target_hidden = take(w, rows * critic);
    m.log_pi = take(w, 2 * rows * n);
    m.q = take(w, job->n_critics * rows * n);
    m.q_next = take(w, job->n_critics * rows * n);
    m.utility = take(w, n);
    m.d_logits = take(w, rows * n);
    m.scratch = take(w, 2 * rows * (actor > critic ? actor : critic));
    return m;
}

const int64_t discretesac_size = sizeof(DiscreteStep);

int64_t discretesac_workspace(const DiscreteStep* job) {
    Workspace size = {0, 0};
    lay_out(job, largest_share(job->step.batch, job->step.n_threads), &size);
    return size.used;
}

// Logits become log-probabilities, branch by branch, in place.
static void log_softmax(const DiscreteStep* job, float* logits, const uint8_t* mask) {
    for (int64_t i = 0; mask && i < job->n_options; i++) logits[i] = mask[i] ? logits[i] : MASKED_LOGIT;
    for (int64_t b = 0; b < job->n_branches; logits += job->sizes[b++]) {
        float largest = logits[0], sum = 0.0f;
        for (int64_t i = 1; i < job->sizes[b]; i++) largest = logits[i] > largest ? logits[i] : largest;
        for (int64_t i = 0; i < job->sizes[b]; i++) sum += expf(logits[i] - largest);
        const float log_sum = largest + logf(sum);
        for (int64_t i = 0; i < job->sizes[b]; i++) logits[i] -= log_sum;
    }
}

// One utility per option from those of the critics, `stride` elements apart.
static void aggregate(const DiscreteStep* job, const float* q, int64_t stride, const float* log_pi, float* utility) {
    const int64_t n = job->n_options;
    if (!job->mean_q && job->n_branches > 1) {  // the critic with the smallest expected Q-value
        const float* pessimist = q;
        float smallest = 0.0f;
        for (int64_t c = 0; c < job->n_critics; c++) {
            float expected = 0.0f;
            for (int64_t i = 0; i < n; i++) expected += expf(log_pi[i]) * q[c * stride + i];
            if (c == 0 || expected < smallest || (expected != expected && smallest == smallest)) {
                smallest = expected;
                pessimist = q + c * stride;
            }
        }
        memcpy(utility, pessimist, sizeof(float) * (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float value = q[i];
        for (int64_t c = 1; c < job->n_critics; c++) {
            const float other = q[c * stride + i];
            if (job->mean_q)
                value += other;
            else
                value = other < value || other != other ? other : value;
        }
        utility[i] = job->mean_q ? value / (float)job->n_critics : value;
    }
}

static float max_entropy(const DiscreteStep* job, const uint8_t* mask) {
    float sum = 0.0f;
    for (int64_t b = 0, at = 0; b < job->n_branches; at += job->sizes[b++]) {
        int64_t allowed = mask ? 0 : job->sizes[b];
        for (int64_t i = 0; mask && i < job->sizes[b]; i++) allowed += mask[at + i] != 0;
        sum += logf((float)allowed);
    }
    return sum;
}

// The losses of one state, their gradients, and the sums to log. Q-values are overwritten by the gradients with respect to them.
static void losses_of_row(const DiscreteStep* job, const Memory* m, int64_t first, int64_t r, int64_t rows, double* sums) {
    const int64_t n = job->n_options, stride = rows * n, k = first + r;
    const float alpha = (float)job->alpha, critic_alpha = (float)job->critic_alpha, mean = 1.0f / (float)job->step.batch;
    const float *log_pi = m->log_pi + r * n, *log_pi_next = m->log_pi + (rows + r) * n;
    const uint8_t* mask = job->masks ? job->masks + k * n : 0;

    aggregate(job, m->q_next + r * n, stride, log_pi_next, m->utility);
    float v_next = 0.0f;  // Eq. 10
    for (int64_t i = 0; i < n; i++) v_next += expf(log_pi_next[i]) * (m->utility[i] - critic_alpha * log_pi_next[i]);
    const float q_target = job->rewards[k] + job->discounts[k] * (1.0f - job->dones[k]) * v_next;  // Eq. 8 of 1801.01290v2
    sums[DISCRETE_Q_MEAN] += q_target;

    aggregate(job, m->q + r * n, stride, log_pi, m->utility);
    float entropy = 0.0f;
    for (int64_t b = 0, at = 0; b < job->n_branches; at += job->sizes[b++]) {
        float loss = 0.0f;  // Eq. 12
        for (int64_t i = at; i < at + job->sizes[b]; i++) {
            const float probability = expf(log_pi[i]);
            loss += probability * (alpha * log_pi[i] - m->utility[i]);
            entropy -= probability * log_pi[i];
        }
        for (int64_t i = at; i < at + job->sizes[b]; i++) {
            const float gradient = mean * expf(log_pi[i]) * (alpha * log_pi[i] - m->utility[i] - loss);
            m->d_logits[r * n + i] = mask && !mask[i] ? 0.0f : gradient;
        }
        sums[DISCRETE_ACTOR_LOSS] += loss;
    }
    sums[DISCRETE_ENTROPY] += entropy;
    sums[DISCRETE_MAX_ENTROPY] += max_entropy(job, mask);

    for (int64_t c = 0; c < job->n_critics; c++) {
        float *q = m->q + c * stride + r * n, taken = 0.0f;
        const int64_t* actions = job->actions + k * job->n_branches;
        for (int64_t b = 0, at = 0; b < job->n_branches; at += job->sizes[b++]) taken += q[at + actions[b]];
        const float error = taken - q_target;  // Eq. 7 of 1801.01290v2
        sums[DISCRETE_CRITIC_LOSS] += 0.5f * error * error;
        memset(q, 0, sizeof(float) * (size_t)n);
        for (int64_t b = 0, at = 0; b < job->n_branches; at += job->sizes[b++])
            q[at + actions[b]] = mean * error / (float)job->n_branches;
    }
}

// Utilities of all options: outputs divided by the number of branches.
static void utilities(const DiscreteStep* job, const Network* net, const float* x, float* hidden, int64_t rows, float* out) {
    const Rows pass = {x, job->n_obs, rows, hidden, rows, out};
    forward(net, &pass);
    for (int64_t i = 0; job->n_branches > 1 && i < rows * job->n_options; i++) out[i] /= (float)job->n_branches;
}

static void rows_of_thread(void* argument, int64_t thread) {
    const DiscreteStep* job = argument;
    const Step* step = &job->step;
    const int64_t n_obs = job->n_obs, n = job->n_options, n_critics = job->n_critics, hidden = hidden_size(job->critics);
    const int64_t first = share(step->batch, thread, step->n_threads);
    const int64_t rows = share(step->batch, thread + 1, step->n_threads) - first;
    Workspace workspace = {step->workspace + thread * step->workspace_size, 0};
    const Memory m = lay_out(job, rows, &workspace);
    float* gradients = step->optimizer.gradients + thread * step->optimizer.n_gradients;

    memcpy(m.x, job->obs + first * n_obs, sizeof(float) * (size_t)(rows * n_obs));
    memcpy(m.x + rows * n_obs, job->next_obs + first * n_obs, sizeof(float) * (size_t)(rows * n_obs));
    Rows of_actor = {m.x, n_obs, 2 * rows, m.actor_hidden, 2 * rows, m.log_pi};
    forward(job->actor, &of_actor);
    for (int64_t r = 0; r < 2 * rows; r++) {
        const uint8_t* masks = r < rows ? job->masks : job->next_masks;
        log_softmax(job, m.log_pi + r * n, masks ? masks + (first + r % rows) * n : 0);
    }
    for (int64_t c = 0; c < n_critics; c++) {
        utilities(job, job->critics + c, m.x, m.critic_hidden + c * rows * hidden, rows, m.q + c * rows * n);
        utilities(job, job->critic_targets + c, m.x + rows * n_obs, m.target_hidden, rows, m.q_next + c * rows * n);
    }

    double sums[DISCRETE_N_LOGS] = {0};
    for (int64_t r = 0; r < rows; r++) losses_of_row(job, &m, first, r, rows, sums);
    for (int i = 0; i < DISCRETE_N_LOGS; i++) step->logs[thread * DISCRETE_N_LOGS + i] = sums[i] / (double)step->batch;

    int64_t* finite = step->finite + thread * step->n_losses;
    finite[0] = finite[1] = 1;
    for (int64_t c = 0; c < n_critics; c++) {
        const Rows pass = {m.x, n_obs, rows, m.critic_hidden + c * rows * hidden, rows, 0};
        backward(job->critics + c, &pass, m.q + c * rows * n, rows, gradients, m.scratch, 0, 0);
        finite[1] &= gradients_are_finite(job->critics + c, gradients, step->n_threads);
    }
    of_actor.rows = rows;
    backward(job->actor, &of_actor, m.d_logits, rows, gradients, m.scratch, 0, 0);
    finite[0] = gradients_are_finite(job->actor, gradients, step->n_threads);
    if (job->temperature_gradient >= 0)  // Eq. 11
        gradients[job->temperature_gradient] =
            (float)((sums[DISCRETE_ENTROPY] - job->target_ratio * sums[DISCRETE_MAX_ENTROPY]) / (double)step->batch);
}

static int actions_exist(const DiscreteStep* job) {
    for (int64_t i = 0; i < job->step.batch * job->n_branches; i++)
        if (job->actions[i] < 0 || job->actions[i] >= job->sizes[i % job->n_branches]) return 0;
    return 1;
}

int discretesac_step(DiscreteStep* job) { return actions_exist(job) ? run_step(rows_of_thread, job) : -1; }
