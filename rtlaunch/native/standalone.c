/*
 * standalone.c - the third guest: locks a program that no launcher stands beside, and refuses by itself.
 *
 * Why it is needed: `rtlaunch plan --as systemd` and `--as env` leave limits and capabilities to who has
 * them, and a lock does not survive exec. What is left to do is done here, before main(), with nothing of
 * Python: touch the stack, mlockall(2), look into the kernel's books once.
 *
 * Why it is not in the shim: that one decides nothing, prints nothing and reads nothing in /proc, and every
 * child of a launch inherits it. This one must do all three, since nobody else is there
 * (docs/decisions/0048).
 *
 * What it promises is less than the launcher does: mlockall said yes, and VmLck is not 0. No mapping is
 * looked at, nothing is watched, and an exec that loses LD_PRELOAD goes unseen.
 *
 * It must not export, allocate, keep a descriptor, or say a word when all is well. In a process that is not
 * meant it returns at once.
 */
#include <stddef.h>
#include <stdint.h>

#include <linux/fcntl.h>
#include <linux/resource.h>

#include ARCH_HEADER
#include "lock.h"
#include "protocol.h"
#include "settings.h"
#include "standalone.h"

/* A call to any of these would be an undefined symbol in someone else's process. */
#pragma GCC poison malloc calloc realloc free alloca memcpy memset memmove strlen strcmp strncmp strtoul
#pragma GCC poison prlimit setrlimit getrlimit
#pragma GCC poison printf fprintf write read open openat close fopen getenv setenv getpid mlockall errno
#pragma GCC poison exit _exit abort signal sigaction pthread_create

#define EPERM 1
#define ENOENT 2
#define EINTR 4
#define STDERR 2

/* RLIM64_INFINITY, and a limit that could not be read. */
#define UNLIMITED (~(uint64_t)0)

/* More than the kernel has above the last string of the environment: the program's own path, 8 bytes, the rest
 * of a page (fs/exec.c), and what a constructor before ours may have taken from the list. */
#define ABOVE_STRINGS 0x10000

/* Digits of the largest number that is read: all of them fit 64 bits. */
#define MOST_DIGITS 18

/* 10 to this is the largest power of 10 in 64 bits. */
#define LARGEST_ZEROS 19

/* One line, and a little less than a terminal's three. */
#define LINE_BYTES 240

struct order {
    uint64_t flags;
    uint64_t stack_bytes;
    uint64_t pid;
};

struct books {
    size_t matched; /* characters of the row's name that were seen last */
    uint64_t locked_kb;
};

struct line {
    size_t length;
    char text[LINE_BYTES];
};

/* Weak: a program without libc has none, and then the guest has no settings and returns. */
extern char **__environ __attribute__((weak, visibility("default")));

/* ---- the kernel: one function per operation; each returns -errno where it fails ---- */

