/* Language models that serve: the same answer whole, streamed, scored in a batch, alone or among
 * others; bad requests; cancelling; what is told about it. */
#define _GNU_SOURCE
#include "tests/worker/serve_kit.h"

static served v;

static void open_chat(void)
{
    serve_open(&v, DEMO, CHATML, 8);
}

static void close_it(void)
{
    serve_close(&v);
}

/* ---- one answer, four ways ---- */

#define HELLO "[{\"role\":\"user\",\"content\":\"Fellow citizens\"}]"
#define USAGE "\"stream_options\":{\"include_usage\":true}"

static const struct {
    const char *name;
    trm_request_kind kind;
    const char *body;
} good[] = {
    {"text", TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My fellow\",\"temperature\":0," USAGE "}"},
    {"ids", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":[0,72,4048],\"max_tokens\":5,\"temperature\":0," USAGE "}"},
    {"several prompts and choices", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":[\"My\",\"Our\",[7,8,9]],\"n\":3,\"seed\":5,\"max_tokens\":9," USAGE "}"},
    {"more choices than turns and slots", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"n\":40,\"seed\":5,\"temperature\":1.5,\"max_tokens\":5," USAGE "}"},
    {"stop", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"The\",\"seed\":5,\"max_tokens\":60,\"stop\":[\" the\",\",\",\"e\"]," USAGE "}"},
    {"echo", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"The state\",\"seed\":5,\"max_tokens\":4,\"echo\":true,\"n\":2," USAGE "}"},
    {"echo, logprobs", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"The state\",\"seed\":5,\"max_tokens\":4,\"echo\":true,\"logprobs\":2," USAGE
     "}"},
    {"prompt alone", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"The state\",\"seed\":5,\"max_tokens\":0,\"echo\":true,\"logprobs\":1," USAGE
     "}"},
    {"logprobs, ids", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"The\",\"seed\":5,\"logprobs\":3,\"return_token_ids\":true,\"n\":2," USAGE "}"},
    {"chat", TRM_REQUEST_CHAT,
     "{\"messages\":" HELLO ",\"max_tokens\":12,\"temperature\":0," USAGE "}"},
    {"chat, choices, logprobs", TRM_REQUEST_CHAT,
     "{\"messages\":" HELLO
     ",\"max_tokens\":12,\"seed\":1,\"n\":4,\"logprobs\":true,\"top_logprobs\":2," USAGE "}"},
    {"chat, ids, stop", TRM_REQUEST_CHAT,
     "{\"messages\":" HELLO ",\"seed\":1,\"max_completion_tokens\":40,\"stop\":\"a\","
     "\"return_token_ids\":true,\"temperature\":3.0," USAGE "}"},
};

static const char *url_of(trm_request_kind kind)
{
    return kind == TRM_REQUEST_CHAT         ? "/v1/chat/completions"
           : kind == TRM_REQUEST_EMBEDDINGS ? "/v1/embeddings"
                                            : "/v1/completions";
}

/* The answer of batch scoring. */
static json_t *scored(trm_request_kind kind, const char *body)
{
    trm_leader_model leader;
    trm_lm_score *score;
    trm_arena *scratch;
    trm_wire_result result;
    trm_wire_record record = {.kind = TRM_RECORD_REQUEST};
    char *line = NULL;
    json_t *o, *response;

    OK(trm_arena_create(0, &scratch));
    OK(trm_lm_score_create(v.model, "tiny", &v.defaults, false, &score));
    leader = trm_lm_score_callback(score);
    record.byte_count = (size_t)asprintf(
        &line, "{\"custom_id\":\"c\",\"method\":\"POST\",\"url\":\"%s\",\"body\":%s}", url_of(kind),
        body);
    record.bytes = line;
    OK(leader.run(leader.ctx, NULL, &record, 1, scratch, &result));
    while (leader.done(leader.ctx) < 1)
        OK(leader.wait(leader.ctx, NULL));
    ck_assert_msg(result.status == TRM_OK, "%s", result.message);
    ck_assert_int_eq(result.output_count > 0, 1);
    o = json_loadb(result.outputs[0].tensor.data, (size_t)result.outputs[0].tensor.dims[0], 0,
                   NULL);
    ck_assert_ptr_nonnull(o);
    response = json_incref(json_object_get(json_object_get(o, "response"), "body"));
    json_decref(o);
    free(line);
    trm_lm_score_destroy(score);
    trm_arena_destroy(scratch);
    return response;
}

