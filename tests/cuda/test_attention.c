/* The CUDA backend's attention against the CPU's. */
#include "tests/cuda/cuda_kit.h"

#define F32 TRM_DTYPE_F32
#define F16 TRM_DTYPE_F16
#define BF16 TRM_DTYPE_BF16
#define F64 TRM_DTYPE_F64
#define NONE TRM_DTYPE_NONE

/* Values are in [-1, 1]. fp32: sums of up to some hundred products. 16 bits: the CPU gets the same
 * values in fp32; the result is rounded once, and each weight of v once. */
static void tolerate(cuda_case *c, trm_dtype dtype)
{
    double unit = dtype == BF16 ? 0x1p-8 : dtype == F16 ? 0x1p-11 : 0.0;

    c->as_f32 = unit > 0.0;
    c->rtol = unit > 0.0 ? unit : dtype == F64 ? 1e-12 : 1e-5;
    c->atol = unit > 0.0 ? unit : dtype == F64 ? 1e-12 : 3e-6;
}

/* ---- TrmAttention ---- */

enum mask_kind {
    NO_MASK,
    KEYS,        /* [b, 1, 1, kv] of 0 and -FLT_MAX */
    KEYS_INF,    /* the same with -inf, all of batch 0 */
    ONE_ROW,     /* [kv], random */
    FULL,        /* [b, h, q, kv], random with some -inf and a row of nothing else */
    ROWS_SHARED, /* [1, 1, q, kv] */
    HEADS,       /* [h, 1, kv] */
    COLUMN       /* [b, 1, q, 1] */
};

