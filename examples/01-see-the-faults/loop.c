/*
 * loop.c - a control loop as people write them: 1 kHz, a mapped table, some history on the heap.
 *
 * Why: it is the program that is attacked, once plain and once under rtlaunch. It knows nothing of
 * memory locking, and must not learn it: that it needs no change is what the example shows.
 *
 *   loop TABLE     says `ready PID` once it runs, works until SIGTERM or SIGINT, then says how it went
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    PERIOD_NS = 1000000,
    NS_PER_SECOND = 1000000000,
    JOINTS = 8,              /* table look-ups in each cycle */
    HISTORY = 32768,         /* commands kept, 256 KiB */
};

struct loop {
    const double *table;     /* torque by measured position */
    size_t entries;
    double *history;
    uint32_t noise;          /* stands in for the sensors */
    uint64_t cycles, late, worst_ns;
};

static volatile sig_atomic_t stop;

static void on_signal(int number) { (void)number; stop = 1; }

static void die(const char *what) { perror(what); exit(1); }

/* A table that is looked up here and there: MADV_RANDOM spares the read-ahead that nobody wants. */
static void map_table(struct loop *loop, const char *path) {
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &file) < 0) die(path);
    void *at = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) die("mmap");
    madvise(at, (size_t)file.st_size, MADV_RANDOM);
    close(fd);
    loop->table = at;
    loop->entries = (size_t)file.st_size / sizeof *loop->table;
}

static void check_table(const struct loop *loop) {
    for (size_t i = 0; i < loop->entries; i++) {
        if (!(loop->table[i] >= -1.0 && loop->table[i] <= 1.0)) {
            fprintf(stderr, "loop: entry %zu of the table is out of range\n", i);
            exit(1);
        }
    }
}

static double measure(struct loop *loop) {
    loop->noise = loop->noise * 1664525u + 1013904223u;
    return (double)loop->noise / 4294967296.0;
}

static void control(struct loop *loop) {
    double command = 0;
    for (int joint = 0; joint < JOINTS; joint++)
        command += loop->table[(size_t)(measure(loop) * (double)loop->entries)];
    loop->history[loop->cycles % HISTORY] = command;
}

static uint64_t ns_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - start->tv_sec) * NS_PER_SECOND + now.tv_nsec - start->tv_nsec);
}

static void next_period(struct timespec *wake) {
    wake->tv_nsec += PERIOD_NS;
    if (wake->tv_nsec >= NS_PER_SECOND) { wake->tv_nsec -= NS_PER_SECOND; wake->tv_sec++; }
}

/* A cycle's time runs from when it began to when its command was ready; longer than the period is late. */
static void run(struct loop *loop) {
    struct timespec wake, began;
    clock_gettime(CLOCK_MONOTONIC, &wake);
    while (!stop) {
        next_period(&wake);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
        clock_gettime(CLOCK_MONOTONIC, &began);
        control(loop);
        uint64_t took = ns_since(&began);
        if (took > loop->worst_ns) loop->worst_ns = took;
        if (took > PERIOD_NS) loop->late++;
        loop->cycles++;
    }
}

int main(int argc, char **argv) {
    struct loop loop = {.noise = 1};
    if (argc != 2) { fprintf(stderr, "usage: loop TABLE\n"); return 2; }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    map_table(&loop, argv[1]);
    check_table(&loop);
    loop.history = calloc(HISTORY, sizeof *loop.history);
    if (!loop.history) die("calloc");
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    run(&loop);
    printf("cycles %llu late %llu worst_ns %llu\n", (unsigned long long)loop.cycles,
           (unsigned long long)loop.late, (unsigned long long)loop.worst_ns);
    return 0;
}
