/* Rules of the operators of language models (kernels/language.h). */
#include "base/tree.h"
#include "model/shape/rule.h"

#include <string.h>

#define SAMPLED_BYTES 176 /* of a trm_step_sampled, which this room does not know */

/* Input i must be of `dtype`, or not known. */
static trm_status want_dtype(trmi_io io, int i, trm_dtype dtype)
{
    trm_dtype seen = trmi_shape_dtype(io, i);

    if (seen == TRM_DTYPE_NONE || seen == dtype)
        return TRM_OK;
    return trmi_shape_bad(io, "input %d is %s, want %s", i, trm_dtype_name(seen),
                          trm_dtype_name(dtype));
}

/* Input i must be of `dtype` and `rank`, or not known. */
static trm_status want(trmi_io io, int i, trm_dtype dtype, int rank)
{
    TRM_CHECK(want_dtype(io, i, dtype));
    return trmi_shape_want_rank(io, i, rank);
}

/* Rows for a product: floats, or rounded before. */
static trm_status want_rows(trmi_io io)
{
    trm_dtype seen = trmi_shape_dtype(io, 0);

    if (seen != TRM_DTYPE_BF16 && seen != TRM_DTYPE_F16 && seen != TRM_DTYPE_U8)
        TRM_CHECK(want_dtype(io, 0, TRM_DTYPE_F32));
    return trmi_shape_want_rank(io, 0, 2);
}

/* A weight: floats or blocks. */
static trm_status want_weight(trmi_io io, int i, int rank)
{
    trm_dtype seen = trmi_shape_dtype(io, i);

    if (seen != TRM_DTYPE_NONE && seen != TRM_DTYPE_F32 && seen != TRM_DTYPE_F16 &&
        seen != TRM_DTYPE_BF16 && !trm_dtype_is_block(seen))
        return trmi_shape_bad(io, "input %d is %s, want f32, f16, bf16 or a block type", i,
                              trm_dtype_name(seen));
    return trmi_shape_want_rank(io, i, rank);
}

/* Dim d of input i; unknown where its rank is. */
static int64_t dim(trmi_io io, int i, int d)
{
    return trmi_shape_rank(io, i) > d ? io->in[i].dims[d] : TRM_DIM_UNKNOWN;
}

static bool has_attr(trmi_io io, const char *name)
{
    return trm_attr_find(&io->node->attrs, name) != NULL;
}

static int64_t attr(trmi_io io, const char *name, int64_t otherwise)
{
    return trm_attr_int(&io->node->attrs, name, otherwise);
}

static trm_status positive(trmi_io io, const char *name, int64_t otherwise, int64_t *value_out)
{
    *value_out = attr(io, name, otherwise);
    if (*value_out < 1)
        return trmi_shape_bad(io, "attribute '%s' is %lld, want at least 1", name,
                              (long long)*value_out);
    return TRM_OK;
}

/* Attribute `name` must be one of `words` (NULL-terminated). */
static trm_status want_word(trmi_io io, const char *name, const char *otherwise,
                            const char *const *words)
{
    const char *seen = trm_attr_string(&io->node->attrs, name, otherwise);

    for (; *words != NULL; words++)
        if (strcmp(seen, *words) == 0)
            return TRM_OK;
    return trmi_shape_bad(io, "attribute '%s' is '%.40s'", name, seen);
}

/* `divisor` divides dim d of input i, as far as both are known. */
static trm_status divides(trmi_io io, int64_t divisor, int i, int d, const char *what)
{
    int64_t whole = dim(io, i, d);

    if (divisor == 0 || (divisor > 0 && whole >= 0 && whole % divisor != 0))
        return trmi_shape_bad(io, "%s %lld does not divide dim %d of input %d, %lld", what,
                              (long long)divisor, d, i, (long long)whole);
    return TRM_OK;
}

/* Parts of leaves [first, first + count) of the tree of attribute `leaves`. */
static trm_status parts_of(trmi_io io, int64_t first, int64_t count, int64_t *parts_out)
{
    int64_t leaves = attr(io, "leaves", 0);
    trm_tree_part parts[TRM_TREE_PARTS_MAX];

    if (leaves < 1 || leaves > TRM_TREE_LEAVES_MAX || first < 0 || count < 1 || count > leaves ||
        first > leaves - count)
        return trmi_shape_bad(io, "%lld leaves from %lld on, of %lld: want a range of at most %d",
                              (long long)count, (long long)first, (long long)leaves,
                              TRM_TREE_LEAVES_MAX);
    *parts_out = trm_tree_parts((int)first, (int)count, (int)leaves, parts);
    return TRM_OK;
}

