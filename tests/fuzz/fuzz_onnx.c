/* Fuzzes the ONNX importer: any bytes give a graph or a status, without leaks. What imports is also
 * walked, so that ids out of range show. */
#include "model/onnx/onnx.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_ids(const trm_graph *g, const int *ids, int count)
{
    for (int i = 0; i < count; i++)
        if (ids[i] != TRM_NO_VALUE && (ids[i] < 0 || ids[i] >= g->value_count))
            abort();
}

/* Bodies nest to the importer's limit at most. */
static void check(const trm_graph *g)
{
    check_ids(g, g->inputs, g->input_count);
    check_ids(g, g->outputs, g->output_count);
    for (int n = 0; n < g->node_count; n++) {
        check_ids(g, g->nodes[n].inputs, g->nodes[n].input_count);
        check_ids(g, g->nodes[n].outputs, g->nodes[n].output_count);
        for (int a = 0; a < g->nodes[n].attrs.count; a++)
            if (g->nodes[n].attrs.items[a].kind == TRM_ATTR_GRAPH)
                check(g->nodes[n].attrs.items[a].v.graph);
    }
    for (int v = 0; v < g->value_count; v++) {
        const trm_value *value = &g->values[v];
        volatile unsigned char sum = 0;

        for (size_t i = 0; value->desc.data != NULL && i < value->bytes; i += 64)
            sum = (unsigned char)(sum + ((const unsigned char *)value->desc.data)[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_file *file = NULL;
    trm_graph *g = NULL;
    trm_arena *arena = NULL;
    trm_tensor tensor;
    const char *name;

    if (trm_file_from_memory(data, bytes, "/nonexistent/fuzz.onnx", &file) != TRM_OK)
        return 0;
    if (trm_onnx_import(file, &g) == TRM_OK) {
        check(g);
        trm_graph_destroy(g);
    }
    trm_file_unref(file);
    if (trm_arena_create(0, &arena) == TRM_OK) {
        if (trm_onnx_read_tensor(data, bytes, arena, &tensor, &name) == TRM_OK &&
            trm_tensor_numel(&tensor) > 0)
            (void)trm_tensor_get_f64(&tensor, trm_tensor_numel(&tensor) - 1);
        trm_arena_destroy(arena);
    }
    if (trm_alloc_live() != 0)
        abort();
    return 0;
}
