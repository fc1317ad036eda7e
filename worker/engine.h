/* The executor of a graph on one device: binds concrete shapes, prepares kernels, plans buffers by
 * lifetime, runs.
 *
 * A program is bound once per shape bucket (the dims of the inputs, and the values of inputs that
 * decide shapes) and cached, least recently used ones dropped. A repeated step allocates nothing.
 * Where a shape depends on data, the program is cut in segments; the next one is bound when the
 * shape is known. One owner: the executor thread. */
#ifndef TRM_WORKER_ENGINE_H
#define TRM_WORKER_ENGINE_H

#include "kernels/device.h"
#include "model/graph.h"
#include "model/passes/passes.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_engine trm_engine;

typedef struct trm_engine_options {
    int programs_max;  /* cached shape buckets, 0: 16 */
    bool profile;      /* collect time per node: trm_engine_profile. Steps then run one by one */
    bool captures_off; /* launch every kernel by itself (TRM_GRAPHS=off does the same) */
    uint64_t weight_space; /* names this graph's constants among the processes that share the
                              device's weight store; 0: none of them is shared */
    /* The tensor group whose ranks run this graph together; borrowed. NULL: a graph with
     * collectives (other than TrmShard) is refused. With it, ranks of the group bind and run in
     * step, and a step that fails on one of them fails on all. */
    trm_comm *comm;
    /* The same ranks' devices, ready; borrowed. NULL: collectives go over host memory. */
    struct trm_device_group *group;
} trm_engine_options;

/* `graph` has been through trm_pass_all and outlives the engine; `device` too. */
TRM_MUST_USE trm_status trm_engine_create(trm_graph *graph, trm_device *device,
                                          const trm_engine_options *options,
                                          trm_engine **engine_out);
void trm_engine_destroy(trm_engine *engine);

/* Runs one step. inputs: [graph->input_count] plain host tensors in the graph's input order;
 * outputs: [graph->output_count], filled with plain host tensors whose data the engine owns until
 * the next run. Inputs are checked against the graph: dtype, rank, constant dims, equal symbols
 * (INVALID_ARG names the input and what it wants). */
TRM_MUST_USE trm_status trm_engine_run(trm_engine *engine, const trm_tensor *inputs,
                                       trm_tensor *outputs);

/* On a device with memory of its own steps overlap: while one computes, the next one's inputs are
 * uploaded and the last one's outputs come back. `depth` may be under way (1: only run works,
 * submit is UNSUPPORTED); they end in the order in which they were submitted. Inputs may be reused
 * when submit returns; outputs stay until the next-but-one submit. Submit checks as run does and
 * fails with nothing under way; CANCELLED: depth steps are under way, or none is. DEVICE: the
 * device is lost. */
int trm_engine_depth(const trm_engine *engine);
int trm_engine_depth_of(const trm_device *device); /* of any engine there */
TRM_MUST_USE trm_status trm_engine_submit(trm_engine *engine, const trm_tensor *inputs);
TRM_MUST_USE trm_status trm_engine_collect(trm_engine *engine, trm_tensor *outputs);
/* Whether the oldest step has ended, so that collect would not wait; does not wait itself.
 * CANCELLED: none is under way. DEVICE, COMM: it will not end, as collect would say. */
TRM_MUST_USE trm_status trm_engine_ready(trm_engine *engine, bool *ready_out);

/* Binds the program of inputs of these shapes (their data is not looked at), so that its buffers
 * and packed weights are there: without running it, and where shapes depend on data only its
 * beginning. With a group: collective. */
TRM_MUST_USE trm_status trm_engine_bind(trm_engine *engine, const trm_tensor *inputs);

/* Of a rank of a group that could not make its inputs: the others are in the step and wait for it.
 * It takes part in their sums with whatever lies there, and all ranks' steps fail with `why`, whose
 * message is the thread's. `inputs`: shapes; those that a collective itself reads have data.
 * Nothing is under way after it but what was before. Without a group: returns `why`. */
TRM_MUST_USE trm_status trm_engine_give_up(trm_engine *engine, const trm_tensor *inputs,
                                           trm_status why);

/* To measure a device without its link: from now on steps take the inputs that the device already
 * has, if any step has brought some of the same shapes; what submit is given is not looked at then.
 */
void trm_engine_hold_inputs(trm_engine *engine, bool hold);

/* Of a device with memory of its own: input i is from now on read at `memory` there (NULL: uploaded
 * again), which the caller fills on the engine's stream before it submits; what submit is given for
 * it tells shape and dtype. The memory stays until the engine ends or is told of another. */
void trm_engine_place_input(trm_engine *engine, int input, void *memory);
trm_stream *trm_engine_stream(const trm_engine *engine); /* NULL: the device's own */

/* Whether steps of a program are launched as captured graphs from its second run on. */
bool trm_engine_captures(const trm_engine *engine);

/* Checks as above without running. */
TRM_MUST_USE trm_status trm_engine_check(const trm_engine *engine, const trm_tensor *inputs);

typedef struct trm_engine_stats {
    size_t arena_bytes; /* activations: the arenas of all levels */
    int programs;       /* bound now */
    int segments;       /* of all programs: more than programs where shapes depend on data */
    int kernels;        /* steps of the program last run */
    /* a device with memory of its own: */
    int host_kernels;       /* of those steps, run on the host device */
    size_t copied_bytes;    /* between host and device in the last run, inputs and outputs apart */
    int captures;           /* stretches of steps that are launched as one */
    size_t constant_bytes;  /* constants in device memory, beside packed weights */
    size_t workspace_bytes; /* of device memory */
} trm_engine_stats;
void trm_engine_get_stats(const trm_engine *engine, trm_engine_stats *stats_out);
/* Operators of the last run that ran on the host device for want of a kernel, "Unique, If"; ""
 * where none did. */
void trm_engine_host_operators(const trm_engine *engine, char *text, size_t bytes);
/* Prints time per kernel of the last program to `file`, most expensive first. */
void trm_engine_profile(const trm_engine *engine, void *file);

/* Evaluator for constant folding on `device` (host memory only). Lives until trm_evaluator_destroy.
 */
TRM_MUST_USE trm_status trm_evaluator_create(trm_device *device, trm_evaluator *evaluator_out);
void trm_evaluator_destroy(trm_evaluator *evaluator);

#ifdef __cplusplus
}
#endif
#endif
