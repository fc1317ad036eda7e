/* See generator.h. */
#define _GNU_SOURCE
#include "worker/language/generator.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/wait.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct choice {
    trm_generation *request;
    int number;
    int64_t begun_us;
    trm_sampling sampling;
    trm_sequence *sequence; /* NULL: ended */
    trm_detokenizer *text;
    trm_stopper *stopper; /* NULL: no stop strings */
};

struct trm_generation {
    trm_generation *prev, *next;
    trm_generation_options options;
    char **stops;
    char *constraint; /* NULL: none */
    int choice_count, left;
    struct choice *choices;
};

struct trm_generator {
    trm_generator_options options;
    trm_scheduler *scheduler;
    trm_generation *first;
    int count, steps_under_way;
    int *flights; /* ring of the scheduler's flights in the order of submission */
    int flight_first;
    int warmed;       /* sequences at once, up to which steps have been run to be captured */
    int64_t ended_us; /* when the last step did; 0: none has */
    trm_lm_step step;
    trm_generator_stats stats;
};

/* ---- life ---- */

trm_status trm_generator_create(const trm_generator_options *options, trm_generator **generator_out)
{
    trm_generator *g = trm_calloc(1, sizeof(*g));
    trm_status st = TRM_ERR_NO_MEMORY;

    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "generator");
    g->options = *options;
    g->options.limits.flights = trm_lm_replica_depth(options->replica);
    g->options.limits.lookahead =
        trm_lm_replica_looks_ahead(options->replica) && g->options.limits.flights > 1;
    g->options.limits.vocabulary = options->language->config.vocabulary;
    g->options.limits.encoder = options->language->encoder;
    g->flights = trm_calloc((size_t)g->options.limits.flights, sizeof(*g->flights));
    if (g->flights == NULL) {
        (void)trm_fail(TRM_ERR_NO_MEMORY, "generator");
        goto fail;
    }
    if (g->options.limits.encoder || !trm_lm_replica_captures(options->replica))
        g->warmed = g->options.limits.batch;
    TRM_TRY(st, trm_scheduler_create(&g->options.limits, &g->scheduler), fail);
    TRM_TRY(st, trm_lm_replica_step(options->replica, &g->step), fail);
    *generator_out = g;
    return TRM_OK;
fail:
    trm_generator_destroy(g);
    return st;
}

static void free_choice(trm_generator *g, struct choice *c)
{
    if (c->sequence != NULL) {
        trm_scheduler_remove(g->scheduler, c->sequence);
        trm_sequence_destroy(c->sequence);
        c->sequence = NULL;
    }
    trm_detokenizer_destroy(c->text);
    trm_stopper_destroy(c->stopper);
    c->text = NULL;
    c->stopper = NULL;
}

static void free_request(trm_generator *g, trm_generation *r)
{
    for (int i = 0; r->choices != NULL && i < r->choice_count; i++)
        free_choice(g, &r->choices[i]);
    for (size_t i = 0; r->stops != NULL && i < r->options.stop_count; i++)
        trm_free(r->stops[i]);
    trm_free(r->stops);
    trm_free(r->constraint);
    trm_free(r->choices);
    trm_free(r);
}

static void unlink_request(trm_generator *g, trm_generation *r)
{
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        g->first = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    g->count--;
}

static void log_stats(const trm_generator *g)
{
    trm_generator_stats s;

    trm_generator_get_stats(g, &s);
    TRM_LOG(
        TRM_LOG_INFO, "language",
        "steps %llu, prompt tokens %llu, new tokens %llu, preemptions %llu, prefix tokens found "
        "%llu of %llu, rows in use %.1f %%",
        (unsigned long long)s.scheduler.steps, (unsigned long long)s.scheduler.prompt_tokens,
        (unsigned long long)s.scheduler.new_tokens, (unsigned long long)s.scheduler.preemptions,
        (unsigned long long)s.scheduler.kv.found_tokens,
        (unsigned long long)s.scheduler.kv.queried_tokens,
        s.rows_run > 0 ? 100 * s.rows_used / s.rows_run : 0);
}

