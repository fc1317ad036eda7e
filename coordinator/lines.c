/* Only whole lines are handed to write(2); when one fails in the middle the file is cut back. */
#define _GNU_SOURCE
#include "coordinator/lines.h"

#include <errno.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_BYTES ((size_t)256 << 10)

static trm_status io_failed(const trm_lines *l, const char *what)
{
    return trm_fail(TRM_ERR_IO, "output '%s': cannot %s: %s", l->path, what, strerror(errno));
}

trm_status trm_lines_open(trm_lines *l, const char *path, int64_t keep, trm_hash *hash)
{
    trm_status st = TRM_OK;

    memset(l, 0, sizeof(*l));
    l->path = trm_strdup(path);
    l->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (keep == 0 ? O_TRUNC : 0), 0666);
    l->bytes = keep;
    l->hash = hash;
    if (l->path == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", path);
    else if (l->fd < 0)
        st = io_failed(l, "open it");
    else if (keep > 0 &&
             (ftruncate(l->fd, (off_t)keep) != 0 || lseek(l->fd, (off_t)keep, SEEK_SET) < 0))
        st = io_failed(l, "cut what is behind its last record");
    if (st != TRM_OK) {
        l->failed = st;
        (void)!trm_lines_close(l);
    }
    return st;
}

void trm_lines_put(trm_lines *l, const char *text, size_t bytes)
{
    size_t want;

    if (!trm_add_ok(l->used, bytes, &want)) {
        l->no_memory = true;
        return;
    }
    if (want > l->used_max) {
        size_t room = l->used_max == 0 ? 4096 : l->used_max;
        char *grown;

        while (room < want && room < SIZE_MAX / 2)
            room *= 2;
        grown = trm_realloc(l->buffer, room, 1);
        if (grown == NULL) {
            l->no_memory = true;
            return;
        }
        l->buffer = grown;
        l->used_max = room;
    }
    memcpy(l->buffer + l->used, text, bytes);
    l->used = want;
}

void trm_lines_text(trm_lines *l, const char *text)
{
    trm_lines_put(l, text, strlen(text));
}

void trm_lines_format(trm_lines *l, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n > 0)
        trm_lines_put(l, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

trm_status trm_lines_end(trm_lines *l)
{
    trm_lines_put(l, "\n", 1);
    if (l->no_memory) {
        l->used = l->complete;
        l->no_memory = false;
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s': a line", l->path);
    }
    l->complete = l->used;
    return l->used >= FLUSH_BYTES ? trm_lines_flush(l) : TRM_OK;
}

/* What was written of the buffer ends inside a line: back to the end of the last whole one. */
static void cut_back(trm_lines *l, size_t written)
{
    size_t whole = written;
    off_t at = lseek(l->fd, 0, SEEK_CUR);

    while (whole > 0 && l->buffer[whole - 1] != '\n')
        whole--;
    /* no regular file (a pipe): then there is nothing to cut */
    if (at >= (off_t)(written - whole) && ftruncate(l->fd, at - (off_t)(written - whole)) != 0)
        return;
}

trm_status trm_lines_flush(trm_lines *l)
{
    size_t written = 0;

    if (l->failed != TRM_OK)
        return trm_fail(l->failed, "output '%s' failed before", l->path);
    if (l->complete == 0)
        return TRM_OK;
    while (written < l->complete) {
        ssize_t n = write(l->fd, l->buffer + written, l->complete - written);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            l->failed = io_failed(l, "write");
            cut_back(l, written);
            return l->failed;
        }
        written += (size_t)n;
    }
    if (l->hash != NULL)
        trm_hash_add(l->hash, l->buffer, l->complete);
    l->bytes += (int64_t)l->complete;
    memmove(l->buffer, l->buffer + l->complete, l->used - l->complete);
    l->used -= l->complete;
    l->complete = 0;
    return TRM_OK;
}

trm_status trm_lines_close(trm_lines *l)
{
    trm_status st = l->failed == TRM_OK && l->complete > 0 ? trm_lines_flush(l) : TRM_OK;

    if (l->fd >= 0 && close(l->fd) != 0 && st == TRM_OK && l->failed == TRM_OK)
        st = io_failed(l, "close");
    trm_free(l->path);
    trm_free(l->buffer);
    memset(l, 0, sizeof(*l));
    l->fd = -1;
    return st;
}
