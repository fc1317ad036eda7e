/* Operators that are one strided copy of input 0: Transpose, DepthToSpace, SpaceToDepth, Slice,
 * Expand, Tile. Each only says which view of the input the output is. */
#include "kernels/cpu/strided.h"

#include <string.h>

struct strided {
    trm_kernel base;
    ptrdiff_t offset_bytes; /* of the view's first element in the input */
    trmi_copy copy;
};

static trm_status strided_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    struct strided *t = (struct strided *)k;

    (void)s;
    (void)workspace;
    if (t->copy.units > 0)
        trmi_copy_run(&t->copy, (const unsigned char *)in[0] + t->offset_bytes, out[0]);
    return TRM_OK;
}

static const trm_kernel_ops strided_ops = {
    .name = "strided copy", .run = strided_run, .destroy = trmi_kernel_free};

trm_status trmi_strided_new(const trm_op_desc *desc, int rank, const size_t *dims,
                            const ptrdiff_t *in_steps, ptrdiff_t offset_elems,
                            trm_kernel **kernel_out)
{
    struct strided *t;
    size_t elem = trm_dtype_bytes(desc->inputs[0].dtype);
    ptrdiff_t out_steps[TRMI_COPY_RANK], step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        out_steps[i] = step;
        step *= (ptrdiff_t)dims[i];
    }
    TRM_CHECK(trmi_kernel_new(sizeof(*t), &strided_ops, &t));
    t->offset_bytes = offset_elems * (ptrdiff_t)elem;
    trmi_copy_init(&t->copy, elem, rank, dims, in_steps, out_steps);
    *kernel_out = &t->base;
    return TRM_OK;
}

trm_status trmi_cpu_transpose(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    size_t perm_count, dims[TRM_RANK_MAX];
    const int64_t *perm = trm_attr_ints(desc->attrs, "perm", &perm_count);
    ptrdiff_t steps[TRM_RANK_MAX], in_steps[TRM_RANK_MAX];
    int64_t want[TRM_RANK_MAX];
    unsigned seen = 0;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    if (perm != NULL && perm_count != (size_t)x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Transpose '%s': perm has %zu entries, input rank %d",
                        desc->name, perm_count, x->rank);
    trmi_steps(x->rank, x->dims, steps);
    for (int i = 0; i < x->rank; i++) {
        int from = x->rank - 1 - i;

        if (perm != NULL)
            TRM_CHECK(trmi_data_axis(desc, perm[i], x->rank, &from));
        if (seen & (1u << from))
            return trm_fail(TRM_ERR_INVALID_ARG, "Transpose '%s': perm names axis %d twice",
                            desc->name, from);
        seen |= 1u << from;
        want[i] = x->dims[from];
        dims[i] = (size_t)x->dims[from];
        in_steps[i] = steps[from];
    }
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, want));
    return trmi_strided_new(desc, x->rank, dims, in_steps, 0, kernel_out);
}

static trm_status block_size(const trm_op_desc *desc, int64_t *block_out)
{
    *block_out = trm_attr_int(desc->attrs, "blocksize", 0);
    if (desc->inputs[0].rank != 4 || *block_out < 1 || *block_out > TRM_DIM_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': blocksize %lld on rank %d, want rank 4",
                        trm_op_get(desc->op)->name, desc->name, (long long)*block_out,
                        desc->inputs[0].rank);
    return TRM_OK;
}

/* view `in` (row-major dims) permuted by perm */
static trm_status permuted(const trm_op_desc *desc, const int64_t *in, const int *perm,
                           trm_kernel **kernel_out)
{
    ptrdiff_t steps[6], in_steps[6];
    size_t dims[6];

    trmi_steps(6, in, steps);
    for (int i = 0; i < 6; i++) {
        dims[i] = (size_t)in[perm[i]];
        in_steps[i] = steps[perm[i]];
    }
    return trmi_strided_new(desc, 6, dims, in_steps, 0, kernel_out);
}

