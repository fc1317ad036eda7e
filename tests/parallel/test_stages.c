/* Pipeline cuts: against every possible cut of small random graphs, and the properties that users
 * see (memory limits, what crosses, bubbles). */
#include "parallel/stages.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 14
#define VALUES 64

static trm_graph *g;
static double node_us[NODES];
static size_t weight_bytes[VALUES], value_bytes[VALUES];

static void setup(void)
{
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    memset(node_us, 0, sizeof(node_us));
    memset(weight_bytes, 0, sizeof(weight_bytes));
    memset(value_bytes, 0, sizeof(value_bytes));
}

static void teardown(void)
{
    trm_graph_destroy(g);
    g = NULL;
}

static int value(size_t bytes)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {1}};
    int v;

    ck_assert_int_eq(trm_graph_add_value(g, trm_graph_fresh_name(g, "v"), &t, &v), TRM_OK);
    value_bytes[v] = bytes;
    return v;
}

static int constant(size_t bytes)
{
    float one = 1;
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {1}, .data = &one};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, "c"), &t, &v), TRM_OK);
    weight_bytes[v] = bytes;
    return v;
}

static void input(int v)
{
    ck_assert_int_eq(trm_graph_set_inputs(g, &v, 1), TRM_OK);
}

/* A node that reads in[0..count); returns its output. */
static int node(double us, size_t bytes, int count, const int *in)
{
    int out = value(bytes), n;

    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Sum, "", in, count, &out, 1, &n), TRM_OK);
    node_us[n] = us;
    return out;
}
#define NODE(us, bytes, ...)                                                                       \
    node(us, bytes, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__})

/* 1 us and 1 us per 100 bytes. */
static double message(void *ctx, size_t bytes)
{
    (*(int *)ctx)++;
    return 1 + (double)bytes / 100;
}

static int messages;

static trm_stage_costs costs_with(size_t activation, size_t memory)
{
    return (trm_stage_costs){.node_us = node_us,
                             .weight_bytes = weight_bytes,
                             .value_bytes = value_bytes,
                             .message_us = message,
                             .ctx = &messages,
                             .activation_bytes = activation,
                             .memory_bytes = memory};
}

/* ---- by hand, for comparison ---- */
static bool reads(int n, int v)
{
    for (int i = 0; i < g->nodes[n].input_count; i++)
        if (g->nodes[n].inputs[i] == v)
            return true;
    return false;
}

static size_t bytes_of_stage(int begin, int end)
{
    size_t bytes = 0;

    for (int v = 0; v < g->value_count; v++) {
        bool used = false;

        for (int n = begin; n < end; n++)
            used |= reads(n, v);
        if (used)
            bytes += weight_bytes[v];
    }
    return bytes;
}

static size_t bytes_across(int cut)
{
    size_t bytes = 0;

    for (int v = 0; v < g->value_count; v++) {
        bool before = g->values[v].desc.data == NULL && g->values[v].producer < cut, after = false;

        for (int n = cut; n < g->node_count; n++)
            after |= reads(n, v);
        if (before && after)
            bytes += value_bytes[v];
    }
    return bytes;
}

static double time_of_stage(int begin, int end)
{
    double us = end < g->node_count ? 1 + (double)bytes_across(end) / 100 : 0;

    for (int n = begin; n < end; n++)
        us += node_us[n];
    return us;
}

struct least {
    double slowest, sum;
};

static size_t held_by_stage(int begin, int end, int waiting)
{
    return bytes_of_stage(begin, end) + (begin > 0 ? (size_t)waiting * bytes_across(begin) : 0);
}

static void try_all(int stages, int begin, size_t limit, int waiting, double slowest, double sum,
                    struct least *best)
{
    int last = stages == 1 ? g->node_count : g->node_count - stages + 1;

    for (int end = stages == 1 ? g->node_count : begin + 1; end <= last; end++) {
        double us = time_of_stage(begin, end), worst = fmax(slowest, us);

        if (limit > 0 && held_by_stage(begin, end, waiting) > limit)
            continue;
        if (stages > 1) {
            try_all(stages - 1, end, limit, waiting, worst, sum + us, best);
        } else if (worst < best->slowest - 1e-9 ||
                   (worst < best->slowest + 1e-9 && sum + us < best->sum)) {
            best->slowest = fmin(worst, best->slowest);
            best->sum = sum + us;
        }
    }
}

