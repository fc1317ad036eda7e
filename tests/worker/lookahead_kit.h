/* The scheduler with the device of lm_fake_kit.h, against what every sequence comes to alone:
 * requests come, end, are cancelled and fail at random. */
#ifndef TRM_TESTS_WORKER_LOOKAHEAD_KIT_H
#define TRM_TESTS_WORKER_LOOKAHEAD_KIT_H

#include "lm_fake_kit.h"
#include "worker/language/scheduler_impl.h"

#define VOCABULARY 97
#define LIVE 24
#define CONTEXT 240

/* Chances are of 1000, a round or a sequence. */
struct row {
    const char *name;
    int batch, step_tokens, pages, force;
    bool prefix, lookahead;
    int arrive, cancel, fail, ends, constrained;
    double decode_budget_us;
    int flights; /* 0: two where steps look ahead, else one */
};

struct one {
    trm_sequence *q; /* NULL: free */
    trm_sampling sampling;
    int32_t want[FAKE_SEEN_MAX];
    int prompt, want_count, taken, scores;
    trm_finish want_finish;
    bool stops, lingers; /* is stopped by tokens 3 and 4; is removed a while after its end */
};

struct run {
    const struct row *row;
    trm_scheduler *s;
    fake f;
    trm_lm_step step;
    int flights[FAKE_STEPS];
    struct one all[LIVE];
    uint64_t random, tokens, prompt_tokens;
    int over, by_finish[TRM_FINISH_FAILED + 1];
};

static inline int below(struct run *r, int n)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((r->random >> 33) % (uint64_t)n);
}

static inline bool chance(struct run *r, int of_1000)
{
    return below(r, 1000) < of_1000;
}

/* ---- sequences ---- */

static inline bool stops(const struct one *o, int32_t id)
{
    return o->stops && (id == 3 || id == 4);
}

static inline void foresee(const struct run *r, struct one *o)
{
    const trm_sampling *p = &o->sampling;
    int max = CONTEXT, all = r->row->pages * TRM_KV_PAGE, count;

    max = o->prompt + p->max_tokens < max ? o->prompt + p->max_tokens : max;
    max = max < all ? max : all;
    count = fake_alone(p, o->want, o->prompt, max, VOCABULARY);
    o->want_finish = count == max ? TRM_FINISH_LENGTH : TRM_FINISH_FAILED;
    for (int i = 0; i < p->end_count && count > o->prompt; i++)
        if (o->want[count - 1] == p->end[i])
            o->want_finish = TRM_FINISH_END;
    for (int i = o->prompt; i < count; i++)
        if (stops(o, o->want[i])) {
            o->want_finish = TRM_FINISH_STOP;
            count = i + 1;
        }
    o->want_count = count;
}

static inline void make_prompt(struct run *r, struct one *o)
{
    int family = below(r, 3), most = r->row->pages * TRM_KV_PAGE - 2;

    most = most < 200 ? most : 200;
    o->prompt = 1 + below(r, below(r, 3) > 0 ? 40 : most);
    o->prompt = o->prompt < most ? o->prompt : most;
    for (int i = 0; i < o->prompt; i++)
        o->want[i] = i < 64 ? (family * 31 + i) % VOCABULARY : below(r, VOCABULARY);
}

static inline void make_sampling(struct run *r, struct one *o)
{
    trm_sampling *p = &o->sampling;

    trm_sampling_init(p);
    p->max_tokens = 1 + below(r, 80);
    p->seed = (uint64_t)below(r, 1000);
    p->repetition_penalty = below(r, 2) > 0 ? 1.5f : 1.0f;
    p->top_k = below(r, 12) == 0 ? o->prompt + below(r, 30) : 0;
    for (int i = 0; i < 3 && chance(r, r->row->ends); i++)
        p->end[p->end_count++] = i;
    o->stops = below(r, 4) == 0;
    o->lingers = below(r, 8) == 0;
}

static inline struct one *room(struct run *r)
{
    for (int i = 0; i < LIVE; i++)
        if (r->all[i].q == NULL)
            return &r->all[i];
    return NULL;
}

