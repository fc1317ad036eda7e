/* Private to the files of OpenAI's API (openai*.c). */
#ifndef TRM_COORDINATOR_GATEWAY_OPENAI_IMPL_H
#define TRM_COORDINATOR_GATEWAY_OPENAI_IMPL_H

#include "coordinator/gateway/gateway_impl.h"

#include <pthread.h>

/* ---- openai_json.c: the outermost members of a JSON object, without building a tree ---- */
#define TRMI_JSON_DEPTH_MAX 512
typedef struct trmi_json_field {
    const char *name;
    char type;         /* '{' '[' '"' 't' 'f' 'n', '0' for a number; 0: the text does not have it */
    const char *value; /* as it stands in the text, a string with its quotes */
    size_t bytes;
} trmi_json_field;
/* Looks `text` over once and fills the fields whose names are given (a name that comes twice: the
 * last one holds, as in jansson). INVALID_ARG: no JSON object; says where. */
TRM_MUST_USE trm_status trmi_json_fields(const char *text, size_t bytes, trmi_json_field *fields,
                                         int count);
/* The text of a field that is a string, at most `bytes_max` bytes; from trm_malloc. INVALID_ARG:
 * says what `field->name` is instead. */
TRM_MUST_USE trm_status trmi_openai_json_text(const trmi_json_field *field, size_t bytes_max,
                                              char **text_out);
/* What a field is, for messages: "a string". */
const char *trmi_openai_json_type(const trmi_json_field *field);

#define TRMI_OPENAI_MODEL_BYTES 160 /* of a name with its version */
/* What the gateway wants to know of a request's body. */
typedef struct trmi_openai_head {
    char model[TRMI_OPENAI_MODEL_BYTES]; /* "": not given */
    bool stream;
    int32_t priority;
    bool priority_given;
} trmi_openai_head;
TRM_MUST_USE trm_status trmi_openai_head_read(const void *body, size_t bytes,
                                              trmi_openai_head *head_out);

/* A line of a batch's input; the slices point into it. */
typedef struct trmi_batch_request {
    const char *custom_id; /* a JSON string with its quotes */
    size_t custom_id_bytes;
    char *id; /* its text, from trm_malloc */
    const char *body;
    size_t body_bytes;
} trmi_batch_request;
/* On failure *code_out and *param_out ("" for none) say what is wrong, as OpenAI's list of errors
 * wants it; the message is trm_message. */
TRM_MUST_USE trm_status trmi_batch_request_read(const char *line, size_t bytes,
                                                const char *endpoint, size_t body_max,
                                                trmi_batch_request *request_out,
                                                const char **code_out, const char **param_out);
/* Text of `custom_id` in a line of an output file (resuming); from trm_malloc. */
TRM_MUST_USE trm_status trmi_batch_line_id(const char *line, size_t bytes, char **id_out);

/* ---- openai_error.c ---- */
/* A JSON string of any bytes: what is not UTF-8 becomes '?'. NULL: no memory. */
json_t *trmi_openai_string(const char *text);
/* {"error": {...}}; code, param NULL: what fits the status, null. From trm_malloc; NULL: no memory.
 */
char *trmi_openai_error_of(int status, const char *code, const char *param, const char *message);
void trmi_openai_fail(trm_http_exchange *x, int status, const char *code, const char *param,
                      const char *message);
/* The failure of this thread (trm_message); a full queue is 429. */
void trmi_openai_fail_status(trm_http_exchange *x, trm_status st);
/* HTTP status of a failed submit and of a failed answer, and the code that goes with it. */
int trmi_openai_submit_status(trm_status st);
const char *trmi_openai_code(int http, trm_status st); /* NULL: the usual one */

/* ---- openai_stream.c: one request under way ---- */
/* Submits the body of `x`, and answers it when the hub answers. Takes the exchange over. */
void trmi_openai_run(trm_gateway *g, trm_http_exchange *x, trm_request_kind kind,
                     const trmi_openai_head *head);

