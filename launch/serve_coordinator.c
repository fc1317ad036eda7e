/* The life of a coordinator. */
#define _GNU_SOURCE
#include "launch/serve_coordinator.h"

#include "base/log.h"
#include "base/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS 200

struct trm_serve_coordinator {
    trm_serve_coordinator_options o;
    trm_metrics *metrics;
    trm_link_context *clients; /* of the public endpoint */
    trm_hub *hub;
    trm_gateway *gateway;
    char *keys, *cert, *key, *log, *files; /* paths of the configuration */
    int64_t begun_us;
    pthread_t thread;
    bool started;
    bool lost;
    int give_up; /* atomic */
    trm_status st;
    char message[1024];
};

static void wanted_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
}

void trm_serve_block_signals(void)
{
    sigset_t set;

    wanted_signals(&set);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

/* The next signal that has come, at most `ms` later; 0: none. */
static int next_signal(int ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    sigset_t set;
    int s;

    wanted_signals(&set);
    s = sigtimedwait(&set, NULL, &t);
    return s > 0 ? s : 0;
}

static bool ends(int s)
{
    return s == SIGTERM || s == SIGINT || s == SIGUSR1;
}

/* ---- making it ---- */

static trm_status describe_models(const trm_serve_plan *p, trm_hub_model **models_out)
{
    const trm_serve_settings *m = p->c->models.items;
    trm_hub_model *models = trm_calloc((size_t)p->c->models.count, sizeof(*models));
    trm_status st = TRM_OK;

    *models_out = models;
    if (models == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "models");
    for (int i = 0; i < p->c->models.count && st == TRM_OK; i++) {
        const trm_serve_group *g = &p->groups[trm_serve_plan_group(p, &m[i])];
        char name[256], *path = NULL, *settings = NULL;

        trm_serve_model_name(&m[i], name, sizeof(name));
        st = trm_serve_plan_path(p, m[i].path, &path);
        if (st == TRM_OK)
            st = trm_serve_plan_settings(p, i, &settings);
        models[i] = (trm_hub_model){.name = trm_strdup(name),
                                    .version = m[i].version,
                                    .path = path,
                                    .settings = settings,
                                    .load = m[i].load,
                                    .first_replica = g->first_replica,
                                    .replicas = g->replicas};
        if (st == TRM_OK && models[i].name == NULL)
            st = trm_fail(TRM_ERR_NO_MEMORY, "models");
    }
    return st;
}

static void free_models(trm_hub_model *models, int count)
{
    for (int i = 0; models != NULL && i < count; i++) {
        trm_free((char *)(uintptr_t)models[i].name);
        trm_free((char *)(uintptr_t)models[i].path);
        trm_free((char *)(uintptr_t)models[i].settings);
    }
    trm_free(models);
}

static trm_status make_hub(trm_serve_coordinator *c)
{
    const trm_serve_plan *p = c->o.plan;
    const trm_serve_config *config = p->c;
    trm_hub_model *models = NULL;
    trm_hub_options o = {.context = c->o.context,
                         .endpoint = c->o.endpoint,
                         .public_endpoint = config->zmq->clients,
                         .replicas = p->replicas,
                         .queue_max = (int)config->limits->queue,
                         .deadline_ms = (int64_t)(config->limits->deadline_s * 1e3),
                         .join_ms = config->cluster->join_us / 1000,
                         .silence_ms = config->cluster->silence_us / 1000,
                         .stuck_ms = config->cluster->stuck_us / 1000,
                         .in_job = c->o.in_job,
                         .model_count = config->models.count,
                         .metrics = c->metrics};
    trm_status st = describe_models(p, &models);

    o.models = models;
    if (st == TRM_OK && config->zmq->clients != NULL)
        st = trm_link_context_create(&c->clients);
    o.public_context = c->clients;
    if (st == TRM_OK)
        st = trm_hub_create(&o, &c->hub);
    free_models(models, config->models.count);
    return st;
}

trm_status trm_serve_coordinator_create(const trm_serve_coordinator_options *options,
                                        trm_serve_coordinator **coordinator_out)
{
    trm_serve_coordinator *c = trm_calloc(1, sizeof(*c));
    const trm_serve_gateway *g = options->plan->c->gateway;
    const trm_serve_plan *p = options->plan;
    trm_status st;

    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "coordinator");
    c->o = *options;
    c->begun_us = trm_now_us();
    TRM_TRY(st, trm_serve_plan_path(p, g->keys, &c->keys), fail);
    TRM_TRY(st, trm_serve_plan_path(p, g->tls != NULL ? g->tls->cert : NULL, &c->cert), fail);
    TRM_TRY(st, trm_serve_plan_path(p, g->tls != NULL ? g->tls->key : NULL, &c->key), fail);
    TRM_TRY(st, trm_serve_plan_path(p, g->files, &c->files), fail);
    if (g->access_log != NULL && strcmp(g->access_log, "-") == 0)
        c->log = trm_strdup("-");
    else
        TRM_TRY(st, trm_serve_plan_path(p, g->access_log, &c->log), fail);
    TRM_TRY(st, trm_metrics_create(&c->metrics), fail);
    TRM_TRY(st, make_hub(c), fail);
    *coordinator_out = c;
    return TRM_OK;
fail:
    trm_serve_coordinator_destroy(c);
    return st;
}

