/* Products with block types in plain C, written to be read. See lm_linear_quant.h. */
#include "kernels/cpu/lm_linear_quant.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

size_t trmi_lm_quant_row_bytes(size_t k)
{
    return k / TRMI_LM_GROUP * sizeof(trmi_lm_x);
}

void trmi_lm_quant_convert(const float *x, size_t k, void *row)
{
    trmi_lm_x *to = row;

    for (size_t g = 0; g < k / TRMI_LM_GROUP; g++, to++, x += TRMI_LM_GROUP) {
        uint32_t most = 0; /* |x| as bits: infinite and NaN are above all others */
        float amax, inverse;

        for (int i = 0; i < TRMI_LM_GROUP; i++) {
            uint32_t bits;

            memcpy(&bits, &x[i], sizeof(bits));
            bits &= 0x7fffffffu;
            most = bits > most ? bits : most;
        }
        memset(to, 0, sizeof(*to));
        memcpy(&amax, &most, sizeof(amax));
        if (most >= 0x7f800000u) {
            to->scale = to->scaled_sum = NAN;
            continue;
        }
        if (amax < 0x1p-120f)
            continue;
        inverse = 127.0f / amax;
        for (int i = 0; i < TRMI_LM_GROUP; i++) {
            /* rounds to nearest even: integers are the steps of fp32 here */
            float q = (x[i] * inverse + 0x1.8p23f) - 0x1.8p23f;

            to->q[i] = (int8_t)q;
            to->sum[i / 16] = (int16_t)(to->sum[i / 16] + to->q[i]);
        }
        to->scale = amax / 127.0f;
        to->scaled_sum = to->scale * (float)(to->sum[0] + to->sum[1]);
    }
}

/* A group of a panel: u by quad as vectors of 64 bytes, and what multiplies them. */
typedef struct group {
    unsigned char u[TRMI_LM_QUADS][64];
    float d[TRMI_LM_PANEL], m[TRMI_LM_PANEL]; /* times the 8-bit scale and min, without halves */
    int s[TRMI_LM_PANEL][2], n[TRMI_LM_PANEL][2]; /* with halves */
} group;

INLINE void get_values(int bits, const unsigned char *data, group *g)
{
    for (int q = 0; q < TRMI_LM_QUADS; q++)
        for (size_t b = 0; b < 64; b++) {
            int u;

            if (bits == 8)
                u = data[(size_t)(64 * q) + b];
            else if (bits <= 3)
                u = data[trmi_lm_pairs_at(bits, q / 4) + b] >> 2 * (q % 4) & 3;
            else
                u = data[trmi_lm_nibbles_at(bits) + (size_t)(64 * (q % 4)) + b] >> 4 * (q / 4) & 15;
            if (bits == 3)
                u |= (data[b] >> q & 1) << 2;
            if (bits == 5)
                u |= (data[b] >> q & 1) << 4;
            if (bits == 6)
                u |= (data[trmi_lm_pairs_at(bits, q / 4) + b] >> 2 * (q % 4) & 3) << 4;
            g->u[q][b] = (unsigned char)u;
        }
}

static float half(const unsigned char *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof(h));
    return trm_f16_to_f32(h);
}

INLINE void get_scales(trm_dtype t, const unsigned char *panel, trmi_lm_place at, group *g)
{
    const unsigned char *head = panel + at.head + 32 * at.i, *top = panel + at.top;

    for (size_t j = 0; j < TRMI_LM_PANEL; j++) {
        if (!trmi_lm_super(t)) {
            g->d[j] = half(head + 2 * j);
            g->m[j] = trmi_lm_mins(t) ? half(head + 64 + 2 * j) : 0.0f;
            continue;
        }
        g->d[j] = half(top + 2 * j);
        g->m[j] = half(top + 32 + 2 * j);
        for (int h = 0; trmi_lm_halves(t) && h < 2; h++) {
            unsigned char b = head[2 * j + (size_t)h];

            g->s[j][h] = trmi_lm_mins(t) ? b & 15 : (int8_t)b;
            g->n[j][h] = b >> 4;
        }
        if (!trmi_lm_halves(t)) {
            g->d[j] *= (float)head[j];
            g->m[j] *= (float)head[16 + j];
        }
    }
}

