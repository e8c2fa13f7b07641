/* Slower, counted flushes: to be preloaded (LD_PRELOAD) into the server under test.
 *
 * Each fsync and fdatasync first sleeps SLOW_FLUSH_NS nanoseconds, then does its work.
 * SLOW_FLUSH_COUNTER names a file of 8 octets that holds the number of calls, shared by all
 * processes; without it nothing is counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *counter;
static struct timespec delay;

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("SLOW_FLUSH_COUNTER");
    const char *nanoseconds = getenv("SLOW_FLUSH_NS");
    long long ns = nanoseconds ? atoll(nanoseconds) : 0;

    delay.tv_sec = ns / 1000000000;
    delay.tv_nsec = ns % 1000000000;
    if (path) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            void *page = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (page != MAP_FAILED)
                counter = page;
            close(fd);
        }
    }
}

static void wait_and_count(void)
{
    if (counter)
        atomic_fetch_add(counter, 1);
    if (delay.tv_sec || delay.tv_nsec)
        nanosleep(&delay, NULL);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    wait_and_count();
    return real(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    wait_and_count();
    return real(fd);
}
