/* The family of products with block types: how a product is dealt out to warps, and packing. See
 * lm_quant.h. */
#include "kernels/cuda/lm_quant.h"

#include <string.h>

/* Raw rows that are in device memory at once while a weight is packed. */
#define PIECE_BYTES ((size_t)32 << 20)
#define SHARED_OF_SM ((size_t)227 << 10)

static bool is_type(trm_dtype dtype)
{
    return trm_dtype_is_block(dtype);
}

static bool quant_takes(trm_dtype dtype, trm_dtype act, trm_dtype *act_out)
{
    if (!is_type(dtype) || (act != TRM_DTYPE_NONE && act != TRM_DTYPE_I8))
        return false;
    *act_out = TRM_DTYPE_I8;
    return true;
}

static size_t steps_of(size_t k)
{
    return (k + TRMI_LMQ_STEP - 1) / TRMI_LMQ_STEP;
}

static size_t panel_bytes(trm_dtype dtype, size_t k)
{
    return trmi_lmq_step_at(dtype, steps_of(k));
}

static size_t panels_of(size_t n)
{
    return (n + TRMI_LMQ_PANEL - 1) / TRMI_LMQ_PANEL;
}

static size_t quant_weight_bytes(const trmi_lmc_weight *w)
{
    return trm_align_up(panels_of(w->n) * panel_bytes(w->dtype, w->k), 256);
}

/* ---- packing ---- */

static trm_status quant_pack(trm_cuda *cuda, const trmi_lmc_weight *w, const void *rows,
                             size_t row_bytes, bool transposed, void *to)
{
    size_t row = w->k / trm_dtype_block_elems(w->dtype) * trm_dtype_block_bytes(w->dtype);
    size_t many = row > 0 ? PIECE_BYTES / row / TRMI_LMQ_PANEL * TRMI_LMQ_PANEL : 0;
    bool apart = row_bytes != row; /* a range of K: without what lies between */
    unsigned char *together = NULL;
    void *raw = NULL;
    trm_status st = TRM_OK;

    if (transposed)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a transposed weight of %s: blocks lie along K",
                        trm_dtype_name(w->dtype));
    if (w->n == 0 || w->k == 0)
        return TRM_OK;
    if (many == 0)
        many = TRMI_LMQ_PANEL;
    if (many > w->n)
        many = w->n;
    TRM_CHECK(cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, many * row, &raw));
    if (apart) {
        together = trm_malloc(many, row);
        if (together == NULL)
            st = trm_fail(TRM_ERR_NO_MEMORY, "%zu rows of a weight, %zu bytes each", many, row);
    }
    for (size_t at = 0; at < w->n && st == TRM_OK; at += many) {
        const unsigned char *from = (const unsigned char *)rows + at * row_bytes;
        size_t count = w->n - at < many ? w->n - at : many;

        for (size_t r = 0; apart && r < count; r++)
            memcpy(together + r * row, from + r * row_bytes, row);
        TRM_TRY(st, trmi_cuda_upload(cuda, raw, apart ? together : from, count * row), done);
        TRM_TRY(
            st,
            trmi_lmq_pack(w->dtype, raw, row, count, w->k,
                          (unsigned char *)to + at / TRMI_LMQ_PANEL * panel_bytes(w->dtype, w->k),
                          cuda->stream),
            done);
        TRM_TRY(st, TRMI_CUDA(cudaStreamSynchronize(cuda->stream)), done); /* raw is used again */
    }
done:
    trm_free(together);
    cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, raw);
    return st;
}

/* ---- how a product is dealt out ---- */

typedef struct quant_plan {
    trmi_lmq_args args;
    trmi_lmq_variant variant;
    trm_dtype dtype;
    unsigned grid_x, grid_y;
    size_t shared_bytes, x_bytes;
    bool itself; /* quantises_itself */
} quant_plan;

static size_t cuda_shared(const trm_cuda *cuda)
{
    return (size_t)cuda->shared_bytes_max;
}

static int tokens_of(trmi_lmq_variant v)
{
    return 2 << v;
}

static int leaves_of(trmi_lmq_variant v)
{
    return v == TRMI_LMQ_2 ? 4 : v == TRMI_LMQ_4 ? 2 : 1;
}

/* Blocks quantise x themselves: every one of them all of it, so it must be little. */
static bool quantises_itself(const trmi_lmc_product *p, trmi_lmq_variant v)
{
    return p->m <= 2 && p->experts == 0 && v <= TRMI_LMQ_4;
}

