/* orphans.c COUNT - leaves COUNT grandchildren behind, which end once their parents are gone; reaps its own children.
 *
 * The first line is "ready PID PPID"; then "left COUNT" once all of them have been adopted by somebody else and
 * have ended. It ends with its input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Fork a child that forks and ends; the grandchild holds `alive` open until it ends, an orphan. */
static int leave(const int alive[2])
{
    pid_t child = fork();

    if (child < 0)
        return -1;
    if (child == 0) {
        pid_t parent = getpid();

        close(alive[0]);
        if (fork() == 0)
            while (getppid() == parent)
                usleep(1000);
        _exit(0);
    }
    return waitpid(child, NULL, 0) == child ? 0 : -1;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 1;
    int alive[2];
    char byte;

    if (pipe(alive))
        return 1;
    printf("ready %d %d\n", getpid(), getppid());
    fflush(stdout);
    for (int at = 0; at < count; at++)
        if (leave(alive))
            return 1;
    close(alive[1]);
    if (read(alive[0], &byte, 1) != 0) /* the end of file: nobody holds it */
        return 1;
    printf("left %d\n", count);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return 0;
}
