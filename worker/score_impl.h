/* Shared by score_model.c (stacking and splitting), score_run.c (runs under way) and score_record.c
 * (one record to tensors). */
#ifndef TRM_WORKER_SCORE_IMPL_H
#define TRM_WORKER_SCORE_IMPL_H

#include "worker/score_model.h"

/* One record made ready: its inputs without the batch dim, or with their own. */
typedef struct trmi_prepared {
    trm_status st; /* not OK: its result is an error */
    const char *message;
    bool whole;         /* inputs have their own batch dim: runs alone */
    trm_tensor *inputs; /* [graph inputs], in scratch */
} trmi_prepared;

/* A call of the leader: complete when no record is left. In its scratch, with its runs. */
struct trmi_score_call {
    const trmi_prepared *prepared;
    trm_wire_result *results;
    trm_arena *scratch;
    int left;
    struct trmi_score_call *next;
};

/* Records [at, at + n) of a call, of one shape: one step of the replica. */
struct trmi_score_run {
    struct trmi_score_call *call;
    int at, n;
    struct trmi_score_run *next;
};

struct trm_score_model {
    trm_tensor_model *model;
    trm_score_model_options options;
    int scores;          /* output that holds class scores */
    int only;            /* the one output sent, -1: all */
    int64_t fixed_batch; /* dim 0 of every input is this constant; 0: it is open */
    int run_batch;       /* records of a run at most */
    bool stacks;         /* records can share a run */
    trm_tensor *in, *out;
    void **stacked; /* [graph inputs] grown buffers */
    size_t *stacked_bytes;
    struct trmi_score_run *todo;  /* not begun */
    struct trmi_score_run **ring; /* under way, as many as the replica's depth */
    int ring_max, ring_first, ring_count;
    struct trmi_score_call *first, *last;
    int64_t done; /* calls */
};

/* Records of one shape, one after another, in s->in; a stack of `batch` is filled up with the last
 * record. */
trm_status trmi_score_stack(trm_score_model *s, const trmi_prepared *records, int n, int64_t batch);
/* The part of every output that belongs to record `k` of a stack of `batch`; batch 0: all of it. */
trm_status trmi_score_split(const trm_score_model *s, int64_t k, int64_t batch, trm_arena *scratch,
                            trm_wire_result *result);
bool trmi_score_splits(const trm_score_model *s, int64_t batch);

/* Whether records can share a step; *fixed_out: dim 0 of every input is this constant, 0: open. */
bool trmi_score_batch(const trm_tensor_model *model, int64_t *fixed_out);

/* Never fails: errors are the record's. */
void trmi_score_prepare(const trm_tensor_model *model, const trm_wire_record *record,
                        trm_arena *scratch, trmi_prepared *prepared_out);

#endif
