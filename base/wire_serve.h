/* The messages of serving: requests, answers, models and statistics. They travel like the others
 * (base/wire.h encodes and decodes all kinds); a client of the public endpoint sends REQUEST and
 * CANCEL and gets PART and ANSWER. docs/protocol.md describes them for other programs. */
#ifndef TRM_BASE_WIRE_SERVE_H
#define TRM_BASE_WIRE_SERVE_H

#include "base/exchange.h"
#include "base/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a request asks for, and so what `body`, `tensors` and the answer hold. */
typedef enum trm_request_kind {
    TRM_REQUEST_COMPLETIONS, /* body: OpenAI's JSON; answer body: OpenAI's JSON */
    TRM_REQUEST_CHAT,
    TRM_REQUEST_EMBEDDINGS,
    TRM_REQUEST_TOKENIZE,   /* body {"prompt": text} or {"messages": [..]}, "add_special_tokens",
                               "return_token_strs"; answer {"tokens": [..], "count", "max_model_len"}
                             */
    TRM_REQUEST_DETOKENIZE, /* body {"tokens": [..]}; answer {"prompt": text} */
    TRM_REQUEST_INFER,      /* tensors, each with its batch dim; answer: outputs. `body`: "" or JSON
                               {"outputs": [names], "classification": {name: count}}: only these
                               outputs; of a classified one U8 text rows "score:index:label" come as
                               the answer's labels */
    TRM_REQUEST_PREDICT,    /* body: an encoded image, or tensors of one record without batch dim;
                               answer: labels */
    TRM_REQUEST_KIND_COUNT
} trm_request_kind;
const char *trm_request_kind_name(trm_request_kind kind); /* "completions", "chat", ... */

typedef struct trm_wire_request {
    uint64_t id; /* the sender's own; answers carry it */
    trm_request_kind kind;
    const char *model;    /* name */
    int64_t version;      /* 0: the newest that is ready */
    uint32_t slot;        /* coordinator to replica: which loaded model (LOAD); clients: 0 */
    int32_t priority;     /* greater: sooner; 0 where nobody says */
    uint32_t deadline_ms; /* from its receipt; 0: the receiver's own limit */
    bool stream;          /* wants PARTs */
    /* Coordinator to replica: seed of a request that says none, and the time (Unix, s) and the text
     * (without "chatcmpl-" and the like) that answers are stamped with: a request that is run again
     * elsewhere gives the same bytes. Clients: 0, 0, "". */
    uint64_t seed;
    int64_t created;
    const char *tag;
    const void *body;
    size_t body_bytes;
    const trm_wire_tensor *tensors;
    int tensor_count;
} trm_wire_request;

/* Lines of JSON of a streamed answer, each ended by '\n': OpenAI's chunk objects, in the order in
 * which a client is to get them. A line never spans two parts. */
typedef struct trm_wire_part {
    uint64_t id;
    uint32_t new_tokens; /* that are in these lines */
    const void *body;
    size_t body_bytes;
} trm_wire_part;

/* Exactly one a request, also after CANCEL. */
typedef struct trm_wire_answer {
    uint64_t id;
    trm_status status;
    const char *message; /* "" when OK; else one line, fit for the client */
    const char *model;   /* name and version that answered */
    int64_t version;
    const void *body; /* JSON; empty for INFER, PREDICT, and where the answer was streamed */
    size_t body_bytes;
    const trm_wire_tensor *outputs;
    int output_count;
    const trm_wire_label *labels; /* PREDICT; INFER with classification: rows of `label_count /
                                     label_rows` */
    int label_count, label_rows;
    /* how it went, for statistics; microseconds on the replica */
    uint32_t prompt_tokens, cached_tokens, new_tokens;
    uint64_t queue_us; /* from arrival to its first step */
    uint64_t first_us; /* from arrival to the first token (0: none) */
    uint64_t run_us;   /* from its first step to the end */
    uint32_t batch;    /* records of the step that ran it (tensor models), else 0 */
} trm_wire_answer;

