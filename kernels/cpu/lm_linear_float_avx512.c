/* Float weights of language models with AVX-512: a vector is a panel's outputs, activations are
 * broadcast. 12 rows x 2 panels leave registers for four weight vectors and a broadcast. */
#include "kernels/cpu/lm_linear_float.h"

#include <immintrin.h>

#define ROWS 12
#define ONE 4
#define MANY 2
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* weights of K k and k + 1 (k even) */
typedef void (*load_pair)(const unsigned char *panel, size_t k, __m512 *w0, __m512 *w1);

INLINE void load_f32(const unsigned char *panel, size_t k, __m512 *w0, __m512 *w1)
{
    *w0 = _mm512_load_ps(panel + k * 64);
    *w1 = _mm512_load_ps(panel + k * 64 + 64);
}

INLINE void load_f16(const unsigned char *panel, size_t k, __m512 *w0, __m512 *w1)
{
    *w0 = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)(panel + k * 32)));
    *w1 = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)(panel + k * 32 + 32)));
}

INLINE void load_bf16(const unsigned char *panel, size_t k, __m512 *w0, __m512 *w1)
{
    __m512i pair = _mm512_load_si512(panel + k * 32);

    *w0 = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    *w1 = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000u)));
}

/* the last K of an odd count: nothing is read behind the panel */
INLINE __m512 load_last(const unsigned char *panel, size_t k, trm_dtype dtype)
{
    __m512 w0, w1;

    if (dtype == TRM_DTYPE_F32)
        return _mm512_load_ps(panel + k * 64);
    if (dtype == TRM_DTYPE_F16)
        return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)(panel + k * 32)));
    load_bf16(panel, k, &w0, &w1);
    return w0;
}

INLINE void tile_of(const unsigned char *panel, size_t stride, const void *const *rows, size_t k,
                    size_t k_end, float *out, load_pair load, trm_dtype dtype, const int m,
                    const int panels)
{
    __m512 acc[ROWS][ONE], w0[ONE], w1[ONE];

    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
        _mm512_setzero_ps();
    for (; k + 2 <= k_end; k += 2) {
        UNROLL for (int p = 0; p < panels; p++) load(panel + (size_t)p * stride, k, &w0[p], &w1[p]);
        UNROLL for (int r = 0; r < m; r++)
        {
            const float *x = (const float *)rows[r] + k;
            __m512 x0 = _mm512_set1_ps(x[0]), x1 = _mm512_set1_ps(x[1]);

            UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
                _mm512_fmadd_ps(x0, w0[p], acc[r][p]);
            UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
                _mm512_fmadd_ps(x1, w1[p], acc[r][p]);
        }
    }
    if (k < k_end) {
        UNROLL for (int p = 0; p < panels; p++) w0[p] =
            load_last(panel + (size_t)p * stride, k, dtype);
        UNROLL for (int r = 0; r < m; r++)
        {
            __m512 x0 = _mm512_set1_ps(((const float *)rows[r])[k]);

            UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
                _mm512_fmadd_ps(x0, w0[p], acc[r][p]);
        }
    }
    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++)
        _mm512_store_ps(out + (p * m + r) * TRMI_LM_PANEL, acc[r][p]);
}

#define CASE(load, dtype, rows_in, panels_in)                                                      \
    case (rows_in)*8 + (panels_in):                                                                \
        tile_of(panel, panel_stride, rows, k_begin, k_end, acc, load, dtype, rows_in, panels_in);  \
        break;
#define CASES(load, dtype, rows_in)                                                                \
    CASE(load, dtype, rows_in, 1)                                                                  \
    CASE(load, dtype, rows_in, 2)

#define TILE(name, load, dtype)                                                                    \
    static void name(const void *panel, size_t panel_stride, int panels, const void *const *rows,  \
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)                    \
    {                                                                                              \
        (void)k;                                                                                   \
        switch (m * 8 + panels) {                                                                  \
            CASES(load, dtype, 1)                                                                  \
            CASE(load, dtype, 1, 3)                                                                \
            CASE(load, dtype, 1, 4)                                                                \
            CASES(load, dtype, 2)                                                                  \
            CASES(load, dtype, 3)                                                                  \
            CASES(load, dtype, 4)                                                                  \
            CASES(load, dtype, 5)                                                                  \
            CASES(load, dtype, 6)                                                                  \
            CASES(load, dtype, 7)                                                                  \
            CASES(load, dtype, 8)                                                                  \
            CASES(load, dtype, 9)                                                                  \
            CASES(load, dtype, 10)                                                                 \
            CASES(load, dtype, 11)                                                                 \
            CASES(load, dtype, 12)                                                                 \
        default:                                                                                   \
            TRM_ASSERT(false);                                                                     \
        }                                                                                          \
    }

