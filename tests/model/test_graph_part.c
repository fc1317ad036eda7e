/* Parts of constants, stacks and scaled constants, lazy and small, against loops written out here.
 */
#include "model/graph.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_graph *from, *to;

static void set_up(void)
{
    ck_assert_int_eq(trm_graph_create(NULL, "from", &from), TRM_OK);
    ck_assert_int_eq(trm_graph_create(NULL, "to", &to), TRM_OK);
}

static void tear_down(void)
{
    trm_graph_destroy(to);
    trm_graph_destroy(from);
}

/* w[i] = i over dims a x b x c; b = 96 makes it lazy, b = 6 small. */
static int numbers(int64_t a, int64_t b, int64_t c)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {a, b, c}};
    size_t n = (size_t)(a * b * c);
    float *x = malloc(n * sizeof(float));
    int v;

    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)i;
    t.data = x;
    ck_assert_int_eq(trm_graph_add_constant(from, "w", &t, &v), TRM_OK);
    free(x);
    return v;
}

static const struct row {
    const char *name;
    int64_t dims[3];
    int dim, count;
    int64_t ranges[3][2];
    bool scaled, lazy;
} rows[] = {
    {"rows in one piece", {8, 96, 12}, 0, 1, {{2, 7}}, false, false},
    {"rows in two pieces", {8, 96, 12}, 0, 2, {{0, 3}, {5, 8}}, false, true},
    {"columns", {8, 96, 12}, 1, 1, {{10, 80}}, false, true},
    {"three stretches of columns", {8, 96, 12}, 1, 3, {{0, 20}, {32, 60}, {70, 96}}, false, true},
    {"last dim", {8, 96, 12}, 2, 2, {{1, 4}, {6, 12}}, false, true},
    {"small columns", {8, 6, 2}, 1, 2, {{0, 1}, {3, 6}}, false, false},
    {"an empty range", {8, 96, 12}, 1, 2, {{4, 4}, {6, 90}}, false, true},
    {"scaled, whole", {8, 96, 12}, -1, 0, {{0, 0}}, true, true},
    {"scaled rows", {8, 96, 12}, 0, 1, {{1, 7}}, true, true},
    {"scaled columns", {8, 96, 12}, 1, 2, {{3, 40}, {50, 90}}, true, true},
    {"scaled last dim", {8, 96, 12}, 2, 1, {{2, 11}}, true, true},
    {"scaled and small", {8, 6, 2}, 2, 1, {{1, 2}}, true, false},
};

static double scale_of(int64_t row)
{
    return 0.5 + 0.25 * (double)row;
}

static bool inside(const struct row *r, int64_t at)
{
    for (int i = 0; i < r->count; i++)
        if (at >= r->ranges[i][0] && at < r->ranges[i][1])
            return true;
    return r->dim < 0;
}

static void compare(const struct row *r, const trm_tensor *t)
{
    const float *got = t->data;
    size_t k = 0;

    for (int64_t a = 0; a < r->dims[0]; a++)
        for (int64_t b = 0; b < r->dims[1]; b++)
            for (int64_t c = 0; c < r->dims[2]; c++) {
                int64_t at[3] = {a, b, c};
                float want = (float)((a * r->dims[1] + b) * r->dims[2] + c);

                if (!inside(r, r->dim < 0 ? 0 : at[r->dim]))
                    continue;
                if (r->scaled) /* twice, to see that scales multiply */
                    want = (float)((double)want * (scale_of(a) * 2));
                ck_assert_msg(got[k] == want, "%s: [%zu] is %g, want %g", r->name, k,
                              (double)got[k], (double)want);
                k++;
            }
    ck_assert_uint_eq(k, trm_tensor_numel(t));
}

