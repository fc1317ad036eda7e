/* Tools that requests offer, what forces a call, and how templates tell of earlier calls. */
#define _GNU_SOURCE
#include "worker/language/request.h"

#include "base/file.h"
#include "base/memory.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define TEMPLATES TRM_SOURCE_DIR "/tests/data/templates/"
#define H TRM_TOOLS_HERMES
#define L TRM_TOOLS_LLAMA
#define M TRM_TOOLS_MISTRAL
#define J TRM_TOOLS_JSON

#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define NAMED(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"

static const struct {
    const char *name, *body;
    trm_status status;
    const char *says; /* or, of what is good, the constraint; "": none; NULL: no tools */
} bodies[] = {
    {"none", "{}", TRM_OK, NULL},
    {"an empty list", "{\"tools\":[]}", TRM_OK, NULL},
    {"null", "{\"tools\":null,\"tool_choice\":null}", TRM_OK, NULL},
    {"auto", "{\"tools\":[" TOOL("add") "],\"tool_choice\":\"auto\"}", TRM_OK, ""},
    {"by default", "{\"tools\":[" TOOL("add") "],\"parallel_tool_calls\":false}", TRM_OK, ""},
    {"no calls", "{\"tools\":[" TOOL("add") "],\"tool_choice\":\"none\"}", TRM_OK, NULL},
    {"required", "{\"tools\":[" TOOL("add") "],\"tool_choice\":\"required\"}", TRM_OK,
     "{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{"
     "\"const\":"
     "\"add\"},\"arguments\":{\"$ref\":\"#/$defs/f0\"}},\"required\":[\"name\",\"arguments\"],"
     "\"additionalProperties\":false,\"$defs\":{\"f0\":{\"type\":\"object\"}}}}"},
    {"named, with references",
     "{\"tools\":[" TOOL("add") ",{\"function\":{\"name\":\"sub\",\"parameters\":{\"type\":"
                                "\"object\",\"properties\":{\"a\":{\"$ref\":\"#/$defs/"
                                "n\"},\"b\":{\"$ref\":\"#\"}},\"$defs\":"
                                "{\"n\":{\"type\":\"integer\"}}}}}],\"tool_choice\":" NAMED(
                                    "sub") "}",
     TRM_OK,
     "{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"name\":{"
     "\"const\":"
     "\"sub\"},\"arguments\":{\"$ref\":\"#/$defs/f1\"}},\"required\":[\"name\",\"arguments\"],"
     "\"additionalProperties\":false,\"$defs\":{\"f1\":{\"type\":\"object\",\"properties\":{\"a\":{"
     "\"$ref\":\"#/$defs/f1/$defs/n\"},\"b\":{\"$ref\":\"#/$defs/f1\"}},\"$defs\":{\"n\":{\"type\":"
     "\"integer\"}}}}}}"},
    {"required of two",
     "{\"tools\":[" TOOL("add") "," TOOL("sub") "],\"tool_choice\":\"required\"}", TRM_OK,
     "{\"type\":\"json_schema\",\"schema\":{\"anyOf\":[{\"type\":\"object\",\"properties\":{"
     "\"name\":"
     "{\"const\":\"add\"},\"arguments\":{\"$ref\":\"#/$defs/f0\"}},\"required\":[\"name\","
     "\"arguments\"],\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{\"name\":"
     "{"
     "\"const\":\"sub\"},\"arguments\":{\"$ref\":\"#/$defs/f1\"}},\"required\":[\"name\","
     "\"arguments\"],\"additionalProperties\":false}],\"$defs\":{\"f0\":{\"type\":\"object\"},"
     "\"f1\":"
     "{\"type\":\"object\"}}}}"},
    {"required of none", "{\"tool_choice\":\"required\"}", TRM_ERR_INVALID_ARG, "want 'tools'"},
    {"an unknown name", "{\"tools\":[" TOOL("add") "],\"tool_choice\":" NAMED("sub") "}",
     TRM_ERR_INVALID_ARG, "no tool has that name"},
    {"a choice of nothing", "{\"tools\":[" TOOL("add") "],\"tool_choice\":\"any\"}",
     TRM_ERR_INVALID_ARG, "'tool_choice'"},
    {"a choice without a name",
     "{\"tools\":[" TOOL("add") "],\"tool_choice\":{\"type\":\"function\"}}", TRM_ERR_INVALID_ARG,
     "'tool_choice'"},
    {"no list", "{\"tools\":{}}", TRM_ERR_INVALID_ARG, "'tools': want a list"},
    {"no object", "{\"tools\":[5]}", TRM_ERR_INVALID_ARG, "tool 0"},
    {"no name", "{\"tools\":[" TOOL("add") ",{\"type\":\"function\"}]}", TRM_ERR_INVALID_ARG,
     "tool 1"},
    {"a bad name", "{\"tools\":[" TOOL("a b") "]}", TRM_ERR_INVALID_ARG, "tool 0"},
    {"twice", "{\"tools\":[" TOOL("add") "," TOOL("add") "]}", TRM_ERR_INVALID_ARG, "no other"},
    {"parameters", "{\"tools\":[{\"function\":{\"name\":\"a\",\"parameters\":[]}}]}",
     TRM_ERR_INVALID_ARG, "schema"},
    {"another type", "{\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"a\"}}]}",
     TRM_ERR_UNSUPPORTED, "tool 0"},
    {"parallel", "{\"tools\":[" TOOL("add") "],\"parallel_tool_calls\":1}", TRM_ERR_INVALID_ARG,
     "'parallel_tool_calls'"},
};

