/* Operation graphs of cuDNN from descriptions. */
#include "kernels/cuda/dnn_graph.h"

#include <float.h>
#include <string.h>

trm_status trmi_cuda_dnn_check(cudnnStatus_t status, const char *what)
{
    char why[256] = "";

    if (status == CUDNN_STATUS_SUCCESS)
        return TRM_OK;
    cudnnGetLastErrorString(why, sizeof(why));
    switch (CUDNN_STATUS_CATEGORY((int)status)) {
    case CUDNN_STATUS_NOT_SUPPORTED:
    case 2000: /* CUDNN_STATUS_BAD_PARAM: refused */
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN: %s: %s (%s)", what,
                        cudnnGetErrorString(status), why);
    default:
        break;
    }
    if (status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
        status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuDNN: %s: %s (%s)", what, cudnnGetErrorString(status),
                        why);
    /* where the device itself has failed, that is the error */
    TRM_CHECK(trmi_cuda_check(cudaPeekAtLastError(), what));
    return trm_fail(TRM_ERR_INTERNAL, "cuDNN: %s: %s (%s)", what, cudnnGetErrorString(status), why);
}

/* ---- attributes ---- */

typedef cudnnBackendDescriptor_t descriptor;

static trm_status make(trmi_dnn_graph *g, cudnnBackendDescriptorType_t type, descriptor *out)
{
    if (g->made_count == TRMI_DNN_MADE_MAX)
        return trm_fail(TRM_ERR_INTERNAL, "cuDNN graph of more than %d descriptors",
                        TRMI_DNN_MADE_MAX);
    TRM_CHECK(trmi_cuda_dnn_check(cudnnBackendCreateDescriptor(type, out), "descriptor"));
    g->made[g->made_count++] = *out;
    return TRM_OK;
}

static trm_status set(descriptor d, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    return trmi_cuda_dnn_check(cudnnBackendSetAttribute(d, name, type, count, values), "attribute");
}

static trm_status set_int(descriptor d, cudnnBackendAttributeName_t name, int64_t v)
{
    return set(d, name, CUDNN_TYPE_INT64, 1, &v);
}

static trm_status set_ints(descriptor d, cudnnBackendAttributeName_t name, int count,
                           const int64_t *v)
{
    return set(d, name, CUDNN_TYPE_INT64, count, v);
}

static trm_status set_dtype(descriptor d, cudnnBackendAttributeName_t name, cudnnDataType_t v)
{
    return set(d, name, CUDNN_TYPE_DATA_TYPE, 1, &v);
}

static trm_status set_float(descriptor d, cudnnBackendAttributeName_t name, float v)
{
    return set(d, name, CUDNN_TYPE_FLOAT, 1, &v);
}

static trm_status set_bool(descriptor d, cudnnBackendAttributeName_t name, bool v)
{
    return set(d, name, CUDNN_TYPE_BOOLEAN, 1, &v);
}

static trm_status set_desc(descriptor d, cudnnBackendAttributeName_t name, descriptor v)
{
    return set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v);
}

static trm_status finalize(descriptor d, const char *what)
{
    return trmi_cuda_dnn_check(cudnnBackendFinalize(d), what);
}

static trm_status dtype_of(trm_dtype dtype, cudnnDataType_t *out)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        *out = CUDNN_DATA_FLOAT;
        return TRM_OK;
    case TRM_DTYPE_F16:
        *out = CUDNN_DATA_HALF;
        return TRM_OK;
    case TRM_DTYPE_BF16:
        *out = CUDNN_DATA_BFLOAT16;
        return TRM_OK;
    case TRM_DTYPE_I8:
        *out = CUDNN_DATA_INT8;
        return TRM_OK;
    case TRM_DTYPE_I32:
        *out = CUDNN_DATA_INT32;
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN convolution of %s", trm_dtype_name(dtype));
    }
}

/* ---- tensors ---- */

enum kind { REAL, VIRTUAL, BY_VALUE };

