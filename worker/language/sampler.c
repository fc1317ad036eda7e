/* One sequence: what it has seen, and its next token. */
#include "worker/language/sampler.h"

#include "base/memory.h"
#include "worker/language/constraint.h"
#include "worker/language/sampler_impl.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A token that the prompt or the output holds. */
typedef struct seen {
    int32_t id;
    int32_t outputs; /* times in the output */
} seen;

typedef struct change {
    int32_t id;
    float before;
} change;

struct trm_sampler {
    trm_sampling sampling;
    int64_t vocabulary;
    int32_t outputs; /* tokens so far */
    seen *seen;      /* distinct, in order of appearance */
    size_t seen_count, seen_room;
    uint32_t *index; /* open addressing: seen + 1 */
    size_t index_size;
    change *changes; /* of this row, undone before it is reported on */
    size_t change_count, change_room;
    trmi_candidates candidates;
    trm_constraint *constraint; /* NULL: none */
};

static bool penalises(const trm_sampling *s)
{
    return s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

static size_t slot_of(const trm_sampler *s, int32_t id)
{
    size_t at = ((uint32_t)id * 2654435769u) & (s->index_size - 1);

    while (s->index[at] != 0 && s->seen[s->index[at] - 1].id != id)
        at = (at + 1) & (s->index_size - 1);
    return at;
}

static trm_status grow_seen(trm_sampler *s)
{
    size_t room = s->seen_room == 0 ? 256 : s->seen_room * 2;
    seen *grown = trm_realloc(s->seen, room, sizeof(*grown));
    uint32_t *index;

    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "sampler: %zu distinct tokens", room);
    s->seen = grown;
    index = trm_calloc(room * 2, sizeof(*index));
    if (index == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "sampler: %zu distinct tokens", room);
    trm_free(s->index);
    s->index = index;
    s->index_size = room * 2;
    s->seen_room = room;
    for (size_t i = 0; i < s->seen_count; i++)
        s->index[slot_of(s, s->seen[i].id)] = (uint32_t)i + 1;
    return TRM_OK;
}

static trm_status see(trm_sampler *s, int32_t id, bool output)
{
    size_t at;

    if (s->seen_count == s->seen_room)
        TRM_CHECK(grow_seen(s));
    at = slot_of(s, id);
    if (s->index[at] == 0) {
        s->seen[s->seen_count].id = id;
        s->seen[s->seen_count].outputs = 0;
        s->index[at] = (uint32_t)++s->seen_count;
    }
    s->seen[s->index[at] - 1].outputs += output;
    return TRM_OK;
}

trm_status trm_sampler_create(const trm_sampling *sampling, int64_t vocabulary,
                              const int32_t *prompt, size_t prompt_count, trm_sampler **sampler_out)
{
    trm_sampler *s = NULL;
    trm_status st;

    TRM_CHECK(trm_sampling_check(sampling, vocabulary));
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "sampler");
    s->sampling = *sampling;
    s->vocabulary = vocabulary;
    s->candidates.chunks =
        trm_calloc((size_t)trmi_row_chunks(vocabulary), sizeof(*s->candidates.chunks));
    if (s->candidates.chunks == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "sampler: sums of %" PRId64 " tokens", vocabulary);
        goto fail;
    }
    for (size_t i = 0; i < prompt_count && sampling->repetition_penalty != 1; i++) {
        if (prompt[i] < 0 || prompt[i] >= vocabulary) {
            st = trm_fail(TRM_ERR_INVALID_ARG,
                          "token %zu of the prompt is %" PRId32 ", the vocabulary has %" PRId64, i,
                          prompt[i], vocabulary);
            goto fail;
        }
        TRM_TRY(st, see(s, prompt[i], false), fail);
    }
    *sampler_out = s;
    return TRM_OK;

fail:
    trm_sampler_destroy(s);
    return st;
}

void trm_sampler_destroy(trm_sampler *s)
{
    if (s == NULL)
        return;
    trm_free(s->seen);
    trm_free(s->index);
    trm_free(s->changes);
    trm_free(s->candidates.items);
    trm_free(s->candidates.chunks);
    trm_constraint_destroy(s->constraint);
    trm_free(s);
}

void trm_sampler_constrain(trm_sampler *s, trm_constraint *constraint)
{
    trm_constraint_destroy(s->constraint);
    s->constraint = constraint;
}

static trm_status reserve_changes(trm_sampler *s)
{
    size_t wanted = s->seen_count + (size_t)s->sampling.bias_count + (size_t)s->sampling.end_count;
    change *grown;

    s->change_count = 0;
    if (wanted <= s->change_room)
        return TRM_OK;
    wanted = wanted * 2;
    grown = trm_realloc(s->changes, wanted, sizeof(*grown));
    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "sampler: %zu changes", wanted);
    s->changes = grown;
    s->change_room = wanted;
    return TRM_OK;
}

static void change_to(trm_sampler *s, float *row, int32_t id, float value)
{
    s->changes[s->change_count].id = id;
    s->changes[s->change_count++].before = row[id];
    if (row[id] == -INFINITY)
        return; /* forbidden before */
    row[id] = value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value;
}

static void undo_changes(trm_sampler *s, float *row)
{
    while (s->change_count > 0) {
        s->change_count--;
        row[s->changes[s->change_count].id] = s->changes[s->change_count].before;
    }
}