static const struct row {
    const char *name, *kernel;
    trm_dtype dtype, k_dtype, v_dtype; /* NONE: as dtype */
    int b, h, kv_heads, q, kv, d, vd, k_transposed;
    enum mask_kind mask;
    trm_dtype mask_dtype;
} rows[] = {
    {"bf16 5 x 16", "mma", BF16, 0, 0, 1, 3, 3, 5, 5, 16, 16, 0, NO_MASK, NONE},
    {"bf16 17 x 32", "mma", BF16, 0, 0, 1, 1, 1, 17, 17, 32, 32, 0, KEYS, F32},
    {"bf16 64 x 64", "mma", BF16, 0, 0, 1, 3, 3, 64, 64, 64, 64, 0, NO_MASK, NONE},
    {"bf16 65 x 64, turned", "mma", BF16, 0, 0, 2, 1, 1, 65, 65, 64, 64, 1, KEYS, BF16},
    {"bf16 130 x 64", "mma", BF16, 0, 0, 1, 1, 1, 130, 130, 64, 64, 0, FULL, F32},
    {"bf16 128 x 64, turned", "mma", BF16, 0, 0, 1, 1, 1, 128, 128, 64, 64, 1, KEYS_INF, F32},
    {"bf16 80, turned", "mma", BF16, 0, 0, 1, 1, 1, 17, 72, 80, 80, 1, ONE_ROW, F32},
    {"bf16 96", "mma", BF16, 0, 0, 1, 1, 1, 9, 70, 96, 90, 0, HEADS, F32},
    {"bf16 128", "mma", BF16, 0, 0, 1, 1, 1, 66, 66, 128, 128, 0, ROWS_SHARED, F32},
    {"bf16 128, turned", "mma", BF16, 0, 0, 1, 1, 1, 8, 72, 128, 112, 1, NO_MASK, NONE},
    {"bf16 32 wide tiles", "mma", BF16, 0, 0, 67, 4, 4, 66, 66, 32, 32, 0, NO_MASK, NONE},
    {"bf16 odd memory", "mma", BF16, 0, 0, 1, 2, 2, 9, 11, 21, 33, 0, COLUMN, F32},
    {"bf16 odd memory, turned", "mma", BF16, 0, 0, 1, 2, 2, 9, 11, 21, 33, 1, FULL, F16},
    {"bf16 groups", "mma", BF16, 0, 0, 2, 4, 2, 6, 9, 16, 24, 0, NO_MASK, NONE},
    {"bf16 two batches full", "mma", BF16, 0, 0, 2, 3, 3, 10, 12, 8, 8, 0, FULL, BF16},
    {"bf16 no keys", "mma", BF16, 0, 0, 1, 2, 2, 3, 0, 16, 16, 0, NO_MASK, NONE},
    {"bf16 one", "mma", BF16, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, NO_MASK, NONE},
    {"bf16 bool mask", "mma", BF16, 0, 0, 2, 2, 2, 5, 7, 16, 16, 0, KEYS, TRM_DTYPE_BOOL},
    {"f16 17 x 16", "mma", F16, 0, 0, 1, 3, 3, 17, 17, 16, 16, 0, FULL, F32},
    {"f16 17 x 16, turned", "mma", F16, 0, 0, 1, 1, 1, 17, 24, 32, 16, 1, FULL, F32},
    {"f16 65 x 64", "mma", F16, 0, 0, 1, 1, 1, 65, 65, 64, 64, 0, KEYS, F16},
    {"f16 65 x 64 full", "mma", F16, 0, 0, 1, 1, 1, 3, 65, 64, 64, 1, FULL, F16},
    {"f16 80", "mma", F16, 0, 0, 1, 1, 1, 7, 65, 80, 80, 0, KEYS, F64},
    {"f16 96, turned", "mma", F16, 0, 0, 1, 1, 1, 7, 64, 96, 96, 1, FULL, F32},
    {"f16 128", "mma", F16, 0, 0, 1, 1, 1, 7, 64, 128, 128, 0, FULL, F32},
    {"bf16 160", "simt", BF16, 0, 0, 1, 2, 2, 5, 9, 160, 40, 0, KEYS, F32},
    {"f16 v wide", "simt", F16, 0, 0, 1, 1, 1, 5, 70, 24, 150, 1, FULL, F32},
    {"f16 with fp32 keys", "simt", F16, F32, F32, 1, 2, 2, 5, 9, 16, 16, 0, KEYS, F32},
    {"f32 5 x 16", "simt", F32, 0, 0, 1, 3, 3, 5, 5, 16, 16, 0, NO_MASK, NONE},
    {"f32 17 x 32", "simt", F32, 0, 0, 2, 1, 1, 17, 17, 32, 32, 0, KEYS, F32},
    {"f32 64 x 64", "simt", F32, 0, 0, 1, 1, 1, 64, 64, 64, 64, 0, KEYS_INF, F32},
    {"f32 65 x 64, turned", "simt", F32, 0, 0, 1, 1, 1, 65, 68, 64, 64, 1, FULL, F32},
    {"f32 130 x 64", "simt", F32, 0, 0, 1, 1, 1, 130, 130, 64, 64, 0, ROWS_SHARED, F32},
    {"f32 many", "simt", F32, 0, 0, 133, 1, 1, 65, 5, 8, 36, 0, KEYS, F32},
    {"f32 80", "simt", F32, 0, 0, 1, 2, 2, 17, 65, 80, 80, 0, HEADS, F32},
    {"f32 odd memory, turned", "simt", F32, 0, 0, 1, 2, 1, 9, 11, 21, 33, 1, COLUMN, F32},
    {"f32 bool mask", "simt", F32, 0, 0, 2, 2, 2, 5, 7, 16, 16, 0, FULL, TRM_DTYPE_BOOL},
    {"f32 300", "simt", F32, 0, 0, 1, 1, 1, 5, 9, 300, 140, 0, NO_MASK, NONE},
    {"f32 no keys", "simt", F32, 0, 0, 1, 2, 2, 3, 0, 16, 16, 0, NO_MASK, NONE},
    {"f32 no rows", "simt", F32, 0, 0, 1, 2, 2, 0, 3, 16, 16, 0, NO_MASK, NONE},
    {"f64 17 x 16", "simt", F64, 0, 0, 1, 2, 2, 17, 66, 16, 20, 0, FULL, F64},
    {"f64 70, turned", "simt", F64, 0, 0, 1, 1, 1, 5, 8, 140, 70, 1, KEYS, F32},
};

