/* /v1/batches: making, listing, cancelling. The work is done by openai_batch_run.c. */
#include "coordinator/gateway/openai_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CREATE_BODY_MAX ((size_t)64 << 10)
#define METADATA_MAX 16
#define METADATA_KEY_MAX 64
#define METADATA_VALUE_MAX 512
#define WINDOW_MAX_S ((int64_t)30 * 86400)

static trm_status text_member(const json_t *o, const char *name, char *out, size_t bytes)
{
    json_t *v = json_object_get(o, name);
    const char *s = json_string_value(v);

    if (v == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is missing", name);
    if (s == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is not a string", name);
    if (strlen(s) >= bytes)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is longer than %zu bytes", name, bytes - 1);
    memcpy(out, s, strlen(s) + 1);
    return TRM_OK;
}

/* "24h"; days, minutes and seconds as well. */
static trm_status read_window(const char *text, int64_t *seconds_out)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (end != text && errno == 0 && end[0] == units[i].unit && end[1] == '\0' && n > 0 &&
            n <= WINDOW_MAX_S / units[i].seconds) {
            *seconds_out = n * units[i].seconds;
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "completion_window is '%.20s', wanted a time like 24h, at most 30d", text);
}

static trm_status read_metadata(const json_t *o, json_t **metadata_out)
{
    json_t *m = json_object_get(o, "metadata"), *v;
    const char *key;

    if (m == NULL || json_is_null(m))
        return TRM_OK;
    if (!json_is_object(m) || json_object_size(m) > METADATA_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "metadata: wanted an object of at most %d strings",
                        METADATA_MAX);
    json_object_foreach(
        m, key,
        v) if (!json_is_string(v) || strlen(key) > METADATA_KEY_MAX ||
               json_string_length(v) >
                   METADATA_VALUE_MAX) return trm_fail(TRM_ERR_INVALID_ARG,
                                                       "metadata: wanted strings of at most %d "
                                                       "bytes with names of at most %d",
                                                       METADATA_VALUE_MAX, METADATA_KEY_MAX);
    *metadata_out = json_incref(m);
    return TRM_OK;
}

static trm_status read_create(struct trmi_openai_files *f, const trm_http_exchange *x,
                              trmi_openai_batch *b)
{
    static const char *const endpoints[] = {"/v1/chat/completions", "/v1/completions",
                                            "/v1/embeddings"};
    json_error_t error;
    size_t bytes;
    const char *body = trm_http_body(x, &bytes);
    json_t *o;
    int64_t seconds = 0;
    bool known = false;
    const trmi_openai_file *input;
    trm_status st;

    if (bytes > CREATE_BODY_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body has %zu bytes, wanted at most %zu", bytes,
                        CREATE_BODY_MAX);
    o = json_loadb(bytes > 0 ? body : "", bytes, 0, &error);
    if (o == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body: not JSON: line %d column %d: %s",
                        error.line, error.column, error.text);
    if (!json_is_object(o)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "the body: JSON, but not an object");
        goto out;
    }
    TRM_TRY(st, text_member(o, "input_file_id", b->input, sizeof(b->input)), out);
    TRM_TRY(st, text_member(o, "endpoint", b->endpoint, sizeof(b->endpoint)), out);
    TRM_TRY(st, text_member(o, "completion_window", b->window, sizeof(b->window)), out);
    TRM_TRY(st, read_window(b->window, &seconds), out);
    TRM_TRY(st, read_metadata(o, &b->metadata), out);
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
        known = known || strcmp(b->endpoint, endpoints[i]) == 0;
    if (!known) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "endpoint is '%s', wanted %s, %s or %s", b->endpoint,
                      endpoints[0], endpoints[1], endpoints[2]);
        goto out;
    }
    pthread_mutex_lock(&f->mu);
    input = trmi_openai_find_file(f, trm_http_key_name(x), b->input);
    if (input == NULL)
        st = trm_fail(TRM_ERR_NOT_FOUND, "no file '%.60s'", b->input);
    else if (strcmp(input->purpose, "batch") != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG, "the purpose of file '%s' is '%s', wanted batch",
                      b->input, input->purpose);
    pthread_mutex_unlock(&f->mu);
    b->created = time(NULL);
    b->expires = b->created + seconds;

