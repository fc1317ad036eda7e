/* Shared by the files of the Open Inference Protocol v2 (inference_v2.c says which is which). */
#ifndef TRM_COORDINATOR_GATEWAY_V2_IMPL_H
#define TRM_COORDINATOR_GATEWAY_V2_IMPL_H

#include "coordinator/gateway/gateway_impl.h"
#include "coordinator/gateway/lists.h"
#include "coordinator/gateway/text.h"

#define TRMI_V2_BYTES_MAX 1024 /* elements of a BYTES tensor */

/* ---- v2_tensors.c: from a body to tensors ---- */
const char *trmi_v2_datatype(trm_dtype dtype); /* "FP32"; "" for block types */
trm_dtype trmi_v2_dtype(const char *datatype); /* NONE: unknown, or BYTES */

/* A BYTES input: texts, for language models. */
typedef struct trmi_v2_texts {
    const char *name;
    int count;
    const char **texts; /* each ended by a NUL, and without others */
    int rank;           /* of its shape */
} trmi_v2_texts;

typedef struct trmi_v2_output {
    const char *name;
    int classes; /* 0: as it is */
    bool binary;
} trmi_v2_output;

typedef struct trmi_v2_request {
    trmi_lists body;
    const char *id;           /* NULL: none given */
    const json_t *parameters; /* NULL */
    trm_wire_tensor *tensors; /* binary ones lie in the HTTP body, others in the arena */
    int tensor_count;
    trmi_v2_texts *texts;
    int text_count;
    trmi_v2_output *outputs; /* that are wanted, in this order; NULL: all */
    int output_count;
    bool binary; /* of outputs that are not named */
    int32_t priority;
    uint32_t deadline_ms;
} trmi_v2_request;
/* Reads an infer body. `header`: the JSON's bytes, `bytes` with the binary tensors behind it. What
 * it holds lies in `arena` and the body. trmi_v2_request_fini also after a failure. */
TRM_MUST_USE trm_status trmi_v2_read(const char *body, size_t header, size_t bytes,
                                     trm_arena *arena, trmi_v2_request *r);
void trmi_v2_request_fini(trmi_v2_request *r);
/* One number of a tensor as JSON, for parameters that are given as tensors; NULL: not one. */
json_t *trmi_v2_scalar(const trm_wire_tensor *t);

/* ---- v2_answer.c: from an answer to a body ---- */
typedef struct trmi_v2_form {
    const char *id;                /* NULL */
    const trmi_v2_output *outputs; /* NULL: all, in the answer's order */
    int output_count;
    bool binary;
} trmi_v2_form;
/* Answers with the outputs; a failure with its message. `x` is gone after it. */
void trmi_v2_answer(trm_http_exchange *x, const trmi_v2_form *form, const trm_wire_answer *answer);
/* Whether that takes long: many numbers become text. */
bool trmi_v2_answer_is_long(const trmi_v2_form *form, const trm_wire_answer *answer);
/* All of an answer that trmi_v2_answer looks at, in `arena`. NULL: no memory. */
trm_wire_answer *trmi_v2_answer_copy(trm_arena *arena, const trm_wire_answer *answer);

/* ---- v2_models.c ---- */
/* The model that the path names. False: it has been answered (404, 400). The caller frees
 * info->metadata. */
bool trmi_v2_find(trm_http_exchange *x, trm_hub_model_info *info);
/* {version} of the path; 0: none. False: it has been answered. */
bool trmi_v2_version(trm_http_exchange *x, int64_t *version_out);
/* Its metadata; NULL: it has been answered (it is not ready). */
json_t *trmi_v2_metadata(trm_http_exchange *x, const trm_hub_model_info *info);
extern const trm_http_route trmi_v2_model_routes[];
extern const int trmi_v2_model_route_count;

/* ---- v2_generate.c ---- */
/* An infer request with texts, for a language model: one text is its prompt, scalars are
 * parameters; the answer is an output "text_output". `x` is gone after it. */
void trmi_v2_generate(trm_http_exchange *x, const trmi_v2_request *r);
extern const trm_http_route trmi_v2_generate_routes[];
extern const int trmi_v2_generate_route_count;

/* ---- work.c: a thread for what takes long ---- */
struct trmi_work;
typedef struct trmi_work_item {
    struct trmi_work_item *next;
    void (*run)(struct trmi_work_item *item); /* the item is its own then */
} trmi_work_item;
void trmi_work_add(struct trmi_work *w, trmi_work_item *item); /* w NULL: at once */

/* ---- inflate.c ---- */
/* The body of `x` as it is meant: *data_out is the body itself, or what its Content-Encoding (gzip,
 * deflate) unpacks to, in memory that *owned_out then is (trm_free). INVALID_ARG: malformed, or
 * more than body_max; UNSUPPORTED: another encoding. */
TRM_MUST_USE trm_status trmi_body_unpack(trm_http_exchange *x, const char **data_out,
                                         size_t *bytes_out, void **owned_out);

/* ---- call.c: a request of the hub on behalf of an exchange ---- */
/* What is common to them: the request is cancelled when the client goes, and the call lives until
 * both submit has returned and the answer has come. */
typedef struct trmi_call trmi_call;
struct trmi_call {
    trm_http_exchange *x;
    trm_gateway *g;
    trm_arena *arena;                                            /* for what belongs to the call */
    void (*part)(trmi_call *c, const trm_wire_part *part);       /* NULL */
    void (*answer)(trmi_call *c, const trm_wire_answer *answer); /* must answer x */
    void *user;                                                  /* in the arena */
    uint64_t id;   /* atomic: of the hub; 0 until trm_hub_submit has returned */
    int cancelled; /* atomic */
    int refs;      /* atomic */
};
/* NULL: it has been answered (no memory). */
trmi_call *trmi_call_create(trm_http_exchange *x);
/* Submits; the failure of a submit is answered. The call belongs to it from now on. */
void trmi_call_submit(trmi_call *c, const trm_wire_request *wire);
/* From answer, which then need not answer x before it returns: the call stays until unref. */
void trmi_call_ref(trmi_call *c);
void trmi_call_unref(trmi_call *c);
/* Without a submit: answers with this thread's message, and ends the call. */
void trmi_call_fail(trmi_call *c, trm_status st);
/* From part: nothing more is wanted. */
void trmi_call_cancel(trmi_call *c);

#endif
