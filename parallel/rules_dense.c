/* Convolutions, products, attention: where the work is. */
#include "parallel/rules_impl.h"

#include <string.h>

/* ---- convolutions: x [N, C, ...], w [M, C/g, ...], y [N, M, ...] ---- */

typedef struct conv_inputs { /* which inputs they are; -1: the operator has none */
    int x, w, bias;
    int per_channel[4]; /* of the outputs: scales, zero points: one or [M] */
    bool sum;           /* partial results may be added */
} conv_inputs;

static const trm_tensor *input_of(const trmi_rules *r, int i)
{
    return i < 0 ? NULL : trmi_rules_in(r, i);
}

/* What has an entry for each output channel. */
static void carry_channels(const trmi_rules *r, trm_axis *a, const conv_inputs *in, int64_t scale,
                           int64_t repeat, int64_t channels)
{
    if (in->bias >= 0 && trmi_rules_has(r, in->bias))
        trmi_scale_in(r, a, in->bias, 0, scale, repeat);
    for (int i = 0; i < 4; i++) {
        const trm_tensor *t = in->per_channel[i] > 0 ? trmi_rules_in(r, in->per_channel[i]) : NULL;

        if (t != NULL && t->rank == 1 && t->dims[0] == channels && channels > 1)
            trmi_scale_in(r, a, in->per_channel[i], 0, scale, repeat);
    }
    trmi_scale_out(r, a, 0, 1, scale, repeat);
}

static void conv(trmi_rules *r, const conv_inputs *in)
{
    const trm_tensor *x = input_of(r, in->x), *w = input_of(r, in->w);
    int64_t g = trm_attr_int(&r->n->attrs, "group", 1), in_channels, out_channels;
    trm_axis *a;

    if (x == NULL || w == NULL || x->rank < 3 || w->rank != x->rank || g < 1 || x->dims[1] < 1 ||
        w->dims[0] < 1 || x->dims[1] % g != 0 || w->dims[0] % g != 0)
        return;
    in_channels = x->dims[1] / g;
    out_channels = w->dims[0] / g;
    if (g > 1) {
        a = trmi_rules_axis(r, "groups", g, TRMI_WEIGHT_CHANNELS);
        trmi_scale_in(r, a, in->x, 1, in_channels, 1);
        trmi_scale_in(r, a, in->w, 0, out_channels, 1);
        carry_channels(r, a, in, out_channels, 1, w->dims[0]);
    }
    a = trmi_rules_axis(r, "out channels", out_channels, TRMI_WEIGHT_CHANNELS);
    trmi_scale_in(r, a, in->w, 0, 1, g);
    carry_channels(r, a, in, 1, g, w->dims[0]);
    if (in->sum) {
        a = trmi_rules_axis(r, "in channels", in_channels, TRMI_WEIGHT_CHANNELS);
        trmi_scale_in(r, a, in->x, 1, 1, g);
        trmi_carry_in(r, a, in->w, 1);
        if (a != NULL)
            a->sum = true;
        if (in->bias >= 0)
            trmi_added(r, a, in->bias);
    }
    a = trmi_rules_axis(r, "batch", x->dims[0], TRMI_WEIGHT_BATCH);
    trmi_carry_in(r, a, in->x, 0);
    trmi_carry_out(r, a, 0, 0);
}

void trmi_rules_conv(trmi_rules *r)
{
    static const conv_inputs in = {.x = 0, .w = 1, .bias = 2, .sum = true};

    conv(r, &in);
}

/* x, x scale, x zero, w, w scale, w zero, y scale, y zero, bias */
void trmi_rules_qlinear_conv(trmi_rules *r)
{
    static const conv_inputs in = {.x = 0, .w = 3, .bias = 8, .per_channel = {4, 5}};

    conv(r, &in);
}

/* x, w, x zero, w zero */
void trmi_rules_conv_integer(trmi_rules *r)
{
    static const conv_inputs in = {.x = 0, .w = 1, .bias = -1, .per_channel = {3}};

    conv(r, &in);
}

