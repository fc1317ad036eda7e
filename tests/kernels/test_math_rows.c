/* Reductions, softmax, normalisation, scans, quantisation: against plain loops in double precision
 * and values worked out by hand. */
#include "tests/kernels/math_harness.h"

#include "kernels/reference/rows.h"

static const trm_op reductions[] = {
    TRM_OP_ReduceSum,    TRM_OP_ReduceMean,     TRM_OP_ReduceMax, TRM_OP_ReduceMin,
    TRM_OP_ReduceProd,   TRM_OP_ReduceL1,       TRM_OP_ReduceL2,  TRM_OP_ReduceSumSquare,
    TRM_OP_ReduceLogSum, TRM_OP_ReduceLogSumExp};

static double reduce_step(trm_op op, double a, double x)
{
    switch (op) {
    case TRM_OP_ReduceMax:
        return x > a ? x : a;
    case TRM_OP_ReduceMin:
        return x < a ? x : a;
    case TRM_OP_ReduceProd:
        return a * x;
    case TRM_OP_ReduceL1:
        return a + fabs(x);
    case TRM_OP_ReduceL2:
    case TRM_OP_ReduceSumSquare:
        return a + x * x;
    case TRM_OP_ReduceLogSumExp:
        return a + exp(x);
    default:
        return a + x;
    }
}

static void check_reduce(trm_op op, trm_dtype dtype, const int64_t *dims, uint32_t mask, double tol)
{
    trm_tensor in[2] = {h_tensor(dtype, dims)}, out = {.dtype = dtype};
    double *want;
    size_t *count, n;

    h_random(in[0], op == TRM_OP_ReduceLogSum ? 0.5 : -2, op == TRM_OP_ReduceProd ? 1.5 : 3);
    if (op == TRM_OP_ReduceProd)
        h_random(in[0], 0.9, 1.1);
    in[1] = (trm_tensor){.dtype = TRM_DTYPE_I64, .rank = 1};
    in[1].data = trm_arena_alloc_aligned(h_arena, 64);
    for (int d = 0; d < in[0].rank; d++) {
        out.dims[out.rank++] = (mask >> d & 1) != 0 ? 1 : in[0].dims[d];
        if ((mask >> d & 1) != 0)
            ((int64_t *)in[1].data)[in[1].dims[0]++] = d - in[0].rank; /* negative axes */
    }
    h_ok(op, mask == 0 ? h_int(h_attrs(), "noop_with_empty_axes", 1) : NULL, in, 2, &out, 1);
    n = trm_tensor_numel(&out);
    want = trm_arena_alloc(h_arena, n + 1, sizeof(*want));
    count = trm_arena_alloc(h_arena, n + 1, sizeof(*count));
    for (size_t i = 0; i < n; i++)
        want[i] = op == TRM_OP_ReduceMax    ? -INFINITY
                  : op == TRM_OP_ReduceMin  ? INFINITY
                  : op == TRM_OP_ReduceProd ? 1
                                            : 0;
    for (size_t i = 0; i < trm_tensor_numel(&in[0]); i++) {
        size_t rest = i, at = 0, step = 1;

        for (int d = in[0].rank - 1; d >= 0; d--) {
            at += (mask >> d & 1) != 0 ? 0 : rest % (size_t)in[0].dims[d] * step;
            rest /= (size_t)in[0].dims[d];
            step *= (size_t)out.dims[d];
        }
        want[at] = reduce_step(op, want[at], trm_tensor_get_f64(&in[0], i));
        count[at]++;
    }
    for (size_t i = 0; i < n; i++) {
        if (op == TRM_OP_ReduceMean)
            want[i] /= (double)count[i];
        if (op == TRM_OP_ReduceL2)
            want[i] = sqrt(want[i]);
        if (op == TRM_OP_ReduceLogSum || op == TRM_OP_ReduceLogSumExp)
            want[i] = log(want[i]);
        if (!trm_dtype_is_float(dtype))
            want[i] = trunc(want[i]);
        h_near(&out, i, want[i], tol, tol, trm_op_get(op)->name);
    }
}

