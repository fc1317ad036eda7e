/* fp8 weights of lm_float.h: laying them out, and what surrounds a product that cuBLASLt does. */
#include "kernels/cuda/lm_float.cuh"

using namespace trmi_lmf;

namespace
{

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr float kGreatest = 448.0f; /* of e4m3 */

/* ---- weights ---- */

/* A thread has 8 elements of a row: those of a lane of a chunk. */
__global__ void lm_lay_out_f8(const trmi_lmf_lay l, size_t elems, size_t groups, size_t works)
{
    TRM_KERNEL_BEGIN();
    const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;

    if (i >= works)
        return;
    const size_t row = i / groups, c = i % groups * 8, r = l.row + row;
    const size_t in = r % TRMI_LMF_PANEL, t = c % TRMI_LMF_CHUNK / 8;
    uint2 v = {0, 0};
    unsigned char *to = static_cast<unsigned char *>(l.to) + r / TRMI_LMF_PANEL * l.form.panel +
                        c / TRMI_LMF_CHUNK * l.form.chunk;

    if (row < l.rows && r < l.n && c < l.k) { /* blocks are of 4 bytes more than whole words */
        const uint32_t *const from = reinterpret_cast<const uint32_t *>(
            static_cast<const unsigned char *>(l.from) + row * l.row_step +
            c / elems * (elems + sizeof(float)) + sizeof(float) + c % elems);

        v = uint2{from[0], from[1]};
    }
    if (l.form.plain) {
        to += in * l.form.row + t * 8;
    } else {
        to += in % 8 * 64 + t * 16 + in / 8 * 8;
        v = uint2{__byte_perm(v.x, 0, 0x3120), __byte_perm(v.y, 0, 0x3120)};
    }
    *reinterpret_cast<uint2 *>(to) = v;
}

/* A warp has a scale, and looks for NaN among its elements. */
__global__ void lm_lay_out_scales(const trmi_lmf_lay l, size_t elems, size_t works)
{
    TRM_KERNEL_BEGIN();
    const size_t i = static_cast<size_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const size_t blocks = static_cast<size_t>(l.form.blocks);

    if (i >= works)
        return;
    const size_t row = i / blocks, block = i % blocks, r = l.row + row;
    const size_t all = blocks == 1 ? l.k : elems; /* of the scale */
    const bool here = row < l.rows && r < l.n && l.k > 0;
    const unsigned char *const from = static_cast<const unsigned char *>(l.from) +
                                      row * l.row_step + block * (elems + sizeof(float));
    bool bad = false;

    for (size_t c = static_cast<size_t>(lane) * 4; here && c < all; c += 32 * 4) {
        const uint32_t w = *reinterpret_cast<const uint32_t *>(
            from + c / elems * (elems + sizeof(float)) + sizeof(float) + c % elems);

        /* a byte that is 0x7f but for its sign carries into the bit of the sign */
        bad |= (((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u) != 0;
    }
    bad = __any_sync(0xffffffffu, bad) != 0;
    if (lane == 0) {
        float *const to =
            reinterpret_cast<float *>(static_cast<unsigned char *>(l.to) + l.form.scales) +
            (r / TRMI_LMF_PANEL * blocks + block) * TRMI_LMF_PANEL;

        to[r % TRMI_LMF_PANEL] = bad    ? __uint_as_float(0x7fc00000u)
                                 : here ? *reinterpret_cast<const float *>(from)
                                        : 0.0f;
    }
}

/* ---- rows ---- */

/* |x| <= 448 to e4m3, to nearest even. Below 2^-6 numbers are whole multiples of 2^-9. */
__device__ __forceinline__ uint32_t to_e4m3(float x)
{
    const uint32_t sign = __float_as_uint(x) >> 24 & 0x80u;
    const float a = fabsf(x);
    uint32_t bits = __float_as_uint(a);

    if (a < 0.015625f)
        return sign | static_cast<uint32_t>(__float2int_rn(a * 512.0f));
    bits = (bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20; /* exponent and 3 bits */
    bits -= 120u << 3;
    return sign | (bits < 0x7eu ? bits : 0x7eu);
}

/* A block has a row. */
__global__ void __launch_bounds__(kThreads)
    lm_quantize_f8(const float *x, size_t k, size_t k_padded, uint32_t *quantized, float *scale)
{
    __shared__ float most[kWarps];
    const int id = static_cast<int>(threadIdx.x);

    TRM_KERNEL_BEGIN();
    const float *const row = x + static_cast<size_t>(blockIdx.x) * k;
    const bool wide = k % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
    auto four = [&](size_t at) {
        float4 v = {0.0f, 0.0f, 0.0f, 0.0f};

        if (wide && at + 4 <= k)
            return *reinterpret_cast<const float4 *>(row + at);
        v.x = at < k ? row[at] : 0.0f;
        v.y = at + 1 < k ? row[at + 1] : 0.0f;
        v.z = at + 2 < k ? row[at + 2] : 0.0f;
        v.w = at + 3 < k ? row[at + 3] : 0.0f;
        return v;
    };
    /* compared as integers, which order magnitudes as the numbers do, and NaN last */
    uint32_t greatest = 0;
    auto look = [&](float v) {
        const uint32_t bits = __float_as_uint(v) & 0x7fffffffu;

        greatest = bits > greatest ? bits : greatest;
    };
    for (size_t at = static_cast<size_t>(id) * 4; at < k; at += kThreads * 4) {
        const float4 v = four(at);

        look(v.x);
        look(v.y);
        look(v.z);
        look(v.w);
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, greatest, by);

        greatest = other > greatest ? other : greatest;
    }
    if (id % 32 == 0)
        most[id / 32] = __uint_as_float(greatest);
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; w++)
        look(most[w]);
    const bool finite = greatest < 0x7f800000u;
    const float of = __uint_as_float(greatest);
    /* rows that small are zeros, or 448 / of is infinite */
    const bool none = !finite || of < 1e-35f;
    const float down = none ? 0.0f : __fdiv_rn(kGreatest, of);

    if (id == 0)
        scale[blockIdx.x] = !finite ? __uint_as_float(0x7fc00000u)
                            : none  ? 0.0f
                                    : __fdiv_rn(of, kGreatest);
    uint32_t *const to = quantized + static_cast<size_t>(blockIdx.x) * (k_padded / 4);
    for (size_t at = static_cast<size_t>(id) * 4; at < k_padded; at += kThreads * 4) {
        const float4 v = four(at);
        uint32_t bits = 0;

        if (!none)
            bits = to_e4m3(__fmul_rn(v.x, down)) | to_e4m3(__fmul_rn(v.y, down)) << 8 |
                   to_e4m3(__fmul_rn(v.z, down)) << 16 | to_e4m3(__fmul_rn(v.w, down)) << 24;
        to[at / 4] = bits;
    }
}

/* ---- sums ---- */

__device__ __forceinline__ float side_of(const trmi_lmf_finish_side &s, size_t i, size_t feature,
                                         float row_scale)
{
    float y = s.sum[i];

    if (s.scale != nullptr)
        y = __fmul_rn(__fmul_rn(y, row_scale), s.scale[feature]);
    return s.bias != nullptr ? __fadd_rn(y, s.bias[feature]) : y;
}

__global__ void lm_finish(const trmi_lmf_finish_side a, const trmi_lmf_finish_side b,
                          const float *row_scale, size_t n, size_t works, int gate)
{
    TRM_KERNEL_BEGIN();
    for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < works;
         i += static_cast<size_t>(gridDim.x) * kThreads) {
        const size_t feature = i % n;
        const float of = row_scale != nullptr ? row_scale[i / n] : 1.0f;
        float y = side_of(a, i, feature, of);

        if (gate != TRMI_LMC_ACT_COUNT)
            y = trm_lm_gated(gate, y, side_of(b, i, feature, of));
        a.sum[i] = y;
    }
}

unsigned blocks_of(size_t works, size_t each)
{
    return static_cast<unsigned>((works + each - 1) / each);
}

} // namespace

