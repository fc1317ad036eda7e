/* What a graph holds in memory, by arithmetic on shapes: weights as the kernels of the CPU pack
 * them, activations by lifetimes in one arena. Estimates; tests compare them with what is
 * allocated. */
#include "parallel/planner_impl.h"

#include "base/arena_plan.h"
#include "kernels/language.h"
#include "model/passes/passes.h"

#include <stdlib.h>
#include <string.h>

static size_t up(int64_t n, int64_t to)
{
    return (size_t)((n + to - 1) / to * to);
}

/* ---- weights ---- */

/* Products want the rows in blocks of 16 and the columns in blocks of 64. */
static size_t packed_product(const trm_tensor *t, bool transposed)
{
    int64_t k = t->rank < 2 ? 1 : t->dims[t->rank - 2], n = t->rank < 1 ? 1 : t->dims[t->rank - 1];
    size_t batch = t->rank > 2 ? trm_tensor_count(t, 0, t->rank - 2) : 1;

    if (transposed) {
        int64_t swap = k;

        k = n;
        n = swap;
    }
    return batch * up(k, 16) * up(n, 64);
}

/* Convolutions want channels in blocks of 16; what has few input channels keeps them. */
static size_t packed_convolution(const trm_tensor *t, int64_t group, bool transposed)
{
    size_t taps = trm_tensor_count(t, 2, t->rank);
    int64_t outs = transposed ? t->dims[1] : t->dims[0] / group;
    int64_t ins = transposed ? t->dims[0] / group : t->dims[1];

    if (group > 1 && outs == 1 && ins == 1)
        return up(group, 16) * taps;
    return (size_t)group * up(outs, 16) * (ins <= 4 ? (size_t)ins : up(ins, 16)) * taps;
}

/* Elements of constant input `i` as the kernel keeps it; 0: it reads it where it lies. */
static size_t packed_elems(const trm_node *n, int i, const trm_tensor *t)
{
    if (i != 1 || t->rank < 1)
        return 0;
    switch (n->op) {
    case TRM_OP_MatMul:
        return t->rank < 2 ? 0 : packed_product(t, false);
    case TRM_OP_Gemm:
        return packed_product(t, trm_attr_int(&n->attrs, "transB", 0) != 0);
    case TRM_OP_Conv:
    case TRM_OP_ConvTranspose: {
        int64_t group = trm_attr_int(&n->attrs, "group", 1);

        return t->rank < 3 || group < 1
                   ? 0
                   : packed_convolution(t, group, n->op == TRM_OP_ConvTranspose);
    }
    default:
        return 0;
    }
}

/* Bytes of constant input `i` as the kernel keeps it; 0: it reads it where it lies. Products of
 * language models keep a weight's own type, in panels of 16 output features. */
static size_t packed_bytes(const trm_node *n, int i, const trm_value *value, trm_dtype dtype)
{
    const trm_tensor *t = &value->desc;
    int panel = -1; /* the dim of output features */

    if (n->op == TRM_OP_TrmLinear && i == 1 && t->rank == 2)
        panel = trm_attr_int(&n->attrs, "transposed", 0) != 0 ? 1 : 0;
    else if (n->op == TRM_OP_TrmLinears && i >= 1 && i <= trm_attr_int(&n->attrs, "n", 0) &&
             t->rank == 2)
        panel = trm_attr_int(&n->attrs, "transposed", 0) != 0 ? 1 : 0;
    else if (n->op == TRM_OP_TrmExperts && i >= 2 && t->rank == 3)
        panel = 1;
    if (panel >= 0)
        return t->dims[panel] < 1 ? 0
                                  : value->bytes / (size_t)t->dims[panel] * up(t->dims[panel], 16);
    return packed_elems(n, i, t) *
           trm_dtype_bytes(dtype == TRM_DTYPE_BF16 || dtype == TRM_DTYPE_F16 ? dtype : t->dtype);
}

/* Products of language models have layouts of their own on every device. */
static bool is_lm_weight(const trm_node *n, int i)
{
    return (n->op == TRM_OP_TrmLinear && i == 1) ||
           (n->op == TRM_OP_TrmLinears && i >= 1 && i <= trm_attr_int(&n->attrs, "n", 0)) ||
           (n->op == TRM_OP_TrmExperts && i >= 2 && i < 5);
}

