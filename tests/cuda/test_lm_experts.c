/* TrmExperts on the CUDA device against the CPU device; a token's bits do not depend on other
 * tokens, and what ranks with groups of experts give folds to what one rank gives. */
#include "tests/cuda/cuda_kit.h"
#include "tests/kernels/lm_check.h"

#define F32x3                                                                                      \
    {                                                                                              \
        TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_F32                                                \
    }
#define BF16x3                                                                                     \
    {                                                                                              \
        TRM_DTYPE_BF16, TRM_DTYPE_BF16, TRM_DTYPE_BF16                                             \
    }
#define F16x3                                                                                      \
    {                                                                                              \
        TRM_DTYPE_F16, TRM_DTYPE_F16, TRM_DTYPE_F16                                                \
    }
#define Q4Kx3                                                                                      \
    {                                                                                              \
        TRM_DTYPE_Q4_K, TRM_DTYPE_Q4_K, TRM_DTYPE_Q4_K                                             \
    }
#define Q8x3                                                                                       \
    {                                                                                              \
        TRM_DTYPE_Q8_0, TRM_DTYPE_Q8_0, TRM_DTYPE_Q8_0                                             \
    }
/* Of the largest output. Float types: fp32 sums of up to 96 terms in another order than the CPU's,
 * three on end. Rounded: what differs in the last bit before the down projection may be rounded to
 * the next BF16. Block types: activations are rounded to 1/254 of their block's largest, twice on
 * end; errors of terms average out. */
#define FLOAT_BOUND 1e-5
#define ROUNDED_BOUND 2e-3
#define Q8_BOUND 2e-2

typedef struct experts_row {
    const char *name;
    int64_t tokens, width, features, experts, top_k, groups;
    trm_dtype dtypes[3]; /* gate, up, down */
    double bound;
    const char *act;
    bool normalize, rounded;
} experts_row;

static const experts_row rows[] = {
    {"one token", 1, 48, 40, 8, 2, 8, BF16x3, FLOAT_BOUND, "silu", false, false},
    {"no tokens", 0, 48, 40, 8, 2, 8, BF16x3, FLOAT_BOUND, "silu", false, false},
    {"normalised", 9, 33, 21, 6, 3, 3, F32x3, FLOAT_BOUND, "silu", true, false},
    {"one group", 5, 96, 17, 5, 5, 1, F32x3, FLOAT_BOUND, "gelu", false, false},
    {"one expert", 3, 16, 16, 1, 1, 1, F32x3, FLOAT_BOUND, "relu", false, false},
    {"64 tokens", 64, 16, 12, 16, 4, 16, F32x3, FLOAT_BOUND, "silu", true, false},
    {"65 tokens", 65, 16, 12, 16, 4, 8, F32x3, FLOAT_BOUND, "silu", true, false},
    {"several blocks", 301, 16, 8, 16, 4, 4, BF16x3, FLOAT_BOUND, "gelu_tanh", false, false},
    {"160 experts", 21, 12, 8, 160, 9, 32, F32x3, FLOAT_BOUND, "silu", true, false},
    {"300 experts", 70, 8, 4, 300, 3, 100, F32x3, FLOAT_BOUND, "silu", true, false},
    {"600 experts", 3, 8, 4, 600, 32, 120, F32x3, FLOAT_BOUND, "silu", false, false},
    {"1024 experts", 66, 8, 4, 1024, 2, 128, F32x3, FLOAT_BOUND, "none", true, false},
    {"three dtypes",
     20,
     32,
     24,
     12,
     2,
     6,
     {TRM_DTYPE_BF16, TRM_DTYPE_F32, TRM_DTYPE_F16},
     FLOAT_BOUND,
     "tanh",
     false,
     false},
    {"halves", 7, 64, 32, 8, 2, 4, F16x3, FLOAT_BOUND, "silu", true, false},
    {"several leaves", 2, 520, 516, 3, 2, 3, F32x3, FLOAT_BOUND, "silu", true, false},
    {"rounded", 9, 64, 48, 8, 2, 8, BF16x3, ROUNDED_BOUND, "silu", true, true},
    {"rounded, many", 70, 64, 40, 4, 2, 4, BF16x3, ROUNDED_BOUND, "gelu_tanh", false, true},
    {"superblocks", 5, 256, 256, 4, 2, 4, Q4Kx3, Q8_BOUND, "silu", true, false},
    {"many blocks", 70, 32, 64, 4, 2, 2, Q8x3, Q8_BOUND, "silu", true, false},
    {"blocks", 20, 64, 32, 12, 2, 12, Q8x3, Q8_BOUND, "silu", true, false},
    {"blocks and floats",
     5,
     64,
     32,
     12,
     3,
     2,
     {TRM_DTYPE_Q8_0, TRM_DTYPE_BF16, TRM_DTYPE_F32},
     Q8_BOUND,
     "none",
     false,
     false},
};
#define ROWS (int)(sizeof(rows) / sizeof(rows[0]))

