/*
 * idle.c - 8 threads that allocate a little and then do nothing: what a plain program's threads cost when locked.
 *
 * Says "ready PID"; at each line it makes one thread more, which allocates, and says how many there are; ends
 * with its stdin. With the argument "malloc" each thread allocates 100 kB, else one byte.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 8 };

static size_t size = 1;
static pthread_barrier_t made;

static void *idle(void *unused)
{
    char *volatile kept = malloc(size);

    if (kept)
        memset(kept, 1, size);
    pthread_barrier_wait(&made);
    for (;;)
        pause();
    return unused;
}

static int add(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, idle, NULL))
        return 0;
    pthread_barrier_wait(&made);
    return 1;
}

int main(int argc, char **argv)
{
    char line[64];
    int count = 0;

    if (argc > 1 && strcmp(argv[1], "malloc") == 0)
        size = 100000;
    pthread_barrier_init(&made, NULL, 2);
    while (count < THREADS && add())
        count++;
    if (count < THREADS)
        return 1;
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!add())
            return 2;
        printf("%d\n", ++count);
        fflush(stdout);
    }
    return 0;
}
