/* TrmEmbed and TrmRows: rows picked from a table, and from activations. A table is a gigabyte in
 * large models: it is read where the constant lies and neither packed nor copied. */
#include "kernels/cpu/lm_linear.h"
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

typedef struct pick_kernel {
    trm_kernel base;
    trm_dtype dtype;
    const unsigned char *table; /* NULL: run gets it */
    size_t rows, table_rows, width, row_bytes;
    float scale;
} pick_kernel;

typedef struct pick_job {
    const pick_kernel *k;
    const int32_t *ids;
    const unsigned char *table;
    float *out;
} pick_job;

static void to_f32(trm_dtype dtype, const void *row, size_t n, float *out)
{
    const trmi_vec *vec = trmi_vec_get();

    switch (dtype) {
    case TRM_DTYPE_F32:
        memcpy(out, row, n * sizeof(float));
        break;
    case TRM_DTYPE_F16:
        vec->f16_to_f32(out, row, n);
        break;
    case TRM_DTYPE_BF16:
        vec->bf16_to_f32(out, row, n);
        break;
    default:
        trmi_lm_dequantize(dtype, row, n, out);
        break;
    }
}

static void pick_range(void *ctx, size_t begin, size_t end)
{
    const pick_job *job = ctx;
    const pick_kernel *k = job->k;

    for (size_t r = begin; r < end; r++) {
        float *out = job->out + r * k->width;
        int32_t id = job->ids[r];

        if (id < 0 || (size_t)id >= k->table_rows) {
            memset(out, 0, k->width * sizeof(float));
            continue;
        }
        to_f32(k->dtype, job->table + (size_t)id * k->row_bytes, k->width, out);
        if (k->scale != 1.0f)
            for (size_t i = 0; i < k->width; i++)
                out[i] *= k->scale;
    }
}

static void pick(const pick_job *job)
{
    trm_team_for(job->k->rows, 1 + TRMI_GRAIN / (job->k->width + 1), pick_range,
                 (void *)(uintptr_t)job);
}

static trm_status embed_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const pick_kernel *k = (const pick_kernel *)base;
    pick_job job = {k, in[0], k->table != NULL ? k->table : in[1], out[0]};

    (void)s;
    (void)workspace;
    pick(&job);
    return TRM_OK;
}

static const trm_kernel_ops embed_ops = {
    .name = "lm embed", .run = embed_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_embed(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *ids = &desc->inputs[0], *table = &desc->inputs[1], *out = &desc->outputs[0];
    pick_kernel *k;
    size_t bytes;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_I32, 1));
    TRM_CHECK(trmi_lm_want(desc, 1, TRM_DTYPE_NONE, 2));
    if (table->dtype != TRM_DTYPE_F32 && table->dtype != TRM_DTYPE_F16 &&
        table->dtype != TRM_DTYPE_BF16 && !trm_dtype_is_block(table->dtype))
        return trmi_bad_dtype(desc, 1, "f32, f16, bf16 or a block type");
    TRM_CHECK(trm_tensor_bytes(table, &bytes));
    if (out->dims[0] != ids->dims[0] || out->dims[1] != table->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmEmbed '%s': %lld ids, rows of %lld: output %lld x "
                        "%lld",
                        desc->name, (long long)ids->dims[0], (long long)table->dims[1],
                        (long long)out->dims[0], (long long)out->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &embed_ops, &k));
    k->dtype = table->dtype;
    k->rows = (size_t)ids->dims[0];
    k->table_rows = (size_t)table->dims[0];
    k->width = (size_t)table->dims[1];
    k->row_bytes = k->table_rows == 0 ? 0 : bytes / k->table_rows;
    k->scale = trm_attr_float(desc->attrs, "scale", 1.0f);
    k->table = table->data;
    if (k->table != NULL)
        k->base.packed_inputs = 1u << 1;
    *kernel_out = &k->base;
    return TRM_OK;
}

static trm_status rows_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const pick_kernel *k = (const pick_kernel *)base;
    pick_job job = {k, in[1], in[0], out[0]};

    (void)s;
    (void)workspace;
    pick(&job);
    return TRM_OK;
}

static const trm_kernel_ops rows_ops = {
    .name = "lm rows", .run = rows_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_rows(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *rows = &desc->inputs[1], *out = &desc->outputs[0];
    pick_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_want(desc, 1, TRM_DTYPE_I32, 1));
    if (out->dims[0] != rows->dims[0] || out->dims[1] != x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmRows '%s': %lld rows of %lld: output %lld x %lld",
                        desc->name, (long long)rows->dims[0], (long long)x->dims[1],
                        (long long)out->dims[0], (long long)out->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &rows_ops, &k));
    k->dtype = TRM_DTYPE_F32;
    k->rows = (size_t)rows->dims[0];
    k->table_rows = (size_t)x->dims[0];
    k->width = (size_t)x->dims[1];
    k->row_bytes = k->width * sizeof(float);
    k->scale = 1.0f;
    *kernel_out = &k->base;
    return TRM_OK;
}