out:
    json_decref(o);
    return st;
}

static void create_work(struct trmi_openai_files *f, trm_http_exchange *x)
{
    trmi_openai_batch *b = trm_calloc(1, sizeof(*b));
    json_t *o;
    trm_status st = b != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "a batch");

    if (st != TRM_OK)
        goto fail;
    TRM_TRY(st, read_create(f, x, b), fail);
    TRM_TRY(st, trmi_openai_new_id("batch_", b->id), fail);
    TRM_TRY(st, trmi_openai_new_id("file-", b->output), fail);
    TRM_TRY(st, trmi_openai_new_id("file-", b->error), fail);
    b->owner = trm_strdup(trm_http_key_name(x));
    if (b->owner == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a batch");
        goto fail;
    }
    o = trmi_openai_batch_json(b);
    st = trmi_openai_add_batch(f, b);
    if (st != TRM_OK) {
        json_decref(o);
        goto fail;
    }
    trmi_openai_batches_wake(f);
    trm_http_answer_json(x, 200, o);
    return;

fail:
    trmi_openai_fail_status(x, st);
    trmi_openai_batch_free(b);
}

void trmi_openai_batch_create(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);

    (void)ctx;
    if (f != NULL)
        trmi_openai_later(f, x, create_work);
}

void trmi_openai_batch_list(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);
    const char *after = trm_http_query(x, "after"), *owner = trm_http_key_name(x);
    bool started = after == NULL || after[0] == '\0', more = false;
    json_t *data;
    int limit;

    (void)ctx;
    if (f == NULL)
        return;
    if (trmi_openai_limit(x, 20, 100, &limit) != TRM_OK) {
        trmi_openai_fail(x, 400, NULL, "limit", trm_message());
        return;
    }
    data = json_array();
    pthread_mutex_lock(&f->mu);
    for (int i = f->batch_count - 1; i >= 0 && !more; i--) {
        const trmi_openai_batch *b = f->batches[i];

        if (strcmp(b->owner, owner) != 0)
            continue;
        if (!started) {
            started = strcmp(b->id, after) == 0;
            continue;
        }
        more = json_array_size(data) == (size_t)limit;
        if (!more)
            json_array_append_new(data, trmi_openai_batch_json(b));
    }
    pthread_mutex_unlock(&f->mu);
    trmi_openai_answer_list(x, data, more);
}

/* `cancel`: it is wanted; a batch that has ended is 409. */
static void answer_one(trm_http_exchange *x, bool cancel)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);
    const char *id = trm_http_name(x, "id");
    trmi_openai_batch *b;
    json_t *o = NULL;
    char message[160];
    int status = 404;

    if (f == NULL)
        return;
    snprintf(message, sizeof(message), "no batch '%.60s'", id != NULL ? id : "");
    pthread_mutex_lock(&f->mu);
    b = id != NULL ? trmi_openai_find_batch(f, trm_http_key_name(x), id) : NULL;
    if (b != NULL && cancel &&
        (trmi_batch_final(b->status) || b->status == TRMI_BATCH_FINALIZING)) {
        status = 409;
        snprintf(message, sizeof(message), "the batch is %s and cannot be cancelled",
                 trmi_batch_status_name(b->status));
    } else if (b != NULL) {
        b->cancel = b->cancel || cancel;
        o = trmi_openai_batch_json(b);
    }
    pthread_mutex_unlock(&f->mu);
    if (cancel && o != NULL)
        trmi_openai_batches_wake(f);
    if (o != NULL)
        trm_http_answer_json(x, 200, o);
    else
        trmi_openai_fail(x, status, NULL, "id", message);
}

void trmi_openai_batch_get(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    answer_one(x, false);
}

void trmi_openai_batch_cancel(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    answer_one(x, true);
}
