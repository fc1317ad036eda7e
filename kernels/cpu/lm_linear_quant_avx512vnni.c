/* Products with block types, AVX-512 with VNNI. A vector is 16 lanes of four unsigned weights; the
 * activations' four elements are the same for all lanes (broadcast from the row). Offsets cost one
 * instruction a group and row: vpdpwssd of the offset's pair with the sums' pair. See
 * lm_linear_quant.h. */
#include "kernels/cpu/lm_linear_quant.h"

#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* What multiplies a group's dots. */
typedef struct scales {
    __m512 d, m;    /* times the 8-bit scale and min, without halves */
    __m512i s0, s1; /* with halves: 32-bit scales, */
    __m512i pair;   /* and pairs of 16 bits that multiply the sums: mins, or scale * -offset */
} scales;

INLINE __m512i load(const unsigned char *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512 halves16(const unsigned char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512 bytes16(const unsigned char *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

INLINE scales get_scales(const trm_dtype t, const unsigned char *panel, trmi_lm_place at)
{
    const unsigned char *head = panel + at.head + 32 * at.i, *top = panel + at.top;
    const __m512i zero = _mm512_setzero_si512();
    scales s = {_mm512_setzero_ps(), _mm512_setzero_ps(), zero, zero, zero};
    __m512i pair;

    if (!trmi_lm_super(t)) {
        s.d = halves16(head);
        if (trmi_lm_mins(t))
            s.m = halves16(head + 64);
        return s;
    }
    s.d = halves16(top);
    if (trmi_lm_mins(t))
        s.m = halves16(top + 32);
    if (!trmi_lm_halves(t)) {
        s.d = _mm512_mul_ps(s.d, bytes16(head));
        s.m = _mm512_mul_ps(s.m, bytes16(head + 16));
        return s;
    }
    pair = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)head));
    if (trmi_lm_mins(t)) { /* nibbles */
        s.pair = _mm512_and_si512(_mm512_srli_epi16(pair, 4), _mm512_set1_epi16(15));
        pair = _mm512_and_si512(pair, _mm512_set1_epi16(15));
    } else {
        s.pair = _mm512_mullo_epi16(pair, _mm512_set1_epi16((short)-trmi_lm_offset(t)));
    }
    s.s0 = _mm512_srai_epi32(_mm512_slli_epi32(pair, 16), 16);
    s.s1 = _mm512_srai_epi32(pair, 16);
    return s;
}

/* Bits [at, at + 1] or [at] of every byte of v, moved to bit `to`. */
INLINE __m512i bits_to(__m512i v, const int at, const int to, const int mask)
{
    v = at < to ? _mm512_slli_epi16(v, to - at) : at > to ? _mm512_srli_epi16(v, at - to) : v;
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(mask << to)));
}

/* Quads 4 * half to 4 * half + 3 of a group. */
INLINE void get_values(const int bits, const int half, const unsigned char *data, __m512i *w)
{
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const int q = 4 * half + v;

        if (bits == 8) {
            w[v] = load(data + 64 * q);
            continue;
        }
        if (bits <= 3) {
            w[v] = bits_to(load(data + trmi_lm_pairs_at(bits, half)), 2 * v, 0, 3);
            if (bits == 3)
                w[v] = _mm512_or_si512(w[v], bits_to(load(data), q, 2, 1));
            continue;
        }
        w[v] = bits_to(load(data + trmi_lm_nibbles_at(bits) + 64 * v), 4 * half, 0, 15);
        if (bits == 5)
            w[v] = _mm512_or_si512(w[v], bits_to(load(data), q, 4, 1));
        if (bits == 6)
            w[v] = _mm512_or_si512(w[v],
                                   bits_to(load(data + trmi_lm_pairs_at(bits, half)), 2 * v, 4, 3));
    }
}

INLINE __m512i quad(const trmi_lm_x *x, int q)
{
    int32_t v;

    __builtin_memcpy(&v, x->q + 4 * q, sizeof(v));
    return _mm512_set1_epi32(v);
}

