/* Row functions of language models (kernels/language.h), compiled once for each instruction set
 * from lm_rows_body.h. What a row gives depends on that row alone: sums run in 64 lanes whatever
 * the vectors' width, and the rest is element by element. */
#ifndef TRM_KERNELS_CPU_LM_ROWS_H
#define TRM_KERNELS_CPU_LM_ROWS_H

#include "kernels/cpu/cpu.h"

#define TRMI_LM_ROTARY_MAX 1024 /* rotated elements of a head: their angles lie on the stack */

typedef enum trmi_lm_act {
    TRMI_LM_NONE,
    TRMI_LM_SILU,
    TRMI_LM_GELU,
    TRMI_LM_GELU_TANH,
    TRMI_LM_RELU,
    TRMI_LM_TANH,
    TRMI_LM_SOFTCAP,
    TRMI_LM_ACT_COUNT
} trmi_lm_act;
/* "silu", ...; COUNT if unknown. */
trmi_lm_act trmi_lm_act_from_name(const char *name);

typedef struct trmi_lm_norm {
    size_t n; /* elements of a group */
    bool layer;
    double epsilon;
    float offset;
    const float *gain, *bias; /* [n]; bias may be NULL */
} trmi_lm_norm;

typedef struct trmi_lm_rope {
    size_t heads, head_dim, half; /* half: pairs, at most TRMI_LM_ROTARY_MAX / 2 */
    bool interleaved;
    float scale;
    const float *frequencies; /* [half] */
} trmi_lm_rope;

typedef struct trmi_lm_rows {
    /* out = x + y; out may be x or y */
    void (*add)(size_t n, float *out, const float *x, const float *y);
    /* one group; out may be x */
    void (*norm)(const trmi_lm_norm *p, float *out, const float *x);
    /* one row of all heads; out may be x */
    void (*rope)(const trmi_lm_rope *p, float *out, const float *x, int32_t position);
    /* out = act(x) * up; up may be NULL; out may be x or up; `cap` of SOFTCAP */
    void (*act[TRMI_LM_ACT_COUNT])(float cap, size_t n, float *out, const float *x,
                                   const float *up);
    /* x divided by its length; zeros stay */
    void (*unit)(float *x, size_t n);
} trmi_lm_rows;
extern const trmi_lm_rows trmi_lm_rows_base, trmi_lm_rows_avx2, trmi_lm_rows_avx512;
const trmi_lm_rows *trmi_lm_rows_get(void);

/* Attributes and weights of a TrmNorm: the weight is input `gain`, a bias the next (norm_out->bias
 * is then not NULL; the pointers are run's to set). */
TRM_MUST_USE trm_status trmi_lm_norm_settle(const trm_op_desc *desc, int gain,
                                            trmi_lm_norm *norm_out);

/* Input i must be there, of `dtype` (NONE: any) and `rank`: UNSUPPORTED, INVALID_ARG otherwise. */
TRM_MUST_USE trm_status trmi_lm_want(const trm_op_desc *desc, int i, trm_dtype dtype, int rank);
/* TrmPagedAttention without rope: lm_attention.c; lm_fused.c turns q and k before it. */
TRM_MUST_USE trm_status trmi_prepare_lm_attention_plain(trm_cpu *cpu, trm_op_desc *desc,
                                                        trm_kernel **kernel_out);
/* UNSUPPORTED for a node that rounds its rows for the products behind it: devices' forms. */
TRM_MUST_USE trm_status trmi_lm_not_rounded(const trm_op_desc *desc);
/* Begins a prepare: no post-ops, plain layouts, rows not rounded, an F32 output of `rank` dims. */
TRM_MUST_USE trm_status trmi_lm_begin(trm_op_desc *desc, int rank);

#endif
