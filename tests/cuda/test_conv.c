/* Convolutions on the CUDA device: Conv, ConvTranspose and their post-ops, by cuDNN (emulated) and
 * by our own kernels. */
#include "tests/cuda/conv_kit.h"

typedef struct conv_row {
    const char *name;
    int spatial;
    int64_t n, c, m, group, in[3], kernel[3];
    int64_t stride, dilation; /* of all dims; 0: absent, 1 */
    int64_t pads[6];          /* begins, ends */
    const char *auto_pad;
    int64_t more[3];         /* ConvTranspose: output_padding */
    const char *kernel_name; /* which implementation must run; NULL: any */
} conv_row;

#define DNN "cudnn conv"
#define OWN "direct conv"
#define DEPTH "depthwise conv"

static const conv_row conv_rows[] = {
    {"3x3", 2, 2, 8, 16, 1, {6, 7}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"1x1", 2, 1, 16, 8, 1, {5, 5}, {1, 1}, 0, 0, {0}, NULL, {0}, DNN},
    {"1x1 stride 2", 2, 1, 8, 8, 1, {6, 6}, {1, 1}, 2, 0, {0}, NULL, {0}, DNN},
    {"7x7 stride 2, 3 channels",
     2,
     1,
     3,
     8,
     1,
     {15, 14},
     {7, 7},
     2,
     0,
     {3, 3, 3, 3},
     NULL,
     {0},
     DNN},
    {"1 channel", 2, 2, 1, 4, 1, {6, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"5 channels", 2, 1, 5, 3, 1, {6, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"13 channels", 2, 1, 13, 7, 1, {6, 5}, {3, 2}, 0, 0, {0}, NULL, {0}, DNN},
    {"groups", 2, 1, 16, 32, 4, {5, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"dilated", 2, 1, 8, 8, 1, {9, 9}, {3, 3}, 0, 2, {2, 2, 2, 2}, NULL, {0}, DNN},
    {"same upper", 2, 1, 8, 8, 1, {7, 8}, {3, 3}, 2, 0, {0}, "SAME_UPPER", {0}, DNN},
    {"same lower", 2, 1, 8, 8, 1, {7, 8}, {3, 3}, 2, 0, {0}, "SAME_LOWER", {0}, DNN},
    {"valid", 2, 1, 8, 8, 1, {7, 8}, {3, 3}, 2, 0, {0}, "VALID", {0}, DNN},
    {"uneven pads", 2, 1, 8, 8, 1, {7, 8}, {3, 3}, 0, 0, {0, 2, 1, 0}, NULL, {0}, DNN},
    {"wide pads", 2, 1, 4, 8, 1, {3, 3}, {2, 2}, 0, 0, {4, 2, 3, 5}, NULL, {0}, DNN},
    {"negative pads", 2, 1, 12, 8, 1, {8, 9}, {3, 3}, 0, 0, {-1, 0, 1, -2}, NULL, {0}, DNN},
    {"1-D", 1, 2, 8, 12, 1, {17}, {5}, 2, 0, {2, 2}, NULL, {0}, DNN},
    {"1-D dilated", 1, 1, 8, 4, 1, {17}, {3}, 0, 3, {3, 3}, NULL, {0}, DNN},
    {"3-D", 3, 1, 4, 8, 1, {4, 5, 3}, {2, 3, 3}, 0, 0, {1, 1, 1, 0, 1, 1}, NULL, {0}, DNN},
    {"one pixel", 2, 3, 8, 8, 1, {1, 1}, {1, 1}, 0, 0, {0}, NULL, {0}, DNN},
    {"to one pixel", 2, 2, 8, 8, 1, {3, 3}, {3, 3}, 0, 0, {0}, NULL, {0}, DNN},
    {"no batch", 2, 0, 8, 8, 1, {3, 3}, {3, 3}, 0, 0, {0}, NULL, {0}, NULL},
    {"depthwise 3x3", 2, 2, 16, 16, 16, {6, 7}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DEPTH},
    {"depthwise 3x3 stride 2",
     2,
     1,
     24,
     24,
     24,
     {7, 9},
     {3, 3},
     2,
     0,
     {1, 1, 1, 1},
     NULL,
     {0},
     DEPTH},
    {"depthwise 5x5", 2, 1, 8, 8, 8, {9, 6}, {5, 5}, 0, 0, {2, 2, 2, 2}, NULL, {0}, DEPTH},
    {"depthwise 5x5 stride 2", 2, 1, 8, 8, 8, {9, 6}, {5, 5}, 2, 0, {2, 1, 2, 2}, NULL, {0}, DEPTH},
    {"depthwise 7x7", 2, 1, 8, 8, 8, {9, 6}, {7, 7}, 0, 0, {3, 3, 3, 3}, NULL, {0}, DEPTH},
    {"depthwise dilated", 2, 1, 8, 8, 8, {9, 6}, {3, 3}, 0, 2, {2, 2, 2, 2}, NULL, {0}, DEPTH},
    {"depthwise odd", 2, 1, 13, 13, 13, {5, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DEPTH},
    {"depthwise 1-D", 1, 2, 16, 16, 16, {19}, {3}, 0, 0, {1, 1}, NULL, {0}, DEPTH},
    {"depthwise 3-D",
     3,
     1,
     8,
     8,
     8,
     {3, 4, 5},
     {3, 2, 3},
     0,
     0,
     {1, 0, 1, 1, 1, 1},
     NULL,
     {0},
     DEPTH},
    {"depthwise times 2", 2, 1, 8, 16, 8, {5, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
};

static const conv_row transpose_rows[] = {
    {"2x2 stride 2", 2, 2, 8, 4, 1, {4, 5}, {2, 2}, 2, 0, {0}, NULL, {0}, DNN},
    {"4x4 stride 2", 2, 1, 8, 3, 1, {4, 5}, {4, 4}, 2, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"3x3 stride 2, output padding",
     2,
     1,
     8,
     4,
     1,
     {4, 5},
     {3, 3},
     2,
     0,
     {1, 1, 1, 1},
     NULL,
     {1, 1},
     DNN},
    {"3x3", 2, 1, 8, 4, 1, {4, 5}, {3, 3}, 0, 0, {0}, NULL, {0}, DNN},
    {"dilated", 2, 1, 4, 8, 1, {4, 5}, {3, 3}, 0, 2, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"groups", 2, 1, 8, 16, 4, {4, 5}, {3, 3}, 2, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"uneven pads", 2, 1, 8, 4, 1, {4, 5}, {3, 3}, 2, 0, {0, 1, 1, 0}, NULL, {0}, DNN},
    {"padding over stride", 2, 1, 8, 4, 1, {4, 5}, {3, 3}, 2, 2, {1, 1, 1, 1}, NULL, {1, 1}, NULL},
    {"negative pads", 2, 1, 8, 4, 1, {4, 5}, {3, 3}, 1, 0, {-1, 1, 0, -2}, NULL, {0}, OWN},
    {"1-D", 1, 1, 8, 4, 1, {9}, {4}, 2, 0, {1, 1}, NULL, {0}, DNN},
    {"3-D", 3, 1, 4, 4, 1, {3, 2, 4}, {2, 2, 2}, 2, 0, {0}, NULL, {0}, DNN},
    {"depthwise", 2, 1, 8, 8, 8, {4, 5}, {4, 4}, 2, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
};

/* Output size along dim d. */
static int64_t out_of(const conv_row *r, bool transposed, int d)
{
    int64_t stride = r->stride == 0 ? 1 : r->stride, dilation = r->dilation == 0 ? 1 : r->dilation;
    int64_t extent = (r->kernel[d] - 1) * dilation + 1, in = r->in[d];
    int64_t pads = r->pads[d] + r->pads[d + r->spatial];

    if (transposed)
        return stride * (in - 1) + r->more[d] + extent - pads;
    if (r->auto_pad != NULL && strncmp(r->auto_pad, "SAME", 4) == 0)
        return (in + stride - 1) / stride;
    return (in + pads - extent) / stride + 1;
}

/* Inputs: x, w, bias. */
static cuda_case conv_case(const conv_row *r, trm_op op, size_t type, bool bias)
{
    bool transposed = op == TRM_OP_ConvTranspose;
    trm_dtype t = float_rows[type].dtype;
    int64_t x[6] = {r->n, r->c}, y[6] = {r->n, r->m}, w[6], list[3], terms = r->c / r->group;
    size_t n = (size_t)r->spatial;
    cuda_case c;

    w[0] = transposed ? r->c : r->m;
    w[1] = (transposed ? r->m : r->c) / r->group;
    for (int d = 0; d < r->spatial; d++) {
        x[d + 2] = r->in[d];
        w[d + 2] = r->kernel[d];
        y[d + 2] = out_of(r, transposed, d);
        terms *= r->kernel[d];
    }
    x[n + 2] = y[n + 2] = w[n + 2] = -1;
    c = float_case(r->name, op, type, terms);
    c.attrs = kit_attrs();
    if (r->group > 1)
        kit_int(c.attrs, "group", r->group);
    if (r->auto_pad != NULL)
        kit_string(c.attrs, "auto_pad", r->auto_pad);
    else
        kit_ints(c.attrs, "pads", r->pads, 2 * n);
    for (size_t d = 0; d < n; d++)
        list[d] = r->stride;
    if (r->stride > 0)
        kit_ints(c.attrs, "strides", list, n);
    for (size_t d = 0; d < n; d++)
        list[d] = r->dilation;
    if (r->dilation > 0)
        kit_ints(c.attrs, "dilations", list, n);
    if (r->more[0] > 0)
        kit_ints(c.attrs, "output_padding", r->more, n);
    c.in[0] = kit_random(kit_tensor(t, x), -1, 1);
    c.in[1] = kit_random(kit_tensor(t, w), -1, 1);
    c.in_count = 2;
    if (bias) {
        c.in[2] = kit_random(KIT_T(t, r->m), -1, 1);
        c.in_count = 3;
    }
    c.out[0] = kit_tensor(t, y);
    return c;
}

static void check_kernel(const cuda_case *c, const conv_row *r, size_t type)
{
    const char *want = float_rows[type].dtype == TRM_DTYPE_F64 ? OWN : r->kernel_name;

    if (r->kernel_name != NULL)
        ck_assert_msg(strcmp(c->kernel, want) == 0, "%s: '%s' ran, want '%s'", r->name, c->kernel,
                      want);
}

#define ROWS(rows) (sizeof(rows) / sizeof((rows)[0]))

START_TEST(test_conv)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    const conv_row *r = &conv_rows[row];

    for (int known = 0; known < 4; known++) { /* constant weights; and a bias */
        cuda_case c = conv_case(r, TRM_OP_Conv, type, known != 1);

        c.known[1] = (known & 1) != 0;
        c.known[2] = (known & 2) != 0;
        c.arrives[0] = (known & 2) != 0 ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        cuda_check(&c);
        check_kernel(&c, r, type);
    }
}
END_TEST

START_TEST(test_transpose)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    const conv_row *r = &transpose_rows[row];

    for (int known = 0; known < 2; known++) {
        cuda_case c = conv_case(r, TRM_OP_ConvTranspose, type, known != 0);

        c.known[1] = c.known[2] = known != 0;
        cuda_check(&c);
        check_kernel(&c, r, type);
    }
}
END_TEST

/* auto_pad and output_shape of ConvTranspose. */
START_TEST(test_transpose_shape)
{
    static const conv_row r = {"same", 2, 1, 8, 4, 1, {4, 5}, {3, 3}, 2, 0, {0}, NULL, {0}, DNN};

    for (int form = 0; form < 3; form++) {
        cuda_case c = conv_case(&r, TRM_OP_ConvTranspose, 0, true);
        int64_t shape[2] = {8, 9};

        trm_attr_remove(c.attrs, "pads");
        c.out[0] = form == 2 ? KIT_T(TRM_DTYPE_F32, 1, 4, 8, 9) : KIT_T(TRM_DTYPE_F32, 1, 4, 8, 10);
        if (form < 2)
            kit_string(c.attrs, "auto_pad", form == 0 ? "SAME_UPPER" : "SAME_LOWER");
        else
            kit_ints(c.attrs, "output_shape", shape, 2);
        c.known[1] = true;
        cuda_check(&c);
    }
}
END_TEST

/* ---- without engines ---- */

START_TEST(test_own)
{
    size_t count = ROWS(conv_rows), row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    bool transposed = row >= count;
    conv_row r = transposed ? transpose_rows[row - count] : conv_rows[row];
    cuda_case c;

    if (getenv("TRM_CUDA_DRIVER") == NULL)
        return;
    r.n += 4; /* plans are remembered: of other shapes */
    c = conv_case(&r, transposed ? TRM_OP_ConvTranspose : TRM_OP_Conv, type, true);
    c.known[1] = c.known[2] = true;
    setenv("TRM_EMU_CUDNN", "none", 1);
    cuda_check(&c);
    unsetenv("TRM_EMU_CUDNN");
    if (r.kernel_name != NULL && strcmp(r.kernel_name, DEPTH) != 0)
        ck_assert_str_eq(c.kernel, OWN);
}
END_TEST

/* ---- posts ---- */
#define UNARY(o, a, b)                                                                             \
    {                                                                                              \
        .op = TRM_OP_##o, .alpha = (a), .beta = (b), .input = -1                                   \
    }
#define WITH(o, i)                                                                                 \
    {                                                                                              \
        .op = TRM_OP_##o, .input = (i)                                                             \
    }
/* inputs: 3 as the output, 4 [1, M, 1, 1] constant, 5 scalar constant, 6 [M, 1, 1] at run time,
 * 7 scalar at run time */
static const struct {
    const char *name;
    bool bias;
    int count;
    trm_post posts[TRM_POST_MAX];
} post_rows[] = {
    {"bias", true, 0, {WITH(Add, 3)}},
    {"relu", true, 1, {UNARY(Relu, 0, 0)}},
    {"relu6", true, 1, {UNARY(Clip, 0, 6)}},
    {"clip", false, 1, {UNARY(Clip, -0.25F, 0.5F)}},
    {"clip below", false, 1, {UNARY(Clip, -0.5F, 3.402823466e38F)}},
    {"sigmoid", true, 1, {UNARY(Sigmoid, 0, 0)}},
    {"tanh", true, 1, {UNARY(Tanh, 0, 0)}},
    {"gelu", true, 1, {UNARY(Gelu, 0, 0)}},
    {"gelu tanh", true, 1, {UNARY(Gelu, 1, 0)}},
    {"leaky relu", true, 1, {UNARY(LeakyRelu, 0.1F, 0)}},
    {"elu", true, 1, {UNARY(Elu, 0.7F, 0)}},
    {"hard sigmoid", true, 1, {UNARY(HardSigmoid, 0.2F, 0.5F)}},
    {"hard swish", true, 1, {UNARY(HardSwish, 0, 0)}},
    {"silu", true, 1, {UNARY(TrmSilu, 0, 0)}},
    {"residual", true, 1, {WITH(Add, 3)}},
    {"residual relu", true, 2, {WITH(Add, 3), UNARY(Relu, 0, 0)}},
    {"times channel", false, 2, {WITH(Mul, 4), WITH(Add, 5)}},
    {"silu residual", true, 2, {UNARY(TrmSilu, 0, 0), WITH(Add, 3)}},
    {"run-time channel", true, 2, {WITH(Mul, 6), UNARY(Relu, 0, 0)}},
    {"run-time scalar", true, 3, {UNARY(Relu, 0, 0), WITH(Mul, 7), WITH(Add, 3)}},
    {"four", true, 4, {WITH(Mul, 4), WITH(Add, 3), UNARY(Tanh, 0, 0), WITH(Mul, 3)}},
};

static void add_posts(cuda_case *c, size_t row, trm_dtype constants)
{
    trm_tensor y = c->out[0];
    trm_dtype t = y.dtype;

    c->in[3] = kit_random(y, -1, 1);
    c->in[4] = kit_random(KIT_T(t, 1, y.dims[1], 1, 1), -1, 1);
    c->in[5] = KIT_V(KIT_T(t), 0.75);
    if (constants == TRM_DTYPE_F32) {
        c->in[4] = kit_widen(c->in[4]);
        c->in[5] = kit_widen(c->in[5]);
    }
    c->in[6] = kit_random(KIT_T(t, y.dims[1], 1, 1), -1, 1);
    c->in[7] = KIT_V(KIT_T(t, 1), -1.25);
    c->in_count = 8;
    c->known[1] = c->known[2] = c->known[4] = c->known[5] = true;
    c->post_count = post_rows[row].count;
    memcpy(c->posts, post_rows[row].posts, sizeof(c->posts));
    c->name = post_rows[row].name;
}

static const conv_row post_hosts[] = {
    {"conv", 2, 2, 8, 16, 1, {4, 5}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"odd conv", 2, 1, 7, 5, 1, {4, 5}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DNN},
    {"depthwise", 2, 1, 16, 16, 16, {4, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DEPTH},
    {"odd depthwise", 2, 1, 7, 7, 7, {4, 6}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, {0}, DEPTH},
};

/* How much of it cuDNN takes: all, the convolution alone, nothing. */
static const char *const limits[] = {NULL, "single", "none"};

START_TEST(test_posts)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;

    for (size_t host = 0; host < ROWS(post_hosts); host++)
        for (size_t limit = 0; limit < ROWS(limits); limit++) {
            conv_row r = post_hosts[host];
            cuda_case c;

            if (limit > 0 && (getenv("TRM_CUDA_DRIVER") == NULL || host > 0))
                continue;
            r.n += (int64_t)limit * 3; /* plans are remembered */
            c = conv_case(&r, TRM_OP_Conv, type, post_rows[row].bias);
            add_posts(&c, row, host % 2 == 0 ? c.in[0].dtype : TRM_DTYPE_F32);
            if (float_rows[type].dtype == TRM_DTYPE_F64) { /* constants must be f64 */
                if (host % 2 != 0)
                    continue;
                c.rtol = 1e-6; /* the CPU keeps alpha and beta in fp32, as we do */
            }
            /* values of up to 8, rounded once more where a step of its own follows */
            c.atol += limit == 0 && strcmp(c.name, "run-time scalar") != 0
                          ? 4e-7
                          : 8 * float_rows[type].rounding;
            if (limit > 0)
                setenv("TRM_EMU_CUDNN", limits[limit], 1);
            cuda_check(&c);
            unsetenv("TRM_EMU_CUDNN");
        }
}
END_TEST

START_TEST(test_transpose_posts)
{
    static const conv_row r = {"transpose", 2, 1, 8,   4,    1,   {4, 5},
                               {2, 2},      2, 0, {0}, NULL, {0}, DNN};
    size_t row = (size_t)_i;
    cuda_case c = conv_case(&r, TRM_OP_ConvTranspose, 1, post_rows[row].bias);

    add_posts(&c, row, TRM_DTYPE_F16);
    c.atol += 4e-7;
    if (strcmp(post_rows[row].name, "run-time scalar") == 0)
        c.atol += 8 * float_rows[1].rounding;
    cuda_check(&c);
    ck_assert_str_eq(c.kernel, DNN);
}
END_TEST

/* fp32 constants beside 16-bit activations; channels-last where it arrives so, and where it is no
 * difference. */
START_TEST(test_mixed)
{
    size_t type = 1 + (size_t)_i % 2, host = (size_t)_i / 2;
    cuda_case c = conv_case(&post_hosts[host], TRM_OP_Conv, type, true);

    c.in[1] = kit_widen(c.in[1]);
    c.in[2] = kit_widen(c.in[2]);
    c.known[1] = c.known[2] = true;
    cuda_check(&c);
}
END_TEST

START_TEST(test_layouts)
{
    static const conv_row r = {"layouts",    2,    2,   8,  16, 1, {4, 5}, {3, 3}, 0, 0,
                               {1, 1, 1, 1}, NULL, {0}, DNN};
    static const conv_row one = {"one",        2,    2,   1,   1, 1, {4, 5}, {3, 3}, 0, 0,
                                 {1, 1, 1, 1}, NULL, {0}, NULL};
    cuda_case c = conv_case(&r, TRM_OP_Conv, 1, true);

    add_posts(&c, 15, TRM_DTYPE_F16);
    cuda_check(&c);
    ck_assert_int_eq(c.wanted[0], TRM_LAYOUT_CHANNELS_LAST);
    ck_assert_int_eq(c.wanted[3], TRM_LAYOUT_CHANNELS_LAST);
    ck_assert_int_eq(c.gave[0], TRM_LAYOUT_CHANNELS_LAST);
    for (int i = 0; i < 2; i++) { /* one channel: whatever arrives */
        c = conv_case(&one, TRM_OP_Conv, 1, true);
        c.arrives[0] = i == 0 ? TRM_LAYOUT_PLAIN : TRM_LAYOUT_CHANNELS_LAST;
        cuda_check(&c);
        ck_assert_int_eq(c.wanted[0], c.arrives[0]);
        ck_assert_int_eq(c.gave[0], TRM_LAYOUT_PLAIN);
    }
}
END_TEST

START_TEST(test_refused)
{
    static const conv_row r = {"refused", 2, 1, 4, 4, 1, {4, 5}, {3, 3}, 0, 0, {0}, NULL, {0}, DNN};
    cuda_case c = conv_case(&r, TRM_OP_Conv, 0, true);

    c.name = "group";
    c.want_prepare = TRM_ERR_INVALID_ARG;
    kit_int(c.attrs, "group", 3);
    cuda_check(&c);
    c = conv_case(&r, TRM_OP_Conv, 0, true);
    c.name = "bias";
    c.want_prepare = TRM_ERR_INVALID_ARG;
    c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, 3), -1, 1);
    cuda_check(&c);
    c = conv_case(&r, TRM_OP_Conv, 0, true);
    c.name = "integers";
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 1, 4, 4, 5), -1, 1);
    cuda_check(&c);
    c = conv_case(&r, TRM_OP_Conv, 0, true);
    c.name = "operand";
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.in[3] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 1, 2, 3), -1, 1);
    c.in_count = 4;
    c.posts[0] = (trm_post){.op = TRM_OP_Add, .input = 3};
    c.post_count = 1;
    cuda_check(&c);
    c = (cuda_case){.name = "4-D",
                    .op = TRM_OP_Conv,
                    .in_count = 2,
                    .out_count = 1,
                    .want_prepare = TRM_ERR_UNSUPPORTED};
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 2, 2, 2, 2), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 2, 1, 1, 1, 1), -1, 1);
    c.out[0] = c.in[0];
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("conv");
    const int convs = (int)ROWS(conv_rows), transposes = (int)ROWS(transpose_rows);

    kit_cache_folder();
    tcase_add_loop_test(t, test_conv, 0, convs * KIT_FLOATS);
    tcase_add_loop_test(t, test_transpose, 0, transposes * KIT_FLOATS);
    tcase_add_test(t, test_transpose_shape);
    tcase_add_loop_test(t, test_own, 0, (convs + transposes) * KIT_FLOATS);
    tcase_add_loop_test(t, test_posts, 0, (int)ROWS(post_rows) * KIT_FLOATS);
    tcase_add_loop_test(t, test_transpose_posts, 0, (int)ROWS(post_rows));
    tcase_add_loop_test(t, test_mixed, 0, (int)ROWS(post_hosts) * 2);
    tcase_add_test(t, test_layouts);
    tcase_add_test(t, test_refused);
    return kit_main("cuda/conv", t);
}
