/* Maps huge pages, touches each, holds them: PAGES [KIB_EACH [MS]]; 0 if all could be had. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

int main(int argc, char **argv)
{
    size_t pages = strtoul(argv[1], NULL, 10);
    size_t bytes = (argc > 2 ? strtoul(argv[2], NULL, 10) : 2048) << 10;
    long ms = argc > 3 ? atol(argv[3]) : 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | __builtin_ctzl(bytes) << MAP_HUGE_SHIFT;
    char *memory = mmap(NULL, pages * bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (size_t at = 0; at < pages; at++)
        memory[at * bytes] = 1;
    puts("touched");
    fflush(stdout);
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
    return 0;
}