static void random_graph(unsigned seed)
{
    int made[NODES + 1], weights[5], nodes;

    srandom(seed);
    nodes = 4 + (int)(random() % (NODES - 3));
    made[0] = value((size_t)(random() % 400));
    input(made[0]);
    for (int i = 0; i < 5; i++)
        weights[i] = constant((size_t)(random() % 1000));
    for (int n = 0; n < nodes; n++) {
        int in[4], count = 0;

        /* mostly the value before, sometimes any: chains with shortcuts */
        in[count++] = made[random() % 3 != 0 ? n : (int)(random() % (n + 1))];
        if (random() % 3 == 0)
            in[count++] = made[random() % (n + 1)];
        if (random() % 2 == 0)
            in[count++] = weights[random() % 5]; /* shared by several nodes */
        if (random() % 4 == 0) {                 /* the same twice */
            in[count] = in[count - 1];
            count++;
        }
        made[n + 1] = node((double)(random() % 50), (size_t)(random() % 400), count, in);
    }
}

START_TEST(as_good_as_every_cut)
{
    int graphs = 0, impossible = 0;

    for (unsigned seed = 0; seed < 40; seed++) {
        teardown();
        setup();
        random_graph(seed + 1000 * (unsigned)_i);
        for (int stages = 1; stages <= 4; stages++) {
            size_t limit = _i % 2 == 0 ? 0 : 500 + (size_t)(random() % 1500);
            trm_stage_costs costs = costs_with(100, limit == 0 ? 0 : limit + 100);
            struct least best = {INFINITY, INFINITY};
            double slowest = 0, sum = 0;
            trm_stages s;
            trm_status st;

            costs.messages = _i % 3;
            st = trm_stages_cut(g, &costs, stages, &s);
            try_all(stages, 0, limit, costs.messages, 0, 0, &best);
            if (!isfinite(best.slowest)) {
                ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
                impossible++;
                continue;
            }
            ck_assert_msg(st == TRM_OK, "%s", trm_message());
            ck_assert_int_eq(s.count, stages);
            ck_assert_int_eq(s.cuts[0], 0);
            ck_assert_int_eq(s.cuts[stages], g->node_count);
            for (int i = 0; i < stages; i++) {
                ck_assert_int_lt(s.cuts[i], s.cuts[i + 1]);
                ck_assert_double_eq_tol(s.stage_us[i], time_of_stage(s.cuts[i], s.cuts[i + 1]),
                                        1e-9);
                ck_assert_uint_eq(s.stage_bytes[i], bytes_of_stage(s.cuts[i], s.cuts[i + 1]));
                ck_assert_uint_eq(s.crossing_bytes[i],
                                  i + 1 < stages ? bytes_across(s.cuts[i + 1]) : 0);
                ck_assert(limit == 0 ||
                          held_by_stage(s.cuts[i], s.cuts[i + 1], costs.messages) <= limit);
                slowest = fmax(slowest, s.stage_us[i]);
                sum += s.stage_us[i];
            }
            ck_assert_double_eq_tol(slowest, best.slowest, 1e-9);
            ck_assert_double_eq_tol(sum, best.sum, 1e-9);
            graphs++;
        }
    }
    ck_assert_int_gt(graphs, 80);
    ck_assert(_i % 2 == 0 || impossible > 0); /* the limits did bite */
}
END_TEST

START_TEST(a_shortcut_is_paid_at_every_cut)
{
    int x = value(100), a, b, c;
    trm_stage_costs costs = costs_with(0, 0);
    trm_stages s;

    input(x);
    a = NODE(10, 40, x);
    b = NODE(10, 30, a);
    c = NODE(10, 20, b);
    (void)NODE(10, 0, c, a, x);
    ck_assert_int_eq(trm_stages_cut(g, &costs, 4, &s), TRM_OK);
    /* after a: a and x; after b: b, a, x; after c: c, a, x */
    ck_assert_uint_eq(s.crossing_bytes[0], 140);
    ck_assert_uint_eq(s.crossing_bytes[1], 170);
    ck_assert_uint_eq(s.crossing_bytes[2], 160);
    ck_assert_uint_eq(s.crossing_bytes[3], 0);
}
END_TEST

