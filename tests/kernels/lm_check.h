/* For tests of language models' products: random numbers, weights in a float dtype, and a small
 * reference of the summation tree, written from its definition. */
#ifndef TRM_TESTS_KERNELS_LM_CHECK_H
#define TRM_TESTS_KERNELS_LM_CHECK_H

#include "kernels/cpu/lm_linear.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t lm_seed = 1;

static inline uint32_t lm_random(void)
{
    lm_seed = lm_seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(lm_seed >> 33);
}

/* in [-1, 1) */
static inline float lm_uniform(void)
{
    return (float)((double)lm_random() / (double)(1u << 30) - 1.0);
}

static inline size_t lm_below(size_t n)
{
    return lm_random() % n;
}

static inline void *lm_alloc(size_t bytes)
{
    void *p = trm_aligned_malloc(bytes + 64);

    ck_assert_ptr_nonnull(p);
    memset(p, 0xa5, bytes + 64);
    return p;
}

static inline float *lm_random_floats(size_t count)
{
    float *p = lm_alloc(count * sizeof(*p));

    for (size_t i = 0; i < count; i++)
        p[i] = lm_uniform();
    return p;
}

/* `count` random weights in a float dtype, as in a file; and what they are in fp32 */
static inline void *lm_random_weights(trm_dtype dtype, size_t count, float **plain_out)
{
    float *plain = lm_random_floats(count);
    uint16_t *half = lm_alloc(count * 4);

    for (size_t i = 0; i < count; i++) {
        if (dtype == TRM_DTYPE_F32)
            memcpy((char *)half + i * 4, &plain[i], 4);
        else if (dtype == TRM_DTYPE_F16)
            plain[i] = trm_f16_to_f32(half[i] = trm_f32_to_f16(plain[i]));
        else
            plain[i] = trm_bf16_to_f32(half[i] = trm_f32_to_bf16(plain[i]));
    }
    if (plain_out != NULL)
        *plain_out = plain;
    else
        trm_aligned_free(plain);
    return half;
}

/* What TrmReduceTree does: node [lo, hi) of parts that ranks hold, in the order of leaves; each
 * part [begins[i], ends[i]) has `elems` values. Writes to out. */
typedef struct lm_part {
    int lo, hi;
    const float *values;
} lm_part;

static inline void lm_tree_sum(const lm_part *parts, int count, int lo, int hi, size_t elems,
                               float *out)
{
    int mid = lo + (hi - lo) / 2;
    float *right;

    for (int i = 0; i < count; i++) {
        if (parts[i].lo == lo && parts[i].hi == hi) {
            memcpy(out, parts[i].values, elems * sizeof(float));
            return;
        }
    }
    ck_assert_int_gt(hi - lo, 1);
    right = lm_alloc(elems * sizeof(float));
    lm_tree_sum(parts, count, lo, mid, elems, out);
    lm_tree_sum(parts, count, mid, hi, elems, right);
    for (size_t i = 0; i < elems; i++)
        out[i] += right[i];
    trm_aligned_free(right);
}

static inline int lm_main(TCase *t, const char *name)
{
    Suite *s = suite_create(name);
    SRunner *r;
    int failed;

    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* a team of threads does not survive a fork */
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}

#endif
