/* See scheduler.h. Two lists, each by priority: those that run, in the order in which they were let
 * in, and those that wait, preempted ones before their equals. */
#include "worker/language/scheduler.h"

#include "base/memory.h"
#include "kernels/language.h"

#include <inttypes.h>
#include <string.h>

#define PREFILL_LEAST 16 /* prompt tokens that a decoding step may always take */
#define LEARN 0.2        /* weight of the newest step in what steps are known to cost */

struct flight {
    bool used, decodes;
    int part_count, pick_count, tokens, prefill;
    trm_sequence **parts; /* NULL: removed since */
    int *part_tokens;
    trm_sequence **picks;
    trm_lm_pick *pick;
};

struct list {
    trm_sequence *first, *last;
    int count;
};

struct trm_scheduler {
    trm_scheduler_limits limits;
    trm_kv_cache *cache; /* NULL: encoder */
    struct list running, waiting;
    int *slots, slot_count; /* free ones */
    struct flight *flights;
    double decode_us,
        prefill_us; /* of a step that only decodes; of one more prompt token; 0: not known */
    int force_every, since_forced;
    trm_scheduler_stats stats;
};

/* ---- lists ---- */

/* Behind `before`; NULL: at the front. */
static void insert(struct list *l, trm_sequence *before, trm_sequence *q)
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

/* Behind its equals. */
static void append(struct list *l, trm_sequence *q)
{
    trm_sequence *before = l->last;

    while (before != NULL && before->priority < q->priority)
        before = before->prev;
    insert(l, before, q);
}

/* Before its equals. */
static void prepend(struct list *l, trm_sequence *q)
{
    trm_sequence *before = NULL, *next = l->first;

    while (next != NULL && next->priority > q->priority) {
        before = next;
        next = next->next;
    }
    insert(l, before, q);
}

static void unlink_from(struct list *l, trm_sequence *q)
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
        struct flight *f = &s->flights[i];

        f->parts = trm_calloc(parts, sizeof(*f->parts));
        f->part_tokens = trm_calloc(parts, sizeof(*f->part_tokens));
        f->picks = trm_calloc(picks, sizeof(*f->picks));
        f->pick = trm_calloc(picks, sizeof(*f->pick));
        if (f->parts == NULL || f->part_tokens == NULL || f->picks == NULL || f->pick == NULL)
            return TRM_ERR_NO_MEMORY;
    }
    return TRM_OK;
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
        trm_free(s->flights[i].part_tokens);
        trm_free(s->flights[i].picks);
        trm_free(s->flights[i].pick);
    }
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
    append(&s->waiting, q);
}

static void forget_sibling(const struct list *l, const trm_sequence *q)
{
    for (trm_sequence *w = l->first; w != NULL; w = w->next)
        if (w->sibling == q)
            w->sibling = NULL;
}

void trm_scheduler_remove(trm_scheduler *s, trm_sequence *q)
{
    unlink_from(q->running ? &s->running : &s->waiting, q);
    q->running = false;
    if (s->cache != NULL)
        trm_kv_release(s->cache, &q->table);
    if (q->slot >= 0)
        s->slots[s->slot_count++] = q->slot;
    q->slot = -1;
    for (int i = 0; i < s->limits.flights; i++) {
        struct flight *f = &s->flights[i];

        for (int k = 0; f->used && k < f->part_count; k++)
            if (f->parts[k] == q)
                f->parts[k] = NULL;
        for (int k = 0; f->used && k < f->pick_count; k++)
            if (f->picks[k] == q)
                f->picks[k] = NULL;
    }
    q->under_way = 0;
    if (q->sibling != NULL)
        q->sibling->followers--;
    if (q->followers == 0) /* a long queue is not looked through for every sequence */
        return;
    forget_sibling(&s->waiting, q);
    forget_sibling(&s->running, q); /* these may be preempted, and wait then */
    q->followers = 0;
}

/* ---- filling a step ---- */

struct filling {
    trm_scheduler *s;
    trm_lm_step *step;
    struct flight *f;
    int budget, scores, parts;
};

