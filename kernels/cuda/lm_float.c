/* The family of products with float weights: which kernel runs a product, and how its workspace is
 * divided. What is chosen here changes no bits (lm_float.h). */
#include "kernels/cuda/lm_float.h"

#include "kernels/cuda/lm_linear.h"

#include <string.h>

static bool float_takes(trm_dtype dtype, trm_dtype act, trm_dtype *act_out)
{
    if (dtype != TRM_DTYPE_F32 && dtype != TRM_DTYPE_F16 && dtype != TRM_DTYPE_BF16)
        return false;
    if (act != TRM_DTYPE_NONE && act != TRM_DTYPE_F32 && act != dtype)
        return false;
    *act_out = act == TRM_DTYPE_NONE ? dtype : act;
    return true;
}

/* ---- weights ---- */

trmi_lmf_form trmi_lmf_form_of(const trm_cuda *cuda, const trmi_lmc_weight *w)
{
    size_t each = trm_dtype_bytes(w->dtype), k = trm_align_up(w->k, TRMI_LMF_CHUNK);
    trmi_lmf_form f = {.plain = w->act == TRM_DTYPE_F32 || cuda->base.order_free,
                       .dtype = w->dtype,
                       .rows = trm_align_up(w->n, TRMI_LMF_PANEL),
                       .k_padded = k,
                       .panel = TRMI_LMF_PANEL * k * each};

    f.half = f.plain ? f.panel / 2 : 512;
    f.row = f.plain ? k * each : 64;
    f.chunk = f.plain ? TRMI_LMF_CHUNK * each : 1024;
    return f;
}

static size_t float_weight_bytes(const trmi_lmc_weight *w)
{
    return trm_align_up(trm_align_up(w->n, TRMI_LMF_PANEL) * trm_align_up(w->k, TRMI_LMF_CHUNK) *
                            trm_dtype_bytes(w->dtype),
                        256);
}

