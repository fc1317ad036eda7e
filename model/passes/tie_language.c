/* An embedding whose table is also a product's weight (tied embeddings): the node says so, and how
 * that product computes, so that a device that lays weights out for products need not keep the
 * table a second time as it is in the file. */
#include "model/passes/passes.h"

#include <string.h>

static const trm_node *product_of(const trm_graph *g, int weight)
{
    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];

        if (node->op == TRM_OP_TrmLinear && node->inputs[1] == weight &&
            trm_attr_int(&node->attrs, "transposed", 0) == 0)
            return node;
    }
    return NULL;
}

trm_status trm_pass_tie_language(trm_graph *g)
{
    for (int n = 0; n < g->node_count; n++) {
        trm_node *node = &g->nodes[n];
        const trm_node *product;
        const char *act;

        if (node->op != TRM_OP_TrmEmbed || !trm_graph_is_constant(g, node->inputs[1]))
            continue;
        product = product_of(g, node->inputs[1]);
        if (product == NULL)
            continue;
        act = trm_attr_string(&product->attrs, "act", NULL);
        TRM_CHECK(trm_attr_set_int(&node->attrs, g->arena, "tied", 1));
        if (act != NULL)
            TRM_CHECK(trm_attr_set_string(&node->attrs, g->arena, "act", act));
    }
    return TRM_OK;
}