START_TEST(reduce_against_loops)
{
    static const struct {
        int64_t dims[6];
        uint32_t mask;
    } cases[] = {
        {{5, -1}, 1},          {{3, 4, 5, -1}, 4},        {{3, 4, 5, -1}, 2},
        {{3, 4, 5, -1}, 1},    {{3, 4, 5, -1}, 5},        {{3, 4, 5, -1}, 7},
        {{3, 4, 5, -1}, 6},    {{2, 3, 4, 5, 6, -1}, 10}, {{2, 3, 4, 5, 6, -1}, 21},
        {{1, 7, 1, 3, -1}, 5}, {{2, 700, 3, -1}, 2},      {{3, 1500, -1}, 2},
        {{4, 3, 700, -1}, 2},  {{2, 64, 7, 7, -1}, 12},   {{3, 4, -1}, 0},
        {{70, 300, -1}, 1},
    };
    trm_op op = reductions[_i];

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        check_reduce(op, TRM_DTYPE_F32, cases[c].dims, cases[c].mask, 2e-5);
        check_reduce(op, TRM_DTYPE_F64, cases[c].dims, cases[c].mask, 1e-11);
        if (c < 9)
            check_reduce(op, TRM_DTYPE_F16, cases[c].dims, cases[c].mask, 2e-3);
        if (op == TRM_OP_ReduceSum || op == TRM_OP_ReduceMax || op == TRM_OP_ReduceMin ||
            op == TRM_OP_ReduceL1 || op == TRM_OP_ReduceSumSquare) {
            check_reduce(op, TRM_DTYPE_I32, cases[c].dims, cases[c].mask, 0);
            check_reduce(op, TRM_DTYPE_I64, cases[c].dims, cases[c].mask, 0);
        }
    }
}
END_TEST

START_TEST(reduce_of_nothing)
{
    trm_tensor in = H_TENSOR(TRM_DTYPE_F32, 2, 0, 3);
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {2, 1, 3}};
    trm_tensor args[2] = {in, H_FILL(H_TENSOR(TRM_DTYPE_I64, 1), 1)};
    trm_tensor ints[2] = {H_TENSOR(TRM_DTYPE_I8, 0), {0}};
    trm_tensor small = {.dtype = TRM_DTYPE_I8};

    h_ok(TRM_OP_ReduceSum, NULL, args, 2, &out, 1);
    H_WANT(out, 0, 0, 0, 0, 0, 0, 0);
    h_ok(TRM_OP_ReduceMax, NULL, args, 2, &out, 1);
    h_near(&out, 5, -INFINITY, 0, 0, "max");
    h_ok(TRM_OP_ReduceProd, NULL, args, 2, &out, 1);
    h_near(&out, 0, 1, 0, 0, "prod");
    h_ok(TRM_OP_ReduceMean, NULL, args, 2, &out, 1);
    h_near(&out, 0, NAN, 0, 0, "mean");
    h_ok(TRM_OP_ReduceLogSumExp, NULL, args, 2, &out, 1);
    h_near(&out, 0, -INFINITY, 0, 0, "log sum exp");
    h_ok(TRM_OP_ReduceMax, NULL, ints, 1, &small, 1);
    ck_assert_int_eq(*(int8_t *)small.data, INT8_MIN);
    h_ok(TRM_OP_ReduceMin, NULL, ints, 1, &small, 1);
    ck_assert_int_eq(*(int8_t *)small.data, INT8_MAX);
}
END_TEST

START_TEST(softmax_against_reference)
{
    static const trm_op ops[] = {TRM_OP_Softmax, TRM_OP_LogSoftmax, TRM_OP_Hardmax};
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F16};
    trm_op op = ops[_i];

    for (int axis = 0; axis < 3; axis++)
        for (int d = 0; d < 3; d++) {
            trm_tensor x = H_TENSOR(dtypes[d], 3, 131, 70), y = x;
            double column[131], tol = d == 2 ? 4e-3 : d == 1 ? 1e-12 : 2e-6;
            size_t n = (size_t)x.dims[axis], inner = axis == 2 ? 1 : axis == 1 ? 70 : 131 * 70;

            h_random(x, -9, 9);
            y.data = NULL;
            h_ok(op, h_int(h_attrs(), "axis", axis), &x, 1, &y, 1);
            for (size_t o = 0; o < trm_tensor_numel(&x) / n; o++) {
                size_t base = o / inner * n * inner + o % inner;

                for (size_t i = 0; i < n; i++)
                    column[i] = trm_tensor_get_f64(&x, base + i * inner);
                trm_reference_softmax(column, column, n, 1, op);
                for (size_t i = 0; i < n; i++)
                    h_near(&y, base + i * inner, column[i], tol, tol, trm_op_get(op)->name);
            }
        }
}
END_TEST

