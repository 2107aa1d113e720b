/* hider.c WORD... - makes itself hard to find, says "ready PID", and answers each line with its major faults.
 *
 *   close        closes all descriptors but the standard ones
 *   clear        clears its environment, the memory that /proc shows of it included
 *   undumpable   prctl(PR_SET_DUMPABLE, 0): /proc/PID is root's from then on, and nobody may trace it
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

extern char **environ;

static void hide(const char *word)
{
    if (!strcmp(word, "close"))
        for (int fd = 3; fd < 1 << 16; fd++)
            close(fd);
    if (!strcmp(word, "undumpable"))
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (!strcmp(word, "clear")) {
        for (char **each = environ; *each; each++)
            memset(*each, 0, strlen(*each));
        clearenv();
    }
}

int main(int count, char **words)
{
    struct rusage usage;
    char line[64];

    for (int at = 1; at < count; at++)
        hide(words[at]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin)) {
        getrusage(RUSAGE_SELF, &usage);
        printf("%ld\n", usage.ru_majflt);
    }
    return 0;
}