START_TEST(requests_are_read)
{
    trm_language l = {0};
    json_error_t error;
    json_t *body = json_loads(bodies[_i].body, 0, &error), *want;
    trm_tools *t = NULL;
    trm_status st;

    ck_assert_msg(body != NULL, "%s", error.text);
    st = trm_tools_read(&l, "json", body, false, &t);
    ck_assert_msg(st == bodies[_i].status, "%s: %s", bodies[_i].name, trm_message());
    if (st != TRM_OK) {
        ck_assert_msg(strstr(trm_message(), bodies[_i].says) != NULL, "%s", trm_message());
    } else if (bodies[_i].says == NULL) {
        ck_assert_ptr_null(t);
    } else {
        ck_assert_ptr_nonnull(t);
        ck_assert_int_eq(t->forced, bodies[_i].says[0] != '\0');
        want = json_loads(bodies[_i].says, 0, NULL);
        ck_assert_int_eq(want != NULL, t->forced);
        if (want != NULL) {
            char *got = json_dumps(t->constraint, JSON_COMPACT);

            ck_assert_msg(json_equal(want, t->constraint), "%s", got);
            free(got);
        }
        json_decref(want);
    }
    trm_tools_destroy(t);
    json_decref(body);
}
END_TEST

START_TEST(forced_hermes_is_tagged)
{
    trm_language l = {0};
    json_t *body =
        json_loads("{\"tools\":[" TOOL("add") "],\"tool_choice\":\"required\"}", 0, NULL);
    trm_tools *t = NULL;

    OK(trm_tools_read(&l, "hermes", body, false, &t));
    ck_assert_str_eq(json_string_value(json_object_get(t->constraint, "type")), "tagged");
    ck_assert_str_eq(json_string_value(json_object_get(t->constraint, "begin")), "<tool_call>\n");
    ck_assert_str_eq(json_string_value(json_object_get(t->constraint, "end")), "\n</tool_call>");
    trm_tools_destroy(t);
    OK(trm_tools_read(&l, "none", body, false, &t)); /* forced all the same */
    ck_assert_int_eq(t->format, TRM_TOOLS_JSON);
    trm_tools_destroy(t);
    json_decref(body);
}
END_TEST

static const struct {
    const char *file;
    trm_tool_format format;
} templates[] = {
    {"qwen2.5", H},      {"qwen3", H},       {"granite-4.0", H},
    {"mistral-nemo", M}, {"ministral-3", M}, {"own-chatml", J},
};

static char *read_template(const char *name)
{
    char path[512], *text;
    trm_file *file;

    snprintf(path, sizeof(path), TEMPLATES "%s.jinja", name);
    OK(trm_file_open(path, &file));
    text = malloc(trm_file_bytes(file) + 1);
    ck_assert_ptr_nonnull(text);
    memcpy(text, trm_file_data(file), trm_file_bytes(file));
    text[trm_file_bytes(file)] = '\0';
    trm_file_unref(file);
    return text;
}

START_TEST(templates_tell_the_format)
{
    char *text = read_template(templates[_i].file);
    trm_language l = {.chat_text = text};
    trm_tool_format format;

    OK(trm_tool_format_of("auto", &l, &format));
    ck_assert_int_eq(format, templates[_i].format);
    OK(trm_tool_format_of("llama", &l, &format));
    ck_assert_int_eq(format, L);
    ck_assert_int_eq(trm_tool_format_of("xml", &l, &format), TRM_ERR_INVALID_ARG);
    free(text);
}
END_TEST

/* ---- conversations with calls in them ---- */

#define CONVERSATION(arguments)                                                                    \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Nice?\"},{\"role\":\"assistant\","            \
    "\"content\":"                                                                                 \
    "null,\"tool_calls\":[{\"id\":\"call_00001\",\"type\":\"function\",\"function\":{\"name\":"    \
    "\"get_weather\",\"arguments\":" arguments "}}]},{\"role\":\"tool\",\"tool_call_id\":"         \
    "\"call_00001\",\"content\":\"21 C\"}],\"tools\":[{\"type\":\"function\",\"function\":{"       \
    "\"name\":\"get_weather\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","          \
    "\"properties\":{\"city\":{\"type\":\"string\"}}}}}]}"

