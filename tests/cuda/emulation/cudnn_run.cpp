/* What graphs of the emulated cuDNN mean: plain loops. Tensors are read into dense [N, spatial, C]
 * arrays of fp32, whatever their strides; sums of integers are kept as int32 beside. Outputs are
 * rounded when they are stored. */
#include "tests/cuda/emulation/cudnn_emu.hpp"

#include "base/tensor.h"

#include <cfloat>
#include <cmath>

namespace trm_emu
{
namespace dnn
{
namespace
{

typedef std::shared_ptr<Descriptor> Ref;
typedef std::vector<int64_t> Dims;

/* Dense, channels innermost. */
struct Array {
    Dims dims; /* N, C, spatial... */
    std::vector<float> v;
    std::vector<int32_t> i; /* instead, where the tensor is int32 */
};

size_t element_bytes(int32_t dtype)
{
    switch (dtype) {
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
        return 2;
    case CUDNN_DATA_INT8:
        return 1;
    default:
        return 4;
    }
}

size_t count_of(const Dims &dims)
{
    size_t n = 1;

    for (int64_t d : dims)
        n *= static_cast<size_t>(d);
    return n;
}

/* Calls f(dense index, offset in elements) for every element. */
template <class F> void each(const Dims &dims, const Dims &strides, F f)
{
    const size_t rank = dims.size(), total = count_of(dims);
    Dims at(rank, 0);

    for (size_t i = 0; i < total; i++) {
        int64_t offset = 0;

        for (size_t d = 0; d < rank; d++)
            offset += at[d] * strides[d];
        f(i, static_cast<size_t>(offset));
        /* dense order: N, spatial..., C */
        if (++at[1] < dims[1])
            continue;
        at[1] = 0;
        size_t d = rank - 1;
        while (d >= 2 && ++at[d] == dims[d])
            at[d--] = 0;
        if (d < 2)
            at[0]++;
    }
}

float load(const void *p, int32_t dtype, size_t at)
{
    switch (dtype) {
    case CUDNN_DATA_HALF:
        return trm_f16_to_f32(static_cast<const uint16_t *>(p)[at]);
    case CUDNN_DATA_BFLOAT16:
        return trm_bf16_to_f32(static_cast<const uint16_t *>(p)[at]);
    case CUDNN_DATA_INT8:
        return static_cast<const int8_t *>(p)[at];
    default:
        return static_cast<const float *>(p)[at];
    }
}

void store(void *p, int32_t dtype, size_t at, float v)
{
    switch (dtype) {
    case CUDNN_DATA_HALF:
        static_cast<uint16_t *>(p)[at] = trm_f32_to_f16(v);
        break;
    case CUDNN_DATA_BFLOAT16:
        static_cast<uint16_t *>(p)[at] = trm_f32_to_bf16(v);
        break;
    case CUDNN_DATA_INT8:
        static_cast<int8_t *>(p)[at] =
            static_cast<int8_t>(std::fmin(127.0F, std::fmax(-128.0F, std::rint(v))));
        break;
    default:
        static_cast<float *>(p)[at] = v;
        break;
    }
}

float as_tf32(float x)
{
    uint32_t u;

    std::memcpy(&u, &x, sizeof(u));
    u = (u + 0x1000U) & ~0x1FFFU;
    std::memcpy(&x, &u, sizeof(u));
    return x;
}

struct State {
    const Run &run;
    std::map<int64_t, Array> arrays;
};

int64_t id_of(const Ref &t)
{
    return t->get_int64(CUDNN_ATTR_TENSOR_UNIQUE_ID);
}

const Array &read(State &s, const Ref &t)
{
    const int64_t id = id_of(t);
    const auto known = s.arrays.find(id);

    if (known != s.arrays.end())
        return known->second;
    Array &a = s.arrays[id];
    a.dims = t->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
    a.v.resize(count_of(a.dims));
    if (t->flag(CUDNN_ATTR_TENSOR_IS_BY_VALUE)) {
        a.v[0] = s.run.scalars.at(id);
        return a;
    }
    const void *p = s.run.pointers.at(id);
    const int32_t dtype = t->get_int32(CUDNN_ATTR_TENSOR_DATA_TYPE);

    each(a.dims, t->ints(CUDNN_ATTR_TENSOR_STRIDES),
         [&](size_t i, size_t offset) { a.v[i] = load(p, dtype, offset); });
    return a;
}

void write(State &s, const Ref &t, Array a)
{
    const int64_t id = id_of(t);
    const int32_t dtype = t->get_int32(CUDNN_ATTR_TENSOR_DATA_TYPE);

    if (t->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
        if (!a.i.empty() && dtype == CUDNN_DATA_INT32)
            a.v.assign(a.i.begin(), a.i.end());
        s.arrays[id] = std::move(a);
        return;
    }
    void *p = s.run.pointers.at(id);
    each(a.dims, t->ints(CUDNN_ATTR_TENSOR_STRIDES), [&](size_t i, size_t offset) {
        if (dtype == CUDNN_DATA_INT32)
            static_cast<int32_t *>(p)[offset] = a.i[i];
        else
            store(p, dtype, offset, a.v[i]);
    });
}

/* ---- convolutions ---- */

/* Dims as 3 spatial ones. */
struct Window {
    int64_t big[3], small[3], kernel[3], stride[3], dilation[3], pad[3];
    int64_t batch, groups;
    int64_t big_channels; /* of the image side */
};

Window window_of(const Descriptor &conv, const Dims &big, const Dims &small, const Dims &w)
{
    const Dims pre = conv.ints(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const Dims stride = conv.ints(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const Dims dilation = conv.ints(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    const size_t n = pre.size();
    Window r;

    r.batch = big[0];
    r.big_channels = big[1];
    r.groups = big[1] / w[1];
    for (size_t d = 0; d < 3; d++) {
        const bool absent = d + n < 3;
        const size_t e = absent ? 0 : d + n - 3;

        r.big[d] = absent ? 1 : big[e + 2];
        r.small[d] = absent ? 1 : small[e + 2];
        r.kernel[d] = absent ? 1 : w[e + 2];
        r.stride[d] = absent ? 1 : stride[e];
        r.dilation[d] = absent ? 1 : dilation[e];
        r.pad[d] = absent ? 0 : pre[e];
    }
    return r;
}

/* Calls f(row of the small side, row of the big side, tap) for all that meet. */
template <class F> void meet(const Window &w, F f)
{
    for (int64_t n = 0; n < w.batch; n++)
        for (int64_t a = 0; a < w.small[0]; a++)
            for (int64_t b = 0; b < w.small[1]; b++)
                for (int64_t c = 0; c < w.small[2]; c++)
                    for (int64_t t = 0; t < w.kernel[0] * w.kernel[1] * w.kernel[2]; t++) {
                        const int64_t k[3] = {t / w.kernel[2] / w.kernel[1],
                                              t / w.kernel[2] % w.kernel[1], t % w.kernel[2]};
                        const int64_t o[3] = {a, b, c};
                        int64_t row = n;
                        bool inside = true;

                        for (int d = 0; d < 3; d++) {
                            const int64_t at = o[d] * w.stride[d] - w.pad[d] + k[d] * w.dilation[d];

                            inside = inside && at >= 0 && at < w.big[d];
                            row = row * w.big[d] + at;
                        }
                        if (inside)
                            f(static_cast<size_t>(
                                  ((n * w.small[0] + a) * w.small[1] + b) * w.small[2] + c),
                              static_cast<size_t>(row), static_cast<size_t>(t));
                    }
}

void forward(State &s, const Descriptor &op)
{
    const Ref conv = op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC)[0];
    const Ref y = op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y)[0];
    const Array &x = read(s, op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X)[0]);
    const Array &w = read(s, op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W)[0]);
    const bool integers = conv->get_int32(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == CUDNN_DATA_INT32;
    Array out;

    out.dims = y->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
    out.v.resize(count_of(out.dims));
    const Window win = window_of(*conv, x.dims, out.dims, w.dims);
    const size_t cg = static_cast<size_t>(w.dims[1]), ks = static_cast<size_t>(w.dims[0]);
    const size_t mg = ks / static_cast<size_t>(win.groups);
    const size_t taps = count_of(w.dims) / ks / cg, cs = static_cast<size_t>(win.big_channels);
    /* [tap][channel of the group][filter]: the inner loop runs over filters */
    std::vector<float> turned(w.v.size());

    for (size_t k = 0; k < ks; k++)
        for (size_t t = 0; t < taps; t++)
            for (size_t c = 0; c < cg; c++)
                turned[(t * cg + c) * ks + k] = s.run.tf32 ? as_tf32(w.v[(k * taps + t) * cg + c])
                                                           : w.v[(k * taps + t) * cg + c];
    if (integers)
        out.i.resize(out.v.size());
    meet(win, [&](size_t small, size_t big, size_t tap) {
        for (size_t g = 0; g < static_cast<size_t>(win.groups); g++)
            for (size_t c = 0; c < cg; c++) {
                const float in = x.v[big * cs + g * cg + c], v = s.run.tf32 ? as_tf32(in) : in;
                const float *row = &turned[(tap * cg + c) * ks + g * mg];

                if (integers) {
                    int32_t *to = &out.i[small * ks + g * mg];

                    for (size_t m = 0; m < mg; m++)
                        to[m] += static_cast<int32_t>(v) * static_cast<int32_t>(row[m]);
                } else {
                    float *to = &out.v[small * ks + g * mg];

                    for (size_t m = 0; m < mg; m++)
                        to[m] += v * row[m];
                }
            }
    });
    write(s, y, std::move(out));
}

void backward(State &s, const Descriptor &op)
{
    const Ref conv = op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC)[0];
    const Ref dx = op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX)[0];
    const Array &dy = read(s, op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY)[0]);
    const Array &w = read(s, op.descriptors(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W)[0]);
    Array out;

