/* Shared between the planner's files. */
#ifndef TRM_PARALLEL_PLANNER_IMPL_H
#define TRM_PARALLEL_PLANNER_IMPL_H

#include "parallel/host_part.h"
#include "parallel/planner.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_RANKS_MAX 4096 /* of one dimension of a layout */
#define TRMI_REPLICA_MAX 64 /* tensor x pipeline: the size of a communicator */

/* "1.20 GB", "34.5 MB", "0.3 kB" into buf [TRMI_BYTES_TEXT]; returns buf. */
#define TRMI_BYTES_TEXT 32
char *trmi_bytes_text(size_t bytes, char *buf);
/* The constants that weigh most, "'a' (50.0 MB), 'b' (20.0 MB)". bytes: [value_count] */
char *trmi_biggest_weights(const trm_graph *g, const size_t *bytes, char *buf, size_t room);

/* ---- planner_ledger.c: what a graph holds ---- */
/* A constant as kernels will hold it. */
typedef struct trmi_weights {
    size_t bytes;   /* packed, or as it is */
    size_t mapped;  /* of those, read where they lie in the mapped file */
    size_t staging; /* gathered for a moment, to be packed: no stretch of its source */
    size_t packed;  /* of `bytes`: a kernel's own copy */
} trmi_weights;
/* Of an accelerator, or of the host's memory. */
typedef struct trmi_holder {
    bool gpu;
    trm_dtype dtype; /* of dense operators */
} trmi_holder;
/* Of each node of a rank's graph, bytes of the KV cache that it wants for options->kv_tokens:
 * kv_bytes_out [node_count]. False: this is no language model's graph. */
bool trmi_ledger_kv(const trm_graph *local, const trm_plan_options *options, size_t *kv_bytes_out);
/* Of nodes [begin, end). weights_out: [value_count]; zero where none of them reads it. */
void trmi_ledger_weights(const trm_graph *local, const trmi_holder *holder, int begin, int end,
                         trmi_weights *weights_out);
/* Arena of one step of nodes with host_of[node] in [begin, end) of a finished graph with concrete
 * descs; host_of NULL: nodes themselves. */
trm_status trmi_ledger_activations(const trm_graph *finished, const trm_tensor *descs,
                                   const trmi_holder *holder, const int *host_of, int begin,
                                   int end, size_t *bytes_out);

/* ---- planner_division.c: the graph divided among a tensor group ---- */
typedef struct trmi_costs {
    struct trmi_costs *next;
    int busy_ranks;
    trm_link_kind link;
    size_t step_bytes;
    double *node_us;     /* [local->node_count] what fuses into another node costs nothing */
    double *dispatch_us; /* [local->node_count] of the executor */
    double compute_us, collective_us, all_dispatch_us;
} trmi_costs;

/* The largest shard's graph (the last rank's: no rank holds more), twice: as lowered, where cuts
 * are made, and finished, as it runs. */
typedef struct trmi_division {
    struct trmi_division *next;
    int tensor;
    size_t weight_max; /* what the search was told; 0: no limit */
    trm_status failed; /* nothing below is made, and why */
    char why[400];
    trm_arena *arena;
    trm_sharding *sharding; /* NULL: tensor is 1 */
    int *strategy;          /* [node_count] of the whole graph */
    bool exact;
    trm_graph *local, *finished;
    trm_tensor *descs, *finished_descs;
    trm_host_part host;    /* with an accelerator: what of `finished` runs beside it */
    int *host_of;          /* [finished->node_count] its node in `local` */
    int *run_here;         /* [local->node_count] nodes of `finished` that it became: 0 or 1 */
    trmi_weights *weights; /* [local->value_count] of all nodes */
    size_t *weight_bytes;  /* of a stage that reads them: of what is read packed in one place and as
                              it is in another (a tied table) the larger */
    size_t *value_bytes;   /* [local->value_count] crossing a cut */
    bool language;         /* a language model */
    size_t *kv_bytes;      /* [local->node_count] of the KV cache */
    size_t all_kv_bytes;
    size_t input_bytes, output_bytes; /* of a step */
    size_t activation_bytes;          /* of all of it */
    size_t slot_bytes;                /* the largest contribution to a collective */
    trmi_costs *costs;
} trmi_division;

typedef struct trmi_planner {
    trm_graph *g;
    const trm_plan_options *options;
    trm_arena *arena;
    trm_tensor *inputs, *descs;
    int64_t batch;   /* records of a step */
    size_t limit;    /* of memory, a rank */
    bool free_batch; /* records can be batched, so steps follow each other */
    trmi_division *divisions;
} trmi_planner;