/* Columns of a product's rows: unknown where they are a device's. */
static int64_t columns_of(trmi_io io)
{
    return trmi_shape_dtype(io, 0) == TRM_DTYPE_U8 ? TRM_DIM_UNKNOWN : dim(io, 0, 1);
}

/* Output `out`, rows like `shape`, as attribute `rounds` says. */
static trm_status out_rows(trmi_io io, int out, const trm_tensor *shape)
{
    const char *rounds = trm_attr_string(&io->node->attrs, "rounds", "");
    trm_tensor rows = *shape;
    int64_t bytes;

    if (*rounds == '\0') {
        trmi_shape_out(io, out, TRM_DTYPE_F32, shape);
    } else if (strcmp(rounds, "bf16") == 0) {
        trmi_shape_out(io, out, TRM_DTYPE_BF16, shape);
    } else if (strcmp(rounds, "f16") == 0) {
        trmi_shape_out(io, out, TRM_DTYPE_F16, shape);
    } else if (strcmp(rounds, "i8") == 0) {
        TRM_CHECK(positive(io, "row_bytes", 0, &bytes));
        if (rows.rank == 2)
            rows.dims[1] = bytes;
        trmi_shape_out(io, out, TRM_DTYPE_U8, &rows);
    } else {
        return trmi_shape_bad(io, "attribute 'rounds' is '%.40s'", rounds);
    }
    return TRM_OK;
}

trm_status trmi_rule_lm_embed(trmi_io io)
{
    TRM_CHECK(want(io, 0, TRM_DTYPE_I32, 1));
    TRM_CHECK(want_weight(io, 1, 2));
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){dim(io, 0, 0), dim(io, 1, 1)});
    return TRM_OK;
}

static const char *const norm_kinds[] = {"rms", "layer", NULL};
static const char *const acts[] = {"silu", "gelu",    "gelu_tanh", "relu",
                                   "tanh", "softcap", "none",      NULL};

trm_status trmi_rule_lm_norm(trmi_io io)
{
    int64_t same;

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_F32, 1));
    TRM_CHECK(want(io, 2, TRM_DTYPE_F32, 1));
    TRM_CHECK(want_word(io, "kind", "rms", norm_kinds));
    TRM_CHECK(divides(io, dim(io, 1, 0), 0, 1, "the weight's length"));
    TRM_CHECK(trmi_shape_same(io, "weight and bias", dim(io, 1, 0), dim(io, 2, 0), &same));
    return out_rows(io, 0, &io->in[0]);
}

trm_status trmi_rule_lm_add_norm(trmi_io io)
{
    trm_tensor shape = io->in[0];
    int64_t same;

    for (int i = 0; i < 2; i++)
        TRM_CHECK(want(io, i, TRM_DTYPE_F32, 2));
    for (int i = 2; i < 4; i++)
        TRM_CHECK(want(io, i, TRM_DTYPE_F32, 1));
    TRM_CHECK(want_word(io, "kind", "rms", norm_kinds));
    if (shape.rank == 2 && trmi_shape_rank(io, 1) == 2)
        for (int d = 0; d < 2; d++)
            TRM_CHECK(trmi_shape_same(io, "dims of x and y", shape.dims[d], dim(io, 1, d),
                                      &shape.dims[d]));
    for (int i = 2; i < 4; i++)
        TRM_CHECK(trmi_shape_same(io, "columns of x and the weights", dim(io, 0, 1), dim(io, i, 0),
                                  &same));
    trmi_shape_out(io, 0, TRM_DTYPE_F32, &shape);
    return out_rows(io, 1, &shape);
}