INLINE float add_group(trm_dtype t, const group *g, const trmi_lm_x *x, size_t j, float acc)
{
    int dot[2];

    for (int h = 0; h < 2; h++) {
        dot[h] = -trmi_lm_offset(t) * x->sum[h];
        for (int q = 4 * h; q < 4 * h + 4; q++)
            for (int i = 0; i < 4; i++)
                dot[h] += g->u[q][4 * j + (size_t)i] * x->q[4 * q + i];
    }
    if (trmi_lm_halves(t)) {
        acc += (g->d[j] * x->scale) * (float)(g->s[j][0] * dot[0] + g->s[j][1] * dot[1]);
        if (trmi_lm_mins(t))
            acc -= (g->m[j] * x->scale) * (float)(g->n[j][0] * x->sum[0] + g->n[j][1] * x->sum[1]);
        return acc;
    }
    acc += (g->d[j] * x->scale) * (float)(dot[0] + dot[1]);
    if (trmi_lm_mins(t))
        acc = trmi_lm_super(t) ? acc - g->m[j] * x->scaled_sum : acc + g->m[j] * x->scaled_sum;
    return acc;
}

INLINE void tile(trm_dtype t, const unsigned char *panel, size_t stride, int panels,
                 const void *const *rows, int m, size_t k_begin, size_t k_end, float *acc)
{
    for (int p = 0; p < panels; p++, panel += stride, acc += m * TRMI_LM_PANEL) {
        size_t before = trmi_lm_before(t, panel);

        memset(acc, 0, (size_t)(m * TRMI_LM_PANEL) * sizeof(float));
        for (size_t g = k_begin / TRMI_LM_GROUP; g < k_end / TRMI_LM_GROUP; g++) {
            trmi_lm_place at = trmi_lm_place_of(t, before, g);
            group w;

            get_values(trmi_lm_bits(t), panel + at.data, &w);
            get_scales(t, panel, at, &w);
            for (int r = 0; r < m; r++)
                for (size_t j = 0; j < TRMI_LM_PANEL; j++) {
                    float *a = &acc[(size_t)r * TRMI_LM_PANEL + j];

                    *a = add_group(t, &w, (const trmi_lm_x *)rows[r] + g, j, *a);
                }
        }
    }
}

#define DEFINE(type_name, type)                                                                    \
    static void tile_##type_name(const void *panel, size_t stride, int panels,                     \
                                 const void *const *rows, int m, size_t k, size_t k_begin,         \
                                 size_t k_end, float *acc)                                         \
    {                                                                                              \
        (void)k;                                                                                   \
        tile(TRM_DTYPE_##type, panel, stride, panels, rows, m, k_begin, k_end, acc);               \
    }                                                                                              \
    const trmi_lm_type trmi_lm_type_##type_name = {                                                \
        .name = #type_name " scalar",                                                              \
        .form = #type_name,                                                                        \
        .dtype = TRM_DTYPE_##type,                                                                 \
        .act = TRM_DTYPE_I8,                                                                       \
        .isa = TRM_ISA_SCALAR,                                                                     \
        .rows_max = 8,                                                                             \
        .panels_one = 1,                                                                           \
        .panels_many = 1,                                                                          \
        .k_multiple = TRMI_LM_GROUP,                                                               \
        .panel_bytes = trmi_lm_quant_panel_##type_name,                                            \
        .pack = trmi_lm_quant_pack_##type_name,                                                    \
        .row_bytes = trmi_lm_quant_row_bytes,                                                      \
        .convert = trmi_lm_quant_convert,                                                          \
        .tile = tile_##type_name,                                                                  \
    };
TRMI_LM_QUANT_TYPES(DEFINE)
