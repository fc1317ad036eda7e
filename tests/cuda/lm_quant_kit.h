/* For tests of products with block types on the CUDA device: weights as in a file, what the CPU's
 * kernels make of them leaf by leaf, and the family called without an operator around it. */
#ifndef TRM_TESTS_CUDA_LM_QUANT_KIT_H
#define TRM_TESTS_CUDA_LM_QUANT_KIT_H

/* both backends have a struct of this name, which only they themselves see */
#define trmi_pack quant_cpu_pack
#include "kernels/cpu/lm_linear.h"
#undef trmi_pack

#include "kernels/cuda/lm.h"
#include "tests/cuda/cuda_kit.h"
#include "tests/cuda/lm_rounded_kit.h"

#include <dlfcn.h>

/* Where the fp16 numbers of a block stand, -1: no second one. */
static const struct quant_type {
    const char *name;
    trm_dtype dtype;
    int d, m;
} quant_types[] = {
    {"q4_0", TRM_DTYPE_Q4_0, 0, -1},   {"q4_1", TRM_DTYPE_Q4_1, 0, 2},
    {"q5_0", TRM_DTYPE_Q5_0, 0, -1},   {"q5_1", TRM_DTYPE_Q5_1, 0, 2},
    {"q8_0", TRM_DTYPE_Q8_0, 0, -1},   {"q2_k", TRM_DTYPE_Q2_K, 80, 82},
    {"q3_k", TRM_DTYPE_Q3_K, 108, -1}, {"q4_k", TRM_DTYPE_Q4_K, 0, 2},
    {"q5_k", TRM_DTYPE_Q5_K, 0, 2},    {"q6_k", TRM_DTYPE_Q6_K, 208, -1},
};
enum { QUANT_TYPES = sizeof(quant_types) / sizeof(quant_types[0]) };

static inline uint32_t quant_draw(void)
{
    kit_seed = kit_seed * 1664525u + 1013904223u;
    return kit_seed >> 8;
}

static inline void *quant_memory(size_t bytes)
{
    void *p = trm_arena_alloc_aligned(kit_arena, bytes + TRM_ALIGN);

    ck_assert_ptr_nonnull(p);
    return p;
}

static inline size_t quant_row_bytes(trm_dtype t, size_t k)
{
    return k / trm_dtype_block_elems(t) * trm_dtype_block_bytes(t);
}

/* Random bits in every field but the fp16 numbers, which are ordinary ones. */
static inline unsigned char *quant_rows(const struct quant_type *t, size_t n, size_t k)
{
    size_t block = trm_dtype_block_bytes(t->dtype), bytes = n * quant_row_bytes(t->dtype, k);
    unsigned char *rows = quant_memory(bytes);

    for (size_t i = 0; i < bytes; i++)
        rows[i] = (unsigned char)quant_draw();
    for (size_t b = 0; b < bytes; b += block) {
        uint16_t d = trm_f32_to_f16((float)kit_uniform(-0.1, 0.1));
        uint16_t m = trm_f32_to_f16((float)kit_uniform(-1.0, 1.0));

        memcpy(rows + b + t->d, &d, 2);
        if (t->m >= 0)
            memcpy(rows + b + t->m, &m, 2);
    }
    return rows;
}

static inline float *quant_x(size_t count)
{
    float *x = quant_memory(count * sizeof(float));

    for (size_t i = 0; i < count; i++)
        x[i] = (float)(kit_uniform(-3.0, 3.0) * kit_uniform(-1.0, 1.0));
    return x;
}

/* ---- leaves ---- */

/* Leaves [first, first + count) of a tree of `total`, lengths in turn from `lengths` (ends with 0,
 * then from its beginning); the last takes what is left. */