START_TEST(softmax_edges)
{
    trm_tensor x = H_FILL(H_TENSOR(TRM_DTYPE_F32, 1, 3), 1000, 1000, -INFINITY), y = x;
    trm_tensor f = H_FILL(H_TENSOR(TRM_DTYPE_F32, 1, 2, 2), 1, 1, 1, 1), g = f;

    y.data = NULL;
    h_ok(TRM_OP_Softmax, NULL, &x, 1, &y, 1);
    H_WANT(y, 1e-6, 0.5, 0.5, 0);
    g.data = NULL;
    h_ok(TRM_OP_Softmax, h_int(h_int(h_attrs(), "flatten", 1), "axis", 1), &f, 1, &g, 1);
    H_WANT(g, 1e-6, 0.25, 0.25, 0.25, 0.25);
}
END_TEST

START_TEST(layer_norm)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F16, TRM_DTYPE_BF16};
    static const double tols[] = {2e-6, 1e-6, 4e-3, 3e-2};

    for (int d = 0; d < 4; d++)
        for (int rms = 0; rms < 2; rms++) {
            trm_tensor in[3] = {H_TENSOR(dtypes[d], 3, 2, 333), H_TENSOR(dtypes[d], 333),
                                H_TENSOR(dtypes[d], 1)};
            trm_tensor out[3] = {in[0],
                                 {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {3, 2, 1}},
                                 {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {3, 2, 1}}};

            h_random(in[0], -1, 3);
            h_random(in[1], 0.5, 1.5);
            h_random(in[2], -1, 1);
            out[0].data = NULL;
            h_ok(rms ? TRM_OP_RMSNormalization : TRM_OP_LayerNormalization, NULL, in, rms ? 2 : 3,
                 out, rms ? 1 : 3);
            for (size_t r = 0; r < 6; r++) {
                double row[333], mean, inverse;

                for (size_t i = 0; i < 333; i++)
                    row[i] = trm_tensor_get_f64(&in[0], r * 333 + i);
                trm_reference_normalise(row, row, 333, !rms, 1e-5, &mean, &inverse);
                for (size_t i = 0; i < 333; i++)
                    h_near(&out[0], r * 333 + i,
                           row[i] * trm_tensor_get_f64(&in[1], i) +
                               (rms ? 0 : trm_tensor_get_f64(&in[2], 0)),
                           tols[d], tols[d], "layer norm");
                if (!rms) {
                    h_near(&out[1], r, mean, 1e-5, 1e-5, "mean");
                    h_near(&out[2], r, inverse, 1e-5, 1e-5, "inverse");
                }
            }
        }
}
END_TEST

START_TEST(group_norms)
{
    /* two images, four channels, three pixels; groups of two channels */
    trm_tensor in[3] = {h_random(H_TENSOR(TRM_DTYPE_F32, 2, 4, 3), -1, 2),
                        H_FILL(H_TENSOR(TRM_DTYPE_F32, 4), 1, 2, 3, 4),
                        H_FILL(H_TENSOR(TRM_DTYPE_F32, 4), 0.1, 0.2, 0.3, 0.4)};
    trm_tensor half[3] = {in[0], H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 1, 2),
                          H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 0.1, 0.2)};
    trm_tensor out = in[0];

    for (int kind = 0; kind < 3; kind++) { /* instance, group, group with scale a group */
        size_t n = kind == 0 ? 3 : 6;

        out.data = NULL;
        h_ok(kind == 0 ? TRM_OP_InstanceNormalization : TRM_OP_GroupNormalization,
             h_int(h_int(h_attrs(), "num_groups", 2), "per_group", kind == 2),
             kind == 2 ? half : in, 3, &out, 1);
        for (size_t r = 0; r < 24 / n; r++) {
            double row[6], mean, inverse;

            for (size_t i = 0; i < n; i++)
                row[i] = trm_tensor_get_f64(&in[0], r * n + i);
            trm_reference_normalise(row, row, n, true, 1e-5, &mean, &inverse);
            for (size_t i = 0; i < n; i++) {
                size_t c = (r * n + i) / 3 % 4, g = kind == 2 ? c / 2 : c;

                h_near(&out, r * n + i, row[i] * (double)(g + 1) + 0.1 * (double)(g + 1), 1e-5,
                       1e-5, "group norm");
            }
        }
    }
}
END_TEST

