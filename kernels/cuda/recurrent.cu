/* A step of LSTM, GRU or RNN: the product of the state with R^T, and the gates.
 *
 * A warp has one hidden unit of kBatch sequences. Its lanes run along R's rows of that unit (one a
 * gate, contiguous as ONNX stores them, so that loads are whole lines) and along the sequences'
 * states, 4 elements at a time where the hidden size allows it. The kGates * kBatch sums are joined
 * over the lanes by halving: each exchange halves the number of sums a lane holds, so that 32 sums
 * cost 31 shuffles, and then a lane a sequence gathers its gates and does the pointwise part. The 8
 * warps of a block have neighbouring units: their 4-byte accesses share sectors. */
#include "kernels/cuda/gpu.cuh" /* first: it may emulate CUDA's headers */

#include "kernels/cuda/recurrent.h"

#include <math.h>

namespace
{

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr unsigned kAll = 0xffffffffu;

enum step_kind {
    kLstm,
    kRnn,
    kGruWhole, /* reset after the linear map */
    kGruGates, /* z and r h to the scratch */
    kGruFinish /* the product of r h */
};

template <int kKind>
constexpr int kGatesOf = kKind == kLstm       ? 4
                         : kKind == kGruWhole ? 3
                         : kKind == kGruGates ? 2
                                              : 1;

template <class T> struct alignas(4 * sizeof(T)) quad {
    T x[4];
};

__device__ __forceinline__ float element(const void *p, trm_dtype dtype, size_t at)
{
    switch (dtype) {
    case TRM_DTYPE_F16:
        return __half2float(static_cast<const __half *>(p)[at]);
    case TRM_DTYPE_BF16:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[at]);
    default:
        return static_cast<const float *>(p)[at];
    }
}

__device__ __forceinline__ void put(void *p, trm_dtype dtype, size_t at, float x)
{
    switch (dtype) {
    case TRM_DTYPE_F16:
        static_cast<__half *>(p)[at] = __float2half_rn(x);
        break;
    case TRM_DTYPE_BF16:
        static_cast<__nv_bfloat16 *>(p)[at] = __float2bfloat16_rn(x);
        break;
    default:
        static_cast<float *>(p)[at] = x;
        break;
    }
}

__device__ float activate(const trmi_recurrent &k, int direction, int which, float x)
{
    const trmi_recurrent_activation a = k.act[direction][which];

    if (k.clip > 0.0f) {
        x = x < -k.clip ? -k.clip : x;
        x = x > k.clip ? k.clip : x;
    }
    switch (a.function) {
    case TRMI_RECURRENT_RELU:
        return x < 0.0f ? 0.0f : x;
    case TRMI_RECURRENT_TANH:
        return tanhf(x);
    case TRMI_RECURRENT_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case TRMI_RECURRENT_AFFINE:
        return a.alpha * x + a.beta;
    case TRMI_RECURRENT_LEAKY_RELU:
        return x < 0.0f ? a.alpha * x : x;
    case TRMI_RECURRENT_THRESHOLDED_RELU:
        return x > a.alpha ? x : 0.0f;
    case TRMI_RECURRENT_SCALED_TANH:
        return a.alpha * tanhf(a.beta * x);
    case TRMI_RECURRENT_HARD_SIGMOID:
        x = a.alpha * x + a.beta;
        return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
    case TRMI_RECURRENT_ELU:
        return x < 0.0f ? a.alpha * expm1f(x) : x;
    case TRMI_RECURRENT_SOFTSIGN:
        return x / (1.0f + fabsf(x));
    default:
        return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
    }
}

