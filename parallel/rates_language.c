/* What operators of language models cost on an accelerator.
 *
 * Products take the longer of two times: their weights at the speed of memory, or their
 * multiply-adds at the rate of the type that activations are rounded to. Attention takes what it
 * reads of the cache, or its multiply-adds. Everything else takes its bytes. Steps are captured
 * graphs whose kernels overlap with the end of the one before: the gap between two is short.
 *
 * Assumed until they are measured: the shares below. Kernels use mma.sync, which reaches about 0.6
 * of the tensor cores' peak on Hopper where wgmma reaches 0.8 (published; FlashAttention 2 and 3
 * differ by that much, too). */
#include "parallel/rates_impl.h"

#include "base/f8.h"

#include <math.h>
#include <string.h>

#define READS 1.06     /* weights are only read: of the bandwidth of reading and writing */
#define DENSE_OWN 0.7  /* own products: of what a library's reach */
#define INT8_OWN 0.3   /* of the peak: block types, whose scales are applied every 32 elements */
#define ATTENTION 0.25 /* of the 16-bit peak: long prompts */
#define GAP_OF 0.6     /* of the gap between kernels that do not overlap */
#define KERNEL_US 2.0  /* no kernel of its own takes less, gap included */
#define SPLIT 512      /* positions that attention takes as one piece */
#define FLIGHT 2.5     /* times its part of the bandwidth that one multiprocessor can ask for */
#define POSITIONS 512  /* seen by a token where nothing is known of the step */

static double rows_of(const trm_tensor *t)
{
    return t->rank > 1 ? (double)t->dims[t->rank - 2] : 1;
}

static double width_of(const trm_tensor *t)
{
    return t->rank > 0 ? (double)t->dims[t->rank - 1] : 1;
}

static double bytes_of(const trm_tensor *t)
{
    size_t bytes = 0;

    return t->dtype != TRM_DTYPE_NONE && t->rank >= 0 && trm_tensor_bytes(t, &bytes) == TRM_OK
               ? (double)bytes
               : 0;
}

static double reading_us(const trmi_gpu *g, double bytes)
{
    return bytes / (g->gb_s * READS * 1e3);
}

static double gap_us(const trmi_gpu *g)
{
    return g->gap_us * GAP_OF;
}

/* Of multiply-adds with weights of `dtype`. fp8 is widened in registers to what activations are. */
static double flops_us(const trmi_gpu *g, trm_dtype dtype, const char *act)
{
    bool blocks = trm_dtype_is_block(dtype) && !trm_dtype_is_f8(dtype);

    if (blocks || dtype == TRM_DTYPE_I8 || dtype == TRM_DTYPE_U8)
        return g->int8_gops * INT8_OWN * 1e3;
    if (act != NULL && (strcmp(act, "bf16") == 0 || strcmp(act, "f16") == 0))
        return g->gflops[1] * g->dense[1] * DENSE_OWN * 1e3;
    return g->gflops[0] * g->dense[0] * DENSE_OWN * 1e3;
}

/* Output tiles are dealt to multiprocessors: where there are few, K is cut among several. */
static double multiply_us(const trmi_gpu *g, double rate, double m, double n, double k)
{
    double tile_m = m > 64 ? 128 : m > 16 ? 64 : 16, tile_n = m > 64 ? 128 : 64;
    double tiles = ceil(m / tile_m) * ceil(n / tile_n), cut = 1;
    double each = 2 * tile_m * tile_n * k / (rate / g->multiprocessors);

    while (cut < 8 && tiles * cut * 2 <= g->multiprocessors && k / (cut * 2) >= 256)
        cut *= 2;
    return ceil(tiles * cut / g->multiprocessors) * each / cut;
}

/* Rows of x by `count` weights, inputs [first, first + count). */
static double product_us(const trmi_gpu *g, const trm_node *node, const trm_tensor *in,
                         const trm_tensor *out, int first, int count)
{
    const char *act = trm_attr_string(&node->attrs, "act", NULL);
    bool transposed = trm_attr_int(&node->attrs, "transposed", 0) != 0;
    double m = rows_of(&in[0]), k = width_of(&in[0]), n = 0, weights = 0, moved = bytes_of(&in[0]);

    for (int i = first; i < first + count && i < node->input_count; i++) {
        n += transposed ? width_of(&in[i]) : rows_of(&in[i]);
        weights += bytes_of(&in[i]);
    }
    for (int i = 0; i < node->output_count; i++)
        moved += bytes_of(&out[i]);
    return fmax(reading_us(g, weights) + moved / (g->gb_s * 1e3),
                multiply_us(g, flops_us(g, in[first].dtype, act), m, n, k));
}

static double attention_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in)
{
    const trmi_gpu *g = &c->rates->gpu;
    const trm_attrs *a = &node->attrs;
    double heads = (double)trm_attr_int(a, "heads", 1), kv = (double)trm_attr_int(a, "kv_heads", 1);
    double dim = (double)trm_attr_int(a, "head_dim", 1), rows = rows_of(&in[0]);
    double window = (double)trm_attr_int(a, "window", 0);
    double sequences = c->load != NULL ? (double)c->load->sequences : 1;
    double seen = c->load != NULL ? c->load->seen : POSITIONS, each = rows / sequences, splits;
    double element = c->kv_dtype == TRM_DTYPE_NONE ? 4 : (double)trm_dtype_bytes(c->kv_dtype);
    double bytes, share, us;

    if (trm_attr_int(a, "encoder", 0) != 0)
        seen = each;
    if (window > 0 && seen > window)
        seen = window;
    splits = ceil(seen / SPLIT);
    /* the cache is read once by the rows of a sequence that share it (a later tile finds it in the
     * second-level cache) */
    bytes = 2 * kv * dim * element * sequences * seen;
    share = fmin(1, sequences * kv * ceil(each / 16) * splits * FLIGHT / g->multiprocessors);
    us = fmax(reading_us(g, bytes) / share,
              4 * heads * dim * rows * seen / (g->gflops[1] * ATTENTION * 1e3));
    us += (bytes_of(&in[0]) * 2 + bytes_of(&in[1]) + bytes_of(&in[2])) / (g->gb_s * 1e3);
    return us + gap_us(g) + (splits > 1 && each <= 16 ? KERNEL_US : 0); /* pieces are merged */
}

