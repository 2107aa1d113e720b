/*
 * arch_aarch64.h - all that is particular to aarch64: how to enter the kernel, and how a program starts.
 *
 * Why: the shim and the stub have no libc. Support for another machine is a file like this one.
 * It must not hold anything that is the same elsewhere; numbers and layouts are the kernel's own headers'.
 */
#ifndef RTLAUNCH_ARCH_H
#define RTLAUNCH_ARCH_H

#include <asm/stat.h>
#include <asm/unistd.h>

typedef struct stat arch_stat;
#define ARCH_NR_FSTAT __NR_fstat

/* Make a system call; returns what the kernel returns, -errno where it fails. syscall(2), entry.S. */
static inline long arch_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory", "cc");
    return x0;
}

/* A program without libc begins here: hand the initial stack to `entry`, aligned as the ABI wants it. */
#define ARCH_START(entry)                                                                                    \
    __asm__(".text\n"                                                                                        \
            ".globl _start\n"                                                                                \
            ".type _start, %function\n"                                                                      \
            "_start:\n"                                                                                      \
            "    mov x29, #0\n"                                                                              \
            "    mov x30, #0\n"                                                                              \
            "    mov x0, sp\n"                                                                               \
            "    bl " #entry "\n"                                                                            \
            "    brk #1\n"                                                                                   \
            ".size _start, . - _start\n")

#endif
