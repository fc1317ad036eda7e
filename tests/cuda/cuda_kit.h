/* Runs one operator on the CUDA device and on the CPU device and compares: for tests of the CUDA
 * backend's kernels. The CUDA device is the emulated one (TRM_CUDA_MODULE and TRM_CUDA_DRIVER are
 * set by CTest) or, on a machine with a GPU, the real one: the tests do not know.
 *
 * A test: fill a `cuda_case`, call cuda_check. Shapes of outputs are the test's. */
#ifndef TRM_TESTS_CUDA_CUDA_KIT_H
#define TRM_TESTS_CUDA_CUDA_KIT_H

#include "kernels/cuda_module.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_ARGS 16

static trm_device *kit_cpu, *kit_gpu;
static trm_arena *kit_arena; /* of one test */
static uint32_t kit_seed = 1;

typedef struct cuda_case {
    const char *name; /* of the row, for messages */
    trm_op op;
    trm_attrs *attrs;
    trm_tensor in[CUDA_ARGS], out[CUDA_ARGS]; /* in: plain host data; out: dtype and dims */
    int in_count, out_count;
    bool known[CUDA_ARGS];         /* prepare sees the data of this input (shape inputs, weights) */
    trm_layout arrives[CUDA_ARGS]; /* layout in which the CUDA kernel is offered this input */
    trm_post posts[TRM_POST_MAX];
    int post_count;
    double atol, rtol; /* 0, 0: equal to the bit (NaN equals NaN) */
    bool as_f32; /* 16-bit operands: the CPU device gets the same values in fp32, so that what is
                    compared is the CUDA kernel against an exact result */
    trm_status want_prepare; /* what the CUDA device's prepare must say; others are not run */
    /* filled in */
    const char *kernel;                            /* name of the CUDA kernel that ran */
    trm_layout wanted[CUDA_ARGS], gave[CUDA_ARGS]; /* layouts that it settled on */
} cuda_case;

/* ---- making tensors ---- */
static inline trm_tensor kit_tensor(trm_dtype dtype, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype};

    for (; dims[t.rank] >= 0; t.rank++)
        t.dims[t.rank] = dims[t.rank];
    return t;
}
/* KIT_T(TRM_DTYPE_F32, 2, 3): no data; KIT_T(TRM_DTYPE_F32) is a scalar */
#define KIT_T(...) KIT_T_(__VA_ARGS__, -1)
#define KIT_T_(dtype, ...) kit_tensor((dtype), (const int64_t[]){__VA_ARGS__})

static inline trm_tensor kit_data(trm_tensor t)
{
    size_t bytes;

    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    t.data = trm_arena_alloc_aligned(kit_arena, bytes + TRM_ALIGN);
    ck_assert_ptr_nonnull(t.data);
    return t;
}

static inline double kit_uniform(double lo, double hi)
{
    kit_seed = kit_seed * 1664525u + 1013904223u;
    return lo + (hi - lo) * (double)(kit_seed >> 8) / 16777216.0;
}

/* Uniform in [lo, hi), rounded to the dtype (integers: floor). */
static inline trm_tensor kit_random(trm_tensor t, double lo, double hi)
{
    t = kit_data(t);
    for (size_t i = 0; i < trm_tensor_numel(&t); i++) {
        double v = kit_uniform(lo, hi);

        trm_tensor_set_f64(&t, i, trm_dtype_is_float(t.dtype) ? v : floor(v));
    }
    return t;
}

static inline trm_tensor kit_values(trm_tensor t, const double *values)
{
    t = kit_data(t);
    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        trm_tensor_set_f64(&t, i, values[i]);
    return t;
}
/* KIT_V(KIT_T(TRM_DTYPE_I64, 2), 0, 1) */
#define KIT_V(t, ...) kit_values((t), (const double[]){__VA_ARGS__})

static inline trm_attrs *kit_attrs(void)
{
    trm_attrs *a = trm_arena_alloc(kit_arena, 1, sizeof(*a));

    ck_assert_ptr_nonnull(a);
    return a;
}
static inline trm_attrs *kit_int(trm_attrs *a, const char *name, int64_t v)
{
    ck_assert_int_eq(trm_attr_set_int(a, kit_arena, name, v), TRM_OK);
    return a;
}
static inline trm_attrs *kit_float(trm_attrs *a, const char *name, float v)
{
    ck_assert_int_eq(trm_attr_set_float(a, kit_arena, name, v), TRM_OK);
    return a;
}
static inline trm_attrs *kit_string(trm_attrs *a, const char *name, const char *v)
{
    ck_assert_int_eq(trm_attr_set_string(a, kit_arena, name, v), TRM_OK);
    return a;
}
static inline trm_attrs *kit_ints(trm_attrs *a, const char *name, const int64_t *v, size_t count)
{
    ck_assert_int_eq(trm_attr_set_ints(a, kit_arena, name, v, count), TRM_OK);
    return a;
}

#include "tests/cuda/cuda_kit_run.h"

#endif
