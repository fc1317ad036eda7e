/* What `trireme top` shows: a server's /status as lines of text. No terminal here. */
#ifndef TRM_LAUNCH_TOP_VIEW_H
#define TRM_LAUNCH_TOP_VIEW_H

#include "base/memory.h"

#include <jansson.h>

typedef enum trm_top_sort {
    TRM_TOP_BY_NAME,
    TRM_TOP_BY_RUNNING,
    TRM_TOP_BY_REQUESTS,
    TRM_TOP_BY_TOKENS,
    TRM_TOP_BY_LATENCY,
    TRM_TOP_SORT_COUNT
} trm_top_sort;
const char *trm_top_sort_name(trm_top_sort sort);

typedef enum trm_top_look {
    TRM_TOP_PLAIN,
    TRM_TOP_TITLE, /* the columns' names */
    TRM_TOP_BOLD,
    TRM_TOP_DIM,
    TRM_TOP_WARN,
    TRM_TOP_BAD
} trm_top_look;

typedef struct trm_top_line {
    char *text; /* in the locale's encoding, printable characters only */
    trm_top_look look;
} trm_top_line;
typedef struct trm_top_lines {
    trm_top_line *lines;
    int count, room;
    bool failed; /* no memory */
} trm_top_lines;
void trm_top_lines_fini(trm_top_lines *lines);

typedef struct trm_top_options {
    const char *url;
    int width; /* columns of the terminal */
    trm_top_sort sort;
    /* An earlier status, and how many seconds: rates are of the time between; NULL: of the server's
     * last minute. */
    const json_t *before;
    double seconds;
} trm_top_options;
/* Whatever the server says (members missing or of other types show as "-"). NO_MEMORY. */
TRM_MUST_USE trm_status trm_top_view(const json_t *status, const trm_top_options *o,
                                     trm_top_lines *out);

#endif
