/* What the hub tells of requests and models, and the gateway of HTTP: a few additions under one
 * lock. metrics_replicas.c has what replicas tell. */
#include "coordinator/metrics_impl.h"

#include "base/wait.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t monotonic_us(void)
{
    return (uint64_t)trm_now_us();
}

trm_status trmi_metrics_create(uint64_t (*now_us)(void), trm_metrics **metrics_out)
{
    trm_metrics *m = trm_calloc(1, sizeof(*m));
    struct timespec wall;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "metrics: no memory");
    m->routes = trm_calloc(TRMI_METRICS_ROUTES_MAX, sizeof(*m->routes));
    if (m->routes == NULL || pthread_mutex_init(&m->mu, NULL) != 0) {
        trm_free(m->routes);
        trm_free(m);
        return trm_fail(TRM_ERR_NO_MEMORY, "metrics: no memory");
    }
    m->now_us = now_us;
    m->start_us = now_us();
    clock_gettime(CLOCK_REALTIME, &wall);
    m->start_unix_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
    *metrics_out = m;
    return TRM_OK;
}

trm_status trm_metrics_create(trm_metrics **metrics_out)
{
    return trmi_metrics_create(monotonic_us, metrics_out);
}

static void model_destroy(trmi_model *model)
{
    if (model != NULL)
        trm_free(model->window);
    trm_free(model);
}

void trm_metrics_destroy(trm_metrics *m)
{
    if (m == NULL)
        return;
    for (int i = 0; i < m->model_count; i++)
        model_destroy(m->models[i]);
    for (int i = 0; i < m->replica_count; i++)
        trmi_replica_destroy(m->replicas[i]);
    trm_free(m->models);
    trm_free(m->hashes);
    trm_free(m->replicas);
    trm_free(m->routes);
    pthread_mutex_destroy(&m->mu);
    trm_free(m);
}

/* ---- names ---- */

