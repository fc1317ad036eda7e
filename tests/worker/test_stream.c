/* Chunks of streams: OpenAI's form, byte by byte where it is fixed; every line is JSON; the order
 * of choices follows from their lengths alone. */
#include "worker/language/stream.h"

#include "base/file.h"
#include "base/memory.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define HEAD                                                                                       \
    "{\"id\":\"chatcmpl-t1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"         \
    "\"model\":\"m\",\"choices\":["
#define HEAD_OLD                                                                                   \
    "{\"id\":\"cmpl-t1\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","   \
    "\"choices\":["
#define PLAIN ",\"logprobs\":null,\"finish_reason\":null"
#define LAST ",\"logprobs\":null,\"finish_reason\":"
#define ROLE ",\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}" PLAIN

static trm_language language;
static int32_t prompt_ids[] = {5, 6};
static char prompt_text[] = "Once \"upon\"";

/* A stream and all that came out of it. */
typedef struct kit {
    trm_lm_request r;
    trm_lm_prompt prompts[40];
    trm_lm_stream *s;
    char *text;
    size_t bytes;
    uint32_t tokens;
} kit;

static void kit_request(kit *k, trm_lm_endpoint endpoint, int prompts, int choices)
{
    static char model[] = "m";

    memset(k, 0, sizeof(*k));
    for (int i = 0; i < prompts; i++)
        k->prompts[i] = (trm_lm_prompt){.ids = prompt_ids, .count = 2, .text = prompt_text};
    k->r = (trm_lm_request){.endpoint = endpoint,
                            .model = model,
                            .prompt_count = prompts,
                            .choices = choices,
                            .prompts = k->prompts};
    trm_sampling_init(&k->r.sampling);
    k->text = trm_calloc(1, 1);
    ck_assert_ptr_nonnull(k->text);
}

static void kit_open(kit *k)
{
    OK(trm_lm_stream_create(&k->r, &language, "t1", 1700000000, &k->s));
}

static void kit_take(kit *k)
{
    const char *lines;
    size_t bytes;
    uint32_t tokens;

    OK(trm_lm_stream_take(k->s, &lines, &bytes, &tokens));
    ck_assert(bytes == 0 || lines[bytes - 1] == '\n');
    ck_assert(bytes > 0 || tokens == 0);
    k->text = trm_realloc(k->text, k->bytes + bytes + 1, 1);
    ck_assert_ptr_nonnull(k->text);
    if (bytes > 0)
        memcpy(k->text + k->bytes, lines, bytes);
    k->bytes += bytes;
    k->text[k->bytes] = '\0';
    k->tokens += tokens;
}

static void kit_close(kit *k)
{
    trm_lm_stream_destroy(k->s);
    trm_free(k->text);
}

static void token_bytes(kit *k, int choice, const char *text, size_t bytes, int32_t id, bool prompt)
{
    const trm_sampled sampled = {.id = id, .logprob = -0.5f};
    const trm_generated t = {.choice = choice % k->r.choices,
                             .prompt = prompt,
                             .token = &sampled,
                             .text = text,
                             .bytes = bytes};

    trm_lm_stream_token(k->s, choice, &t);
}

static void token(kit *k, int choice, const char *text)
{
    token_bytes(k, choice, text, strlen(text), 7, false);
}

static void end(kit *k, int choice, trm_finish finish, int new_tokens, const char *stopped)
{
    const trm_generation_end e = {.choice = choice % k->r.choices,
                                  .finish = finish,
                                  .prompt_tokens = 2,
                                  .cached_tokens = 1,
                                  .new_tokens = new_tokens,
                                  .stopped = stopped};

    trm_lm_stream_end(k->s, choice, &e);
}

/* Line i as JSON; the caller's reference. Fails where any line is not JSON. */
static json_t *parse(const kit *k)
{
    json_t *list = json_array();

    for (const char *p = k->text; *p != '\0';) {
        const char *e = strchr(p, '\n');
        json_error_t error;
        json_t *o = json_loadb(p, (size_t)(e - p), JSON_REJECT_DUPLICATES, &error);

        ck_assert_msg(o != NULL, "%s in: %.*s", error.text, (int)(e - p), p);
        json_array_append_new(list, o);
        p = e + 1;
    }
    return list;
}

