/* Pieces of a sparse shared segment, first fit: low addresses are used again and again, so that
 * their pages stay mapped. The list of pieces is the sender's own memory: nothing that a receiver
 * writes into the segment is believed.
 *
 * The segment begins with a random token that is also part of the name: a path /proc/PID/fd/N may
 * exist on another host as well, and be a segment of the same size there. */
#define _GNU_SOURCE
#include "base/exchange.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define TOKEN_ROOM TRM_ALIGN /* before the first piece */
#define TOKEN_DIGITS 16
#define GIVE_BACK_MIN ((size_t)1 << 20) /* larger pieces return their pages */
#define PIECES_MAX 65536

struct piece {
    size_t offset, bytes;
};

struct trm_exchange {
    trm_segment *segment;
    char name[TRM_SEGMENT_NAME_BYTES + 20];
    char *base;
    size_t bytes, used;
    struct piece *pieces; /* by offset, none overlap */
    size_t count, room;
};

struct trm_exchange_view {
    trm_segment *segment;
    const char *base;
    size_t bytes;
};

trm_status trm_exchange_create(size_t bytes, trm_exchange **exchange_out)
{
    trm_exchange *x;
    uint64_t token = 0;
    size_t whole;
    trm_status st = TRM_OK;

    if (bytes == 0 || !trm_add_ok(bytes, (size_t)TOKEN_ROOM, &whole))
        return trm_fail(TRM_ERR_INVALID_ARG, "exchange of %zu bytes", bytes);
    x = trm_calloc(1, sizeof(*x));
    if (x == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "exchange: host object");
    TRM_TRY(st, trm_segment_create_sparse(whole, &x->segment), fail);
    if (getrandom(&token, sizeof(token), 0) != (ssize_t)sizeof(token)) {
        st = trm_fail(TRM_ERR_IO, "exchange: getrandom: %s", strerror(errno));
        goto fail;
    }
    memcpy(trm_segment_data(x->segment), &token, sizeof(token));
    snprintf(x->name, sizeof(x->name), "%s:%016" PRIx64, trm_segment_name(x->segment), token);
    x->base = (char *)trm_segment_data(x->segment) + TOKEN_ROOM;
    x->bytes = bytes;
    *exchange_out = x;
    return TRM_OK;

fail:
    trm_exchange_destroy(x);
    return st;
}

void trm_exchange_destroy(trm_exchange *x)
{
    if (x == NULL)
        return;
    trm_segment_close(x->segment);
    trm_free(x->pieces);
    trm_free(x);
}

const char *trm_exchange_name(const trm_exchange *x)
{
    return x->name;
}

size_t trm_exchange_bytes(const trm_exchange *x)
{
    return x->bytes;
}

size_t trm_exchange_used(const trm_exchange *x)
{
    return x->used;
}

/* Whole pages inside [at, at + bytes); false: none. */
static bool pages(char *at, size_t bytes, bool outward, char **from_out, size_t *bytes_out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)at, to = from + bytes;

    from = outward ? from / page * page : (from + page - 1) / page * page;
    to = outward ? (to + page - 1) / page * page : to / page * page;
    *from_out = at - ((uintptr_t)at - from);
    *bytes_out = to > from ? to - from : 0;
    return to > from;
}

/* Has the kernel find the memory now: a write to a sparse segment on a full machine would end the
 * process. Kernels before 5.14 do not know the call, then the writer takes the risk. */