static trm_tensor mask_of(const struct row *r)
{
    trm_tensor t = {.dtype = NONE};
    bool is_bool = r->mask_dtype == TRM_DTYPE_BOOL;
    double none = is_bool ? 0.0 : -INFINITY;

    switch (r->mask) {
    case NO_MASK:
        return t;
    case KEYS:
    case KEYS_INF:
        t = kit_data(KIT_T(r->mask_dtype, r->b, 1, 1, r->kv));
        for (size_t i = 0; i < trm_tensor_numel(&t); i++) {
            bool seen = kit_uniform(0.0, 1.0) < 0.7;
            double low = r->mask_dtype == F16 ? -65504.0 : -3.4028234663852886e38;

            if (r->mask == KEYS_INF)
                low = (int)i < r->kv ? -INFINITY : -1e30;
            if (r->mask == KEYS_INF && (int)i < r->kv)
                seen = false;
            trm_tensor_set_f64(&t, i, is_bool ? seen : seen ? 0.0 : low);
        }
        return t;
    case ONE_ROW:
        return kit_random(KIT_T(r->mask_dtype, r->kv), -3.0, 3.0);
    case HEADS:
        return kit_random(KIT_T(r->mask_dtype, r->h, 1, r->kv), -3.0, 3.0);
    case COLUMN:
        return kit_random(KIT_T(r->mask_dtype, r->b, 1, r->q, 1), -3.0, 3.0);
    case ROWS_SHARED:
    case FULL:
        t = r->mask == FULL ? KIT_T(r->mask_dtype, r->b, r->h, r->q, r->kv)
                            : KIT_T(r->mask_dtype, 1, 1, r->q, r->kv);
        t = kit_random(t, is_bool ? 0.0 : -3.0, is_bool ? 2.0 : 3.0);
        for (size_t i = 0; i < trm_tensor_numel(&t); i++)
            if (i / (size_t)r->kv % (size_t)r->q == (size_t)r->q / 2 || i % 5 == 1)
                trm_tensor_set_f64(&t, i, none);
        return t;
    }
    return t;
}

START_TEST(plain)
{
    const struct row *r = &rows[_i];
    trm_dtype kd = r->k_dtype == NONE ? r->dtype : r->k_dtype;
    trm_dtype vd = r->v_dtype == NONE ? r->dtype : r->v_dtype;
    cuda_case c = {.name = r->name, .op = TRM_OP_TrmAttention, .in_count = 3, .out_count = 1};

    c.attrs = kit_attrs();
    kit_float(c.attrs, "scale", 0.6f);
    kit_int(c.attrs, "k_transposed", r->k_transposed);
    c.in[0] = kit_random(KIT_T(r->dtype, r->b, r->h, r->q, r->d), -1.0, 1.0);
    c.in[1] = kit_random(r->k_transposed ? KIT_T(kd, r->b, r->kv_heads, r->d, r->kv)
                                         : KIT_T(kd, r->b, r->kv_heads, r->kv, r->d),
                         -1.0, 1.0);
    c.in[2] = kit_random(KIT_T(vd, r->b, r->kv_heads, r->kv, r->vd), -1.0, 1.0);
    c.in[3] = mask_of(r);
    if (r->mask != NO_MASK)
        c.in_count = 4;
    c.out[0] = KIT_T(r->dtype, r->b, r->h, r->q, r->vd);
    tolerate(&c, r->dtype);
    cuda_check(&c);
    ck_assert_msg(strstr(c.kernel, r->kernel) != NULL, "%s ran %s", r->name, c.kernel);
}
END_TEST

/* ---- ONNX Attention ---- */