/* Sums of all lanes: afterwards lane l has that of v[l / (32 / kCount)] in v[0]. */
template <int kCount> __device__ __forceinline__ void join_lanes(float (&v)[kCount], int lane)
{
    int step = 16;

#pragma unroll
    for (int count = kCount; count > 1; count /= 2, step /= 2) {
        const bool upper = (lane & step) != 0;

#pragma unroll
        for (int i = 0; i < count / 2; i++) {
            const float give = upper ? v[i] : v[i + count / 2];
            const float keep = upper ? v[i + count / 2] : v[i];

            v[i] = keep + __shfl_xor_sync(kAll, give, step);
        }
    }
    for (; step > 0; step /= 2)
        v[0] += __shfl_xor_sync(kAll, v[0], step);
}

__device__ __forceinline__ int length_of(const trmi_recurrent &k, int b)
{
    const int length = k.lengths == nullptr ? k.steps : k.lengths[b];

    return length < 0 ? 0 : length > k.steps ? k.steps : length;
}

/* Where the outside has the state of sequence b, unit j. */
__device__ __forceinline__ size_t state_at(const trmi_recurrent &k, int d, int b, int j)
{
    const size_t row = k.batch_first ? static_cast<size_t>(b) * k.directions + d
                                     : static_cast<size_t>(d) * k.batch + b;

    return row * k.hidden + j;
}

/* What step `step` of sequence b adds to the products, without the products. */
struct cell_inputs {
    const trmi_recurrent &k;
    size_t projected, biases; /* of gate 0 */

    __device__ cell_inputs(const trmi_recurrent &r, int d, int b, int t, int j) : k(r)
    {
        const size_t wide = static_cast<size_t>(k.gates) * k.hidden;
        const size_t row = k.batch_first ? static_cast<size_t>(b) * k.steps + t
                                         : static_cast<size_t>(t) * k.batch + b;

        projected = (row * k.directions + d) * wide + j;
        biases = 2 * static_cast<size_t>(d) * wide + j;
    }
    __device__ float input(int gate) const
    {
        return k.projected[projected + static_cast<size_t>(gate) * k.hidden];
    }
    __device__ float input_bias(int gate) const
    {
        return k.b == nullptr
                   ? 0.0f
                   : element(k.b, k.dtype, biases + static_cast<size_t>(gate) * k.hidden);
    }
    __device__ float state_bias(int gate) const
    {
        return input_bias(gate + k.gates);
    }
    __device__ float all(int gate) const
    {
        return input(gate) + (input_bias(gate) + state_bias(gate));
    }
};

/* The pointwise part; gate[]: the products. h is the state before the step; returns the one
 * after. */
template <int kKind>
__device__ __forceinline__ float cell(const trmi_recurrent &k, const cell_inputs &in,
                                      const float *gate, int d, int j, size_t at, float h)
{
    if (kKind == kRnn)
        return activate(k, d, 0, gate[0] + in.all(0));
    if (kKind == kLstm) {
        const size_t pp = (static_cast<size_t>(d) * 3) * k.hidden + j;
        float i = gate[0] + in.all(0), o = gate[1] + in.all(1);
        float f = gate[2] + in.all(2), g = gate[3] + in.all(3), c = k.c[at];

        if (k.p != nullptr) {
            i += element(k.p, k.dtype, pp) * c;
            f += element(k.p, k.dtype, pp + 2 * static_cast<size_t>(k.hidden)) * c;
        }
        i = activate(k, d, 0, i);
        f = k.input_forget ? 1.0f - i : activate(k, d, 0, f);
        g = activate(k, d, 1, g);
        c = f * c + i * g;
        k.c[at] = c;
        if (k.p != nullptr)
            o += element(k.p, k.dtype, pp + k.hidden) * c;
        return activate(k, d, 0, o) * activate(k, d, 2, c);
    }
    float z, g;
    if (kKind == kGruFinish) {
        z = k.scratch[at];
        g = gate[0] + in.all(2);
    } else {
        const float r = activate(k, d, 0, gate[1] + in.all(1));

        z = activate(k, d, 0, gate[0] + in.all(0));
        g = in.input(2) + in.input_bias(2) + r * (gate[2] + in.state_bias(2));
    }
    g = activate(k, d, 1, g);
    return (1.0f - z) * g + z * h;
}

