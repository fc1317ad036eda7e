/* See stream.h. A chunk is a fixed head, what differs, and a fixed tail, written byte by byte.
 *
 * The order of choices: they take turns, an event (a token, or the end) each; of more than TURNS of
 * them the next begins where one ends. An event that comes before its choice's turn waits in the
 * choice's own buffer. So the order follows from how long the choices are, and from nothing else.
 */
#include "worker/language/stream.h"

#include "worker/language/json_out.h"
#include "worker/language/response_impl.h"

#include "base/memory.h"

#include <string.h>

#define TURNS 16
#define KEPT 4096 /* bytes of events that are out already and not moved over */

/* Stands before each event that waits. */
struct event {
    uint32_t bytes, tokens;
    bool last;
};

struct choice {
    bool begun;     /* its first line is out */
    size_t offset;  /* old form of logprobs: characters so far */
    json_t *prompt; /* echo: log-probabilities of the prompt's tokens */
    trm_tool_parser *calls;
    trmi_out events; /* waiting ones, from `at` on */
    size_t at;
};

struct trm_lm_stream {
    const trm_lm_request *r;
    const trm_language *l;
    trmi_out head, tail, line, logprobs; /* line, logprobs: of the event that is being made */
    trmi_out out;
    uint32_t tokens;
    bool taken, failed; /* out was taken; a value of JSON found no memory */
    int count;          /* choices */
    int turns[TURNS], turn_count, turn, next;
    int64_t prompt_tokens, new_tokens, cached_tokens;
    struct choice *choices;
    char *id;
    /* the event that is looked through for calls */
    int at;
    struct chunk *chunk; /* what its first line says besides */
};

static void on_call(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes);

/* ---- life ---- */

