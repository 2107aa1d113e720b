/* slow.c MILLISECONDS [CODE] - a service that takes its time to stop: at SIGTERM it waits, and ends with CODE.
 *
 * The first line is "ready PID PPID"; at SIGTERM it says "stopping".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    unsigned milliseconds = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    sigset_t wanted;
    int number;

    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    printf("ready %d %d\n", getpid(), getppid());
    fflush(stdout);
    if (sigwait(&wanted, &number))
        return 1;
    puts("stopping");
    fflush(stdout);
    usleep(milliseconds * 1000);
    return argc > 2 ? atoi(argv[2]) : 0;
}
