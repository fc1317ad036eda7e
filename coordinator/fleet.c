/* Models, copies and places. Copies are few and live long; arrays are searched from end to end. */
#include "coordinator/fleet.h"
#include "coordinator/fleet_impl.h"

#include <stdio.h>
#include <string.h>

#define CREDITS_MAX (1u << 20)
#define PLACES_MAX 8192
#define METADATA_MAX ((size_t)1 << 20)

void trmi_fleet_free_replica(trm_fleet_replica *r)
{
    if (r != NULL)
        trm_free(r->places);
    trm_free(r);
}

static void free_copy(trm_fleet_copy *c)
{
    trm_free(c->path);
    trm_free(c->settings);
    trm_free(c->metadata);
    trm_free(c);
}

void trm_fleet_fini(trm_fleet *f)
{
    for (int i = 0; i < f->replica_count; i++)
        trmi_fleet_free_replica(f->replicas[i]);
    for (int i = 0; i < f->copy_count; i++)
        free_copy(f->copies[i]);
    for (int i = 0; i < f->model_count; i++) {
        trm_free(f->models[i]->path);
        trm_free(f->models[i]->settings);
        trm_free(f->models[i]->metadata);
        trm_free(f->models[i]);
    }
    trm_free(f->replicas);
    trm_free(f->copies);
    trm_free(f->models);
    memset(f, 0, sizeof(*f));
}

trm_status trmi_fleet_grow(void *array, int count, int *count_max, size_t item_bytes)
{
    void **items = array;
    int room = *count_max == 0 ? 8 : *count_max * 2;
    void *grown;

    if (count < *count_max)
        return TRM_OK;
    grown = trm_realloc(*items, (size_t)room, item_bytes);
    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fleet: a table of %d", room);
    *items = grown;
    *count_max = room;
    return TRM_OK;
}

/* ---- models ---- */

trm_fleet_model *trm_fleet_find(const trm_fleet *f, const char *name, int64_t version)
{
    for (int i = 0; i < f->model_count; i++)
        if (f->models[i]->version == version && strcmp(f->models[i]->name, name) == 0)
            return f->models[i];
    return NULL;
}

trm_fleet_model *trm_fleet_route(const trm_fleet *f, const char *name, int64_t version)
{
    trm_fleet_model *best = NULL;

    if (version != 0)
        return trm_fleet_find(f, name, version);
    for (int i = 0; i < f->model_count; i++) {
        trm_fleet_model *m = f->models[i];
        bool ready, best_ready;

        if (strcmp(m->name, name) != 0)
            continue;
        ready = m->current != NULL && m->current->ready > 0;
        best_ready = best != NULL && best->current != NULL && best->current->ready > 0;
        if (best == NULL || ready > best_ready ||
            (ready == best_ready && m->version > best->version))
            best = m;
    }
    return best;
}

/* Replaces *text by a copy of `by`, if there is one. */
static trm_status set_text(char **text, const char *by)
{
    char *copy;

    if (by == NULL)
        return TRM_OK;
    copy = trm_strdup(by);
    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fleet: %zu bytes of text", strlen(by));
    trm_free(*text);
    *text = copy;
    return TRM_OK;
}

trm_status trm_fleet_know(trm_fleet *f, const char *name, int64_t version, const char *path,
                          const char *settings, trm_fleet_model **model_out)
{
    trm_fleet_model *m;
    trm_status st;

    if (name == NULL || name[0] == '\0' || strlen(name) >= TRM_FLEET_NAME_BYTES)
        return trm_fail(TRM_ERR_INVALID_ARG, "a model's name has 1 to %d bytes",
                        TRM_FLEET_NAME_BYTES - 1);
    if (version < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "model '%s': version %lld, wanted 1 or more", name,
                        (long long)version);
    m = trm_fleet_find(f, name, version);
    if (m != NULL) {
        TRM_CHECK(set_text(&m->path, path));
        TRM_CHECK(set_text(&m->settings, settings));
        *model_out = m;
        return TRM_OK;
    }
    if (path == NULL)
        return trm_fail(TRM_ERR_NOT_FOUND,
                        "no model '%s' version %lld, and no path to load it from", name,
                        (long long)version);
    if (f->model_count == TRM_FLEET_MODELS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "more than %d models and versions",
                        TRM_FLEET_MODELS_MAX);
    TRM_CHECK(trmi_fleet_grow(&f->models, f->model_count, &f->model_max, sizeof(*f->models)));
    m = trm_calloc(1, sizeof(*m));
    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fleet: a model");
    snprintf(m->name, sizeof(m->name), "%s", name);
    m->version = version;
    TRM_TRY(st, set_text(&m->path, path), fail);
    TRM_TRY(st, set_text(&m->settings, settings != NULL ? settings : "{}"), fail);
    m->index = f->model_count;
    f->models[f->model_count++] = m;
    *model_out = m;
    return TRM_OK;

fail:
    trm_free(m->path);
    trm_free(m);
    return st;
}

