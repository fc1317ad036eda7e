/* Inside the executor; engine.h has the contract.
 *
 * A run is a chain of segments. A segment is a contiguous range of nodes whose shapes are all known
 * when it is bound: it ends before a node that needs a tensor's value on the host (fetched, then
 * part of the next segment's key) and after a node whose output shape depends on data. The dims and
 * values learned are the key under which the next segment is found among the children, or bound. A
 * model with static shapes is one segment.
 *
 * Slots are buffers of one run: numbered along the chain, so that a segment can read what earlier
 * ones left. Each slot's pointer is set when its segment starts: an offset in the arena of the
 * segment's level (levels count along the chain, so segments of one level are never alive together
 * and share one arena), a graph input, a fixed pointer (constants), or a growable buffer that a
 * data-dependent node fills. */
#ifndef TRM_WORKER_ENGINE_IMPL_H
#define TRM_WORKER_ENGINE_IMPL_H

#include "base/arena_plan.h"
#include "worker/engine.h"

enum { TRMI_NO_SLOT = -1 };
#define TRMI_FOREVER INT32_MAX

/* Where a tensor lies and where a step runs. On a device with memory of its own, operators that it
 * has no kernel for run on its host device, between pinned host memory; copies are steps. A device
 * whose memory is the host's has one place, DEVICE. */
typedef enum trmi_place { TRMI_DEVICE, TRMI_HOST, TRMI_PLACES } trmi_place;

typedef enum trmi_source {
    TRMI_SOURCE_ARENA,      /* arena of the segment's level + storage offset */
    TRMI_SOURCE_HOST_ARENA, /* the same in the host place */
    TRMI_SOURCE_INPUT,      /* graph input `index` where the device reads it */
    TRMI_SOURCE_HOST_INPUT, /* as the caller gave it */
    TRMI_SOURCE_FIXED,      /* `fixed` */
    TRMI_SOURCE_DYNAMIC,    /* dynamic buffer `index` */
    TRMI_SOURCE_SLOT        /* same memory as slot `index` of an earlier segment */
} trmi_source;

typedef struct trmi_slot {
    trmi_source source;
    int index; /* input, dynamic buffer or slot; ARENA: storage of this segment */
    const void *fixed;
} trmi_slot;

/* A stretch of arena; several slots share one (views, in-place results). Lifetimes are node
 * indices. */
typedef trm_lifetime trmi_storage;

typedef struct trmi_state {
    trm_tensor desc; /* concrete once bound; data: host value where known */
    int slot;
    trmi_place place; /* of the slot */
} trmi_state;

/* A copy of a value in another layout or place. */
typedef struct trmi_alternative {
    int value, slot;
    trm_layout layout;
    trmi_place place;
} trmi_alternative;

/* Device memory of a value that was known while binding. */
typedef struct trmi_fixed {
    struct trmi_fixed *next;
    void *memory;
} trmi_fixed;

/* Steps [begin, end) of a segment that only enqueue: after their first run they are captured and
 * from then on launched as one. A capture holds for the pointers it was made with; inputs
 * alternate between two buffers, hence two. */
typedef struct trmi_stretch {
    int begin, end;
    bool refused;   /* could not be captured */
    int recaptured; /* times that addresses had changed, since buffers moved last */
    uint64_t moves; /* the engine's, then */
    uint64_t runs;
    struct {
        trm_capture *capture;
        uint64_t pointers; /* a hash of them */
    } taken[2];
} trmi_stretch;

typedef struct trmi_step {
    trm_kernel *kernel; /* NULL: control flow, run by trmi_control_run */
    trmi_place place;
    int node; /* TRM_NO_VALUE for reorders */
    int in_count, out_count;
    int *in_slots, *out_slots; /* TRMI_NO_SLOT: NULL pointer */
    const void **in;           /* scratch for the pointers */
    void **out;
    trm_tensor *in_descs; /* control flow only */
    int *out_dynamic; /* dynamic buffers of the outputs: data-dependent nodes and control flow only
                       */
    trm_dtype *out_dtypes; /* with out_dynamic */
    bool collective;       /* the group runs it together */
    int window_slot; /* this output goes straight into the window of the collective that reads it,
                        where there is room; TRMI_NO_SLOT: none does */
    size_t window_bytes;
    uint64_t ns, runs; /* profile */
} trmi_step;