static const struct {
    const char *file, *want[3];
} conversations[] = {
    {"qwen2.5",
     {"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Nice\"}}\n</tool_call>",
      "<tool_response>\n21 C\n</tool_response>", "<tools>\n{\"type\": \"function\""}},
    {"qwen3",
     {"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Nice\"}}\n</tool_call>",
      "<tool_response>\n21 C\n</tool_response>", "get_weather"}},
    {"granite-4.0", {"\"arguments\": {\"city\": \"Nice\"}", "21 C", "get_weather"}},
    {"ministral-3",
     {"[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Nice\"}", "21 C", "[AVAILABLE_TOOLS]"}},
};

static char *prompt_of(const trm_language *l, const char *text, const char *format)
{
    trm_lm_request_defaults d = {.name = "m", .tool_format = format, .now = 1700000000};
    json_error_t error;
    json_t *body = json_loads(text, 0, &error);
    trm_lm_request *r;
    char *prompt;

    ck_assert_msg(body != NULL, "%s", error.text);
    trm_sampling_init(&d.sampling);
    OK(trm_lm_request_read(l, TRM_LM_CHAT, body, &d, &r));
    prompt = strdup(r->prompts[0].text);
    trm_lm_request_destroy(r);
    json_decref(body);
    return prompt;
}

START_TEST(earlier_calls_are_told)
{
    char *source = read_template(conversations[_i].file), *a, *b;
    trm_language l = {.chat_text = source, .config = {.vocabulary = 4096}};
    trm_file *file;

    OK(trm_file_open(TRM_SOURCE_DIR "/configs/demo/tiny-sotu/tokenizer.json", &file));
    OK(trm_tokenizer_from_json("tokenizer.json", trm_file_data(file), trm_file_bytes(file),
                               &l.tokenizer));
    OK(trm_template_compile("t", source, strlen(source), &l.chat));
    a = prompt_of(&l, CONVERSATION("\"{\\\"city\\\": \\\"Nice\\\"}\""), "auto");
    b = prompt_of(&l, CONVERSATION("{\"city\": \"Nice\"}"), "auto");
    ck_assert_str_eq(a, b); /* as text or as an object */
    for (int i = 0; i < 3; i++)
        ck_assert_msg(strstr(a, conversations[_i].want[i]) != NULL, "%s: no '%s' in\n%s",
                      conversations[_i].file, conversations[_i].want[i], a);
    free(b);
    /* a call that is no JSON is told as it was */
    b = prompt_of(&l, CONVERSATION("\"{city\""), "auto");
    ck_assert_ptr_nonnull(strstr(b, "{city"));
    free(a);
    free(b);
    free(source);
    trm_template_destroy(l.chat);
    trm_tokenizer_destroy(l.tokenizer);
    trm_file_unref(file);
}
END_TEST

/* A template that joins arguments as text gets them as text. */
START_TEST(templates_that_want_text)
{
    static const char source[] =
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ '<' + c.function.name + ' ' + "
        "c.function.arguments + '>' }}{% endfor %}{{ m.content or '' }}{% endfor %}{% if tools "
        "%}T{% "
        "endif %}";
    trm_language l = {.config = {.vocabulary = 4096}};
    trm_file *file;
    char *p;

    OK(trm_file_open(TRM_SOURCE_DIR "/configs/demo/tiny-sotu/tokenizer.json", &file));
    OK(trm_tokenizer_from_json("tokenizer.json", trm_file_data(file), trm_file_bytes(file),
                               &l.tokenizer));
    OK(trm_template_compile("t", source, strlen(source), &l.chat));
    OK(trm_template_compile("t", "other {{ tools | length }}", 26, &l.chat_tools));
    p = prompt_of(&l, CONVERSATION("\"{}\""), "auto");
    ck_assert_str_eq(p, "other 1"); /* requests with tools have a template of their own */
    free(p);
    trm_template_destroy(l.chat_tools);
    l.chat_tools = NULL;
    p = prompt_of(&l, CONVERSATION("\"{}\""), "auto");
    ck_assert_str_eq(p, "Nice?<get_weather {}>21 CT");
    free(p);
    trm_template_destroy(l.chat);
    trm_tokenizer_destroy(l.tokenizer);
    trm_file_unref(file);
}
END_TEST

#define ROWS(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
    Suite *s = suite_create("tools of requests");
    TCase *c = tcase_create("calls");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, requests_are_read, 0, ROWS(bodies));
    tcase_add_test(c, forced_hermes_is_tagged);
    tcase_add_loop_test(c, templates_tell_the_format, 0, ROWS(templates));
    tcase_add_loop_test(c, earlier_calls_are_told, 0, ROWS(conversations));
    tcase_add_test(c, templates_that_want_text);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
