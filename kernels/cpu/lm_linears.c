/* TrmLinears: several weights by one input. The input is converted once and all products are one
 * region of the team; each is what TrmLinear computes (lm_linear_op.c). `gated`: the second product
 * lies in the workspace, and one pass over the first one's output applies the activation. */
#include "kernels/cpu/data.h"
#include "kernels/cpu/lm_linear.h"
#include "kernels/cpu/lm_rows.h"

#include <string.h>

#define MOST 4
#define GATE_GRAIN 16384 /* elements that are worth a thread, as TrmGated's */
#define IN_X 0
#define IN_WEIGHT 1 /* the first */

typedef struct lm_linears {
    trm_kernel base;
    trm_cpu *cpu;
    int count;
    bool biased, gated;
    trmi_lm_act act; /* of `gated` */
    trmi_pack *packs[MOST];
    trmi_lm_weight weights[MOST];
    trmi_lm_leaves leaves;
    size_t rows;
    size_t converted_at, second_at; /* workspace: pointers to rows, rows, the second of a pair */
} lm_linears;

typedef struct gate_job {
    trmi_lm_act act;
    float *out;
    const float *up;
} gate_job;

static void gate_range(void *ctx, size_t begin, size_t end)
{
    const gate_job *job = ctx;

    trmi_lm_rows_get()->act[job->act](1.0f, end - begin, job->out + begin, job->out + begin,
                                      job->up + begin);
}

static trm_status linears_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const lm_linears *k = (const lm_linears *)base;
    unsigned char *w = workspace;
    const void **rows = workspace;
    trmi_lm_product products[MOST];
    size_t count = 0;

    (void)s;
    trmi_lm_rows_convert(k->weights[0].type, in[IN_X], k->weights[0].k, k->rows, k->weights[0].k,
                         w + k->converted_at, rows);
    for (int i = 0; i < k->count; i++) {
        void *to = k->gated && i == 1 ? w + k->second_at : out[i];

        if (to == NULL)
            continue;
        products[count++] =
            (trmi_lm_product){.weight = &k->weights[i],
                              .leaves = &k->leaves,
                              .rows = rows,
                              .m = k->rows,
                              .bias = k->biased ? in[IN_WEIGHT + k->count + i] : NULL,
                              .out = to,
                              .out_stride = k->weights[i].n,
                              .out_part_stride = k->weights[i].n * k->rows};
    }
    trmi_lm_products_run(products, count);
    if (k->gated) {
        gate_job job = {k->act, out[0], (const float *)(const void *)(w + k->second_at)};

        trm_team_for(k->rows * k->weights[0].n, GATE_GRAIN, gate_range, &job);
    }
    return TRM_OK;
}

static void linears_destroy(trm_kernel *base)
{
    lm_linears *k = (lm_linears *)base;

    for (int i = 0; i < MOST; i++)
        if (k->packs[i] != NULL)
            trmi_cpu_pack_release(k->cpu, k->packs[i]);
    trm_free(k);
}

static const trm_kernel_ops linears_ops = {
    .name = "lm linears", .run = linears_run, .destroy = linears_destroy};

/* Attributes, and how many inputs and outputs there are. */
static trm_status settle(lm_linears *k, const trm_op_desc *desc)
{
    const char *gated = trm_attr_string(desc->attrs, "gated", NULL);
    int64_t n = trm_attr_int(desc->attrs, "n", 0);

    k->gated = gated != NULL;
    if (n < 2 || n > MOST || desc->output_count != (k->gated ? 1 : n) || (k->gated && n != 2) ||
        (desc->input_count != 1 + n && desc->input_count != 1 + 2 * n))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmLinears '%s': n is %lld%s, with %d inputs and %d outputs", desc->name,
                        (long long)n, k->gated ? ", gated" : "", desc->input_count,
                        desc->output_count);
    k->count = (int)n;
    k->biased = desc->input_count > 1 + n;
    k->act = k->gated ? trmi_lm_act_from_name(gated) : TRMI_LM_NONE;
    if (k->act == TRMI_LM_ACT_COUNT || k->act == TRMI_LM_SOFTCAP)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': gated by '%.40s'", desc->name,
                        gated);
    return TRM_OK;
}

static trm_status find_type(const trm_op_desc *desc, bool transposed, const trmi_lm_type **type_out)
{
    trm_dtype dtype = desc->inputs[IN_WEIGHT].dtype, act = TRM_DTYPE_NONE;

    TRM_CHECK(trmi_lm_rounding(desc, "act", &act));
    *type_out = trmi_lm_type_get(dtype, act);
    if (*type_out == NULL || (transposed && trm_dtype_is_block(dtype)))
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': weights of %s%s, activations of %s",
                        desc->name, trm_dtype_name(dtype), transposed ? ", transposed" : "",
                        act != TRM_DTYPE_NONE ? trm_dtype_name(act) : "f32");
    return TRM_OK;
}

