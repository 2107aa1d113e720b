/* trace.c [FILE] - says what it was started with: everything that a wrapper could change behind its back.
 *
 * All is written at the end, to FILE or standard output, so that a closed descriptor is seen as one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static char out[1 << 18];
static size_t length;

__attribute__((format(printf, 1, 2))) static void print(const char *format, ...)
{
    va_list words;

    va_start(words, format);
    length += (size_t)vsnprintf(out + length, sizeof out - length, format, words);
    va_end(words);
    if (length >= sizeof out)
        exit(2);
}

static void print_signals(void)
{
    struct sigaction action;

    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            print("signal %d is %s\n", number, action.sa_handler == SIG_IGN ? "ignored" : "caught");
}

static void print_status(void)
{
    static const char *const keys[] = {"Umask", "Uid", "Gid", "Groups", "SigPnd", "ShdPnd", "SigBlk", "SigIgn",
                                       "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
                                       "Seccomp", "Cpus_allowed_list", "NSsid", "THP_enabled", "CoreDumping"};
    char line[1024];
    FILE *file = fopen("/proc/self/status", "r");

    while (file && fgets(line, sizeof line, file))
        for (size_t at = 0; at < sizeof keys / sizeof *keys; at++)
            if (strncmp(line, keys[at], strlen(keys[at])) == 0 && line[strlen(keys[at])] == ':')
                print("%s", line);
    if (file)
        fclose(file);
}

static void print_descriptors(void)
{
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            print("fd %d flags %#x status %#x\n", fd, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
}

static void print_limits(void)
{
    struct rlimit limit;

    for (int resource = 0; resource < 16; resource++)
        if (getrlimit(resource, &limit) == 0)
            print("limit %d %ld %ld\n", resource, (long)limit.rlim_cur, (long)limit.rlim_max);
}

static void write_out(const char *path)
{
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : 1;
    size_t done = 0;

    while (done < length) {
        ssize_t wrote = write(fd, out + done, length - done);
        if (wrote < 0)
            exit(1);
        done += (size_t)wrote;
    }
}

int main(int argc, char **argv)
{
    char cwd[4096];
    mode_t mask = umask(0);

    umask(mask);
    print_descriptors();
    for (char **entry = environ; *entry; entry++)
        print("environ %s\n", *entry);
    print_status();
    print_signals();
    print_limits();
    print("umask %#o\n", (unsigned)mask);
    print("cwd %s\n", getcwd(cwd, sizeof cwd) ? cwd : "is gone");
    print("nice %d\n", getpriority(PRIO_PROCESS, 0));
    print("io priority %ld\n", syscall(SYS_ioprio_get, 1, 0));
    print("policy %d\n", sched_getscheduler(0));
    print("slack %d\n", prctl(PR_GET_TIMERSLACK));
    print("personality %#x\n", (unsigned)personality(0xffffffff));
    print("dumpable %d\n", prctl(PR_GET_DUMPABLE));
    print("securebits %d\n", prctl(PR_GET_SECUREBITS));
    print("keepcaps %d\n", prctl(PR_GET_KEEPCAPS));
    print("pgrp %s\n", getpgrp() == getpgid(getppid()) ? "the parent's" : "its own");
    print("session %s\n", getsid(0) == getsid(getppid()) ? "the parent's" : "its own");
    write_out(argc > 1 ? argv[1] : NULL);
    return 0;
}