const char *trm_serve_coordinator_endpoint(const trm_serve_coordinator *c)
{
    return trm_hub_endpoint(c->hub);
}

/* ---- the gateway ---- */

/* What /version and the status page tell of the layout. */
static char *configuration(const trm_serve_coordinator *c)
{
    const trm_serve_plan *p = c->o.plan;
    json_t *groups = json_array(), *o;
    char *text, *copy;

    for (int i = 0; i < p->group_count; i++)
        json_array_append_new(
            groups, json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "name", p->groups[i].name, "ranks",
                              p->groups[i].ranks, "data", p->groups[i].replicas, "tensor",
                              p->groups[i].tensor, "pipeline", p->groups[i].pipeline,
                              "first_replica", p->groups[i].first_replica));
    o = json_pack("{s:o, s:s}", "groups", groups, "form", c->o.in_job ? "one job" : "jobs");
    text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    copy = trm_strdup(text != NULL ? text : "{}");
    json_decref(o);
    free(text);
    return copy;
}

static trm_status open_gateway(trm_serve_coordinator *c)
{
    const trm_serve_config *config = c->o.plan->c;
    const trm_serve_gateway *g = config->gateway;
    const trm_serve_limits *l = config->limits;
    char *tells = configuration(c);
    trm_gateway_options o = {.http = {.listen = c->o.listen != NULL ? c->o.listen : g->listen,
                                      .keys_path = c->keys,
                                      .cert_path = c->cert,
                                      .key_path = c->key,
                                      .body_max = (size_t)l->body,
                                      .upload_max = (size_t)l->upload,
                                      .requests_per_key = (int)l->requests_per_key,
                                      .connections = (int)l->connections,
                                      .idle_ms = (int64_t)(l->idle_s * 1e3),
                                      .access_log = c->log,
                                      .cors_origin = g->cors,
                                      .metrics_open = g->metrics_open,
                                      .metrics = c->metrics},
                             .hub = c->hub,
                             .metrics = c->metrics,
                             .files = c->files,
                             .batch_requests = (int)l->batch_requests,
                             .admin = g->admin,
                             .version = TRM_VERSION,
                             .configuration = tells};
    trm_status st = tells == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "gateway") : TRM_OK;

    if (st == TRM_OK && strcmp(o.http.listen, "off") != 0)
        st = trm_gateway_start(&o, &c->gateway);
    trm_free(tells);
    return st;
}

static void say_ready(const trm_serve_coordinator *c)
{
    const char *public = trm_hub_public_endpoint(c->hub);

    fprintf(stderr, TRM_SERVE_READY " %.2f s: %d replica%s%s%s%s%s\n",
            (double)(trm_now_us() - c->begun_us) / 1e6, c->o.plan->replicas,
            c->o.plan->replicas == 1 ? "" : "s", c->gateway != NULL ? ", " : "",
            c->gateway != NULL ? trm_http_url(trm_gateway_http(c->gateway)) : "",
            public[0] != '\0' ? ", ZeroMQ " : "", public);
}

/* ---- its life ---- */

static trm_status wait_ready(trm_serve_coordinator *c, bool *stopped_out)
{
    for (;;) {
        trm_status st = trm_hub_wait_ready(c->hub, trm_now_us() + LOOK_MS * 1000);

        if (st != TRM_ERR_TIMEOUT)
            return st;
        if (ends(next_signal(0)) || __atomic_load_n(&c->give_up, __ATOMIC_ACQUIRE)) {
            *stopped_out = true;
            return TRM_OK;
        }
    }
}

