/* See packed.h. Layouts: AutoGPTQ's QuantLinear, AutoAWQ's packing for its "gemm" kernels, and
 * compressed-tensors' pack-quantized and float-quantized formats, as their files show them. */
#include "model/architectures/packed.h"

#include "base/f8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GROUP 32 /* of this project's block types */
#define SCALE_BLOCK 128

/* What a constant is made of: the file's mapped bytes, which may lie at any address. */
typedef struct packed {
    trm_lm_packing packing;
    trm_dtype dtype; /* of the constant */
    int bits, zero_add;
    size_t n, k, group;                          /* group: features along K of a scale */
    const unsigned char *words, *zeros, *scales; /* zeros NULL: all are 2^(bits - 1) */
    trm_dtype scale_dtype;
    size_t scale_row;   /* FP8: scales from a row (of blocks) to the next */
    size_t scale_block; /* FP8: rows and columns of a scale; 0: no blocks */
} packed;

/* ---- reading ---- */

static uint32_t word(const unsigned char *words, size_t i)
{
    uint32_t w;

    memcpy(&w, words + i * sizeof(w), sizeof(w));
    return w;
}

static float scale_at(const packed *p, size_t i)
{
    union {
        double align;
        unsigned char bytes[sizeof(double)];
    } at;
    trm_tensor t = {.dtype = p->scale_dtype, .rank = 1, .dims = {1}, .data = at.bytes};
    size_t size = trm_dtype_bytes(p->scale_dtype);

    memcpy(at.bytes, p->scales + i * size, size);
    return (float)trm_tensor_get_f64(&t, 0);
}

/* Field `i` of a row of packed words: the lowest bits first. */
static int field(const unsigned char *words, size_t row_words, size_t row, size_t i, int bits)
{
    size_t in_word = 32 / (size_t)bits;
    uint32_t w = word(words, row * row_words + i / in_word);

    return (int)(w >> (i % in_word) * (size_t)bits & ((1u << bits) - 1));
}

/* AWQ: where column c of eight stands in its word. */
static const unsigned char awq_nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static int awq_field(const unsigned char *words, size_t columns, size_t row, size_t column)
{
    uint32_t w = word(words, row * (columns / 8) + column / 8);

    return (int)(w >> 4 * awq_nibble[column % 8] & 15u);
}

static int zero_of(const packed *p, size_t group, size_t n)
{
    if (p->zeros == NULL)
        return 1 << (p->bits - 1);
    if (p->packing == TRM_LM_PACKING_AWQ)
        return awq_field(p->zeros, p->n, group, n);
    return field(p->zeros, p->n * (size_t)p->bits / 32, group, n, p->bits) + p->zero_add;
}

/* 32 values q - zero of row n from feature k on, which lie in one group. */
static void read_values(const packed *p, size_t n, size_t k, int *out)
{
    int zero = zero_of(p, k / p->group, n);

    for (size_t i = 0; i < GROUP; i++) {
        int q = 0;

        if (p->packing == TRM_LM_PACKING_AWQ) {
            q = awq_field(p->words, p->n, k + i, n);
        } else if (p->packing == TRM_LM_PACKING_GPTQ) { /* words go down the columns */
            size_t in_word = 32 / (size_t)p->bits;
            uint32_t w = word(p->words, (k + i) / in_word * p->n + n);

            q = (int)(w >> ((k + i) % in_word) * (size_t)p->bits & ((1u << p->bits) - 1));
        } else {
            q = field(p->words, p->k * (size_t)p->bits / 32, n, k + i, p->bits);
        }
        out[i] = q - zero;
    }
}

/* ---- making blocks ---- */

