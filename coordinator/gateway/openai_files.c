/* /v1/files: uploads, lists, contents. What takes its time (an upload is looked through for its
 * parts, a large file is removed) is done by the store's thread, not by the server's. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- the store's thread ---- */
static void *store_main(void *ctx)
{
    struct trmi_openai_files *f = ctx;

    pthread_mutex_lock(&f->mu);
    for (;;) {
        trmi_openai_job *job = f->jobs;
        struct timespec until;

        if (job == NULL && f->store_stop)
            break;
        if (job == NULL) {
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += 60;
            (void)pthread_cond_timedwait(&f->jobs_more, &f->mu, &until);
            continue;
        }
        f->jobs = job->next;
        if (f->jobs == NULL)
            f->jobs_last = NULL;
        pthread_mutex_unlock(&f->mu);
        job->work(f, job->x);
        trm_free(job);
        pthread_mutex_lock(&f->mu);
    }
    pthread_mutex_unlock(&f->mu);
    return NULL;
}

void trmi_openai_later(struct trmi_openai_files *f, trm_http_exchange *x,
                       void (*work)(struct trmi_openai_files *f, trm_http_exchange *x))
{
    trmi_openai_job *job = trm_calloc(1, sizeof(*job));
    bool stopped;

    if (job == NULL) {
        trmi_openai_fail(x, 500, NULL, NULL, "no memory for a request");
        return;
    }
    job->x = x;
    job->work = work;
    pthread_mutex_lock(&f->mu);
    stopped = f->store_stop;
    if (!stopped) {
        if (f->jobs_last != NULL)
            f->jobs_last->next = job;
        else
            f->jobs = job;
        f->jobs_last = job;
        pthread_cond_signal(&f->jobs_more);
    }
    pthread_mutex_unlock(&f->mu);
    if (stopped) {
        trm_free(job);
        trmi_openai_fail(x, 503, NULL, NULL, "the server is ending");
    }
}

struct trmi_openai_files *trmi_openai_files_of(trm_http_exchange *x)
{
    trm_gateway *g = trm_http_ctx(x);

    if (g->files == NULL)
        trmi_openai_fail(x, 503, NULL, NULL, "files and batches are not offered here");
    return g->files;
}

/* ---- lists ---- */
trm_status trmi_openai_limit(const trm_http_exchange *x, int usual, int most, int *limit_out)
{
    const char *text = trm_http_query(x, "limit");
    char *end;
    long n;

    *limit_out = usual;
    if (text == NULL)
        return TRM_OK;
    errno = 0;
    n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < 1 || n > most)
        return trm_fail(TRM_ERR_INVALID_ARG, "limit is '%.20s', wanted 1 to %d", text, most);
    *limit_out = (int)n;
    return TRM_OK;
}

void trmi_openai_answer_list(trm_http_exchange *x, json_t *data, bool more)
{
    size_t n = json_array_size(data);
    json_t *first = n > 0 ? json_object_get(json_array_get(data, 0), "id") : NULL;
    json_t *last = n > 0 ? json_object_get(json_array_get(data, n - 1), "id") : NULL;
    json_t *o = json_pack("{s:s,s:o,s:O?,s:O?,s:b}", "object", "list", "data", data, "first_id",
                          first, "last_id", last, "has_more", more);

    trm_http_answer_json(x, 200, o);
}

static void list_work(struct trmi_openai_files *f, trm_http_exchange *x)
{
    const char *after = trm_http_query(x, "after"), *purpose = trm_http_query(x, "purpose");
    const char *order = trm_http_query(x, "order"), *owner = trm_http_key_name(x);
    bool oldest_first = order != NULL && strcmp(order, "asc") == 0;
    bool started = after == NULL || after[0] == '\0', more = false;
    json_t *data = json_array();
    int limit;
    trm_status st = trmi_openai_limit(x, TRMI_OPENAI_FILES_MAX, TRMI_OPENAI_FILES_MAX, &limit);

    if (st == TRM_OK && order != NULL && !oldest_first && strcmp(order, "desc") != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG, "order is '%.20s', wanted asc or desc", order);
    pthread_mutex_lock(&f->mu);
    for (int i = 0; i < f->file_count && st == TRM_OK && !more; i++) {
        const trmi_openai_file *file = f->files[oldest_first ? i : f->file_count - 1 - i];

        if (strcmp(file->owner, owner) != 0)
            continue;
        if (!started) {
            started = strcmp(file->id, after) == 0;
            continue;
        }
        if (purpose != NULL && strcmp(file->purpose, purpose) != 0)
            continue;
        more = json_array_size(data) == (size_t)limit;
        if (!more)
            json_array_append_new(data, trmi_openai_file_json(file));
    }
    pthread_mutex_unlock(&f->mu);
    if (st != TRM_OK) {
        json_decref(data);
        trmi_openai_fail_status(x, st);
        return;
    }
    trmi_openai_answer_list(x, data, more);
}

static void list(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);

    (void)ctx;
    if (f != NULL)
        trmi_openai_later(f, x, list_work);
}

/* ---- one file ---- */
static void fail_unknown(trm_http_exchange *x, const char *id)
{
    char message[128];

    snprintf(message, sizeof(message), "no file '%.60s'", id != NULL ? id : "");
    trmi_openai_fail(x, 404, NULL, "id", message);
}

