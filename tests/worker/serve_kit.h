/* A language model that serves, on one rank and the CPU, and what has come out of it. */
#ifndef TRM_TESTS_WORKER_SERVE_KIT_H
#define TRM_TESTS_WORKER_SERVE_KIT_H

#include "worker/language/score_language.h"
#include "worker/language/serve_language.h"

#include "base/memory.h"
#include "base/wait.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef fail /* Check's old name of a failure */
#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define DEMO TRM_SOURCE_DIR "/configs/demo/tiny-sotu"
#define ENCODER TRM_SOURCE_DIR "/tests/data/language/models/bert"
#define CHATML TRM_SOURCE_DIR "/tests/data/templates/own-chatml.jinja"
#define ANSWERS 128
#define CREATED 1700000000

typedef struct answer {
    int answers; /* how many came */
    trm_wire_answer a;
    char message[512];
    char *body, *lines; /* NUL-terminated */
    size_t line_bytes;
    int parts;
    uint32_t part_tokens;
} answer;

typedef struct served {
    trm_device *device;
    trm_lm_model *model;
    trm_serve_model *serve;
    trm_lm_request_defaults defaults;
    answer got[ANSWERS]; /* by id */
    int order[ANSWERS], answered;
} served;

static inline void on_part(void *ctx, const trm_wire_part *p)
{
    served *v = (served *)ctx;
    answer *g = &v->got[p->id];

    ck_assert_int_eq(g->answers, 0);
    ck_assert(p->body_bytes > 0 && ((const char *)p->body)[p->body_bytes - 1] == '\n');
    g->lines = (char *)realloc(g->lines, g->line_bytes + p->body_bytes + 1);
    ck_assert_ptr_nonnull(g->lines);
    memcpy(g->lines + g->line_bytes, p->body, p->body_bytes);
    g->line_bytes += p->body_bytes;
    g->lines[g->line_bytes] = '\0';
    g->parts++;
    g->part_tokens += p->new_tokens;
}

static inline void on_answer(void *ctx, const trm_wire_answer *a)
{
    served *v = (served *)ctx;
    answer *g = &v->got[a->id];

    ck_assert_uint_lt(a->id, ANSWERS);
    ck_assert_int_eq(g->answers, 0);
    g->answers++;
    g->a = *a;
    snprintf(g->message, sizeof(g->message), "%s", a->message);
    ck_assert_ptr_null(strchr(g->message, '\n'));
    ck_assert((a->status == TRM_OK) == (g->message[0] == '\0'));
    g->body = (char *)malloc(a->body_bytes + 1);
    ck_assert_ptr_nonnull(g->body);
    if (a->body_bytes > 0)
        memcpy(g->body, a->body, a->body_bytes);
    g->body[a->body_bytes] = '\0';
    v->order[v->answered++] = (int)a->id;
}

/* chat: a template's file; NULL: none. */
static inline void serve_open_options(served *v, const char *path, const char *chat,
                                      const trm_lm_options *options, trm_serve_language_options *so)
{
    trm_lm_options o = *options;

    memset(v, 0, sizeof(*v));
    o.tokenizer = true;
    o.chat_template = chat;
    OK(trm_device_cpu_create(1, &v->device));
    OK(trm_lm_model_open(path, v->device, &o, &v->model));
    trm_generator_defaults(v->model->language, &v->defaults.sampling);
    v->defaults.add_special = true;
    so->model = v->model;
    so->name = "tiny";
    so->version = 3;
    so->defaults = v->defaults;
    so->out = (trm_serve_out){.ctx = v, .part = on_part, .answer = on_answer};
    OK(trm_serve_language_create(so, &v->serve));
}

static inline void serve_open(served *v, const char *path, const char *chat, int batch)
{
    trm_lm_options o = {.batch = batch, .step_tokens = 64};
    trm_serve_language_options so = {.queue = 0};

    serve_open_options(v, path, chat, &o, &so);
}

static inline void serve_forget(served *v)
{
    for (int i = 0; i < ANSWERS; i++) {
        free(v->got[i].body);
        free(v->got[i].lines);
    }
    memset(v->got, 0, sizeof(v->got));
    v->answered = 0;
}

static inline void serve_close(served *v)
{
    v->serve->ops->destroy(v->serve);
    serve_forget(v);
    trm_lm_model_close(v->model);
    trm_device_destroy(v->device);
}

/* `body` stays until the request is answered. */
static inline void serve_submit_priority(served *v, uint64_t id, trm_request_kind kind,
                                         const char *body, bool stream, int32_t priority)
{
    const trm_wire_request r = {.id = id,
                                .kind = kind,
                                .model = "tiny",
                                .priority = priority,
                                .stream = stream,
                                .seed = 99,
                                .created = CREATED,
                                .tag = "tag7",
                                .body = body,
                                .body_bytes = strlen(body)};

    v->serve->ops->submit(v->serve, &r, trm_now_us());
}

static inline void serve_submit(served *v, uint64_t id, trm_request_kind kind, const char *body,
                                bool stream)
{
    serve_submit_priority(v, id, kind, body, stream, 0);
}

static inline void serve_run(served *v)
{
    for (int i = 0; v->serve->ops->count(v->serve) > 0; i++) {
        ck_assert_int_lt(i, 100000);
        ck_assert_int_eq(v->serve->ops->due_us(v->serve), 0);
        OK(v->serve->ops->step(v->serve));
    }
    ck_assert(v->serve->ops->due_us(v->serve) == INT64_MAX);
}

/* One request alone; what came is got[id]. */
static inline answer *serve_one(served *v, uint64_t id, trm_request_kind kind, const char *body,
                                bool stream)
{
    serve_submit(v, id, kind, body, stream);
    serve_run(v);
    ck_assert_int_eq(v->got[id].answers, 1);
    return &v->got[id];
}

