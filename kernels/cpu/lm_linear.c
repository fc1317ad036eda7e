/* The framework of language models' products: types, packing, leaves, division among threads. See
 * lm_linear.h. */
#include "kernels/cpu/lm_linear.h"

#include "base/f8.h"
#include "kernels/cpu/data.h"
#include "kernels/cpu/lm_linear_fold.h"

#include <string.h>

#define TRM_LM_TYPE(name) extern const trmi_lm_type trmi_lm_type_##name;
#include "kernels/cpu/lm_types.def"
#undef TRM_LM_TYPE

static const trmi_lm_type *const types[] = {
#define TRM_LM_TYPE(name) &trmi_lm_type_##name,
#include "kernels/cpu/lm_types.def"
#undef TRM_LM_TYPE
};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

/* Vectors of sums of a block of rows: 96 rows and 2 panels. With 96 rows a thread at 100 GFLOP/s
 * reads 1 GB/s of BF16 weights. */
#define BLOCK_VECTORS ((size_t)192)
/* Weights that are worth a thread: opening a region costs a few microseconds. */
#define GRAIN_BYTES ((size_t)48 << 10)

const trmi_lm_type *trmi_lm_type_at(int index)
{
    return index >= 0 && index < (int)TYPES ? types[index] : NULL;
}

const trmi_lm_type *trmi_lm_type_get(trm_dtype dtype, trm_dtype act)
{
    const trmi_lm_type *best = NULL;
    trm_isa isa = trmi_cpu_isa();

    if (act == TRM_DTYPE_NONE)
        act = trm_dtype_is_block(dtype) && !trm_dtype_is_f8(dtype) ? TRM_DTYPE_I8 : TRM_DTYPE_F32;
    for (int i = 0; i < (int)TYPES; i++)
        if (types[i]->dtype == dtype && types[i]->act == act && types[i]->isa <= isa &&
            (best == NULL || types[i]->isa >= best->isa))
            best = types[i];
    return best;
}

trm_status trmi_lm_rounding(const trm_op_desc *desc, const char *name, trm_dtype *act_out)
{
    const char *text = trm_attr_string(desc->attrs, name, NULL);

    *act_out = text == NULL                ? TRM_DTYPE_NONE
               : strcmp(text, "bf16") == 0 ? TRM_DTYPE_BF16
               : strcmp(text, "f16") == 0  ? TRM_DTYPE_F16
                                           : TRM_DTYPE_COUNT;
    if (*act_out == TRM_DTYPE_COUNT)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %s is '%.40s', want bf16 or f16",
                        trm_op_get(desc->op)->name, desc->name, name, text);
    return TRM_OK;
}

trmi_lm_weight trmi_lm_weight_of(const trmi_lm_type *type, size_t n, size_t k, const void *data)
{
    return (trmi_lm_weight){.type = type,
                            .n = n,
                            .k = k,
                            .panels = (n + TRMI_LM_PANEL - 1) / TRMI_LM_PANEL,
                            .panel_bytes = type->panel_bytes(k),
                            .data = data};
}

/* --- packing ------------------------------------------------------------------------------- */

typedef struct pack_job {
    const trmi_lm_weight *w;
    const unsigned char *rows;
    size_t row_bytes, k_offset;
    unsigned char *to;
    unsigned char *scratch; /* transposed: [parts][TRMI_LM_PANEL * k] elements */
    size_t parts, elem;
} pack_job;

static void pack_panels(void *ctx, size_t begin, size_t end)
{
    const pack_job *job = ctx;
    const trmi_lm_weight *w = job->w;
    const void *rows[TRMI_LM_PANEL];

    for (size_t p = begin; p < end; p++) {
        for (size_t j = 0; j < TRMI_LM_PANEL; j++) {
            size_t n = p * TRMI_LM_PANEL + j;

            rows[j] = n < w->n ? job->rows + n * job->row_bytes : NULL;
        }
        w->type->pack(rows, w->k, job->k_offset, job->to + p * w->panel_bytes);
    }
}

