/* What work costs on an accelerator.
 *
 * A dense product takes the longer of two times: its multiply-adds by tiles of the output that are
 * dealt to multiprocessors in waves, and its bytes. Convolutions are products of pixels and
 * channels. Everything else takes its bytes. Each kernel begins a gap after the one before it.
 *
 * From data sheets: peaks, bandwidths of memory and links, multiprocessors. Measured on one H200: a
 * large bf16 product reaches 0.8 of the peak. Assumed, from what is published of such libraries and
 * to be replaced by a probe where there is a device: the other shares below, the gap, copies. */
#include "kernels/cuda_operators.h"
#include "model/passes/passes.h"
#include "parallel/rates_impl.h"

#include <math.h>
#include <stdio.h>

#define DENSE_F32 0.85    /* of the peak: large products on CUDA cores */
#define DENSE_HALF 0.80   /* on tensor cores */
#define CONV_OF_DENSE 0.9 /* of what a product of the same size reaches */
#define MEMORY_SHARE 0.8  /* of the data sheet's bandwidth */
#define GAP_US 1.6        /* between dependent kernels of a captured graph */
#define KERNEL_US 2.0     /* no kernel takes less, gap included */
#define FILL_US 0.8       /* until a tile's pipeline is full, and its result written */
#define SPLIT_US 1.2      /* adding up where the inner dim was divided */
#define COPY_GB_S 25.0    /* pinned host memory */
#define COPY_US 10.0      /* each copy, the host's wait for it included */
#define SORT_US 10.0      /* several kernels: sorting, suppression, whatever is not known */

/* ---- from a data sheet ---- */

trm_status trmi_gpu_from_card(trm_rates *r, const trmi_card *card)
{
    trmi_gpu *g = &r->gpu;

    TRM_CHECK(trmi_rates_builtin(&g->host));
    g->is = true;
    g->multiprocessors = card->multiprocessors;
    g->gflops[0] = card->fp32 * 1e3;
    g->gflops[1] = card->half * 1e3;
    g->int8_gops = card->int8 * 1e3;
    g->gb_s = card->memory_gb_s * MEMORY_SHARE;
    g->dense[0] = DENSE_F32;
    g->dense[1] = DENSE_HALF;
    g->conv[0] = DENSE_F32 * CONV_OF_DENSE;
    g->conv[1] = DENSE_HALF * CONV_OF_DENSE;
    g->gap_us = GAP_US;
    g->copy_gb_s = fmin(COPY_GB_S, card->pcie_gb_s * MEMORY_SHARE);
    g->copy_us = COPY_US;
    g->link = card->link;
    g->link_gb_s = card->link_gb_s;
    r->cpus = r->threads = 1;
    r->memory_bytes = (size_t)(card->memory_gib * 1073741824.0);
    r->dispatch_us = 0; /* a captured graph */
    r->sample_count = 0;
    return TRM_OK;
}

/* ---- products ---- */

typedef struct product {
    double m, n, k, batch;
    double gflops; /* of the device at its best */
} product;

/* Tiles that libraries have kernels for, and what of the best rate they reach: small ones read more
 * for what they compute. On CUDA cores that costs less. */
static const struct {
    double m, n, share;
} tiles[] = {{256, 128, 1}, {128, 128, 0.95}, {128, 64, 0.8},
             {64, 64, 0.6}, {64, 32, 0.4},    {16, 64, 0.3}};

static double product_us(const trmi_gpu *g, const product *p, bool tensor_cores)
{
    double best = HUGE_VAL;

    for (size_t t = 0; t < sizeof(tiles) / sizeof(tiles[0]); t++) {
        double share = tensor_cores ? tiles[t].share : 1 - (1 - tiles[t].share) * 0.4;
        double rate = p->gflops * 1e3 * share / g->multiprocessors; /* flops a us of one */

        for (int split = 1; split <= 8; split *= 2) {
            double k = ceil(p->k / split / 32) * 32;
            double count = ceil(p->m / tiles[t].m) * ceil(p->n / tiles[t].n) * p->batch * split;
            double us = FILL_US + (split > 1 ? SPLIT_US : 0) +
                        ceil(count / g->multiprocessors) * 2 * tiles[t].m * tiles[t].n * k / rate;

            if ((split == 1 || k >= 256) && us < best)
                best = us;
        }
    }
    return best;
}

static double bytes_us(const trmi_gpu *g, double bytes)
{
    return bytes / (g->gb_s * 1e3);
}

