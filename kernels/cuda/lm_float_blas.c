/* Products of many rows through cuBLASLt, where the order of sums is free: activations are rounded
 * into the workspace, then one product a weight (a part of K where the result has parts), and the
 * gate by a kernel of its own.
 *
 * F8_ROW: activations are rounded to e4m3 with a scale a row. Scales of both are the library's
 * business where it has vectors of them (sm_90), else a kernel multiplies by them behind it; that
 * kernel also adds biases, which the library would want in BF16. Shapes that it does not take, and
 * F8_128 (whose 128 x 128 blocks are rows of their own in our form), go to our kernels. */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/lm_float.h"

#include <string.h>

/* Rows from which on: up to it the kernels of lm_float.h are bound by memory, too. */
#define ROWS_LEAST 65
#define PRODUCTS (TRM_TREE_PARTS_MAX > TRMI_LMC_SEGMENTS ? TRM_TREE_PARTS_MAX : TRMI_LMC_SEGMENTS)

struct trmi_lmf_blas {
    trm_cuda *cuda;
    trmi_lmf_form form;
    trmi_gemm *gemm[PRODUCTS];
    struct {
        int segment, part;
        size_t k_begin;
    } of[PRODUCTS];
    int count;
    bool f8, scaled; /* scaled: the library multiplies by scales */
    /* of the workspace; in front: rounded rows, if they are made */
    size_t scales_at, up_at, gate_at, work_at, bytes;
};

void trmi_lmf_blas_destroy(trmi_lmf_blas *blas)
{
    if (blas == NULL)
        return;
    for (int i = 0; i < blas->count; i++)
        trmi_gemm_destroy(blas->gemm[i]);
    trm_free(blas);
}

/* The greatest power of two up to TRM_ALIGN that divides all of a part's bytes. */
static int align_of(size_t bytes)
{
    int align = TRM_ALIGN;

    while (bytes % (size_t)align != 0)
        align /= 2;
    return align;
}

/* The gated result is no float: its first factor is in the workspace too. */
static bool rounds(const trmi_lmc_product *p)
{
    return p->rounds == TRM_DTYPE_BF16 || p->rounds == TRM_DTYPE_F16;
}

static trm_status add(trmi_lmf_blas *b, const trmi_lmc_product *p, int segment, int part,
                      bool biased)
{
    const trmi_lmc_leaves *l = p->leaves;
    size_t begin = part == 0 ? 0 : (size_t)l->begin[l->ends[part - 1]];
    size_t end = (size_t)l->begin[l->ends[part]], n = p->segment[segment].weight->n;
    int align = l->parts > 1 ? align_of(p->m * n * sizeof(float)) : TRM_ALIGN;
    trmi_gemm_desc d = {.m = (int64_t)p->m,
                        .n = (int64_t)n,
                        .k = (int64_t)(end - begin),
                        .batch = 1,
                        .b_transposed = true,
                        .lda = (int64_t)b->form.k_padded,
                        .ldb = (int64_t)b->form.k_padded,
                        .ab = b->form.dtype,
                        .d = TRM_DTYPE_F32,
                        .alpha = 1.0f,
                        .scaled = b->scaled,
                        .bias = biased && !b->f8 ? TRM_DTYPE_F32 : TRM_DTYPE_NONE,
                        /* parts of fp8 begin at multiples of 32 */
                        .align = b->f8 && l->parts > 1 && align > 32 ? 32 : align};
    size_t bytes;

    TRM_CHECK(trmi_gemm_create(b->cuda, &d, &b->gemm[b->count]));
    bytes = b->work_at + trmi_gemm_workspace_bytes(b->gemm[b->count]);
    b->bytes = bytes > b->bytes ? bytes : b->bytes;
    b->of[b->count].segment = segment;
    b->of[b->count].part = part;
    b->of[b->count++].k_begin = begin;
    return TRM_OK;
}

static trm_status add_all(trmi_lmf_blas *b, const trmi_lmc_product *p, unsigned biased)
{
    for (int i = 0; i < b->count; i++)
        trmi_gemm_destroy(b->gemm[i]);
    b->count = 0;
    b->bytes = b->work_at;
    for (int i = 0; i < p->segments; i++)
        for (int part = 0; part < p->leaves->parts; part++)
            TRM_CHECK(add(b, p, i, part, (biased >> i & 1u) != 0));
    return TRM_OK;
}

