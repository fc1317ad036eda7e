/* TrmLinear, TrmLinears: see kernels/language.h. Shapes and attributes are checked here, weights
 * are packed through the device's cache, and the family (lm.h) does the rest. */
#include "kernels/cuda/lm_linear.h"

#include "kernels/cuda/lm_float.h"
#include "kernels/cuda/lm_quant.h"

#include <stdio.h>
#include <string.h>

static const trmi_lmc_family *const families[] = {&trmi_lmc_float, &trmi_lmc_quant};
#define FAMILIES (sizeof(families) / sizeof(families[0]))

/* ---- how K is summed ---- */

/* The device's own: contiguous slices that end at multiples of 64, by K alone. */
static void own_leaves(trmi_lmc_leaves *l, size_t k)
{
    size_t count = k / TRMI_LMC_OWN_LEAF;

    if (count > TRMI_LMC_OWN_LEAVES)
        count = TRMI_LMC_OWN_LEAVES;
    if (count == 0)
        count = 1;
    for (size_t i = 1; i < count; i++)
        l->begin[i] = (int32_t)(k * i / count / 64 * 64);
    l->begin[count] = (int32_t)k;
    l->count = (int32_t)count;
    l->parts = 1;
    l->ends[0] = (unsigned char)count;
    trm_tree_merges(0, l->count, l->count, l->merges);
}

trm_status trmi_lmc_leaves_init(trmi_lmc_leaves *l, size_t k, size_t unit, int64_t first,
                                int64_t leaves)
{
    trm_tree_part parts[TRM_TREE_PARTS_MAX];
    size_t count = unit == 0 ? 1 : k / unit;

    memset(l, 0, sizeof(*l));
    if (k > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "K = %zu, want less than 2^31", k);
    if (unit == 0) {
        own_leaves(l, k);
        return TRM_OK;
    }
    if (unit % 32 != 0) /* no model of real size: these run on the host */
        return trm_fail(TRM_ERR_UNSUPPORTED, "leaves of %zu: want a multiple of 32", unit);
    if (k % unit != 0 || count == 0 || leaves < 1 || leaves > TRM_TREE_LEAVES_MAX || first < 0 ||
        count > (size_t)leaves || first > leaves - (int64_t)count)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "K = %zu in leaves of %zu, from leaf %lld of %lld: want whole leaves of a "
                        "multiple of 32, at most %d in all",
                        k, unit, (long long)first, (long long)leaves, TRM_TREE_LEAVES_MAX);
    l->count = (int32_t)count;
    for (size_t i = 0; i <= count; i++)
        l->begin[i] = (int32_t)(i * unit);
    l->parts = trm_tree_parts((int)first, l->count, (int)leaves, parts);
    for (int i = 0; i < l->parts; i++)
        l->ends[i] = (unsigned char)(parts[i].hi - (int)first);
    trm_tree_merges((int)first, l->count, (int)leaves, l->merges);
    return TRM_OK;
}

/* ---- weights ---- */

trm_status trmi_lmc_act_wanted(const trm_op_desc *desc, trm_dtype weight, trm_dtype *act_out)
{
    const char *act = trm_attr_string(desc->attrs, "act", NULL);

    if (act == NULL)
        *act_out = trm_dtype_is_block(weight) ? TRM_DTYPE_NONE : TRM_DTYPE_F32;
    else if (strcmp(act, "bf16") == 0)
        *act_out = TRM_DTYPE_BF16;
    else if (strcmp(act, "f16") == 0)
        *act_out = TRM_DTYPE_F16;
    else
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': act is '%s', want bf16 or f16",
                        trm_op_get(desc->op)->name, desc->name, act);
    return TRM_OK;
}

static const trmi_lmc_family *family_of(trm_dtype dtype, trm_dtype act, trm_dtype *act_out)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (families[i]->takes(dtype, act, act_out))
            return families[i];
    return NULL;
}