/* Length of the well-formed UTF-8 sequence at `s`, 0: none starts here. */
static size_t utf8_sequence(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 4;

    if ((s[0] >= 0x80 && s[0] < 0xc2) || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++) /* ends at a terminator */
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

void trmi_metrics_name(char *out, size_t out_bytes, const char *text)
{
    const unsigned char *s = (const unsigned char *)(text == NULL ? "" : text);
    size_t used = 0;

    while (*s != 0) {
        size_t n = utf8_sequence(s);

        if (used + (n == 0 ? 1 : n) >= out_bytes)
            break;
        if (n == 0 || *s < 0x20 || *s == 0x7f) {
            out[used++] = '?';
            s++;
        } else {
            memcpy(out + used, s, n);
            used += n;
            s += n;
        }
    }
    out[used] = '\0';
}

/* ---- models ---- */
static uint64_t hash_of(const char *name, int64_t version) /* FNV-1a */
{
    uint64_t h = 14695981039346656037u ^ (uint64_t)version;

    for (const char *c = name; *c != '\0'; c++)
        h = (h ^ (unsigned char)*c) * 1099511628211u;
    return h;
}

trmi_model *trmi_model_find(trm_metrics *m, const char *name, int64_t version)
{
    char clean[TRMI_METRICS_NAME_BYTES];
    uint64_t hash;

    trmi_metrics_name(clean, sizeof(clean), name);
    hash = hash_of(clean, version);
    for (int i = 0; i < m->model_count; i++)
        if (m->hashes[i] == hash && m->models[i]->version == version &&
            strcmp(m->models[i]->name, clean) == 0)
            return m->models[i];
    return NULL;
}

static void fortrmi_model_get(trm_metrics *m, int index)
{
    trmi_model *model = m->models[index];

    for (int r = 0; r < m->replica_count; r++)
        for (int s = 0; s < m->replicas[r]->slot_count; s++)
            if (m->replicas[r]->slots[s].model == model)
                m->replicas[r]->slots[s].model = NULL;
    model_destroy(model);
    m->model_count--;
    m->models[index] = m->models[m->model_count];
    m->hashes[index] = m->hashes[m->model_count];
}

/* Forgets unloaded models beyond the bound, the longest unused first, but not `keep`. */
static void trim_models(trm_metrics *m, const trmi_model *keep)
{
    for (;;) {
        int gone = 0, oldest = -1;

        for (int i = 0; i < m->model_count; i++) {
            if (m->models[i]->live)
                continue;
            gone++;
            if (m->models[i] != keep &&
                (oldest < 0 || m->models[i]->used_us < m->models[oldest]->used_us))
                oldest = i;
        }
        if (gone <= TRMI_METRICS_MODELS_GONE_MAX || oldest < 0)
            return;
        fortrmi_model_get(m, oldest);
    }
}

static bool grow_models(trm_metrics *m)
{
    int room = m->model_room == 0 ? 8 : m->model_room * 2;
    trmi_model **models = trm_realloc(m->models, (size_t)room, sizeof(trmi_model *));
    uint64_t *hashes;

    if (models == NULL)
        return false;
    m->models = models;
    hashes = trm_realloc(m->hashes, (size_t)room, sizeof(*hashes));
    if (hashes == NULL)
        return false;
    m->hashes = hashes;
    m->model_room = room;
    return true;
}

trmi_model *trmi_model_get(trm_metrics *m, const char *name, int64_t version)
{
    trmi_model *model = trmi_model_find(m, name, version);
    uint64_t now = m->now_us();

    if (model != NULL) {
        model->used_us = now;
        return model;
    }
    if (m->model_count == TRMI_METRICS_MODELS_MAX ||
        (m->model_count == m->model_room && !grow_models(m)))
        return NULL;
    model = trm_calloc(1, sizeof(*model));
    if (model == NULL)
        return NULL;
    trmi_metrics_name(model->name, sizeof(model->name), name);
    model->version = version;
    model->state = TRM_MODEL_UNLOADED;
    model->used_us = now;
    model->window = trmi_window_create(now);
    m->hashes[m->model_count] = hash_of(model->name, version);
    m->models[m->model_count++] = model;
    trim_models(m, model);
    return model;
}

void trm_metrics_models(trm_metrics *m, const trm_metrics_model_gauges *models, int count)
{
    if (m == NULL)
        return;
    pthread_mutex_lock(&m->mu);
    for (int i = 0; i < m->model_count; i++) {
        m->models[i]->live = false;
        m->models[i]->running = m->models[i]->waiting = 0;
        m->models[i]->replicas = 0;
    }
    for (int i = 0; i < count; i++) {
        const trm_metrics_model_gauges *g = &models[i];
        /* a repository may list thousands that nobody has loaded */
        trmi_model *model = g->state == TRM_MODEL_UNLOADED
                                ? trmi_model_find(m, g->model, g->version)
                                : trmi_model_get(m, g->model, g->version);

        if (model == NULL)
            continue;
        model->live = g->state != TRM_MODEL_UNLOADED;
        model->state = g->state;
        model->running = g->running;
        model->waiting = g->waiting;
        model->replicas = g->replicas;
        if (model->live && model->window == NULL)
            model->window = trmi_window_create(m->now_us());
    }
    for (int i = 0; i < m->model_count; i++)
        if (!m->models[i]->live) {
            m->models[i]->state = TRM_MODEL_UNLOADED;
            trm_free(m->models[i]->window);
            m->models[i]->window = NULL;
        }
    trim_models(m, NULL);
    pthread_mutex_unlock(&m->mu);
}

/* ---- requests ---- */
static void count_batch(trmi_model *model, const trm_wire_answer *a, uint64_t records)
{
    trmi_batch_size *size = NULL;
    double share = (double)records / a->batch;

    for (int i = 0; i < model->size_count && size == NULL; i++)
        if (model->sizes[i].size == a->batch)
            size = &model->sizes[i];
    if (size == NULL && model->size_count < TRMI_METRICS_BATCHES_MAX) {
        size = &model->sizes[model->size_count++];
        size->size = a->batch;
    }
    if (size == NULL) /* more sizes than are kept: with the last one, rather than not at all */
        size = &model->sizes[TRMI_METRICS_BATCHES_MAX - 1];
    size->executions += share;
    size->run_us += share * (double)a->run_us;
}

/* Records of a tensor model's answer: the batch dim of its outputs, the rows of its labels. */
static uint64_t records_of(const trm_wire_answer *a)
{
    int64_t records = 1;

    if (a->batch == 0)
        return 1;
    if (a->output_count > 0 && a->outputs[0].tensor.rank > 0)
        records = a->outputs[0].tensor.dims[0];
    else if (a->label_rows > 0)
        records = a->label_rows;
    return records < 1 ? 1 : records > (int64_t)a->batch ? a->batch : (uint64_t)records;
}

static void succeeded(trm_metrics *m, trmi_model *model, const trm_metrics_request *r)
{
    const trm_wire_answer *a = r->answer;
    bool generates = r->kind == TRM_REQUEST_COMPLETIONS || r->kind == TRM_REQUEST_CHAT;
    uint64_t now = m->now_us(), queue = r->wait_us + a->queue_us, records = records_of(a);
    /* of an answer in one piece the hub sees no first token, but its replica does */
    uint64_t first = r->stream && r->first_us > 0 ? r->first_us
                     : a->first_us > 0            ? r->wait_us + a->first_us
                                                  : 0;

    model->success[r->kind]++;
    model->success_us += r->total_us;
    model->queue_us += queue;
    model->run_us += a->run_us;
    model->prompt_tokens += a->prompt_tokens;
    model->cached_tokens += a->cached_tokens;
    model->new_tokens += a->new_tokens;
    model->records += records;
    model->last_unix_ms = m->start_unix_ms + (now - m->start_us) / 1000;
    trmi_histogram_add(&model->queue, &trmi_bounds_request, queue, 1);
    trmi_histogram_add(&model->total, &trmi_bounds_request, r->total_us, 1);
    trmi_window_observe(model->window, now, TRMI_LATENCY_QUEUE, queue, 1);
    trmi_window_observe(model->window, now, TRMI_LATENCY_TOTAL, r->total_us, 1);
    trmi_window_count(model->window, now, TRMI_RATE_REQUESTS, 1);
    trmi_window_count(model->window, now, TRMI_RATE_ANSWER_PROMPT, a->prompt_tokens);
    trmi_window_count(model->window, now, TRMI_RATE_ANSWER_NEW, a->new_tokens);
    if (generates || r->kind == TRM_REQUEST_EMBEDDINGS)
        trmi_histogram_add(&model->prompt, &trmi_bounds_tokens, a->prompt_tokens, 1);
    if (generates) {
        uint64_t ran = a->queue_us + a->run_us;

        trmi_histogram_add(&model->generated, &trmi_bounds_tokens, a->new_tokens, 1);
        if (first > 0) {
            trmi_histogram_add(&model->first, &trmi_bounds_first, first, 1);
            trmi_window_observe(model->window, now, TRMI_LATENCY_FIRST, first, 1);
        }
        if (a->new_tokens > 1 && a->first_us > 0 && ran > a->first_us) {
            uint64_t each = (ran - a->first_us) / (a->new_tokens - 1);

            trmi_histogram_add(&model->per_token, &trmi_bounds_token, each, 1);
            if (!r->stream) { /* no part will tell of these tokens */
                trmi_histogram_add(&model->token, &trmi_bounds_token, each, a->new_tokens - 1);
                trmi_window_observe(model->window, now, TRMI_LATENCY_TOKEN, each,
                                    a->new_tokens - 1);
            }
        }
    }
    if (a->batch > 0) {
        trmi_histogram_add(&model->batch, &trmi_bounds_batch, a->batch, 1);
        count_batch(model, a, records);
    }
}

void trm_metrics_ended(trm_metrics *m, const trm_metrics_request *r)
{
    trmi_model *model;

    if (m == NULL || (unsigned)r->kind >= TRM_REQUEST_KIND_COUNT)
        return;
    pthread_mutex_lock(&m->mu);
    model = trmi_model_get(m, r->model, r->version);
    if (model != NULL) {
        if (r->attempts > 1)
            model->retried += (uint64_t)(r->attempts - 1);
        if (r->answer->status == TRM_OK) {
            succeeded(m, model, r);
        } else {
            unsigned status = (unsigned)r->answer->status;

            model->failure[status < TRM_STATUS_COUNT ? status : TRM_ERR_INTERNAL]++;
            model->failure_us += r->total_us;
            trmi_window_count(model->window, m->now_us(), TRMI_RATE_FAILURES, 1);
        }
    }
    pthread_mutex_unlock(&m->mu);
}

void trm_metrics_tokens(trm_metrics *m, const char *model, int64_t version, uint32_t tokens,
                        uint64_t us)
{
    trmi_model *kept;

    if (m == NULL || tokens == 0)
        return;
    pthread_mutex_lock(&m->mu);
    kept = trmi_model_get(m, model, version);
    if (kept != NULL) {
        trmi_histogram_add(&kept->token, &trmi_bounds_token, us / tokens, tokens);
        trmi_window_observe(kept->window, m->now_us(), TRMI_LATENCY_TOKEN, us / tokens, tokens);
    }
    pthread_mutex_unlock(&m->mu);
}

/* ---- HTTP ---- */
static trmi_route *get_route(trm_metrics *m, const char *pattern)
{
    trmi_route *route;
    char clean[sizeof(route->pattern)];

    trmi_metrics_name(clean, sizeof(clean),
                      pattern == NULL || pattern[0] == '\0' ? "other" : pattern);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < m->route_count; i++)
            if (strcmp(m->routes[i].pattern, clean) == 0)
                return &m->routes[i];
        if (m->route_count < TRMI_METRICS_ROUTES_MAX - 1)
            break;
        memcpy(clean, "other", sizeof("other"));
    }
    route = &m->routes[m->route_count++];
    memcpy(route->pattern, clean, sizeof(route->pattern));
    return route;
}

static uint64_t *get_code(trmi_route *r, int status)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < r->code_count; i++)
            if (r->codes[i] == status)
                return &r->counts[i];
        if (r->code_count < TRMI_METRICS_CODES_MAX - 1)
            break;
        status = 0;
    }
    r->codes[r->code_count] = status;
    return &r->counts[r->code_count++];
}

void trm_metrics_http(trm_metrics *m, const char *route, int status, uint64_t us, size_t bytes_in,
                      size_t bytes_out)
{
    trmi_route *r;

    if (m == NULL)
        return;
    pthread_mutex_lock(&m->mu);
    r = get_route(m, route);
    *get_code(r, status >= 100 && status <= 599 ? status : 0) += 1;
    r->bytes_in += bytes_in;
    r->bytes_out += bytes_out;
    trmi_histogram_add(&r->duration, &trmi_bounds_http, us, 1);
    pthread_mutex_unlock(&m->mu);
}

void trm_metrics_connections(trm_metrics *m, int open)
{
    if (m == NULL)
        return;
    pthread_mutex_lock(&m->mu);
    m->connections = open;
    pthread_mutex_unlock(&m->mu);
}