/* ---- openai.c ---- */
/* Name and version that a request means. NOT_FOUND, INVALID_ARG (no model given, and several fit).
 */
TRM_MUST_USE trm_status trmi_openai_resolve(trm_hub *hub, trm_request_kind kind, const char *model,
                                            char name_out[TRMI_OPENAI_MODEL_BYTES],
                                            int64_t *version_out);

/* ---- openai_store.c: files and batches in a folder ---- */
#define TRMI_OPENAI_ID_BYTES 40
#define TRMI_OPENAI_FILES_MAX 10000
#define TRMI_OPENAI_BATCHES_MAX 10000 /* finished ones that are older are forgotten */
#define TRMI_OPENAI_BATCH_LINES 50000
#define TRMI_OPENAI_BATCH_ERRORS 100 /* listed of a batch whose input is wrong */

typedef struct trmi_openai_file {
    char id[TRMI_OPENAI_ID_BYTES];
    char *owner; /* a key's name */
    char *filename;
    char purpose[64];
    int64_t created;
    size_t offset, bytes; /* of the content in the file ID.data: an upload is kept as it came */
} trmi_openai_file;

typedef enum trmi_batch_status {
    TRMI_BATCH_VALIDATING,
    TRMI_BATCH_IN_PROGRESS,
    TRMI_BATCH_FINALIZING,
    TRMI_BATCH_CANCELLING,
    TRMI_BATCH_COMPLETED, /* from here on final */
    TRMI_BATCH_FAILED,
    TRMI_BATCH_EXPIRED,
    TRMI_BATCH_CANCELLED,
    TRMI_BATCH_STATUS_COUNT
} trmi_batch_status;

typedef struct trmi_openai_batch {
    /* set once */
    char id[TRMI_OPENAI_ID_BYTES], input[TRMI_OPENAI_ID_BYTES];
    char output[TRMI_OPENAI_ID_BYTES], error[TRMI_OPENAI_ID_BYTES]; /* reserved from the start */
    char *owner;
    char endpoint[32], window[16];
    json_t *metadata; /* an object; NULL */
    int64_t created, expires;
    /* guarded by files->mu, written by the batches' thread (cancel: by anyone) */
    trmi_batch_status status;
    int64_t at[TRMI_BATCH_STATUS_COUNT]; /* when it got a status; 0: never */
    json_t *errors;                      /* list of {"code","message","param","line"}; NULL */
    bool has_output, has_error;          /* the files can be fetched */
    int total, completed, failed;
    bool cancel; /* wanted */
    bool run;    /* the batches' thread has it */
} trmi_openai_batch;

struct trmi_openai_job; /* openai_files.c: work that takes its time, for the store's thread */
struct trmi_batch_item; /* openai_batch_run.c */

struct trmi_openai_files {
    trm_gateway *g;
    char *folder;
    bool private_folder;
    int lock_fd;
    pthread_mutex_t mu;
    trmi_openai_file **files; /* guarded by mu, oldest first */
    int file_count, file_max;
    trmi_openai_batch **batches; /* guarded by mu, oldest first */
    int batch_count, batch_max;
    /* the store's thread */
    pthread_t store_thread;
    bool store_started;
    pthread_cond_t jobs_more;
    struct trmi_openai_job *jobs, *jobs_last; /* guarded by mu */
    bool store_stop;                          /* guarded by mu */
    /* the batches' thread */
    pthread_t batch_thread;
    bool batch_started;
    pthread_cond_t batch_more;
    bool batch_stop;              /* guarded by mu */
    bool batch_look;              /* guarded by mu: a batch is new, or is to be cancelled */
    struct trmi_batch_item *done; /* guarded by mu: answered, to be written; newest first */
};