START_TEST(parts)
{
    const struct row *r = &rows[_i];
    double scale[8], two[8];
    int w = numbers(r->dims[0], r->dims[1], r->dims[2]), v;
    size_t now, most;
    trm_tensor t;

    for (int i = 0; i < 8; i++) {
        scale[i] = scale_of(i);
        two[i] = 2;
    }
    if (r->scaled) {
        ck_assert_int_eq(trm_graph_add_scaled(from, "s", w, scale, &w), TRM_OK);
        ck_assert_int_eq(trm_graph_add_scaled(from, "s2", w, two, &w), TRM_OK);
    }
    ck_assert_msg(trm_graph_add_part(to, "p", from, w, r->dim, r->ranges, r->count, &v) == TRM_OK,
                  "%s", trm_message());
    ck_assert_int_eq(to->values[v].lazy != NULL, r->lazy);
    ck_assert(trm_graph_is_constant(to, v));
    for (int round = 0; round < 2; round++) { /* borrowed, dropped, made again */
        ck_assert_int_eq(trm_graph_constant_borrow(to, v, &t), TRM_OK);
        compare(r, &t);
        trm_graph_constant_return(to, v);
        trm_graph_lazy_bytes(to, &now, &most);
        ck_assert_uint_eq(now, 0);
        ck_assert_uint_eq(most, r->lazy ? to->values[v].bytes : 0);
    }
    ck_assert_int_eq(trm_graph_constant(to, v, &t), TRM_OK);
    ck_assert_int_eq(trm_graph_constant_borrow(to, v, &t), TRM_OK);
    trm_graph_constant_return(to, v);
    compare(r, &t); /* asked for: it stays */
    trm_graph_lazy_bytes(to, &now, &most);
    ck_assert_uint_eq(now, r->lazy ? to->values[v].bytes : 0);
}
END_TEST

START_TEST(bad_parts)
{
    static const int64_t backwards[2][2] = {{3, 5}, {0, 2}}, beyond[1][2] = {{0, 97}};
    int w = numbers(8, 96, 12), v, none;

    ck_assert_int_eq(trm_graph_add_part(to, "p", from, w, 1, backwards, 2, &v),
                     TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_graph_add_part(to, "p", from, w, 1, beyond, 1, &v), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_graph_add_part(to, "p", from, w, 3, beyond, 1, &v), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_graph_add_value(from, "x", NULL, &none), TRM_OK);
    ck_assert_int_eq(trm_graph_add_part(to, "p", from, none, -1, NULL, 0, &v), TRM_ERR_INVALID_ARG);
}
END_TEST

/* Weights in blocks along the last dim: bytes are told apart by their place. */
START_TEST(blocks)
{
    static const struct {
        trm_dtype dtype;
        int dim, count;
        int64_t ranges[2][2];
        trm_status st;
    } cases[] = {
        {TRM_DTYPE_Q8_0, 0, 1, {{3, 40}}, TRM_OK},
        {TRM_DTYPE_Q8_0, 0, 2, {{0, 1}, {30, 64}}, TRM_OK},
        {TRM_DTYPE_Q8_0, 1, 1, {{32, 96}}, TRM_OK},
        {TRM_DTYPE_Q4_0, 1, 2, {{0, 32}, {256, 512}}, TRM_OK},
        {TRM_DTYPE_Q4_K, 1, 1, {{256, 512}}, TRM_OK},
        {TRM_DTYPE_Q4_K, 1, 1, {{128, 512}}, TRM_ERR_INVALID_ARG},
        {TRM_DTYPE_Q6_K, 0, 1, {{63, 64}}, TRM_OK},
        {TRM_DTYPE_F8_ROW, 1, 2, {{0, 32}, {256, 512}}, TRM_OK},
        {TRM_DTYPE_F8_128, 1, 1, {{128, 384}}, TRM_OK},
        {TRM_DTYPE_F8_128, 1, 1, {{64, 384}}, TRM_ERR_INVALID_ARG},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        trm_tensor t = {.dtype = cases[i].dtype, .rank = 2, .dims = {64, 512}}, part;
        size_t block = trm_dtype_block_elems(t.dtype), item = trm_dtype_block_bytes(t.dtype);
        size_t row = 512 / block * item, k = 0, bytes;
        unsigned char *data = trm_malloc(64 * row, 1);
        char name[16];
        int w, v;

        for (size_t b = 0; b < 64 * row; b++)
            data[b] = (unsigned char)(b * 7 + b / 251);
        t.data = data;
        snprintf(name, sizeof(name), "w%zu", i);
        ck_assert_int_eq(trm_graph_add_constant(from, name, &t, &w), TRM_OK);
        ck_assert_int_eq(trm_graph_add_part(to, name, from, w, cases[i].dim, cases[i].ranges,
                                            cases[i].count, &v),
                         cases[i].st);
        if (cases[i].st == TRM_OK) {
            ck_assert_int_eq(trm_graph_constant(to, v, &part), TRM_OK);
            ck_assert_int_eq(trm_tensor_bytes(&part, &bytes), TRM_OK);
            for (size_t o = 0; o < (cases[i].dim == 0 ? 1 : 64); o++)
                for (int r = 0; r < cases[i].count; r++) {
                    size_t unit = cases[i].dim == 0 ? row : item,
                           per = cases[i].dim == 0 ? 1 : block;
                    size_t at = (size_t)cases[i].ranges[r][0] / per * unit;
                    size_t n = (size_t)cases[i].ranges[r][1] / per * unit - at;

                    ck_assert_mem_eq((const unsigned char *)part.data + k, data + o * row + at, n);
                    k += n;
                }
            ck_assert_uint_eq(k, bytes);
        }
        trm_free(data);
    }
}
END_TEST

