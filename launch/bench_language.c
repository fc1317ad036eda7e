/* trireme bench with a language model: prompts of random tokens, all at once, greedy, no early end.
 * A round's figures: prefill from the start to the last first token, decode from there to the last
 * token. */
#define _GNU_SOURCE
#include "launch/bench_language.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct stream {
    struct timing *t;
    double last_ms;
    int tokens;
};

struct timing {
    double begin_ms, prefilled_ms, end_ms;
    double *first; /* [requests] of this round: time to the first token */
    double *gaps;  /* between tokens */
    int first_count, gap_count, gap_max;
    trm_status st;
    char message[256];
};

struct series {
    double *v;
    int count, max;
};

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void on_token(void *ctx, const trm_generated *g)
{
    struct stream *s = ctx;
    struct timing *t = s->t;
    double now = now_ms();

    if (g->token == NULL)
        return;
    if (s->tokens++ == 0) {
        t->first[t->first_count++] = now - t->begin_ms;
        t->prefilled_ms = now;
    } else if (t->gap_count < t->gap_max) {
        t->gaps[t->gap_count++] = now - s->last_ms;
    }
    s->last_ms = now;
    t->end_ms = now;
}

static void on_end(void *ctx, const trm_generation_end *e)
{
    struct timing *t = ((struct stream *)ctx)->t;

    t->end_ms = now_ms();
    if (e->row != NULL)
        t->prefilled_ms = t->end_ms;
    if (e->status != TRM_OK && t->st == TRM_OK) {
        t->st = e->status;
        snprintf(t->message, sizeof(t->message), "%s", e->message != NULL ? e->message : "");
    }
}

/* Tokens that repeat in no other prompt: splitmix64 over the vocabulary's plain part. */
static void random_prompt(int32_t *ids, int64_t count, int64_t vocabulary, uint64_t *state)
{
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = (*state += 0x9e3779b97f4a7c15u);

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        ids[i] = (int32_t)((z ^ z >> 31) % (uint64_t)vocabulary);
    }
}

static trm_status round_of(trm_lm_model *m, const trm_bench_language *o, uint64_t *state,
                           int32_t *ids, struct stream *streams, struct timing *t)
{
    trm_sampling sampling;
    trm_generation *r;

    trm_sampling_init(&sampling);
    sampling.max_tokens = (int32_t)o->new_tokens;
    memset(streams, 0, (size_t)o->batch * sizeof(*streams));
    t->first_count = t->gap_count = 0;
    t->st = TRM_OK;
    t->begin_ms = now_ms();
    for (int64_t i = 0; i < o->batch; i++) {
        trm_generation_options go = {.prompt = ids,
                                     .prompt_count = (size_t)o->prompt_tokens,
                                     .sampling = &sampling,
                                     .choices = 1,
                                     .ctx = &streams[i],
                                     .token = on_token,
                                     .end = on_end};

        streams[i].t = t;
        random_prompt(ids, o->prompt_tokens, m->language->config.vocabulary, state);
        TRM_CHECK(trm_generator_add(m->generator, &go, &r));
    }
    TRM_CHECK(trm_generator_run(m->generator));
    return t->st == TRM_OK ? TRM_OK : trm_fail(t->st, "%s", t->message);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(double *v, int count, double p)
{
    if (count == 0)
        return NAN;
    qsort(v, (size_t)count, sizeof(*v), compare);
    return v[(int)(p * (count - 1) + 0.5)];
}

static void push(struct series *s, double v)
{
    if (s->count < s->max)
        s->v[s->count++] = v;
}

static void print_series(const char *name, const char *unit, struct series *s, bool json,
                         bool comma)
{
    if (s->count == 0)
        return;
    if (json)
        printf("%s\"%s\":{\"unit\":\"%s\",\"count\":%d,\"min\":%.6g,\"p50\":%.6g,\"p90\":%.6g,"
               "\"p99\":%.6g,\"max\":%.6g}",
               comma ? "," : "", name, unit, s->count, percentile(s->v, s->count, 0),
               percentile(s->v, s->count, 0.5), percentile(s->v, s->count, 0.9),
               percentile(s->v, s->count, 0.99), percentile(s->v, s->count, 1));
    else
        printf("%-22s %10.2f %10.2f %10.2f %10.2f %10.2f  %s\n", name,
               percentile(s->v, s->count, 0), percentile(s->v, s->count, 0.5),
               percentile(s->v, s->count, 0.9), percentile(s->v, s->count, 0.99),
               percentile(s->v, s->count, 1), unit);
}

struct found {
    struct series prefill, decode, first, gap, sequences;
    double load_ms;
};

static void report(const trm_bench_language *o, const trm_lm_model *m, struct found *f)
{
    trm_generator_stats stats;
    trm_device_info info;
    char text[80];

    trm_generator_get_stats(m->generator, &stats);
    o->ranks->device->ops->info(o->ranks->device, &info);
    trm_parallel_text(&m->layout.parallel, text, sizeof(text));
    if (o->json) {
        printf("{\"model\":\"%s\",\"device\":\"%s\",\"layout\":\"%s\",\"kv_dtype\":\"%s\","
               "\"threads\":%d,\"batch\":%" PRId64 ",\"prompt_tokens\":%" PRId64
               ",\"new_tokens\":%" PRId64 ",\"rounds\":%" PRId64
               ",\"load_ms\":%.1f,\"preemptions\":%" PRIu64 ",\"rows_used\":%.0f,\"rows_run\":%.0f",
               o->path, info.name, text, trm_dtype_name(m->kv_dtype), o->ranks->threads, o->batch,
               o->prompt_tokens, o->new_tokens, o->rounds, f->load_ms, stats.scheduler.preemptions,
               stats.rows_used, stats.rows_run);
    } else {
        printf("model     %s\n", o->path);
        printf("device    %s; cache in %s\n", info.name, trm_dtype_name(m->kv_dtype));
        printf("layout    %s\n", text);
        printf("load      %.1f ms\n", f->load_ms);
        printf("%" PRId64 " sequences of %" PRId64 " + %" PRId64 " tokens, %" PRId64 " rounds\n\n",
               o->batch, o->prompt_tokens, o->new_tokens, o->rounds);
        printf("%-22s %10s %10s %10s %10s %10s\n", "", "min", "p50", "p90", "p99", "max");
    }
    print_series("prefill", "tokens/s", &f->prefill, o->json, true);
    print_series("decode", "tokens/s", &f->decode, o->json, true);
    print_series("sequences", "1/s", &f->sequences, o->json, true);
    print_series("time_to_first_token", "ms", &f->first, o->json, true);
    print_series("inter_token", "ms", &f->gap, o->json, true);
    printf("%s", o->json ? "}\n" : "");
}

static trm_status measure(const trm_bench_language *o, trm_lm_model *m, struct found *f,
                          struct timing *t, int32_t *ids, struct stream *streams)
{
    uint64_t state = (uint64_t)o->seed;

    if (!m->language->encoder && o->prompt_tokens + o->new_tokens > m->limits.context)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--prompt-tokens %" PRId64 " and --new-tokens %" PRId64
                        ": the context is %d",
                        o->prompt_tokens, o->new_tokens, m->limits.context);
    for (int64_t i = -o->warmup; i < o->rounds; i++) {
        TRM_CHECK(round_of(m, o, &state, ids, streams, t));
        if (i < 0)
            continue;
        push(&f->prefill,
             (double)(o->batch * o->prompt_tokens) / (t->prefilled_ms - t->begin_ms) * 1e3);
        if (t->gap_count > 0 && t->end_ms > t->prefilled_ms)
            push(&f->decode, (double)t->gap_count / (t->end_ms - t->prefilled_ms) * 1e3);
        push(&f->sequences, (double)o->batch / (t->end_ms - t->begin_ms) * 1e3);
        for (int k = 0; k < t->first_count; k++)
            push(&f->first, t->first[k]);
        for (int k = 0; k < t->gap_count; k++)
            push(&f->gap, t->gaps[k]);
    }
    return TRM_OK;
}

