/* Walks the graph in order and keeps where every value lies. */
#include "parallel/host_part.h"

#include "kernels/cuda_operators.h"

#include <stdio.h>
#include <string.h>

#define SMALL_BYTES                                                                                \
    65536 /* as worker/bind_node.c: small things that lie on the host stay there                   \
           */

enum { ON_HOST = 1, ON_DEVICE = 2 };

typedef struct walk {
    const trm_graph *g;
    const trm_tensor *descs;
    unsigned char *lies; /* [value_count] bits of the places that have it */
    trm_host_part *part;
} walk;

static size_t bytes_of(const trm_tensor *t)
{
    size_t bytes = 0;

    return trm_tensor_bytes(t, &bytes) == TRM_OK ? bytes : 0;
}

/* Constants are on both sides; values known while binding go along with kernels. */
static bool is_known(const walk *w, int v)
{
    return v == TRM_NO_VALUE || trm_graph_is_constant(w->g, v) || w->descs[v].data != NULL;
}

static bool is_dense(trm_op op)
{
    return op == TRM_OP_Conv || op == TRM_OP_ConvTranspose || op == TRM_OP_MatMul ||
           op == TRM_OP_Gemm || op == TRM_OP_QLinearConv || op == TRM_OP_QLinearMatMul ||
           op == TRM_OP_TrmAttention || op == TRM_OP_Attention || op == TRM_OP_LSTM ||
           op == TRM_OP_GRU || op == TRM_OP_RNN;
}

static bool stays_on_host(const walk *w, const trm_node *n)
{
    bool any = false;
    size_t all = 0;

    if (is_dense(n->op))
        return false;
    for (int i = 0; i < n->input_count; i++) {
        int v = n->inputs[i];

        if (is_known(w, v))
            continue;
        if (w->lies[v] != ON_HOST)
            return false;
        any = true;
        all += bytes_of(&w->descs[v]);
    }
    return any && all <= SMALL_BYTES;
}

/* Free, or done while binding: its results lie where its first input does. */
static bool is_free(const walk *w, const trm_node *n)
{
    return n->output_count < 1 || (trm_op_get(n->op)->flags & TRM_OPF_VIEW) != 0 ||
           n->op == TRM_OP_Shape || n->op == TRM_OP_Size ||
           (n->outputs[0] != TRM_NO_VALUE && w->descs[n->outputs[0]].data != NULL);
}

static void bring(walk *w, int node, int v, unsigned char to)
{
    size_t bytes = is_known(w, v) ? 0 : bytes_of(&w->descs[v]);

    if (is_known(w, v) || (w->lies[v] & to) != 0)
        return;
    w->lies[v] |= to; /* one copy serves all readers */
    w->part->copies++;
    w->part->copied_bytes += bytes;
    w->part->copied[node] += bytes;
    w->part->copies_of[node]++;
}

static void place(walk *w, int node)
{
    const trm_node *n = &w->g->nodes[node];
    bool own = (trm_op_get(n->op)->flags & TRM_OPF_COLLECTIVE) != 0;
    bool has = own ||
               ((trm_op_get(n->op)->flags & TRM_OPF_CONTROL) == 0 && trm_cuda_has_operator(n->op)),
         host = false;
    int first = n->input_count > 0 ? n->inputs[0] : TRM_NO_VALUE;
    unsigned char to = ON_DEVICE;

    if (is_free(w, n)) {
        to = is_known(w, first) ? ON_HOST | ON_DEVICE : w->lies[first];
    } else {
        host = !has || (!own && stays_on_host(w, n));
        to = host ? ON_HOST : ON_DEVICE;
        w->part->nodes += has ? 0 : 1;
        w->part->counts[n->op] += has ? 0 : 1;
        w->part->followers += has && host ? 1 : 0;
        w->part->on_host[node] = host;
        for (int i = 0; i < n->input_count; i++)
            bring(w, node, n->inputs[i], to);
    }
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i] != TRM_NO_VALUE)
            w->lies[n->outputs[i]] = to;
}

trm_status trm_host_part_find(const trm_graph *g, const trm_tensor *descs, trm_arena *arena,
                              trm_host_part *part_out)
{
    size_t nodes = (size_t)g->node_count + 1;
    walk w = {.g = g, .descs = descs, .part = part_out};

    memset(part_out, 0, sizeof(*part_out));
    w.lies = trm_arena_alloc(arena, (size_t)g->value_count + 1, 1);
    part_out->on_host = trm_arena_alloc(arena, nodes, sizeof(bool));
    part_out->copied = trm_arena_alloc(arena, nodes, sizeof(size_t));
    part_out->copies_of = trm_arena_alloc(arena, nodes, sizeof(int));
    if (w.lies == NULL || part_out->on_host == NULL || part_out->copied == NULL ||
        part_out->copies_of == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "host part of %d nodes", g->node_count);
    for (int i = 0; i < g->input_count; i++) /* the caller's memory, and a copy on the device */
        w.lies[g->inputs[i]] = ON_HOST | ON_DEVICE;
    for (int n = 0; n < g->node_count; n++)
        place(&w, n);
    return TRM_OK;
}

char *trm_host_part_text(const trm_host_part *part, char *buf, size_t bytes)
{
    bool told[TRM_OP_COUNT] = {false};
    size_t used = 0;

    buf[0] = '\0';
    for (;;) {
        int best = -1;

        for (int i = 0; i < TRM_OP_COUNT; i++)
            if (part->counts[i] > 0 && !told[i] &&
                (best < 0 || part->counts[i] > part->counts[best]))
                best = i;
        if (best < 0 || used >= bytes)
            return buf;
        told[best] = true;
        used += (size_t)snprintf(buf + used, bytes - used, "%s%s %d", used > 0 ? ", " : "",
                                 trm_op_get((trm_op)best)->name, part->counts[best]);
    }
}