template <class T, int kKind, int kBatch>
__global__ void __launch_bounds__(kThreads)
    recurrent_step(const trmi_recurrent k, const int step, const bool wide)
{
    constexpr int kGates = kGatesOf<kKind>;
    constexpr int kSlots = kGates <= 1 ? 1 : kGates <= 2 ? 2 : 4; /* of a sequence */
    constexpr int kCount = kSlots * kBatch;
    constexpr int kFirst = kKind == kGruFinish ? 2 : 0;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int j = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
    const int first = static_cast<int>(blockIdx.y) * kBatch, d = static_cast<int>(blockIdx.z);
    const size_t states = static_cast<size_t>(k.directions) * k.batch * k.hidden;
    const float *const before = k.h + (step % 2 == 0 ? 0 : states);
    float *const after = k.h + (step % 2 == 0 ? states : 0);
    const float *const from = kKind == kGruFinish ? k.scratch + states : before;
    const T *rows[kGates];
    const float *vectors[kBatch];
    float sums[kCount];

    TRM_KERNEL_BEGIN();
    if (j >= k.hidden)
        return;
#pragma unroll
    for (int g = 0; g < kGates; g++)
        rows[g] = static_cast<const T *>(k.r) +
                  ((static_cast<size_t>(d) * k.gates + kFirst + g) * k.hidden + j) * k.hidden;
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
        const int have = first + b < k.batch ? first + b : k.batch - 1;

        vectors[b] = from + (static_cast<size_t>(d) * k.batch + have) * k.hidden;
    }
#pragma unroll
    for (int i = 0; i < kCount; i++)
        sums[i] = 0.0f;
    if (wide) {
        for (int i = lane * 4; i < k.hidden; i += 128) {
            quad<T> r[kGates];

#pragma unroll
            for (int g = 0; g < kGates; g++)
                r[g] = *reinterpret_cast<const quad<T> *>(rows[g] + i);
#pragma unroll
            for (int b = 0; b < kBatch; b++) {
                const quad<float> h = *reinterpret_cast<const quad<float> *>(vectors[b] + i);

#pragma unroll
                for (int g = 0; g < kGates; g++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        sums[b * kSlots + g] += trm_up(r[g].x[e]) * h.x[e];
            }
        }
    } else {
        for (int i = lane; i < k.hidden; i += 32) {
#pragma unroll
            for (int b = 0; b < kBatch; b++)
#pragma unroll
                for (int g = 0; g < kGates; g++)
                    sums[b * kSlots + g] += trm_up(rows[g][i]) * vectors[b][i];
        }
    }
    join_lanes<kCount>(sums, lane);
    float gate[kGates];
#pragma unroll
    for (int g = 0; g < kGates; g++)
        gate[g] = __shfl_sync(kAll, sums[0], (lane % kBatch * kSlots + g) * (32 / kCount));

    const int b = first + lane;
    if (lane >= kBatch || b >= k.batch)
        return;
    const size_t at = (static_cast<size_t>(d) * k.batch + b) * k.hidden + j;
    const int length = length_of(k, b);
    const bool backwards = k.first_reversed || d == 1, live = step < length;
    const int t = live && backwards ? length - 1 - step : step;
    float h = before[at];

    if (kKind == kGruGates) {
        if (live) {
            const cell_inputs in(k, d, b, t, j);

            k.scratch[at] = activate(k, d, 0, gate[0] + in.all(0));
            k.scratch[states + at] = activate(k, d, 0, gate[1] + in.all(1)) * h;
        } else {
            k.scratch[states + at] = 0.0f;
        }
        return;
    }
    if (live)
        h = cell<kKind>(k, cell_inputs(k, d, b, t, j), gate, d, j, at, h);
    after[at] = h;
    if (k.y != nullptr) {
        const size_t row = k.batch_first
                               ? (static_cast<size_t>(b) * k.steps + t) * k.directions + d
                               : (static_cast<size_t>(t) * k.directions + d) * k.batch + b;

        put(k.y, k.dtype, row * k.hidden + j, live ? h : 0.0f);
    }
    if (step + 1 < k.steps)
        return;
    if (k.y_h != nullptr)
        put(k.y_h, k.dtype, state_at(k, d, b, j), h);
    if (k.y_c != nullptr)
        put(k.y_c, k.dtype, state_at(k, d, b, j), k.c[at]);
}

