/* What a node does, as the cost model sees it: class, sizes, multiply-adds, bytes. */
#include "parallel/rates_impl.h"

#include <math.h>
#include <string.h>

const char *trmi_class_name(trmi_class c)
{
    static const char *const names[TRMI_CLASSES] = {
        "dense",     "product",   "conv",   "conv-few", "depthwise", "grouped", "conv-up",
        "attention", "recurrent", "add",    "math",     "norm",      "softmax", "pool",
        "reduce",    "move",      "gather", "other",    "language"};

    return (int)c >= 0 && c < TRMI_CLASSES ? names[c] : "?";
}

/* ---- tensors as numbers ---- */

static double span(const trm_tensor *t, int from, int to)
{
    double n = 1;

    for (int i = from < 0 ? 0 : from; i < to && i < t->rank; i++)
        n *= t->dims[i] > 0 ? (double)t->dims[i] : t->dims[i] == 0 ? 0 : 1;
    return n;
}

static double numel(const trm_tensor *t)
{
    return t->dtype == TRM_DTYPE_NONE || t->rank < 0 ? 0 : span(t, 0, t->rank);
}

static double bytes_of(const trm_tensor *t)
{
    size_t block = trm_dtype_block_elems(t->dtype); /* elements that have their bytes in common */

    return block == 0 ? 0 : numel(t) / (double)block * (double)trm_dtype_block_bytes(t->dtype);
}

static double from_end(const trm_tensor *t, int d)
{
    return d < t->rank ? span(t, t->rank - 1 - d, t->rank - d) : 1;
}

static void features(trmi_work *w, trmi_class class, int count, const double *f)
{
    w->kind = class;
    for (int i = 0; i < TRMI_FEATURES; i++)
        w->feature[i] = i < count && f[i] > 1 ? f[i] : 1;
}
#define FEATURES(w, class, ...)                                                                    \
    features((w), (class), (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)),                \
             (double[]){__VA_ARGS__})

/* ---- dense ---- */

/* [.., m, k] x [.., k, n]; where the right side is one matrix, outer dims of the left are rows. */
static void product(trmi_work *w, const trm_tensor *a, const trm_tensor *b, bool trans_a,
                    bool trans_b)
{
    double m = a->rank < 2 ? 1 : from_end(a, trans_a ? 0 : 1);
    double k = from_end(a, trans_a && a->rank > 1 ? 1 : 0);
    double n = b->rank < 2 ? 1 : from_end(b, trans_b ? 1 : 0);
    double batch_a = span(a, 0, a->rank - 2), batch_b = span(b, 0, b->rank - 2);

    if (batch_b <= 1) {
        m *= batch_a;
        FEATURES(w, TRMI_DENSE, m, n, k);
        w->flops = 2 * m * n * k;
        w->weights = bytes_of(b);
    } else {
        double batch = batch_a > batch_b ? batch_a : batch_b;

        FEATURES(w, TRMI_PRODUCT, m, n, k, batch);
        w->flops = 2 * batch * m * n * k;
    }
}

static double window(const trm_node *node, const trm_tensor *weights, double *stride_out)
{
    size_t n;
    const int64_t *strides = trm_attr_ints(&node->attrs, "strides", &n);
    double stride = 1;

    for (size_t i = 0; i < n; i++)
        if (strides[i] > 1)
            stride = strides[i] > stride ? (double)strides[i] : stride;
    *stride_out = stride;
    return weights == NULL ? 1 : span(weights, 2, weights->rank);
}

static void conv(trmi_work *w, const trm_node *node, const trm_tensor *in, const trm_tensor *out)
{
    /* quantized: x, scale, zero, w, ... */
    const trm_tensor *weights =
        node->op == TRM_OP_QLinearConv && node->input_count > 3 ? &in[3] : &in[1];
    bool up = node->op == TRM_OP_ConvTranspose;
    double group = (double)trm_attr_int(&node->attrs, "group", 1);
    double stride, taps = window(node, weights, &stride);
    double ins = from_end(in, in->rank - 2), outs = from_end(out, out->rank - 2);
    double images = from_end(out, out->rank - 1), pixels = span(out, 2, out->rank);
    double each;

    group = group < 1 ? 1 : group;
    w->weights = bytes_of(weights);
    each = ins / group;
    w->flops = 2 * images * (up ? span(in, 2, in->rank) : pixels) * taps * each * outs;
    if (up)
        FEATURES(w, TRMI_CONV_UP, each, outs / group, pixels, images, taps, stride);
    else if (group > 1 && each <= 1)
        FEATURES(w, TRMI_DEPTHWISE, ins, outs / group, pixels, images, taps, stride);
    else if (group > 1)
        FEATURES(w, TRMI_GROUPED, each, outs / group, pixels, images, taps, group);
    else
        FEATURES(w, ins <= 4 ? TRMI_CONV_FEW : TRMI_CONV, ins, outs, pixels, images, taps, stride);
}

