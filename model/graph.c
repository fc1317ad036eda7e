/* Building and changing graphs; what they hold. */
#include "model/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "graph");
}

/* Arrays grow by doubling inside the arena; the old block stays until the arena goes. */
static void *grown(trm_arena *arena, void *old, int count, int *count_max, size_t size)
{
    int max = *count_max == 0 ? 16 : *count_max * 2;
    void *block;

    if (count < *count_max)
        return old;
    block = trm_arena_alloc(arena, (size_t)max, size);
    if (block == NULL)
        return NULL;
    if (count > 0)
        memcpy(block, old, (size_t)count * size);
    *count_max = max;
    return block;
}

trm_status trm_graph_create(trm_graph *root, const char *name, trm_graph **graph_out)
{
    trm_arena *arena = root == NULL ? NULL : root->root->arena;
    trm_graph *g;

    if (arena == NULL)
        TRM_CHECK(trm_arena_create((size_t)256 << 10, &arena));
    g = (trm_graph *)trm_arena_alloc(arena, 1, sizeof(*g));
    if (g != NULL)
        g->name = trm_arena_strdup(arena, name);
    if (g == NULL || g->name == NULL) {
        if (root == NULL)
            trm_arena_destroy(arena);
        return no_memory();
    }
    g->arena = arena;
    g->root = root == NULL ? g : root->root;
    g->format = g->producer = "";
    *graph_out = g;
    return TRM_OK;
}

void trm_graph_keep(trm_graph *graph, trm_graph *source)
{
    TRM_ASSERT(graph->root == graph && graph->kept == NULL);
    graph->kept = source;
}

void trm_graph_destroy(trm_graph *graph)
{
    trm_graph *kept;

    if (graph == NULL || graph->root != graph)
        return;
    kept = graph->kept;
    trmi_graph_free_lazies(graph);
    for (int i = 0; i < graph->file_count; i++)
        trm_file_unref(graph->files[i]);
    trm_arena_destroy(graph->arena); /* the graph itself lies in it */
    trm_graph_destroy(kept);
}

trm_status trm_graph_add_value(trm_graph *g, const char *name, const trm_tensor *desc,
                               int *value_out)
{
    trm_value *values = (trm_value *)grown(g->arena, g->values, g->value_count, &g->value_count_max,
                                           sizeof(trm_value));
    trm_value *v;

    if (values == NULL)
        return no_memory();
    g->values = values;
    v = &values[g->value_count];
    memset(v, 0, sizeof(*v));
    v->name = trm_arena_strdup(g->arena, name);
    if (v->name == NULL)
        return no_memory();
    v->producer = -1;
    if (desc != NULL)
        v->desc = *desc;
    else
        v->desc.rank = -1;
    v->desc.data = NULL;
    *value_out = g->value_count++;
    return TRM_OK;
}

trm_status trm_graph_add_constant(trm_graph *g, const char *name, const trm_tensor *desc,
                                  int *value_out)
{
    size_t bytes;
    void *copy;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    copy = trm_arena_alloc_aligned(g->arena, bytes == 0 ? 1 : bytes);
    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "constant '%s' of %zu bytes", name, bytes);
    TRM_CHECK(trm_graph_add_value(g, name, desc, value_out));
    if (bytes > 0)
        memcpy(copy, desc->data, bytes);
    g->values[*value_out].desc.data = copy;
    g->values[*value_out].bytes = bytes;
    return TRM_OK;
}

static trm_status hold_file(trm_graph *root, trm_file *file)
{
    trm_file **files;

    for (int i = 0; i < root->file_count; i++)
        if (root->files[i] == file)
            return TRM_OK;
    files = (trm_file **)grown(root->arena, root->files, root->file_count, &root->file_count_max,
                               sizeof(*files));
    if (files == NULL)
        return no_memory();
    root->files = files;
    files[root->file_count++] = trm_file_ref(file);
    return TRM_OK;
}