static void write_frame(trm_lm_stream *s, const char *id, int64_t created)
{
    bool chat = s->r->endpoint == TRM_LM_CHAT;

    trmi_out_text(&s->head, chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    trmi_out_escaped(&s->head, id, strlen(id));
    trmi_out_text(&s->head, chat ? "\",\"object\":\"chat.completion.chunk\",\"created\":"
                                 : "\",\"object\":\"text_completion\",\"created\":");
    trmi_out_int(&s->head, created);
    trmi_out_text(&s->head, ",\"model\":");
    trmi_out_quoted(&s->head, s->r->model != NULL ? s->r->model : "");
    trmi_out_text(&s->head, ",\"choices\":[");
    trmi_out_text(&s->tail, s->r->stream_usage ? "}],\"usage\":null}\n" : "}]}\n");
}

trm_status trm_lm_stream_create(const trm_lm_request *r, const trm_language *l, const char *id,
                                int64_t created, trm_lm_stream **stream_out)
{
    trm_lm_stream *s;
    trm_status st = TRM_OK;

    if (r->endpoint == TRM_LM_EMBEDDINGS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'stream': embeddings are not streamed");
    if (r->prompt_logprobs && (!r->echo || r->choices > 1))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'stream' with log-probabilities of the prompt: want 'echo' and 'n' 1");
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a stream");
    s->r = r;
    s->l = l;
    s->count = r->prompt_count * r->choices;
    s->choices = trm_calloc((size_t)s->count, sizeof(*s->choices));
    s->id = trm_strdup(id);
    write_frame(s, id, created);
    for (int i = 0; s->choices != NULL && st == TRM_OK && r->tools != NULL && i < s->count; i++)
        st = trm_tool_parser_create(r->tools, on_call, s, &s->choices[i].calls);
    while (s->next < s->count && s->turn_count < TURNS)
        s->turns[s->turn_count++] = s->next++;
    if (s->choices == NULL || s->id == NULL || st != TRM_OK || s->head.failed || s->tail.failed) {
        trm_lm_stream_destroy(s);
        return trm_fail(TRM_ERR_NO_MEMORY, "a stream");
    }
    *stream_out = s;
    return TRM_OK;
}

void trm_lm_stream_destroy(trm_lm_stream *s)
{
    if (s == NULL)
        return;
    for (int i = 0; s->choices != NULL && i < s->count; i++) {
        json_decref(s->choices[i].prompt);
        trm_tool_parser_destroy(s->choices[i].calls);
        trmi_out_fini(&s->choices[i].events);
    }
    trm_free(s->choices);
    trm_free(s->id);
    trmi_out_fini(&s->head);
    trmi_out_fini(&s->tail);
    trmi_out_fini(&s->line);
    trmi_out_fini(&s->logprobs);
    trmi_out_fini(&s->out);
    trm_free(s);
}

/* ---- lines ---- */

/* What a chunk says. */
struct chunk {
    const char *text; /* NULL: chat: an empty delta */
    size_t bytes;
    const trmi_out *logprobs; /* JSON; NULL: none */
    const trm_sampled *token;
    const char *finish, *stopped; /* NULL: not over */
    bool said;                    /* a line with it is out */
};

static void write_delta(trm_lm_stream *s, const struct chunk *k)
{
    trmi_out *o = &s->line;

    if (s->r->endpoint != TRM_LM_CHAT) {
        trmi_out_text(o, ",\"text\":\"");
        trmi_out_escaped(o, k->text, k->bytes);
        trmi_out_text(o, "\",\"logprobs\":");
    } else if (k->text != NULL) {
        trmi_out_text(o, ",\"delta\":{\"content\":\"");
        trmi_out_escaped(o, k->text, k->bytes);
        trmi_out_text(o, "\"},\"logprobs\":");
    } else {
        trmi_out_text(o, ",\"delta\":{},\"logprobs\":");
    }
}

/* Behind finish_reason: what clients have asked for. */
static void write_extras(trm_lm_stream *s, int choice, const struct chunk *k)
{
    const trm_lm_prompt *p = &s->r->prompts[choice / s->r->choices];
    trmi_out *o = &s->line;

    if (k->stopped != NULL) {
        trmi_out_text(o, ",\"stop_reason\":");
        trmi_out_quoted(o, k->stopped);
    }
    if (!s->r->token_ids)
        return;
    if (!s->choices[choice].begun) {
        trmi_out_text(o, ",\"prompt_token_ids\":");
        trmi_out_ids(o, p->ids, p->count);
    }
    trmi_out_text(o, ",\"token_ids\":");
    trmi_out_ids(o, k->token != NULL ? &k->token->id : NULL, k->token != NULL);
}

static void write_start(trm_lm_stream *s, int choice)
{
    trmi_out_add(&s->line, s->head.data, s->head.bytes);
    trmi_out_text(&s->line, "{\"index\":");
    trmi_out_int(&s->line, choice);
}

static void write_end(trm_lm_stream *s, int choice, const struct chunk *k)
{
    trmi_out_text(&s->line, ",\"finish_reason\":");
    if (k->finish != NULL)
        trmi_out_quoted(&s->line, k->finish);
    else
        trmi_out_text(&s->line, "null");
    write_extras(s, choice, k);
    trmi_out_add(&s->line, s->tail.data, s->tail.bytes);
    s->choices[choice].begun = true;
}

static void write_logprobs(trm_lm_stream *s, const struct chunk *k)
{
    if (k->logprobs != NULL)
        trmi_out_add(&s->line, k->logprobs->data, k->logprobs->bytes);
    else
        trmi_out_text(&s->line, "null");
}

static void write_chunk(trm_lm_stream *s, int choice, const struct chunk *k)
{
    write_start(s, choice);
    write_delta(s, k);
    write_logprobs(s, k);
    write_end(s, choice, k);
}

static void write_call(trm_lm_stream *s, int choice, trm_tool_event event, int call,
                       const char *text, size_t bytes)
{
    struct chunk k = *s->chunk;
    char id[TRM_TOOL_ID_BYTES];

    write_start(s, choice);
    trmi_out_text(&s->line, ",\"delta\":{\"tool_calls\":[{\"index\":");
    trmi_out_int(&s->line, call);
    if (event == TRM_TOOL_CALL) {
        trm_tool_id(s->id, choice, call, id);
        trmi_out_text(&s->line, ",\"id\":");
        trmi_out_quoted(&s->line, id);
        trmi_out_text(&s->line, ",\"type\":\"function\",\"function\":{\"name\":\"");
        trmi_out_escaped(&s->line, text, bytes);
        trmi_out_text(&s->line, "\",\"arguments\":\"\"}}]},\"logprobs\":");
    } else {
        trmi_out_text(&s->line, ",\"function\":{\"arguments\":\"");
        trmi_out_escaped(&s->line, text, bytes);
        trmi_out_text(&s->line, "\"}}]},\"logprobs\":");
    }
    write_logprobs(s, &k);
    write_end(s, choice, &k);
}

static void write_role(trm_lm_stream *s, int choice)
{
    write_start(s, choice);
    trmi_out_text(&s->line, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
                            "\"logprobs\":null");
    write_end(s, choice, &(struct chunk){0});
}

static void write_usage(trm_lm_stream *s)
{
    json_t *usage = trmi_lm_usage(s->r, s->prompt_tokens, s->new_tokens, s->cached_tokens);

    s->failed = s->failed || usage == NULL;
    trmi_out_add(&s->out, s->head.data, s->head.bytes);
    trmi_out_text(&s->out, "],\"usage\":");
    trmi_out_json(&s->out, usage);
    trmi_out_text(&s->out, "}\n");
    json_decref(usage);
}

/* ---- turns ---- */

static void open_out(trm_lm_stream *s)
{
    if (!s->taken)
        return;
    s->out.bytes = 0;
    s->taken = false;
}

/* The choice whose turn it is has had an event. */
static void pass_turn(trm_lm_stream *s, bool last)
{
    if (!last) {
        s->turn = s->turn + 1 < s->turn_count ? s->turn + 1 : 0;
        return;
    }
    if (s->next < s->count) {
        s->turns[s->turn] = s->next++;
        s->turn = s->turn + 1 < s->turn_count ? s->turn + 1 : 0;
        return;
    }
    s->turn_count--;
    memmove(s->turns + s->turn, s->turns + s->turn + 1,
            (size_t)(s->turn_count - s->turn) * sizeof(*s->turns));
    if (s->turn >= s->turn_count)
        s->turn = 0;
    if (s->turn_count == 0 && s->r->stream_usage)
        write_usage(s);
}

/* Events that waited for their turn. */
static void let_out(trm_lm_stream *s)
{
    while (s->turn_count > 0) {
        struct choice *c = &s->choices[s->turns[s->turn]];
        struct event e;

        if (c->at == c->events.bytes)
            return;
        memcpy(&e, c->events.data + c->at, sizeof(e));
        trmi_out_add(&s->out, c->events.data + c->at + sizeof(e), e.bytes);
        s->tokens += e.tokens;
        c->at += sizeof(e) + e.bytes;
        if (c->at > KEPT && c->at > c->events.bytes / 2) {
            memmove(c->events.data, c->events.data + c->at, c->events.bytes - c->at);
            c->events.bytes -= c->at;
            c->at = 0;
        } else if (c->at == c->events.bytes) {
            c->at = c->events.bytes = 0;
        }
        pass_turn(s, e.last);
    }
}

/* What is in s->line is an event of the choice. */
static void give(trm_lm_stream *s, int choice, uint32_t tokens, bool last)
{
    struct choice *c = &s->choices[choice];
    struct event e = {.bytes = (uint32_t)s->line.bytes, .tokens = tokens, .last = last};

    open_out(s);
    s->failed = s->failed || s->line.bytes > UINT32_MAX;
    if (s->turn_count > 0 && s->turns[s->turn] == choice && c->events.bytes == 0) {
        trmi_out_add(&s->out, s->line.data, s->line.bytes);
        s->tokens += tokens;
        pass_turn(s, last);
        let_out(s);
    } else if (trmi_out_reserve(&c->events, sizeof(e) + s->line.bytes)) {
        trmi_out_add(&c->events, (const char *)&e, sizeof(e));
        trmi_out_add(&c->events, s->line.data, s->line.bytes);
    } else {
        s->failed = true;
    }
    s->line.bytes = 0;
}

/* ---- events ---- */

/* The old form: of what is echoed, or of a token. */
static const trmi_out *old_logprobs(trm_lm_stream *s, struct choice *c, const trm_lm_prompt *echoed,
                                    const trm_sampled *token)
{
    json_t *list = json_array(), *o;

    if (token != NULL && json_array_append_new(list, trmi_lm_token_logprob(s->l, token)) != 0)
        s->failed = true;
    o = trmi_lm_old_logprobs(s->l, echoed, c->prompt, list, &c->offset);
    s->failed = s->failed || o == NULL;
    s->logprobs.bytes = 0;
    trmi_out_json(&s->logprobs, o);
    json_decref(o);
    json_decref(list);
    return &s->logprobs;
}

static const trmi_out *logprobs_of(trm_lm_stream *s, struct choice *c, const trm_sampled *token)
{
    if (s->r->endpoint != TRM_LM_CHAT)
        return old_logprobs(s, c, NULL, token);
    s->logprobs.bytes = 0;
    trmi_out_text(&s->logprobs, "{\"content\":[");
    trmi_lm_write_logprob(&s->logprobs, s->l, token);
    trmi_out_text(&s->logprobs, "],\"refusal\":null}");
    return &s->logprobs;
}

/* Before a choice's first chunk: its role, or the prompt. */
static void begin(trm_lm_stream *s, int choice)
{
    struct choice *c = &s->choices[choice];
    const trm_lm_prompt *p = &s->r->prompts[choice / s->r->choices];
    struct chunk k = {.text = p->text != NULL ? p->text : ""};

    if (c->begun)
        return;
    if (s->r->endpoint == TRM_LM_CHAT) {
        write_role(s, choice);
    } else if (s->r->echo) {
        k.bytes = strlen(k.text);
        if (s->r->sampling.logprobs >= 0)
            k.logprobs = old_logprobs(s, c, p, NULL);
        write_chunk(s, choice, &k);
        json_decref(c->prompt);
        c->prompt = NULL;
    }
}

/* From the parser of tool calls, inside an event. */
static void on_call(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes)
{
    trm_lm_stream *s = ctx;
    struct chunk *k = s->chunk;

    if (event == TRM_TOOL_TEXT) {
        k->text = text;
        k->bytes = bytes;
        write_chunk(s, s->at, k);
    } else {
        write_call(s, s->at, event, call, text, bytes);
    }
    *k = (struct chunk){.logprobs = NULL, .said = true}; /* once an event */
}

/* The event's text through the parser; what it keeps back comes with a later event. */
static void look_for_calls(trm_lm_stream *s, int choice, struct chunk *k, bool over)
{
    struct choice *c = &s->choices[choice];
    struct chunk first = *k;
    trm_status st;

    first.text = NULL;
    first.bytes = 0;
    s->at = choice;
    s->chunk = &first;
    st =
        over ? trm_tool_parser_finish(c->calls) : trm_tool_parser_push(c->calls, k->text, k->bytes);
    s->failed = s->failed || st != TRM_OK;
    s->chunk = NULL;
    k->text = "";
    k->bytes = 0;
    k->said = first.said;
}

void trm_lm_stream_token(trm_lm_stream *s, int choice, const trm_generated *t)
{
    struct choice *c = &s->choices[choice];
    struct chunk k = {.text = t->text, .bytes = t->bytes, .token = t->token};

    if (t->prompt) {
        if (c->prompt == NULL)
            c->prompt = json_array();
        if (json_array_append_new(c->prompt, trmi_lm_token_logprob(s->l, t->token)) != 0)
            s->failed = true;
        return;
    }
    begin(s, choice);
    if (!s->r->only_prompt) {
        if (s->r->sampling.logprobs >= 0 && t->token != NULL)
            k.logprobs = logprobs_of(s, c, t->token);
        if (c->calls != NULL)
            look_for_calls(s, choice, &k, false);
        if (!k.said && (k.bytes > 0 || k.logprobs != NULL || (s->r->token_ids && t->token != NULL)))
            write_chunk(s, choice, &k);
    }
    give(s, choice, t->token != NULL && !s->r->only_prompt, false);
}

void trm_lm_stream_end(trm_lm_stream *s, int choice, const trm_generation_end *e)
{
    struct choice *c = &s->choices[choice];
    struct chunk k = {.text = ""}, rest = {.text = ""};

    if (e->status == TRM_OK) {
        begin(s, choice);
        if (c->calls != NULL)
            look_for_calls(s, choice, &rest, true);
        k.text = s->r->endpoint == TRM_LM_CHAT ? NULL : "";
        k.finish =
            trmi_lm_finish(s->r, e->finish, c->calls != NULL ? trm_tool_parser_calls(c->calls) : 0);
        k.stopped = e->stopped;
        write_chunk(s, choice, &k);
    }
    if (e->choice == 0) {
        s->prompt_tokens += e->prompt_tokens;
        s->cached_tokens += e->cached_tokens;
    }
    s->new_tokens += s->r->only_prompt ? 0 : e->new_tokens;
    give(s, choice, 0, true);
}

trm_status trm_lm_stream_take(trm_lm_stream *s, const char **lines_out, size_t *bytes_out,
                              uint32_t *tokens_out)
{
    if (s->failed || s->line.failed || s->logprobs.failed || s->out.failed)
        return trm_fail(TRM_ERR_NO_MEMORY, "a line of a stream");
    open_out(s);
    *lines_out = s->out.data;
    *bytes_out = s->out.bytes;
    *tokens_out = s->out.bytes > 0 ? s->tokens : 0;
    if (s->out.bytes > 0)
        s->tokens = 0;
    s->taken = true;
    return TRM_OK;
}
