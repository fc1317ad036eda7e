/* The gateway's OpenAI endpoints: bodies, models, answers, streams, failures. */
#define _GNU_SOURCE
#include "openai_kit.h"

/* ---- bodies ---- */
static const struct {
    const char *name, *body;
    trm_status st;
    const char *message; /* part of it */
    const char *model;
    bool stream;
    int32_t priority;
} heads[] = {
    {"ordinary", "{\"model\":\"m\",\"prompt\":\"x\"}", TRM_OK, NULL, "m", false, 0},
    {"all", " {\"stream\" : true ,\"priority\":-3,\"model\":\"a/b:2\"}\n", TRM_OK, NULL, "a/b:2",
     true, -3},
    {"empty object", "{}", TRM_OK, NULL, "", false, 0},
    {"nulls", "{\"model\":null,\"stream\":null,\"priority\":null}", TRM_OK, NULL, "", false, 0},
    {"escaped name", "{\"mod\\u0065l\":\"\\u006d\"}", TRM_OK, NULL, "m", false, 0},
    {"the last one holds", "{\"model\":\"a\",\"model\":\"b\"}", TRM_OK, NULL, "b", false, 0},
    {"names inside", "{\"x\":{\"model\":\"no\"},\"y\":[{\"stream\":true}],\"model\":\"m\"}", TRM_OK,
     NULL, "m", false, 0},
    {"every value",
     "{\"a\":[],\"b\":{},\"c\":[1,-0.5e+3,0,true,false,null,\"\\\"\\\\\\n\"],\"d\":{\"e\":[[{}]]}}",
     TRM_OK, NULL, "", false, 0},
    {"nothing", "", TRM_ERR_INVALID_ARG, "empty", NULL, false, 0},
    {"blanks", " \n\t", TRM_ERR_INVALID_ARG, "empty", NULL, false, 0},
    {"a list", "[1]", TRM_ERR_INVALID_ARG, "not an object", NULL, false, 0},
    {"a number", "12", TRM_ERR_INVALID_ARG, "not an object", NULL, false, 0},
    {"text", "hello", TRM_ERR_INVALID_ARG, "line 1 column 1 (byte 0)", NULL, false, 0},
    {"cut", "{\"model\":\"m", TRM_ERR_INVALID_ARG, "the end of a string", NULL, false, 0},
    {"no colon", "{\n\"model\" \"m\"}", TRM_ERR_INVALID_ARG,
     "line 2 column 9 (byte 10): wanted ':'", NULL, false, 0},
    {"comma at the end", "{\"a\":1,}", TRM_ERR_INVALID_ARG, "a string", NULL, false, 0},
    {"comma in a list", "{\"a\":[1,]}", TRM_ERR_INVALID_ARG, "a value", NULL, false, 0},
    {"wrong close", "{\"a\":[1}}", TRM_ERR_INVALID_ARG, "',' or ']'", NULL, false, 0},
    {"behind", "{} {}", TRM_ERR_INVALID_ARG, "the end", NULL, false, 0},
    {"leading zero", "{\"a\":01}", TRM_ERR_INVALID_ARG, "',' or '}'", NULL, false, 0},
    {"no digit", "{\"a\":1.}", TRM_ERR_INVALID_ARG, "a digit", NULL, false, 0},
    {"NaN", "{\"a\":NaN}", TRM_ERR_INVALID_ARG, "a value", NULL, false, 0},
    {"control", "{\"a\":\"\n\"}", TRM_ERR_INVALID_ARG, "control characters", NULL, false, 0},
    {"escape", "{\"a\":\"\\x\"}", TRM_ERR_INVALID_ARG, "an escape", NULL, false, 0},
    {"half an escape", "{\"a\":\"\\u12g4\"}", TRM_ERR_INVALID_ARG, "hexadecimal", NULL, false, 0},
    {"model of a number", "{\"model\":3}", TRM_ERR_INVALID_ARG, "model is a number", NULL, false,
     0},
    {"model of a list", "{\"model\":[\"m\"]}", TRM_ERR_INVALID_ARG, "model is a list", NULL, false,
     0},
    {"not UTF-8", "{\"model\":\"\xff\"}", TRM_ERR_INVALID_ARG, "model", NULL, false, 0},
    {"NUL", "{\"model\":\"a\\u0000b\"}", TRM_ERR_INVALID_ARG, "model", NULL, false, 0},
    {"stream of text", "{\"stream\":\"yes\"}", TRM_ERR_INVALID_ARG, "stream is a string", NULL,
     false, 0},
    {"priority of text", "{\"priority\":\"1\"}", TRM_ERR_INVALID_ARG, "priority is a string", NULL,
     false, 0},
    {"priority of a fraction", "{\"priority\":1.5}", TRM_ERR_INVALID_ARG, "32 bits", NULL, false,
     0},
    {"priority too large", "{\"priority\":2147483648}", TRM_ERR_INVALID_ARG, "32 bits", NULL, false,
     0},
};

