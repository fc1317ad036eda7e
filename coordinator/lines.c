/* Only whole lines are handed to write(2); when one fails in the middle the file is cut back. */
#define _GNU_SOURCE
#include "coordinator/lines.h"

#include <errno.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLUSH_BYTES ((size_t)256 << 10)
#define LAST_LINE_MAX ((size_t)64 << 20)

static trm_status io_failed(const trm_lines *l, const char *what)
{
    return trm_fail(TRM_ERR_IO, "output '%s': cannot %s: %s", l->path, what, strerror(errno));
}

/* Counts newlines; *end_out: offset behind the last one; *start_out: where the last line starts. */
static trm_status scan(trm_lines *l, int64_t *lines_out, off_t *start_out, off_t *end_out)
{
    static const size_t chunk = 65536;
    char *buffer = trm_malloc(chunk, 1);
    off_t at = 0;
    ssize_t n;

    *lines_out = 0;
    *start_out = *end_out = 0;
    if (buffer == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", l->path);
    while ((n = pread(l->fd, buffer, chunk, at)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (buffer[i] != '\n')
                continue;
            ++*lines_out;
            *start_out = *end_out;
            *end_out = at + i + 1;
        }
        at += n;
    }
    trm_free(buffer);
    return n < 0 ? io_failed(l, "read") : TRM_OK;
}

/* Whether the file, as far as it goes, starts with `head`. */
static trm_status check_head(const trm_lines *l, const char *head)
{
    size_t bytes = strlen(head);
    char *found = trm_malloc(bytes + 1, 1);
    ssize_t n;
    bool ours;

    if (found == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", l->path);
    n = pread(l->fd, found, bytes, 0);
    ours = n >= 0 && memcmp(found, head, (size_t)n) == 0;
    trm_free(found);
    if (n < 0)
        return io_failed(l, "read");
    if (!ours)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "output '%s' is not of an earlier run: its first line does not start with "
                        "'%.*s': cannot resume",
                        l->path, (int)strcspn(head, "\n"), head);
    return TRM_OK;
}

static trm_status go_on(trm_lines *l, const char *head, int64_t *lines_out, char **last_out)
{
    off_t start, end;
    size_t bytes;
    char *last;

    TRM_CHECK(check_head(l, head));
    TRM_CHECK(scan(l, lines_out, &start, &end));
    l->whole_bytes = end;
    bytes = (size_t)(end - start);
    if (*lines_out == 0)
        return TRM_OK;
    if (bytes > LAST_LINE_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "output '%s': its last line has %zu bytes", l->path,
                        bytes);
    last = trm_malloc(bytes, 1);
    if (last == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "last line of '%s'", l->path);
    if (pread(l->fd, last, bytes, start) != (ssize_t)bytes) {
        trm_free(last);
        return io_failed(l, "read its last line");
    }
    last[bytes - 1] = '\0';
    *last_out = last;
    return TRM_OK;
}

trm_status trm_lines_cut(trm_lines *l)
{
    if (ftruncate(l->fd, (off_t)l->whole_bytes) != 0 ||
        lseek(l->fd, (off_t)l->whole_bytes, SEEK_SET) < 0)
        return io_failed(l, "cut its torn last line");
    return TRM_OK;
}

trm_status trm_lines_open(trm_lines *l, const char *path, const char *head, int64_t *lines_out,
                          char **last_out)
{
    bool resume = head != NULL;
    trm_status st = TRM_OK;

    memset(l, 0, sizeof(*l));
    *lines_out = 0;
    *last_out = NULL;
    l->path = trm_strdup(path);
    l->fd = open(path, (resume ? O_RDWR : O_WRONLY | O_TRUNC) | O_CREAT | O_CLOEXEC, 0666);
    if (l->path == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", path);
    else if (l->fd < 0)
        st = io_failed(l, "open it");
    else if (resume)
        st = go_on(l, head, lines_out, last_out);
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
