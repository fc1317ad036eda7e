/* Tool calls as models write them, in each format, cut at every byte; and what answers make of
 * them. */
#define _GNU_SOURCE
#include "worker/language/request.h"
#include "worker/language/stream.h"

#include "base/memory.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

static char weather[] = "get_weather", add[] = "add";
static char *names[] = {weather, add};

/* ---- what models write ---- */

/* What came out: "text|name(arguments)|name(arguments)". */
typedef struct seen {
    char content[4096], calls[4096];
    int count;
} seen;

static void see(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes)
{
    seen *s = ctx;
    char *to = event == TRM_TOOL_TEXT ? s->content : s->calls;
    size_t at = strlen(to);

    ck_assert_uint_gt(bytes, 0);
    ck_assert_uint_lt(at + bytes + 4, sizeof(s->content));
    if (event == TRM_TOOL_CALL) {
        ck_assert_int_eq(call, s->count);
        s->count++;
        snprintf(to + at, sizeof(s->calls) - at, "|%.*s:", (int)bytes, text);
        return;
    }
    ck_assert(event == TRM_TOOL_TEXT || call == s->count - 1);
    memcpy(to + at, text, bytes);
    to[at + bytes] = '\0';
}

#define NICE "{\"city\": \"Nice\"}"
#define CALL "{\"name\": \"get_weather\", \"arguments\": " NICE "}"
#define ADD "{\"name\":\"add\",\"arguments\":{\"a\":[1,{\"b\":\"}]\\\"\"}]}}"
#define ADD_ARGS "{\"a\":[1,{\"b\":\"}]\\\"\"}]}"
#define H TRM_TOOLS_HERMES
#define L TRM_TOOLS_LLAMA
#define M TRM_TOOLS_MISTRAL
#define J TRM_TOOLS_JSON

