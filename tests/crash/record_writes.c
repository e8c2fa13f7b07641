/* What a process does to a SQLite database, in order: to be preloaded (LD_PRELOAD).
 *
 * RECORD_DATABASE is the path of the database; its "-wal", its "-journal" and the directory
 * they are in are watched, too. RECORD_TO is the file that records are appended to: each is
 * a `struct record`, for a write followed by the octets that were written. An operation is
 * recorded after it was done and before the process learns so. What fails is not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { DATABASE, LOG, JOURNAL, DIRECTORY, FILES };
enum { CREATE = 1, WRITE, TRUNCATE, FLUSH, UNLINK };

struct record {
    uint64_t when; /* CLOCK_MONOTONIC, nanoseconds */
    uint32_t kind;
    uint32_t file;
    uint64_t offset; /* or the new size */
    uint64_t length; /* octets that follow */
};

#define DESCRIPTORS 1024
static char path[FILES][4096];
static signed char watched[DESCRIPTORS]; /* file + 1, 0 is none */
static int record_to = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void prepare(void)
{
    const char *database = getenv("RECORD_DATABASE");
    const char *to = getenv("RECORD_TO");
    char *slash;

    if (!database || !to || strlen(database) > 4000)
        return;
    strcpy(path[DATABASE], database);
    sprintf(path[LOG], "%.4000s-wal", database);
    sprintf(path[JOURNAL], "%.4000s-journal", database);
    strcpy(path[DIRECTORY], database);
    slash = strrchr(path[DIRECTORY], '/');
    if (slash)
        *slash = 0;
    record_to = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int file_of(int fd)
{
    return record_to >= 0 && fd >= 0 && fd < DESCRIPTORS ? watched[fd] - 1 : -1;
}

static int file_at(const char *name)
{
    for (int file = 0; record_to >= 0 && name && file < FILES; file++)
        if (!strcmp(name, path[file]))
            return file;
    return -1;
}

static void record(int kind, int file, uint64_t offset, const void *data, uint64_t length)
{
    struct timespec now;
    struct record head = {0, kind, file, offset, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *) data, length}};

    clock_gettime(CLOCK_MONOTONIC, &now);
    head.when = now.tv_sec * 1000000000ull + now.tv_nsec;
    if (writev(record_to, parts, 2) != (ssize_t) (sizeof head + length))
        abort(); /* an incomplete record is worse than none */
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, #name)

_Static_assert(sizeof(off_t) == sizeof(off64_t), "there is one kind of offset");

static int watch(int fd, int file, int created)
{
    if (fd >= 0 && fd < DESCRIPTORS && file >= 0) {
        watched[fd] = file + 1;
        if (created)
            record(CREATE, file, 0, NULL, 0);
    }
    return fd;
}

int open64(const char *name, int flags, ...)
{
    REAL(int, open64, const char *, int, ...);
    int file = file_at(name), fd, created;
    va_list rest;
    mode_t mode = 0;

    if (flags & O_CREAT) {
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (file < 0)
        return real(name, flags, mode);
    pthread_mutex_lock(&order);
    created = file != DIRECTORY && access(name, F_OK) != 0;
    fd = watch(real(name, flags, mode), file, created);
    pthread_mutex_unlock(&order);
    return fd;
}

int open(const char *name, int flags, ...)
{
    va_list rest;
    mode_t mode = 0;

    if (flags & O_CREAT) {
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return open64(name, flags, mode);
}

int close(int fd)
{
    REAL(int, close, int);
    if (fd >= 0 && fd < DESCRIPTORS)
        watched[fd] = 0;
    return real(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    int file = file_of(fd);
    ssize_t done;

    if (file < 0)
        return real(fd, data, length, offset);
    pthread_mutex_lock(&order);
    done = real(fd, data, length, offset);
    if (done > 0)
        record(WRITE, file, offset, data, done);
    pthread_mutex_unlock(&order);
    return done;
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);
    int file = file_of(fd), failed;

    if (file < 0)
        return real(fd, size);
    pthread_mutex_lock(&order);
    failed = real(fd, size);
    if (!failed)
        record(TRUNCATE, file, size, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite64(fd, data, length, offset);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

static int flush(int (*real)(int), int fd)
{
    int file = file_of(fd), failed;

    if (file < 0)
        return real(fd);
    pthread_mutex_lock(&order);
    failed = real(fd);
    if (!failed)
        record(FLUSH, file, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

int fsync(int fd)
{
    REAL(int, fsync, int);
    return flush(real, fd);
}

int fdatasync(int fd)
{
    REAL(int, fdatasync, int);
    return flush(real, fd);
}

int unlink(const char *name)
{
    REAL(int, unlink, const char *);
    int file = file_at(name), failed;

    if (file < 0)
        return real(name);
    pthread_mutex_lock(&order);
    failed = real(name);
    if (!failed)
        record(UNLINK, file, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

/* Whatever else could change a file would go unseen: then nothing at all may be concluded. */
static void unseen(int fd)
{
    if (file_of(fd) >= 0)
        abort();
}

ssize_t write(int fd, const void *data, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    unseen(fd);
    return real(fd, data, length);
}

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    if (file_at(from) >= 0 || file_at(to) >= 0)
        abort();
    return real(from, to);
}
