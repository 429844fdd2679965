// Algorithm 1 of arXiv:1801.01290v2: each thread does its rows of the batch for all networks, then its share of the optimizer.
#include "softac_v1.h"

#include <math.h>
#include <string.h>

static const float LOG_STD_MIN = -20.0f, LOG_STD_MAX = 2.0f;  // SB3's
static const float HALF_LOG_2PI = 0.918938533f, LOG_2 = 0.693147181f;

typedef struct {
    float *x;               // [2 rows, n_obs + n_actions]: the batch's actions, then the policy's
    float *actor_hidden, *value_hidden, *critic_hidden;
    float *actor_out;       // [rows, 2 n_actions]: mean, log_std
    float *v, *v_next;      // [rows]
    float *q;               // [n_critics, 2 rows]
    float *deviation;       // [rows, n_actions]: std * noise
    float *log_pi;          // [rows]
    float *d_actions;       // [rows, n_actions]: gradient of the policy loss through the critics
    float *d_part;          // [rows, n_actions]: the part of one critic
    float *d_out;           // gradients of outputs of a network
    float *scratch;
} Memory;

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static Memory lay_out(const SoftACStep* job, int64_t rows, Workspace* w) {
    const int64_t n_actions = job->n_actions;
    const int64_t critic_hidden = hidden_size(job->critics);
    const int64_t widest = larger(critic_hidden, larger(hidden_size(job->actor), hidden_size(job->value)));
    Memory m = {0};
    m.x = take(w, 2 * rows * (job->n_obs + n_actions));
    m.actor_hidden = take(w, rows * hidden_size(job->actor));
    m.value_hidden = take(w, rows * hidden_size(job->value));
    m.critic_hidden = take(w, job->n_critics * 2 * rows * critic_hidden);
    m.actor_out = take(w, rows * 2 * n_actions);
    m.v = take(w, rows);
    m.v_next = take(w, rows);
    m.q = take(w, job->n_critics * 2 * rows);
    m.deviation = take(w, rows * n_actions);
    m.log_pi = take(w, rows);
    m.d_actions = take(w, rows * n_actions);
    m.d_part = take(w, rows * n_actions);
    m.d_out = take(w, 2 * rows * larger(n_actions, 1));
    m.scratch = take(w, 4 * rows * widest);
    return m;
}

const int64_t softac_v1_size = sizeof(SoftACStep);

int64_t softac_v1_workspace(const SoftACStep* job) {
    Workspace size = {0, 0};
    lay_out(job, largest_share(job->step.batch, job->step.n_threads), &size);
    return size.used;
}

// Eq. 11 and 21: squashed actions into x, their log-densities, and what their gradients need.
static void sample_actions(const SoftACStep* job, const Memory* m, int64_t first, int64_t rows) {
    const int64_t n_obs = job->n_obs, n = job->n_actions, width = n_obs + n;
    for (int64_t r = 0; r < rows; r++) {
        float log_pi = 0.0f;
        for (int64_t j = 0; j < n; j++) {
            const float mean = m->actor_out[r * 2 * n + j], noise = job->noise[(first + r) * n + j];
            float log_std = m->actor_out[r * 2 * n + n + j];
            log_std = log_std < LOG_STD_MIN ? LOG_STD_MIN : log_std > LOG_STD_MAX ? LOG_STD_MAX : log_std;
            const float deviation = expf(log_std) * noise, u = mean + deviation, z = -2.0f * u;
            const float softplus = z > 20.0f ? z : log1pf(expf(z));
            m->deviation[r * n + j] = deviation;
            m->x[(rows + r) * width + n_obs + j] = tanhf(u);
            log_pi += -0.5f * noise * noise - log_std - HALF_LOG_2PI - 2.0f * (LOG_2 - u - softplus);
        }
        m->log_pi[r] = log_pi;
    }
}