static const struct onnx_row {
    const char *name;
    trm_dtype dtype;
    int b, h, kv_heads, q, kv, past, d, vd, flat;
    int causal, left, right; /* windows: -1 none */
    float softcap, scale;    /* 0: absent */
    int mask;                /* 0 none, 1 [q, kv] f32, 2 bool, 3 [q, fewer keys] */
    int nonpad, present, qk; /* qk: 1 + mode; present: outputs 1 and 2 wanted */
} onnx_rows[] = {
    {"plain", F32, 2, 3, 3, 5, 7, 0, 8, 8, 0, 0, -1, -1, 0, 0, 0, 0, 0, 0},
    {"flat", F32, 2, 4, 2, 5, 7, 0, 8, 12, 1, 0, -1, -1, 0, 0.3f, 1, 0, 0, 0},
    {"causal", F32, 1, 2, 2, 70, 70, 0, 8, 8, 0, 1, -1, -1, 0, 0, 0, 0, 0, 0},
    {"causal bf16", BF16, 1, 1, 1, 130, 130, 0, 16, 16, 0, 1, -1, -1, 0, 0, 0, 0, 0, 0},
    {"causal bf16 flat", BF16, 1, 3, 1, 70, 70, 0, 64, 64, 1, 1, -1, -1, 0, 0, 0, 0, 0, 0},
    {"window", F32, 1, 2, 2, 90, 90, 0, 8, 8, 0, 0, 7, 3, 0, 0, 0, 0, 0, 0},
    {"window bf16", BF16, 1, 1, 1, 150, 150, 0, 8, 8, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0},
    {"left only f16", F16, 1, 2, 2, 80, 80, 0, 8, 8, 0, 1, 4, -1, 0, 0, 0, 0, 0, 0},
    {"softcap", F32, 1, 2, 2, 9, 9, 0, 8, 8, 0, 0, -1, -1, 0.5f, 0, 1, 0, 0, 0},
    {"softcap bf16", BF16, 1, 2, 2, 9, 9, 0, 8, 8, 0, 0, -1, -1, 0.5f, 0, 1, 0, 0, 0},
    {"bool mask", F32, 2, 2, 2, 9, 9, 0, 8, 8, 1, 1, -1, -1, 0, 0, 2, 0, 0, 0},
    {"short mask", F32, 1, 2, 2, 9, 12, 0, 8, 8, 0, 0, -1, -1, 0, 0, 3, 0, 0, 0},
    {"short mask bf16", BF16, 1, 2, 2, 9, 70, 0, 8, 8, 0, 0, -1, -1, 0, 0, 3, 0, 0, 0},
    {"nonpad", F32, 3, 2, 2, 5, 9, 0, 8, 8, 0, 0, -1, -1, 0, 0, 0, 1, 0, 0},
    {"nonpad causal bf16", BF16, 3, 2, 2, 5, 9, 0, 8, 8, 0, 1, -1, -1, 0, 0, 0, 1, 0, 0},
    {"nonpad bf16", BF16, 3, 2, 2, 5, 70, 0, 8, 8, 0, 0, -1, -1, 0, 0, 0, 1, 0, 0},
    {"past", F32, 2, 4, 2, 3, 4, 6, 8, 8, 0, 1, -1, -1, 0, 0, 0, 0, 1, 0},
    {"past hidden", F32, 2, 2, 2, 3, 4, 6, 8, 12, 0, 1, -1, -1, 0, 0, 0, 0, 0, 0},
    {"past flat bf16", BF16, 2, 2, 2, 3, 4, 65, 8, 8, 1, 1, -1, -1, 0, 0, 0, 0, 1, 0},
    {"past odd bf16", BF16, 2, 2, 1, 3, 4, 5, 7, 9, 1, 1, -1, -1, 0, 0, 0, 0, 1, 0},
    {"past odd f64", F64, 2, 2, 1, 3, 4, 5, 7, 9, 1, 1, -1, -1, 0, 0, 0, 0, 1, 0},
    {"present of no past", F32, 2, 2, 2, 3, 4, 0, 8, 8, 1, 0, -1, -1, 0, 0, 0, 0, 1, 0},
    {"one token", BF16, 2, 4, 2, 1, 1, 70, 64, 64, 0, 1, -1, -1, 0, 0, 0, 0, 1, 0},
    {"scores 0", F32, 1, 2, 2, 5, 9, 0, 8, 8, 0, 1, -1, -1, 0.5f, 0, 1, 0, 0, 1},
    {"scores 1", F32, 1, 2, 2, 5, 9, 0, 8, 8, 0, 1, -1, -1, 0.5f, 0, 1, 0, 0, 2},
    {"scores 2", F32, 1, 2, 2, 5, 9, 0, 8, 8, 0, 1, -1, -1, 0.5f, 0, 1, 0, 0, 3},
    {"scores 3", F32, 1, 2, 1, 5, 150, 0, 8, 8, 1, 1, -1, -1, 0.5f, 0, 1, 0, 0, 4},
    {"scores 3 bf16", BF16, 1, 2, 2, 5, 9, 0, 8, 8, 0, 1, -1, -1, 0, 0, 2, 0, 1, 4},
    {"scores 3 f64", F64, 1, 2, 2, 5, 9, 4, 8, 8, 0, 1, -1, -1, 0, 0, 0, 0, 1, 4},
};

