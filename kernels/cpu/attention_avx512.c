/* Attention core, AVX-512. */
#include <immintrin.h>

#define ROWS_FN trmi_attention_rows_avx512
#define LANES 16
#define TILE_COLUMNS 4
#define VEC __m512
#define V_SET1 _mm512_set1_ps
#define V_LOAD _mm512_loadu_ps
#define V_STORE _mm512_storeu_ps
#define V_FMA _mm512_fmadd_ps
#define V_ADD _mm512_add_ps
#define V_SUB _mm512_sub_ps
#define V_MUL _mm512_mul_ps
#define V_MAX _mm512_max_ps
#define V_ROUND(x) _mm512_roundscale_ps((x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_POW2(n) _mm512_scalef_ps(_mm512_set1_ps(1.0f), (n))
#define V_ZERO_BELOW(x, e)                                                                         \
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask((x), _mm512_set1_ps(-87.0f), _CMP_GT_OQ), (e))
#define V_SUM _mm512_reduce_add_ps
#define V_TOP _mm512_reduce_max_ps
#include "kernels/cpu/attention_rows.h"