static const struct {
    const char *name;
    trm_tool_format format;
    const char *text, *content, *calls;
} outputs[] = {
    {"hermes", H, "<tool_call>\n" CALL "\n</tool_call>", "", "|get_weather:" NICE},
    {"hermes, text before", H, "Let me see.\n\n<tool_call>" CALL "</tool_call>\n", "Let me see.",
     "|get_weather:" NICE},
    {"hermes, two", H, "<tool_call>\n" CALL "\n</tool_call>\n<tool_call>\n" ADD "\n</tool_call>",
     "", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"hermes, two, one wanted", H,
     "<tool_call>\n" CALL "\n</tool_call>\n<tool_call>\n" ADD "\n</tool_call>", "",
     "|get_weather:" NICE},
    {"hermes, end marks left out", H, "<tool_call>" CALL "\n<tool_call>" ADD, "",
     "|get_weather:" NICE "|add:" ADD_ARGS},
    {"hermes, a list", H, "<tool_call>[" CALL ", " ADD "]</tool_call>", "",
     "|get_weather:" NICE "|add:" ADD_ARGS},
    {"hermes, arguments first", H,
     "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"add\"}</tool_call>", "",
     "|add:{\"a\": 1}"},
    {"hermes, arguments as text", H,
     "<tool_call>{\"name\":\"add\",\"arguments\":\"{\\\"a\\\": \\\"\\u00e9\\\"}\"}</tool_call>", "",
     "|add:{\"a\": \"\xc3\xa9\"}"},
    {"hermes, arguments as text first", H,
     "<tool_call>{\"arguments\":\"{\\\"a\\\":1}\",\"name\":\"add\"}</tool_call>", "",
     "|add:{\"a\":1}"},
    {"hermes, no arguments", H, "<tool_call>{\"name\": \"add\"}</tool_call>", "", "|add:{}"},
    {"hermes, null arguments", H, "<tool_call>{\"name\":\"add\",\"arguments\":null}</tool_call>",
     "", "|add:{}"},
    {"hermes, other keys", H,
     "<tool_call>{\"id\": 7.5, \"x\": [\"]\", {}], \"name\": \"add\", \"type\": \"function\", "
     "\"arguments\": {}, \"y\": true}</tool_call>",
     "", "|add:{}"},
    {"hermes, keys twice", H,
     "<tool_call>{\"name\":\"add\",\"name\":\"x\",\"arguments\":{},\"arguments\":{\"a\":1}}"
     "</tool_call>",
     "", "|add:{}"},
    {"hermes, OpenAI's own form", H,
     "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":{\"a\":1}}}"
     "</tool_call>",
     "", "|add:{\"a\":1}"},
    {"hermes, a name nobody knows", H, "<tool_call>{\"name\":\"sub\",\"arguments\":{}}</tool_call>",
     "", "|sub:{}"},
    {"hermes, an escaped name", H,
     "<tool_call>{\"name\":\"\\u0061dd\",\"arguments\":{}}</tool_call>", "", "|add:{}"},
    {"hermes, text between and behind", H,
     "One <tool_call>" CALL "</tool_call> two <tool_call>" ADD "</tool_call> three ",
     "One two three", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"hermes, no call", H, "x < y, <b>, <tool>, <tool_cal l> ", "x < y, <b>, <tool>, <tool_cal l> ",
     ""},
    {"hermes, marks inside a mark", H, "<tool_<tool_call>" CALL "</tool_call>", "<tool_",
     "|get_weather:" NICE},
    {"hermes, braces are text", H, CALL, CALL, ""},
    {"hermes, XML inside", H, "<tool_call>\n<function=add>\n</function>\n</tool_call>",
     "<tool_call>\n<function=add>\n</function>\n</tool_call>", ""},
    {"hermes, an end mark alone", H, "a</tool_call>b", "a</tool_call>b", ""},
    {"hermes, a wrong end mark", H, "<tool_call>" ADD "</tool_cart>", "</tool_cart>",
     "|add:" ADD_ARGS},
    {"hermes, no name", H, "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
     "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>", ""},
    {"hermes, empty name", H, "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>",
     "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>", ""},
    {"hermes, a number as name", H, "<tool_call>{\"name\": 5}</tool_call>",
     "<tool_call>{\"name\": 5}</tool_call>", ""},
    {"hermes, a name that is cut", H, "ab <tool_call>{\"name\": \"ad",
     "ab <tool_call>{\"name\": \"ad", ""},
    {"hermes, arguments that are cut", H, "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":[1,",
     "", "|add:{\"a\":[1,"},
    {"hermes, cut before the arguments", H, "<tool_call>{\"name\":\"add\",\"argum",
     "<tool_call>{\"name\":\"add\",\"argum", ""},
    {"hermes, brackets that do not fit", H,
     "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":[1}}</tool_call>", "}}</tool_call>",
     "|add:{\"a\":[1"},
    {"hermes, not JSON", H, "<tool_call>{name: add}</tool_call>",
     "<tool_call>{name: add}</tool_call>", ""},
    {"hermes, a comma too many", H, "<tool_call>{\"name\":\"add\",,}</tool_call>",
     "<tool_call>{\"name\":\"add\",,}</tool_call>", ""},
    {"hermes, white space alone", H, " \n ", " \n ", ""},
    {"hermes, nothing", H, "", "", ""},
    {"llama", L, "{\"name\": \"get_weather\", \"parameters\": " NICE "}", "", "|get_weather:" NICE},
    {"llama, marked", L, "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": " NICE "}", "",
     "|get_weather:" NICE},
    {"llama, two", L, "\n" CALL "; " ADD, "", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"llama, two lines", L, CALL "\n" ADD, "", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"llama, type function", L,
     "{\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": \"1\"}}", "",
     "|add:{\"a\": \"1\"}"},
    {"llama, function as the name", L, "{\"function\": \"add\", \"parameters\": {}}", "",
     "|add:{}"},
    {"llama, code", L, "<|python_tag|>print(1)", "<|python_tag|>print(1)", ""},
    {"llama, a name nobody knows", L, "{\"name\": \"Bob\", \"parameters\": {}}",
     "{\"name\": \"Bob\", \"parameters\": {}}", ""},
    {"llama, other JSON", L, "{\"answer\": [1, 2]}\n", "{\"answer\": [1, 2]}\n", ""},
    {"llama, a list is text", L, "[" CALL "]", "[" CALL "]", ""},
    {"llama, braces later", L, "So: " CALL, "So: " CALL, ""},
    {"llama, text behind", L, CALL " done", "done", "|get_weather:" NICE},
    {"mistral", M, "[TOOL_CALLS][" CALL ", " ADD "]", "", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"mistral, white space", M, "[TOOL_CALLS] [ " CALL " ] ", "", "|get_weather:" NICE},
    {"mistral, one object", M, "[TOOL_CALLS]" CALL, "", "|get_weather:" NICE},
    {"mistral, by name", M, "[TOOL_CALLS]get_weather" NICE "[TOOL_CALLS]add{}", "",
     "|get_weather:" NICE "|add:{}"},
    {"mistral, arguments marked", M, "Hm. [TOOL_CALLS]get_weather[ARGS]" NICE, "Hm.",
     "|get_weather:" NICE},
    {"mistral, an id too", M, "[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{\"a\": 1}", "",
     "|add:{\"a\": 1}"},
    {"mistral, text", M, "[TOOL] [1] [TOOL_CALLS] none, sorry.",
     "[TOOL] [1] [TOOL_CALLS] none, sorry.", ""},
    {"mistral, an empty list", M, "[TOOL_CALLS][]", "[TOOL_CALLS][]", ""},
    {"mistral, braces are text", M, CALL, CALL, ""},
    {"mistral, forced", M, CALL, "", "|get_weather:" NICE},
    {"json", J, CALL, "", "|get_weather:" NICE},
    {"json, list", J, " [" CALL ",\n" ADD "]", "", "|get_weather:" NICE "|add:" ADD_ARGS},
    {"json, list of others", J, "[1, 2]", "[1, 2]", ""},
    {"json, list of other objects", J, "[{\"name\": \"Bob\"}]", "[{\"name\": \"Bob\"}]", ""},
    {"json, a bracket", J, "[", "[", ""},
    {"json, marked as others do", J, "a <tool_call>" CALL "</tool_call>", "a",
     "|get_weather:" NICE},
    {"json, granite", J, "<|tool_call|>[" CALL "]", "", "|get_weather:" NICE},
    {"json, prose", J, "The {\"name\": \"add\"} object", "The {\"name\": \"add\"} object", ""},
    {"json, a square word", J, "[ZERO] " CALL, "[ZERO] " CALL, ""},
};
enum { OUTPUTS = sizeof(outputs) / sizeof(outputs[0]) };