trm_status trm_graph_add_weight(trm_graph *g, const char *name, const trm_tensor *desc,
                                trm_file *file, uint64_t offset, int *value_out)
{
    size_t bytes;
    trm_value *v;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    if (offset > trm_file_bytes(file) || bytes > trm_file_bytes(file) - offset)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "tensor '%s' wants bytes [%" PRIu64 ", +%zu) of '%s', which has %zu", name,
                        offset, bytes, trm_file_path(file), trm_file_bytes(file));
    TRM_CHECK(hold_file(g->root, file));
    TRM_CHECK(trm_graph_add_value(g, name, desc, value_out));
    v = &g->values[*value_out];
    v->file = file;
    v->file_offset = offset;
    v->bytes = bytes;
    v->desc.data = (void *)(uintptr_t)(trm_file_data(file) +
                                       offset); /* read-only map: nobody writes constants */
    return TRM_OK;
}

static int *copy_ids(trm_graph *g, const int *ids, int count)
{
    int *copy = (int *)trm_arena_alloc(g->arena, (size_t)(count == 0 ? 1 : count), sizeof(int));

    if (copy != NULL && count > 0)
        memcpy(copy, ids, (size_t)count * sizeof(int));
    return copy;
}

trm_status trm_graph_add_node(trm_graph *g, trm_op op, const char *name, const int *inputs,
                              int input_count, const int *outputs, int output_count, int *node_out)
{
    trm_node *nodes =
        (trm_node *)grown(g->arena, g->nodes, g->node_count, &g->node_count_max, sizeof(trm_node));
    trm_node *n;

    if (nodes == NULL)
        return no_memory();
    g->nodes = nodes;
    n = &nodes[g->node_count];
    memset(n, 0, sizeof(*n));
    n->op = op;
    n->name = trm_arena_strdup(g->arena, name);
    n->inputs = copy_ids(g, inputs, input_count);
    n->outputs = copy_ids(g, outputs, output_count);
    n->input_count = input_count;
    n->output_count = output_count;
    if (n->name == NULL || n->inputs == NULL || n->outputs == NULL)
        return no_memory();
    for (int i = 0; i < output_count; i++)
        if (outputs[i] != TRM_NO_VALUE)
            g->values[outputs[i]].producer = g->node_count;
    if (node_out != NULL)
        *node_out = g->node_count;
    g->node_count++;
    return TRM_OK;
}

trm_status trm_graph_set_inputs(trm_graph *g, const int *values, int count)
{
    int *copy = copy_ids(g, values, count);

    if (copy == NULL)
        return no_memory();
    g->inputs = copy;
    g->input_count = count;
    return TRM_OK;
}

trm_status trm_graph_set_outputs(trm_graph *g, const int *values, int count)
{
    int *copy = copy_ids(g, values, count);

    if (copy == NULL)
        return no_memory();
    g->outputs = copy;
    g->output_count = count;
    return TRM_OK;
}

trm_status trm_node_add_input(trm_graph *g, trm_node *node, int value)
{
    int *copy = (int *)trm_arena_alloc(g->arena, (size_t)node->input_count + 1, sizeof(int));

    if (copy == NULL)
        return no_memory();
    if (node->input_count > 0)
        memcpy(copy, node->inputs, (size_t)node->input_count * sizeof(int));
    copy[node->input_count++] = value;
    node->inputs = copy;
    return TRM_OK;
}

void trm_graph_replace_uses(trm_graph *g, int from, int to)
{
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] == from)
                g->nodes[n].inputs[i] = to;
    for (int i = 0; i < g->output_count; i++)
        if (g->outputs[i] == from)
            g->outputs[i] = to;
}

int trm_graph_use_count(const trm_graph *g, int value)
{
    int uses = 0;

    for (int n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op == TRM_OP_NONE)
            continue;
        for (int i = 0; i < g->nodes[n].input_count; i++)
            uses += g->nodes[n].inputs[i] == value;
    }
    for (int i = 0; i < g->output_count; i++)
        uses += g->outputs[i] == value;
    return uses;
}

int trm_graph_find_value(const trm_graph *g, const char *name)
{
    for (int v = 0; v < g->value_count; v++)
        if (strcmp(g->values[v].name, name) == 0)
            return v;
    return -1;
}

bool trm_graph_is_constant(const trm_graph *g, int value)
{
    return value != TRM_NO_VALUE && g->values[value].desc.data != NULL;
}

bool trm_graph_is_output(const trm_graph *g, int value)
{
    for (int i = 0; i < g->output_count; i++)
        if (g->outputs[i] == value)
            return true;
    return false;
}