START_TEST(head)
{
    trmi_openai_head h;
    trm_status st = trmi_openai_head_read(heads[_i].body, strlen(heads[_i].body), &h);

    ck_assert_msg(st == heads[_i].st, "%s: %s", heads[_i].name, trm_message());
    if (st != TRM_OK) {
        ck_assert_msg(strstr(trm_message(), heads[_i].message) != NULL, "%s: %s", heads[_i].name,
                      trm_message());
        return;
    }
    ck_assert_str_eq(h.model, heads[_i].model);
    ck_assert_int_eq(h.stream, heads[_i].stream);
    ck_assert_int_eq(h.priority, heads[_i].priority);
}
END_TEST

START_TEST(deep_body)
{
    enum { N = 100000 };
    char *text = malloc(2 * N + 16);
    trmi_openai_head h;

    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', N);
    ck_assert_int_eq(trmi_openai_head_read(text, N, &h), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "less nesting"));
    for (int depth = TRMI_JSON_DEPTH_MAX; depth <= TRMI_JSON_DEPTH_MAX + 1; depth++) {
        memset(text + 5, '[', (size_t)depth);
        memset(text + 5 + depth, ']', (size_t)depth);
        text[5 + 2 * depth] = '}';
        ck_assert_int_eq(trmi_openai_head_read(text, (size_t)(6 + 2 * depth), &h),
                         depth <= TRMI_JSON_DEPTH_MAX ? TRM_OK : TRM_ERR_INVALID_ARG);
    }
    memcpy(text, "{\"model\":\"", 10);
    memset(text + 10, 'm', N);
    memcpy(text + 10 + N, "\"}", 2);
    ck_assert_int_eq(trmi_openai_head_read(text, N + 12, &h), TRM_ERR_INVALID_ARG);
    free(text);
}
END_TEST

/* What the skimmer takes jansson takes, and the other way round, but for UTF-8 and depth. */
START_TEST(as_jansson)
{
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        const char *text = heads[i].body;
        size_t n = strlen(text);

        for (size_t cut = 0; cut <= n; cut++) {
            json_t *o = json_loadb(text, cut, 0, NULL);
            bool ours = trmi_json_fields(text, cut, NULL, 0) == TRM_OK;

            if (strstr(text, "\xff") == NULL && strstr(text, "\\u0000") == NULL)
                ck_assert_msg(ours == json_is_object(o), "%.*s", (int)cut, text);
            json_decref(o);
        }
    }
}
END_TEST

/* ---- requests ---- */
static char generate[] = "{\"kind\":\"generate\",\"context\":256}";
static char embed[] = "{\"kind\":\"embed\",\"context\":128}";
static char tensor[] = "{\"kind\":\"tensor\"}";
static char none[] = "";
static const trm_hub_model_info some_models[] = {
    {.name = "bad", .version = 1, .state = TRM_MODEL_FAILED, .metadata = none},
    {.name = "bert", .version = 1, .state = TRM_MODEL_READY, .metadata = embed, .loaded_at = 5},
    {.name = "good", .version = 1, .state = TRM_MODEL_READY, .metadata = generate, .loaded_at = 7},
    {.name = "good", .version = 2, .state = TRM_MODEL_READY, .metadata = generate, .loaded_at = 9},
    {.name = "good", .version = 3, .state = TRM_MODEL_LOADING, .metadata = none},
    {.name = "image", .version = 1, .state = TRM_MODEL_READY, .metadata = tensor},
    {.name = "known", .version = 1, .state = TRM_MODEL_UNLOADED, .metadata = none},
    {.name = "llama3:8", .version = 1, .state = TRM_MODEL_LOADING, .metadata = none},
};
#define SOME_MODELS ((int)(sizeof(some_models) / sizeof(some_models[0])))

