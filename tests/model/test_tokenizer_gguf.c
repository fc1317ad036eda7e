/* Vocabularies as GGUF files hold them: those of the other fixtures (tests/data/tokenizers), put
 * into that form here, must give the same ids. And what is refused. */
#include "base/file.h"
#include "base/memory.h"
#include "model/onnx/protobuf.h"
#include "model/tokenizer/tokenizer.h"

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA TRM_SOURCE_DIR "/tests/data/tokenizers/"
#define TOKENS 4096

static trm_text tokens[TOKENS], merges[TOKENS];
static int32_t types[TOKENS];
static float scores[TOKENS];
static trm_gguf_vocabulary v;

static void start(const char *model, const char *pre)
{
    memset(&v, 0, sizeof(v));
    v.model = model;
    v.pre = pre;
    v.tokens = tokens;
    v.types = types;
    v.bos = v.eos = v.unknown = v.separator = v.padding = v.cls = v.mask = -1;
    v.add_bos = v.add_eos = v.add_space_prefix = -1;
    memset(tokens, 0, sizeof(tokens));
    memset(merges, 0, sizeof(merges));
    for (size_t i = 0; i < TOKENS; i++)
        types[i] = 1;
}

static trm_text joined(const char *a, const char *between, const char *b)
{
    size_t room = strlen(a) + strlen(between) + strlen(b) + 1;
    char *text = malloc(room);
    trm_text out;

    ck_assert_ptr_nonnull(text);
    snprintf(text, room, "%s%s%s", a, between, b);
    out.bytes = text;
    out.count = room - 1;
    return out;
}

static int32_t find(const char *name)
{
    for (size_t i = 0; i < v.count; i++)
        if (tokens[i].count == strlen(name) && memcmp(tokens[i].bytes, name, strlen(name)) == 0)
            return (int32_t)i;
    return -1;
}

/* ---- fixtures as GGUF ---- */

static void set_token(const char *token, json_int_t id, bool bert)
{
    ck_assert(id >= 0 && id < TOKENS);
    free((char *)tokens[id].bytes);
    if (!bert || (token[0] == '[' && strlen(token) > 1))
        tokens[id] = joined("", "", token);
    else if (strncmp(token, "##", 2) == 0 && token[2] != '\0')
        tokens[id] = joined("", "", token + 2);
    else
        tokens[id] = joined("", "\xE2\x96\x81", token);
    if ((size_t)id >= v.count)
        v.count = (size_t)id + 1;
}

static void from_json(const char *family, bool bert)
{
    char path[256];
    json_error_t error;
    json_t *root, *model, *value;
    const char *token;
    size_t i;

    snprintf(path, sizeof(path), DATA "%s.json", family);
    root = json_load_file(path, 0, &error);
    ck_assert_msg(root != NULL, "%s: %s", path, error.text);
    model = json_object_get(root, "model");
    json_object_foreach(json_object_get(model, "vocab"), token, value)
    {
        set_token(token, json_integer_value(value), bert);
    }
    json_array_foreach(json_object_get(root, "added_tokens"), i, value)
    {
        json_int_t id = json_integer_value(json_object_get(value, "id"));

        set_token(json_string_value(json_object_get(value, "content")), id, bert);
        types[id] = json_is_true(json_object_get(value, "special")) ? 3 : 4;
    }
    json_array_foreach(json_object_get(model, "merges"), i, value)
    {
        ck_assert_uint_lt(i, TOKENS);
        merges[i] = joined(json_string_value(json_array_get(value, 0)), " ",
                           json_string_value(json_array_get(value, 1)));
        v.merge_count = i + 1;
    }
    v.merges = merges;
    json_decref(root);
}

