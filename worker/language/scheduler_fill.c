/* What a step takes; see scheduler.h. First those that decode, then prompts that go on, then those
 * that wait.
 *
 * Looking ahead: a step that is filled while another one runs may take up a sequence of that one.
 * Where its part ends and so where the next begins is known; a prompt's next piece is known, too;
 * the token that the step before draws is named by its slot. What must be waited for all the same
 * (a constraint wants its token; pages must be taken from one that is under way) is waited for by
 * not filling the step any further: once the step before has ended everything can be decided. */
#include "worker/language/scheduler_impl.h"

#include "kernels/language.h"

#include <string.h>

struct filling {
    trm_scheduler *s;
    trm_lm_step *step;
    trmi_lm_flight *f;
    trm_sequence *held; /* is left out, to be preempted when it is no longer under way */
    int budget, scores, parts;
    bool starved; /* pages will be free when a step has ended: until then no more is taken in */
};

static void preempt(trm_scheduler *s, trm_sequence *q)
{
    TRM_ASSERT(q->under_way == 0);
    trmi_list_remove(&s->running, q);
    q->running = false;
    trm_kv_release(s->cache, &q->table);
    q->computed = 0;
    q->preemptions++;
    s->stats.preemptions++;
    trmi_list_prepend(&s->waiting, q);
}

/* Where its next part begins. */
static int next_position(const trm_sequence *q)
{
    return q->computed + q->ahead;
}

/* Its tokens that are known and in no step yet. */
static int known_left(const trm_sequence *q)
{
    return q->count - next_position(q);
}

/* Likewise, with those that steps under way draw. */
static int left(const trm_sequence *q)
{
    return known_left(q) + q->awaited;
}

/* A token that it goes on with is under way: not where that is its last one. */
static bool goes_on(const trm_sequence *q)
{
    return q->finish == TRM_FINISH_NONE && q->awaited > 0 &&
           !trmi_sequence_is_full(q, q->count + q->awaited);
}

static bool may_run(const struct filling *w, const trm_sequence *q)
{
    if (q->finish != TRM_FINISH_NONE || q == w->held || q->newest == w->s->number)
        return false;
    if (q->under_way == 0)
        return true;
    return w->s->limits.lookahead && q->under_way == 1 && (q->awaited == 0 || goes_on(q));
}

/* Whether a step that is filled now would leave out a sequence that goes on: one under a
 * constraint, which wants its token first. From then on it would be in every second step. */
static bool is_too_early(const trm_scheduler *s)
{
    if (!s->limits.lookahead || s->stats.under_way == 0)
        return false;
    for (const trm_sequence *q = s->running.first; q != NULL; q = q->next)
        if (q->constraint != NULL && goes_on(q))
            return true;
    return false;
}

