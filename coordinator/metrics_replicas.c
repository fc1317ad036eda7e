/* What replicas tell of themselves.
 *
 * They tell counters since a model was loaded, or since their own start. Sums here take the
 * difference to what the same replica told of the same slot before, so that they never go backwards
 * when a replica is started again, and never lose what a dead one had done. */
#include "coordinator/metrics_impl.h"

#include <stdio.h>
#include <string.h>

void trmi_replica_destroy(trmi_replica *r)
{
    if (r != NULL) {
        trm_free(r->ranks);
        trm_free(r->slots);
    }
    trm_free(r);
}

static int find_replica(const trm_metrics *m, const char *name)
{
    for (int i = 0; i < m->replica_count; i++)
        if (strcmp(m->replicas[i]->name, name) == 0)
            return i;
    return -1;
}

/* Forgets replicas that are gone beyond `most`, the longest gone first. */
static void trim_replicas(trm_metrics *m, int most)
{
    for (;;) {
        int gone = 0, oldest = -1;

        for (int i = 0; i < m->replica_count; i++) {
            if (!m->replicas[i]->gone)
                continue;
            gone++;
            if (oldest < 0 || m->replicas[i]->gone_us < m->replicas[oldest]->gone_us)
                oldest = i;
        }
        if (gone <= most)
            return;
        trmi_replica_destroy(m->replicas[oldest]);
        m->replicas[oldest] = m->replicas[--m->replica_count];
    }
}

static void identity_of(const char *replica, char identity[TRM_LINK_PEER_BYTES],
                        char name[TRM_LINK_PEER_BYTES])
{
    char *slash;

    trmi_metrics_name(identity, TRM_LINK_PEER_BYTES, replica);
    memcpy(name, identity, TRM_LINK_PEER_BYTES);
    slash = strrchr(name, '/');
    if (slash != NULL && slash != name)
        *slash = '\0';
}

/* A new life: its counters start at zero again. */
static void begin_life(trmi_replica *r, const char *identity)
{
    memcpy(r->identity, identity, sizeof(r->identity));
    r->gone = false;
    r->slot_count = 0;
    for (int i = 0; i < r->rank_count; i++) {
        trmi_rank *rank = &r->ranks[i];

        rank->busy_before += rank->busy_us;
        rank->cpu_before += rank->cpu_us;
        rank->busy_us = rank->cpu_us = rank->at_us = rank->at_busy = rank->at_cpu = 0;
        rank->utilisation = rank->cpu = 0;
        rank->memory_bytes = 0;
    }
}

/* guarded by mu; NULL: no memory, or too many */
static trmi_replica *get_replica(trm_metrics *m, const char *replica)
{
    char identity[TRM_LINK_PEER_BYTES], name[TRM_LINK_PEER_BYTES];
    trmi_replica *r;
    int at;

    identity_of(replica, identity, name);
    at = find_replica(m, name);
    if (at >= 0) {
        r = m->replicas[at];
        if (strcmp(r->identity, identity) != 0)
            begin_life(r, identity);
        return r;
    }
    if (m->replica_count == TRMI_METRICS_REPLICAS_MAX)
        trim_replicas(m, 0);
    if (m->replica_count == TRMI_METRICS_REPLICAS_MAX)
        return NULL;
    if (m->replica_count == m->replica_room) {
        int room = m->replica_room == 0 ? 8 : m->replica_room * 2;
        trmi_replica **grown = trm_realloc(m->replicas, (size_t)room, sizeof(trmi_replica *));

        if (grown == NULL)
            return NULL;
        m->replicas = grown;
        m->replica_room = room;
    }
    r = trm_calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    memcpy(r->name, name, sizeof(r->name));
    memcpy(r->identity, identity, sizeof(r->identity));
    m->replicas[m->replica_count++] = r;
    return r;
}

