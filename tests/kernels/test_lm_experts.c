/* TrmExperts: against sums in double; a token's bits do not depend on other tokens, and what ranks
 * with groups of experts give folds to what one rank gives. */
#include "kernels/cpu/lm_experts.h"

#include "base/f8.h"
#include "kernels/device.h"
#include "tests/kernels/lm_check.h"

static trm_device *device;

#define ATTRS_MAX 7
#define INT(n, value)                                                                              \
    {                                                                                              \
        .name = (n), .kind = TRM_ATTR_INT, .v.i = (value)                                          \
    }
#define TEXT(n, value)                                                                             \
    {                                                                                              \
        .name = (n), .kind = TRM_ATTR_STRING, .v.s = (value)                                       \
    }

typedef struct model {
    size_t tokens, width, features, experts;
    trm_dtype dtypes[3]; /* gate, up, down */
    void *weights[3];
    float *plain[3];
    float *x, *logits;
} model;

/* `count` weights in blocks of Q8_0: a scale and 32 numbers */
static void *random_q8(size_t count, float **plain_out)
{
    unsigned char *blocks = lm_alloc(count / 32 * 34);

    for (size_t i = 0; i < count / 32; i++) {
        uint16_t scale = trm_f32_to_f16((1.0f + lm_uniform() / 2.0f) / 127.0f);

        memcpy(blocks + i * 34, &scale, 2);
        for (size_t j = 0; j < 32; j++)
            blocks[i * 34 + 2 + j] = (unsigned char)(lm_random() % 255 - 127);
    }
    *plain_out = lm_alloc(count * sizeof(float));
    trmi_lm_dequantize(TRM_DTYPE_Q8_0, blocks, count, *plain_out);
    return blocks;
}

/* the same in fp8, with one scale */
static void *random_f8(trm_dtype dtype, size_t count, float **plain_out)
{
    size_t elems = trm_dtype_block_elems(dtype), block = trm_dtype_block_bytes(dtype);
    unsigned char *blocks = lm_alloc(count / elems * block);
    const float scale = 1.0f / 300.0f;

    for (size_t b = 0; b < count / elems; b++) {
        memcpy(blocks + b * block, &scale, sizeof(scale));
        for (size_t j = 0; j < elems; j++) {
            unsigned char e = (unsigned char)lm_random();

            blocks[b * block + sizeof(scale) + j] = trm_e4m3_is_nan(e) ? 0 : e;
        }
    }
    *plain_out = lm_alloc(count * sizeof(float));
    trmi_lm_dequantize(dtype, blocks, count, *plain_out);
    return blocks;
}

static void model_init(model *m, size_t tokens, size_t width, size_t features, size_t experts,
                       const trm_dtype *dtypes)
{
    *m = (model){.tokens = tokens, .width = width, .features = features, .experts = experts};
    for (int i = 0; i < 3; i++) {
        size_t count = experts * features * width;

        m->dtypes[i] = dtypes[i];
        m->weights[i] = dtypes[i] == TRM_DTYPE_Q8_0 ? random_q8(count, &m->plain[i])
                        : trm_dtype_is_f8(dtypes[i])
                            ? random_f8(dtypes[i], count, &m->plain[i])
                            : lm_random_weights(dtypes[i], count, &m->plain[i]);
    }
    m->x = lm_random_floats(tokens * width);
    m->logits = lm_random_floats(tokens * experts);
}

static void model_fini(model *m)
{
    for (int i = 0; i < 3; i++) {
        trm_aligned_free(m->weights[i]);
        trm_aligned_free(m->plain[i]);
    }
    trm_aligned_free(m->x);
    trm_aligned_free(m->logits);
}

typedef struct node {
    trm_tensor in[5], out;
    uint64_t keys[5];
    trm_attr items[ATTRS_MAX];
    trm_attrs attrs;
    trm_op_desc desc;
} node;