    out.dims = dx->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
    out.v.resize(count_of(out.dims));
    const Window win = window_of(*conv, out.dims, dy.dims, w.dims);
    const size_t cg = static_cast<size_t>(w.dims[1]), ks = static_cast<size_t>(w.dims[0]);
    const size_t kg = ks / static_cast<size_t>(win.groups);
    const size_t taps = count_of(w.dims) / ks / cg, cs = static_cast<size_t>(win.big_channels);

    meet(win, [&](size_t small, size_t big, size_t tap) {
        for (size_t k = 0; k < ks; k++) {
            const float in = dy.v[small * ks + k], v = s.run.tf32 ? as_tf32(in) : in;
            const float *row = &w.v[(k * taps + tap) * cg];
            float *to = &out.v[big * cs + k / kg * cg];

            for (size_t c = 0; c < cg; c++)
                to[c] += v * (s.run.tf32 ? as_tf32(row[c]) : row[c]);
        }
    });
    write(s, dx, std::move(out));
}

/* ---- pointwise ---- */

float unary(const Descriptor &p, int32_t mode, float x)
{
    const float low = p.get_float(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0.0F);
    const float high = p.get_float(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, FLT_MAX);
    const float slope = p.get_float(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0.0F);

    switch (mode) {
    case CUDNN_POINTWISE_RELU_FWD:
        return x < low ? low + slope * (x - low) : x > high ? high : x;
    case CUDNN_POINTWISE_TANH_FWD:
        return std::tanh(x);
    case CUDNN_POINTWISE_SIGMOID_FWD:
        return 1.0F / (1.0F + std::exp(-x));
    case CUDNN_POINTWISE_ELU_FWD:
        return x < 0.0F ? p.get_float(CUDNN_ATTR_POINTWISE_ELU_ALPHA, 1.0F) * std::expm1(x) : x;
    case CUDNN_POINTWISE_GELU_FWD:
        return 0.5F * x * (1.0F + std::erf(x * 0.70710678F));
    case CUDNN_POINTWISE_GELU_APPROX_TANH_FWD:
        return 0.5F * x * (1.0F + std::tanh(0.79788456F * (x + 0.044715F * x * x * x)));
    default: /* swish */
        return x / (1.0F + std::exp(-p.get_float(CUDNN_ATTR_POINTWISE_SWISH_BETA, 1.0F) * x));
    }
}