trm_status trmi_lmf_blas_create(trm_cuda *cuda, const trmi_lmc_product *p, unsigned biased,
                                trmi_lmf_blas **blas_out)
{
    const trmi_lmc_weight *w = p->segment[0].weight;
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;
    trmi_lmf_blas *b;
    trm_status st;

    *blas_out = NULL;
    if (!cuda->base.order_free || w->act == TRM_DTYPE_F32 || w->dtype == TRM_DTYPE_F8_128 ||
        p->m < ROWS_LEAST || p->experts > 0 || p->k == 0 || p->m > INT32_MAX / 2)
        return TRM_OK;
    /* what puts scales to fp8's sums makes and takes floats */
    if (trm_dtype_is_f8(w->dtype) && (p->rounded || rounds(p)))
        return TRM_OK;
    for (int i = 0; i < p->segments; i++)
        if (p->segment[i].weight->n == 0)
            return TRM_OK;
    b = trm_calloc(1, sizeof(*b));
    if (b == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a product's kernel");
    b->cuda = cuda;
    b->form = trmi_lmf_form_of(cuda, w);
    b->f8 = b->scaled = trm_dtype_is_f8(w->dtype);
    if (!p->rounded)
        b->scales_at = trm_align_up(p->m * b->form.k_padded * trmi_lmf_each(w->dtype), 256);
    b->up_at = b->scales_at + (b->f8 ? trm_align_up(p->m * sizeof(float), 256) : 0);
    b->gate_at = b->up_at + (gated ? trm_align_up(p->m * w->n * sizeof(float), 256) : 0);
    b->work_at = b->gate_at + (rounds(p) ? b->gate_at - b->up_at : 0);
    st = add_all(b, p, biased);
    if (st == TRM_ERR_UNSUPPORTED && b->scaled) {
        b->scaled = false;
        st = add_all(b, p, biased);
    }
    if (st != TRM_OK) {
        trmi_lmf_blas_destroy(b);
        return st == TRM_ERR_UNSUPPORTED ? TRM_OK : st; /* ours take all there is */
    }
    *blas_out = b;
    return TRM_OK;
}

size_t trmi_lmf_blas_workspace_bytes(const trmi_lmf_blas *blas)
{
    return blas->bytes;
}

static const float *scales_of(const trmi_lmf_blas *b, const trmi_lmc_weight *w)
{
    trmi_lmf_form f = trmi_lmf_form_of(b->cuda, w);

    return (const float *)(const void *)((const unsigned char *)w->data + f.scales);
}

/* What the library has left: scales, biases, the gate. */
static trm_status finish(const trmi_lmf_blas *b, const trmi_lmc_product *p, const float *row_scale,
                         float *up, cudaStream_t stream)
{
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;
    trmi_lmf_finish_side side[2] = {{0}};

    for (int i = 0; i < p->segments; i++) {
        const trmi_lmc_weight *w = p->segment[i].weight;
        trmi_lmf_finish_side *s = &side[gated ? i : 0];

        s->sum = gated && i == 1 ? up : p->segment[i].out;
        s->scale = b->scaled ? NULL : scales_of(b, w);
        s->bias = p->segment[i].bias;
        if ((gated && i == 0) || (!gated && b->scaled && s->bias == NULL))
            continue;
        for (int part = 0; part < p->leaves->parts; part++) {
            TRM_CHECK(trmi_lmf_finish(side, b->scaled ? NULL : row_scale, p->m, w->n, p->gated,
                                      b->cuda->multiprocessors, stream));
            side[0].sum += p->m * w->n;
        }
    }
    return TRM_OK;
}

trm_status trmi_lmf_blas_run(const trmi_lmf_blas *b, const trmi_lmc_product *p, void *workspace,
                             cudaStream_t stream)
{
    unsigned char *memory = workspace;
    size_t each = trmi_lmf_each(b->form.dtype), n = p->segment[0].weight->n;
    float *up = (float *)(void *)(memory + b->up_at);
    float *gate = rounds(p) ? (float *)(void *)(memory + b->gate_at) : p->segment[0].out;
    float *row_scale = (float *)(void *)(memory + b->scales_at);
    bool gated = p->gated != TRMI_LMC_ACT_COUNT;
    const unsigned char *rows = p->rounded ? p->x : workspace;

    if (p->m == 0)
        return TRM_OK;
    if (b->f8) {
        TRM_CHECK(
            trmi_lmf_quantize(p->x, p->m, p->k, b->form.k_padded, workspace, row_scale, stream));
    } else if (!p->rounded) {
        const trmi_lmf_args round = {.form = b->form,
                                     .m = (int32_t)p->m,
                                     .k = (int32_t)p->k,
                                     .x = p->x,
                                     .rounded = workspace};

        TRM_CHECK(trmi_lmf_round(&round, stream));
    }
    for (int i = 0; i < b->count; i++) {
        int segment = b->of[i].segment;
        const trmi_lmc_weight *w = p->segment[segment].weight;
        float *out = segment == 0 ? gate : gated ? up : p->segment[segment].out;
        size_t at = b->of[i].k_begin * each;

        if (b->scaled)
            TRM_CHECK(trmi_gemm_scales(b->gemm[i], row_scale, scales_of(b, w)));
        TRM_CHECK(trmi_gemm_run(b->gemm[i], stream, rows + at, (const unsigned char *)w->data + at,
                                NULL, out + (size_t)b->of[i].part * p->m * w->n,
                                b->f8 ? NULL : p->segment[segment].bias, memory + b->work_at));
    }
    if (b->f8)
        return finish(b, p, row_scale, up, stream);
    return gated ? trmi_lmf_gate(p->gated, p->rounds, p->segment[0].out, gate, up, p->m * n,
                                 b->cuda->multiprocessors, stream)
                 : TRM_OK;
}
