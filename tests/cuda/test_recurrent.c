/* The CUDA backend's LSTM, GRU and RNN against the CPU's. */
#include "tests/cuda/cuda_kit.h"

#define F32 TRM_DTYPE_F32
#define F16 TRM_DTYPE_F16
#define BF16 TRM_DTYPE_BF16

static void strings(trm_attrs *a, const char *name, const char *const *v, size_t count)
{
    trm_attr attr = {.name = name, .kind = TRM_ATTR_STRINGS, .count = count, .v = {.strings = v}};

    ck_assert_int_eq(trm_attr_set(a, kit_arena, &attr), TRM_OK);
}

static void floats(trm_attrs *a, const char *name, const float *v, size_t count)
{
    trm_attr attr = {.name = name, .kind = TRM_ATTR_FLOATS, .count = count, .v = {.floats = v}};

    ck_assert_int_eq(trm_attr_set(a, kit_arena, &attr), TRM_OK);
}

/* what is there beside X, W and R */
enum {
    BIAS = 1,
    LENGTHS = 2,
    H0 = 4,
    C0 = 8,
    PEEPHOLES = 16,
    BATCH_FIRST = 32,
    RESET_AFTER = 64,
    INPUT_FORGET = 128,
    CLIP = 256,
    NO_Y = 512,
    NO_STATES = 1024,
    ALL = BIAS | LENGTHS | H0 | C0
};
enum { FORWARD, REVERSE, BOTH };

static const struct row {
    const char *name;
    trm_op op;
    trm_dtype dtype;
    int direction, steps, batch, input, hidden, flags;
    const char *acts; /* separated by blanks; NULL: the usual ones */
} rows[] = {
    {"lstm", TRM_OP_LSTM, F32, FORWARD, 4, 1, 5, 8, 0, NULL},
    {"lstm bias", TRM_OP_LSTM, F32, FORWARD, 3, 3, 5, 12, BIAS, NULL},
    {"lstm reverse", TRM_OP_LSTM, F32, REVERSE, 4, 3, 5, 8, ALL, NULL},
    {"lstm both", TRM_OP_LSTM, F32, BOTH, 4, 3, 5, 8, ALL | PEEPHOLES, NULL},
    {"lstm both, batch first", TRM_OP_LSTM, F32, BOTH, 4, 3, 5, 8, ALL | PEEPHOLES | BATCH_FIRST,
     NULL},
    {"lstm odd units", TRM_OP_LSTM, F32, BOTH, 3, 2, 17, 33, ALL | PEEPHOLES, NULL},
    {"lstm odd units, one", TRM_OP_LSTM, F32, FORWARD, 3, 1, 3, 7, BIAS | H0, NULL},
    {"lstm input forget", TRM_OP_LSTM, F32, FORWARD, 4, 2, 5, 8, ALL | INPUT_FORGET, NULL},
    {"lstm clip", TRM_OP_LSTM, F32, FORWARD, 4, 2, 5, 8, ALL | PEEPHOLES | CLIP, NULL},
    {"lstm 17 sequences", TRM_OP_LSTM, F32, FORWARD, 2, 17, 4, 8, ALL, NULL},
    {"lstm 132 units", TRM_OP_LSTM, F32, FORWARD, 2, 1, 70, 132, BIAS, NULL},
    {"lstm 132 units, 9", TRM_OP_LSTM, F32, FORWARD, 2, 9, 20, 132, BIAS, NULL},
    {"lstm states only", TRM_OP_LSTM, F32, BOTH, 3, 2, 5, 8, ALL | NO_Y, NULL},
    {"lstm y only", TRM_OP_LSTM, F32, BOTH, 3, 2, 5, 8, ALL | NO_STATES, NULL},
    {"lstm no steps", TRM_OP_LSTM, F32, FORWARD, 0, 2, 5, 8, H0 | C0, NULL},
    {"lstm no sequences", TRM_OP_LSTM, F32, FORWARD, 3, 0, 5, 8, BIAS, NULL},
    {"lstm bf16", TRM_OP_LSTM, BF16, BOTH, 3, 3, 5, 8, ALL | PEEPHOLES, NULL},
    {"lstm bf16, one", TRM_OP_LSTM, BF16, FORWARD, 6, 1, 64, 64, BIAS, NULL},
    {"lstm f16, batch first", TRM_OP_LSTM, F16, BOTH, 3, 2, 5, 7, ALL | BATCH_FIRST, NULL},
    {"lstm f16, one", TRM_OP_LSTM, F16, FORWARD, 6, 1, 64, 64, BIAS, NULL},
    {"lstm activations", TRM_OP_LSTM, F32, BOTH, 3, 2, 5, 8, ALL,
     "HardSigmoid ScaledTanh Softsign Sigmoid Affine Elu"},
    {"lstm activations 2", TRM_OP_LSTM, F32, BOTH, 3, 2, 5, 8, ALL | CLIP,
     "sigmoid LEAKYRELU Softplus Tanh ThresholdedRelu Relu"},
    {"gru", TRM_OP_GRU, F32, FORWARD, 4, 1, 5, 8, 0, NULL},
    {"gru bias", TRM_OP_GRU, F32, BOTH, 4, 3, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"gru batch first", TRM_OP_GRU, F32, BOTH, 4, 3, 5, 9, BIAS | LENGTHS | H0 | BATCH_FIRST, NULL},
    {"gru reset after", TRM_OP_GRU, F32, REVERSE, 4, 3, 5, 8, BIAS | LENGTHS | H0 | RESET_AFTER,
     NULL},
    {"gru reset after, one", TRM_OP_GRU, F32, FORWARD, 4, 1, 5, 8, BIAS | RESET_AFTER, NULL},
    {"gru reset after, no bias", TRM_OP_GRU, F32, BOTH, 4, 2, 5, 8, RESET_AFTER | CLIP, NULL},
    {"gru bf16", TRM_OP_GRU, BF16, BOTH, 3, 3, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"gru bf16, one", TRM_OP_GRU, BF16, FORWARD, 3, 1, 5, 8, BIAS, NULL},
    {"gru bf16, reset after", TRM_OP_GRU, BF16, BOTH, 3, 3, 5, 8, BIAS | H0 | RESET_AFTER, NULL},
    {"gru bf16, reset after, one", TRM_OP_GRU, BF16, FORWARD, 3, 1, 5, 8, RESET_AFTER, NULL},
    {"gru f16", TRM_OP_GRU, F16, BOTH, 3, 3, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"gru f16, one", TRM_OP_GRU, F16, FORWARD, 3, 1, 5, 8, BIAS, NULL},
    {"gru f16, reset after", TRM_OP_GRU, F16, BOTH, 3, 3, 5, 8, BIAS | H0 | RESET_AFTER, NULL},
    {"gru f16, reset after, one", TRM_OP_GRU, F16, FORWARD, 3, 1, 5, 8, RESET_AFTER, NULL},
    {"gru activations", TRM_OP_GRU, F32, BOTH, 3, 2, 5, 8, BIAS | H0,
     "HardSigmoid LeakyRelu Sigmoid ScaledTanh"},
    {"rnn", TRM_OP_RNN, F32, FORWARD, 4, 1, 5, 8, 0, NULL},
    {"rnn both", TRM_OP_RNN, F32, BOTH, 4, 10, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"rnn batch first", TRM_OP_RNN, F32, REVERSE, 4, 3, 5, 9, BIAS | H0 | BATCH_FIRST, NULL},
    {"rnn relu, clip", TRM_OP_RNN, F32, BOTH, 4, 3, 5, 8, BIAS | H0 | CLIP, "Relu Affine"},
    {"rnn bf16", TRM_OP_RNN, BF16, BOTH, 3, 3, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"rnn bf16, one", TRM_OP_RNN, BF16, FORWARD, 3, 1, 5, 8, BIAS, NULL},
    {"rnn f16", TRM_OP_RNN, F16, BOTH, 3, 3, 5, 8, BIAS | LENGTHS | H0, NULL},
    {"rnn f16, one", TRM_OP_RNN, F16, FORWARD, 3, 1, 5, 8, BIAS, NULL},
};

