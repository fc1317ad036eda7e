/* Layout: one page of header (magic, size, how many have attached), then the caller's bytes.
 *
 * The memory is a memfd that others open through the creator's /proc/PID/fd, and not a name in
 * /dev/shm: containers give /dev/shm 64 MiB by default, and a mapping of more than it can hold ends
 * in SIGBUS at some later write; a memfd is bounded by memory alone and is gone with its last user
 * however they end. Needs: one user, and one PID namespace with /proc. Sealed against shrinking, so
 * that no process can take the pages from under the others. */
#define _GNU_SOURCE
#include "base/segment.h"
#include "base/wait.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 4096
#define BYTES_MAX ((size_t)1 << 40)
#define MAGIC 0x31474553594d5254u /* "TRMYSEG1" */

struct header {
    uint64_t magic;
    uint64_t bytes;
    uint32_t attached; /* atomics only; release by attachers, acquire by the creator */
    trm_wait joined;   /* posted by each attacher */
};
static_assert(sizeof(struct header) <= HEADER_BYTES, "the header fits its page");

struct trm_segment {
    char name[TRM_SEGMENT_NAME_BYTES];
    struct header *header;
    size_t bytes;
    int fd; /* the creator's, as long as the name is there; else -1 */
};

/* Takes the name away: without the descriptor nobody can open the memory any more. */
static void unname(trm_segment *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static trm_status map(trm_segment *s, int fd)
{
    void *at = mmap(NULL, HEADER_BYTES + s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (at == MAP_FAILED)
        return trm_fail(TRM_ERR_NO_MEMORY, "shared segment %s: cannot map %zu bytes: %s", s->name,
                        s->bytes, strerror(errno));
    s->header = at;
    return TRM_OK;
}

static trm_status create(size_t bytes, bool sparse, trm_segment **segment_out)
{
    trm_segment *s = NULL;
    trm_status st = TRM_OK;
    int fd = -1, rc;

    if (bytes == 0 || bytes > BYTES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "shared segment of %zu bytes: want 1 to %zu", bytes,
                        BYTES_MAX);
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "shared segment: host object");
    s->bytes = bytes;
    s->fd = -1;
    fd = memfd_create("trireme", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        st = trm_fail(TRM_ERR_IO, "shared segment of %zu bytes: memfd_create: %s", bytes,
                      strerror(errno));
        goto fail;
    }
    s->fd = fd;
    snprintf(s->name, sizeof(s->name), "/proc/%d/fd/%d", (int)getpid(), fd);
    if (ftruncate(fd, (off_t)(HEADER_BYTES + bytes)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "shared segment of %zu bytes: %s", bytes, strerror(errno));
        goto fail;
    }
    do {
        rc = sparse ? 0 : posix_fallocate(fd, 0, (off_t)(HEADER_BYTES + bytes));
    } while (rc == EINTR);
    if (rc != 0) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "shared segment of %zu bytes: %s", bytes, strerror(rc));
        goto fail;
    }
    TRM_TRY(st, map(s, fd), fail);
    s->header->bytes = bytes;
    __atomic_store_n(&s->header->magic, MAGIC, __ATOMIC_RELEASE);
    *segment_out = s;
    return TRM_OK;

fail:
    trm_segment_close(s);
    return st;
}

trm_status trm_segment_create(size_t bytes, trm_segment **segment_out)
{
    return create(bytes, false, segment_out);
}

trm_status trm_segment_create_sparse(size_t bytes, trm_segment **segment_out)
{
    return create(bytes, true, segment_out);
}

trm_status trm_segment_attach(const char *name, size_t bytes, trm_segment **segment_out)
{
    trm_segment *s = NULL;
    struct stat info;
    trm_status st = TRM_OK;
    int fd = -1;

    if (name == NULL || strlen(name) >= TRM_SEGMENT_NAME_BYTES || bytes == 0 || bytes > BYTES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "shared segment: bad name or size %zu", bytes);
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "shared segment: host object");
    s->bytes = bytes;
    s->fd = -1;
    memcpy(s->name, name, strlen(name) + 1);
    fd = open(name, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        st = trm_fail(errno == ENOENT ? TRM_ERR_NOT_FOUND : TRM_ERR_IO, "shared segment %s: %s",
                      name, strerror(errno));
        goto fail;
    }
    if (fstat(fd, &info) != 0 || info.st_size < 0 || (size_t)info.st_size != HEADER_BYTES + bytes) {
        st = trm_fail(TRM_ERR_COMM, "shared segment %s is not of %zu bytes", name, bytes);
        goto fail;
    }
    TRM_TRY(st, map(s, fd), fail);
    if (__atomic_load_n(&s->header->magic, __ATOMIC_ACQUIRE) != MAGIC ||
        s->header->bytes != bytes) {
        st = trm_fail(TRM_ERR_COMM, "shared segment %s was not made by this program", name);
        goto fail;
    }
    __atomic_fetch_add(&s->header->attached, 1, __ATOMIC_RELEASE);
    trm_wait_post(&s->header->joined);
    close(fd);
    *segment_out = s;
    return TRM_OK;

fail:
    if (fd >= 0)
        close(fd);
    trm_segment_close(s);
    return st;
}

trm_status trm_segment_seal(trm_segment *segment, int others, int64_t timeout_ms)
{
    int64_t deadline = trm_deadline_us(timeout_ms);
    struct header *h = segment->header;
    trm_status st = TRM_OK;

    while (st == TRM_OK) {
        uint32_t seen = trm_wait_count(&h->joined);

        if (__atomic_load_n(&h->attached, __ATOMIC_ACQUIRE) >= (uint32_t)others)
            break;
        st = trm_wait_change(&h->joined, seen, 0, deadline);
    }
    unname(segment);
    if (st != TRM_OK)
        return trm_fail(st, "shared segment %s: %u of %d processes attached in time", segment->name,
                        __atomic_load_n(&h->attached, __ATOMIC_RELAXED), others);
    return TRM_OK;
}

void trm_segment_close(trm_segment *segment)
{
    if (segment == NULL)
        return;
    unname(segment);
    if (segment->header != NULL)
        munmap(segment->header, HEADER_BYTES + segment->bytes);
    trm_free(segment);
}

void *trm_segment_data(trm_segment *segment)
{
    return (char *)segment->header + HEADER_BYTES;
}

size_t trm_segment_bytes(const trm_segment *segment)
{
    return segment->bytes;
}

const char *trm_segment_name(const trm_segment *segment)
{
    return segment->name;
}