// The Q-value that the policy loss uses, and each critic's part in its gradient: equal Q-values share it, as in PyTorch.
static float policy_q(const SoftACStep* job, const float* q, int64_t stride, float* smallest_of_all, float* n_smallest) {
    float smallest = q[0];
    for (int64_t c = 1; c < job->n_critics; c++) {
        const float value = q[c * stride];
        smallest = value < smallest || value != value ? value : smallest;
    }
    *smallest_of_all = smallest;
    *n_smallest = 0.0f;
    for (int64_t c = 0; c < job->n_critics; c++) *n_smallest += q[c * stride] == smallest;
    return job->min_q ? smallest : q[0];
}

// Backward pass of one critic: its own loss on the first rows; on those of the policy's actions only where it counts.
static void critic_backward(const SoftACStep* job, const Memory* m, int64_t critic, const float* d_q, int64_t rows,
                            float* gradients) {
    const Network* net = job->critics + critic;
    const int64_t width = job->n_obs + job->n_actions, n = job->n_actions;
    float* hidden = m->critic_hidden + critic * 2 * rows * hidden_size(net);
    int64_t n_used = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (d_q[rows + r] == 0.0f) continue;
        float* layer = hidden;
        for (int64_t i = 0; i < net->n_hidden; i++) {
            const int64_t size = net->layers[i].n_out;
            if (n_used != r) memcpy(layer + (rows + n_used) * size, layer + (rows + r) * size, sizeof(float) * (size_t)size);
            layer += 2 * rows * size;
        }
        m->d_out[rows + n_used] = d_q[rows + r];
        n_used++;
    }
    memcpy(m->d_out, d_q, sizeof(float) * (size_t)rows);
    const Rows pass = {m->x, width, rows + n_used, hidden, 2 * rows, 0};
    backward(net, &pass, m->d_out, rows, gradients, m->scratch, job->n_obs, m->d_part);
    n_used = 0;
    for (int64_t r = 0; r < rows; r++) {
        if (d_q[rows + r] == 0.0f) continue;
        for (int64_t j = 0; j < n; j++) m->d_actions[r * n + j] += m->d_part[n_used * n + j];
        n_used++;
    }
}

