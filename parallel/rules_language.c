/* Operators of language models (kernels/language.h). Tokens are a symbol and never split; what is
 * shared are features, heads, experts and vocabulary, and of a product over many features leaves of
 * its summation tree, so that the same numbers are added in the same order whoever adds them. */
#include "parallel/rules_impl.h"

#include "base/tree.h"

#include <string.h>

#define PANEL 16        /* output features that products keep together (kernels/cpu/lm_linear.h) */
#define PANELS_MANY 256 /* so many that whole ones divide well among any ranks */

static int64_t attr(const trmi_rules *r, const char *name, int64_t otherwise)
{
    return trm_attr_int(&r->n->attrs, name, otherwise);
}

/* Dim 1 of inputs 0 and the output, as `extent` elements of `scale`. */
static trm_axis *columns(trmi_rules *r, const char *name, int64_t extent, int64_t scale, int weight)
{
    trm_axis *a = trmi_rules_axis(r, name, extent, weight);

    trmi_scale_in(r, a, 0, 1, scale, 1);
    trmi_scale_out(r, a, 0, 1, scale, 1);
    return a;
}

static const trm_tensor *matrix(const trmi_rules *r, int i)
{
    const trm_tensor *t = trmi_rules_in(r, i);

    return t != NULL && t->rank == 2 ? t : NULL;
}

static void leaves(trm_axis *a, int64_t unit)
{
    if (a == NULL)
        return;
    a->unit = unit;
    a->tree = a->contiguous = true;
}

/* ids [T], table [V, D] in blocks along D. Not by rows: their owners' zeros would have to be added,
 * and the table is read where it lies in the file anyway. */
void trmi_rules_lm_embed(trmi_rules *r)
{
    const trm_tensor *table = matrix(r, 1);
    trm_axis *a;

    if (table == NULL)
        return;
    a = trmi_rules_axis(r, "features", table->dims[1], TRMI_WEIGHT_NONE);
    trmi_carry_in(r, a, 1, 1);
    trmi_carry_out(r, a, 0, 1);
    if (a != NULL)
        a->unit = (int64_t)trm_dtype_block_elems(table->dtype);
}

/* x [T, D], weight and bias [G]: groups where there are several; a row's sums are never cut. */
void trmi_rules_lm_norm(trmi_rules *r)
{
    const trm_tensor *x = matrix(r, 0), *w = trmi_rules_in(r, 1);

    if (x == NULL || w == NULL || w->rank != 1 || w->dims[0] < 1 || x->dims[1] < 1 ||
        x->dims[1] % w->dims[0] != 0)
        return;
    (void)columns(r, "groups", x->dims[1] / w->dims[0], w->dims[0], TRMI_WEIGHT_HEADS);
}

/* x [T, K], weight [N, K] (transposed: [K, N]), bias [N] */
void trmi_rules_lm_linear(trmi_rules *r)
{
    const trm_tensor *x = matrix(r, 0), *w = matrix(r, 1);
    bool transposed = attr(r, "transposed", 0) != 0;
    int n = transposed ? 1 : 0, k = 1 - n;
    int64_t unit = attr(r, "unit", 0), block;
    trm_axis *a;

    if (x == NULL || w == NULL || w->dims[0] < 1 || w->dims[1] < 1)
        return;
    block = (int64_t)trm_dtype_block_elems(w->dtype);
    a = trmi_rules_axis(r, "out features", w->dims[n], TRMI_WEIGHT_CHANNELS);
    trmi_carry_in(r, a, 1, n);
    if (trmi_rules_has(r, 2))
        trmi_carry_in(r, a, 2, 0);
    trmi_carry_out(r, a, 0, 1);
    if (a != NULL && w->dims[n] % PANEL == 0 && w->dims[n] / PANEL >= PANELS_MANY)
        a->unit = PANEL;
    if (a != NULL && n == 1 && block > a->unit)
        a->unit = block;
    if (unit < 1 || w->dims[k] % unit != 0 || w->dims[k] / unit > TRM_TREE_LEAVES_MAX ||
        (k == 1 && unit % block != 0))
        return;
    a = trmi_rules_axis(r, "sum", w->dims[k], TRMI_WEIGHT_CHANNELS);
    trmi_carry_in(r, a, 0, 1);
    trmi_carry_in(r, a, 1, k);
    leaves(a, unit);
}

