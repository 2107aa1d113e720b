/*
 * exec_many.c - exec_many COUNT: offer the files 0, 1, ... of the working directory to execve, one after the other.
 *
 * Why: the kernel's word on a million files, in minutes. A refused execve leaves the process as it was, so that
 * one child tries on until one is accepted. It is traced, so that a successful execve stops it before the first
 * instruction; there it is looked at and killed.
 *
 * It must not let one instruction of a file run. Written to stdout: a struct verdict for each file.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct verdict {
    int32_t errno_or_signal; /* 0: accepted; errno: refused; -signal: committed to, and killed by the kernel */
    uint32_t word_bytes;     /* of an accepted program: 4 or 8 */
    uint64_t loader_base;    /* AT_BASE: where its loader is mapped, 0 for none */
    uint64_t device;         /* which file runs */
    uint64_t inode;
};

struct shared {
    volatile int next;
    struct verdict verdicts[];
};

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* The child: try from `next` on; a kernel that accepts does not return. */
static void try_on(struct shared *shared, int count)
{
    struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        die("PTRACE_TRACEME");
    while (shared->next < count) {
        char name[16];
        char *words[] = {name, NULL};
        char *variables[] = {NULL};

        snprintf(name, sizeof name, "./%d", shared->next);
        execve(name, words, variables);
        shared->verdicts[shared->next].errno_or_signal = errno;
        shared->next = shared->next + 1;
    }
    _exit(0);
}

/* By the size of the register set: it is that of the image's own mode. */
static uint32_t word_bytes(pid_t child)
{
    struct user_regs_struct registers;
    struct iovec area = {&registers, sizeof registers};

    if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &area) < 0)
        return 0;
    return area.iov_len == sizeof registers ? 8 : 4;
}

static uint64_t loader_base(pid_t child, uint32_t word)
{
    char path[32];
    unsigned char raw[1024];
    FILE *file;
    size_t got;

    snprintf(path, sizeof path, "/proc/%d/auxv", child);
    file = fopen(path, "r");
    if (!file)
        return 0;
    got = fread(raw, 1, sizeof raw, file);
    fclose(file);
    for (size_t at = 0; word && at + 2 * word <= got; at += 2 * word) {
        uint64_t pair[2] = {0, 0};

        memcpy(&pair[0], raw + at, word);
        memcpy(&pair[1], raw + at + word, word);
        if (pair[0] == AT_BASE)
            return pair[1];
    }
    return 0;
}

static void look_at(pid_t child, struct verdict *verdict)
{
    char path[32];
    struct stat found = {0};

    snprintf(path, sizeof path, "/proc/%d/exe", child);
    stat(path, &found);
    verdict->errno_or_signal = 0;
    verdict->device = found.st_dev;
    verdict->inode = found.st_ino;
    verdict->word_bytes = word_bytes(child);
    verdict->loader_base = loader_base(child, verdict->word_bytes);
}

/* See one child to its end; what it was at then is told, unless it came to the end of all. */
static void see_through(pid_t child, struct shared *shared, int count)
{
    int status;

    if (waitpid(child, &status, 0) < 0)
        die("waitpid");
    if (WIFSTOPPED(status)) {
        if (WSTOPSIG(status) == SIGTRAP) /* else it was committed to, and could not be mapped */
            look_at(child, &shared->verdicts[shared->next]);
        else
            shared->verdicts[shared->next].errno_or_signal = -WSTOPSIG(status);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        shared->next = shared->next + 1;
    } else if (WIFSIGNALED(status)) {
        shared->verdicts[shared->next].errno_or_signal = -WTERMSIG(status);
        shared->next = shared->next + 1;
    } else if (shared->next < count) {
        die("a child gave up");
    }
}

int main(int argc, char **argv)
{
    int count = argc == 2 ? atoi(argv[1]) : 0;
    size_t bytes = sizeof(struct shared) + (size_t)count * sizeof(struct verdict);
    struct shared *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        die("mmap");
    while (shared->next < count) {
        pid_t child = fork();

        if (child == 0)
            try_on(shared, count);
        if (child < 0)
            die("fork");
        see_through(child, shared, count);
    }
    return fwrite(shared->verdicts, sizeof(struct verdict), (size_t)count, stdout) != (size_t)count;
}