static void random_q8(trm_tensor *t)
{
    unsigned char *blocks = t->data;

    for (size_t i = 0; i < trm_tensor_numel(t) / 32; i++) {
        uint16_t scale = trm_f32_to_f16((float)kit_uniform(0.5, 1.5) / 127.0f);

        memcpy(blocks + i * 34, &scale, 2);
        for (size_t j = 0; j < 32; j++)
            blocks[i * 34 + 2 + j] = (unsigned char)(int)floor(kit_uniform(-127, 128));
    }
}

static trm_tensor random_weights(trm_dtype dtype, int64_t e, int64_t n, int64_t k)
{
    trm_tensor t = KIT_T(dtype, e, n, k);
    size_t bytes;

    if (!trm_dtype_is_block(dtype))
        return kit_random(t, -1, 1);
    t = kit_data(t);
    if (dtype == TRM_DTYPE_Q8_0) {
        random_q8(&t);
        return t;
    }
    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    for (size_t i = 0; i < bytes; i++) /* any bits, but numbers where scales are */
        ((unsigned char *)t.data)[i] = (unsigned char)((int)kit_uniform(0, 256) & 0xbb);
    return t;
}

/* the case of a row: all its tokens and experts */
static cuda_case case_of(const experts_row *r)
{
    cuda_case c = {.name = r->name,
                   .op = TRM_OP_TrmExperts,
                   .attrs = kit_string(kit_attrs(), "act", r->act),
                   .in = {kit_random(KIT_T(TRM_DTYPE_F32, r->tokens, r->width), -1, 1),
                          kit_random(KIT_T(TRM_DTYPE_F32, r->tokens, r->experts), -1, 1)},
                   .out = {KIT_T(TRM_DTYPE_F32, r->tokens, r->width)},
                   .in_count = 5,
                   .out_count = 1,
                   .known = {false, false, true, true, true}};

    kit_int(c.attrs, "top_k", r->top_k);
    kit_int(c.attrs, "groups", r->groups);
    if (r->normalize)
        kit_int(c.attrs, "normalize", 1);
    if (r->rounded)
        kit_string(c.attrs, "act_dtype", "bf16");
    for (int i = 0; i < 3; i++)
        c.in[2 + i] = random_weights(r->dtypes[i], r->experts, i == 2 ? r->width : r->features,
                                     i == 2 ? r->features : r->width);
    return c;
}

/* elements [first, first + count) of a tensor's first dim */
static trm_tensor slice(trm_tensor t, int64_t first, int64_t count)
{
    size_t bytes, row;

    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    row = t.dims[0] > 0 ? bytes / (size_t)t.dims[0] : 0;
    t.dims[0] = count;
    if (t.data != NULL)
        t.data = (char *)t.data + (size_t)first * row;
    return t;
}

static cuda_case tokens_of(const cuda_case *c, int64_t first, int64_t count)
{
    cuda_case some = *c;

    for (int i = 0; i < 2; i++)
        some.in[i] = slice(c->in[i], first, count);
    some.out[0] = slice(c->out[0], first, count);
    return some;
}

static const float *run(cuda_case *c)
{
    trm_tensor got[1];

    KIT_OK(kit_run(c, kit_gpu, got));
    return got[0].data;
}

static double largest(const trm_tensor *t)
{
    double most = 0;

    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        most = fmax(most, fabs(trm_tensor_get_f64(t, i)));
    return most;
}

START_TEST(as_the_cpu)
{
    cuda_case c = case_of(&rows[_i]);
    trm_tensor got[1], want[1];

    KIT_OK(kit_run(&c, kit_gpu, got));
    KIT_OK(kit_run(&c, kit_cpu, want));
    c.atol = rows[_i].bound * largest(&want[0]);
    kit_compare(&c, 0, &got[0], &want[0]);
}
END_TEST

/* activations of the weights' own type, where the node says so: near the CPU's, which does not
 * round, and not the same */
