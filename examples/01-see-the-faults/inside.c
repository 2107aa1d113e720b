/*
 * inside.c - the attack from within, for where the kernel forbids it from outside.
 *
 * Why: process_madvise() on another process needs CAP_SYS_NICE; plain madvise() on oneself needs
 * nothing. Linked beside loop.c, a thread waits on the socket that ATTACK_SOCKET names and, for each
 * byte, asks the kernel to page out every mapping that /proc/self/maps lists. loop.c stays as it is.
 *
 * It must not allocate, nor need more than a small stack: under a tight RLIMIT_MEMLOCK and MCL_FUTURE
 * there is no room for either.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { STACK_BYTES = 65536, MAPS_BYTES = 65536 };

static char maps[MAPS_BYTES];

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? fd : -1;
}

static void read_maps(void) {
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    for (ssize_t got; have < MAPS_BYTES - 1 && (got = read(fd, maps + have, MAPS_BYTES - 1 - have)) > 0;)
        have += (size_t)got;
    maps[have] = 0;
    close(fd);
}

/* [vdso], [vvar] and [vsyscall] are the kernel's own pages: they cannot go, and are not counted. */
static int page_out(char *line) {
    unsigned long start, end;
    if (strstr(line, "[v") || sscanf(line, "%lx-%lx", &start, &end) != 2) return -1;
    return madvise((void *)start, end - start, MADV_PAGEOUT) == 0;
}

static void one_round(int fd) {
    int taken = 0, refused = 0;
    char answer[64], *rest;
    read_maps();
    for (char *line = strtok_r(maps, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        int done = page_out(line);
        taken += done == 1;
        refused += done == 0;
    }
    int length = snprintf(answer, sizeof answer, "%d %d\n", taken, refused);
    if (write(fd, answer, (size_t)length) != length) _exit(1);
}

static void *attack(void *path) {
    int fd = connect_to(path);
    for (char byte; fd >= 0 && read(fd, &byte, 1) == 1;) one_round(fd);
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    char *path = getenv("ATTACK_SOCKET");
    if (!path) return;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (pthread_create(&thread, &attributes, attack, path)) { perror("inside: pthread_create"); _exit(1); }
}
