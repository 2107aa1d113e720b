/*
 * lock.h - what every guest that locks does to its process: touches the main stack, calls mlockall(2).
 *
 * Why it is shared: the shim is told what to do, the standalone guest has it from its environment, and a
 * program must not find itself locked in two ways. It must not judge what came of it.
 */
#ifndef RTLAUNCH_LOCK_H
#define RTLAUNCH_LOCK_H

#include <stdint.h>

#include <asm/mman.h>

#include ARCH_HEADER

#define MCL_ALL (MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)

#define EINVAL 22

/* Touching each 4096th byte touches each page, whatever the page size: none is smaller. */
#define SMALLEST_PAGE 4096
#define PAGE_MASK (~(uint64_t)(SMALLEST_PAGE - 1))

/* The lowest address that was written to, and how far below the frame that lies. */
struct touched {
    uint64_t low;
    uint64_t bytes;
};

/* Write to each page below our own frame, `bytes` deep but not below `low`, so that the stack has grown
 * before it is locked. The frame's own page is there already; what a leaf function keeps below its frame
 * ends within the next one. */
__attribute__((noinline)) static struct touched touch_stack(uint64_t bytes, uint64_t low)
{
    uint64_t frame = (uint64_t)(uintptr_t)__builtin_frame_address(0);
    uint64_t wanted = bytes < frame ? frame - bytes : 0;
    uint64_t bottom = wanted & PAGE_MASK;
    uint64_t page = frame & PAGE_MASK;

    if (bottom < low)
        bottom = low;
    while (page >= SMALLEST_PAGE && page - SMALLEST_PAGE >= bottom) {
        page -= SMALLEST_PAGE;
        *(volatile char *)(uintptr_t)page = 0;
    }
    return (struct touched){page, frame - page};
}

/* Lock by these flags, if there are any; 0 or an errno. */
static int32_t lock_by(uint32_t flags)
{
    return flags ? (int32_t)-arch_syscall(__NR_mlockall, (long)flags, 0, 0, 0, 0, 0) : 0;
}

/* Lock by these flags, and leave there those that were tried last; 0 or an errno. A kernel without
 * MCL_ONFAULT (before Linux 4.4) answers EINVAL: then all is locked and populated at once, which costs
 * memory that was to be saved and keeps the promise of no fault. */
static int32_t lock_all(uint32_t *flags)
{
    int32_t error = lock_by(*flags);

    if (error == EINVAL && *flags & MCL_ONFAULT) {
        *flags &= ~(uint32_t)MCL_ONFAULT;
        error = lock_by(*flags);
    }
    return error;
}

#endif