trm_model_state trm_fleet_model_state(const trm_fleet_model *m)
{
    if (m->current != NULL && m->current->ready > 0)
        return TRM_MODEL_READY;
    if (m->pending != NULL || (m->current != NULL && (m->current->failed == 0 ||
                                                      m->current->places > m->current->failed)))
        return TRM_MODEL_LOADING;
    if (m->failed)
        return TRM_MODEL_FAILED;
    return m->retired > 0 ? TRM_MODEL_DRAINING : TRM_MODEL_UNLOADED;
}

bool trm_fleet_wants(const trm_fleet_model *m, const trm_fleet_replica *r)
{
    return m->replicas == 0 ||
           (r->number >= m->first_replica && r->number - m->first_replica < m->replicas);
}

int trm_fleet_loading(const trm_fleet *f, const trm_fleet_model *m)
{
    int n = 0;

    for (int i = 0; i < f->replica_count; i++) {
        const trm_fleet_replica *r = f->replicas[i];
        bool loading = false;

        for (int p = 0; p < r->place_count; p++)
            loading |= r->places[p].state == TRM_MODEL_LOADING && r->places[p].copy->model == m;
        n += loading;
    }
    return n;
}

bool trm_fleet_hope(const trm_fleet *f, const trm_fleet_model *m)
{
    const trm_fleet_copy *c = m->current;

    if (c == NULL)
        return false;
    for (int i = 0; i < f->replica_count; i++) {
        const trm_fleet_place *p;

        if (f->replicas[i]->state != TRM_FLEET_JOINED || !trm_fleet_wants(m, f->replicas[i]))
            continue;
        p = trm_fleet_place_of(f->replicas[i], c);
        if (p == NULL || p->state == TRM_MODEL_LOADING || p->state == TRM_MODEL_READY)
            return true; /* one without a place will get it */
    }
    return false;
}

/* ---- copies ---- */

trm_status trm_fleet_add_copy(trm_fleet *f, trm_fleet_model *m, trm_fleet_role role,
                              trm_fleet_copy **copy_out)
{
    trm_fleet_copy *c;
    trm_status st;

    TRM_CHECK(trmi_fleet_grow(&f->copies, f->copy_count, &f->copy_max, sizeof(*f->copies)));
    if (f->last_slot == UINT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "all slot numbers are used up");
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fleet: a copy of model '%s'", m->name);
    TRM_TRY(st, set_text(&c->path, m->path), fail);
    TRM_TRY(st, set_text(&c->settings, m->settings), fail);
    c->slot = ++f->last_slot;
    c->model = m;
    c->role = role;
    if (role == TRM_FLEET_CURRENT)
        m->current = c;
    else
        m->pending = c;
    m->failed = false;
    m->reason[0] = '\0';
    f->copies[f->copy_count++] = c;
    *copy_out = c;
    return TRM_OK;

fail:
    free_copy(c);
    return st;
}

trm_fleet_copy *trm_fleet_copy_of(const trm_fleet *f, uint32_t slot)
{
    for (int i = f->copy_count - 1; i >= 0; i--)
        if (f->copies[i]->slot == slot)
            return f->copies[i];
    return NULL;
}

/* What the model shows is of the copy that it uses. */
static void show(trm_fleet_model *m, const trm_fleet_copy *c, uint64_t now_s)
{
    if (set_text(&m->metadata, c->metadata) != TRM_OK)
        m->metadata = NULL; /* no memory: it is shown as unknown */
    m->loaded_at = now_s;
}

void trm_fleet_promote(trm_fleet_copy *copy, uint64_t now_s)
{
    trm_fleet_model *m = copy->model;

    if (m->current != NULL)
        trm_fleet_retire(m->current);
    copy->role = TRM_FLEET_CURRENT;
    m->pending = NULL;
    m->current = copy;
    show(m, copy, now_s);
}

void trm_fleet_retire(trm_fleet_copy *copy)
{
    trm_fleet_model *m = copy->model;

    if (copy->role == TRM_FLEET_RETIRED)
        return;
    if (m->current == copy)
        m->current = NULL;
    if (m->pending == copy)
        m->pending = NULL;
    copy->role = TRM_FLEET_RETIRED;
    m->retired++;
}

void trm_fleet_drop(trm_fleet *f, trm_fleet_copy *copy)
{
    TRM_ASSERT(copy->role == TRM_FLEET_RETIRED && copy->places == 0);
    for (int i = 0; i < f->copy_count; i++) {
        if (f->copies[i] != copy)
            continue;
        f->copies[i] = f->copies[--f->copy_count];
        break;
    }
    copy->model->retired--;
    free_copy(copy);
}

/* ---- places ---- */