START_TEST(cuts_follow_memory_when_it_is_short)
{
    int x = value(4), big = constant(1000), small = constant(300), a, b;
    trm_stage_costs free_of_limits = costs_with(50, 0), limited = costs_with(50, 1050);
    trm_stages s;

    input(x);
    a = NODE(10, 4, x, big);
    b = NODE(10, 4, a, small);
    (void)NODE(20, 4, b);
    ck_assert_int_eq(trm_stages_cut(g, &free_of_limits, 2, &s), TRM_OK);
    ck_assert_int_eq(s.cuts[1], 2); /* balanced in time */
    ck_assert_uint_eq(s.stage_bytes[0], 1300);
    ck_assert_int_eq(trm_stages_cut(g, &limited, 2, &s), TRM_OK);
    ck_assert_int_eq(s.cuts[1], 1); /* 1000 + 300 + 50 is too much */
    limited.memory_bytes = 1049;
    ck_assert_int_eq(trm_stages_cut(g, &limited, 2, &s), TRM_ERR_NO_MEMORY);
    ck_assert_ptr_nonnull(strstr(trm_message(), "at least 1.1 kB each"));
    ck_assert_ptr_nonnull(strstr(trm_message(), g->values[big].name));
}
END_TEST

START_TEST(ties_cut_behind_what_costs_nothing)
{
    int x = value(8), a, b, c;
    trm_stage_costs costs = costs_with(0, 0);
    trm_stages s;

    input(x);
    a = NODE(10, 8, x);
    b = NODE(0, 8, a); /* a post-op of its producer */
    c = NODE(0, 8, b);
    (void)NODE(10, 8, c);
    ck_assert_int_eq(trm_stages_cut(g, &costs, 2, &s), TRM_OK);
    ck_assert_int_eq(s.cuts[1], 3);
}
END_TEST

START_TEST(refusals)
{
    int x = value(8);
    trm_stage_costs costs = costs_with(0, 0);
    trm_stages s;

    input(x);
    (void)NODE(1, 8, x);
    ck_assert_int_eq(trm_stages_cut(g, &costs, 0, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_stages_cut(g, &costs, TRM_STAGES_MAX + 1, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_stages_cut(g, &costs, 2, &s), TRM_ERR_INVALID_ARG);
    ck_assert_str_eq(trm_message(),
                     "pipeline=2: the model has only 1 nodes, so pipeline=1 at most");
    ck_assert_int_eq(trm_stages_cut(g, &costs, 1, &s), TRM_OK);
}
END_TEST

START_TEST(bubbles)
{
    trm_stages even = {.count = 4, .stage_us = {10, 10, 10, 10}};
    trm_stages uneven = {.count = 2, .stage_us = {30, 10}};

    /* one at a time: one of four works */
    ck_assert_double_eq_tol(trm_stages_bubble(&even, 1, -1), 0.75, 1e-12);
    ck_assert_double_eq_tol(trm_stages_bubble(&even, 2, -1), 0.5, 1e-12);
    ck_assert_double_eq_tol(trm_stages_bubble(&even, 4, -1), 0, 1e-12);
    /* fill and drain: (p - 1) / (m + p - 1) */
    ck_assert_double_eq_tol(trm_stages_bubble(&even, 8, 8), 3.0 / 11, 1e-12);
    /* the slow stage is always busy, the other a third of the time */
    ck_assert_double_eq_tol(trm_stages_bubble(&uneven, 4, -1), 1 - 40.0 / 60, 1e-12);
    ck_assert_double_eq_tol(trm_stages_bubble(&uneven, 4, 0), 0, 1e-12);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stages");
    TCase *tc = tcase_create("cuts");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, as_good_as_every_cut, 0, 6);
    tcase_add_test(tc, a_shortcut_is_paid_at_every_cut);
    tcase_add_test(tc, cuts_follow_memory_when_it_is_short);
    tcase_add_test(tc, ties_cut_behind_what_costs_nothing);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, bubbles);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
