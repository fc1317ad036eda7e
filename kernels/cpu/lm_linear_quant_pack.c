/* Panels of block types: from a file's rows to what lm_linear_quant.h describes. */
#include "kernels/cpu/lm_linear_quant.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "panels are words of four bytes, the first lowest"
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE void put(unsigned char *to, uint32_t word)
{
    memcpy(to, &word, sizeof(word));
}

/* Bits [shift, shift + 1] of quads 4 * v to 4 * v + 3. */
INLINE uint32_t pairs(const uint32_t *quads, int v, int shift)
{
    uint32_t word = 0;

    for (int s = 0; s < 4; s++)
        word |= (quads[4 * v + s] >> shift & 0x03030303u) << 2 * s;
    return word;
}

INLINE uint32_t singles(const uint32_t *quads, int shift)
{
    uint32_t word = 0;

    for (int q = 0; q < TRMI_LM_QUADS; q++)
        word |= (quads[q] >> shift & 0x01010101u) << q;
    return word;
}

/* One lane of a group's data; `to` is the lane's word of the first vector. */
INLINE void put_values(int bits, const uint32_t *quads, unsigned char *to)
{
    if (bits == 8) {
        for (int q = 0; q < TRMI_LM_QUADS; q++)
            put(to + 64 * q, quads[q]);
        return;
    }
    if (bits <= 3) {
        if (bits == 3)
            put(to, singles(quads, 2));
        for (int h = 0; h < 2; h++)
            put(to + trmi_lm_pairs_at(bits, h), pairs(quads, h, 0));
        return;
    }
    if (bits == 5)
        put(to, singles(quads, 4));
    for (int v = 0; v < 4; v++)
        put(to + trmi_lm_nibbles_at(bits) + 64 * v,
            (quads[v] & 0x0f0f0f0fu) | (quads[v + 4] & 0x0f0f0f0fu) << 4);
    for (int h = 0; bits == 6 && h < 2; h++)
        put(to + trmi_lm_pairs_at(bits, h), pairs(quads, h, 4));
}

INLINE void put_scales(trm_dtype t, const trmi_lm_group *group, trmi_lm_place at, size_t lane,
                       unsigned char *panel)
{
    unsigned char *head = panel + at.head + 32 * at.i, *top = panel + at.top;

    if (!trmi_lm_super(t)) {
        memcpy(head + 2 * lane, &group->d, 2);
        if (trmi_lm_mins(t))
            memcpy(head + 64 + 2 * lane, &group->m, 2);
        return;
    }
    memcpy(top + 2 * lane, &group->d, 2);
    memcpy(top + 32 + 2 * lane, &group->m, 2);
    if (trmi_lm_halves(t)) {
        for (size_t h = 0; h < 2; h++)
            head[2 * lane + h] =
                (unsigned char)(trmi_lm_mins(t) ? group->scale[h] | group->min[h] << 4
                                                : group->scale[h]);
    } else {
        head[lane] = (unsigned char)group->scale[0];
        head[16 + lane] = (unsigned char)group->min[0];
    }
}

/* A K-quant may begin anywhere inside a superblock: as many more pairs and superblocks as it may
 * touch. */
INLINE size_t panel_bytes(trm_dtype t, size_t k)
{
    size_t groups = k / TRMI_LM_GROUP, data = groups * trmi_lm_data_bytes(t);

    if (trmi_lm_super(t))
        return 64 + (groups + 14) / 8 * 64 + (groups + 2) / 2 * trmi_lm_head_bytes(t) + data;
    return (groups + 1) / 2 * trmi_lm_head_bytes(t) + data;
}

INLINE void pack(trm_dtype t, const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    unsigned char *to = panel;
    size_t first = k_offset / TRMI_LM_GROUP, before = trmi_lm_super(t) ? first % 8 : 0;

    memset(panel, 0, panel_bytes(t, k));
    if (trmi_lm_super(t))
        to[0] = (unsigned char)before;
    for (size_t g = 0; g < k / TRMI_LM_GROUP; g++) {
        trmi_lm_place at = trmi_lm_place_of(t, before, g);

        for (size_t lane = 0; lane < TRMI_LM_PANEL; lane++) {
            trmi_lm_group group;

            if (rows[lane] == NULL)
                continue;
            trmi_lm_group_read(t, rows[lane], first + g, &group);
            put_values(trmi_lm_bits(t), group.quads, to + at.data + 4 * lane);
            put_scales(t, &group, at, lane, to);
        }
    }
}

#define DEFINE(name, type)                                                                         \
    size_t trmi_lm_quant_panel_##name(size_t k)                                                    \
    {                                                                                              \
        return panel_bytes(TRM_DTYPE_##type, k);                                                   \
    }                                                                                              \
    void trmi_lm_quant_pack_##name(const void *const *rows, size_t k, size_t k_offset,             \
                                   void *panel)                                                    \
    {                                                                                              \
        pack(TRM_DTYPE_##type, rows, k, k_offset, panel);                                          \
    }
TRMI_LM_QUANT_TYPES(DEFINE)