/* the stack's sizes */
static trm_status measure(const trm_op_desc *desc, int input, bool transposed, trmi_lmc_weight *w)
{
    const trm_tensor *t = &desc->inputs[input];
    size_t most;
    int r = t->rank;
    char text[TRM_SHAPE_TEXT_BYTES];

    if ((r != 2 && r != 3) || (transposed && trm_dtype_is_block(t->dtype)))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': weight %d is %s %s%s",
                        trm_op_get(desc->op)->name, desc->name, input, trm_dtype_name(t->dtype),
                        trm_tensor_shape_text(t, text, sizeof(text)),
                        transposed ? ", transposed" : "");
    w->dtype = t->dtype;
    w->n = (size_t)t->dims[transposed ? r - 1 : r - 2];
    w->k = (size_t)t->dims[transposed ? r - 2 : r - 1];
    w->stack = r == 3 ? (size_t)t->dims[0] : 1;
    if (w->k % trm_dtype_block_elems(t->dtype) != 0 || w->n > INT32_MAX - 1024 ||
        w->k > INT32_MAX - 1024 || !trm_mul_ok(w->n + 1024, w->k + 1024, &most) ||
        !trm_mul_ok(most, w->stack + 1, &most) || !trm_mul_ok(most, (size_t)8, &most))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': %zu of weight %d, [%zu, %zu]: want blocks of %zu, in memory",
                        trm_op_get(desc->op)->name, desc->name, w->stack, input, w->n, w->k,
                        trm_dtype_block_elems(t->dtype));
    return TRM_OK;
}

trm_status trmi_lmc_scratch(trm_cuda *cuda, const trmi_lmc_weight *w, trmi_pack **pack_out)
{
    size_t bytes =
        w->n * (w->k / trm_dtype_block_elems(w->dtype) * trm_dtype_block_bytes(w->dtype));
    char form[48];
    bool found;

    bytes = bytes < 1 ? 1 : bytes < TRMI_LMC_SCRATCH_MAX ? bytes : TRMI_LMC_SCRATCH_MAX;
    snprintf(form, sizeof(form), "lm scratch %zu", bytes);
    return trmi_cuda_pack(cuda, 1, form, bytes, pack_out, &found);
}

static trm_status fill(trm_cuda *cuda, const trm_op_desc *desc, int input, bool transposed,
                       const trmi_lmc_weight *w)
{
    const unsigned char *from = desc->inputs[input].data;
    size_t block = trm_dtype_block_elems(w->dtype), bytes = trm_dtype_block_bytes(w->dtype);
    size_t row = (transposed ? w->n : w->k) / block * bytes;
    size_t one = w->n * (w->k / block) * bytes;
    trmi_pack *scratch = NULL;
    trm_status st = TRM_OK;
    cudaError_t error;

    if (from == NULL && w->n * w->k * w->stack > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d must be a constant",
                        trm_op_get(desc->op)->name, desc->name, input);
    TRM_CHECK(trmi_lmc_scratch(cuda, w, &scratch));
    for (size_t s = 0; s < w->stack && st == TRM_OK; s++)
        st = w->family->pack(cuda, w, from + s * one, row, transposed,
                             (unsigned char *)w->pack->memory + s * w->stride);
    /* kernels on other streams read it, and others write to the scratch */
    error = cudaStreamSynchronize(cuda->stream);
    trmi_cuda_pack_release(cuda, scratch);
    return st != TRM_OK ? st : trmi_cuda_check(error, "packing a weight");
}

trm_status trmi_lmc_weight_pack(trm_cuda *cuda, const trm_op_desc *desc, int input, trm_dtype act,
                                bool transposed, trmi_lmc_weight *weight_out)
{
    uint64_t key = desc->weight_keys == NULL ? 0 : desc->weight_keys[input];
    trmi_lmc_weight w = {0};
    size_t bytes;
    trm_status st;
    char form[160];
    bool found;

    TRM_CHECK(measure(desc, input, transposed, &w));
    w.family = family_of(w.dtype, act, &w.act);
    if (w.family == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': weights of %s with activations of %s",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(w.dtype),
                        act == TRM_DTYPE_NONE ? "any kind" : trm_dtype_name(act));
    w.stride = trm_align_up(w.family->weight_bytes(&w), 256);
    bytes = w.stride * w.stack;
    snprintf(form, sizeof(form), "lm %s %s for %s %zu*[%zu, %zu]%s%s", w.family->name,
             trm_dtype_name(w.dtype), trm_dtype_name(w.act), w.stack, w.n, w.k,
             transposed ? " transposed" : "", cuda->base.order_free ? " free" : "");
    TRM_CHECK(trmi_cuda_pack(cuda, key, form, bytes > 0 ? bytes : 1, &w.pack, &found));
    w.data = w.pack->memory;
    st = found ? TRM_OK : fill(cuda, desc, input, transposed, &w);
    if (st != TRM_OK) {
        trmi_cuda_pack_release(cuda, w.pack);
        return st;
    }
    *weight_out = w;
    return TRM_OK;
}

/* ---- rounded rows ---- */

