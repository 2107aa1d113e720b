/* faulter.c FILE - takes major faults on command, in the file that it maps; one command a line on stdin, one reply each.
 *
 *   evict              push every page of the mapping out of memory; replies when none is left
 *   touch FIRST COUNT  read one byte of each of these pages
 *   thread NAME FIRST COUNT  the same in a new thread of that name
 *   write FIRST COUNT  the same inside write(2)
 *   anonymous COUNT    write one byte to each page of fresh anonymous memory (minor faults)
 *   child FIRST COUNT  touch in a forked child
 *   park NAME FIRST COUNT  make a thread that will do so at unpark
 *   unpark             let it, and wait for it
 *   map FILE           map another file instead
 *   exec PATH FILE     become PATH, mapping FILE
 *   threadexec PATH FILE  the same, by a thread that is not the first
 *   counts             reply with the kernel's ru_majflt and ru_minflt
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, EVICT_TRIES = 200 };

static volatile char *map;
static size_t pages;
static volatile char sink;

struct job {
    char name[16];
    size_t first, count;
};

static struct job parked;
static pthread_t parked_thread;
static pthread_barrier_t gate;

__attribute__((noinline)) static void touch(size_t first, size_t count)
{
    for (size_t page = first; page < first + count; page++)
        sink = map[page * PAGE];
}

static void *touch_in_thread(void *argument)
{
    struct job *job = argument;

    prctl(PR_SET_NAME, job->name);
    touch(job->first, job->count);
    return NULL;
}

static void *wait_and_touch(void *argument)
{
    struct job *job = argument;

    prctl(PR_SET_NAME, job->name);
    pthread_barrier_wait(&gate);
    touch(job->first, job->count);
    return NULL;
}

/* Count the pages in memory; with `again`, touch them, as only mapped ones can be evicted. */
static size_t resident(int again)
{
    static unsigned char in_memory[1 << 20];
    size_t count = 0;

    if (mincore((void *)map, pages * PAGE, in_memory))
        return pages;
    for (size_t page = 0; page < pages; page++) {
        if (again && in_memory[page] & 1)
            touch(page, 1);
        count += in_memory[page] & 1;
    }
    return count;
}

/* A page that waits in a CPU's batch for its LRU list can be evicted from that CPU alone. */
static void evict(void)
{
    cpu_set_t before, one;

    touch(0, pages);
    sched_getaffinity(0, sizeof before, &before);
    for (int attempt = 0; attempt < EVICT_TRIES && resident(1); attempt++) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &before))
                continue;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
            madvise((void *)map, pages * PAGE, MADV_PAGEOUT);
        }
    }
    sched_setaffinity(0, sizeof before, &before);
}

static void write_out(size_t first, size_t count)
{
    int fd = memfd_create("out", 0);

    for (size_t page = first; page < first + count; page++)
        if (pwrite(fd, (void *)(map + page * PAGE), 8, 0) != 8)
            exit(1);
    close(fd);
}

static void touch_anonymous(size_t count)
{
    volatile char *fresh = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    madvise((void *)fresh, count * PAGE, MADV_NOHUGEPAGE);
    for (size_t page = 0; page < count; page++)
        fresh[page * PAGE] = 1;
}

static void *become(void *arguments)
{
    char **words = arguments;

    execl(words[0], words[0], words[1], (char *)NULL);
    return NULL;
}

static int map_file(const char *path)
{
    struct stat found;
    int fd = open(path, O_RDWR);

    if (fd < 0 || fstat(fd, &found))
        return -1;
    pages = (size_t)found.st_size / PAGE;
    map = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return map == MAP_FAILED ? -1 : madvise((void *)map, pages * PAGE, MADV_RANDOM);
}

static void obey(const char *line)
{
    struct job job = {.first = 0, .count = 0};
    char path[4096], file[4096];
    pthread_t thread;

    if (strncmp(line, "evict", 5) == 0) {
        evict();
        printf("left %zu\n", resident(0));
    } else if (sscanf(line, "touch %zu %zu", &job.first, &job.count) == 2) {
        touch(job.first, job.count);
        puts("touched");
    } else if (sscanf(line, "thread %15s %zu %zu", job.name, &job.first, &job.count) == 3) {
        pthread_create(&thread, NULL, touch_in_thread, &job);
        pthread_join(thread, NULL);
        puts("touched");
    } else if (sscanf(line, "write %zu %zu", &job.first, &job.count) == 2) {
        write_out(job.first, job.count);
        puts("written");
    } else if (sscanf(line, "anonymous %zu", &job.count) == 1) {
        touch_anonymous(job.count);
        puts("touched");
    } else if (sscanf(line, "child %zu %zu", &job.first, &job.count) == 2) {
        pid_t child = fork();
        if (child == 0) {
            touch(job.first, job.count);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        puts("touched");
    } else if (sscanf(line, "park %15s %zu %zu", parked.name, &parked.first, &parked.count) == 3) {
        pthread_barrier_init(&gate, NULL, 2);
        pthread_create(&parked_thread, NULL, wait_and_touch, &parked);
        puts("parked");
    } else if (strncmp(line, "unpark", 6) == 0) {
        pthread_barrier_wait(&gate);
        pthread_join(parked_thread, NULL);
        puts("touched");
    } else if (sscanf(line, "map %4095s", file) == 1) {
        puts(map_file(file) ? "not mapped" : "mapped");
    } else if (sscanf(line, "exec %4095s %4095s", path, file) == 2) {
        become((char *[]){path, file});
        puts("not executed");
    } else if (sscanf(line, "threadexec %4095s %4095s", path, file) == 2) {
        pthread_create(&thread, NULL, become, (char *[]){path, file});
        pthread_join(thread, NULL);
        puts("not executed");
    } else {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        printf("%ld %ld\n", usage.ru_majflt, usage.ru_minflt);
    }
}

int main(int argc, char **argv)
{
    char line[8192];

    if (argc < 2 || map_file(argv[1]))
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    resident(0); /* its table is touched */
    printf("ready %#lx\n", (unsigned long)(uintptr_t)map);
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
