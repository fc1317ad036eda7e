/* Float weights of language models with AVX2: two vectors a panel. 6 rows x 1 panel leave registers
 * for two weight vectors and a broadcast. */
#include "kernels/cpu/lm_linear_float.h"

#include <immintrin.h>

#define ROWS 6
#define ONE 4
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* weights of K k (f32, f16) or of k = `base` + `odd` (bf16), outputs [8 half, 8 half + 8) */
typedef __m256 (*load_half)(const unsigned char *panel, size_t base, int odd, int half);

INLINE __m256 load_f32(const unsigned char *panel, size_t base, int odd, int half)
{
    return _mm256_load_ps(
        (const float *)(const void *)(panel + (base + (size_t)odd) * 64 + (size_t)half * 32));
}

INLINE __m256 load_f16(const unsigned char *panel, size_t base, int odd, int half)
{
    return _mm256_cvtph_ps(_mm_load_si128(
        (const __m128i *)(const void *)(panel + (base + (size_t)odd) * 32 + (size_t)half * 16)));
}

INLINE __m256 load_bf16(const unsigned char *panel, size_t base, int odd, int half)
{
    __m256i pair =
        _mm256_load_si256((const __m256i *)(const void *)(panel + base * 32 + (size_t)half * 32));

    return _mm256_castsi256_ps(odd ? _mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000u))
                                   : _mm256_slli_epi32(pair, 16));
}

/* one K for all rows and panels */
INLINE void step(const unsigned char *panel, size_t stride, const void *const *rows, size_t k,
                 int odd, load_half load, const int m, const int panels, __m256 acc[ROWS][2 * ONE])
{
    UNROLL for (int p = 0; p < panels; p++)
    {
        const unsigned char *from = panel + (size_t)p * stride;
        __m256 w0 = load(from, k, odd, 0), w1 = load(from, k, odd, 1);

        UNROLL for (int r = 0; r < m; r++)
        {
            __m256 x = _mm256_broadcast_ss((const float *)rows[r] + k + odd);

            acc[r][2 * p] = _mm256_fmadd_ps(x, w0, acc[r][2 * p]);
            acc[r][2 * p + 1] = _mm256_fmadd_ps(x, w1, acc[r][2 * p + 1]);
        }
    }
}

INLINE void tile_of(const unsigned char *panel, size_t stride, const void *const *rows, size_t k,
                    size_t k_end, float *out, load_half load, const int m, const int panels)
{
    __m256 acc[ROWS][2 * ONE];

    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < 2 * panels; p++) acc[r][p] =
        _mm256_setzero_ps();
    for (; k + 2 <= k_end; k += 2) {
        step(panel, stride, rows, k, 0, load, m, panels, acc);
        step(panel, stride, rows, k, 1, load, m, panels, acc);
    }
    if (k < k_end)
        step(panel, stride, rows, k, 0, load, m, panels, acc);
    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < 2 * panels; p++)
        _mm256_store_ps(out + (p / 2 * m + r) * TRMI_LM_PANEL + p % 2 * 8, acc[r][p]);
}

#define CASE(load, rows_in, panels_in)                                                             \
    case (rows_in)*8 + (panels_in):                                                                \
        tile_of(panel, panel_stride, rows, k_begin, k_end, acc, load, rows_in, panels_in);         \
        break;

#define TILE(name, load)                                                                           \
    static void name(const void *panel, size_t panel_stride, int panels, const void *const *rows,  \
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)                    \
    {                                                                                              \
        (void)k;                                                                                   \
        switch (m * 8 + panels) {                                                                  \
            CASE(load, 1, 1)                                                                       \
            CASE(load, 1, 2)                                                                       \
            CASE(load, 1, 3)                                                                       \
            CASE(load, 1, 4)                                                                       \
            CASE(load, 2, 1)                                                                       \
            CASE(load, 3, 1)                                                                       \
            CASE(load, 4, 1)                                                                       \
            CASE(load, 5, 1)                                                                       \
            CASE(load, 6, 1)                                                                       \
        default:                                                                                   \
            TRM_ASSERT(false);                                                                     \
        }                                                                                          \
    }