/* dims: N, C, spatial...; the memory is N, spatial, C. */
static trm_status tensor(trmi_dnn_graph *g, int64_t id, cudnnDataType_t dtype, enum kind kind,
                         int rank, const int64_t *dims, descriptor *out)
{
    int64_t strides[5], step = dims[1];

    strides[1] = 1;
    for (int i = rank - 1; i >= 2; i--) {
        strides[i] = step;
        step *= dims[i];
    }
    strides[0] = step;
    TRM_CHECK(make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, out));
    TRM_CHECK(set_int(*out, CUDNN_ATTR_TENSOR_UNIQUE_ID, id));
    TRM_CHECK(set_dtype(*out, CUDNN_ATTR_TENSOR_DATA_TYPE, dtype));
    TRM_CHECK(set_int(*out, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16));
    TRM_CHECK(set_ints(*out, CUDNN_ATTR_TENSOR_DIMENSIONS, rank, dims));
    TRM_CHECK(set_ints(*out, CUDNN_ATTR_TENSOR_STRIDES, rank, strides));
    TRM_CHECK(set_bool(*out, CUDNN_ATTR_TENSOR_IS_VIRTUAL, kind == VIRTUAL));
    if (kind == BY_VALUE)
        TRM_CHECK(set_bool(*out, CUDNN_ATTR_TENSOR_IS_BY_VALUE, true));
    return finalize(*out, "tensor");
}

static trm_status activation(trmi_dnn_graph *g, const trmi_dnn_desc *d, bool output, int64_t id,
                             cudnnDataType_t dtype, enum kind kind, descriptor *out)
{
    int64_t dims[5] = {d->batch, output ? d->filters : d->channels};

    for (int i = 0; i < d->spatial; i++)
        dims[i + 2] = output ? d->out[i] : d->in[i];
    return tensor(g, id, dtype, kind, d->spatial + 2, dims, out);
}

static trm_status filter(trmi_dnn_graph *g, const trmi_dnn_desc *d, descriptor *out)
{
    bool back = d->kind == TRMI_DNN_CONV_TRANSPOSED;
    int64_t dims[5] = {back ? d->channels : d->filters,
                       (back ? d->filters : d->channels) / d->group};
    cudnnDataType_t dtype;

    TRM_CHECK(dtype_of(d->w, &dtype));
    for (int i = 0; i < d->spatial; i++)
        dims[i + 2] = d->kernel[i];
    return tensor(g, TRMI_DNN_ID_W, dtype, REAL, d->spatial + 2, dims, out);
}

/* The output of what is not the last operation. */
static trm_status between(trmi_dnn_graph *g, const trmi_dnn_desc *d, cudnnDataType_t dtype,
                          descriptor *out)
{
    return activation(g, d, true, TRMI_DNN_ID_VIRTUAL + g->virtual_count++, dtype, VIRTUAL, out);
}

static trm_status scalar(trmi_dnn_graph *g, const trmi_dnn_desc *d, float value, descriptor *out)
{
    static const int64_t ones[5] = {1, 1, 1, 1, 1};
    int i = g->scalar_count;

    if (i == TRMI_DNN_SCALARS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN graph of too many steps");
    g->scalars[g->scalar_count++] = value;
    return tensor(g, TRMI_DNN_ID_SCALAR + i, CUDNN_DATA_FLOAT, BY_VALUE, d->spatial + 2, ones, out);
}

/* ---- operations ---- */

static trm_status add_op(trmi_dnn_graph *g, descriptor op, const char *what)
{
    TRM_CHECK(finalize(op, what));
    if (g->op_count == TRMI_DNN_OPS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN graph of too many operations");
    g->ops[g->op_count++] = op;
    return TRM_OK;
}

static trm_status conv_op(trmi_dnn_graph *g, const trmi_dnn_desc *d, descriptor x, descriptor w,
                          descriptor y)
{
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const bool back = d->kind == TRMI_DNN_CONV_TRANSPOSED;
    descriptor conv, op;

    TRM_CHECK(make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &conv));
    TRM_CHECK(set_int(conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, d->spatial));
    TRM_CHECK(set_dtype(conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
                        d->x == TRM_DTYPE_I8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT));
    TRM_CHECK(set(conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    TRM_CHECK(set_ints(conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, d->spatial, d->pad_begin));
    TRM_CHECK(set_ints(conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, d->spatial, d->pad_end));
    TRM_CHECK(set_ints(conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, d->spatial, d->dilation));
    TRM_CHECK(set_ints(conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, d->spatial, d->stride));
    TRM_CHECK(finalize(conv, "convolution"));
    if (back) { /* x of the description is the gradient that comes in */
        TRM_CHECK(make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, &op));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, conv));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, x));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, w));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, y));
        TRM_CHECK(set_float(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, 1.0F));
        TRM_CHECK(set_float(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 0.0F));
    } else {
        TRM_CHECK(make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, &op));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w));
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y));
        TRM_CHECK(set_float(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0F));
        TRM_CHECK(set_float(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0F));
    }
    return add_op(g, op, "convolution");
}