static inline trmi_lmc_leaves quant_leaves(size_t k, int count, int first, int total,
                                           const int *lengths)
{
    trmi_lmc_leaves l = {.count = count};
    trm_tree_part parts[TRM_TREE_PARTS_MAX];

    for (int i = 0, j = 0; i < count; i++, j++) {
        j = lengths[j] == 0 ? 0 : j;
        l.begin[i + 1] = i + 1 == count ? (int32_t)k : l.begin[i] + lengths[j];
    }
    ck_assert_int_gt((int)k, count == 1 ? 0 : l.begin[count - 1]);
    l.parts = trm_tree_parts(first, count, total, parts);
    for (int i = 0; i < l.parts; i++)
        l.ends[i] = (unsigned char)(parts[i].hi - first);
    trm_tree_merges(first, count, total, l.merges);
    return l;
}

/* Node [lo, hi) of values [leaf][elems]. */
static inline void quant_tree(const float *values, int lo, int hi, size_t elems, float *out)
{
    int mid = lo + (hi - lo) / 2;
    float *right;

    if (hi - lo == 1) {
        memcpy(out, values + (size_t)lo * elems, elems * sizeof(float));
        return;
    }
    right = quant_memory(elems * sizeof(float));
    quant_tree(values, lo, mid, elems, out);
    quant_tree(values, mid, hi, elems, right);
    for (size_t i = 0; i < elems; i++)
        out[i] += right[i];
}

/* [parts][m][n] by the CPU's kernels: each leaf by its tile function, leaves by the tree. first,
 * total: as the leaves were made. */
static inline float *quant_reference(const struct quant_type *t, const unsigned char *rows,
                                     size_t n, size_t k, const float *x, size_t m,
                                     const trmi_lmc_leaves *l, int first, int total)
{
    const trmi_lm_type *type = trmi_lm_type_get(t->dtype, TRM_DTYPE_NONE);
    size_t bytes = quant_row_bytes(t->dtype, k), all = (size_t)(first + l->count);
    trmi_lm_weight w = trmi_lm_weight_of(type, n, k, NULL);
    void *packed = quant_memory(trmi_lm_weight_bytes(&w)), *row = quant_memory(type->row_bytes(k));
    float *values = quant_memory(all * m * n * sizeof(float));
    float *out = quant_memory((size_t)l->parts * m * n * sizeof(float));
    float *acc = quant_memory(TRMI_LM_PANEL * sizeof(float));
    trm_tree_part parts[TRM_TREE_PARTS_MAX];

    trmi_lm_weight_pack(&w, rows, bytes, 0, packed);
    for (size_t r = 0; r < m; r++) {
        const void *one = row;

        type->convert(x + r * k, k, row);
        for (int i = 0; i < l->count; i++)
            for (size_t p = 0; p < w.panels; p++) {
                float *to = values + ((size_t)(first + i) * m + r) * n + p * TRMI_LM_PANEL;

                type->tile((const unsigned char *)packed + p * w.panel_bytes, w.panel_bytes, 1,
                           &one, 1, k, (size_t)l->begin[i], (size_t)l->begin[i + 1], acc);
                for (size_t j = 0; j < TRMI_LM_PANEL && p * TRMI_LM_PANEL + j < n; j++)
                    to[j] = acc[j];
            }
    }
    ck_assert_int_eq(trm_tree_parts(first, l->count, total, parts), l->parts);
    for (int i = 0; i < l->parts; i++)
        quant_tree(values, parts[i].lo, parts[i].hi, m * n, out + (size_t)i * m * n);
    return out;
}

/* ---- the family ---- */

static const trmi_lmc_family *quant_family; /* NULL: the real module, which shows operators only */

static inline void quant_find_family(void)
{
    const char *path = getenv("TRM_CUDA_MODULE");
    void *module = path != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    const trmi_lmc_family *(*get)(void) = NULL;
    void *symbol = module != NULL ? dlsym(module, "trm_emu_family_quant") : NULL;

    if (symbol != NULL) {
        memcpy(&get, &symbol, sizeof(get));
        quant_family = get();
    }
}

static inline void *quant_to_device(const void *from, size_t bytes)
{
    void *p = kit_device_memory(kit_gpu, bytes);

    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, p, from, bytes));
    kit_wait(kit_gpu);
    return p;
}

