/* A disk that fails, on command: to be preloaded (LD_PRELOAD).
 *
 * FAIL_DATABASE is the path of a SQLite database; what is done to it, its "-wal" and its
 * "-journal" can fail. FAIL_HOW names a file of two octets, read at each operation: how, and
 * how often yet (0: as long as it says so):
 *
 *   .  all is well
 *   f  a flush fails with EIO
 *   s  a write ends short, at half of what it was told; the next one goes on
 *   h  a write ends short, and the next one fails with EIO
 *   n  a write ends short, and the next one fails with ENOSPC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned char *how;
static char prefix[4096];

__attribute__((constructor)) static void prepare(void)
{
    const char *database = getenv("FAIL_DATABASE"), *control = getenv("FAIL_HOW");
    int fd = control && database && strlen(database) < sizeof prefix
                 ? open(control, O_RDWR | O_CLOEXEC)
                 : -1;
    void *page;

    if (fd < 0)
        return;
    strcpy(prefix, database);
    page = mmap(NULL, 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED)
        how = page;
    close(fd);
}

/* Whether the next operation of a kind is to fail; counts those that do. */
static int now(char kind, int fd)
{
    char link[64], path[4096];
    ssize_t length;

    if (!how || how[0] != kind)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, prefix, strlen(prefix)) || strstr(path, "-shm"))
        return 0;
    if (how[1] && !--how[1])
        how[0] = '.';
    return 1;
}

static int flush(int (*real)(int), int fd)
{
    if (now('f', fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    return flush(real, fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    return flush(real, fd);
}

static int fails_next; /* errno of the write after a short one */

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = (ssize_t(*)(int, const void *, size_t, off64_t)) dlsym(RTLD_NEXT, "pwrite64");
    if (fails_next) {
        errno = fails_next;
        fails_next = 0;
        return -1;
    }
    if (length > 1 && now('s', fd))
        return real(fd, data, length / 2, offset);
    if (length > 1 && now('h', fd)) {
        fails_next = EIO;
        return real(fd, data, length / 2, offset);
    }
    if (length > 1 && now('n', fd)) {
        fails_next = ENOSPC;
        return real(fd, data, length / 2, offset);
    }
    return real(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite64(fd, data, length, offset);
}