/* Rows of the tile. Of experts: of one, if rows are dealt out evenly. */
static trmi_lmq_variant variant_of(const trmi_lmc_product *p)
{
    size_t m = p->experts > 0 ? (p->m + (size_t)p->experts - 1) / (size_t)p->experts : p->m;
    trmi_lmq_variant v = p->experts > 0 ? TRMI_LMQ_4 : TRMI_LMQ_2;

    while (v < TRMI_LMQ_64 && m > (size_t)tokens_of(v))
        v++;
    return v;
}

static size_t shared_of(const quant_plan *q)
{
    const trmi_lmq_args *a = &q->args;
    int leaves = leaves_of(q->variant);
    size_t ring = (size_t)(trmi_lmq_stages(leaves) * leaves * trmi_lmq_step_bytes(q->dtype)) *
                  (size_t)(a->panels_block * a->splits);
    size_t slots = (size_t)a->panels_block * (size_t)a->slots * TRMI_LMQ_PANEL *
                   (size_t)tokens_of(q->variant) * sizeof(float);

    return ring + slots +
           (q->itself ? (size_t)a->steps * 2 * (size_t)tokens_of(q->variant) * TRMI_LMQ_X_TOKEN
                      : 0);
}

/* Merges that each warp does by itself, and those of what is left. A merge whose left operand is
 * another warp's waits, and so does all that lies below it. */
static void deal_leaves(trmi_lmq_args *a, const trmi_lmc_leaves *l)
{
    int values = 0, slots = 0;

    memset(a->local, 0, sizeof(a->local));
    memset(a->outer, 0, sizeof(a->outer));
    for (int q = 0; q < a->splits; q++) {
        int first = a->sets * q / a->splits * a->per_set;
        int end = a->sets * (q + 1) / a->splits * a->per_set;
        int height = 0, wall = 0, most = 0; /* values of this warp; those that wait below */

        end = end < a->leaves ? end : a->leaves;
        for (int i = first; i < end; i++) {
            int merges = l->merges[i];

            while (merges > 0 && height > wall) {
                a->local[i]++;
                merges--;
                height--;
            }
            height++;
            most = height > most ? height : most;
            a->outer[values + height - 1] = (uint8_t)merges;
            if (merges > 0)
                wall = height;
        }
        a->slot_first[q] = (uint8_t)slots;
        for (int i = 0; i < height; i++)
            a->slot_of[values + i] = (uint8_t)(slots + i);
        values += height;
        slots += most;
    }
    a->values = values;
    a->slots = slots;
}

/* With several leaves a warp at once each leaf has its slot, and merges come at the end. */
static void deal_few(trmi_lmq_args *a, const trmi_lmc_leaves *l)
{
    memset(a->local, 0, sizeof(a->local));
    for (int i = 0; i < a->leaves; i++) {
        a->slot_of[i] = (uint8_t)i;
        a->outer[i] = l->merges[i];
    }
    a->slots = a->values = a->leaves;
}

/* Finds the usual tree. */
static void deal_even(trmi_lmq_args *a)
{
    unsigned char merges[TRM_TREE_LEAVES_MAX];
    int n = a->values;

    a->even = 0;
    a->apart = n > 1 ? a->slot_of[1] - a->slot_of[0] : 0;
    if (a->parts != 1 || n > 32 || (n & (n - 1)) != 0)
        return;
    trm_tree_merges(0, n, n, merges);
    for (int i = 0; i < n; i++)
        if (merges[i] != a->outer[i] || a->slot_of[i] != i * a->apart)
            return;
    a->even = n;
}

/* Largest power of two that is at most n (n >= 1) and `most`. */
static int power_below(int n, int most)
{
    int p = 1;

    while (2 * p <= n && 2 * p <= most)
        p *= 2;
    return p;
}

/* Panels and leaves to the warps of a block. First enough warps for the device (six an SM, or
 * memory is not kept busy), then as few shares of a panel's leaves as that allows, since warps of a
 * block that have the same leaves read the same activations; and two blocks or more on an SM where
 * shared memory allows them. */
