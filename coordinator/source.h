/* Where the records of a scoring job come from: one at a time, in a fixed order, in bounded memory.
 *
 *   a folder            its .png, .jpg and .jpeg files by name (other files are skipped)
 *   .png .jpg .jpeg     that image
 *   .txt .lst           a list of image paths, one a line, relative to the list's folder
 *   .jsonl .ndjson      one object a line: {"image": path} or {"inputs": {name: nested list}} or
 *                       {name: nested list, ...}, with an optional "id"
 *   .npy                stacked inputs of a model with one input: one record a row
 *   .npz                the same for several inputs, arrays named as the inputs
 *
 * A record that cannot be read (a malformed line) is a record of kind TRM_RECORD_ERROR: the job
 * goes on. One owner. */
#ifndef TRM_COORDINATOR_SOURCE_H
#define TRM_COORDINATOR_SOURCE_H

#include "base/file.h"
#include "base/hash.h"
#include "base/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_source trm_source;
typedef struct trm_source_ops {
    const char *name;
    /* required: the next record, valid until the next call; *end_out: there is none. Fails only
     * where nothing further can be read. */
    trm_status (*next)(trm_source *s, trm_wire_record *record_out, bool *end_out);
    /* optional: passes over `count` records; NULL: next is called that often */
    trm_status (*skip)(trm_source *s, int64_t count);
    /* optional: adds what says which records these are; NULL: the file's size and content do */
    trm_status (*identify)(const trm_source *s, trm_hash *h);
    void (*close)(trm_source *s);
} trm_source_ops;
/* Base of every source: embed it first. */
struct trm_source {
    const trm_source_ops *ops;
    int64_t count; /* records; -1: not known before the end */
    bool images;   /* record names are files */
    /* stacked arrays: what every record brings (no data); NULL: they differ */
    const trm_wire_tensor *tensors;
    int tensor_count;
    /* set by the owner before the first record: images travel as bytes, not as paths */
    bool send_bytes;
    trm_file *sent; /* the image last given out as bytes */
};

/* Errors are decided here as far as the file's head tells: NOT_FOUND, BAD_FILE, UNSUPPORTED (lists
 * the formats), INVALID_ARG (no record in it). */
TRM_MUST_USE trm_status trm_source_open(const char *path, trm_source **source_out);
/* The same for a language model's requests: .jsonl and .ndjson, one JSON object a line, or .txt, a
 * prompt a line. Lines that are no object are error records. */
TRM_MUST_USE trm_status trm_source_open_requests(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trm_source_next(trm_source *s, trm_wire_record *record_out, bool *end_out);
TRM_MUST_USE trm_status trm_source_skip(trm_source *s, int64_t count);
/* A hash of what the input is, the same wherever it lies and whenever it was copied there: of a
 * folder the names and sizes of its images, of a file (a list: of the list) trm_hash_file. */
TRM_MUST_USE trm_status trm_source_identity(const trm_source *s, const char *path,
                                            uint64_t *hash_out);
void trm_source_close(trm_source *s); /* takes NULL */

/* By format, for trm_source_open. */
TRM_MUST_USE trm_status trmi_source_folder(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trmi_source_list(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trmi_source_image(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trmi_source_jsonl(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trmi_source_npy(const char *path, trm_source **source_out);
TRM_MUST_USE trm_status trmi_source_npz(const char *path, trm_source **source_out);

#ifdef __cplusplus
}
#endif
#endif
