/* meddler.c - finds rtlaunch's channel by _RTL_CHANNEL and plays with it; one command a line on stdin, one reply each.
 *
 *   junk BYTES          send so many bytes that mean nothing
 *   word KIND FDS       send a well-formed message of this kind, with so many descriptors of /dev/null
 *   child KIND FDS      the same from a forked child
 *   close               close it
 *   become PROGRAM      exec that
 *
 * The first line is "ready PID PPID"; it ends with its input.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../rtlaunch/native/protocol.h"

enum { MOST_FDS = 8 };

static int channel;

static int send_word(unsigned kind, int fds)
{
    struct rtl_message message = {.protocol = RTL_PROTOCOL, .kind = kind};
    char control[CMSG_SPACE(MOST_FDS * sizeof(int))] = {0};
    struct iovec part = {&message, sizeof message};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    if (fds > 0) {
        struct cmsghdr *head;
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fds * sizeof(int));
        head = CMSG_FIRSTHDR(&header);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(fds * sizeof(int));
        for (int at = 0; at < fds; at++)
            memcpy(CMSG_DATA(head) + at * sizeof(int), &null, sizeof null);
    }
    return sendmsg(channel, &header, MSG_NOSIGNAL) < 0;
}

static int send_from_child(unsigned kind, int fds)
{
    int status = 1;
    pid_t child = fork();

    if (child == 0)
        _exit(send_word(kind, fds));
    waitpid(child, &status, 0);
    return status;
}

static int obey(const char *line)
{
    static char junk[4096], program[256];
    unsigned kind;
    int number;

    if (sscanf(line, "junk %d", &number) == 1)
        return send(channel, junk, (size_t)number % sizeof junk, MSG_NOSIGNAL) != number;
    if (sscanf(line, "word %u %d", &kind, &number) == 2)
        return send_word(kind, number % (MOST_FDS + 1));
    if (sscanf(line, "child %u %d", &kind, &number) == 2)
        return send_from_child(kind, number % (MOST_FDS + 1));
    if (sscanf(line, "become %255s", program) == 1)
        return execlp(program, program, (char *)NULL);
    return close(channel);
}

int main(void)
{
    const char *text = getenv(RTL_CHANNEL_VARIABLE);
    char line[512];

    channel = text ? (int)strtol(text, NULL, 16) : -1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d %d\n", getpid(), getppid());
    while (fgets(line, sizeof line, stdin))
        puts(obey(line) ? "no" : "done");
    return 9;
}