static void preempt(trm_scheduler *s, trm_sequence *q)
{
    unlink_from(&s->running, q);
    q->running = false;
    trm_kv_release(s->cache, &q->table);
    q->computed = 0;
    q->preemptions++;
    s->stats.preemptions++;
    prepend(&s->waiting, q);
}

static bool is_in(const struct filling *w, const trm_sequence *q)
{
    for (int i = 0; i < w->f->part_count; i++)
        if (w->f->parts[i] == q)
            return true;
    return false;
}

/* Pages for the sequence, from the least and latest if need be. false: it cannot run now. */
static bool pages_for(struct filling *w, trm_sequence *q, int positions)
{
    trm_scheduler *s = w->s;

    while (!trm_kv_grow(s->cache, positions, &q->table)) {
        trm_sequence *victim = s->running.last;

        while (victim != NULL && (victim->under_way || is_in(w, victim)))
            victim = victim->prev;
        if (victim == NULL)
            return false;
        preempt(s, victim);
        if (victim == q)
            return false;
    }
    return true;
}

static void add_pick(struct filling *w, trm_sequence *q, trm_lm_pick pick)
{
    w->f->picks[w->f->pick_count] = q;
    w->f->pick[w->f->pick_count++] = pick;
    w->step->picks[w->step->pick_count++] = pick;
}

static void add_picks(struct filling *w, trm_sequence *q, int row, int from, int tokens)
{
    int end = from + tokens;

    for (int p = from; q->prompt_logprobs && p < end && p + 1 < q->prompt_count; p++) {
        if (p + 1 <= q->scored)
            continue;
        add_pick(w, q,
                 (trm_lm_pick){.row = row + p - from,
                               .slot = q->slot,
                               .kind = TRM_LM_PICK_SCORE,
                               .target = q->tokens[p + 1],
                               .position = p + 1});
        w->scores++;
    }
    if (end == q->count && !w->s->limits.encoder)
        add_pick(w, q,
                 (trm_lm_pick){.row = row + tokens - 1,
                               .slot = q->slot,
                               .kind = TRM_LM_PICK_NEXT,
                               .target = -1,
                               .position = q->count});
}

static void add_begin(struct filling *w, trm_sequence *q)
{
    const trm_sampling *p = q->sampling;

    w->step->begins[w->step->begin_count++] =
        (trm_lm_begin){.slot = q->slot,
                       .bias_count = p->bias_count,
                       .prompt_count = p->repetition_penalty != 1.0f ? q->prompt_count : 0,
                       .sampling = p,
                       .prompt = q->tokens,
                       .constraint = q->constraint,
                       .constraint_bytes = q->constraint == NULL ? 0 : strlen(q->constraint)};
    q->begun = true;
}

static void add_part(struct filling *w, trm_sequence *q, int tokens)
{
    trm_lm_step *step = w->step;
    int row = step->token_count;

    if (!q->begun && !w->s->limits.encoder)
        add_begin(w, q);
    step->parts[step->part_count++] = (trm_lm_part){.row = row,
                                                    .tokens = tokens,
                                                    .position = q->computed,
                                                    .slot = q->slot,
                                                    .page_first = step->page_count,
                                                    .page_count = q->table.count};
    if (q->table.count > 0) /* encoders have none */
        memcpy(step->pages + step->page_count, q->table.pages,
               (size_t)q->table.count * sizeof(*step->pages));
    step->page_count += q->table.count;
    memcpy(step->tokens + row, q->tokens + q->computed, (size_t)tokens * sizeof(*step->tokens));
    if (step->has_types && q->types != NULL)
        memcpy(step->types + row, q->types, (size_t)tokens * sizeof(*step->types));
    else if (step->has_types)
        memset(step->types + row, 0, (size_t)tokens * sizeof(*step->types));
    step->token_count += tokens;
    w->f->parts[w->f->part_count] = q;
    w->f->part_tokens[w->f->part_count++] = tokens;
    w->budget -= tokens;
    add_picks(w, q, row, q->computed, tokens);
    q->under_way = 1;
}

/* Tokens of the prompt that this step may take. */
static int piece_of(const struct filling *w, const trm_sequence *q, int prefill_left)
{
    int n = q->count - q->computed;

    n = n < w->budget ? n : w->budget;
    n = n < prefill_left ? n : prefill_left;
    if (q->prompt_logprobs && n > TRM_SCHEDULER_SCORES_MAX - w->scores)
        n = TRM_SCHEDULER_SCORES_MAX - w->scores;
    return n;
}