static void same(const char *name, json_t *a, json_t *b)
{
    char *x = json_dumps(a, JSON_INDENT(1) | JSON_SORT_KEYS),
         *y = json_dumps(b, JSON_INDENT(1) | JSON_SORT_KEYS);

    ck_assert_msg(strcmp(x, y) == 0, "%s: %s\nand\n%s", name, x, y);
    free(x);
    free(y);
}

/* What depends on what ran before. */
static void drop_cached(json_t *body)
{
    json_object_del(json_object_get(body, "usage"), "prompt_tokens_details");
}

START_TEST(whole_streamed_and_scored_are_one)
{
    const answer *g = serve_one(&v, 1, good[_i].kind, good[_i].body, false);
    json_t *whole, *joined, *score;

    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    ck_assert_int_eq(g->parts, 0);
    ck_assert_str_eq(g->a.model, "tiny");
    ck_assert_int_eq(g->a.version, 3);
    whole = json_of(g->body);
    ck_assert_int_eq(json_integer_value(json_object_get(whole, "created")), CREATED);
    ck_assert_str_eq(json_string_value(json_object_get(whole, "id")),
                     good[_i].kind == TRM_REQUEST_CHAT ? "chatcmpl-tag7" : "cmpl-tag7");
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(whole, "usage"), "prompt_tokens")),
        g->a.prompt_tokens);
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(whole, "usage"), "completion_tokens")),
        g->a.new_tokens);
    ck_assert(g->a.run_us > 0 && g->a.first_us > 0);
    ck_assert(
        json_is_object(json_object_get(json_object_get(whole, "usage"), "prompt_tokens_details")));
    drop_cached(whole);

    g = serve_one(&v, 2, good[_i].kind, good[_i].body, true);
    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    ck_assert_uint_eq(g->a.body_bytes, 0);
    ck_assert_int_gt(g->parts, 0);
    ck_assert_uint_eq(g->part_tokens, g->a.new_tokens);
    joined = serve_joined(g->lines);
    drop_cached(joined);
    same(good[_i].name, whole, joined);

    score = scored(good[_i].kind, good[_i].body);
    json_object_set(score, "id", json_object_get(whole, "id"));
    json_object_set(score, "created", json_object_get(whole, "created"));
    same(good[_i].name, whole, score);
    json_decref(whole);
    json_decref(joined);
    json_decref(score);
}
END_TEST

/* A run elsewhere, with other neighbours, gives the same bytes. */
START_TEST(runs_repeat)
{
    const char *body = good[_i].body;
    served other;
    char *lines;
    const char *usage;

    serve_one(&v, 1, good[_i].kind, body, true);
    serve_open(&other, DEMO, CHATML, 3);
    for (uint64_t id = 10; id < 16; id++)
        serve_submit(&other, id, TRM_REQUEST_COMPLETIONS,
                     "{\"prompt\":\"It is\",\"max_tokens\":30,\"n\":2}", id % 2 == 0);
    for (int i = 0; i < 3; i++)
        OK(other.serve->ops->step(other.serve));
    serve_one(&other, 1, good[_i].kind, body, true);
    lines = v.got[1].lines;
    usage = strstr(lines, "],\"usage\":{");
    ck_assert_ptr_nonnull(usage);
    ck_assert_uint_eq(v.got[1].line_bytes, other.got[1].line_bytes);
    ck_assert_int_eq(memcmp(lines, other.got[1].lines, (size_t)(usage - lines)), 0);
    ck_assert_int_eq(other.answered, 7);
    serve_close(&other);
}
END_TEST

