/* The messages between the coordinator and its replicas: msgpack, versioned, one message a frame.
 * docs/protocol.md describes them for other programs.
 *
 * A message is an array [version, kind, fields...]. A reader refuses another version and another
 * number of fields than its own; there is no optional tail to guess at. */
#ifndef TRM_BASE_WIRE_H
#define TRM_BASE_WIRE_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_WIRE_VERSION 2

/* Limits a decoder holds a message to, whatever it claims. */
#define TRM_WIRE_RECORDS_MAX 4096   /* of one batch or result message */
#define TRM_WIRE_TENSORS_MAX 256    /* of one record or result */
#define TRM_WIRE_LABELS_MAX 65536   /* of one result */
#define TRM_WIRE_TEXT_MAX 4096      /* bytes of a name, label or message */
#define TRM_WIRE_JSON_MAX (1 << 20) /* of a model's settings or metadata */
#define TRM_WIRE_FRAME_MAX ((size_t)1 << 31)

typedef enum trm_wire_kind {
    TRM_WIRE_HELLO = 1, /* replica: I am here */
    TRM_WIRE_READY,     /* replica: my model is loaded, I take `credits` records */
    TRM_WIRE_CREDIT,    /* replica: I take `credits` records more */
    TRM_WIRE_BATCH,     /* coordinator: records to run */
    TRM_WIRE_RESULT,    /* replica: what became of records */
    TRM_WIRE_HEARTBEAT, /* both ways, four a second: phase and progress counter */
    TRM_WIRE_ERROR,     /* replica: I have to stop, and why */
    TRM_WIRE_DRAIN,     /* coordinator: no more batches will come; replica: I want none */
    TRM_WIRE_STOP,      /* coordinator: end */
    /* serving: base/wire_serve.h */
    TRM_WIRE_REQUEST, /* client or coordinator: one request */
    TRM_WIRE_CANCEL,  /* client or coordinator: its answer is no longer wanted */
    TRM_WIRE_PART,    /* replica: a piece of a streamed answer */
    TRM_WIRE_ANSWER,  /* replica: the end of a request */
    TRM_WIRE_LOAD,    /* coordinator: load a model */
    TRM_WIRE_UNLOAD,  /* coordinator: finish what it has, then free it */
    TRM_WIRE_MODEL,   /* replica: the state of a model */
    TRM_WIRE_STATS,   /* replica: how it is doing, once a second */
    TRM_WIRE_RELEASE, /* either: shared memory of the other that is no longer read */
    TRM_WIRE_KIND_COUNT
} trm_wire_kind;
const char *trm_wire_kind_name(trm_wire_kind kind);

/* What a replica is doing: the phase of its heartbeats. */
typedef enum trm_wire_phase {
    TRM_PHASE_LOADING,
    TRM_PHASE_IDLE,
    TRM_PHASE_FIRST_STEP, /* binds kernels and packs weights: may take long */
    TRM_PHASE_STEADY,
    TRM_PHASE_COUNT
} trm_wire_phase;
const char *trm_wire_phase_name(trm_wire_phase phase);

typedef enum trm_record_kind {
    TRM_RECORD_IMAGE_BYTES, /* `bytes`: an encoded image */
    TRM_RECORD_IMAGE_PATH,  /* `bytes`: the path of a file that the replica's host can read */
    TRM_RECORD_TENSORS,
    TRM_RECORD_REQUEST, /* `bytes`: a JSON object, for a language model */
    TRM_RECORD_ERROR,   /* the source could not read it; `name` and `message`. Never travels */
    TRM_RECORD_KIND_COUNT
} trm_record_kind;

/* Plain tensors with their raw little-endian bytes. An empty name means the model's only input.
 *
 * A tensor of a REQUEST or an ANSWER may be `shared`: its bytes lie at `offset` in the sender's
 * segment, and the frame carries [offset, bytes] instead of them. Encoding does not look at its
 * data; decoding leaves data NULL, and trm_wire_resolve (base/wire_serve.h) finds it. */