void trm_generator_destroy(trm_generator *g)
{
    if (g == NULL)
        return;
    if (g->scheduler != NULL)
        log_stats(g);
    while (g->first != NULL) {
        trm_generation *r = g->first;

        unlink_request(g, r);
        free_request(g, r);
    }
    trm_scheduler_destroy(g->scheduler);
    trm_lm_step_fini(&g->step);
    trm_free(g->flights);
    trm_free(g);
}

/* ---- requests ---- */

static trm_status make_choice(trm_generator *g, trm_generation *r, int number)
{
    const trm_generation_options *o = &r->options;
    struct choice *c = &r->choices[number];

    c->request = r;
    c->number = number;
    c->sampling = *o->sampling;
    c->sampling.stream = (uint32_t)number;
    TRM_CHECK(trm_sequence_create(g->scheduler, o->prompt, (int)o->prompt_count, o->types,
                                  &c->sampling, &c->sequence));
    c->sequence->owner = c;
    c->sequence->constraint = r->constraint;
    c->sequence->priority = o->priority;
    c->sequence->prompt_logprobs = o->prompt_logprobs && number == 0;
    c->sequence->sibling = number > 0 ? r->choices[0].sequence : NULL;
    if (g->options.limits.encoder || g->options.language->tokenizer == NULL)
        return TRM_OK;
    TRM_CHECK(trm_detokenizer_create(g->options.language->tokenizer, !o->keep_special, &c->text));
    TRM_CHECK(trm_detokenizer_start(c->text, o->prompt, o->prompt_count));
    if (o->stop_count > 0)
        TRM_CHECK(trm_stopper_create((const char *const *)r->stops, o->stop_count, &c->stopper));
    return TRM_OK;
}