/* The request's seed holds where the body says none, and the body's where it says one. */
START_TEST(seeds)
{
    static const char
        *const none = "{\"prompt\":\"My\",\"max_tokens\":20,\"temperature\":1}",
               *const one = "{\"prompt\":\"My\",\"max_tokens\":20,\"temperature\":1,\"seed\":99}",
               *const two = "{\"prompt\":\"My\",\"max_tokens\":20,\"temperature\":1,\"seed\":98}";
    json_t *a = json_of(serve_one(&v, 1, TRM_REQUEST_COMPLETIONS, none, false)->body),
           *b = json_of(serve_one(&v, 2, TRM_REQUEST_COMPLETIONS, one, false)->body),
           *c = json_of(serve_one(&v, 3, TRM_REQUEST_COMPLETIONS, two, false)->body);

    same("seed of the request", json_object_get(a, "choices"), json_object_get(b, "choices"));
    ck_assert(!json_equal(json_object_get(a, "choices"), json_object_get(c, "choices")));
    json_decref(a);
    json_decref(b);
    json_decref(c);
}
END_TEST

/* ---- calls ---- */

#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{"    \
    "\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Nice\",\"Rome\"]},\"days\":{"       \
    "\"$ref\":\"#/$defs/days\"}},\"required\":[\"city\",\"days\"],\"additionalProperties\":false," \
    "\"$defs\":{\"days\":{\"enum\":[1,2]}}}}},{\"type\":\"function\",\"function\":{\"name\":"      \
    "\"stop\"}}]"
#define STOP "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}"

/* A model that has never seen a tool calls one where it must, in whatever form. */
static const struct {
    const char *name, *format, *more;
    bool called;
} forced[] = {
    {"json", "auto", "\"tool_choice\":" STOP, true},
    {"hermes", "hermes", "\"tool_choice\":" STOP, true},
    {"llama", "llama", "\"tool_choice\":" STOP ",\"n\":3", true},
    {"mistral", "mistral", "\"tool_choice\":" STOP, true},
    {"none", "none", "\"tool_choice\":" STOP, true},
    {"and a format", "hermes",
     "\"tool_choice\":" STOP ",\"response_format\":{\"type\":\"json_object\"}", true},
    {"one of them", "hermes", "\"tool_choice\":\"required\",\"max_tokens\":300", true},
    {"may call", "hermes", "\"max_tokens\":20", false},
    {"may not", "hermes", "\"tool_choice\":\"none\",\"max_tokens\":20", false},
    {"may call, or give a colour", "json",
     "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"c\",\"schema\":{"
     "\"enum\":[\"red\",\"blue\"]}}}",
     false},
};

static void check_call(const char *name, const json_t *choice)
{
    const json_t *message = json_object_get(choice, "message"),
                 *calls = json_object_get(message, "tool_calls"),
                 *f = json_object_get(json_array_get(calls, 0), "function");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason")),
               *called = json_string_value(json_object_get(f, "name"));
    json_t *arguments;

    ck_assert_uint_eq(json_array_size(calls), 1);
    ck_assert(json_is_null(json_object_get(message, "content")));
    ck_assert_msg(strcmp(finish, "tool_calls") == 0 || strcmp(finish, "length") == 0, "%s: %s",
                  name, finish);
    if (strcmp(called, "get_weather") != 0)
        return;
    ck_assert_str_eq(finish, "tool_calls");
    arguments = json_of(json_string_value(json_object_get(f, "arguments")));
    ck_assert_uint_eq(json_object_size(arguments), 2);
    ck_assert(json_is_string(json_object_get(arguments, "city")));
    ck_assert(json_is_integer(json_object_get(arguments, "days")));
    json_decref(arguments);
}

START_TEST(calls_are_made)
{
    const trm_lm_options o = {.batch = 4};
    trm_serve_language_options so = {.tool_format = forced[_i].format};
    json_t *whole, *joined, *one;
    const answer *g;
    char *body;
    size_t i;

    serve_open_options(&v, DEMO, CHATML, &o, &so);
    ck_assert_int_gt(asprintf(&body, "{\"messages\":" HELLO "," TOOLS ",%s}", forced[_i].more), 0);
    g = serve_one(&v, 1, TRM_REQUEST_CHAT, body, false);
    ck_assert_msg(g->a.status == TRM_OK, "%s: %s", forced[_i].name, g->message);
    whole = json_of(g->body);
    drop_cached(whole);
    json_array_foreach(json_object_get(whole, "choices"), i, one)
    {
        if (forced[_i].called)
            check_call(forced[_i].name, one);
    }
    g = serve_one(&v, 2, TRM_REQUEST_CHAT, body, true);
    ck_assert_msg(g->a.status == TRM_OK, "%s: %s", forced[_i].name, g->message);
    joined = serve_joined(g->lines);
    json_object_del(whole, "usage");
    json_object_del(joined, "usage");
    same(forced[_i].name, whole, joined);
    json_decref(whole);
    json_decref(joined);
    free(body);
    serve_close(&v);
}
END_TEST

