/* Between journal.c (lock, what is done when) and journal_text.c (what the file holds). */
#ifndef TRM_COORDINATOR_JOURNAL_IMPL_H
#define TRM_COORDINATOR_JOURNAL_IMPL_H

#include "coordinator/journal.h"

#define TRMI_JOURNAL_TEXT 300
#define TRMI_JOURNAL_FIELDS 16

typedef struct trmi_journal_entry {
    trm_journal_mark mark;
    int64_t from;
    uint64_t hash;
    size_t end; /* offset in the journal behind it */
} trmi_journal_entry;

/* A journal as it was read. Owns its memory. */
typedef struct trmi_journal_text {
    char *text; /* cut into lines in place */
    size_t bytes;
    const char *names[TRMI_JOURNAL_FIELDS], *texts[TRMI_JOURNAL_FIELDS];
    int field_count;
    uint64_t seed; /* of the lines behind the header */
    trmi_journal_entry *entries;
    size_t entry_count, entry_max;
    size_t synced; /* entries known to be on the disk, with their output */
    size_t header_end;
    bool complete;
    char by[128]; /* who wrote it last: "process 12 on host"; "" */
} trmi_journal_text;

typedef enum trmi_journal_kind {
    TRMI_JOURNAL_EMPTY,
    TRMI_JOURNAL_FOREIGN,
    TRMI_JOURNAL_DAMAGED, /* ours, but its header is not whole or of another version */
    TRMI_JOURNAL_READ
} trmi_journal_kind;

/* Reads all of `fd`. Lines behind the first one that is torn are not there. */
trm_status trmi_journal_read(int fd, const char *path, trmi_journal_text *out,
                             trmi_journal_kind *kind_out);
void trmi_journal_text_fini(trmi_journal_text *t);

/* Makes a whole line of `text` in `line`: with its check, by `seed`, and its end. Returns its
 * bytes. */
#define TRMI_JOURNAL_LINE (TRMI_JOURNAL_TEXT + 128)
size_t trmi_journal_line(char line[TRMI_JOURNAL_LINE], uint64_t seed, const char *text);
/* The header's lines for `fields`, and the seed of what follows. Memory from trm_malloc. */
trm_status trmi_journal_header(const trm_journal_field *fields, int count, char **text_out,
                               size_t *bytes_out, uint64_t *seed_out);
/* As it stands in the journal: cut, and without control characters. */
void trmi_journal_clean(char out[TRMI_JOURNAL_TEXT + 1], const char *text);

#endif
