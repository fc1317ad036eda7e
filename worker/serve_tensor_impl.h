/* Between serve_tensor.c (queue and batches) and serve_tensor_io.c (inputs and answers). */
#ifndef TRM_WORKER_SERVE_TENSOR_IMPL_H
#define TRM_WORKER_SERVE_TENSOR_IMPL_H

#include "worker/serve_tensor.h"

struct trmi_serve_item {
    const trm_wire_request *request; /* the loop's, until answered */
    int64_t arrived_us, began_us;
    trm_arena *scratch;
    trm_tensor *inputs; /* [graph inputs], in scratch, with the batch dim */
    int64_t rows;       /* of the batch dim; 0: it has none, runs alone */
    bool alone;         /* has failed in company */
    bool cancelled;
    int only;     /* an output, -1: all that are named in wanted */
    bool *wanted; /* [graph outputs], in scratch */
    int classes;  /* top classes of output `classified`; 0: none */
    int classified;
    struct trmi_serve_item *next;
};

struct trmi_serve_batch {
    struct trmi_serve_item *items;
    int count;
    int64_t rows;     /* of the items */
    int64_t ran_rows; /* of the step: more where the batch dim is a constant; 0: no batch dim */
    int64_t began_us;
};

struct trmi_serve_tensor {
    trm_serve_model base;
    trm_serve_tensor_options options;
    trm_tensor_model *model;
    char *name;
    int64_t *preferred;
    trm_batcher batcher;
    bool stacks; /* requests can share a step */
    int64_t
        fixed_batch; /* dim 0 of every input is this constant; 0: it is open, or there is none */
    bool image;      /* takes images */
    int scores;      /* the output with class scores; -1: none */
    struct trmi_serve_item *first, *last; /* wait */
    int waiting, count;
    trm_tensor *in, *out;
    void **stacked;
    size_t *stacked_bytes;
    struct trmi_serve_batch *ring; /* under way */
    int ring_max, ring_first, ring_count;
    uint64_t batches, batched, step_us;
};

/* serve_tensor.c: answers and frees the item. id, model, times are filled in. */
void trmi_serve_tensor_answer(struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                              trm_wire_answer *a);

/* serve_tensor_io.c */
/* What the model's batch dim, images and scores are. */
trm_status trmi_serve_tensor_inspect(struct trmi_serve_tensor *s);
/* Inputs of the item's request into its scratch. Failures are the client's. */
trm_status trmi_serve_tensor_read(struct trmi_serve_tensor *s, struct trmi_serve_item *it);
/* Whether b can be in one step with a. */
bool trmi_serve_tensor_alike(const struct trmi_serve_tensor *s, const struct trmi_serve_item *a,
                             const struct trmi_serve_item *b);
/* The items' rows, one after another, as s->in. */
trm_status trmi_serve_tensor_stack(struct trmi_serve_tensor *s, struct trmi_serve_batch *b);
/* Every output in s->out has `rows` rows. */
bool trmi_serve_tensor_splits(const struct trmi_serve_tensor *s, int64_t rows);
/* Answers the item with its rows of the outputs, from `row` on. */
void trmi_serve_tensor_reply(struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                             const struct trmi_serve_batch *b, int64_t row);
json_t *trmi_serve_tensor_metadata(const trm_serve_model *m);

#endif
