/*
 * stub.c - the command `rtlaunch`: finds its interpreter and its package, and becomes python3.
 *
 * Why not the script that pip writes: that one imports re (0.5 of a bare interpreter's start), and runs
 * without -I, so that the PYTHON* variables meant for the target would configure the launcher. Why not
 * a shell script: a path with a space, and 1 ms. It has no libc, so that it runs wherever the kernel does.
 *
 * Interpreter, the first that can be executed:
 *   in a virtual environment (../pyvenv.cfg)  the python3 beside this file
 *   else   the one named in the first line of rtlaunch-python beside it, where the installer wrote its own
 *          (the python3 beside a /usr/local/bin/rtlaunch may be another one, without our package)
 *   else   the python3 beside this file
 * Package: ../{lib,lib64}/python3.N/{site,dist}-packages, N from the interpreter's real file name. It is
 * run by path, with -S, which saves a third of the interpreter's start. Where it is not there (an editable
 * install, an interpreter by another name) the interpreter looks for it: -m rtlaunch.
 *
 * Three things can only be done here, before the interpreter starts, and are told to it as
 * -X rtlaunch=IGNORED:PID:HELD:
 *   IGNORED  which of SIGPIPE and SIGXFSZ were ignored, as Python ignores both by itself (a signal mask, hex);
 *   PID      a child that opens a perf event and ends. The first event of a machine takes 7 to 15 ms, in
 *            which the kernel waits for all CPUs (kernel/events/core.c, account_event); here they pass
 *            while the interpreter starts. 0 where no program is to be launched (no `--`). Python reaps it.
 *   HELD     the signals that we blocked and that were not before (a signal mask, hex). SIGINT, which the
 *            interpreter takes to raise KeyboardInterrupt, wherever it is in its own start; our first line
 *            lets it through. All of them where PID 1 is to launch a program: the kernel drops what PID 1
 *            has no handler for (kernel/signal.c, sig_task_ignored), unless it is blocked, and a container
 *            that is stopped while the interpreter starts would be killed ten seconds later.
 *
 * It must not read or change the environment, or understand an argument but `--`.
 */
#include <stddef.h>
#include <stdint.h>

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/mman.h>
#include <linux/perf_event.h>
#include <linux/prctl.h>
#include <linux/uio.h>

#include ARCH_HEADER

#pragma GCC poison malloc calloc realloc free alloca memcpy memset memmove strlen strcmp strncmp strcpy
#pragma GCC poison printf fprintf write read open close fopen getenv setenv execve readlink access exit errno

/* The kernel's words that no uapi header carries (include/linux/fs.h, include/uapi/linux/limits.h). */
#define AT_FDCWD (-100)
#define F_OK 0
#define X_OK 1
#define PROT_READ_WRITE 3
#define PATH_BYTES 4096

#define EXIT_REFUSED 125
#define STANDARD_ERROR 2

/* include/uapi/asm-generic/signal.h; the C library's header would bring its own struct sigaction. */
#define SIGINT 2
#define SIGPIPE 13
#define SIGCHLD 17
#define SIGXFSZ 25
#define SIG_IGN 1
#define SIG_BLOCK 0
#define SIGSET_BYTES 8

#define SIGNAL_BIT(number) ((uint64_t)1 << ((number) - 1))
#define ALL_SIGNALS (~(SIGNAL_BIT(32) | SIGNAL_BIT(33))) /* those two are the C library's own */

/* PY -I -X rtlaunch=... -S MAIN or PY -I -X rtlaunch=... -m rtlaunch, and the NULL at the end. */
#define OWN_ARGUMENTS 7

/* Text that is never longer than its buffer: one that does not fit is empty, and no such file exists. */
struct text {
    size_t length;
    char bytes[PATH_BYTES];
};

/* ---- the kernel: one function per operation; each returns -errno where it fails ---- */

static long sys_readlink(const char *path, struct text *target)
{
    long length = arch_syscall(__NR_readlinkat, AT_FDCWD, (long)path, (long)target->bytes, PATH_BYTES - 1, 0, 0);

    target->length = length > 0 ? (size_t)length : 0;
    target->bytes[target->length] = '\0';
    return length;
}

static long sys_access(const char *path, int mode)
{
    return arch_syscall(__NR_faccessat, AT_FDCWD, (long)path, mode, 0, 0, 0);
}