trm_rounding trmi_lmc_rounding(const trm_tensor *weight, bool transposed, int64_t unit,
                               trm_dtype act)
{
    int64_t n = weight->rank == 2 ? weight->dims[transposed ? 1 : 0] : 0;
    int64_t k = weight->rank == 2 ? weight->dims[transposed ? 0 : 1] : 0;
    trm_rounding r = {.dtype = TRM_DTYPE_NONE};

    /* what families refuse or pad is the host's, or needs zeros behind each row; a transposed
     * weight's rows go through the scratch 32 at a time */
    if (k < 1 || k % 32 != 0 || unit % 32 != 0 ||
        (transposed && (trm_dtype_is_block(weight->dtype) || n > 1 << 16)))
        return r;
    if ((weight->dtype == TRM_DTYPE_BF16 || weight->dtype == TRM_DTYPE_F16) && act == weight->dtype)
        r.dtype = act;
    if (trm_dtype_is_block(weight->dtype) && act == TRM_DTYPE_NONE)
        r = (trm_rounding){.dtype = TRM_DTYPE_U8,
                           .row_bytes = (int64_t)trmi_lmq_row_bytes((size_t)k),
                           .sums = trmi_lmq_sums(weight->dtype)};
    return r;
}

trm_status trmi_lmc_rounds(const trm_op_desc *desc, int output, const trm_tensor *rows,
                           trm_dtype *rounds_out, int *sums_out)
{
    const char *rounds = trm_attr_string(desc->attrs, "rounds", "");
    const trm_tensor *out = &desc->outputs[output];
    trm_tensor want = *rows;
    char text[TRM_SHAPE_TEXT_BYTES];

    *sums_out = 0;
    want.dtype = *rounds_out = *rounds == '\0'               ? TRM_DTYPE_F32
                               : strcmp(rounds, "bf16") == 0 ? TRM_DTYPE_BF16
                               : strcmp(rounds, "f16") == 0  ? TRM_DTYPE_F16
                               : strcmp(rounds, "i8") == 0   ? TRM_DTYPE_I8
                                                             : TRM_DTYPE_NONE;
    if (want.dtype == TRM_DTYPE_NONE || (want.dtype == TRM_DTYPE_I8 && rows->dims[1] % 32 != 0))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': rows of %lld, rounded to '%.40s'",
                        trm_op_get(desc->op)->name, desc->name, (long long)rows->dims[1], rounds);
    if (want.dtype == TRM_DTYPE_I8) {
        want.dtype = TRM_DTYPE_U8;
        want.dims[1] = (int64_t)trmi_lmq_row_bytes((size_t)rows->dims[1]);
        *sums_out = (int)trm_attr_int(desc->attrs, "sums", 0);
    }
    if (out->dtype != want.dtype || !trm_tensor_same_shape(out, &want))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': output %d is %s %s, want %s",
                        trm_op_get(desc->op)->name, desc->name, output, trm_dtype_name(out->dtype),
                        trm_tensor_shape_text(out, text, sizeof(text)), trm_dtype_name(want.dtype));
    return TRM_OK;
}

/* ---- the operators ---- */

typedef trmi_lmc_linear lm_linear;

static trm_status linear_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const lm_linear *k = (const lm_linear *)base;
    trmi_lmc_product p = k->product;

    p.x = in[0];
    for (int i = 0; i < p.segments; i++) {
        p.segment[i].bias = k->bias_input[i] > 0 ? in[k->bias_input[i]] : NULL;
        p.segment[i].out = i == 0 || p.gated == TRMI_LMC_ACT_COUNT ? out[i] : NULL;
    }
    if (k->blas != NULL)
        return trmi_lmf_blas_run(k->blas, &p, workspace, trmi_cuda_stream(base, s));
    return k->weights[0].family->run(k->base.cuda, &p, workspace, trmi_cuda_stream(base, s));
}

static void linear_destroy(trm_kernel *base)
{
    lm_linear *k = (lm_linear *)base;

    trmi_lmf_blas_destroy(k->blas);
    for (int i = 0; i < TRMI_LMC_SEGMENTS; i++)
        trmi_cuda_pack_release(k->base.cuda, k->weights[i].pack);
    trm_free(k);
}

static const trm_kernel_ops linear_ops = {
    .name = "lm linear", .run = linear_run, .destroy = linear_destroy};
static const trm_kernel_ops blas_ops = {
    .name = "lm linear cublaslt", .run = linear_run, .destroy = linear_destroy};