/* experts [first, first + local) of the model, for `tokens`; parts 0: not a part */
static void node_init(node *d, const trm_attr *attrs, const model *m, size_t tokens, size_t first,
                      size_t local, int parts)
{
    int64_t e = (int64_t)local, f = (int64_t)m->features, w = (int64_t)m->width;

    memset(d, 0, sizeof(*d));
    for (d->attrs.count = 0; attrs[d->attrs.count].name != NULL; d->attrs.count++)
        d->items[d->attrs.count] = attrs[d->attrs.count];
    d->attrs.items = d->items;
    d->in[0] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {(int64_t)tokens, w}};
    d->in[1] = (trm_tensor){
        .dtype = TRM_DTYPE_F32, .rank = 2, .dims = {(int64_t)tokens, (int64_t)m->experts}};
    for (int i = 0; i < 3; i++) {
        size_t row = m->features * m->width / trm_dtype_block_elems(m->dtypes[i]) *
                     trm_dtype_block_bytes(m->dtypes[i]);

        d->in[2 + i] = (trm_tensor){.dtype = m->dtypes[i],
                                    .rank = 3,
                                    .dims = {e, i == 2 ? w : f, i == 2 ? f : w},
                                    .data = (char *)m->weights[i] + first * row};
    }
    d->out = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {(int64_t)tokens, w}};
    if (parts > 0)
        d->out =
            (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {parts, (int64_t)tokens, w}};
    d->desc = (trm_op_desc){.op = TRM_OP_TrmExperts,
                            .attrs = &d->attrs,
                            .name = "node",
                            .input_count = 5,
                            .output_count = 1,
                            .inputs = d->in,
                            .outputs = &d->out,
                            .weight_keys = d->keys};
}

static void run_once(node *d, const float *x, const float *logits, float *out)
{
    const void *in[5] = {x, logits, NULL, NULL, NULL};
    void *outs[1] = {out}, *workspace;
    trm_kernel *k = NULL;
    uint64_t before;

    ck_assert_msg(device->ops->prepare(device, &d->desc, &k) == TRM_OK, "%s", trm_message());
    ck_assert_uint_eq(k->packed_inputs, 28);
    ck_assert_uint_eq(k->copied_inputs, 28);
    workspace = lm_alloc(k->workspace_bytes);
    before = trm_alloc_calls();
    for (int twice = 0; twice < 2; twice++)
        ck_assert_int_eq(k->ops->run(k, NULL, in, outs, workspace), TRM_OK);
    ck_assert_uint_eq(trm_alloc_calls(), before);
    trm_aligned_free(workspace);
    trm_kernel_destroy(k);
}

/* --- truth --------------------------------------------------------------------------------- */

static double act_of(const char *name, double v)
{
    if (strcmp(name, "silu") == 0)
        return v / (1.0 + exp(-v));
    if (strcmp(name, "gelu") == 0)
        return 0.5 * v * (1.0 + erf(v / sqrt(2.0)));
    if (strcmp(name, "gelu_tanh") == 0)
        return 0.5 * v * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
    if (strcmp(name, "relu") == 0)
        return v > 0.0 ? v : 0.0;
    return strcmp(name, "tanh") == 0 ? tanh(v) : v;
}

static double dot(const float *w, const float *x, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)x[i];
    return sum;
}

static void expert_truth(const model *m, size_t e, const float *x, const char *act, double share,
                         double *out)
{
    size_t at = e * m->features * m->width;
    double *h = lm_alloc(m->features * sizeof(*h));

    for (size_t f = 0; f < m->features; f++)
        h[f] = act_of(act, dot(m->plain[0] + at + f * m->width, x, m->width)) *
               dot(m->plain[1] + at + f * m->width, x, m->width);
    for (size_t w = 0; w < m->width; w++) {
        double sum = 0.0;

        for (size_t f = 0; f < m->features; f++)
            sum += h[f] * (double)m->plain[2][at + w * m->features + f];
        out[w] += share * sum;
    }
    trm_aligned_free(h);
}