/* ---- parts of parts ---- */

typedef struct cut {
    int dim, count;
    int64_t ranges[3][2];
} cut;

static const struct again {
    const char *name;
    int64_t dims[3];
    cut first, second;
    bool scaled;
} agains[] = {
    {"columns, then rows", {8, 96, 12}, {1, 1, {{10, 80}}}, {0, 2, {{0, 3}, {5, 8}}}, false},
    {"rows, then the last dim", {8, 96, 12}, {0, 2, {{0, 3}, {5, 8}}}, {2, 1, {{2, 11}}}, false},
    {"the same dim", {8, 96, 12}, {1, 3, {{0, 20}, {32, 60}, {70, 96}}}, {1, 1, {{10, 60}}}, false},
    {"the same dim in stretches",
     {8, 96, 12},
     {1, 3, {{0, 20}, {32, 60}, {70, 96}}},
     {1, 3, {{5, 25}, {40, 49}, {49, 70}}},
     false},
    {"the same dim, scaled", {8, 96, 12}, {2, 2, {{1, 4}, {6, 12}}}, {2, 1, {{2, 5}}}, true},
    {"nothing", {8, 96, 12}, {1, 2, {{4, 40}, {50, 90}}}, {1, 1, {{7, 7}}}, false},
    {"a third of fused columns",
     {16, 48, 24},
     {1, 1, {{16, 32}}},
     {1, 2, {{0, 4}, {8, 12}}},
     false},
};

/* Indices that `c` takes of those of a dim. */
static int taken(const cut *c, const int64_t *old, int64_t *out)
{
    int n = 0;

    for (int i = 0; i < c->count; i++)
        for (int64_t k = c->ranges[i][0]; k < c->ranges[i][1]; k++)
            out[n++] = old[k];
    return n;
}