TILE(tile_f32, load_f32)
TILE(tile_f16, load_f16)
TILE(tile_bf16, load_bf16)

const trmi_lm_type trmi_lm_type_f32_avx2 = {.name = "f32 avx2",
                                            .form = "f32",
                                            .dtype = TRM_DTYPE_F32,
                                            .act = TRM_DTYPE_F32,
                                            .isa = TRM_ISA_AVX2,
                                            .rows_max = ROWS,
                                            .panels_one = ONE,
                                            .panels_many = 1,
                                            .k_multiple = 2,
                                            .panel_bytes = trmi_lm_float_panel_f32,
                                            .pack = trmi_lm_float_pack_f32,
                                            .row_bytes = trmi_lm_float_row_f32,
                                            .tile = tile_f32};

const trmi_lm_type trmi_lm_type_f16_avx2 = {.name = "f16 avx2",
                                            .form = "f16",
                                            .dtype = TRM_DTYPE_F16,
                                            .act = TRM_DTYPE_F32,
                                            .isa = TRM_ISA_AVX2,
                                            .rows_max = ROWS,
                                            .panels_one = ONE,
                                            .panels_many = 1,
                                            .k_multiple = 2,
                                            .panel_bytes = trmi_lm_float_panel_f16,
                                            .pack = trmi_lm_float_pack_f16,
                                            .row_bytes = trmi_lm_float_row_f32,
                                            .tile = tile_f16};

const trmi_lm_type trmi_lm_type_f16_rounded_avx2 = {.name = "f16 x f16 avx2",
                                                    .form = "f16",
                                                    .dtype = TRM_DTYPE_F16,
                                                    .act = TRM_DTYPE_F16,
                                                    .isa = TRM_ISA_AVX2,
                                                    .rows_max = ROWS,
                                                    .panels_one = ONE,
                                                    .panels_many = 1,
                                                    .k_multiple = 2,
                                                    .panel_bytes = trmi_lm_float_panel_f16,
                                                    .pack = trmi_lm_float_pack_f16,
                                                    .row_bytes = trmi_lm_float_row_f32,
                                                    .convert = trmi_lm_float_convert_halves,
                                                    .tile = tile_f16};

const trmi_lm_type trmi_lm_type_bf16_avx2 = {.name = "bf16 avx2",
                                             .form = "bf16",
                                             .dtype = TRM_DTYPE_BF16,
                                             .act = TRM_DTYPE_F32,
                                             .isa = TRM_ISA_AVX2,
                                             .rows_max = ROWS,
                                             .panels_one = ONE,
                                             .panels_many = 1,
                                             .k_multiple = 2,
                                             .panel_bytes = trmi_lm_float_panel_bf16,
                                             .pack = trmi_lm_float_pack_bf16,
                                             .row_bytes = trmi_lm_float_row_f32,
                                             .tile = tile_bf16};

const trmi_lm_type trmi_lm_type_bf16_rounded_avx2 = {.name = "bf16 x bf16 avx2",
                                                     .form = "bf16",
                                                     .dtype = TRM_DTYPE_BF16,
                                                     .act = TRM_DTYPE_BF16,
                                                     .isa = TRM_ISA_AVX2,
                                                     .rows_max = ROWS,
                                                     .panels_one = ONE,
                                                     .panels_many = 1,
                                                     .k_multiple = 2,
                                                     .panel_bytes = trmi_lm_float_panel_bf16,
                                                     .pack = trmi_lm_float_pack_bf16,
                                                     .row_bytes = trmi_lm_float_row_f32,
                                                     .convert = trmi_lm_float_convert_rounded,
                                                     .tile = tile_bf16};
