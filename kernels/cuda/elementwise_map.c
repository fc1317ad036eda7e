/* Plans of broadcasts: which layouts, how dims merge, how a large map is cut. Arithmetic only. */
#include "kernels/cuda/elementwise.h"

#include <string.h>

/* PLAIN and CHANNELS_LAST are the same bytes. */
static bool layouts_agree(const trm_tensor *t)
{
    return t->rank < 3 || t->dims[1] == 1 || trm_tensor_count(t, 2, t->rank) == 1;
}

static bool is_last(const trm_tensor *t)
{
    return t->layout == TRM_LAYOUT_CHANNELS_LAST;
}

void trmi_cuda_map_settle(trm_op_desc *desc, int inputs)
{
    trm_tensor *out = &desc->outputs[0];
    bool last = false, any_full = false;

    for (int i = 0; i < inputs; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (!trm_tensor_same_shape(t, out))
            continue;
        any_full = true;
        last |= is_last(t);
    }
    if (!any_full) { /* all are broadcast: as the largest lies */
        size_t most = 0;

        for (int i = 0; i < inputs; i++) {
            const trm_tensor *t = &desc->inputs[i];

            if (t->rank == out->rank && trm_tensor_numel(t) > most) {
                most = trm_tensor_numel(t);
                last = is_last(t) && !layouts_agree(t);
            }
        }
    }
    out->layout = last && out->rank >= 3 ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
    for (int i = 0; i < inputs; i++) {
        trm_tensor *t = &desc->inputs[i];

        if (trm_tensor_same_shape(t, out) && !layouts_agree(t))
            t->layout = out->layout;
    }
}

/* Strides of t under the output's dims, 0 where it is broadcast. */
static bool strides_under(const trm_tensor *out, const trm_tensor *t, int64_t *strides_out)
{
    int64_t own[TRM_RANK_MAX];
    int shift = out->rank - t->rank;

    if (shift < 0)
        return false;
    trmi_cuda_strides(t, own);
    for (int d = 0; d < out->rank; d++) {
        bool there = d >= shift && t->dims[d - shift] != 1;

        if (there && t->dims[d - shift] != out->dims[d])
            return false;
        strides_out[d] = there ? own[d - shift] : 0;
    }
    return true;
}

trm_status trmi_cuda_map_init(trmi_cuda_map *m, const trm_op_desc *desc,
                              const trm_tensor *const *in, int inputs)
{
    const trm_tensor *out = &desc->outputs[0];
    bool last = is_last(out) && out->rank >= 3;
    int64_t strides[TRMI_MAP_INPUTS][TRM_RANK_MAX];

    if (inputs > TRMI_MAP_INPUTS)
        return trm_fail(TRM_ERR_INTERNAL, "%s '%s': a map of %d inputs", trm_op_get(desc->op)->name,
                        desc->name, inputs);
    memset(m, 0, sizeof(*m));
    m->inputs = inputs;
    m->total = (int64_t)trm_tensor_numel(out);
    for (int i = 0; i < inputs; i++) {
        char from[TRM_SHAPE_TEXT_BYTES], to[TRM_SHAPE_TEXT_BYTES];

        if (!strides_under(out, in[i], strides[i]))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': an input is %s, does not broadcast to %s",
                            trm_op_get(desc->op)->name, desc->name,
                            trm_tensor_shape_text(in[i], from, sizeof(from)),
                            trm_tensor_shape_text(out, to, sizeof(to)));
    }
    for (int at = 0; at < out->rank; at++) {
        /* dims in the order of memory: 0, 2, 3, ..., 1 */
        int d = !last || at == 0 ? at : at == out->rank - 1 ? 1 : at + 1;
        bool merge = m->rank > 0;

        if (out->dims[d] == 1)
            continue;
        for (int i = 0; i < inputs && merge; i++)
            merge = m->strides[i][m->rank - 1] == strides[i][d] * out->dims[d];
        if (!merge) {
            m->dims[m->rank] = 1;
            m->rank++;
        }
        m->dims[m->rank - 1] *= out->dims[d];
        for (int i = 0; i < inputs; i++)
            m->strides[i][m->rank - 1] = strides[i][d];
    }
    if (m->rank == 0) {
        m->rank = 1;
        m->dims[0] = 1;
    }
    return TRM_OK;
}

static trm_status each(const trmi_cuda_map *m, int64_t limit, const int64_t *in_at, int64_t out_at,
                       trmi_map_fn fn, void *ctx)
{
    int64_t inner = m->dims[0] == 0 ? 0 : m->total / m->dims[0];
    int64_t at[TRMI_MAP_INPUTS];

    if (m->total <= limit)
        return fn(ctx, m, in_at, out_at);
    /* rows of dim 0: as many at a time as fit, or one, cut further */
    for (int64_t row = 0, rows; row < m->dims[0]; row += rows) {
        trmi_cuda_map piece = *m;

        rows = inner >= limit ? 1 : limit / inner;
        if (rows > m->dims[0] - row)
            rows = m->dims[0] - row;
        for (int i = 0; i < m->inputs; i++)
            at[i] = in_at[i] + row * m->strides[i][0];
        piece.dims[0] = rows;
        piece.total = rows * inner;
        if (rows == 1 && m->rank > 1) { /* the dim is gone */
            piece.rank--;
            memmove(piece.dims, piece.dims + 1, (size_t)piece.rank * sizeof(piece.dims[0]));
            for (int i = 0; i < m->inputs; i++)
                memmove(piece.strides[i], piece.strides[i] + 1,
                        (size_t)piece.rank * sizeof(piece.strides[i][0]));
        }
        TRM_CHECK(each(&piece, limit, at, out_at + row * inner, fn, ctx));
    }
    return TRM_OK;
}

trm_status trmi_cuda_map_each(const trmi_cuda_map *m, int64_t limit, trmi_map_fn fn, void *ctx)
{
    const int64_t at[TRMI_MAP_INPUTS] = {0};

    if (m->total == 0)
        return TRM_OK;
    return each(m, limit, at, 0, fn, ctx);
}

uint32_t trmi_cuda_may_lie_in(const trm_op_desc *desc, int input)
{
    const trm_tensor *t = &desc->inputs[input], *out = &desc->outputs[0];

    return t->dtype == out->dtype && t->layout == out->layout && trm_tensor_same_shape(t, out)
               ? 1u << input
               : 0;
}