static void rows_of_thread(void* argument, int64_t thread) {
    const SoftACStep* job = argument;
    const int64_t n_obs = job->n_obs, n = job->n_actions, width = n_obs + n, n_critics = job->n_critics;
    const int64_t first = share(job->step.batch, thread, job->step.n_threads);
    const int64_t rows = share(job->step.batch, thread + 1, job->step.n_threads) - first;
    Workspace workspace = {job->step.workspace + thread * job->step.workspace_size, 0};
    const Memory m = lay_out(job, rows, &workspace);
    float* gradients = job->step.optimizer.gradients + thread * job->step.optimizer.n_gradients;
    const float alpha = (float)job->alpha, mean = 1.0f / (float)job->step.batch;

    for (int64_t r = 0; r < rows; r++) {
        memcpy(m.x + r * width, job->obs + (first + r) * n_obs, sizeof(float) * (size_t)n_obs);
        memcpy(m.x + r * width + n_obs, job->actions + (first + r) * n, sizeof(float) * (size_t)n);
        memcpy(m.x + (rows + r) * width, job->obs + (first + r) * n_obs, sizeof(float) * (size_t)n_obs);
    }
    // Forward passes; V's target first, whose hidden layers nobody needs afterwards
    const Rows next = {job->next_obs + first * n_obs, n_obs, rows, m.value_hidden, rows, m.v_next};
    forward(job->value_target, &next);
    const Rows of_value = {m.x, width, rows, m.value_hidden, rows, m.v};
    forward(job->value, &of_value);
    const Rows of_actor = {m.x, width, rows, m.actor_hidden, rows, m.actor_out};
    forward(job->actor, &of_actor);
    sample_actions(job, &m, first, rows);
    for (int64_t c = 0; c < n_critics; c++) {
        float* hidden = m.critic_hidden + c * 2 * rows * hidden_size(job->critics);
        const Rows of_critic = {m.x, width, 2 * rows, hidden, 2 * rows, m.q + c * 2 * rows};
        forward(job->critics + c, &of_critic);
    }

    // Losses, and their gradients with respect to Q and V, which take their places
    double sums[SOFTAC_N_LOGS] = {0};
    for (int64_t r = 0; r < rows; r++) {
        const int64_t k = first + r;
        float smallest, n_smallest;
        const float q_pi = policy_q(job, m.q + rows + r, 2 * rows, &smallest, &n_smallest);
        const float q_target = job->rewards[k] + job->discounts[k] * (1.0f - job->dones[k]) * m.v_next[r];  // Eq. 8
        const float v_error = m.v[r] - (smallest - alpha * m.log_pi[r]);                                    // Eq. 3, 5
        sums[SOFTAC_ACTOR_LOSS] += alpha * m.log_pi[r] - q_pi;                                              // Eq. 12
        sums[SOFTAC_VALUE_LOSS] += 0.5f * v_error * v_error;
        sums[SOFTAC_ENTROPY] -= m.log_pi[r];
        sums[SOFTAC_V_MEAN] += m.v[r];
        m.v[r] = mean * v_error;
        for (int64_t c = 0; c < n_critics; c++) {
            float *q = m.q + c * 2 * rows + r, *q_of_pi = q + rows;
            const float error = *q - q_target;
            sums[SOFTAC_CRITIC_LOSS] += 0.5f * error * error;  // Eq. 7
            sums[SOFTAC_Q_MEAN] += *q / (float)n_critics;
            *q = mean * error;
            const float part = job->min_q ? (*q_of_pi == smallest ? 1.0f / n_smallest : 0.0f) : (c == 0 ? 1.0f : 0.0f);
            *q_of_pi = -mean * part;
        }
    }
    for (int i = 0; i < SOFTAC_N_LOGS; i++) job->step.logs[thread * SOFTAC_N_LOGS + i] = sums[i] / (double)job->step.batch;

    // Backward passes
    memset(m.d_actions, 0, sizeof(float) * (size_t)(rows * n));
    for (int64_t c = 0; c < n_critics; c++) critic_backward(job, &m, c, m.q + c * 2 * rows, rows, gradients);
    backward(job->value, &of_value, m.v, rows, gradients, m.scratch, 0, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < n; j++) {
            const float action = m.x[(rows + r) * width + n_obs + j], log_std = m.actor_out[r * 2 * n + n + j];
            const float d_u = m.d_actions[r * n + j] * (1.0f - action * action) + 2.0f * alpha * mean * action;
            const int inside = log_std >= LOG_STD_MIN && log_std <= LOG_STD_MAX;
            m.d_out[r * 2 * n + j] = d_u;
            m.d_out[r * 2 * n + n + j] = inside ? d_u * m.deviation[r * n + j] - alpha * mean : 0.0f;
        }
    backward(job->actor, &of_actor, m.d_out, rows, gradients, m.scratch, 0, 0);
    if (job->temperature_gradient >= 0) {  // Eq. 18 of arXiv:1812.05905v2
        const double nats = job->target_entropy * (double)rows / (double)job->step.batch;
        gradients[job->temperature_gradient] = (float)(sums[SOFTAC_ENTROPY] / (double)job->step.batch - nats);
    }

    int64_t* finite = job->step.finite + thread * 3;
    finite[0] = gradients_are_finite(job->actor, gradients, job->step.n_threads);
    finite[1] = 1;
    for (int64_t c = 0; c < n_critics; c++)
        finite[1] &= gradients_are_finite(job->critics + c, gradients, job->step.n_threads);
    finite[2] = gradients_are_finite(job->value, gradients, job->step.n_threads);
}

int softac_v1_step(SoftACStep* job) { return run_step(rows_of_thread, job); }