extern "C" trm_status trmi_lmf_lay_out_f8(const trmi_lmf_lay *l, cudaStream_t stream)
{
    const size_t elems = trm_dtype_block_elems(l->form.dtype), groups = l->form.k_padded / 8;
    const size_t rows = trm_align_up(l->rows, TRMI_LMF_PANEL), works = groups * rows;
    const size_t marks = rows * static_cast<size_t>(l->form.blocks);

    if (works / kWarps > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a piece of a weight of %zu rows of %zu", l->rows,
                        l->columns);
    if (works > 0)
        TRM_CHECK(trmi_launched(TRM_LAUNCH(lm_lay_out_f8, blocks_of(works, kThreads), kThreads, 0,
                                           stream, *l, elems, groups, works),
                                "lm_lay_out_f8"));
    if (marks == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_lay_out_scales, blocks_of(marks, kWarps), kThreads, 0,
                                    stream, *l, elems, marks),
                         "lm_lay_out_scales");
}

extern "C" trm_status trmi_lmf_quantize(const float *x, size_t m, size_t k, size_t k_padded,
                                        void *quantized, float *scale, cudaStream_t stream)
{
    if (m == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_quantize_f8, static_cast<unsigned>(m), kThreads, 0, stream,
                                    x, k, k_padded, static_cast<uint32_t *>(quantized), scale),
                         "lm_quantize_f8");
}

extern "C" trm_status trmi_lmf_finish(const trmi_lmf_finish_side side[2], const float *row_scale,
                                      size_t m, size_t n, trmi_lmc_act gate, int multiprocessors,
                                      cudaStream_t stream)
{
    const size_t most = static_cast<size_t>(multiprocessors) * 8;
    const size_t blocks = (m * n + kThreads - 1) / kThreads;

    if (blocks == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH(lm_finish, static_cast<unsigned>(blocks < most ? blocks : most),
                                    kThreads, 0, stream, side[0], side[1], row_scale, n, m * n,
                                    static_cast<int>(gate)),
                         "lm_finish");
}
