// What the gradient steps of all algorithms share. Networks and their inputs are float32 and row-major; Python owns all memory.
#ifndef SB3_SOFTAC_STEP_H
#define SB3_SOFTAC_STEP_H

#include <stdint.h>

#include "product.h"

// ---- threads.c ----

// One phase of a step: what thread `thread` does of it.
typedef void (*Phase)(void* job, int64_t thread);

// Runs the phases one after the other, each on all threads at once. All threads have done one before the next begins.
void run_phases(const Phase* phases, int64_t n_phases, void* job, int64_t n_threads);

// The part of `n` things that belongs to a thread: from share(n, thread, n_threads) to share(n, thread + 1, n_threads).
static inline int64_t share(int64_t n, int64_t thread, int64_t n_threads) { return n * thread / n_threads; }

// The largest of these parts.
static inline int64_t largest_share(int64_t n, int64_t n_threads) { return (n + n_threads - 1) / n_threads; }

// ---- network.c ----

// A linear layer. Gradients of weight and bias are stored at these places of a thread's buffer; -1 for a target network.
typedef struct {
    const float *weight, *bias;
    int64_t weight_gradient, bias_gradient;
    int64_t n_in, n_out;
    int64_t in_first;  // whether the weight is [n_in, n_out] (StackedLinear), not [n_out, n_in] (nn.Linear)
} Layer;

enum { RELU = 0, TANH = 1 };

// Hidden layers one after another, then heads that all read the last hidden layer; their outputs are stored side by side.
typedef struct {
    const Layer* layers;  // the hidden ones, then the heads
    int64_t n_hidden, n_heads, activation;
} Network;

// Rows of a network's input, output and gradients that one thread works on.
typedef struct {
    const float* x;  // [rows, n_in], rows x_stride apart
    int64_t x_stride, rows;
    float* hidden;  // outputs of the hidden layers, one layer after another, each [capacity, n_out]
    int64_t capacity;
    float* out;  // [rows, n_out of all heads]
} Rows;

int64_t n_outputs(const Network* net);

// Size of Rows.hidden per row.
int64_t hidden_size(const Network* net);

void forward(const Network* net, const Rows* rows);

// Gradients of a loss with respect to the parameters, from those with respect to the outputs. The first `trained` rows count.
// For the remaining rows: the gradient with respect to the inputs from column `first_input` on, into `d_input`
// [rows - trained, n_in - first_input]; not if it is NULL. `scratch` has room for 2 * rows * (largest hidden layer).
void backward(const Network* net, const Rows* rows, const float* d_out, int64_t trained, float* gradients, float* scratch,
              int64_t first_input, float* d_input);

// Whether all gradients of a network are finite, with room to add those of all threads.
int gradients_are_finite(const Network* net, const float* gradients, int64_t n_threads);

// ---- optimizer.c ----

// A parameter tensor and what Adam (arXiv:1412.6980) or AdamW (arXiv:1711.05101) keeps of it.
typedef struct {
    float *parameter, *exp_avg, *exp_avg_sq, *step;
    float* max_exp_avg_sq;  // NULL without AMSGrad
    float* target;          // the tensor of the target network that follows it, or NULL
    int64_t size, gradient;
    double lr, beta1, beta2, eps, weight_decay;
    int64_t decoupled;  // whether the weight decay is AdamW's
} Slot;

typedef struct {
    const Slot* slots;  // in the order of their gradients, which lie one after another
    int64_t n_slots;
    float* gradients;  // [n_threads, n_gradients]
    int64_t n_gradients;
    double tau;  // weight of the parameters in the targets; 0 leaves the targets alone
} Optimizer;

// One step of a thread's share of all parameters and their targets, by the sum of all threads' gradients.
void optimizer_step(const Optimizer* optimizer, int64_t thread, int64_t n_threads);

// Count the step in all slots, once all threads have done their share.
void count_step(const Optimizer* optimizer);

// ---- step.c ----

// What all steps share. Logs and flags have one row per thread; the first row is the result.
typedef struct {
    int64_t batch, n_threads;
    int64_t n_logs, n_losses;
    double* logs;     // [n_threads, n_logs]: means over the batch, each thread's part of them
    int64_t* finite;  // [n_threads, n_losses]: whether the gradient of a loss is finite
    Optimizer optimizer;
    float* workspace;  // [n_threads, workspace_size]
    int64_t workspace_size;
} Step;

// Compute logs and gradients by `rows`, then step the optimizer. Returns 1, or 0 if one of them is not finite: nothing is
// changed then. `job` begins with its Step.
int run_step(Phase rows, void* job);

// ---- memory of a thread ----

// Parts of a thread's memory, handed out one after another.
typedef struct {
    float* base;  // NULL while only the size is asked for
    int64_t used;
} Workspace;

static inline float* take(Workspace* workspace, int64_t count) {
    float* part = workspace->base ? workspace->base + workspace->used : 0;
    workspace->used += (count + 15) / 16 * 16;
    return part;
}

#endif