static void token_truth(const model *m, size_t t, const trm_attrs *attrs, double *out)
{
    const float *logits = m->logits + t * m->experts;
    size_t top_k = (size_t)trm_attr_int(attrs, "top_k", 0), rank;
    double all = 0.0, chosen = 0.0;

    memset(out, 0, m->width * sizeof(*out));
    for (int pass = 0; pass < 2; pass++)
        for (size_t e = 0; e < m->experts; e++) {
            rank = 0; /* how many come before it */
            for (size_t o = 0; o < m->experts; o++)
                rank += logits[o] > logits[e] || (logits[o] == logits[e] && o < e);
            all += pass == 0 ? exp((double)logits[e]) : 0.0;
            if (rank >= top_k)
                continue;
            if (pass == 0)
                chosen += exp((double)logits[e]);
            else
                expert_truth(m, e, m->x + t * m->width, trm_attr_string(attrs, "act", "silu"),
                             exp((double)logits[e]) /
                                 (trm_attr_int(attrs, "normalize", 0) != 0 ? chosen : all),
                             out);
        }
}

#define F32x3                                                                                      \
    {                                                                                              \
        TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_F32                                                \
    }
#define BF16x3                                                                                     \
    {                                                                                              \
        TRM_DTYPE_BF16, TRM_DTYPE_BF16, TRM_DTYPE_BF16                                             \
    }
/* Of the largest output. Float types: sums of up to 96 terms in fp32, three on end: 3 * 10 * 2^-24
 * and room for a product of two. Q8_0: activations rounded to 1/254 of their block's largest, twice
 * on end; errors of terms average out. */
#define FLOAT_BOUND 1e-5
#define Q8_BOUND 2e-2
#define ROUNDED_BOUND 2e-2 /* BF16: to 1/512, twice on end */
#define HALVES_BOUND 3e-3  /* F16: to 1/4096 */
static const struct {
    const char *name;
    size_t tokens, width, features, experts;
    trm_dtype dtypes[3];
    double bound;
    trm_attr attrs[ATTRS_MAX];
} cases[] = {
    {"one token", 1, 48, 40, 8, BF16x3, FLOAT_BOUND, {INT("top_k", 2), INT("groups", 8)}},
    {"no tokens", 0, 48, 40, 8, BF16x3, FLOAT_BOUND, {INT("top_k", 2), INT("groups", 8)}},
    {"normalised",
     9,
     33,
     21,
     6,
     F32x3,
     FLOAT_BOUND,
     {INT("top_k", 3), INT("normalize", 1), INT("groups", 3)}},
    {"one group", 5, 96, 17, 5, F32x3, FLOAT_BOUND, {INT("top_k", 5), TEXT("act", "gelu")}},
    {"one expert", 3, 16, 16, 1, F32x3, FLOAT_BOUND, {INT("top_k", 1), TEXT("act", "relu")}},
    {"several waves",
     301,
     32,
     24,
     16,
     BF16x3,
     FLOAT_BOUND,
     {INT("top_k", 4), INT("groups", 4), TEXT("act", "gelu_tanh")}},
    {"three dtypes",
     20,
     32,
     24,
     12,
     {TRM_DTYPE_BF16, TRM_DTYPE_F32, TRM_DTYPE_F16},
     FLOAT_BOUND,
     {INT("top_k", 2), INT("groups", 6), TEXT("act", "tanh")}},
    {"blocks",
     20,
     64,
     32,
     12,
     {TRM_DTYPE_Q8_0, TRM_DTYPE_Q8_0, TRM_DTYPE_Q8_0},
     Q8_BOUND,
     {INT("top_k", 2), INT("groups", 12), INT("normalize", 1)}},
    {"rounded",
     9,
     64,
     32,
     8,
     BF16x3,
     ROUNDED_BOUND,
     {INT("top_k", 2), INT("groups", 4), TEXT("act_dtype", "bf16")}},
    {"rounded to halves",
     9,
     64,
     32,
     8,
     {TRM_DTYPE_F16, TRM_DTYPE_F16, TRM_DTYPE_F16},
     HALVES_BOUND,
     {INT("top_k", 2), INT("groups", 4), TEXT("act_dtype", "f16")}},
    {"some rounded",
     9,
     64,
     32,
     8,
     {TRM_DTYPE_BF16, TRM_DTYPE_F16, TRM_DTYPE_F32},
     HALVES_BOUND,
     {INT("top_k", 2), INT("groups", 4), TEXT("act_dtype", "f16")}},
    {"fp8",
     20,
     64,
     32,
     12,
     {TRM_DTYPE_F8_ROW, TRM_DTYPE_F8_ROW, TRM_DTYPE_F8_ROW},
     FLOAT_BOUND,
     {INT("top_k", 2), INT("groups", 12), INT("normalize", 1)}},
    {"fp8, rounded",
     9,
     128,
     256,
     4,
     {TRM_DTYPE_F8_128, TRM_DTYPE_F8_128, TRM_DTYPE_F8_128},
     ROUNDED_BOUND,
     {INT("top_k", 2), INT("groups", 4), TEXT("act_dtype", "bf16")}},
    {"blocks and floats",
     5,
     64,
     32,
     12,
     {TRM_DTYPE_Q8_0, TRM_DTYPE_BF16, TRM_DTYPE_F32},
     Q8_BOUND,
     {INT("top_k", 3), INT("groups", 2), TEXT("act", "none")}},
};
#define CASES (int)(sizeof(cases) / sizeof(cases[0]))