START_TEST(other_norms)
{
    trm_tensor x = H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 2), 3, 4, 0, 0), y = x;
    trm_tensor v = h_random(H_TENSOR(TRM_DTYPE_F32, 3, 2, 4, 5), -2, 5), w = v;

    y.data = w.data = NULL;
    h_ok(TRM_OP_LpNormalization, NULL, &x, 1, &y, 1);
    H_WANT(y, 1e-6, 0.6, 0.8, 0, 0);
    h_ok(TRM_OP_LpNormalization, h_int(h_int(h_attrs(), "p", 1), "axis", 0), &x, 1, &y, 1);
    H_WANT(y, 1e-6, 1, 1, 0, 0);
    h_ok(TRM_OP_MeanVarianceNormalization, NULL, &v, 1, &w, 1);
    for (size_t c = 0; c < 2; c++) {
        double mean = 0, square = 0;

        for (size_t i = 0; i < 60; i++) {
            double a = trm_tensor_get_f64(&w, i / 20 * 40 + c * 20 + i % 20);

            mean += a / 60;
            square += a * a / 60;
        }
        ck_assert_double_eq_tol(mean, 0, 1e-6);
        ck_assert_double_eq_tol(square, 1, 1e-5);
    }
}
END_TEST

START_TEST(arg_and_cumulative)
{
    trm_tensor x = H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 3), 1, 5, 5, 7, 2, 2);
    trm_tensor c[2] = {H_FILL(H_TENSOR(TRM_DTYPE_I32, 2, 3), 1, 2, 3, 4, 5, 6),
                       H_FILL(H_SCALAR(TRM_DTYPE_I64), 1)};
    trm_tensor arg = {.dtype = TRM_DTYPE_I64, .rank = 2, .dims = {2, 1}};
    trm_tensor col = {.dtype = TRM_DTYPE_I64, .rank = 2, .dims = {1, 3}};
    trm_tensor out = {.dtype = TRM_DTYPE_I32, .rank = 2, .dims = {2, 3}};
    trm_tensor big = H_TENSOR(TRM_DTYPE_I64, 2000),
               one = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {1}};

    h_ok(TRM_OP_ArgMax, h_int(h_attrs(), "axis", 1), &x, 1, &arg, 1);
    H_WANT(arg, 0, 1, 0);
    h_ok(TRM_OP_ArgMax, h_int(h_int(h_attrs(), "axis", -1), "select_last_index", 1), &x, 1, &arg,
         1);
    H_WANT(arg, 0, 2, 0);
    h_ok(TRM_OP_ArgMin, h_int(h_int(h_attrs(), "axis", 1), "select_last_index", 1), &x, 1, &arg, 1);
    H_WANT(arg, 0, 0, 2);
    h_ok(TRM_OP_ArgMin, NULL, &x, 1, &col, 1);
    H_WANT(col, 0, 0, 1, 1);
    for (size_t at = 0; at < 2000; at += 333) { /* across chunks */
        memset(big.data, 0, 16000);
        ((int64_t *)big.data)[at] = 1;
        h_ok(TRM_OP_ArgMax, NULL, &big, 1, &one, 1);
        ck_assert_int_eq(*(int64_t *)one.data, (int64_t)at);
        ((int64_t *)big.data)[1999] = 1;
        h_ok(TRM_OP_ArgMax, h_int(h_attrs(), "select_last_index", 1), &big, 1, &one, 1);
        ck_assert_int_eq(*(int64_t *)one.data, 1999);
    }
    h_ok(TRM_OP_CumSum, NULL, c, 2, &out, 1);
    H_WANT(out, 0, 1, 3, 6, 4, 9, 15);
    h_ok(TRM_OP_CumSum, h_int(h_int(h_attrs(), "reverse", 1), "exclusive", 1), c, 2, &out, 1);
    H_WANT(out, 0, 5, 3, 0, 11, 6, 0);
    h_ok(TRM_OP_CumProd, NULL, c, 2, &out, 1);
    H_WANT(out, 0, 1, 2, 6, 4, 20, 120);
}
END_TEST

