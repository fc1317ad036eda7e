/* Models: loading, replacing and unloading them on all replicas, and what is told of them. Nothing
 * here keeps a script of steps: each round compares what every replica has with what it is to have
 * and sends what is missing, so that replicas may come and go at any time. */
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- operations; mu held ---- */

static trmi_hub_operation *new_operation(void *ctx, void (*done)(void *ctx, trm_status st,
                                                                 const char *message))
{
    trmi_hub_operation *o = trm_calloc(1, sizeof(*o));

    if (o == NULL) {
        (void)trm_fail(TRM_ERR_NO_MEMORY, "hub: an operation");
        return NULL;
    }
    o->ctx = ctx;
    o->done = done;
    return o;
}

static void finish(trmi_hub_operation *o, trm_status st, const char *message)
{
    if (o->finished)
        return;
    o->finished = true;
    o->st = st;
    snprintf(o->message, sizeof(o->message), "%s", message);
}

/* The load that waits for this copy. */
static void finish_load(trm_hub *h, const trm_fleet_copy *c, trm_status st, const char *message)
{
    for (trmi_hub_operation *o = h->operations; o != NULL; o = o->next)
        if (o->name[0] == '\0' && o->slot == c->slot)
            finish(o, st, message);
}

void trmi_hub_fail_operations(trm_hub *h, trm_status st, const char *message)
{
    for (trmi_hub_operation *o = h->operations; o != NULL; o = o->next)
        finish(o, st, message);
}

void trmi_hub_finish_operations(trm_hub *h)
{
    for (;;) {
        trmi_hub_operation **at, *o;

        pthread_mutex_lock(&h->mu);
        at = &h->operations;
        while (*at != NULL && !(*at)->finished)
            at = &(*at)->next;
        o = *at;
        if (o != NULL)
            *at = o->next;
        pthread_mutex_unlock(&h->mu);
        if (o == NULL)
            return;
        if (o->done != NULL)
            o->done(o->ctx, o->st, o->message);
        trm_free(o);
    }
}

/* ---- what each replica is to have; mu held ---- */

/* False: this replica is given up, or its queue is full. */
static bool send_load(trm_hub *h, trm_fleet_replica *r, trm_fleet_copy *c, int64_t now)
{
    trm_wire_load load = {.slot = c->slot,
                          .name = c->model->name,
                          .version = c->model->version,
                          .path = c->path,
                          .settings = c->settings};
    trm_wire_message m = {.kind = TRM_WIRE_LOAD, .u.load = &load};
    trm_status st = trmi_hub_send(h, r->peer, &m);

    if (st == TRM_OK)
        st = trm_fleet_add_place(r, c, now);
    else if (st == TRM_ERR_TIMEOUT)
        return false;
    if (st != TRM_OK)
        trmi_hub_give_up(h, r, st == TRM_ERR_COMM ? "its connection was closed" : trm_message(),
                         true);
    return st == TRM_OK;
}

static void load_everywhere(trm_hub *h, trm_fleet_copy *c, int64_t now)
{
    for (int i = 0; i < h->fleet.replica_count; i++) {
        trm_fleet_replica *r = h->fleet.replicas[i];

        if (r->state == TRM_FLEET_JOINED && trm_fleet_wants(c->model, r) &&
            trm_fleet_place_of(r, c) == NULL && send_load(h, r, c, now))
            h->changed = true;
    }
}

static void unload_everywhere(trm_hub *h, trm_fleet_copy *c, int64_t now)
{
    for (int i = 0; i < h->fleet.replica_count; i++) {
        trm_fleet_replica *r = h->fleet.replicas[i];
        trm_wire_message m = {.kind = TRM_WIRE_UNLOAD, .u.slot = c->slot};
        trm_fleet_place *p = trm_fleet_place_of(r, c);
        trm_status st;

        if (p == NULL || p->state == TRM_MODEL_DRAINING)
            continue;
        if (p->state == TRM_MODEL_FAILED) {
            (void)trm_fleet_displace(r, c, now);
            continue;
        }
        st = trmi_hub_send(h, r->peer, &m);
        if (st == TRM_OK)
            (void)trm_fleet_displace(r, c, now);
        else if (st == TRM_ERR_COMM)
            trmi_hub_give_up(h, r, "its connection was closed", true);
        else
            continue; /* its queue is full: the next beat tries again */
        h->changed = true;
    }
}

/* Whether a replica that is missed since then is waited for no longer. */
static bool nobody_comes(const trm_hub *h, int64_t since_us, int64_t now)
{
    return (h->options.in_job && h->fleet.joined >= h->options.replicas) ||
           now - since_us > h->join_us;
}