START_TEST(parts_of_parts)
{
    const struct again *r = &agains[_i];
    int64_t at[3][128], next[128], one, two;
    int w = numbers(r->dims[0], r->dims[1], r->dims[2]), p, q, sizes[3];
    double scale[16];
    const float *got;
    trm_tensor t;
    size_t k = 0;

    for (int i = 0; i < 16; i++)
        scale[i] = scale_of(i);
    if (r->scaled)
        ck_assert_int_eq(trm_graph_add_scaled(from, "s", w, scale, &w), TRM_OK);
    ck_assert_msg(trm_graph_add_part(to, "p", from, w, r->first.dim, r->first.ranges,
                                     r->first.count, &p) == TRM_OK,
                  "%s", trm_message());
    ck_assert_msg(trm_graph_add_part(to, "q", to, p, r->second.dim, r->second.ranges,
                                     r->second.count, &q) == TRM_OK,
                  "%s", trm_message());
    for (int d = 0; d < 3; d++) {
        sizes[d] = (int)r->dims[d];
        for (int64_t i = 0; i < r->dims[d]; i++)
            at[d][i] = i;
    }
    for (int step = 0; step < 2; step++) {
        const cut *c = step == 0 ? &r->first : &r->second;

        sizes[c->dim] = taken(c, at[c->dim], next);
        memcpy(at[c->dim], next, sizeof(next));
    }
    ck_assert_int_eq(trm_graph_constant_borrow(to, q, &t), TRM_OK);
    ck_assert_uint_eq(trm_tensor_numel(&t), (size_t)(sizes[0] * sizes[1] * sizes[2]));
    got = t.data;
    for (int a = 0; a < sizes[0]; a++)
        for (int b = 0; b < sizes[1]; b++)
            for (int c = 0; c < sizes[2]; c++, k++) {
                float want;

                one = at[0][a] * r->dims[1] + at[1][b];
                two = one * r->dims[2] + at[2][c];
                want = (float)two;
                if (r->scaled)
                    want = (float)((double)want * scale_of(at[0][a]));
                ck_assert_msg(got[k] == want, "%s: [%zu] is %g, want %g", r->name, k,
                              (double)got[k], (double)want);
            }
    trm_graph_constant_return(to, q);
}
END_TEST

/* ---- stacks ---- */

/* Value e of `count` is e * 100000 + i over a x b. */
static int stack(int count, int64_t a, int64_t b)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {a, b}};
    float *x = malloc((size_t)(a * b) * sizeof(float));
    int values[8], v;
    char name[16];

    ck_assert_ptr_nonnull(x);
    for (int e = 0; e < count; e++) {
        for (int64_t i = 0; i < a * b; i++)
            x[i] = (float)(e * 100000 + i);
        t.data = x;
        snprintf(name, sizeof(name), "e%d", e);
        ck_assert_int_eq(trm_graph_add_constant(from, name, &t, &values[e]), TRM_OK);
    }
    free(x);
    ck_assert_msg(trm_graph_add_stacked(from, "all", values, count, &v) == TRM_OK, "%s",
                  trm_message());
    return v;
}

static const struct stacked {
    const char *name;
    int count;
    int64_t a, b;
    cut parts[2]; /* count 0: none */
    bool lazy;
} stacks[] = {
    {"whole", 5, 48, 32, {{0}}, true},
    {"small", 3, 2, 4, {{0}}, false},
    {"of one", 1, 96, 64, {{0}}, true},
    {"some experts", 5, 48, 64, {{0, 2, {{0, 1}, {3, 5}}}}, true},
    {"some rows", 5, 48, 32, {{1, 2, {{0, 16}, {20, 40}}}}, true},
    {"some columns", 5, 48, 64, {{2, 1, {{8, 40}}}}, true},
    {"rows of some experts", 5, 96, 64, {{0, 1, {{1, 3}}}, {1, 1, {{16, 80}}}}, true},
    {"columns of some experts", 5, 96, 64, {{2, 1, {{3, 60}}}, {0, 2, {{0, 1}, {4, 5}}}}, true},
    {"columns and rows", 5, 96, 64, {{2, 1, {{3, 60}}}, {1, 2, {{0, 40}, {41, 90}}}}, true},
    {"experts of experts", 7, 64, 64, {{0, 2, {{0, 3}, {4, 7}}}, {0, 1, {{2, 5}}}}, true},
    {"a small part", 5, 48, 32, {{1, 1, {{7, 8}}}}, false},
};