/* Tokens are sorted by expert; then two products of those experts that some token has chosen. */
static double experts_us(const trmi_gpu *g, const trm_node *node, const trm_tensor *in,
                         const trm_tensor *out)
{
    double tokens = rows_of(&in[0]), all = width_of(&in[1]), here = (double)in[2].dims[0];
    double top_k = (double)trm_attr_int(&node->attrs, "top_k", 1);
    double weights = bytes_of(&in[2]) + bytes_of(&in[3]) + bytes_of(&in[4]);
    /* that an expert is chosen by one of the tokens, each choosing top_k of all at random */
    double met = 1 - pow(1 - fmin(1, top_k / all), tokens);
    double rows = tokens * top_k / all, f = (double)in[2].dims[1], d = width_of(&in[0]);
    double rate = flops_us(g, in[2].dtype, trm_attr_string(&node->attrs, "act_dtype", NULL));
    double one = multiply_us(g, rate, fmax(1, rows), 2 * f * here, d) +
                 multiply_us(g, rate, fmax(1, rows), d * here, f);

    return fmax(reading_us(g, weights * met), one) +
           (bytes_of(&in[0]) + bytes_of(&out[0])) * top_k / (g->gb_s * 1e3) + gap_us(g) +
           3 * KERNEL_US; /* routing, sorting, adding up */
}

bool trmi_gpu_language_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                          const trm_tensor *out, double *us_out)
{
    const trmi_gpu *g = &c->rates->gpu;
    double moved = 0;

    switch (node->op) {
    case TRM_OP_TrmLinear:
        *us_out = product_us(g, node, in, out, 1, 1) + gap_us(g);
        return true;
    case TRM_OP_TrmLinears:
        *us_out =
            product_us(g, node, in, out, 1, (int)trm_attr_int(&node->attrs, "n", 1)) + gap_us(g);
        return true;
    case TRM_OP_TrmPagedAttention:
        *us_out = attention_us(c, node, in);
        return true;
    case TRM_OP_TrmExperts:
        *us_out = experts_us(g, node, in, out);
        return true;
    case TRM_OP_TrmEmbed:
    case TRM_OP_TrmRows:
        moved = 2 * bytes_of(&out[0]);
        break;
    case TRM_OP_TrmAddNorm:
    case TRM_OP_TrmNorm:
    case TRM_OP_TrmRope:
    case TRM_OP_TrmGated:
    case TRM_OP_TrmPool:
        for (int i = 0; i < node->input_count; i++)
            moved += bytes_of(&in[i]);
        for (int i = 0; i < node->output_count; i++)
            moved += bytes_of(&out[i]);
        break;
    default:
        return false;
    }
    *us_out = fmax(KERNEL_US, gap_us(g) + moved / (g->gb_s * 1e3));
    return true;
}

/* ---- what becomes part of another kernel ---- */

static const trm_node *maker(const trm_graph *g, const trm_node *n, int i)
{
    int v = i < n->input_count ? n->inputs[i] : TRM_NO_VALUE;

    return v == TRM_NO_VALUE || g->values[v].producer < 0 ? NULL : &g->nodes[g->values[v].producer];
}

static bool is_read_by(const trm_graph *g, int at, trm_op op)
{
    int v = g->nodes[at].outputs[0];

    for (int n = at + 1; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] == v && g->nodes[n].op == op)
                return true;
    return false;
}

static bool is_plain_linear(const trm_node *n)
{
    return n != NULL && n->op == TRM_OP_TrmLinear && trm_attr_int(&n->attrs, "unit", 0) == 0;
}

trmi_absorbed trmi_gpu_language_absorbed(const trm_graph *g, int at)
{
    const trm_node *n = &g->nodes[at];

    switch (n->op) {
    case TRM_OP_TrmRope:
        return is_read_by(g, at, TRM_OP_TrmPagedAttention) ? TRMI_ABSORBED : TRMI_ABSORBED_NOT;
    case TRM_OP_Add:
        return is_read_by(g, at, TRM_OP_TrmNorm) ? TRMI_ABSORBED : TRMI_ABSORBED_NOT;
    case TRM_OP_TrmGated:
        return is_plain_linear(maker(g, n, 0)) && is_plain_linear(maker(g, n, 1))
                   ? TRMI_ABSORBED
                   : TRMI_ABSORBED_NOT;
    case TRM_OP_TrmLinear:
        if (!is_plain_linear(n))
            return TRMI_ABSORBED_NOT;
        for (int i = at - 1; i >= 0 && i > at - 6; i--)
            if (is_plain_linear(&g->nodes[i]) && g->nodes[i].inputs[0] == n->inputs[0])
                return TRMI_ABSORBED_GAP;
        return TRMI_ABSORBED_NOT;
    default:
        return TRMI_ABSORBED_NOT;
    }
}

double trmi_gpu_language_gap_us(const trm_rates *r)
{
    return gap_us(&r->gpu);
}