/* A request of one to three choices. */
static inline void arrive(struct run *r)
{
    int choices = below(r, 4) == 0 ? 3 : 1, priority = below(r, 6) == 0 ? below(r, 3) - 1 : 0;
    bool constrained = chance(r, r->row->constrained), scored = below(r, 10) == 0;
    struct one *first = NULL;

    for (int n = 0; n < choices; n++) {
        struct one *o = room(r);

        if (o == NULL)
            return;
        memset(o, 0, sizeof(*o));
        if (first == NULL) {
            make_prompt(r, o);
            make_sampling(r, o);
            first = o;
        } else {
            *o = *first;
            memset(&o->q, 0, sizeof(o->q));
            o->sampling.stream = (uint32_t)n;
            o->taken = o->scores = 0;
        }
        foresee(r, o);
        FAKE_CHECK(trm_sequence_create(r->s, o->want, o->prompt, NULL, &o->sampling, &o->q) ==
                       TRM_OK,
                   "%s", trm_message());
        o->q->owner = o;
        o->q->priority = priority;
        o->q->constraint = constrained ? "{}" : NULL;
        o->q->prompt_logprobs = scored && n == 0;
        o->q->sibling = n > 0 ? first->q : NULL;
        trm_scheduler_add(r->s, o->q);
    }
}

/* early: not by what it has come to itself. */
static inline void end(struct run *r, struct one *o, trm_finish finish, bool early)
{
    trm_sequence *q = o->q;

    FAKE_CHECK(q->count <= o->want_count, "%d of %d tokens", q->count, o->want_count);
    if (!early) {
        FAKE_SAME(finish, o->want_finish);
        FAKE_SAME(q->count, o->want_count);
        r->prompt_tokens += (uint64_t)o->prompt;
    }
    FAKE_SAME(q->count, o->prompt + o->taken);
    FAKE_CHECK(memcmp(q->tokens, o->want, (size_t)q->count * sizeof(int32_t)) == 0, "other tokens");
    if (q->prompt_logprobs && !early)
        FAKE_SAME(o->scores, o->prompt - 1);
    trm_scheduler_remove(r->s, q);
    trm_sequence_destroy(q);
    o->q = NULL;
    r->over++;
    r->by_finish[finish]++;
}

static inline void took(void *ctx, trm_sequence *q, const trm_sampled *result, bool prompt,
                        int position)
{
    struct run *r = ctx;
    struct one *o = q->owner;

    if (prompt) {
        o->scores++;
        FAKE_SAME(position, o->scores); /* each position once, in order */
        FAKE_SAME((int)result->logprob, (int)(fake_row(o->want, position) % 1000));
        return;
    }
    if (result->id >= 0) {
        o->taken++;
        r->tokens++;
        FAKE_SAME(result->id, o->want[position]);
        FAKE_SAME(position + 1, q->count);
        if (stops(o, result->id))
            q->finish = TRM_FINISH_STOP;
    }
    if (q->finish != TRM_FINISH_NONE && !o->lingers)
        end(r, o, q->finish, false);
}

static inline void lost(void *ctx, trm_sequence *q)
{
    struct run *r = ctx;

    end(r, q->owner, TRM_FINISH_FAILED, true);
}

/* ---- rounds ---- */

/* A page that is still written has one holder. */
static inline void check_pages(const struct run *r)
{
    static int holders[1024], writers[1024];

    memset(holders, 0, sizeof(holders));
    memset(writers, 0, sizeof(writers));
    for (int i = 0; i < LIVE; i++) {
        const trm_sequence *q = r->all[i].q;

        for (int k = 0; q != NULL && k < q->table.count; k++) {
            holders[q->table.pages[k]]++;
            writers[q->table.pages[k]] += k >= q->computed / TRM_KV_PAGE;
        }
    }
    for (int i = 0; i < r->s->limits.flights * r->s->limits.batch; i++)
        for (int k = 0; r->s->ghosts[i].steps > 0 && k < r->s->ghosts[i].table.count; k++) {
            const trm_kv_table *t = &r->s->ghosts[i].table;

            holders[t->pages[k]]++;
            writers[t->pages[k]] += k >= t->known;
        }
    for (int p = 0; p < r->row->pages; p++)
        FAKE_CHECK(writers[p] == 0 || holders[p] == 1, "page %d: %d hold it, %d write it", p,
                   holders[p], writers[p]);
}