static void write_block(trm_dtype dtype, uint16_t scale, const int *v, unsigned char *to)
{
    uint32_t high = 0;

    memcpy(to, &scale, sizeof(scale));
    to += sizeof(scale);
    if (dtype == TRM_DTYPE_Q8_0) {
        for (int i = 0; i < GROUP; i++)
            to[i] = (unsigned char)(int8_t)v[i];
        return;
    }
    if (dtype == TRM_DTYPE_Q5_0) {
        for (int i = 0; i < GROUP; i++)
            high |= (uint32_t)((v[i] + 16) >> 4 & 1) << i;
        memcpy(to, &high, sizeof(high));
        to += sizeof(high);
    }
    for (int i = 0; i < GROUP / 2; i++) {
        int offset = dtype == TRM_DTYPE_Q5_0 ? 16 : 8;

        to[i] = (unsigned char)(((v[i] + offset) & 15) | ((v[i + GROUP / 2] + offset) & 15) << 4);
    }
}

static void make_blocks(const void *ctx, size_t block, size_t count, void *to)
{
    const packed *p = (const packed *)ctx;
    size_t row = p->k / GROUP, bytes = trm_dtype_block_bytes(p->dtype), groups = p->k / p->group;
    unsigned char *at = (unsigned char *)to;
    int v[GROUP];

    for (size_t i = block; i < block + count; i++, at += bytes) {
        size_t n = i / row, k = i % row * GROUP, g = k / p->group;
        size_t s = p->packing == TRM_LM_PACKING_INTS ? n * groups + g : g * p->n + n;

        read_values(p, n, k, v);
        write_block(p->dtype, trm_f32_to_f16(scale_at(p, s)), v, at);
    }
}

/* ---- fp8 ---- */

static float f8_scale(const packed *p, size_t n, size_t k)
{
    size_t block = p->scale_block;

    return scale_at(p, block == 0 ? n * p->scale_row : n / block * p->scale_row + k / block);
}

/* Values stay as they are: a block has its scale in front. */
static void make_f8(const void *ctx, size_t block, size_t count, void *to)
{
    const packed *p = (const packed *)ctx;
    size_t elems = trm_dtype_block_elems(p->dtype), row = p->k / elems;
    unsigned char *at = (unsigned char *)to;

    for (size_t i = block; i < block + count; i++) {
        float scale = f8_scale(p, i / row, i % row * elems);

        memcpy(at, &scale, sizeof(scale));
        memcpy(at + sizeof(scale), p->words + i * elems, elems);
        at += sizeof(scale) + elems;
    }
}

static void make_halves(const void *ctx, size_t first, size_t count, void *to)
{
    const packed *p = (const packed *)ctx;
    unsigned char *at = (unsigned char *)to;

    for (size_t i = first; i < first + count; i++, at += sizeof(uint16_t)) {
        float scale = f8_scale(p, i / p->k, i % p->k);
        uint16_t h = trm_f32_to_bf16(trm_e4m3_to_f32(p->words[i]) * scale);

        memcpy(at, &h, sizeof(h));
    }
}

/* ---- what a checkpoint has ---- */

static trm_status wrong(const trm_weight *w, const char *what)
{
    char shape[TRM_SHAPE_TEXT_BYTES];

    return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' is %s of %s: %s", w->name,
                    trm_dtype_name(w->desc.dtype),
                    trm_tensor_shape_text(&w->desc, shape, sizeof(shape)), what);
}

static bool is_shape(const trm_weight *w, size_t rows, size_t columns)
{
    return w->desc.rank == 2 && (size_t)w->desc.dims[0] == rows &&
           (size_t)w->desc.dims[1] == columns;
}

static trm_status take(trm_lm_build *b, const trmi_linear *l, const char *suffix, trm_dtype dtype,
                       size_t rows, size_t columns, const trm_weight **weight_out)
{
    const trm_weight *w;

    TRM_CHECK(trmi_arch_want(b, l->role, l->expert, suffix, &w));
    if (!is_shape(w, rows, columns) ||
        (dtype == TRM_DTYPE_NONE ? !trm_dtype_is_float(w->desc.dtype) : w->desc.dtype != dtype)) {
        char text[96];

        (void)snprintf(text, sizeof(text), "want %s [%zu, %zu]",
                       dtype == TRM_DTYPE_NONE ? "floats" : trm_dtype_name(dtype), rows, columns);
        return wrong(w, text);
    }
    *weight_out = w;
    return TRM_OK;
}

