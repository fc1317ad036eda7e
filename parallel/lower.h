/* One rank's graph: the nodes of the whole graph with local shapes and weights, and collectives
 * where forms differ. Every rank's graph has the same nodes in the same order; only extents,
 * weight ranges and rank attributes differ.
 *
 * Values keep their names; a form made by a change is "<name>:whole", ":partial", ":split<d>".
 * Graph inputs and outputs are whole. Constants of the result point into the sources of the whole
 * graph's (trm_graph_add_part), nothing is read. */
#ifndef TRM_PARALLEL_LOWER_H
#define TRM_PARALLEL_LOWER_H

#include "parallel/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* strategy: [node_count] of s->graph. The result is sorted and inferred (symbols as in s->graph,
 * whose symbol numbers and bodies it shares: s->graph outlives it), not finished. */
TRM_MUST_USE trm_status trm_lower(const trm_sharding *s, const int *strategy, int rank,
                                  trm_graph **local_out);

/* A stretch of a graph's nodes as a graph of its own: pipeline stages. Inputs: what nodes
 * [begin, end) read, or later ones read, of what came before (graph inputs and results), in value
 * order; outputs: results, and passed-on inputs, that later nodes or the caller read, in value
 * order. A stage that begins at 0 has all of g's inputs, one that ends at node_count g's outputs,
 * both in g's order. So the outputs of a stage are the inputs of the next, as long as the first and
 * the last stage have nodes. Value names stay. `g` outlives it (files, symbols, bodies). */
TRM_MUST_USE trm_status trm_lower_cut(const trm_graph *g, int begin, int end, trm_graph **cut_out);

#ifdef __cplusplus
}
#endif
#endif