INLINE __m512i sums(const trmi_lm_x *x)
{
    int32_t v;

    __builtin_memcpy(&v, x->sum, sizeof(v));
    return _mm512_set1_epi32(v);
}

/* acc + the group, from its integer sums. */
INLINE __m512 add_group(const trm_dtype t, const scales *s, const trmi_lm_x *x, __m512i dot,
                        __m512 acc)
{
    const __m512 scale = _mm512_set1_ps(x->scale);

    acc = _mm512_add_ps(acc, _mm512_mul_ps(_mm512_mul_ps(s->d, scale), _mm512_cvtepi32_ps(dot)));
    if (!trmi_lm_mins(t))
        return acc;
    if (trmi_lm_halves(t)) {
        __m512i n = _mm512_dpwssd_epi32(_mm512_setzero_si512(), s->pair, sums(x));

        return _mm512_sub_ps(acc, _mm512_mul_ps(_mm512_mul_ps(s->m, scale), _mm512_cvtepi32_ps(n)));
    }
    if (trmi_lm_super(t))
        return _mm512_sub_ps(acc, _mm512_mul_ps(s->m, _mm512_set1_ps(x->scaled_sum)));
    return _mm512_add_ps(acc, _mm512_mul_ps(s->m, _mm512_set1_ps(x->scaled_sum)));
}

/* A group of one panel times m rows: instructions of different rows alternate, since those of one
 * wait for each other. */
INLINE void group_rows(const trm_dtype t, const int m, const unsigned char *panel, trmi_lm_place at,
                       const trmi_lm_x *const *x, size_t g, __m512 *acc)
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i offset = _mm512_set1_epi16((short)-trmi_lm_offset(t));
    scales s = get_scales(t, panel, at);
    __m512i w[4], dot[8], sum[8];

#pragma GCC unroll 8
    for (int r = 0; r < m; r++)
        dot[r] = trmi_lm_mins(t) || trmi_lm_halves(t)
                     ? zero
                     : _mm512_dpwssd_epi32(zero, offset, sums(x[r] + g));
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        get_values(trmi_lm_bits(t), half, panel + at.data, w);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
#pragma GCC unroll 8
            for (int r = 0; r < m; r++)
                dot[r] = _mm512_dpbusd_epi32(dot[r], w[v], quad(x[r] + g, 4 * half + v));
        if (!trmi_lm_halves(t))
            continue;
#pragma GCC unroll 8
        for (int r = 0; r < m; r++) {
            if (half == 0) {
                sum[r] = _mm512_mullo_epi32(dot[r], s.s0);
                if (!trmi_lm_mins(t))
                    sum[r] = _mm512_dpwssd_epi32(sum[r], s.pair, sums(x[r] + g));
                dot[r] = zero;
            } else {
                dot[r] = _mm512_add_epi32(sum[r], _mm512_mullo_epi32(dot[r], s.s1));
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < m; r++)
        acc[r] = add_group(t, &s, x[r] + g, dot[r], acc[r]);
}

/* One panel, m rows of which the last may be there twice. */
INLINE void tile_rows(const trm_dtype t, const int m, const unsigned char *panel,
                      const void *const *rows, int live, size_t g, size_t g_end, float *out)
{
    size_t before = trmi_lm_before(t, panel);
    const trmi_lm_x *x[8];
    __m512 acc[8];

#pragma GCC unroll 8
    for (int r = 0; r < m; r++) {
        x[r] = rows[r < live ? r : live - 1];
        acc[r] = _mm512_setzero_ps();
    }
    for (; g < g_end; g++) {
        trmi_lm_place at = trmi_lm_place_of(t, before, g);

        if (m > 1)
            trmi_lm_ahead(t, panel, at);
        group_rows(t, m, panel, at, x, g, acc);
    }
#pragma GCC unroll 8
    for (int r = 0; r < m; r++)
        if (r < live)
            _mm512_storeu_ps(out + TRMI_LM_PANEL * r, acc[r]);
}

