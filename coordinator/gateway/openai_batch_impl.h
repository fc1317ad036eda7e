/* Between openai_batch_run.c (the thread), openai_batch_input.c and openai_batch_output.c. All of
 * it belongs to the batches' thread, except where an item says otherwise. */
#ifndef TRM_COORDINATOR_GATEWAY_OPENAI_BATCH_IMPL_H
#define TRM_COORDINATOR_GATEWAY_OPENAI_BATCH_IMPL_H

#include "base/file.h"
#include "coordinator/gateway/openai_impl.h"

#define TRMI_BATCH_RUNS_MAX 16 /* batches that are worked on at once; the others wait */

enum { TRMI_LINE_WAITING, TRMI_LINE_UNDER_WAY, TRMI_LINE_DONE };
typedef struct trmi_batch_line {
    size_t at;
    uint32_t bytes;
    uint8_t state;
    uint8_t timeouts; /* times that the deadline came before its answer */
} trmi_batch_line;

typedef enum trmi_batch_phase {
    TRMI_BATCH_CHECKING, /* lines are looked at, before the first is run */
    TRMI_BATCH_RUNNING,
    TRMI_BATCH_ENDING, /* it only waits for what is under way; then `end` */
} trmi_batch_phase;

typedef struct trmi_batch_run {
    struct trmi_openai_files *f;
    trmi_openai_batch *batch;
    trmi_batch_phase phase;
    trmi_batch_status end;
    /* input */
    trm_file *file;
    const char *text; /* the content in it */
    size_t bytes, at; /* at: checked so far */
    size_t released;  /* running: pages up to here have been given back */
    int line_no;      /* checked so far, empty ones included */
    trmi_batch_line *lines;
    int count, max;
    json_t *seen;   /* custom_id to index of its line; while checking and resuming */
    json_t *errors; /* of the input */
    size_t body_max;
    /* running */
    int next, under_way;
    int64_t retry_at;      /* trm_now_us; nothing is submitted before */
    int64_t refused_since; /* 0: the last submit was taken */
    bool cancelled;        /* what was under way has been cancelled */
    int out_fd, err_fd;
    char *buffer; /* a line of output */
    size_t buffer_max;
} trmi_batch_run;

/* A request under way. The hub's thread fills the answer and puts the item into files->done; from
 * then on, and before, it is the batches' thread's. */
typedef struct trmi_batch_item {
    struct trmi_batch_item *next;
    struct trmi_openai_files *f;
    trmi_batch_run *run;
    int line;
    uint64_t id;                    /* of the hub */
    char tag[TRMI_OPENAI_ID_BYTES]; /* request_id */
    /* the answer */
    trm_status status;
    char *body; /* NULL: there was no memory for it */
    size_t body_bytes;
    char *message;
} trmi_batch_item;

typedef struct trmi_batches {
    struct trmi_openai_files *f;
    trmi_batch_run *runs[TRMI_BATCH_RUNS_MAX];
    int run_count, turn;
    trmi_batch_item **items; /* under way */
    int item_count, item_max;
} trmi_batches;

/* ---- openai_batch_line.c ---- */
#define TRMI_BATCH_RETRY_US 250000 /* after a refusal: the queue is full, no replica */
/* From now on it only waits for what is under way. */
void trmi_batch_end_as(trmi_batch_run *r, trmi_batch_status end);
/* Ends it as failed, with the message of this thread. */
void trmi_batch_fail_run(trmi_batch_run *r, const char *code);
/* A line is done: `status` 200, or a failure with `body` (code NULL) or an error's code. */
void trmi_batch_line_done(trmi_batch_run *r, int line, int status, const char *request_id,
                          const void *body, size_t bytes, const char *code, const char *message);
/* Writes what was answered, unless it only says that this process is ending. Frees the item. */
void trmi_batch_take_answer(trmi_batches *t, trmi_batch_item *item, bool stopping);
/* Submits the next line that waits; false: none now. */
bool trmi_batch_submit_next(trmi_batches *t, trmi_batch_run *r, int64_t now);

/* ---- openai_batch_input.c ---- */
/* Opens the input and the place for the outputs. */
TRM_MUST_USE trm_status trmi_batch_run_open(struct trmi_openai_files *f, trmi_openai_batch *batch,
                                            trmi_batch_run **run_out);
void trmi_batch_run_close(trmi_batch_run *r); /* takes NULL */
/* Looks at some more lines. *done_out: all of them (r->errors says whether they are good). */
TRM_MUST_USE trm_status trmi_batch_check_some(trmi_batch_run *r, bool *done_out);
/* Line `line_no` (0: none) is wrong, or all of it. */
void trmi_batch_add_error(trmi_batch_run *r, const char *code, const char *param, int line_no,
                          const char *message);
/* Marks what an earlier process has done, from the outputs; a torn last line is cut off. */
TRM_MUST_USE trm_status trmi_batch_resume(trmi_batch_run *r, int *completed_out, int *failed_out);

/* ---- openai_batch_output.c ---- */
/* A line with a response (code NULL) or with an error that is not one. */
TRM_MUST_USE trm_status trmi_batch_write_line(trmi_batch_run *r, int line, int status,
                                              const char *request_id, const void *body,
                                              size_t bytes, const char *code, const char *message);
/* Makes files of the outputs that are not empty. */
TRM_MUST_USE trm_status trmi_batch_publish(trmi_batch_run *r, bool *output_out, bool *error_out);

#endif