static const struct {
    const char *name, *pattern, *body, *timeout;
    int status;
    const char *out; /* part of the answer, or of the error's message */
    const char *type, *code;
    const char *model; /* that was asked for, where it got as far */
    int64_t version;
    uint32_t deadline_ms;
} requests[] = {
    {"completions", "/v1/completions", "{\"model\":\"good\",\"prompt\":\"x\"}", NULL, 200,
     "{\"ok\":{\"model\":\"good\",\"prompt\":\"x\"}}", NULL, NULL, "good", 0, 0},
    {"a version", "/v1/completions", "{\"model\":\"good:2\"}", NULL, 200, "ok", NULL, NULL, "good",
     2, 0},
    {"a name with a number", "/v1/completions", "{\"model\":\"llama3:8\"}", NULL, 200, "ok", NULL,
     NULL, "llama3:8", 0, 0},
    {"a name with a word", "/v1/completions", "{\"model\":\"a:b\"}", NULL, 200, "ok", NULL, NULL,
     "a:b", 0, 0},
    {"chat", "/v1/chat/completions", "{\"model\":\"good\"}", NULL, 200, "ok", NULL, NULL, "good", 0,
     0},
    {"the only one that generates", "/v1/chat/completions", "{}", NULL, 200, "ok", NULL, NULL,
     "good", 0, 0},
    {"the only one that embeds", "/v1/embeddings", "{\"input\":\"x\"}", NULL, 200, "ok", NULL, NULL,
     "bert", 0, 0},
    {"several have tokens", "/tokenize", "{\"prompt\":\"x\"}", NULL, 400, "model is missing",
     "invalid_request_error", NULL, NULL, 0, 0},
    {"tokenize", "/v1/tokenize", "{\"model\":\"good\"}", NULL, 200, "ok", NULL, NULL, "good", 0, 0},
    {"detokenize", "/detokenize", "{\"model\":\"good\"}", NULL, 200, "ok", NULL, NULL, "good", 0,
     0},
    {"embeddings do not stream", "/v1/embeddings", "{\"model\":\"bert\",\"stream\":true}", NULL,
     200, "ok", NULL, NULL, "bert", 0, 0},
    {"a deadline", "/v1/completions", "{\"model\":\"good\"}", "2.5", 200, "ok", NULL, NULL, "good",
     0, 2500},
    {"a bad deadline", "/v1/completions", "{\"model\":\"good\"}", "soon", 400, "X-Request-Timeout",
     "invalid_request_error", NULL, NULL, 0, 0},
    {"a negative deadline", "/v1/completions", "{\"model\":\"good\"}", "-1", 400,
     "X-Request-Timeout", "invalid_request_error", NULL, NULL, 0, 0},
    {"not JSON", "/v1/completions", "{\"model\":", NULL, 400,
     "the body: not JSON: line 1 column 10", "invalid_request_error", NULL, NULL, 0, 0},
    {"not an object", "/v1/completions", "[]", NULL, 400, "not an object", "invalid_request_error",
     NULL, NULL, 0, 0},
    {"empty", "/v1/completions", "", NULL, 400, "empty", "invalid_request_error", NULL, NULL, 0, 0},
    {"unknown", "/v1/completions", "{\"model\":\"unknown\"}", NULL, 404, "no model",
     "not_found_error", "model_not_found", NULL, 0, 0},
    {"loading", "/v1/completions", "{\"model\":\"loading\"}", NULL, 503, "not ready",
     "server_error", "service_unavailable", NULL, 0, 0},
    {"a full queue", "/v1/completions", "{\"model\":\"full\"}", NULL, 429, "wait",
     "rate_limit_error", "rate_limit_exceeded", NULL, 0, 0},
    {"refused by the replica", "/v1/completions", "{\"model\":\"bad\"}", NULL, 400, "max_tokens",
     "invalid_request_error", NULL, "bad", 0, 0},
    {"refused before the first part", "/v1/completions", "{\"model\":\"bad\",\"stream\":true}",
     NULL, 400, "max_tokens", "invalid_request_error", NULL, "bad", 0, 0},
    {"a lost replica", "/v1/completions", "{\"model\":\"lost\"}", NULL, 503, "lost", "server_error",
     "service_unavailable", "lost", 0, 0},
};