/* Pieces of whole panels of rows, or where transposed of whole chunks, through the scratch. */
static trm_status lay_out(trm_cuda *cuda, const trmi_lmc_weight *w, const unsigned char *rows,
                          size_t row_bytes, bool transposed, void *to, const trmi_pack *scratch)
{
    size_t each = trm_dtype_bytes(w->dtype), all = transposed ? w->k : w->n;
    size_t group = transposed ? TRMI_LMF_CHUNK : TRMI_LMF_PANEL;
    size_t piece = row_bytes > 0 ? scratch->bytes / row_bytes : all;

    piece = piece >= all ? all : piece / group * group;
    if (piece == 0 && all > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a weight with rows of %zu bytes", row_bytes);
    for (size_t at = 0; at < all; at += piece) {
        size_t n = all - at < piece ? all - at : piece;
        trmi_lmf_lay l = {.form = trmi_lmf_form_of(cuda, w),
                          .from = scratch->memory,
                          .n = w->n,
                          .k = w->k,
                          .row = transposed ? 0 : at,
                          .rows = transposed ? w->n : n,
                          .column = transposed ? at : 0,
                          .columns = transposed ? n : w->k,
                          .row_step = transposed ? 1 : row_bytes / each,
                          .column_step = transposed ? row_bytes / each : 1,
                          .to = to};

        /* what was laid out before has left the scratch */
        TRM_CHECK(TRMI_CUDA(cudaStreamSynchronize(cuda->stream)));
        TRM_CHECK(trmi_cuda_upload(cuda, scratch->memory, rows + at * row_bytes, n * row_bytes));
        TRM_CHECK(trmi_lmf_lay_out(&l, cuda->stream));
    }
    return TRM_OK;
}

static trm_status float_pack(trm_cuda *cuda, const trmi_lmc_weight *w, const void *rows,
                             size_t row_bytes, bool transposed, void *to)
{
    trmi_lmf_form f = trmi_lmf_form_of(cuda, w);
    size_t bytes = w->n * row_bytes;
    trmi_pack *scratch;
    trm_status st;

    if (f.plain && !transposed && row_bytes == f.row) { /* as it is */
        TRM_CHECK(trmi_cuda_upload(cuda, to, rows, bytes));
        return TRMI_CUDA(cudaMemsetAsync((unsigned char *)to + bytes, 0,
                                         (f.rows - w->n) * row_bytes, cuda->stream));
    }
    TRM_CHECK(trmi_lmc_scratch(cuda, w, &scratch));
    st = lay_out(cuda, w, rows, row_bytes, transposed, to, scratch);
    trmi_cuda_pack_release(cuda, scratch);
    return st;
}

/* ---- choosing ---- */

typedef enum road { FEW, TILE, SIMT } road;

typedef struct choice {
    road road;
    int rows, blocks; /* of a tile; of the grid */
    trmi_lmf_args args;
    size_t rounded_bytes, slots_bytes, stack_bytes; /* of the workspace, in this order */
} choice;

static int panels_of(const trmi_lmc_product *p)
{
    size_t panels = 0;

    for (int i = 0; i < p->segments; i++)
        panels += (p->segment[i].weight->n + TRMI_LMF_PANEL - 1) / TRMI_LMF_PANEL;
    return (int)panels;
}

/* Tiles of `rows`, about one expert's rows each. */
static int64_t tiles_of(const trmi_lmc_product *p, int rows)
{
    int64_t m = (int64_t)p->m, more = m / rows + p->experts;

    return p->experts == 0 ? (m + rows - 1) / rows : more < m ? more : m;
}

static int rows_of(const trmi_lmc_product *p, road by)
{
    size_t rows = p->experts > 0 ? p->m / (size_t)p->experts : p->m;

    if (by == SIMT)
        return rows <= 32 ? 16 : 64;
    return rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128;
}

/* Workers double while their blocks fit side by side: one on a multiprocessor has as many bytes on
 * their way as it needs. More would only write more sums. */
static int workers_of(const trmi_lmc_product *p, int64_t tiles, int64_t side_by_side)
{
    int workers = 1;

    while (workers < TRMI_LMF_WORKERS && 2 * workers <= p->leaves->count &&
           tiles * workers * 2 <= side_by_side)
        workers *= 2;
    return workers;
}

static void choose(const trm_cuda *cuda, const trmi_lmc_product *p, choice *c)
{
    const trmi_lmc_weight *w = p->segment[0].weight;
    trmi_lmf_args *a = &c->args;
    int64_t sms = cuda->multiprocessors, tiles, panel_tiles, works;
    int tile_panels, resident;

    memset(c, 0, sizeof(*c));
    a->form = trmi_lmf_form_of(cuda, w);
    a->segments = p->segments;
    a->panels = panels_of(p);
    a->gated = (int32_t)p->gated;
    a->rounds = (int32_t)p->rounds;
    a->m = (int32_t)p->m;
    a->k = (int32_t)p->k;
    a->experts = p->experts;
    a->starts = p->starts;
    a->row_of = p->row_of;
    a->x = p->rounded ? NULL : p->x;
    a->rounded = p->rounded ? p->x : NULL;
    c->road = w->act == TRM_DTYPE_F32                                                    ? SIMT
              : p->m <= (size_t)TRMI_LMF_FEW * (size_t)(p->experts > 0 ? p->experts : 1) ? FEW
                                                                                         : TILE;
    if (c->road == FEW) { /* few leaves, as other products: warps divide them */
        trmi_lmf_plan_init(&a->plan, p->leaves, TRMI_LMF_WORKERS, false);
        return;
    }
    c->rows = rows_of(p, c->road);
    tile_panels = c->road == SIMT ? TRMI_LMF_SIMT_PANELS : TRMI_LMF_TILE_PANELS;
    resident = c->road == SIMT ? 3 : c->rows == 128 ? 1 : 2;
    panel_tiles = (a->panels + tile_panels - 1) / tile_panels;
    tiles = panel_tiles * tiles_of(p, c->rows);
    trmi_lmf_plan_init(&a->plan, p->leaves,
                       workers_of(p, tiles, c->road == SIMT ? 3 * sms : sms + sms / 8), true);
    a->depth = trmi_lmf_plan_depth(&a->plan);
    works = tiles * a->plan.workers;
    c->blocks = (int)(works < resident * sms ? works : resident * sms);
    if (c->road == TILE && !p->rounded)
        c->rounded_bytes =
            trm_align_up(p->m * a->form.k_padded * trm_dtype_bytes(a->form.dtype), TRM_ALIGN);
    if (a->plan.workers > 1)
        c->slots_bytes = trm_align_up((size_t)a->plan.slots * p->m * (size_t)a->panels *
                                          TRMI_LMF_PANEL * sizeof(float),
                                      TRM_ALIGN);
    c->stack_bytes = (size_t)c->blocks * (size_t)a->depth * (size_t)tile_panels * TRMI_LMF_PANEL *
                     (size_t)c->rows * sizeof(float);
}

static size_t float_workspace_bytes(const trm_cuda *cuda, const trmi_lmc_product *p)
{
    choice c;

    choose(cuda, p, &c);
    return c.rounded_bytes + c.slots_bytes + c.stack_bytes;
}

/* ---- running ---- */

static trm_status check(const trmi_lmc_product *p)
{
    const trmi_lmc_weight *w = p->segment[0].weight;
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;
    size_t panels = 0;

    for (int i = 0; i < p->segments; i++) {
        const trmi_lmc_weight *o = p->segment[i].weight;

        if (o->dtype != w->dtype || o->act != w->act || o->k != p->k ||
            o->stack < (size_t)p->experts)
            return trm_fail(TRM_ERR_INTERNAL, "a product whose weights are not alike");
        panels += o->n / TRMI_LMF_PANEL + 1;
    }
    if (gated && (p->segments != 2 || p->leaves->parts != 1 || w->n != p->segment[1].weight->n))
        return trm_fail(TRM_ERR_INTERNAL, "a gated product of %d weights", p->segments);
    if (p->rounded && (w->act == TRM_DTYPE_F32 || p->k % TRMI_LMF_CHUNK != 0 || p->experts > 0))
        return trm_fail(TRM_ERR_INTERNAL, "a product of rounded rows of %zu with activations of %s",
                        p->k, trm_dtype_name(w->act));
    if (p->m > INT32_MAX / 2 || panels > INT32_MAX / 32 || p->leaves->count < 1)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a product of %zu rows and %zu features", p->m,
                        panels * TRMI_LMF_PANEL);
    return TRM_OK;
}

