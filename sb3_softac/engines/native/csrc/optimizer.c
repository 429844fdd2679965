// Adam, AdamW and the targets: each thread takes its share of all elements.
#include <math.h>

#include "step.h"

enum { BLOCK = 1024 };

// The factors of one slot, as PyTorch computes them: in double precision, then rounded.
typedef struct {
    float keep, decay, beta2, new1, new2, step_size, root, eps;
} Factors;

static Factors factors(const Slot* slot) {
    const double steps = *slot->step + 1.0;  // counted by count_step, when all threads are done
    return (Factors){
        .keep = slot->decoupled ? (float)(1.0 - slot->lr * slot->weight_decay) : 1.0f,
        .decay = slot->decoupled ? 0.0f : (float)slot->weight_decay,
        .beta2 = (float)slot->beta2,
        .new1 = (float)(1.0 - slot->beta1),
        .new2 = (float)(1.0 - slot->beta2),
        .step_size = (float)(slot->lr / (1.0 - pow(slot->beta1, steps))),
        .root = (float)(1.0 / sqrt(1.0 - pow(slot->beta2, steps))),
        .eps = (float)slot->eps,
    };
}

// `count` elements of a slot from `first` on, by their gradients.
static void step_block(const Slot* slot, const Factors* f, int64_t first, int64_t count, const float* restrict gradients,
                       float tau) {
    float* restrict p = slot->parameter + first;
    float* restrict m = slot->exp_avg + first;
    float* restrict v = slot->exp_avg_sq + first;
    float second[BLOCK];
    for (int64_t i = 0; i < count; i++) {
        const float kept = f->keep * p[i];
        const float g = f->decay != 0.0f ? gradients[i] + f->decay * p[i] : gradients[i];  // 0 times infinity is not 0
        p[i] = kept;
        m[i] = f->new1 < 0.5f ? m[i] + f->new1 * (g - m[i]) : g - (1.0f - f->new1) * (g - m[i]);  // as PyTorch's lerp
        v[i] = f->beta2 * v[i] + f->new2 * g * g;
        second[i] = v[i];
    }
    if (slot->max_exp_avg_sq) {
        float* restrict largest = slot->max_exp_avg_sq + first;
        for (int64_t i = 0; i < count; i++) {
            largest[i] = largest[i] > second[i] ? largest[i] : second[i];
            second[i] = largest[i];
        }
    }
    for (int64_t i = 0; i < count; i++) p[i] -= f->step_size * m[i] / (sqrtf(second[i]) * f->root + f->eps);
    if (slot->target && tau != 0.0f) {
        float* restrict target = slot->target + first;
        for (int64_t i = 0; i < count; i++) {
            const float gap = p[i] - target[i];
            target[i] = tau < 0.5f ? target[i] + tau * gap : p[i] - (1.0f - tau) * gap;
        }
    }
}

void count_step(const Optimizer* optimizer) {
    for (int64_t k = 0; k < optimizer->n_slots; k++) *optimizer->slots[k].step += 1.0f;
}

void optimizer_step(const Optimizer* optimizer, int64_t thread, int64_t n_threads) {
    const int64_t n = optimizer->n_gradients, low = share(n, thread, n_threads), high = share(n, thread + 1, n_threads);
    for (int64_t k = 0; k < optimizer->n_slots; k++) {
        const Slot* slot = optimizer->slots + k;
        const int64_t end = slot->gradient + slot->size < high ? slot->gradient + slot->size : high;
        int64_t at = slot->gradient > low ? slot->gradient : low;
        if (at >= end) continue;
        const Factors f = factors(slot);
        for (; at < end; at += BLOCK) {
            const int64_t count = end - at < BLOCK ? end - at : BLOCK;
            float sum[BLOCK];
            for (int64_t i = 0; i < count; i++) sum[i] = optimizer->gradients[at + i];
            for (int64_t t = 1; t < n_threads; t++)
                for (int64_t i = 0; i < count; i++) sum[i] += optimizer->gradients[t * n + at + i];
            step_block(slot, &f, at - slot->gradient, count, sum, (float)optimizer->tau);
        }
    }
}