static inline json_t *json_of(const char *text)
{
    json_error_t error;
    json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &error);

    ck_assert_msg(o != NULL, "%s in: %s", error.text, text);
    return o;
}

/* ---- streams back into whole bodies ---- */

static inline void join_text(json_t *to, const char *key, const json_t *more)
{
    const char *before = json_string_value(json_object_get(to, key));
    char *text;

    if (!json_is_string(more))
        return;
    text = (char *)malloc(strlen(before != NULL ? before : "") + json_string_length(more) + 1);
    ck_assert_ptr_nonnull(text);
    strcpy(text, before != NULL ? before : "");
    strcat(text, json_string_value(more));
    json_object_set_new(to, key, json_string(text));
    free(text);
}

static inline void join_lists(json_t *to, json_t *more)
{
    const char *key;
    json_t *v;

    json_object_foreach(more, key, v)
    {
        if (json_is_array(v) && json_object_get(to, key) != NULL)
            json_array_extend(json_object_get(to, key), v);
        else
            json_object_set_new(to, key, json_deep_copy(v));
    }
}

static inline void join_calls(json_t *message, const json_t *calls)
{
    json_t *list = json_object_get(message, "tool_calls"), *one;
    size_t i;

    if (list == NULL) {
        list = json_array();
        json_object_set_new(message, "tool_calls", list);
    }
    json_array_foreach(calls, i, one)
    {
        size_t at = (size_t)json_integer_value(json_object_get(one, "index"));

        ck_assert_uint_le(at, json_array_size(list));
        if (at == json_array_size(list)) {
            json_t *copy = json_deep_copy(one);

            ck_assert(json_is_string(json_object_get(copy, "id")));
            json_object_del(copy, "index");
            json_array_append_new(list, copy);
        } else {
            ck_assert_ptr_null(json_object_get(one, "id"));
            join_text(json_object_get(json_array_get(list, at), "function"), "arguments",
                      json_object_get(json_object_get(one, "function"), "arguments"));
        }
    }
}

static inline void join_choice(json_t *to, const json_t *c, bool chat)
{
    const json_t *delta = json_object_get(c, "delta"), *v;
    json_t *lp = json_object_get(to, "logprobs");

    if (chat) {
        json_t *m = json_object_get(to, "message");

        if (json_object_get(delta, "role") != NULL)
            json_object_set(m, "role", json_object_get(delta, "role"));
        join_text(m, "content", json_object_get(delta, "content"));
        if (json_object_get(delta, "tool_calls") != NULL)
            join_calls(m, json_object_get(delta, "tool_calls"));
    } else {
        join_text(to, "text", json_object_get(c, "text"));
    }
    v = json_object_get(c, "logprobs");
    if (json_is_object(v) && json_is_object(lp))
        join_lists(lp, (json_t *)(uintptr_t)v);
    else if (json_is_object(v))
        json_object_set_new(to, "logprobs", json_deep_copy(v));
    ck_assert(json_is_null(json_object_get(to, "finish_reason")));
    json_object_set(to, "finish_reason", json_object_get(c, "finish_reason"));
    if ((v = json_object_get(c, "stop_reason")) != NULL)
        json_object_set(to, "stop_reason", (json_t *)(uintptr_t)v);
    if ((v = json_object_get(c, "prompt_token_ids")) != NULL)
        json_object_set(to, "prompt_token_ids", (json_t *)(uintptr_t)v);
    if ((v = json_object_get(c, "token_ids")) != NULL && json_object_get(to, "token_ids") == NULL)
        json_object_set_new(to, "token_ids", json_deep_copy(v));
    else if (v != NULL)
        json_array_extend(json_object_get(to, "token_ids"), (json_t *)(uintptr_t)v);
}

static inline json_t *join_begin(size_t index, bool chat)
{
    json_t *to = json_object(), *m = json_object();

    json_object_set_new(to, "index", json_integer((json_int_t)index));
    if (chat) {
        json_object_set_new(m, "refusal", json_null());
        json_object_set(to, "message", m);
    }
    json_object_set_new(to, "logprobs", json_null());
    json_object_set_new(to, "finish_reason", json_null());
    json_decref(m);
    return to;
}

/* What the lines of a stream come to: the body that would have come as a whole. */
static inline json_t *serve_joined(const char *lines)
{
    json_t *o = json_object(), *choices = json_array();
    bool chat = false;

    for (const char *p = lines; p != NULL && *p != '\0'; p = strchr(p, '\n') + 1) {
        json_t *line = json_loadb(p, (size_t)(strchr(p, '\n') - p), JSON_REJECT_DUPLICATES, NULL);
        json_t *c;
        size_t i;

        ck_assert_ptr_nonnull(line);
        chat = strcmp(json_string_value(json_object_get(line, "object")),
                      "chat.completion.chunk") == 0;
        json_array_foreach(json_object_get(line, "choices"), i, c)
        {
            size_t at = (size_t)json_integer_value(json_object_get(c, "index"));

            while (json_array_size(choices) <= at)
                json_array_append_new(choices, join_begin(json_array_size(choices), chat));
            join_choice(json_array_get(choices, at), c, chat);
        }
        json_object_update(o, line);
        json_decref(line);
    }
    for (size_t i = 0; chat && i < json_array_size(choices); i++) {
        json_t *m = json_object_get(json_array_get(choices, i), "message");

        if (json_object_get(m, "tool_calls") != NULL &&
            json_string_length(json_object_get(m, "content")) == 0)
            json_object_set_new(m, "content", json_null());
    }
    json_object_set_new(o, "choices", choices);
    if (chat)
        json_object_set_new(o, "object", json_string("chat.completion"));
    return o;
}

#endif