static trm_tools tools_of(int row)
{
    return (trm_tools){.format = outputs[row].format,
                       .bare = strstr(outputs[row].name, "forced") != NULL,
                       .parallel = strstr(outputs[row].name, "one wanted") == NULL,
                       .names = names,
                       .count = 2};
}

/* In pieces that end at the given places. */
static void parse_cut(int row, const size_t *cuts, int cut_count, seen *s)
{
    const char *text = outputs[row].text;
    trm_tools tools = tools_of(row);
    trm_tool_parser *p;
    size_t at = 0;

    memset(s, 0, sizeof(*s));
    OK(trm_tool_parser_create(&tools, see, s, &p));
    for (int i = 0; i < cut_count; i++) {
        OK(trm_tool_parser_push(p, text + at, cuts[i] - at));
        at = cuts[i];
    }
    OK(trm_tool_parser_push(p, text + at, strlen(text) - at));
    OK(trm_tool_parser_finish(p));
    ck_assert_int_eq(trm_tool_parser_calls(p), s->count);
    trm_tool_parser_destroy(p);
    ck_assert_msg(strcmp(s->content, outputs[row].content) == 0, "%s: content '%s'",
                  outputs[row].name, s->content);
    ck_assert_msg(strcmp(s->calls, outputs[row].calls) == 0, "%s: calls '%s'", outputs[row].name,
                  s->calls);
}