static long sys_open(const char *path, int flags)
{
    return arch_syscall(__NR_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

static long sys_read(int fd, struct text *into)
{
    long length = arch_syscall(__NR_read, fd, (long)into->bytes, PATH_BYTES - 1, 0, 0, 0);

    into->length = length > 0 ? (size_t)length : 0;
    into->bytes[into->length] = '\0';
    return length;
}

static void sys_close(int fd)
{
    arch_syscall(__NR_close, fd, 0, 0, 0, 0, 0);
}

static long sys_mmap_private(size_t bytes)
{
    return arch_syscall(__NR_mmap, 0, (long)bytes, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long sys_execve(const char *path, const char *const *argv, char **environment)
{
    return arch_syscall(__NR_execve, (long)path, (long)argv, (long)environment, 0, 0, 0);
}

/* Return whether a signal is ignored. The handler is the first word of the kernel's struct sigaction. */
static int sys_is_ignored(int signal_number)
{
    unsigned long action[8] = {0};

    arch_syscall(__NR_rt_sigaction, signal_number, 0, (long)action, SIGSET_BYTES, 0, 0);
    return action[0] == SIG_IGN;
}

/* Block signals; return those that were not blocked before. */
static uint64_t sys_block(uint64_t mask)
{
    uint64_t before = 0;

    arch_syscall(__NR_rt_sigprocmask, SIG_BLOCK, (long)&mask, (long)&before, SIGSET_BYTES, 0, 0);
    return mask & ~before;
}

static long sys_getpid(void)
{
    return arch_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

static long sys_fork(void)
{
    return arch_syscall(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

static void sys_perf_event_open(const struct perf_event_attr *attr)
{
    arch_syscall(__NR_perf_event_open, (long)attr, 0, -1, -1, 0, 0);
}

static void sys_prctl_dumpable(int dumpable)
{
    arch_syscall(__NR_prctl, PR_SET_DUMPABLE, dumpable, 0, 0, 0, 0);
}

static void sys_writev(int fd, const struct iovec *parts, int count)
{
    arch_syscall(__NR_writev, fd, (long)parts, count, 0, 0, 0);
}

__attribute__((noreturn)) static void sys_exit(int status)
{
    for (;;)
        arch_syscall(__NR_exit_group, status, 0, 0, 0, 0, 0);
}

/* ---- text ---- */

static size_t bytes_of(const char *string)
{
    size_t length = 0;

    while (string[length])
        length++;
    return length;
}

static int begins_with(const char *string, const char *begin)
{
    while (*begin && *string == *begin) {
        string++;
        begin++;
    }
    return !*begin;
}

static void cut(struct text *text, size_t length)
{
    text->length = length;
    text->bytes[length] = '\0';
}

static void append(struct text *text, const char *string)
{
    size_t length = bytes_of(string);

    if (text->length + length >= PATH_BYTES) {
        cut(text, 0);
        return;
    }
    for (size_t i = 0; i <= length; i++)
        text->bytes[text->length + i] = string[i];
    text->length += length;
}

static void join(struct text *text, const char *first, const char *second, const char *third)
{
    cut(text, 0);
    append(text, first);
    append(text, second);
    append(text, third);
}

static void append_number(struct text *text, long number)
{
    char digits[24] = {0};
    char *at = digits + sizeof digits - 1;

    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    append(text, at);
}

static void append_mask(struct text *text, uint64_t mask)
{
    char digits[24] = {0};
    char *at = digits + sizeof digits - 1;

    do {
        *--at = "0123456789abcdef"[mask & 15];
        mask >>= 4;
    } while (mask > 0);
    append(text, at);
}

/* Return where the last component of a path begins. */
static size_t base(const struct text *path)
{
    size_t at = path->length;

    while (at > 0 && path->bytes[at - 1] != '/')
        at--;
    return at;
}

/* Take the last component and its slash away. */
static void cut_base(struct text *path)
{
    size_t at = base(path);

    cut(path, at > 0 ? at - 1 : 0);
}

static int is_there(const struct text *path, int mode)
{
    return path->length > 0 && sys_access(path->bytes, mode) == 0;
}

/* ---- refusing ---- */

/* Say one line on standard error, at once, and end with 125. */
__attribute__((noreturn)) static void refuse(const char *code, const char *what, const char *which,
                                             const char *advice)
{
    const char *const said[] = {"rtlaunch: refused [", code, "]: ", what, which, advice, "\n"};
    struct iovec parts[sizeof said / sizeof *said];

    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        parts[i].iov_base = (void *)(uintptr_t)said[i];
        parts[i].iov_len = bytes_of(said[i]);
    }
    sys_writev(STANDARD_ERROR, parts, (int)(sizeof said / sizeof *said));
    sys_exit(EXIT_REFUSED);
}

/* ---- finding ---- */

/* Read the interpreter out of the first line of rtlaunch-python; empty where there is none. */
static void named_interpreter(struct text *python, const struct text *here)
{
    struct text path;
    struct text line;
    size_t end = 2;
    long fd;

    cut(python, 0);
    join(&path, here->bytes, "/rtlaunch-python", "");
    fd = sys_open(path.bytes, O_RDONLY);
    if (fd < 0)
        return;
    sys_read((int)fd, &line);
    sys_close((int)fd);
    if (!begins_with(line.bytes, "#!/"))
        return;
    while (line.bytes[end] && line.bytes[end] != '\n')
        end++;
    cut(&line, end);
    append(python, line.bytes + 2);
}

/* Find the interpreter, as told at the top of this file; refuse where there is none. */
static void find_interpreter(struct text *python, const struct text *here, const struct text *prefix)
{
    struct text beside;
    struct text venv;

    join(&beside, here->bytes, "/python3", "");
    join(&venv, prefix->bytes, "/pyvenv.cfg", "");
    named_interpreter(python, here);
    if (is_there(&beside, X_OK) && (is_there(&venv, F_OK) || !is_there(python, X_OK)))
        join(python, beside.bytes, "", "");
    if (!is_there(python, X_OK))
        refuse("launch-failed", "no Python to run: no python3, and no rtlaunch-python that names one, in ",
               here->bytes, "; install rtlaunch again");
}

/* Resolve every link on the way to the interpreter: its real name tells its version. */
static void resolve(struct text *real, const struct text *python)
{
    struct text link;
    long fd = sys_open(python->bytes, O_PATH);

    cut(real, 0);
    if (fd < 0)
        return;
    join(&link, "/proc/self/fd/", "", "");
    append_number(&link, fd);
    sys_readlink(link.bytes, real);
    sys_close((int)fd);
}

/* Find the package of that very interpreter under the prefix; 0 where it is not there. */
static int find_package(struct text *package, const struct text *prefix, const struct text *python)
{
    static const char *const places[][2] = {
        {"/lib/", "/site-packages"},
        {"/lib/", "/dist-packages"}, /* Debian, outside of virtual environments */
        {"/lib64/", "/site-packages"}, /* Fedora */
    };
    struct text real;
    const char *version;

    resolve(&real, python);
    version = real.bytes + base(&real);
    if (!begins_with(version, "python3."))
        return 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        join(package, prefix->bytes, places[i][0], version);
        append(package, places[i][1]);
        append(package, "/rtlaunch/__main__.py");
        if (is_there(package, F_OK))
            return 1;
    }
    return 0;
}

/* ---- what only we can do ---- */

static int is_launch(long argc, char **argv)
{
    for (long i = 1; i < argc; i++)
        if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2] == '\0')
            return 1;
    return 0;
}

/* Start the child that opens an event and ends; its pid, or 0. A seccomp filter may kill it: no core then. */
static long warm_up(void)
{
    static const struct perf_event_attr dummy = {
        .type = PERF_TYPE_SOFTWARE,
        .size = PERF_ATTR_SIZE_VER0,
        .config = PERF_COUNT_SW_DUMMY,
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };
    long pid = sys_fork();

    if (pid == 0) {
        sys_prctl_dumpable(0);
        sys_perf_event_open(&dummy);
        sys_exit(0);
    }
    return pid > 0 ? pid : 0;
}

/* Write rtlaunch=IGNORED:PID:HELD. */
static void tell(struct text *told, long pid, uint64_t held)
{
    uint64_t pipe = sys_is_ignored(SIGPIPE) ? SIGNAL_BIT(SIGPIPE) : 0;
    uint64_t xfsz = sys_is_ignored(SIGXFSZ) ? SIGNAL_BIT(SIGXFSZ) : 0;

    join(told, "rtlaunch=", "", "");
    append_mask(told, pipe | xfsz);
    append(told, ":");
    append_number(told, pid);
    append(told, ":");
    append_mask(told, held);
}

/* Put our arguments before those that we were given; argv[0] is the interpreter, which finds its
 * virtual environment by it. */
static const char **arguments(const struct text *python, const struct text *told, const struct text *package,
                              long argc, char **argv)
{
    long room = sys_mmap_private((size_t)(argc + OWN_ARGUMENTS) * sizeof(char *));
    const char **all = (const char **)room;
    size_t count = 0;

    if (room < 0 && room > -4096)
        refuse("launch-failed", "no memory for the arguments", "", "");
    all[count++] = python->bytes;
    all[count++] = "-I";
    all[count++] = "-X";
    all[count++] = told->bytes;
    all[count++] = package ? "-S" : "-m";
    all[count++] = package ? package->bytes : "rtlaunch";
    for (long i = 1; i < argc; i++)
        all[count++] = argv[i];
    all[count] = NULL;
    return all;
}

/* Begin with what the kernel put on the stack: argc, argv, NULL, environment (execve(2), fs/binfmt_elf.c). */
__attribute__((noreturn, used)) static void entry(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    struct text here;
    struct text prefix;
    struct text python;
    struct text package;
    struct text told;
    struct text why;
    int launches = is_launch(argc, argv);
    uint64_t held = sys_block(launches && sys_getpid() == 1 ? ALL_SIGNALS : SIGNAL_BIT(SIGINT));
    int found;
    long error;

    if (sys_readlink("/proc/self/exe", &here) <= 0)
        refuse("proc-missing", "/proc is not mounted", "", ": mount it (mount -t proc proc /proc), then try again");
    cut_base(&here);
    join(&prefix, here.bytes, "", "");
    cut_base(&prefix);
    find_interpreter(&python, &here, &prefix);
    found = find_package(&package, &prefix, &python);
    tell(&told, launches ? warm_up() : 0, held);
    error = sys_execve(python.bytes, arguments(&python, &told, found ? &package : NULL, argc, argv),
                       argv + argc + 1);
    join(&why, " cannot be executed: ", error == -E2BIG ? "arguments and environment are too large, " : "",
         "errno ");
    append_number(&why, -error);
    refuse("launch-failed", "", python.bytes, why.bytes);
}

ARCH_START(entry);
