/*
 * arch_i386.h - all that is particular to i386: how to enter the kernel.
 *
 * Why: the guests have no libc. Programs of this machine run under an x86_64 kernel, started by a launcher
 * of that machine; so there is no way to start here, which the stub alone has.
 * It must not hold anything that is the same elsewhere; numbers and layouts are the kernel's own headers'.
 *
 * socketpair, sendmsg and recvmsg have numbers of their own since Linux 4.3 (before, socketcall). Without
 * them the shim tells nobody of itself, and the launcher says that it was silent.
 */
#ifndef RTLAUNCH_ARCH_H
#define RTLAUNCH_ARCH_H

#include <asm/stat.h>
#include <asm/unistd.h>

/* fstat has 16 bits for the device and fails where an inode has more than 32 (EOVERFLOW). */
typedef struct stat64 arch_stat;
#define ARCH_NR_FSTAT __NR_fstat64

/* Make a system call; returns what the kernel returns, -errno where it fails. syscall(2), entry_64_compat.S.
 * The sixth argument goes in ebp, which no constraint names: the compiler's own is kept on the stack. */
static inline long arch_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result;

    __asm__ volatile("pushl %[sixth]\n\t"
                     "pushl %%ebp\n\t"
                     "movl 4(%%esp), %%ebp\n\t"
                     "int $0x80\n\t"
                     "popl %%ebp\n\t"
                     "leal 4(%%esp), %%esp"
                     : "=a"(result)
                     : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [sixth] "g"(f)
                     : "memory", "cc");
    return result;
}

#endif
