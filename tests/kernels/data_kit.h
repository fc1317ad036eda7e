/* Runs one CPU kernel in a test: describe inputs and outputs, run, look at the bytes. Shapes of
 * outputs are given by the test, so that kernels are tested without the shape rules. */
#ifndef TRM_TESTS_KERNELS_DATA_KIT_H
#define TRM_TESTS_KERNELS_DATA_KIT_H

#include "kernels/device.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define KIT_ARGS 8

typedef struct kit {
    trm_device *device;
    trm_arena *arena;
    trm_attrs attrs;
    trm_tensor in[KIT_ARGS], out[KIT_ARGS];
    const void *in_data[KIT_ARGS]; /* what run gets; desc gets it too where `known` is set */
    bool known[KIT_ARGS];
    int in_count, out_count;
    trm_layout settled_in[KIT_ARGS]; /* after prepare */
    uint32_t rng;
} kit;

static trm_device *kit_device; /* one team for the whole program */

static inline void kit_open(kit *k, trm_op op)
{
    (void)op;
    memset(k, 0, sizeof(*k));
    if (kit_device == NULL)
        ck_assert_int_eq(trm_device_cpu_create(2, &kit_device), TRM_OK);
    k->device = kit_device;
    ck_assert_int_eq(trm_arena_create(0, &k->arena), TRM_OK);
    k->rng = 12345;
}

static inline void kit_close(kit *k)
{
    trm_arena_destroy(k->arena);
}

static inline uint32_t kit_random(kit *k)
{
    k->rng = k->rng * 1664525u + 1013904223u;
    return k->rng >> 8;
}

static inline trm_tensor kit_tensor(trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    return t;
}

#define KIT_DIMS(...)                                                                              \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                   \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* An input with given bytes; `known`: its value is there at prepare (shape inputs, weights). */
static inline void kit_in(kit *k, trm_dtype dtype, const void *data, bool known, int rank,
                          const int64_t *dims)
{
    trm_tensor *t = &k->in[k->in_count];
    size_t bytes;
    void *copy;

    *t = kit_tensor(dtype, rank, dims);
    ck_assert_int_eq(trm_tensor_bytes(t, &bytes), TRM_OK);
    copy = trm_arena_alloc_aligned(k->arena, bytes + 1);
    if (bytes > 0 && data != NULL)
        memcpy(copy, data, bytes);
    k->in_data[k->in_count] = copy;
    k->known[k->in_count] = known;
    k->in_count++;
}

/* An input of random bytes (floats: random numbers in [-1, 1)). Returns it. */
static inline void *kit_in_random(kit *k, trm_dtype dtype, int rank, const int64_t *dims)
{
    unsigned char *p;
    size_t bytes;

    kit_in(k, dtype, NULL, false, rank, dims);
    ck_assert_int_eq(trm_tensor_bytes(&k->in[k->in_count - 1], &bytes), TRM_OK);
    p = (unsigned char *)(uintptr_t)k->in_data[k->in_count - 1];
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(dtype == TRM_DTYPE_BOOL ? kit_random(k) & 1 : kit_random(k));
    for (size_t i = 0; i < bytes / 4 && dtype == TRM_DTYPE_F32; i++)
        ((float *)(void *)p)[i] = (float)(kit_random(k) % 20000) / 10000.0f - 1.0f;
    return p;
}

static inline void kit_in_absent(kit *k)
{
    memset(&k->in[k->in_count], 0, sizeof(trm_tensor));
    k->in_data[k->in_count++] = NULL;
}

static inline void kit_ints(kit *k, const int64_t *values, int64_t count)
{
    kit_in(k, TRM_DTYPE_I64, values, true, 1, &count);
}

static inline void kit_out(kit *k, trm_dtype dtype, int rank, const int64_t *dims)
{
    k->out[k->out_count++] = kit_tensor(dtype, rank, dims);
}

static inline void kit_attr_int(kit *k, const char *name, int64_t v)
{
    ck_assert_int_eq(trm_attr_set_int(&k->attrs, k->arena, name, v), TRM_OK);
}

static inline void kit_attr_float(kit *k, const char *name, float v)
{
    ck_assert_int_eq(trm_attr_set_float(&k->attrs, k->arena, name, v), TRM_OK);
}

static inline void kit_attr_string(kit *k, const char *name, const char *v)
{
    ck_assert_int_eq(trm_attr_set_string(&k->attrs, k->arena, name, v), TRM_OK);
}