START_TEST(chat_is_as_documented)
{
    kit k;

    kit_request(&k, TRM_LM_CHAT, 1, 1);
    k.r.stream_usage = true;
    kit_open(&k);
    token(&k, 0, "He");
    kit_take(&k);
    ck_assert_int_eq(k.tokens, 1);
    token(&k, 0, ""); /* half a character, held back */
    kit_take(&k);
    token(&k, 0, "llo");
    end(&k, 0, TRM_FINISH_END, 3, NULL);
    kit_take(&k);
    ck_assert_int_eq(k.tokens, 3);
    ck_assert_str_eq(k.text, HEAD
                     "{\"index\":0" ROLE "}],\"usage\":null}\n" HEAD
                     "{\"index\":0,\"delta\":{\"content\":\"He\"}" PLAIN "}],\"usage\":null}\n" HEAD
                     "{\"index\":0,\"delta\":{\"content\":\"llo\"}" PLAIN
                     "}],\"usage\":null}\n" HEAD "{\"index\":0,\"delta\":{}" LAST
                     "\"stop\"}],\"usage\":null}\n" HEAD
                     "],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,\"total_tokens\":5,"
                     "\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n");
    kit_close(&k);
}
END_TEST

START_TEST(completions_are_as_documented)
{
    kit k;

    kit_request(&k, TRM_LM_COMPLETIONS, 1, 1);
    k.r.echo = true;
    k.r.token_ids = true;
    kit_open(&k);
    token(&k, 0, " a");
    end(&k, 0, TRM_FINISH_STOP, 1, "\n");
    kit_take(&k);
    ck_assert_str_eq(k.text,
                     HEAD_OLD "{\"index\":0,\"text\":\"Once \\\"upon\\\"\"" PLAIN
                              ",\"prompt_token_ids\":[5,6],\"token_ids\":[]}]}\n" HEAD_OLD
                              "{\"index\":0,\"text\":\" a\"" PLAIN
                              ",\"token_ids\":[7]}]}\n" HEAD_OLD "{\"index\":0,\"text\":\"\"" LAST
                              "\"stop\",\"stop_reason\":\"\\n\",\"token_ids\":[]}]}\n");
    kit_close(&k);
}
END_TEST

/* max_tokens was 0: the prompt alone. */
START_TEST(only_the_prompt)
{
    kit k;

    kit_request(&k, TRM_LM_COMPLETIONS, 1, 1);
    k.r.echo = k.r.only_prompt = k.r.stream_usage = true;
    kit_open(&k);
    token(&k, 0, "thrown away");
    end(&k, 0, TRM_FINISH_LENGTH, 1, NULL);
    kit_take(&k);
    ck_assert_ptr_null(strstr(k.text, "thrown"));
    ck_assert_ptr_nonnull(strstr(k.text, "\"finish_reason\":\"length\""));
    ck_assert_ptr_nonnull(strstr(k.text, "\"completion_tokens\":0"));
    ck_assert_int_eq(k.tokens, 0);
    kit_close(&k);
}
END_TEST