static void add_piece(trmi_bytes bytes, const unsigned char *base)
{
    trmi_pb r = trmi_pb_make(bytes, base, "piece");
    bool more = true;

    ck_assert_uint_lt(v.count, TOKENS);
    for (;;) {
        ck_assert_int_eq(trmi_pb_next(&r, &more), TRM_OK);
        if (!more)
            break;
        if (r.field == 1)
            tokens[v.count] = (trm_text){(const char *)r.bytes.data, r.bytes.bytes};
        else if (r.field == 2)
            scores[v.count] = trmi_float_bits(r.number);
        else if (r.field == 3)
            types[v.count] = (int32_t)r.number;
    }
    /* converters write the blanks of user-defined tokens as blanks */
    if (types[v.count] == 4 && strncmp(tokens[v.count].bytes, "\xE2\x96\x81", 3) == 0)
        tokens[v.count] = (trm_text){"      ", tokens[v.count].count / 3};
    v.count++;
}

static trm_file *from_model(const char *family)
{
    char path[256];
    trm_file *f;
    trmi_pb r;
    bool more;

    v.remove_extra_whitespaces = 1; /* the format's default */
    snprintf(path, sizeof(path), DATA "%s.model", family);
    ck_assert_int_eq(trm_file_open(path, &f), TRM_OK);
    r = trmi_pb_make((trmi_bytes){trm_file_data(f), trm_file_bytes(f)}, trm_file_data(f), "model");
    for (;;) {
        ck_assert_int_eq(trmi_pb_next(&r, &more), TRM_OK);
        if (!more)
            break;
        if (r.field == 1)
            add_piece(r.bytes, trm_file_data(f));
        if (r.field == 3) {
            trmi_pb n = trmi_pb_make(r.bytes, trm_file_data(f), "normalizer");

            for (;;) {
                ck_assert_int_eq(trmi_pb_next(&n, &more), TRM_OK);
                if (!more)
                    break;
                if (n.field == 2)
                    v.charsmap = (trm_text){(const char *)n.bytes.data, n.bytes.bytes};
                if (n.field == 3)
                    v.add_space_prefix = (int)n.number;
                if (n.field == 4)
                    v.remove_extra_whitespaces = (int)n.number;
            }
        }
    }
    v.scores = scores;
    return f;
}

/* ---- comparing ---- */

static size_t from_hex(char *text)
{
    size_t n = 0;

    if (text[0] == '-')
        return 0;
    for (; text[2 * n] != '\0' && text[2 * n + 1] != '\0'; n++) {
        char two[3] = {text[2 * n], text[2 * n + 1], '\0'};

        text[n] = (char)strtol(two, NULL, 16);
    }
    return n;
}

static void check_ids(const char *where, int line, const trm_tokenizer *t, const char *text,
                      size_t bytes, int flags, const char *want)
{
    int32_t *ids;
    size_t count, i = 0;
    char *end;

    ck_assert_int_eq(trm_tokenizer_encode(t, text, bytes, flags, &ids, &count), TRM_OK);
    for (; *want != '-' && *want != '\0'; i++) {
        long id = strtol(want, &end, 10);

        ck_assert_msg(i < count && ids[i] == id, "%s.cases:%d: id %zu is %d, want %ld", where, line,
                      i, i < count ? (int)ids[i] : -1, id);
        want = *end == ',' ? end + 1 : end;
    }
    ck_assert_msg(i == count, "%s.cases:%d: %zu ids, want %zu", where, line, count, i);
    trm_free(ids);
}

static void check_cases(const char *family, const trm_tokenizer *t)
{
    char path[256], *row = NULL;
    size_t room = 0;
    int line = 0;
    FILE *f;

    snprintf(path, sizeof(path), DATA "%s.cases", family);
    f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    while (getline(&row, &room, f) > 0) {
        char *rest = row, *text = strsep(&rest, " "), *plain = strsep(&rest, " "),
             *special = strsep(&rest, " ");
        size_t bytes;

        line++;
        /* pairs are the post-processor's, which GGUF does not have; a U+2581 of the text itself is
         * part of user-defined tokens for sentencepiece only */
        if (strchr(text, ',') != NULL || strstr(text, "e29681") != NULL)
            continue;
        bytes = from_hex(text);
        check_ids(family, line, t, text, bytes, 0, plain);
        check_ids(family, line, t, text, bytes, TRM_ENCODE_SPECIAL,
                  special[0] == '=' ? plain : special);
    }
    ck_assert_int_gt(line, 20);
    free(row);
    fclose(f);
}