static bool populate(char *at, size_t bytes)
{
    char *from;
    size_t n;
    int rc;

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
    if (!pages(at, bytes, true, &from, &n))
        return true;
    do {
        rc = madvise(from, n, MADV_POPULATE_WRITE);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 || errno == EINVAL;
}

static bool grow(trm_exchange *x)
{
    size_t room = x->room == 0 ? 64 : 2 * x->room;
    struct piece *grown;

    if (x->count < x->room)
        return true;
    if (x->count >= PIECES_MAX)
        return false;
    grown = trm_realloc(x->pieces, room, sizeof(*grown));
    if (grown == NULL)
        return false;
    x->pieces = grown;
    x->room = room;
    return true;
}

void *trm_exchange_take(trm_exchange *x, size_t bytes, uint64_t *offset_out)
{
    size_t at = 0, i = 0;

    if (bytes == 0 || bytes > x->bytes || !grow(x))
        return NULL;
    for (; i < x->count; i++) {
        if (x->pieces[i].offset >= at && x->pieces[i].offset - at >= bytes)
            break;
        at = trm_align_up(x->pieces[i].offset + x->pieces[i].bytes, TRM_ALIGN);
    }
    if (at > x->bytes || x->bytes - at < bytes || !populate(x->base + at, bytes))
        return NULL;
    memmove(&x->pieces[i + 1], &x->pieces[i], (x->count - i) * sizeof(*x->pieces));
    x->pieces[i] = (struct piece){at, bytes};
    x->count++;
    x->used += bytes;
    *offset_out = at;
    return x->base + at;
}

static struct piece *find(const trm_exchange *x, uint64_t offset)
{
    size_t low = 0, high = x->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (x->pieces[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < x->count && x->pieces[low].offset == offset ? &x->pieces[low] : NULL;
}

trm_status trm_exchange_release(trm_exchange *x, uint64_t offset, uint64_t bytes)
{
    struct piece *p = find(x, offset);
    char *from;
    size_t n;

    if (p == NULL || p->bytes != bytes)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "exchange: %" PRIu64 " bytes at %" PRIu64 " are no piece", bytes, offset);
    /* failing changes nothing but how much memory is held */
    if (p->bytes > GIVE_BACK_MIN && pages(x->base + p->offset, p->bytes, false, &from, &n))
        (void)madvise(from, n, MADV_REMOVE);
    x->used -= p->bytes;
    x->count--;
    memmove(p, p + 1, (size_t)(x->pieces + x->count - p) * sizeof(*p));
    return TRM_OK;
}

trm_status trm_exchange_attach(const char *name, size_t bytes, trm_exchange_view **view_out)
{
    trm_exchange_view *v = NULL;
    char path[TRM_SEGMENT_NAME_BYTES];
    uint64_t token, found;
    size_t n = strspn(name, "/procfd0123456789"), whole;
    trm_status st = TRM_OK;

    /* only what create makes: a peer must not have us open files */
    if (strncmp(name, "/proc/", 6) != 0 || n >= sizeof(path) || name[n] != ':' ||
        strspn(name + n + 1, "0123456789abcdef") != TOKEN_DIGITS ||
        name[n + 1 + TOKEN_DIGITS] != '\0' || bytes == 0 ||
        !trm_add_ok(bytes, (size_t)TOKEN_ROOM, &whole))
        return trm_fail(TRM_ERR_INVALID_ARG, "exchange: no name of a segment of %zu bytes", bytes);
    token = strtoull(name + n + 1, NULL, 16);
    memcpy(path, name, n);
    path[n] = '\0';
    v = trm_calloc(1, sizeof(*v));
    if (v == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "exchange: host object");
    st = trm_segment_attach(path, whole, &v->segment);
    if (st == TRM_ERR_COMM || st == TRM_ERR_IO)
        st = TRM_ERR_NOT_FOUND; /* another host's process has this number */
    if (st != TRM_OK)
        goto fail;
    memcpy(&found, trm_segment_data(v->segment), sizeof(found));
    if (found != token) {
        st = trm_fail(TRM_ERR_NOT_FOUND, "exchange: %s is another segment", path);
        goto fail;
    }
    v->base = (const char *)trm_segment_data(v->segment) + TOKEN_ROOM;
    v->bytes = bytes;
    *view_out = v;
    return TRM_OK;

fail:
    trm_exchange_detach(v);
    return st;
}

void trm_exchange_detach(trm_exchange_view *v)
{
    if (v == NULL)
        return;
    trm_segment_close(v->segment);
    trm_free(v);
}

const void *trm_exchange_at(const trm_exchange_view *v, uint64_t offset, uint64_t bytes)
{
    if (offset > v->bytes || bytes > v->bytes - offset)
        return NULL;
    return v->base + offset;
}