static bool may_run(const trm_sequence *q)
{
    return !q->under_way && q->finish == TRM_FINISH_NONE;
}

static void decode(struct filling *w)
{
    trm_sequence *next;

    for (trm_sequence *q = w->s->running.first; q != NULL && w->budget > 0; q = next) {
        next = q->next;
        if (!may_run(q) || q->count - q->computed != 1 || w->f->part_count >= w->parts)
            continue;
        if (pages_for(w, q, q->count))
            add_part(w, q, 1);
        else if (!q->running) /* it gave way itself, and so did all behind it */
            break;
        next = q->next;
    }
    w->f->decodes = w->f->part_count > 0;
}

/* Prompt tokens that may join what decodes. */
static int prefill_budget(const struct filling *w)
{
    const trm_scheduler *s = w->s;
    double left = s->limits.decode_budget_us - s->decode_us, tokens;

    if (s->limits.decode_budget_us <= 0 || !w->f->decodes || s->prefill_us <= 0)
        return w->budget;
    tokens = left / s->prefill_us;
    if (tokens < PREFILL_LEAST)
        return PREFILL_LEAST;
    return tokens < w->budget ? (int)tokens : w->budget;
}

static void go_on(struct filling *w, int *prefill)
{
    trm_sequence *next;

    for (trm_sequence *q = w->s->running.first; q != NULL && w->budget > 0; q = next) {
        int n = piece_of(w, q, *prefill);

        next = q->next;
        if (!may_run(q) || q->count - q->computed <= 1 || n < 1 || w->f->part_count >= w->parts)
            continue;
        if (pages_for(w, q, q->computed + n)) {
            add_part(w, q, n);
            *prefill -= n;
        } else if (!q->running) {
            break;
        }
        next = q->next;
    }
}

/* Whether the sequence should wait until its sibling's prompt can be found. */
static bool waits_for_sibling(const trm_scheduler *s, const trm_sequence *q)
{
    return s->limits.prefix && q->sibling != NULL && q->sibling->computed < q->prompt_count - 1 &&
           q->sibling->finish == TRM_FINISH_NONE;
}

static bool let_in(struct filling *w, trm_sequence *q, int prefill)
{
    trm_scheduler *s = w->s;
    int n, found;

    if (s->cache != NULL && !q->prompt_logprobs)
        q->computed = trm_kv_match(s->cache, q->tokens, q->count, &q->table);
    found = q->computed;
    n = piece_of(w, q, prefill);
    if (n < 1 || (s->limits.encoder && n < q->count) ||
        (s->cache != NULL && !trm_kv_grow(s->cache, q->computed + n, &q->table))) {
        if (s->cache != NULL)
            trm_kv_release(s->cache, &q->table);
        q->computed = 0;
        return false;
    }
    if (q->slot < 0 && !s->limits.encoder)
        q->slot = s->slots[--s->slot_count];
    unlink_from(&s->waiting, q);
    append(&s->running, q);
    q->running = true;
    if (q->preemptions == 0)
        q->cached = found;
    add_part(w, q, n);
    return true;
}

static void admit(struct filling *w, int *prefill)
{
    trm_scheduler *s = w->s;
    trm_sequence *next;

    for (trm_sequence *q = s->waiting.first; q != NULL; q = next) {
        int before = w->budget;

        next = q->next;
        if (w->budget < 1 || *prefill < 1 || s->running.count >= s->limits.batch ||
            w->f->part_count >= w->parts)
            return;
        if (q->slot < 0 && s->slot_count == 0 && !s->limits.encoder)
            return;
        if (waits_for_sibling(s, q))
            continue;
        if (!let_in(w, q, *prefill))
            return; /* in their order: nobody overtakes one that waits for pages */
        *prefill -= before - w->budget;
    }
}

/* Sequences that this step may take, where several steps share them. */
static int fair_parts(const trm_scheduler *s)
{
    int all = s->running.count + s->waiting.count, most = s->limits.batch, share;

    if (s->limits.flights == 1)
        return most;
    if (all > most)
        all = most;
    share = (all + s->limits.flights - 1) / s->limits.flights;
    return share < 1 ? 1 : share;
}