/* What a pointwise operation has besides its mode. */
typedef struct clip {
    float low, high, slope;
} clip;

static trm_status pointwise(trmi_dnn_graph *g, cudnnPointwiseMode_t mode, const clip *c,
                            float alpha, descriptor x, descriptor b, descriptor y)
{
    descriptor p, op;

    TRM_CHECK(make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &p));
    TRM_CHECK(set(p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
    TRM_CHECK(set_dtype(p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT));
    if (c != NULL && c->low != 0.0F)
        TRM_CHECK(set_float(p, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, c->low));
    if (c != NULL && c->high != FLT_MAX)
        TRM_CHECK(set_float(p, CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, c->high));
    if (c != NULL && c->slope != 0.0F)
        TRM_CHECK(set_float(p, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, c->slope));
    if (mode == CUDNN_POINTWISE_ELU_FWD)
        TRM_CHECK(set_float(p, CUDNN_ATTR_POINTWISE_ELU_ALPHA, alpha));
    if (mode == CUDNN_POINTWISE_SWISH_FWD)
        TRM_CHECK(set_float(p, CUDNN_ATTR_POINTWISE_SWISH_BETA, 1.0F));
    TRM_CHECK(finalize(p, "pointwise operation"));
    TRM_CHECK(make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, &op));
    TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p));
    TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x));
    if (b != NULL)
        TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b));
    TRM_CHECK(set_desc(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y));
    return add_op(g, op, "pointwise operation");
}

/* min(1, max(0, alpha x + beta)); times x */
static trm_status hard(trmi_dnn_graph *g, const trmi_dnn_desc *d, float alpha, float beta,
                       bool times_x, descriptor x, descriptor y)
{
    const clip one = {0.0F, 1.0F, 0.0F};
    descriptor a, b, scaled, moved, gate = y;

    TRM_CHECK(scalar(g, d, alpha, &a));
    TRM_CHECK(scalar(g, d, beta, &b));
    TRM_CHECK(between(g, d, CUDNN_DATA_FLOAT, &scaled));
    TRM_CHECK(between(g, d, CUDNN_DATA_FLOAT, &moved));
    if (times_x)
        TRM_CHECK(between(g, d, CUDNN_DATA_FLOAT, &gate));
    TRM_CHECK(pointwise(g, CUDNN_POINTWISE_MUL, NULL, 0, x, a, scaled));
    TRM_CHECK(pointwise(g, CUDNN_POINTWISE_ADD, NULL, 0, scaled, b, moved));
    TRM_CHECK(pointwise(g, CUDNN_POINTWISE_RELU_FWD, &one, 0, moved, NULL, gate));
    return times_x ? pointwise(g, CUDNN_POINTWISE_MUL, NULL, 0, x, gate, y) : TRM_OK;
}

/* min(high, max(low, x)). A ReLU with an upper clip would only be taken by slow engines. */
static trm_status clamp(trmi_dnn_graph *g, const trmi_dnn_desc *d, float low, float high,
                        descriptor x, descriptor y)
{
    const clip zero = {0.0F, FLT_MAX, 0.0F};
    descriptor bound, above = y;

    if (high < FLT_MAX)
        TRM_CHECK(between(g, d, CUDNN_DATA_FLOAT, &above));
    if (low == 0.0F) {
        TRM_CHECK(pointwise(g, CUDNN_POINTWISE_RELU_FWD, &zero, 0, x, NULL, above));
    } else {
        TRM_CHECK(scalar(g, d, low, &bound));
        TRM_CHECK(pointwise(g, CUDNN_POINTWISE_MAX, NULL, 0, x, bound, above));
    }
    if (high >= FLT_MAX)
        return TRM_OK;
    TRM_CHECK(scalar(g, d, high, &bound));
    return pointwise(g, CUDNN_POINTWISE_MIN, NULL, 0, above, bound, y);
}

