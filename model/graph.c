/* Building, changing and sorting graphs. */
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

void trm_graph_destroy(trm_graph *graph)
{
    if (graph == NULL || graph->root != graph)
        return;
    for (int i = 0; i < graph->file_count; i++)
        trm_file_unref(graph->files[i]);
    trm_arena_destroy(graph->arena); /* the graph itself lies in it */
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
        return no_memory();
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
        st = no_memory();
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
        st = no_memory();
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
    size_t align = trm_dtype_bytes(v->desc.dtype);

    if (v->desc.data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "value '%s' is no constant", v->name);
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

static int64_t constant_op(char op, int64_t a, int64_t b)
{
    int64_t r = TRM_DIM_UNKNOWN;
    bool overflow = false;

    switch (op) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &r);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &r);
        break;
    case '*':
        overflow = __builtin_mul_overflow(a, b, &r);
        break;
    case '/':
        r = b == 0 ? TRM_DIM_UNKNOWN : a / b;
        break;
    default:
        break;
    }
    return overflow || r < 0 ? TRM_DIM_UNKNOWN : r;
}

static void dim_text(const trm_graph *g, int64_t dim, bool bracket, char *buf, size_t bytes)
{
    const char *name = trm_graph_dim_name(g, dim);

    if (name == NULL)
        snprintf(buf, bytes, "%" PRId64, dim);
    else if (bracket && strpbrk(name, "+-*/") != NULL)
        snprintf(buf, bytes, "(%s)", name);
    else
        snprintf(buf, bytes, "%s", name);
}

int64_t trm_graph_dim_op(trm_graph *g, char op, int64_t a, int64_t b)
{
    char left[120], right[120], name[256];
    int64_t dim;

    if (a == TRM_DIM_UNKNOWN || b == TRM_DIM_UNKNOWN)
        return TRM_DIM_UNKNOWN;
    if (a >= 0 && b >= 0)
        return constant_op(op, a, b);
    if ((b == 0 && (op == '+' || op == '-')) || (b == 1 && (op == '*' || op == '/')))
        return a;
    if ((a == 0 && op == '+') || (a == 1 && op == '*'))
        return b;
    if (op == '*' && (a == 0 || b == 0))
        return 0;
    if (a == b && (op == '-' || op == '/'))
        return op == '-' ? 0 : 1;
    if ((op == '+' || op == '*') &&
        (a >= 0 || (b < 0 && a < b))) { /* commutative: one spelling, symbols first */
        int64_t t = a;

        a = b;
        b = t;
    }
    if (op == '/' && b > 0) { /* (x*c)/b with b dividing c */
        char *star;
        int64_t factor;

        dim_text(g, a, false, left, sizeof(left));
        star = strrchr(left, '*');
        if (star != NULL && sscanf(star + 1, "%" SCNd64, &factor) == 1 && factor > 0 &&
            factor % b == 0 && strpbrk(star + 1, "+-/()") == NULL && strpbrk(left, "+-/") == NULL) {
            *star = '\0';
            if (trm_graph_symbol(g, left, &dim) != TRM_OK)
                return TRM_DIM_UNKNOWN;
            return trm_graph_dim_op(g, '*', dim, factor / b);
        }
    }
    if (op == '*' && b >= 0) { /* (x*c)*b */
        char *star;
        int64_t factor;

        dim_text(g, a, false, left, sizeof(left));
        star = strrchr(left, '*');
        if (star != NULL && sscanf(star + 1, "%" SCNd64, &factor) == 1 && factor > 0 &&
            strpbrk(left, "+-/()") == NULL && !__builtin_mul_overflow(factor, b, &factor)) {
            *star = '\0';
            if (trm_graph_symbol(g, left, &dim) != TRM_OK)
                return TRM_DIM_UNKNOWN;
            b = factor;
            a = dim;
        }
    }
    dim_text(g, a, op != '+' && op != '*', left, sizeof(left));
    if (op == '*')
        dim_text(g, a, strpbrk(left, "+-/") != NULL, left, sizeof(left));
    dim_text(g, b, true, right, sizeof(right));
    snprintf(name, sizeof(name), "%s%c%s", left, op, right);
    if (strlen(name) > 100 || trm_graph_symbol(g, name, &dim) != TRM_OK)
        return TRM_DIM_UNKNOWN;
    return dim;
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

static int64_t count_parameters(const trm_graph *g, const around *outer)
{
    around here = {g, outer};
    int64_t total = 0;

    for (int v = 0; v < g->value_count; v++)
        if (g->values[v].desc.data != NULL && trm_dtype_is_float(g->values[v].desc.dtype) &&
            !held_by(outer, g->values[v].desc.data))
            total += (int64_t)trm_tensor_numel(&g->values[v].desc);
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
