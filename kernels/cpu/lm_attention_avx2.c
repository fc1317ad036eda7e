/* The attention core for AVX2, FMA and F16C: a page's scores are two vectors. */
#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#define TRMI_LM_ATTENTION_TABLE trmi_lm_attention_avx2
#define LANES 8
#define QK_PAGES 1
#define PV_VECTORS 2
#define VEC __m256
#define V_SET1 _mm256_set1_ps
#define V_ZERO _mm256_setzero_ps
#define V_LOADU _mm256_loadu_ps
#define V_STOREU _mm256_storeu_ps
#define V_MUL _mm256_mul_ps
#define V_FMA _mm256_fmadd_ps
#define V_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define V_BF16(p) bf16(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define TOP_OF(v) top_of(_mm256_max_ps(_mm256_loadu_ps(v), _mm256_loadu_ps((v) + 8)))
#define SUM_OF(v) sum_of(_mm256_add_ps(_mm256_loadu_ps(v), _mm256_loadu_ps((v) + 8)))
#define V_TAIL(kind, p, n) load_tail((kind) == KV_F32 ? 0 : (kind) == KV_F16 ? 1 : 2, (p), (n))

static inline __m256 bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline float top_of(__m256 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

static inline float sum_of(__m256 v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

static inline __m256 load_tail(int kind, const void *p, int n)
{
    if (kind == 0) {
        float v[8] = {0};

        memcpy(v, p, (size_t)n * sizeof(v[0]));
        return _mm256_loadu_ps(v);
    }
    unsigned short h[8] = {0};

    memcpy(h, p, (size_t)n * sizeof(h[0]));
    return kind == 1 ? V_F16(h) : V_BF16(h);
}

#include "kernels/cpu/lm_attention_body.h"