START_TEST(truth)
{
    size_t width = cases[_i].width, tokens = cases[_i].tokens;
    double *want = lm_alloc(tokens * width * sizeof(*want)), largest = 0.0;
    float *out = lm_alloc(tokens * width * sizeof(*out));
    model m;
    node d;

    model_init(&m, tokens, width, cases[_i].features, cases[_i].experts, cases[_i].dtypes);
    node_init(&d, cases[_i].attrs, &m, tokens, 0, m.experts, 0);
    run_once(&d, m.x, m.logits, out);
    for (size_t t = 0; t < tokens; t++)
        token_truth(&m, t, &d.attrs, want + t * width);
    for (size_t i = 0; i < tokens * width; i++)
        largest = fabs(want[i]) > largest ? fabs(want[i]) : largest;
    for (size_t i = 0; i < tokens * width; i++)
        ck_assert_msg(fabs((double)out[i] - want[i]) <= cases[_i].bound * largest,
                      "%s: element %zu is %.9g, want %.9g of %g", cases[_i].name, i, (double)out[i],
                      want[i], largest);
    trm_aligned_free(want);
    trm_aligned_free(out);
    model_fini(&m);
}
END_TEST

/* each token alone, and over 1 to 4 threads */
START_TEST(tokens_do_not_depend)
{
    size_t width = cases[_i].width, tokens = cases[_i].tokens < 60 ? cases[_i].tokens : 60;
    float *want = lm_alloc(tokens * width * sizeof(float));
    float *out = lm_alloc(tokens * width * sizeof(float));
    model m;
    node d;

    model_init(&m, tokens, width, cases[_i].features, cases[_i].experts, cases[_i].dtypes);
    trm_team_init(1);
    for (size_t t = 0; t < tokens; t++) {
        node_init(&d, cases[_i].attrs, &m, 1, 0, m.experts, 0);
        run_once(&d, m.x + t * width, m.logits + t * m.experts, want + t * width);
    }
    for (int threads = 1; threads <= 4; threads++) {
        trm_team_init(threads);
        node_init(&d, cases[_i].attrs, &m, tokens, 0, m.experts, 0);
        run_once(&d, m.x, m.logits, out);
        ck_assert_msg(memcmp(out, want, tokens * width * sizeof(float)) == 0, "%s, %d threads",
                      cases[_i].name, threads);
    }
    trm_team_init(2);
    trm_aligned_free(want);
    trm_aligned_free(out);
    model_fini(&m);
}
END_TEST

