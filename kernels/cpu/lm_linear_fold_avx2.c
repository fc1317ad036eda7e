/* The additions of the summation tree with AVX2: the same bits as plain C. */
#include "kernels/cpu/lm_linear_fold.h"

#include <immintrin.h>

void trmi_lm_fold_avx2(float *left, const float *right, size_t count)
{
    for (size_t i = 0; i < count; i += 16) {
        __m256 a = _mm256_add_ps(_mm256_load_ps(left + i), _mm256_load_ps(right + i));
        __m256 b = _mm256_add_ps(_mm256_load_ps(left + i + 8), _mm256_load_ps(right + i + 8));

        _mm256_store_ps(left + i, a);
        _mm256_store_ps(left + i + 8, b);
    }
}