static trm_status take_scales(trm_lm_build *b, const trmi_linear *l, const char *suffix,
                              size_t rows, size_t columns, packed *p)
{
    const trm_weight *w;

    TRM_CHECK(take(b, l, suffix, TRM_DTYPE_NONE, rows, columns, &w));
    p->scales = (const unsigned char *)w->desc.data;
    p->scale_dtype = w->desc.dtype;
    return TRM_OK;
}

/* Act-order: features were quantised in another order than they lie in. */
static trm_status check_order(trm_lm_build *b, const trmi_linear *l, const packed *p)
{
    const trm_weight *w = trmi_arch_find(
        b, l->role, l->expert, p->packing == TRM_LM_PACKING_INTS ? ".weight_g_idx" : ".g_idx");

    if (w == NULL)
        return TRM_OK;
    if (w->desc.dtype != TRM_DTYPE_I32 || w->desc.rank != 1 || (size_t)w->desc.dims[0] != p->k)
        return wrong(w, "want i32 [inputs]");
    for (size_t k = 0; k < p->k; k++)
        if (word((const unsigned char *)w->desc.data, k) != (uint32_t)(k / p->group))
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "tensor '%s': feature %zu is of group %u: checkpoints with act-order "
                            "(desc_act) are not supported; supported are groups in order",
                            w->name, k, word((const unsigned char *)w->desc.data, k));
    return TRM_OK;
}

/* The block type that holds all q - zero. */
static trm_status choose_type(packed *p, const char *name)
{
    bool middle = true;

    if (p->bits == 8) {
        p->dtype = TRM_DTYPE_Q8_0;
        for (size_t g = 0; g < p->k / p->group; g++)
            for (size_t n = 0; n < p->n; n++)
                if (zero_of(p, g, n) != 128)
                    return trm_fail(TRM_ERR_UNSUPPORTED,
                                    "tensor '%s': 8 bits with zero points other than the middle",
                                    name);
        return TRM_OK;
    }
    for (size_t g = 0; middle && g < p->k / p->group; g++)
        for (size_t n = 0; middle && n < p->n; n++)
            middle = zero_of(p, g, n) == 8;
    p->dtype = middle ? TRM_DTYPE_Q4_0 : TRM_DTYPE_Q5_0;
    if (middle)
        p->zeros = NULL;
    return TRM_OK;
}

static trm_status take_ints(trm_lm_build *b, const trmi_linear *l, packed *p)
{
    const trm_weight *w, *z;
    size_t in_word = 32 / (size_t)p->bits, groups = p->k / p->group;

    if (p->k % p->group != 0 || p->group % GROUP != 0 || p->n % in_word != 0 || p->k % in_word != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s: %zu inputs in groups of %zu: want whole groups of a multiple of %d",
                        b->c->source_name, p->k, p->group, GROUP);
    if (p->packing == TRM_LM_PACKING_INTS) {
        TRM_CHECK(take(b, l, ".weight_packed", TRM_DTYPE_I32, p->n, p->k / in_word, &w));
        TRM_CHECK(take_scales(b, l, ".weight_scale", p->n, groups, p));
        (void)trmi_arch_find(b, l->role, l->expert, ".weight_shape");
        TRM_CHECK(check_order(b, l, p));
    } else {
        bool awq = p->packing == TRM_LM_PACKING_AWQ;

        TRM_CHECK(take(b, l, ".qweight", TRM_DTYPE_I32, awq ? p->k : p->k / in_word,
                       awq ? p->n / in_word : p->n, &w));
        TRM_CHECK(take(b, l, ".qzeros", TRM_DTYPE_I32, groups, p->n / in_word, &z));
        TRM_CHECK(take_scales(b, l, ".scales", groups, p->n, p));
        p->zeros = (const unsigned char *)z->desc.data;
        TRM_CHECK(check_order(b, l, p));
    }
    p->words = (const unsigned char *)w->desc.data;
    return choose_type(p, w->name);
}

