/* Concat and Split: whole tensor on one side, pieces of rows on the other. Both keep a blocked or
 * channels-last layout that arrives: on an axis other than channels always, on the channels of a
 * blocked layout where every piece but the last is whole blocks. */
#include "kernels/cpu/data.h"

#include <string.h>

struct pieces {
    trm_kernel base;
    int count;
    size_t row_bytes;   /* of the whole, at and below the axis */
    size_t total_bytes; /* of the whole */
    size_t start[];     /* [count + 1]: byte offset of piece i in a row */
};

struct pieces_job {
    const struct pieces *p;
    unsigned char *whole;
    const void *const *from; /* Concat */
    void *const *to;         /* Split; else NULL */
};

/* Bytes [begin, end) of the whole: threads share them evenly however the pieces are cut. */
static void move_bytes(void *ctx, size_t begin, size_t end)
{
    const struct pieces_job *job = (const struct pieces_job *)ctx;
    const struct pieces *p = job->p;
    size_t outer = begin / p->row_bytes, at = begin % p->row_bytes, left = end - begin;
    unsigned char *whole = job->whole + begin;
    int i = 0;

    while (left > 0) {
        size_t piece, n;

        while (at >= p->start[i + 1])
            i++;
        piece = p->start[i + 1] - p->start[i];
        n = p->start[i + 1] - at;
        n = n < left ? n : left;
        if (job->to == NULL)
            memcpy(whole, (const unsigned char *)job->from[i] + outer * piece + (at - p->start[i]),
                   n);
        else if (job->to[i] != NULL)
            memcpy((unsigned char *)job->to[i] + outer * piece + (at - p->start[i]), whole, n);
        whole += n;
        left -= n;
        at += n;
        if (at == p->row_bytes) {
            at = 0;
            i = 0;
            outer++;
        }
    }
}

static void move_pieces(const struct pieces *p, void *whole, const void *const *from,
                        void *const *to)
{
    struct pieces_job job = {.p = p, .whole = whole, .from = from, .to = to};

    if (p->total_bytes > 0)
        trm_team_for(p->total_bytes, 32768, move_bytes, &job);
}

static trm_status concat_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    (void)s;
    (void)workspace;
    move_pieces((struct pieces *)k, out[0], in, NULL);
    return TRM_OK;
}

static trm_status split_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    (void)s;
    (void)workspace;
    /* the whole is only read where `to` is given; the cast stays in this call */
    move_pieces((struct pieces *)k, (void *)(uintptr_t)in[0], NULL, out);
    return TRM_OK;
}

static const trm_kernel_ops concat_ops = {
    .name = "concat", .run = concat_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops split_ops = {
    .name = "split", .run = split_run, .destroy = trmi_kernel_free};

/* Whether `layout` can be kept for pieces along `axis`. */
static bool keeps(trm_layout layout, const trm_tensor *pieces, int count, int axis, int rank)
{
    int64_t block = (int64_t)trmi_layout_block(layout);

    if (layout == TRM_LAYOUT_PLAIN)
        return true;
    if (rank < 3)
        return false;
    for (int i = 0; i + 1 < count && axis == 1; i++)
        if (pieces[i].dims[1] % block != 0)
            return false;
    return true;
}

static trm_status pieces_new(const trm_op_desc *desc, const trm_tensor *whole,
                             const trm_tensor *pieces, int count, int axis,
                             const trm_kernel_ops *ops, trm_kernel **kernel_out)
{
    struct pieces *p;
    int64_t dims[TRM_RANK_MAX + 1], total = 0;
    size_t row = 1, outer = 1;
    int rank, at = trmi_storage_axis(whole, axis);

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
    TRM_CHECK(trmi_kernel_new(sizeof(*p) + ((size_t)count + 1) * sizeof(size_t), ops, &p));
    p->count = count;
    rank = trmi_storage_dims(whole, dims);
    for (int d = 0; d < at; d++)
        outer *= (size_t)dims[d];
    for (int d = at + 1; d < rank; d++)
        row *= (size_t)dims[d];
    row *= trm_dtype_bytes(whole->dtype);
    for (int i = 0; i < count; i++) {
        int64_t piece_dims[TRM_RANK_MAX + 1];

        (void)trmi_storage_dims(&pieces[i], piece_dims);
        p->start[i + 1] = p->start[i] + (size_t)piece_dims[at] * row;
    }
    p->row_bytes = p->start[count];
    p->total_bytes = outer * p->row_bytes;
    *kernel_out = &p->base;
    return TRM_OK;
}

trm_status trmi_cpu_concat(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *y = &desc->outputs[0];
    trm_layout layout = TRM_LAYOUT_PLAIN;
    size_t largest = 0;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), y->rank, &axis));
    for (int i = 0; i < desc->input_count; i++) { /* the largest input decides: it costs most */
        size_t n;

        if (!trmi_has_input(desc, i) || desc->inputs[i].dtype != y->dtype)
            return trm_fail(TRM_ERR_INVALID_ARG, "Concat '%s': input %d is %s, want %s", desc->name,
                            i, trm_dtype_name(desc->inputs[i].dtype), trm_dtype_name(y->dtype));
        TRM_CHECK(trm_tensor_elems(&desc->inputs[i], &n));
        if (n > largest) {
            largest = n;
            layout = desc->inputs[i].layout;
        }
    }
    if (!keeps(layout, desc->inputs, desc->input_count, axis, y->rank))
        layout = TRM_LAYOUT_PLAIN;
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = layout;
    y->layout = layout;
    return pieces_new(desc, y, desc->inputs, desc->input_count, axis, &concat_ops, kernel_out);
}

trm_status trmi_cpu_split(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0];
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    if (!keeps(x->layout, desc->outputs, desc->output_count, axis, x->rank))
        x->layout = TRM_LAYOUT_PLAIN;
    for (int i = 1; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    for (int i = 0; i < desc->output_count; i++)
        desc->outputs[i].layout = x->layout;
    return pieces_new(desc, x, desc->outputs, desc->output_count, axis, &split_ops, kernel_out);
}
