/* What reaches a mail sink, counted: to be preloaded (LD_PRELOAD) into Postfix's smtp-sink.
 *
 * COUNT_SINK names a file of two records of four 64-bit numbers, the second one for recipients
 * whose address begins with COUNT_SINK_APART, the first one for all others: recipients, messages,
 * and when (CLOCK_MONOTONIC, nanoseconds) the first transaction began (MAIL) and the last one was
 * complete. A recipient counts when the message has come to its final dot; the time is written
 * before the number. Whoever reads may set all to zero while nothing comes in. Only commands are understood, so a message
 * must not hold lines that look like MAIL, RCPT or a lone dot; BDAT is not counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096 /* descriptors */
#define HEAD 64   /* octets of a line that are looked at */

struct record {
    _Atomic uint64_t recipients, messages, first, last;
};

static struct client {
    char head[HEAD];
    size_t length; /* of the line so far */
    uint64_t began, pending[2];
} clients[MOST];

static struct record *records;
static const char *apart = "";

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("COUNT_SINK"), *prefix = getenv("COUNT_SINK_APART");

    if (prefix)
        apart = prefix;
    if (path) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            void *page = mmap(NULL, 2 * sizeof(struct record), PROT_READ | PROT_WRITE,
                              MAP_SHARED, fd, 0);
            if (page != MAP_FAILED)
                records = page;
            close(fd);
        }
    }
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t) time.tv_sec * 1000000000 + (uint64_t) time.tv_nsec;
}

static void delivered(struct client *client)
{
    uint64_t at = now();

    for (int i = 0; i < 2; i++)
        if (client->pending[i]) {
            if (!records[i].recipients || client->began < records[i].first)
                records[i].first = client->began;
            records[i].last = at;
            records[i].messages++;
            records[i].recipients += client->pending[i];
            client->pending[i] = 0;
        }
}

static void line(struct client *client)
{
    size_t seen = client->length < HEAD ? client->length : HEAD - 1;

    client->head[seen] = '\0';
    if (client->length == 2 && client->head[0] == '.' && client->head[1] == '\r')
        delivered(client);
    else if (!strncasecmp(client->head, "RCPT TO:<", 9))
        client->pending[*apart && !strncmp(client->head + 9, apart, strlen(apart))]++;
    else if (!strncasecmp(client->head, "MAIL FROM:", 10)) {
        client->pending[0] = client->pending[1] = 0;
        client->began = now();
    }
    client->length = 0;
}

static void take(struct client *client, const char *octets, size_t count)
{
    while (count) {
        const char *end = memchr(octets, '\n', count);
        size_t piece = end ? (size_t) (end - octets) : count;

        if (client->length < HEAD - 1) {
            size_t room = HEAD - 1 - client->length;
            memcpy(client->head + client->length, octets, piece < room ? piece : room);
        }
        client->length += piece;
        if (!end)
            return;
        line(client);
        octets = end + 1;
        count -= piece + 1;
    }
}

ssize_t read(int fd, void *buffer, size_t size)
{
    static ssize_t (*real)(int, void *, size_t);
    ssize_t got;

    if (!real)
        real = (ssize_t (*)(int, void *, size_t)) dlsym(RTLD_NEXT, "read");
    got = real(fd, buffer, size);
    if (records && fd >= 0 && fd < MOST) {
        if (got > 0)
            take(&clients[fd], buffer, (size_t) got);
        else if (got == 0)
            memset(&clients[fd], 0, sizeof clients[fd]);
    }
    return got;
}
