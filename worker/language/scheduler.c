/* See scheduler.h. Two lists, each by priority: those that run, in the order in which they were let
 * in, and those that wait, preempted ones before their equals. */
#include "worker/language/scheduler_impl.h"

#include "base/memory.h"
#include "kernels/language.h"

#include <inttypes.h>
#include <string.h>

#define LEARN 0.2 /* weight of the newest step in what steps are known to cost */

/* ---- lists ---- */

/* Behind `before`; NULL: at the front. */
static void insert(trmi_list *l, trm_sequence *before, trm_sequence *q)
{
    q->prev = before;
    q->next = before != NULL ? before->next : l->first;
    if (q->next != NULL)
        q->next->prev = q;
    else
        l->last = q;
    if (before != NULL)
        before->next = q;
    else
        l->first = q;
    l->count++;
}

void trmi_list_append(trmi_list *l, trm_sequence *q)
{
    trm_sequence *before = l->last;

    while (before != NULL && before->priority < q->priority)
        before = before->prev;
    insert(l, before, q);
}

void trmi_list_prepend(trmi_list *l, trm_sequence *q)
{
    trm_sequence *before = NULL, *next = l->first;

    while (next != NULL && next->priority > q->priority) {
        before = next;
        next = next->next;
    }
    insert(l, before, q);
}

void trmi_list_remove(trmi_list *l, trm_sequence *q)
{
    if (q->prev != NULL)
        q->prev->next = q->next;
    else
        l->first = q->next;
    if (q->next != NULL)
        q->next->prev = q->prev;
    else
        l->last = q->prev;
    q->prev = q->next = NULL;
    l->count--;
}

/* ---- life ---- */

static trm_status make_flights(trm_scheduler *s)
{
    size_t parts = (size_t)s->limits.batch, picks = parts + TRM_SCHEDULER_SCORES_MAX;

    s->flights = trm_calloc((size_t)s->limits.flights, sizeof(*s->flights));
    if (s->flights == NULL)
        return TRM_ERR_NO_MEMORY;
    for (int i = 0; i < s->limits.flights; i++) {
        trmi_lm_flight *f = &s->flights[i];

        f->parts = trm_calloc(parts, sizeof(*f->parts));
        f->picks = trm_calloc(picks, sizeof(*f->picks));
        f->pick = trm_calloc(picks, sizeof(*f->pick));
        if (f->parts == NULL || f->picks == NULL || f->pick == NULL)
            return TRM_ERR_NO_MEMORY;
    }
    s->ghosts = trm_calloc((size_t)s->limits.flights * parts, sizeof(*s->ghosts));
    return s->ghosts == NULL ? TRM_ERR_NO_MEMORY : TRM_OK;
}

trm_status trm_scheduler_create(const trm_scheduler_limits *limits, trm_scheduler **scheduler_out)
{
    trm_scheduler *s = trm_calloc(1, sizeof(*s));
    trm_status st = TRM_ERR_NO_MEMORY;

    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "scheduler");
    s->limits = *limits;
    s->slots = trm_calloc((size_t)limits->batch, sizeof(*s->slots));
    if (s->slots == NULL || make_flights(s) != TRM_OK) {
        (void)trm_fail(TRM_ERR_NO_MEMORY, "scheduler for %d sequences", limits->batch);
        goto fail;
    }
    for (int i = 0; i < limits->batch; i++)
        s->slots[s->slot_count++] = limits->batch - 1 - i;
    if (!limits->encoder)
        TRM_TRY(st, trm_kv_cache_create(limits->pages, limits->prefix, &s->cache), fail);
    *scheduler_out = s;
    return TRM_OK;
fail:
    trm_scheduler_destroy(s);
    return st;
}

void trm_scheduler_destroy(trm_scheduler *s)
{
    if (s == NULL)
        return;
    for (int i = 0; s->flights != NULL && i < s->limits.flights; i++) {
        trm_free(s->flights[i].parts);
        trm_free(s->flights[i].picks);
        trm_free(s->flights[i].pick);
    }
    for (int i = 0; s->ghosts != NULL && i < s->limits.flights * s->limits.batch; i++)
        trm_free(s->ghosts[i].table.pages); /* of steps whose end nobody has seen */
    trm_free(s->ghosts);
    trm_free(s->flights);
    trm_free(s->slots);
    trm_kv_cache_destroy(s->cache);
    trm_free(s);
}

static trm_status check_prompt(const trm_scheduler *s, const int32_t *prompt, int count)
{
    const trm_scheduler_limits *l = &s->limits;
    int least = l->encoder ? count : count + 1;

    if (count < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "the prompt has no tokens: want at least one");
    for (int i = 0; i < count; i++)
        if (prompt[i] < 0 || prompt[i] >= l->vocabulary)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "token %d of the prompt is %" PRId32 ": the vocabulary has %" PRId64, i,
                            prompt[i], l->vocabulary);
    if (least > l->context)
        return trm_fail(TRM_ERR_INVALID_ARG, "the prompt has %d tokens: the context is %d%s", count,
                        l->context, l->encoder ? "" : ", and one must be left for the answer");
    if (!l->encoder && (least + TRM_KV_PAGE - 1) / TRM_KV_PAGE > l->pages)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the prompt has %d tokens: the KV cache holds %d (kv_cache, --kv-cache)",
                        count, l->pages * TRM_KV_PAGE);
    return TRM_OK;
}

