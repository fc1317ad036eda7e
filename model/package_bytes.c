/* Images as bytes: a quarter of what floats take on their way to a device. */
#include "model/package.h"

#include <string.h>

static bool takes_floats(const trm_package *p)
{
    const trm_graph *g = p->graph;
    const trm_preprocess *o = &p->preprocess;
    int64_t channels = o->color == TRM_COLOR_GREY ? 1 : 3, have;
    const trm_tensor *d;

    if (g->input_count != 1 || o->dtype != TRM_DTYPE_F32 ||
        (o->mean_count != 0 && o->mean_count != 1 && o->mean_count != channels))
        return false;
    d = &g->values[g->inputs[0]].desc;
    if (d->rank != 4 || d->dtype != TRM_DTYPE_F32)
        return false;
    have = d->dims[o->channels_last ? 3 : 1];
    return have == channels || have < 0;
}

/* The input's name goes to the new input; what it was gets another. */
static trm_status add_table(trm_package *p, int64_t channels)
{
    trm_graph *g = p->graph;
    int old = g->inputs[0], args[2], node;
    trm_tensor image = {.dtype = TRM_DTYPE_U8, .rank = 4};
    trm_tensor table = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {channels, 256}};
    const int64_t *d = g->values[old].desc.dims;
    bool last = p->preprocess.channels_last;
    const char *name = g->values[old].name;
    float values[4 * 256];

    image.dims[0] = d[0];
    image.dims[1] = d[last ? 1 : 2];
    image.dims[2] = d[last ? 2 : 3];
    image.dims[3] = channels;
    for (int c = 0; c < (int)channels; c++)
        trm_preprocess_table(&p->preprocess, c, values + (size_t)c * 256);
    table.data = values;
    g->values[old].name = trm_graph_fresh_name(g, name);
    if (g->values[old].name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "input '%s'", name);
    g->values[old].desc.dims[last ? 3 : 1] = channels;
    TRM_CHECK(trm_graph_add_value(g, name, &image, &args[0]));
    TRM_CHECK(trm_graph_add_constant(g, trm_graph_fresh_name(g, "image_table"), &table, &args[1]));
    TRM_CHECK(trm_graph_add_node(g, TRM_OP_TrmImageTable, "image table", args, 2, &old, 1, &node));
    if (last)
        TRM_CHECK(trm_attr_set_int(&g->nodes[node].attrs, g->arena, "channels_last", 1));
    TRM_CHECK(trm_graph_set_inputs(g, &args[0], 1));
    return trm_graph_sort(g);
}

trm_status trm_package_take_bytes(trm_package *p)
{
    if (!p->has_preprocess)
        TRM_CHECK(trm_package_default_preprocess(p));
    if (!takes_floats(p))
        return TRM_OK;
    TRM_CHECK(add_table(p, p->preprocess.color == TRM_COLOR_GREY ? 1 : 3));
    p->preprocess.dtype = TRM_DTYPE_U8;
    p->preprocess.channels_last = true;
    return TRM_OK;
}
