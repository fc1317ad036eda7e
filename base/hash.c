/* Four lanes of 8 bytes each; every step is invertible in the word and in the lane, so a single
 * changed word always changes the result of its lane. */
#define _GNU_SOURCE
#include "base/hash.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define K1 UINT64_C(0x9e3779b97f4a7c15)
#define K2 UINT64_C(0xd6e8feb86659fd93)
#define WHOLE_BYTES ((int64_t)64 << 20)
#define SAMPLE_BYTES ((int64_t)64 << 10)
#define SAMPLES 256

static uint64_t rotate(uint64_t v, int by)
{
    return (v << by) | (v >> (64 - by));
}

static uint64_t word_at(const unsigned char *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++) /* one load on little-endian machines */
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void mix(uint64_t lanes[4], const unsigned char *block)
{
    for (int i = 0; i < 4; i++)
        lanes[i] = (rotate(lanes[i], 29) ^ word_at(block + 8 * (size_t)i)) * K1;
}

void trm_hash_init(trm_hash *h, uint64_t seed)
{
    memset(h, 0, sizeof(*h));
    for (int i = 0; i < 4; i++)
        h->lanes[i] = (seed + (uint64_t)i + 1) * K2;
}

void trm_hash_add(trm_hash *h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    size_t held = (size_t)(h->bytes % sizeof(h->block));

    if (bytes == 0)
        return;
    h->bytes += bytes;
    if (held > 0) {
        size_t part = sizeof(h->block) - held < bytes ? sizeof(h->block) - held : bytes;

        memcpy(h->block + held, p, part);
        p += part;
        bytes -= part;
        if (held + part < sizeof(h->block))
            return;
        mix(h->lanes, h->block);
    }
    for (; bytes >= sizeof(h->block); p += sizeof(h->block), bytes -= sizeof(h->block))
        mix(h->lanes, p);
    if (bytes > 0)
        memcpy(h->block, p, bytes);
}

void trm_hash_u64(trm_hash *h, uint64_t value)
{
    unsigned char bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    trm_hash_add(h, bytes, sizeof(bytes));
}

void trm_hash_text(trm_hash *h, const char *text)
{
    trm_hash_add(h, text, strlen(text) + 1);
}

uint64_t trm_hash_value(const trm_hash *h)
{
    unsigned char block[sizeof(h->block)] = {0};
    uint64_t lanes[4], v = h->bytes;

    memcpy(lanes, h->lanes, sizeof(lanes));
    memcpy(block, h->block, (size_t)(h->bytes % sizeof(block)));
    mix(lanes, block);
    for (int i = 0; i < 4; i++) {
        v = (v ^ lanes[i]) * K2;
        v ^= v >> 32;
    }
    v *= K1;
    return v ^ v >> 29;
}

static trm_status add_range(trm_hash *h, int fd, int64_t at, int64_t bytes, unsigned char *buffer,
                            const char *path)
{
    while (bytes > 0) {
        ssize_t n = pread(fd, buffer, (size_t)(bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES), at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return trm_fail(TRM_ERR_IO, "'%s': reading: %s", path,
                            n < 0 ? strerror(errno) : "it has become shorter");
        trm_hash_add(h, buffer, (size_t)n);
        at += n;
        bytes -= n;
    }
    return TRM_OK;
}

trm_status trm_hash_file(trm_hash *h, const char *path)
{
    unsigned char *buffer = NULL;
    struct stat info;
    int64_t size, pieces, piece;
    trm_status st = TRM_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return trm_fail(errno == ENOENT || errno == ENOTDIR ? TRM_ERR_NOT_FOUND : TRM_ERR_IO,
                        "'%s': %s", path, strerror(errno));
    buffer = trm_malloc((size_t)SAMPLE_BYTES, 1);
    if (buffer == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s': reading", path);
        goto done;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "'%s' is not a regular file", path);
        goto done;
    }
    size = (int64_t)info.st_size;
    trm_hash_u64(h, (uint64_t)size);
    pieces = size <= WHOLE_BYTES ? 1 : SAMPLES;
    piece = size <= WHOLE_BYTES ? size : SAMPLE_BYTES;
    for (int64_t i = 0; i < pieces; i++) {
        int64_t at = pieces == 1 ? 0 : (size - piece) / (pieces - 1) * i;

        if (i > 0 && i == pieces - 1)
            at = size - piece;
        TRM_TRY(st, add_range(h, fd, at, piece, buffer, path), done);
    }
done:
    trm_free(buffer);
    close(fd);
    return st;
}