trm_status trm_sequence_create(const trm_scheduler *s, const int32_t *prompt, int count,
                               const int32_t *types, const trm_sampling *sampling,
                               trm_sequence **sequence_out)
{
    trm_sequence *q;
    int64_t max = s->limits.context;
    trm_status st = TRM_ERR_NO_MEMORY;

    TRM_CHECK(check_prompt(s, prompt, count));
    if (s->limits.encoder)
        max = count;
    else if (sampling->max_tokens > 0 && (int64_t)count + sampling->max_tokens < max)
        max = (int64_t)count + sampling->max_tokens;
    if (!s->limits.encoder && max > (int64_t)s->limits.pages * TRM_KV_PAGE)
        max = (int64_t)s->limits.pages * TRM_KV_PAGE; /* ends there: nobody else's pages help */
    q = trm_calloc(1, sizeof(*q));
    if (q != NULL) {
        q->tokens = trm_malloc((size_t)max + 1, sizeof(*q->tokens));
        q->types = types == NULL ? NULL : trm_malloc((size_t)count, sizeof(*q->types));
    }
    if (q == NULL || q->tokens == NULL || (types != NULL && q->types == NULL)) {
        (void)trm_fail(TRM_ERR_NO_MEMORY, "a sequence of %" PRId64 " tokens", max);
        goto fail;
    }
    if (!s->limits.encoder)
        TRM_TRY(st, trm_kv_table_init(&q->table, (int)max), fail);
    memcpy(q->tokens, prompt, (size_t)count * sizeof(*prompt));
    if (types != NULL)
        memcpy(q->types, types, (size_t)count * sizeof(*types));
    q->sampling = sampling;
    q->prompt_count = q->count = count;
    q->max = (int)max;
    q->slot = -1;
    *sequence_out = q;
    return TRM_OK;
fail:
    trm_sequence_destroy(q);
    return st;
}

void trm_sequence_destroy(trm_sequence *q)
{
    if (q == NULL)
        return;
    trm_kv_table_fini(&q->table);
    trm_free(q->tokens);
    trm_free(q->types);
    trm_free(q);
}

void trm_scheduler_add(trm_scheduler *s, trm_sequence *q)
{
    if (q->sibling != NULL)
        q->sibling->followers++;
    trmi_list_append(&s->waiting, q);
}

static void forget_sibling(const trmi_list *l, const trm_sequence *q)
{
    for (trm_sequence *w = l->first; w != NULL; w = w->next)
        if (w->sibling == q)
            w->sibling = NULL;
}

/* Gives back what a sequence had. */
static void let_go(trm_scheduler *s, trm_kv_table *table, int slot)
{
    if (s->cache != NULL)
        trm_kv_release(s->cache, table);
    if (slot >= 0)
        s->slots[s->slot_count++] = slot;
}

static trmi_ghost *leave_ghost(trm_scheduler *s, trm_sequence *q)
{
    trmi_ghost *g = s->ghosts;

    if (s->cache == NULL)
        return NULL; /* an encoder's sequence has nothing that a step could still touch */
    while (g->steps > 0)
        g++;
    *g = (trmi_ghost){.table = q->table, .slot = q->slot, .steps = q->under_way};
    q->table = (trm_kv_table){.pages = NULL};
    s->ghost_count++;
    return g;
}

/* Steps under way go on without it. */
static void detach(trm_scheduler *s, const trm_sequence *q, trmi_ghost *ghost)
{
    for (int i = 0; i < s->limits.flights; i++) {
        trmi_lm_flight *f = &s->flights[i];

        for (int k = 0; f->used && k < f->part_count; k++)
            if (f->parts[k].q == q) {
                f->parts[k].q = NULL;
                f->parts[k].ghost = ghost;
            }
        for (int k = 0; f->used && k < f->pick_count; k++)
            if (f->picks[k] == q)
                f->picks[k] = NULL;
    }
}

void trm_scheduler_remove(trm_scheduler *s, trm_sequence *q)
{
    trmi_list_remove(q->running ? &s->running : &s->waiting, q);
    q->running = false;
    if (q->under_way > 0)
        detach(s, q, leave_ghost(s, q));
    else {
        detach(s, q, NULL); /* of the step that is just being ended */
        let_go(s, &q->table, q->slot);
    }
    q->slot = -1;
    q->under_way = q->ahead = q->awaited = 0;
    if (q->sibling != NULL)
        q->sibling->followers--;
    if (q->followers == 0) /* a long queue is not looked through for every sequence */
        return;
    forget_sibling(&s->waiting, q);
    forget_sibling(&s->running, q); /* these may be preempted, and wait then */
    q->followers = 0;
}

/* ---- ends ---- */