/* ---- planner.c ---- */
/* The smallest replica that would fit; found_out false: none of up to 64 ranks. */
trm_status trmi_smallest_fit(trmi_planner *p, trm_candidate *fit_out, bool *found_out);
trm_status trmi_planner_open(trmi_planner *p, trm_graph *g, const trm_plan_options *options);
void trmi_planner_close(trmi_planner *p);

/* Ranks [0, ranks) on the host that has most of them, and how many hosts they are on. */
int trmi_ranks_of_host(const trm_plan_options *options, int ranks, int *hosts_out);
/* Collectives go over host memory. */
bool trmi_is_staged(const trm_plan_options *options);
/* Ranks of a host that compute at full speed at the same time; 1e9: all. */
double trmi_host_room(const trm_plan_options *options);
trmi_holder trmi_holder_of(const trm_plan_options *options);
/* What runs on the host in the plan's graph of shard 0; zeros on a CPU. */
trm_status trmi_plan_host_part(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                               trm_arena *arena, trm_host_part *part_out);
/* Ranks of the host that can compute at the same time. */
int trmi_busy_ranks(const trm_plan_options *options, int ranks);

/* Found again where it was made before; `failed` is set in it where the search found nothing (that
 * is no error). `busy_ranks`, `link`: what the search assumes. */
trm_status trmi_division_get(trmi_planner *p, int tensor, size_t weight_max, int busy_ranks,
                             trm_link_kind link, trmi_division **division_out);
/* `stages`: the graph is cut in so many, which decides how much of it a rank's caches meet. */
trm_status trmi_division_costs(const trmi_planner *p, trmi_division *d, int busy_ranks,
                               trm_link_kind link, int stages, trmi_costs **costs_out);
/* One node of `finished` with the shapes `descs`; in, out: room for its tensors. */
double trmi_division_node_us(const trm_cost_context *c, const trmi_division *d,
                             const trm_tensor *descs, const trm_node *node, trm_tensor *in,
                             trm_tensor *out);
void trmi_divisions_destroy(trmi_division *d);
/* One shard's graph, not finished. */
trm_status trmi_division_lower(trm_graph *g, const trm_sharding *s, const int *strategy, int shard,
                               trm_graph **local_out);

/* ---- planner_predict.c: one layout ---- */
/* Fills in a candidate (its `parallel` is given); stages_out and division_out where it fits. */
trm_status trmi_predict(trmi_planner *p, trm_candidate *c, trm_stages *stages_out,
                        trmi_division **division_out);
/* The ledgers of one shard's stages, into ledger[stage * tensor + shard]. */
trm_status trmi_predict_shard(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                              int micro, int shard, trm_ledger *ledger);

/* The ledger of the fullest rank of a division's stages. */
trm_status trmi_fullest_ledger(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                               int micro, trm_ledger *ledger_out);

/* ---- planner_phases.c ---- */
/* Fills in c->phases; nothing where none are asked for. `link`: of the tensor group. */
trm_status trmi_predict_phases(const trmi_planner *p, trmi_division *d, const trm_stages *s,
                               trm_link_kind link, trm_candidate *c);

/* ---- plan_print_phases.c ---- */
/* Whether the choice has times of phases. */
bool trmi_has_phases(const trm_plan *plan, const trm_plan_options *options);
void trmi_print_phase_candidates(const trm_plan *plan, const trm_plan_options *options, FILE *file);
void trmi_print_phases(const trm_plan *plan, const trm_plan_options *options, FILE *file);
/* `, "phases": [...]` */
void trmi_phases_json(const trm_plan_options *options, const trm_candidate *c, FILE *file);

/* ---- planner_memory.c ---- */
bool trmi_is_language(const trm_graph *g);
/* "weights 3.1 GB, the KV cache 1.2 GB, ...": the biggest three. */
void trmi_biggest_items(const trm_ledger *l, char *text, size_t room);

/* ---- plan_graph.c ---- */
/* The shard's graph as the plan has it, not cut; `sharding_out` NULL where the tensor size is 1. It
 * and `arena` (for the shapes it stands on) outlive nothing: both are the caller's. */
trm_status trmi_plan_sharding(const trm_plan *plan, trm_graph *g, trm_arena *arena,
                              trm_sharding **sharding_out);
trm_status trmi_plan_lower(const trm_plan *plan, trm_graph *g, int shard, trm_graph **local_out);

#ifdef __cplusplus
}
#endif
#endif
