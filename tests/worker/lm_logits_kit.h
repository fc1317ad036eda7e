/* What tests/worker/test_lm_logits.c compares and how closely: checkpoints, precisions, bounds; and
 * what was seen of them. */
#ifndef TRM_TESTS_WORKER_LM_LOGITS_KIT_H
#define TRM_TESTS_WORKER_LM_LOGITS_KIT_H

#include "tests/worker/lm_kit.h"

#include "base/npy.h"

#include <math.h>

/* How matrices are stored. */
typedef enum lm_weights {
    LM_F32,
    LM_BF16,
    LM_F16,
    LM_FP8,
    LM_INT8,
    LM_INT4,
    LM_WEIGHTS
} lm_weights;

/* HALF: the default of devices, activations rounded to the weights' type and a cache of that type;
 * on the CPU --dtype bf16. CACHE8: likewise, with --kv-dtype i8. */
typedef enum lm_mode { LM_FP32, LM_HALF, LM_CACHE8, LM_MODES } lm_mode;

static const char *const lm_weights_names[LM_WEIGHTS] = {"f32", "bf16", "f16",
                                                         "fp8", "int8", "int4"};
static const char *const lm_mode_names[LM_MODES] = {"fp32", "half", "cache8"};

/* The largest error of a logit. FP32: absolute, and what is left is the order of sums; but with
 * block types activations are rounded to int8 on both sides, and a last bit may decide how. Else a
 * share of the reference's largest logit, as tests/networks has it. HALF: bf16 is what PyTorch's
 * own bf16 keeps for few of these checkpoints (they err by 0.014 to 0.24); a router that then
 * chooses another expert is part of it. A cache in fp16 turns int8 activations the other way, which
 * is why block types err by more than fp16 does. */
static const double lm_bounds[LM_MODES][LM_WEIGHTS] = {
    [LM_FP32] = {2e-4, 2e-4, 2e-4, 2e-4, 2e-2, 2e-2},
    [LM_HALF] = {2e-4, 8e-2, 1e-2, 6e-2, 6e-2, 6e-2},
    [LM_CACHE8] = {0.15, 0.15, 0.1, 0.15, 0.15, 0.15},
};

typedef struct lm_seen {
    int rows;
    double worst;         /* error */
    char where[64];       /* of it */
    int tokens, the_same; /* positions; of them, whose likeliest token is PyTorch's */
} lm_seen;

static lm_seen lm_saw[LM_MODES][LM_WEIGHTS];

static inline lm_precision lm_precision_of(lm_mode mode)
{
    bool device = getenv("TRM_TEST_DEVICE") != NULL;
    lm_precision p = {.name = lm_mode_names[mode]};

    if (mode != LM_FP32) {
        p.as_weights = device;
        p.act = device ? TRM_DTYPE_NONE : TRM_DTYPE_BF16;
        p.kv = mode == LM_CACHE8 ? TRM_DTYPE_I8 : TRM_DTYPE_NONE;
    }
    return p;
}

static inline void lm_note(lm_mode mode, lm_weights weights, const char *where, double error,
                           int tokens, int the_same)
{
    lm_seen *s = &lm_saw[mode][weights];

    s->rows++;
    s->tokens += tokens;
    s->the_same += the_same;
    if (error > s->worst) {
        s->worst = error;
        snprintf(s->where, sizeof(s->where), "%s", where);
    }
}

static inline void lm_print_seen(void)
{
    for (int m = 0; m < LM_MODES; m++)
        for (int w = 0; w < LM_WEIGHTS; w++) {
            const lm_seen *s = &lm_saw[m][w];

            if (s->rows > 0)
                printf("%-6s %-4s weights: %2d rows, largest error %.2g (%s), bound %g; likeliest "
                       "tokens %d of %d\n",
                       lm_mode_names[m], lm_weights_names[w], s->rows, s->worst, s->where,
                       lm_bounds[m][w], s->the_same, s->tokens);
        }
}

/* ---- references ---- */

typedef struct reference {
    trm_arena *arena;
    trm_npz *file;
} reference;

static inline void close_reference(reference *f)
{
    trm_npz_close(f->file);
    trm_arena_destroy(f->arena);
}

static inline trm_tensor array(reference *f, const char *name)
{
    int at = trm_npz_find(f->file, name);
    trm_npy *npy = NULL;
    trm_tensor t;

    ck_assert_msg(at >= 0, "the reference has no '%s'", name);
    OK(trm_npz_get(f->file, at, &npy));
    t = *trm_npy_desc(npy);
    t.data = trm_arena_alloc_aligned(f->arena, trm_npy_row_bytes(npy) * (size_t)t.dims[0]);
    ck_assert_ptr_nonnull(t.data);
    OK(trm_npy_read_rows(npy, 0, t.dims[0], t.data));
    trm_npy_close(npy);
    return t;
}

static inline double largest_error(const float *got, const float *want, size_t count)
{
    double worst = 0.0;

    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - (double)want[i]);

        if (!(error <= worst))
            worst = isnan(error) ? HUGE_VAL : error;
    }
    return worst;
}

static inline double largest_of(const float *x, size_t count)
{
    double most = 0.0;

    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)x[i]));
    return most;
}

static inline int32_t largest(const float *x, size_t count)
{
    size_t best = 0;

    for (size_t i = 1; i < count; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}
#endif