/* Rows, or what they are rounded to for weights like input 1. */
static trm_status take_rows(lm_linear *k, const trm_op_desc *desc, bool transposed, trm_dtype act)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1];
    char text[TRM_SHAPE_TEXT_BYTES];
    trm_rounding r;

    k->product.k = (size_t)(x->rank == 2 ? x->dims[1] : 0);
    if (x->dtype == TRM_DTYPE_F32 && x->rank == 2) {
        k->product.m = (size_t)x->dims[0];
        return TRM_OK;
    }
    r = trmi_lmc_rounding(w, transposed, trm_attr_int(desc->attrs, "unit", 0), act);
    if (x->rank != 2 || r.dtype == TRM_DTYPE_NONE || x->dtype != r.dtype ||
        (r.dtype == TRM_DTYPE_U8 && x->dims[1] != r.row_bytes))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': x is %s %s for weights of %s, want f32",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(x->dtype),
                        trm_tensor_shape_text(x, text, sizeof(text)), trm_dtype_name(w->dtype));
    k->product.rounded = true;
    k->product.m = (size_t)x->dims[0];
    if (r.dtype == TRM_DTYPE_U8)
        k->product.k = (size_t)w->dims[1];
    return TRM_OK;
}

/* weights 1..segments and, from `bias_from` on, as many biases or none */
static trm_status take_weights(lm_linear *k, const trm_op_desc *desc, int segments, int bias_from)
{
    const trm_tensor *x = &desc->inputs[0];
    bool transposed = trm_attr_int(desc->attrs, "transposed", 0) != 0;
    const char *name = trm_op_get(desc->op)->name;
    char text[TRM_SHAPE_TEXT_BYTES], other[TRM_SHAPE_TEXT_BYTES];
    trm_dtype act;

    TRM_CHECK(trmi_lmc_act_wanted(desc, desc->inputs[1].dtype, &act));
    TRM_CHECK(take_rows(k, desc, transposed, act));
    for (int i = 0; i < segments; i++) {
        const trm_tensor *w = &desc->inputs[1 + i];

        if (w->rank != 2 || (int64_t)k->product.k != w->dims[transposed ? 0 : 1])
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s times %s%s", name, desc->name,
                            trm_tensor_shape_text(x, text, sizeof(text)),
                            trm_tensor_shape_text(w, other, sizeof(other)),
                            transposed ? "" : " transposed");
        if (w->dtype != desc->inputs[1].dtype)
            return trmi_cuda_bad_dtype(desc, 1 + i, trm_dtype_name(desc->inputs[1].dtype));
        if (trmi_cuda_has_input(desc, bias_from + i)) {
            const trm_tensor *b = &desc->inputs[bias_from + i];

            if (b->dtype != TRM_DTYPE_F32 ||
                trm_tensor_numel(b) != (size_t)w->dims[transposed ? 1 : 0])
                return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': bias %s %s, want f32 [%lld]", name,
                                desc->name, trm_dtype_name(b->dtype),
                                trm_tensor_shape_text(b, text, sizeof(text)),
                                (long long)w->dims[transposed ? 1 : 0]);
            k->bias_input[i] = bias_from + i;
        }
        TRM_CHECK(trmi_lmc_weight_pack(k->base.cuda, desc, 1 + i, act, transposed, &k->weights[i]));
        k->base.base.packed_inputs |= 1u << (1 + i);
        k->product.segment[i].weight = &k->weights[i];
    }
    k->base.base.copied_inputs = k->base.base.packed_inputs;
    k->product.segments = segments;
    k->product.gated = TRMI_LMC_ACT_COUNT;
    k->product.leaves = &k->leaves;
    return TRM_OK;
}

/* attributes unit, first, leaves; whether the output has a dim of parts */
static trm_status take_leaves(lm_linear *k, const trm_op_desc *desc, bool *part_out)
{
    int64_t unit = trm_attr_int(desc->attrs, "unit", 0), depth = (int64_t)k->product.k;
    bool part = trm_attr_find(desc->attrs, "leaves") != NULL;
    int64_t block = (int64_t)trm_dtype_block_elems(k->weights[0].dtype);

    if (unit < 0 || (unit == 0 && part) || (block < 256 && unit % block != 0))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': unit is %lld%s, want blocks of %lld",
                        trm_op_get(desc->op)->name, desc->name, (long long)unit,
                        part ? " of a part" : "", (long long)block);
    TRM_CHECK(trmi_lmc_leaves_init(&k->leaves, k->product.k, (size_t)unit,
                                   part ? trm_attr_int(desc->attrs, "first", 0) : 0,
                                   part        ? trm_attr_int(desc->attrs, "leaves", 0)
                                   : unit == 0 ? 0
                                               : depth / unit));
    if (part && k->bias_input[0] > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': a part of a sum takes no bias",
                        trm_op_get(desc->op)->name, desc->name);
    *part_out = part;
    return TRM_OK;
}