static inline void kit_attr_ints(kit *k, const char *name, const int64_t *v, size_t n)
{
    ck_assert_int_eq(trm_attr_set_ints(&k->attrs, k->arena, name, v, n), TRM_OK);
}

static inline trm_status kit_sink(void *ctx, int output, int rank, const int64_t *dims,
                                  void **data_out)
{
    kit *k = (kit *)ctx;
    size_t bytes;

    k->out[output] = kit_tensor(k->out[output].dtype, rank, dims);
    ck_assert_int_eq(trm_tensor_bytes(&k->out[output], &bytes), TRM_OK);
    k->out[output].data = trm_arena_alloc_aligned(k->arena, bytes + 1);
    *data_out = k->out[output].data;
    return TRM_OK;
}

/* Prepares and runs; outputs' data are in k->out[i].data (guard bytes behind them are checked). */
static inline trm_status kit_run(kit *k, trm_op op)
{
    trm_tensor in[KIT_ARGS];
    uint64_t keys[KIT_ARGS] = {0};
    void *out[KIT_ARGS] = {NULL};
    size_t bytes[KIT_ARGS] = {0};
    trm_op_desc desc = {.op = op,
                        .attrs = &k->attrs,
                        .name = "node",
                        .input_count = k->in_count,
                        .output_count = k->out_count,
                        .inputs = in,
                        .outputs = k->out,
                        .weight_keys = keys};
    trm_kernel *kernel = NULL;
    void *workspace;
    trm_status st;
    bool dynamic = (trm_op_get(op)->flags & TRM_OPF_DATA_SHAPE) != 0;

    for (int i = 0; i < k->in_count; i++) {
        in[i] = k->in[i];
        in[i].data = k->known[i] ? (void *)(uintptr_t)k->in_data[i] : NULL;
    }
    ck_assert(k->device->ops->supports(k->device, &desc));
    st = k->device->ops->prepare(k->device, &desc, &kernel);
    if (st != TRM_OK)
        return st;
    for (int i = 0; i < k->in_count; i++)
        k->settled_in[i] = in[i].layout;
    workspace = trm_arena_alloc_aligned(k->arena, kernel->workspace_bytes + 1);
    memset(workspace, 0xa5, kernel->workspace_bytes);
    if (dynamic) {
        trm_output_sink sink = {.alloc = kit_sink, .ctx = k};

        st = kernel->ops->run_dynamic(kernel, NULL, k->in_data, &sink, workspace);
        trm_kernel_destroy(kernel);
        return st;
    }
    for (int i = 0; i < k->out_count; i++) {
        if (k->out[i].dtype == TRM_DTYPE_NONE)
            continue;
        ck_assert_int_eq(trm_tensor_bytes(&k->out[i], &bytes[i]), TRM_OK);
        out[i] = trm_arena_alloc_aligned(k->arena, bytes[i] + 64);
        memset(out[i], 0x5a, bytes[i] + 64);
        k->out[i].data = out[i];
    }
    st = kernel->ops->run(kernel, NULL, k->in_data, out, workspace);
    for (int i = 0; i < k->out_count; i++)
        for (size_t b = 0; out[i] != NULL && b < 64; b++)
            ck_assert_uint_eq(((unsigned char *)out[i])[bytes[i] + b], 0x5a);
    trm_kernel_destroy(kernel);
    return st;
}

static inline void kit_expect_bytes(const kit *k, int output, const void *want)
{
    size_t bytes;

    ck_assert_int_eq(trm_tensor_bytes(&k->out[output], &bytes), TRM_OK);
    if (bytes > 0)
        ck_assert_mem_eq(k->out[output].data, want, bytes);
}

static inline void kit_expect_f32(const kit *k, int output, const float *want, float tolerance)
{
    const float *got = (const float *)k->out[output].data;

    for (size_t i = 0; i < trm_tensor_numel(&k->out[output]); i++)
        ck_assert_msg(got[i] - want[i] <= tolerance && want[i] - got[i] <= tolerance,
                      "element %zu: got %g, want %g", i, (double)got[i], (double)want[i]);
}

static inline int kit_main(Suite *s)
{
    SRunner *r = srunner_create(s);
    int failed;

    srunner_set_fork_status(r, CK_NOFORK); /* OpenMP teams do not survive a fork */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    trm_device_destroy(kit_device);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
