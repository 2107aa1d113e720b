/*
 * shim.c - the guest: asks the launcher, touches this process's stack and locks it, before main() runs.
 *
 * Why it has no libc: one file must load under glibc and musl, and a library that needs a libc would
 * bring its own. Nothing is exported, nothing allocated, no thread, no handler; once the constructor has
 * returned, no instruction here runs again. What is said, and in which order, is told in protocol.h.
 *
 * It must not decide anything that the launcher can decide, print anything, or read /proc: a child
 * that is not meant pays for one walk over its environment and for getpid(), nothing more.
 *
 * When something fails:
 *   before LOCK   no channel, not that socket, launcher gone: the image is nobody's business; it runs on.
 *                 Unless it is the first one, which shall not live without its launcher: 125.
 *   no pair       (no descriptor left, say) RECORD with the errno goes to the channel itself, and the
 *                 verdict is awaited there: the launcher never waits in vain, and a strict target does
 *                 not run unlocked. Two images in that state at once could read each other's verdict,
 *                 and the launcher has the same one for both unless one of them is a helper.
 *   after LOCK    RECORD carries the errno; the launcher judges. If it dies: 125 when strict, else run on.
 */
#include <stddef.h>
#include <stdint.h>

#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/uio.h>

#include ARCH_HEADER
#include "lock.h"
#include "protocol.h"
#include "settings.h"

/* A call to any of these would be an undefined symbol in someone else's process. */
#pragma GCC poison malloc calloc realloc free alloca memcpy memset memmove strlen strcmp strncmp strtoul
#pragma GCC poison prlimit setrlimit getrlimit
#pragma GCC poison printf fprintf write read open close fopen getenv setenv getpid mlockall prctl errno
#pragma GCC poison socketpair sendmsg recvmsg send recv exit _exit abort signal sigaction pthread_create

/* The kernel's words that no uapi header carries (include/linux/socket.h, include/linux/net.h). */
#define AF_UNIX 1
#define SOCK_SEQPACKET 5
#define SOCK_CLOEXEC 02000000
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define MSG_NOSIGNAL 0x4000
#define MSG_TRUNC 0x20
#define MSG_CMSG_CLOEXEC 0x40000000
#define EBADF 9
#define CLOCK_MONOTONIC 1
#define EINTR 4
#define EPROTO 71
#define SIGKILL 9

/* How far below the channel a kept descriptor is looked for. */
#define NEAR 8
#define LEAST 3 /* what standard streams leave */

/* struct user_msghdr and struct cmsghdr, include/linux/socket.h. Behind the descriptor is what alignment adds
 * for a long, and nothing else: a kernel that finds more takes it for another header (net/compat.c). */
struct message_header {
    void *name;
    int name_bytes;
    struct iovec *parts;
    size_t part_count;
    void *control;
    size_t control_bytes;
    unsigned int flags;
};

struct passed_descriptor {
    size_t bytes; /* of the header and the descriptor */
    int level;
    int type;
    union {
        int fd;
        long aligned; /* what is sent beyond the descriptor is 0: valgrind reports anything else */
    };
};

#define PASSED_BYTES (offsetof(struct passed_descriptor, fd) + sizeof(int))

/* What clock_gettime has everywhere; since boot, it is no matter that a long is small somewhere. */
struct time {
    long seconds;
    long nanoseconds;
};

struct channel {
    uint64_t fd;
    uint64_t dev;
    uint64_t ino;
    uint64_t pid;
};

/* Weak: a program without libc has none, and then the shim has no settings and returns. */
extern char **__environ __attribute__((weak, visibility("default")));

/* Nothing is ever kept here. What lies behind the file's part of a page a loader clears before it reads the
 * page, and so that is one fault, of a write, in each program that inherits the shim; else it were two. */
static char tail __attribute__((used));

/* ---- the kernel: one function per operation; each returns -errno where it fails ---- */

static long sys_getpid(void)
{
    return arch_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

static long sys_fstat(int fd, arch_stat *found)
{
    return arch_syscall(ARCH_NR_FSTAT, fd, (long)found, 0, 0, 0, 0);
}

static long sys_close(int fd)
{
    return arch_syscall(__NR_close, fd, 0, 0, 0, 0, 0);
}

static long sys_socketpair(int pair[2])
{
    return arch_syscall(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, (long)pair, 0, 0);
}

static long sys_sendmsg(int fd, const struct message_header *header)
{
    long sent;

    do {
        sent = arch_syscall(__NR_sendmsg, fd, (long)header, MSG_NOSIGNAL, 0, 0, 0);
    } while (sent == -EINTR);
    return sent;
}

/* MSG_TRUNC: a datagram that is too long tells its true length, and so is seen to be none of ours. */
static long sys_recvmsg(int fd, struct message_header *header)
{
    long received;

    do {
        received = arch_syscall(__NR_recvmsg, fd, (long)header, MSG_TRUNC | MSG_CMSG_CLOEXEC, 0, 0, 0);
    } while (received == -EINTR);
    return received;
}

/* Duplicate to the lowest free number from `lowest` on, which exec closes. */
static long sys_keep(int fd, int lowest)
{
    return arch_syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, lowest, 0, 0, 0);
}