typedef struct trmi_segment {
    trm_arena *arena; /* holds the segment and all its arrays */
    struct trmi_segment *parent, *children, *next;
    int level;
    unsigned char *key;
    size_t key_bytes;
    uint64_t used; /* engine clock */
    int node_begin, node_end;
    bool last, linked; /* linked: a child of its parent, counted */
    trmi_step *steps;
    int step_count, step_max;
    trmi_slot *slots; /* slot ids slot_begin.. */
    int slot_begin, slot_count, slot_max;
    trmi_storage *storages[TRMI_PLACES];
    int storage_count[TRMI_PLACES], storage_max[TRMI_PLACES];
    trmi_fixed *fixed;
    trmi_stretch *stretches; /* NULL: the device captures nothing */
    int stretch_count;
    trmi_alternative *alternatives;
    int alternative_count, alternative_max;
    size_t arena_bytes[TRMI_PLACES], workspace_bytes[TRMI_PLACES];
    size_t copied_bytes; /* between places, a run */
    int dynamic_begin, dynamic_count;
    int *learned; /* values whose dims are known after the run */
    int learned_count;
    int *fetch; /* values whose bytes are fetched to the host after the run */
    int fetch_count, fetch_max;
    trmi_state *state; /* [value_count] at the end of the segment */
    int *output_slots; /* last segment: [graph outputs] */
} trmi_segment;

typedef struct trmi_buffer {
    void *memory;
    size_t bytes;
    trmi_place
        place;       /* of dynamic buffers: of what the last run put there; else fixed by its use */
    trm_tensor desc; /* dynamic buffers: what the last run put there */
} trmi_buffer;

/* A step under way on a device with memory of its own. */
typedef struct trmi_flight {
    trmi_buffer *host_in, *device_in;            /* [graph inputs] */
    trmi_buffer *host_out, *device_out;          /* [graph outputs] */
    bool filled;                                 /* its device_in hold inputs of shapes `held` */
    trm_tensor *held;                            /* [graph inputs] */
    trm_tensor *outputs;                         /* [graph outputs] what collect hands over */
    trmi_buffer host_notes;                      /* what kernels noted */
    size_t notes;                                /* bytes of them */
    trm_event *uploaded, *computed, *downloaded; /* on their streams */
} trmi_flight;
#define TRMI_FLIGHTS 2

struct trm_engine {
    trm_graph *graph;
    trm_device *device;
    trm_engine_options options;
    uint64_t id; /* high half of weight keys */
    uint64_t clock;
    int *last_use; /* [value_count]: last node that reads it; TRMI_FOREVER for outputs; -1 unused */
    void **constants; /* [value_count] device memory of constants, where it is not the host's */
    size_t constant_bytes; /* in them */
    trmi_segment root;     /* no steps; children are the programs */
    int segment_count;
    trmi_buffer *arenas[TRMI_PLACES]; /* by level */
    int level_count;
    trmi_buffer *dynamics;
    int dynamic_max;
    trmi_buffer workspace[TRMI_PLACES];
    uint64_t moves; /* times that a buffer became another */
    /* a device with memory of its own: */
    trm_event *settled;
    trm_stream *stream, *up, *down;    /* where steps run, inputs come and outputs go */
    trmi_flight flights[TRMI_FLIGHTS]; /* a ring */
    int flight_first, flight_count;
    int64_t oldest_us;        /* since when the first of them is the oldest */
    bool hold;                /* trm_engine_hold_inputs */
    bool busy;                /* something was enqueued that the host has not waited for */
    trm_tensor *staged;       /* [graph inputs] */
    void **placed;            /* [graph inputs] the caller's device memory, or NULL */
    trmi_place *out_places;   /* [graph outputs] */
    const trm_tensor *caller; /* inputs as the caller gave them; otherwise as `inputs` */
    void **slot_pointers;
    int slot_max;
    unsigned char *key;
    size_t key_bytes, key_max;
    trm_evaluator evaluator;
    trm_engine **bodies; /* engines of body graphs, made at first use */
    const trm_graph **body_graphs;
    int body_count;
    const trm_tensor *inputs; /* of the running step */
    trmi_buffer *copies;      /* [graph outputs]: of those that are inputs */
    trmi_segment *ran;        /* last segment of the last run: for stats */
    bool talks;               /* the graph has collectives: runs are in step with the group's */
    bool *plain_collectives;  /* [node_count] those whose ranks would have chosen other layouts */
};

/* bind.c: binds what follows `parent` (dims of learned values are in the dynamic buffers, bytes of
 * fetched ones in the engine's key). On success the segment is linked as a child of `parent`. */
