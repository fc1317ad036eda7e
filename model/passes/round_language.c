/* Rows that only products read are made as those round them (kernels/language.h, "Rounded rows"):
 * otherwise each product of many rows first makes a rounded copy, and one of few rows reads twice
 * or four times the bytes. For a graph that has been cut and fused, and a device that asks for it.
 *
 * A value stays F32 unless all of its readers are products that read it as their input 0 and round
 * it alike, and its maker has such a form. No bits change: rounding is the same function. */
#include "model/passes/rewrite.h"

#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <stdlib.h>
#include <string.h>

/* What is known of a value. */
typedef struct rows_of {
    trm_rounding as; /* dtype NONE: no reader so far */
    bool stays;
} rows_of;

/* Forms of a maker. */
enum { FLOATS = 1, INTEGERS = 2 };

static const struct {
    trm_op op;
    int output, forms;
} makers[] = {
    {TRM_OP_TrmNorm, 0, FLOATS | INTEGERS},
    {TRM_OP_TrmAddNorm, 1, FLOATS | INTEGERS},
    {TRM_OP_TrmGated, 0, FLOATS},
    {TRM_OP_TrmLinears, 0, FLOATS}, /* gated, of the same weights */
};
#define MAKERS (sizeof(makers) / sizeof(makers[0]))

/* What product `n` rounds its rows to. */
static trm_rounding wanted_by(const trm_graph *g, const trm_node *n, trm_rounding_fn *rounding)
{
    static const struct {
        const char *name;
        trm_dtype dtype;
    } acts[] = {{"", TRM_DTYPE_NONE}, {"bf16", TRM_DTYPE_BF16}, {"f16", TRM_DTYPE_F16}};
    const char *act = trm_attr_string(&n->attrs, "act", "");
    trm_rounding none = {.dtype = TRM_DTYPE_NONE};

    if ((n->op != TRM_OP_TrmLinear && n->op != TRM_OP_TrmLinears) || n->post_count > 0 ||
        n->input_count < 2 || n->inputs[1] == TRM_NO_VALUE ||
        !trm_graph_is_constant(g, n->inputs[1]))
        return none;
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
        if (strcmp(act, acts[i].name) == 0)
            return rounding(&g->values[n->inputs[1]].desc,
                            trm_attr_int(&n->attrs, "transposed", 0) != 0,
                            trm_attr_int(&n->attrs, "unit", 0), acts[i].dtype);
    return none;
}

static void read_by(rows_of *rows, const trm_graph *g, const trm_node *n, trm_rounding_fn *rounding)
{
    for (int i = 0; i < n->input_count; i++) {
        rows_of *r = n->inputs[i] == TRM_NO_VALUE ? NULL : &rows[n->inputs[i]];
        trm_rounding as = {.dtype = TRM_DTYPE_NONE};

        if (r == NULL)
            continue;
        if (i == 0)
            as = wanted_by(g, n, rounding);
        if (as.dtype == TRM_DTYPE_NONE ||
            (r->as.dtype != TRM_DTYPE_NONE &&
             (as.dtype != r->as.dtype || as.row_bytes != r->as.row_bytes ||
              (as.sums != r->as.sums && as.sums != 0 && r->as.sums != 0)))) {
            r->stays = true;
            continue;
        }
        if (as.sums == 0)
            as.sums = r->as.sums;
        r->as = as;
    }
}

/* A norm of whole rows, not of each head. */
static bool is_of_rows(const trm_graph *g, const trm_node *n)
{
    const trm_tensor *x = &g->values[n->inputs[0]].desc;
    const trm_tensor *gain = &g->values[n->inputs[n->op == TRM_OP_TrmNorm ? 1 : 2]].desc;

    return x->rank == 2 && gain->rank == 1 && gain->dims[0] == x->dims[1];
}

static trm_status make(trm_graph *g, trm_node *n, const rows_of *rows, trm_rounding_fn *rounding)
{
    for (size_t i = 0; i < MAKERS; i++) {
        const rows_of *r;
        trm_tensor *desc;
        int v;

        if (n->op != makers[i].op || n->output_count <= makers[i].output)
            continue;
        v = n->outputs[makers[i].output];
        r = &rows[v];
        if ((n->op == TRM_OP_TrmNorm || n->op == TRM_OP_TrmAddNorm) && !is_of_rows(g, n))
            return TRM_OK;
        if (n->op == TRM_OP_TrmLinears && (trm_attr_find(&n->attrs, "gated") == NULL ||
                                           wanted_by(g, n, rounding).dtype != r->as.dtype))
            return TRM_OK;
        desc = &g->values[v].desc;
        if (r->stays || r->as.dtype == TRM_DTYPE_NONE || n->post_count > 0 ||
            desc->dtype != TRM_DTYPE_F32 || desc->rank != 2 ||
            (makers[i].forms & (r->as.dtype == TRM_DTYPE_U8 ? INTEGERS : FLOATS)) == 0)
            return TRM_OK;
        desc->dtype = r->as.dtype;
        if (r->as.dtype != TRM_DTYPE_U8)
            return trm_attr_set_string(&n->attrs, g->arena, "rounds",
                                       r->as.dtype == TRM_DTYPE_BF16 ? "bf16" : "f16");
        desc->dims[1] = r->as.row_bytes;
        TRM_CHECK(trm_attr_set_string(&n->attrs, g->arena, "rounds", "i8"));
        TRM_CHECK(trm_attr_set_int(&n->attrs, g->arena, "row_bytes", r->as.row_bytes));
        return trm_attr_set_int(&n->attrs, g->arena, "sums", r->as.sums);
    }
    return TRM_OK;
}

trm_status trm_pass_round_language(trm_graph *g, trm_rounding_fn *rounding)
{
    const char *asked = getenv("TRM_FUSE");
    trm_status st = TRM_OK;
    rows_of *rows;

    if (rounding == NULL || (asked != NULL && strcmp(asked, "off") == 0))
        return TRM_OK;
    for (int n = 0; n < g->node_count; n++) /* bodies may read any value */
        if ((trm_op_get(g->nodes[n].op)->flags & TRM_OPF_CONTROL) != 0)
            return TRM_OK;
    rows = trm_calloc((size_t)g->value_count + 1, sizeof(*rows));
    if (rows == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "rounding rows of language models");
    for (int i = 0; i < g->output_count; i++)
        rows[g->outputs[i]].stays = true;
    for (int n = 0; n < g->node_count; n++)
        read_by(rows, g, &g->nodes[n], rounding);
    for (int n = 0; n < g->node_count && st == TRM_OK; n++)
        st = make(g, &g->nodes[n], rows, rounding);
    trm_free(rows);
    return st != TRM_OK ? st : trm_graph_infer(g);
}
