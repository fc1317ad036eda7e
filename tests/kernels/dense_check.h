/* Runs one operator on the CPU device on random data in given dtypes and layouts, and again with
 * every tensor as f64 in plain layout, which only the scalar reference takes; compares. */
#ifndef TRM_TESTS_KERNELS_DENSE_CHECK_H
#define TRM_TESTS_KERNELS_DENSE_CHECK_H

#include "kernels/device.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define CASE_INPUTS 8

typedef struct op_case {
    const char *name;
    trm_op op;
    int input_count;
    trm_tensor in[CASE_INPUTS]; /* dtype, layout (as it arrives), rank, dims */
    uint32_t constant;          /* bit i: input i is a weight */
    trm_tensor out;
    trm_attr attrs[8];
    int attr_count;
    trm_post posts[TRM_POST_MAX];
    int post_count;
    double tolerance; /* of the output's largest magnitude; 0: 1e-5 */
} op_case;

static uint64_t case_seed;

static inline double case_random(void)
{
    case_seed = case_seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(case_seed >> 33) / (double)(1u << 30) - 1.0;
}

static inline void *case_alloc(const trm_tensor *t)
{
    size_t bytes = 0;
    void *p;

    ck_assert_int_eq(trm_tensor_bytes(t, &bytes), TRM_OK);
    p = trm_aligned_malloc(bytes);
    ck_assert_ptr_nonnull(p);
    memset(p, 0xcd, bytes);
    return p;
}

/* A new tensor of t's elements in another dtype and layout. */
static inline trm_tensor case_convert(trm_device *d, const trm_tensor *t, trm_dtype dtype,
                                      trm_layout layout)
{
    trm_tensor to = *t;
    trm_kernel *k = NULL;
    const void *in[1] = {t->data};
    void *out[1], *workspace;

    to.dtype = dtype;
    to.layout = layout;
    to.data = out[0] = case_alloc(&to);
    ck_assert_msg(d->ops->prepare_reorder(d, t, &to, &k) == TRM_OK, "%s", trm_message());
    workspace = trm_aligned_malloc(k->workspace_bytes);
    ck_assert_int_eq(k->ops->run(k, NULL, in, out, workspace), TRM_OK);
    trm_aligned_free(workspace);
    trm_kernel_destroy(k);
    return to;
}

/* Runs with `values` (plain); returns the plain output in its dtype. */
static inline trm_tensor case_run(trm_device *d, const op_case *c, const trm_tensor *values,
                                  const trm_tensor *out_like, bool constants)
{
    static uint64_t next_key = 1;
    trm_attrs attrs = {.items = (trm_attr *)(uintptr_t)c->attrs, .count = c->attr_count};
    trm_tensor inputs[CASE_INPUTS], held[CASE_INPUTS], out = *out_like, plain;
    uint64_t keys[CASE_INPUTS];
    const void *in[CASE_INPUTS];
    void *outs[1], *workspace;
    trm_op_desc desc = {.op = c->op, .attrs = &attrs, .name = c->name};
    trm_kernel *k = NULL;
    uint64_t before;

    memset(inputs, 0, sizeof(inputs));
    for (int i = 0; i < c->input_count; i++) {
        inputs[i] = values[i];
        inputs[i].layout = values[i].layout;
        keys[i] = next_key++;
        if (!constants || !(c->constant >> i & 1))
            inputs[i].data = NULL;
    }
    desc.inputs = inputs;
    desc.outputs = &out;
    desc.input_count = c->input_count;
    desc.output_count = 1;
    desc.weight_keys = keys;
    desc.post_count = c->post_count;
    memcpy(desc.posts, c->posts, sizeof(desc.posts));
    ck_assert_msg(d->ops->prepare(d, &desc, &k) == TRM_OK, "%s: %s", c->name, trm_message());
    for (int i = 0; i < c->input_count; i++) {
        held[i].data = NULL;
        in[i] = NULL;
        if (values[i].dtype == TRM_DTYPE_NONE || k->packed_inputs >> i & 1)
            continue;
        held[i] = case_convert(d, &values[i], values[i].dtype, inputs[i].layout);
        in[i] = held[i].data;
    }
    outs[0] = out.data = case_alloc(&out);
    workspace = trm_aligned_malloc(k->workspace_bytes);
    before = trm_alloc_calls();
    for (int times = 0; times < 2; times++)
        ck_assert_msg(k->ops->run(k, NULL, in, outs, workspace) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_alloc_calls() == before, "%s: run allocates", c->name);
    plain = case_convert(d, &out, out.dtype, TRM_LAYOUT_PLAIN);
    trm_kernel_destroy(k);
    trm_aligned_free(workspace);
    trm_aligned_free(out.data);
    for (int i = 0; i < c->input_count; i++)
        trm_aligned_free(held[i].data);
    return plain;
}