trm_status trm_graph_constant(trm_graph *g, int value, trm_tensor *tensor_out)
{
    trm_value *v = &g->values[value];
    /* blocks begin with 16-bit scales, or 32-bit ones that are read byte by byte */
    size_t align = trm_dtype_is_block(v->desc.dtype) ? 2 : trm_dtype_bytes(v->desc.dtype);

    if (v->desc.data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "value '%s' is no constant", v->name);
    if (v->lazy != NULL)
        return trmi_graph_keep_lazy(g, value, tensor_out);
    if (align > 1 && (uintptr_t)v->desc.data % align != 0) {
        void *copy = trm_arena_alloc_aligned(g->arena, v->bytes == 0 ? 1 : v->bytes);

        if (copy == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "aligned copy of '%s', %zu bytes", v->name,
                            v->bytes);
        memcpy(copy, v->desc.data, v->bytes);
        v->desc.data = copy;
    }
    *tensor_out = v->desc;
    return TRM_OK;
}

char *trm_graph_fresh_name(trm_graph *g, const char *base)
{
    char name[256];

    for (int i = g->value_count;; i++) {
        snprintf(name, sizeof(name), "%.200s_%d", base, i);
        if (trm_graph_find_value(g, name) < 0)
            return trm_arena_strdup(g->arena, name);
    }
}

trm_status trm_graph_symbol(trm_graph *g, const char *name, int64_t *dim_out)
{
    trm_graph *r = g->root;
    const char **symbols;

    for (int i = 0; i < r->symbol_count; i++) {
        if (strcmp(r->symbols[i], name) == 0) {
            *dim_out = -2 - (int64_t)i;
            return TRM_OK;
        }
    }
    symbols = (const char **)grown(r->arena, r->symbols, r->symbol_count, &r->symbol_count_max,
                                   sizeof(char *));
    if (symbols == NULL)
        return no_memory();
    r->symbols = symbols;
    symbols[r->symbol_count] = trm_arena_strdup(r->arena, name);
    if (symbols[r->symbol_count] == NULL)
        return no_memory();
    *dim_out = -2 - (int64_t)r->symbol_count++;
    return TRM_OK;
}

const char *trm_graph_dim_name(const trm_graph *g, int64_t dim)
{
    int64_t i = -2 - dim;

    if (dim >= 0)
        return NULL;
    return dim == TRM_DIM_UNKNOWN || i >= g->root->symbol_count ? "?" : g->root->symbols[i];
}

/* Bodies share the constants of the graph around them: bytes that `around` (innermost first) holds
 * too are counted there. */
typedef struct around {
    const trm_graph *g;
    const struct around *outer;
} around;

static bool held_by(const around *a, const void *data)
{
    for (; a != NULL; a = a->outer)
        for (int v = 0; v < a->g->value_count; v++)
            if (a->g->values[v].desc.data == data)
                return true;
    return false;
}

static bool is_parameter(const trm_value *v)
{
    return v->desc.data != NULL &&
           (trm_dtype_is_float(v->desc.dtype) || trm_dtype_is_block(v->desc.dtype));
}

/* used[v]: some node or output reads v. What nothing reads may be the source of a part or a stack,
 * and would count twice. NULL: all count (no memory, or there are bodies, which may read it too).
 */
static bool *find_used(const trm_graph *g)
{
    bool *used = NULL;

    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                return NULL;
    used = (bool *)trm_calloc((size_t)g->value_count + 1, sizeof(bool));
    if (used == NULL)
        return NULL;
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE)
                used[g->nodes[n].inputs[i]] = true;
    for (int i = 0; i < g->output_count; i++)
        used[g->outputs[i]] = true;
    return used;
}

static int64_t count_parameters(const trm_graph *g, const around *outer)
{
    around here = {g, outer};
    bool *used = find_used(g);
    int64_t total = 0;

    for (int v = 0; v < g->value_count; v++)
        if (is_parameter(&g->values[v]) && (used == NULL || used[v]) &&
            !held_by(outer, g->values[v].desc.data))
            total += (int64_t)trm_tensor_numel(&g->values[v].desc);
    trm_free(used);
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                total += count_parameters(g->nodes[n].attrs.items[i].v.graph, &here);
    return total;
}

int64_t trm_graph_parameter_count(const trm_graph *g)
{
    return count_parameters(g, NULL);
}