static void on_hangup(trm_serve_coordinator *c)
{
    if (c->gateway == NULL)
        return;
    if (trm_http_reload(trm_gateway_http(c->gateway)) == TRM_OK)
        TRM_LOG(TRM_LOG_INFO, "serve", "the keys were read anew");
    else
        TRM_LOG(TRM_LOG_WARN, "serve", "the old keys stay: %s", trm_message());
}

/* Until a signal ends it, or no replica is left of a job. */
static trm_status serve(trm_serve_coordinator *c)
{
    for (;;) {
        int s = next_signal(1000);
        trm_hub_info info;
        bool none;

        if (s == SIGHUP)
            on_hangup(c);
        if (ends(s) || __atomic_load_n(&c->give_up, __ATOMIC_ACQUIRE))
            return TRM_OK;
        if (!c->o.in_job)
            continue; /* replicas come back */
        TRM_CHECK(trm_hub_get_info(c->hub, &info));
        none = info.dead_replicas == info.replicas; /* those lost long ago are not listed */
        if (none)
            (void)trm_fail(TRM_ERR_COMM, "no replica is left%s%s",
                           info.last_dead[0] != '\0' ? "; the last was " : "", info.last_dead);
        trm_hub_info_fini(&info);
        if (none)
            return TRM_ERR_COMM;
    }
}

static void drain(trm_serve_coordinator *c)
{
    int64_t deadline_us = trm_now_us() + (int64_t)(c->o.plan->c->limits->drain_s * 1e6);
    trm_status st = TRM_ERR_TIMEOUT;

    if (c->gateway != NULL)
        trm_gateway_set_draining(c->gateway);
    fprintf(stderr, "trireme serve: draining\n");
    while (st == TRM_ERR_TIMEOUT && trm_now_us() < deadline_us) {
        int64_t until = trm_now_us() + 100000;

        st = trm_hub_drain(c->hub, until < deadline_us ? until : deadline_us);
        if (st == TRM_ERR_TIMEOUT && ends(next_signal(0))) {
            fprintf(stderr, "trireme serve: a second signal: stopping at once\n");
            break;
        }
    }
    if (st == TRM_ERR_TIMEOUT)
        TRM_LOG(TRM_LOG_WARN, "serve", "drain: %s", trm_message());
}

trm_status trm_serve_coordinator_run(trm_serve_coordinator *c)
{
    bool stopped = false;
    trm_status st = wait_ready(c, &stopped);
    char text[1024] = "";

    if (st == TRM_OK && !stopped)
        st = open_gateway(c);
    if (st == TRM_OK && !stopped) {
        say_ready(c);
        st = serve(c);
        if (st == TRM_OK)
            drain(c);
    }
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    if (c->gateway != NULL)
        trm_http_quiesce(trm_gateway_http(c->gateway));
    c->lost = trm_hub_stop(c->hub); /* answers what is left, so the gateway can end */
    trm_gateway_stop(c->gateway);
    c->gateway = NULL;
    return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text);
}

static void *thread_main(void *ctx)
{
    trm_serve_coordinator *c = ctx;

    c->st = trm_serve_coordinator_run(c);
    if (c->st != TRM_OK)
        snprintf(c->message, sizeof(c->message), "%s", trm_message());
    return NULL;
}

trm_status trm_serve_coordinator_start(trm_serve_coordinator *c)
{
    int rc = pthread_create(&c->thread, NULL, thread_main, c);

    if (rc != 0)
        return trm_fail(TRM_ERR_NO_MEMORY, "serve: cannot start a thread: %s", strerror(rc));
    c->started = true;
    return TRM_OK;
}

trm_status trm_serve_coordinator_join(trm_serve_coordinator *c)
{
    if (c->started)
        pthread_join(c->thread, NULL);
    c->started = false;
    return c->st == TRM_OK ? TRM_OK : trm_fail(c->st, "%s", c->message);
}

bool trm_serve_coordinator_lost(const trm_serve_coordinator *c)
{
    return c->lost;
}

void trm_serve_coordinator_give_up(trm_serve_coordinator *c)
{
    __atomic_store_n(&c->give_up, 1, __ATOMIC_RELEASE);
}

void trm_serve_coordinator_destroy(trm_serve_coordinator *c)
{
    if (c == NULL)
        return;
    trm_serve_coordinator_give_up(c);
    (void)!trm_serve_coordinator_join(c);
    trm_gateway_stop(c->gateway);
    trm_hub_destroy(c->hub);
    trm_link_context_destroy(c->clients);
    trm_metrics_destroy(c->metrics);
    trm_free(c->keys);
    trm_free(c->cert);
    trm_free(c->key);
    trm_free(c->log);
    trm_free(c->files);
    trm_free(c);
}
