/* Runs one operator on the CPU device with host tensors: for the tests of the arithmetic kernels.
 */
#ifndef TRM_TESTS_KERNELS_MATH_HARNESS_H
#define TRM_TESTS_KERNELS_MATH_HARNESS_H

#include "kernels/device.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define H_ARGS 16
static trm_device *h_device;
static trm_arena *h_arena;
static uint32_t h_seed = 1;

static inline void h_setup(void)
{
    ck_assert_int_eq(trm_device_cpu_create(2, &h_device), TRM_OK);
    ck_assert_int_eq(trm_arena_create(0, &h_arena), TRM_OK);
    h_seed = 1;
}

static inline void h_teardown(void)
{
    trm_device_destroy(h_device);
    trm_arena_destroy(h_arena);
}

/* A zeroed tensor; the list of dims ends with -1. */
static inline trm_tensor h_tensor(trm_dtype dtype, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype};
    size_t bytes;

    for (; dims[t.rank] >= 0; t.rank++)
        t.dims[t.rank] = dims[t.rank];
    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    t.data = trm_arena_alloc_aligned(h_arena, bytes + 64);
    ck_assert_ptr_nonnull(t.data);
    return t;
}
#define H_TENSOR(dtype, ...) h_tensor((dtype), (const int64_t[]){__VA_ARGS__, -1})
#define H_SCALAR(dtype) h_tensor((dtype), (const int64_t[]){-1})

static inline trm_tensor h_fill(trm_tensor t, const double *values)
{
    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        trm_tensor_set_f64(&t, i, values[i]);
    return t;
}
#define H_FILL(t, ...) h_fill((t), (const double[]){__VA_ARGS__})

static inline double h_uniform(double lo, double hi)
{
    h_seed = h_seed * 1664525u + 1013904223u;
    return lo + (hi - lo) * (double)(h_seed >> 8) / 16777216.0;
}

static inline trm_tensor h_random(trm_tensor t, double lo, double hi)
{
    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        trm_tensor_set_f64(&t, i, h_uniform(lo, hi));
    return t;
}

/* Prepares and runs; outputs are given memory if they have none. Returns what prepare or run said.
 */
static inline trm_status h_run(trm_op op, const trm_attrs *attrs, const trm_tensor *in,
                               int in_count, trm_tensor *out, int out_count)
{
    trm_tensor inputs[H_ARGS];
    uint64_t keys[H_ARGS] = {0};
    const void *in_data[H_ARGS];
    void *out_data[H_ARGS];
    trm_op_desc desc = {.op = op,
                        .attrs = attrs,
                        .name = "test",
                        .input_count = in_count,
                        .output_count = out_count,
                        .inputs = inputs,
                        .outputs = out,
                        .weight_keys = keys};
    trm_kernel *k = NULL;
    void *workspace;
    trm_status st;

    for (int i = 0; i < in_count; i++) {
        inputs[i] = in[i];
        in_data[i] = in[i].data;
    }
    for (int i = 0; i < out_count; i++) {
        size_t bytes;

        ck_assert_int_eq(trm_tensor_bytes(&out[i], &bytes), TRM_OK);
        if (out[i].data == NULL && out[i].dtype != TRM_DTYPE_NONE)
            out[i].data = trm_arena_alloc_aligned(h_arena, bytes + 64);
        out_data[i] = out[i].data;
    }
    st = h_device->ops->prepare(h_device, &desc, &k);
    if (st != TRM_OK)
        return st;
    for (int i = 0; i < in_count; i++)
        ck_assert_int_eq(inputs[i].layout, in[i].layout);
    workspace = trm_arena_alloc_aligned(h_arena, k->workspace_bytes + 64);
    st = k->ops->run(k, NULL, in_data, out_data, workspace);
    trm_kernel_destroy(k);
    return st;
}

static inline void h_ok(trm_op op, const trm_attrs *attrs, const trm_tensor *in, int in_count,
                        trm_tensor *out, int out_count)
{
    trm_status st = h_run(op, attrs, in, in_count, out, out_count);

    ck_assert_msg(st == TRM_OK, "%s: %s", trm_op_get(op)->name, trm_message());
}

/* |got - want| <= atol + rtol |want|, NaN equal to NaN only, infinities equal only to themselves */
static inline void h_near(const trm_tensor *got, size_t i, double want, double atol, double rtol,
                          const char *what)
{
    double g = trm_tensor_get_f64(got, i);

    if ((isnan(g) && isnan(want)) || g == want)
        return;
    ck_assert_msg(fabs(g - want) <= atol + rtol * fabs(want), "%s[%zu]: got %.9g, want %.9g", what,
                  i, g, want);
}

static inline void h_all_near(const trm_tensor *got, const double *want, double atol, double rtol,
                              const char *what)
{
    for (size_t i = 0; i < trm_tensor_numel(got); i++)
        h_near(got, i, want[i], atol, rtol, what);
}
#define H_WANT(t, tol, ...) h_all_near(&(t), (const double[]){__VA_ARGS__}, (tol), (tol), #t)

static inline trm_attrs *h_attrs(void)
{
    trm_attrs *a = trm_arena_alloc(h_arena, 1, sizeof(*a));

    ck_assert_ptr_nonnull(a);
    return a;
}
static inline trm_attrs *h_int(trm_attrs *a, const char *name, int64_t v)
{
    ck_assert_int_eq(trm_attr_set_int(a, h_arena, name, v), TRM_OK);
    return a;
}
static inline trm_attrs *h_float(trm_attrs *a, const char *name, float v)
{
    ck_assert_int_eq(trm_attr_set_float(a, h_arena, name, v), TRM_OK);
    return a;
}
static inline trm_attrs *h_string(trm_attrs *a, const char *name, const char *v)
{
    ck_assert_int_eq(trm_attr_set_string(a, h_arena, name, v), TRM_OK);
    return a;
}

/* Runs the suite's one case without forking (the team's threads do not survive a fork). */
static inline int h_main(const char *name, TCase *t)
{
    Suite *s = suite_create(name);
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, h_setup, h_teardown);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
