/* TrmEmbed and TrmRows: shapes. An embedding's table lies in device memory as in the file; of float
 * weights that a product multiplies by, too, once for both, as the product wants it. */
#include "kernels/cuda/lm_float.h"
#include "kernels/cuda/lm_linear.h"
#include "kernels/cuda/lm_rows.h"

typedef struct pick_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_pick pick;
    trmi_pack *table; /* NULL: run gets it */
} pick_kernel;

static trm_status embed_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const pick_kernel *k = (const pick_kernel *)base;

    (void)workspace;
    return trmi_cuda_lm_pick(trmi_cuda_stream(base, s), &k->pick, in[0],
                             k->table != NULL ? k->table->memory : in[1], out[0]);
}

static void embed_destroy(trm_kernel *base)
{
    pick_kernel *k = (pick_kernel *)base;

    trmi_cuda_pack_release(k->base.cuda, k->table);
    trm_free(k);
}

static const trm_kernel_ops embed_ops = {
    .name = "cuda lm embed", .run = embed_run, .destroy = embed_destroy};

static void set_rows(trmi_lmc_pick *p, size_t row_bytes)
{
    p->row = row_bytes;
    p->half = 8 * row_bytes;
    p->panel = 16 * row_bytes;
    p->chunk = trm_dtype_is_block(p->dtype) ? 0 : 32 * trm_dtype_bytes(p->dtype);
}

static trm_status take_table(pick_kernel *k, const trm_op_desc *desc)
{
    trm_cuda *cuda = k->base.cuda;
    trmi_lmc_weight w;
    trmi_lmf_form form;
    trm_dtype act;

    k->base.base.packed_inputs = k->base.base.copied_inputs = 1u << 1;
    if (trm_attr_int(desc->attrs, "tied", 0) == 0 || trm_dtype_is_block(k->pick.dtype))
        return trmi_cuda_pack_plain(cuda, desc, 1, &k->table);
    TRM_CHECK(trmi_lmc_act_wanted(desc, k->pick.dtype, &act));
    TRM_CHECK(trmi_lmc_weight_pack(cuda, desc, 1, act, false, &w));
    form = trmi_lmf_form_of(cuda, &w);
    k->table = w.pack;
    k->pick.panel = form.panel;
    k->pick.half = form.half;
    k->pick.row = form.row;
    k->pick.chunk = form.chunk;
    return TRM_OK;
}

trm_status trmi_cuda_prepare_lm_embed(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *ids = &desc->inputs[0], *table = &desc->inputs[1], *out = &desc->outputs[0];
    pick_kernel *k = NULL;
    size_t bytes;
    trm_status st;

    TRM_CHECK(trmi_lmc_begin(desc, 1, 2));
    TRM_CHECK(trmi_lmc_want(desc, 0, TRM_DTYPE_I32, 1));
    TRM_CHECK(trmi_lmc_want(desc, 1, TRM_DTYPE_NONE, 2));
    if (table->dtype != TRM_DTYPE_F32 && table->dtype != TRM_DTYPE_F16 &&
        table->dtype != TRM_DTYPE_BF16 && !trm_dtype_is_block(table->dtype))
        return trmi_cuda_bad_dtype(desc, 1, "f32, f16, bf16 or a block type");
    TRM_CHECK(trm_tensor_bytes(table, &bytes));
    if (out->dims[0] != ids->dims[0] || out->dims[1] != table->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmEmbed '%s': %lld ids, rows of %lld: output %lld x %lld", desc->name,
                        (long long)ids->dims[0], (long long)table->dims[1], (long long)out->dims[0],
                        (long long)out->dims[1]);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &embed_ops, &k));
    k->pick = (trmi_lmc_pick){.dtype = table->dtype,
                              .rows = (size_t)ids->dims[0],
                              .table_rows = (size_t)table->dims[0],
                              .width = (size_t)table->dims[1],
                              .scale = trm_attr_float(desc->attrs, "scale", 1.0f)};
    set_rows(&k->pick, table->dims[0] == 0 ? 0 : bytes / (size_t)table->dims[0]);
    if (table->data != NULL)
        TRM_TRY(st, take_table(k, desc), fail);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    embed_destroy(&k->base.base);
    return st;
}

static trm_status rows_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const pick_kernel *k = (const pick_kernel *)base;

    (void)workspace;
    return trmi_cuda_lm_pick(trmi_cuda_stream(base, s), &k->pick, in[1], in[0], out[0]);
}

static const trm_kernel_ops rows_ops = {
    .name = "cuda lm rows", .run = rows_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_lm_rows(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *rows = &desc->inputs[1], *out = &desc->outputs[0];
    pick_kernel *k = NULL;

    TRM_CHECK(trmi_lmc_begin(desc, 1, 2));
    TRM_CHECK(trmi_lmc_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lmc_want(desc, 1, TRM_DTYPE_I32, 1));
    if (out->dims[0] != rows->dims[0] || out->dims[1] != x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmRows '%s': %lld rows of %lld: output %lld x %lld",
                        desc->name, (long long)rows->dims[0], (long long)x->dims[1],
                        (long long)out->dims[0], (long long)out->dims[1]);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &rows_ops, &k));
    k->pick = (trmi_lmc_pick){.dtype = TRM_DTYPE_F32,
                              .rows = (size_t)rows->dims[0],
                              .table_rows = (size_t)x->dims[0],
                              .width = (size_t)x->dims[1],
                              .scale = 1.0f};
    set_rows(&k->pick, (size_t)x->dims[1] * sizeof(float));
    *kernel_out = &k->base.base;
    return TRM_OK;
}