/* ranks 1 to 4 hold groups, unevenly */
START_TEST(ranks_do_not_depend)
{
    int groups = 1;
    size_t elems, of_group;
    float *whole, *sum;
    model m;
    node d;

    model_init(&m, cases[_i].tokens < 20 ? cases[_i].tokens : 20, cases[_i].width,
               cases[_i].features, cases[_i].experts, cases[_i].dtypes);
    elems = m.tokens * m.width;
    whole = lm_alloc(elems * sizeof(float));
    sum = lm_alloc(elems * sizeof(float));
    node_init(&d, cases[_i].attrs, &m, m.tokens, 0, m.experts, 0);
    groups = (int)trm_attr_int(&d.attrs, "groups", 1);
    of_group = m.experts / (size_t)groups;
    run_once(&d, m.x, m.logits, whole);
    for (int ranks = 1; ranks <= 4 && ranks <= groups; ranks++) {
        lm_part parts[4 * TRM_TREE_PARTS_MAX];
        float *outs[4];
        int count = 0, first = 0;

        for (int r = 0; r < ranks; r++) {
            int left = ranks - 1 - r, most = groups - first - left;
            int mine = left == 0 ? most : 1 + (int)lm_below((size_t)most);
            trm_tree_part tree[TRM_TREE_PARTS_MAX];
            int n = trm_tree_parts(first, mine, groups, tree);
            trm_attr attrs[ATTRS_MAX];
            int at = 0;

            memcpy(attrs, cases[_i].attrs, sizeof(attrs));
            while (attrs[at].name != NULL)
                at++;
            ck_assert_int_lt(at + 2, ATTRS_MAX);
            attrs[at++] = (trm_attr)INT("first", first * (int64_t)of_group);
            attrs[at++] = (trm_attr)INT("leaves", groups);
            node_init(&d, attrs, &m, m.tokens, (size_t)first * of_group, (size_t)mine * of_group,
                      n);
            outs[r] = lm_alloc((size_t)n * elems * sizeof(float));
            run_once(&d, m.x, m.logits, outs[r]);
            for (int i = 0; i < n; i++)
                parts[count++] = (lm_part){tree[i].lo, tree[i].hi, outs[r] + (size_t)i * elems};
            first += mine;
        }
        lm_tree_sum(parts, count, 0, groups, elems, sum);
        ck_assert_msg(memcmp(sum, whole, elems * sizeof(float)) == 0, "%s, %d ranks",
                      cases[_i].name, ranks);
        for (int r = 0; r < ranks; r++)
            trm_aligned_free(outs[r]);
    }
    trm_aligned_free(whole);
    trm_aligned_free(sum);
    model_fini(&m);
}
END_TEST

/* --- routes -------------------------------------------------------------------------------- */

#define E 6
static const struct {
    const char *name;
    float logits[E];
    size_t top_k;
    bool normalize;
    int32_t chosen[E];
    float shares[E]; /* NaN: NaN */
} routes[] = {
    {"order of ids", {0, 9, 0, 9, 0, 0}, 2, true, {1, 3}, {0.5f, 0.5f}},
    {"ties to the lower", {1, 1, 1, 1, 1, 1}, 3, true, {0, 1, 2}, {1.f / 3, 1.f / 3, 1.f / 3}},
    {"not renormalised", {2, 2, 2, 2, 2, 2}, 2, false, {0, 1}, {1.f / 6, 1.f / 6}},
    {"tie at the end",
     {0, 5, 3, 3, 3, 7},
     3,
     false,
     {1, 2, 5},
     {0.1136131f, 0.0153759f, 0.8394938f}},
    {"all",
     {0, 0, 0, 0, 0, 0},
     6,
     true,
     {0, 1, 2, 3, 4, 5},
     {1.f / 6, 1.f / 6, 1.f / 6, 1.f / 6, 1.f / 6, 1.f / 6}},
    {"shares of zero", {200, 0, 0, 0, 0, 0}, 2, true, {0, 1}, {1, 0}},
    {"not a number", {0, NAN, 0, 0, 0, 0}, 2, true, {0, 1}, {NAN, NAN}},
    {"minus infinity", {-INFINITY, -INFINITY, 1, 1, 1, 1}, 2, true, {2, 3}, {0.5f, 0.5f}},
};