START_TEST(stacked)
{
    const struct stacked *r = &stacks[_i];
    int64_t at[3][128], next[128];
    int v = stack(r->count, r->a, r->b), sizes[3] = {r->count, (int)r->a, (int)r->b};
    const trm_graph *g = from;
    size_t now, most, k = 0;
    const float *got;
    trm_tensor t;

    for (int d = 0; d < 3; d++)
        for (int64_t i = 0; i < 128; i++)
            at[d][i] = i;
    for (int p = 0; p < 2 && r->parts[p].count > 0; p++) {
        const cut *c = &r->parts[p];

        ck_assert_msg(trm_graph_add_part(to, p == 0 ? "p" : "q", g, v, c->dim, c->ranges, c->count,
                                         &v) == TRM_OK,
                      "%s: %s", r->name, trm_message());
        g = to;
        sizes[c->dim] = taken(c, at[c->dim], next);
        memcpy(at[c->dim], next, sizeof(next));
    }
    if (g == from)
        ck_assert_int_eq(trm_graph_add_part(to, "p", from, v, -1, NULL, 0, &v), TRM_OK);
    ck_assert_msg((to->values[v].lazy != NULL) == r->lazy, "%s", r->name);
    ck_assert_int_eq(trm_graph_constant_borrow(to, v, &t), TRM_OK);
    ck_assert_int_eq(t.rank, 3);
    for (int d = 0; d < 3; d++)
        ck_assert_int_eq(t.dims[d], sizes[d]);
    got = t.data;
    for (int e = 0; e < sizes[0]; e++)
        for (int a = 0; a < sizes[1]; a++)
            for (int b = 0; b < sizes[2]; b++, k++) {
                float want = (float)(at[0][e] * 100000 + at[1][a] * r->b + at[2][b]);

                ck_assert_msg(got[k] == want, "%s: [%zu] is %g, want %g", r->name, k,
                              (double)got[k], (double)want);
            }
    trm_graph_constant_return(to, v);
    trm_graph_lazy_bytes(to, &now, &most);
    ck_assert_uint_eq(most, r->lazy ? to->values[v].bytes : 0);
    trm_graph_lazy_bytes(from, &now, &most); /* the whole was never made */
    ck_assert_uint_eq(most, 0);
}
END_TEST

START_TEST(bad_stacks)
{
    trm_tensor other = {.dtype = TRM_DTYPE_I32, .rank = 3, .dims = {8, 96, 12}};
    int w = numbers(8, 96, 12), small = numbers(8, 6, 12), x, ints, lazy, v, values[2];
    static const int64_t some[1][2] = {{1, 90}};
    double scale[8] = {0};

    other.data = calloc(8 * 96 * 12, 4);
    ck_assert_int_eq(trm_graph_add_constant(from, "ints", &other, &ints), TRM_OK);
    free(other.data);
    ck_assert_int_eq(trm_graph_add_value(from, "x", NULL, &x), TRM_OK);
    ck_assert_int_eq(trm_graph_add_part(from, "l", from, w, 1, some, 1, &lazy), TRM_OK);
    ck_assert_int_eq(trm_graph_add_stacked(from, "s", &w, 0, &v), TRM_ERR_INVALID_ARG);
    values[0] = w;
    for (int i = 0; i < 4; i++) {
        values[1] = i == 0 ? small : i == 1 ? ints : i == 2 ? x : lazy;
        ck_assert_int_eq(trm_graph_add_stacked(from, "s", values, 2, &v), TRM_ERR_INVALID_ARG);
    }
    values[1] = w; /* twice the same is fine */
    ck_assert_int_eq(trm_graph_add_stacked(from, "s", values, 2, &v), TRM_OK);
    ck_assert_int_eq(trm_graph_add_scaled(from, "t", v, scale, &v), TRM_ERR_INVALID_ARG);
}
END_TEST

/* ---- blocks ---- */

/* Byte i of block k is (k * 7 + i) % 251, over [rows, blocks a row]. */
static int block_rows(trm_dtype dtype, int64_t count, int64_t in_row)
{
    size_t bytes = trm_dtype_block_bytes(dtype), n = (size_t)(count * in_row);
    trm_tensor t = {.dtype = dtype, .rank = 2};
    unsigned char *x = malloc(n * bytes);
    int v;

    ck_assert_ptr_nonnull(x);
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < bytes; i++)
            x[k * bytes + i] = (unsigned char)((k * 7 + i) % 251);
    t.dims[0] = count;
    t.dims[1] = in_row * (int64_t)trm_dtype_block_elems(dtype);
    t.data = x;
    ck_assert_int_eq(trm_graph_add_constant(from, "b", &t, &v), TRM_OK);
    free(x);
    return v;
}