START_TEST(request)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    trm_http_exchange x;
    json_t *o, *e;

    kit_hub_start(&hub);
    hub.models = some_models;
    hub.model_count = SOME_MODELS;
    kit_exchange_init(&x, &g, requests[_i].body);
    x.key = "ann";
    if (requests[_i].timeout != NULL) {
        x.headers[0] = "x-request-timeout";
        x.headers[1] = requests[_i].timeout;
    }
    kit_call(&x, trmi_openai_routes(), "POST", requests[_i].pattern);
    kit_hub_stop(&hub);
    ck_assert_msg(x.status == requests[_i].status, "%s: %d %s", requests[_i].name, x.status, x.out);
    ck_assert_str_eq(x.type, "application/json");
    o = kit_json(&x);
    e = json_object_get(o, "error");
    if (x.status == 200) {
        ck_assert_msg(strstr(x.out, requests[_i].out) != NULL, "%s", x.out);
    } else {
        const char *code = json_string_value(json_object_get(e, "code"));

        ck_assert_ptr_nonnull(
            strstr(json_string_value(json_object_get(e, "message")), requests[_i].out));
        ck_assert_str_eq(json_string_value(json_object_get(e, "type")), requests[_i].type);
        ck_assert(json_is_null(json_object_get(e, "param")));
        ck_assert_str_eq(code != NULL ? code : "",
                         requests[_i].code != NULL ? requests[_i].code : "");
        ck_assert_int_eq(strstr(x.out_headers, "Retry-After: ") != NULL,
                         x.status == 429 || x.status == 503);
    }
    json_decref(o);
    ck_assert_int_eq(hub.submitted, requests[_i].model != NULL);
    kit_exchange_fini(&x);
}
END_TEST

START_TEST(what_the_hub_gets)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};

    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        trmi_openai_head h;
        char name[TRMI_OPENAI_MODEL_BYTES];
        int64_t version;

        if (requests[i].model == NULL || requests[i].status != 200)
            continue;
        kit_hub_start(&hub);
        hub.models = some_models;
        hub.model_count = SOME_MODELS;
        ck_assert_int_eq(trmi_openai_head_read(requests[i].body, strlen(requests[i].body), &h),
                         TRM_OK);
        ck_assert_int_eq(trmi_openai_resolve(&hub,
                                             strstr(requests[i].pattern, "embed") != NULL
                                                 ? TRM_REQUEST_EMBEDDINGS
                                                 : TRM_REQUEST_CHAT,
                                             h.model, name, &version),
                         TRM_OK);
        ck_assert_str_eq(name, requests[i].model);
        ck_assert_int_eq(version, requests[i].version);
        kit_hub_stop(&hub);
    }
    /* and the fields of a request */
    for (int i = 0; i < 2; i++) {
        trm_http_exchange x;
        int64_t deadline = trm_deadline_us(KIT_PATIENCE_MS);

        kit_hub_start(&hub);
        kit_exchange_init(&x, &g, "{\"model\":\"m\",\"priority\":7,\"stream\":true}");
        x.key = "ann";
        x.headers[0] = "X-Request-Timeout";
        x.headers[1] = "30";
        kit_call(&x, trmi_openai_routes(), "POST",
                 i == 0 ? "/v1/chat/completions" : "/v1/completions");
        pthread_mutex_lock(&hub.mu);
        while (hub.last == NULL && trm_now_us() < deadline) {
            pthread_mutex_unlock(&hub.mu);
            usleep(1000);
            pthread_mutex_lock(&hub.mu);
        }
        pthread_mutex_unlock(&hub.mu);
        ck_assert_int_eq(hub.last->kind, i == 0 ? TRM_REQUEST_CHAT : TRM_REQUEST_COMPLETIONS);
        ck_assert_int_eq(hub.last->priority, 7);
        ck_assert_uint_eq(hub.last->deadline_ms, 30000);
        ck_assert(hub.last->stream);
        ck_assert_str_eq(hub.last->owner, "ann");
        ck_assert_str_eq(hub.last->tag, "00c0ffee");
        kit_hub_stop(&hub);
        kit_exchange_fini(&x);
    }
}
END_TEST