static void attention(trmi_work *w, const trm_node *node, const trm_tensor *in,
                      const trm_tensor *out)
{
    double heads, q, kv, dim, vdim;

    if (in[0].rank == 4) {
        bool turned =
            node->op == TRM_OP_TrmAttention && trm_attr_int(&node->attrs, "k_transposed", 0) != 0;

        heads = span(&in[0], 0, 2);
        q = from_end(&in[0], 1);
        dim = from_end(&in[0], 0);
        kv = from_end(&in[1], turned ? 0 : 1);
        vdim = from_end(&in[2], 0);
    } else { /* [batch, length, heads * dim] */
        double count = (double)trm_attr_int(&node->attrs, "q_num_heads", 1);

        count = count < 1 ? 1 : count;
        heads = from_end(&in[0], 2) * count;
        q = from_end(&in[0], 1);
        dim = from_end(&in[0], 0) / count;
        kv = from_end(&in[1], 1);
        vdim = from_end(out, 0) / count;
    }
    FEATURES(w, TRMI_ATTENTION, heads, q, kv, dim);
    w->flops = 2 * heads * q * kv * (dim + vdim);
}

/* ---- language models (kernels/language.h) ---- */

/* x [T, K] by [N, K], or by its transpose. */
static void linear(trmi_work *w, const trm_node *node, const trm_tensor *in)
{
    bool transposed = trm_attr_int(&node->attrs, "transposed", 0) != 0;
    double m = from_end(&in[0], 1), k = from_end(&in[0], 0);
    double n = from_end(&in[1], transposed ? 0 : 1);

    FEATURES(w, TRMI_LANGUAGE, m, n, k);
    w->flops = 2 * m * n * k;
    w->weights = bytes_of(&in[1]);
}

/* As one product with all the weights' outputs. */
static void linears(trmi_work *w, const trm_node *node, const trm_tensor *in)
{
    bool transposed = trm_attr_int(&node->attrs, "transposed", 0) != 0;
    int count = (int)trm_attr_int(&node->attrs, "n", 0);
    double m = from_end(&in[0], 1), k = from_end(&in[0], 0), n = 0;

    for (int i = 1; i <= count && i < node->input_count; i++) {
        n += from_end(&in[i], transposed ? 0 : 1);
        w->weights += bytes_of(&in[i]);
    }
    FEATURES(w, TRMI_LANGUAGE, m, n, k);
    w->flops = 2 * m * n * k;
}

/* What a step knows of the cache is not in the shapes: so many positions are assumed to be seen. */
#define POSITIONS 512

static void paged_attention(trmi_work *w, const trm_node *node, const trm_tensor *in)
{
    double heads = (double)trm_attr_int(&node->attrs, "heads", 1);
    double kv = (double)trm_attr_int(&node->attrs, "kv_heads", 1);
    double dim = (double)trm_attr_int(&node->attrs, "head_dim", 1), tokens = from_end(&in[0], 1);
    double window = (double)trm_attr_int(&node->attrs, "window", 0);
    bool encoder = trm_attr_int(&node->attrs, "encoder", 0) != 0;
    double seen = encoder ? tokens : window > 0 && window < POSITIONS ? window : POSITIONS;

    FEATURES(w, TRMI_LANGUAGE, tokens, heads, seen, dim);
    w->flops = 4 * heads * tokens * seen * dim;
    if (!encoder)
        w->bytes += 2 * kv * dim * seen * 2;
}