/* An embedding reads its table where a product has laid it out, if one does
 * (kernels/cuda/lm_embed.c).
 */
static bool reads_laid_out(const trm_node *n, int i, const trm_value *value)
{
    return n->op == TRM_OP_TrmEmbed && i == 1 && !trm_dtype_is_block(value->desc.dtype);
}

static bool lays_out(const trm_node *n, int i)
{
    return n->op == TRM_OP_TrmLinear && i == 1 && trm_attr_int(&n->attrs, "transposed", 0) == 0;
}

/* On an accelerator weights of dense operators are kept in the dtype they are computed in, others
 * are copied as they are; where both happen there are two copies. An allocation takes whole 512
 * bytes. */
static void weights_on_device(const trm_graph *g, trm_dtype dtype, int begin, int end,
                              trmi_weights *w)
{
    bool half = dtype == TRM_DTYPE_BF16 || dtype == TRM_DTYPE_F16;

    memset(w, 0, (size_t)g->value_count * sizeof(*w));
    for (int n = begin; n < end; n++) {
        const trm_node *node = &g->nodes[n];

        for (int i = 0; i < node->input_count; i++) {
            int v = node->inputs[i];
            const trm_value *value = v == TRM_NO_VALUE ? NULL : &g->values[v];
            bool dense;

            if (value == NULL || !trm_graph_is_constant(g, v))
                continue;
            dense = half && packed_elems(node, i, &value->desc) > 0 &&
                    value->desc.dtype == TRM_DTYPE_F32;
            /* 1: as it is, 2: in 16 bits, 4: laid out by a language model's product (8: by one
             * that an embedding can read, 16, which else reads it as it is); until all readers are
             * seen */
            w[v].mapped |= is_lm_weight(node, i)            ? lays_out(node, i) ? 12u : 4u
                           : dense                          ? 2u
                           : reads_laid_out(node, i, value) ? 16u
                                                            : 1u;
            if (value->lazy != NULL)
                w[v].staging = value->bytes;
        }
    }
    for (int v = 0; v < g->value_count; v++) {
        size_t bytes = g->values[v].bytes;

        if ((w[v].mapped & 24) == 16)
            w[v].mapped |= 1;
        w[v].bytes = ((w[v].mapped & 1) != 0 ? trm_align_up(bytes, 512) : 0) +
                     ((w[v].mapped & 2) != 0 ? trm_align_up(bytes / 2, 512) : 0) +
                     ((w[v].mapped & 4) != 0 ? trm_align_up(bytes, 512) : 0);
        w[v].mapped = 0;
    }
}

void trmi_ledger_weights(const trm_graph *g, const trmi_holder *holder, int begin, int end,
                         trmi_weights *w)
{
    trm_dtype dtype = holder->dtype;

    if (holder->gpu) {
        weights_on_device(g, dtype, begin, end, w);
        return;
    }
    memset(w, 0, (size_t)g->value_count * sizeof(*w));
    for (int n = begin; n < end; n++) {
        const trm_node *node = &g->nodes[n];

        for (int i = 0; i < node->input_count; i++) {
            int v = node->inputs[i];
            const trm_value *value = v == TRM_NO_VALUE ? NULL : &g->values[v];
            size_t packed;

            if (value == NULL || !trm_graph_is_constant(g, v))
                continue;
            packed = packed_bytes(node, i, value, dtype);
            /* two readers of one weight share the packed copy, but one that does not pack reads
             * the source beside it */
            if (packed > 0 && value->lazy != NULL)
                w[v].staging = value->bytes;
            else if (packed == 0 && value->file != NULL && value->lazy == NULL)
                w[v].mapped = value->bytes;
            /* what passes have made of constants stays in the graph's memory beside it */
            if (packed == 0 || (value->file == NULL && value->lazy == NULL))
                w[v].bytes = value->bytes;
            w[v].packed = packed > w[v].packed ? packed : w[v].packed;
        }
    }
    for (int v = 0; v < g->value_count; v++)
        w[v].bytes += w[v].packed;
}

/* ---- the cache of language models ---- */

