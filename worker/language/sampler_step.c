/* See sampler_step.h. */
#include "worker/language/sampler_step.h"

#include "base/log.h"
#include "base/memory.h"
#include "worker/language/grammars.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

/* Results are taken as they lie. */
#define SAME(field, device)                                                                        \
    static_assert(offsetof(trm_sampled, field) == offsetof(trm_step_sampled, device),              \
                  "as trm_sampled")
SAME(id, id);
SAME(logprob, logprob);
SAME(rank, rank);
SAME(top_count, top_count);
SAME(top_ids, top_ids);
SAME(top_logprobs, top_logprobs);
static_assert(sizeof(trm_sampled) == sizeof(trm_step_sampled), "as trm_sampled");
enum {
    DEVICE_NOTHING = TRM_STEP_SAMPLED_NOTHING,
    DEVICE_CONSTRAINED = TRM_STEP_SAMPLED_CONSTRAINED,
    NOTHING = TRM_SAMPLED_NOTHING,
    CONSTRAINED = TRM_SAMPLED_CONSTRAINED
};
static_assert(DEVICE_NOTHING == NOTHING && DEVICE_CONSTRAINED == CONSTRAINED, "as trm_sampled");

typedef struct slot {
    trm_status begun; /* why it has no sampler */
    trm_sampling *sampling;
    trm_step_bias *bias; /* by id */
    int32_t outputs;     /* tokens that were asked for */
    uint64_t life;       /* which sequence it is */
    trm_constraint *constraint;
    uint32_t *allowed; /* of the constraint */
    bool drawn;        /* with the constraint, by a step that has not been taken */
} slot;

/* A pick of a step on its way. */
typedef struct flown {
    int32_t slot;
    bool next;
    uint64_t life;
    trm_status failed;
} flown;

struct trm_sampler_steps {
    int batch, picks;
    int64_t vocabulary;
    trm_language *language;
    trm_grammars *grammars; /* of the constraints; made with the first */
    slot *slots;
    uint64_t lives;
    trm_step_sample *samples;
    trm_step_begin *begins;
    flown *flown; /* [TRM_SAMPLER_STEPS_AHEAD][picks] */
    int flown_counts[TRM_SAMPLER_STEPS_AHEAD];
    unsigned filled, taken; /* steps, ever */
};

/* ---- life ---- */

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "samplers of a step");
}

trm_status trm_sampler_steps_create(int batch, int picks, int64_t vocabulary,
                                    trm_language *language, trm_sampler_steps **steps_out)
{
    trm_sampler_steps *s = trm_calloc(1, sizeof(*s));

    if (s == NULL)
        return no_memory();
    s->batch = batch;
    s->picks = picks;
    s->vocabulary = vocabulary;
    s->language = language;
    s->slots = trm_calloc((size_t)batch + 1, sizeof(*s->slots));
    s->samples = trm_calloc((size_t)picks + 1, sizeof(*s->samples));
    s->begins = trm_calloc((size_t)batch + 1, sizeof(*s->begins));
    s->flown = trm_calloc(TRM_SAMPLER_STEPS_AHEAD * ((size_t)picks + 1), sizeof(*s->flown));
    if (s->slots == NULL || s->samples == NULL || s->begins == NULL || s->flown == NULL) {
        trm_sampler_steps_destroy(s);
        return no_memory();
    }
    for (int i = 0; i < batch; i++)
        s->slots[i].begun = TRM_ERR_INTERNAL;
    *steps_out = s;
    return TRM_OK;
}

static void unconstrain(slot *q)
{
    trm_constraint_destroy(q->constraint);
    trm_free(q->allowed);
    q->constraint = NULL;
    q->allowed = NULL;
    q->drawn = false;
}

static void clear_slot(slot *q)
{
    unconstrain(q);
    trm_free(q->sampling);
    trm_free(q->bias);
    memset(q, 0, sizeof(*q));
}