static trm_status copy_stops(trm_generation *r, const trm_generation_options *o)
{
    r->stops = trm_calloc(o->stop_count + 1, sizeof(*r->stops));
    if (r->stops == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
    for (size_t i = 0; i < o->stop_count; i++) {
        if (o->stops[i][0] == '\0')
            return trm_fail(TRM_ERR_INVALID_ARG, "a stop string is empty");
        r->stops[i] = trm_strdup(o->stops[i]);
        if (r->stops[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
    }
    return TRM_OK;
}

static trm_status copy_constraint(trm_generation *r, const trm_generation_options *o)
{
    if (o->constraint == NULL)
        return TRM_OK;
    if (o->sampling->end_count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a format of the answer wants an end token: the model has none and the "
                        "request names none (stop_token_ids)");
    r->constraint = trm_strdup(o->constraint);
    return r->constraint == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "a constraint") : TRM_OK;
}

trm_status trm_generator_add(trm_generator *g, const trm_generation_options *o,
                             trm_generation **generation_out)
{
    trm_generation *r;
    trm_status st;

    if (o->choices < 1 || o->choices > 128)
        return trm_fail(TRM_ERR_INVALID_ARG, "n is %d: want 1 to 128", o->choices);
    if (o->prompt_count > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a prompt of %zu tokens", o->prompt_count);
    TRM_CHECK(trm_sampling_check(o->sampling, g->options.limits.vocabulary));
    r = trm_calloc(1, sizeof(*r));
    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    r->options = *o;
    r->choices = trm_calloc((size_t)o->choices, sizeof(*r->choices));
    if (r->choices == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a request");
        goto fail;
    }
    TRM_TRY(st, copy_stops(r, o), fail);
    TRM_TRY(st, copy_constraint(r, o), fail);
    for (int i = 0; i < o->choices; i++) {
        st = make_choice(g, r, i);
        if (r->choices[i].sequence != NULL) {
            trm_scheduler_add(g->scheduler, r->choices[i].sequence);
            r->choice_count = i + 1;
        }
        if (st != TRM_OK)
            goto fail;
    }
    r->left = o->choices;
    r->options.prompt = NULL; /* borrowed until now */
    r->options.types = NULL;
    r->options.sampling = NULL;
    r->options.stops = NULL;
    r->options.constraint = NULL;
    r->next = g->first;
    if (g->first != NULL)
        g->first->prev = r;
    g->first = r;
    g->count++;
    *generation_out = r;
    return TRM_OK;
fail:
    free_request(g, r);
    return st;
}

/* A choice is over: whoever asked is told, and after the last one the request is gone. */
static void end_choice(trm_generator *g, struct choice *c, trm_generation_end *e)
{
    trm_generation *r = c->request;
    trm_sequence *q = c->sequence;

    e->choice = c->number;
    e->prompt_tokens = q->prompt_count;
    e->new_tokens = q->count - q->prompt_count;
    e->cached_tokens = q->cached;
    e->begun_us = c->begun_us;
    e->ids = q->tokens + q->prompt_count;
    r->options.end(r->options.ctx, e);
    free_choice(g, c);
    if (--r->left == 0) {
        unlink_request(g, r);
        free_request(g, r);
    }
}

void trm_generator_cancel(trm_generator *g, trm_generation *r)
{
    trm_generation_end e = {.finish = TRM_FINISH_CANCELLED, .status = TRM_ERR_CANCELLED};
    int left = r->left; /* the last end frees the request */

    for (int i = 0; left > 0; i++)
        if (r->choices[i].sequence != NULL) {
            left--;
            end_choice(g, &r->choices[i], &e);
        }
}

int trm_generator_count(const trm_generator *g)
{
    return g->count;
}

bool trm_generator_is_busy(const trm_generator *g)
{
    return g->count > 0 || g->steps_under_way > 0;
}

/* ---- results ---- */

static void give(struct choice *c, const trm_sampled *token, bool prompt, int position,
                 const char *text, size_t bytes)
{
    trm_generation_options *o = &c->request->options;
    const trm_generated t = {.choice = c->number,
                             .prompt = prompt,
                             .position = position,
                             .token = token,
                             .text = text,
                             .bytes = bytes};

    if (o->token != NULL)
        o->token(o->ctx, &t);
}

/* Text of a token, through the stop strings. The choice may be over then. */
static trm_status text_of(struct choice *c, const trm_sampled *token, const char **text,
                          size_t *bytes, bool *stopped, int *which)
{
    *text = "";
    *bytes = 0;
    *stopped = false;
    if (c->text == NULL || c->sequence->finish == TRM_FINISH_END)
        return TRM_OK; /* an end token is no text */
    TRM_CHECK(trm_detokenizer_push(c->text, token->id, text, bytes));
    if (c->stopper == NULL ||
        c->sequence->count - c->sequence->prompt_count < c->sampling.min_tokens)
        return TRM_OK; /* before min_tokens nothing stops */
    return trm_stopper_push(c->stopper, *text, *bytes, c->request->options.include_stop, text,
                            bytes, stopped, which);
}

/* What was held back, at an end that is no stop string. */
static void flush(struct choice *c, int position)
{
    const char *text = "";
    size_t bytes = 0;
    bool stopped = false;
    int which;

    if (c->text == NULL)
        return;
    if (trm_detokenizer_finish(c->text, &text, &bytes) == TRM_OK && c->stopper != NULL &&
        bytes > 0 &&
        trm_stopper_push(c->stopper, text, bytes, c->request->options.include_stop, &text, &bytes,
                         &stopped, &which) != TRM_OK)
        bytes = 0;
    if (bytes > 0)
        give(c, NULL, false, position, text, bytes);
    if (c->stopper == NULL || stopped)
        return;
    trm_stopper_finish(c->stopper, &text, &bytes);
    if (bytes > 0)
        give(c, NULL, false, position, text, bytes);
}

static void took(void *ctx, trm_sequence *q, const trm_sampled *result, bool prompt, int position)
{
    trm_generator *g = ctx;
    struct choice *c = q->owner;
    trm_generation_end e = {.status = TRM_OK};
    const char *text = "";
    size_t bytes = 0;
    bool stopped = false;
    int which = 0;

    if (prompt) {
        give(c, result, true, position, "", 0);
        return;
    }
    if (q->finish != TRM_FINISH_FAILED) {
        e.status = text_of(c, result, &text, &bytes, &stopped, &which);
        if (e.status == TRM_OK)
            give(c, result, false, position, text, bytes);
    } else {
        e.status = result->id == TRM_SAMPLED_CONSTRAINED
                       ? trm_fail(TRM_ERR_UNSUPPORTED,
                                  "the answer's format leaves the model no token to go on with")
                       : trm_fail(TRM_ERR_INTERNAL, "the model's logits are not finite");
    }
    if (e.status != TRM_OK) {
        q->finish = TRM_FINISH_FAILED;
        e.message = trm_message();
    } else if (stopped) {
        q->finish = TRM_FINISH_STOP;
        e.stopped = c->request->stops[which];
    }
    if (q->finish == TRM_FINISH_NONE)
        return;
    if (!stopped && e.status == TRM_OK)
        flush(c, position);
    e.finish = q->finish;
    end_choice(g, c, &e);
}

struct losing {
    trm_generator *g;
    trm_status status;
    char message[512];
};

static void lost(void *ctx, trm_sequence *q)
{
    struct losing *l = ctx;
    struct choice *c = q->owner;
    trm_generation_end e = {
        .finish = TRM_FINISH_FAILED, .status = l->status, .message = l->message};

    end_choice(l->g, c, &e);
}

/* An encoder's sequences are over when their step is. */
static void take_rows(trm_generator *g, int flight, const trm_lm_results *res)
{
    for (int i = 0; i < g->options.limits.batch; i++) {
        trm_sequence *q = trm_scheduler_part(g->scheduler, flight, i);
        trm_generation_end e = {.finish = TRM_FINISH_END,
                                .status = TRM_OK,
                                .row = res->rows + (size_t)i * (size_t)res->width,
                                .width = res->width};

        if (q != NULL)
            end_choice(g, q->owner, &e);
    }
}

/* A step's own failure is its requests'. */
static void fail_flight(trm_generator *g, int flight, trm_status st)
{
    struct losing l = {.g = g, .status = st};

    snprintf(l.message, sizeof(l.message), "%s", trm_message());
    trm_scheduler_failed(g->scheduler, flight, lost, &l);
    (void)trm_fail(st, "%s", l.message);
}

/* Those whose first step this is. */
static void note_begins(trm_generator *g, int flight)
{
    int64_t now = trm_now_us();

    for (int i = 0; i < g->step.part_count; i++) {
        struct choice *c = trm_scheduler_part(g->scheduler, flight, i)->owner;

        if (c->begun_us == 0)
            c->begun_us = now;
    }
}

static trm_status submit_all(trm_generator *g)
{
    int flights = g->options.limits.flights, flight;

    while (g->steps_under_way < flights && trm_scheduler_next(g->scheduler, &g->step, &flight)) {
        trm_status st;

        note_begins(g, flight);
        st = trm_lm_replica_submit(g->options.replica, &g->step);
        g->stats.rows_used += g->step.token_count;
        g->stats.rows_run += g->step.token_rows;
        if (st != TRM_OK) {
            fail_flight(g, flight, st);
            return st == TRM_ERR_COMM ? st : TRM_OK;
        }
        g->flights[(g->flight_first + g->steps_under_way) % flights] = flight;
        g->steps_under_way++;
    }
    return TRM_OK;
}

/* How long the step took. One that was begun behind another has only run since that one's end. */
static double step_us(trm_generator *g, double since_submit_us)
{
    int64_t now = trm_now_us(), before = g->ended_us;
    double since_us = (double)(now - before);

    g->ended_us = now;
    return g->options.limits.lookahead && before > 0 && since_us < since_submit_us
               ? since_us
               : since_submit_us;
}

static trm_status collect_one(trm_generator *g)
{
    int flight = g->flights[g->flight_first];
    trm_lm_results res;
    trm_status st = trm_lm_replica_collect(g->options.replica, &res);
    double us = step_us(g, st == TRM_OK ? res.us : 0);

    g->flight_first = (g->flight_first + 1) % g->options.limits.flights;
    g->steps_under_way--;
    if (st != TRM_OK) {
        fail_flight(g, flight, st);
        return st == TRM_ERR_COMM ? st : TRM_OK; /* a step's own failure is its requests' */
    }
    g->stats.step_us += us;
    if (g->options.limits.encoder) {
        take_rows(g, flight, &res);
        trm_scheduler_done(g->scheduler, flight, NULL, us, took, g);
    } else {
        trm_scheduler_done(g->scheduler, flight, res.picks, us, took, g);
    }
    return TRM_OK;
}

static void fail_all(trm_generator *g, trm_status st)
{
    char said[512];
    trm_generation_end e = {.finish = TRM_FINISH_FAILED, .status = st, .message = said};

    snprintf(said, sizeof(said), "%s", trm_message());
    while (g->first != NULL) {
        trm_generation *r = g->first;
        int left = r->left;

        for (int i = 0; left > 0; i++)
            if (r->choices[i].sequence != NULL) {
                left--;
                end_choice(g, &r->choices[i], &e);
            }
    }
    (void)trm_fail(st, "%s", said);
}

trm_status trm_generator_step(trm_generator *g)
{
    int count = g->count;
    trm_status st = submit_all(g);

    if (st == TRM_OK && g->steps_under_way > 0) {
        st = collect_one(g);
        while (st == TRM_OK && g->count == 0 && g->steps_under_way > 0)
            st = collect_one(g); /* nobody waits for it: the next may be long in coming */
    } else if (st == TRM_OK && count > 0 && g->count == count)
        st = trm_fail(TRM_ERR_INTERNAL, "%d requests wait and nothing can run", count);
    if (st != TRM_OK)
        fail_all(g, st);
    return st;
}

trm_status trm_generator_settle(trm_generator *g)
{
    trm_status st = TRM_OK;

    while (st == TRM_OK && g->steps_under_way > 0)
        st = collect_one(g);
    if (st != TRM_OK)
        fail_all(g, st);
    return st;
}

/* ---- warming ---- */

bool trm_generator_warms(const trm_generator *g)
{
    return g->warmed < g->options.limits.batch;
}

trm_status trm_generator_warm(trm_generator *g)
{
    trm_lm_results res;

    if (!trm_generator_warms(g) || g->steps_under_way > 0)
        return TRM_OK;
    trm_lm_step_clear(&g->step);
    g->step.token_rows = g->step.pick_rows = trm_lm_grid(g->warmed + 1);
    g->warmed = g->step.token_rows;
    /* the second run is captured; where stages follow, whose inputs lie in two places in turn, the
     * third is, too */
    for (int i = trm_lm_replica_looks_ahead(g->options.replica) ? 1 : 0; i < 3; i++) {
        trm_status st = trm_lm_replica_submit(g->options.replica, &g->step);

        if (st == TRM_OK)
            st = trm_lm_replica_collect(g->options.replica, &res);
        if (st == TRM_OK)
            continue;
        TRM_LOG(TRM_LOG_INFO, "language", "steps of %d sequences are not warmed: %s",
                g->step.token_rows, trm_message());
        g->warmed = g->options.limits.batch;
        return st == TRM_ERR_COMM ? st : TRM_OK;
    }
    return TRM_OK;
}

trm_status trm_generator_run(trm_generator *g)
{
    while (g->count > 0)
        TRM_CHECK(trm_generator_step(g));
    return TRM_OK;
}

/* ---- odds and ends ---- */

void trm_generator_defaults(const trm_language *l, trm_sampling *s)
{
    const trm_lm_config *c = &l->config;

    trm_sampling_init(s);
    if (c->default_temperature >= 0)
        s->temperature = c->default_temperature;
    if (c->default_top_p > 0)
        s->top_p = c->default_top_p;
    if (c->default_top_k > 0)
        s->top_k = c->default_top_k;
    if (c->default_repetition_penalty > 0)
        s->repetition_penalty = c->default_repetition_penalty;
    for (int i = 0; i < c->eos_count && s->end_count < TRM_SAMPLING_END_MAX; i++)
        s->end[s->end_count++] = c->eos[i];
}

uint64_t trm_random_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)time(NULL);
    return seed;
}

const char *trm_finish_name(trm_finish finish)
{
    switch (finish) {
    case TRM_FINISH_END:
    case TRM_FINISH_STOP:
        return "stop";
    case TRM_FINISH_LENGTH:
        return "length";
    case TRM_FINISH_CANCELLED:
        return "cancelled";
    case TRM_FINISH_FAILED:
        return "error";
    case TRM_FINISH_NONE:
        break;
    }
    return "";
}

void trm_generator_get_stats(const trm_generator *g, trm_generator_stats *out)
{
    *out = g->stats;
    trm_scheduler_get_stats(g->scheduler, &out->scheduler);
}
