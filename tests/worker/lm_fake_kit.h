/* A device with memory of its own that runs a language model of arithmetic: steps are copied when
 * they are submitted, run later, in their order, and know the tokens that they draw before anybody
 * else does. Its cache holds the tokens themselves; the next one is a hash of all that the pages
 * say, of the sampling and of what the slot has drawn before. Two steps under way must not meddle
 * with each other: whoever writes a page is alone with it. */
#ifndef TRM_TESTS_WORKER_LM_FAKE_KIT_H
#define TRM_TESTS_WORKER_LM_FAKE_KIT_H

#include "kernels/language.h"
#include "worker/language/step.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* Check's own assertions write to a pipe each time. */
#define FAKE_CHECK(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)
#define FAKE_SAME(a, b)                                                                            \
    do {                                                                                           \
        int fake_a = (int)(a), fake_b = (int)(b);                                                  \
        FAKE_CHECK(fake_a == fake_b, "%s:%d: %s is %d, %s is %d", __FILE__, __LINE__, #a, fake_a,  \
                   #b, fake_b);                                                                    \
    } while (0)

#define FAKE_STEPS 4
#define FAKE_PARTS 32
#define FAKE_ROWS 256
#define FAKE_PICKS (FAKE_PARTS + 64)
#define FAKE_PAGES (FAKE_PARTS * 32)
#define FAKE_SEEN_MAX 512
#define FAKE_PAGES_MAX 1024

/* Of sampling only these count: seed, stream, repetition_penalty (not 1: the prompt counts), top_k
 * (not 0: from that position on logits are not finite). */
typedef struct fake_slot {
    uint64_t seed, history;
    int32_t stream, fails_at, last;
    bool constrained;
} fake_slot;

typedef struct fake_begin {
    int slot;
    fake_slot state;
} fake_begin;

typedef struct fake_step {
    int part_count, pick_count, begin_count;
    trm_lm_part parts[FAKE_PARTS];
    int owners[FAKE_PARTS]; /* whose part: another number for each beginning of a slot */
    int32_t tokens[FAKE_ROWS], pages[FAKE_PAGES];
    trm_lm_pick picks[FAKE_PICKS];
    fake_begin begins[FAKE_PARTS];
    trm_sampled results[FAKE_PICKS];
} fake_step;

typedef struct fake {
    int page_count, vocabulary;
    int32_t (*pages)[TRM_KV_PAGE];
    fake_slot slots[FAKE_PARTS];
    int owners[FAKE_PARTS], owner_count; /* by slot, as submitted */
    bool constrained[FAKE_PARTS];        /* likewise */
    fake_step steps[FAKE_STEPS];         /* a ring */
    int first, under_way, run;           /* run: of those under way */
    long unknown, ahead;                 /* tokens named by their slot; steps behind another */
} fake;

static inline void fake_init(fake *f, int pages, int vocabulary)
{
    memset(f, 0, sizeof(*f));
    f->page_count = pages;
    f->vocabulary = vocabulary;
    f->pages = (int32_t(*)[TRM_KV_PAGE])calloc((size_t)pages, sizeof(*f->pages));
    ck_assert_ptr_nonnull(f->pages);
}

static inline void fake_fini(fake *f)
{
    free(f->pages);
    f->pages = NULL;
}

static inline uint64_t fake_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

static inline fake_slot fake_begun(const trm_sampling *p, const int32_t *prompt, int count)
{
    fake_slot s = {.seed = p->seed, .stream = (int32_t)p->stream, .fails_at = p->top_k};

    for (int i = 0; i < count && p->repetition_penalty != 1.0f; i++)
        s.history = fake_mix(s.history, (uint64_t)prompt[i]);
    return s;
}

static inline uint64_t fake_row(const int32_t *seen, int count)
{
    uint64_t h = 1;

    for (int i = 0; i < count; i++)
        h = fake_mix(h, (uint64_t)(uint32_t)seen[i]);
    return h;
}

/* The token at position `count`. */
static inline int32_t fake_draw(fake_slot *s, const int32_t *seen, int count, int vocabulary)
{
    uint64_t h = fake_mix(fake_mix(fake_row(seen, count), s->seed), (uint64_t)s->stream);

    h = fake_mix(fake_mix(h, s->history), (uint64_t)count);
    s->last = s->fails_at > 0 && count >= s->fails_at ? -1 : (int32_t)(h % (uint64_t)vocabulary);
    s->history = fake_mix(s->history, (uint64_t)s->last);
    return s->last;
}

/* ---- submission ---- */

static inline const int32_t *fake_list(const fake_step *s, const trm_lm_part *p)
{
    return s->pages + p->page_first;
}

/* What a's parts write others of b have not, whether they write or read. */
static inline void fake_check_apart(const fake *f, const fake_step *a, const fake_step *b)
{
    static int writers[FAKE_PAGES_MAX]; /* by page */

    FAKE_CHECK(f->page_count <= FAKE_PAGES_MAX, "%d pages", f->page_count);
    memset(writers, 0, sizeof(writers));
    for (int i = 0; i < a->part_count; i++) {
        const trm_lm_part *p = &a->parts[i];

        for (int k = p->position / TRM_KV_PAGE; k <= (p->position + p->tokens - 1) / TRM_KV_PAGE;
             k++)
            writers[fake_list(a, p)[k]] = a->owners[i];
    }
    for (int i = 0; i < b->part_count; i++)
        for (int k = 0; k < b->parts[i].page_count; k++) {
            int32_t page = fake_list(b, &b->parts[i])[k];

            FAKE_CHECK(writers[page] == 0 || writers[page] == b->owners[i],
                       "page %d is written under another", page);
        }
}

static inline void fake_take_begins(fake *f, const trm_lm_step *step, fake_step *s)
{
    for (int i = 0; i < step->begin_count; i++) {
        const trm_lm_begin *b = &step->begins[i];
        fake_begin *to = &s->begins[s->begin_count++];

        for (int n = 0; n < f->under_way; n++) { /* what is on the host is the new one's now */
            const fake_step *o = &f->steps[(f->first + n) % FAKE_STEPS];

            for (int k = 0; k < o->part_count; k++)
                FAKE_CHECK(o->parts[k].slot != b->slot, "slot %d begins", b->slot);
        }
        to->slot = b->slot;
        to->state = fake_begun(b->sampling, b->prompt, (int)b->prompt_count);
        f->owners[b->slot] = ++f->owner_count;
        f->constrained[b->slot] = b->constraint != NULL;
    }
}

static inline void fake_take_part(fake *f, const trm_lm_step *step, const trm_lm_part *p)
{
    FAKE_CHECK(p->slot >= 0 && p->slot < FAKE_PARTS, "slot %d", p->slot);
    FAKE_CHECK(p->page_count * TRM_KV_PAGE >= p->position + p->tokens, "%d pages", p->page_count);
    for (int k = 0; k < p->tokens; k++) {
        int32_t t = step->tokens[p->row + k];

        if (t >= 0)
            continue;
        FAKE_SAME(t, TRM_STEP_TOKEN_OF_SLOT(p->slot));
        FAKE_SAME(p->tokens, 1);
        FAKE_CHECK(!f->constrained[p->slot], "a constraint does not know its token");
        f->unknown++;
    }
}

static inline void fake_submit(fake *f, const trm_lm_step *step)
{
    fake_step *s = &f->steps[(f->first + f->under_way) % FAKE_STEPS];

    FAKE_CHECK(f->under_way < FAKE_STEPS, "%d steps", f->under_way);
    FAKE_CHECK(step->part_count <= FAKE_PARTS && step->token_count <= FAKE_ROWS &&
                   step->pick_count <= FAKE_PICKS && step->page_count <= FAKE_PAGES,
               "a large step");
    s->part_count = step->part_count;
    s->pick_count = step->pick_count;
    s->begin_count = 0;
    memcpy(s->parts, step->parts, (size_t)step->part_count * sizeof(*s->parts));
    memcpy(s->tokens, step->tokens, (size_t)step->token_count * sizeof(*s->tokens));
    memcpy(s->pages, step->pages, (size_t)step->page_count * sizeof(*s->pages));
    memcpy(s->picks, step->picks, (size_t)step->pick_count * sizeof(*s->picks));
    fake_take_begins(f, step, s);
    for (int i = 0; i < s->part_count; i++) {
        fake_take_part(f, step, &s->parts[i]);
        s->owners[i] = f->owners[s->parts[i].slot];
    }
    for (int n = 0; n <= f->under_way; n++) {
        const fake_step *o = &f->steps[(f->first + n) % FAKE_STEPS];

        fake_check_apart(f, s, o);
        fake_check_apart(f, o, s);
    }
    f->ahead += f->under_way > 0;
    f->under_way++;
}

/* ---- running ---- */

static inline void fake_run_part(fake *f, const fake_step *s, const trm_lm_part *p)
{
    for (int k = 0; k < p->tokens; k++) {
        int at = p->position + k;
        int32_t t = s->tokens[p->row + k], page = fake_list(s, p)[at / TRM_KV_PAGE];

        FAKE_CHECK(page >= 0 && page < f->page_count, "page %d", page);
        f->pages[page][at % TRM_KV_PAGE] = t < 0 ? f->slots[p->slot].last : t;
    }
}

static inline void fake_run_pick(fake *f, fake_step *s, int i)
{
    const trm_lm_pick *pick = &s->picks[i];
    const trm_lm_part *p = s->parts;
    trm_sampled *out = &s->results[i];
    int32_t seen[FAKE_SEEN_MAX];
    int count;

    while (pick->row < p->row || pick->row >= p->row + p->tokens)
        p++;
    count = p->position + pick->row - p->row + 1;
    FAKE_SAME(count, pick->position);
    FAKE_CHECK(count <= FAKE_SEEN_MAX, "%d positions", count);
    for (int k = 0; k < count; k++)
        seen[k] = f->pages[fake_list(s, p)[k / TRM_KV_PAGE]][k % TRM_KV_PAGE];
    memset(out, 0, sizeof(*out));
    out->id = pick->target;
    if (pick->kind == TRM_LM_PICK_NEXT)
        out->id = fake_draw(&f->slots[pick->slot], seen, count, f->vocabulary);
    out->logprob = (float)(fake_row(seen, count) % 1000);
}

/* Runs the oldest step that has not run; false: all have. */
static inline bool fake_run_one(fake *f)
{
    fake_step *s = &f->steps[(f->first + f->run) % FAKE_STEPS];

    if (f->run == f->under_way)
        return false;
    for (int i = 0; i < s->begin_count; i++)
        f->slots[s->begins[i].slot] = s->begins[i].state;
    for (int i = 0; i < s->part_count; i++)
        fake_run_part(f, s, &s->parts[i]);
    for (int i = 0; i < s->pick_count; i++)
        fake_run_pick(f, s, i);
    f->run++;
    return true;
}

/* Results of the oldest step, until the next submission. */
static inline const trm_sampled *fake_collect(fake *f)
{
    const fake_step *s = &f->steps[f->first];

    FAKE_CHECK(f->under_way > 0, "no step");
    if (f->run == 0)
        (void)fake_run_one(f);
    f->first = (f->first + 1) % FAKE_STEPS;
    f->run--;
    f->under_way--;
    return s->results;
}

/* The oldest step fails; what it would have done may not have been done. */
static inline void fake_drop(fake *f)
{
    f->first = (f->first + 1) % FAKE_STEPS;
    f->run -= f->run > 0;
    f->under_way--;
}

/* ---- what a sequence comes to alone ---- */

/* Fills tokens[count, max) behind a prompt, up to where its logits fail; returns the new count. */
static inline int fake_alone(const trm_sampling *p, int32_t *tokens, int count, int max,
                             int vocabulary)
{
    fake_slot s = fake_begun(p, tokens, count);

    for (; count < max; count++) {
        int32_t id = fake_draw(&s, tokens, count, vocabulary);

        if (id < 0)
            break;
        tokens[count] = id;
        for (int e = 0; e < p->end_count; e++)
            if (p->end[e] == id)
                return count + 1;
    }
    return count;
}
#endif
