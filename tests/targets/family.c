/* family.c NUMBER... - a parent and a child in one group; each says which of these signals reach it.
 *
 * The first line is "ready PID CHILD"; then "parent NUMBER CODE VALUE" or "child NUMBER CODE VALUE". The parent ends
 * with code 7, and the child with it, at the end of its input, unless that is a terminal.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int input_ended(void)
{
    char rest[256];

    return read(STDIN_FILENO, rest, sizeof rest) <= 0;
}

static int tell(const char *who, int signals, int input)
{
    struct pollfd waiting[2] = {{.fd = signals, .events = POLLIN}, {.fd = input, .events = POLLIN}};
    struct signalfd_siginfo taken;

    for (;;) {
        if (poll(waiting, 2, -1) < 0)
            continue; /* stopped and continued */
        if (waiting[0].revents && read(signals, &taken, sizeof taken) == sizeof taken)
            printf("%s %u %d %lld\n", who, taken.ssi_signo, taken.ssi_code,
                   taken.ssi_code == SI_QUEUE ? (long long)taken.ssi_ptr : 0);
        else if (waiting[1].revents && input_ended())
            return 7;
    }
}

int main(int argc, char **argv)
{
    sigset_t wanted;
    pid_t child;

    sigemptyset(&wanted);
    for (int at = 1; at < argc; at++)
        sigaddset(&wanted, atoi(argv[at]));
    sigprocmask(SIG_SETMASK, &wanted, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return tell("child", signalfd(-1, &wanted, SFD_CLOEXEC), -1);
    }
    printf("ready %d %d\n", getpid(), child);
    return tell("parent", signalfd(-1, &wanted, SFD_CLOEXEC), isatty(STDIN_FILENO) ? -1 : STDIN_FILENO);
}