static trm_tensor state(const struct row *r, int d)
{
    return (r->flags & BATCH_FIRST) != 0 ? KIT_T(r->dtype, r->batch, d, r->hidden)
                                         : KIT_T(r->dtype, d, r->batch, r->hidden);
}

static trm_tensor lengths_of(const struct row *r)
{
    trm_tensor t = kit_data(KIT_T(TRM_DTYPE_I32, r->batch));

    for (int b = 0; b < r->batch; b++) /* the longest, none, and between */
        ((int32_t *)t.data)[b] = b == 0 ? r->steps : b == 1 ? 0 : b * 5 % (r->steps + 1);
    return t;
}

static void attributes(cuda_case *c, const struct row *r)
{
    static const char *const directions[] = {"forward", "reverse", "bidirectional"};
    static const float alphas[] = {0.3f, 0.7f, 0.2f}, betas[] = {0.4f, 0.9f};
    const char *names[6];
    size_t count = 0;

    c->attrs = kit_attrs();
    kit_string(c->attrs, "direction", directions[r->direction]);
    kit_int(c->attrs, "hidden_size", r->hidden);
    kit_int(c->attrs, "layout", (r->flags & BATCH_FIRST) != 0);
    kit_int(c->attrs, "linear_before_reset", (r->flags & RESET_AFTER) != 0);
    kit_int(c->attrs, "input_forget", (r->flags & INPUT_FORGET) != 0);
    if ((r->flags & CLIP) != 0)
        kit_float(c->attrs, "clip", 0.4f);
    if (r->acts == NULL)
        return;
    for (const char *at = r->acts; *at != '\0'; count++) {
        size_t bytes = strcspn(at, " ");
        char *name = trm_arena_alloc(kit_arena, bytes + 1, 1);

        ck_assert_ptr_nonnull(name);
        memcpy(name, at, bytes);
        name[bytes] = '\0';
        names[count] = name;
        at += bytes + (at[bytes] == ' ');
    }
    strings(c->attrs, "activations", names, count);
    floats(c->attrs, "activation_alpha", alphas, 3);
    floats(c->attrs, "activation_beta", betas, 2);
}