void trmi_lm_weight_pack(const trmi_lm_weight *w, const void *rows, size_t row_bytes,
                         size_t k_offset, void *to)
{
    pack_job job = {.w = w, .rows = rows, .row_bytes = row_bytes, .k_offset = k_offset, .to = to};

    trm_team_for(w->panels, 1 + GRAIN_BYTES / (w->panel_bytes + 1), pack_panels, &job);
}

static void pack_columns(void *ctx, size_t begin, size_t end)
{
    const pack_job *job = ctx;
    const trmi_lm_weight *w = job->w;
    const void *rows[TRMI_LM_PANEL];
    size_t elem = job->elem, line = w->k * elem;

    for (size_t part = begin; part < end; part++) {
        unsigned char *scratch = job->scratch + part * TRMI_LM_PANEL * line;
        size_t first, last;

        trmi_part(w->panels, job->parts, part, &first, &last);
        for (size_t p = first; p < last; p++) {
            size_t n = p * TRMI_LM_PANEL;
            size_t wide = w->n - n < TRMI_LM_PANEL ? w->n - n : TRMI_LM_PANEL;

            for (size_t k = 0; k < w->k; k++)
                for (size_t j = 0; j < wide; j++)
                    memcpy(scratch + j * line + k * elem, job->rows + (k * w->n + n + j) * elem,
                           elem);
            for (size_t j = 0; j < TRMI_LM_PANEL; j++)
                rows[j] = j < wide ? scratch + j * line : NULL;
            w->type->pack(rows, w->k, 0, job->to + p * w->panel_bytes);
        }
    }
}

trm_status trmi_lm_weight_pack_transposed(const trmi_lm_weight *w, const void *from, void *to)
{
    pack_job job = {.w = w,
                    .rows = from,
                    .to = to,
                    .parts = (size_t)trm_team_size(),
                    .elem = trm_dtype_bytes(w->type->dtype)};

    if (job.elem == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a transposed weight of %s: blocks lie along K",
                        trm_dtype_name(w->type->dtype));
    if (w->k == 0 || w->n == 0)
        return TRM_OK;
    job.scratch = trm_malloc(job.parts * TRMI_LM_PANEL * job.elem, w->k);
    if (job.scratch == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "room to transpose a weight of K = %zu", w->k);
    trm_team_for(job.parts, 1, pack_columns, &job);
    trm_free(job.scratch);
    return TRM_OK;
}

/* --- activations --------------------------------------------------------------------------- */

typedef struct convert_job {
    const trmi_lm_type *type;
    const float *x;
    size_t x_stride, k, row_stride;
    unsigned char *converted;
    const void **rows;
} convert_job;

static void convert_rows(void *ctx, size_t begin, size_t end)
{
    const convert_job *job = ctx;

    for (size_t r = begin; r < end; r++) {
        unsigned char *row = job->converted + r * job->row_stride;

        job->type->convert(job->x + r * job->x_stride, job->k, row);
        job->rows[r] = row;
    }
}

size_t trmi_lm_row_stride(const trmi_lm_type *type, size_t k)
{
    return type->convert != NULL ? trm_align_up(type->row_bytes(k), 64) : 0;
}

void trmi_lm_rows_convert(const trmi_lm_type *type, const float *x, size_t x_stride, size_t m,
                          size_t k, void *converted, const void **rows_out)
{
    convert_job job = {type, x, x_stride, k, trmi_lm_row_stride(type, k), converted, rows_out};

    if (type->convert != NULL)
        trm_team_for(m, 1 + GRAIN_BYTES / (k * sizeof(float) + 1), convert_rows, &job);
    for (size_t r = 0; type->convert == NULL && r < m; r++)
        rows_out[r] = x + r * x_stride;
}

/* --- products ------------------------------------------------------------------------------ */