START_TEST(unknown_tool_formats)
{
    served w;
    trm_serve_language_options so = {.tool_format = "xml", .name = "m"};
    trm_serve_model *m;

    serve_open(&w, DEMO, NULL, 1);
    so.model = w.model;
    ck_assert_int_eq(trm_serve_language_create(&so, &m), TRM_ERR_INVALID_ARG);
    serve_close(&w);
}
END_TEST

/* ---- many ---- */

START_TEST(many_at_once)
{
    enum { N = 60 };
    json_t *alone[8], *got;
    size_t rows = 8;

    for (size_t i = 0; i < rows; i++) {
        const answer *g = serve_one(&v, 100 + i, good[i].kind, good[i].body, false);

        alone[i] = json_of(g->body);
        drop_cached(alone[i]);
    }
    for (uint64_t id = 0; id < N; id++) {
        serve_submit(&v, id, good[id % rows].kind, good[id % rows].body, id % 3 == 0);
        if (id % 4 == 0)
            OK(v.serve->ops->step(v.serve));
        ck_assert_int_le(v.serve->ops->count(v.serve), N);
    }
    serve_run(&v);
    for (uint64_t id = 0; id < N; id++) {
        const answer *g = &v.got[id];

        ck_assert_int_eq(g->answers, 1);
        ck_assert_int_eq(g->a.status, TRM_OK);
        got = id % 3 == 0 ? serve_joined(g->lines) : json_of(g->body);
        drop_cached(got);
        same(good[id % rows].name, alone[id % rows], got);
        json_decref(got);
    }
    for (size_t i = 0; i < rows; i++)
        json_decref(alone[i]);
}
END_TEST

/* A batch of one: the greater priority is answered first. */
START_TEST(priorities)
{
    static const char *const body = "{\"prompt\":\"My\",\"max_tokens\":3}";
    static const int want[] = {2, 1, 3, 4};

    serve_open(&v, DEMO, NULL, 1);
    serve_submit_priority(&v, 1, TRM_REQUEST_COMPLETIONS, body, false, 0);
    serve_submit_priority(&v, 2, TRM_REQUEST_COMPLETIONS, body, false, 7);
    serve_submit_priority(&v, 3, TRM_REQUEST_COMPLETIONS, body, true, 0);
    serve_submit_priority(&v, 4, TRM_REQUEST_COMPLETIONS, body, true, -1);
    serve_run(&v);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(v.order[i], want[i]);
    ck_assert(v.got[4].a.queue_us >= v.got[2].a.queue_us);
    serve_close(&v);
}
END_TEST

START_TEST(a_full_queue)
{
    const trm_lm_options o = {.batch = 2};
    trm_serve_language_options so = {.queue = 3};

    serve_open_options(&v, DEMO, NULL, &o, &so);
    ck_assert_uint_eq(v.serve->ops->credits(v.serve), 3);
    for (uint64_t id = 0; id < 5; id++)
        serve_submit(&v, id, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\"}", false);
    ck_assert_int_eq(v.answered, 2);
    ck_assert_int_eq(v.got[3].a.status, TRM_ERR_TIMEOUT);
    serve_run(&v);
    ck_assert_int_eq(v.answered, 5);
    serve_close(&v);
}
END_TEST

/* ---- ends before the end ---- */