START_TEST(calls_are_found_however_the_text_is_cut)
{
    size_t n = strlen(outputs[_i].text), cuts[1024];
    seen s;

    ck_assert_uint_lt(n, 1024);
    parse_cut(_i, NULL, 0, &s);
    for (size_t a = 0; a <= n; a++) {
        parse_cut(_i, &a, 1, &s);
        cuts[a] = a;
    }
    parse_cut(_i, cuts, (int)n, &s);
    srand(5);
    for (int round = 0; round < 50; round++) {
        int count = 0;

        for (size_t a = 0; a < n; a++)
            if (rand() % 7 == 0)
                cuts[count++] = a;
        parse_cut(_i, cuts, count, &s);
    }
}
END_TEST

static void take_anything(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes)
{
    size_t *total = ctx;

    ck_assert_int_ge(call, -1);
    ck_assert(event != TRM_TOOL_TEXT || call >= -1);
    ck_assert(text != NULL);
    *total += bytes;
}

/* What is no model's: pieces of formats in any order, and deep nesting. Nothing is invented. */
START_TEST(hostile_texts)
{
    static const char *const parts[] = {"<tool_call>",
                                        "</tool_call>",
                                        "<|python_tag|>",
                                        "[TOOL_CALLS]",
                                        "{\"name\":",
                                        "\"add\"",
                                        "\"arguments\":",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        ";",
                                        "\"",
                                        "\\",
                                        "\\u12",
                                        "\n",
                                        "<",
                                        "</",
                                        "null",
                                        "\xff",
                                        "[ARGS]",
                                        "\"function\":"};
    static const trm_tool_format formats[] = {H, L, M, J};

    srand(7 + (unsigned)_i);
    for (int round = 0; round < 3000; round++) {
        trm_tools tools = {
            .format = formats[_i], .parallel = round % 2 == 0, .names = names, .count = 2};
        size_t in = 0, out = 0;
        trm_tool_parser *p;

        OK(trm_tool_parser_create(&tools, take_anything, &out, &p));
        for (int i = rand() % 30; i >= 0; i--) {
            const char *part = parts[(size_t)rand() % (sizeof(parts) / sizeof(parts[0]))];

            OK(trm_tool_parser_push(p, part, strlen(part)));
            in += strlen(part);
        }
        OK(trm_tool_parser_finish(p));
        ck_assert_uint_le(out, in + 2 * 40);
        trm_tool_parser_destroy(p);
    }
}
END_TEST

START_TEST(deep_arguments)
{
    trm_tools tools = {.format = J, .parallel = true, .names = names, .count = 2};
    trm_tool_parser *p;
    size_t out = 0;

    OK(trm_tool_parser_create(&tools, take_anything, &out, &p));
    OK(trm_tool_parser_push(p, "{\"name\":\"add\",\"arguments\":", 26));
    for (int i = 0; i < 100000; i++)
        OK(trm_tool_parser_push(p, "{\"a\":[", 6));
    OK(trm_tool_parser_finish(p));
    ck_assert_uint_ge(out, 600000); /* the arguments until they are too deep; the rest is text */
    ck_assert_int_eq(trm_tool_parser_calls(p), 1);
    trm_tool_parser_destroy(p);
}
END_TEST

