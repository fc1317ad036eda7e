/* trireme run MODEL --prompt: one text continued, streamed to the terminal. */
#define _GNU_SOURCE
#include "base/file.h"
#include "launch/lm_options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct streaming {
    const trm_language *l;
    bool logprobs, broken, begun; /* begun: text has been printed */
    trm_status st;
    char message[512];
    double begin_ms, first_ms, last_ms;
    int prompt_tokens, new_tokens;
    char *table; /* log-probabilities, printed behind the text */
    size_t table_bytes;
    FILE *rows;
};

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* A token's text on one line. */
static void put_piece(FILE *f, const trm_language *l, int32_t id)
{
    char buf[256];
    size_t n =
        l->tokenizer == NULL ? 0 : trm_tokenizer_token_bytes(l->tokenizer, id, buf, sizeof(buf));

    fputc('"', f);
    for (size_t i = 0; i < n && i < sizeof(buf); i++) {
        unsigned char c = (unsigned char)buf[i];

        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
            fprintf(f, "\\x%02x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

static void put_row(struct streaming *s, const trm_sampled *t)
{
    fprintf(s->rows, "%7" PRId32 "  %10.6f  ", t->id, (double)t->logprob);
    put_piece(s->rows, s->l, t->id);
    for (int i = 0; i < t->top_count; i++) {
        fprintf(s->rows, "%s%.6f ", i == 0 ? "   of " : ", ", (double)t->top_logprobs[i]);
        put_piece(s->rows, s->l, t->top_ids[i]);
    }
    fputc('\n', s->rows);
}

static void on_token(void *ctx, const trm_generated *t)
{
    struct streaming *s = ctx;

    s->last_ms = now_ms();
    if (s->first_ms == 0)
        s->first_ms = s->last_ms;
    s->begun = s->begun || t->bytes > 0;
    if (t->bytes > 0 && (fwrite(t->text, 1, t->bytes, stdout) != t->bytes || fflush(stdout) != 0))
        s->broken = true;
    if (s->rows != NULL && t->token != NULL)
        put_row(s, t->token);
}

static void put_embedding(const trm_generation_end *e)
{
    printf("[");
    for (int64_t i = 0; i < e->width; i++)
        printf("%s%.9g", i > 0 ? ", " : "", (double)e->row[i]);
    printf("]");
}

static void on_end(void *ctx, const trm_generation_end *e)
{
    struct streaming *s = ctx;

    s->st = e->status;
    snprintf(s->message, sizeof(s->message), "%s", e->message != NULL ? e->message : "");
    s->prompt_tokens = e->prompt_tokens;
    s->new_tokens = e->new_tokens;
    if (e->row != NULL)
        put_embedding(e);
}

static void print_speed(const struct streaming *s)
{
    double prefill = s->first_ms - s->begin_ms, decode = s->last_ms - s->first_ms;

    if (s->new_tokens == 0)
        return;
    fprintf(stderr, "%d prompt tokens in %.1f ms (%.1f tokens/s)", s->prompt_tokens, prefill,
            prefill > 0 ? s->prompt_tokens / prefill * 1e3 : 0);
    if (s->new_tokens > 1 && decode > 0)
        fprintf(stderr, ", %d new in %.1f ms (%.1f tokens/s)", s->new_tokens, decode,
                (s->new_tokens - 1) / decode * 1e3);
    fprintf(stderr, "\n");
}

static trm_status read_prompt(const trm_run_language *o, trm_file **file_out, const char **text,
                              size_t *bytes)
{
    *text = o->prompt;
    *bytes = o->prompt != NULL ? strlen(o->prompt) : 0;
    if (o->prompt_file == NULL)
        return TRM_OK;
    TRM_CHECK(trm_file_open(o->prompt_file, file_out));
    *text = (const char *)trm_file_data(*file_out);
    *bytes = trm_file_bytes(*file_out);
    return TRM_OK;
}

static trm_status generate(const trm_run_language *o, const char *text, size_t bytes)
{
    trm_lm_model *m = o->ranks->lm;
    trm_lm_request_defaults d;
    struct streaming s = {.l = m->language};
    trm_generation_options go = {.choices = 1, .ctx = &s, .token = on_token, .end = on_end};
    trm_generation *r;
    int32_t *ids = NULL;
    trm_status st;

    TRM_CHECK(trm_lm_cli_defaults(o->cli, m->language, &d));
    if (m->language->tokenizer == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s has no tokenizer: --prompt wants one", o->path);
    TRM_CHECK(trm_tokenizer_encode(m->language->tokenizer, text, bytes,
                                   o->raw ? 0 : TRM_ENCODE_SPECIAL, &ids, &go.prompt_count));
    go.prompt = ids;
    go.sampling = &d.sampling;
    go.stops = o->cli->stop.items;
    go.stop_count = (size_t)o->cli->stop.count;
    if (o->cli->logprobs >= 0)
        s.rows = open_memstream(&s.table, &s.table_bytes);
    s.begin_ms = now_ms();
    st = trm_generator_add(m->generator, &go, &r);
    while (st == TRM_OK && trm_generator_count(m->generator) > 0 && !s.broken)
        st = trm_generator_step(m->generator);
    trm_free(ids);
    if (s.rows != NULL && fclose(s.rows) != 0)
        s.broken = true;
    if (st == TRM_OK && s.st != TRM_OK)
        st = trm_fail(s.st, "%s", s.message);
    if (st != TRM_OK && s.begun) { /* what went wrong is said on a line of its own */
        printf("\n");
        (void)fflush(stdout);
    } else if (st == TRM_OK) {
        printf("\n%s", s.table != NULL ? s.table : "");
        if (fflush(stdout) != 0 || s.broken)
            st = trm_fail(TRM_ERR_IO, "standard output cannot be written");
        print_speed(&s);
    }
    free(s.table);
    return st;
}

static trm_status lead(const trm_run_language *o)
{
    trm_file *file = NULL;
    const char *text;
    size_t bytes;
    trm_status st = read_prompt(o, &file, &text, &bytes);

    if (st == TRM_OK)
        st = generate(o, text, bytes);
    trm_file_unref(file);
    if (st == TRM_OK && o->profile)
        trm_engine_profile(trm_lm_replica_engine(o->ranks->lm->replica), stderr);
    return st;
}

trm_status trm_run_language_on_ranks(const trm_run_language *o)
{
    trm_lm_options options = {0};
    trm_status st = trm_ranks_device(o->ranks, o->common, true);

    if (st == TRM_OK)
        st = trm_ranks_options(o->ranks, o->common, o->parallel, (trm_parallel){1, 0, 0},
                               TRM_OBJECTIVE_LATENCY, &options.layout);
    o->ranks->one_works = true;
    options.layout.profile = o->profile;
    if (st == TRM_OK)
        st = trm_lm_cli_model(o->cli, o->common, &options);
    TRM_CHECK(trm_ranks_open_language(o->ranks, o->path, st, &options));
    if (!trm_ranks_lead(o->ranks, &st))
        return st;
    return o->ranks->job.rank == 0 ? lead(o) : TRM_OK;
}