trm_status trmi_rule_lm_linear(trmi_io io)
{
    bool transposed = attr(io, "transposed", 0) != 0;
    int64_t unit = attr(io, "unit", 0), t, n, k, parts = TRM_DIM_UNKNOWN;

    TRM_CHECK(want_rows(io));
    TRM_CHECK(want_weight(io, 1, 2));
    TRM_CHECK(want(io, 2, TRM_DTYPE_F32, 1));
    t = dim(io, 0, 0);
    n = dim(io, 1, transposed ? 1 : 0);
    TRM_CHECK(trmi_shape_same(io, "columns of x and of the weight", columns_of(io),
                              dim(io, 1, transposed ? 0 : 1), &k));
    TRM_CHECK(trmi_shape_same(io, "outputs and bias", n, dim(io, 2, 0), &n));
    if (unit < 0)
        return trmi_shape_bad(io, "attribute 'unit' is %lld", (long long)unit);
    if (unit > 0 && k >= 0 && (k % unit != 0 || k / unit > TRM_TREE_LEAVES_MAX || k == 0))
        return trmi_shape_bad(io, "unit %lld: want at most %d whole units in %lld", (long long)unit,
                              TRM_TREE_LEAVES_MAX, (long long)k);
    if (!has_attr(io, "leaves")) {
        trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){t, n});
        return TRM_OK;
    }
    if (unit == 0 || trmi_shape_has(io, 2))
        return trmi_shape_bad(io, "a part of the leaves needs a unit and takes no bias");
    if (k >= 0)
        TRM_CHECK(parts_of(io, attr(io, "first", 0), k / unit, &parts));
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 3, (int64_t[3]){parts, t, n});
    return TRM_OK;
}

trm_status trmi_rule_lm_linears(trmi_io io)
{
    bool transposed = attr(io, "transposed", 0) != 0, gated = has_attr(io, "gated");
    int64_t count = attr(io, "n", 0), t = dim(io, 0, 0), n[4], same;
    int inputs = trmi_shape_operands(io);

    TRM_CHECK(want_rows(io));
    if (count < 2 || count > 4 || (inputs != 1 + count && inputs != 1 + 2 * count))
        return trmi_shape_bad(io, "%d inputs for n = %lld: want x, n weights and n biases or none",
                              inputs, (long long)count);
    if (io->node->output_count != (gated ? 1 : count) || (gated && count != 2))
        return trmi_shape_bad(io, "%d outputs of %lld products%s", io->node->output_count,
                              (long long)count, gated ? ", gated: want one of two" : "");
    for (int i = 0; i < count; i++) {
        TRM_CHECK(want_weight(io, 1 + i, 2));
        n[i] = dim(io, 1 + i, transposed ? 1 : 0);
        TRM_CHECK(trmi_shape_same(io, "columns of x and of a weight", columns_of(io),
                                  dim(io, 1 + i, transposed ? 0 : 1), &same));
        if (inputs == 1 + count)
            continue;
        TRM_CHECK(want(io, 1 + (int)count + i, TRM_DTYPE_F32, 1));
        TRM_CHECK(
            trmi_shape_same(io, "outputs and bias", n[i], dim(io, 1 + (int)count + i, 0), &n[i]));
    }
    if (!gated) {
        for (int i = 0; i < count; i++)
            trmi_shape_out_dims(io, i, TRM_DTYPE_F32, 2, (int64_t[2]){t, n[i]});
        return TRM_OK;
    }
    TRM_CHECK(want_word(io, "gated", "none", acts));
    TRM_CHECK(trmi_shape_same(io, "outputs of both", n[0], n[1], &n[0]));
    return out_rows(io, 0, &(trm_tensor){.rank = 2, .dims = {t, n[0]}});
}

/* Positions and frequencies of rope, inputs `at` and the next, for the rows of input 0. */
static trm_status want_rope(trmi_io io, int at, int64_t head_dim)
{
    int64_t same, half = dim(io, at + 1, 0);

    TRM_CHECK(want(io, at, TRM_DTYPE_I32, 1));
    TRM_CHECK(want(io, at + 1, TRM_DTYPE_F32, 1));
    TRM_CHECK(trmi_shape_same(io, "rows and positions", dim(io, 0, 0), dim(io, at, 0), &same));
    if (half >= 0 && half > head_dim / 2)
        return trmi_shape_bad(io, "%lld frequencies: want at most half of head_dim %lld",
                              (long long)half, (long long)head_dim);
    return TRM_OK;
}

trm_status trmi_rule_lm_rope(trmi_io io)
{
    int64_t head_dim;

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(positive(io, "head_dim", 0, &head_dim));
    TRM_CHECK(divides(io, head_dim, 0, 1, "head_dim"));
    TRM_CHECK(want_rope(io, 1, head_dim));
    trmi_shape_out(io, 0, TRM_DTYPE_F32, &io->in[0]);
    return TRM_OK;
}

static const char *const kv_dtypes[] = {"f32", "f16", "bf16", "i8", NULL};