/* the shape rules have run: an output of another shape is another node's mistake */
static trm_status expect(const trm_op_desc *desc, int output, const lm_linear *k, size_t n,
                         bool part)
{
    const trm_tensor *y = &desc->outputs[output];
    int at = part ? 1 : 0;
    char text[TRM_SHAPE_TEXT_BYTES];

    if (y->dtype != TRM_DTYPE_F32 || y->rank != 2 + at || (part && y->dims[0] != k->leaves.parts) ||
        (size_t)y->dims[at] != k->product.m || (size_t)y->dims[at + 1] != n)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': output %d is %s %s, want f32 [%d, %zu, %zu]",
                        trm_op_get(desc->op)->name, desc->name, output, trm_dtype_name(y->dtype),
                        trm_tensor_shape_text(y, text, sizeof(text)), k->leaves.parts, k->product.m,
                        n);
    return TRM_OK;
}

/* who runs it, and in what workspace */
static trm_status settle(lm_linear *k)
{
    const trmi_lmc_family *family = k->weights[0].family;
    unsigned biased = 0;

    for (int i = 0; i < k->product.segments; i++)
        biased |= (unsigned)(k->bias_input[i] > 0) << i;
    if (family == &trmi_lmc_float)
        TRM_CHECK(trmi_lmf_blas_create(k->base.cuda, &k->product, biased, &k->blas));
    if (k->blas != NULL)
        k->base.base.ops = &blas_ops;
    k->base.base.workspace_bytes = k->blas != NULL
                                       ? trmi_lmf_blas_workspace_bytes(k->blas)
                                       : family->workspace_bytes(k->base.cuda, &k->product);
    return TRM_OK;
}

static trm_status linear_init(lm_linear *k, const trm_op_desc *desc)
{
    bool part = false;

    TRM_CHECK(take_weights(k, desc, 1, 2));
    TRM_CHECK(take_leaves(k, desc, &part));
    TRM_CHECK(expect(desc, 0, k, k->weights[0].n, part));
    return settle(k);
}

trm_status trmi_cuda_prepare_lm_linear(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_linear *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &linear_ops, &k));
    TRM_TRY(st, linear_init(k, desc), fail);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    linear_destroy(&k->base.base);
    return st;
}

static trm_status linears_init(lm_linear *k, const trm_op_desc *desc)
{
    int n = (int)trm_attr_int(desc->attrs, "n", 0);
    const char *gated = trm_attr_string(desc->attrs, "gated", NULL);
    bool part = false;
    int sums;

    if (n < 2 || n > TRMI_LMC_SEGMENTS ||
        (desc->input_count != 1 + n && desc->input_count != 1 + 2 * n) ||
        desc->output_count != (gated != NULL ? 1 : n))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': n = %d, %d inputs, %d outputs",
                        desc->name, n, desc->input_count, desc->output_count);
    TRM_CHECK(take_weights(k, desc, n, 1 + n));
    if (trm_attr_int(desc->attrs, "unit", 0) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': unit: want none", desc->name);
    TRM_CHECK(take_leaves(k, desc, &part));
    if (gated != NULL) {
        k->product.gated = trmi_lmc_act_from_name(gated);
        if (k->product.gated == TRMI_LMC_ACT_COUNT || k->product.gated == TRMI_LMC_SOFTCAP)
            return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': gated by '%s'", desc->name,
                            gated);
        if (n != 2 || k->weights[0].n != k->weights[1].n)
            return trm_fail(TRM_ERR_INVALID_ARG, "TrmLinears '%s': gated: want two weights alike",
                            desc->name);
    }
    if (gated != NULL && trm_attr_find(desc->attrs, "rounds") != NULL) {
        const trm_tensor want = {.rank = 2,
                                 .dims = {(int64_t)k->product.m, (int64_t)k->weights[0].n}};

        TRM_CHECK(trmi_lmc_rounds(desc, 0, &want, &k->product.rounds, &sums));
        if (k->product.rounds == TRM_DTYPE_I8 || k->weights[0].family != &trmi_lmc_float)
            return trm_fail(TRM_ERR_UNSUPPORTED, "TrmLinears '%s': %s rounded to %s", desc->name,
                            k->weights[0].family->name, trm_dtype_name(k->product.rounds));
        return settle(k);
    }
    for (int i = 0; i < desc->output_count; i++)
        TRM_CHECK(expect(desc, i, k, k->weights[i].n, false));
    return settle(k);
}

trm_status trmi_cuda_prepare_lm_linears(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_linear *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &linear_ops, &k));
    TRM_TRY(st, linears_init(k, desc), fail);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    linear_destroy(&k->base.base);
    return st;
}