/* The pending copy takes over, or is taken back. */
static void settle_pending(trm_hub *h, trm_fleet_copy *c, int64_t now)
{
    trm_fleet_model *m = c->model;
    int joined = 0, have = 0;

    for (int i = 0; i < h->fleet.replica_count; i++) {
        const trm_fleet_replica *r = h->fleet.replicas[i];
        const trm_fleet_place *p = trm_fleet_place_of(r, c);

        if (!trm_fleet_wants(m, r))
            continue;
        joined += r->state == TRM_FLEET_JOINED;
        have += r->state == TRM_FLEET_JOINED && p != NULL && p->state == TRM_MODEL_READY;
    }
    if (c->failed > 0) {
        char text[TRMI_HUB_REASON_BYTES];

        snprintf(text, sizeof(text), "model '%s' version %" PRId64 ": %s", m->name, m->version,
                 m->reason);
        TRM_LOG(TRM_LOG_WARN, "hub", "%s", text);
        trm_fleet_retire(c);
        finish_load(h, c, TRM_ERR_BAD_FILE, text);
        h->changed = true;
    } else if (joined > 0 && have == joined) {
        TRM_LOG(TRM_LOG_INFO, "hub", "model '%s' version %" PRId64 " is ready on %d replicas",
                m->name, m->version, have);
        trm_fleet_promote(c, (uint64_t)time(NULL));
        finish_load(h, c, TRM_OK, "");
        h->changed = true;
    } else if (joined > 0) {
        c->alone_us = 0;
    } else if (c->alone_us == 0) {
        c->alone_us = now;
    } else if (nobody_comes(h, c->alone_us, now)) {
        trm_fleet_retire(c);
        finish_load(h, c, TRM_ERR_COMM, "no replica is there to load the model");
        h->changed = true;
    }
}

static bool matches(const trmi_hub_operation *o, const trm_fleet_copy *c)
{
    return c->slot <= o->slot && strcmp(c->model->name, o->name) == 0 &&
           (o->version == 0 || o->version == c->model->version);
}

static void settle_unloads(trm_hub *h)
{
    for (trmi_hub_operation *o = h->operations; o != NULL; o = o->next) {
        bool left = false;

        if (o->name[0] == '\0' || o->finished)
            continue;
        for (int i = 0; i < h->fleet.copy_count; i++)
            left |= matches(o, h->fleet.copies[i]);
        if (!left)
            finish(o, TRM_OK, "");
    }
}

void trmi_hub_reconcile(trm_hub *h, int64_t now_us)
{
    for (int i = h->fleet.copy_count - 1; i >= 0; i--) { /* dropping moves later ones only */
        trm_fleet_copy *c = h->fleet.copies[i];
        bool needed;

        if (c->role != TRM_FLEET_RETIRED)
            load_everywhere(h, c, now_us);
        if (c->role == TRM_FLEET_PENDING)
            settle_pending(h, c, now_us);
        if (c->role != TRM_FLEET_RETIRED)
            continue;
        /* nothing new goes to it, but for what still waits for a model that is being unloaded */
        needed = c->requests > 0 || (c->model->current == NULL && c->model->waiting > 0);
        if (!needed)
            unload_everywhere(h, c, now_us);
        if (!needed && c->places == 0) {
            trm_fleet_drop(&h->fleet, c);
            h->changed = true;
        }
    }
    settle_unloads(h);
}

void trmi_hub_check_hope(trm_hub *h, int64_t now_us)
{
    for (int i = 0; i < h->fleet.model_count; i++) {
        trm_fleet_model *m = h->fleet.models[i];
        bool hope = trm_fleet_hope(&h->fleet, m);
        char text[TRMI_HUB_REASON_BYTES];

        for (int c = 0; c < h->fleet.copy_count && !hope && m->retired > 0; c++)
            hope = h->fleet.copies[c]->model == m && h->fleet.copies[c]->ready > 0;
        if (hope) {
            m->hopeless_us = 0;
            continue;
        }
        if (m->hopeless_us == 0)
            m->hopeless_us = now_us;
        if (m->waiting == 0)
            continue;
        trmi_hub_reroute(h, m);
        if (m->waiting == 0 ||
            (m->current != NULL && !h->options.in_job && now_us - m->hopeless_us <= h->join_us))
            continue;
        snprintf(text, sizeof(text), "no replica is left that has model '%s'%s%.100s", m->name,
                 h->last_dead[0] != '\0' ? "; the last lost: " : "", h->last_dead);
        trmi_hub_end_all(h, m, TRM_ERR_COMM, text);
    }
}

