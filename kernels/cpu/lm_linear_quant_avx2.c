/* Products with block types, AVX2: what lm_linear_quant_avx512vnni.c does, by half panels of 8
 * lanes and with vpmaddubsw, which adds two products in 16 bits. Of products u * q with u < 2^bits
 * and |q| <= 127 as many more are added in 16 bits as fit: 4 quads of up to 5 bits (8 * 31 * 127 =
 * 31496), 2 of 6. With 8 bits not even two fit, unless u is taken back to signed and its sign given
 * to q (2 * 128 * 127 = 32512). Runs under AVX-512 without VNNI too. */
#include "kernels/cpu/lm_linear_quant.h"

#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))
#define ROWS 4

/* What multiplies a group's dots, of 8 lanes. */
typedef struct scales {
    __m256 d, m;    /* times the 8-bit scale and min, without halves */
    __m256i s0, s1; /* with halves: 32-bit scales, */
    __m256i pair;   /* and pairs of 16 bits that multiply the sums: mins, or scale * -offset */
} scales;

INLINE __m256i load(const unsigned char *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE __m256 halves8(const unsigned char *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE __m256 bytes8(const unsigned char *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

INLINE scales get_scales(const trm_dtype t, const unsigned char *panel, trmi_lm_place at,
                         size_t side)
{
    const unsigned char *head = panel + at.head + 32 * at.i, *top = panel + at.top;
    const __m256i zero = _mm256_setzero_si256();
    scales s = {_mm256_setzero_ps(), _mm256_setzero_ps(), zero, zero, zero};
    __m256i pair;

    if (!trmi_lm_super(t)) {
        s.d = halves8(head + 16 * side);
        if (trmi_lm_mins(t))
            s.m = halves8(head + 64 + 16 * side);
        return s;
    }
    s.d = halves8(top + 16 * side);
    if (trmi_lm_mins(t))
        s.m = halves8(top + 32 + 16 * side);
    if (!trmi_lm_halves(t)) {
        s.d = _mm256_mul_ps(s.d, bytes8(head + 8 * side));
        s.m = _mm256_mul_ps(s.m, bytes8(head + 16 + 8 * side));
        return s;
    }
    pair = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(head + 16 * side)));
    if (trmi_lm_mins(t)) { /* nibbles */
        s.pair = _mm256_and_si256(_mm256_srli_epi16(pair, 4), _mm256_set1_epi16(15));
        pair = _mm256_and_si256(pair, _mm256_set1_epi16(15));
    } else {
        s.pair = _mm256_mullo_epi16(pair, _mm256_set1_epi16((short)-trmi_lm_offset(t)));
    }
    s.s0 = _mm256_srai_epi32(_mm256_slli_epi32(pair, 16), 16);
    s.s1 = _mm256_srai_epi32(pair, 16);
    return s;
}

/* Bits [at, at + 1] or [at] of every byte of v, moved to bit `to`. */
INLINE __m256i bits_to(__m256i v, const int at, const int to, const int mask)
{
    v = at < to ? _mm256_slli_epi16(v, to - at) : at > to ? _mm256_srli_epi16(v, at - to) : v;
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(mask << to)));
}

/* Quads 4 * half to 4 * half + 3 of a group; 8 bits come signed. */
INLINE void get_values(const int bits, const int half, const unsigned char *data, __m256i *w)
{
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const int q = 4 * half + v;

        if (bits == 8) {
            w[v] = _mm256_xor_si256(load(data + 64 * q), _mm256_set1_epi8((char)0x80));
            continue;
        }
        if (bits <= 3) {
            w[v] = bits_to(load(data + trmi_lm_pairs_at(bits, half)), 2 * v, 0, 3);
            if (bits == 3)
                w[v] = _mm256_or_si256(w[v], bits_to(load(data), q, 2, 1));
            continue;
        }
        w[v] = bits_to(load(data + trmi_lm_nibbles_at(bits) + 64 * v), 4 * half, 0, 15);
        if (bits == 5)
            w[v] = _mm256_or_si256(w[v], bits_to(load(data), q, 4, 1));
        if (bits == 6)
            w[v] = _mm256_or_si256(w[v],
                                   bits_to(load(data + trmi_lm_pairs_at(bits, half)), 2 * v, 4, 3));
    }
}

