/* waiter.c - stands still where the test wants it, and does as it is told; one command a line on stdin, one reply each.
 *
 * Before main(), if WAITER_BEFORE_MAIN is set: says "before main PID" and waits for a line. That is in the
 * program's own constructor, which follows the preloaded objects', and uses nothing but system calls.
 * In main(): says "ready PID", and ends with 0 (or with its first argument) when stdin does.
 *
 *   stack BYTES        write to BYTES of main stack; replies with the minor faults that this took
 *   mmap BYTES         map anonymous memory; replies with its address, or "errno N"
 *   malloc BYTES       the same by malloc
 *   write ADDRESS BYTES  write to each page there; replies with the minor faults that this took
 *   thread             run a thread with the default attributes; replies "ran" or "errno N"
 *   counts             replies with the kernel's ru_majflt and ru_minflt
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PAGE = 4096 };

__attribute__((constructor)) static void stand_before_main(void)
{
    static char line[64];
    char *at = line + sizeof line;
    int pid = getpid();

    if (!getenv("WAITER_BEFORE_MAIN"))
        return;
    *--at = '\n';
    for (; pid; pid /= 10)
        *--at = (char)('0' + pid % 10);
    at -= strlen("before main ");
    memcpy(at, "before main ", strlen("before main "));
    if (write(1, at, (size_t)(line + sizeof line - at)) < 0)
        _exit(1);
    while (read(0, line, 1) == 1 && *line != '\n')
        ;
}

static long minor_faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static void write_pages(volatile char *start, size_t bytes)
{
    for (size_t at = bytes; at > 0; at = at > PAGE ? at - PAGE : 0)
        start[at - 1] = 1;
}

__attribute__((noinline)) static long use_stack(size_t bytes)
{
    long before = minor_faults();

    write_pages(alloca(bytes), bytes);
    return minor_faults() - before;
}

static long use_memory(void *start, size_t bytes)
{
    long before = minor_faults();

    write_pages(start, bytes);
    return minor_faults() - before;
}

static void say_address(void *address)
{
    if (address == NULL || address == MAP_FAILED)
        printf("errno %d\n", errno);
    else
        printf("%p\n", address);
}

static void *nothing(void *argument)
{
    return argument;
}

static void run_thread(void)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, nothing, NULL);

    if (error) {
        printf("errno %d\n", error);
        return;
    }
    pthread_join(thread, NULL);
    puts("ran");
}

static void obey(const char *line)
{
    struct rusage usage;
    size_t bytes;
    void *address;

    if (sscanf(line, "stack %zu", &bytes) == 1) {
        printf("%ld\n", use_stack(bytes));
    } else if (sscanf(line, "mmap %zu", &bytes) == 1) {
        say_address(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    } else if (sscanf(line, "malloc %zu", &bytes) == 1) {
        say_address(malloc(bytes));
    } else if (sscanf(line, "write %p %zu", &address, &bytes) == 2) {
        printf("%ld\n", use_memory(address, bytes));
    } else if (strncmp(line, "thread", 6) == 0) {
        run_thread();
    } else {
        getrusage(RUSAGE_SELF, &usage);
        printf("%ld %ld\n", usage.ru_majflt, usage.ru_minflt);
    }
}

int main(int argc, char **argv)
{
    char line[256];

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return argc > 1 ? atoi(argv[1]) : 0;
}