/* One scale, or one an output; blocks along the inputs are neither. */
static bool is_one_or_column(const trm_weight *w, size_t n)
{
    const trm_tensor *t = &w->desc;

    return trm_tensor_numel(t) == 1 ||
           (trm_tensor_numel(t) == n &&
            (t->rank == 1 || (t->rank == 2 && (size_t)t->dims[0] == n)));
}

static trm_status take_fp8(trm_lm_build *b, const trmi_linear *l, const trm_weight *w, packed *p)
{
    const trm_weight *s = trmi_arch_find(b, l->role, l->expert, ".weight_scale_inv");
    size_t elems;

    (void)trmi_arch_find(b, l->role, l->expert, ".input_scale");
    if (!is_shape(w, p->n, p->k))
        return wrong(w, "the configuration wants other sizes");
    if (s != NULL) {
        p->scale_block = SCALE_BLOCK;
        p->scale_row = (p->k + SCALE_BLOCK - 1) / SCALE_BLOCK;
        TRM_CHECK(take_scales(b, l, ".weight_scale_inv", (p->n + SCALE_BLOCK - 1) / SCALE_BLOCK,
                              p->scale_row, p));
    } else {
        TRM_CHECK(trmi_arch_want(b, l->role, l->expert,
                                 b->c->packing_group > 0 ? ".weight_scale_inv" : ".weight_scale",
                                 &s));
        elems = trm_tensor_numel(&s->desc);
        if (!trm_dtype_is_float(s->desc.dtype) || !is_one_or_column(s, p->n))
            return wrong(s, "want floats [], [1], [1, 1], [outputs] or [outputs, 1]");
        p->scale_row = elems == 1 ? 0 : 1;
        p->scales = (const unsigned char *)s->desc.data;
        p->scale_dtype = s->desc.dtype;
    }
    for (size_t i = 0; i < trm_tensor_numel(&s->desc); i++) {
        float scale = scale_at(p, i);

        if (!isfinite(scale) || scale < 0.0F)
            return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s': scale %zu is %g, want a number from 0",
                            s->name, i, (double)scale);
    }
    p->words = (const unsigned char *)w->desc.data;
    p->dtype = p->scale_block > 0 ? TRM_DTYPE_F8_128 : TRM_DTYPE_F8_ROW;
    if (p->k % trm_dtype_block_elems(p->dtype) != 0)
        p->dtype = TRM_DTYPE_BF16;
    return TRM_OK;
}

/* ---- the constant ---- */

static trm_graph_maker maker_of(const packed *p)
{
    return trm_dtype_is_f8(p->dtype)          ? make_f8
           : p->packing == TRM_LM_PACKING_FP8 ? make_halves
                                              : make_blocks;
}