START_TEST(blocks_of_parts)
{
    trm_dtype dtype = (trm_dtype)((int)TRM_DTYPE_Q4_0 + _i);
    int64_t e = (int64_t)trm_dtype_block_elems(dtype);
    const int64_t columns[2][2] = {{e, 3 * e}, {6 * e, 8 * e}}, some[2][2] = {{0, 20}, {30, 64}};
    const int64_t bad[1][2] = {{e, 2 * e + e / 2}};
    static const int64_t kept[] = {1, 2, 6, 7};
    size_t bytes = trm_dtype_block_bytes(dtype), k = 0;
    int w = block_rows(dtype, 64, 8), p, q, stacked_pair, pair[2] = {w, w};
    trm_tensor t;

    ck_assert_int_eq(trm_graph_add_part(to, "p", from, w, 1, bad, 1, &p), TRM_ERR_INVALID_ARG);
    ck_assert_msg(trm_graph_add_part(to, "p", from, w, 1, columns, 2, &p) == TRM_OK, "%s",
                  trm_message());
    ck_assert_int_eq(to->values[p].desc.dims[1], 4 * e);
    ck_assert_int_eq(trm_graph_add_part(to, "q", to, p, 0, some, 2, &q), TRM_OK);
    ck_assert_int_eq(trm_graph_constant_borrow(to, q, &t), TRM_OK);
    for (int64_t row = 0; row < 64; row++) {
        if (row >= 20 && row < 30)
            continue;
        for (int c = 0; c < 4; c++, k++)
            for (size_t i = 0; i < bytes; i++)
                ck_assert_uint_eq(((const unsigned char *)t.data)[k * bytes + i],
                                  ((size_t)(row * 8 + kept[c]) * 7 + i) % 251);
    }
    trm_graph_constant_return(to, q);
    /* a stack of blocks, of which a part along the last dim */
    ck_assert_int_eq(trm_graph_add_stacked(from, "s", pair, 2, &stacked_pair), TRM_OK);
    ck_assert_int_eq(trm_graph_add_part(to, "sp", from, stacked_pair, 2, columns, 2, &p), TRM_OK);
    ck_assert_int_eq(trm_graph_constant_borrow(to, p, &t), TRM_OK);
    for (size_t i = 0; i < bytes; i++) /* the last block of the second */
        ck_assert_uint_eq(((const unsigned char *)t.data)[(2 * 64 * 4 - 1) * bytes + i],
                          ((size_t)(63 * 8 + 7) * 7 + i) % 251);
    trm_graph_constant_return(to, p);
}
END_TEST

/* What nothing reads does not count; blocks do. */
START_TEST(parameters)
{
    int w = block_rows(TRM_DTYPE_Q8_0, 4, 2), f = numbers(2, 3, 4), unused = numbers(2, 2, 2), y,
        in[2];

    (void)unused;
    in[0] = w;
    in[1] = f;
    ck_assert_int_eq(trm_graph_add_value(from, "y", NULL, &y), TRM_OK);
    ck_assert_int_eq(trm_graph_add_node(from, TRM_OP_Add, "n", in, 2, &y, 1, NULL), TRM_OK);
    ck_assert_int_eq(trm_graph_parameter_count(from), 4 * 64 + 24);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("graph_part");
    TCase *t = tcase_create("parts");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, parts, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, bad_parts);
    tcase_add_loop_test(t, parts_of_parts, 0, sizeof(agains) / sizeof(agains[0]));
    tcase_add_loop_test(t, stacked, 0, sizeof(stacks) / sizeof(stacks[0]));
    tcase_add_test(t, bad_stacks);
    tcase_add_loop_test(t, blocks_of_parts, 0, TRM_DTYPE_COUNT - TRM_DTYPE_Q4_0);
    tcase_add_test(t, parameters);
    tcase_add_test(t, blocks);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