void trm_metrics_replica(trm_metrics *m, const char *replica, const char *state)
{
    trmi_replica *r;

    if (m == NULL)
        return;
    pthread_mutex_lock(&m->mu);
    r = get_replica(m, replica);
    if (r != NULL) {
        r->gone = false;
        trmi_metrics_name(r->state, sizeof(r->state), state);
    }
    pthread_mutex_unlock(&m->mu);
}

void trm_metrics_replica_gone(trm_metrics *m, const char *replica, bool lost)
{
    char identity[TRM_LINK_PEER_BYTES], name[TRM_LINK_PEER_BYTES];
    int at;

    if (m == NULL)
        return;
    identity_of(replica, identity, name);
    pthread_mutex_lock(&m->mu);
    m->replicas_lost += lost;
    at = find_replica(m, name);
    /* a later life may have joined already */
    if (at >= 0 && strcmp(m->replicas[at]->identity, identity) == 0) {
        trmi_replica *r = m->replicas[at];

        r->gone = true;
        r->gone_us = m->now_us();
        r->slot_count = 0;
        snprintf(r->state, sizeof(r->state), "%s", lost ? "lost" : "left");
        trim_replicas(m, TRMI_METRICS_REPLICAS_GONE_MAX);
    }
    pthread_mutex_unlock(&m->mu);
}

/* What a counter has grown by; it starts anew at zero when it has become smaller. */
static uint64_t grown(uint64_t now, uint64_t before)
{
    return now >= before ? now - before : now;
}

static void add_slot(trm_metrics *m, trmi_model *model, const trm_wire_model_stats *now,
                     const trm_wire_model_stats *before)
{
    uint64_t at = m->now_us();
    uint64_t prompt = grown(now->prompt_tokens, before->prompt_tokens);
    uint64_t fresh = grown(now->new_tokens, before->new_tokens);
    uint64_t queries = grown(now->prefix_queries, before->prefix_queries);
    uint64_t hits = grown(now->prefix_hits, before->prefix_hits);
    uint64_t batches = grown(now->batches, before->batches);
    uint64_t batched = grown(now->batched, before->batched);

    model->step_prompt_tokens += prompt;
    model->step_new_tokens += fresh;
    model->prefix_queries += queries;
    model->prefix_hits += hits;
    model->batches += batches;
    model->batched += batched;
    model->preemptions += grown(now->preemptions, before->preemptions);
    model->steps += grown(now->steps, before->steps);
    model->step_us += grown(now->step_us, before->step_us);
    trmi_window_count(model->window, at, TRMI_RATE_STEP_PROMPT, prompt);
    trmi_window_count(model->window, at, TRMI_RATE_STEP_NEW, fresh);
    trmi_window_count(model->window, at, TRMI_RATE_PREFIX_QUERIES, queries);
    trmi_window_count(model->window, at, TRMI_RATE_PREFIX_HITS, hits);
    trmi_window_count(model->window, at, TRMI_RATE_BATCHES, batches);
    trmi_window_count(model->window, at, TRMI_RATE_BATCHED, batched);
}

static const trmi_slot *find_slot(const trmi_replica *r, uint32_t slot, int hint)
{
    if (hint < r->slot_count && r->slots[hint].slot == slot) /* the usual order */
        return &r->slots[hint];
    for (int i = 0; i < r->slot_count; i++)
        if (r->slots[i].slot == slot)
            return &r->slots[i];
    return NULL;
}