static trm_status add(trm_lm_build *b, const trmi_linear *l, const packed *p, int *value_out)
{
    packed *kept = (packed *)trm_arena_alloc(b->g->arena, 1, sizeof(*kept));
    trm_tensor desc = {.dtype = p->dtype, .rank = 2, .dims = {(int64_t)p->n, (int64_t)p->k}};
    const int64_t range[1][2] = {{l->first, l->first + l->count}};
    char name[96], part[160];
    int whole;

    if (kept == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a packed weight");
    *kept = *p;
    (void)snprintf(name, sizeof(name), "layers.%lld.packed.%d", (long long)b->layer, (int)l->role);
    whole = trm_graph_find_value(b->g, name);
    if (whole < 0)
        TRM_CHECK(trm_graph_add_made(b->g, name, &desc, maker_of(p), kept, &whole));
    if (l->count == 0) {
        *value_out = whole;
        return TRM_OK;
    }
    (void)snprintf(part, sizeof(part), "%s[%lld:%lld)", name, (long long)l->first,
                   (long long)(l->first + l->count));
    return trm_graph_add_part(b->g, part, b->g, whole, 0, range, 1, value_out);
}

/* What the checkpoint has of `l`; *is_packed_out false: it does not pack it. */
static trm_status find(trm_lm_build *b, const trmi_linear *l, packed *p, bool *is_packed_out)
{
    const trm_weight *w = trmi_arch_find(b, l->role, l->expert, ".weight");

    *p = (packed){.packing = b->c->packing,
                  .bits = b->c->packing_bits,
                  .zero_add = b->c->packing_zero,
                  .n = (size_t)l->outputs,
                  .k = (size_t)l->inputs,
                  .group =
                      b->c->packing_group > 0 ? (size_t)b->c->packing_group : (size_t)l->inputs};
    *is_packed_out = p->packing != TRM_LM_PACKING_NONE && (w == NULL || w->fp8) &&
                     (p->packing != TRM_LM_PACKING_FP8 || w != NULL);
    if (!*is_packed_out)
        return TRM_OK;
    return p->packing == TRM_LM_PACKING_FP8 ? take_fp8(b, l, w, p) : take_ints(b, l, p);
}

trm_status trmi_arch_packed(trm_lm_build *b, const trmi_linear *l, int *value_out)
{
    bool is_packed;
    packed p;

    *value_out = TRM_NO_VALUE;
    TRM_CHECK(find(b, l, &p, &is_packed));
    return is_packed ? add(b, l, &p, value_out) : TRM_OK;
}

/* ---- experts ---- */

typedef struct stack {
    trm_graph_maker make;
    size_t each; /* blocks of a matrix */
    const packed *of;
} stack;

static void make_stack(const void *ctx, size_t block, size_t count, void *to)
{
    const stack *s = (const stack *)ctx;
    unsigned char *at = (unsigned char *)to;

    while (count > 0) {
        const packed *p = &s->of[block / s->each];
        size_t here = block % s->each, n = s->each - here < count ? s->each - here : count;

        s->make(p, here, n, at);
        at += n * trm_dtype_block_bytes(p->dtype);
        block += n;
        count -= n;
    }
}

trm_status trmi_arch_packed_experts(trm_lm_build *b, trmi_role role, int64_t rows, int64_t columns,
                                    int *value_out)
{
    size_t experts = (size_t)b->c->experts;
    trmi_linear l = {.role = role, .outputs = rows, .inputs = columns};
    trm_tensor desc = {.rank = 3, .dims = {b->c->experts, rows, columns}};
    bool is_packed;
    packed first, *of;
    char name[96];
    stack *s;

    *value_out = TRM_NO_VALUE;
    TRM_CHECK(find(b, &l, &first, &is_packed));
    if (!is_packed)
        return TRM_OK;
    s = (stack *)trm_arena_alloc(b->g->arena, 1, sizeof(*s));
    of = (packed *)trm_arena_alloc(b->g->arena, experts, sizeof(*of));
    if (s == NULL || of == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu packed experts", experts);
    for (size_t e = 0; e < experts; e++) {
        l.expert = (int64_t)e;
        TRM_CHECK(find(b, &l, &of[e], &is_packed));
        if (is_packed && of[e].dtype == TRM_DTYPE_Q5_0 && first.dtype == TRM_DTYPE_Q4_0)
            first.dtype = TRM_DTYPE_Q5_0; /* it holds what Q4_0 does */
        if (!is_packed || (of[e].dtype != first.dtype && of[e].dtype != TRM_DTYPE_Q4_0))
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "layer %lld: expert %zu is not packed as the first is",
                            (long long)b->layer, e);
    }
    for (size_t e = 0; e < experts; e++)
        of[e].dtype = first.dtype;
    desc.dtype = first.dtype;
    *s = (stack){.make = maker_of(&first),
                 .each = first.n * (first.k / trm_dtype_block_elems(first.dtype)),
                 .of = of};
    (void)snprintf(name, sizeof(name), "layers.%lld.packed.%d", (long long)b->layer, (int)role);
    return trm_graph_add_made(b->g, name, &desc, make_stack, s, value_out);
}
