/* What operators and links cost on a machine: measured once (a probe of seconds), cached per
 * machine, or taken from a datasheet for devices that are not here. The cost model of the planner.
 *
 * A node's time is looked up by what it does: multiply-adds and bytes of its concrete shapes, with
 * measured efficiencies by operator class and size (dense products by M, N, K; convolutions by
 * kind (1x1, 3x3, other, depthwise, grouped), channels and pixels; everything else by bytes), for
 * each thread count probed. Read-only once made: shared. */
#ifndef TRM_PARALLEL_RATES_H
#define TRM_PARALLEL_RATES_H

#include "kernels/device.h"
#include "model/graph.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_rates trm_rates;

/* Rates of this machine's CPU: from the cache ($TRM_CACHE, else $XDG_CACHE_HOME/trireme, else
 * ~/.cache/trireme; a key of CPU model, CPUs allowed, instruction set, program version), else
 * measured with `device` and stored (a cache that cannot be written is a log line). `refresh`
 * measures anew. A torn or foreign cache file is ignored. `device` may be NULL: then only cached or
 * built-in rates (a conservative CPU table) are given, and trm_rates_source says which. */
TRM_MUST_USE trm_status trm_rates_cpu(trm_device *device, bool refresh, trm_rates **rates_out);
/* From a description: "cpu:16" (cores), "cuda:80GiB" (the usual card of this memory), "cuda:h200"
 * (a card by name): data-sheet numbers, for planning on machines that are not here. The source says
 * which card was taken. INVALID_ARG lists the forms and names. */
TRM_MUST_USE trm_status trm_rates_describe(const char *device, trm_rates **rates_out);
/* Rates of a device. A CPU: as trm_rates_cpu. Another: from the cache, else its card's data sheet
 * refined by a probe of at most 2 s (TRM_PROBE=quick: of small sizes) and stored; `refresh`
 * measures anew. */
TRM_MUST_USE trm_status trm_rates_of_device(trm_device *device, bool refresh,
                                            trm_rates **rates_out);
/* The same, but nothing is measured: from the cache, else the data sheet or built in. */
TRM_MUST_USE trm_status trm_rates_known(trm_device *device, trm_rates **rates_out);
void trm_rates_destroy(trm_rates *r);
const char *trm_rates_source(const trm_rates *r);  /* "measured 2026-11-21", "cache", "built in" */
size_t trm_rates_memory_bytes(const trm_rates *r); /* of the device */
/* What of `bytes` of device memory a rank's ledger may fill: less what the context and the
 * libraries take on an accelerator (600 MiB; a tenth where that is less). */
size_t trm_rates_usable_bytes(const trm_rates *r, size_t bytes);
bool trm_rates_is_gpu(const trm_rates *r);            /* a device with memory of its own */
void trm_rates_print(const trm_rates *r, FILE *file); /* a table for people */

/* Where the ranks of a group lie, as far as the cost of talking goes. */
typedef enum trm_link_kind { TRM_LINK_HOST, TRM_LINK_NETWORK, TRM_LINK_KINDS } trm_link_kind;

/* What shapes do not say of a language model's step. */
typedef struct trm_step_load {
    int64_t sequences; /* that share its rows evenly */
    double seen;       /* positions that a row attends to, on average */
} trm_step_load;

typedef struct trm_cost_context {
    const trm_rates *rates;
    int threads;        /* of each rank */
    int busy_ranks;     /* ranks computing on this host at the same time: they share its memory
                           bandwidth and caches; 1: alone */
    trm_link_kind link; /* of a collective's group */
    bool staged; /* collectives between accelerators go over host memory: ranks share one, or it has
                    no links */
    trm_dtype dtype;   /* F32, BF16 or F16: of dense products */
    size_t step_bytes; /* weights and activations that a rank's step goes through: what fits a cache
                          is read faster. 0: much more than any cache */
    const trm_step_load *load; /* of a language model, on an accelerator; NULL: not known */
    trm_dtype kv_dtype;        /* of its cache; NONE: F32 */
} trm_cost_context;

/* Microseconds of one node with concrete shapes (`in`, `out` as trm_op_desc has them: local shapes
 * where the node is split; views are 0). `fused`: the node will be absorbed as a post-op.
 * Collective operators are costed by the next function. */
double trm_cost_node_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                        const trm_tensor *out, bool fused);

typedef enum trm_collective {
    TRM_COLLECTIVE_ALLREDUCE,
    TRM_COLLECTIVE_ALLGATHER,
    TRM_COLLECTIVE_REDUCE_SCATTER,
    TRM_COLLECTIVE_ALLTOALL,
    TRM_COLLECTIVE_SHARD,  /* local */
    TRM_COLLECTIVE_MESSAGE /* one point-to-point message */
} trm_collective;
/* Microseconds; bytes: of the whole (unsplit) tensor. */
double trm_cost_collective_us(const trm_cost_context *c, trm_collective kind, int ranks,
                              size_t bytes);
/* Fixed cost of a step: dispatch per node, waking followers. */
double trm_cost_step_us(const trm_cost_context *c, int nodes, int replica_ranks);
/* Bytes that go to an accelerator and come back, in `copies` copies; 0 on a CPU. */
double trm_cost_copies_us(const trm_cost_context *c, int copies, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
