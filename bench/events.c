/*
 * events.c - runs a program under as many perf events as a machine of N CPUs would bring.
 *
 * Why: rtlaunch opens one inherited event for each CPU, and each is a cost at every thread creation
 * and context switch. Two CPUs cannot show what 64 would cost; 64 events on two CPUs can. Each real
 * CPU has one event with a ring that is read; the others have none, since on a large machine too only
 * the event of the CPU that one runs on has something to write.
 *
 *   events N COMMAND [ARGUMENT...]     N 0: the same, watched by nothing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, RING = 256 * 1024, MOST_CPUS = 64 };

static struct perf_event_mmap_page *rings[MOST_CPUS];
static struct pollfd watched[MOST_CPUS + 1];

static void die(const char *what) { perror(what); exit(125); }

/* The flags of rtlaunch's own event (rtlaunch/linux/perf.py); what the kernel does is not counted if it
 * may not be (perf_event_paranoid). */
static int open_event(pid_t pid, int cpu) {
    struct perf_event_attr event = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_PAGE_FAULTS_MAJ,
        .sample_period = 1, .wakeup_events = 1, .inherit = 1, .sample_id_all = 1, .comm = 1, .task = 1,
        .comm_exec = 1, .mmap = 1, .mmap_data = 1, .mmap2 = 1, .inherit_thread = 1,
        .sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR
                       | PERF_SAMPLE_CPU,
    };
    int fd = (int)syscall(SYS_perf_event_open, &event, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == EPERM)) {
        event.exclude_kernel = event.exclude_hv = 1;
        fd = (int)syscall(SYS_perf_event_open, &event, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    }
    if (fd < 0) die("perf_event_open");
    return fd;
}

static void open_all(pid_t pid, int count, int cpus) {
    for (int i = 0; i < count; i++) {
        int fd = open_event(pid, i % cpus);
        if (i >= cpus) continue;
        rings[i] = mmap(NULL, PAGE + RING, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (rings[i] == MAP_FAILED) die("mmap of a ring");
        watched[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
}

/* Read what the rings hold, as a watcher does, until the command has ended. */
static void drain(pid_t pid, int used) {
    watched[used] = (struct pollfd){.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    while (poll(watched, (nfds_t)used + 1, -1) > 0 && !watched[used].revents)
        for (int i = 0; i < used; i++) {
            if (watched[i].revents & POLLHUP) watched[i].fd = -1;
            __atomic_store_n(&rings[i]->data_tail,
                             __atomic_load_n(&rings[i]->data_head, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
        }
}

int main(int argc, char **argv) {
    int gate[2], status, count = argc > 2 ? atoi(argv[1]) : -1;
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 0 || cpus > MOST_CPUS) { fprintf(stderr, "usage: events N COMMAND...\n"); return 125; }
    if (pipe(gate)) die("pipe");
    pid_t child = fork();
    if (child == 0) {
        close(gate[1]);
        if (read(gate[0], &status, 1) != 1) _exit(125);
        close(gate[0]);
        execv(argv[2], argv + 2);
        die(argv[2]);
    }
    open_all(child, count, cpus);
    if (write(gate[1], "", 1) != 1) die("write");
    drain(child, count < cpus ? count : cpus);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