static trm_status float_run(trm_cuda *cuda, const trmi_lmc_product *p, void *workspace,
                            cudaStream_t stream)
{
    unsigned char *memory = workspace;
    trmi_lmf_args *a;
    choice c;

    TRM_CHECK(check(p));
    choose(cuda, p, &c);
    a = &c.args;
    if (a->m == 0 || a->panels == 0)
        return TRM_OK;
    if (c.road == TILE && !p->rounded)
        a->rounded = memory;
    a->slots = (float *)(void *)(memory + c.rounded_bytes);
    a->stack = (float *)(void *)(memory + c.rounded_bytes + c.slots_bytes);
    for (int i = 0; i < p->segments; i++) {
        const trmi_lmc_weight *w = p->segment[i].weight;

        a->segment[i] =
            (trmi_lmf_segment){.weight = w->data,
                               .stride = w->stride,
                               .bias = p->segment[i].bias,
                               .out = p->segment[i].out,
                               .n = (int32_t)w->n,
                               .panels = (int32_t)((w->n + TRMI_LMF_PANEL - 1) / TRMI_LMF_PANEL)};
    }
    if (c.road == FEW)
        return trmi_lmf_few(a, stream);
    if (c.road == SIMT) {
        TRM_CHECK(trmi_lmf_simt(a, c.rows, c.blocks, stream));
    } else {
        if (!p->rounded)
            TRM_CHECK(trmi_lmf_round(a, stream));
        if (a->form.dtype == TRM_DTYPE_F16)
            TRM_CHECK(trmi_lmf_tile_f16(a, c.rows, c.blocks, stream));
        else
            TRM_CHECK(trmi_lmf_tile_bf16(a, c.rows, c.blocks, stream));
    }
    return a->plan.workers > 1 ? trmi_lmf_fold(a, cuda->multiprocessors, stream) : TRM_OK;
}

const trmi_lmc_family trmi_lmc_float = {.name = "float",
                                        .takes = float_takes,
                                        .weight_bytes = float_weight_bytes,
                                        .pack = float_pack,
                                        .workspace_bytes = float_workspace_bytes,
                                        .run = float_run};
