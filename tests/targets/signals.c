/* signals.c [NUMBER...] - says which signals reach it, one a line: number, si_code, value; all of them, or these only.
 *
 * The first line is "ready PID PPID". It ends at the end of its input, unless that is a terminal.
 * Signals wait in a signalfd, so a real-time one that is sent twice is told twice.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int input_ended(void)
{
    char rest[256];

    return read(STDIN_FILENO, rest, sizeof rest) <= 0;
}

int main(int argc, char **argv)
{
    struct signalfd_siginfo taken;
    struct pollfd waiting[2] = {{.events = POLLIN}, {.fd = isatty(STDIN_FILENO) ? -1 : STDIN_FILENO, .events = POLLIN}};
    sigset_t wanted;

    sigemptyset(&wanted);
    for (int at = 1; at < argc; at++)
        sigaddset(&wanted, atoi(argv[at]));
    if (argc == 1)
        sigfillset(&wanted);
    sigprocmask(SIG_SETMASK, &wanted, NULL);
    waiting[0].fd = signalfd(-1, &wanted, SFD_CLOEXEC);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d %d\n", getpid(), getppid());
    for (;;) {
        if (poll(waiting, 2, -1) < 0)
            continue; /* stopped and continued */
        if (waiting[0].revents && read(waiting[0].fd, &taken, sizeof taken) == sizeof taken)
            printf("%u %d %lld\n", taken.ssi_signo, taken.ssi_code,
                   taken.ssi_code == SI_QUEUE ? (long long)taken.ssi_ptr : 0);
        else if (waiting[1].revents && input_ended())
            return 0;
    }
}
