/* From a file's rows to panels (lm_quant.h): a warp a pair of groups of a panel. Once, when a model
 * is loaded. */
#include "kernels/cuda/lm_dequantize.cuh"
#include "kernels/cuda/lm_quant.h"

namespace
{

constexpr int kThreads = 256;

struct pack_args {
    const unsigned char *from;
    size_t row_bytes;
    unsigned char *to;
    int rows, groups, pairs; /* pairs: with padding, of a panel */
    size_t panel_bytes;
};

/* Quad q of a group of a row; zeros where there is none. */
template <trm_dtype T>
__device__ __forceinline__ trmi_blocks::Quad read(const pack_args &a, int row, int group, int q)
{
    constexpr int kGroups = trmi_lmq_super(T) ? 8 : 1;
    trmi_blocks::Quad o = {0, 0.0f, 0.0f, 0, 0};

    if (row < a.rows && group < a.groups)
        o = trmi_blocks::read_quad<T>(
            a.from + static_cast<size_t>(row) * a.row_bytes +
                static_cast<size_t>(group / kGroups) * trmi_blocks::bytes_of(T),
            static_cast<uint32_t>(group % kGroups), static_cast<uint32_t>(q));
    return o;
}

__device__ __forceinline__ uint16_t half_bits(float x)
{
    const __half h = trm_down<__half>(x); /* exact: it was one */

    return *reinterpret_cast<const uint16_t *>(&h);
}

template <trm_dtype T>
__device__ __forceinline__ void pack_values(const pack_args &a, int panel, int pair, int lane,
                                            unsigned char *to)
{
    constexpr int kBits = trmi_lmq_bits(T);
    const int g = lane / 4, t = lane % 4;
    uint32_t bits = 0;

    for (int i = 0; i < 2; i++) {
        uint32_t u[4], pairs = 0;

        for (int r = 0; r < 4; r++) {
            const int row = panel * TRMI_LMQ_PANEL + g + 8 * (r % 2);

            u[r] = read<T>(a, row, 2 * pair + i, t + 4 * (r / 2)).u;
            if (kBits == 8 && row < a.rows && 2 * pair + i < a.groups)
                u[r] ^= 0x80808080u;
            pairs |= (kBits == 6 ? u[r] >> 4 & 0x03030303u : u[r] & 0x03030303u) << (2 * r);
            bits |= (u[r] >> (kBits == 5 ? 4 : 2) & 0x01010101u) << (r + 4 * i);
        }
        uint32_t *words = reinterpret_cast<uint32_t *>(to);

        if (kBits == 8) {
            for (int r = 0; r < 4; r++)
                words[(i * 32 + lane) * 4 + r] = u[r];
        } else if (kBits >= 4) {
            for (int h = 0; h < 2; h++)
                words[lane * 4 + i * 2 + h] =
                    (u[2 * h] & 0x0f0f0f0fu) | (u[2 * h + 1] & 0x0f0f0f0fu) << 4;
        }
        if (kBits == 6)
            words[128 + lane * 2 + i] = pairs;
        if (kBits <= 3)
            words[lane * 2 + i] = pairs;
        if (i == 1 && kBits == 5)
            words[128 + lane] = bits;
        if (i == 1 && kBits == 3)
            words[64 + lane] = bits;
    }
}

/* `top`: where d and dmin of a superblock go */
template <trm_dtype T>
__device__ __forceinline__ void pack_scales(const pack_args &a, int panel, int pair, int lane,
                                            unsigned char *to, unsigned char *top)
{
    const int row = panel * TRMI_LMQ_PANEL + lane;

    for (int i = 0; i < 2; i++) {
        const trmi_blocks::Quad first = read<T>(a, row, 2 * pair + i, 0);
        const trmi_blocks::Quad second = read<T>(a, row, 2 * pair + i, 4);
        const uint16_t d = half_bits(first.d), m = half_bits(first.m);

        if constexpr (!trmi_lmq_super(T)) {
            uint16_t *halves = reinterpret_cast<uint16_t *>(to);

            if constexpr (trmi_lmq_mins(T)) {
                halves[lane * 4 + i * 2] = d;
                halves[lane * 4 + i * 2 + 1] = m;
            } else {
                halves[lane * 2 + i] = d;
            }
        } else {
            unsigned char *bytes = to + lane * 4 + i * 2;
            uint16_t *halves = reinterpret_cast<uint16_t *>(top);

            if constexpr (!trmi_lmq_halves(T)) {
                bytes[0] = static_cast<unsigned char>(first.scale);
                bytes[1] = static_cast<unsigned char>(first.min);
            } else if constexpr (trmi_lmq_mins(T)) {
                bytes[0] = static_cast<unsigned char>(first.scale | first.min << 4);
                bytes[1] = static_cast<unsigned char>(second.scale | second.min << 4);
            } else {
                bytes[0] = static_cast<unsigned char>(first.scale);
                bytes[1] = static_cast<unsigned char>(second.scale);
            }
            if (pair % 4 == 0 && i == 0) {
                if constexpr (trmi_lmq_mins(T)) {
                    halves[lane * 2] = d;
                    halves[lane * 2 + 1] = m;
                } else {
                    halves[lane] = d;
                }
            }
        }
    }
}

template <trm_dtype T> __global__ void __launch_bounds__(kThreads) lm_quant_pack_kernel(pack_args a)
{
    TRM_KERNEL_BEGIN();
    constexpr int kPair = trmi_lmq_pair_bytes(T), kTop = trmi_lmq_top_bytes(T);
    const int panel = static_cast<int>(blockIdx.x), lane = threadIdx.x % 32;
    unsigned char *to = a.to + static_cast<size_t>(panel) * a.panel_bytes;

    for (int pair = threadIdx.x / 32; pair < a.pairs; pair += kThreads / 32) {
        unsigned char *super = to + static_cast<size_t>(pair / 4) * (4 * kPair + kTop);
        unsigned char *at = super + pair % 4 * kPair + (pair % 4 >= 2 ? kTop : 0);

        pack_values<T>(a, panel, pair, lane, at);
        if (lane < TRMI_LMQ_PANEL)
            pack_scales<T>(a, panel, pair, lane, at + trmi_lmq_bits(T) * 128, super + 2 * kPair);
    }
}

template <trm_dtype T> trm_status pack(const pack_args &a, unsigned panels, cudaStream_t stream)
{
    return trmi_launched(TRM_LAUNCH((lm_quant_pack_kernel<T>), panels, kThreads, 0, stream, a),
                         "packed weights");
}

} // namespace

