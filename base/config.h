/* Typed YAML configuration.
 *
 * A section is a table of rows: name, type, default, range, help; one row a setting. Loading checks
 * the whole file against the tables and fills C structs. Unknown and repeated keys, wrong types and
 * values out of range are TRM_ERR_CONFIG, "file:line:column: ...", with what would be right.
 * Aliases refer, never copy; tags and several documents in one file are refused; size, depth and
 * the number of values are bounded. Frozen after load. Shared: any thread. */
#ifndef TRM_BASE_CONFIG_H
#define TRM_BASE_CONFIG_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_config_type {                      /* field in the section's struct: */
                               TRM_CONFIG_BOOL,     /* bool */
                               TRM_CONFIG_INT,      /* int64_t */
                               TRM_CONFIG_FLOAT,    /* double */
                               TRM_CONFIG_STRING,   /* const char *; NULL if absent and without
                                                       default */
                               TRM_CONFIG_CHOICE,   /* int: index into `choices` */
                               TRM_CONFIG_BYTES,    /* int64_t: 4096, 256MiB, 1.5GB */
                               TRM_CONFIG_DURATION, /* int64_t microseconds: 250us, 5ms, 2s, 1.5m,
                                                       1h; unit required */
                               TRM_CONFIG_MAP,      /* pointer to the struct of `section` */
                               TRM_CONFIG_LIST,     /* trm_config_list of `item` */
                               TRM_CONFIG_NODE /* const trm_config_node *: read by the caller */
} trm_config_type;

enum {
    TRM_CONFIG_REQUIRED = 1 << 0, /* absent: an error */
    TRM_CONFIG_OPTIONAL = 1 << 1, /* MAP: absent gives NULL instead of a struct of defaults */
    TRM_CONFIG_ONE_OK = 1 << 2,   /* LIST: a scalar stands for a list of one */
};

typedef struct trm_config_section trm_config_section;

typedef struct trm_config_row {
    const char *name;
    trm_config_type type;
    size_t offset;         /* of the field in the struct */
    const char *otherwise; /* default, as one would write it; NULL: 0, false, NULL, empty */
    double min, max;       /* of numbers, bytes, microseconds, and list lengths; 0, 0: any */
    /* "bilinear|bicubic": the words of a CHOICE. INT, BYTES, DURATION: words that may stand in
     * place of the number and give -1, -2, ... ("auto") */
    const char *choices;
    trm_config_type item;              /* of a LIST: anything but LIST and NODE */
    double item_min, item_max;         /* of its numbers; 0, 0: any */
    const trm_config_section *section; /* of a MAP, and of a LIST of MAP */
    unsigned flags;
    const char *help;
} trm_config_row;

struct trm_config_section {
    const char *name; /* for messages */
    size_t struct_bytes;
    const trm_config_row *rows;
    int row_count;
};

typedef struct trm_config_list {
    const void *items; /* contiguous fields as above: int64_t[], double[], const char *[], for MAP
                          the structs themselves */
    int count;
} trm_config_list;

/* ---- the parsed file, for NODE rows and for checks across settings ---- */
typedef enum trm_config_kind {
    TRM_CONFIG_KIND_SCALAR,
    TRM_CONFIG_KIND_LIST,
    TRM_CONFIG_KIND_MAP
} trm_config_kind;
typedef struct trm_config_node trm_config_node;
typedef struct trm_config_entry {
    const trm_config_node *key, *value; /* key: NULL in a list */
    struct trm_config_entry *next;
} trm_config_entry;
struct trm_config_node {
    trm_config_kind kind;
    int line, column; /* from 1 */
    const char *text; /* scalar */
    bool quoted;      /* scalar: in quotes, or a block */
    int count;        /* of entries */
    trm_config_entry *first, *last;
};

typedef struct trm_config trm_config;
TRM_MUST_USE trm_status trm_config_load(const char *path, const trm_config_section *section,
                                        trm_config **config_out);
TRM_MUST_USE trm_status trm_config_parse(const char *text, size_t bytes, const char *name,
                                         const trm_config_section *section,
                                         trm_config **config_out);
void trm_config_destroy(trm_config *config); /* takes NULL */
/* The section's struct; it and all it points to live as long as `config`. */
const void *trm_config_get(const trm_config *config);
/* The node at "models.0.path", or NULL. */
const trm_config_node *trm_config_find(const trm_config *config, const char *path);
/* TRM_ERR_CONFIG at the position of the node at `path` (or of its nearest parent that exists). */
trm_status trm_config_fail(const trm_config *config, const char *path, const char *fmt, ...)
    TRM_PRINTF(3, 4);

/* Value of "256MiB" or "5ms" from the command line; `what` is for the message. INVALID_ARG. */
TRM_MUST_USE trm_status trm_config_bytes(const char *text, const char *what, int64_t *bytes_out);
TRM_MUST_USE trm_status trm_config_duration_us(const char *text, const char *what, int64_t *us_out);
/* The word of `words` that `text` was probably meant to be, or NULL: for "did you mean". */
const char *trm_config_nearest(const char *text, const char *const *words, int count);

#ifdef __cplusplus
}
#endif
#endif
