/*
 * arch_x86_64.h - all that is particular to x86_64: how to enter the kernel, and how a program starts.
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

/* Make a system call; returns what the kernel returns, -errno where it fails. syscall(2), entry_64.S. */
static inline long arch_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

/* A program without libc begins here: hand the initial stack to `entry`, aligned as the ABI wants it. */
#define ARCH_START(entry)                                                                                    \
    __asm__(".text\n"                                                                                        \
            ".globl _start\n"                                                                                \
            ".type _start, @function\n"                                                                      \
            "_start:\n"                                                                                      \
            "    xor %ebp, %ebp\n"                                                                           \
            "    mov %rsp, %rdi\n"                                                                           \
            "    and $-16, %rsp\n"                                                                           \
            "    call " #entry "\n"                                                                          \
            "    hlt\n"                                                                                      \
            ".size _start, . - _start\n")

#endif
