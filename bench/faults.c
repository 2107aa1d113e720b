/*
 * faults.c - as many major faults as asked for, and no more.
 *
 * Why: a page of a file that is not in the page cache is a major fault even where the file has a hole
 * there; a hole needs no disk, so a million of them take seconds. The pages are pushed out again by
 * MADV_PAGEOUT after each pass.
 *
 *   faults FILE storm             says `ready PID`; for a line `COUNT` on stdin takes at least so many,
 *                                 one after the other, and says how many it took by its own count
 *   faults FILE answered COUNT    after each, waits for the signal that the watcher answers a fault
 *                                 with; prints how long each one took, ns, -1 if it never came
 *
 * FILE is created, sparse.
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

static void die(const char *what) { perror(what); exit(1); }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

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

/* In whole passes: here and there the kernel keeps a page, so a pass may take a few less than PAGES. */
static void storm(volatile char *pages) {
    char line[32];
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return;
    long before = major(), count = atol(line);
    while (major() - before < count)
        for (long number = 0; number < PAGES; number++) take(pages, number);
    printf("%ld\n", major() - before);
    fflush(stdout);
}

/* From before the fault, since its answer may be there when it returns, until the signal was taken. */
static int64_t answer_to(volatile char *pages, long number, const sigset_t *answer) {
    struct timespec patience = {.tv_nsec = PATIENCE_NS};
    int64_t start = now_ns();
    take(pages, number);
    return sigtimedwait(answer, NULL, &patience) == SIGUSR1 ? now_ns() - start : -1;
}

static void answered(volatile char *pages, long count) {
    struct timespec rest = {.tv_nsec = REST_NS};
    sigset_t answer;
    sigemptyset(&answer);
    sigaddset(&answer, SIGUSR1);
    sigprocmask(SIG_BLOCK, &answer, NULL);
    for (long number = 0; number < count; number++) {
        printf("%lld\n", (long long)answer_to(pages, number, &answer));
        nanosleep(&rest, NULL); /* the watcher goes back to sleep */
    }
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[2], "storm")) storm(map_hole(argv[1]));
    else if (argc == 4 && !strcmp(argv[2], "answered")) answered(map_hole(argv[1]), atol(argv[3]));
    else { fprintf(stderr, "usage: faults FILE storm | answered COUNT\n"); return 2; }
    return 0;
}