START_TEST(quantise)
{
    trm_tensor q[3] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 2, 3), 0, 2, 3, 1000, -254, -1000),
                       H_FILL(H_SCALAR(TRM_DTYPE_F32), 2), H_FILL(H_SCALAR(TRM_DTYPE_U8), 128)};
    trm_tensor half[2] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 4), 0.5, 1.5, 2.5, -0.5),
                          H_FILL(H_SCALAR(TRM_DTYPE_F32), 1)};
    trm_tensor axis[3] = {H_FILL(H_TENSOR(TRM_DTYPE_I8, 1, 2, 2), 4, 8, -6, 6),
                          H_FILL(H_TENSOR(TRM_DTYPE_F32, 2), 0.5, 2),
                          H_FILL(H_TENSOR(TRM_DTYPE_I8, 2), 0, 2)};
    trm_tensor block[2] = {H_FILL(H_TENSOR(TRM_DTYPE_I16, 1, 5), 1, 2, 3, 4, 5),
                           H_FILL(H_TENSOR(TRM_DTYPE_F32, 1, 3), 1, 10, 100)};
    trm_tensor dynamic = H_FILL(H_TENSOR(TRM_DTYPE_F32, 6), 0, 2, -3, -2.5, 1.34, 0.5);
    trm_tensor u = {.dtype = TRM_DTYPE_U8, .rank = 2, .dims = {2, 3}};
    trm_tensor s = {.dtype = TRM_DTYPE_I8, .rank = 1, .dims = {4}};
    trm_tensor f = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {1, 2, 2}};
    trm_tensor g = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {1, 5}};
    trm_tensor three[3] = {{.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {6}},
                           {.dtype = TRM_DTYPE_F32},
                           {.dtype = TRM_DTYPE_U8}};

    h_ok(TRM_OP_QuantizeLinear, NULL, q, 3, &u, 1);
    H_WANT(u, 0, 128, 129, 130, 255, 1, 0);
    h_ok(TRM_OP_QuantizeLinear, NULL, half, 2, &s, 1);
    H_WANT(s, 0, 0, 2, 2, 0);
    h_ok(TRM_OP_DequantizeLinear, NULL, axis, 3, &f, 1);
    H_WANT(f, 0, 2, 4, -16, 8);
    h_ok(TRM_OP_DequantizeLinear, h_int(h_attrs(), "block_size", 2), block, 2, &g, 1);
    H_WANT(g, 0, 1, 2, 30, 40, 500);
    h_ok(TRM_OP_DynamicQuantizeLinear, NULL, &dynamic, 1, three, 3);
    H_WANT(three[0], 0, 153, 255, 0, 26, 221, 179);
    H_WANT(three[1], 1e-6, 0.0196078438);
    H_WANT(three[2], 0, 153);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("rows");

    tcase_add_loop_test(t, reduce_against_loops, 0,
                        (int)(sizeof(reductions) / sizeof(reductions[0])));
    tcase_add_test(t, reduce_of_nothing);
    tcase_add_loop_test(t, softmax_against_reference, 0, 3);
    tcase_add_test(t, softmax_edges);
    tcase_add_test(t, layer_norm);
    tcase_add_test(t, group_norms);
    tcase_add_test(t, other_norms);
    tcase_add_test(t, arg_and_cumulative);
    tcase_add_test(t, quantise);
    return h_main("math rows", t);
}