static const struct {
    const char *name, *text;
    size_t bytes;
    const char *want;
} texts[] = {
    {"plain", "abc", 3, "abc"},
    {"quotes", "a\"b\\c/", 6, "a\"b\\c/"},
    {"controls", "\x01\x1f\n\r\t\x7f", 6, "\x01\x1f\n\r\t\x7f"},
    {"two bytes", "\xc3\xa9", 2, "\xc3\xa9"},
    {"three bytes", "\xe2\x80\xa8", 3, "\xe2\x80\xa8"},
    {"four bytes", "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80"},
    {"a lone byte", "a\x80z", 3, "a\xef\xbf\xbdz"},
    {"cut", "a\xe2\x80", 3, "a\xef\xbf\xbd\xef\xbf\xbd"},
    {"overlong", "\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
    {"a surrogate", "\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"beyond", "\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
};

START_TEST(text_is_escaped)
{
    json_t *lines;
    const char *got;
    kit k;

    kit_request(&k, TRM_LM_COMPLETIONS, 1, 1);
    kit_open(&k);
    token_bytes(&k, 0, texts[_i].text, texts[_i].bytes, 7, false);
    kit_take(&k);
    lines = parse(&k);
    got = json_string_value(json_object_get(
        json_array_get(json_object_get(json_array_get(lines, 0), "choices"), 0), "text"));
    ck_assert_msg(strcmp(got, texts[_i].want) == 0, "%s: %s", texts[_i].name, got);
    json_decref(lines);
    kit_close(&k);
}
END_TEST

/* ---- turns ---- */

enum { CHOICES = 24 };

/* Tokens of all choices, whose lengths differ, in an order made of `seed`; choice after choice,
 * round after round, or shuffled. */
static void play(kit *k, uint32_t seed)
{
    int at[CHOICES] = {0}, left = CHOICES;

    kit_request(k, TRM_LM_CHAT, 12, 2);
    k->r.stream_usage = true;
    kit_open(k);
    for (uint32_t i = 0; left > 0; i++) {
        int c;
        char text[32];

        seed = seed * 1664525u + 1013904223u;
        c = seed % 3 == 0 ? (int)(seed >> 8) % CHOICES : (int)(i % CHOICES);
        if (at[c] > c % 7 + c / 3)
            continue;
        snprintf(text, sizeof(text), "%d.%d ", c, at[c]);
        if (at[c]++ < c % 7 + c / 3) {
            token(k, c, text);
        } else {
            end(k, c, TRM_FINISH_LENGTH, at[c] - 1, NULL);
            left--;
        }
        if (seed >> 30 == 0)
            kit_take(k);
    }
    kit_take(k);
}

START_TEST(the_order_does_not_depend_on_when_tokens_came)
{
    kit first, k;
    json_t *lines, *line;
    uint32_t tokens = 0;
    size_t i;

    play(&first, 1);
    for (int c = 0; c < CHOICES; c++)
        tokens += (uint32_t)(c % 7 + c / 3);
    ck_assert_int_eq(first.tokens, tokens);
    lines = parse(&first);
    /* a role, tokens and an end each; usage */
    ck_assert_uint_eq(json_array_size(lines), tokens + 2 * CHOICES + 1);
    json_array_foreach(lines, i, line)
    {
        json_t *usage = json_object_get(line, "usage");

        ck_assert(json_is_null(usage) == (i + 1 < json_array_size(lines)));
    }
    json_decref(lines);
    for (uint32_t seed = 2; seed < 40; seed++) {
        play(&k, seed * 77777u);
        ck_assert_str_eq(k.text, first.text);
        ck_assert_int_eq(k.tokens, first.tokens);
        kit_close(&k);
    }
    kit_close(&first);
}
END_TEST

/* A choice far ahead of its turn: its buffer does not grow with what is long out. */
START_TEST(a_long_wait_is_no_leak)
{
    kit k;

    kit_request(&k, TRM_LM_COMPLETIONS, 1, 2);
    kit_open(&k);
    token(&k, 1, "ahead");
    for (int i = 0; i < 3000; i++) {
        token(&k, 1, "b");
        token(&k, 0, "a");
        if (i % 10 == 0)
            kit_take(&k);
    }
    end(&k, 0, TRM_FINISH_LENGTH, 3000, NULL);
    end(&k, 1, TRM_FINISH_LENGTH, 3001, NULL);
    kit_take(&k);
    ck_assert_int_eq(k.tokens, 6001);
    json_decref(parse(&k));
    kit_close(&k);
}
END_TEST

/* ---- log-probabilities ---- */

static void read_tokenizer(void)
{
    trm_file *file;

    OK(trm_file_open(TRM_SOURCE_DIR "/configs/demo/tiny-sotu/tokenizer.json", &file));
    OK(trm_tokenizer_from_json("tokenizer.json", trm_file_data(file), trm_file_bytes(file),
                               &language.tokenizer));
    trm_file_unref(file);
}

START_TEST(logprobs_come_with_their_tokens)
{
    json_t *lines, *o, *content;
    const char *text;
    kit k;

    read_tokenizer();
    kit_request(&k, TRM_LM_CHAT, 1, 1);
    k.r.sampling.logprobs = 0;
    kit_open(&k);
    token_bytes(&k, 0, "", 0, 300, false); /* no text, but a token */
    token_bytes(&k, 0, "xy", 2, 301, false);
    end(&k, 0, TRM_FINISH_END, 2, NULL);
    kit_take(&k);
    lines = parse(&k);
    ck_assert_uint_eq(json_array_size(lines), 4);
    for (size_t i = 1; i < 3; i++) {
        o = json_array_get(json_object_get(json_array_get(lines, i), "choices"), 0);
        text = json_string_value(json_object_get(json_object_get(o, "delta"), "content"));
        ck_assert_str_eq(text, i == 1 ? "" : "xy");
        content = json_object_get(json_object_get(o, "logprobs"), "content");
        ck_assert_uint_eq(json_array_size(content), 1);
        o = json_array_get(content, 0);
        ck_assert_int_eq(json_integer_value(json_object_get(o, "id")), 299 + (json_int_t)i);
        ck_assert(json_real_value(json_object_get(o, "logprob")) == -0.5);
        ck_assert(json_is_array(json_object_get(o, "bytes")));
        ck_assert(json_is_array(json_object_get(o, "top_logprobs")));
    }
    json_decref(lines);
    kit_close(&k);
    trm_tokenizer_destroy(language.tokenizer);
    language.tokenizer = NULL;
}
END_TEST

START_TEST(old_logprobs_count_on)
{
    json_t *lines, *o, *lp;
    json_int_t offset = -1;
    size_t seen = 0;
    kit k;

    read_tokenizer();
    kit_request(&k, TRM_LM_COMPLETIONS, 1, 1);
    k.r.sampling.logprobs = 0;
    k.r.echo = k.r.prompt_logprobs = true;
    kit_open(&k);
    token_bytes(&k, 0, "", 0, prompt_ids[1], true);
    token_bytes(&k, 0, "xy", 2, 301, false);
    token_bytes(&k, 0, "z", 1, 302, false);
    end(&k, 0, TRM_FINISH_END, 2, NULL);
    kit_take(&k);
    lines = parse(&k);
    ck_assert_uint_eq(json_array_size(lines), 4);
    for (size_t i = 0; i < 3; i++) {
        json_t *offsets;

        o = json_array_get(json_object_get(json_array_get(lines, i), "choices"), 0);
        lp = json_object_get(o, "logprobs");
        offsets = json_object_get(lp, "text_offset");
        ck_assert_uint_eq(json_array_size(json_object_get(lp, "tokens")), i == 0 ? 2 : 1);
        ck_assert(i > 0 || json_is_null(json_array_get(json_object_get(lp, "token_logprobs"), 0)));
        for (size_t n = 0; n < json_array_size(offsets); n++, seen++) {
            ck_assert_int_ge(json_integer_value(json_array_get(offsets, n)), offset);
            offset = json_integer_value(json_array_get(offsets, n));
        }
    }
    ck_assert_uint_eq(seen, 4);
    ck_assert_int_gt(offset, 0);
    json_decref(lines);
    kit_close(&k);
    trm_tokenizer_destroy(language.tokenizer);
    language.tokenizer = NULL;
}
END_TEST

/* A forbidden token's logarithm is no number of JSON. */
START_TEST(infinity_is_a_number)
{
    const trm_sampled sampled = {.id = 1, .logprob = -__builtin_inff()};
    const trm_generated t = {.token = &sampled, .text = "a", .bytes = 1};
    kit k;

    kit_request(&k, TRM_LM_CHAT, 1, 1);
    k.r.sampling.logprobs = 0;
    kit_open(&k);
    trm_lm_stream_token(k.s, 0, &t);
    kit_take(&k);
    json_decref(parse(&k));
    ck_assert_ptr_nonnull(strstr(k.text, "\"logprob\":-9999.0"));
    kit_close(&k);
}
END_TEST

START_TEST(what_streams_do_not_do)
{
    kit k;

    kit_request(&k, TRM_LM_EMBEDDINGS, 1, 1);
    ck_assert_int_eq(trm_lm_stream_create(&k.r, &language, "t", 1, &k.s), TRM_ERR_UNSUPPORTED);
    kit_close(&k);
    kit_request(&k, TRM_LM_CHAT, 1, 1);
    k.r.prompt_logprobs = true;
    ck_assert_int_eq(trm_lm_stream_create(&k.r, &language, "t", 1, &k.s), TRM_ERR_UNSUPPORTED);
    kit_close(&k);
    kit_request(&k, TRM_LM_COMPLETIONS, 1, 2);
    k.r.prompt_logprobs = k.r.echo = true;
    ck_assert_int_eq(trm_lm_stream_create(&k.r, &language, "t", 1, &k.s), TRM_ERR_UNSUPPORTED);
    kit_close(&k);
}
END_TEST

/* Whichever allocation fails: a status, no crash, no leak. */
START_TEST(no_memory_is_told)
{
    int64_t live = trm_alloc_live();
    bool whole = false;

    for (int64_t n = 0; !whole; n++) {
        kit k;
        const char *lines;
        size_t bytes;
        uint32_t tokens;
        trm_status st;

        ck_assert_int_lt(n, 100);
        kit_request(&k, TRM_LM_CHAT, 1, 2);
        trm_alloc_fail_after(n);
        st = trm_lm_stream_create(&k.r, &language, "t1", 1, &k.s);
        if (st == TRM_OK) {
            for (int i = 0; i < 10; i++) {
                token(&k, 1, "ahead, so that it waits");
                token(&k, 0, "a");
            }
            st = trm_lm_stream_take(k.s, &lines, &bytes, &tokens);
        }
        whole = st == TRM_OK;
        ck_assert(whole || st == TRM_ERR_NO_MEMORY);
        trm_alloc_fail_after(-1);
        kit_close(&k);
    }
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("streams");
    TCase *c = tcase_create("chunks");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_test(c, chat_is_as_documented);
    tcase_add_test(c, completions_are_as_documented);
    tcase_add_test(c, only_the_prompt);
    tcase_add_loop_test(c, text_is_escaped, 0, (int)(sizeof(texts) / sizeof(texts[0])));
    tcase_add_test(c, the_order_does_not_depend_on_when_tokens_came);
    tcase_add_test(c, a_long_wait_is_no_leak);
    tcase_add_test(c, logprobs_come_with_their_tokens);
    tcase_add_test(c, old_logprobs_count_on);
    tcase_add_test(c, infinity_is_a_number);
    tcase_add_test(c, what_streams_do_not_do);
    tcase_add_test(c, no_memory_is_told);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