static trm_status lead(const trm_bench_language *o, double load_ms)
{
    trm_lm_model *m = o->ranks->lm;
    size_t tokens = (size_t)(o->batch * o->new_tokens), rounds = (size_t)o->rounds;
    struct found f = {.load_ms = load_ms};
    struct timing t = {.gap_max = (int)tokens};
    int32_t *ids = trm_malloc((size_t)o->prompt_tokens + 1, sizeof(*ids));
    struct stream *streams = trm_calloc((size_t)o->batch, sizeof(*streams));
    struct series *all[] = {&f.prefill, &f.decode, &f.sequences, &f.first, &f.gap};
    const size_t most[] = {rounds, rounds, rounds, rounds * (size_t)o->batch, rounds * tokens};
    trm_status st = TRM_OK;

    t.first = trm_calloc((size_t)o->batch, sizeof(double));
    t.gaps = trm_calloc(tokens + 1, sizeof(double));
    for (int i = 0; i < 5; i++) {
        all[i]->max = (int)most[i];
        all[i]->v = trm_calloc(most[i] + 1, sizeof(double));
        if (all[i]->v == NULL)
            st = TRM_ERR_NO_MEMORY;
    }
    if (ids == NULL || streams == NULL || t.first == NULL || t.gaps == NULL || st != TRM_OK)
        st = trm_fail(TRM_ERR_NO_MEMORY, "bench");
    if (st == TRM_OK)
        st = measure(o, m, &f, &t, ids, streams);
    if (st == TRM_OK)
        report(o, m, &f);
    if (st == TRM_OK && o->profile)
        trm_engine_profile(trm_lm_replica_engine(m->replica), stderr);
    for (int i = 0; i < 5; i++)
        trm_free(all[i]->v);
    trm_free(t.first);
    trm_free(t.gaps);
    trm_free(ids);
    trm_free(streams);
    return st;
}

trm_status trm_bench_language_on_ranks(const trm_bench_language *o)
{
    trm_lm_options options = {0};
    double start = now_ms();
    trm_status st = trm_ranks_device(o->ranks, o->common, true);

    if (st == TRM_OK)
        st = trm_ranks_options(o->ranks, o->common, o->parallel, (trm_parallel){1, 0, 0},
                               TRM_OBJECTIVE_LATENCY, &options.layout);
    if (st == TRM_OK && options.layout.parallel.data > 1)
        st = trm_fail(TRM_ERR_INVALID_ARG, "--parallel data=%d: bench times one replica",
                      options.layout.parallel.data);
    options.layout.parallel.data = 1;
    options.layout.profile = o->profile;
    if (st == TRM_OK)
        st = trm_lm_cli_model(o->cli, o->common, &options);
    options.tokenizer = false;
    if (options.batch == 0)
        options.batch = (int)o->batch;
    TRM_CHECK(trm_ranks_open_language(o->ranks, o->path, st, &options));
    if (!trm_ranks_lead(o->ranks, &st))
        return st;
    return lead(o, now_ms() - start);
}