void trm_sampler_steps_destroy(trm_sampler_steps *s)
{
    if (s == NULL)
        return;
    for (int i = 0; s->slots != NULL && i < s->batch; i++)
        clear_slot(&s->slots[i]);
    trm_grammars_destroy(s->grammars);
    trm_free(s->slots);
    trm_free(s->samples);
    trm_free(s->begins);
    trm_free(s->flown);
    trm_free(s);
}

/* ---- slots ---- */

static bool penalises(const slot *q)
{
    const trm_sampling *p = q->sampling;

    return q->begun == TRM_OK &&
           (p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
}

/* By id; what has the same id stays in its order. */
static trm_status sort_bias(slot *q)
{
    const trm_sampling *p = q->sampling;

    q->bias = trm_malloc((size_t)p->bias_count + 1, sizeof(*q->bias));
    if (q->bias == NULL)
        return no_memory();
    for (int32_t i = 0; i < p->bias_count; i++) {
        int32_t at = i;

        for (; at > 0 && q->bias[at - 1].id > p->bias[i].id; at--)
            q->bias[at] = q->bias[at - 1];
        q->bias[at] = (trm_step_bias){p->bias[i].id, p->bias[i].bias};
    }
    return TRM_OK;
}

static trm_status check_prompt(const trm_sampler_steps *s, const slot *q, const trm_lm_begin *b)
{
    if (q->sampling->repetition_penalty == 1)
        return TRM_OK;
    if (b->prompt_count > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a prompt of %" PRId64 " tokens", b->prompt_count);
    for (int64_t i = 0; i < b->prompt_count; i++)
        if (b->prompt[i] < 0 || b->prompt[i] >= s->vocabulary)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "token %" PRId64 " of the prompt is %" PRId32
                            ", the vocabulary has %" PRId64,
                            i, b->prompt[i], s->vocabulary);
    return TRM_OK;
}

static trm_status constrain(trm_sampler_steps *s, slot *q, const trm_lm_begin *b)
{
    if (s->grammars == NULL)
        TRM_CHECK(trm_grammars_create(s->language, s->vocabulary, &s->grammars));
    q->allowed = trm_calloc((size_t)(s->vocabulary + 31) / 32, sizeof(*q->allowed));
    if (q->allowed == NULL)
        return no_memory();
    return trm_grammars_start(s->grammars, b->constraint, b->constraint_bytes, q->sampling->end,
                              q->sampling->end_count, &q->constraint);
}

static trm_status begin_slot(trm_sampler_steps *s, slot *q, const trm_lm_begin *b)
{
    q->sampling = trm_calloc(1, sizeof(*q->sampling));
    if (q->sampling == NULL)
        return no_memory();
    memcpy(q->sampling, b->sampling,
           offsetof(trm_sampling, bias) + (size_t)b->bias_count * sizeof(trm_logit_bias));
    TRM_CHECK(trm_sampling_check(q->sampling, s->vocabulary));
    TRM_CHECK(sort_bias(q));
    TRM_CHECK(check_prompt(s, q, b));
    return b->constraint != NULL ? constrain(s, q, b) : TRM_OK;
}

void trm_sampler_steps_begin(trm_sampler_steps *s, const trm_lm_step *step)
{
    for (int i = 0; i < step->begin_count; i++) {
        const trm_lm_begin *b = &step->begins[i];
        slot *q;

        if (b->slot < 0 || b->slot >= s->batch)
            continue;
        q = &s->slots[b->slot];
        clear_slot(q);
        q->life = ++s->lives;
        q->begun = begin_slot(s, q, b);
        if (q->begun != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "language", "a sampler: %s", trm_message());
    }
}

static slot *slot_of(const trm_sampler_steps *s, int32_t i)
{
    return i >= 0 && i < s->batch ? &s->slots[i] : NULL;
}

bool trm_sampler_steps_penalises(const trm_sampler_steps *s, const trm_lm_step *step)
{
    for (int i = 0; i < step->begin_count; i++) {
        const slot *q = slot_of(s, step->begins[i].slot);

        if (q != NULL && penalises(q))
            return true;
    }
    for (int i = 0; i < step->pick_count; i++) {
        const slot *q = slot_of(s, step->picks[i].slot);

        if (q != NULL && step->picks[i].kind == TRM_LM_PICK_NEXT && penalises(q))
            return true;
    }
    return false;
}

bool trm_sampler_steps_waits(const trm_sampler_steps *s, const trm_lm_step *step)
{
    for (int i = 0; i < step->pick_count; i++) {
        const slot *q = slot_of(s, step->picks[i].slot);

        if (q != NULL && step->picks[i].kind == TRM_LM_PICK_NEXT && q->drawn)
            return true;
    }
    return false;
}

/* ---- to the device ---- */

/* A row that is asked for nothing: of a sequence that has failed. */
static trm_step_sample nothing(void)
{
    return (trm_step_sample){.row_kind = TRM_LM_PICK_SCORE, .slot = -1, .logprobs = -1};
}

static trm_step_sample sample_of(const slot *q, const trm_lm_pick *p)
{
    const trm_sampling *from = q->sampling;
    bool next = p->kind == TRM_LM_PICK_NEXT;

    return (trm_step_sample){.row_kind = next ? 0 : 1,
                             .slot = p->slot,
                             .target = p->target,
                             .position = p->position,
                             .temperature = from->temperature,
                             .top_p = from->top_p,
                             .min_p = from->min_p,
                             .typical_p = from->typical_p,
                             .top_k = from->top_k,
                             .repetition_penalty = from->repetition_penalty,
                             .presence_penalty = from->presence_penalty,
                             .frequency_penalty = from->frequency_penalty,
                             .seed = from->seed,
                             .stream = from->stream,
                             .logprobs = from->logprobs,
                             .bias_count = next ? from->bias_count : 0,
                             .bias = next && from->bias_count > 0 ? q->bias : NULL};
}

static trm_status fill_one(const trm_sampler_steps *s, const trm_lm_pick *p, trm_step_sample *to)
{
    slot *q = slot_of(s, p->slot);

    *to = nothing();
    if (q == NULL || q->begun != TRM_OK)
        return q == NULL ? TRM_ERR_INTERNAL : q->begun;
    if (p->kind != TRM_LM_PICK_NEXT) {
        *to = sample_of(q, p);
        return TRM_OK;
    }
    if (q->constraint != NULL)
        TRM_CHECK(trm_constraint_allowed(q->constraint, q->allowed, s->vocabulary));
    *to = sample_of(q, p);
    to->allowed = q->allowed;
    if (q->outputs < q->sampling->min_tokens &&
        (q->constraint == NULL || !trm_constraint_complete(q->constraint))) {
        to->ends = q->sampling->end;
        to->end_count = q->sampling->end_count;
    }
    q->outputs++;
    q->drawn = q->constraint != NULL;
    return TRM_OK;
}

/* Slots that are counted; where one begins twice, the second. */
static int fill_begins(trm_sampler_steps *s, const trm_lm_step *step)
{
    int count = 0;

    for (int i = 0; i < step->begin_count; i++) {
        const trm_lm_begin *b = &step->begins[i];
        const slot *q = slot_of(s, b->slot);
        bool whole = q != NULL && penalises(q);
        bool prompt = whole && q->sampling->repetition_penalty != 1;

        for (int k = i + 1; k < step->begin_count; k++)
            whole = whole && step->begins[k].slot != b->slot;
        if (whole)
            s->begins[count++] =
                (trm_step_begin){.slot = b->slot,
                                 .prompt_count = prompt ? (int32_t)b->prompt_count : 0,
                                 .prompt = prompt ? b->prompt : NULL};
    }
    return count;
}

trm_status trm_sampler_steps_fill(trm_sampler_steps *s, const trm_lm_step *step, trm_step *to)
{
    unsigned at = s->filled % TRM_SAMPLER_STEPS_AHEAD;
    flown *f = s->flown + (size_t)at * ((size_t)s->picks + 1);

    if (step->pick_count > s->picks)
        return trm_fail(TRM_ERR_INTERNAL, "a step of %d picks, want %d at most", step->pick_count,
                        s->picks);
    if (s->filled - s->taken == TRM_SAMPLER_STEPS_AHEAD)
        return trm_fail(TRM_ERR_INTERNAL, "%d steps are on their way", TRM_SAMPLER_STEPS_AHEAD);
    if (trm_sampler_steps_waits(s, step))
        return trm_fail(TRM_ERR_INTERNAL, "a constraint waits for the token before");
    for (int i = 0; i < step->pick_count; i++) {
        const trm_lm_pick *p = &step->picks[i];
        const slot *q = slot_of(s, p->slot);

        f[i] = (flown){.slot = p->slot,
                       .next = p->kind == TRM_LM_PICK_NEXT,
                       .life = q != NULL ? q->life : 0,
                       .failed = fill_one(s, p, &s->samples[i])};
        if (f[i].failed == TRM_ERR_UNSUPPORTED && q != NULL && q->begun == TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "language", "a constraint: %s", trm_message());
    }
    s->flown_counts[at] = step->pick_count;
    s->filled++;
    to->samples = s->samples;
    to->sample_count = step->pick_count;
    to->begin_count = fill_begins(s, step);
    to->begins = s->begins;
    return TRM_OK;
}

void trm_sampler_steps_undo(trm_sampler_steps *s)
{
    unsigned at = --s->filled % TRM_SAMPLER_STEPS_AHEAD;

    for (int i = 0; i < s->flown_counts[at]; i++) {
        const flown *f = &s->flown[(size_t)at * ((size_t)s->picks + 1) + (size_t)i];
        slot *q = slot_of(s, f->slot);

        if (q == NULL || q->life != f->life || !f->next || f->failed != TRM_OK)
            continue;
        q->outputs--;
        q->drawn = false;
    }
}

/* ---- and back ---- */

/* The text is as long as the token; after an end token nothing more comes. */
static trm_status follow(slot *q, int32_t id)
{
    TRM_CHECK(trm_constraint_accept(q->constraint, id));
    for (int32_t i = 0; i < q->sampling->end_count; i++)
        if (q->sampling->end[i] == id) {
            unconstrain(q);
            break;
        }
    return TRM_OK;
}

static void take_one(trm_sampler_steps *s, const flown *f, trm_sampled *r)
{
    slot *q = slot_of(s, f->slot);
    trm_status st = f->failed;

    if (q != NULL && q->life != f->life)
        q = NULL; /* the slot is another sequence's by now */
    if (q != NULL && f->next && st == TRM_OK) {
        q->drawn = false;
        if (q->constraint != NULL && r->id >= 0) {
            st = follow(q, r->id);
            if (st != TRM_OK)
                TRM_LOG(TRM_LOG_WARN, "language", "a constraint: %s", trm_message());
        }
    }
    if (st == TRM_OK || r->id == NOTHING)
        return;
    memset(r, 0, sizeof(*r));
    r->id = st == TRM_ERR_UNSUPPORTED ? CONSTRAINED : NOTHING;
}

trm_status trm_sampler_steps_took(trm_sampler_steps *s, trm_sampled *results, int count)
{
    unsigned at = s->taken % TRM_SAMPLER_STEPS_AHEAD;

    if (s->taken == s->filled || s->flown_counts[at] != count)
        return trm_fail(TRM_ERR_INTERNAL, "results of %d picks: no step awaits them", count);
    for (int i = 0; i < count; i++)
        take_one(s, &s->flown[(size_t)at * ((size_t)s->picks + 1) + (size_t)i], &results[i]);
    s->taken++;
    return TRM_OK;
}