/* Of the experts that are here: each token chooses top_k of all. */
static void experts(trmi_work *w, const trm_node *node, const trm_tensor *in, const trm_tensor *out)
{
    double tokens = from_end(&in[0], 1), all = from_end(&in[1], 0), here = span(&in[2], 0, 1);
    double chosen = tokens * (double)trm_attr_int(&node->attrs, "top_k", 1);
    double weights = bytes_of(&in[2]) + bytes_of(&in[3]) + bytes_of(&in[4]);
    double read = weights * (chosen < all ? chosen / all : 1);

    FEATURES(w, TRMI_LANGUAGE, chosen * here / all, span(&in[2], 1, 2), from_end(&in[0], 0));
    w->flops = 2 * chosen * (numel(&in[2]) + numel(&in[3]) + numel(&in[4])) / all;
    w->weights = read;
    w->bytes = bytes_of(&in[0]) + bytes_of(&in[1]) + bytes_of(out) + read;
}

static void recurrent(trmi_work *w, const trm_node *node, const trm_tensor *in)
{
    double steps = span(&in[0], 0, 1), batch = span(&in[0], 1, 2), size = from_end(&in[0], 0);
    double hidden = (double)trm_attr_int(&node->attrs, "hidden_size", 1);

    FEATURES(w, TRMI_RECURRENT, steps, batch, size, hidden);
    w->weights = bytes_of(&in[1]) + bytes_of(&in[2]);
    /* weights [directions, gates * hidden, size], [.., hidden] */
    w->flops = 2 * steps * batch * (numel(&in[1]) + numel(&in[2]));
}

/* ---- by bytes ---- */

static trmi_class class_by_bytes(trm_op op)
{
    switch (op) {
    case TRM_OP_Erf:
    case TRM_OP_Exp:
    case TRM_OP_Gelu:
    case TRM_OP_Log:
    case TRM_OP_Mish:
    case TRM_OP_Pow:
    case TRM_OP_Selu:
    case TRM_OP_Celu:
    case TRM_OP_Elu:
    case TRM_OP_Sigmoid:
    case TRM_OP_Softplus:
    case TRM_OP_Swish:
    case TRM_OP_SwiGLU:
    case TRM_OP_Tanh:
    case TRM_OP_TrmSilu:
    case TRM_OP_TrmGated:
    case TRM_OP_TrmRope:
    case TRM_OP_Sin:
    case TRM_OP_Cos:
    case TRM_OP_Tan:
    case TRM_OP_Sinh:
    case TRM_OP_Cosh:
    case TRM_OP_Asin:
    case TRM_OP_Acos:
    case TRM_OP_Atan:
    case TRM_OP_Asinh:
    case TRM_OP_Acosh:
    case TRM_OP_Atanh:
        return TRMI_MATH;
    case TRM_OP_LayerNormalization:
    case TRM_OP_RMSNormalization:
    case TRM_OP_BatchNormalization:
    case TRM_OP_GroupNormalization:
    case TRM_OP_InstanceNormalization:
    case TRM_OP_LpNormalization:
    case TRM_OP_MeanVarianceNormalization:
    case TRM_OP_TrmNorm:
    case TRM_OP_TrmAddNorm:
        return TRMI_NORM;
    case TRM_OP_Softmax:
    case TRM_OP_LogSoftmax:
    case TRM_OP_Hardmax:
        return TRMI_SOFTMAX;
    case TRM_OP_MaxPool:
    case TRM_OP_AveragePool:
    case TRM_OP_LpPool:
        return TRMI_POOL;
    case TRM_OP_GlobalAveragePool:
    case TRM_OP_GlobalMaxPool:
    case TRM_OP_GlobalLpPool:
    case TRM_OP_ReduceL1:
    case TRM_OP_ReduceL2:
    case TRM_OP_ReduceLogSum:
    case TRM_OP_ReduceLogSumExp:
    case TRM_OP_ReduceMax:
    case TRM_OP_ReduceMean:
    case TRM_OP_ReduceMin:
    case TRM_OP_ReduceProd:
    case TRM_OP_ReduceSum:
    case TRM_OP_ReduceSumSquare:
    case TRM_OP_ArgMax:
    case TRM_OP_ArgMin:
    case TRM_OP_TrmPool:
        return TRMI_REDUCE;
    case TRM_OP_Transpose:
    case TRM_OP_Concat:
    case TRM_OP_Split:
    case TRM_OP_Slice:
    case TRM_OP_Pad:
    case TRM_OP_Expand:
    case TRM_OP_Tile:
    case TRM_OP_DepthToSpace:
    case TRM_OP_SpaceToDepth:
    case TRM_OP_Resize:
    case TRM_OP_TrmShard:
        return TRMI_MOVE;
    case TRM_OP_Gather:
    case TRM_OP_GatherElements:
    case TRM_OP_GatherND:
    case TRM_OP_TrmEmbed:
    case TRM_OP_TrmRows:
        return TRMI_GATHER;
    default:
        return (trm_op_get(op)->flags & TRM_OPF_ELEMENTWISE) != 0 ? TRMI_ADD : TRMI_OTHER;
    }
}

