/*
 * fitted.c - a program whose need of memory is told by its arguments, a letter and a number each.
 *
 *   mN  use N KiB of the main stack          tN  make N threads, which stay
 *   dN  let each use N KiB of its stack      oN  give them stacks of at least N KiB, as redis does
 *   hN  malloc N KiB in small blocks         bN  map N KiB, use them, and keep them
 *   gN  map N KiB, use them, and give them back
 *   r   say "ready PID" and wait for the end of standard input
 *   uN  end by signal N once that is over    xN  end with exit code N
 *
 * Done in this order of the line. SIGUSR1 says "told VALUE", of sigqueue(3).
 */
#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { KIB = 1024, BLOCK = 480 };

static size_t thread_depth;
static pthread_barrier_t ready;

/* Use that much of the stack, and a little more; the volatile access keeps the frames. */
__attribute__((noinline)) static int deep(long bytes) {
    volatile char frame[KIB];
    frame[0] = (char)bytes;
    if (bytes > KIB) frame[1] = (char)deep(bytes - (long)sizeof frame);
    return frame[0] + frame[1];
}

static void *stay(void *unused) {
    deep((long)thread_depth);
    pthread_barrier_wait(&ready);
    for (;;) pause();
    return unused;
}

static void make_threads(int count, size_t least) {
    pthread_attr_t attributes;
    size_t size;
    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &size);
    while (size < least) size *= 2;
    if (least) pthread_attr_setstacksize(&attributes, size);
    pthread_barrier_init(&ready, NULL, (unsigned)count + 1);
    for (int made = 0; made < count; made++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, stay, NULL)) {
            fputs("no thread\n", stderr);
            exit(99);
        }
    }
    pthread_barrier_wait(&ready);
}

static void *map(size_t bytes) {
    void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) exit(98);
    return memset(block, 1, bytes);
}

static void told(int signal, siginfo_t *info, void *context) {
    char line[32];
    int length = snprintf(line, sizeof line, "told %d\n", info->si_value.sival_int);
    if (write(1, line, (size_t)length) < 0) _exit(97);
    (void)signal, (void)context;
}

static void stand(void) {
    char byte;
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (read(0, &byte, 1) != 0) continue;
}

int main(int count, char **arguments) {
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO | SA_RESTART};
    size_t least = 0;
    sigaction(SIGUSR1, &action, NULL);
    for (int at = 1; at < count; at++) {
        long number = atol(arguments[at] + 1);
        size_t bytes = (size_t)number * KIB;
        switch (arguments[at][0]) {
        case 'm': deep((long)bytes); break;
        case 'd': thread_depth = bytes; break;
        case 'o': least = bytes; break;
        case 't': make_threads((int)number, least); break;
        case 'h': for (; bytes > BLOCK; bytes -= BLOCK) memset(malloc(BLOCK - 16), 1, BLOCK - 16); break;
        case 'b': map(bytes); break;
        case 'g': munmap(map(bytes), bytes); break;
        case 'r': stand(); break;
        case 'u': signal((int)number, SIG_DFL); raise((int)number); break;
        case 'x': return (int)number;
        default: return 96;
        }
    }
    return 0;
}
