/* RotaryEmbedding: shapes. x: [batch, heads, seq, head] or [batch, seq, heads * head]; caches
 * [positions, rotary / 2] picked by position ids [batch, seq], or [batch, seq, rotary / 2]. */
#include "kernels/cuda/rotary.h"

typedef struct rotary_kernel {
    trmi_cuda_kernel base;
    trmi_rotary r;
    bool has_ids;
} rotary_kernel;

static trm_status rotary_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const rotary_kernel *k = (const rotary_kernel *)base;

    (void)workspace;
    return trmi_cuda_rotary(k->base.cuda, trmi_cuda_stream(base, s), &k->r, in[0], in[1], in[2],
                            k->has_ids ? in[3] : NULL, out[0]);
}

static const trm_kernel_ops rotary_ops = {
    .name = "rotary embedding", .run = rotary_run, .destroy = trmi_cuda_kernel_free};

static trm_status bad_shape(const trm_op_desc *desc, const char *what)
{
    char x[TRM_SHAPE_TEXT_BYTES], cache[TRM_SHAPE_TEXT_BYTES];

    return trm_fail(TRM_ERR_INVALID_ARG, "RotaryEmbedding '%s': %s: data %s, caches %s", desc->name,
                    what, trm_tensor_shape_text(&desc->inputs[0], x, sizeof(x)),
                    trm_tensor_shape_text(&desc->inputs[1], cache, sizeof(cache)));
}

/* Ids that are known must lie in the caches; others are kept inside when it runs. */
static trm_status check_ids(const rotary_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *ids = &desc->inputs[3];
    size_t count = trm_tensor_numel(ids);

    if (ids->dtype != TRM_DTYPE_I64 || count != (size_t)(k->r.batch * k->r.seq))
        return bad_shape(desc, "position ids are not i64 [batch, seq]");
    if (count > 0 && k->r.positions < 1)
        return bad_shape(desc, "empty caches");
    for (size_t i = 0; ids->data != NULL && i < count; i++) {
        int64_t id = trm_tensor_get_i64(ids, i);

        if (id < 0 || id >= k->r.positions)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "RotaryEmbedding '%s': position %lld at %zu: the caches have %lld",
                            desc->name, (long long)id, i, (long long)k->r.positions);
    }
    return TRM_OK;
}

static trm_status settle(rotary_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *cache = &desc->inputs[1];
    int64_t heads = trm_attr_int(desc->attrs, "num_heads", 0);
    int64_t rotary = trm_attr_int(desc->attrs, "rotary_embedding_dim", 0);
    trmi_rotary *r = &k->r;

    if ((x->rank != 3 && x->rank != 4) || cache->rank < 2)
        return bad_shape(desc, "ranks");
    if (x->rank == 3 && (heads < 1 || x->dims[2] % heads != 0))
        return bad_shape(desc, "num_heads does not divide the last dim");
    r->heads_first = x->rank == 4;
    r->interleaved = trm_attr_int(desc->attrs, "interleaved", 0) != 0;
    r->batch = x->dims[0];
    r->heads = r->heads_first ? x->dims[1] : heads;
    r->seq = x->dims[r->heads_first ? 2 : 1];
    r->head = r->heads_first ? x->dims[3] : x->dims[2] / heads;
    r->half = (rotary > 0 ? rotary : r->head) / 2;
    r->positions = (int64_t)trm_tensor_count(cache, 0, cache->rank - 1);
    if (2 * r->half > r->head || cache->dims[cache->rank - 1] != r->half ||
        !trm_tensor_same_shape(cache, &desc->inputs[2]) ||
        (!k->has_ids && r->positions != r->batch * r->seq))
        return bad_shape(desc, "caches do not fit the rotated pairs and positions");
    if (k->has_ids)
        TRM_CHECK(check_ids(k, desc));
    if (trm_tensor_numel(x) > (size_t)TRMI_ROTARY_LIMIT)
        return trm_fail(TRM_ERR_UNSUPPORTED, "RotaryEmbedding '%s': more than 2^30 elements",
                        desc->name);
    return TRM_OK;
}

trm_status trmi_cuda_prepare_rotary(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    rotary_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = 0; i < 3; i++)
        if (desc->inputs[i].dtype != desc->inputs[0].dtype ||
            !trm_dtype_is_float(desc->inputs[i].dtype) || desc->inputs[i].dtype == TRM_DTYPE_F64)
            return trmi_cuda_bad_dtype(desc, i, "f32, f16 or bf16, the same for all");
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &rotary_ops, &k));
    k->r.dtype = desc->inputs[0].dtype;
    k->has_ids = trmi_cuda_has_input(desc, 3);
    TRM_TRY(st, settle(k, desc), fail);
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
