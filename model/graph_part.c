/* Parts of another graph's constants. */
#include "model/graph.h"

#include <string.h>

static trm_status check(const trm_value *v, int dim, const int64_t (*ranges)[2], int count,
                        int64_t *part_out)
{
    int64_t part = 0, last = 0;

    if (v->desc.data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "value '%s' is no constant", v->name);
    if (dim < 0 || dim >= v->desc.rank || count < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "part of '%s': dim %d, %d ranges", v->name, dim,
                        count);
    for (int i = 0; i < count; i++) {
        if (ranges[i][0] < last || ranges[i][1] < ranges[i][0] || ranges[i][1] > v->desc.dims[dim])
            return trm_fail(TRM_ERR_INVALID_ARG, "part of '%s': range [%lld, %lld) of %lld",
                            v->name, (long long)ranges[i][0], (long long)ranges[i][1],
                            (long long)v->desc.dims[dim]);
        last = ranges[i][1];
        part += ranges[i][1] - ranges[i][0];
    }
    *part_out = part;
    return TRM_OK;
}

/* The source's bytes from `offset` on, as they are. */
static trm_status add_view(trm_graph *g, const char *name, const trm_value *v,
                           const trm_tensor *desc, size_t offset, int *value_out)
{
    size_t bytes;

    if (v->file != NULL)
        return trm_graph_add_weight(g, name, desc, v->file, v->file_offset + offset, value_out);
    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(trm_graph_add_value(g, name, desc, value_out));
    g->values[*value_out].desc.data = (unsigned char *)v->desc.data + offset;
    g->values[*value_out].bytes = bytes;
    return TRM_OK;
}

static trm_status add_copy(trm_graph *g, const char *name, const trm_value *v, trm_tensor *desc,
                           int dim, const int64_t (*ranges)[2], int count, int *value_out)
{
    size_t item = trm_dtype_bytes(desc->dtype), bytes;
    size_t inner = trm_tensor_count(&v->desc, dim + 1, v->desc.rank) * item;
    size_t outer = trm_tensor_count(&v->desc, 0, dim);
    size_t row = (size_t)v->desc.dims[dim] * inner;
    unsigned char *to;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    to = trm_arena_alloc_aligned(g->arena, bytes == 0 ? 1 : bytes);
    if (to == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "part of '%s', %zu bytes", v->name, bytes);
    desc->data = to;
    for (size_t o = 0; o < outer; o++) {
        for (int i = 0; i < count; i++) {
            size_t n = (size_t)(ranges[i][1] - ranges[i][0]) * inner;

            if (n > 0)
                memcpy(to,
                       (const unsigned char *)v->desc.data + o * row + (size_t)ranges[i][0] * inner,
                       n);
            to += n;
        }
    }
    TRM_CHECK(trm_graph_add_value(g, name, desc, value_out));
    g->values[*value_out].desc.data = desc->data;
    g->values[*value_out].bytes = bytes;
    return TRM_OK;
}

trm_status trm_graph_add_part(trm_graph *g, const char *name, const trm_graph *from, int value,
                              int dim, const int64_t (*ranges)[2], int count, int *value_out)
{
    const trm_value *v = &from->values[value];
    trm_tensor desc = v->desc;
    size_t item = trm_dtype_bytes(desc.dtype);
    int64_t part = 0;

    desc.data = NULL;
    if (dim == -1) {
        if (v->desc.data == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "value '%s' is no constant", v->name);
        return add_view(g, name, v, &desc, 0, value_out);
    }
    TRM_CHECK(check(v, dim, ranges, count, &part));
    desc.dims[dim] = part;
    if (count == 1 && trm_tensor_count(&v->desc, 0, dim) == 1)
        return add_view(g, name, v, &desc,
                        (size_t)ranges[0][0] * trm_tensor_count(&v->desc, dim + 1, v->desc.rank) *
                            item,
                        value_out);
    return add_copy(g, name, v, &desc, dim, ranges, count, value_out);
}
