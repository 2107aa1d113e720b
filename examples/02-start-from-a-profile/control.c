/*
 * control.c - a control loop in C as people write them: 1 kHz, and threads beside it that allocate.
 *
 * Why: threads and malloc are what a lock on future memory makes dear, and most programs have both. It
 * knows nothing of memory locking. It says `ready PID` once all its threads run, works until its
 * standard input ends, then says how it went.
 *
 *   cc -O2 -pthread -o control control.c && ./control
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    PERIOD_NS = 1000000,
    NS_PER_SECOND = 1000000000,
    HELPERS = 7,             /* sensors, bus, log and the like: 8 threads with the loop */
    HELPER_PERIODS = 10,     /* they run at 100 Hz */
    MESSAGES = 64,           /* messages that each of them keeps */
    MESSAGE_BYTES = 512,
};

struct loop {
    uint64_t cycles, late, worst_ns;
};

static atomic_bool stop;
static atomic_uint_fast64_t newest;  /* what the helpers tell the loop */

static void next_period(struct timespec *wake, long periods) {
    wake->tv_nsec += periods * PERIOD_NS;
    if (wake->tv_nsec >= NS_PER_SECOND) { wake->tv_nsec -= NS_PER_SECOND; wake->tv_sec++; }
}

static uint64_t ns_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - start->tv_sec) * NS_PER_SECOND + now.tv_nsec - start->tv_nsec);
}

/* Make a message, keep it, drop the oldest: what a bus or a log does. */
static void *help(void *unused) {
    char *messages[MESSAGES] = {NULL};
    struct timespec wake;
    clock_gettime(CLOCK_MONOTONIC, &wake);
    for (uint64_t number = 0; !atomic_load(&stop); number++) {
        char **slot = &messages[number % MESSAGES];
        free(*slot);
        *slot = malloc(MESSAGE_BYTES);
        if (!*slot) abort();
        snprintf(*slot, MESSAGE_BYTES, "message %llu", (unsigned long long)number);
        atomic_store(&newest, number);
        next_period(&wake, HELPER_PERIODS);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
    }
    for (int slot = 0; slot < MESSAGES; slot++) free(messages[slot]);
    return unused;
}

static void *control(void *argument) {
    struct loop *loop = argument;
    struct timespec wake, began;
    volatile uint64_t command = 0;
    clock_gettime(CLOCK_MONOTONIC, &wake);
    while (!atomic_load(&stop)) {
        next_period(&wake, 1);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
        clock_gettime(CLOCK_MONOTONIC, &began);
        command += atomic_load(&newest);
        uint64_t took = ns_since(&began);
        if (took > loop->worst_ns) loop->worst_ns = took;
        if (took > PERIOD_NS) loop->late++;
        loop->cycles++;
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*function)(void *), void *argument) {
    if (pthread_create(thread, NULL, function, argument) != 0) {
        fprintf(stderr, "control: no thread\n");
        exit(1);
    }
}

int main(void) {
    struct loop loop = {0};
    pthread_t threads[HELPERS + 1];
    for (int helper = 0; helper < HELPERS; helper++) start(&threads[helper], help, NULL);
    start(&threads[HELPERS], control, &loop);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    while (getchar() != EOF) continue;
    atomic_store(&stop, true);
    for (int thread = 0; thread <= HELPERS; thread++) pthread_join(threads[thread], NULL);
    printf("cycles %llu late %llu worst_ns %llu\n", (unsigned long long)loop.cycles,
           (unsigned long long)loop.late, (unsigned long long)loop.worst_ns);
    return 0;
}
