/*
 * events.c - runs a program under as many perf events as a machine of N CPUs would bring.
 *
 * Why: rtlaunch opens one inherited event for each CPU, and each is a cost at every thread creation
 * and context switch. Two CPUs cannot show what 64 would cost; 64 events on two CPUs can. Each real
 * CPU has one event with a ring that is read; the others have none, since on a large machine too only
 * the event of the CPU that one runs on has something to write. Beside them stands the one event that
 * is not inherited, rtlaunch's sentinel.
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
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, RING = 256 * 1024, MOST_CPUS = 64 };

static struct perf_event_mmap_page *rings[MOST_CPUS];
static struct pollfd watched[MOST_CPUS + 2]; /* the rings, the sentinel, the command itself */

static void die(const char *what) { perror(what); exit(125); }

/* The sampler and the sentinel of rtlaunch/linux/perf.py, bit by bit. But this sentinel does not end at
 * exec: rtlaunch opens its own when the program has been exec()ed. */
static const struct perf_event_attr sampler = {
    .type = PERF_TYPE_SOFTWARE, .size = sizeof sampler, .config = PERF_COUNT_SW_PAGE_FAULTS_MAJ,
    .sample_period = 1, .wakeup_events = 1, .read_format = PERF_FORMAT_LOST,
    .sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR,
    .inherit = 1, .inherit_thread = 1, .sample_id_all = 1, .use_clockid = 1, .clockid = CLOCK_MONOTONIC,
    .comm = 1, .comm_exec = 1, .mmap = 1, .mmap_data = 1, .task = 1,
};
static const struct perf_event_attr sentinel = {
    .type = PERF_TYPE_SOFTWARE, .size = sizeof sentinel, .config = PERF_COUNT_SW_DUMMY,
    .read_format = PERF_FORMAT_LOST, .disabled = 1,
};

/* What the kernel does is not counted if it may not be (perf_event_paranoid). */
static int open_event(struct perf_event_attr event, pid_t pid, int cpu) {
    int fd = (int)syscall(SYS_perf_event_open, &event, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == EPERM)) {
        event.exclude_kernel = event.exclude_hv = 1;
        fd = (int)syscall(SYS_perf_event_open, &event, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    }
    if (fd < 0) die("perf_event_open");
    return fd;
}

static void *map_ring(int fd, size_t bytes) {
    void *ring = mmap(NULL, PAGE + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring == MAP_FAILED) die("mmap of a ring");
    return ring;
}

/* The first `used` events are the real CPUs'; the sentinel's ring holds nothing (perf_poll wants one). */
static void open_all(pid_t pid, int count, int cpus, int used) {
    for (int i = 0; i < count; i++) {
        int fd = open_event(sampler, pid, i % cpus);
        if (i >= used) continue;
        rings[i] = map_ring(fd, RING);
        watched[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    watched[used] = (struct pollfd){.fd = -1};
    if (count == 0) return;
    watched[used].fd = open_event(sentinel, pid, -1);
    map_ring(watched[used].fd, PAGE);
}

/* Read what the rings hold, as a watcher does, until the command has ended. */
static void drain(pid_t pid, int used) {
    struct pollfd *ended = &watched[used + 1];
    *ended = (struct pollfd){.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    while (poll(watched, (nfds_t)used + 2, -1) > 0 && !ended->revents) {
        if (watched[used].revents & POLLHUP) watched[used].fd = -1;
        for (int i = 0; i < used; i++) {
            if (watched[i].revents & POLLHUP) watched[i].fd = -1;
            __atomic_store_n(&rings[i]->data_tail,
                             __atomic_load_n(&rings[i]->data_head, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
        }
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
    int used = count < cpus ? count : cpus;
    open_all(child, count, cpus, used);
    if (write(gate[1], "", 1) != 1) die("write");
    drain(child, used);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
