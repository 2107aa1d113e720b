/* shaper.c - a program with threads, whose memory has a shape: one command a line on stdin, one reply each.
 *
 * Says "ready PID" first, and ends with 0 when stdin does.
 *
 *   default            the default stack of a thread, in bytes, as the C library has it
 *   limits             soft and hard RLIMIT_STACK
 *   threads N          start N threads that wait; replies "N", or "errno E after I"
 *   work               start a thread that allocates and uses 64 KiB, and join it; "ran" or "errno E"
 *   malloc BYTES       allocate and use memory; its address, or "errno E"
 *   map BYTES          map anonymous memory, advise huge pages, then write to all of it; its address
 *   stack BYTES        use BYTES of main stack; "used"
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

enum { PAGE = 4096, HUGE = 2 << 20, WORK = 64 << 10 };

static void *wait_for_ever(void *argument)
{
    pause();
    return argument;
}

static void *work(void *argument)
{
    char *memory = malloc(WORK);

    if (memory)
        memset(memory, 1, WORK);
    *(int *)argument = memory ? 0 : ENOMEM;
    free(memory);
    return NULL;
}

static int default_stack(size_t *bytes)
{
    pthread_attr_t attributes;
    int error;

#ifdef __GLIBC__
    error = pthread_getattr_default_np(&attributes);
#else
    error = pthread_attr_init(&attributes);
#endif
    return error ? error : pthread_attr_getstacksize(&attributes, bytes);
}

static void start_threads(int count)
{
    for (int at = 0; at < count; at++) {
        pthread_t thread;
        int error = pthread_create(&thread, NULL, wait_for_ever, NULL);

        if (error) {
            printf("errno %d after %d\n", error, at);
            return;
        }
    }
    printf("%d\n", count);
}

static void work_in_a_thread(void)
{
    pthread_t thread;
    int result = 0;
    int error = pthread_create(&thread, NULL, work, &result);

    if (!error)
        pthread_join(thread, NULL);
    if (error || result)
        printf("errno %d\n", error ? error : result);
    else
        puts("ran");
}

static void *map_advised(size_t bytes)
{
    char *all = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *start;

    if (all == MAP_FAILED)
        return NULL;
    start = (char *)(((unsigned long)all + HUGE - 1) & ~(unsigned long)(HUGE - 1));
    if (madvise(start, bytes, MADV_HUGEPAGE))
        return NULL;
    memset(start, 1, bytes);
    return start;
}

__attribute__((noinline)) static void use_stack(size_t bytes)
{
    volatile char *start = alloca(bytes);

    for (size_t at = bytes; at > 0; at = at > PAGE ? at - PAGE : 0)
        start[at - 1] = 1;
}

static void obey(const char *line)
{
    struct rlimit limit;
    size_t bytes = 0;
    void *address;
    int count;

    if (strncmp(line, "default", 7) == 0) {
        int error = default_stack(&bytes);

        printf("%zu\n", error ? 0 : bytes);
    } else if (strncmp(line, "limits", 6) == 0) {
        getrlimit(RLIMIT_STACK, &limit);
        printf("%ld %ld\n", (long)limit.rlim_cur, (long)limit.rlim_max);
    } else if (sscanf(line, "threads %d", &count) == 1) {
        start_threads(count);
    } else if (strncmp(line, "work", 4) == 0) {
        work_in_a_thread();
    } else if (sscanf(line, "malloc %zu", &bytes) == 1) {
        address = malloc(bytes);
        if (address)
            memset(address, 1, bytes);
        address ? printf("%p\n", address) : printf("errno %d\n", errno);
    } else if (sscanf(line, "map %zu", &bytes) == 1) {
        address = map_advised(bytes);
        address ? printf("%p\n", address) : printf("errno %d\n", errno);
    } else if (sscanf(line, "stack %zu", &bytes) == 1) {
        use_stack(bytes);
        puts("used");
    } else {
        puts("what?");
    }
}

int main(void)
{
    char line[256];

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d\n", getpid());
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
