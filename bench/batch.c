/*
 * batch.c - one operation, timed in batches on demand.
 *
 * Why: two such programs, one under rtlaunch and one not, are asked in turn for a few milliseconds
 * of work each, so that the noise of the machine falls on both alike.
 *
 *   batch OPERATION [ARGUMENT] [self]    says `ready PID`; for each line `COUNT` on stdin does so many
 *                                        operations and answers with the nanoseconds that they took
 *
 * `self`: at main(), touch 512 KiB of stack and call mlockall(MCL_CURRENT | MCL_FUTURE), as a program
 * does that locks itself.
 * It must not do anything between two lines: a program at rest is one of the measurements.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    MIB = 1 << 20,
    STACK = 512 * 1024,
    MAPPED = 16 * PAGE,
    TOUCHED_PAGES = 1024,
    NEAR_PART = 512,
    FAR_EVERY = 1024,
};

static const char *argument;

static void die(const char *what) { perror(what); exit(1); }

static void check(int error, const char *what) {
    if (error) { fprintf(stderr, "batch: %s: %s\n", what, strerror(error)); exit(1); }
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void lock_self(void) {
    volatile char stack[STACK];
    for (size_t at = 0; at < STACK; at += PAGE) stack[at] = 1;
    (void)stack[0];
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) die("mlockall");
}

static void *map(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) die("mmap");
    return at;
}

static uint64_t mmap_and_munmap(unsigned long count) {
    uint64_t start = now_ns();
    while (count--) munmap(map(MAPPED), MAPPED);
    return now_ns() - start;
}

/* Minor faults; giving the pages back is not counted. */
static uint64_t touch(unsigned long count) {
    static volatile char *region;
    uint64_t took = 0;
    if (!region) {
        region = map(TOUCHED_PAGES * PAGE);
        madvise((void *)region, TOUCHED_PAGES * PAGE, MADV_NOHUGEPAGE);
    }
    for (unsigned long done = 0; done < count; done += TOUCHED_PAGES) {
        uint64_t start = now_ns();
        for (size_t page = 0; page < TOUCHED_PAGES; page++) region[page * PAGE] = 1;
        took += now_ns() - start;
        if (madvise((void *)region, TOUCHED_PAGES * PAGE, MADV_DONTNEED)) die("MADV_DONTNEED");
    }
    return took;
}

static void *nothing(void *unused) { return unused; }

/* What the creator waits for; the thread's end is not counted. */
static uint64_t create_threads(unsigned long count) {
    uint64_t took = 0;
    for (pthread_t thread; count--;) {
        uint64_t start = now_ns();
        check(pthread_create(&thread, NULL, nothing, NULL), "pthread_create");
        took += now_ns() - start;
        check(pthread_join(thread, NULL), "pthread_join");
    }
    return took;
}

static int there[2], back[2];

static void *echo(void *unused) {
    for (char byte; read(there[0], &byte, 1) == 1;)
        if (write(back[1], &byte, 1) != 1) break;
    return unused;
}

/* Two threads on one processor, so that each hand-over is a context switch; two for each count. */
static void start_echo(void) {
    pthread_t thread;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one)) die("sched_setaffinity");
    if (pipe(there) || pipe(back)) die("pipe");
    check(pthread_create(&thread, NULL, echo, NULL), "pthread_create");
}

static uint64_t hand_over(unsigned long count) {
    static int started;
    if (!started++) start_echo();
    uint64_t start = now_ns();
    for (char byte = 0; count--;)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("hand-over");
    return now_ns() - start;
}

/* ARGUMENT: the program. */
static uint64_t fork_and_exec(unsigned long count) {
    char *const command[] = {(char *)argument, NULL};
    uint64_t start = now_ns();
    while (count--) {
        int status;
        pid_t child = fork();
        if (child == 0) { execv(argument, command); _exit(127); }
        if (child < 0 || waitpid(child, &status, 0) != child || status) die(argument);
    }
    return now_ns() - start;
}

/* ARGUMENT: MiB of memory, read and written here and there, mostly in a part that caches hold: which
 * physical pages a process happened to get would else decide its times. */
static uint64_t work(unsigned long count) {
    static uint64_t *memory;
    static uint32_t where = 1;
    size_t words = (size_t)atol(argument) * MIB / sizeof *memory;
    if (!memory) {
        memory = malloc(words * sizeof *memory);
        if (!memory) die("malloc");
        memset(memory, 1, words * sizeof *memory);
    }
    uint64_t start = now_ns();
    while (count--) {
        where = where * 1664525u + 1013904223u;
        memory[(uint64_t)where * (count % FAR_EVERY ? words / NEAR_PART : words) >> 32] += where;
    }
    return now_ns() - start;
}

static const struct { const char *name; uint64_t (*batch)(unsigned long count); } operations[] = {
    {"mmap", mmap_and_munmap}, {"fault", touch},        {"thread", create_threads},
    {"switch", hand_over},     {"exec", fork_and_exec}, {"work", work},
};

static void serve(uint64_t (*batch)(unsigned long count)) {
    char line[32];
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu\n", (unsigned long long)batch(strtoul(line, NULL, 10)));
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    if (argc > 2) argument = argv[2];
    if (argc > 3 && !strcmp(argv[3], "self")) lock_self();
    for (size_t i = 0; argc > 1 && i < sizeof operations / sizeof *operations; i++)
        if (!strcmp(argv[1], operations[i].name)) { serve(operations[i].batch); return 0; }
    fprintf(stderr, "usage: batch mmap|fault|thread|switch|exec PROGRAM|work MIB [self]\n");
    return 2;
}
