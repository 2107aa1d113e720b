/* trace.c - says what it was started with: everything that a wrapper could change behind its back. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

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
                fputs(line, stdout);
    if (file)
        fclose(file);
}

static void print_descriptors(void)
{
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("fd %d flags %#x status %#x\n", fd, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
}

static void print_limits(void)
{
    struct rlimit limit;

    for (int resource = 0; resource < 16; resource++)
        if (getrlimit(resource, &limit) == 0)
            printf("limit %d %ld %ld\n", resource, (long)limit.rlim_cur, (long)limit.rlim_max);
}

int main(int argc, char **argv)
{
    static char out[1 << 16];
    char cwd[4096];
    mode_t mask = umask(0);
    const char *to = argc > 1 ? argv[1] : NULL;

    umask(mask);
    if (to && !freopen(to, "w", stdout))
        return 1;
    setvbuf(stdout, out, _IOFBF, sizeof out);
    for (char **entry = environ; *entry; entry++)
        printf("environ %s\n", *entry);
    print_status();
    if (!to)
        print_descriptors();
    print_limits();
    printf("cwd %s\n", getcwd(cwd, sizeof cwd));
    printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
    printf("policy %d\n", sched_getscheduler(0));
    printf("slack %d\n", prctl(PR_GET_TIMERSLACK));
    printf("personality %#x\n", personality(0xffffffff));
    printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
    printf("pgrp %s\n", getpgrp() == getpgid(getppid()) ? "the parent's" : "its own");
    return 0;
}