/* Columns of input i are heads * head_dim. */
static trm_status want_heads(trmi_io io, int i, int64_t heads, int64_t head_dim)
{
    int64_t columns = dim(io, i, 1);

    TRM_CHECK(want(io, i, TRM_DTYPE_F32, 2));
    if (columns >= 0 && (columns % head_dim != 0 || columns / head_dim != heads))
        return trmi_shape_bad(io, "input %d has %lld columns, want %lld heads of %lld", i,
                              (long long)columns, (long long)heads, (long long)head_dim);
    return TRM_OK;
}

trm_status trmi_rule_lm_attention(trmi_io io)
{
    int64_t heads, kv_heads, head_dim, group, first = attr(io, "first_head", 0), rows, same;

    TRM_CHECK(positive(io, "heads", 0, &heads));
    TRM_CHECK(positive(io, "kv_heads", 0, &kv_heads));
    TRM_CHECK(positive(io, "head_dim", 0, &head_dim));
    TRM_CHECK(positive(io, "group", heads % kv_heads == 0 ? heads / kv_heads : 0, &group));
    TRM_CHECK(want_heads(io, 0, heads, head_dim));
    TRM_CHECK(want_heads(io, 1, kv_heads, head_dim));
    TRM_CHECK(want_heads(io, 2, kv_heads, head_dim));
    TRM_CHECK(want(io, 3, TRM_DTYPE_I64, 1));
    TRM_CHECK(want(io, 4, TRM_DTYPE_F32, 1));
    if (first < 0 || first > TRM_DIM_MAX || heads > TRM_DIM_MAX ||
        (first + heads - 1) / group - first / group >= kv_heads)
        return trmi_shape_bad(io,
                              "%lld query heads from %lld on, in groups of %lld, need more than "
                              "the %lld key heads",
                              (long long)heads, (long long)first, (long long)group,
                              (long long)kv_heads);
    TRM_CHECK(trmi_shape_same(io, "rows of q and k", dim(io, 0, 0), dim(io, 1, 0), &rows));
    TRM_CHECK(trmi_shape_same(io, "rows of k and v", rows, dim(io, 2, 0), &rows));
    TRM_CHECK(trmi_shape_same(io, "sinks and heads", heads, dim(io, 4, 0), &same));
    TRM_CHECK(want_word(io, "kv_dtype", "f32", kv_dtypes));
    if (trmi_shape_has(io, 5) != trmi_shape_has(io, 6))
        return trmi_shape_bad(io, "positions without frequencies, or the other way round");
    if (trmi_shape_has(io, 5))
        TRM_CHECK(want_rope(io, 5, head_dim));
    if (attr(io, "layer", 0) < 0 || attr(io, "window", 0) < 0)
        return trmi_shape_bad(io, "layer %lld, window %lld: want 0 or more",
                              (long long)attr(io, "layer", 0), (long long)attr(io, "window", 0));
    trmi_shape_out(io, 0, TRM_DTYPE_F32, &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_lm_gated(trmi_io io)
{
    trm_tensor shape = io->in[0];

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_F32, 2));
    TRM_CHECK(want_word(io, "act", "none", acts));
    if (shape.rank == 2 && trmi_shape_rank(io, 1) == 2)
        for (int d = 0; d < 2; d++)
            TRM_CHECK(trmi_shape_same(io, "dims of x and up", shape.dims[d], dim(io, 1, d),
                                      &shape.dims[d]));
    return out_rows(io, 0, &shape);
}