START_TEST(rounded_as_told)
{
    static const struct {
        const char *dtype;
        experts_row row;
        double bound; /* roundings of two products on end: 2^-9, 2^-12 of a term */
    } told[] = {{"bf16", {"bf16", 9, 64, 32, 6, 2, 6, BF16x3, 0, "silu", true, false}, 1e-2},
                {"f16",
                 {"f16",
                  9,
                  64,
                  32,
                  6,
                  2,
                  6,
                  {TRM_DTYPE_F16, TRM_DTYPE_F16, TRM_DTYPE_F16},
                  0,
                  "silu",
                  true,
                  false},
                 2e-3}};
    cuda_case c = case_of(&told[_i].row);
    trm_tensor got[1], exact[1], want[1];

    KIT_OK(kit_run(&c, kit_gpu, exact));
    kit_string(c.attrs, "act_dtype", told[_i].dtype);
    KIT_OK(kit_run(&c, kit_gpu, got));
    KIT_OK(kit_run(&c, kit_cpu, want));
    c.atol = told[_i].bound * largest(&want[0]);
    kit_compare(&c, 0, &got[0], &want[0]);
    ck_assert(memcmp(got[0].data, exact[0].data, 9 * 64 * sizeof(float)) != 0);
}
END_TEST

/* alone, and in groups on both sides of what one block routes */
START_TEST(tokens_do_not_depend)
{
    static const int64_t counts[] = {1, 2, 33, 64, 65};
    cuda_case c = case_of(&rows[_i]);
    int64_t tokens = rows[_i].tokens, width = rows[_i].width;
    const float *whole;

    if (tokens < 2)
        return;
    whole = run(&c);
    for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]) && counts[n] < tokens; n++)
        for (int64_t first = n == 0 ? 0 : tokens - counts[n]; first + counts[n] <= tokens;
             first += tokens > 2 ? tokens - 1 : 1) {
            cuda_case some = tokens_of(&c, first, counts[n]);

            if (rows[_i].experts > 200 && counts[n] != 64) /* slow here, and not other code */
                continue;
            ck_assert_msg(memcmp(run(&some), whole + first * width,
                                 (size_t)(counts[n] * width) * sizeof(float)) == 0,
                          "%s: %d tokens from %d on", c.name, (int)counts[n], (int)first);
        }
}
END_TEST

/* groups [first, first + count) on a rank of their own; parts: of it */
static const float *run_part(const cuda_case *c, const experts_row *r, int first, int count,
                             int parts)
{
    int64_t group = r->experts / r->groups;
    cuda_case part = *c;

    part.attrs = kit_string(kit_attrs(), "act", r->act);
    kit_int(part.attrs, "top_k", r->top_k);
    kit_int(part.attrs, "groups", r->groups);
    kit_int(part.attrs, "normalize", r->normalize ? 1 : 0);
    if (r->rounded)
        kit_string(part.attrs, "act_dtype", "bf16");
    kit_int(part.attrs, "first", first * group);
    kit_int(part.attrs, "leaves", r->groups);
    for (int i = 2; i < 5; i++)
        part.in[i] = slice(c->in[i], first * group, count * group);
    part.out[0] = KIT_T(TRM_DTYPE_F32, parts, c->in[0].dims[0], r->width);
    return run(&part);
}

/* ranks 1 to 4 hold groups, unevenly */
START_TEST(ranks_do_not_depend)
{
    const experts_row *r = &rows[_i];
    cuda_case all = case_of(r), c = r->tokens > 5 ? tokens_of(&all, 0, 5) : all;
    size_t elems = trm_tensor_numel(&c.out[0]);
    int groups = (int)r->groups;
    const float *whole;
    float *sum;

    if (r->tokens == 0)
        return;
    whole = run(&c);
    sum = lm_alloc(elems * sizeof(float));
    for (int ranks = 1; ranks <= 4 && ranks <= groups; ranks++) {
        lm_part parts[4 * TRM_TREE_PARTS_MAX];
        int count = 0, first = 0;

        for (int rank = 0; rank < ranks; rank++) {
            int left = ranks - 1 - rank, most = groups - first - left;
            int mine = left == 0 ? most : 1 + (int)lm_below((size_t)most);
            trm_tree_part tree[TRM_TREE_PARTS_MAX];
            int n = trm_tree_parts(first, mine, groups, tree);
            const float *out = run_part(&c, r, first, mine, n);

            for (int i = 0; i < n; i++)
                parts[count++] = (lm_part){tree[i].lo, tree[i].hi, out + (size_t)i * elems};
            first += mine;
        }
        lm_tree_sum(parts, count, 0, groups, elems, sum);
        ck_assert_msg(memcmp(sum, whole, elems * sizeof(float)) == 0, "%s, %d ranks", c.name,
                      ranks);
    }
    trm_aligned_free(sum);
}
END_TEST

/* ---- routes ---- */