trm_status trmi_lm_leaves_init(trmi_lm_leaves *l, size_t k, size_t leaf, int64_t first,
                               int64_t leaves)
{
    trm_tree_part parts[TRM_TREE_PARTS_MAX];
    size_t count = leaf == 0 ? 1 : k / leaf;

    memset(l, 0, sizeof(*l));
    l->leaf = k;
    l->count = l->parts = 1;
    l->ends[0] = 1;
    if (leaf == 0)
        return TRM_OK;
    if (k % leaf != 0 || count == 0 || leaves < 1 || leaves > TRM_TREE_LEAVES_MAX || first < 0 ||
        count > (size_t)leaves || first > leaves - (int64_t)count)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "K = %zu in leaves of %zu, from leaf %lld of %lld: want whole leaves, at "
                        "most %d in all",
                        k, leaf, (long long)first, (long long)leaves, TRM_TREE_LEAVES_MAX);
    l->leaf = leaf;
    l->count = (int)count;
    l->parts = trm_tree_parts((int)first, l->count, (int)leaves, parts);
    for (int i = 0; i < l->parts; i++)
        l->ends[i] = (unsigned char)(parts[i].hi - (int)first);
    trm_tree_merges((int)first, l->count, (int)leaves, l->merges);
    return TRM_OK;
}

/* A block: rows [row, row + rows) in `tiles`, a group of panels. Its sums lie tile after tile, as
 * tiles write them. */
typedef struct block_at {
    size_t row, rows, tiles, panel, panels;
} block_at;

static void store_tile(const trmi_lm_product *p, const block_at *b, size_t row, size_t m,
                       const float *acc, float *out)
{
    for (size_t i = 0; i < b->panels; i++) {
        size_t n = (b->panel + i) * TRMI_LM_PANEL, left = p->weight->n - n;
        size_t wide = left < TRMI_LM_PANEL ? left : TRMI_LM_PANEL;

        for (size_t r = 0; r < m; r++, acc += TRMI_LM_PANEL) {
            float *to = out + (row + r) * p->out_stride + n;

            if (p->bias != NULL)
                for (size_t j = 0; j < wide; j++)
                    to[j] = acc[j] + p->bias[n + j];
            else if (wide == TRMI_LM_PANEL)
                memcpy(to, acc, TRMI_LM_PANEL * sizeof(float));
            else
                memcpy(to, acc, wide * sizeof(float));
        }
    }
}