/* Operators that compute in 16 bits follow `dtype`; those on integers run on tensor cores. */
static double dense_us(const trmi_gpu *g, const trmi_work *w, bool half)
{
    const double *f = w->feature;
    bool conv = w->kind >= TRMI_CONV && w->kind <= TRMI_CONV_UP;
    product p = {.m = f[0], .n = f[1], .k = f[2], .batch = 1};
    double share = conv ? g->conv[half] : g->dense[half];

    switch (w->kind) {
    case TRMI_PRODUCT:
        p.batch = f[3];
        break;
    case TRMI_CONV: /* a pixel's window gathered: nine taps cost a little, others more */
        share *= f[4] <= 1 ? 1 : f[4] <= 9 ? 0.95 : 0.8;
        p.n = f[1];
        p.k = f[0] * f[4];
        break;
    case TRMI_CONV_FEW: /* channels are padded */
        share *= 0.5;
        p.n = f[1];
        p.k = fmax(f[0], half ? 8 : 4) * f[4];
        break;
    case TRMI_GROUPED:
        share *= 0.6;
        p.batch = f[5];
        p.n = f[1];
        p.k = f[0] * f[4];
        break;
    case TRMI_CONV_UP: /* each input pixel makes a window of outputs */
        share *= 0.7;
        p.n = f[1] * f[4];
        p.k = f[0];
        break;
    default:
        break;
    }
    if (conv)
        p.m = f[2] * f[3] / (w->kind == TRMI_CONV_UP ? f[5] * f[5] : 1);
    p.gflops = g->gflops[half] * share;
    return product_us(g, &p, half);
}

static double attention_us(const trmi_gpu *g, const trmi_work *w, bool half)
{
    const double *f = w->feature; /* heads, query, key length, head dim */
    double blocks = f[0] * ceil(f[1] / 64), rate;

    rate = g->gflops[half] * g->dense[half] * 0.5 * 1e3 / g->multiprocessors;
    return FILL_US + ceil(blocks / g->multiprocessors) * (w->flops / blocks) / rate;
}

/* Steps one after another; weights that stay in the second-level cache are read twice as fast. */
static double recurrent_us(const trmi_gpu *g, const trmi_work *w)
{
    double steps = w->feature[0];
    double flops = w->flops / steps / (g->gflops[0] * g->dense[0] * 0.25 * 1e3);

    return steps * (2 * g->gap_us + fmax(flops, bytes_us(g, w->weights / 2)));
}

double trmi_gpu_us(const trm_rates *r, const trmi_work *w, trm_dtype dtype, double scale)
{
    const trmi_gpu *g = &r->gpu;
    bool half = dtype == TRM_DTYPE_BF16 || dtype == TRM_DTYPE_F16;
    double bytes = bytes_us(g, w->bytes * scale), us = bytes;

    switch (w->kind) {
    case TRMI_DENSE:
    case TRMI_PRODUCT:
    case TRMI_CONV:
    case TRMI_CONV_FEW:
    case TRMI_GROUPED:
    case TRMI_CONV_UP:
        us = fmax(bytes, dense_us(g, w, half));
        break;
    case TRMI_DEPTHWISE: /* windows overlap */
        us = bytes * 1.6;
        break;
    case TRMI_ATTENTION:
        us = fmax(bytes, attention_us(g, w, half));
        break;
    case TRMI_RECURRENT:
        us = fmax(bytes, recurrent_us(g, w));
        break;
    case TRMI_OTHER:
        us = bytes + SORT_US;
        break;
    default:
        break;
    }
    return fmax(KERNEL_US, us + g->gap_us);
}

/* ---- nodes ---- */

static bool is_int8(trm_op op)
{
    return op == TRM_OP_QLinearConv || op == TRM_OP_QLinearMatMul || op == TRM_OP_ConvInteger ||
           op == TRM_OP_MatMulInteger;
}

static double bytes_of(const trm_tensor *t)
{
    return t->dtype == TRM_DTYPE_NONE || t->rank < 0
               ? 0
               : (double)trm_tensor_numel(t) * (double)trm_dtype_bytes(t->dtype);
}

/* What of a node's bytes is left where fp32 is kept in 16 bits. */
static double shrunk(const trm_node *node, const trm_tensor *in, const trm_tensor *out)
{
    double all = 0, f32 = 0;

    for (int i = 0; i < node->input_count + node->output_count; i++) {
        const trm_tensor *t = i < node->input_count ? &in[i] : &out[i - node->input_count];

        all += bytes_of(t);
        f32 += t->dtype == TRM_DTYPE_F32 ? bytes_of(t) : 0;
    }
    return all > 0 ? 1 - 0.5 * f32 / all : 1;
}

/* A post-op reads its operand; its host keeps the result in registers. */
static double fused_us(const trmi_gpu *g, const trm_node *node, const trm_tensor *in, double scale)
{
    double most = 0, all = 0;

    for (int i = 0; i < node->input_count; i++) {
        all += bytes_of(&in[i]);
        most = fmax(most, bytes_of(&in[i]));
    }
    return bytes_us(g, (all - most) * scale);
}

/* Operators that mixed precision keeps in fp32 stand between two Casts. */
static double casts_us(const trmi_gpu *g, const trm_tensor *in, const trm_tensor *out)
{
    double us = 0;

    if (in->dtype == TRM_DTYPE_F32 && in->data == NULL)
        us += fmax(KERNEL_US, g->gap_us + bytes_us(g, 1.5 * bytes_of(in)));
    if (out->dtype == TRM_DTYPE_F32)
        us += fmax(KERNEL_US, g->gap_us + bytes_us(g, 1.5 * bytes_of(out)));
    return us;
}

