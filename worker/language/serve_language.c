/* See serve_language.h. Callbacks of the generator only note what has come; answers and parts leave
 * when its step is over, for those requests that the step has touched. */
#include "worker/language/serve_impl.h"

#include "worker/language/json_out.h"
#include "worker/language/run.h"
#include "worker/language/stream.h"

#include "base/memory.h"
#include "base/wait.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEQUENCES_MAX 1024 /* of one request: prompts x n */
#define WARM_GAP_US 20000  /* requests and other models of the replica come first */

struct serve;

/* A request that has not been answered. */
struct job {
    trmi_lm_run run; /* first: callbacks get it */
    struct serve *s;
    struct job *prev, *next;
    struct job *touched_next;
    bool touched, failed;  /* in the list; an answer of it failed */
    trm_lm_stream *stream; /* NULL: the answer comes as a whole */
    uint64_t id;
    const char *tag; /* in the request's frame */
    int64_t created, arrived_us, first_us;
};

struct serve {
    trm_serve_model base; /* first */
    trm_serve_language_options options;
    char *name;
    int queue, count;
    struct job *first;
    struct job *touched, **touched_end;
    int64_t warm_us; /* not before then */
    trmi_out text;   /* the body of an answer */
};

static struct serve *of(trm_serve_model *m)
{
    return (struct serve *)m;
}

static const struct serve *of_const(const trm_serve_model *m)
{
    return (const struct serve *)m;
}

/* ---- jobs ---- */

static void touch(struct job *j)
{
    if (j->touched)
        return;
    j->touched = true;
    j->touched_next = NULL;
    *j->s->touched_end = j;
    j->s->touched_end = &j->touched_next;
}

static void untouch(struct job *j)
{
    struct job **at = &j->s->touched;

    if (!j->touched)
        return;
    while (*at != j)
        at = &(*at)->touched_next;
    *at = j->touched_next;
    if (j->s->touched_end == &j->touched_next)
        j->s->touched_end = at;
    j->touched = false;
}

static struct job *make_job(struct serve *s, const trm_wire_request *r, int64_t arrived_us)
{
    struct job *j = trm_calloc(1, sizeof(*j));

    if (j == NULL)
        return NULL;
    j->s = s;
    j->id = r->id;
    j->tag = r->tag;
    j->created = r->created;
    j->arrived_us = arrived_us;
    j->next = s->first;
    if (s->first != NULL)
        s->first->prev = j;
    s->first = j;
    s->count++;
    return j;
}

/* Ends what of it is under way, which frees its pages. */
static void free_job(struct job *j)
{
    struct serve *s = j->s;

    j->run.token = NULL;
    j->run.end = NULL;
    if (j->run.answers != NULL)
        trmi_lm_run_cancel(&j->run);
    untouch(j);
    if (j->prev != NULL)
        j->prev->next = j->next;
    else
        s->first = j->next;
    if (j->next != NULL)
        j->next->prev = j->prev;
    s->count--;
    trm_lm_stream_destroy(j->stream);
    trmi_lm_run_fini(&j->run);
    trm_free(j);
}

/* ---- answers ---- */

