/* What a scoring run leaves beside its output, FILE.journal, so that a run killed at any moment can
 * be gone on with: what the output was made of (the header: input, model, options that change it),
 * and after each write how many records lie in how many bytes of it.
 *
 * The output is only appended to. A process that is killed leaves the output at least as long as
 * the last entry says; going on cuts it there. After a loss of power it may be shorter, or hold
 * other bytes: entries carry a hash of the bytes they added, and those that were not known to be on
 * the disk are checked and dropped from the first that does not hold. The output and then the
 * journal are synced about every ten seconds, with the first entry, and at the end.
 *
 * The journal is locked while it is open (flock), so one run at a time writes an output. It stays
 * when the run is over, marked complete. One owner. */
#ifndef TRM_COORDINATOR_JOURNAL_H
#define TRM_COORDINATOR_JOURNAL_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A line of the header. `text` says what it is and, where that is not all, a hash of it. */
typedef struct trm_journal_field {
    const char *name; /* "model": one word */
    const char *text; /* at most 300 bytes are kept */
} trm_journal_field;

typedef struct trm_journal_mark {
    int64_t records, errors; /* errors: of those records, the failed ones */
    int64_t bytes;           /* of the output that hold them */
} trm_journal_mark;

typedef struct trm_journal_options {
    const trm_journal_field *fields; /* as they are now */
    int field_count;
    bool resume, overwrite;
    int64_t wait_ms; /* for another run's lock; 0: 30,000; scaled */
    int64_t sync_ms; /* 0: 10,000 */
} trm_journal_options;

typedef struct trm_journal trm_journal;

/* Locks the journal of `output` and, with resume, finds where to go on; changes nothing yet, but
 * for an empty journal where there was none. INVALID_ARG: the output exists without resume or
 * overwrite, exists without a journal, was changed since, or a field of the header differs (which,
 * and how); BAD_FILE: the file of that name is no journal; TIMEOUT: another run holds it, who. */
TRM_MUST_USE trm_status trm_journal_open(const char *output, const trm_journal_options *options,
                                         trm_journal **journal_out);
/* The last entry: where to go on, or where this run is. */
const trm_journal_mark *trm_journal_last(const trm_journal *j);
bool trm_journal_is_complete(const trm_journal *j);
/* Before the output is opened for writing: a new journal with its header, or the old one cut behind
 * the last entry that holds. A crash at any point of it can be resumed. */
TRM_MUST_USE trm_status trm_journal_start(trm_journal *j);
/* After bytes were written. `hash` (trm_hash, seed 0): of the output's bytes [from, mark->bytes).
 */
TRM_MUST_USE trm_status trm_journal_add(trm_journal *j, const trm_journal_mark *mark, int64_t from,
                                        uint64_t hash);
/* The output is closed and whole: syncs it, and says so. Does nothing unless the last entry has all
 * `records`. */
TRM_MUST_USE trm_status trm_journal_complete(trm_journal *j, int64_t records);
/* Unlocks. A journal that was made here and not started goes again. Takes NULL. */
void trm_journal_close(trm_journal *j);

#ifdef __cplusplus
}
#endif
#endif
