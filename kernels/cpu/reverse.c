/* ReverseSequence: of each sequence in the batch the first `length` steps come in reverse order. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <string.h>

struct reverse {
    trm_kernel base;
    trmi_where where;
    trm_dtype index_dtype;
    size_t batches, steps, inner_bytes;
    size_t batch_bytes, step_bytes; /* distance between batches, between time steps */
};

static trm_status reverse_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    struct reverse *r = (struct reverse *)k;
    const unsigned char *x = in[0];
    unsigned char *y = out[0];

    (void)s;
    (void)workspace;
    for (size_t b = 0; b < r->batches; b++) {
        int64_t length = trmi_index_at(in[1], r->index_dtype, b);

        if (length < 0 || length > (int64_t)r->steps)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': length %" PRId64 " (element %zu) is out of range, want 0 to "
                            "%zu",
                            trm_op_get(r->where.op)->name, r->where.name, length, b, r->steps);
    }
    for (size_t b = 0; b < r->batches; b++) {
        size_t length = (size_t)trmi_index_at(in[1], r->index_dtype, b);

        for (size_t t = 0; t < r->steps; t++) {
            size_t from = t < length ? length - 1 - t : t;

            memcpy(y + b * r->batch_bytes + t * r->step_bytes,
                   x + b * r->batch_bytes + from * r->step_bytes, r->inner_bytes);
        }
    }
    return TRM_OK;
}

static const trm_kernel_ops reverse_ops = {
    .name = "reverse sequence", .run = reverse_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_reverse_sequence(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t batch_axis = trm_attr_int(desc->attrs, "batch_axis", 1);
    int64_t time_axis = trm_attr_int(desc->attrs, "time_axis", 0);
    struct reverse *r;
    size_t rows[2];

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_index_dtype(desc, 1));
    if (x->rank < 2 || batch_axis < 0 || time_axis < 0 || batch_axis + time_axis != 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "ReverseSequence '%s': batch_axis %lld and time_axis %lld on rank %d, want "
                        "0 and 1",
                        desc->name, (long long)batch_axis, (long long)time_axis, x->rank);
    if (trm_tensor_numel(&desc->inputs[1]) != (size_t)x->dims[batch_axis])
        return trm_fail(TRM_ERR_INVALID_ARG, "ReverseSequence '%s': want one length a sequence",
                        desc->name);
    TRM_CHECK(trmi_kernel_new(sizeof(*r), &reverse_ops, &r));
    trmi_where_set(&r->where, desc);
    r->index_dtype = desc->inputs[1].dtype;
    r->batches = (size_t)x->dims[batch_axis];
    r->steps = (size_t)x->dims[time_axis];
    r->inner_bytes = trm_tensor_count(x, 2, x->rank) * trm_dtype_bytes(x->dtype);
    rows[1] = r->inner_bytes;
    rows[0] = r->inner_bytes * (size_t)x->dims[1];
    r->batch_bytes = rows[batch_axis];
    r->step_bytes = rows[time_axis];
    *kernel_out = &r->base;
    return TRM_OK;
}