static void force_one(trm_scheduler *s)
{
    trm_sequence *q = s->running.last;

    if (s->force_every == 0 || ++s->since_forced < s->force_every)
        return;
    s->since_forced = 0;
    while (q != NULL && q->under_way)
        q = q->prev;
    if (q != NULL && s->running.count > 1)
        preempt(s, q);
}

bool trm_scheduler_next(trm_scheduler *s, trm_lm_step *step, int *flight_out)
{
    struct filling w = {.s = s, .step = step, .budget = s->limits.step_tokens};
    int prefill, at = 0;

    while (at < s->limits.flights && s->flights[at].used)
        at++;
    if (at == s->limits.flights)
        return false;
    w.f = &s->flights[at];
    w.f->part_count = w.f->pick_count = 0;
    w.parts = fair_parts(s);
    trm_lm_step_clear(step);
    if (s->cache != NULL) {
        force_one(s);
        decode(&w);
    }
    prefill = prefill_budget(&w);
    w.f->prefill = step->token_count;
    go_on(&w, &prefill);
    admit(&w, &prefill);
    if (w.f->part_count == 0)
        return false;
    w.f->used = true;
    w.f->tokens = step->token_count;
    w.f->prefill = step->token_count - w.f->prefill;
    step->token_rows = trm_lm_grid(step->token_count);
    step->pick_rows = s->limits.encoder ? 0 : trm_lm_grid(step->pick_count);
    step->part_rows = s->limits.encoder ? trm_lm_grid(step->part_count) : 0;
    s->stats.under_way++;
    s->stats.steps++;
    *flight_out = at;
    return true;
}

/* ---- ends ---- */

static void learn(trm_scheduler *s, const struct flight *f, double us)
{
    if (us <= 0)
        return;
    if (f->prefill == 0) {
        s->decode_us = s->decode_us > 0 ? s->decode_us + LEARN * (us - s->decode_us) : us;
    } else if (f->prefill >= PREFILL_LEAST) {
        double each = (us - (f->decodes ? s->decode_us : 0)) / f->prefill;

        if (each > 0)
            s->prefill_us =
                s->prefill_us > 0 ? s->prefill_us + LEARN * (each - s->prefill_us) : each;
    }
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
    if (q->finish == TRM_FINISH_NONE &&
        (q->count >= q->max || (p->max_tokens > 0 && q->count - q->prompt_count >= p->max_tokens)))
        q->finish = TRM_FINISH_LENGTH;
}

static void computed(trm_scheduler *s, struct flight *f)
{
    for (int i = 0; i < f->part_count; i++) {
        trm_sequence *q = f->parts[i];

        if (q == NULL)
            continue;
        q->under_way = 0;
        if (q->computed < q->prompt_count) {
            int left = q->prompt_count - q->computed;

            s->stats.prompt_tokens +=
                (uint64_t)(f->part_tokens[i] < left ? f->part_tokens[i] : left);
        }
        q->computed += f->part_tokens[i];
        if (s->cache != NULL)
            trm_kv_commit(s->cache, q->tokens, q->computed, &q->table);
        else
            q->finish = TRM_FINISH_END;
    }
}

void trm_scheduler_done(trm_scheduler *s, int flight, const trm_sampled *results, double us,
                        trm_scheduler_took took, void *ctx)
{
    struct flight *f = &s->flights[flight];

    learn(s, f, us);
    computed(s, f);
    for (int i = 0; i < f->pick_count; i++) {
        trm_sequence *q = f->picks[i];
        bool score = f->pick[i].kind == TRM_LM_PICK_SCORE;

        if (q == NULL)
            continue;
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
    const struct flight *f = &s->flights[flight];

    return i < f->part_count ? f->parts[i] : NULL;
}

void trm_scheduler_failed(trm_scheduler *s, int flight, void (*lost)(void *ctx, trm_sequence *q),
                          void *ctx)
{
    struct flight *f = &s->flights[flight];

    for (int i = 0; i < f->part_count; i++) {
        trm_sequence *q = f->parts[i];

        if (q == NULL)
            continue;
        q->under_way = 0;
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