/* Set the soft RLIMIT_STACK; the hard one stays as it is. */
static long sys_prlimit_stack(uint64_t soft)
{
    struct rlimit64 limit = {0, 0};
    long error = arch_syscall(__NR_prlimit64, 0, RLIMIT_STACK, 0, (long)&limit, 0, 0);

    if (error)
        return error;
    limit.rlim_cur = soft;
    return arch_syscall(__NR_prlimit64, 0, RLIMIT_STACK, (long)&limit, 0, 0, 0);
}

static void sys_prctl_pdeathsig(int signal_number)
{
    arch_syscall(__NR_prctl, PR_SET_PDEATHSIG, signal_number, 0, 0, 0, 0);
}

static int sys_prctl_get_pdeathsig(void)
{
    int signal_number = 0;

    arch_syscall(__NR_prctl, PR_GET_PDEATHSIG, (long)&signal_number, 0, 0, 0, 0);
    return signal_number;
}

static uint64_t sys_clock_monotonic_ns(void)
{
    struct time now = {0, 0};

    arch_syscall(__NR_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    return (uint64_t)now.seconds * 1000000000U + (uint64_t)now.nanoseconds;
}

__attribute__((noreturn)) static void refuse(void)
{
    for (;;)
        arch_syscall(__NR_exit_group, RTL_EXIT_REFUSED, 0, 0, 0, 0, 0);
}

/* ---- the settings ---- */

/* Return the value of RTL_CHANNEL_VARIABLE, or NULL. */
static const char *channel_text(void)
{
    return &__environ ? setting_text(__environ, RTL_CHANNEL_VARIABLE "=") : NULL;
}

/* Read FD:DEV:INO:PID; return whether it is that and nothing else. */
static int channel_parse(const char *text, struct channel *channel)
{
    return (text = hex_number(text, ':', &channel->fd)) && (text = hex_number(text, ':', &channel->dev)) &&
           (text = hex_number(text, ':', &channel->ino)) && hex_number(text, '\0', &channel->pid) &&
           channel->fd <= INT32_MAX;
}

/* Say whether the descriptor still is the launcher's socket: its number may have been used again.
 * The device is that of the kernel's sockets, which no file has. */
static int channel_is_open(const struct channel *channel)
{
    arch_stat found;

    return sys_fstat((int)channel->fd, &found) == 0 && found.st_dev == channel->dev &&
           found.st_ino == channel->ino;
}

/* ---- the words ---- */

static struct rtl_message message_of(uint32_t kind)
{
    struct rtl_message message = {.protocol = RTL_PROTOCOL, .kind = kind};

    message.time_ns = sys_clock_monotonic_ns();
    return message;
}

/* Send one message, with a descriptor unless `passed` is negative; 0 or -errno. */
static long say(int fd, struct rtl_message *message, int passed)
{
    struct iovec part = {message, sizeof *message};
    struct passed_descriptor control = {PASSED_BYTES, SOL_SOCKET, SCM_RIGHTS, {.aligned = 0}};
    struct message_header header = {.parts = &part, .part_count = 1};
    long sent;

    control.fd = passed;
    if (passed >= 0) {
        header.control = &control;
        header.control_bytes = sizeof control;
    }
    sent = sys_sendmsg(fd, &header);
    if (sent == (long)sizeof *message)
        return 0;
    return sent < 0 ? sent : -EPROTO;
}

/* Wait for one message and return its kind; 0 at the end of file, and for what is no message of ours.
 * `passed` is the descriptor that came with it, -1 if there is none. */
static uint32_t hear(int fd, struct rtl_message *heard, int *passed)
{
    struct iovec part = {heard, sizeof *heard};
    struct passed_descriptor control = {.fd = -1};
    struct message_header header = {
        .parts = &part, .part_count = 1, .control = &control, .control_bytes = sizeof control};
    long received = sys_recvmsg(fd, &header);

    *passed = header.control_bytes >= PASSED_BYTES ? control.fd : -1;
    if (received != (long)sizeof *heard || heard->protocol != RTL_PROTOCOL)
        return 0;
    return heard->kind;
}

/* Say that the program is ready, on a socket that the launcher has connected; 0 or -errno. How long that may
 * take is set there as well (SO_SNDTIMEO): a service manager that does not read must not hold us for ever. */
static long say_ready(int fd)
{
    static const char ready[] = RTL_READY;
    struct iovec part = {(void *)(uintptr_t)ready, sizeof ready - 1};
    struct message_header header = {.parts = &part, .part_count = 1};
    long sent = sys_sendmsg(fd, &header);

    sys_close(fd);
    return sent < 0 ? sent : 0;
}

/* ---- the work ---- */

/* Say whether this image is to die with the launcher. Its end of file comes first: a dying process closes
 * its descriptors (exit_files) some time before its children get their signal (exit_notify, kernel/exit.c),
 * and main() would run meanwhile. */
static int is_doomed(void)
{
    return sys_prctl_get_pdeathsig() == SIGKILL;
}

/* Lock as told, and note how long that took. */
static void lock_memory(const struct rtl_message *told, struct rtl_message *record)
{
    uint64_t before = sys_clock_monotonic_ns();

    record->flags = told->flags & MCL_ALL;
    record->error = lock_all(&record->flags);
    record->lock_ns = sys_clock_monotonic_ns() - before;
}

/* Do what LOCK asks and return the record of it. The limit comes first: how far down the stack may be
 * touched was counted from it, so where it cannot be set nothing is; the launcher sees that by itself. The
 * stack comes before the lock: growing a locked stack past RLIMIT_MEMLOCK is SIGSEGV (acct_stack_growth,
 * mm/vma.c), mlockall past it is an errno. */
static struct rtl_message lock(const struct rtl_message *told)
{
    struct rtl_message record = {0};

    if (!told->stack_limit || sys_prlimit_stack(told->stack_limit) == 0) {
        struct touched stack = touch_stack(told->stack_bytes, told->stack_low);

        record.stack_low = stack.low;
        record.stack_bytes = stack.bytes;
    }
    lock_memory(told, &record);
    record.time_ns = sys_clock_monotonic_ns();
    return record;
}

/* Wait for the verdict on the record; before it the launcher may have us say that the program is ready. */
static uint32_t hear_verdict(int fd, struct rtl_message *verdict)
{
    int passed;
    uint32_t kind = hear(fd, verdict, &passed);

    if (kind == RTL_NOTIFY) {
        struct rtl_message notified = message_of(RTL_NOTIFIED);

        notified.error = passed < 0 ? EBADF : (int32_t)-say_ready(passed);
        kind = say(fd, &notified, -1) == 0 ? hear(fd, verdict, &passed) : 0;
    }
    return kind;
}

/* Keep a descriptor at `lowest` or above, or as high as RLIMIT_NOFILE, lowered since, permits. */
static void keep(int fd, int lowest)
{
    while (sys_keep(fd, lowest) < 0 && lowest > LEAST)
        lowest = lowest / 2 > LEAST ? lowest / 2 : LEAST;
}

/* Hand in the record and abide by the verdict: return for GO, else end or return as LOCK's flags say.
 *
 * The launcher's child was given PR_SET_PDEATHSIG SIGKILL before exec, and exec keeps it: whenever the
 * launcher dies, either that one or the final one is armed, and no instant lies between the two.
 *
 * What is kept goes near the channel, where no program counts on a number; the caller closes `fd`. */
static void settle(int fd, int channel, struct rtl_message *record, const struct rtl_message *told)
{
    struct rtl_message verdict;
    uint32_t kind;

    record->protocol = RTL_PROTOCOL;
    record->kind = RTL_RECORD;
    kind = say(fd, record, -1) == 0 ? hear_verdict(fd, &verdict) : 0;
    if (kind == RTL_GO) {
        if (told->flags & RTL_DEATHSIG)
            sys_prctl_pdeathsig(told->error);
        if (verdict.flags & RTL_KEEP)
            keep(fd, channel > NEAR ? channel - NEAR : NEAR);
    } else if (kind == RTL_REFUSE || told->flags & RTL_STRICT || is_doomed()) {
        refuse();
    }
}

/* Ask on our end of the pair and do as told. */
static void converse(int fd, int channel)
{
    struct rtl_message told;
    int passed; /* none is, with LOCK */
    uint32_t kind = hear(fd, &told, &passed);

    if (kind == RTL_LOCK) {
        struct rtl_message record = lock(&told);

        settle(fd, channel, &record, &told);
    } else if (kind == RTL_REFUSE || (kind != RTL_SKIP && is_doomed())) {
        refuse();
    }
}

/* Announce this image on the channel, with a fresh pair; our end of it, or -errno. */
static long announce(int channel)
{
    struct rtl_message entered = message_of(RTL_ENTERED);
    int pair[2];
    long error = sys_socketpair(pair);

    if (error)
        return error;
    error = say(channel, &entered, pair[1]);
    sys_close(pair[1]);
    if (!error)
        return pair[0];
    sys_close(pair[0]);
    return error;
}

__attribute__((constructor)) static void rtlaunch_shim(void)
{
    static const struct rtl_message nothing_told = {0};
    const char *text = channel_text();
    struct channel channel;
    long pair;

    if (!text || !channel_parse(text, &channel))
        return;
    if (channel.pid != 0 && channel.pid != (uint64_t)sys_getpid())
        return;
    if (!channel_is_open(&channel))
        return;
    pair = announce((int)channel.fd);
    if (pair < 0) {
        struct rtl_message record = message_of(RTL_RECORD);

        record.error = (int32_t)-pair;
        settle((int)channel.fd, (int)channel.fd, &record, &nothing_told);
        return;
    }
    converse((int)pair, (int)channel.fd);
    sys_close((int)pair);
}