static const struct {
    const char *family, *model, *pre, *bos, *eos;
} rows[] = {
    {"gpt2", "gpt2", "gpt-2", NULL, NULL},
    {"llama3", "gpt2", "llama-bpe", "<|begin_of_text|>", NULL},
    {"o200k", "gpt2", "gpt-4o", NULL, NULL},
    {"kimi", "gpt2", "kimi-k2", NULL, NULL},
    {"deepseek", "gpt2", "deepseek-v3", NULL, NULL},
    {"deepseek_coder", "gpt2", "deepseek-coder", NULL, NULL},
    {"starcoder", "gpt2", "starcoder", NULL, NULL},
    {"bert_uncased", "bert", NULL, "[CLS]", "[SEP]"},
};

START_TEST(as_their_json)
{
    trm_tokenizer *t;

    start(rows[_i].model, rows[_i].pre);
    from_json(rows[_i].family, strcmp(rows[_i].model, "bert") == 0);
    if (rows[_i].bos != NULL)
        v.bos = find(rows[_i].bos);
    if (rows[_i].eos != NULL)
        v.eos = find(rows[_i].eos);
    ck_assert_msg(trm_tokenizer_from_gguf("test", &v, &t) == TRM_OK, "%s", trm_message());
    check_cases(rows[_i].family, t);
    trm_tokenizer_destroy(t);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

static const struct {
    const char *family, *model;
} model_rows[] = {
    {"spm_bpe", "llama"},
    {"spm_gemma", "llama"},
    {"spm_unigram", "t5"},
    {"spm_unigram_bytes", "t5"},
};

START_TEST(as_their_model)
{
    trm_tokenizer *t;
    trm_file *f;

    start(model_rows[_i].model, NULL);
    f = from_model(model_rows[_i].family);
    v.bos = find("<s>");
    v.eos = find("</s>");
    v.unknown = find("<unk>");
    ck_assert_msg(trm_tokenizer_from_gguf("test", &v, &t) == TRM_OK, "%s", trm_message());
    check_cases(model_rows[_i].family, t);
    trm_tokenizer_destroy(t);
    trm_file_unref(f);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* ---- defaults and faults ---- */

static void add(const char *token, int32_t type, float score)
{
    tokens[v.count] = (trm_text){token, strlen(token)};
    types[v.count] = type;
    scores[v.count++] = score;
}

static void small_llama(void)
{
    start("llama", NULL);
    v.scores = scores;
    add("<unk>", 2, 0);
    add("<s>", 3, 0);
    add("</s>", 3, 0);
    add("<0x62>", 6, 0);
    add("a", 1, -10);
    add("\xE2\x96\x81", 1, -11);
    add("\xE2\x96\x81"
        "a",
        1, -1);
    add("aa", 1, -2);
    v.bos = 1;
    v.eos = 2;
}

/* bos by default, the blank in front by default; ties and scores; "b" by its byte, "c" unknown */
static const struct {
    const char *name, *text;
    int add_bos, add_eos, add_space_prefix;
    size_t count;
    int32_t ids[8];
} default_rows[] = {
    {"defaults", "aa", -1, -1, -1, 3, {1, 6, 4}},
    {"no prefix", "aa", -1, -1, 0, 2, {1, 7}},
    {"no bos", "a", 0, -1, -1, 1, {6}},
    {"eos", "a", 1, 1, -1, 3, {1, 6, 2}},
    {"byte", "b", 0, 0, 0, 1, {3}},
    {"unknown", "cc", 0, 0, 0, 1, {0}},
    {"nothing", "", -1, -1, -1, 1, {1}},
    {"control", "a</s>a", 0, 0, -1, 3, {6, 2, 6}},
};

START_TEST(defaults)
{
    trm_tokenizer *t;
    int32_t *ids;
    size_t count;

    small_llama();
    v.add_bos = default_rows[_i].add_bos;
    v.add_eos = default_rows[_i].add_eos;
    v.add_space_prefix = default_rows[_i].add_space_prefix;
    ck_assert_msg(trm_tokenizer_from_gguf("test", &v, &t) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_tokenizer_encode(t, default_rows[_i].text, strlen(default_rows[_i].text),
                                          TRM_ENCODE_SPECIAL, &ids, &count),
                     TRM_OK);
    ck_assert_uint_eq(count, default_rows[_i].count);
    for (size_t i = 0; i < count; i++)
        ck_assert_int_eq(ids[i], default_rows[_i].ids[i]);
    trm_free(ids);
    trm_tokenizer_destroy(t);
}
END_TEST

START_TEST(tokens_of_any_bytes)
{
    trm_tokenizer *t;
    int32_t ids[] = {4, 8, 9};
    char *text;
    size_t bytes;

    small_llama();
    add("\xFF\xE2\x96", 1, -3);
    add("", 1, -3);
    ck_assert_int_eq(trm_tokenizer_from_gguf("test", &v, &t), TRM_OK);
    ck_assert_int_eq(trm_tokenizer_decode(t, ids, 3, false, &text, &bytes), TRM_OK);
    ck_assert_str_eq(text, "a\xEF\xBF\xBD\xEF\xBF\xBD[EMPTY_9]");
    trm_free(text);
    trm_tokenizer_destroy(t);
}
END_TEST

static void no_model(void)
{
    small_llama();
    v.model = "rwkv";
}

static void no_pre(void)
{
    small_llama();
    v.model = "gpt2";
    v.pre = "no-such-pattern";
}

static void bad_merge(void)
{
    small_llama();
    v.model = "gpt2";
    v.pre = "gpt-2";
    merges[0] = (trm_text){"ab", 2};
    v.merges = merges;
    v.merge_count = 1;
}

static void merge_of_nothing(void)
{
    bad_merge();
    merges[0] = (trm_text){"a q", 3};
}

static const struct {
    const char *name;
    void (*make)(void);
    trm_status status;
    const char *message;
} bad_rows[] = {
    {"model", no_model, TRM_ERR_UNSUPPORTED, "supported: llama, gpt2, bert, t5"},
    {"pre", no_pre, TRM_ERR_UNSUPPORTED, "llama-bpe"},
    {"merge", bad_merge, TRM_ERR_BAD_FILE, "not two tokens"},
    {"merge of nothing", merge_of_nothing, TRM_ERR_BAD_FILE, "not in the vocabulary"},
};

START_TEST(refuses)
{
    trm_tokenizer *t;

    bad_rows[_i].make();
    ck_assert_int_eq(trm_tokenizer_from_gguf("the file", &v, &t), bad_rows[_i].status);
    ck_assert_msg(strstr(trm_message(), bad_rows[_i].message) != NULL, "%s", trm_message());
    ck_assert_int_eq(strncmp(trm_message(), "the file: ", 10), 0);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer_gguf");
    TCase *c = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, as_their_json, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_loop_test(c, as_their_model, 0, sizeof(model_rows) / sizeof(model_rows[0]));
    tcase_add_loop_test(c, defaults, 0, sizeof(default_rows) / sizeof(default_rows[0]));
    tcase_add_test(c, tokens_of_any_bytes);
    tcase_add_loop_test(c, refuses, 0, sizeof(bad_rows) / sizeof(bad_rows[0]));
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
