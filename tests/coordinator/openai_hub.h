/* For tests of the gateway's OpenAI files: a hub that answers by a model's name, on a thread of its
 * own like the real one. Included once a test program. */
#ifndef TRM_TESTS_COORDINATOR_OPENAI_HUB_H
#define TRM_TESTS_COORDINATOR_OPENAI_HUB_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "coordinator/gateway/openai_impl.h"

#include "base/wait.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIT_PATIENCE_MS 60000

/* ---- the hub ---- */
typedef struct kit_request {
    struct kit_request *next;
    uint64_t id;
    trm_request_kind kind;
    char model[128], owner[64], tag[64];
    int64_t version;
    int32_t priority;
    uint32_t deadline_ms;
    bool stream, cancelled, started;
    char *body;
    size_t body_bytes;
    void *ctx;
    void (*part)(void *ctx, const trm_wire_part *part);
    void (*answer)(void *ctx, const trm_wire_answer *answer);
} kit_request;

struct trm_hub {
    pthread_mutex_t mu;
    pthread_cond_t more;
    pthread_t thread;
    bool stop;
    bool hold;     /* requests whose body has "hold" wait until this is false, or are cancelled */
    int refuse;    /* so many submits find the queue full */
    bool draining; /* submits fail with COMM, and what is cancelled is answered with COMM */
    uint64_t last_id;
    kit_request *waiting, *last; /* the last one submitted, kept for looking at */
    int submitted, cancels, under_way, under_way_most;
    const trm_hub_model_info *models;
    int model_count;
    int *seen; /* [seen_max] submits of lines by their "n" */
    int seen_max;
};

static inline void kit_hub_answer(kit_request *q, trm_status st, const char *message,
                                  const char *body, size_t bytes)
{
    trm_wire_answer a = {
        .id = q->id, .status = st, .message = message, .model = q->model, .version = 1};

    a.body = body;
    a.body_bytes = bytes;
    q->answer(q->ctx, &a);
}

static inline void kit_hub_part(kit_request *q, const char *lines)
{
    trm_wire_part p = {.id = q->id, .new_tokens = 1, .body = lines, .body_bytes = strlen(lines)};

    if (q->part != NULL)
        q->part(q->ctx, &p);
}

/* What becomes of a request, by the name of its model. */
static inline void kit_run(kit_request *q)
{
    if (q->cancelled) {
        kit_hub_answer(q, TRM_ERR_CANCELLED, "cancelled", "", 0);
    } else if (strcmp(q->model, "bad") == 0) {
        kit_hub_answer(q, TRM_ERR_INVALID_ARG, "max_tokens is -1, wanted at least 0", "", 0);
    } else if (strcmp(q->model, "lost") == 0) {
        kit_hub_answer(q, TRM_ERR_COMM, "the replica was lost", "", 0);
    } else if (strcmp(q->model, "late") == 0 && q->stream) {
        kit_hub_part(q, "{\"n\":1}\n");
        kit_hub_part(q, "{\"n\":2}\n");
        kit_hub_answer(q, TRM_ERR_COMM, "the replica was lost", "", 0);
    } else if (q->stream) {
        kit_hub_part(q, "{\"n\":1}\n{\"n\":2}\n");
        kit_hub_part(q, "{\"n\":3}\n");
        kit_hub_answer(q, TRM_OK, "", "", 0);
    } else {
        char *body = malloc(q->body_bytes + 32);
        int n = snprintf(body, q->body_bytes + 32, "{\"ok\":%.*s}", (int)q->body_bytes, q->body);

        kit_hub_answer(q, TRM_OK, "", body, (size_t)n);
        free(body);
    }
}

static inline void kit_request_free(kit_request *q)
{
    if (q == NULL)
        return;
    free(q->body);
    free(q);
}

static inline void *kit_hub_main(void *ctx)
{
    trm_hub *hub = ctx;

    pthread_mutex_lock(&hub->mu);
    while (!hub->stop) {
        kit_request *q = NULL;

        for (kit_request **at = &hub->waiting; *at != NULL && q == NULL; at = &(*at)->next) {
            bool held = hub->hold && !(*at)->cancelled && strstr((*at)->body, "hold") != NULL;

            if (held)
                continue;
            q = *at;
            *at = q->next;
            break;
        }
        if (q == NULL) {
            pthread_cond_wait(&hub->more, &hub->mu);
            continue;
        }
        hub->under_way--; /* before its answer: the next may come from that */
        pthread_mutex_unlock(&hub->mu);
        if (q->cancelled && hub->draining)
            kit_hub_answer(q, TRM_ERR_COMM, "the hub is ending", "", 0);
        else
            kit_run(q);
        pthread_mutex_lock(&hub->mu);
        kit_request_free(hub->last);
        hub->last = q;
        pthread_cond_broadcast(&hub->more);
    }
    pthread_mutex_unlock(&hub->mu);
    return NULL;
}

trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request, uint64_t *id_out)
{
    const trm_wire_request *w = request->wire;
    kit_request *q, **at;
    const char *n;

    if (hub->draining)
        return trm_fail(TRM_ERR_COMM, "the hub is draining");
    if (strcmp(w->model, "loading") == 0)
        return trm_fail(TRM_ERR_COMM, "model 'loading' is not ready: loading");
    if (strcmp(w->model, "full") == 0 ||
        (hub->refuse > 0 && __atomic_sub_fetch(&hub->refuse, 1, __ATOMIC_RELAXED) >= 0))
        return trm_fail(TRM_ERR_TIMEOUT, "4096 requests wait");
    if (strcmp(w->model, "unknown") == 0)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model 'unknown'");
    q = calloc(1, sizeof(*q));
    snprintf(q->model, sizeof(q->model), "%s", w->model);
    snprintf(q->owner, sizeof(q->owner), "%s", request->owner);
    snprintf(q->tag, sizeof(q->tag), "%s", w->tag != NULL ? w->tag : "");
    q->kind = w->kind;
    q->version = w->version;
    q->priority = w->priority;
    q->deadline_ms = w->deadline_ms;
    q->stream = w->stream;
    q->body = calloc(w->body_bytes + 1, 1);
    memcpy(q->body, w->body, w->body_bytes);
    q->body_bytes = w->body_bytes;
    q->ctx = request->ctx;
    q->part = request->part;
    q->answer = request->answer;
    pthread_mutex_lock(&hub->mu);
    *id_out = q->id = ++hub->last_id;
    for (at = &hub->waiting; *at != NULL; at = &(*at)->next)
        ;
    *at = q;
    hub->submitted++;
    hub->under_way++;
    if (hub->under_way > hub->under_way_most)
        hub->under_way_most = hub->under_way;
    n = strstr(q->body, "\"n\":");
    if (n != NULL && hub->seen != NULL) {
        long i = strtol(n + 4, NULL, 10);

        if (i >= 0 && i < hub->seen_max)
            hub->seen[i]++;
    }
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
    return TRM_OK;
}

void trm_hub_cancel(trm_hub *hub, uint64_t id)
{
    pthread_mutex_lock(&hub->mu);
    hub->cancels++;
    for (kit_request *q = hub->waiting; q != NULL; q = q->next)
        if (q->id == id)
            q->cancelled = true;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
}

trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out, int *count_out)
{
    trm_hub_model_info *infos = trm_calloc((size_t)hub->model_count, sizeof(*infos));

    if (infos == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "models");
    for (int i = 0; i < hub->model_count; i++) {
        infos[i] = hub->models[i];
        infos[i].metadata = trm_strdup(hub->models[i].metadata);
    }
    *infos_out = infos;
    *count_out = hub->model_count;
    return TRM_OK;
}

void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    for (int i = 0; i < count; i++)
        trm_free(infos[i].metadata);
    trm_free(infos);
}

trm_status trm_hub_find_model(trm_hub *hub, const char *name, int64_t version,
                              trm_hub_model_info *info_out)
{
    for (int i = hub->model_count - 1; i >= 0; i--)
        if (strcmp(hub->models[i].name, name) == 0 &&
            (version == 0 || hub->models[i].version == version)) {
            *info_out = hub->models[i];
            info_out->metadata = trm_strdup(hub->models[i].metadata);
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
}

static inline void kit_hub_start(trm_hub *hub)
{
    memset(hub, 0, sizeof(*hub));
    pthread_mutex_init(&hub->mu, NULL);
    pthread_cond_init(&hub->more, NULL);
    ck_assert_int_eq(pthread_create(&hub->thread, NULL, kit_hub_main, hub), 0);
}

static inline void kit_hub_stop(trm_hub *hub)
{
    pthread_mutex_lock(&hub->mu);
    hub->stop = true;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
    pthread_join(hub->thread, NULL);
    kit_request_free(hub->last);
    ck_assert_ptr_null(hub->waiting);
    pthread_mutex_destroy(&hub->mu);
    pthread_cond_destroy(&hub->more);
}

static inline void kit_hub_set_hold(trm_hub *hub, bool hold)
{
    pthread_mutex_lock(&hub->mu);
    hub->hold = hold;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
}

#endif