/* Pages for the sequence, from the least and latest if need be. false: it cannot run now. */
static bool pages_for(struct filling *w, trm_sequence *q, int positions)
{
    trm_scheduler *s = w->s;

    while (!trm_kv_grow(s->cache, positions, &q->table)) {
        trm_sequence *victim = s->running.last;

        while (victim != q && victim->under_way > 0)
            victim = victim->prev;
        w->starved = s->ghost_count > 0 || victim->under_way > 0;
        if (w->starved)
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
    if (left(q) == tokens && !w->s->limits.encoder)
        add_pick(w, q,
                 (trm_lm_pick){.row = row + tokens - 1,
                               .slot = q->slot,
                               .kind = TRM_LM_PICK_NEXT,
                               .target = -1,
                               .position = end});
}

/* Tokens of the step's rows [row, row + tokens). */
static void copy_tokens(trm_lm_step *step, const trm_sequence *q, int row, int tokens)
{
    int known = known_left(q);

    known = known < tokens ? known : tokens;
    if (known > 0)
        memcpy(step->tokens + row, q->tokens + next_position(q),
               (size_t)known * sizeof(*step->tokens));
    for (int i = known; i < tokens; i++)
        step->tokens[row + i] = TRM_STEP_TOKEN_OF_SLOT(q->slot);
    if (step->has_types && q->types != NULL)
        memcpy(step->types + row, q->types, (size_t)tokens * sizeof(*step->types));
    else if (step->has_types)
        memset(step->types + row, 0, (size_t)tokens * sizeof(*step->types));
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
    int row = step->token_count, position = next_position(q);
    bool draws = left(q) == tokens && !w->s->limits.encoder;

    if (!q->begun && !w->s->limits.encoder)
        add_begin(w, q);
    step->parts[step->part_count++] = (trm_lm_part){.row = row,
                                                    .tokens = tokens,
                                                    .position = position,
                                                    .slot = q->slot,
                                                    .page_first = step->page_count,
                                                    .page_count = q->table.count};
    if (q->table.count > 0) /* encoders have none */
        memcpy(step->pages + step->page_count, q->table.pages,
               (size_t)q->table.count * sizeof(*step->pages));
    step->page_count += q->table.count;
    copy_tokens(step, q, row, tokens);
    step->token_count += tokens;
    w->f->parts[w->f->part_count++] = (trmi_lm_part){.q = q, .tokens = tokens, .draws = draws};
    w->budget -= tokens;
    add_picks(w, q, row, position, tokens);
    q->under_way++;
    q->ahead += tokens;
    q->awaited += draws;
    q->newest = w->s->number;
}

/* Tokens of the prompt that this step may take. */
static int piece_of(const struct filling *w, const trm_sequence *q, int prefill_left)
{
    int n = known_left(q);

    n = n < w->budget ? n : w->budget;
    n = n < prefill_left ? n : prefill_left;
    if (q->prompt_logprobs && n > TRM_SCHEDULER_SCORES_MAX - w->scores)
        n = TRM_SCHEDULER_SCORES_MAX - w->scores;
    return n;
}

static void decode(struct filling *w)
{
    trm_sequence *next;

    for (trm_sequence *q = w->s->running.first; q != NULL && w->budget > 0; q = next) {
        next = q->next;
        if (!may_run(w, q) || left(q) != 1 || w->f->part_count >= w->parts)
            continue;
        if (pages_for(w, q, next_position(q) + 1))
            add_part(w, q, 1);
        else if (w->starved || !q->running) /* it gave way itself, and so did all behind it */
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
    if (tokens < TRMI_PREFILL_LEAST)
        return TRMI_PREFILL_LEAST;
    return tokens < w->budget ? (int)tokens : w->budget;
}

static void go_on(struct filling *w, int *prefill)
{
    trm_sequence *next;

    for (trm_sequence *q = w->s->running.first; q != NULL && w->budget > 0; q = next) {
        int n = piece_of(w, q, *prefill);

        next = q->next;
        if (!may_run(w, q) || known_left(q) <= 1 || n < 1 || w->f->part_count >= w->parts)
            continue;
        if (pages_for(w, q, next_position(q) + n)) {
            add_part(w, q, n);
            *prefill -= n;
        } else if (w->starved || !q->running) {
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
    trmi_list_remove(&s->waiting, q);
    trmi_list_append(&s->running, q);
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

    if (s->limits.flights == 1 || s->limits.lookahead)
        return most;
    if (all > most)
        all = most;
    share = (all + s->limits.flights - 1) / s->limits.flights;
    return share < 1 ? 1 : share;
}

static void force_one(struct filling *w)
{
    trm_scheduler *s = w->s;
    trm_sequence *q = s->running.last;

    if (s->force_every == 0 || ++s->since_forced < s->force_every)
        return;
    if (s->limits.lookahead && q != NULL && q->under_way > 0 && s->running.count > 1) {
        w->held = q; /* it always is, if it is not left out once */
        return;
    }
    s->since_forced = 0;
    while (q != NULL && q->under_way > 0)
        q = q->prev;
    if (q != NULL && s->running.count > 1)
        preempt(s, q);
}

static void fill(struct filling *w)
{
    int prefill;

    if (w->s->cache != NULL) {
        force_one(w);
        decode(w);
    }
    prefill = prefill_budget(w);
    w->f->prefill = w->step->token_count;
    if (!w->starved)
        go_on(w, &prefill);
    if (!w->starved)
        admit(w, &prefill);
}

bool trm_scheduler_next(trm_scheduler *s, trm_lm_step *step, int *flight_out)
{
    struct filling w = {.s = s, .step = step, .budget = s->limits.step_tokens};
    int at = 0;

    while (at < s->limits.flights && s->flights[at].used)
        at++;
    if (at == s->limits.flights || is_too_early(s))
        return false;
    s->number++;
    w.f = &s->flights[at];
    w.f->part_count = w.f->pick_count = 0;
    w.parts = fair_parts(s);
    trm_lm_step_clear(step);
    fill(&w);
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