trm_status trmi_bind(trm_engine *e, trmi_segment *parent, trmi_segment **segment_out);
void trmi_segment_destroy(trm_engine *e, trmi_segment *segment); /* with its children */

/* engine_check.c: trm_engine_check for any graph; last_use as the engine's. */
trm_status trmi_inputs_check(const trm_graph *g, const int *last_use, const trm_tensor *inputs);

/* collective.c. prepare: a kernel for a collective, as the device's for others. */
trm_status trmi_collective_prepare(trm_engine *e, int node, trm_op_desc *desc,
                                   trm_kernel **kernel_out);
/* collective_device.c: the same over the device's own memory, from what prepare has made, which it
 * takes on success. UNSUPPORTED: too many pieces. */
trm_status trmi_collective_on_device(trm_engine *e, const trm_op_desc *desc, trm_kernel *host_form,
                                     trm_kernel **kernel_out);
trm_layout trmi_collective_layout(const trm_kernel *collective);
bool trmi_collective_talks(const trm_graph *g);
/* A rank must not fail alone: all get the failure of the lowest failing one, or OK. */
trm_status trmi_collective_agree(trm_engine *e, trm_status mine);
/* After binding: do all ranks' collectives have the same layouts? Where not they are made plain,
 * and *again_out says that the segment must be bound anew. */
trm_status trmi_collective_layouts(trm_engine *e, const trmi_segment *s, bool *again_out);

/* While binding: finds the steps that can write straight into the communicator's window. */
void trmi_collective_places(trm_engine *e, trmi_segment *s);

/* engine_run.c. The chain of segments for these inputs; outputs are where the last segment leaves
 * them (places_out: [graph outputs]), enqueued if the device is asynchronous. */
trm_status trmi_engine_execute(trm_engine *e, const trm_tensor *device_inputs, trm_tensor *outputs,
                               trmi_place *places_out);
/* A step that this rank cannot run: it binds with the others where they do, takes part in what they
 * do together, and returns what they agree on. `why` is not OK, its message the thread's. */
trm_status trmi_engine_stand_in(trm_engine *e, const trm_tensor *device_inputs, trm_status why);
/* One step, enqueued or run. */
trm_status trmi_step_run(trm_engine *e, trmi_step *step);
/* The host waits for what was enqueued. */
trm_status trmi_engine_settle(trm_engine *e);

/* engine_capture.c: stretches of steps as captured graphs. */
trm_status trmi_stretches_find(trm_engine *e, trmi_segment *s);
trm_status trmi_stretch_run(trm_engine *e, trmi_segment *s, trmi_stretch *t);
void trmi_stretches_destroy(trm_engine *e, trmi_segment *s);

/* engine_device.c: inputs and outputs of a device with memory of its own. */
trm_status trmi_flights_create(trm_engine *e);
void trmi_flights_destroy(trm_engine *e);
/* The host waits for all that was enqueued on the engine's stream: with a deadline, and not longer
 * than the group is whole. */
trm_status trmi_engine_wait(trm_engine *e);
trm_status trmi_flight_submit(trm_engine *e, const trm_tensor *inputs);
trm_status trmi_flight_give_up(trm_engine *e, const trm_tensor *inputs, trm_status why);
trm_status trmi_flight_collect(trm_engine *e, trm_tensor *outputs);
trm_status trmi_flight_ready(trm_engine *e, bool *ready_out);

/* copy.c: a kernel that copies `bytes` to the other place. */
trm_status trmi_copy_prepare(trm_device *device, trmi_place to, size_t bytes,
                             trm_kernel **kernel_out);

/* engine.c */
trm_status trmi_buffer_grow(trm_engine *e, trmi_place place, trmi_buffer *b, size_t bytes);
void trmi_buffer_free(trm_engine *e, trmi_place place, trmi_buffer *b);
trm_status trmi_dynamic_alloc(trm_engine *e, int dynamic, trmi_place place, trm_dtype dtype,
                              int rank, const int64_t *dims, void **data_out);
static inline bool trmi_engine_splits(const trm_engine *e) /* two places */
{
    return !e->device->host_memory;
}
trm_status trmi_body_engine(trm_engine *e, trm_graph *body, trm_engine **engine_out);

/* control.c: runs If, Loop or Scan. in: plain device tensors of the node's inputs; outputs go to
 * the step's dynamic buffers. */
trm_status trmi_control_run(trm_engine *e, const trm_node *node, const trm_tensor *in,
                            const int *out_dynamic);

#endif