/* w [C, M/g, ...] */
void trmi_rules_conv_transpose(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *w = trmi_rules_in(r, 1);
    int64_t g = trm_attr_int(&r->n->attrs, "group", 1);
    trm_axis *a;

    if (x == NULL || w == NULL || x->rank < 3 || w->rank != x->rank || g < 1 || x->dims[1] < 1 ||
        x->dims[1] % g != 0 || w->dims[1] < 1)
        return;
    if (g > 1) {
        a = trmi_rules_axis(r, "groups", g, TRMI_WEIGHT_CHANNELS);
        trmi_scale_in(r, a, 0, 1, x->dims[1] / g, 1);
        trmi_scale_in(r, a, 1, 0, x->dims[1] / g, 1);
        if (trmi_rules_has(r, 2))
            trmi_scale_in(r, a, 2, 0, w->dims[1], 1);
        trmi_scale_out(r, a, 0, 1, w->dims[1], 1);
    }
    a = trmi_rules_axis(r, "out channels", w->dims[1], TRMI_WEIGHT_CHANNELS);
    trmi_carry_in(r, a, 1, 1);
    if (trmi_rules_has(r, 2))
        trmi_scale_in(r, a, 2, 0, 1, g);
    trmi_scale_out(r, a, 0, 1, 1, g);
    a = trmi_rules_axis(r, "in channels", x->dims[1] / g, TRMI_WEIGHT_CHANNELS);
    trmi_scale_in(r, a, 0, 1, 1, g);
    trmi_scale_in(r, a, 1, 0, 1, g);
    trmi_added(r, a, 2);
    if (a != NULL)
        a->sum = true;
    a = trmi_rules_axis(r, "batch", x->dims[0], TRMI_WEIGHT_BATCH);
    trmi_carry_in(r, a, 0, 0);
    trmi_carry_out(r, a, 0, 0);
}

/* ---- products: a [..., m, k], b [..., k, n], y [..., m, n] ---- */

/* Zero points and scales of the quantised forms: one; or one a row of a, a column of b. */
static void carry_vector(const trmi_rules *r, trm_axis *axis, int i, int64_t extent)
{
    const trm_tensor *t = i < 0 ? NULL : trmi_rules_in(r, i);

    if (t != NULL && t->rank == 1 && t->dims[0] != 1 && t->dims[0] == extent)
        trmi_carry_in(r, axis, i, 0);
}

typedef struct product_inputs {
    int a, b;
    int rows[2], columns[2]; /* vectors; -1: none */
    bool sum;
} product_inputs;

static void product(trmi_rules *r, const product_inputs *in)
{
    const trm_tensor *a = trmi_rules_in(r, in->a), *b = trmi_rules_in(r, in->b),
                     *y = trmi_rules_out(r, 0);
    int rank;
    trm_axis *axis;

    if (a == NULL || b == NULL || y == NULL || a->rank < 1 || b->rank < 1)
        return;
    for (int k = 0; k < 2; k++) /* finer zero points than vectors are not looked at */
        for (int side = 0; side < 2; side++) {
            int i = side ? in->columns[k] : in->rows[k];

            if (i >= 0 && trmi_rules_has(r, i) &&
                (trmi_rules_in(r, i) == NULL || trmi_rules_in(r, i)->rank > 1))
                return;
        }
    rank = a->rank > b->rank ? a->rank : b->rank;
    for (int d = 0; d < rank - 2; d++) { /* y has these dims in the same places */
        axis = trmi_rules_axis(r, "batch", y->rank > d ? y->dims[d] : 1, TRMI_WEIGHT_BATCH);
        if (a->rank > 1)
            trmi_broadcast_in(r, axis, in->a, rank, d, 1);
        if (b->rank > 1)
            trmi_broadcast_in(r, axis, in->b, rank, d, 1);
        trmi_carry_out(r, axis, 0, d);
    }
    if (b->rank > 1) {
        axis = trmi_rules_axis(r, "columns", b->dims[b->rank - 1], TRMI_WEIGHT_CHANNELS);
        trmi_carry_in(r, axis, in->b, b->rank - 1);
        trmi_carry_out(r, axis, 0, y->rank - 1);
        for (int k = 0; k < 2; k++)
            carry_vector(r, axis, in->columns[k], b->dims[b->rank - 1]);
    }
    if (in->sum) {
        axis = trmi_rules_axis(r, "sum", a->dims[a->rank - 1], TRMI_WEIGHT_CHANNELS);
        trmi_carry_in(r, axis, in->a, a->rank - 1);
        trmi_carry_in(r, axis, in->b, b->rank > 1 ? b->rank - 2 : 0);
        if (axis != NULL)
            axis->sum = true;
    }
    if (a->rank > 1) {
        axis = trmi_rules_axis(r, "rows", a->dims[a->rank - 2], TRMI_WEIGHT_ROWS);
        trmi_carry_in(r, axis, in->a, a->rank - 2);
        trmi_carry_out(r, axis, 0, y->rank - (b->rank > 1 ? 2 : 1));
        for (int k = 0; k < 2; k++)
            carry_vector(r, axis, in->rows[k], a->dims[a->rank - 2]);
    }
}