bool trmi_ledger_kv(const trm_graph *g, const trm_plan_options *options, size_t *kv_bytes_out)
{
    trm_dtype dtype = options->kv_dtype == TRM_DTYPE_NONE ? TRM_DTYPE_F32 : options->kv_dtype;
    size_t pages = options->kv_tokens > 0 ? up(options->kv_tokens, TRM_KV_PAGE) / TRM_KV_PAGE : 0;
    bool language = false;

    for (int n = 0; n < g->node_count; n++) {
        const trm_attrs *a = &g->nodes[n].attrs;

        kv_bytes_out[n] = 0;
        if (g->nodes[n].op == TRM_OP_TrmEmbed)
            language = true;
        if (g->nodes[n].op != TRM_OP_TrmPagedAttention)
            continue;
        language = true;
        if (trm_attr_int(a, "encoder", 0) == 0)
            kv_bytes_out[n] = pages * trm_kv_page_bytes(trm_attr_int(a, "kv_heads", 0),
                                                        trm_attr_int(a, "head_dim", 0), dtype);
    }
    return language;
}

/* ---- activations ---- */

/* How an operator takes and leaves activations: convolutions blocked by 16 channels; some as they
 * come; all others plain. */
typedef enum habit { HABIT_PLAIN, HABIT_AS_IT_COMES, HABIT_BLOCKED } habit;

static habit habit_of(const trm_node *n)
{
    switch (n->op) {
    case TRM_OP_Conv:
    case TRM_OP_ConvTranspose:
        return HABIT_BLOCKED;
    case TRM_OP_MaxPool:
    case TRM_OP_AveragePool:
    case TRM_OP_GlobalAveragePool:
    case TRM_OP_BatchNormalization:
    case TRM_OP_Concat:
        return HABIT_AS_IT_COMES;
    default:
        return (trm_op_get(n->op)->flags & (TRM_OPF_ELEMENTWISE | TRM_OPF_COLLECTIVE)) != 0
                   ? HABIT_AS_IT_COMES
                   : HABIT_PLAIN;
    }
}

static bool can_block(const trm_tensor *t)
{
    return t->rank >= 3 && t->dims[1] > 4 && trm_dtype_is_float(t->dtype);
}

static size_t storage_bytes(const trm_tensor *t, bool padding)
{
    trm_tensor padded = *t;
    size_t bytes = 0;

    if (padding)
        padded.dims[1] = (t->dims[1] + 15) / 16 * 16;
    padded.layout = TRM_LAYOUT_PLAIN;
    if (trm_tensor_bytes(&padded, &bytes) != TRM_OK)
        return 0; /* a dim that depends on data */
    return trm_align_up(bytes, TRM_ALIGN);
}

struct lives {
    const trm_graph *g;
    const trm_tensor *descs;
    const trmi_holder *holder;
    const int *host_of;
    int begin, end;
    int *last;     /* [value_count] last node of the stretch that reads it; node_count: something
                      outside does */
    int *block_of; /* [value_count] -1: none */
    int *other_of; /* [value_count] the copy in the other layout; -1: none */
    bool *blocked; /* [value_count] as it was made */
    trm_lifetime *blocks;
    int count;
};

/* Channels last is not padded; in mixed precision what dense operators make and what passes it on
 * is 16 bits. */
static size_t value_bytes(const struct lives *l, int v, bool blocked)
{
    const trm_value *value = &l->g->values[v];
    size_t bytes = storage_bytes(&l->descs[v], blocked && !l->holder->gpu);
    bool half = l->holder->dtype == TRM_DTYPE_BF16 || l->holder->dtype == TRM_DTYPE_F16;

    if (l->holder->gpu && half && value->producer >= 0 && l->descs[v].dtype == TRM_DTYPE_F32 &&
        trm_pass_precision_lowers(&l->g->nodes[value->producer]))
        bytes = trm_align_up(bytes / 2, TRM_ALIGN);
    return bytes;
}

static bool inside(const struct lives *l, int n)
{
    int host = l->host_of == NULL ? n : l->host_of[n];

    return host >= l->begin && host < l->end;
}

static void find_last_readers(struct lives *l)
{
    const trm_graph *g = l->g;

    for (int v = 0; v < g->value_count; v++)
        l->last[v] = l->block_of[v] = l->other_of[v] = -1;
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE) {
                int *last = &l->last[g->nodes[n].inputs[i]],
                    reader = inside(l, n) ? n : g->node_count;

                *last = reader > *last ? reader : *last;
            }
    for (int i = 0; i < g->output_count; i++)
        l->last[g->outputs[i]] = g->node_count;
}