START_TEST(cancelling_frees_pages_at_once)
{
    trm_wire_model_stats s;

    v.serve->ops->cancel(v.serve, 5);
    serve_submit(&v, 1, TRM_REQUEST_COMPLETIONS,
                 "{\"prompt\":[\"It is\",\"He\"],\"max_tokens\":400,\"n\":3}", true);
    serve_submit(&v, 2, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\",\"max_tokens\":400}", false);
    serve_submit(&v, 3, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\",\"max_tokens\":9}", false);
    for (int i = 0; i < 5; i++)
        OK(v.serve->ops->step(v.serve));
    v.serve->ops->stats(v.serve, &s);
    ck_assert_uint_gt(s.kv_pages_used, 0);
    ck_assert_uint_gt(s.running, 0);
    v.serve->ops->cancel(v.serve, 1);
    ck_assert_int_eq(v.got[1].a.status, TRM_ERR_CANCELLED);
    ck_assert_int_gt(v.got[1].parts, 0);
    v.serve->ops->cancel(v.serve, 1);
    v.serve->ops->cancel(v.serve, 2);
    ck_assert_int_eq(v.got[2].a.status, TRM_ERR_CANCELLED);
    serve_run(&v);
    ck_assert_int_eq(v.got[3].a.status, TRM_OK);
    ck_assert_int_eq(v.answered, 3);
    v.serve->ops->stats(v.serve, &s);
    ck_assert_uint_eq(s.kv_pages_used, 0);
    ck_assert_uint_eq(s.running + s.waiting, 0);
    ck_assert_uint_gt(s.steps, 0);
    ck_assert_uint_gt(s.new_tokens, 9);
}
END_TEST

START_TEST(all_that_are_left_fail)
{
    trm_wire_model_stats s;

    for (uint64_t id = 0; id < 4; id++)
        serve_submit(&v, id, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\",\"max_tokens\":400}",
                     id % 2 == 0);
    OK(v.serve->ops->step(v.serve));
    v.serve->ops->fail(v.serve, trm_fail(TRM_ERR_COMM, "rank 3 was lost"));
    ck_assert_int_eq(v.answered, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(v.got[i].a.status, TRM_ERR_COMM);
        ck_assert_str_eq(v.got[i].message, "rank 3 was lost");
    }
    v.serve->ops->stats(v.serve, &s);
    ck_assert_uint_eq(s.kv_pages_used, 0);
}
END_TEST

START_TEST(destroyed_with_requests)
{
    serve_open(&v, DEMO, NULL, 2);
    serve_submit(&v, 1, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\",\"max_tokens\":400}", true);
    OK(v.serve->ops->step(v.serve));
    serve_close(&v);
}
END_TEST

/* ---- bad ones ---- */

static const struct {
    const char *name;
    trm_request_kind kind;
    const char *body;
    bool stream;
    trm_status status;
    const char *says;
} bad[] = {
    {"nothing", TRM_REQUEST_CHAT, "", false, TRM_ERR_INVALID_ARG, "no body"},
    {"no JSON", TRM_REQUEST_CHAT, "{\"messages\":\n[}", false, TRM_ERR_INVALID_ARG, "not JSON"},
    {"no object", TRM_REQUEST_CHAT, "[]", false, TRM_ERR_INVALID_ARG, "no JSON object"},
    {"twice", TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"a\",\"prompt\":\"b\"}", false,
     TRM_ERR_INVALID_ARG, "not JSON"},
    {"not UTF-8", TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"\xff\"}", false, TRM_ERR_INVALID_ARG,
     "not JSON"},
    {"unknown field", TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"a\",\"temprature\":1}", false,
     TRM_ERR_INVALID_ARG, "'temprature' is no field"},
    {"a model of no embeddings", TRM_REQUEST_EMBEDDINGS, "{\"input\":\"a\"}", false,
     TRM_ERR_INVALID_ARG, "tiny generates text"},
    {"too long", TRM_REQUEST_COMPLETIONS, NULL, true, TRM_ERR_INVALID_ARG, "context"},
    {"too many", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"],\"n\":128}", false,
     TRM_ERR_INVALID_ARG, "are 1152 answers: want at most 1024"},
    {"no message", TRM_REQUEST_CHAT, "{\"messages\":[]}", true, TRM_ERR_INVALID_ARG,
     "at least one"},
    {"an image", TRM_REQUEST_CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", true,
     TRM_ERR_UNSUPPORTED, "not text"},
    {"streamed scores of the prompt", TRM_REQUEST_CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"prompt_logprobs\":1}", true,
     TRM_ERR_UNSUPPORTED, "'stream'"},
    {"the second prompt", TRM_REQUEST_COMPLETIONS, "{\"prompt\":[\"a\",[]]}", true,
     TRM_ERR_INVALID_ARG, "no token"},
    {"a tool of nothing", TRM_REQUEST_CHAT, "{\"messages\":" HELLO ",\"tools\":[{}]}", true,
     TRM_ERR_INVALID_ARG, "tool 0"},
    {"a tool whose schema is none", TRM_REQUEST_CHAT,
     "{\"messages\":" HELLO
     ",\"tools\":[{\"function\":{\"name\":\"a\",\"parameters\":{\"type\":5}}}],"
     "\"tool_choice\":\"required\"}",
     true, TRM_ERR_INVALID_ARG, "'tools': "},
    {"tensors", TRM_REQUEST_INFER, "{}", false, TRM_ERR_UNSUPPORTED, "takes text"},
    {"tokenize nothing", TRM_REQUEST_TOKENIZE, "{}", false, TRM_ERR_INVALID_ARG, "either"},
    {"tokenize both", TRM_REQUEST_TOKENIZE, "{\"prompt\":\"a\",\"messages\":[]}", false,
     TRM_ERR_INVALID_ARG, "either"},
    {"tokenize a number", TRM_REQUEST_TOKENIZE, "{\"prompt\":1}", false, TRM_ERR_INVALID_ARG,
     "'prompt'"},
    {"tokenize what", TRM_REQUEST_TOKENIZE, "{\"text\":\"a\"}", false, TRM_ERR_INVALID_ARG,
     "'text' is no field"},
    {"detokenize what", TRM_REQUEST_DETOKENIZE, "{\"ids\":[1]}", false, TRM_ERR_INVALID_ARG,
     "'ids' is no field"},
    {"detokenize an unknown id", TRM_REQUEST_DETOKENIZE, "{\"tokens\":[4096]}", false,
     TRM_ERR_INVALID_ARG, "'tokens'"},
    {"detokenize a text", TRM_REQUEST_DETOKENIZE, "{\"tokens\":\"a\"}", false, TRM_ERR_INVALID_ARG,
     "'tokens'"},
};