static void learn(trm_scheduler *s, const trmi_lm_flight *f, double us)
{
    if (us <= 0)
        return;
    if (f->prefill == 0) {
        s->decode_us = s->decode_us > 0 ? s->decode_us + LEARN * (us - s->decode_us) : us;
    } else if (f->prefill >= TRMI_PREFILL_LEAST) {
        double each = (us - (f->decodes ? s->decode_us : 0)) / f->prefill;

        if (each > 0)
            s->prefill_us =
                s->prefill_us > 0 ? s->prefill_us + LEARN * (each - s->prefill_us) : each;
    }
}

bool trmi_sequence_is_full(const trm_sequence *q, int count)
{
    const trm_sampling *p = q->sampling;

    return count >= q->max || (p->max_tokens > 0 && count - q->prompt_count >= p->max_tokens);
}

static void append_token(trm_scheduler *s, trm_sequence *q, int32_t id)
{
    const trm_sampling *p = q->sampling;

    if (id < 0) {
        q->finish = TRM_FINISH_FAILED;
        return;
    }
    q->tokens[q->count++] = id;
    s->stats.new_tokens++;
    for (int i = 0; i < p->end_count; i++)
        if (p->end[i] == id)
            q->finish = TRM_FINISH_END;
    if (q->finish == TRM_FINISH_NONE && trmi_sequence_is_full(q, q->count))
        q->finish = TRM_FINISH_LENGTH;
}

/* The step is no longer under way for this part. */
static void land(trm_scheduler *s, const trmi_lm_part *p)
{
    if (p->q != NULL) {
        p->q->under_way--;
        p->q->ahead -= p->tokens;
        p->q->awaited -= p->draws;
    } else if (p->ghost != NULL && --p->ghost->steps == 0) {
        let_go(s, &p->ghost->table, p->ghost->slot);
        trm_kv_table_fini(&p->ghost->table);
        s->ghost_count--;
    }
}

/* What is computed is known, or can be: steps end in their order, so the token that a step was
 * begun without has come with the one before. */
static void computed(trm_scheduler *s, const trmi_lm_flight *f)
{
    for (int i = 0; i < f->part_count; i++) {
        const trmi_lm_part *p = &f->parts[i];
        trm_sequence *q = p->q;

        land(s, p);
        if (q == NULL || q->finish != TRM_FINISH_NONE)
            continue;
        if (q->computed < q->prompt_count) {
            int left = q->prompt_count - q->computed;

            s->stats.prompt_tokens += (uint64_t)(p->tokens < left ? p->tokens : left);
        }
        q->computed += p->tokens;
        TRM_ASSERT(q->computed <= q->count);
        if (s->cache != NULL)
            trm_kv_commit(s->cache, q->tokens, q->computed, &q->table);
        else
            q->finish = TRM_FINISH_END;
    }
}

static bool is_wanted(const trmi_lm_flight *f)
{
    for (int i = 0; i < f->part_count; i++)
        if (f->parts[i].q != NULL)
            return true;
    return false;
}

void trm_scheduler_done(trm_scheduler *s, int flight, const trm_sampled *results, double us,
                        trm_scheduler_took took, void *ctx)
{
    trmi_lm_flight *f = &s->flights[flight];

    if (is_wanted(f)) /* nobody waited for one that is not: its end may have been seen long after */
        learn(s, f, us);
    computed(s, f);
    for (int i = 0; i < f->pick_count; i++) {
        trm_sequence *q = f->picks[i];
        bool score = f->pick[i].kind == TRM_LM_PICK_SCORE;

        if (q == NULL || q->finish != TRM_FINISH_NONE)
            continue; /* it was over before this step was */
        if (score)
            q->scored = (int)f->pick[i].position;
        else
            append_token(s, q, results[i].id);
        if (results[i].id < 0)
            q->finish = TRM_FINISH_FAILED;
        took(ctx, q, &results[i], score && results[i].id >= 0, (int)f->pick[i].position);
    }
    f->used = false;
    s->stats.under_way--;
}

trm_sequence *trm_scheduler_part(const trm_scheduler *s, int flight, int i)
{
    const trmi_lm_flight *f = &s->flights[flight];

    return i < f->part_count ? f->parts[i].q : NULL;
}

void trm_scheduler_failed(trm_scheduler *s, int flight, void (*lost)(void *ctx, trm_sequence *q),
                          void *ctx)
{
    trmi_lm_flight *f = &s->flights[flight];

    for (int i = 0; i < f->part_count; i++) {
        trm_sequence *q = f->parts[i].q;

        land(s, &f->parts[i]);
        if (q == NULL || q->finish != TRM_FINISH_NONE)
            continue;
        q->finish = TRM_FINISH_FAILED;
        lost(ctx, q);
    }
    f->used = false;
    s->stats.under_way--;
}

void trm_scheduler_get_stats(const trm_scheduler *s, trm_scheduler_stats *out)
{
    *out = s->stats;
    out->running = s->running.count;
    out->waiting = s->waiting.count;
    if (s->cache != NULL)
        trm_kv_get_stats(s->cache, &out->kv);
}

void trm_scheduler_force_preemption(trm_scheduler *s, int every)
{
    s->force_every = every;
}