/* x [T, H * head_dim] */
void trmi_rules_lm_rope(trmi_rules *r)
{
    const trm_tensor *x = matrix(r, 0);
    int64_t head = attr(r, "head_dim", 0);

    if (x != NULL && head > 0 && x->dims[1] > 0 && x->dims[1] % head == 0)
        (void)columns(r, "heads", x->dims[1] / head, head, TRMI_WEIGHT_HEADS);
}

/* q [T, H * head_dim], k and v [T, KV * head_dim], step, sinks [H]? Whole groups of query heads
 * with their key and value head; where there are too few of those, query heads alone: every rank
 * makes all of k and v, and keeps the heads that its query heads read (lower_language.c). */
void trmi_rules_lm_attention(trmi_rules *r)
{
    int64_t heads = attr(r, "heads", 0), kv = attr(r, "kv_heads", 0), head = attr(r, "head_dim", 0);
    bool sinks = trmi_rules_has(r, 4);
    trm_axis *a;

    if (heads < 1 || kv < 1 || head < 1 || heads % kv != 0)
        return;
    a = trmi_rules_axis(r, "kv heads", kv, TRMI_WEIGHT_HEADS);
    trmi_scale_in(r, a, 0, 1, heads / kv * head, 1);
    trmi_scale_in(r, a, 1, 1, head, 1);
    trmi_scale_in(r, a, 2, 1, head, 1);
    trmi_scale_out(r, a, 0, 1, heads / kv * head, 1);
    if (sinks)
        trmi_scale_in(r, a, 4, 0, heads / kv, 1);
    if (heads == kv)
        return;
    a = columns(r, "query heads", heads, head, TRMI_WEIGHT_CHANNELS);
    if (sinks)
        trmi_carry_in(r, a, 4, 0);
    if (a != NULL)
        a->contiguous = true; /* `first_head` */
}

/* x, up [T, F] */
void trmi_rules_lm_gated(trmi_rules *r)
{
    const trm_tensor *x = matrix(r, 0);
    trm_axis *a = x == NULL ? NULL : columns(r, "features", x->dims[1], 1, TRMI_WEIGHT_NONE);

    if (trmi_rules_has(r, 1))
        trmi_carry_in(r, a, 1, 1);
}

/* x [T, D], router [T, E_all], gate and up [E, F, D], down [E, D, F]: whole groups of experts */
void trmi_rules_lm_experts(trmi_rules *r)
{
    const trm_tensor *gate = trmi_rules_in(r, 2);
    int64_t groups = attr(r, "groups", 0);
    trm_axis *a;

    if (gate == NULL || gate->rank != 3 || groups < 1 || groups > TRM_TREE_LEAVES_MAX ||
        gate->dims[0] < 1 || gate->dims[0] % groups != 0)
        return;
    a = trmi_rules_axis(r, "experts", gate->dims[0], TRMI_WEIGHT_CHANNELS);
    for (int i = 2; i < 5; i++)
        trmi_carry_in(r, a, i, 0);
    leaves(a, gate->dims[0] / groups);
}

/* x [T, D], rows [R] */
void trmi_rules_lm_rows(trmi_rules *r)
{
    const trm_tensor *x = matrix(r, 0);

    if (x != NULL)
        (void)columns(r, "features", x->dims[1], 1, TRMI_WEIGHT_NONE);
}

/* x [T, D], step; a length is taken over the whole row */
void trmi_rules_lm_pool(trmi_rules *r)
{
    if (attr(r, "normalize", 0) == 0)
        trmi_rules_lm_rows(r);
}