START_TEST(choosing)
{
    float scores[E], shares[E];
    int32_t chosen[E], rows[E], tokens[E];
    size_t starts[E + 1];
    trmi_experts_shape s = {.tokens = 1, .all = E, .first = 2, .local = 2, .group = 1};
    trmi_experts_routes r = {scores, chosen, shares, rows, starts, tokens};
    int32_t row = 0;

    s.top_k = routes[_i].top_k;
    s.normalize = routes[_i].normalize;
    trmi_experts_route(&s, routes[_i].logits, &r);
    for (size_t c = 0; c < s.top_k; c++) {
        float want = routes[_i].shares[c];
        bool here = chosen[c] == 2 || chosen[c] == 3;

        ck_assert_msg(chosen[c] == routes[_i].chosen[c], "%s: choice %zu is %d, want %d",
                      routes[_i].name, c, chosen[c], routes[_i].chosen[c]);
        ck_assert_msg(isnan(want) ? isnan(shares[c]) : fabsf(shares[c] - want) < 1e-5f,
                      "%s: share %zu is %g, want %g", routes[_i].name, c, (double)shares[c],
                      (double)want);
        ck_assert_int_eq(rows[c], here ? row : -1);
        row += here ? 1 : 0;
    }
    ck_assert_uint_eq(starts[0], 0);
    ck_assert_uint_eq(starts[2], (size_t)row);
}
END_TEST

/* a token whose router or input is not a number spoils no other */
START_TEST(not_numbers)
{
    static const trm_dtype dtypes[] = BF16x3;
    static const trm_attr attrs[ATTRS_MAX] = {INT("top_k", 2), INT("groups", 4)};
    float clean[7 * 32], out[7 * 32];
    model m;
    node d;

    model_init(&m, 7, 32, 24, 8, dtypes);
    node_init(&d, attrs, &m, 7, 0, 8, 0);
    run_once(&d, m.x, m.logits, clean);
    m.logits[2 * 8 + 3] = NAN;
    m.x[5 * 32 + 1] = NAN;
    run_once(&d, m.x, m.logits, out);
    for (size_t t = 0; t < 7; t++)
        for (size_t i = 0; i < 32; i++)
            if (t == 2 || t == 5)
                ck_assert(isnan(out[t * 32 + i]));
            else
                ck_assert_mem_eq(&out[t * 32 + i], &clean[t * 32 + i], sizeof(float));
    model_fini(&m);
}
END_TEST

/* --- refusals ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    trm_status want;
    int input, dim; /* dim of the input that is one more; -1: none; -2: dtype f64 */
    size_t first, local;
    trm_attr attrs[ATTRS_MAX];
} flaws[] = {
    {"good", TRM_OK, 0, -1, 0, 8, {INT("top_k", 2), INT("groups", 4)}},
    {"no top_k", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, {INT("groups", 4)}},
    {"top_k of more", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, {INT("top_k", 9)}},
    {"groups do not divide", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, {INT("top_k", 2), INT("groups", 3)}},
    {"no groups", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, {INT("top_k", 2), INT("groups", 0)}},
    {"unknown act", TRM_ERR_UNSUPPORTED, 0, -1, 0, 8, {INT("top_k", 2), TEXT("act", "swoosh")}},
    {"rounded to quarters",
     TRM_ERR_UNSUPPORTED,
     0,
     -1,
     0,
     8,
     {INT("top_k", 2), TEXT("act_dtype", "f8")}},
    {"experts missing", TRM_ERR_INVALID_ARG, 0, -1, 0, 4, {INT("top_k", 2), INT("groups", 4)}},
    {"part of another tree",
     TRM_ERR_INVALID_ARG,
     0,
     -1,
     0,
     4,
     {INT("top_k", 2), INT("groups", 4), INT("leaves", 5)}},
    {"part inside a group",
     TRM_ERR_INVALID_ARG,
     0,
     -1,
     0,
     4,
     {INT("top_k", 2), INT("groups", 4), INT("leaves", 4), INT("first", 1)}},
    {"part past the end",
     TRM_ERR_INVALID_ARG,
     0,
     -1,
     0,
     4,
     {INT("top_k", 2), INT("groups", 4), INT("leaves", 4), INT("first", 6)}},
    {"part before the start",
     TRM_ERR_INVALID_ARG,
     0,
     -1,
     0,
     4,
     {INT("top_k", 2), INT("groups", 4), INT("leaves", 4), INT("first", -2)}},
    {"tokens differ", TRM_ERR_INVALID_ARG, 1, 0, 0, 8, {INT("top_k", 2)}},
    {"width differs", TRM_ERR_INVALID_ARG, 0, 1, 0, 8, {INT("top_k", 2)}},
    {"gate differs", TRM_ERR_INVALID_ARG, 2, 1, 0, 8, {INT("top_k", 2)}},
    {"up differs", TRM_ERR_INVALID_ARG, 3, 2, 0, 8, {INT("top_k", 2)}},
    {"down differs", TRM_ERR_INVALID_ARG, 4, 0, 0, 8, {INT("top_k", 2)}},
    {"x f64", TRM_ERR_UNSUPPORTED, 0, -2, 0, 8, {INT("top_k", 2)}},
    {"router f64", TRM_ERR_UNSUPPORTED, 1, -2, 0, 8, {INT("top_k", 2)}},
    {"weights f64", TRM_ERR_UNSUPPORTED, 4, -2, 0, 8, {INT("top_k", 2)}},
};

