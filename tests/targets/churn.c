/* THREADS threads that map, write, check and unmap memory, and fork children, until a line comes.

   It says "ready PID" once all have begun, and at the end "done ROUNDS FORKS", or "bad ..." if
   memory or a child was not as it should be. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, MOST_PAGES = 32, FORK_EVERY = 64, MOST_THREADS = 256 };

static volatile int ending;
static long rounds[MOST_THREADS], forks[MOST_THREADS];
static pthread_barrier_t begun;

static void bad(const char *what, long thread)
{
    printf("bad %s in thread %ld after %ld rounds\n", what, thread, rounds[thread]);
    fflush(stdout);
    _exit(1);
}

static void fork_one(long thread)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    if (child < 0)
        bad("fork", thread);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
        bad("child", thread);
    forks[thread]++;
}

static void *churn(void *number)
{
    long thread = (long)number;
    unsigned seed = (unsigned)thread + 1;
    pthread_barrier_wait(&begun);
    while (!ending) {
        size_t size = (1 + rand_r(&seed) % MOST_PAGES) * PAGE;
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            bad("mmap", thread);
        memset(memory, (int)thread, size);
        for (size_t at = 0; at < size; at += 512)
            if (memory[at] != (char)thread)
                bad("memory", thread);
        if (++rounds[thread] % FORK_EVERY == 0)
            fork_one(thread);
        munmap(memory, size);
        usleep(500);
    }
    return NULL;
}

int main(int count, char **words)
{
    static pthread_t threads[MOST_THREADS];
    long threads_count = count > 1 ? atol(words[1]) : 64, all = 0, children = 0;
    char line[16];
    pthread_barrier_init(&begun, NULL, (unsigned)threads_count + 1);
    for (long at = 0; at < threads_count; at++)
        pthread_create(&threads[at], NULL, churn, (void *)at);
    pthread_barrier_wait(&begun);
    printf("ready %d\n", getpid());
    fflush(stdout);
    (void)!read(0, line, sizeof line);
    ending = 1;
    for (long at = 0; at < threads_count; at++) {
        pthread_join(threads[at], NULL);
        all += rounds[at];
        children += forks[at];
    }
    printf("done %ld %ld\n", all, children);
    return 0;
}
