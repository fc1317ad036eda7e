/* BF16 weights times activations rounded to BF16, with the dot instruction: two K a step. It
 * flushes subnormals, and rounds to nearest whatever the mode. */
#include "kernels/cpu/lm_linear_float.h"

#include <immintrin.h>
#include <string.h>

#define ROWS 12
#define ONE 4
#define MANY 2
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

static size_t row_bytes(size_t k)
{
    return trm_align_up(k * 2, 64);
}

static void convert(const float *x, size_t k, void *row)
{
    uint16_t *to = row;

    for (size_t i = 0; i < row_bytes(k) / 2; i += 16) {
        size_t left = k > i ? k - i : 0;
        __mmask16 mask = _cvtu32_mask16(left < 16 ? (1u << left) - 1 : 0xffffu);
        __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));

        _mm256_store_si256((__m256i *)(void *)(to + i), (__m256i)v);
    }
}

INLINE void tile_of(const unsigned char *panel, size_t stride, const void *const *rows, size_t k,
                    size_t k_end, float *out, const int m, const int panels)
{
    __m512 acc[ROWS][ONE];
    __m512bh w[ONE];

    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
        _mm512_setzero_ps();
    for (; k < k_end; k += 2) { /* odd K: row and panel end in a zero */
        UNROLL for (int p = 0; p < panels; p++) w[p] =
            (__m512bh)_mm512_load_si512(panel + (size_t)p * stride + k * 32);
        UNROLL for (int r = 0; r < m; r++)
        {
            int pair;
            __m512bh x;

            memcpy(&pair, (const uint16_t *)rows[r] + k, 4);
            x = (__m512bh)_mm512_set1_epi32(pair);
            UNROLL for (int p = 0; p < panels; p++) acc[r][p] =
                _mm512_dpbf16_ps(acc[r][p], w[p], x);
        }
    }
    UNROLL for (int r = 0; r < m; r++) UNROLL for (int p = 0; p < panels; p++)
        _mm512_store_ps(out + (p * m + r) * TRMI_LM_PANEL, acc[r][p]);
}

#define CASE(rows_in, panels_in)                                                                   \
    case (rows_in)*8 + (panels_in):                                                                \
        tile_of(panel, panel_stride, rows, k_begin, k_end, acc, rows_in, panels_in);               \
        break;
#define CASES(rows_in) CASE(rows_in, 1) CASE(rows_in, 2)

static void tile(const void *panel, size_t panel_stride, int panels, const void *const *rows, int m,
                 size_t k, size_t k_begin, size_t k_end, float *acc)
{
    (void)k;
    switch (m * 8 + panels) {
        CASES(1)
        CASE(1, 3)
        CASE(1, 4)
        CASES(2)
        CASES(3)
        CASES(4)
        CASES(5)
        CASES(6)
        CASES(7)
        CASES(8)
        CASES(9)
        CASES(10)
        CASES(11)
        CASES(12)
    default:
        TRM_ASSERT(false);
    }
}

const trmi_lm_type trmi_lm_type_bf16_avx512bf16 = {.name = "bf16 x bf16 avx512-bf16",
                                                   .form = "bf16",
                                                   .dtype = TRM_DTYPE_BF16,
                                                   .act = TRM_DTYPE_BF16,
                                                   .isa = TRM_ISA_AVX512_BF16,
                                                   .rows_max = ROWS,
                                                   .panels_one = ONE,
                                                   .panels_many = MANY,
                                                   .k_multiple = 2,
                                                   .panel_bytes = trmi_lm_float_panel_bf16,
                                                   .pack = trmi_lm_float_pack_bf16,
                                                   .row_bytes = row_bytes,
                                                   .convert = convert,
                                                   .tile = tile};