static trm_status make_changes(trm_sampler *s, float *row)
{
    const trm_sampling *p = &s->sampling;

    TRM_CHECK(reserve_changes(s));
    for (int32_t i = 0; i < p->bias_count; i++)
        change_to(s, row, p->bias[i].id, row[p->bias[i].id] + p->bias[i].bias);
    for (size_t i = 0; i < s->seen_count && penalises(p); i++) {
        float v = row[s->seen[i].id];

        v = v > 0 ? v / p->repetition_penalty : v * p->repetition_penalty;
        if (s->seen[i].outputs > 0)
            v -= p->presence_penalty + p->frequency_penalty * (float)s->seen[i].outputs;
        change_to(s, row, s->seen[i].id, v);
    }
    if (s->outputs >= p->min_tokens ||
        (s->constraint != NULL && trm_constraint_complete(s->constraint)))
        return TRM_OK;
    for (int32_t i = 0; i < p->end_count; i++) {
        change_to(s, row, p->end[i], 0);
        row[p->end[i]] = -INFINITY;
    }
    return TRM_OK;
}

/* In [0, 1), by seed, stream and position alone. */
static double uniform(const trm_sampling *p, int64_t position)
{
    uint32_t key[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)}, bits[4];
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)((uint64_t)position >> 32), p->stream, 0};

    trm_philox4x32(counter, key, bits);
    return ((double)(bits[0] >> 5) * 67108864.0 + (double)(bits[1] >> 6)) / 9007199254740992.0;
}

/* What the row, as it came, says of out->id; `best`: its first largest. */
static void report(const trm_sampler *s, const float *row, float max, int32_t best,
                   trm_sampled *out)
{
    double log_sum = (double)max + log(trmi_row_sum(row, s->vocabulary, max, 1, NULL));

    out->logprob = (float)((double)row[out->id] - log_sum);
    out->rank = out->id == best ? 1 : (int32_t)trmi_row_rank(row, s->vocabulary, out->id);
    out->top_count =
        trmi_row_top(row, s->vocabulary, s->sampling.logprobs, out->top_ids, out->top_logprobs);
    while (out->top_count > 0 && out->top_logprobs[out->top_count - 1] == -INFINITY)
        out->top_count--; /* may not come */
    for (int32_t i = 0; i < out->top_count; i++)
        out->top_logprobs[i] = (float)((double)out->top_logprobs[i] - log_sum);
}

static trm_status largest(const trm_sampler *s, const float *row, float *max, int32_t *id)
{
    int64_t bad = trmi_row_largest(row, s->vocabulary, max, id);

    if (bad > 0)
        return trm_fail(TRM_ERR_INTERNAL, "logits are not finite: %" PRId64 " of %" PRId64, bad,
                        s->vocabulary);
    return TRM_OK;
}

/* max, *id: the row's largest before it was changed. */
static trm_status choose(trm_sampler *s, const float *row, int64_t position, float max, int32_t *id)
{
    if (s->change_count > 0)
        (void)trmi_row_largest(row, s->vocabulary, &max, id);
    if (max == -INFINITY && s->constraint != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "min_tokens and the constraint leave no token");
    if (max == -INFINITY)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "min_tokens forbids all of the vocabulary's %" PRId64 " tokens",
                        s->vocabulary);
    if (s->sampling.temperature == 0)
        return TRM_OK;
    return trmi_draw(&s->sampling, row, s->vocabulary, max, uniform(&s->sampling, position),
                     &s->candidates, id);
}

/* Tokens that the constraint forbids; the largest of the others. */
static trm_status constrain(trm_sampler *s, float *row, float *max, int32_t *best)
{
    TRM_CHECK(trm_constraint_mask(s->constraint, row, s->vocabulary));
    (void)trmi_row_largest(row, s->vocabulary, max, best);
    if (*max == -INFINITY)
        return trm_fail(TRM_ERR_UNSUPPORTED, "the constraint leaves no token");
    return TRM_OK;
}

/* The text is as long as the token; after an end token nothing more comes. */
static trm_status follow(trm_sampler *s, int32_t id)
{
    TRM_CHECK(trm_constraint_accept(s->constraint, id));
    for (int32_t i = 0; i < s->sampling.end_count && s->constraint != NULL; i++)
        if (s->sampling.end[i] == id)
            trm_sampler_constrain(s, NULL);
    return TRM_OK;
}

trm_status trm_sampler_next(trm_sampler *s, float *logits, int64_t position, trm_sampled *out)
{
    trm_status st = TRM_OK;
    trm_sampled result;
    int32_t best;
    float max;

    memset(&result, 0, sizeof(result));
    TRM_CHECK(largest(s, logits, &max, &best));
    if (s->constraint != NULL)
        TRM_CHECK(constrain(s, logits, &max, &best));
    TRM_CHECK(make_changes(s, logits));
    result.id = best;
    if (s->change_count > 0 || s->sampling.temperature > 0)
        st = choose(s, logits, position, max, &result.id);
    undo_changes(s, logits);
    if (st != TRM_OK)
        return st;
    if (s->sampling.logprobs >= 0)
        report(s, logits, max, best, &result);
    if (s->constraint != NULL)
        TRM_CHECK(follow(s, result.id));
    if (penalises(&s->sampling))
        TRM_CHECK(see(s, result.id, true));
    s->outputs++;
    *out = result;
    return TRM_OK;
}

trm_status trm_sampler_score(const trm_sampler *s, const float *logits, int32_t target,
                             trm_sampled *out)
{
    trm_sampled result;
    int32_t best;
    float max;

    memset(&result, 0, sizeof(result));
    if (target < 0 || target >= s->vocabulary)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "token %" PRId32 " is not in the vocabulary of %" PRId64, target,
                        s->vocabulary);
    TRM_CHECK(largest(s, logits, &max, &best));
    result.id = target;
    if (s->sampling.logprobs >= 0)
        report(s, logits, max, best, &result);
    *out = result;
    return TRM_OK;
}
