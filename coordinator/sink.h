/* Where the results of a scoring job go: whole records only, in input order.
 *
 *   .jsonl  one object a line: {"index", "file" or "id", then "labels": [{"index", "label",
 *           "score"}] or "outputs": {name: nested list}, or "error": text}
 *   .csv    file,label,score[,label_2,score_2 ...],error for classifiers; else file,<output
 *           elements>,error
 *   .npy    the first (or named) output, stacked; a failed record is a row of NaN (0 for integers)
 *
 * Results of requests (language models) bring the line of a .jsonl themselves; a line of the input
 * that was no request is {"index", "id", "error": {"message", "type", "code"}}.
 *
 * What was complete stays: a record that does not fit on the disk is taken back whole. With a
 * journal, each write is entered in it. One owner. */
#ifndef TRM_COORDINATOR_SINK_H
#define TRM_COORDINATOR_SINK_H

#include "base/hash.h"
#include "coordinator/journal.h"
#include "coordinator/window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_sink_options {
    bool resume, overwrite; /* of an output that exists: for trm_sink_check */
    bool images;            /* record names are files, for the key "file" */
    bool requests;      /* results bring their line (output "line"): .jsonl writes it as it is */
    int label_count;    /* labels a record: csv columns; 0: outputs are written */
    const char *output; /* .npy and .csv: which output; NULL: the first */
    int64_t columns;    /* .csv without labels: elements of that output; -1: they vary */
    const char *column_name; /* and what they are called */
} trm_sink_options;

typedef struct trm_sink trm_sink;
typedef struct trm_sink_ops {
    const char *name;
    trm_status (*write)(trm_sink *s, const trm_taken *taken);
    trm_status (*flush)(trm_sink *s); /* then all records are in the file, and `at` says so */
    trm_status (*close)(trm_sink *s); /* flushes, frees, also on failure */
} trm_sink_ops;
/* Base of every sink: embed it first. */
struct trm_sink {
    const trm_sink_ops *ops;
    int64_t rows, errors; /* records taken, the one being written and those of earlier runs
                             included; failed ones */
    trm_journal_mark at;  /* what lies in the file: kept by the formats as they write */
    int64_t from;         /* bytes of the file that `hash` starts behind */
    trm_hash hash;        /* of what was written since the last entry in the journal */
    trm_journal *journal; /* NULL: none */
};

/* What can be said before anything is opened: format by extension, existing output without resume
 * or overwrite, folder that is not there, no right to write. Leaves no file behind. */
TRM_MUST_USE trm_status trm_sink_check(const char *path, const trm_sink_options *options);
/* Opens the output; options are copied, their strings borrowed. It is gone on with behind the last
 * entry of `journal`, which was started (NULL, or none: the file starts anew). */
TRM_MUST_USE trm_status trm_sink_open(const char *path, const trm_sink_options *options,
                                      trm_journal *journal, trm_sink **sink_out);
TRM_MUST_USE trm_status trm_sink_write(trm_sink *s, const trm_taken *taken);
/* IO: the output keeps all whole records that fit. */
TRM_MUST_USE trm_status trm_sink_flush(trm_sink *s);
TRM_MUST_USE trm_status trm_sink_close(trm_sink *s); /* takes NULL */

/* The output called `name` of a result, or the first for NULL; NULL: none. */
const trm_wire_tensor *trmi_sink_output(const trm_wire_result *result, const char *name);

/* By format, for trm_sink_open. `from`: where to go on. */
TRM_MUST_USE trm_status trmi_sink_jsonl(const char *path, const trm_sink_options *options,
                                        const trm_journal_mark *from, trm_sink **sink_out);
TRM_MUST_USE trm_status trmi_sink_csv(const char *path, const trm_sink_options *options,
                                      const trm_journal_mark *from, trm_sink **sink_out);
TRM_MUST_USE trm_status trmi_sink_npy(const char *path, const trm_sink_options *options,
                                      const trm_journal_mark *from, trm_sink **sink_out);

#ifdef __cplusplus
}
#endif
#endif