INLINE __m256i quad(const trmi_lm_x *x, int q)
{
    int32_t v;

    __builtin_memcpy(&v, x->q + 4 * q, sizeof(v));
    return _mm256_set1_epi32(v);
}

INLINE __m256i sums(const trmi_lm_x *x)
{
    int32_t v;

    __builtin_memcpy(&v, x->sum, sizeof(v));
    return _mm256_set1_epi32(v);
}

/* Sums over 16 elements, in 32 bits. */
INLINE __m256i dot16(const int bits, const __m256i *w, const trmi_lm_x *x, const int half)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const int fit = bits <= 5 ? 4 : bits == 6 ? 2 : 1;
    __m256i dot = _mm256_setzero_si256();

#pragma GCC unroll 4
    for (int v = 0; v < 4; v += fit) {
        __m256i sum = _mm256_setzero_si256();

#pragma GCC unroll 4
        for (int i = v; i < v + fit; i++) {
            __m256i q = quad(x, 4 * half + i);

            sum = bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(q, w[i]))
                            : _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[i], q));
        }
        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(sum, ones));
    }
    return dot;
}

/* acc + the group, from its integer sums. */
INLINE __m256 add_group(const trm_dtype t, const scales *s, const trmi_lm_x *x, __m256i dot,
                        __m256 acc)
{
    const __m256 scale = _mm256_set1_ps(x->scale);

    acc = _mm256_add_ps(acc, _mm256_mul_ps(_mm256_mul_ps(s->d, scale), _mm256_cvtepi32_ps(dot)));
    if (!trmi_lm_mins(t))
        return acc;
    if (trmi_lm_halves(t)) {
        __m256i n = _mm256_madd_epi16(s->pair, sums(x));

        return _mm256_sub_ps(acc, _mm256_mul_ps(_mm256_mul_ps(s->m, scale), _mm256_cvtepi32_ps(n)));
    }
    if (trmi_lm_super(t))
        return _mm256_sub_ps(acc, _mm256_mul_ps(s->m, _mm256_set1_ps(x->scaled_sum)));
    return _mm256_add_ps(acc, _mm256_mul_ps(s->m, _mm256_set1_ps(x->scaled_sum)));
}

/* Half a panel's group times m rows. */
INLINE void group_rows(const trm_dtype t, const int m, const unsigned char *panel, trmi_lm_place at,
                       size_t side, const trmi_lm_x *const *x, size_t g, __m256 (*acc)[2])
{
    const int bits = trmi_lm_bits(t);
    const __m256i offset = _mm256_set1_epi16((short)-trmi_lm_offset(t));
    const unsigned char *data = panel + at.data + 32 * side;
    scales s = get_scales(t, panel, at, side);
    __m256i w[4], dot[ROWS];

    get_values(bits, 0, data, w);
#pragma GCC unroll 4
    for (int r = 0; r < m; r++) {
        dot[r] = dot16(bits, w, x[r] + g, 0);
        if (trmi_lm_halves(t))
            dot[r] = _mm256_mullo_epi32(dot[r], s.s0);
    }
    get_values(bits, 1, data, w);
#pragma GCC unroll 4
    for (int r = 0; r < m; r++) {
        __m256i other = dot16(bits, w, x[r] + g, 1);

        if (trmi_lm_halves(t))
            other = _mm256_mullo_epi32(other, s.s1);
        dot[r] = _mm256_add_epi32(dot[r], other);
        if (!trmi_lm_mins(t) && bits < 8)
            dot[r] = _mm256_add_epi32(
                dot[r], _mm256_madd_epi16(trmi_lm_halves(t) ? s.pair : offset, sums(x[r] + g)));
        acc[r][side] = add_group(t, &s, x[r] + g, dot[r], acc[r][side]);
    }
}

/* One panel, m rows of which the last may be there twice. */
INLINE void tile_rows(const trm_dtype t, const int m, const unsigned char *panel,
                      const void *const *rows, int live, size_t g, size_t g_end, float *out)
{
    size_t before = trmi_lm_before(t, panel);
    const trmi_lm_x *x[ROWS];
    __m256 acc[ROWS][2];

#pragma GCC unroll 4
    for (int r = 0; r < m; r++) {
        x[r] = rows[r < live ? r : live - 1];
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    }
    for (; g < g_end; g++) {
        trmi_lm_place at = trmi_lm_place_of(t, before, g);

        if (m > 1)
            trmi_lm_ahead(t, panel, at);
#pragma GCC unroll 2
        for (size_t side = 0; side < 2; side++)
            group_rows(t, m, panel, at, side, x, g, acc);
    }
#pragma GCC unroll 4
    for (int r = 0; r < m; r++)
        for (int side = 0; r < live && side < 2; side++)
            _mm256_storeu_ps(out + TRMI_LM_PANEL * r + 8 * side, acc[r][side]);
}