/* The block whose memory output `v` of node n takes over: of a view's input, or of an operand of an
 * elementwise operator that nobody reads later. -1: none. */
static int taken_over(const struct lives *l, int n, size_t bytes)
{
    const trm_node *node = &l->g->nodes[n];
    uint32_t flags = trm_op_get(node->op)->flags;

    for (int i = 0; i < node->input_count && i < 2; i++) {
        int v = node->inputs[i], b = v == TRM_NO_VALUE ? -1 : l->block_of[v];

        if (b < 0)
            continue;
        if ((flags & TRM_OPF_VIEW) != 0)
            return i == 0 ? b : -1;
        if (((flags & TRM_OPF_ELEMENTWISE) != 0 || node->op == TRM_OP_TrmAllReduce) &&
            l->last[v] <= n && l->blocks[b].death <= n && l->blocks[b].bytes == bytes)
            return b;
    }
    return -1;
}

/* A reader that wants the other layout makes a copy, which serves those after it too. */
static void want_layout(struct lives *l, int n, int v, bool blocked)
{
    if (trm_graph_is_constant(l->g, v) || l->blocked[v] == blocked || !can_block(&l->descs[v]))
        return;
    if (l->other_of[v] < 0) {
        l->other_of[v] = l->count++;
        l->blocks[l->other_of[v]] = (trm_lifetime){.birth = n, .bytes = value_bytes(l, v, blocked)};
    }
    l->blocks[l->other_of[v]].death = n;
}

static void place_output(struct lives *l, int n, int v)
{
    size_t bytes = value_bytes(l, v, l->blocked[v]);
    int b = taken_over(l, n, bytes), death = l->last[v] > n ? l->last[v] : n;

    if (b < 0) {
        b = l->count++;
        l->blocks[b] = (trm_lifetime){.birth = n, .death = death, .bytes = bytes};
    } else if (l->blocks[b].death < death) {
        l->blocks[b].death = death;
    }
    l->block_of[v] = b;
}

static void place_node(struct lives *l, int n)
{
    const trm_node *node = &l->g->nodes[n];
    habit h = habit_of(node);
    int first = node->input_count > 0 ? node->inputs[0] : TRM_NO_VALUE;
    bool blocked = h == HABIT_BLOCKED ||
                   (h == HABIT_AS_IT_COMES && first != TRM_NO_VALUE && l->blocked[first]);

    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != TRM_NO_VALUE)
            want_layout(l, n, node->inputs[i], blocked);
    for (int i = 0; i < node->output_count; i++) {
        int v = node->outputs[i];

        if (v == TRM_NO_VALUE)
            continue;
        l->blocked[v] = blocked && can_block(&l->descs[v]);
        place_output(l, n, v);
        if (l->last[v] == l->g->node_count) /* it leaves plain */
            want_layout(l, l->g->node_count, v, false);
    }
}

trm_status trmi_ledger_activations(const trm_graph *finished, const trm_tensor *descs,
                                   const trmi_holder *holder, const int *host_of, int begin,
                                   int end, size_t *bytes_out)
{
    size_t values = (size_t)finished->value_count + 1;
    struct lives l = {.g = finished,
                      .descs = descs,
                      .holder = holder,
                      .host_of = host_of,
                      .begin = begin,
                      .end = end};
    trm_status st = TRM_OK;

    l.last = trm_calloc(values, 3 * sizeof(int));
    l.blocked = trm_calloc(values, sizeof(bool));
    l.blocks = trm_calloc(2 * values, sizeof(trm_lifetime));
    if (l.last == NULL || l.blocked == NULL || l.blocks == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "ledger of %d values", finished->value_count);
        goto done;
    }
    l.block_of = l.last + values;
    l.other_of = l.block_of + values;
    find_last_readers(&l);
    for (int n = 0; n < finished->node_count; n++)
        if (inside(&l, n))
            place_node(&l, n);
    *bytes_out = trm_arena_plan(l.blocks, l.count);
done:
    trm_free(l.last);
    trm_free(l.blocked);
    trm_free(l.blocks);
    return st;
}