START_TEST(bad_requests_are_answered)
{
    const char *body = bad[_i].body;
    char *long_one = NULL;
    const answer *g;

    if (body == NULL) {
        long_one = malloc(8000);
        ck_assert_ptr_nonnull(long_one);
        strcpy(long_one, "{\"prompt\":\"");
        for (size_t n = 0; n < 3000; n++)
            strcat(long_one + 2 * n, "a ");
        strcat(long_one, "\"}");
        body = long_one;
    }
    g = serve_one(&v, 1, bad[_i].kind, body, bad[_i].stream);
    ck_assert_msg(g->a.status == bad[_i].status && strstr(g->message, bad[_i].says) != NULL,
                  "%s: %s: %s", bad[_i].name, trm_status_name(g->a.status), g->message);
    ck_assert_ptr_null(strstr(g->message, TRM_SOURCE_DIR)); /* no paths of ours */
    ck_assert_int_eq(g->parts, 0);
    free(long_one);
    /* and the next is well */
    ck_assert_int_eq(
        serve_one(&v, 2, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"My\"}", false)->a.status, TRM_OK);
}
END_TEST

START_TEST(chat_without_a_template)
{
    const answer *g;

    serve_open(&v, DEMO, NULL, 2);
    g = serve_one(&v, 1, TRM_REQUEST_CHAT, "{\"messages\":" HELLO "}", false);
    ck_assert_int_eq(g->a.status, TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(g->message, "no chat template"));
    serve_close(&v);
}
END_TEST