#define E 6
/* The output of expert e is a number that only e gives, so that sums tell who was chosen. */
static const struct route_row {
    const char *name;
    float logits[E];
    int64_t top_k, normalize;
    float want;
} routes[] = {
    {"order of ids", {0, 9, 0, 9, 0, 0}, 2, 1, 0.5f * 2 + 0.5f * 8},
    {"ties to the lower", {1, 1, 1, 1, 1, 1}, 3, 1, (1 + 2 + 4) / 3.0f},
    {"not renormalised", {2, 2, 2, 2, 2, 2}, 2, 0, (1 + 2) / 6.0f},
    {"tie at the end", {0, 5, 3, 3, 3, 7}, 3, 0, 0.1136131f * 2 + 0.0153759f * 4 + 0.8394938f * 32},
    {"all", {0, 0, 0, 0, 0, 0}, 6, 1, 63 / 6.0f},
    {"shares of zero", {200, 0, 0, 0, 0, 0}, 2, 1, 1},
    {"not a number", {0, NAN, 0, 0, 0, 0}, 2, 1, NAN},
    {"infinity", {0, INFINITY, 0, 0, 0, 0}, 2, 1, NAN},
    {"minus infinity", {-INFINITY, -INFINITY, 1, 1, 1, 1}, 2, 1, 0.5f * 4 + 0.5f * 8},
};
#define ROUTES (int)(sizeof(routes) / sizeof(routes[0]))

/* in one block, and in several launches */
START_TEST(choosing)
{
    const struct route_row *r = &routes[_i];

    for (int64_t tokens = 1; tokens < 100; tokens += 69) {
        cuda_case c = {.name = r->name,
                       .op = TRM_OP_TrmExperts,
                       .attrs = kit_string(kit_attrs(), "act", "none"),
                       .in = {kit_random(KIT_T(TRM_DTYPE_F32, tokens, 1), 1, 1),
                              kit_random(KIT_T(TRM_DTYPE_F32, tokens, E), 0, 1),
                              kit_random(KIT_T(TRM_DTYPE_F32, E, 1, 1), 1, 1),
                              kit_random(KIT_T(TRM_DTYPE_F32, E, 1, 1), 1, 1),
                              KIT_V(KIT_T(TRM_DTYPE_F32, E, 1, 1), 1, 2, 4, 8, 16, 32)},
                       .out = {KIT_T(TRM_DTYPE_F32, tokens, 1)},
                       .in_count = 5,
                       .out_count = 1,
                       .known = {false, false, true, true, true},
                       .rtol = 1e-5};
        float got;

        kit_int(c.attrs, "top_k", r->top_k);
        kit_int(c.attrs, "normalize", r->normalize);
        memcpy((float *)c.in[1].data + (tokens - 1) * E, r->logits, sizeof(r->logits));
        cuda_check(&c);
        got = run(&c)[tokens - 1];
        ck_assert_msg(isnan(r->want) ? isnan(got) : fabsf(got - r->want) < 1e-5f * r->want,
                      "%s: got %g, want %g", r->name, (double)got, (double)r->want);
    }
}
END_TEST

/* a token whose router or input is not a number spoils no other */
START_TEST(not_numbers)
{
    cuda_case c = case_of(&rows[7]);
    int64_t width = rows[7].width, experts = rows[7].experts;
    const float *clean = run(&c), *out;

    ((float *)c.in[1].data)[2 * experts + 3] = NAN;
    ((float *)c.in[0].data)[100 * width + 1] = NAN;
    out = run(&c);
    for (int64_t t = 0; t < rows[7].tokens; t++)
        for (int64_t i = t * width; i < (t + 1) * width; i++)
            if (t == 2 || t == 100)
                ck_assert(isnan(out[i]));
            else
                ck_assert_mem_eq(&out[i], &clean[i], sizeof(float));
}
END_TEST

/* more tokens than go through the products at once */
START_TEST(waves)
{
    static const experts_row r = {"waves", 4100,  4,           1,      3,     1,
                                  3,       F32x3, FLOAT_BOUND, "silu", false, false};
    cuda_case c = case_of(&r), last;
    trm_tensor got[1], want[1];

    KIT_OK(kit_run(&c, kit_gpu, got));
    KIT_OK(kit_run(&c, kit_cpu, want));
    c.atol = r.bound * largest(&want[0]);
    kit_compare(&c, 0, &got[0], &want[0]);
    last = tokens_of(&c, 4090, 10);
    ck_assert_mem_eq(run(&last), (float *)got[0].data + 4090 * 4, 10 * 4 * sizeof(float));
}
END_TEST