static void fold(float *left, const float *right, size_t count)
{
    if (trmi_cpu_isa() >= TRM_ISA_AVX2) {
        trmi_lm_fold_avx2(left, right, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        left[i] += right[i];
}

/* A leaf's sums are pushed; where a node of the tree is complete its halves are added; a node that
 * is a part leaves the stack. All rows of the block pass a leaf of the weights while it is in the
 * cache. */
static void run_block(const trmi_lm_product *p, const block_at *b)
{
    const trmi_lm_weight *w = p->weight;
    const trmi_lm_leaves *l = p->leaves;
    const unsigned char *panel = w->data + b->panel * w->panel_bytes;
    size_t wide = b->panels * TRMI_LM_PANEL;
    _Alignas(64) float stack[TRM_TREE_DEPTH_MAX][BLOCK_VECTORS * TRMI_LM_PANEL];
    int depth = 0, part = 0;

    TRM_ASSERT(b->tiles > 0);
    for (int i = 0; i < l->count; i++) {
        size_t k = (size_t)i * l->leaf, from, to;

        for (size_t t = 0; t < b->tiles; t++) {
            trmi_part(b->rows, b->tiles, t, &from, &to);
            w->type->tile(panel, w->panel_bytes, (int)b->panels, p->rows + b->row + from,
                          (int)(to - from), w->k, k, k + l->leaf, stack[depth] + from * wide);
        }
        depth++;
        for (int merges = l->merges[i]; merges > 0; merges--, depth--)
            fold(stack[depth - 2], stack[depth - 1], b->rows * wide);
        if (i + 1 == l->ends[part]) {
            depth--;
            for (size_t t = 0; t < b->tiles; t++) {
                trmi_part(b->rows, b->tiles, t, &from, &to);
                store_tile(p, b, b->row + from, to - from, stack[depth] + from * wide,
                           p->out + (size_t)part * p->out_part_stride);
            }
            part++;
        }
    }
}

/* Rows of a block, a multiple of rows_max: weights are read from memory once a block. */
static size_t block_rows(const trmi_lm_type *type)
{
    size_t most = (size_t)type->rows_max;

    return most * (BLOCK_VECTORS / (most * (size_t)type->panels_many));
}

void trmi_lm_product_run(const trmi_lm_product *p, size_t row_begin, size_t row_end,
                         size_t panel_begin, size_t panel_end)
{
    const trmi_lm_type *type = p->weight->type;
    size_t rows = row_end - row_begin, most = (size_t)type->rows_max;
    size_t tiles = (rows + most - 1) / most, in_block = block_rows(type) / most;
    size_t blocks = (tiles + in_block - 1) / in_block;
    size_t group = (size_t)(rows == 1 ? type->panels_one : type->panels_many);

    for (size_t i = 0; i < blocks; i++) {
        block_at b;
        size_t tile_end, unused;

        trmi_part(tiles, blocks, i, &b.tiles, &tile_end);
        trmi_part(rows, tiles, b.tiles, &b.row, &unused);
        trmi_part(rows, tiles, tile_end - 1, &unused, &b.rows);
        b.tiles = tile_end - b.tiles;
        b.rows -= b.row;
        b.row += row_begin;
        for (b.panel = panel_begin; b.panel < panel_end; b.panel += group) {
            b.panels = panel_end - b.panel < group ? panel_end - b.panel : group;
            run_block(p, &b);
        }
    }
}

/* --- the team ------------------------------------------------------------------------------ */

/* Blocks of rows; a block's work for one panel counts as its tiles. */
typedef struct blocking {
    size_t tiles, blocks;
} blocking;

static blocking blocking_of(const trmi_lm_product *p)
{
    const trmi_lm_type *type = p->weight->type;
    size_t most = (size_t)type->rows_max, in_block = block_rows(type) / most;
    size_t tiles = (p->m + most - 1) / most;

    return (blocking){tiles, (tiles + in_block - 1) / in_block};
}

typedef struct team_job {
    const trmi_lm_product *products;
    size_t count;
} team_job;

/* The work in order: product, block of rows, panel. */
static void run_range(void *ctx, size_t begin, size_t end)
{
    const team_job *job = ctx;
    size_t at = 0; /* where the block's work starts */

    for (size_t i = 0; i < job->count && at < end; i++) {
        const trmi_lm_product *p = &job->products[i];
        size_t panels = p->weight->panels;
        blocking b = blocking_of(p);

        if (at + b.tiles * panels <= begin) {
            at += b.tiles * panels;
            continue;
        }
        for (size_t block = 0; block < b.blocks && at < end; block++) {
            size_t tile0, tile1, row0, row1, unused, cost, from, to;

            trmi_part(b.tiles, b.blocks, block, &tile0, &tile1);
            cost = tile1 - tile0;
            from = begin > at ? (begin - at + cost - 1) / cost : 0;
            to = (end - at + cost - 1) / cost; /* panels that start in [begin, end) */
            to = to < panels ? to : panels;
            trmi_part(p->m, b.tiles, tile0, &row0, &unused);
            trmi_part(p->m, b.tiles, tile1 - 1, &unused, &row1);
            if (from < to)
                trmi_lm_product_run(p, row0, row1, from, to);
            at += cost * panels;
        }
    }
}

void trmi_lm_products_run(const trmi_lm_product *products, size_t count)
{
    team_job job = {products, count};
    size_t cost = 0, bytes = 1;

    for (size_t i = 0; i < count; i++) {
        cost += blocking_of(&products[i]).tiles * products[i].weight->panels;
        if (products[i].weight->panel_bytes > bytes)
            bytes = products[i].weight->panel_bytes;
    }
    trm_team_for(cost, 1 + GRAIN_BYTES / bytes, run_range, &job);
}