/* Whichever allocation fails while a request is taken in: one answer, and nothing stays behind. */
START_TEST(no_memory_is_answered)
{
    static const char *const body = "{\"prompt\":\"My fellow\",\"n\":2,\"max_tokens\":2}";
    int64_t live;
    bool whole = false;

    serve_one(&v, 1, TRM_REQUEST_COMPLETIONS, body, false); /* what is kept is there */
    serve_forget(&v);
    live = trm_alloc_live();
    for (int64_t n = 0; !whole; n++) {
        const answer *g;

        ck_assert_int_lt(n, 500);
        trm_alloc_fail_after(n);
        serve_submit(&v, 1, TRM_REQUEST_COMPLETIONS, body, n % 2 == 0);
        whole = v.got[1].answers == 0;
        trm_alloc_fail_after(-1);
        serve_run(&v);
        g = &v.got[1];
        ck_assert_int_eq(g->answers, 1);
        ck_assert_msg(whole ? g->a.status == TRM_OK : g->a.status == TRM_ERR_NO_MEMORY, "%d: %s",
                      (int)n, g->message);
        serve_forget(&v);
    }
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* And while it runs; a rank that could not make its sampler says so in another way. */
START_TEST(no_memory_in_a_step_is_answered)
{
    static const char *const body = "{\"prompt\":\"My fellow\",\"n\":2,\"max_tokens\":3}";

    for (int64_t n = 0; n < 60; n++) {
        const answer *g;

        serve_submit(&v, 1, TRM_REQUEST_COMPLETIONS, body, n % 2 == 0);
        trm_alloc_fail_after(n);
        for (int i = 0; i < 20 && v.serve->ops->count(v.serve) > 0; i++)
            OK(v.serve->ops->step(v.serve));
        trm_alloc_fail_after(-1);
        g = &v.got[1];
        ck_assert_int_eq(g->answers, 1);
        serve_forget(&v);
    }
    ck_assert_int_eq(serve_one(&v, 2, TRM_REQUEST_COMPLETIONS, body, false)->a.status, TRM_OK);
}
END_TEST

/* ---- embeddings ---- */

START_TEST(embeddings_go_in_one_step)
{
    static const char *const body = "{\"input\":[[1,2,3],[4,5],[6,7,8,9]],\"model\":\"x\"}";
    static const char *const ones[] = {"{\"input\":[1,2,3]}", "{\"input\":[4,5]}",
                                       "{\"input\":[6,7,8,9]}"};
    trm_wire_model_stats s;
    json_t *all, *scores;
    const answer *g;

    serve_open(&v, ENCODER, NULL, 8);
    g = serve_one(&v, 1, TRM_REQUEST_EMBEDDINGS, body, false);
    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    ck_assert_uint_eq(g->a.prompt_tokens, 9);
    ck_assert_uint_eq(g->a.new_tokens, 0);
    v.serve->ops->stats(v.serve, &s);
    ck_assert_uint_eq(s.steps, 1);
    all = json_of(g->body);
    for (uint64_t i = 0; i < 3; i++) {
        json_t *one = json_of(serve_one(&v, 10 + i, TRM_REQUEST_EMBEDDINGS, ones[i], false)->body);

        same("embedding",
             json_object_get(json_array_get(json_object_get(all, "data"), i), "embedding"),
             json_object_get(json_array_get(json_object_get(one, "data"), 0), "embedding"));
        json_decref(one);
    }
    scores = scored(TRM_REQUEST_EMBEDDINGS, body);
    same("embeddings", json_object_get(all, "data"), json_object_get(scores, "data"));
    json_decref(scores);
    json_decref(all);
    g = serve_one(&v, 2, TRM_REQUEST_EMBEDDINGS, "{\"input\":[1,2],\"encoding_format\":\"base64\"}",
                  false);
    all = json_of(g->body);
    ck_assert_uint_eq(json_string_length(json_object_get(
                          json_array_get(json_object_get(all, "data"), 0), "embedding")),
                      (64 * 4 + 2) / 3 * 4);
    json_decref(all);
    ck_assert_int_eq(
        serve_one(&v, 3, TRM_REQUEST_COMPLETIONS, "{\"prompt\":\"a\"}", true)->a.status,
        TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(serve_one(&v, 4, TRM_REQUEST_TOKENIZE, "{\"prompt\":\"a\"}", true)->a.status,
                     TRM_ERR_UNSUPPORTED);
    serve_close(&v);
}
END_TEST

/* ---- tokens ---- */

static const struct {
    const char *name, *body, *want;
} tokenized[] = {
    {"text", "{\"model\":\"m\",\"prompt\":\"Fellow citizens\"}", "[0,72,4048,851]"},
    {"plain", "{\"prompt\":\"Fellow citizens\",\"add_special_tokens\":false}", "[72,4048,851]"},
    {"nothing", "{\"prompt\":\"\",\"add_special_tokens\":false}", "[]"},
};

START_TEST(texts_become_tokens)
{
    const answer *g = serve_one(&v, 1, TRM_REQUEST_TOKENIZE, tokenized[_i].body, false);
    json_t *o, *want = json_loads(tokenized[_i].want, 0, NULL);

    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    o = json_of(g->body);
    same(tokenized[_i].name, json_object_get(o, "tokens"), want);
    ck_assert_int_eq(json_integer_value(json_object_get(o, "count")),
                     (json_int_t)json_array_size(want));
    ck_assert_int_eq(json_integer_value(json_object_get(o, "max_model_len")), 512);
    json_decref(o);
    json_decref(want);
}
END_TEST

START_TEST(conversations_become_tokens_and_text)
{
    const answer *g = serve_one(&v, 1, TRM_REQUEST_TOKENIZE,
                                "{\"messages\":" HELLO
                                ",\"return_token_strs\":true,\"add_generation_prompt\":false}",
                                false);
    json_t *o, *back;
    char *body;

    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    o = json_of(g->body);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "token_strs")),
                      json_array_size(json_object_get(o, "tokens")));
    back = json_object();
    json_object_set(back, "tokens", json_object_get(o, "tokens"));
    body = json_dumps(back, JSON_COMPACT);
    json_decref(back);
    json_decref(o);
    g = serve_one(&v, 2, TRM_REQUEST_DETOKENIZE, body, false);
    ck_assert_msg(g->a.status == TRM_OK, "%s", g->message);
    o = json_of(g->body);
    ck_assert_str_eq(json_string_value(json_object_get(o, "prompt")),
                     "<|im_start|>user\nFellow citizens<|im_end|>\n");
    json_decref(o);
    free(body);
}
END_TEST