START_TEST(onnx)
{
    const struct onnx_row *r = &onnx_rows[_i];
    cuda_case c = {.name = r->name, .op = TRM_OP_Attention, .in_count = 3, .out_count = 1};
    int all = r->kv + r->past, mask_keys = r->mask == 3 ? all - 4 : all;

    c.attrs = kit_attrs();
    kit_int(c.attrs, "is_causal", r->causal);
    if (r->left >= 0)
        kit_int(c.attrs, "left_window_size", r->left);
    if (r->right >= 0)
        kit_int(c.attrs, "right_window_size", r->right);
    if (r->softcap > 0.0f)
        kit_float(c.attrs, "softcap", r->softcap);
    if (r->scale > 0.0f)
        kit_float(c.attrs, "scale", r->scale);
    if (r->flat) {
        kit_int(c.attrs, "q_num_heads", r->h);
        kit_int(c.attrs, "kv_num_heads", r->kv_heads);
        c.in[0] = kit_random(KIT_T(r->dtype, r->b, r->q, r->h * r->d), -1.0, 1.0);
        c.in[1] = kit_random(KIT_T(r->dtype, r->b, r->kv, r->kv_heads * r->d), -1.0, 1.0);
        c.in[2] = kit_random(KIT_T(r->dtype, r->b, r->kv, r->kv_heads * r->vd), -1.0, 1.0);
        c.out[0] = KIT_T(r->dtype, r->b, r->q, r->h * r->vd);
    } else {
        c.in[0] = kit_random(KIT_T(r->dtype, r->b, r->h, r->q, r->d), -1.0, 1.0);
        c.in[1] = kit_random(KIT_T(r->dtype, r->b, r->kv_heads, r->kv, r->d), -1.0, 1.0);
        c.in[2] = kit_random(KIT_T(r->dtype, r->b, r->kv_heads, r->kv, r->vd), -1.0, 1.0);
        c.out[0] = KIT_T(r->dtype, r->b, r->h, r->q, r->vd);
    }
    if (r->mask == 2)
        c.in[3] = kit_random(KIT_T(TRM_DTYPE_BOOL, r->q, mask_keys), 0.0, 2.0);
    else if (r->mask != 0)
        c.in[3] = kit_random(KIT_T(F32, r->q, mask_keys), -2.0, 2.0);
    if (r->mask != 0)
        c.in_count = 4;
    if (r->past > 0) {
        c.in[4] = kit_random(KIT_T(r->dtype, r->b, r->kv_heads, r->past, r->d), -1.0, 1.0);
        c.in[5] = kit_random(KIT_T(r->dtype, r->b, r->kv_heads, r->past, r->vd), -1.0, 1.0);
        c.in_count = 6;
    }
    if (r->nonpad) {
        c.in[6] = KIT_V(KIT_T(TRM_DTYPE_I64, r->b), 6, 0, 9);
        c.in_count = 7;
    }
    if (r->present) {
        c.out[1] = KIT_T(r->dtype, r->b, r->kv_heads, all, r->d);
        c.out[2] = KIT_T(r->dtype, r->b, r->kv_heads, all, r->vd);
        c.out_count = 3;
    }
    if (r->qk > 0) {
        kit_int(c.attrs, "qk_matmul_output_mode", r->qk - 1);
        c.out[3] = KIT_T(r->dtype, r->b, r->h, r->q, all);
        c.out_count = 4;
    }
    tolerate(&c, r->dtype);
    cuda_check(&c);
}
END_TEST

/* ---- LinearAttention ---- */

static const struct linear_row {
    const char *name, *rule;
    trm_dtype dtype, state;
    int b, length, q_heads, heads, dk, dv;
    int decay; /* 0 none, 1 a head, 2 a key column */
    int beta;  /* 0 none, 1 one, 2 a head */
    bool past;
    float scale;
} linear_rows[] = {
    {"linear", "linear", F32, F32, 2, 5, 2, 2, 8, 8, 0, 0, true, 0},
    {"gated", "gated", F32, F32, 2, 5, 4, 2, 7, 33, 1, 0, false, 0.5f},
    {"gated columns", "gated", F32, F32, 1, 3, 2, 2, 40, 5, 2, 0, true, 0},
    {"delta", "delta", F32, F32, 2, 4, 3, 3, 8, 12, 0, 1, true, 0},
    {"gated delta", "gated_delta", F32, F32, 1, 6, 6, 3, 16, 40, 1, 2, true, 0},
    {"gated delta columns bf16", "gated_delta", BF16, F32, 2, 5, 2, 1, 16, 16, 2, 1, true, 0},
    {"gated delta f16", "gated_delta", F16, F16, 1, 5, 2, 2, 16, 16, 1, 2, true, 0},
    {"wide keys", "linear", F32, F32, 1, 1, 1, 1, 400, 1, 0, 0, false, 0},
    {"nothing", "linear", F32, F32, 1, 0, 2, 2, 4, 4, 0, 0, true, 0},
};

