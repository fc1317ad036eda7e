/* The placement search: one strategy a node, so that compute plus collectives is least under a
 * memory limit.
 *
 * A dynamic program over the topological order. Its state is, for every value still to be read,
 * the set of forms it exists in; a node tries each possible strategy, pays for the forms it wants
 * and does not find (trm_form_change), and leaves its outputs in the forms it yields. Forms made
 * once are kept, so a second reader pays nothing. Exact while the states fit the beam (on chains,
 * and on most networks: few values are alive at a time); beyond it the cheapest states survive.
 * Memory enters as a price per byte of weights, raised until the limit is met (Lagrange), so the
 * result meets it or the error says what the least possible is. */
#ifndef TRM_PARALLEL_PLACEMENT_H
#define TRM_PARALLEL_PLACEMENT_H

#include "parallel/rates.h"
#include "parallel/sharding.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Costs, as callbacks so that tests can make their own. */
typedef struct trm_placement_costs {
    void *ctx;
    /* microseconds of a node under a strategy, on the rank with the largest share */
    double (*node_us)(void *ctx, const trm_sharding *s, int node, int strategy);
    /* microseconds of making a form of `value` by change.op */
    double (*change_us)(void *ctx, const trm_sharding *s, int value, trm_change change,
                        trm_form want);
} trm_placement_costs;

/* Costs from rates. `cost` and its rates outlive it. A node that will become a post-op of its
 * producer costs nothing where no collective comes between. */
TRM_MUST_USE trm_status trm_placement_costs_create(const trm_sharding *s,
                                                   const trm_cost_context *cost,
                                                   trm_placement_costs *costs_out);
void trm_placement_costs_destroy(trm_placement_costs *costs);

typedef struct trm_placement_options {
    size_t weight_bytes_max; /* per rank; 0: no limit */
    int beam;                /* states kept; 0: 4096; fewer once many steps have needed as many */
} trm_placement_options;

typedef struct trm_placement {
    int *strategy; /* [node_count], from trm_malloc */
    double compute_us, collective_us;
    size_t weight_bytes; /* constants of the rank that holds most */
    int collectives;     /* changes of form that talk, and reductions and trees inside nodes, whose
                            time is in compute_us */
    bool exact; /* the beam was never full; with weight_bytes_max a price decides, which may leave a
                   gap even so */
} trm_placement;

/* NO_MEMORY: weight_bytes_max cannot be met; the message has the least possible and the biggest
 * items. */
TRM_MUST_USE trm_status trm_placement_search(const trm_sharding *s,
                                             const trm_placement_costs *costs,
                                             const trm_placement_options *options,
                                             trm_placement *placement_out);
void trm_placement_fini(trm_placement *p);
/* Cost of given strategies, by the same accounting (brute force in tests, forced plans). */
TRM_MUST_USE trm_status trm_placement_cost(const trm_sharding *s, const trm_placement_costs *costs,
                                           trm_placement *placement_inout);

/* "whole", the name of the axis, or "linear". */
const char *trm_strategy_name(const trm_sharding *s, int node, int strategy);
/* A summary, then a line a node with its strategy and the forms it yields; before it the changes of
 * form it is the first to need. costs may be NULL. */
TRM_MUST_USE trm_status trm_placement_print(const trm_sharding *s, const trm_placement_costs *costs,
                                            const trm_placement *p, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