static void deal(const trm_cuda *cuda, const trmi_lmc_product *p, quant_plan *q)
{
    trmi_lmq_args *a = &q->args;
    int64_t want = (int64_t)cuda->multiprocessors * 6, panels = (int64_t)a->panels * q->grid_y;
    int least = a->gated != TRMI_LMC_ACT_COUNT ? 2 : 1; /* panels of a block */
    int leaves = leaves_of(q->variant);
    size_t limit = cuda_shared(cuda);

    if (leaves > 1 && limit > SHARED_OF_SM / 2 - 1024)
        limit = SHARED_OF_SM / 2 - 1024;
    a->per_set = leaves;
    a->sets = (a->leaves + leaves - 1) / leaves;
    while (a->per_set > 1 && panels * a->sets < want) {
        a->per_set /= 2;
        a->sets = (a->leaves + a->per_set - 1) / a->per_set;
    }
    a->splits = 1;
    while (2 * a->splits <= power_below(a->sets, TRMI_LMQ_WARPS / least) &&
           (q->itself || panels * a->splits < want))
        a->splits *= 2;
    a->panels_block = TRMI_LMQ_WARPS / a->splits;
    while (a->panels_block > least && panels / a->panels_block < cuda->multiprocessors)
        a->panels_block /= 2;
    for (;;) {
        if (leaves > 1)
            deal_few(a, p->leaves);
        else
            deal_leaves(a, p->leaves);
        deal_even(a);
        q->shared_bytes = shared_of(q);
        if (q->shared_bytes <= limit)
            return;
        if (a->panels_block > least)
            a->panels_block /= 2;
        else if (a->splits > 1 &&
                 (q->shared_bytes > cuda_shared(cuda) || a->panels_block * a->splits > 4))
            a->splits /= 2;
        else
            return;
    }
}

static trm_status check(const trmi_lmc_product *p)
{
    const trmi_lmc_leaves *l = p->leaves;
    trm_dtype dtype = p->segments > 0 ? p->segment[0].weight->dtype : TRM_DTYPE_NONE;
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;

    if (p->segments < 1 || p->segments > TRMI_LMC_SEGMENTS || !is_type(dtype) ||
        (gated &&
         (p->segments != 2 || l->parts != 1 || p->segment[0].weight->n != p->segment[1].weight->n)))
        return trm_fail(TRM_ERR_INVALID_ARG, "product of %d weights of %s%s, %d parts", p->segments,
                        trm_dtype_name(dtype), gated ? ", gated" : "", l->parts);
    if (p->rounds != TRM_DTYPE_NONE && p->rounds != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "product with block types: its result in %s",
                        trm_dtype_name(p->rounds));
    if (p->rounded && p->experts > 0)
        return trm_fail(TRM_ERR_INTERNAL, "experts' rows come as they are");
    for (int i = 0; i < p->segments; i++) {
        const trmi_lmc_weight *w = p->segment[i].weight;

        if (w->dtype != dtype || w->k != p->k || (p->experts > 0 && w->stack < (size_t)p->experts))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "product: weight %d is %s, K = %zu, stack of %zu; want %s, %zu, %d", i,
                            trm_dtype_name(w->dtype), w->k, w->stack, trm_dtype_name(dtype), p->k,
                            p->experts);
        if (p->segment[i].bias != NULL && l->parts != 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "product: a part of a sum takes no bias");
    }
    /* groups are counted in 16 bits */
    if (p->k == 0 || p->k % 32 != 0 || p->k / 32 > UINT16_MAX || p->m > INT32_MAX / 2 ||
        l->count < 1 || l->begin[l->count] != (int32_t)p->k)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "product with block types: m = %zu, K = %zu in %d leaves; want K of whole "
                        "groups of 32, less than 2^21",
                        p->m, p->k, l->count);
    for (int i = 0; i < l->count; i++)
        if (l->begin[i] % 32 != 0 || l->begin[i] >= l->begin[i + 1])
            return trm_fail(TRM_ERR_INVALID_ARG, "product with block types: leaf %d is [%d, %d)", i,
                            l->begin[i], l->begin[i + 1]);
    return TRM_OK;
}

static void fill(const trmi_lmc_product *p, trmi_lmq_args *a)
{
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;

    a->x = p->rounded ? NULL : p->x;
    a->starts = p->starts;
    a->row_of = p->row_of;
    a->m = (int32_t)p->m;
    a->k = (int32_t)p->k;
    a->segments = p->segments;
    a->gated = (int32_t)p->gated;
    a->experts = p->experts;
    a->steps = (int32_t)steps_of(p->k);
    a->leaves = p->leaves->count;
    a->parts = p->leaves->parts;
    a->panel_bytes = panel_bytes(p->segment[0].weight->dtype, p->k);
    for (int i = 0; i <= a->leaves; i++)
        a->begin[i] = (uint16_t)(p->leaves->begin[i] / 32);
    for (int i = 0; i < p->segments; i++) {
        const trmi_lmc_weight *w = p->segment[i].weight;

        a->segment[i] = (trmi_lmq_segment){.data = w->data,
                                           .stride = w->stride,
                                           .bias = p->segment[i].bias,
                                           .out = p->segment[i].out,
                                           .n = (int32_t)w->n,
                                           .panel_first = gated ? 0 : a->panels};
        a->panels += (int32_t)panels_of(w->n);
    }
}