/* One line, whatever has gone into it. */
static void flatten(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

static void refuse(struct serve *s, uint64_t id, trm_status st, const char *message)
{
    char line[512];
    trm_wire_answer a = {
        .id = id, .status = st, .message = line, .model = s->name, .version = s->options.version};

    snprintf(line, sizeof(line), "%s", message);
    flatten(line);
    s->base.out.answer(s->base.out.ctx, &a);
}

static void set_times(const struct job *j, trm_wire_answer *a)
{
    int64_t begun = 0, now = trm_now_us();
    const trm_lm_request *r = j->run.request;

    for (int i = 0; i < r->prompt_count * r->choices; i++) {
        const trm_lm_answer *one = &j->run.answers[i];
        bool first = i % r->choices == 0;

        if (one->begun_us > 0 && (begun == 0 || one->begun_us < begun))
            begun = one->begun_us;
        a->prompt_tokens += first ? (uint32_t)one->prompt_tokens : 0;
        a->cached_tokens += first ? (uint32_t)one->cached_tokens : 0;
        a->new_tokens += r->only_prompt ? 0 : (uint32_t)one->new_tokens;
    }
    if (begun > j->arrived_us)
        a->queue_us = (uint64_t)(begun - j->arrived_us);
    if (j->first_us > j->arrived_us)
        a->first_us = (uint64_t)(j->first_us - j->arrived_us);
    if (begun > 0)
        a->run_us = (uint64_t)(now - begun);
}

/* Answers with a failure; the job is gone. */
static void fail_job(struct job *j, trm_status st, const char *message)
{
    char text[512];

    snprintf(text, sizeof(text), "%s", message); /* it may be of what is freed */
    refuse(j->s, j->id, st, text);
    free_job(j);
}

static void send_body(struct serve *s, uint64_t id, const json_t *body, trm_wire_answer *a)
{
    s->text.bytes = 0;
    s->text.failed = false;
    if (body != NULL)
        trmi_out_json(&s->text, body);
    if (body == NULL || s->text.failed) {
        refuse(s, id, TRM_ERR_NO_MEMORY, "no memory for an answer");
        return;
    }
    a->body = s->text.data;
    a->body_bytes = s->text.bytes;
    s->base.out.answer(s->base.out.ctx, a);
}

static void complete_job(struct job *j)
{
    struct serve *s = j->s;
    trm_wire_answer a = {.id = j->id,
                         .status = TRM_OK,
                         .message = "",
                         .model = s->name,
                         .version = s->options.version};
    json_t *body;

    set_times(j, &a);
    if (j->stream != NULL) {
        s->base.out.answer(s->base.out.ctx, &a);
    } else {
        body = trm_lm_response(j->run.request, j->run.language, j->run.answers, j->tag, j->created,
                               true);
        send_body(s, j->id, body, &a);
        json_decref(body);
    }
    free_job(j);
}

static trm_status send_lines(struct job *j)
{
    trm_wire_part part = {.id = j->id};
    const char *lines = NULL;

    TRM_CHECK(trm_lm_stream_take(j->stream, &lines, &part.body_bytes, &part.new_tokens));
    part.body = lines;
    if (part.body_bytes > 0)
        j->s->base.out.part(j->s->base.out.ctx, &part);
    return TRM_OK;
}

static void settle(struct job *j)
{
    const trm_lm_answer *failure = NULL;
    char text[512];
    trm_status st;

    if (j->failed || j->run.left == 0)
        failure = trmi_lm_run_failure(&j->run);
    if (failure != NULL) {
        st = trmi_lm_failure_text(failure, text, sizeof(text));
        fail_job(j, st, text);
        return;
    }
    if (j->stream != NULL && (st = send_lines(j)) != TRM_OK) {
        fail_job(j, st, trm_message());
        return;
    }
    if (j->run.left == 0)
        complete_job(j);
}

/* ---- callbacks of the generator ---- */

static void on_token(trmi_lm_run *run, int answer, const trm_generated *t)
{
    struct job *j = (struct job *)run;

    if (j->first_us == 0 && !t->prompt)
        j->first_us = trm_now_us();
    if (j->stream == NULL) {
        trm_lm_answer_token(&run->answers[answer], run->request, run->language, t);
        return;
    }
    trm_lm_stream_token(j->stream, answer, t);
    touch(j);
}

static void on_end(trmi_lm_run *run, int answer, const trm_generation_end *e)
{
    struct job *j = (struct job *)run;

    if (j->stream != NULL)
        trm_lm_stream_end(j->stream, answer, e);
    j->failed = j->failed || e->status != TRM_OK;
    touch(j);
}

/* ---- requests ---- */

static trm_status parse(const trm_wire_request *r, json_t **body_out)
{
    json_error_t error;

    if (r->body_bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "the request has no body");
    *body_out = json_loadb(r->body, r->body_bytes, JSON_REJECT_DUPLICATES, &error);
    if (*body_out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON: %s at byte %d",
                        json_error_code(&error) == json_error_null_character
                            ? "a zero character (\\u0000) is not taken"
                            : error.text,
                        error.position);
    return TRM_OK;
}

static trm_lm_request_defaults defaults_of(const struct serve *s, const trm_wire_request *r)
{
    trm_lm_request_defaults d = s->options.defaults;

    d.seed = r->seed;
    d.now = r->created;
    d.name = s->name;
    d.tool_format = s->options.tool_format != NULL ? s->options.tool_format : "auto";
    return d;
}

static trm_status bound(const trm_lm_request *r)
{
    int64_t sequences = (int64_t)r->prompt_count * r->choices;

    if (r->endpoint != TRM_LM_EMBEDDINGS && sequences > SEQUENCES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%d prompts with 'n' %d are %" PRId64 " answers: want at most %d",
                        r->prompt_count, r->choices, sequences, SEQUENCES_MAX);
    return TRM_OK;
}

static trm_status start(struct job *j, const trm_wire_request *r, const json_t *body)
{
    static const trm_lm_endpoint endpoints[] = {[TRM_REQUEST_COMPLETIONS] = TRM_LM_COMPLETIONS,
                                                [TRM_REQUEST_CHAT] = TRM_LM_CHAT,
                                                [TRM_REQUEST_EMBEDDINGS] = TRM_LM_EMBEDDINGS};
    struct serve *s = j->s;
    const trm_lm_request_defaults d = defaults_of(s, r);
    trm_lm_request *q;

    j->run.language = s->options.model->language;
    j->run.generator = s->options.model->generator;
    j->run.token = on_token;
    j->run.end = on_end;
    TRM_CHECK(trm_lm_request_read(j->run.language, endpoints[r->kind], body, &d, &q));
    j->run.request = q;
    q->priority = r->priority;
    trm_free(q->model); /* answers say which model it was, not how it was called */
    q->model = trm_strdup(s->name);
    if (q->model == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    TRM_CHECK(bound(q));
    if (r->stream)
        TRM_CHECK(trm_lm_stream_create(q, j->run.language, r->tag, r->created, &j->stream));
    return trmi_lm_run_start(&j->run);
}

static void generate(struct serve *s, const trm_wire_request *r, const json_t *body,
                     int64_t arrived_us)
{
    struct job *j;
    trm_status st;

    if (s->count >= s->queue) {
        refuse(s, r->id, TRM_ERR_TIMEOUT, "the model has all the requests that it takes at once");
        return;
    }
    j = make_job(s, r, arrived_us);
    if (j == NULL) {
        refuse(s, r->id, TRM_ERR_NO_MEMORY, "no memory for a request");
        return;
    }
    st = start(j, r, body);
    if (st != TRM_OK)
        fail_job(j, st, trm_message());
}

/* What takes no step. */
static void translate(struct serve *s, const trm_wire_request *r, const json_t *body,
                      int64_t arrived_us)
{
    const trm_language *l = s->options.model->language;
    trm_lm_request_defaults d = defaults_of(s, r);
    trm_wire_answer a = {
        .id = r->id, .message = "", .model = s->name, .version = s->options.version};
    json_t *answer = NULL;
    trm_status st;

    if (r->kind == TRM_REQUEST_TOKENIZE)
        st = trmi_serve_tokenize(l, s->options.model->limits.context, body, &d, &answer);
    else
        st = trmi_serve_detokenize(l, body, &answer);
    if (st != TRM_OK) {
        refuse(s, r->id, st, trm_message());
        return;
    }
    a.run_us = (uint64_t)(trm_now_us() - arrived_us);
    send_body(s, r->id, answer, &a);
    json_decref(answer);
}

static void submit(trm_serve_model *m, const trm_wire_request *r, int64_t arrived_us)
{
    struct serve *s = of(m);
    json_t *body = NULL;

    if (r->kind > TRM_REQUEST_DETOKENIZE) {
        refuse(s, r->id, TRM_ERR_UNSUPPORTED,
               "a language model takes text: completions, chat, embeddings, tokenize, detokenize");
        return;
    }
    if (parse(r, &body) != TRM_OK)
        refuse(s, r->id, TRM_ERR_INVALID_ARG, trm_message());
    else if (r->kind == TRM_REQUEST_TOKENIZE || r->kind == TRM_REQUEST_DETOKENIZE)
        translate(s, r, body, arrived_us);
    else
        generate(s, r, body, arrived_us);
    json_decref(body);
}

static void cancel(trm_serve_model *m, uint64_t id)
{
    struct job *j = of(m)->first;

    while (j != NULL && j->id != id)
        j = j->next;
    if (j != NULL)
        fail_job(j, TRM_ERR_CANCELLED, "cancelled");
}

static int count(const trm_serve_model *m)
{
    return of_const(m)->count;
}

static int64_t due_us(const trm_serve_model *m)
{
    const struct serve *s = of_const(m);
    const trm_generator *g = s->options.model->generator;

    if (s->count > 0 || trm_generator_is_busy(g))
        return 0;
    return trm_generator_warms(g) ? s->warm_us : INT64_MAX;
}

/* What the generator's steps have come to leaves. Where the replica is lost nothing does: other
 * replicas can answer these requests, which the loop says with the loss. */
static trm_status let_out(struct serve *s, trm_status st)
{
    while (s->touched != NULL) {
        struct job *j = s->touched;

        untouch(j);
        if (st != TRM_ERR_COMM)
            settle(j);
    }
    return st == TRM_ERR_COMM ? st : TRM_OK;
}

static trm_status step(trm_serve_model *m)
{
    struct serve *s = of(m);
    trm_generator *g = s->options.model->generator;

    if (s->count > 0 || trm_generator_is_busy(g))
        return let_out(s, trm_generator_step(g));
    TRM_CHECK(trm_generator_warm(g));
    s->warm_us = trm_now_us() + WARM_GAP_US;
    return TRM_OK;
}

static trm_status settle_steps(trm_serve_model *m)
{
    struct serve *s = of(m);

    return let_out(s, trm_generator_settle(s->options.model->generator));
}

static void fail(trm_serve_model *m, trm_status st)
{
    struct serve *s = of(m);
    char said[512];

    snprintf(said, sizeof(said), "%s", trm_message());
    while (s->first != NULL)
        fail_job(s->first, st, said);
}

/* ---- what it is and does ---- */

static void stats(const trm_serve_model *m, trm_wire_model_stats *out)
{
    trmi_serve_stats(of_const(m)->options.model, out);
}

static json_t *metadata(const trm_serve_model *m)
{
    return trmi_serve_metadata(of_const(m)->options.model);
}

static uint32_t credits(const trm_serve_model *m)
{
    return (uint32_t)of_const(m)->queue;
}

static void destroy(trm_serve_model *m)
{
    struct serve *s = of(m);

    while (s->first != NULL)
        free_job(s->first);
    trmi_out_fini(&s->text);
    trm_free(s->name);
    trm_free(s);
}

static const trm_serve_model_ops ops = {.name = "language",
                                        .submit = submit,
                                        .cancel = cancel,
                                        .count = count,
                                        .due_us = due_us,
                                        .step = step,
                                        .settle = settle_steps,
                                        .fail = fail,
                                        .stats = stats,
                                        .metadata = metadata,
                                        .credits = credits,
                                        .destroy = destroy};

trm_status trm_serve_language_create(const trm_serve_language_options *o,
                                     trm_serve_model **model_out)
{
    struct serve *s;
    trm_tool_format format;

    TRM_CHECK(trm_tool_format_of(o->tool_format, o->model->language, &format));
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL || (s->name = trm_strdup(o->name)) == NULL) {
        trm_free(s);
        return trm_fail(TRM_ERR_NO_MEMORY, "a served model");
    }
    s->base = (trm_serve_model){.ops = &ops, .out = o->out};
    s->options = *o;
    s->queue = o->queue > 0 ? o->queue : 2 * o->model->limits.batch + 64;
    s->touched_end = &s->touched;
    *model_out = &s->base;
    return TRM_OK;
}