/* ---- streams ---- */
static const struct {
    const char *model;
    bool deaf;
    const char *out; /* "%": begins with what is before it and ends with what is behind */
    int writes;
} streams[] = {
    {"good", false, "data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"n\":3}\n\ndata: [DONE]\n\n", 3},
    {"late", false,
     "data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: "
     "{\"error\":{\"message\":\"the replica was lost\",\"type\":\"server_error\",\"param\":null,"
     "\"code\":\"service_unavailable\"}}\n\ndata: [DONE]\n\n",
     4},
    {"good", true, "", 0},
};

START_TEST(stream)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    trm_http_exchange x;
    char body[64];

    kit_hub_start(&hub);
    snprintf(body, sizeof(body), "{\"model\":\"%s\",\"stream\":true}", streams[_i].model);
    kit_exchange_init(&x, &g, body);
    x.deaf = streams[_i].deaf;
    kit_call(&x, trmi_openai_routes(), "POST", "/v1/completions");
    kit_hub_stop(&hub);
    ck_assert_int_eq(x.status, 200);
    ck_assert_str_eq(x.type, "text/event-stream");
    ck_assert_str_eq(x.out_headers, "Cache-Control: no-cache\nX-Accel-Buffering: no\n");
    ck_assert_str_eq(x.out != NULL ? x.out : "", streams[_i].out);
    ck_assert_int_eq(x.writes, streams[_i].writes);
    ck_assert_int_eq(hub.cancels > 0, streams[_i].deaf);
    kit_exchange_fini(&x);
}
END_TEST

/* A client that goes away before its answer. */
START_TEST(gone)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    trm_http_exchange x;
    const trm_http_route *r = trmi_openai_routes().routes;

    kit_hub_start(&hub);
    hub.hold = true;
    kit_exchange_init(&x, &g, "{\"model\":\"good\",\"hold\":1}");
    while (strcmp(r->pattern, "/v1/completions") != 0)
        r++;
    r->handle(&g, &x);
    ck_assert_ptr_nonnull(x.gone);
    x.gone(x.gone_ctx);
    kit_exchange_wait(&x);
    ck_assert_int_eq(x.status, 499);
    ck_assert_int_eq(hub.cancels, 1);
    kit_hub_stop(&hub);
    kit_exchange_fini(&x);
}
END_TEST

/* ---- models ---- */
START_TEST(models)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    trm_http_exchange x;
    json_t *o, *data;
    static const char *const ids[] = {"bert", "good:1", "good", "good:2", "image"};

    kit_hub_start(&hub);
    hub.models = some_models;
    hub.model_count = SOME_MODELS;
    kit_exchange_init(&x, &g, NULL);
    kit_call(&x, trmi_openai_routes(), "GET", "/v1/models");
    ck_assert_int_eq(x.status, 200);
    o = kit_json(&x);
    data = json_object_get(o, "data");
    ck_assert_str_eq(json_string_value(json_object_get(o, "object")), "list");
    ck_assert_uint_eq(json_array_size(data), 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *m = json_array_get(data, i);

        ck_assert_str_eq(json_string_value(json_object_get(m, "id")), ids[i]);
        ck_assert_str_eq(json_string_value(json_object_get(m, "object")), "model");
        ck_assert_str_eq(json_string_value(json_object_get(m, "owned_by")), "trireme");
        ck_assert(json_is_true(json_object_get(m, "ready")));
    }
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(data, 2), "created")), 9);
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(data, 2), "max_model_len")),
                     256);
    ck_assert(json_is_null(json_object_get(json_array_get(data, 4), "max_model_len")));
    json_decref(o);
    kit_exchange_fini(&x);
    kit_hub_stop(&hub);
}
END_TEST

