/* Sorting a graph: keeps the nodes that the outputs need, in an order that computes every value
 * before it is read. Ties keep the order of the file. */
#include "model/graph.h"

#include <string.h>

static void rebuild_producers(trm_graph *g)
{
    for (int v = 0; v < g->value_count; v++)
        g->values[v].producer = -1;
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].output_count; i++)
            if (g->nodes[n].op != TRM_OP_NONE && g->nodes[n].outputs[i] != TRM_NO_VALUE)
                g->values[g->nodes[n].outputs[i]].producer = n;
}

/* Marks what the outputs need; iterative, since graphs are hostile and stacks are small. */
static void mark_needed(const trm_graph *g, bool *needed, int *stack)
{
    int depth = 0;

    for (int i = 0; i < g->output_count; i++) {
        int p = g->values[g->outputs[i]].producer;

        if (p >= 0 && !needed[p]) {
            needed[p] = true;
            stack[depth++] = p;
        }
    }
    while (depth > 0) {
        const trm_node *n = &g->nodes[stack[--depth]];

        for (int i = 0; i < n->input_count; i++) {
            int p = n->inputs[i] == TRM_NO_VALUE ? -1 : g->values[n->inputs[i]].producer;

            if (p >= 0 && !needed[p]) {
                needed[p] = true;
                stack[depth++] = p;
            }
        }
    }
}

static bool is_input(const trm_graph *g, int value)
{
    for (int i = 0; i < g->input_count; i++)
        if (g->inputs[i] == value)
            return true;
    return false;
}

/* A reader must find its value made by a node, given as an input, or constant. */
static trm_status check_sources(const trm_graph *g, const bool *needed)
{
    for (int n = 0; n < g->node_count; n++) {
        if (!needed[n])
            continue;
        for (int i = 0; i < g->nodes[n].input_count; i++) {
            int v = g->nodes[n].inputs[i];

            if (v == TRM_NO_VALUE || g->values[v].producer >= 0 || g->values[v].desc.data != NULL ||
                is_input(g, v))
                continue;
            return trm_fail(TRM_ERR_BAD_FILE,
                            "graph '%s': node '%s' (%s) reads '%s', which no node, input or "
                            "initializer provides",
                            g->name, g->nodes[n].name, trm_op_get(g->nodes[n].op)->name,
                            g->values[v].name);
        }
    }
    for (int i = 0; i < g->output_count; i++) {
        const trm_value *v = &g->values[g->outputs[i]];

        if (v->producer < 0 && v->desc.data == NULL && !is_input(g, g->outputs[i]))
            return trm_fail(TRM_ERR_BAD_FILE,
                            "graph '%s': output '%s' is made by no node, input or initializer",
                            g->name, v->name);
    }
    return TRM_OK;
}

/* A binary heap of node indices, so that the order is the file's wherever that is topological. */
static void heap_push(int *items, int *count, int item)
{
    int h = (*count)++;

    for (; h > 0 && items[(h - 1) / 2] > item; h = (h - 1) / 2)
        items[h] = items[(h - 1) / 2];
    items[h] = item;
}

static int heap_pop(int *items, int *count)
{
    int top = items[0], last = items[--*count], h = 0, child;

    for (; (child = 2 * h + 1) < *count; h = child) {
        if (child + 1 < *count && items[child + 1] < items[child])
            child++;
        if (items[child] >= last)
            break;
        items[h] = items[child];
    }
    items[h] = last;
    return top;
}

static trm_status order_nodes(trm_graph *g, const bool *needed, int *waiting, int *ready,
                              int *order)
{
    int n_order = 0, wanted = 0;
    int *first, *next_reader, edges = 0, edge = 0, heap = 0;

    for (int n = 0; n < g->node_count; n++)
        if (needed[n])
            edges += g->nodes[n].input_count;
    first = (int *)trm_malloc((size_t)g->value_count + 1, sizeof(int));
    next_reader =
        (int *)trm_malloc((size_t)edges + 1, 2 * sizeof(int)); /* pairs: next edge, node */
    if (first == NULL || next_reader == NULL) {
        trm_free(first);
        trm_free(next_reader);
        return trm_fail(TRM_ERR_NO_MEMORY, "graph");
    }
    for (int v = 0; v < g->value_count; v++)
        first[v] = -1;
    for (int n = g->node_count - 1; n >= 0; n--) {
        waiting[n] = 0;
        if (!needed[n])
            continue;
        wanted++;
        for (int i = g->nodes[n].input_count - 1; i >= 0; i--) {
            int v = g->nodes[n].inputs[i];

            if (v == TRM_NO_VALUE || g->values[v].producer < 0)
                continue;
            waiting[n]++;
            next_reader[2 * edge] = first[v];
            next_reader[2 * edge + 1] = n;
            first[v] = edge++;
        }
    }
    for (int n = 0; n < g->node_count; n++)
        if (needed[n] && waiting[n] == 0)
            heap_push(ready, &heap, n);
    while (heap > 0) {
        int n = heap_pop(ready, &heap);

        order[n_order++] = n;
        for (int i = 0; i < g->nodes[n].output_count; i++) {
            int v = g->nodes[n].outputs[i];

            if (v == TRM_NO_VALUE)
                continue;
            for (int e = first[v]; e >= 0; e = next_reader[2 * e])
                if (--waiting[next_reader[2 * e + 1]] == 0)
                    heap_push(ready, &heap, next_reader[2 * e + 1]);
        }
    }
    trm_free(first);
    trm_free(next_reader);
    if (n_order == wanted)
        return TRM_OK;
    for (int n = 0; n < g->node_count; n++)
        if (needed[n] && waiting[n] > 0)
            return trm_fail(TRM_ERR_BAD_FILE, "graph '%s' has a cycle through node '%s' (%s)",
                            g->name, g->nodes[n].name, trm_op_get(g->nodes[n].op)->name);
    return trm_fail(TRM_ERR_INTERNAL, "graph '%s': sort", g->name);
}

trm_status trm_graph_sort(trm_graph *g)
{
    size_t n = (size_t)g->node_count + 1;
    bool *needed = (bool *)trm_calloc(n, sizeof(bool));
    int *work = (int *)trm_malloc(n, 3 * sizeof(int));
    trm_node *sorted = NULL;
    trm_status st = TRM_OK;
    int kept = 0;

    if (needed == NULL || work == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "graph");
        goto done;
    }
    rebuild_producers(g);
    mark_needed(g, needed, work);
    TRM_TRY(st, check_sources(g, needed), done);
    TRM_TRY(st, order_nodes(g, needed, work, work + n, work + 2 * n), done);
    for (int i = 0; i < g->node_count; i++)
        kept += needed[i];
    sorted = (trm_node *)trm_malloc(n, sizeof(trm_node));
    if (sorted == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "graph");
        goto done;
    }
    for (int i = 0; i < kept; i++)
        sorted[i] = g->nodes[work[2 * n + (size_t)i]];
    if (kept > 0)
        memcpy(g->nodes, sorted, (size_t)kept * sizeof(trm_node));
    g->node_count = kept;
    rebuild_producers(g);
done:
    trm_free(sorted);
    trm_free(needed);
    trm_free(work);
    return st;
}
