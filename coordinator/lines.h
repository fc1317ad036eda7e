/* A text file of whole lines: buffered, cut back to its last whole line where a write fails or an
 * earlier writer died. One owner. */
#ifndef TRM_COORDINATOR_LINES_H
#define TRM_COORDINATOR_LINES_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lines {
    char *path;
    int fd;
    char *buffer;
    size_t used, used_max;
    size_t complete;     /* bytes of `buffer` that end with a line */
    bool no_memory;      /* something was not appended: seen at the end of the line */
    int64_t whole_bytes; /* of the file that is gone on with */
    trm_status failed;
} trm_lines;

/* Without `head` the file is emptied. With it, the file is to be gone on with if it starts with
 * `head` (BAD_FILE: it does not): *lines_out: whole lines in it, *last_out: the last of them
 * (trm_free; NULL: none). It is not changed before trm_lines_cut, which cuts off a torn last line
 * and must be called before anything is written. */
TRM_MUST_USE trm_status trm_lines_open(trm_lines *l, const char *path, const char *head,
                                       int64_t *lines_out, char **last_out);
TRM_MUST_USE trm_status trm_lines_cut(trm_lines *l);
void trm_lines_put(trm_lines *l, const char *text, size_t bytes);
void trm_lines_text(trm_lines *l, const char *text);
void trm_lines_format(trm_lines *l, const char *fmt, ...) TRM_PRINTF(2, 3);
/* Ends the line; writes when a good deal has gathered. */
TRM_MUST_USE trm_status trm_lines_end(trm_lines *l);
TRM_MUST_USE trm_status trm_lines_flush(trm_lines *l);
TRM_MUST_USE trm_status trm_lines_close(trm_lines *l); /* flushes, unless a write failed before */

#ifdef __cplusplus
}
#endif
#endif