static void by_bytes(trmi_work *w, const trm_node *node, const trm_tensor *in,
                     const trm_tensor *out)
{
    trmi_class class = class_by_bytes(node->op);
    double row = node->input_count > 0 ? from_end(&in[0], 0) : 1, taps = 1;

    switch (class) {
    case TRMI_NORM:
    case TRMI_SOFTMAX:
        FEATURES(w, class, w->bytes, row);
        break;
    case TRMI_POOL: {
        size_t n;
        const int64_t *kernel = trm_attr_ints(&node->attrs, "kernel_shape", &n);

        for (size_t i = 0; i < n; i++)
            taps *= kernel[i] > 1 ? (double)kernel[i] : 1;
        FEATURES(w, class, w->bytes, taps);
        w->flops = numel(out) * taps;
        break;
    }
    case TRMI_GATHER: /* the rows taken, not the table they come from */
        w->bytes = 2 * bytes_of(out);
        FEATURES(w, class, w->bytes, node->output_count > 0 ? from_end(out, 0) : 1);
        break;
    default:
        if (node->op == TRM_OP_Slice) /* reads what it gives */
            w->bytes = 2 * bytes_of(out);
        FEATURES(w, class, w->bytes);
        break;
    }
}

bool trmi_work_of(const trm_node *node, const trm_tensor *in, const trm_tensor *out, trmi_work *w)
{
    uint32_t flags = trm_op_get(node->op)->flags;

    memset(w, 0, sizeof(*w));
    if (node->op == TRM_OP_NONE || node->op == TRM_OP_Shape || node->op == TRM_OP_Size ||
        (flags & TRM_OPF_VIEW) != 0 || node->output_count < 1)
        return false;
    if (out[0].data != NULL) /* shape arithmetic: done while binding */
        return false;
    for (int i = 0; i < node->input_count; i++)
        w->bytes += bytes_of(&in[i]);
    for (int k = 0; k < node->output_count; k++)
        w->bytes += bytes_of(&out[k]);
    switch (node->op) {
    case TRM_OP_MatMul:
    case TRM_OP_MatMulInteger:
        product(w, &in[0], &in[1], false, false);
        break;
    case TRM_OP_QLinearMatMul: /* a, scale, zero, b, ... */
        product(w, &in[0], &in[3], false, false);
        break;
    case TRM_OP_Gemm:
        product(w, &in[0], &in[1], trm_attr_int(&node->attrs, "transA", 0) != 0,
                trm_attr_int(&node->attrs, "transB", 0) != 0);
        break;
    case TRM_OP_Einsum: /* sqrt(mk * kn * mn) = mnk */
        if (node->input_count == 2) {
            double mnk = sqrt(numel(&in[0]) * numel(&in[1]) * numel(&out[0]));

            FEATURES(w, TRMI_PRODUCT, cbrt(mnk), cbrt(mnk), cbrt(mnk));
            w->flops = 2 * mnk;
            break;
        }
        by_bytes(w, node, in, out);
        break;
    case TRM_OP_Conv:
    case TRM_OP_ConvInteger:
    case TRM_OP_QLinearConv:
    case TRM_OP_ConvTranspose:
    case TRM_OP_DeformConv:
        if (in[0].rank >= 2 && out[0].rank >= 2)
            conv(w, node, in, out);
        else
            by_bytes(w, node, in, out);
        break;
    case TRM_OP_TrmAttention:
    case TRM_OP_Attention:
        if (node->input_count >= 3)
            attention(w, node, in, out);
        else
            by_bytes(w, node, in, out);
        break;
    case TRM_OP_TrmLinear:
        linear(w, node, in);
        break;
    case TRM_OP_TrmLinears:
        linears(w, node, in);
        break;
    case TRM_OP_TrmPagedAttention:
        paged_attention(w, node, in);
        break;
    case TRM_OP_TrmExperts:
        experts(w, node, in, out);
        break;
    case TRM_OP_LSTM:
    case TRM_OP_GRU:
    case TRM_OP_RNN:
        recurrent(w, node, in);
        break;
    default:
        by_bytes(w, node, in, out);
        break;
    }
    return true;
}