START_TEST(refusals)
{
    static const trm_dtype dtypes[] = BF16x3;
    trm_kernel *k = NULL;
    trm_status st;
    model m;
    node d;

    model_init(&m, 3, 32, 24, 8, dtypes);
    node_init(&d, flaws[_i].attrs, &m, 3, flaws[_i].first, flaws[_i].local, 0);
    if (flaws[_i].dim >= 0)
        d.in[flaws[_i].input].dims[flaws[_i].dim]++;
    if (flaws[_i].dim == -2)
        d.in[flaws[_i].input].dtype = TRM_DTYPE_F64;
    st = device->ops->prepare(device, &d.desc, &k);
    ck_assert_msg(st == flaws[_i].want, "%s: %s (%s)", flaws[_i].name, trm_status_name(st),
                  trm_message());
    trm_kernel_destroy(k);
    model_fini(&m);
}
END_TEST

/* shape buckets share the packed stacks; every failed allocation leaves nothing behind */
START_TEST(memory)
{
    static const trm_dtype dtypes[] = BF16x3;
    static const trm_attr attrs[ATTRS_MAX] = {INT("top_k", 2)};
    size_t bytes = device->packed_bytes, one;
    int64_t live;
    trm_kernel *k[2] = {NULL, NULL}, *failed = NULL;
    int calls = 0;
    trm_status st;
    model m;
    node d;

    model_init(&m, 3, 32, 24, 8, dtypes);
    live = trm_alloc_live();
    do {
        node_init(&d, attrs, &m, 3, 0, 8, 0);
        trm_alloc_fail_after(calls++);
        st = device->ops->prepare(device, &d.desc, &failed);
        trm_alloc_fail_after(-1);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        ck_assert(st == TRM_OK || trm_alloc_live() == live);
    } while (st != TRM_OK && calls < 100);
    ck_assert_int_ge(calls, 8);
    trm_kernel_destroy(failed);
    for (int i = 0; i < 2; i++) {
        node_init(&d, attrs, &m, i == 0 ? 1 : 3, 0, 8, 0);
        for (int j = 2; j < 5; j++)
            d.keys[j] = 500 + (uint64_t)j;
        ck_assert_int_eq(device->ops->prepare(device, &d.desc, &k[i]), TRM_OK);
        one = i == 0 ? device->packed_bytes : one;
    }
    ck_assert_uint_eq(device->packed_bytes, one);
    trm_kernel_destroy(k[0]);
    trm_kernel_destroy(k[1]);
    ck_assert_uint_eq(device->packed_bytes, bytes);
    model_fini(&m);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm experts");
    int rc;

    if (trm_device_cpu_create(2, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, truth, 0, CASES);
    tcase_add_loop_test(t, tokens_do_not_depend, 0, CASES);
    tcase_add_loop_test(t, ranks_do_not_depend, 0, CASES);
    tcase_add_loop_test(t, choosing, 0, (int)(sizeof(routes) / sizeof(routes[0])));
    tcase_add_test(t, not_numbers);
    tcase_add_loop_test(t, refusals, 0, (int)(sizeof(flaws) / sizeof(flaws[0])));
    tcase_add_test(t, memory);
    rc = lm_main(t, "lm experts");
    trm_device_destroy(device);
    return rc;
}
