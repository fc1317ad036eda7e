/* Tokenizers of every family against the `tokenizers` library and sentencepiece: files and numbers
 * by tests/oracles/tokenizers.py, which says what a line of a .cases file is. */
#include "base/file.h"
#include "base/memory.h"
#include "model/tokenizer/tokenizer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA TRM_SOURCE_DIR "/tests/data/tokenizers/"

static const char *const families[] = {
    "gpt2",       "roberta",      "llama3",    "qwen2",      "tiktoken",       "o200k",
    "kimi",       "deepseek",     "starcoder", "clip",       "deepseek_coder", "llama2",
    "mistral",    "gemma",        "sp_fused",  "sp_unknown", "bpe_suffix",     "bpe_prefix",
    "bert_cased", "bert_uncased", "t5",        "xlmr",       "albert",         "unigram_bytes",
    "word_level", "odd_splits",
};

static trm_tokenizer *load(const char *family, const char *extension)
{
    char path[256];
    trm_file *f;
    trm_tokenizer *t = NULL;
    trm_status st;

    snprintf(path, sizeof(path), DATA "%s.%s", family, extension);
    ck_assert_int_eq(trm_file_open(path, &f), TRM_OK);
    if (strcmp(extension, "json") == 0)
        st = trm_tokenizer_from_json(path, trm_file_data(f), trm_file_bytes(f), &t);
    else
        st = trm_tokenizer_from_sentencepiece(path, trm_file_data(f), trm_file_bytes(f), &t);
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
    trm_file_unref(f);
    return t;
}

/* ---- lines of cases ---- */

/* Hexadecimal in place; "-" is nothing. */
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

