/* Parts of constants and scaled constants, lazy and small, against loops written out here. */
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

int main(void)
{
    Suite *s = suite_create("graph_part");
    TCase *t = tcase_create("parts");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, parts, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, bad_parts);
    tcase_add_test(t, blocks);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
