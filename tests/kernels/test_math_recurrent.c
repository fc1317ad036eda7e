/* LSTM, GRU and RNN against plain loops in double precision, over ONNX's options. */
#include "tests/kernels/math_harness.h"

enum { STEPS = 5, BATCH = 3, INPUT = 4, HIDDEN = 6 };

typedef struct options {
    trm_op op;
    bool bidirectional, reverse, batch_first, lengths, states, bias, peepholes, before_reset,
        coupled;
    double clip;
    trm_dtype dtype;
    double tol;
} options;

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double clipped(const options *o, double x)
{
    return o->clip > 0 ? fmax(-o->clip, fmin(o->clip, x)) : x;
}

/* row `row` of the [rows, n] matrix `m` of direction d times v */
static double dot(const trm_tensor *m, size_t d, size_t row, const double *v, size_t n)
{
    double sum = 0;
    size_t rows = (size_t)m->dims[1];

    for (size_t i = 0; i < n; i++)
        sum += trm_tensor_get_f64(m, (d * rows + row) * n + i) * v[i];
    return sum;
}

static double item(const trm_tensor *t, size_t i)
{
    return t->dtype == TRM_DTYPE_NONE ? 0 : trm_tensor_get_f64(t, i);
}

/* One step of batch element with input x: changes h and c. in: the operator's inputs. */
static void step_of(const options *o, const trm_tensor *in, size_t d, const double *x, double *h,
                    double *c)
{
    size_t gates = o->op == TRM_OP_LSTM ? 4 : o->op == TRM_OP_GRU ? 3 : 1, wide = gates * HIDDEN;
    double xw[4 * HIDDEN], hr[4 * HIDDEN], wb[4 * HIDDEN], rb[4 * HIDDEN], next[HIDDEN], rh[HIDDEN];

    for (size_t i = 0; i < wide; i++) {
        xw[i] = dot(&in[1], d, i, x, INPUT);
        hr[i] = dot(&in[2], d, i, h, HIDDEN);
        wb[i] = item(&in[3], d * 2 * wide + i);
        rb[i] = item(&in[3], d * 2 * wide + wide + i);
    }
#define PRE(g) (xw[(g)*HIDDEN + j] + hr[(g)*HIDDEN + j] + wb[(g)*HIDDEN + j] + rb[(g)*HIDDEN + j])
    for (size_t j = 0; j < HIDDEN && o->op == TRM_OP_GRU; j++)
        rh[j] = sigmoid(clipped(o, PRE(1))) * h[j];
    for (size_t j = 0; j < HIDDEN; j++) {
        if (o->op == TRM_OP_RNN) {
            next[j] = tanh(clipped(o, PRE(0)));
        } else if (o->op == TRM_OP_GRU) {
            double z = sigmoid(clipped(o, PRE(0))), r = sigmoid(clipped(o, PRE(1))), g;
            size_t k = 2 * HIDDEN + j;

            g = o->before_reset ? xw[k] + wb[k] + r * (hr[k] + rb[k])
                                : xw[k] + wb[k] + rb[k] + dot(&in[2], d, k, rh, HIDDEN);
            next[j] = (1 - z) * tanh(clipped(o, g)) + z * h[j];
        } else {
            const trm_tensor *p = &in[7];
            size_t at = d * 3 * HIDDEN + j;
            double i = sigmoid(clipped(o, PRE(0) + item(p, at) * c[j])), f, g, u;

            f = o->coupled ? 1 - i : sigmoid(clipped(o, PRE(2) + item(p, at + 2 * HIDDEN) * c[j]));
            g = tanh(clipped(o, PRE(3)));
            c[j] = f * c[j] + i * g;
            u = sigmoid(clipped(o, PRE(1) + item(p, at + HIDDEN) * c[j]));
            next[j] = u * tanh(clipped(o, c[j]));
        }
    }
    memcpy(h, next, sizeof(next));
}

static const options cases[] = {
    {.op = TRM_OP_LSTM, .tol = 2e-6},
    {.op = TRM_OP_LSTM, .bias = true, .states = true, .peepholes = true, .tol = 2e-6},
    {.op = TRM_OP_LSTM,
     .bias = true,
     .bidirectional = true,
     .lengths = true,
     .states = true,
     .tol = 2e-6},
    {.op = TRM_OP_LSTM,
     .reverse = true,
     .lengths = true,
     .batch_first = true,
     .states = true,
     .tol = 2e-6},
    {.op = TRM_OP_LSTM,
     .bidirectional = true,
     .batch_first = true,
     .peepholes = true,
     .clip = 0.5,
     .tol = 2e-6},
    {.op = TRM_OP_LSTM, .coupled = true, .bias = true, .tol = 2e-6},
    {.op = TRM_OP_LSTM, .bias = true, .states = true, .dtype = TRM_DTYPE_F16, .tol = 2e-3},
    {.op = TRM_OP_GRU, .tol = 2e-6},
    {.op = TRM_OP_GRU, .bias = true, .states = true, .before_reset = true, .tol = 2e-6},
    {.op = TRM_OP_GRU, .bias = true, .bidirectional = true, .lengths = true, .tol = 2e-6},
    {.op = TRM_OP_GRU,
     .reverse = true,
     .batch_first = true,
     .bias = true,
     .before_reset = true,
     .clip = 0.7,
     .tol = 2e-6},
    {.op = TRM_OP_RNN, .tol = 2e-6},
    {.op = TRM_OP_RNN,
     .bias = true,
     .bidirectional = true,
     .lengths = true,
     .states = true,
     .tol = 2e-6},
    {.op = TRM_OP_RNN, .reverse = true, .batch_first = true, .tol = 2e-6},
};

