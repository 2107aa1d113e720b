/*
 * crowd.c - threads that note how long each was ever kept from running, in a large process.
 *
 *   crowd THREADS MEGABYTES   says `ready PID`, and answers each line on stdin with a number:
 *     1   one of the threads calls mlockall: how long the call took, ns
 *     2   forget all gaps: 0
 *     3   the longest gap of any thread since then, ns, less the pause that it makes itself
 *     4   munlockall: 0
 *
 * A thread that spins would be kept from running by the other threads on few CPUs. It pauses
 * instead: what it is late then is the stop, and what the machine adds.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_NS = 2000000, STACK_BYTES = 1 << 16, MOST_THREADS = 1024 };

static _Atomic int64_t longest[MOST_THREADS];
static _Atomic int wanted;          /* thread 0 shall lock */
static _Atomic int64_t locking_ns;  /* and says how long it took */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *note_gaps(void *number) {
    long thread = (long)number;
    struct timespec pause = {0, PAUSE_NS};
    for (int64_t before = now_ns();;) {
        nanosleep(&pause, NULL);
        int64_t now = now_ns(), gap = now - before - PAUSE_NS;
        if (gap > longest[thread]) longest[thread] = gap;
        before = now;
        if (thread == 0 && wanted) {
            wanted = 0;
            if (mlockall(MCL_CURRENT | MCL_FUTURE)) { perror("mlockall"); exit(1); }
            locking_ns = now_ns() - now;
        }
    }
    return NULL;
}

static int64_t lock_itself(void) {
    struct timespec moment = {0, 100000};
    locking_ns = 0;
    wanted = 1;
    while (!locking_ns) nanosleep(&moment, NULL);
    return locking_ns;
}

static int64_t longest_of_all(long threads) {
    int64_t found = 0;
    for (long at = 0; at < threads; at++)
        if (longest[at] > found) found = longest[at];
    return found;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long threads = atol(argv[1]);
    size_t bytes = (size_t)atol(argv[2]) << 20;
    char line[32], *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || threads > MOST_THREADS) return 2;
    madvise(memory, bytes, MADV_NOHUGEPAGE);  /* the same pages on every machine */
    memset(memory, 1, bytes);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    for (long at = 0; at < threads; at++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, note_gaps, (void *)at)) return 2;
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int64_t answer = 0;
        switch (atoi(line)) {
        case 1: answer = lock_itself(); break;
        case 2: for (long at = 0; at < threads; at++) longest[at] = 0; break;
        case 3: answer = longest_of_all(threads); break;
        case 4: munlockall(); break;
        }
        printf("%lld\n", (long long)answer);
        fflush(stdout);
    }
    return 0;
}