static inline void case_check(trm_device *d, const op_case *c, bool constants)
{
    trm_tensor values[CASE_INPUTS], wide[CASE_INPUTS], want_like = c->out, got, want;
    double tolerance = c->tolerance > 0.0 ? c->tolerance : 1e-5, scale = 0.0, worst = 0.0;
    op_case twin = *c;

    case_seed = 0x1234u + (uint64_t)c->op;
    memset(values, 0, sizeof(values));
    memset(wide, 0, sizeof(wide));
    for (int i = 0; i < c->input_count; i++) {
        trm_tensor plain = c->in[i];

        if (plain.dtype == TRM_DTYPE_NONE)
            continue;
        plain.layout = TRM_LAYOUT_PLAIN;
        plain.data = case_alloc(&plain);
        for (size_t e = 0; e < trm_tensor_numel(&plain); e++)
            trm_tensor_set_f64(&plain, e, case_random());
        wide[i] = case_convert(d, &plain, TRM_DTYPE_F64, TRM_LAYOUT_PLAIN);
        values[i] = case_convert(d, &plain, plain.dtype, c->in[i].layout);
        trm_aligned_free(plain.data);
    }
    want_like.dtype = TRM_DTYPE_F64;
    got = case_run(d, c, values, &c->out, constants);
    want = case_run(d, &twin, wide, &want_like, constants);
    for (size_t e = 0; e < trm_tensor_numel(&want); e++)
        scale = fmax(scale, fabs(trm_tensor_get_f64(&want, e)));
    for (size_t e = 0; e < trm_tensor_numel(&want); e++) {
        double error = fabs(trm_tensor_get_f64(&want, e) - trm_tensor_get_f64(&got, e));

        ck_assert_msg(error <= tolerance * (scale + 1e-6), "%s[%zu]: got %g, want %g", c->name, e,
                      trm_tensor_get_f64(&got, e), trm_tensor_get_f64(&want, e));
        worst = fmax(worst, error);
    }
    for (int i = 0; i < c->input_count; i++) {
        trm_aligned_free(values[i].data);
        trm_aligned_free(wide[i].data);
    }
    trm_aligned_free(got.data);
    trm_aligned_free(want.data);
}

/* shorthands for tables */
#define T_F32(layout_, ...)                                                                        \
    {                                                                                              \
        .dtype = TRM_DTYPE_F32, .layout = TRM_LAYOUT_##layout_,                                    \
        .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dims = {               \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define T_OF(dtype_, layout_, ...)                                                                 \
    {                                                                                              \
        .dtype = TRM_DTYPE_##dtype_, .layout = TRM_LAYOUT_##layout_,                               \
        .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dims = {               \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define A_INTS(name_, ...)                                                                         \
    {                                                                                              \
        .name = name_, .kind = TRM_ATTR_INTS,                                                      \
        .count = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .v.ints = (const int64_t[])   \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define A_INT(name_, value_)                                                                       \
    {                                                                                              \
        .name = name_, .kind = TRM_ATTR_INT, .count = 1, .v.i = (value_)                           \
    }
#define A_FLOAT(name_, value_)                                                                     \
    {                                                                                              \
        .name = name_, .kind = TRM_ATTR_FLOAT, .count = 1, .v.f = (value_)                         \
    }
#define A_STRING(name_, value_)                                                                    \
    {                                                                                              \
        .name = name_, .kind = TRM_ATTR_STRING, .count = 1, .v.s = (value_)                        \
    }

static inline int case_main(TCase *t, const char *suite_name)
{
    Suite *s = suite_create(suite_name);
    SRunner *r = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_set_timeout(t, 100);
    srunner_set_fork_status(r, CK_NOFORK); /* the OpenMP team does not survive a fork */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}

#endif
