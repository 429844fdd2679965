// Threads that live for one step. None is left between two steps, so that a process may fork at any time.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "step.h"

// PATIENCE: looks at a counter before a waiting thread offers its processor to others
enum { MAX_THREADS = 256, PATIENCE = 2000 };

typedef struct {
    const Phase* phases;
    int64_t n_phases, n_threads, n_started;
    void* job;
    atomic_long next_thread, ready, done;
} Team;

static void wait_until(atomic_long* counter, int64_t number) {
    for (int64_t looks = 0; atomic_load_explicit(counter, memory_order_acquire) < number; looks++)
        if (looks > PATIENCE) sched_yield();
}

static void work(Team* team, int64_t thread) {
    for (int64_t phase = 0; phase < team->n_phases; phase++) {
        team->phases[phase](team->job, thread);
        // The first thread does the shares of those that could not be started
        if (thread == 0)
            for (int64_t t = team->n_started; t < team->n_threads; t++) team->phases[phase](team->job, t);
        atomic_fetch_add_explicit(&team->done, 1, memory_order_acq_rel);
        wait_until(&team->done, (phase + 1) * team->n_started);
    }
}

static void* start(void* argument) {
    Team* team = argument;
    wait_until(&team->ready, 1);
    work(team, atomic_fetch_add_explicit(&team->next_thread, 1, memory_order_relaxed));
    return 0;
}

void run_phases(const Phase* phases, int64_t n_phases, void* job, int64_t n_threads) {
    Team team = {.phases = phases, .n_phases = n_phases, .n_threads = n_threads, .n_started = 1, .job = job, .next_thread = 1};
    pthread_t threads[MAX_THREADS];
    while (team.n_started < n_threads && team.n_started < MAX_THREADS &&
           pthread_create(&threads[team.n_started], 0, start, &team) == 0)
        team.n_started++;
    atomic_store_explicit(&team.ready, 1, memory_order_release);
    work(&team, 0);
    for (int64_t t = 1; t < team.n_started; t++) pthread_join(threads[t], 0);
}