static void plan(const trm_cuda *cuda, const trmi_lmc_product *p, quant_plan *q)
{
    trmi_lmq_args *a = &q->args;
    size_t tiles;

    memset(q, 0, sizeof(*q));
    q->dtype = p->segment[0].weight->dtype;
    fill(p, a);
    q->variant = variant_of(p);
    /* one or two tokens of a weight with little to do: fewer leaves a warp */
    if (q->variant == TRMI_LMQ_2 &&
        (int64_t)a->panels * ((a->leaves + 3) / 4) < (int64_t)cuda->multiprocessors * 6)
        q->variant = TRMI_LMQ_4;
    for (;;) {
        size_t rows = (size_t)tokens_of(q->variant);
        size_t most = p->m < (size_t)p->experts ? p->m : (size_t)p->experts;

        tiles = p->experts > 0 ? p->m / rows + most : (p->m + rows - 1) / rows;
        q->grid_y = (unsigned)tiles;
        q->itself = quantises_itself(p, q->variant);
        deal(cuda, p, q);
        if (q->shared_bytes <= cuda_shared(cuda) || q->variant == TRMI_LMQ_8)
            break;
        q->variant = q->variant < TRMI_LMQ_8 ? TRMI_LMQ_8 : q->variant - 1;
    }
    a->tiles = (a->panels + a->panels_block - 1) / a->panels_block;
    q->grid_x = (unsigned)a->tiles;
    if (q->grid_x > 0 && q->grid_y > 0) {
        /* what an SM holds at once: by shared memory, and 16 warps by registers (8 of the largest);
         * a block of them takes several panels one after another */
        size_t warps = (size_t)(a->panels_block * a->splits);
        size_t of_sm = SHARED_OF_SM / (q->shared_bytes + 1024);
        size_t most = (q->variant == TRMI_LMQ_64 ? 8 : 16) / warps, blocks;

        of_sm = of_sm < 1 ? 1 : of_sm > most ? most : of_sm;
        blocks = ((size_t)cuda->multiprocessors * of_sm + tiles - 1) / tiles;
        q->grid_x = q->grid_x < blocks ? q->grid_x : (unsigned)blocks;
    }
    a->x_tokens = p->rounded ? trmi_lmq_tile(p->m) : tokens_of(q->variant);
    a->own = q->itself;
    if (!q->itself && !p->rounded) {
        size_t rows = (size_t)a->x_tokens, n = (p->m + rows - 1) / rows;

        if (p->experts > 0)
            n = p->m / rows + (size_t)p->experts + 1;
        q->x_bytes = n * (size_t)a->steps * 2 * rows * TRMI_LMQ_X_TOKEN;
    }
}

static size_t quant_workspace_bytes(const trm_cuda *cuda, const trmi_lmc_product *p)
{
    quant_plan q;

    if (check(p) != TRM_OK || p->m == 0)
        return 0; /* run says why */
    plan(cuda, p, &q);
    return q.x_bytes;
}

static trm_status quant_run(trm_cuda *cuda, const trmi_lmc_product *p, void *workspace,
                            cudaStream_t stream)
{
    quant_plan q;

    TRM_CHECK(check(p));
    if (p->m == 0)
        return TRM_OK;
    plan(cuda, p, &q);
    if (q.grid_x == 0)
        return TRM_OK;
    if (q.grid_y > 65535 || q.shared_bytes > cuda_shared(cuda))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "product with block types: %zu rows, %zu bytes of shared memory", p->m,
                        q.shared_bytes);
    /* rows that came quantised are only read */
    q.args.xq = p->rounded ? (unsigned char *)(uintptr_t)p->x : workspace;
    if (!q.itself && !p->rounded)
        TRM_CHECK(trmi_lmq_quantize(q.dtype, &q.args, stream));
    switch (q.dtype) {
#define CASE(name, type)                                                                           \
    case TRM_DTYPE_##type:                                                                         \
        return trmi_lmq_run_##name(q.variant, &q.args, q.grid_x, q.grid_y, q.shared_bytes, stream);
        TRMI_LMQ_TYPES(CASE)
#undef CASE
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "product with %s", trm_dtype_name(q.dtype));
    }
}

const trmi_lmc_family trmi_lmc_quant = {
    .name = "int8 mma",
    .takes = quant_takes,
    .weight_bytes = quant_weight_bytes,
    .pack = quant_pack,
    .workspace_bytes = quant_workspace_bytes,
    .run = quant_run,
};