static uint64_t sys_getpid(void)
{
    return (uint64_t)arch_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

/* Return a soft limit of this process. */
static uint64_t sys_soft_limit(int resource)
{
    struct rlimit64 limit = {UNLIMITED, UNLIMITED};

    arch_syscall(__NR_prlimit64, 0, resource, 0, (long)&limit, 0, 0);
    return limit.rlim_cur;
}

static long sys_open(const char *path)
{
    return arch_syscall(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
}

static long sys_read(int fd, char *buffer, size_t bytes)
{
    long got;

    do {
        got = arch_syscall(__NR_read, fd, (long)buffer, (long)bytes, 0, 0, 0);
    } while (got == -EINTR);
    return got;
}

static void sys_close(int fd)
{
    arch_syscall(__NR_close, fd, 0, 0, 0, 0, 0);
}

/* Write one line. Whoever closed the descriptor does not want it. */
static void sys_write(int fd, const char *text, size_t bytes)
{
    arch_syscall(__NR_write, fd, (long)text, (long)bytes, 0, 0, 0);
}

__attribute__((noreturn)) static void refuse(void)
{
    for (;;)
        arch_syscall(__NR_exit_group, RTL_EXIT_REFUSED, 0, 0, 0, 0, 0);
}

/* ---- the settings ---- */

/* Read one decimal number that ends with `end`; return what follows it, NULL if it is none. */
static const char *decimal(const char *text, char end, uint64_t *number)
{
    const char *at = text;

    *number = 0;
    for (; *at >= '0' && *at <= '9' && at - text < MOST_DIGITS; at++)
        *number = *number * 10 + (uint64_t)(*at - '0');
    return at > text && *at == end ? at + 1 : NULL;
}

/* Read FLAGS:STACK:PID; return whether it is that and nothing else. */
static int order_parse(const char *text, struct order *order)
{
    return (text = decimal(text, ':', &order->flags)) && (text = decimal(text, ':', &order->stack_bytes)) &&
           decimal(text, '\0', &order->pid);
}

/* Say whether this process is meant. A child inherits the setting, and has another pid. */
static int is_meant(const struct order *order)
{
    uint64_t pid = order->pid;
    const char *text = setting_text(__environ, "SYSTEMD_EXEC_PID=");

    if (order->flags & RTL_STANDALONE_EVERY)
        return 1;
    if (!pid && text && !decimal(text, '\0', &pid))
        return 1;
    return !pid || pid == sys_getpid();
}

/* ---- the stack ---- */

/* Return where the strings of the environment end: near the top of the main stack. */
static uint64_t strings_end(uint64_t frame)
{
    uint64_t end = frame;

    for (char **entry = __environ; entry && *entry; entry++) {
        const char *at = *entry;

        if ((uint64_t)(uintptr_t)at < end)
            continue;
        while (*at)
            at++;
        end = (uint64_t)(uintptr_t)at;
    }
    return end;
}

/* Return the lowest address that the stack's limit lets us touch. The kernel counts from the top, which is
 * somewhat above the strings. */
static uint64_t stack_floor(void)
{
    uint64_t limit = sys_soft_limit(RLIMIT_STACK);
    uint64_t top = strings_end((uint64_t)(uintptr_t)__builtin_frame_address(0)) + ABOVE_STRINGS;

    return limit < top ? top - limit : 0;
}

/* ---- the kernel's books ---- */

/* Go one character on in looking for the row VmLck of a status file and in reading it: 0 once it was read. */
static int read_on(struct books *books, char next)
{
    static const char name[] = "\nVmLck:";

    if (books->matched == sizeof name - 1) {
        if (next >= '0' && next <= '9')
            books->locked_kb = books->locked_kb * 10 + (uint64_t)(next - '0');
        return next != '\n';
    }
    if (next == name[books->matched])
        books->matched++;
    else
        books->matched = next == name[0];
    return 1;
}

/* Read the row VmLck, in KiB; 0 or an errno, ENOENT where there is no such row. */
static int32_t books_read(struct books *books)
{
    char part[256];
    long got = 0;
    int more = 1;
    long fd = sys_open("/proc/self/status");

    books->matched = 0;
    books->locked_kb = 0;
    if (fd < 0)
        return (int32_t)-fd;
    while (more && (got = sys_read((int)fd, part, sizeof part)) > 0)
        for (long at = 0; more && at < got; at++)
            more = read_on(books, part[at]);
    sys_close((int)fd);
    if (!more)
        return 0;
    return got < 0 ? (int32_t)-got : ENOENT;
}

/* ---- what is said where it went wrong ---- */

static void put(struct line *line, const char *text)
{
    while (*text && line->length < LINE_BYTES - 1)
        line->text[line->length++] = *text++;
}

/* By subtraction: where a long has 32 bits, a division of 64 would call a library. */
static void put_number(struct line *line, uint64_t number)
{
    char digit[2] = "0";
    int begun = 0;

    for (int zeros = LARGEST_ZEROS; zeros >= 0; zeros--) {
        uint64_t power = 1;

        for (int at = 0; at < zeros; at++)
            power *= 10;
        for (digit[0] = '0'; number >= power; digit[0]++)
            number -= power;
        begun = begun || digit[0] != '0' || !zeros;
        if (begun)
            put(line, digit);
    }
}

/* Begin the line by what it comes to, and by the code of what was found. The rest of its bytes stays as it
 * is: to clear or to copy them a compiler may call a library. */
static void begin(struct line *line, const struct order *order, const char *code)
{
    line->length = 0;
    put(line, order->flags & RTL_STANDALONE_LENIENT ? "rtlaunch: not locked [" : "rtlaunch: refused [");
    put(line, code);
    put(line, "]: ");
}

/* Say the line, and end the program unless it was allowed to run on. */
static void give_up(const struct order *order, struct line *line)
{
    line->text[line->length++] = '\n';
    sys_write(STDERR, line->text, line->length);
    if (!(order->flags & RTL_STANDALONE_LENIENT))
        refuse();
}

/* Return the code for an errno of mlockall. A process cannot ask cheaply what it holds, but with
 * CAP_IPC_LOCK no limit counts, and without it these errnos are what the limit answers (mm/mlock.c). */
static const char *code_of(int32_t error, uint64_t limit)
{
    if (error == EPERM)
        return limit ? "lock-denied" : "memlock-limit";
    return limit == UNLIMITED ? "lock-failed" : "memlock-limit";
}

/* mlockall refused: an errno means little without the limit that it was measured by. */
static void lock_failed(const struct order *order, int32_t error)
{
    uint64_t limit = sys_soft_limit(RLIMIT_MEMLOCK);
    struct line line;

    begin(&line, order, code_of(error, limit));
    put(&line, "mlockall: errno ");
    put_number(&line, (uint64_t)error);
    put(&line, "; RLIMIT_MEMLOCK, which counts without CAP_IPC_LOCK, is ");
    if (limit == UNLIMITED)
        put(&line, "unlimited");
    else
        put_number(&line, limit);
    give_up(order, &line);
}

/* The books cannot be read, so that nothing is proven. */
static void books_failed(const struct order *order, int32_t error)
{
    struct line line;

    begin(&line, order, "proof-unreadable");
    put(&line, "/proc/self/status: errno ");
    put_number(&line, (uint64_t)error);
    give_up(order, &line);
}

/* mlockall said yes, and nothing is locked: something in between answers for the kernel. */
static void not_locked(const struct order *order)
{
    struct line line;

    begin(&line, order, "unlocked-mappings");
    put(&line, "mlockall said yes, and VmLck in /proc/self/status is 0");
    give_up(order, &line);
}

/* A setting that cannot be read asks for a lock all the same. */
static void setting_failed(void)
{
    static const struct order strict = {0, 0, 0};
    struct line line;

    begin(&line, &strict, "environment-value");
    put(&line, RTL_STANDALONE_VARIABLE " is no FLAGS:STACK:PID in decimal");
    give_up(&strict, &line);
}

/* ---- the work ---- */

/* Touch, lock, look. The stack comes before the lock, as in the shim: growing a locked stack past
 * RLIMIT_MEMLOCK is SIGSEGV, mlockall past it is an errno. */
static void lock(const struct order *order)
{
    uint32_t flags = (uint32_t)order->flags & MCL_ALL;
    struct books books;
    int32_t error;

    touch_stack(order->stack_bytes, stack_floor());
    error = lock_all(&flags);
    if (error) {
        lock_failed(order, error);
    } else if (flags & MCL_CURRENT) {
        error = books_read(&books);
        if (error)
            books_failed(order, error);
        else if (!books.locked_kb)
            not_locked(order);
    }
}

__attribute__((constructor)) static void rtlaunch_standalone(void)
{
    const char *text = &__environ ? setting_text(__environ, RTL_STANDALONE_VARIABLE "=") : NULL;
    struct order order;

    if (!text)
        return;
    if (!order_parse(text, &order))
        setting_failed();
    else if (is_meant(&order))
        lock(&order);
}
