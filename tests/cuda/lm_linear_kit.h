/* What tests of the CUDA backend's products of language models share. */
#ifndef TRM_TESTS_CUDA_LM_LINEAR_KIT_H
#define TRM_TESTS_CUDA_LM_LINEAR_KIT_H

#include "tests/cuda/cuda_kit.h"

#include "kernels/cuda/lm_linear.h"

#define F32 TRM_DTYPE_F32
#define F16 TRM_DTYPE_F16
#define BF16 TRM_DTYPE_BF16

static const struct kind {
    const char *name;
    trm_dtype weight, act;
} kinds[] = {{"f32", F32, F32},
             {"bf16 exact", BF16, F32},
             {"f16 exact", F16, F32},
             {"bf16", BF16, BF16},
             {"f16", F16, F16}};
#define KINDS (int)(sizeof(kinds) / sizeof(kinds[0]))

static inline trm_attrs *attrs_of(trm_dtype act)
{
    trm_attrs *a = kit_attrs();

    if (act != F32)
        kit_string(a, "act", act == BF16 ? "bf16" : "f16");
    return a;
}

/* rows [row, row + rows) of [m, width] */
static inline trm_tensor rows_of(trm_tensor t, int64_t row, int64_t rows)
{
    size_t one = (size_t)t.dims[1] * trm_dtype_bytes(t.dtype);

    t.data = (char *)t.data + (size_t)row * one;
    t.dims[0] = rows;
    return t;
}

static inline cuda_case linear_case(const char *name, trm_attrs *attrs, trm_tensor x, trm_tensor w,
                                    const trm_tensor *bias)
{
    bool turned = trm_attr_int(attrs, "transposed", 0) != 0;
    cuda_case c = {.name = name, .op = TRM_OP_TrmLinear, .in_count = bias != NULL ? 3 : 2};

    c.attrs = attrs;
    c.in[0] = x;
    c.in[1] = w;
    c.known[1] = true;
    if (bias != NULL)
        c.in[2] = *bias;
    c.out_count = 1;
    c.out[0] = KIT_T(F32, x.dims[0], w.dims[turned ? 1 : 0]);
    return c;
}

static inline trm_tensor run(cuda_case *c)
{
    trm_tensor out[CUDA_ARGS];

    KIT_OK(kit_run(c, kit_gpu, out));
    return out[0];
}

/* on the device */
static inline trm_tensor linear(const char *name, trm_dtype act, trm_tensor x, trm_tensor w,
                                const trm_tensor *bias)
{
    cuda_case c = linear_case(name, attrs_of(act), x, w, bias);

    return run(&c);
}

/* `got` in `dtype` are the bits of floats rounded to it */
static inline void same_rounded(const char *name, trm_dtype dtype, const void *got,
                                const float *floats, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t want = dtype == BF16 ? trm_f32_to_bf16(floats[i]) : trm_f32_to_f16(floats[i]);

        ck_assert_msg(((const uint16_t *)got)[i] == want,
                      "%s, rounded: number %zu is %04x, not %04x", name, i,
                      ((const uint16_t *)got)[i], want);
    }
}

static inline void same(const char *name, const char *what, const void *a, const void *b,
                        size_t floats)
{
    const uint32_t *x = a, *y = b;

    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    for (size_t i = 0; i < floats; i++)
        ck_assert_msg(x[i] == y[i], "%s, %s: number %zu is %08x, want %08x", name, what, i, x[i],
                      y[i]);
}

#endif