/* Weight i: its shape is that of x, its bias and output; packed. */
static trm_status take_weight(lm_linears *k, trm_op_desc *desc, int i, const trmi_lm_type *type,
                              bool transposed)
{
    const trm_tensor *x = &desc->inputs[IN_X], *w = &desc->inputs[IN_WEIGHT + i];
    const trm_tensor *bias = k->biased ? &desc->inputs[IN_WEIGHT + k->count + i] : NULL;
    int to = k->gated ? 0 : i;
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];
    int64_t n;

    if (w->dtype != type->dtype)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': weights of %s and %s", desc->name,
                        trm_dtype_name(type->dtype), trm_dtype_name(w->dtype));
    if (w->rank != 2 || x->dims[1] != w->dims[transposed ? 0 : 1] ||
        (size_t)x->dims[1] % trm_dtype_block_elems(w->dtype) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': %s times %s%s", desc->name,
                        trm_tensor_shape_text(x, a, sizeof(a)),
                        trm_tensor_shape_text(w, b, sizeof(b)), transposed ? "" : " transposed");
    n = w->dims[transposed ? 1 : 0];
    if (bias != NULL && (bias->dtype != TRM_DTYPE_F32 || trm_tensor_numel(bias) != (size_t)n))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': bias %s %s, want f32 [%lld]",
                        desc->name, trm_dtype_name(bias->dtype),
                        trm_tensor_shape_text(bias, a, sizeof(a)), (long long)n);
    if (desc->outputs[to].dtype != TRM_DTYPE_NONE) {
        if (desc->outputs[to].dtype != TRM_DTYPE_F32)
            return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': to %s, want f32", desc->name,
                            trm_dtype_name(desc->outputs[to].dtype));
        TRM_CHECK(trmi_data_expect(desc, to, 2, (int64_t[2]){x->dims[0], n}));
    }
    k->weights[i] = trmi_lm_weight_of(type, (size_t)n, (size_t)x->dims[1], NULL);
    TRM_CHECK(trmi_lm_weight_pack_input(k->cpu, desc, IN_WEIGHT + i, &k->weights[i], 1, transposed,
                                        &k->packs[i]));
    k->weights[i].data = k->packs[i]->memory;
    k->base.packed_inputs |= 1u << (IN_WEIGHT + i);
    return TRM_OK;
}

static trm_status linears_init(lm_linears *k, trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[IN_X];
    bool transposed = trm_attr_int(desc->attrs, "transposed", 0) != 0;
    const trmi_lm_type *type = NULL;
    size_t depth, bytes = 0, second = 0;

    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(settle(k, desc));
    TRM_CHECK(trmi_lm_want(desc, IN_X, TRM_DTYPE_F32, 2));
    TRM_CHECK(find_type(desc, transposed, &type));
    k->rows = (size_t)x->dims[0];
    depth = (size_t)x->dims[1];
    for (int i = 0; i < k->count; i++)
        TRM_CHECK(take_weight(k, desc, i, type, transposed));
    if (k->gated && k->weights[0].n != k->weights[1].n)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': gated: %zu and %zu outputs",
                        desc->name, k->weights[0].n, k->weights[1].n);
    k->base.copied_inputs = k->base.packed_inputs;
    TRM_CHECK(trmi_lm_leaves_init(&k->leaves, depth, 0, 0, 1));
    k->converted_at = trm_align_up(k->rows * sizeof(void *), 64);
    if (!trm_mul_ok(k->rows, trmi_lm_row_stride(type, depth), &bytes) ||
        !trm_add_ok(bytes, k->converted_at, &bytes) ||
        (k->gated && !trm_mul_ok(k->rows * sizeof(float), k->weights[1].n, &second)))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': %zu rows of %zu", desc->name,
                        k->rows, depth);
    k->second_at = trm_align_up(bytes, 64);
    k->base.workspace_bytes = k->second_at + second;
    return TRM_OK;
}

trm_status trmi_cpu_lm_linears(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_linears *k;
    trm_status st;

    TRM_CHECK(trmi_kernel_new(sizeof(*k), &linears_ops, &k));
    k->cpu = cpu;
    st = linears_init(k, desc);
    if (st != TRM_OK) {
        linears_destroy(&k->base);
        return st;
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