/* Opens or makes the folder and reads what is in it. CONFIG: another process has it. */
TRM_MUST_USE trm_status trmi_openai_store_open(struct trmi_openai_files *f, const char *folder);
void trmi_openai_store_close(struct trmi_openai_files *f);
/* PREFIX and 24 hexadecimal digits. */
TRM_MUST_USE trm_status trmi_openai_new_id(const char *prefix, char id_out[TRMI_OPENAI_ID_BYTES]);
/* Paths, from trm_malloc: of a file's content; of a description ("files" or "batches"). */
char *trmi_openai_data_path(const struct trmi_openai_files *f, const char *id);
/* Callers hold mu. NULL: no such one, or another owner's (owner NULL: anybody's). */
trmi_openai_file *trmi_openai_find_file(struct trmi_openai_files *f, const char *owner,
                                        const char *id);
trmi_openai_batch *trmi_openai_find_batch(struct trmi_openai_files *f, const char *owner,
                                          const char *id);
/* Writes the description, then puts the file into the list, or over the one with its id. Takes
 * `file` over on success. Not under mu. */
TRM_MUST_USE trm_status trmi_openai_add_file(struct trmi_openai_files *f, trmi_openai_file *file);
void trmi_openai_file_free(trmi_openai_file *file); /* takes NULL */
/* Removes it from the list and the disk. NOT_FOUND. INVALID_ARG: a batch needs it. Not under mu. */
TRM_MUST_USE trm_status trmi_openai_delete_file(struct trmi_openai_files *f, const char *owner,
                                                const char *id);
/* As files; TIMEOUT: too many that are not finished. */
TRM_MUST_USE trm_status trmi_openai_add_batch(struct trmi_openai_files *f,
                                              trmi_openai_batch *batch);
void trmi_openai_batch_free(trmi_openai_batch *batch); /* takes NULL */
/* Writes its description as it is now. Not under mu; by the batches' thread. */
TRM_MUST_USE trm_status trmi_openai_save_batch(struct trmi_openai_files *f,
                                               trmi_openai_batch *batch);
const char *trmi_batch_status_name(trmi_batch_status status);
static inline bool trmi_batch_final(trmi_batch_status status)
{
    return status >= TRMI_BATCH_COMPLETED;
}
/* As clients see them; a batch: under mu. */
json_t *trmi_openai_file_json(const trmi_openai_file *file);
json_t *trmi_openai_batch_json(const trmi_openai_batch *batch);

/* ---- openai_files.c ---- */
typedef struct trmi_openai_job {
    struct trmi_openai_job *next;
    trm_http_exchange *x;
    void (*work)(struct trmi_openai_files *f, trm_http_exchange *x);
} trmi_openai_job;
/* Gives an exchange to the store's thread; answers 503 where that has ended. */
void trmi_openai_later(struct trmi_openai_files *f, trm_http_exchange *x,
                       void (*work)(struct trmi_openai_files *f, trm_http_exchange *x));
/* The store, or NULL after having answered 503. */
struct trmi_openai_files *trmi_openai_files_of(trm_http_exchange *x);
/* ?limit=: 1 .. most, `usual` where it is not given. INVALID_ARG. */
TRM_MUST_USE trm_status trmi_openai_limit(const trm_http_exchange *x, int usual, int most,
                                          int *limit_out);
/* {"object": "list", "data", "first_id", "last_id", "has_more"}; takes `data` over. */
void trmi_openai_answer_list(trm_http_exchange *x, json_t *data, bool more);

/* ---- openai_upload.c ---- */
void trmi_openai_upload(void *ctx, trm_http_exchange *x);

/* ---- openai_batches.c: handlers ---- */
void trmi_openai_batch_create(void *ctx, trm_http_exchange *x);
void trmi_openai_batch_list(void *ctx, trm_http_exchange *x);
void trmi_openai_batch_get(void *ctx, trm_http_exchange *x);
void trmi_openai_batch_cancel(void *ctx, trm_http_exchange *x);

/* ---- openai_batch_run.c ---- */
TRM_MUST_USE trm_status trmi_openai_batches_start(struct trmi_openai_files *f);
/* Requests under way are cancelled; what was not answered stays to be done. */
void trmi_openai_batches_stop(struct trmi_openai_files *f);
/* Something has changed for the batches' thread to look at. Not under mu. */
void trmi_openai_batches_wake(struct trmi_openai_files *f);

#endif
