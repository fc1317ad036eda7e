/* .npy: one output, stacked in input order. The header's row count is brought up to date at each
 * flush, behind the rows: it never speaks of rows that are not there. */
#define _GNU_SOURCE
#include "base/npy.h"
#include "coordinator/sink.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct npy_sink {
    trm_sink base;
    trm_sink_options options;
    char *path;
    trm_npy_writer *writer; /* made when the first output is seen, or by resume */
    trm_tensor desc;        /* of the file: dims[0] are rows */
    unsigned char *failed_row;
    size_t row_bytes;
    int64_t failed_before; /* failed records before the first output */
};

static trm_status start(struct npy_sink *m, const trm_tensor *desc, bool resume)
{
    trm_tensor row = *desc;

    memmove(row.dims, desc->dims + 1, (size_t)(desc->rank - 1) * sizeof(*row.dims));
    row.rank = desc->rank - 1;
    TRM_CHECK(trm_tensor_bytes(&row, &m->row_bytes));
    m->desc = *desc;
    m->failed_row = trm_malloc(m->row_bytes + 1, 1);
    if (m->failed_row == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s': a row", m->path);
    /* all bits set is a NaN in every floating dtype */
    memset(m->failed_row, trm_dtype_is_float(desc->dtype) ? 0xff : 0, m->row_bytes);
    TRM_CHECK(trm_npy_writer_create(m->path, desc, resume, &m->writer));
    m->base.from = trm_npy_writer_bytes(m->writer); /* the header changes: it is in no entry */
    return TRM_OK;
}

static trm_status append(struct npy_sink *m, const void *row)
{
    TRM_CHECK(trm_npy_writer_append(m->writer, row, 1));
    trm_hash_add(&m->base.hash, row, m->row_bytes);
    m->base.at.bytes = trm_npy_writer_bytes(m->writer);
    return TRM_OK;
}

/* All records taken are in the file. */
static trm_status settle(struct npy_sink *m, trm_status written)
{
    if (written == TRM_OK) {
        m->base.at.records = m->base.rows;
        m->base.at.errors = m->base.errors;
    }
    return written;
}

static trm_status npy_write(trm_sink *s, const trm_taken *taken)
{
    struct npy_sink *m = (struct npy_sink *)s;
    const trm_wire_result *r = &taken->result;
    const trm_wire_tensor *out =
        r->status == TRM_OK ? trmi_sink_output(r, m->options.output) : NULL;

    if (r->status == TRM_OK && out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the model has no output '%s'",
                        m->options.output != NULL ? m->options.output : "");
    if (out != NULL && m->writer == NULL) {
        trm_tensor desc = out->tensor;

        if (desc.rank == TRM_RANK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "outputs of %d dims cannot be stacked: want .jsonl", desc.rank);
        memmove(desc.dims + 1, desc.dims, (size_t)desc.rank * sizeof(*desc.dims));
        desc.dims[0] = 0;
        desc.rank++;
        TRM_CHECK(start(m, &desc, false));
        for (; m->failed_before > 0; m->failed_before--)
            TRM_CHECK(append(m, m->failed_row));
    }
    if (out == NULL && m->writer == NULL) {
        m->failed_before++;
        return TRM_OK;
    }
    if (out == NULL)
        return settle(m, append(m, m->failed_row));
    if (out->tensor.dtype != m->desc.dtype || out->tensor.rank != m->desc.rank - 1 ||
        memcmp(out->tensor.dims, m->desc.dims + 1,
               (size_t)out->tensor.rank * sizeof(*out->tensor.dims)) != 0) {
        char have[TRM_SHAPE_TEXT_BYTES], want[TRM_SHAPE_TEXT_BYTES];

        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s': record '%s' gives %s, the rows before it are of %s: want "
                        ".jsonl for outputs of varying shape",
                        m->path, taken->name,
                        trm_tensor_shape_text(&out->tensor, have, sizeof(have)),
                        trm_tensor_shape_text(&m->desc, want, sizeof(want)));
    }
    return settle(m, append(m, out->tensor.data));
}

static trm_status npy_flush(trm_sink *s)
{
    struct npy_sink *m = (struct npy_sink *)s;

    return m->writer != NULL ? trm_npy_writer_flush(m->writer) : TRM_OK;
}

static trm_status npy_close(trm_sink *s)
{
    struct npy_sink *m = (struct npy_sink *)s;
    trm_status st = trm_npy_writer_close(m->writer);

    trm_free(m->failed_row);
    trm_free(m->path);
    trm_free(m);
    return st;
}

static const trm_sink_ops npy_ops = {
    .name = "npy", .write = npy_write, .flush = npy_flush, .close = npy_close};

/* An existing file gives its own dtype and row shape. */
static trm_status go_on(struct npy_sink *m, const trm_journal_mark *from)
{
    trm_tensor desc;

    TRM_CHECK(trm_npy_writer_desc(m->path, &desc));
    if (desc.rank < 1)
        return trm_fail(TRM_ERR_BAD_FILE, "output '%s' holds no stacked records", m->path);
    TRM_CHECK(start(m, &desc, true));
    TRM_CHECK(trm_npy_writer_truncate(m->writer, from->records));
    if (trm_npy_writer_bytes(m->writer) != from->bytes)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "output '%s': %lld rows are not the %lld bytes that its journal has",
                        m->path, (long long)from->records, (long long)from->bytes);
    return TRM_OK;
}

trm_status trmi_sink_npy(const char *path, const trm_sink_options *options,
                         const trm_journal_mark *from, trm_sink **sink_out)
{
    struct npy_sink *m = trm_calloc(1, sizeof(*m));
    trm_status st = TRM_OK;

    if (m == NULL || (m->path = trm_strdup(path)) == NULL) {
        trm_free(m);
        return trm_fail(TRM_ERR_NO_MEMORY, "output '%s'", path);
    }
    m->base.ops = &npy_ops;
    m->options = *options;
    if (from->bytes > 0)
        st = go_on(m, from);
    else if (truncate(path, 0) != 0 && errno != ENOENT) /* what is overwritten goes now */
        st = trm_fail(TRM_ERR_IO, "output '%s': %s", path, strerror(errno));
    if (st != TRM_OK) {
        (void)!npy_close(&m->base);
        return st;
    }
    *sink_out = &m->base;
    return TRM_OK;
}