void trmi_rules_matmul(trmi_rules *r)
{
    static const product_inputs in = {0, 1, {-1, -1}, {-1, -1}, true};

    product(r, &in);
    if (r->n->inputs[0] != r->n->inputs[1]) {
        trmi_linear(r, 1);
        trmi_linear(r, 2);
    }
}

/* a, b, a zero, b zero */
void trmi_rules_matmul_integer(trmi_rules *r)
{
    static const product_inputs in = {0, 1, {2, -1}, {3, -1}, true};
    const trm_tensor *az = trmi_rules_in(r, 2);
    const trm_tensor *a = trmi_rules_in(r, 0);

    /* a vector of a's zero points could be one a row; square operands leave that open */
    if (az != NULL && az->rank == 1 && az->dims[0] > 1 && a != NULL && a->rank < 2)
        return;
    product(r, &in);
}

/* a, a scale, a zero, b, b scale, b zero, y scale, y zero */
void trmi_rules_qlinear_matmul(trmi_rules *r)
{
    static const product_inputs in = {0, 3, {1, 2}, {4, 5}, false};

    product(r, &in);
}

void trmi_rules_gemm(trmi_rules *r)
{
    const trm_tensor *a = trmi_rules_in(r, 0), *b = trmi_rules_in(r, 1);
    int ta = trm_attr_int(&r->n->attrs, "transA", 0) != 0;
    int tb = trm_attr_int(&r->n->attrs, "transB", 0) != 0;
    trm_axis *axis;

    if (a == NULL || b == NULL || a->rank != 2 || b->rank != 2)
        return;
    axis = trmi_rules_axis(r, "columns", b->dims[tb ? 0 : 1], TRMI_WEIGHT_CHANNELS);
    trmi_carry_in(r, axis, 1, tb ? 0 : 1);
    trmi_broadcast_in(r, axis, 2, 2, 1, 1);
    trmi_carry_out(r, axis, 0, 1);
    axis = trmi_rules_axis(r, "sum", a->dims[ta ? 0 : 1], TRMI_WEIGHT_CHANNELS);
    trmi_carry_in(r, axis, 0, ta ? 0 : 1);
    trmi_carry_in(r, axis, 1, tb ? 1 : 0);
    trmi_added(r, axis, 2);
    if (axis != NULL)
        axis->sum = true;
    axis = trmi_rules_axis(r, "rows", a->dims[ta ? 1 : 0], TRMI_WEIGHT_ROWS);
    trmi_carry_in(r, axis, 0, ta ? 1 : 0);
    trmi_broadcast_in(r, axis, 2, 2, 0, 1);
    trmi_carry_out(r, axis, 0, 0);
    if (r->n->inputs[0] != r->n->inputs[1]) { /* the bias is added once: a partial sum too */
        trmi_linear(r, trmi_rules_has(r, 2) ? 5 : 1);
        trmi_linear(r, trmi_rules_has(r, 2) ? 6 : 2);
    }
}

