/* Stacked inputs: row i of every array is record i. */
#include "base/npy.h"
#include "coordinator/source.h"

#include <stdio.h>
#include <string.h>

struct stacked {
    trm_source base;
    int64_t at;
    trm_npy *arrays[TRM_WIRE_TENSORS_MAX];
    char *names[TRM_WIRE_TENSORS_MAX];
    trm_wire_tensor tensors[TRM_WIRE_TENSORS_MAX];
    int array_count;
    char name[32];
};

static void stacked_close(trm_source *s)
{
    struct stacked *m = (struct stacked *)s;

    for (int i = 0; i < m->array_count; i++) {
        trm_npy_close(m->arrays[i]);
        trm_free(m->names[i]);
        trm_aligned_free(m->tensors[i].tensor.data);
    }
    trm_free(m);
}

static trm_status stacked_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    struct stacked *m = (struct stacked *)s;

    if (m->at >= m->base.count) {
        *end_out = true;
        return TRM_OK;
    }
    for (int i = 0; i < m->array_count; i++)
        TRM_CHECK(trm_npy_read_rows(m->arrays[i], m->at, 1, m->tensors[i].tensor.data));
    snprintf(m->name, sizeof(m->name), "%lld", (long long)m->at);
    m->at++;
    record_out->kind = TRM_RECORD_TENSORS;
    record_out->name = m->name;
    record_out->tensors = m->tensors;
    record_out->tensor_count = m->array_count;
    return TRM_OK;
}

static trm_status stacked_skip(trm_source *s, int64_t count)
{
    ((struct stacked *)s)->at += count;
    return TRM_OK;
}

static const trm_source_ops stacked_ops = {
    .name = "stacked", .next = stacked_next, .skip = stacked_skip, .close = stacked_close};

/* Takes `array` on success only. */
static trm_status add(struct stacked *m, trm_npy *array, const char *name)
{
    const trm_tensor *d = trm_npy_desc(array);
    int i = m->array_count;
    trm_tensor *t;

    if (i == TRM_WIRE_TENSORS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "more than %d arrays", TRM_WIRE_TENSORS_MAX);
    if (d->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s is a single number: want records stacked along the first dim",
                        trm_npy_name(array));
    if (i > 0 && d->dims[0] != m->base.count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s holds %lld records, '%s' holds %lld",
                        trm_npy_name(array), (long long)d->dims[0], m->names[0],
                        (long long)m->base.count);
    if (trm_npy_row_bytes(array) > TRM_WIRE_FRAME_MAX / 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s: a record has %zu bytes, over 1 GiB",
                        trm_npy_name(array), trm_npy_row_bytes(array));
    t = &m->tensors[i].tensor;
    t->dtype = d->dtype;
    t->rank = d->rank - 1;
    memcpy(t->dims, d->dims + 1, (size_t)t->rank * sizeof(*t->dims));
    t->data = trm_aligned_malloc(trm_npy_row_bytes(array) + 1);
    m->names[i] = trm_strdup(name);
    if (t->data == NULL || m->names[i] == NULL) {
        trm_aligned_free(t->data);
        trm_free(m->names[i]);
        return trm_fail(TRM_ERR_NO_MEMORY, "a row of %s", trm_npy_name(array));
    }
    m->tensors[i].name = m->names[i];
    m->base.count = d->dims[0];
    m->arrays[i] = array;
    m->array_count++;
    return TRM_OK;
}

static trm_status make(struct stacked **stacked_out)
{
    struct stacked *m = trm_calloc(1, sizeof(*m));

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "source of arrays");
    m->base.ops = &stacked_ops;
    *stacked_out = m;
    return TRM_OK;
}

static trm_status finish(struct stacked *m, const char *path, trm_source **source_out)
{
    if (m->base.count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' holds no record", path);
    m->base.tensors = m->tensors;
    m->base.tensor_count = m->array_count;
    *source_out = &m->base;
    return TRM_OK;
}

trm_status trmi_source_npy(const char *path, trm_source **source_out)
{
    struct stacked *m = NULL;
    trm_npy *array = NULL;
    trm_status st;

    TRM_CHECK(make(&m));
    TRM_TRY(st, trm_npy_open(path, &array), fail);
    TRM_TRY(st, add(m, array, ""), fail);
    array = NULL;
    TRM_TRY(st, finish(m, path, source_out), fail);
    return TRM_OK;

fail:
    trm_npy_close(array);
    stacked_close(&m->base);
    return st;
}

trm_status trmi_source_npz(const char *path, trm_source **source_out)
{
    struct stacked *m = NULL;
    trm_npy *array = NULL;
    trm_npz *npz = NULL;
    trm_status st;

    TRM_CHECK(make(&m));
    TRM_TRY(st, trm_npz_open(path, &npz), fail);
    for (int i = 0; i < trm_npz_count(npz); i++) {
        TRM_TRY(st, trm_npz_get(npz, i, &array), fail);
        TRM_TRY(st, add(m, array, trm_npz_name(npz, i)), fail);
        array = NULL;
    }
    TRM_TRY(st, finish(m, path, source_out), fail);
    trm_npz_close(npz);
    return TRM_OK;

fail:
    trm_npy_close(array);
    trm_npz_close(npz);
    stacked_close(&m->base);
    return st;
}