START_TEST(what_it_is)
{
    json_t *m = v.serve->ops->metadata(v.serve);

    ck_assert_ptr_nonnull(m);
    ck_assert_str_eq(json_string_value(json_object_get(m, "kind")), "generate");
    ck_assert_str_eq(json_string_value(json_object_get(m, "platform")), "safetensors");
    ck_assert(json_is_true(json_object_get(m, "chat")));
    ck_assert_int_eq(json_integer_value(json_object_get(m, "context")), 512);
    ck_assert_int_eq(json_integer_value(json_object_get(m, "vocabulary")), 4096);
    ck_assert_int_gt(json_integer_value(json_object_get(m, "parameters")), 1000000);
    ck_assert_int_gt(json_integer_value(json_object_get(m, "weights_bytes")), 1000000);
    ck_assert_int_eq(json_integer_value(json_object_get(m, "max_batch")), 8);
    json_decref(m);
    ck_assert_str_eq(v.serve->ops->name, "language");
    ck_assert_uint_eq(v.serve->ops->credits(v.serve), 80);
}
END_TEST

#define ROWS(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
    Suite *s = suite_create("serving of language models");
    TCase *c = tcase_create("demo"), *own = tcase_create("others");
    SRunner *r;
    int failed;

    setenv("OMP_WAIT_POLICY", "passive", 0);
    tcase_set_timeout(c, 60);
    tcase_set_timeout(own, 60);
    tcase_add_checked_fixture(c, open_chat, close_it);
    tcase_add_loop_test(c, whole_streamed_and_scored_are_one, 0, ROWS(good));
    tcase_add_loop_test(c, runs_repeat, 0, ROWS(good));
    tcase_add_test(c, seeds);
    tcase_add_test(c, many_at_once);
    tcase_add_test(c, cancelling_frees_pages_at_once);
    tcase_add_test(c, all_that_are_left_fail);
    tcase_add_loop_test(c, bad_requests_are_answered, 0, ROWS(bad));
    tcase_add_test(c, no_memory_is_answered);
    tcase_add_test(c, no_memory_in_a_step_is_answered);
    tcase_add_loop_test(c, texts_become_tokens, 0, ROWS(tokenized));
    tcase_add_test(c, conversations_become_tokens_and_text);
    tcase_add_test(c, what_it_is);
    tcase_add_loop_test(own, calls_are_made, 0, ROWS(forced));
    tcase_add_test(own, unknown_tool_formats);
    tcase_add_test(own, priorities);
    tcase_add_test(own, a_full_queue);
    tcase_add_test(own, destroyed_with_requests);
    tcase_add_test(own, chat_without_a_template);
    tcase_add_test(own, embeddings_go_in_one_step);
    suite_add_tcase(s, c);
    suite_add_tcase(s, own);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
