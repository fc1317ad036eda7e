/* Requests that say what their answers must be, served by a small model: the answers are it, whole
 * and streamed; what cannot be is refused. */
#include "tests/worker/grammar_kit.h"
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

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"Fellow citizens\"}]"
#define SCHEMA                                                                                     \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":9},\"age\":" \
    "{\"type\":\"integer\",\"minimum\":1,\"maximum\":99}},\"required\":[\"name\",\"age\"]}"
#define AS_SCHEMA "{\"type\":\"json_schema\",\"schema\":" SCHEMA "}"
#define FORMAT                                                                                     \
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"p\",\"strict\":"    \
    "true,\"schema\":" SCHEMA "}}"

static const struct {
    const char *name;
    trm_request_kind kind;
    const char *body, *what;
} good[] = {
    {"schema", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"max_tokens\":90,\"seed\":1," FORMAT "}", AS_SCHEMA},
    {"schema, hot", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"max_tokens\":90,\"seed\":1,\"temperature\":5,\"n\":4," FORMAT "}",
     AS_SCHEMA},
    {"schema, greedy", TRM_REQUEST_CHAT,
     "{" HELLO ",\"max_tokens\":90,\"temperature\":0," FORMAT "}", AS_SCHEMA},
    {"ends are not ignored, nor waited for", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"max_tokens\":90,\"min_tokens\":80,\"ignore_eos\":true,\"seed\":1," FORMAT
     "}",
     AS_SCHEMA},
    {"penalties, bias, logprobs", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"max_tokens\":90,\"seed\":2,\"top_p\":0.9,\"repetition_penalty\":1.5,"
     "\"presence_penalty\":1,"
     "\"logit_bias\":{\"5\":100,\"125\":-100},\"logprobs\":5," FORMAT "}",
     AS_SCHEMA},
    {"choice", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"seed\":1,\"guided_choice\":[\"yes\",\"no\"]}",
     "{\"type\":\"choice\",\"choice\":[\"yes\",\"no\"]}"},
    {"regex", TRM_REQUEST_COMPLETIONS,
     "{\"prompt\":\"My\",\"seed\":1,\"guided_regex\":\"[a-c]{2,4}\"}",
     "{\"type\":\"regex\",\"regex\":\"[a-c]{2,4}\"}"},
    {"guided_json", TRM_REQUEST_CHAT,
     "{" HELLO ",\"seed\":1,\"max_tokens\":90,\"guided_json\":" SCHEMA "}", AS_SCHEMA},
    {"guided_json as text", TRM_REQUEST_CHAT,
     "{" HELLO ",\"seed\":1,\"max_tokens\":90,\"guided_json\":\"{\\\"type\\\":\\\"boolean\\\"}\"}",
     "{\"type\":\"json_schema\",\"schema\":{\"type\":\"boolean\"}}"},
    {"structured outputs", TRM_REQUEST_CHAT,
     "{" HELLO ",\"seed\":1,\"max_tokens\":90,\"structured_outputs\":{\"json\":" SCHEMA
     ",\"regex\":null}}",
     AS_SCHEMA},
    {"text is anything", TRM_REQUEST_CHAT,
     "{" HELLO ",\"seed\":1,\"max_tokens\":3,\"response_format\":{\"type\":\"text\"}}", NULL},
};

static const char *text_of(const json_t *choice)
{
    const json_t *message = json_object_get(choice, "message");

    return json_string_value(message != NULL ? json_object_get(message, "content")
                                             : json_object_get(choice, "text"));
}