START_TEST(against_loops)
{
    const options *o = &cases[_i];
    trm_dtype t = o->dtype == TRM_DTYPE_NONE ? TRM_DTYPE_F32 : o->dtype;
    int64_t gates = o->op == TRM_OP_LSTM ? 4 : o->op == TRM_OP_GRU ? 3 : 1;
    int64_t dirs = o->bidirectional ? 2 : 1;
    bool bf = o->batch_first;
    const char *way = o->bidirectional ? "bidirectional" : o->reverse ? "reverse" : "forward";
    trm_tensor in[8] = {{0}};
    trm_tensor out[3] = {H_TENSOR(t, STEPS, dirs, BATCH, HIDDEN), H_TENSOR(t, dirs, BATCH, HIDDEN),
                         H_TENSOR(t, dirs, BATCH, HIDDEN)};
    trm_attrs *a = h_string(h_int(h_attrs(), "layout", bf), "direction", way);

    in[0] =
        h_random(bf ? H_TENSOR(t, BATCH, STEPS, INPUT) : H_TENSOR(t, STEPS, BATCH, INPUT), -1, 1);
    in[1] = h_random(H_TENSOR(t, dirs, gates * HIDDEN, INPUT), -1, 1);
    in[2] = h_random(H_TENSOR(t, dirs, gates * HIDDEN, HIDDEN), -1, 1);
    if (o->bias)
        in[3] = h_random(H_TENSOR(t, dirs, 2 * gates * HIDDEN), -1, 1);
    if (o->lengths)
        in[4] = H_FILL(H_TENSOR(TRM_DTYPE_I32, BATCH), 2, 5, 0);
    if (o->states) {
        in[5] = h_random(bf ? H_TENSOR(t, BATCH, dirs, HIDDEN) : H_TENSOR(t, dirs, BATCH, HIDDEN),
                         -1, 1);
        if (o->op == TRM_OP_LSTM)
            in[6] = h_random(
                bf ? H_TENSOR(t, BATCH, dirs, HIDDEN) : H_TENSOR(t, dirs, BATCH, HIDDEN), -1, 1);
    }
    if (o->peepholes)
        in[7] = h_random(H_TENSOR(t, dirs, 3 * HIDDEN), -1, 1);
    if (o->clip > 0)
        h_float(a, "clip", (float)o->clip);
    h_int(h_int(a, "linear_before_reset", o->before_reset), "input_forget", o->coupled);
    h_ok(o->op, a, in, o->op == TRM_OP_LSTM ? 8 : 6, out, o->op == TRM_OP_LSTM ? 3 : 2);
    for (size_t d = 0; d < (size_t)dirs; d++)
        for (size_t b = 0; b < BATCH; b++) {
            size_t length = o->lengths ? (size_t)trm_tensor_get_i64(&in[4], b) : STEPS;
            size_t state = (bf ? b * (size_t)dirs + d : d * BATCH + b) * HIDDEN;
            double h[HIDDEN], c[HIDDEN], x[INPUT], y[STEPS][HIDDEN] = {{0}};

            for (size_t j = 0; j < HIDDEN; j++) {
                h[j] = item(&in[5], state + j);
                c[j] = item(&in[6], state + j);
            }
            for (size_t s = 0; s < length; s++) {
                size_t at = o->reverse || d == 1 ? length - 1 - s : s;

                for (size_t i = 0; i < INPUT; i++)
                    x[i] = item(&in[0], (bf ? b * STEPS + at : at * BATCH + b) * INPUT + i);
                step_of(o, in, d, x, h, c);
                memcpy(y[at], h, sizeof(h));
            }
            for (size_t j = 0; j < HIDDEN; j++) {
                for (size_t s = 0; s < STEPS; s++) {
                    size_t at = bf ? (b * STEPS + s) * (size_t)dirs + d
                                   : (s * (size_t)dirs + d) * BATCH + b;

                    h_near(&out[0], at * HIDDEN + j, y[s][j], o->tol, o->tol, "Y");
                }
                h_near(&out[1], state + j, h[j], o->tol, o->tol, "Y_h");
                if (o->op == TRM_OP_LSTM)
                    h_near(&out[2], state + j, c[j], o->tol, o->tol, "Y_c");
            }
        }
}
END_TEST

START_TEST(refusals)
{
    trm_tensor in[5] = {H_TENSOR(TRM_DTYPE_F32, 2, 1, 3),
                        H_TENSOR(TRM_DTYPE_F32, 1, 4, 3),
                        H_TENSOR(TRM_DTYPE_F32, 1, 4, 4),
                        {0},
                        H_FILL(H_TENSOR(TRM_DTYPE_I32, 1), 3)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 2, 1, 1, 4);
    static const char *const names[] = {"Sine"};
    trm_attr list = {
        .name = "activations", .kind = TRM_ATTR_STRINGS, .count = 1, .v = {.strings = names}};
    trm_attrs *a = h_attrs();

    ck_assert_int_eq(h_run(TRM_OP_RNN, NULL, in, 5, &out, 1), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "sequence length 3"));
    ck_assert_int_eq(trm_attr_set(a, h_arena, &list), TRM_OK);
    ck_assert_int_eq(h_run(TRM_OP_RNN, a, in, 3, &out, 1), TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(trm_message(), "Sine"));
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("recurrent");

    tcase_add_loop_test(t, against_loops, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_test(t, refusals);
    return h_main("math recurrent", t);
}
