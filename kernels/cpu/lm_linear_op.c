/* TrmLinear: see kernels/language.h. The weight is packed once for all shape buckets; a run
 * converts the activations into the workspace and divides the product among the team. */
#include "kernels/cpu/lm_linear.h"

#include "kernels/cpu/data.h"

#include <stdio.h>
#include <string.h>

enum { IN_X, IN_WEIGHT, IN_BIAS };

typedef struct lm_linear {
    trm_kernel base;
    trm_cpu *cpu;
    trmi_pack *pack;
    trmi_lm_weight weight;
    trmi_lm_leaves leaves;
    size_t rows;
    size_t rows_bytes; /* of the pointers at the workspace's front */
} lm_linear;

trm_status trmi_lm_weight_pack_input(trm_cpu *cpu, const trm_op_desc *desc, int input,
                                     const trmi_lm_weight *w, size_t stack, bool transposed,
                                     trmi_pack **pack_out)
{
    const trmi_lm_type *type = w->type;
    const unsigned char *from = desc->inputs[input].data;
    uint64_t key = desc->weight_keys == NULL ? 0 : desc->weight_keys[input];
    size_t row = w->k / trm_dtype_block_elems(type->dtype) * trm_dtype_block_bytes(type->dtype);
    size_t one = trmi_lm_weight_bytes(w), bytes;
    trm_status st = TRM_OK;
    trmi_pack *pack;
    char form[128];
    bool found;

    if (from == NULL && w->n * w->k * stack > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d must be a constant",
                        trm_op_get(desc->op)->name, desc->name, input);
    if (__builtin_mul_overflow(one, stack, &bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu weights of %zu bytes",
                        trm_op_get(desc->op)->name, desc->name, stack, one);
    snprintf(form, sizeof(form), "lm %s %zu*[%zu, %zu]%s", type->form, stack, w->n, w->k,
             transposed ? " transposed" : "");
    TRM_CHECK(trmi_cpu_pack(cpu, key, form, bytes > 0 ? bytes : 1, &pack, &found));
    for (size_t s = 0; s < stack && st == TRM_OK && !found; s++) {
        unsigned char *to = (unsigned char *)pack->memory + s * one;

        if (transposed)
            st = trmi_lm_weight_pack_transposed(w, from + s * w->n * row, to);
        else
            trmi_lm_weight_pack(w, from + s * w->n * row, row, 0, to);
    }
    if (!found)
        trmi_cpu_pack_settle(cpu, pack, st == TRM_OK);
    if (st != TRM_OK) {
        trmi_cpu_pack_release(cpu, pack);
        return st;
    }
    *pack_out = pack;
    return TRM_OK;
}

static trm_status linear_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const lm_linear *k = (const lm_linear *)base;
    const void **rows = workspace;
    trmi_lm_product p = {.weight = &k->weight,
                         .leaves = &k->leaves,
                         .rows = rows,
                         .m = k->rows,
                         .bias = in[IN_BIAS],
                         .out = out[0],
                         .out_stride = k->weight.n,
                         .out_part_stride = k->weight.n * k->rows};

    (void)s;
    trmi_lm_rows_convert(k->weight.type, in[IN_X], k->weight.k, k->rows, k->weight.k,
                         (unsigned char *)workspace + k->rows_bytes, rows);
    trmi_lm_products_run(&p, 1);
    return TRM_OK;
}

static trm_status linear_run_plain(trm_kernel *base, trm_stream *s, const void *const *in,
                                   void *const *out, void *workspace)
{
    const void *three[3] = {in[IN_X], NULL, NULL};

    return linear_run(base, s, three, out, workspace);
}

static void linear_destroy(trm_kernel *base)
{
    lm_linear *k = (lm_linear *)base;

    if (k->pack != NULL)
        trmi_cpu_pack_release(k->cpu, k->pack);
    trm_free(k);
}

static const trm_kernel_ops linear_ops = {
    .name = "lm linear", .run = linear_run, .destroy = linear_destroy};
static const trm_kernel_ops linear_plain_ops = {
    .name = "lm linear", .run = linear_run_plain, .destroy = linear_destroy};