/* Every letter is a loop; those that the result lacks are summed. */
void trmi_rules_einsum(trmi_rules *r)
{
    const char *s = trm_attr_string(&r->n->attrs, "equation", "");
    char terms[TRM_RANK_MAX + 1][TRM_RANK_MAX + 1] = {{0}};
    char plain[256], *result;
    int count = 1, n = 0;

    for (; *s != '\0' && n < 255; s++)
        if (*s != ' ')
            plain[n++] = *s;
    plain[n] = '\0';
    result = strstr(plain, "->");
    if (*s != '\0' || result == NULL || strchr(plain, '.') != NULL)
        return;
    *result = '\0';
    result += 2;
    n = 0;
    for (const char *p = plain; *p != '\0'; p++) {
        if (*p == ',') {
            count++;
            n = 0;
            continue;
        }
        if (count > TRM_RANK_MAX || n == TRM_RANK_MAX || strchr(terms[count - 1], *p) != NULL)
            return; /* diagonals are not looked at */
        terms[count - 1][n++] = *p;
    }
    if (count != r->n->input_count || strlen(result) > TRM_RANK_MAX)
        return;
    for (char c = 'A'; c <= 'z'; c++) {
        const char *out = strchr(result, c);
        int64_t extent = 1;
        trm_axis *axis;

        for (int i = 0; i < count; i++) {
            const trm_tensor *t = trmi_rules_in(r, i);
            const char *at = strchr(terms[i], c);

            if (at != NULL && t != NULL && at - terms[i] < t->rank && t->dims[at - terms[i]] > 1)
                extent = t->dims[at - terms[i]];
        }
        axis = trmi_rules_axis(r, "letter", extent,
                               out == NULL ? TRMI_WEIGHT_CHANNELS : TRMI_WEIGHT_ROWS);
        for (int i = 0; i < count; i++) {
            const char *at = strchr(terms[i], c);
            const trm_tensor *t = trmi_rules_in(r, i);

            if (at != NULL &&
                (t == NULL || at - terms[i] >= t->rank || t->dims[at - terms[i]] != 1))
                trmi_carry_in(r, axis, i, (int)(at - terms[i]));
        }
        if (out != NULL)
            trmi_carry_out(r, axis, 0, (int)(out - result));
        else if (axis != NULL)
            axis->sum = true;
    }
}

/* ---- attention ---- */

/* q [B, H, S, D], k, v, mask broadcast to [B, H, S, T] */
void trmi_rules_trm_attention(trmi_rules *r)
{
    static const char *const names[3] = {"batch", "heads", "queries"};
    static const int weights[3] = {TRMI_WEIGHT_BATCH, TRMI_WEIGHT_HEADS, TRMI_WEIGHT_ROWS};
    const trm_tensor *q = trmi_rules_in(r, 0);

    if (q == NULL || q->rank != 4)
        return;
    for (int d = 0; d < 3; d++) {
        trm_axis *a = trmi_rules_axis(r, names[d], q->dims[d], weights[d]);

        trmi_carry_in(r, a, 0, d);
        for (int i = 1; i < 3 && d < 2; i++)
            trmi_carry_in(r, a, i, d);
        trmi_broadcast_in(r, a, 3, 4, d, 1);
        trmi_carry_out(r, a, 0, d);
    }
}

/* q, k, v [B, H, S, D] or [B, S, H*D], mask, past key, past value, lengths; y, key, value, scores
 */