/* ---- load and unload; any thread ---- */

static int64_t newest_known(const trm_hub *h, const char *name)
{
    int64_t version = 0;

    for (int i = 0; i < h->fleet.model_count; i++)
        if (strcmp(h->fleet.models[i]->name, name) == 0 && h->fleet.models[i]->version > version)
            version = h->fleet.models[i]->version;
    return version;
}

/* What a load says over what the configuration says, key by key; for this load alone. NULL: as the
 * configuration says. *text_out from trm_malloc. */
static trm_status merge_settings(const char *known, const char *over, char **text_out)
{
    json_t *o, *more;
    char *text = NULL;

    *text_out = NULL;
    if (over == NULL)
        return TRM_OK;
    o = json_loads(known, 0, NULL);
    more = json_loads(over, 0, NULL);
    if (json_is_object(o) && json_is_object(more) && json_object_update(o, more) == 0)
        text = json_dumps(o, JSON_COMPACT);
    if (text != NULL)
        *text_out = trm_strdup(text);
    json_decref(o);
    json_decref(more);
    if (text == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "load: settings that are no JSON object");
    free(text); /* jansson's */
    return *text_out != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "settings of a model");
}

static trm_status start_load(trm_hub *h, const trm_hub_model *model, trmi_hub_operation *o)
{
    int64_t version = model->version;
    trm_fleet_model *m;
    trm_fleet_copy *c;
    char *settings = NULL;
    trm_status st;

    if (model->name == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "load: no name of a model");
    if (h->draining || h->stop || h->over)
        return trm_fail(TRM_ERR_COMM, "the server is shutting down");
    if (version == 0)
        version = newest_known(h, model->name);
    m = trm_fleet_find(&h->fleet, model->name, version == 0 ? 1 : version);
    if (m != NULL && m->pending != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "model '%s' version %" PRId64 " is being loaded",
                        m->name, m->version);
    TRM_CHECK(trm_fleet_know(&h->fleet, model->name, version == 0 ? 1 : version, model->path,
                             m == NULL ? model->settings : NULL, &m));
    TRM_CHECK(merge_settings(m->settings, model->settings, &settings));
    st = trm_fleet_add_copy(&h->fleet, m, TRM_FLEET_PENDING, &c);
    if (st != TRM_OK) {
        trm_free(settings);
        return st;
    }
    if (settings != NULL) {
        trm_free(c->settings);
        c->settings = settings;
    }
    o->slot = c->slot;
    o->next = h->operations;
    h->operations = o;
    h->changed = true;
    return TRM_OK;
}

trm_status trm_hub_load(trm_hub *hub, const trm_hub_model *model, void *ctx,
                        void (*done)(void *ctx, trm_status st, const char *message))
{
    trmi_hub_operation *o = new_operation(ctx, done);
    trm_status st;

    if (o == NULL)
        return TRM_ERR_NO_MEMORY;
    pthread_mutex_lock(&hub->mu);
    st = start_load(hub, model, o);
    if (st == TRM_OK)
        trmi_hub_wake(hub);
    pthread_mutex_unlock(&hub->mu);
    if (st != TRM_OK)
        trm_free(o);
    return st;
}

static trm_status start_unload(trm_hub *h, const char *name, int64_t version, trmi_hub_operation *o)
{
    bool known = false;

    if (h->stop || h->over)
        return trm_fail(TRM_ERR_COMM, "the server is shutting down");
    for (int i = 0; i < h->fleet.model_count; i++) {
        trm_fleet_model *m = h->fleet.models[i];

        if (strcmp(m->name, name) != 0 || (version != 0 && m->version != version))
            continue;
        known = true;
        m->load = m->failed = false;
        if (m->pending != NULL) {
            finish_load(h, m->pending, TRM_ERR_CANCELLED, "the model was unloaded meanwhile");
            trm_fleet_retire(m->pending);
        }
        if (m->current != NULL)
            trm_fleet_retire(m->current);
        snprintf(m->reason, sizeof(m->reason), "unloaded");
    }
    if (!known && version != 0)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s' version %" PRId64, name, version);
    if (!known)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
    snprintf(o->name, sizeof(o->name), "%s", name);
    o->version = version;
    o->slot = h->fleet.last_slot;
    o->next = h->operations;
    h->operations = o;
    h->changed = true;
    return TRM_OK;
}