extern "C" trm_status trmi_lmq_pack(trm_dtype dtype, const void *from, size_t row_bytes,
                                    size_t rows, size_t k, void *to, cudaStream_t stream)
{
    const size_t steps = (k + TRMI_LMQ_STEP - 1) / TRMI_LMQ_STEP;
    const unsigned panels = static_cast<unsigned>((rows + TRMI_LMQ_PANEL - 1) / TRMI_LMQ_PANEL);
    pack_args a = {};

    if (panels == 0 || steps == 0)
        return TRM_OK;
    a.from = static_cast<const unsigned char *>(from);
    a.row_bytes = row_bytes;
    a.to = static_cast<unsigned char *>(to);
    a.rows = static_cast<int>(rows);
    a.groups = static_cast<int>(k / 32);
    a.pairs = static_cast<int>(2 * steps);
    a.panel_bytes = trmi_lmq_step_at(dtype, steps);
    switch (dtype) {
#define TRMI_LMQ_CASE(name, type)                                                                  \
    case TRM_DTYPE_##type:                                                                         \
        return pack<TRM_DTYPE_##type>(a, panels, stream);
        TRMI_LMQ_TYPES(TRMI_LMQ_CASE)
#undef TRMI_LMQ_CASE
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "packed weights of %s", trm_dtype_name(dtype));
    }
}