/* All pieces of a streamed choice. */
static char *streamed_text(const char *lines)
{
    char *text = calloc(strlen(lines) + 1, 1), *copy = strdup(lines), *save = NULL;

    ck_assert(text != NULL && copy != NULL);
    for (char *line = strtok_r(copy, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *j = json_loads(line, 0, NULL);
        const json_t *c = json_array_get(json_object_get(j, "choices"), 0),
                     *delta = json_object_get(c, "delta");
        const char *piece = json_string_value(delta != NULL ? json_object_get(delta, "content")
                                                            : json_object_get(c, "text"));

        if (json_integer_value(json_object_get(c, "index")) == 0 && piece != NULL)
            strcat(text, piece);
        json_decref(j);
    }
    free(copy);
    return text;
}

START_TEST(answers_are_what_they_must_be)
{
    trm_token_trie *t = kit_bytes_trie();
    trm_grammar *g = NULL;
    const answer *a = serve_one(&v, 1, good[_i].kind, good[_i].body, false);
    const json_t *c;
    json_t *whole;
    char *text;
    size_t i;

    ck_assert_msg(a->a.status == TRM_OK, "%s: %s", good[_i].name, a->message);
    whole = json_loads(a->body, 0, NULL);
    if (good[_i].what != NULL)
        ck_assert_int_eq(kit_compile(good[_i].what, &g), TRM_OK);
    json_array_foreach(json_object_get(whole, "choices"), i, c)
    {
        const char *s = text_of(c);

        if (g == NULL)
            continue;
        ck_assert_msg(kit_takes(g, t, s, strlen(s)), "%s: %s", good[_i].name, s);
        ck_assert_str_eq(json_string_value(json_object_get(c, "finish_reason")), "stop");
    }
    a = serve_one(&v, 2, good[_i].kind, good[_i].body, true);
    ck_assert_msg(a->a.status == TRM_OK, "%s: %s", good[_i].name, a->message);
    text = streamed_text(a->lines);
    ck_assert_str_eq(text, text_of(json_array_get(json_object_get(whole, "choices"), 0)));
    free(text);
    json_decref(whole);
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
}
END_TEST

static const struct {
    const char *name, *body;
    trm_status status;
    const char *says;
} bad[] = {
    {"type", "{" HELLO ",\"response_format\":{\"type\":\"xml\"}}", TRM_ERR_INVALID_ARG,
     "'response_format' of type 'xml'"},
    {"no schema", "{" HELLO ",\"response_format\":{\"type\":\"json_schema\"}}", TRM_ERR_INVALID_ARG,
     "json_schema"},
    {"place",
     "{" HELLO ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{"
     "\"properties\":{\"a\":{\"type\":1}}}}}}",
     TRM_ERR_INVALID_ARG, "'response_format': schema '#/properties/a'"},
    {"keyword", "{" HELLO ",\"guided_json\":{\"not\":{}}}", TRM_ERR_UNSUPPORTED,
     "'guided_json': schema '#': 'not'"},
    {"not JSON", "{" HELLO ",\"guided_json\":\"{\"}", TRM_ERR_INVALID_ARG,
     "'guided_json' is no JSON"},
    {"twice", "{" HELLO ",\"guided_choice\":[\"a\"],\"guided_regex\":\"b\"}", TRM_ERR_INVALID_ARG,
     "said twice"},
    {"grammar", "{" HELLO ",\"structured_outputs\":{\"grammar\":\"root ::= a\"}}",
     TRM_ERR_UNSUPPORTED, "'grammar'"},
    {"old grammar", "{" HELLO ",\"guided_grammar\":\"root ::= a\"}", TRM_ERR_UNSUPPORTED,
     "guided_grammar"},
    {"no choice", "{" HELLO ",\"guided_choice\":[]}", TRM_ERR_INVALID_ARG, "'guided_choice'"},
};

START_TEST(bad_formats_are_refused)
{
    const answer *g = serve_one(&v, 1, TRM_REQUEST_CHAT, bad[_i].body, _i % 2 == 0);

    ck_assert_msg(g->a.status == bad[_i].status && strstr(g->message, bad[_i].says) != NULL,
                  "%s: %s: %s", bad[_i].name, trm_status_name(g->a.status), g->message);
}
END_TEST

/* A text that is cut by max_tokens says so. */
START_TEST(cut_short)
{
    const answer *g = serve_one(
        &v, 1, TRM_REQUEST_CHAT,
        "{" HELLO ",\"max_tokens\":4,\"response_format\":{\"type\":\"json_object\"}}", false);
    json_t *whole = json_loads(g->body, 0, NULL);
    const json_t *c = json_array_get(json_object_get(whole, "choices"), 0);

    ck_assert_str_eq(json_string_value(json_object_get(c, "finish_reason")), "length");
    ck_assert_int_eq(text_of(c)[0], '{');
    json_decref(whole);
}
END_TEST

/* Whichever allocation fails, on the way in or where tokens are drawn: one answer, and the next is
 * well. */
START_TEST(no_memory_is_answered)
{
    for (int64_t n = 0; n < 1200; n += 1 + n / 12) {
        char body[600];
        const answer *g;

        /* another schema each time: nothing of it is kept from before */
        snprintf(
            body, sizeof(body),
            "{\"prompt\":\"My\",\"max_tokens\":90,\"seed\":1,\"guided_json\":{\"type\":\"object\","
            "\"properties\":{\"a%d\":{\"type\":\"integer\"}},\"required\":[\"a%d\"]}}",
            (int)n, (int)n);
        trm_alloc_fail_after(n);
        serve_submit(&v, 1, TRM_REQUEST_COMPLETIONS, body, false);
        serve_run(&v);
        trm_alloc_fail_after(-1);
        g = &v.got[1];
        ck_assert_int_eq(g->answers, 1);
        ck_assert_msg(g->a.status == TRM_OK || g->a.status == TRM_ERR_NO_MEMORY ||
                          g->a.status == TRM_ERR_INTERNAL,
                      "%d: %s: %s", (int)n, trm_status_name(g->a.status), g->message);
        serve_forget(&v);
        ck_assert_int_eq(serve_one(&v, 1, TRM_REQUEST_COMPLETIONS, body, false)->a.status, TRM_OK);
        serve_forget(&v);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("response_format");
    TCase *c = tcase_create("served");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, open_chat, close_it);
    tcase_add_loop_test(c, answers_are_what_they_must_be, 0, (int)(sizeof(good) / sizeof(good[0])));
    tcase_add_loop_test(c, bad_formats_are_refused, 0, (int)(sizeof(bad) / sizeof(bad[0])));
    tcase_add_test(c, cut_short);
    tcase_add_test(c, no_memory_is_answered);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