START_TEST(no_memory_is_told)
{
    bool whole = false;
    int64_t live = trm_alloc_live();

    for (int64_t n = 0; !whole; n++) {
        trm_tools tools = {.format = H, .parallel = true, .names = names, .count = 2};
        trm_tool_parser *p = NULL;
        size_t out = 0;
        trm_status st;

        ck_assert_int_lt(n, 100);
        trm_alloc_fail_after(n);
        st = trm_tool_parser_create(&tools, take_anything, &out, &p);
        if (st == TRM_OK)
            st = trm_tool_parser_push(p, outputs[7].text, strlen(outputs[7].text));
        if (st == TRM_OK)
            st = trm_tool_parser_finish(p);
        trm_alloc_fail_after(-1);
        whole = st == TRM_OK;
        ck_assert(whole || st == TRM_ERR_NO_MEMORY);
        trm_tool_parser_destroy(p);
    }
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* ---- answers ---- */

static char model[] = "m";

/* The stream's deltas, and the message, of a text that comes in pieces of `piece` bytes. */
static json_t *streamed(const trm_lm_request *r, const trm_language *l, const char *text,
                        size_t piece)
{
    const trm_sampled sampled = {.id = 1, .logprob = -1};
    const trm_generation_end e = {.finish = TRM_FINISH_END, .prompt_tokens = 1};
    json_t *list = json_array();
    trm_lm_stream *s;
    const char *lines, *p;
    size_t bytes, n = strlen(text);
    uint32_t tokens;

    OK(trm_lm_stream_create(r, l, "tag", 1, &s));
    for (size_t at = 0; at < n; at += piece) {
        const trm_generated t = {
            .token = &sampled, .text = text + at, .bytes = n - at < piece ? n - at : piece};

        trm_lm_stream_token(s, 0, &t);
    }
    trm_lm_stream_end(s, 0, &e);
    OK(trm_lm_stream_take(s, &lines, &bytes, &tokens));
    for (p = lines; p < lines + bytes; p = (const char *)memchr(p, '\n', bytes) + 1) {
        json_t *o = json_loadb(p, (size_t)(strchr(p, '\n') - p), JSON_REJECT_DUPLICATES, NULL);

        ck_assert_ptr_nonnull(o);
        json_array_append(list, json_array_get(json_object_get(o, "choices"), 0));
        json_decref(o);
    }
    trm_lm_stream_destroy(s);
    return list;
}

static json_t *whole(const trm_lm_request *r, const trm_language *l, const char *text)
{
    const trm_generation_end e = {.finish = TRM_FINISH_END, .prompt_tokens = 1};
    const trm_generated t = {.text = text, .bytes = strlen(text)};
    trm_lm_answer a = {0};
    json_t *o, *c;

    trm_lm_answer_token(&a, r, l, &t);
    trm_lm_answer_end(&a, &e);
    o = trm_lm_response(r, l, &a, "tag", 1, true);
    c = json_incref(json_array_get(json_object_get(o, "choices"), 0));
    json_decref(o);
    trm_lm_answer_fini(&a);
    return c;
}

START_TEST(messages_and_deltas_agree)
{
    trm_tools tools = tools_of(_i);
    trm_lm_prompt prompt = {.count = 0};
    trm_lm_request r = {.endpoint = TRM_LM_CHAT,
                        .model = model,
                        .prompt_count = 1,
                        .choices = 1,
                        .prompts = &prompt,
                        .tools = &tools};
    trm_language l = {0};
    json_t *c, *m, *calls, *deltas, *one;
    size_t i;

    trm_sampling_init(&r.sampling);
    c = whole(&r, &l, outputs[_i].text);
    m = json_object_get(c, "message");
    calls = json_object_get(m, "tool_calls");
    ck_assert_str_eq(json_string_value(json_object_get(c, "finish_reason")),
                     calls != NULL ? "tool_calls" : "stop");
    ck_assert_int_eq(calls != NULL, outputs[_i].calls[0] != '\0');
    if (calls != NULL && outputs[_i].content[0] == '\0')
        ck_assert(json_is_null(json_object_get(m, "content")));
    else
        ck_assert_str_eq(json_string_value(json_object_get(m, "content")), outputs[_i].content);
    for (size_t piece = 1; piece < 40; piece += 6) {
        char content[4096] = "", arguments[8][1024] = {""};

        if (strchr(outputs[_i].text, '\xc3') != NULL && piece > 1)
            break;
        deltas = streamed(&r, &l, outputs[_i].text, piece);
        json_array_foreach(deltas, i, one)
        {
            const json_t *d = json_object_get(one, "delta"),
                         *call = json_array_get(json_object_get(d, "tool_calls"), 0),
                         *f = json_object_get(call, "function"), *of;
            size_t k = (size_t)json_integer_value(json_object_get(call, "index"));

            if (json_object_get(d, "content") != NULL)
                strcat(content, json_string_value(json_object_get(d, "content")));
            if (call == NULL)
                continue;
            of = json_array_get(calls, k);
            ck_assert_ptr_nonnull(of);
            if (json_object_get(call, "id") != NULL) {
                ck_assert(json_equal(json_object_get(call, "id"), json_object_get(of, "id")));
                ck_assert(json_equal(json_object_get(call, "type"), json_object_get(of, "type")));
                ck_assert(json_equal(json_object_get(f, "name"),
                                     json_object_get(json_object_get(of, "function"), "name")));
            }
            strcat(arguments[k], json_string_value(json_object_get(f, "arguments")));
        }
        ck_assert_str_eq(content, outputs[_i].content);
        json_array_foreach(calls, i, one) ck_assert_str_eq(
            arguments[i],
            json_string_value(json_object_get(json_object_get(one, "function"), "arguments")));
        one = json_array_get(deltas, json_array_size(deltas) - 1);
        ck_assert(
            json_equal(json_object_get(one, "finish_reason"), json_object_get(c, "finish_reason")));
        json_decref(deltas);
    }
    json_decref(c);
}
END_TEST

/* As OpenAI sends them: the first delta with id and name, then pieces of arguments. */
START_TEST(deltas_are_as_documented)
{
    trm_tools tools = tools_of(0);
    trm_lm_prompt prompt = {.count = 0};
    trm_lm_request r = {.endpoint = TRM_LM_CHAT,
                        .model = model,
                        .prompt_count = 1,
                        .choices = 1,
                        .prompts = &prompt,
                        .tools = &tools};
    trm_language l = {0};
    json_t *list, *d;
    char *text, want[300], id[TRM_TOOL_ID_BYTES];

    trm_sampling_init(&r.sampling);
    list =
        streamed(&r, &l, "<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":1}}</tool_call>", 42);
    ck_assert_uint_eq(json_array_size(list), 5);
    trm_tool_id("tag", 0, 0, id);
    ck_assert_uint_eq(strlen(id), 29);
    d = json_object_get(json_array_get(list, 1), "delta");
    text = json_dumps(d, JSON_COMPACT);
    snprintf(want, sizeof(want),
             "{\"tool_calls\":[{\"index\":0,\"id\":\"%s\",\"type\":\"function\",\"function\":"
             "{\"name\":\"add\",\"arguments\":\"\"}}]}",
             id);
    ck_assert_str_eq(text, want);
    free(text);
    d = json_object_get(json_array_get(list, 2), "delta");
    text = json_dumps(d, JSON_COMPACT);
    ck_assert_str_eq(
        text, "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]}");
    free(text);
    json_decref(list);
}
END_TEST

START_TEST(ids_differ)
{
    char a[TRM_TOOL_ID_BYTES], b[TRM_TOOL_ID_BYTES];

    trm_tool_id("t", 0, 0, a);
    trm_tool_id("t", 0, 0, b);
    ck_assert_str_eq(a, b);
    ck_assert_int_eq(strncmp(a, "call_", 5), 0);
    ck_assert_uint_eq(strspn(a + 5, "0123456789abcdef"), 24);
    trm_tool_id("t", 0, 1, b);
    ck_assert_str_ne(a, b);
    trm_tool_id("t", 1, 0, b);
    ck_assert_str_ne(a, b);
    trm_tool_id("u", 0, 0, b);
    ck_assert_str_ne(a, b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tool calls");
    TCase *c = tcase_create("calls");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, calls_are_found_however_the_text_is_cut, 0, OUTPUTS);
    tcase_add_loop_test(c, hostile_texts, 0, 4);
    tcase_add_test(c, deep_arguments);
    tcase_add_test(c, no_memory_is_told);
    tcase_add_loop_test(c, messages_and_deltas_agree, 0, OUTPUTS);
    tcase_add_test(c, deltas_are_as_documented);
    tcase_add_test(c, ids_differ);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
