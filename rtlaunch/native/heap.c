/*
 * heap.c - the second guest: has malloc take the whole heap from the kernel, before anything else is allocated.
 *
 * Why it is needed: the C library's settings (GLIBC_TUNABLES) say how the heap grows and that it never
 * shrinks, and nothing more; it would grow in the program's first malloc, or later. What is taken and given
 * back here stays malloc's, and stands when the shim locks.
 *
 * Why it is not in the shim: that one has no symbol to look up, and is in every launch.
 *
 * It is marked DF_1_INITFIRST: it runs before all other constructors, so that the reserved heap is the first
 * that malloc has, and is counted in whole huge pages. glibc's own constructor has then not run either, and
 * __environ is not set (csu/init-first.c, _init_first); but what the loader calls a constructor with is true.
 * Under musl it is the other way round.
 *
 * It must not lock, read /proc, or print; in a process that is not meant it returns at once.
 */
#include <stddef.h>
#include <stdint.h>

#include <asm/mman.h>

#include ARCH_HEADER
#include "protocol.h"
#include "settings.h"

#ifndef MADV_POPULATE_WRITE /* Linux 5.14, include/uapi/asm-generic/mman-common.h */
#define MADV_POPULATE_WRITE 23
#endif

#define SMALLEST_PAGE 4096
#define PAGE_MASK (~(uint64_t)(SMALLEST_PAGE - 1))

/* Weak: a program without them has no heap to reserve. */
extern void *malloc(size_t) __attribute__((weak, visibility("default")));
extern void free(void *) __attribute__((weak, visibility("default")));
extern char **__environ __attribute__((weak, visibility("default")));

/* A call to any other would be one undefined symbol more in someone else's process. */
#pragma GCC poison calloc realloc alloca memcpy memset memmove strlen strcmp strncmp strtoul mallopt
#pragma GCC poison printf fprintf write read open close getenv setenv getpid mlockall madvise errno exit abort

struct heap {
    uint64_t first;
    uint64_t bytes;
    uint64_t flags;
    uint64_t pid;
};

/* Read FIRST:BYTES:FLAGS:PID; return whether it is that and nothing else. */
static int heap_parse(const char *text, struct heap *heap)
{
    return (text = hex_number(text, ':', &heap->first)) && (text = hex_number(text, ':', &heap->bytes)) &&
           (text = hex_number(text, ':', &heap->flags)) && hex_number(text, '\0', &heap->pid);
}

/* Put memory there, by the kernel or, where it is too old to, by one write to each page. The memory is
 * malloc's newest, and nobody has written to it: it is zero, and stays so. */
static void populate(uint64_t start, uint64_t bytes)
{
    uint64_t page = start & PAGE_MASK;
    uint64_t end = start + bytes;

    if (arch_syscall(__NR_madvise, (long)page, (long)(end - page), MADV_POPULATE_WRITE, 0, 0, 0) == 0)
        return;
    for (uint64_t at = start; at < end; at = (at & PAGE_MASK) + SMALLEST_PAGE)
        *(volatile char *)(uintptr_t)at = 0;
}

/* Take so many bytes from malloc, none where no address space has so many; NULL for nothing. */
static void *take(uint64_t bytes)
{
    size_t size = (size_t)bytes;

    return size && size == bytes ? malloc(size) : NULL;
}

/* Take `first` bytes and then the rest, so that the first huge page, which malloc also keeps its own data in,
 * counts as part of the heap. What malloc refuses is not there, and the launcher sees that. */
static void reserve(const struct heap *heap)
{
    void *first = take(heap->first);
    void *rest = take(heap->bytes);

    if (heap->flags & RTL_HEAP_POPULATE) {
        if (first)
            populate((uintptr_t)first, heap->first);
        if (rest)
            populate((uintptr_t)rest, heap->bytes);
    }
    free(rest);
    free(first);
}

__attribute__((constructor)) static void rtlaunch_heap(int count, char **arguments, char **environment)
{
    char **list = &__environ && __environ ? __environ : environment;
    const char *text = setting_text(list, RTL_HEAP_VARIABLE "=");
    struct heap heap;

    (void)count;
    (void)arguments;
    if (!malloc || !free || !text || !heap_parse(text, &heap))
        return;
    if (heap.pid == (uint64_t)arch_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0))
        reserve(&heap);
}
