/* Blocks in one system call, or in each of several by a thread of its own, and says how it ended.

   sleepers CALL...   CALL is one of the names below. It says "ready PID", then for each call
   "CALL RESULT ERRNO MS": MS from before the call to after it. Those with a time wait SECONDS;
   the others end when a line comes on standard input. A signal that is caught adds "caught". */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 2 };

static int pipe_of[2];
static struct sockaddr_in listening_at = {.sin_family = AF_INET};

static const struct timespec *in_a_while(void)
{
    static const struct timespec time = {SECONDS, 0};
    return &time;
}

static struct timespec at_last(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    now.tv_sec += SECONDS;
    return now;
}

static long do_nanosleep(void) { return nanosleep(in_a_while(), NULL); }

static long do_nanosleep_until(void)
{
    struct timespec end = at_last();
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
}

static long do_futex(void)
{
    static int word;
    return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, in_a_while(), NULL, 0);
}

static long do_condition(void)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += SECONDS;
    pthread_mutex_lock(&mutex);
    return pthread_cond_timedwait(&condition, &mutex, &end);
}

static long do_poll(void)
{
    struct pollfd none = {.fd = -1};
    return poll(&none, 1, SECONDS * 1000);
}

static long do_ppoll(void)
{
    struct pollfd none = {.fd = -1};
    sigset_t mask;
    sigemptyset(&mask);
    return ppoll(&none, 1, in_a_while(), &mask);
}

static long do_select(void)
{
    struct timeval time = {SECONDS, 0};
    return select(0, NULL, NULL, NULL, &time);
}

static long do_epoll(void)
{
    struct epoll_event event;
    return epoll_wait(epoll_create1(0), &event, 1, SECONDS * 1000);
}

static long do_epoll_pwait2(void)
{
    struct epoll_event event;
    return syscall(SYS_epoll_pwait2, epoll_create1(0), &event, 1, in_a_while(), NULL, 8);
}

static long do_epoll_forever(void)
{
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_of[0], &event);
    return epoll_wait(epoll, &event, 1, -1);
}

static long do_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return sigtimedwait(&set, NULL, in_a_while());
}

static long do_semaphore(void)
{
    int set = semget(IPC_PRIVATE, 1, 0600);
    struct sembuf take = {.sem_op = -1};
    long result = semtimedop(set, &take, 1, in_a_while());
    int error = errno;
    semctl(set, 0, IPC_RMID);
    errno = error;
    return result;
}

static long do_read(void)
{
    char byte;
    return read(pipe_of[0], &byte, 1);
}

static long do_accept(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof listening_at;
    listening_at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener, (struct sockaddr *)&listening_at, size);
    getsockname(listener, (struct sockaddr *)&listening_at, &size);
    listen(listener, 1);
    return accept(listener, NULL, NULL) >= 0;
}

static long do_receive(void)
{
    int ends[2];
    char byte;
    struct timeval time = {SECONDS, 0};
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    return recv(ends[0], &byte, 1, 0);
}

static long do_vfork(void)
{
    pid_t child = vfork();
    if (child == 0) {  /* nothing but its death wakes the parent until then */
        nanosleep(in_a_while(), NULL);
        _exit(0);
    }
    return waitpid(child, NULL, 0) == child;
}

static long do_spin(void)
{
    struct timespec now, end = at_last();
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    return 0;
}

static const struct {
    const char *name;
    long (*make)(void);
} CALLS[] = {
    {"nanosleep", do_nanosleep}, {"nanosleep-until", do_nanosleep_until},
    {"futex", do_futex}, {"condition", do_condition},
    {"poll", do_poll}, {"ppoll", do_ppoll}, {"select", do_select},
    {"epoll", do_epoll}, {"epoll-pwait2", do_epoll_pwait2}, {"epoll-forever", do_epoll_forever},
    {"sigtimedwait", do_sigtimedwait}, {"semaphore", do_semaphore},
    {"read", do_read}, {"accept", do_accept}, {"receive", do_receive},
    {"vfork", do_vfork}, {"spin", do_spin},
};

static void on_signal(int number)
{
    (void)number;
    write(1, "caught\n", 7);
}

static void *work(void *name)
{
    for (size_t at = 0; at < sizeof CALLS / sizeof CALLS[0]; at++) {
        struct timespec before, after;
        if (strcmp(CALLS[at].name, name))
            continue;
        errno = 0;
        clock_gettime(CLOCK_MONOTONIC, &before);
        long result = CALLS[at].make();
        int error = errno;
        clock_gettime(CLOCK_MONOTONIC, &after);
        dprintf(1, "%s %ld %s %.1f\n", (char *)name, result, error ? strerrorname_np(error) : "0",
                (after.tv_sec - before.tv_sec) * 1e3 + (after.tv_nsec - before.tv_nsec) / 1e6);
    }
    return NULL;
}

static void *release(void *unused)
{
    char line[16];
    if (read(0, line, sizeof line) <= 0)
        return unused;
    write(pipe_of[1], "", 1);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    connect(client, (struct sockaddr *)&listening_at, sizeof listening_at);
    return unused;
}

int main(int count, char **words)
{
    pthread_t thread, threads[64];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    if (pipe(pipe_of))
        return 1;
    dprintf(1, "ready %d\n", getpid());
    if (count == 2 && !strcmp(words[1], "read")) {  /* alone, it reads what the test writes */
        dup2(0, pipe_of[0]);
        work(words[1]);
        return 0;
    }
    int released = count == 2 && (!strcmp(words[1], "accept") || strstr(words[1], "forever"));
    if (count == 2 && !released) {
        work(words[1]);
        return 0;
    }
    for (int at = 1; at < count; at++)
        pthread_create(&threads[at], NULL, work, words[at]);
    pthread_create(&thread, NULL, release, NULL);
    for (int at = 1; at < count; at++)
        pthread_join(threads[at], NULL);
    return 0;
}