/* No step beyond what is known to be the end. */
static inline void check_ends(const struct run *r, int flight)
{
    for (int i = 0; i < r->step.part_count; i++) {
        const trm_sequence *q = trm_scheduler_part(r->s, flight, i);

        FAKE_CHECK(r->step.parts[i].position + r->step.parts[i].tokens < q->max,
                   "position %d of %d", r->step.parts[i].position, q->max);
    }
}

static inline void submit(struct run *r)
{
    int flight;

    while (r->f.under_way < r->s->limits.flights && trm_scheduler_next(r->s, &r->step, &flight)) {
        check_ends(r, flight);
        if (chance(r, r->row->fail)) { /* it never gets to the device */
            trm_scheduler_failed(r->s, flight, lost, r);
            continue;
        }
        r->flights[(r->f.first + r->f.under_way) % FAKE_STEPS] = flight;
        fake_submit(&r->f, &r->step);
        check_pages(r);
        if (below(r, 8) == 0)
            return;
    }
}

static inline void collect(struct run *r)
{
    int flight = r->flights[r->f.first];

    if (chance(r, r->row->fail)) {
        fake_drop(&r->f);
        trm_scheduler_failed(r->s, flight, lost, r);
    } else {
        const trm_sampled *results = fake_collect(&r->f);

        trm_scheduler_done(r->s, flight, results, 100 + below(r, 50), took, r);
    }
    check_pages(r);
}

static inline void end_some(struct run *r)
{
    for (int i = 0; i < LIVE; i++) {
        struct one *o = &r->all[i];

        if (o->q != NULL && o->q->finish != TRM_FINISH_NONE && below(r, 3) == 0)
            end(r, o, o->q->finish, false);
    }
    if (chance(r, r->row->cancel)) {
        struct one *o = &r->all[below(r, LIVE)];

        if (o->q != NULL && o->q->finish == TRM_FINISH_NONE)
            end(r, o, TRM_FINISH_CANCELLED, true);
    }
}

static inline void play(struct run *r, bool more)
{
    end_some(r);
    if (more && chance(r, r->row->arrive))
        arrive(r);
    submit(r);
    if (below(r, 2) == 0)
        (void)fake_run_one(&r->f);
    if (more)
        end_some(r); /* while steps are under way */
    if (r->f.under_way > 0)
        collect(r);
}

static inline bool is_empty(const struct run *r)
{
    for (int i = 0; i < LIVE; i++)
        if (r->all[i].q != NULL)
            return false;
    return r->f.under_way == 0;
}

static inline void open_run(struct run *r, const struct row *row, uint64_t seed)
{
    const trm_scheduler_limits limits = {.batch = row->batch,
                                         .step_tokens = row->step_tokens,
                                         .context = CONTEXT,
                                         .pages = row->pages,
                                         .flights = row->flights > 0 ? row->flights
                                                    : row->lookahead ? 2
                                                                     : 1,
                                         .vocabulary = VOCABULARY,
                                         .prefix = row->prefix,
                                         .lookahead = row->lookahead,
                                         .decode_budget_us = row->decode_budget_us};

    memset(r, 0, sizeof(*r));
    r->row = row;
    r->random = seed;
    fake_init(&r->f, row->pages, VOCABULARY);
    ck_assert_int_eq(trm_scheduler_create(&limits, &r->s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&r->step, row->step_tokens, row->batch, row->batch + 64,
                                      row->batch * (CONTEXT / TRM_KV_PAGE + 1), row->batch, false),
                     TRM_OK);
}

static inline void close_run(struct run *r)
{
    ck_assert_int_eq(r->s->ghost_count, 0);
    ck_assert_int_eq(r->s->slot_count, r->row->batch);
    trm_lm_step_fini(&r->step);
    trm_scheduler_destroy(r->s);
    fake_fini(&r->f);
}
#endif