trm_status trmi_cpu_depth_to_space(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const int64_t *d = desc->inputs[0].dims;
    bool crd = strcmp(trm_attr_string(desc->attrs, "mode", "DCR"), "CRD") == 0;
    int64_t b;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(block_size(desc, &b));
    if (d[1] % (b * b) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "DepthToSpace '%s': %lld channels, want a multiple of %lld", desc->name,
                        (long long)d[1], (long long)(b * b));
    {
        int64_t c = d[1] / (b * b);
        int64_t want[4] = {d[0], c, d[2] * b, d[3] * b};
        int64_t dcr_view[6] = {d[0], b, b, c, d[2], d[3]};
        int64_t crd_view[6] = {d[0], c, b, b, d[2], d[3]};
        static const int dcr_perm[6] = {0, 3, 4, 1, 5, 2}, crd_perm[6] = {0, 1, 4, 2, 5, 3};

        TRM_CHECK(trmi_data_expect(desc, 0, 4, want));
        return permuted(desc, crd ? crd_view : dcr_view, crd ? crd_perm : dcr_perm, kernel_out);
    }
}

trm_status trmi_cpu_space_to_depth(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const int64_t *d = desc->inputs[0].dims;
    bool crd = strcmp(trm_attr_string(desc->attrs, "mode", "DCR"), "CRD") == 0;
    int64_t b;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(block_size(desc, &b));
    if (d[2] % b != 0 || d[3] % b != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "SpaceToDepth '%s': image of %lld x %lld, want multiples of %lld",
                        desc->name, (long long)d[2], (long long)d[3], (long long)b);
    {
        int64_t want[4] = {d[0], d[1] * b * b, d[2] / b, d[3] / b};
        int64_t view[6] = {d[0], d[1], d[2] / b, b, d[3] / b, b};
        static const int dcr_perm[6] = {0, 3, 5, 1, 2, 4}, crd_perm[6] = {0, 1, 3, 5, 2, 4};

        TRM_CHECK(trmi_data_expect(desc, 0, 4, want));
        return permuted(desc, view, crd ? crd_perm : dcr_perm, kernel_out);
    }
}

trm_status trmi_cpu_expand(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    ptrdiff_t steps[TRM_RANK_MAX], in_steps[TRM_RANK_MAX] = {0};
    size_t dims[TRM_RANK_MAX];

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    trmi_steps(x->rank, x->dims, steps);
    if (y->rank < x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Expand '%s': rank %d to rank %d", desc->name, x->rank,
                        y->rank);
    for (int i = 0; i < y->rank; i++) {
        int from = i - (y->rank - x->rank);

        dims[i] = (size_t)y->dims[i];
        if (from < 0 || x->dims[from] == 1)
            continue;
        if (x->dims[from] != y->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "Expand '%s': dim %d is %lld, cannot become %lld",
                            desc->name, from, (long long)x->dims[from], (long long)y->dims[i]);
        in_steps[i] = steps[from];
    }
    return trmi_strided_new(desc, y->rank, dims, in_steps, 0, kernel_out);
}

/* Each dim becomes two: the repeats (step 0) and the dim. */
trm_status trmi_cpu_tile(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t repeats[TRM_RANK_MAX], want[TRM_RANK_MAX];
    ptrdiff_t steps[TRM_RANK_MAX], in_steps[2 * TRM_RANK_MAX];
    size_t dims[2 * TRM_RANK_MAX];
    int count;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_ints(desc, 1, repeats, TRM_RANK_MAX, &count));
    if (count != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Tile '%s': %d repeats for rank %d", desc->name, count,
                        x->rank);
    trmi_steps(x->rank, x->dims, steps);
    for (int i = 0; i < x->rank; i++) {
        if (repeats[i] < 0 || !trm_mul_ok(x->dims[i], repeats[i], &want[i]))
            return trm_fail(TRM_ERR_INVALID_ARG, "Tile '%s': %lld repeats of axis %d", desc->name,
                            (long long)repeats[i], i);
        dims[2 * i] = (size_t)repeats[i];
        in_steps[2 * i] = 0;
        dims[2 * i + 1] = (size_t)x->dims[i];
        in_steps[2 * i + 1] = steps[i];
    }
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, want));
    return trmi_strided_new(desc, 2 * x->rank, dims, in_steps, 0, kernel_out);
}
