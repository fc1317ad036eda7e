/* A text file of whole lines: buffered, cut back to its last whole line where a write fails. One
 * owner. */
#ifndef TRM_COORDINATOR_LINES_H
#define TRM_COORDINATOR_LINES_H

#include "base/hash.h"
#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lines {
    char *path;
    int fd;
    char *buffer;
    size_t used, used_max;
    size_t complete; /* bytes of `buffer` that end with a line */
    bool no_memory;  /* something was not appended: seen at the end of the line */
    int64_t bytes;   /* of the file: what was written whole */
    trm_hash *hash;  /* optional: takes what is written */
    trm_status failed;
} trm_lines;

/* Goes on behind the first `keep` bytes; what is behind them goes. 0: the file starts anew. */
TRM_MUST_USE trm_status trm_lines_open(trm_lines *l, const char *path, int64_t keep,
                                       trm_hash *hash);
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
