/* The order of things: what happens before the planner looks at a graph, and what after. */
#include "model/passes/passes.h"
#include "model/passes/rewrite.h"
#include "model/shape/shape.h"

#include <stdlib.h>
#include <string.h>

typedef trm_status (*step)(trmi_rw *rw);

/* Attention before post-ops (the mask's addition must still be a node), activations before post-ops
 * (they become some), channels before post-ops (a bias is cheaper). */
static const step before_plan[] = {trmi_fuse_views,     trmi_fuse_activations, trmi_fuse_norms,
                                   trmi_fuse_attention, trmi_fuse_channels,    NULL};
static const step after_plan[] = {trmi_fuse_posts, NULL};
static const step language[] = {trmi_fuse_language, NULL};

static trm_status fuse_graph(trm_graph *g, const void *ctx)
{
    trmi_rw rw;
    trm_status st;

    TRM_TRY(st, trmi_rw_init(&rw, g), done);
    for (const step *s = ctx; *s != NULL; s++) {
        TRM_TRY(st, (*s)(&rw), done);
        TRM_TRY(st, trm_graph_sort(g), done); /* what a step left over must not count as a reader */
        TRM_TRY(st, trmi_rw_recount(&rw), done);
    }
done:
    trmi_rw_fini(&rw);
    return st;
}

trm_status trm_pass_fuse(trm_graph *g)
{
    return trmi_each_graph(g, fuse_graph, before_plan, 0);
}

trm_status trm_pass_posts(trm_graph *g)
{
    return trmi_each_graph(g, fuse_graph, after_plan, 0);
}

trm_status trm_pass_fuse_language(trm_graph *g)
{
    return trmi_each_graph(g, fuse_graph, language, 0);
}

trm_status trm_pass_prepare(trm_graph *g, const trm_evaluator *evaluator)
{
    TRM_CHECK(trm_graph_infer(g));
    /* what folds makes shapes known, which lets more fold: a few rounds reach the end */
    for (int round = 0, before = -1; round < 4 && before != g->node_count; round++) {
        before = g->node_count;
        TRM_CHECK(trm_pass_fold(g, evaluator));
        TRM_CHECK(trm_graph_infer(g));
    }
    TRM_CHECK(trm_pass_fuse(g));
    return trm_graph_infer(g);
}

trm_status trm_pass_finish(trm_graph *g)
{
    const char *asked = getenv("TRM_FUSE");

    TRM_CHECK(trm_pass_posts(g));
    if (asked == NULL || strcmp(asked, "off") != 0)
        TRM_CHECK(trm_pass_fuse_language(g));
    TRM_CHECK(trm_pass_tie_language(g));
    return trm_graph_infer(g);
}

trm_status trm_pass_all(trm_graph *g, const trm_evaluator *evaluator)
{
    TRM_CHECK(trm_pass_prepare(g, evaluator));
    return trm_pass_finish(g);
}