static void hear_slots(trm_metrics *m, trmi_replica *r, const trm_wire_stats *stats,
                       const char *const *names, const int64_t *versions)
{
    static const trm_wire_model_stats zero;
    trmi_slot *slots;
    int count = 0;

    slots = trm_calloc((size_t)stats->model_count, sizeof(*slots));
    if (slots == NULL)
        return; /* the next message has it all */
    /* in two passes: making a place for one may forget another */
    for (int i = 0; i < stats->model_count; i++)
        if (names[i] != NULL)
            (void)trmi_model_get(m, names[i], versions[i]);
    for (int i = 0; i < stats->model_count; i++) {
        const trm_wire_model_stats *s = &stats->models[i];
        const trmi_slot *before = find_slot(r, s->slot, i);
        trmi_model *model = names[i] == NULL ? NULL : trmi_model_find(m, names[i], versions[i]);

        slots[count++] = (trmi_slot){.slot = s->slot, .model = model, .last = *s};
        if (model != NULL)
            add_slot(m, model, s, before == NULL ? &zero : &before->last);
    }
    trm_free(r->slots);
    r->slots = slots;
    r->slot_count = count;
}

static const trmi_rank *find_rank(const trmi_rank *ranks, int count, int rank, int hint)
{
    if (hint < count && ranks[hint].rank == rank)
        return &ranks[hint];
    for (int i = 0; i < count; i++)
        if (ranks[i].rank == rank)
            return &ranks[i];
    return NULL;
}

static void hear_ranks(trmi_replica *r, const trm_wire_stats *stats)
{
    trmi_rank *ranks = trm_calloc((size_t)stats->rank_count, sizeof(*ranks));
    int count = 0;

    if (ranks == NULL)
        return;
    for (int i = 0; i < stats->rank_count; i++) {
        const trm_wire_rank_stats *s = &stats->ranks[i];
        const trmi_rank *before = find_rank(r->ranks, r->rank_count, s->rank, i);
        trmi_rank *rank = &ranks[count];

        if (find_rank(ranks, count, s->rank, count) != NULL)
            continue; /* told twice in one message: two samples of one name are no valid output */
        count++;
        if (before != NULL)
            *rank = *before;
        else
            rank->at_us = stats->time_us; /* measured from here on */
        rank->rank = s->rank;
        rank->pid = s->pid;
        trmi_metrics_name(rank->host, sizeof(rank->host), s->host);
        trmi_metrics_name(rank->device, sizeof(rank->device), s->device);
        rank->memory_bytes = s->memory_bytes;
        if (before == NULL) {
            rank->at_busy = s->busy_us;
            rank->at_cpu = s->cpu_us;
        }
        if (s->busy_us < rank->busy_us || s->cpu_us < rank->cpu_us) { /* started again, unsaid */
            rank->busy_before += rank->busy_us;
            rank->cpu_before += rank->cpu_us;
            rank->at_busy = rank->at_cpu = 0;
        }
        rank->busy_us = s->busy_us;
        rank->cpu_us = s->cpu_us;
        if (stats->time_us < rank->at_us) {
            rank->at_us = stats->time_us;
            rank->at_busy = s->busy_us;
            rank->at_cpu = s->cpu_us;
        } else if (stats->time_us - rank->at_us >= 500000) {
            double span = (double)(stats->time_us - rank->at_us);
            double busy = (double)(s->busy_us - rank->at_busy) / span;

            rank->utilisation = busy < 1 ? busy : 1;
            rank->cpu = (double)(s->cpu_us - rank->at_cpu) / span;
            rank->at_us = stats->time_us;
            rank->at_busy = s->busy_us;
            rank->at_cpu = s->cpu_us;
        }
    }
    trm_free(r->ranks);
    r->ranks = ranks;
    r->rank_count = count;
}

void trm_metrics_stats(trm_metrics *m, const char *replica, const trm_wire_stats *stats,
                       const char *const *names, const int64_t *versions)
{
    trmi_replica *r;

    if (m == NULL || stats->model_count < 0 || stats->model_count > TRM_WIRE_STATS_MAX ||
        stats->rank_count < 0 || stats->rank_count > TRM_WIRE_STATS_MAX)
        return;
    pthread_mutex_lock(&m->mu);
    r = get_replica(m, replica);
    if (r != NULL) {
        hear_slots(m, r, stats, names, versions);
        hear_ranks(r, stats);
    }
    pthread_mutex_unlock(&m->mu);
}