TILE(tile_f32, load_f32, TRM_DTYPE_F32)
TILE(tile_f16, load_f16, TRM_DTYPE_F16)
TILE(tile_bf16, load_bf16, TRM_DTYPE_BF16)

const trmi_lm_type trmi_lm_type_f32_avx512 = {.name = "f32 avx512",
                                              .form = "f32",
                                              .dtype = TRM_DTYPE_F32,
                                              .act = TRM_DTYPE_F32,
                                              .isa = TRM_ISA_AVX512,
                                              .rows_max = ROWS,
                                              .panels_one = ONE,
                                              .panels_many = MANY,
                                              .k_multiple = 2,
                                              .panel_bytes = trmi_lm_float_panel_f32,
                                              .pack = trmi_lm_float_pack_f32,
                                              .row_bytes = trmi_lm_float_row_f32,
                                              .tile = tile_f32};

const trmi_lm_type trmi_lm_type_f16_avx512 = {.name = "f16 avx512",
                                              .form = "f16",
                                              .dtype = TRM_DTYPE_F16,
                                              .act = TRM_DTYPE_F32,
                                              .isa = TRM_ISA_AVX512,
                                              .rows_max = ROWS,
                                              .panels_one = ONE,
                                              .panels_many = MANY,
                                              .k_multiple = 2,
                                              .panel_bytes = trmi_lm_float_panel_f16,
                                              .pack = trmi_lm_float_pack_f16,
                                              .row_bytes = trmi_lm_float_row_f32,
                                              .tile = tile_f16};

const trmi_lm_type trmi_lm_type_f16_rounded_avx512 = {.name = "f16 x f16 avx512",
                                                      .form = "f16",
                                                      .dtype = TRM_DTYPE_F16,
                                                      .act = TRM_DTYPE_F16,
                                                      .isa = TRM_ISA_AVX512,
                                                      .rows_max = ROWS,
                                                      .panels_one = ONE,
                                                      .panels_many = MANY,
                                                      .k_multiple = 2,
                                                      .panel_bytes = trmi_lm_float_panel_f16,
                                                      .pack = trmi_lm_float_pack_f16,
                                                      .row_bytes = trmi_lm_float_row_f32,
                                                      .convert = trmi_lm_float_convert_halves,
                                                      .tile = tile_f16};

const trmi_lm_type trmi_lm_type_bf16_avx512 = {.name = "bf16 avx512",
                                               .form = "bf16",
                                               .dtype = TRM_DTYPE_BF16,
                                               .act = TRM_DTYPE_F32,
                                               .isa = TRM_ISA_AVX512,
                                               .rows_max = ROWS,
                                               .panels_one = ONE,
                                               .panels_many = MANY,
                                               .k_multiple = 2,
                                               .panel_bytes = trmi_lm_float_panel_bf16,
                                               .pack = trmi_lm_float_pack_bf16,
                                               .row_bytes = trmi_lm_float_row_f32,
                                               .tile = tile_bf16};

const trmi_lm_type trmi_lm_type_bf16_rounded_avx512 = {.name = "bf16 x bf16 avx512",
                                                       .form = "bf16",
                                                       .dtype = TRM_DTYPE_BF16,
                                                       .act = TRM_DTYPE_BF16,
                                                       .isa = TRM_ISA_AVX512,
                                                       .rows_max = ROWS,
                                                       .panels_one = ONE,
                                                       .panels_many = MANY,
                                                       .k_multiple = 2,
                                                       .panel_bytes = trmi_lm_float_panel_bf16,
                                                       .pack = trmi_lm_float_pack_bf16,
                                                       .row_bytes = trmi_lm_float_row_f32,
                                                       .convert = trmi_lm_float_convert_rounded,
                                                       .tile = tile_bf16};
