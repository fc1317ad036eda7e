/* Reading block types from a file's rows. Layouts are those of the GGUF format: ggml's
 * ggml-common.h and ggml-quants.c, and the Python package gguf (quants.py); those of fp8 are this
 * project's (base/tensor.h). */
#include "base/f8.h"
#include "kernels/cpu/lm_linear_quant.h"

#include <string.h>

#define SUPER_GROUPS 8 /* groups of a superblock of 256 */

static uint32_t word(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t half(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Four bits to the lowest bit of four bytes. */
static uint32_t spread(uint32_t bits)
{
    return ((bits & 15u) * 0x00204081u) & 0x01010101u;
}

/* Q4_0, Q4_1: elements 0 to 15 in low nibbles, 16 to 31 in high ones. */
static void nibble_halves(const unsigned char *p, uint32_t *quads)
{
    for (int q = 0; q < 4; q++) {
        uint32_t w = word(p + 4 * q);

        quads[q] = w & 0x0f0f0f0fu;
        quads[q + 4] = w >> 4 & 0x0f0f0f0fu;
    }
}

/* K-quants: bits [shift, shift + width) of 32 bytes. */
static void plane(const unsigned char *p, int shift, uint32_t mask, uint32_t *quads)
{
    for (int q = 0; q < TRMI_LM_QUADS; q++)
        quads[q] = word(p + 4 * q) >> shift & mask;
}

/* Q4_K, Q5_K: 8 scales and 8 mins of 6 bits in 12 bytes: the first four of each in the low bits of
 * bytes 0 to 7, the others in nibbles of bytes 8 to 11 with the upper two bits of bytes 0 to 7. */
static void scale_min(const unsigned char *p, size_t i, trmi_lm_group *out)
{
    int scale, min;

    if (i < 4) {
        scale = p[i] & 63;
        min = p[i + 4] & 63;
    } else {
        scale = (p[i + 4] & 15) | (p[i - 4] >> 6) << 4;
        min = p[i + 4] >> 4 | (p[i] >> 6) << 4;
    }
    out->scale[0] = out->scale[1] = (int16_t)scale;
    out->min[0] = out->min[1] = (int16_t)min;
}

/* 16 scales, 16 bytes of u, d, dmin: [scales 16][qs 64][d][dmin]. */
static void read_q2_k(const unsigned char *b, size_t i, trmi_lm_group *out)
{
    plane(b + 16 + i / 4 * 32, (int)(i % 4) * 2, 0x03030303u, out->quads);
    out->d = half(b + 80);
    out->m = half(b + 82);
    for (size_t h = 0; h < 2; h++) {
        out->scale[h] = b[2 * i + h] & 15;
        out->min[h] = b[2 * i + h] >> 4;
    }
}

/* [hmask 32][qs 64][scales 12][d]: the third bit is set where 4 is not subtracted, which makes u of
 * three bits with offset 4. Scales: low nibbles in bytes 0 to 7, upper bits in bytes 8 to 11. */
static void read_q3_k(const unsigned char *b, size_t i, trmi_lm_group *out)
{
    const unsigned char *s = b + 96;

    plane(b + 32 + i / 4 * 32, (int)(i % 4) * 2, 0x03030303u, out->quads);
    for (int q = 0; q < TRMI_LM_QUADS; q++)
        out->quads[q] |= (word(b + 4 * q) >> i & 0x01010101u) << 2;
    out->d = half(b + 108);
    for (size_t h = 0; h < 2; h++) {
        size_t j = 2 * i + h; /* of 16 */
        int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        int high = s[8 + j % 4] >> 2 * (j / 4) & 3;

        out->scale[h] = (int16_t)((low | high << 4) - 32);
    }
}

/* [d][dmin][scales 12][qh 32: Q5_K only][qs 128] */
static void read_q45_k(const unsigned char *b, size_t i, bool five, trmi_lm_group *out)
{
    plane(b + (five ? 48 : 16) + i / 2 * 32, (int)(i % 2) * 4, 0x0f0f0f0fu, out->quads);
    for (int q = 0; five && q < TRMI_LM_QUADS; q++)
        out->quads[q] |= (word(b + 16 + 4 * q) >> i & 0x01010101u) << 4;
    out->d = half(b);
    out->m = half(b + 2);
    scale_min(b + 4, i, out);
}

/* [ql 128][qh 64][scales 16][d]: halves of 128 elements, each 64 bytes of ql and 32 of qh. */
static void read_q6_k(const unsigned char *b, size_t i, trmi_lm_group *out)
{
    size_t half_of = i / 4, part = i % 4;
    uint32_t high[TRMI_LM_QUADS];

    plane(b + half_of * 64 + part % 2 * 32, (int)(part / 2) * 4, 0x0f0f0f0fu, out->quads);
    plane(b + 128 + half_of * 32, (int)part * 2, 0x03030303u, high);
    for (int q = 0; q < TRMI_LM_QUADS; q++)
        out->quads[q] |= high[q] << 4;
    out->d = half(b + 208);
    for (size_t h = 0; h < 2; h++)
        out->scale[h] = (int16_t)(int8_t)b[192 + 2 * i + h];
}

/* [d][m: mins only][qh 4: 5 bits only][qs] */
static void read_plain(trm_dtype dtype, const unsigned char *b, trmi_lm_group *out)
{
    const unsigned char *p = b + 2;

    out->d = half(b);
    if (dtype == TRM_DTYPE_Q8_0) {
        for (int q = 0; q < TRMI_LM_QUADS; q++)
            out->quads[q] = word(p + 4 * q) ^ 0x80808080u;
        return;
    }
    if (trmi_lm_mins(dtype)) {
        out->m = half(p);
        p += 2;
    }
    if (trmi_lm_bits(dtype) == 5) {
        uint32_t high = word(p);

        nibble_halves(p + 4, out->quads);
        for (int q = 0; q < TRMI_LM_QUADS; q++)
            out->quads[q] |= spread(high >> 4 * q) << 4;
    } else {
        nibble_halves(p, out->quads);
    }
}

void trmi_lm_group_read(trm_dtype dtype, const void *row, size_t group, trmi_lm_group *out)
{
    size_t in_block = trmi_lm_super(dtype) ? SUPER_GROUPS : 1;
    const unsigned char *b =
        (const unsigned char *)row + group / in_block * trm_dtype_block_bytes(dtype);
    size_t i = group % in_block;

    out->m = 0;
    out->scale[0] = out->scale[1] = out->min[0] = out->min[1] = 1;
    switch (dtype) {
    case TRM_DTYPE_Q2_K:
        read_q2_k(b, i, out);
        break;
    case TRM_DTYPE_Q3_K:
        read_q3_k(b, i, out);
        break;
    case TRM_DTYPE_Q4_K:
    case TRM_DTYPE_Q5_K:
        read_q45_k(b, i, dtype == TRM_DTYPE_Q5_K, out);
        break;
    case TRM_DTYPE_Q6_K:
        read_q6_k(b, i, out);
        break;
    default:
        read_plain(dtype, b, out);
        break;
    }
}

static void dequantize_blocks(trm_dtype dtype, const void *row, size_t k, float *out)
{
    int offset = trmi_lm_offset(dtype);
    bool mins = trmi_lm_mins(dtype);
    /* the min of Q4_1 and Q5_1 is added, that of K-quants subtracted */
    float sign = trmi_lm_super(dtype) ? -1.0f : 1.0f;

    for (size_t g = 0; g * TRMI_LM_GROUP < k; g++) {
        trmi_lm_group group;
        float scale[2], min[2];

        trmi_lm_group_read(dtype, row, g, &group);
        for (int h = 0; h < 2; h++) {
            scale[h] = trm_f16_to_f32(group.d) * (float)group.scale[h];
            min[h] = sign * (trm_f16_to_f32(group.m) * (float)group.min[h]);
        }
        for (size_t i = 0; i < TRMI_LM_GROUP && g * TRMI_LM_GROUP + i < k; i++) {
            int u = (int)(group.quads[i / 4] >> 8 * (i % 4) & 255u);
            float w = scale[i / 16] * (float)(u - offset);

            out[g * TRMI_LM_GROUP + i] = mins ? w + min[i / 16] : w;
        }
    }
}

static void dequantize_f8(trm_dtype dtype, const unsigned char *row, size_t k, float *out)
{
    size_t elems = trm_dtype_block_elems(dtype);
    float scale = 0;

    for (size_t i = 0; i < k; i++) {
        if (i % elems == 0) {
            memcpy(&scale, row, sizeof(scale));
            row += sizeof(scale);
        }
        out[i] = scale * trm_e4m3_to_f32(*row++);
    }
}

void trmi_lm_dequantize(trm_dtype dtype, const void *row, size_t k, float *out)
{
    const uint16_t *h = row;

    switch (dtype) {
    case TRM_DTYPE_F32:
        memcpy(out, row, k * sizeof(float));
        break;
    case TRM_DTYPE_F16:
        for (size_t i = 0; i < k; i++)
            out[i] = trm_f16_to_f32(h[i]);
        break;
    case TRM_DTYPE_BF16:
        for (size_t i = 0; i < k; i++)
            out[i] = trm_bf16_to_f32(h[i]);
        break;
    case TRM_DTYPE_F8_ROW:
    case TRM_DTYPE_F8_128:
        dequantize_f8(dtype, row, k, out);
        break;
    default:
        dequantize_blocks(dtype, row, k, out);
        break;
    }
}
