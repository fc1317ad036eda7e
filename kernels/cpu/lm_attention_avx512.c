/* The attention core for AVX-512: a page's scores are one vector. */
#include <immintrin.h>
#include <stddef.h>

#define TRMI_LM_ATTENTION_TABLE trmi_lm_attention_avx512
#define LANES 16
#define QK_PAGES 4
#define PV_VECTORS 4
#define VEC __m512
#define V_SET1 _mm512_set1_ps
#define V_ZERO _mm512_setzero_ps
#define V_LOADU _mm512_loadu_ps
#define V_STOREU _mm512_storeu_ps
#define V_MUL _mm512_mul_ps
#define V_FMA _mm512_fmadd_ps
#define V_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define V_BF16(p) bf16((_mm256_loadu_si256((const __m256i *)(const void *)(p))))
#define TOP_OF(v) _mm512_reduce_max_ps(_mm512_loadu_ps(v))
#define SUM_OF(v) _mm512_reduce_add_ps(_mm512_loadu_ps(v))
#define V_TAIL(kind, p, n) load_tail((kind) == KV_F32 ? 0 : (kind) == KV_F16 ? 1 : 2, (p), (n))

static inline __m512 bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline __m512 load_tail(int kind, const void *p, int n)
{
    __mmask16 mask = (__mmask16)((1u << n) - 1);

    if (kind == 0)
        return _mm512_maskz_loadu_ps(mask, p);
    if (kind == 1)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
    return bf16(_mm256_maskz_loadu_epi16(mask, p));
}

#include "kernels/cpu/lm_attention_body.h"
