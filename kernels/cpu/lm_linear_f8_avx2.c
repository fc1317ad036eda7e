/* fp8 weights of language models with AVX2: two vectors a panel. See lm_linear_f8.h. */
#include "kernels/cpu/lm_linear_f8.h"

#include <immintrin.h>

#define ROWS 6
#define ONE 4
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* one K for all rows and panels */
INLINE void step(const unsigned char *w, size_t stride, const void *const *rows, size_t k,
                 const int m, const int panels, __m256 acc[ROWS][2 * ONE])
{
    const __m256i keep = _mm256_set1_epi16((short)0xbf80);

    UNROLL for (int p = 0; p < panels; p++)
    {
        __m256i b = _mm256_cvtepi8_epi16(
            _mm_load_si128((const __m128i *)(const void *)(w + (size_t)p * stride)));
        __m256i h = _mm256_and_si256(_mm256_slli_epi16(b, 7), keep);
        __m256 w0 = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
        __m256 w1 = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));

        UNROLL for (int r = 0; r < m; r++)
        {
            __m256 x = _mm256_broadcast_ss((const float *)rows[r] + k);

            acc[r][2 * p] = _mm256_fmadd_ps(x, w0, acc[r][2 * p]);
            acc[r][2 * p + 1] = _mm256_fmadd_ps(x, w1, acc[r][2 * p + 1]);
        }
    }
}

INLINE void tile_of(size_t block, const unsigned char *panel, size_t stride,
                    const void *const *rows, size_t k, size_t k_end, float *out, const int m,
                    const int panels)
{
    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < 2 * panels; p++)
        _mm256_store_ps(out + (p / 2 * m + r) * TRMI_LM_PANEL + p % 2 * 8, _mm256_setzero_ps());
    for (bool first = true; k < k_end; first = false) {
        const unsigned char *w = panel + trmi_lm_f8_at(block, k);
        const unsigned char *scales =
            panel + trmi_lm_f8_at(block, block == 0 ? 0 : k / block * block) - TRMI_LM_F8_SCALES;
        size_t end = trmi_lm_f8_end(block, k, k_end);
        __m256 acc[ROWS][2 * ONE];

        UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < 2 * panels; p++) acc[r][p] =
            _mm256_setzero_ps();
        for (; k < end; k += 2, w += (size_t)2 * TRMI_LM_PANEL) {
            step(w, stride, rows, k, m, panels, acc);
            step(w + TRMI_LM_PANEL, stride, rows, k + 1, m, panels, acc);
        }
        UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < 2 * panels; p++)
        {
            float *to = out + (p / 2 * m + r) * TRMI_LM_PANEL + p % 2 * 8;
            __m256 scale =
                _mm256_load_ps((const float *)(const void *)(scales + (size_t)(p / 2) * stride +
                                                             (size_t)(p % 2) * 32));

            _mm256_store_ps(to, first ? _mm256_mul_ps(scale, acc[r][p])
                                      : _mm256_fmadd_ps(scale, acc[r][p], _mm256_load_ps(to)));
        }
    }
}

#define CASE(block, rows_in, panels_in)                                                            \
    case (rows_in)*8 + (panels_in):                                                                \
        tile_of(block, panel, panel_stride, rows, k_begin, k_end, acc, rows_in, panels_in);        \
        break;

#define TILE(name, block)                                                                          \
    static void name(const void *panel, size_t panel_stride, int panels, const void *const *rows,  \
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)                    \
    {                                                                                              \
        (void)k;                                                                                   \
        switch (m * 8 + panels) {                                                                  \
            CASE(block, 1, 1)                                                                      \
            CASE(block, 1, 2)                                                                      \
            CASE(block, 1, 3)                                                                      \
            CASE(block, 1, 4)                                                                      \
            CASE(block, 2, 1)                                                                      \
            CASE(block, 3, 1)                                                                      \
            CASE(block, 4, 1)                                                                      \
            CASE(block, 5, 1)                                                                      \
            CASE(block, 6, 1)                                                                      \
        default:                                                                                   \
            TRM_ASSERT(false);                                                                     \
        }                                                                                          \
    }

TILE(tile_row, 0)
TILE(tile_128, TRMI_LM_F8_BLOCK)

TRMI_LM_F8_TYPES(_avx2, " avx2", TRM_ISA_AVX2, ROWS, ONE, 1)