trm_status trmi_rule_lm_experts(trmi_io io)
{
    int64_t top_k, groups, t, d, all, local, f, each, first = attr(io, "first", 0);
    int64_t parts = TRM_DIM_UNKNOWN;

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_F32, 2));
    for (int i = 2; i < 5; i++)
        TRM_CHECK(want_weight(io, i, 3));
    TRM_CHECK(want_word(io, "act", "silu", acts));
    TRM_CHECK(positive(io, "top_k", 0, &top_k));
    TRM_CHECK(positive(io, "groups", 1, &groups));
    TRM_CHECK(trmi_shape_same(io, "rows of x and router", dim(io, 0, 0), dim(io, 1, 0), &t));
    TRM_CHECK(trmi_shape_same(io, "experts of gate and up", dim(io, 2, 0), dim(io, 3, 0), &local));
    TRM_CHECK(trmi_shape_same(io, "experts of gate and down", local, dim(io, 4, 0), &local));
    TRM_CHECK(trmi_shape_same(io, "features of gate and up", dim(io, 2, 1), dim(io, 3, 1), &f));
    TRM_CHECK(trmi_shape_same(io, "features of gate and down", f, dim(io, 4, 2), &f));
    TRM_CHECK(trmi_shape_same(io, "columns of x and gate", dim(io, 0, 1), dim(io, 2, 2), &d));
    TRM_CHECK(trmi_shape_same(io, "columns of x and up", d, dim(io, 3, 2), &d));
    TRM_CHECK(trmi_shape_same(io, "columns of x and down", d, dim(io, 4, 1), &d));
    all = dim(io, 1, 1);
    if (all >= 0 && (top_k > all || all % groups != 0 || groups > TRM_TREE_LEAVES_MAX))
        return trmi_shape_bad(io, "%lld experts: top_k %lld, groups %lld (of at most %d)",
                              (long long)all, (long long)top_k, (long long)groups,
                              TRM_TREE_LEAVES_MAX);
    if (!has_attr(io, "leaves")) {
        TRM_CHECK(trmi_shape_same(io, "experts and columns of the router", local, all, &local));
        trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){t, d});
        return TRM_OK;
    }
    if (attr(io, "leaves", 0) != groups)
        return trmi_shape_bad(io, "%lld leaves of %lld groups", (long long)attr(io, "leaves", 0),
                              (long long)groups);
    if (all > 0 && local >= 0) {
        each = all / groups;
        if (first < 0 || first % each != 0 || local % each != 0)
            return trmi_shape_bad(io,
                                  "experts from %lld, %lld of them, are no whole groups of %lld",
                                  (long long)first, (long long)local, (long long)each);
        TRM_CHECK(parts_of(io, first / each, local / each, &parts));
    }
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 3, (int64_t[3]){parts, t, d});
    return TRM_OK;
}

trm_status trmi_rule_lm_rows(trmi_io io)
{
    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_I32, 1));
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){dim(io, 1, 0), dim(io, 0, 1)});
    return TRM_OK;
}

trm_status trmi_rule_lm_pool(trmi_io io)
{
    static const char *const kinds[] = {"mean", "cls", "last", NULL};

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_I64, 1));
    TRM_CHECK(want_word(io, "kind", "mean", kinds));
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){dim(io, 1, 0), dim(io, 0, 1)});
    return TRM_OK;
}

trm_status trmi_rule_lm_sample(trmi_io io)
{
    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(io, 1, TRM_DTYPE_I64, 1));
    trmi_shape_out_dims(io, 0, TRM_DTYPE_U8, 2, (int64_t[2]){dim(io, 0, 0), SAMPLED_BYTES});
    return TRM_OK;
}

/* With the residual and the norm that follow the sum. */
static trm_status reduce_tree_norm(trmi_io io)
{
    int64_t shape[2], same;

    if (io->node->input_count < 3)
        return trmi_shape_bad(io, "a residual without the norm's weight");
    TRM_CHECK(want(io, 1, TRM_DTYPE_F32, 2));
    for (int i = 2; i < 4; i++)
        TRM_CHECK(want(io, i, TRM_DTYPE_F32, 1));
    TRM_CHECK(want_word(io, "kind", "rms", norm_kinds));
    for (int d = 0; d < 2; d++)
        TRM_CHECK(trmi_shape_same(io, "dims of the parts and the residual", dim(io, 0, d + 1),
                                  dim(io, 1, d), &shape[d]));
    for (int i = 2; i < 4; i++)
        TRM_CHECK(trmi_shape_same(io, "columns of the parts and the weights", shape[1],
                                  dim(io, i, 0), &same));
    for (int k = 0; k < 2; k++)
        trmi_shape_out_dims(io, k, TRM_DTYPE_F32, 2, shape);
    return TRM_OK;
}

trm_status trmi_rule_lm_reduce_tree(trmi_io io)
{
    int64_t parts = TRM_DIM_UNKNOWN, same;

    TRM_CHECK(want(io, 0, TRM_DTYPE_F32, 3));
    TRM_CHECK(parts_of(io, attr(io, "first", 0), attr(io, "count", 0), &parts));
    TRM_CHECK(trmi_shape_same(io, "parts", dim(io, 0, 0), parts, &same));
    if (io->node->input_count > 1)
        return reduce_tree_norm(io);
    if (io->node->output_count > 1)
        return trmi_shape_bad(io, "a second output wants a residual and a weight");
    trmi_shape_out_dims(io, 0, TRM_DTYPE_F32, 2, (int64_t[2]){dim(io, 0, 1), dim(io, 0, 2)});
    return TRM_OK;
}
