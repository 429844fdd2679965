// One step: rows of the batch on all threads, a look at what came out, then the optimizer on all threads.
#include "step.h"

#include <math.h>

static int all_finite(const Step* step) {
    for (int64_t i = 0; i < step->n_threads * step->n_logs; i++)
        if (!isfinite(step->logs[i])) return 0;
    for (int64_t i = 0; i < step->n_threads * step->n_losses; i++)
        if (!step->finite[i]) return 0;
    return 1;
}

static void optimize(void* job, int64_t thread) {
    const Step* step = job;
    if (all_finite(step)) optimizer_step(&step->optimizer, thread, step->n_threads);
}

int run_step(Phase rows, void* job) {
    const Step* step = job;
    const Phase phases[] = {rows, optimize};
    run_phases(phases, 2, job, step->n_threads);
    const int finite = all_finite(step);
    if (finite) count_step(&step->optimizer);
    for (int64_t t = 1; t < step->n_threads; t++) {
        for (int64_t i = 0; i < step->n_logs; i++) step->logs[i] += step->logs[t * step->n_logs + i];
        for (int64_t i = 0; i < step->n_losses; i++) step->finite[i] &= step->finite[t * step->n_losses + i];
    }
    return finite;
}
