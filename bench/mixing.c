/*
 * mixing.c - malloc and free of mixed sizes, from the first call on: in main alone, then in main and 4 threads.
 *
 * Says "mixed FAULTS_MAIN FAULTS_ALL": minor and major faults that each of the two took. write() to descriptor
 * -1 marks where each begins and ends, for who counts the system calls between them (strace).
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { THREADS = 4, SLOTS = 64, STEPS = 20000 };

/* from what a cache keeps to what is mapped by itself by default; 64 of these come to 24 MiB at most */
static const size_t SIZES[] = {16, 100, 1000, 5000, 40000, 150000, 600000};
static pthread_barrier_t begin, end, leave; /* a thread that ends gives its stack back: not before the mark */

static long faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

static void mark(const char *where)
{
    if (write(-1, where, strlen(where)) == 0)
        exit(1);
}

static void mix(unsigned seed)
{
    char *slots[SLOTS] = {0};

    for (int step = 0; step < STEPS; step++) {
        seed = seed * 1103515245 + 12345;
        char **slot = &slots[seed >> 16 & (SLOTS - 1)];
        size_t size = SIZES[(seed >> 24) % (sizeof SIZES / sizeof *SIZES)];

        free(*slot);
        *slot = malloc(size);
        if (!*slot)
            exit(2);
        for (size_t at = 0; at < size; at += 4096)
            (*slot)[at] = 1;
    }
    for (int slot = 0; slot < SLOTS; slot++)
        free(slots[slot]);
}

static void *work(void *seed)
{
    pthread_barrier_wait(&begin);
    mix((unsigned)(size_t)seed);
    pthread_barrier_wait(&end);
    pthread_barrier_wait(&leave);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    long alone, all;

    mark("begin");
    alone = faults();
    mix(1);
    alone = faults() - alone;
    mark("end");

    pthread_barrier_init(&begin, NULL, THREADS + 1);
    pthread_barrier_init(&end, NULL, THREADS + 1);
    pthread_barrier_init(&leave, NULL, THREADS + 1);
    for (size_t at = 0; at < THREADS; at++)
        if (pthread_create(&threads[at], NULL, work, (void *)(at + 2)))
            return 3;
    usleep(100000); /* each thread has come to the barrier, its stack in use */
    mark("begin");
    all = faults();
    pthread_barrier_wait(&begin);
    mix(1);
    pthread_barrier_wait(&end);
    all = faults() - all;
    mark("end");
    pthread_barrier_wait(&leave);
    for (size_t at = 0; at < THREADS; at++)
        pthread_join(threads[at], NULL);
    printf("mixed %ld %ld\n", alone, all);
    return 0;
}