trm_status trm_hub_unload(trm_hub *hub, const char *name, int64_t version, void *ctx,
                          void (*done)(void *ctx, trm_status st, const char *message))
{
    trmi_hub_operation *o = new_operation(ctx, done);
    trm_status st;

    if (o == NULL)
        return TRM_ERR_NO_MEMORY;
    pthread_mutex_lock(&hub->mu);
    st = start_unload(hub, name, version, o);
    if (st == TRM_OK)
        trmi_hub_wake(hub);
    pthread_mutex_unlock(&hub->mu);
    if (st != TRM_OK)
        trm_free(o);
    return st;
}

/* ---- what is told; any thread ---- */

/* mu held. */
static trm_status fill(const trm_hub *h, const trm_fleet_model *m, trm_hub_model_info *info)
{
    memset(info, 0, sizeof(*info));
    snprintf(info->name, sizeof(info->name), "%s", m->name);
    info->version = m->version;
    info->state = trm_fleet_model_state(m);
    info->listed = info->state == TRM_MODEL_UNLOADED;
    info->replicas = m->current != NULL ? m->current->ready : 0;
    info->loading = trm_fleet_loading(&h->fleet, m);
    snprintf(info->reason, sizeof(info->reason), "%s", m->reason);
    info->running = m->running;
    info->waiting = m->waiting;
    info->loaded_at = m->loaded_at;
    info->metadata = trm_strdup(m->metadata != NULL ? m->metadata : "");
    if (info->metadata == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "hub: what is known of model '%s'", m->name);
    return TRM_OK;
}

static int by_name_and_version(const void *a, const void *b)
{
    const trm_hub_model_info *x = a, *y = b;
    int c = strcmp(x->name, y->name);

    return c != 0 ? c : (x->version > y->version) - (x->version < y->version);
}

trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out, int *count_out)
{
    trm_hub_model_info *infos;
    trm_status st = TRM_OK;
    int n = 0, count;

    pthread_mutex_lock(&hub->mu);
    count = hub->fleet.model_count;
    infos = trm_calloc((size_t)count + 1, sizeof(*infos));
    if (infos == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "hub: a list of %d models", count);
    for (; st == TRM_OK && n < count; n++)
        st = fill(hub, hub->fleet.models[n], &infos[n]);
    pthread_mutex_unlock(&hub->mu);
    if (st != TRM_OK) {
        trm_hub_models_free(infos, n);
        return st;
    }
    qsort(infos, (size_t)count, sizeof(*infos), by_name_and_version);
    *infos_out = infos;
    *count_out = count;
    return TRM_OK;
}

void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    for (int i = 0; infos != NULL && i < count; i++)
        trm_free(infos[i].metadata);
    trm_free(infos);
}

trm_status trm_hub_find_model(trm_hub *hub, const char *name, int64_t version,
                              trm_hub_model_info *info_out)
{
    trm_hub_model_info info;
    const trm_fleet_model *m;
    trm_status st;

    pthread_mutex_lock(&hub->mu);
    m = trm_fleet_route(&hub->fleet, name, version);
    if (m != NULL)
        st = fill(hub, m, &info);
    else if (version != 0)
        st = trm_fail(TRM_ERR_NOT_FOUND, "no model '%s' version %" PRId64, name, version);
    else
        st = trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
    pthread_mutex_unlock(&hub->mu);
    if (st == TRM_OK)
        *info_out = info;
    return st;
}

void trmi_hub_tell_gauges(trm_hub *h)
{
    trm_metrics_model_gauges *g;
    int n = h->fleet.model_count;

    if (h->options.metrics == NULL)
        return;
    g = trm_calloc((size_t)n + 1, sizeof(*g));
    for (int i = 0; g != NULL && i < n; i++) {
        const trm_fleet_model *m = h->fleet.models[i];

        g[i] = (trm_metrics_model_gauges){.model = m->name,
                                          .version = m->version,
                                          .state = trm_fleet_model_state(m),
                                          .running = m->running,
                                          .waiting = m->waiting,
                                          .replicas = m->current != NULL ? m->current->ready : 0};
    }
    if (g != NULL)
        trm_metrics_models(h->options.metrics, g, n);
    trm_free(g);
    for (int i = 0; i < h->fleet.replica_count; i++)
        if (h->fleet.replicas[i]->state != TRM_FLEET_DEAD)
            trm_metrics_replica(h->options.metrics, h->fleet.replicas[i]->peer,
                                trm_fleet_replica_state_name(&h->fleet, h->fleet.replicas[i]));
}