double trmi_gpu_node_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                        const trm_tensor *out, bool fused)
{
    const trmi_gpu *g = &c->rates->gpu;
    bool mixed = c->dtype == TRM_DTYPE_BF16 || c->dtype == TRM_DTYPE_F16;
    bool low = mixed && trm_pass_precision_lowers(node);
    double scale = low ? shrunk(node, in, out) : 1, us;
    trmi_work w;

    if (trmi_gpu_language_us(c, node, in, out, &us))
        return us;
    if (!trmi_work_of(node, in, out, &w))
        return 0;
    if (fused)
        return fused_us(g, node, in, scale);
    if (!trm_cuda_has_operator(node->op) &&
        (trm_op_get(node->op)->flags & (TRM_OPF_CONTROL | TRM_OPF_COLLECTIVE)) == 0)
        return trmi_rates_us(g->host, &w, c->threads, 1, TRM_DTYPE_F32);
    if (is_int8(node->op)) { /* tensor cores at their rate for integers */
        trm_rates as = *c->rates;

        as.gpu.gflops[1] = g->int8_gops;
        return trmi_gpu_us(&as, &w, TRM_DTYPE_F16, 1);
    }
    us = trmi_gpu_us(c->rates, &w, low ? c->dtype : TRM_DTYPE_F32, scale);
    if (mixed && !low && node->input_count > 0 && node->output_count > 0)
        us += casts_us(g, &in[0], &out[0]);
    return us;
}

/* ---- talking ---- */

#define ONE_SHOT_BYTES                                                                             \
    262144.0            /* up to here every rank reads all others' contributions at once           \
                         */
#define ONE_SHOT_US 3.7 /* and 0.4 us a rank: 6.5 us for eight (H200, published) */
#define RING_SHARE 0.75 /* of the link */
#define NETWORK_US 20.0
#define NETWORK_GB_S 40.0 /* one 400 Gb/s adapter a device */

double trmi_gpu_copy_us(const trm_rates *r, double bytes)
{
    return r->gpu.copy_us + bytes / (r->gpu.copy_gb_s * 1e3);
}

/* The collective of the hosts, with what goes out of the device and comes back. */
static double staged_us(const trm_cost_context *c, trm_collective kind, int ranks, double bytes)
{
    trm_cost_context host = *c;
    double part = bytes / (ranks < 1 ? 1 : ranks), out = bytes, back = bytes;

    host.rates = c->rates->gpu.host;
    host.threads = 1;
    if (kind == TRM_COLLECTIVE_ALLGATHER || kind == TRM_COLLECTIVE_ALLTOALL)
        out = part;
    if (kind == TRM_COLLECTIVE_REDUCE_SCATTER || kind == TRM_COLLECTIVE_ALLTOALL)
        back = part;
    return trm_cost_collective_us(&host, kind, ranks, (size_t)bytes) +
           trmi_gpu_copy_us(c->rates, out) + trmi_gpu_copy_us(c->rates, back);
}

double trmi_gpu_collective_us(const trm_cost_context *c, trm_collective kind, int ranks,
                              size_t count)
{
    const trmi_gpu *g = &c->rates->gpu;
    bool links = c->link == TRM_LINK_HOST && g->link == TRMI_CARD_NVLINK;
    double bytes = (double)count, n = ranks, gb_s, start, share;

    if (kind == TRM_COLLECTIVE_SHARD)
        return fmax(KERNEL_US, g->gap_us + bytes_us(g, 2 * bytes / (n < 1 ? 1 : n)));
    if (kind == TRM_COLLECTIVE_MESSAGE) /* between stages: over the hosts */
        return staged_us(c, kind, 2, bytes);
    if (ranks <= 1)
        return 0;
    if (c->staged)
        return staged_us(c, kind, ranks, bytes);
    gb_s = c->link == TRM_LINK_NETWORK ? NETWORK_GB_S : g->link_gb_s * RING_SHARE;
    start = links ? 6 + 2 * (n - 1) : 10 + 3 * (n - 1); /* NCCL: 20 us for eight over NVLink */
    start += c->link == TRM_LINK_NETWORK ? NETWORK_US : 0;
    share = kind == TRM_COLLECTIVE_ALLREDUCE  ? 2 * (n - 1) / n
            : kind == TRM_COLLECTIVE_ALLTOALL ? (n - 1) / (n * n)
                                              : (n - 1) / n;
    if (kind == TRM_COLLECTIVE_ALLREDUCE && links && bytes <= ONE_SHOT_BYTES)
        return ONE_SHOT_US + 0.4 * (n - 1) + (n - 1) * bytes / (gb_s * 1e3);
    return start + share * bytes / (gb_s * 1e3);
}
