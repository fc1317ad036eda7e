/* fp8 weights of language models with AVX-512: a vector is a panel's outputs. See lm_linear_f8.h.
 */
#include "kernels/cpu/lm_linear_f8.h"

#include <immintrin.h>

#define ROWS 12
#define ONE 4
#define MANY 2
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE __m512 load(const unsigned char *w)
{
    __m256i b = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)w));

    return _mm512_cvtph_ps(
        _mm256_and_si256(_mm256_slli_epi16(b, 7), _mm256_set1_epi16((short)0xbf80)));
}

INLINE void tile_of(size_t block, const unsigned char *panel, size_t stride,
                    const void *const *rows, size_t k, size_t k_end, float *out, const int m,
                    const int panels)
{
    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++)
        _mm512_store_ps(out + (p * m + r) * TRMI_LM_PANEL, _mm512_setzero_ps());
    for (bool first = true; k < k_end; first = false) {
        const unsigned char *w = panel + trmi_lm_f8_at(block, k);
        const unsigned char *scales =
            panel + trmi_lm_f8_at(block, block == 0 ? 0 : k / block * block) - TRMI_LM_F8_SCALES;
        size_t end = trmi_lm_f8_end(block, k, k_end);
        __m512 acc[ROWS][ONE];

        UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
            _mm512_setzero_ps();
        for (; k < end; k += 2, w += (size_t)2 * TRMI_LM_PANEL) {
            __m512 w0[ONE], w1[ONE];

            UNROLL for (int p = 0; p < panels; p++)
            {
                w0[p] = load(w + (size_t)p * stride);
                w1[p] = load(w + (size_t)p * stride + TRMI_LM_PANEL);
            }
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
        UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++)
        {
            float *to = out + (p * m + r) * TRMI_LM_PANEL;
            __m512 scale = _mm512_load_ps(scales + (size_t)p * stride);

            _mm512_store_ps(to, first ? _mm512_mul_ps(scale, acc[r][p])
                                      : _mm512_fmadd_ps(scale, acc[r][p], _mm512_load_ps(to)));
        }
    }
}

#define CASE(block, rows_in, panels_in)                                                            \
    case (rows_in)*8 + (panels_in):                                                                \
        tile_of(block, panel, panel_stride, rows, k_begin, k_end, acc, rows_in, panels_in);        \
        break;
#define CASES(block, rows_in)                                                                      \
    CASE(block, rows_in, 1)                                                                        \
    CASE(block, rows_in, 2)

#define TILE(name, block)                                                                          \
    static void name(const void *panel, size_t panel_stride, int panels, const void *const *rows,  \
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)                    \
    {                                                                                              \
        (void)k;                                                                                   \
        switch (m * 8 + panels) {                                                                  \
            CASES(block, 1)                                                                        \
            CASE(block, 1, 3)                                                                      \
            CASE(block, 1, 4)                                                                      \
            CASES(block, 2)                                                                        \
            CASES(block, 3)                                                                        \
            CASES(block, 4)                                                                        \
            CASES(block, 5)                                                                        \
            CASES(block, 6)                                                                        \
            CASES(block, 7)                                                                        \
            CASES(block, 8)                                                                        \
            CASES(block, 9)                                                                        \
            CASES(block, 10)                                                                       \
            CASES(block, 11)                                                                       \
            CASES(block, 12)                                                                       \
        default:                                                                                   \
            TRM_ASSERT(false);                                                                     \
        }                                                                                          \
    }

TILE(tile_row, 0)
TILE(tile_128, TRMI_LM_F8_BLOCK)

TRMI_LM_F8_TYPES(_avx512, " avx512", TRM_ISA_AVX512, ROWS, ONE, MANY)