bool is_unary(int32_t mode)
{
    switch (mode) {
    case CUDNN_POINTWISE_RELU_FWD:
    case CUDNN_POINTWISE_TANH_FWD:
    case CUDNN_POINTWISE_SIGMOID_FWD:
    case CUDNN_POINTWISE_ELU_FWD:
    case CUDNN_POINTWISE_GELU_FWD:
    case CUDNN_POINTWISE_GELU_APPROX_TANH_FWD:
    case CUDNN_POINTWISE_SWISH_FWD:
        return true;
    default:
        return false;
    }
}

bool is_binary(int32_t mode)
{
    return mode == CUDNN_POINTWISE_ADD || mode == CUDNN_POINTWISE_MUL ||
           mode == CUDNN_POINTWISE_MIN || mode == CUDNN_POINTWISE_MAX;
}

void pointwise(State &s, const Descriptor &op)
{
    const Descriptor &p = *op.descriptors(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)[0];
    const int32_t mode = p.get_int32(CUDNN_ATTR_POINTWISE_MODE);
    const Ref y = op.descriptors(CUDNN_ATTR_OPERATION_POINTWISE_YDESC)[0];
    const Array x = read(s, op.descriptors(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)[0]);
    Array out;

    out.dims = y->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
    out.v.resize(count_of(out.dims));
    if (is_unary(mode)) {
        for (size_t i = 0; i < out.v.size(); i++)
            out.v[i] = unary(p, mode, x.v[i]);
    } else {
        const Array &b = read(s, op.descriptors(CUDNN_ATTR_OPERATION_POINTWISE_BDESC)[0]);
        const size_t cs = static_cast<size_t>(out.dims[1]);
        const bool full = b.v.size() == out.v.size(), one = b.v.size() == 1;

        for (size_t i = 0; i < out.v.size(); i++) {
            const float v = b.v[full ? i : one ? 0 : i % cs];

            out.v[i] = mode == CUDNN_POINTWISE_ADD   ? x.v[i] + v
                       : mode == CUDNN_POINTWISE_MUL ? x.v[i] * v
                       : mode == CUDNN_POINTWISE_MIN ? (x.v[i] > v ? v : x.v[i])
                                                     : (x.v[i] < v ? v : x.v[i]);
        }
    }
    write(s, y, std::move(out));
}

