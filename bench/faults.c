/*
 * faults.c - as many major faults as asked for, and no more.
 *
 * Why: a page of a file that is not in the page cache is a major fault even where the file has a hole
 * there; a hole needs no disk, so a million of them take seconds. The pages are pushed out again by
 * MADV_PAGEOUT after each pass.
 *
 *   faults FILE COUNT storm       one after the other; prints how many it took by its own count
 *   faults FILE COUNT answered    after each, waits for the signal that the watcher answers a fault
 *                                 with; prints how long each one took, ns, -1 if it never came
 *
 * FILE is created, sparse. It must not sleep while it waits for the answer: waking up a second time
 * would be measured too.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16384, REST_NS = 200000, PATIENCE_NS = 100000000 };

static volatile int64_t answered_ns;

static void die(const char *what) { perror(what); exit(1); }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void on_answer(int number) { (void)number; answered_ns = now_ns(); }

static long major(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_majflt;
}

static volatile char *map_hole(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)PAGES * PAGE)) die(path);
    char *at = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED || madvise(at, (size_t)PAGES * PAGE, MADV_RANDOM)) die("mmap");
    close(fd);
    return at;
}

static void take(volatile char *pages, long number) {
    (void)pages[number % PAGES * PAGE];
    if (number % PAGES == PAGES - 1 && madvise((void *)pages, (size_t)PAGES * PAGE, MADV_PAGEOUT))
        die("MADV_PAGEOUT");
}

static void storm(volatile char *pages, long count) {
    long before = major();
    for (long number = 0; number < count; number++) take(pages, number);
    printf("%ld\n", major() - before);
}

/* From before the fault, since its answer may be there when it returns, to the signal's handler. */
static int64_t answer_to(volatile char *pages, long number) {
    int64_t start = now_ns();
    answered_ns = 0;
    take(pages, number);
    while (!answered_ns)
        if (now_ns() - start > PATIENCE_NS) return -1;
    return answered_ns - start;
}

static void answered(volatile char *pages, long count) {
    struct timespec rest = {.tv_nsec = REST_NS};
    struct sigaction action = {.sa_handler = on_answer, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (long number = 0; number < count; number++) {
        printf("%lld\n", (long long)answer_to(pages, number));
        nanosleep(&rest, NULL); /* the watcher goes back to sleep */
    }
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[3], "storm")) storm(map_hole(argv[1]), atol(argv[2]));
    else if (argc == 4 && !strcmp(argv[3], "answered")) answered(map_hole(argv[1]), atol(argv[2]));
    else { fprintf(stderr, "usage: faults FILE COUNT storm|answered\n"); return 2; }
    return 0;
}