typedef struct trm_wire_tensor {
    const char *name;
    trm_tensor tensor; /* after decoding, data lies in the frame and may be misaligned: copy it */
    bool shared;
    uint64_t offset; /* of a shared one */
} trm_wire_tensor;

typedef struct trm_wire_record {
    uint64_t id; /* position in the input */
    trm_record_kind kind;
    const char *name; /* file name, id or index: for messages and for the output */
    const void *bytes;
    size_t byte_count;
    const trm_wire_tensor *tensors;
    int tensor_count;
    const char *message; /* TRM_RECORD_ERROR */
} trm_wire_record;

typedef struct trm_wire_label {
    int32_t index;
    float score;
    const char *text; /* "" without a label file */
} trm_wire_label;

typedef struct trm_wire_result {
    uint64_t id;
    trm_status status;   /* of this record alone */
    const char *message; /* "" when OK */
    const trm_wire_tensor *outputs;
    int output_count;
    const trm_wire_label *labels; /* best first */
    int label_count;
} trm_wire_result;

typedef struct trm_wire_message {
    trm_wire_kind kind;
    /* HELLO */
    const char *host;
    int32_t rank, pid;
    /* READY, CREDIT: records; READY: most records it wants in one batch */
    uint32_t credits, batch_max;
    /* BATCH */
    const trm_wire_record *records;
    /* RESULT */
    const trm_wire_result *results;
    int count; /* of records or results */
    /* HEARTBEAT */
    trm_wire_phase phase;
    uint64_t progress;
    /* ERROR */
    trm_status status;
    const char *message;
    /* STOP: a replica has died, so MPI must not be finalised */
    bool lost;
    /* HELLO of a replica that serves: its shared memory (base/exchange.h), "" for none */
    const char *segment;
    uint64_t segment_bytes;
    /* REQUEST ... RELEASE; the kind says which */
    union {
        const struct trm_wire_request *request;
        const struct trm_wire_part *part;
        const struct trm_wire_answer *answer;
        const struct trm_wire_load *load;
        const struct trm_wire_model *model;
        const struct trm_wire_stats *stats;
        uint64_t id;   /* CANCEL */
        uint32_t slot; /* UNLOAD */
        struct {
            uint64_t offset, bytes;
        } release;
    } u;
} trm_wire_message;

/* A growing byte buffer; zeroed is empty. One owner. */
typedef struct trm_wire_buffer {
    unsigned char *data;
    size_t bytes, bytes_max;
} trm_wire_buffer;
void trm_wire_buffer_fini(trm_wire_buffer *buffer);

/* Appends the message to `out` (usually emptied before by out->bytes = 0). NO_MEMORY, or
 * INVALID_ARG where a limit above is broken; `out` is unchanged then. */
TRM_MUST_USE trm_status trm_wire_encode(const trm_wire_message *message, trm_wire_buffer *out);

/* In two steps, for a sender that keeps records encoded until they are answered: one record, then a
 * BATCH of such records. */
TRM_MUST_USE trm_status trm_wire_encode_record(const trm_wire_record *record, trm_wire_buffer *out);
TRM_MUST_USE trm_status trm_wire_encode_batch(const trm_wire_buffer *const *records, int count,
                                              trm_wire_buffer *out);

/* The kind of a frame without decoding the rest; 0: not a message of this version. */
trm_wire_kind trm_wire_peek(const void *frame, size_t bytes);

/* Decodes one frame. Arrays and strings go to `arena`, tensor and image bytes stay in the frame:
 * both must outlive the message. COMM: not a message of this version; says what and at which
 * byte. */
TRM_MUST_USE trm_status trm_wire_decode(const void *frame, size_t bytes, trm_arena *arena,
                                        trm_wire_message *message_out);

#ifdef __cplusplus
}
#endif
#endif