static size_t read_ids(const char *text, int32_t *ids, size_t room)
{
    size_t n = 0;
    char *end;

    while (*text != '-' && *text != '\0') {
        ck_assert(n < room);
        ids[n++] = (int32_t)strtol(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

static void check_ids(const char *where, const char *want, const int32_t *ids, size_t count)
{
    static int32_t wanted[4096];
    size_t n = read_ids(want, wanted, 4096);

    ck_assert_msg(n == count && (n == 0 || memcmp(wanted, ids, n * sizeof(*ids)) == 0),
                  "%s: %zu ids, want %s", where, count, want);
}

static void append(char *all, size_t room, size_t *count, const char *p, size_t bytes)
{
    ck_assert(*count + bytes <= room);
    memcpy(all + *count, p, bytes);
    *count += bytes;
}

/* Decoding at once, and streamed from each of a few places on. */
static void check_decoded(const char *where, const trm_tokenizer *t, const int32_t *ids,
                          size_t count, bool skip, const char *want, size_t want_bytes)
{
    static char all[1 << 16];
    char *text;
    size_t bytes, n = 0;
    const char *piece;
    trm_detokenizer *d;

    ck_assert_int_eq(trm_tokenizer_decode(t, ids, count, skip, &text, &bytes), TRM_OK);
    ck_assert_msg(bytes == want_bytes && memcmp(text, want, bytes) == 0 && text[bytes] == '\0',
                  "%s: decoded '%s'", where, text);
    trm_free(text);
    for (size_t start = 0; start <= count; start += 1 + count / 2) {
        size_t before = 0;

        /* what start hides is what pushing the same tokens gives */
        n = 0;
        ck_assert_int_eq(trm_detokenizer_create(t, skip, &d), TRM_OK);
        for (size_t i = 0; i < start; i++) {
            ck_assert_int_eq(trm_detokenizer_push(d, ids[i], &piece, &bytes), TRM_OK);
            before += bytes;
        }
        trm_detokenizer_destroy(d);
        ck_assert_int_eq(trm_detokenizer_create(t, skip, &d), TRM_OK);
        ck_assert_int_eq(trm_detokenizer_start(d, ids, start), TRM_OK);
        for (size_t i = start; i < count; i++) {
            ck_assert_int_eq(trm_detokenizer_push(d, ids[i], &piece, &bytes), TRM_OK);
            append(all, sizeof(all), &n, piece, bytes);
        }
        ck_assert_int_eq(trm_detokenizer_finish(d, &piece, &bytes), TRM_OK);
        append(all, sizeof(all), &n, piece, bytes);
        trm_detokenizer_destroy(d);
        ck_assert_msg(before + n == want_bytes && memcmp(all, want + before, n) == 0,
                      "%s: streamed from %zu: '%.*s'", where, start, (int)n, all);
    }
}

static void check_case(const char *family, int line, const trm_tokenizer *t, char *row)
{
    char *fields[5], *rest = row, *second, where[64];
    int32_t *ids, *types;
    size_t count, bytes[5] = {0};

    snprintf(where, sizeof(where), "%s.cases:%d", family, line);
    for (int i = 0; i < 5; i++) {
        fields[i] = strsep(&rest, " \n");
        ck_assert_msg(fields[i] != NULL, "%s: a line of five fields", where);
    }
    second = strchr(fields[0], ',');
    if (second != NULL)
        *second++ = '\0';
    bytes[0] = from_hex(fields[0]);
    bytes[3] = strcmp(fields[3], "=") == 0 ? SIZE_MAX : from_hex(fields[3]);
    if (bytes[3] == SIZE_MAX) {
        fields[3] = fields[0];
        bytes[3] = bytes[0];
    }
    bytes[4] = strcmp(fields[4], "=") == 0 ? SIZE_MAX : from_hex(fields[4]);
    if (bytes[4] == SIZE_MAX) {
        fields[4] = fields[3];
        bytes[4] = bytes[3];
    }
    if (second != NULL) {
        size_t b = from_hex(second);

        ck_assert_int_eq(
            trm_tokenizer_encode_pair(t, fields[0], bytes[0], second, b, &ids, &types, &count),
            TRM_OK);
        check_ids(where, fields[1], ids, count);
        check_ids(where, fields[2], types, count);
        trm_free(types);
    } else {
        ck_assert_int_eq(trm_tokenizer_encode(t, fields[0], bytes[0], 0, &ids, &count), TRM_OK);
        check_ids(where, fields[1], ids, count);
        trm_free(ids);
        ck_assert_int_eq(
            trm_tokenizer_encode(t, fields[0], bytes[0], TRM_ENCODE_SPECIAL, &ids, &count), TRM_OK);
        check_ids(where, fields[2][0] == '=' ? fields[1] : fields[2], ids, count);
    }
    check_decoded(where, t, ids, count, false, fields[3], bytes[3]);
    check_decoded(where, t, ids, count, true, fields[4], bytes[4]);
    trm_free(ids);
}

static void check_family(const char *family, const char *extension)
{
    trm_tokenizer *t = load(family, extension);
    char path[256], *row = NULL;
    size_t room = 0;
    int line = 0;
    FILE *f;

    snprintf(path, sizeof(path), DATA "%s.cases", family);
    f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s", path);
    while (getline(&row, &room, f) > 0)
        check_case(family, ++line, t, row);
    ck_assert_int_gt(line, 20);
    free(row);
    fclose(f);
    trm_tokenizer_destroy(t);
    ck_assert_int_eq(trm_alloc_live(), 0);
}

static const char *const models[] = {
    "spm_bpe", "spm_bpe_unknown", "spm_gemma", "spm_unigram", "spm_unigram_bytes",
};

START_TEST(as_sentencepiece)
{
    check_family(models[_i], "model");
}
END_TEST

START_TEST(as_the_library)
{
    check_family(families[_i], "json");
}
END_TEST

/* ---- what callers ask ---- */

static int32_t find(const trm_tokenizer *t, const char *token)
{
    return trm_tokenizer_find(t, token, strlen(token));
}

static const struct {
    const char *family, *token, *bytes;
    size_t count;
    bool special;
} token_rows[] = {
    {"gpt2", "\xC4\xA0the", " the", 4, false},
    {"gpt2", "<|endoftext|>", "<|endoftext|>", 13, true},
    {"gpt2", "\xC3\xA9", "\xE9", 1, false}, /* half a character */
    {"llama2", "<0x0A>", "\n", 1, false},
    {"llama2", "<0xC3>", "\xC3", 1, false},
    {"llama2", "\xE2\x96\x81the", " the", 4, false},
    {"llama2", "<s>", "<s>", 3, true},
    {"bert_uncased", "##own", "own", 3, false},
    {"bert_uncased", "the", " the", 4, false},
    {"bert_uncased", "[SEP]", "[SEP]", 5, true},
    {"t5", "\xE2\x96\x81", " ", 1, false},
    {"qwen2", "<tool_call>", "<tool_call>", 11, false},
};

START_TEST(knows_its_tokens)
{
    trm_tokenizer *t = load(token_rows[_i].family, "json");
    int32_t id = find(t, token_rows[_i].token);
    char buf[32];
    size_t bytes;
    const char *token;

    ck_assert_int_ge(id, 0);
    ck_assert_uint_lt((size_t)id, trm_tokenizer_count(t));
    token = trm_tokenizer_token(t, id, &bytes);
    ck_assert_uint_eq(bytes, strlen(token_rows[_i].token));
    ck_assert_mem_eq(token, token_rows[_i].token, bytes);
    ck_assert_uint_eq(trm_tokenizer_token_bytes(t, id, buf, sizeof(buf)), token_rows[_i].count);
    ck_assert_mem_eq(buf, token_rows[_i].bytes, token_rows[_i].count);
    ck_assert_uint_eq(trm_tokenizer_token_bytes(t, id, buf, 0), token_rows[_i].count);
    ck_assert_int_eq(trm_tokenizer_is_special(t, id), token_rows[_i].special);
    ck_assert_ptr_null(trm_tokenizer_token(t, -1, &bytes));
    ck_assert_ptr_null(trm_tokenizer_token(t, (int32_t)trm_tokenizer_count(t), &bytes));
    ck_assert_int_eq(find(t, "no such token at all"), -1);
    trm_tokenizer_destroy(t);
}
END_TEST

START_TEST(special_names_may_be_text)
{
    static const char text[] = "a <|eot_id|> b";
    trm_tokenizer *t = load("llama3", "json");
    int32_t *ids, end = find(t, "<|eot_id|>");
    size_t count, found = 0;

    ck_assert_int_eq(trm_tokenizer_encode(t, text, strlen(text), 0, &ids, &count), TRM_OK);
    for (size_t i = 0; i < count; i++)
        found += ids[i] == end;
    ck_assert_uint_eq(found, 1);
    trm_free(ids);
    ck_assert_int_eq(trm_tokenizer_encode(t, text, strlen(text), TRM_ENCODE_PLAIN, &ids, &count),
                     TRM_OK);
    for (size_t i = 0; i < count; i++)
        ck_assert_int_ne(ids[i], end);
    trm_free(ids);
    trm_tokenizer_destroy(t);
}
END_TEST

START_TEST(refuses_ids_that_are_none)
{
    trm_tokenizer *t = load("gpt2", "json");
    int32_t ids[] = {1, (int32_t)trm_tokenizer_count(t)};
    char *text;
    const char *piece;
    size_t bytes;
    trm_detokenizer *d;

    ck_assert_int_eq(trm_tokenizer_decode(t, ids, 2, false, &text, &bytes), TRM_ERR_INVALID_ARG);
    ids[1] = -5;
    ck_assert_int_eq(trm_tokenizer_decode(t, ids, 2, false, &text, &bytes), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_detokenizer_create(t, true, &d), TRM_OK);
    ck_assert_int_eq(trm_detokenizer_push(d, ids[1], &piece, &bytes), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_detokenizer_start(d, ids, 1), TRM_ERR_INVALID_ARG);
    trm_detokenizer_destroy(d);
    ck_assert_int_eq(trm_tokenizer_decode(t, ids, 0, false, &text, &bytes), TRM_OK);
    ck_assert_uint_eq(bytes, 0);
    trm_free(text);
    trm_tokenizer_destroy(t);
}
END_TEST

/* A character comes out when its last byte has come, not before, and never in parts. */
START_TEST(streams_whole_characters)
{
    static const char text[] = "\xE6\x97\xA5\xE6\x9C\xAC";
    trm_tokenizer *t = load("gpt2", "json");
    trm_detokenizer *d;
    const char *piece;
    int32_t byte;
    size_t bytes;

    ck_assert_int_eq(trm_detokenizer_create(t, true, &d), TRM_OK);
    for (size_t i = 0; i < 6; i++) {
        static const char *const names[] = {"\xC3\xA6", "\xC4\xB9", "\xC2\xA5",
                                            "\xC3\xA6", "\xC4\xBE", "\xC2\xAC"};

        byte = find(t, names[i]);
        ck_assert_int_ge(byte, 0);
        ck_assert_int_eq(trm_detokenizer_push(d, byte, &piece, &bytes), TRM_OK);
        ck_assert_uint_eq(bytes, i % 3 == 2 ? 3 : 0);
        ck_assert(bytes == 0 || memcmp(piece, text + i - 2, 3) == 0);
    }
    /* a first byte alone */
    byte = find(t, "\xC3\xA6");
    ck_assert_int_eq(trm_detokenizer_push(d, byte, &piece, &bytes), TRM_OK);
    ck_assert_uint_eq(bytes, 0);
    ck_assert_int_eq(trm_detokenizer_finish(d, &piece, &bytes), TRM_OK);
    ck_assert_uint_eq(bytes, 3);
    ck_assert_mem_eq(piece, "\xEF\xBF\xBD", 3);
    trm_detokenizer_destroy(d);
    trm_tokenizer_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *c = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, as_the_library, 0, sizeof(families) / sizeof(families[0]));
    tcase_add_loop_test(c, as_sentencepiece, 0, sizeof(models) / sizeof(models[0]));
    tcase_add_loop_test(c, knows_its_tokens, 0, sizeof(token_rows) / sizeof(token_rows[0]));
    tcase_add_test(c, special_names_may_be_text);
    tcase_add_test(c, refuses_ids_that_are_none);
    tcase_add_test(c, streams_whole_characters);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
