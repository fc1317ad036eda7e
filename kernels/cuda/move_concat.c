/* Concat and Split: the whole tensor on one side, pieces of rows on the other; a row is the axis
 * and all behind it in memory. Both keep CHANNELS_LAST that arrives. */
#include "kernels/cuda/move.h"

struct pieces {
    trmi_cuda_kernel base;
    int count;
    size_t rows, row_bytes; /* of the whole */
    size_t start[];         /* [count + 1]: byte offset of piece i in a row */
};

/* Launches for at most TRMI_MOVE_PIECES pieces at a time. */
static trm_status pieces_run(const struct pieces *p, cudaStream_t stream, const void *whole,
                             const void *const *piece, bool join)
{
    trmi_move_pieces m = {.whole = whole, .rows = p->rows, .row_bytes = p->row_bytes};

    for (int first = 0; first < p->count; first += m.count) {
        m.count = p->count - first < TRMI_MOVE_PIECES ? p->count - first : TRMI_MOVE_PIECES;
        for (int i = 0; i < m.count; i++) {
            m.piece[i] = (unsigned char *)(uintptr_t)piece[first + i]; /* read only if joined */
            m.start[i] = p->start[first + i];
        }
        m.start[m.count] = p->start[first + m.count];
        TRM_CHECK(trmi_cuda_move_pieces(p->base.cuda, stream, &m, join));
    }
    return TRM_OK;
}

static trm_status concat_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    (void)workspace;
    return pieces_run((const struct pieces *)k, trmi_cuda_stream(k, s), out[0], in, true);
}

static trm_status split_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    (void)workspace;
    return pieces_run((const struct pieces *)k, trmi_cuda_stream(k, s), in[0],
                      (const void *const *)out, false);
}

static const trm_kernel_ops concat_ops = {
    .name = "concat", .run = concat_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops split_ops = {
    .name = "split", .run = split_run, .destroy = trmi_cuda_kernel_free};

static trm_status pieces_new(trm_cuda *cuda, const trm_op_desc *desc, const trm_tensor *whole,
                             const trm_tensor *pieces, int count, int axis,
                             const trm_kernel_ops *ops, trm_kernel **kernel_out)
{
    int64_t steps[TRM_RANK_MAX], total = 0;
    struct pieces *p;
    size_t row;

    for (int i = 0; i < count; i++) {
        for (int d = 0; d < whole->rank; d++)
            if (pieces[i].rank != whole->rank || (d != axis && pieces[i].dims[d] != whole->dims[d]))
                return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': piece %d does not fit the whole",
                                trm_op_get(desc->op)->name, desc->name, i);
        total += pieces[i].dims[axis];
    }
    if (total != whole->dims[axis])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': pieces have %lld along axis %d, the whole %lld",
                        trm_op_get(desc->op)->name, desc->name, (long long)total, axis,
                        (long long)whole->dims[axis]);
    TRM_CHECK(
        trmi_cuda_kernel_new(cuda, sizeof(*p) + ((size_t)count + 1) * sizeof(size_t), ops, &p));
    p->count = count;
    trmi_cuda_strides(whole, steps);
    row = (size_t)steps[axis] * trm_dtype_bytes(whole->dtype);
    for (int i = 0; i < count; i++)
        p->start[i + 1] = p->start[i] + (size_t)pieces[i].dims[axis] * row;
    p->row_bytes = p->start[count];
    if (p->row_bytes > 0)
        p->rows = trm_tensor_numel(whole) * trm_dtype_bytes(whole->dtype) / p->row_bytes;
    *kernel_out = &p->base.base;
    return TRM_OK;
}

/* The layout that most elements arrive in: that conversion costs least. */
static trm_layout concat_layout(const trm_op_desc *desc)
{
    size_t plain = 0, last = 0;

    for (int i = 0; i < desc->input_count; i++) {
        const trm_tensor *x = &desc->inputs[i];

        if (trmi_cuda_move_layout(x->layout, x->rank) == TRM_LAYOUT_PLAIN)
            plain += trm_tensor_numel(x);
        else
            last += trm_tensor_numel(x);
    }
    return last > plain ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
}

trm_status trmi_cuda_concat(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *y = &desc->outputs[0];
    trm_layout layout = concat_layout(desc);
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), y->rank, &axis));
    for (int i = 0; i < desc->input_count; i++) {
        if (!trmi_cuda_has_input(desc, i) || desc->inputs[i].dtype != y->dtype)
            return trm_fail(TRM_ERR_INVALID_ARG, "Concat '%s': input %d is %s, want %s", desc->name,
                            i, trm_dtype_name(desc->inputs[i].dtype), trm_dtype_name(y->dtype));
        desc->inputs[i].layout = layout;
    }
    y->layout = layout;
    return pieces_new(cuda, desc, y, desc->inputs, desc->input_count, axis, &concat_ops,
                      kernel_out);
}

trm_status trmi_cuda_split(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0];
    trm_layout layout = trmi_cuda_move_layout(x->layout, x->rank);
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    x->layout = layout;
    for (int i = 0; i < desc->output_count; i++)
        desc->outputs[i].layout = layout;
    return pieces_new(cuda, desc, x, desc->outputs, desc->output_count, axis, &split_ops,
                      kernel_out);
}