/* ---- checks ---- */

Dims dims_of(const Descriptor &op, int name)
{
    return op.descriptors(name)[0]->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
}

const char *wrong_conv(const Descriptor &op, int conv_name, int big_name, int small_name,
                       int w_name)
{
    const Descriptor &conv = *op.descriptors(conv_name)[0];
    const Dims pre = conv.ints(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const Dims post = conv.ints(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    const Dims stride = conv.ints(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const Dims dilation = conv.ints(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    const Dims big = dims_of(op, big_name), small = dims_of(op, small_name),
               w = dims_of(op, w_name);
    const size_t n = static_cast<size_t>(conv.get_int64(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS));

    if (pre.size() != n || post.size() != n || stride.size() != n || dilation.size() != n)
        return "a convolution's lists are not as long as its spatial dims";
    if (big.size() != n + 2 || small.size() != n + 2 || w.size() != n + 2)
        return "a convolution's tensors are not of its rank";
    if (big[0] != small[0] || w[1] < 1 || big[1] % w[1] != 0 || small[1] != w[0] ||
        w[0] % (big[1] / w[1]) != 0)
        return "a convolution's channels do not fit";
    for (size_t d = 0; d < n; d++)
        if (pre[d] < 0 || post[d] < 0 ||
            (big[d + 2] + pre[d] + post[d] - ((w[d + 2] - 1) * dilation[d] + 1)) / stride[d] + 1 !=
                small[d + 2])
            return "a convolution's spatial dims do not fit";
    return nullptr;
}

const char *wrong_pointwise(const Descriptor &op)
{
    const int32_t mode = op.descriptors(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)[0]->get_int32(
        CUDNN_ATTR_POINTWISE_MODE);
    const bool has_b = op.values.count(CUDNN_ATTR_OPERATION_POINTWISE_BDESC) != 0;
    const Dims x = dims_of(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    const Dims y = dims_of(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);

    if (!is_unary(mode) && !is_binary(mode))
        return "a pointwise mode that the emulation has not got";
    if (x != y || has_b == is_unary(mode))
        return "a pointwise operation's operands do not fit";
    if (!has_b)
        return nullptr;
    const Dims b = dims_of(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const size_t n = count_of(b);

    if (b.size() != y.size() ||
        (b != y && n != 1 && !(b[1] == y[1] && n == static_cast<size_t>(y[1]))))
        return "a pointwise operand does not broadcast";
    return nullptr;
}

/* Every virtual tensor is made before it is read, and the last output is not virtual. */
const char *wrong_graph(const Descriptor &g)
{
    const auto &ops = g.descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    std::map<int64_t, bool> made;

    for (const auto &op : ops) {
        const auto tensors = tensors_of(*op);

        for (size_t i = 0; i + 1 < tensors.size(); i++)
            if (tensors[i]->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && !made[id_of(tensors[i])])
                return "a virtual tensor is read before it is made";
        if (made[id_of(tensors.back())])
            return "a tensor is made twice";
        made[id_of(tensors.back())] = true;
        if (op == ops.back() && tensors.back()->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL))
            return "the result is virtual";
    }
    return nullptr;
}

} // namespace

std::vector<Ref> tensors_of(const Descriptor &op)
{
    std::vector<Ref> list;
    const auto add = [&](int name) {
        if (op.values.count(name) != 0)
            list.push_back(op.descriptors(name)[0]);
    };

    add(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X);
    add(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    add(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y);
    add(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY);
    add(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W);
    add(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX);
    add(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    add(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    add(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    return list;
}

const char *wrong(const Descriptor &d)
{
    switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: {
        const Dims dims = d.ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
        const Dims strides = d.ints(CUDNN_ATTR_TENSOR_STRIDES);

        if (dims.size() != strides.size() || dims.size() < 3 || dims.size() > CUDNN_DIM_MAX)
            return "a tensor's dims and strides do not fit";
        for (size_t i = 0; i < dims.size(); i++)
            if (dims[i] < 1 || strides[i] < 1)
                return "a tensor's dim or stride is below 1";
        return nullptr;
    }
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return wrong_conv(d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return wrong_conv(d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return wrong_pointwise(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return wrong_graph(d);
    default:
        return nullptr;
    }
}

const char *bind(Run &run, const Descriptor &pack)
{
    const Dims ids = pack.ints(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const Dims pointers = pack.ints(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    std::map<int64_t, int64_t> given;

    if (ids.size() != pointers.size())
        return "not as many pointers as ids";
    for (size_t i = 0; i < ids.size(); i++)
        given[ids[i]] = pointers[i];
    for (const auto &op : run.graph->descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS))
        for (const auto &t : tensors_of(*op)) {
            const int64_t id = id_of(t);
            const Dims dims = t->ints(CUDNN_ATTR_TENSOR_DIMENSIONS);
            const Dims strides = t->ints(CUDNN_ATTR_TENSOR_STRIDES);
            size_t last = 0;

            if (t->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL))
                continue;
            if (given.count(id) == 0 || given[id] == 0)
                return "a tensor has no pointer";
            void *p = reinterpret_cast<void *>(static_cast<uintptr_t>(given[id]));
            if (t->flag(CUDNN_ATTR_TENSOR_IS_BY_VALUE)) {
                run.scalars[id] = *static_cast<const float *>(p);
                continue;
            }
            for (size_t d = 0; d < dims.size(); d++)
                last += static_cast<size_t>((dims[d] - 1) * strides[d]);
            if (!is_device(p,
                           (last + 1) * element_bytes(t->get_int32(CUDNN_ATTR_TENSOR_DATA_TYPE))))
                return "a tensor does not lie in device memory";
            if (given[id] % t->get_int64(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) != 0)
                return "a pointer is not aligned";
            run.pointers[id] = p;
        }
    run.workspace = reinterpret_cast<void *>(
        static_cast<uintptr_t>(pack.get_int64(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)));
    if (!is_device(run.workspace, static_cast<size_t>(kWorkspaceBytes)))
        return "the workspace does not lie in device memory";
    return nullptr;
}

void interpret(const Run &run)
{
    State s{run, {}};

    /* who shares the workspace with something that is still needed will see it */
    std::memset(run.workspace, 0xA5, static_cast<size_t>(kWorkspaceBytes));
    for (const auto &op : run.graph->descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        switch (op->type) {
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
            forward(s, *op);
            break;
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
            backward(s, *op);
            break;
        default:
            pointwise(s, *op);
            break;
        }
    }
}

} // namespace dnn
} // namespace trm_emu