static void fill(cuda_case *c, const struct row *r)
{
    int d = r->direction == BOTH ? 2 : 1, f = r->flags;
    int g = r->op == TRM_OP_LSTM ? 4 : r->op == TRM_OP_GRU ? 3 : 1;
    double unit = r->dtype == BF16 ? 0x1p-8 : r->dtype == F16 ? 0x1p-11 : 0.0;

    *c = (cuda_case){.name = r->name, .op = r->op};
    attributes(c, r);
    c->in[0] = kit_random((f & BATCH_FIRST) != 0 ? KIT_T(r->dtype, r->batch, r->steps, r->input)
                                                 : KIT_T(r->dtype, r->steps, r->batch, r->input),
                          -1.0, 1.0);
    c->in[1] = kit_random(KIT_T(r->dtype, d, g * r->hidden, r->input), -0.5, 0.5);
    c->in[2] = kit_random(KIT_T(r->dtype, d, g * r->hidden, r->hidden), -0.3, 0.3);
    if ((f & BIAS) != 0)
        c->in[3] = kit_random(KIT_T(r->dtype, d, 2 * g * r->hidden), -0.5, 0.5);
    if ((f & LENGTHS) != 0)
        c->in[4] = lengths_of(r);
    if ((f & H0) != 0)
        c->in[5] = kit_random(state(r, d), -1.0, 1.0);
    if ((f & C0) != 0 && r->op == TRM_OP_LSTM)
        c->in[6] = kit_random(state(r, d), -1.0, 1.0);
    if ((f & PEEPHOLES) != 0)
        c->in[7] = kit_random(KIT_T(r->dtype, d, 3 * r->hidden), -0.5, 0.5);
    c->in_count = r->op == TRM_OP_LSTM ? 8 : 6;
    if ((f & NO_Y) == 0)
        c->out[0] = (f & BATCH_FIRST) != 0 ? KIT_T(r->dtype, r->batch, r->steps, d, r->hidden)
                                           : KIT_T(r->dtype, r->steps, d, r->batch, r->hidden);
    if ((f & NO_STATES) == 0) {
        c->out[1] = state(r, d);
        if (r->op == TRM_OP_LSTM)
            c->out[2] = state(r, d);
    }
    c->out_count = r->op == TRM_OP_LSTM ? 3 : 2;
    /* fp32: sums of up to some hundred products, a few steps of them. 16 bits: the state stays
     * fp32, the result is rounded once */
    c->as_f32 = unit > 0.0;
    c->rtol = unit > 0.0 ? unit : 2e-5;
    c->atol = 3e-6;
}

START_TEST(plain)
{
    cuda_case c;

    fill(&c, &rows[_i]);
    cuda_check(&c);
}
END_TEST

/* ---- what is refused ---- */

static const struct refused_row {
    const char *name;
    trm_dtype dtype;
    int what; /* 1 a name, 2 too few names, 3 W too small, 4 a length */
    trm_status want;
} refused_rows[] = {
    {"f64", TRM_DTYPE_F64, 0, TRM_ERR_UNSUPPORTED},
    {"unknown activation", F32, 1, TRM_ERR_UNSUPPORTED},
    {"too few activations", F32, 2, TRM_ERR_INVALID_ARG},
    {"W of another size", F32, 3, TRM_ERR_INVALID_ARG},
    {"a known length beyond the end", F32, 4, TRM_ERR_INVALID_ARG},
};

START_TEST(refused)
{
    static const char *const unknown[] = {"Sigmoid", "Tanh", "Sine"};
    const struct refused_row *r = &refused_rows[_i];
    const struct row like = {.name = r->name,
                             .op = TRM_OP_LSTM,
                             .dtype = r->dtype,
                             .steps = 3,
                             .batch = 2,
                             .input = 4,
                             .hidden = 4};
    cuda_case c;

    fill(&c, &like);
    if (r->what == 1 || r->what == 2)
        strings(c.attrs, "activations", unknown, r->what == 1 ? 3 : 2);
    if (r->what == 3)
        c.in[1] = kit_random(KIT_T(F32, 1, 16, 3), -1.0, 1.0);
    if (r->what == 4) {
        c.in[4] = KIT_V(KIT_T(TRM_DTYPE_I32, 2), 3, 4);
        c.known[4] = true;
    }
    c.want_prepare = r->want;
    cuda_check(&c);
}
END_TEST

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
    TCase *t = tcase_create("recurrent");

    tcase_add_loop_test(t, plain, 0, COUNT(rows));
    tcase_add_loop_test(t, refused, 0, COUNT(refused_rows));
    return kit_main("cuda recurrent", t);
}