static void get(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);
    const char *id = trm_http_name(x, "id");
    const trmi_openai_file *file;
    json_t *o = NULL;

    (void)ctx;
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->mu);
    file = id != NULL ? trmi_openai_find_file(f, trm_http_key_name(x), id) : NULL;
    if (file != NULL)
        o = trmi_openai_file_json(file);
    pthread_mutex_unlock(&f->mu);
    if (o == NULL)
        fail_unknown(x, id);
    else
        trm_http_answer_json(x, 200, o);
}

static void content(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);
    const char *id = trm_http_name(x, "id");
    const trmi_openai_file *file;
    char *path;
    size_t offset = 0, bytes = 0;
    int fd;

    (void)ctx;
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->mu);
    file = id != NULL ? trmi_openai_find_file(f, trm_http_key_name(x), id) : NULL;
    if (file != NULL) {
        offset = file->offset;
        bytes = file->bytes;
    }
    pthread_mutex_unlock(&f->mu);
    if (file == NULL) {
        fail_unknown(x, id);
        return;
    }
    path = trmi_openai_data_path(f, id);
    fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    trm_free(path);
    if (fd < 0)
        fail_unknown(x, id); /* deleted meanwhile */
    else if (bytes == 0) {
        (void)close(fd);
        trm_http_answer(x, 200, "application/octet-stream", "", 0);
    } else {
        trm_http_answer_file(x, 200, "application/octet-stream", fd, offset, bytes);
    }
}

static void delete_work(struct trmi_openai_files *f, trm_http_exchange *x)
{
    const char *id = trm_http_name(x, "id");
    trm_status st = trmi_openai_delete_file(f, trm_http_key_name(x), id);

    if (st == TRM_ERR_NOT_FOUND)
        fail_unknown(x, id);
    else if (st != TRM_OK)
        trmi_openai_fail(x, 409, NULL, "id", trm_message());
    else
        trm_http_answer_json(x, 200,
                             json_pack("{s:s,s:s,s:b}", "id", id, "object", "file", "deleted", 1));
}

static void delete (void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);

    (void)ctx;
    if (f != NULL)
        trmi_openai_later(f, x, delete_work);
}

trmi_routes trmi_openai_files_routes(void)
{
    static const trm_http_route routes[] = {
        {"POST", "/v1/files", trmi_openai_upload, TRM_HTTP_LARGE},
        {"GET", "/v1/files", list, 0},
        {"GET", "/v1/files/{id}", get, 0},
        {"DELETE", "/v1/files/{id}", delete, 0},
        {"GET", "/v1/files/{id}/content", content, 0},
        {"POST", "/v1/batches", trmi_openai_batch_create, 0},
        {"GET", "/v1/batches", trmi_openai_batch_list, 0},
        {"GET", "/v1/batches/{id}", trmi_openai_batch_get, 0},
        {"POST", "/v1/batches/{id}/cancel", trmi_openai_batch_cancel, 0},
    };

    return (trmi_routes){routes, (int)(sizeof(routes) / sizeof(routes[0]))};
}

/* ---- opening and closing ---- */
static trm_status make_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);

    if (rc == 0) {
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rc = pthread_cond_init(cond, &attr);
        pthread_condattr_destroy(&attr);
    }
    return rc == 0 ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "a condition: %s", strerror(rc));
}

static void free_files(struct trmi_openai_files *f)
{
    trmi_openai_store_close(f);
    pthread_cond_destroy(&f->jobs_more);
    pthread_cond_destroy(&f->batch_more);
    pthread_mutex_destroy(&f->mu);
    trm_free(f);
}

trm_status trmi_openai_files_open(trm_gateway *g)
{
    struct trmi_openai_files *f = trm_calloc(1, sizeof(*f));
    trm_status st;
    int rc;

    if (f == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "the store of files");
    f->g = g;
    f->lock_fd = -1;
    (void)pthread_mutex_init(&f->mu, NULL);
    TRM_TRY(st, make_cond(&f->jobs_more), fail);
    TRM_TRY(st, make_cond(&f->batch_more), fail);
    TRM_TRY(st, trmi_openai_store_open(f, g->options.files), fail);
    rc = pthread_create(&f->store_thread, NULL, store_main, f);
    if (rc != 0) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a thread: %s", strerror(rc));
        goto fail;
    }
    f->store_started = true;
    g->files = f;
    TRM_TRY(st, trmi_openai_batches_start(f), fail_started);
    return TRM_OK;

fail_started:
    trmi_openai_files_close(g);
    return st;

fail:
    free_files(f);
    return st;
}

void trmi_openai_files_close(trm_gateway *g)
{
    struct trmi_openai_files *f = g->files;

    if (f == NULL)
        return;
    pthread_mutex_lock(&f->mu);
    f->store_stop = true;
    pthread_cond_signal(&f->jobs_more);
    pthread_mutex_unlock(&f->mu);
    if (f->store_started)
        (void)pthread_join(f->store_thread, NULL);
    trmi_openai_batches_stop(f);
    g->files = NULL;
    free_files(f);
}