__global__ void __launch_bounds__(kThreads) recurrent_begin(const trmi_recurrent k)
{
    const size_t count = static_cast<size_t>(k.directions) * k.batch * k.hidden;

    TRM_KERNEL_BEGIN();
    for (size_t i = blockIdx.x * static_cast<size_t>(kThreads) + threadIdx.x; i < count;
         i += static_cast<size_t>(gridDim.x) * kThreads) {
        const size_t row = i / k.hidden;
        const int j = static_cast<int>(i % k.hidden), b = static_cast<int>(row % k.batch);
        const size_t at = state_at(k, static_cast<int>(row / k.batch), b, j);
        const float h = k.h0 == nullptr ? 0.0f : element(k.h0, k.dtype, at);
        const float c = k.c0 == nullptr ? 0.0f : element(k.c0, k.dtype, at);

        k.h[i] = h;
        k.c[i] = c;
        if (k.steps > 0)
            continue;
        if (k.y_h != nullptr)
            put(k.y_h, k.dtype, at, h);
        if (k.y_c != nullptr)
            put(k.y_c, k.dtype, at, c);
    }
}

template <class T, int kKind>
trm_status launch(const trmi_recurrent *k, int step, cudaStream_t stream)
{
    const bool one = k->batch == 1;
    const bool wide = k->hidden % 4 == 0 && reinterpret_cast<uintptr_t>(k->r) % 16 == 0;
    const dim3 grid(static_cast<unsigned>((k->hidden + kWarps - 1) / kWarps),
                    static_cast<unsigned>(one ? 1 : (k->batch + 7) / 8),
                    static_cast<unsigned>(k->directions));

    if (one)
        return trmi_launched(
            TRM_LAUNCH((recurrent_step<T, kKind, 1>), grid, kThreads, 0, stream, *k, step, wide),
            "recurrent_step");
    return trmi_launched(
        TRM_LAUNCH((recurrent_step<T, kKind, 8>), grid, kThreads, 0, stream, *k, step, wide),
        "recurrent_step");
}

template <class T> trm_status step_of(const trmi_recurrent *k, int step, cudaStream_t stream)
{
    if (k->op == TRM_OP_LSTM)
        return launch<T, kLstm>(k, step, stream);
    if (k->op == TRM_OP_RNN)
        return launch<T, kRnn>(k, step, stream);
    if (k->linear_before_reset)
        return launch<T, kGruWhole>(k, step, stream);
    TRM_CHECK((launch<T, kGruGates>(k, step, stream)));
    return launch<T, kGruFinish>(k, step, stream);
}

} // namespace

extern "C" trm_status trmi_cuda_recurrent_step(const trmi_recurrent *k, int step,
                                               cudaStream_t stream)
{
    if (k->batch == 0 || k->hidden == 0)
        return TRM_OK;
    TRM_HALVES(k->dtype, T, { return step_of<T>(k, step, stream); })
    return trm_fail(TRM_ERR_UNSUPPORTED, "recurrent step of %s", trm_dtype_name(k->dtype));
}

extern "C" trm_status trmi_cuda_recurrent_begin(const trmi_recurrent *k, cudaStream_t stream)
{
    const size_t count = static_cast<size_t>(k->directions) * k->batch * k->hidden;
    const size_t blocks = (count + kThreads - 1) / kThreads;

    if (count == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(recurrent_begin,
                                    static_cast<unsigned>(blocks < 1024 ? blocks : 1024), kThreads,
                                    0, stream, *k),
                         "recurrent_begin");
}