INLINE void tile(const trm_dtype t, const unsigned char *panel, const void *const *rows, int m,
                 size_t g, size_t g_end, float *acc)
{
    if (m == 1)
        tile_rows(t, 1, panel, rows, m, g, g_end, acc);
    else if (m == 2)
        tile_rows(t, 2, panel, rows, m, g, g_end, acc);
    else if (m <= 4)
        tile_rows(t, 4, panel, rows, m, g, g_end, acc);
    else if (m <= 6)
        tile_rows(t, 6, panel, rows, m, g, g_end, acc);
    else
        tile_rows(t, 8, panel, rows, m, g, g_end, acc);
}

/* The largest |x| of 32 as bits, and from there as lm_linear_quant.c. */
void trmi_lm_quant_convert_avx512vnni(const float *x, size_t k, void *row)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    trmi_lm_x *to = row;

    for (size_t g = 0; g < k / TRMI_LM_GROUP; g++, to++, x += TRMI_LM_GROUP) {
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        __m512i a0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
        __m512i a1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
        uint32_t most = _mm512_reduce_max_epu32(_mm512_max_epu32(a0, a1));
        __m512i q0, q1;
        __m512 inverse;
        float amax;
        int s0, s1;

        __builtin_memcpy(&amax, &most, sizeof(amax));
        if (most >= 0x7f800000u || amax < 0x1p-120f) {
            __builtin_memset(to, 0, sizeof(*to));
            if (most >= 0x7f800000u)
                to->scale = to->scaled_sum = NAN;
            continue;
        }
        inverse = _mm512_set1_ps(127.0f / amax);
        q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
        q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
        _mm_storeu_si128((__m128i *)to->q, _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(to->q + 16), _mm512_cvtepi32_epi8(q1));
        s0 = _mm512_reduce_add_epi32(q0);
        s1 = _mm512_reduce_add_epi32(q1);
        to->sum[0] = (int16_t)s0;
        to->sum[1] = (int16_t)s1;
        to->scale = amax / 127.0f;
        to->scaled_sum = to->scale * (float)(s0 + s1);
    }
}

/* One panel with one row: panels lie one after another, and reading memory in order is fastest (two
 * at a time 24, four 28, one 31 GB/s; Zen 4, one core, Q4_0, 2026-11). */
#define DEFINE(type_name, type)                                                                    \
    static void tile_##type_name(const void *panel, size_t stride, int panels,                     \
                                 const void *const *rows, int m, size_t k, size_t k_begin,         \
                                 size_t k_end, float *acc)                                         \
    {                                                                                              \
        (void)k, (void)stride, (void)panels;                                                       \
        tile(TRM_DTYPE_##type, panel, rows, m, k_begin / TRMI_LM_GROUP, k_end / TRMI_LM_GROUP,     \
             acc);                                                                                 \
    }                                                                                              \
    const trmi_lm_type trmi_lm_type_##type_name##_avx512vnni = {                                   \
        .name = #type_name " avx512-vnni",                                                         \
        .form = #type_name,                                                                        \
        .dtype = TRM_DTYPE_##type,                                                                 \
        .act = TRM_DTYPE_I8,                                                                       \
        .isa = TRM_ISA_AVX512_VNNI,                                                                \
        .rows_max = 8,                                                                             \
        .panels_one = 1,                                                                           \
        .panels_many = 1,                                                                          \
        .k_multiple = TRMI_LM_GROUP,                                                               \
        .panel_bytes = trmi_lm_quant_panel_##type_name,                                            \
        .pack = trmi_lm_quant_pack_##type_name,                                                    \
        .row_bytes = trmi_lm_quant_row_bytes,                                                      \
        .convert = trmi_lm_quant_convert_avx512vnni,                                               \
        .tile = tile_##type_name,                                                                  \
    };
TRMI_LM_QUANT_TYPES(DEFINE)