static const struct {
    const char *id;
    int status;
    bool ready;
} one_model[] = {
    {"good:1", 200, true},   {"bert", 200, true}, {"llama3:8", 200, false}, {"bad", 200, false},
    {"known", 404, false},   {"x", 404, false},   {"good:9", 404, false},   {"good:0", 404, false},
    {"good:1x", 404, false}, {":1", 404, false},
};

START_TEST(model)
{
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    trm_http_exchange x;
    json_t *o;

    kit_hub_start(&hub);
    hub.models = some_models;
    hub.model_count = SOME_MODELS;
    kit_exchange_init(&x, &g, NULL);
    x.names[0] = "model";
    x.names[1] = one_model[_i].id;
    kit_call(&x, trmi_openai_routes(), "GET", "/v1/models/{model...}");
    ck_assert_int_eq(x.status, one_model[_i].status);
    o = kit_json(&x);
    if (x.status == 200) {
        ck_assert_str_eq(json_string_value(json_object_get(o, "id")), one_model[_i].id);
        ck_assert_int_eq(json_is_true(json_object_get(o, "ready")), one_model[_i].ready);
    } else {
        ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "error"), "code")),
                         "model_not_found");
    }
    json_decref(o);
    kit_exchange_fini(&x);
    kit_hub_stop(&hub);
}
END_TEST

/* Messages may hold anything. */
START_TEST(error_text)
{
    static const char *const messages[] = {"", "plain", "\"quoted\"\n", "caf\xc3\xa9", "cut \xc3"};

    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++)
        for (int status = 400; status < 600; status += 1) {
            char *text = trmi_openai_error(status, messages[i]);
            json_t *o = json_loads(text, 0, NULL);

            ck_assert(json_is_string(json_object_get(json_object_get(o, "error"), "message")));
            json_decref(o);
            trm_free(text);
        }
}
END_TEST

/* Each allocation fails once: every request is answered, nothing is kept. */
START_TEST(no_memory)
{
    static const char *const bodies[] = {
        "{\"model\":\"good\"}", "{\"model\":\"good:2\",\"stream\":true}", "{}",
        "{\"model\":\"bad\"}", "{\"model\":\"late\",\"stream\":true}"};
    trm_hub hub;
    trm_gateway g = {.hub = &hub};
    int64_t live = trm_alloc_live();

    kit_hub_start(&hub);
    hub.models = some_models;
    hub.model_count = SOME_MODELS;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        for (int n = 0; n < 24; n++) {
            trm_http_exchange x;

            kit_exchange_init(&x, &g, bodies[i]);
            trm_alloc_fail_after(n);
            kit_call(&x, trmi_openai_routes(), "POST", "/v1/completions");
            trm_alloc_fail_after(-1);
            ck_assert_msg(x.status == 200 || x.status == 503 || x.status == 400, "%d %s", x.status,
                          x.out);
            kit_exchange_fini(&x);
        }
    kit_hub_stop(&hub);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("openai");
    TCase *tc = tcase_create("all");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, head, 0, sizeof(heads) / sizeof(heads[0]));
    tcase_add_test(tc, deep_body);
    tcase_add_test(tc, as_jansson);
    tcase_add_loop_test(tc, request, 0, sizeof(requests) / sizeof(requests[0]));
    tcase_add_test(tc, what_the_hub_gets);
    tcase_add_loop_test(tc, stream, 0, sizeof(streams) / sizeof(streams[0]));
    tcase_add_test(tc, gone);
    tcase_add_test(tc, models);
    tcase_add_loop_test(tc, model, 0, sizeof(one_model) / sizeof(one_model[0]));
    tcase_add_test(tc, error_text);
    tcase_add_test(tc, no_memory);
    suite_add_tcase(s, tc);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