trm_fleet_place *trm_fleet_place_of(const trm_fleet_replica *r, const trm_fleet_copy *copy)
{
    for (int i = 0; i < r->place_count; i++)
        if (r->places[i].copy == copy)
            return &r->places[i];
    return NULL;
}

trm_status trm_fleet_add_place(trm_fleet_replica *r, trm_fleet_copy *copy, int64_t now_us)
{
    if (r->place_count == PLACES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "more than %d models on a replica", PLACES_MAX);
    TRM_CHECK(trmi_fleet_grow(&r->places, r->place_count, &r->place_max, sizeof(*r->places)));
    if (!trmi_fleet_busy(r))
        r->moved_us = now_us;
    r->places[r->place_count++] = (trm_fleet_place){.copy = copy, .state = TRM_MODEL_LOADING};
    copy->places++;
    return TRM_OK;
}

static void remove_place(trm_fleet_replica *r, trm_fleet_place *p)
{
    p->copy->places--;
    p->copy->ready -= p->state == TRM_MODEL_READY;
    p->copy->failed -= p->state == TRM_MODEL_FAILED;
    *p = r->places[--r->place_count];
}

void trmi_fleet_clear(trm_fleet_replica *r)
{
    while (r->place_count > 0)
        remove_place(r, &r->places[r->place_count - 1]);
    r->in_flight = 0;
}

bool trm_fleet_displace(trm_fleet_replica *r, trm_fleet_copy *copy, int64_t now_us)
{
    trm_fleet_place *p = trm_fleet_place_of(r, copy);

    if (p == NULL || p->state == TRM_MODEL_DRAINING)
        return false;
    if (p->state == TRM_MODEL_FAILED) {
        remove_place(r, p);
        return false;
    }
    if (!trmi_fleet_busy(r))
        r->moved_us = now_us;
    copy->ready -= p->state == TRM_MODEL_READY;
    p->state = TRM_MODEL_DRAINING;
    return true;
}

/* READY: also again, with other credits. */
static trm_status on_ready(trm_fleet_place *p, const trm_wire_model *m, uint64_t now_s)
{
    trm_fleet_copy *c = p->copy;

    if (m->credits == 0)
        return trm_fail(TRM_ERR_COMM, "model '%s' is ready and takes no request", c->model->name);
    p->credits = m->credits < CREDITS_MAX ? m->credits : CREDITS_MAX;
    if (p->state == TRM_MODEL_READY)
        return TRM_OK;
    p->state = TRM_MODEL_READY;
    c->ready++;
    if (c->metadata == NULL && m->metadata != NULL && strlen(m->metadata) <= METADATA_MAX)
        TRM_CHECK(set_text(&c->metadata, m->metadata));
    if (c->role == TRM_FLEET_CURRENT && c->ready == 1)
        show(c->model, c, now_s);
    return TRM_OK;
}

/* MODEL of a replica. */
trm_status trmi_fleet_model(trm_fleet *f, trm_fleet_replica *r, const trm_wire_model *m,
                            uint64_t now_s, bool *changed_out)
{
    trm_fleet_copy *c = trm_fleet_copy_of(f, m->slot);
    trm_fleet_place *p = c != NULL ? trm_fleet_place_of(r, c) : NULL;

    if (p == NULL)
        return trm_fail(TRM_ERR_COMM, "tells of slot %u, which it was not given",
                        (unsigned)m->slot);
    *changed_out = true;
    switch (m->state) {
    case TRM_MODEL_LOADING:
        return TRM_OK;
    case TRM_MODEL_READY:
        if (p->state == TRM_MODEL_LOADING || p->state == TRM_MODEL_READY)
            return on_ready(p, m, now_s);
        return p->state == TRM_MODEL_DRAINING ? TRM_OK /* it crossed UNLOAD */
                                              : trm_fail(TRM_ERR_COMM, "READY after FAILED");
    case TRM_MODEL_FAILED:
        if (p->state == TRM_MODEL_DRAINING)
            return TRM_OK; /* it crossed UNLOAD, whose answer is UNLOADED all the same */
        if (p->in_flight > 0)
            return trm_fail(TRM_ERR_COMM, "model '%s' failed with %u requests: %.200s",
                            c->model->name, (unsigned)p->in_flight, m->message);
        c->ready -= p->state == TRM_MODEL_READY;
        c->failed += p->state != TRM_MODEL_FAILED;
        p->state = TRM_MODEL_FAILED;
        c->model->failed = true;
        snprintf(c->model->reason, sizeof(c->model->reason), "%s", m->message);
        return TRM_OK;
    case TRM_MODEL_DRAINING:
        return TRM_OK;
    case TRM_MODEL_UNLOADED:
        if (p->state != TRM_MODEL_DRAINING || p->in_flight > 0)
            return trm_fail(TRM_ERR_COMM, "unloaded model '%s' unasked", c->model->name);
        remove_place(r, p);
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_COMM, "a model in state %d", (int)m->state);
    }
}
