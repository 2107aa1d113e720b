/*
 * reserve.c HOW PAGES BYTES - the time, in ns, that memory takes to come: by memset, or by the kernel alone.
 *
 * HOW is memset (mapped before the clock starts) or populate (mapped meanwhile); PAGES base, thp or huge.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static long long now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

int main(int argc, char **argv)
{
    int populate, thp, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    long long began;
    size_t bytes;
    char *memory;

    if (argc < 4)
        return 1;
    populate = strcmp(argv[1], "populate") == 0;
    thp = strcmp(argv[2], "thp") == 0;
    bytes = strtoull(argv[3], NULL, 0);
    if (strcmp(argv[2], "huge") == 0)
        flags |= MAP_HUGETLB;
    if (populate && !thp) /* transparent huge pages come only after the advice */
        flags |= MAP_POPULATE;
    began = now();
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return 2;
    if (thp && madvise(memory, bytes, MADV_HUGEPAGE))
        return 3;
    if (populate && thp && madvise(memory, bytes, MADV_POPULATE_WRITE))
        return 4;
    if (!populate) {
        began = now();
        memset(memory, 0x5a, bytes);
    }
    printf("%lld\n", now() - began);
    return 0;
}