INLINE void tile(const trm_dtype t, const unsigned char *panel, const void *const *rows, int m,
                 size_t g, size_t g_end, float *acc)
{
    if (m == 1)
        tile_rows(t, 1, panel, rows, m, g, g_end, acc);
    else if (m == 2)
        tile_rows(t, 2, panel, rows, m, g, g_end, acc);
    else
        tile_rows(t, 4, panel, rows, m, g, g_end, acc);
}

/* The sum of 16 integers, in two vectors. */
INLINE int sum16(__m256i a, __m256i b)
{
    __m256i s = _mm256_add_epi32(a, b);
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return _mm_cvtsi128_si32(h);
}

INLINE uint32_t most_of(__m256i a)
{
    __m128i h = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));

    h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(h);
}

/* As lm_linear_quant.c. */
void trmi_lm_quant_convert_avx2(const float *x, size_t k, void *row)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    trmi_lm_x *to = row;

    for (size_t g = 0; g < k / TRMI_LM_GROUP; g++, to++, x += TRMI_LM_GROUP) {
        __m256i q[4], most = _mm256_setzero_si256();
        uint32_t bits;
        float amax;
        int s[2];

        for (int i = 0; i < 4; i++)
            most = _mm256_max_epu32(
                most, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), magnitude));
        bits = most_of(most);
        __builtin_memcpy(&amax, &bits, sizeof(amax));
        if (bits >= 0x7f800000u || amax < 0x1p-120f) {
            __builtin_memset(to, 0, sizeof(*to));
            if (bits >= 0x7f800000u)
                to->scale = to->scaled_sum = NAN;
            continue;
        }
        for (int i = 0; i < 4; i++)
            q[i] = _mm256_cvtps_epi32(
                _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(127.0f / amax)));
        for (int i = 0; i < 2; i++) {
            __m256i words =
                _mm256_permute4x64_epi64(_mm256_packs_epi32(q[2 * i], q[2 * i + 1]), 0xd8);

            _mm_storeu_si128(
                (__m128i *)(void *)(to->q + 16 * i),
                _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
            s[i] = sum16(q[2 * i], q[2 * i + 1]);
            to->sum[i] = (int16_t)s[i];
        }
        to->scale = amax / 127.0f;
        to->scaled_sum = to->scale * (float)(s[0] + s[1]);
    }
}

#define DEFINE(type_name, type)                                                                    \
    static void tile_##type_name(const void *panel, size_t stride, int panels,                     \
                                 const void *const *rows, int m, size_t k, size_t k_begin,         \
                                 size_t k_end, float *acc)                                         \
    {                                                                                              \
        (void)k, (void)stride, (void)panels;                                                       \
        tile(TRM_DTYPE_##type, panel, rows, m, k_begin / TRMI_LM_GROUP, k_end / TRMI_LM_GROUP,     \
             acc);                                                                                 \
    }                                                                                              \
    const trmi_lm_type trmi_lm_type_##type_name##_avx2 = {                                         \
        .name = #type_name " avx2",                                                                \
        .form = #type_name,                                                                        \
        .dtype = TRM_DTYPE_##type,                                                                 \
        .act = TRM_DTYPE_I8,                                                                       \
        .isa = TRM_ISA_AVX2,                                                                       \
        .rows_max = ROWS,                                                                          \
        .panels_one = 1,                                                                           \
        .panels_many = 1,                                                                          \
        .k_multiple = TRMI_LM_GROUP,                                                               \
        .panel_bytes = trmi_lm_quant_panel_##type_name,                                            \
        .pack = trmi_lm_quant_pack_##type_name,                                                    \
        .row_bytes = trmi_lm_quant_row_bytes,                                                      \
        .convert = trmi_lm_quant_convert_avx2,                                                     \
        .tile = tile_##type_name,                                                                  \
    };
TRMI_LM_QUANT_TYPES(DEFINE)