/* ---- refusals ---- */

static const struct flaw {
    const char *name;
    trm_status want;
    int input, dim; /* dim of the input that is one more; -1: none; -2: dtype f64 */
    int64_t first, local, top_k, groups, leaves; /* leaves 0: not a part */
    const char *act;
} flaws[] = {
    {"good", TRM_OK, 0, -1, 0, 8, 2, 4, 0, "silu"},
    {"no top_k", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, 0, 4, 0, "silu"},
    {"top_k of more", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, 9, 4, 0, "silu"},
    {"groups do not divide", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, 2, 3, 0, "silu"},
    {"no groups", TRM_ERR_INVALID_ARG, 0, -1, 0, 8, 2, 0, 0, "silu"},
    {"unknown act", TRM_ERR_UNSUPPORTED, 0, -1, 0, 8, 2, 4, 0, "swoosh"},
    {"experts missing", TRM_ERR_INVALID_ARG, 0, -1, 0, 4, 2, 4, 0, "silu"},
    {"part of another tree", TRM_ERR_INVALID_ARG, 0, -1, 0, 4, 2, 4, 5, "silu"},
    {"part inside a group", TRM_ERR_INVALID_ARG, 0, -1, 1, 4, 2, 4, 4, "silu"},
    {"part past the end", TRM_ERR_INVALID_ARG, 0, -1, 6, 4, 2, 4, 4, "silu"},
    {"part before the start", TRM_ERR_INVALID_ARG, 0, -1, -2, 4, 2, 4, 4, "silu"},
    {"tokens differ", TRM_ERR_INVALID_ARG, 1, 0, 0, 8, 2, 4, 0, "silu"},
    {"width differs", TRM_ERR_INVALID_ARG, 0, 1, 0, 8, 2, 4, 0, "silu"},
    {"gate differs", TRM_ERR_INVALID_ARG, 2, 1, 0, 8, 2, 4, 0, "silu"},
    {"up differs", TRM_ERR_INVALID_ARG, 3, 2, 0, 8, 2, 4, 0, "silu"},
    {"down differs", TRM_ERR_INVALID_ARG, 4, 0, 0, 8, 2, 4, 0, "silu"},
    {"x f64", TRM_ERR_UNSUPPORTED, 0, -2, 0, 8, 2, 4, 0, "silu"},
    {"router f64", TRM_ERR_UNSUPPORTED, 1, -2, 0, 8, 2, 4, 0, "silu"},
    {"weights f64", TRM_ERR_UNSUPPORTED, 4, -2, 0, 8, 2, 4, 0, "silu"},
};
#define FLAWS (int)(sizeof(flaws) / sizeof(flaws[0]))

START_TEST(refusals)
{
    static const experts_row r = {"flaw", 3, 16, 8, 8, 2, 4, BF16x3, 0, "silu", false, false};
    const struct flaw *f = &flaws[_i];
    cuda_case c = case_of(&r);
    trm_tensor out[1];
    trm_status st;

    c.name = f->name;
    c.attrs = kit_string(kit_attrs(), "act", f->act);
    kit_int(c.attrs, "top_k", f->top_k);
    kit_int(c.attrs, "groups", f->groups);
    kit_int(c.attrs, "first", f->first);
    for (int i = 2; i < 5; i++)
        c.in[i].dims[0] = f->local;
    if (f->leaves > 0) {
        kit_int(c.attrs, "leaves", f->leaves);
        c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 3, 16);
    }
    if (f->dim >= 0)
        c.in[f->input].dims[f->dim]++;
    if (f->dim == -2)
        c.in[f->input].dtype = TRM_DTYPE_F64;
    if (f->want == TRM_OK) {
        KIT_OK(kit_run(&c, kit_gpu, out));
        return;
    }
    st = kit_run(&c, kit_gpu, out);
    ck_assert_msg(st == f->want, "%s: %s (%s), want %s", f->name, trm_status_name(st),
                  st == TRM_OK ? "" : trm_message(), trm_status_name(f->want));
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("experts");

    tcase_add_loop_test(t, as_the_cpu, 0, ROWS);
    tcase_add_loop_test(t, rounded_as_told, 0, 2);
    tcase_add_loop_test(t, tokens_do_not_depend, 0, ROWS);
    tcase_add_loop_test(t, ranks_do_not_depend, 0, ROWS);
    tcase_add_loop_test(t, choosing, 0, ROUTES);
    tcase_add_test(t, not_numbers);
    tcase_add_test(t, waves);
    tcase_add_loop_test(t, refusals, 0, FLAWS);
    return kit_main("lm experts", t);
}
