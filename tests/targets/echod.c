/* echod.c - a daemon that sends back each line, with every letter turned by a table; one loop over poll(2).
 *
 * It listens on a loopback port that the kernel chooses, says "ready PID PORT", and ends at the end of its input.
 * Each connection has a buffer of its own from malloc, so that its heap lives while it is used.
 */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT, LISTENER, CLIENTS, MOST = 256, BYTES = 16384 };

static struct pollfd waiting[MOST] = {{.fd = STDIN_FILENO, .events = POLLIN}};
static char *buffers[MOST];
static int count = CLIENTS;

static void begin(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, MOST))
        exit(1);
    getsockname(listener, (struct sockaddr *)&at, &size);
    waiting[LISTENER] = (struct pollfd){.fd = listener, .events = POLLIN};
    printf("ready %d %d\n", getpid(), ntohs(at.sin_port));
    fflush(stdout);
}

static void take(void)
{
    int client = accept(waiting[LISTENER].fd, NULL, NULL);

    if (client < 0)
        return;
    if (count == MOST) {
        close(client);
        return;
    }
    buffers[count] = malloc(BYTES);
    waiting[count++] = (struct pollfd){.fd = client, .events = POLLIN};
}

static void drop(int at)
{
    close(waiting[at].fd);
    free(buffers[at]);
    waiting[at] = waiting[--count];
    buffers[at] = buffers[count];
}

static int answer(int at)
{
    ssize_t bytes = read(waiting[at].fd, buffers[at], BYTES);

    for (ssize_t each = 0; each < bytes; each++) {
        char *letter = &buffers[at][each];
        if (*letter >= 'a' && *letter <= 'z')
            *letter = "nopqrstuvwxyzabcdefghijklm"[*letter - 'a'];
    }
    return bytes > 0 && write(waiting[at].fd, buffers[at], (size_t)bytes) == bytes;
}

int main(void)
{
    char rest[16];

    begin();
    for (;;) {
        if (poll(waiting, (nfds_t)count, -1) < 0)
            continue; /* stopped and continued */
        if (waiting[INPUT].revents && read(STDIN_FILENO, rest, sizeof rest) <= 0)
            return 0;
        for (int at = count - 1; at >= CLIENTS; at--)
            if (waiting[at].revents && !answer(at))
                drop(at);
        if (waiting[LISTENER].revents)
            take();
    }
}