START_TEST(linear)
{
    const struct linear_row *r = &linear_rows[_i];
    cuda_case c = {.name = r->name, .op = TRM_OP_LinearAttention, .in_count = 6, .out_count = 2};

    c.attrs = kit_attrs();
    kit_string(c.attrs, "update_rule", r->rule);
    kit_int(c.attrs, "q_num_heads", r->q_heads);
    kit_int(c.attrs, "kv_num_heads", r->heads);
    if (r->scale > 0.0f)
        kit_float(c.attrs, "scale", r->scale);
    c.in[0] = kit_random(KIT_T(r->dtype, r->b, r->length, r->q_heads * r->dk), -1.0, 1.0);
    c.in[1] = kit_random(KIT_T(r->dtype, r->b, r->length, r->heads * r->dk), -0.3, 0.3);
    c.in[2] = kit_random(KIT_T(r->dtype, r->b, r->length, r->heads * r->dv), -1.0, 1.0);
    if (r->past)
        c.in[3] = kit_random(KIT_T(r->state, r->b, r->heads, r->dk, r->dv), -1.0, 1.0);
    if (r->decay != 0)
        c.in[4] = kit_random(
            KIT_T(r->dtype, r->b, r->length, r->decay == 1 ? r->heads : r->heads * r->dk), -1.0,
            0.0);
    if (r->beta != 0)
        c.in[5] =
            kit_random(KIT_T(r->dtype, r->b, r->length, r->beta == 1 ? 1 : r->heads), 0.0, 1.0);
    c.out[0] = KIT_T(r->dtype, r->b, r->length, r->q_heads * r->dv);
    c.out[1] = KIT_T(r->state, r->b, r->heads, r->dk, r->dv);
    tolerate(&c, r->dtype);
    cuda_check(&c);
}
END_TEST

/* ---- what is refused ---- */

static const struct refused_row {
    const char *name;
    trm_dtype q, k, mask;
    int kv_heads, dim;
    trm_status want;
} refused_rows[] = {
    {"integers", TRM_DTYPE_I32, TRM_DTYPE_I32, NONE, 2, 8, TRM_ERR_UNSUPPORTED},
    {"two 16-bit dtypes", BF16, F16, NONE, 2, 8, TRM_ERR_UNSUPPORTED},
    {"integer mask", F32, F32, TRM_DTYPE_I32, 2, 8, TRM_ERR_UNSUPPORTED},
    {"heads that do not divide", F32, F32, NONE, 3, 8, TRM_ERR_INVALID_ARG},
    {"dims that differ", F32, F32, NONE, 2, 9, TRM_ERR_INVALID_ARG},
};

START_TEST(refused)
{
    const struct refused_row *r = &refused_rows[_i];
    cuda_case c = {.name = r->name, .op = TRM_OP_TrmAttention, .in_count = 3, .out_count = 1};

    c.in[0] = kit_random(KIT_T(r->q, 1, 2, 3, 8), 0.0, 2.0);
    c.in[1] = kit_random(KIT_T(r->k, 1, r->kv_heads, 4, r->dim), 0.0, 2.0);
    c.in[2] = kit_random(KIT_T(r->k, 1, r->kv_heads, 4, 8), 0.0, 2.0);
    if (r->mask != NONE) {
        c.in[3] = kit_random(KIT_T(r->mask, 3, 4), 0.0, 2.0);
        c.in_count = 4;
    }
    c.out[0] = KIT_T(r->q, 1, 2, 3, 8);
    c.want_prepare = r->want;
    cuda_check(&c);
}
END_TEST

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
    TCase *t = tcase_create("attention");

    tcase_add_loop_test(t, plain, 0, COUNT(rows));
    tcase_add_loop_test(t, onnx, 0, COUNT(onnx_rows));
    tcase_add_loop_test(t, linear, 0, COUNT(linear_rows));
    tcase_add_loop_test(t, refused, 0, COUNT(refused_rows));
    return kit_main("cuda attention", t);
}