/* Load a model into `slot` (never used before in this replica's life). The answer is MODEL with
 * state LOADING, then READY or FAILED. */
typedef struct trm_wire_load {
    uint32_t slot;
    const char *name;
    int64_t version;
    const char *path;
    const char
        *settings; /* JSON object of the model's settings in the YAML (dtype, max_batch, ...) */
} trm_wire_load;

typedef enum trm_model_state {
    TRM_MODEL_LOADING,
    TRM_MODEL_READY,
    TRM_MODEL_DRAINING, /* unloads when its requests are answered */
    TRM_MODEL_UNLOADED,
    TRM_MODEL_FAILED,
    TRM_MODEL_STATE_COUNT
} trm_model_state;
const char *trm_model_state_name(trm_model_state state);

typedef struct trm_wire_model {
    uint32_t slot;
    trm_model_state state;
    const char *message; /* FAILED: why; else "" */
    /* READY: a JSON object: {"kind": "generate"|"embed"|"tensor", "platform": "onnx"|"safetensors"|
     * "gguf", "inputs": [{"name", "datatype" (v2's: FP32 ..), "shape": [-1, ..]}], "outputs": same,
     * "max_batch", "labels": bool, "image": bool, "context", "vocabulary", "parameters",
     * "layout": "data=..", "weights_bytes", "load_ms"}; else "" */
    const char *metadata;
    uint32_t credits; /* READY: requests that it takes at once */
} trm_wire_model;

/* Counters are since the model was loaded, gauges are now. */
typedef struct trm_wire_model_stats {
    uint32_t slot;
    uint32_t running, waiting;
    uint64_t kv_pages, kv_pages_used;
    uint64_t prefix_queries, prefix_hits; /* tokens asked for and found */
    uint64_t preemptions, steps, prompt_tokens, new_tokens;
    uint64_t step_us;          /* time inside steps */
    uint64_t batches, batched; /* tensor models: steps, and records in them */
} trm_wire_model_stats;
typedef struct trm_wire_rank_stats {
    int32_t rank; /* in the replica */
    int32_t pid;
    const char *host, *device;
    uint64_t memory_bytes; /* resident */
    uint64_t busy_us;      /* time in steps since start */
    uint64_t cpu_us;       /* processor time since start */
} trm_wire_rank_stats;
#define TRM_WIRE_STATS_MAX 1024 /* models, or ranks, of one message */
typedef struct trm_wire_stats {
    uint64_t time_us; /* since the replica's start */
    const trm_wire_model_stats *models;
    int model_count;
    const trm_wire_rank_stats *ranks;
    int rank_count;
} trm_wire_stats;

/* The sender's side of tensors in shared memory. share copies each tensor of at least
 * TRM_EXCHANGE_LEAST bytes into a piece of `x` and marks it; where there is no room it stays as it
 * is and travels in the frame. A shared one's data is its piece then. `x` NULL: nothing. unshare
 * gives the pieces back where the message never went out or nobody is left to say RELEASE. */
void trm_wire_share(trm_wire_tensor *tensors, int count, trm_exchange *x);
void trm_wire_unshare(trm_wire_tensor *tensors, int count, trm_exchange *x);

/* The receiver's: sets the data of the shared tensors of a decoded REQUEST or ANSWER, read only.
 * COMM: a reference that is not inside the segment, or is not aligned to TRM_ALIGN; with `view`
 * NULL, any reference. For every shared tensor the receiver says RELEASE, with its offset and
 * bytes, when it no longer reads it. */
TRM_MUST_USE trm_status trm_wire_resolve(trm_wire_message *message, const trm_exchange_view *view);
/* Tensors of a REQUEST or an ANSWER; NULL and 0 of other kinds. */
const trm_wire_tensor *trm_wire_tensors(const trm_wire_message *message, int *count_out);

#ifdef __cplusplus
}
#endif
#endif