/* `stack` weights of [n, k]; rows `apart` bytes further from each other than they are long. */
static inline trmi_lmc_weight quant_weight(const struct quant_type *t, const unsigned char *rows,
                                           size_t n, size_t k, size_t stack, size_t apart)
{
    size_t row = quant_row_bytes(t->dtype, k);
    trmi_lmc_weight w = {.family = quant_family, .dtype = t->dtype, .n = n, .k = k, .stack = stack};
    unsigned char *memory, *spread = quant_memory(n * (row + apart));

    ck_assert(quant_family->takes(t->dtype, TRM_DTYPE_NONE, &w.act));
    ck_assert_int_eq(w.act, TRM_DTYPE_I8);
    w.stride = quant_family->weight_bytes(&w);
    ck_assert_uint_eq(w.stride % 256, 0);
    w.data = memory = kit_device_memory(kit_gpu, stack * w.stride);
    for (size_t s = 0; s < stack; s++) {
        for (size_t r = 0; r < n; r++)
            memcpy(spread + r * (row + apart), rows + (s * n + r) * row, row);
        KIT_OK(quant_family->pack((trm_cuda *)kit_gpu, &w, spread, row + apart, false,
                                  memory + s * w.stride));
    }
    kit_wait(kit_gpu);
    return w;
}

static inline void quant_weight_free(trmi_lmc_weight *w)
{
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, (void *)(uintptr_t)w->data);
}

#define QUANT_UNTOUCHED 0x5a5a5a5au

/* Runs p, whose pointers (but for weights) are host memory; outputs of p->segment[i].out. x_rows:
 * of x. */
static inline void quant_run(trmi_lmc_product p, size_t x_rows)
{
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    float *out[TRMI_LMC_SEGMENTS] = {NULL};
    int outputs = p.gated != TRMI_LMC_ACT_COUNT ? 1 : p.segments;
    size_t ws_bytes = quant_family->workspace_bytes(cuda, &p), bytes[TRMI_LMC_SEGMENTS];
    void *held[16], *ws;
    int count = 0;

    held[count++] = ws = kit_device_memory(kit_gpu, ws_bytes);
    p.x = held[count++] =
        quant_to_device(p.x, x_rows * (p.rounded ? trmi_lmq_row_bytes(p.k) : p.k * sizeof(float)));
    if (p.experts > 0)
        p.starts = held[count++] =
            quant_to_device(p.starts, ((size_t)p.experts + 1) * sizeof(int32_t));
    if (p.row_of != NULL)
        p.row_of = held[count++] = quant_to_device(p.row_of, p.m * sizeof(int32_t));
    for (int i = 0; i < p.segments; i++) {
        if (p.segment[i].bias != NULL)
            p.segment[i].bias = held[count++] =
                quant_to_device(p.segment[i].bias, p.segment[i].weight->n * sizeof(float));
        if (i >= outputs)
            continue;
        out[i] = p.segment[i].out;
        bytes[i] = (size_t)p.leaves->parts * p.m * p.segment[i].weight->n * sizeof(float);
        memset(out[i], 0x5a, bytes[i]);
        p.segment[i].out = held[count++] = quant_to_device(out[i], bytes[i]);
    }
    KIT_OK(quant_family->run(cuda, &p, ws, cuda->stream));
    kit_wait(kit_gpu);
    for (int i = 0; i < outputs; i++)
        KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, out[i], p.segment[i].out, bytes[i]));
    kit_wait(kit_gpu);
    for (int i = 0; i < count; i++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, held[i]);
}

/* To the bit. */
static inline void quant_same(const char *name, const char *type, const float *got,
                              const float *want, size_t count, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        bool nan = isnan(got[i]) && isnan(want[i]);

        ck_assert_msg(nan || memcmp(&got[i], &want[i], sizeof(float)) == 0,
                      "%s, %s: row %zu, feature %zu: got %.9g, the CPU says %.9g", name, type,
                      i / n, i % n, (double)got[i], (double)want[i]);
    }
}

#endif
