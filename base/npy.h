/* NumPy's array files: .npy (versions 1 to 3, C and Fortran order, either byte order) and .npz
 * (zip, stored or deflated).
 *
 * Files are mapped and read by rows (a row is everything behind the first dim), so an array of any
 * size streams in bounded memory. dtypes: those of base/tensor.h; bfloat16 is NumPy's 2-byte void
 * ('V2'), as ml_dtypes writes it. Writing is little-endian C order, one shot or by rows.
 * One owner. Errors name the file (or "file.npz(member)"): BAD_FILE (malformed, truncated),
 * UNSUPPORTED (object, string, complex and structured arrays; more than TRM_RANK_MAX dims). */
#ifndef TRM_BASE_NPY_H
#define TRM_BASE_NPY_H

#include "base/file.h"
#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- reading ---- */
typedef struct trm_npy trm_npy;

TRM_MUST_USE trm_status trm_npy_open(const char *path, trm_npy **npy_out);
/* The same on an open file, which is referenced. */
TRM_MUST_USE trm_status trm_npy_from_file(trm_file *file, trm_npy **npy_out);
void trm_npy_close(trm_npy *npy); /* takes NULL */
/* dtype, rank, dims. `data` is set only where the elements lie in the map as a kernel wants them (C
 * order, little-endian, aligned to the element): read-only, valid until close; else NULL. */
const trm_tensor *trm_npy_desc(const trm_npy *npy);
const char *trm_npy_name(const trm_npy *npy); /* for messages */
int64_t trm_npy_rows(const trm_npy *npy);     /* dims[0]; 1 for rank 0 */
size_t trm_npy_row_bytes(const trm_npy *npy);
/* Copies rows [first, first + count) as C order and native bytes; bools become 0 or 1. `out` has
 * count * trm_npy_row_bytes. INVALID_ARG: rows that are not there. Reading forward is the cheap
 * direction in a deflated member. */
TRM_MUST_USE trm_status trm_npy_read_rows(trm_npy *npy, int64_t first, int64_t count, void *out);
/* The whole array as a plain tensor whose data lies in `arena` (TRM_ALIGN aligned). */
TRM_MUST_USE trm_status trm_npy_load(const char *path, trm_arena *arena, trm_tensor *tensor_out);

typedef struct trm_npz trm_npz;
TRM_MUST_USE trm_status trm_npz_open(const char *path, trm_npz **npz_out);
TRM_MUST_USE trm_status trm_npz_from_file(trm_file *file, trm_npz **npz_out);
void trm_npz_close(trm_npz *npz);                    /* takes NULL; arrays opened from it live on */
int trm_npz_count(const trm_npz *npz);               /* arrays; other members are skipped */
const char *trm_npz_name(const trm_npz *npz, int i); /* without ".npy" */
int trm_npz_find(const trm_npz *npz, const char *name); /* -1 */
TRM_MUST_USE trm_status trm_npz_get(const trm_npz *npz, int i, trm_npy **npy_out);

/* ---- writing ---- */
/* Writes a plain host tensor. On failure (IO) no file is left behind. */
TRM_MUST_USE trm_status trm_npy_save(const char *path, const trm_tensor *tensor);

/* Rows appended one batch after another. The header's first dim is brought up to date by sync and
 * close; a file whose writer died is complete but for that number, and resume repairs it. */
typedef struct trm_npy_writer trm_npy_writer;
/* desc: dtype, rank >= 1, dims (dims[0] is ignored). With `resume` and an existing file: goes on
 * after its whole rows; INVALID_ARG if that file holds another dtype or row shape. Without: the
 * file is emptied. */
TRM_MUST_USE trm_status trm_npy_writer_create(const char *path, const trm_tensor *desc, bool resume,
                                              trm_npy_writer **writer_out);
/* What rows an existing file holds, by its header; dims[0] is what that says, not what is there. */
TRM_MUST_USE trm_status trm_npy_writer_desc(const char *path, trm_tensor *desc_out);
int64_t trm_npy_writer_rows(const trm_npy_writer *writer);  /* in the file now */
int64_t trm_npy_writer_bytes(const trm_npy_writer *writer); /* of the file: header and rows */
/* Drops rows from `rows` on. */
TRM_MUST_USE trm_status trm_npy_writer_truncate(trm_npy_writer *writer, int64_t rows);
/* IO (disk full, ...): the file keeps the whole rows written before this call. */
TRM_MUST_USE trm_status trm_npy_writer_append(trm_npy_writer *writer, const void *rows,
                                              int64_t count);
TRM_MUST_USE trm_status trm_npy_writer_flush(trm_npy_writer *writer); /* the header */
TRM_MUST_USE trm_status trm_npy_writer_sync(trm_npy_writer *writer);  /* header and fdatasync */
/* Fixes the header and frees the writer, also on failure. Takes NULL. */
TRM_MUST_USE trm_status trm_npy_writer_close(trm_npy_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