static trm_status step_op(trmi_dnn_graph *g, const trmi_dnn_desc *d, int i, descriptor x,
                          descriptor y)
{
    const trmi_dnn_step *s = &d->steps[i];
    int64_t channel[5] = {1, d->filters, 1, 1, 1};
    clip c = {0.0F, FLT_MAX, 0.0F};
    descriptor b = NULL;
    cudnnDataType_t dtype;

    switch (s->op) {
    case TRM_OP_Add:
    case TRM_OP_Mul:
        TRM_CHECK(dtype_of(s->dtype, &dtype));
        if (s->operand == TRMI_DNN_FULL)
            TRM_CHECK(activation(g, d, true, TRMI_DNN_ID_OPERAND + i, dtype, REAL, &b));
        else
            TRM_CHECK(tensor(g, TRMI_DNN_ID_OPERAND + i, dtype, REAL, d->spatial + 2, channel, &b));
        return pointwise(g, s->op == TRM_OP_Add ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_MUL, NULL,
                         0, x, b, y);
    case TRM_OP_Relu:
        return pointwise(g, CUDNN_POINTWISE_RELU_FWD, &c, 0, x, NULL, y);
    case TRM_OP_Clip:
        return clamp(g, d, s->alpha, s->beta, x, y);
    case TRM_OP_LeakyRelu:
        c.slope = s->alpha;
        return pointwise(g, CUDNN_POINTWISE_RELU_FWD, &c, 0, x, NULL, y);
    case TRM_OP_Elu:
        return pointwise(g, CUDNN_POINTWISE_ELU_FWD, NULL, s->alpha, x, NULL, y);
    case TRM_OP_Sigmoid:
        return pointwise(g, CUDNN_POINTWISE_SIGMOID_FWD, NULL, 0, x, NULL, y);
    case TRM_OP_Tanh:
        return pointwise(g, CUDNN_POINTWISE_TANH_FWD, NULL, 0, x, NULL, y);
    case TRM_OP_Gelu:
        return pointwise(
            g, s->alpha == 0.0F ? CUDNN_POINTWISE_GELU_FWD : CUDNN_POINTWISE_GELU_APPROX_TANH_FWD,
            NULL, 0, x, NULL, y);
    case TRM_OP_TrmSilu:
        return pointwise(g, CUDNN_POINTWISE_SWISH_FWD, NULL, 0, x, NULL, y);
    case TRM_OP_HardSigmoid:
        return hard(g, d, s->alpha, s->beta, false, x, y);
    case TRM_OP_HardSwish:
        return hard(g, d, 1.0F / 6.0F, 0.5F, true, x, y);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN: step %s", trm_op_get(s->op)->name);
    }
}

static trm_status check(const trmi_dnn_desc *d)
{
    if (d->spatial < 2 || d->spatial > 3 || d->step_count > TRMI_DNN_STEPS_MAX || d->group < 1)
        return trm_fail(TRM_ERR_INTERNAL, "description of a convolution");
    for (int i = 0; i < d->spatial; i++)
        if (d->pad_begin[i] < 0 || d->pad_end[i] < 0)
            return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN: negative pads");
    return TRM_OK;
}

trm_status trmi_cuda_dnn_graph_init(const trmi_dnn_desc *d, trmi_dnn_graph *g)
{
    const cudnnDataType_t wide = d->x == TRM_DTYPE_I8 ? CUDNN_DATA_INT32 : CUDNN_DATA_FLOAT;
    cudnnDataType_t x_dtype, y_dtype;
    descriptor x, w, y, at, next;
    int n = d->step_count;

    TRM_CHECK(check(d));
    TRM_CHECK(dtype_of(d->x, &x_dtype));
    TRM_CHECK(dtype_of(d->y, &y_dtype));
    TRM_CHECK(activation(g, d, false, TRMI_DNN_ID_X, x_dtype, REAL, &x));
    TRM_CHECK(activation(g, d, true, TRMI_DNN_ID_Y, y_dtype, REAL, &y));
    at = y;
    if (n > 0)
        TRM_CHECK(between(g, d, wide, &at));
    TRM_CHECK(filter(g, d, &w));
    TRM_CHECK(conv_op(g, d, x, w, at));
    for (int i = 0; i < n; i++) {
        next = y;
        if (i < n - 1)
            TRM_CHECK(between(g, d, CUDNN_DATA_FLOAT, &next));
        TRM_CHECK(step_op(g, d, i, at, next));
        at = next;
    }
    TRM_CHECK(make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &g->graph));
    TRM_CHECK(set(g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                  g->op_count, g->ops));
    return finalize(g->graph, "operation graph");
}

void trmi_cuda_dnn_graph_fini(trmi_dnn_graph *g)
{
    while (g->made_count > 0)
        (void)cudnnBackendDestroyDescriptor(g->made[--g->made_count]);
    g->graph = NULL;
}
