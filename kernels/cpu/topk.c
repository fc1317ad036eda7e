/* TopK: the k largest (or smallest) of each line, equal values by lower index first. Values become
 * unsigned keys of the same order, so one heap serves every dtype. NaN counts as larger than all
 * numbers. A heap of the k best costs n log k and needs k entries of workspace a part. */
#include "kernels/cpu/sort_key.h"

#include <string.h>

struct topk {
    trm_kernel base;
    trm_dtype dtype;
    size_t elem, outer, n, inner, k, parts;
    bool smallest;
};

struct topk_job {
    const struct topk *t;
    const unsigned char *in;
    unsigned char *values;
    int64_t *indices;
    trmi_keyed *heap;
};

static void topk_line(const struct topk_job *job, size_t line, trmi_keyed *heap)
{
    const struct topk *t = job->t;
    size_t o = line / t->inner, i = line % t->inner, count = 0;
    const unsigned char *in = job->in + (o * t->n * t->inner + i) * t->elem;
    uint64_t flip = t->smallest ? UINT64_MAX : 0;

    for (size_t j = 0; j < t->n; j++) {
        trmi_keyed e = {.key = trmi_sort_key(t->dtype, in + j * t->inner * t->elem) ^ flip,
                        .index = (int64_t)j};

        if (count < t->k) {
            heap[count++] = e;
            trmi_heap_up(heap, count - 1);
        } else if (trmi_keyed_before(&e, &heap[0])) {
            heap[0] = e;
            trmi_heap_down(heap, count, 0);
        }
    }
    trmi_heap_sort(heap, count);
    for (size_t j = 0; j < count; j++) {
        size_t at = o * t->k * t->inner + j * t->inner + i;

        if (job->values != NULL)
            memcpy(job->values + at * t->elem, in + (size_t)heap[j].index * t->inner * t->elem,
                   t->elem);
        if (job->indices != NULL)
            job->indices[at] = heap[j].index;
    }
}

static void topk_parts(void *ctx, size_t begin, size_t end)
{
    const struct topk_job *job = (const struct topk_job *)ctx;
    const struct topk *t = job->t;

    for (size_t part = begin; part < end; part++) {
        size_t first, last;

        trmi_part(t->outer * t->inner, t->parts, part, &first, &last);
        for (size_t line = first; line < last; line++)
            topk_line(job, line, job->heap + part * t->k);
    }
}

static trm_status topk_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    struct topk *t = (struct topk *)k;
    struct topk_job job = {
        .t = t, .in = in[0], .values = out[0], .indices = out[1], .heap = workspace};

    (void)s;
    if (t->k > 0)
        trm_team_for(t->parts, 1, topk_parts, &job);
    return TRM_OK;
}

static const trm_kernel_ops topk_ops = {
    .name = "topk", .run = topk_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_topk(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t k = 0, want[TRM_RANK_MAX];
    struct topk *t;
    int count, axis;
    size_t lines;

    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_ints(desc, 1, &k, 1, &count));
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", -1), x->rank, &axis));
    if (count != 1 || k < 0 || k > x->dims[axis])
        return trm_fail(TRM_ERR_INVALID_ARG, "TopK '%s': k is %lld, want 0 to %lld", desc->name,
                        (long long)k, (long long)x->dims[axis]);
    for (int i = 0; i < x->rank; i++)
        want[i] = i == axis ? k : x->dims[i];
    for (int i = 0; i < 2; i++)
        if (trmi_has_output(desc, i))
            TRM_CHECK(trmi_data_expect(desc, i, x->rank, want));
    TRM_CHECK(trmi_kernel_new(sizeof(*t), &topk_ops, &t));
    t->dtype = x->dtype;
    t->elem = trm_dtype_bytes(x->dtype);
    t->outer = trm_tensor_count(x, 0, axis);
    t->n = (size_t)x->dims[axis];
    t->inner = trm_tensor_count(x, axis + 1, x->rank);
    t->k = (size_t)k;
    t->smallest = trm_attr_int(desc->attrs, "largest", 1) == 0;
    lines = t->outer * t->inner;
    t->parts = lines * t->n < 16384 ? 1 : (size_t)cpu->threads;
    t->base.workspace_bytes = t->parts * t->k * sizeof(trmi_keyed);
    *kernel_out = &t->base;
    return TRM_OK;
}