/* shapes and dtypes; N and K out */
static trm_status check_shapes(const trm_op_desc *desc, bool transposed, size_t *n_out,
                               size_t *k_out)
{
    const trm_tensor *x = &desc->inputs[IN_X], *w = &desc->inputs[IN_WEIGHT];
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];
    int wk = transposed ? 0 : 1;

    if (x->dtype != TRM_DTYPE_F32 || desc->outputs[0].dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinear '%s': %s to %s, want f32", desc->name,
                        trm_dtype_name(x->dtype), trm_dtype_name(desc->outputs[0].dtype));
    if (x->rank != 2 || w->rank != 2 || x->dims[1] != w->dims[wk])
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinear '%s': %s times %s%s", desc->name,
                        trm_tensor_shape_text(x, a, sizeof(a)),
                        trm_tensor_shape_text(w, b, sizeof(b)), transposed ? "" : " transposed");
    *k_out = (size_t)w->dims[wk];
    *n_out = (size_t)w->dims[1 - wk];
    if (*k_out % trm_dtype_block_elems(w->dtype) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinear '%s': K = %zu, want blocks of %zu",
                        desc->name, *k_out, trm_dtype_block_elems(w->dtype));
    if (trmi_has_input(desc, IN_BIAS) && (desc->inputs[IN_BIAS].dtype != TRM_DTYPE_F32 ||
                                          trm_tensor_numel(&desc->inputs[IN_BIAS]) != *n_out))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinear '%s': bias %s %s, want f32 [%zu]",
                        desc->name, trm_dtype_name(desc->inputs[IN_BIAS].dtype),
                        trm_tensor_shape_text(&desc->inputs[IN_BIAS], a, sizeof(a)), *n_out);
    return TRM_OK;
}

/* attributes unit, first, leaves; whether the output has a dim of parts */
static trm_status check_leaves(const trm_op_desc *desc, const trmi_lm_type *type, size_t k,
                               trmi_lm_leaves *l, bool *part_out)
{
    const trm_attrs *attrs = desc->attrs;
    int64_t unit = trm_attr_int(attrs, "unit", 0), whole = unit > 0 ? (int64_t)k / unit : 0;
    bool part = trm_attr_find(attrs, "leaves") != NULL;

    if (unit < 0 || (unit == 0 && part) || (unit > 0 && (size_t)unit % type->k_multiple != 0))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmLinear '%s': unit is %lld%s, want a multiple of %zu", desc->name,
                        (long long)unit, part ? " of a part" : "", type->k_multiple);
    TRM_CHECK(trmi_lm_leaves_init(l, k, (size_t)unit, part ? trm_attr_int(attrs, "first", 0) : 0,
                                  part ? trm_attr_int(attrs, "leaves", 0) : whole));
    if (part && trmi_has_input(desc, IN_BIAS))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinear '%s': a part of a sum takes no bias",
                        desc->name);
    *part_out = part;
    return TRM_OK;
}

static trm_status linear_init(lm_linear *k, trm_op_desc *desc)
{
    const trm_tensor *w = &desc->inputs[IN_WEIGHT];
    bool transposed = trm_attr_int(desc->attrs, "transposed", 0) != 0, part = false;
    const trmi_lm_type *type;
    trm_dtype act = TRM_DTYPE_NONE;
    int64_t dims[3];
    size_t n = 0, depth = 0;

    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_lm_rounding(desc, "act", &act));
    type = trmi_lm_type_get(w->dtype, act);
    if (type == NULL || (transposed && trm_dtype_is_block(w->dtype)))
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinear '%s': weights of %s%s, activations of %s",
                        desc->name, trm_dtype_name(w->dtype), transposed ? ", transposed" : "",
                        act != TRM_DTYPE_NONE ? trm_dtype_name(act) : "f32");
    TRM_CHECK(check_shapes(desc, transposed, &n, &depth));
    TRM_CHECK(check_leaves(desc, type, depth, &k->leaves, &part));
    k->rows = (size_t)desc->inputs[IN_X].dims[0];
    dims[0] = k->leaves.parts;
    dims[1] = (int64_t)k->rows;
    dims[2] = (int64_t)n;
    TRM_CHECK(trmi_data_expect(desc, 0, part ? 3 : 2, part ? dims : dims + 1));
    k->weight = trmi_lm_weight_of(type, n, depth, NULL);
    TRM_CHECK(
        trmi_lm_weight_pack_input(k->cpu, desc, IN_WEIGHT, &k->weight, 1, transposed, &k->pack));
    k->weight.data = k->pack->memory;
    k->base.packed_inputs = k->base.copied_inputs = 1u << IN_WEIGHT;
    k->rows_bytes = trm_align_up(k->rows * sizeof(void *), 64);
    if (__builtin_mul_overflow(k->rows, trmi_lm_row_stride(type, depth),
                               &k->base.workspace_bytes) ||
        __builtin_add_overflow(k->base.workspace_bytes, k->rows_bytes, &k->base.workspace_bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinear '%s': %zu rows of %zu", desc->name, k->rows,
                        depth);
    return TRM_OK;
}

trm_status trmi_cpu_lm_linear(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_linear *k;
    trm_status st;

    TRM_CHECK(trmi_kernel_new(sizeof(*k),
                              trmi_has_input(desc, IN_BIAS) ? &linear_ops : &linear_plain_ops, &k));
    k->cpu = cpu;
    st = linear_init(k, desc);
    if (st != TRM_OK) {
        linear_destroy(&k->base);
        return st;
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