void trmi_rules_attention(trmi_rules *r)
{
    const trm_tensor *q = trmi_rules_in(r, 0), *k = trmi_rules_in(r, 1), *v = trmi_rules_in(r, 2),
                     *y = trmi_rules_out(r, 0), *mask = trmi_rules_in(r, 3);
    int64_t kv_heads, q_heads, group, q_size = 1, k_size = 1, v_size = 1;
    int at, mask_at;
    trm_axis *a;

    if (q == NULL || k == NULL || v == NULL || y == NULL || (q->rank != 3 && q->rank != 4) ||
        k->rank != q->rank || v->rank != q->rank || (trmi_rules_has(r, 3) && mask == NULL))
        return;
    q_heads = q->rank == 4 ? q->dims[1] : trm_attr_int(&r->n->attrs, "q_num_heads", 0);
    kv_heads = q->rank == 4 ? k->dims[1] : trm_attr_int(&r->n->attrs, "kv_num_heads", 0);
    at = q->rank == 4 ? 1 : 2;
    if (kv_heads < 1 || q_heads < 1 || q_heads % kv_heads != 0)
        return;
    group = q_heads / kv_heads;
    if (q->rank == 3) {
        if (q->dims[2] < 1 || k->dims[2] < 1 || v->dims[2] < 1)
            return;
        q_size = q->dims[2] / q_heads;
        k_size = k->dims[2] / kv_heads;
        v_size = v->dims[2] / kv_heads;
    }
    mask_at =
        mask == NULL || mask->rank < 3 || mask->dims[mask->rank - 3] == 1 ? -1 : mask->rank - 3;
    a = trmi_rules_axis(r, "heads", kv_heads, TRMI_WEIGHT_HEADS);
    trmi_scale_in(r, a, 0, at, group * q_size, 1);
    trmi_scale_in(r, a, 1, at, k_size, 1);
    trmi_scale_in(r, a, 2, at, v_size, 1);
    if (mask_at >= 0)
        trmi_scale_in(r, a, 3, mask_at, group, 1);
    for (int i = 4; i < 6; i++)
        if (trmi_rules_has(r, i))
            trmi_carry_in(r, a, i, 1);
    trmi_scale_out(r, a, 0, at, group * v_size, 1);
    trmi_carry_out(r, a, 1, 1);
    trmi_carry_out(r, a, 2, 1);
    trmi_scale_out(r, a, 3, 1, group, 1);

    if (group > 1) { /* keys and values on every rank, where there are fewer of them than ranks */
        a = trmi_rules_axis(r, "heads of a group", group, TRMI_WEIGHT_CHANNELS);
        trmi_scale_in(r, a, 0, at, q_size, kv_heads);
        if (mask_at >= 0)
            trmi_scale_in(r, a, 3, mask_at, 1, kv_heads);
        trmi_scale_out(r, a, 0, at, v_size, kv_heads);
        trmi_scale_out(r, a, 3, 1, 1, kv_heads);
    }
    a = trmi_rules_axis(r, "batch", q->dims[0], TRMI_WEIGHT_BATCH);
    for (int i = 0; i < 3; i++)
        trmi_carry_in(r, a, i, 0);
    if (mask != NULL && mask->rank == 4)
        trmi_broadcast_in(r, a, 3, 4, 0, 1);
    for (int i = 4; i < 7; i++)
        if (trmi_rules_has(r, i))
            trmi_carry_in(r, a, i, 0);
    for (int i = 0; i < 4; i++)
        trmi_carry_out(r, a, i, 0);
}

/* x [B, H, S, D] or [B, S, H*D], cos and sin, position ids [B, S] */
void trmi_rules_rotary(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int64_t heads = trm_attr_int(&r->n->attrs, "num_heads", 0);
    trm_axis *a;

    if (x == NULL || (x->rank != 3 && x->rank != 4) ||
        (x->rank == 3 && (heads < 1 || x->dims[2] < 1)))
        return;
    a = trmi_rules_axis(r, "heads", x->rank == 4 ? x->dims[1] : heads, TRMI_WEIGHT_HEADS);
    trmi_scale_in(r, a, 0, x->rank == 4 ? 1 : 2, x->rank == 4 ? 1 : x->dims[2] / heads, 1);
    trmi_scale_out(r, a, 0, x->rank == 4 ? 1 : 2, x->rank == 4 ? 1 : x->dims[2] / heads, 1);
}
