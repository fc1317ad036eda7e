/* Files and texts that mean harm: one row a rejection; long words and long runs; no memory. */
#include "base/memory.h"
#include "model/tokenizer/tokenizer.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BPE "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static const struct {
    const char *name, *json;
    trm_status status;
    const char *message;
} rows[] = {
    {"nothing", "", TRM_ERR_BAD_FILE, "the file:1"},
    {"not JSON", "{\"model\":", TRM_ERR_BAD_FILE, "the file:1"},
    {"not UTF-8", "{\"model\":\"\xFF\"}", TRM_ERR_BAD_FILE, "the file:1"},
    {"array", "[]", TRM_ERR_BAD_FILE, "no JSON object"},
    {"no model", "{}", TRM_ERR_BAD_FILE, "\"model\" is missing"},
    {"model type", "{\"model\":{\"type\":\"Quantum\"}}", TRM_ERR_UNSUPPORTED,
     "supported: BPE, WordPiece, WordLevel, Unigram"},
    {"no vocabulary", "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", TRM_ERR_BAD_FILE,
     "\"vocab\" of the model"},
    {"id is text", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}",
     TRM_ERR_BAD_FILE, "token 'a' of the vocabulary has no id"},
    {"id is huge", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}}",
     TRM_ERR_BAD_FILE, "at most"},
    {"one id twice", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
     TRM_ERR_BAD_FILE, "have the same id 0"},
    {"no merges", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", TRM_ERR_BAD_FILE,
     "\"merges\""},
    {"merge of three", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}",
     TRM_ERR_BAD_FILE, "not two tokens"},
    {"merge of a number", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}",
     TRM_ERR_BAD_FILE, "no pair"},
    {"merge of nothing", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a q\"]}}",
     TRM_ERR_BAD_FILE, "'q', which is not in the vocabulary"},
    {"dropout", "{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}",
     TRM_ERR_UNSUPPORTED, "dropout"},
    {"unk_id", "{\"model\":{\"type\":\"Unigram\",\"unk_id\":5,\"vocab\":[[\"a\",-1]]}}",
     TRM_ERR_BAD_FILE, "unk_id"},
    {"no score", "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\"]]}}",
     TRM_ERR_BAD_FILE, "entry 0"},
    {"normalizer", "{" BPE ",\"normalizer\":{\"type\":\"Rot13\"}}", TRM_ERR_UNSUPPORTED,
     "normalizer 'Rot13' (supported: Sequence, NFC"},
    {"pre_tokenizer", "{" BPE ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}",
     TRM_ERR_UNSUPPORTED, "pre_tokenizer 'UnicodeScripts' (supported: Sequence, ByteLevel"},
    {"behavior",
     "{" BPE ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
     "\"behavior\":\"Eaten\"}}",
     TRM_ERR_UNSUPPORTED, "behavior 'Eaten'"},
    {"pattern", "{" BPE ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\"}}",
     TRM_ERR_BAD_FILE, "\"pattern\""},
    {"regex",
     "{" BPE ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},"
     "\"behavior\":\"Removed\"}}",
     TRM_ERR_UNSUPPORTED, "regular expression '(a'"},
    {"replacement", "{" BPE ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}",
     TRM_ERR_BAD_FILE, "not one character"},
    {"post_processor", "{" BPE ",\"post_processor\":{\"type\":\"Pagination\"}}",
     TRM_ERR_UNSUPPORTED, "post_processor 'Pagination'"},
    {"template without ids",
     "{" BPE ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
     "{\"id\":\"x\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}}",
     TRM_ERR_BAD_FILE, "special token 'x'"},
    {"template of no token",
     "{" BPE ",\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"b\",1],\"cls\":[\"z\","
     "9]}}",
     TRM_ERR_BAD_FILE, "id 9, which no token has"},
    {"decoder", "{" BPE ",\"decoder\":{\"type\":\"CTC\"}}", TRM_ERR_UNSUPPORTED, "decoder 'CTC'"},
    {"character map",
     "{" BPE ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}}",
     TRM_ERR_BAD_FILE, "character map"},
    {"base64", "{" BPE ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}}",
     TRM_ERR_BAD_FILE, "no base64"},
    {"added token", "{" BPE ",\"added_tokens\":[{\"id\":3}]}", TRM_ERR_BAD_FILE, "\"content\""},
};

START_TEST(refuses)
{
    trm_tokenizer *t;
    const char *json = rows[_i].json;

    ck_assert_int_eq(trm_tokenizer_from_json("the file", json, strlen(json), &t), rows[_i].status);
    ck_assert_msg(strstr(trm_message(), rows[_i].message) != NULL &&
                      strncmp(trm_message(), "the file", 8) == 0,
                  "%s: %s", rows[_i].name, trm_message());
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

START_TEST(refuses_deep_sequences)
{
    static const char open[] = "{\"type\":\"Sequence\",\"normalizers\":[";
    char *json = malloc(200000);
    size_t n = (size_t)snprintf(json, 1000, "{" BPE ",\"normalizer\":");
    trm_tokenizer *t;

    for (int i = 0; i < 1000; i++)
        n += (size_t)snprintf(json + n, 100, "%s", open);
    for (int i = 0; i < 1000; i++)
        n += (size_t)snprintf(json + n, 100, "]}");
    n += (size_t)snprintf(json + n, 100, "}");
    ck_assert_int_ne(trm_tokenizer_from_json("deep", json, n, &t), TRM_OK);
    free(json);
}
END_TEST

/* ---- sentencepiece ---- */

static const struct {
    const char *name, *bytes;
    size_t count;
    trm_status status;
} model_rows[] = {
    {"nothing", "", 0, TRM_ERR_BAD_FILE},
    {"text", "hello", 5, TRM_ERR_BAD_FILE},
    {"cut off",
     "\x0a\x20\x0a\x01"
     "a",
     5, TRM_ERR_BAD_FILE},
    {"type of a piece",
     "\x0a\x05\x0a\x01"
     "a\x18\x09",
     7, TRM_ERR_BAD_FILE},
    {"words",
     "\x0a\x05\x0a\x01"
     "a\x18\x01\x12\x02\x18\x03",
     11, TRM_ERR_UNSUPPORTED},
    {"map",
     "\x0a\x05\x0a\x01"
     "a\x18\x01\x1a\x04\x12\x02zz",
     13, TRM_ERR_BAD_FILE},
};

START_TEST(refuses_models)
{
    trm_tokenizer *t;

    ck_assert_int_eq(
        trm_tokenizer_from_sentencepiece("m", model_rows[_i].bytes, model_rows[_i].count, &t),
        model_rows[_i].status);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* ---- texts ---- */

#define LONG ((size_t)1 << 20)

static const char *const long_jsons[] = {
    "{" BPE "}",
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"b\":3},\"merges\":[\"a "
    "a\",\"aa aa\"]}}",
    "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"a\",\"max_input_chars_per_word\":100000000,"
    "\"vocab\":{\"a\":0,\"##a\":1,\"##aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\":2}}}",
    "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"aa\",-2],"
    "[\"aaaaaaaa\",-3]]}}",
    "{\"normalizer\":{\"type\":\"NFC\"}," BPE "}",
    "{\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}," BPE
    ",\"added_tokens\":[{\"id\":3,\"content\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\","
    "\"special\":true,\"lstrip\":true,\"rstrip\":true}]}",
};

/* A megabyte without a blank, of blanks, and of marks that want to be put in order. */
static const char *const units[] = {"a", "ab", " ", "\xCC\x81\xCC\xA3", "\xF0\x9F\x98\x80", "\xFF"};

START_TEST(takes_long_texts)
{
    size_t count = sizeof(units) / sizeof(units[0]), got, n = strlen(units[(size_t)_i % count]);
    const char *json = long_jsons[(size_t)_i / count];
    char *text = malloc(LONG);
    trm_tokenizer *t;
    int32_t *ids;

    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < LONG; i++)
        text[i] = units[(size_t)_i % count][i % n];
    ck_assert_msg(trm_tokenizer_from_json("long", json, strlen(json), &t) == TRM_OK, "%s",
                  trm_message());
    ck_assert_msg(trm_tokenizer_encode(t, text, LONG, 0, &ids, &got) == TRM_OK, "%s",
                  trm_message());
    trm_free(ids);
    trm_tokenizer_destroy(t);
    free(text);
}
END_TEST

START_TEST(bounds_slow_patterns)
{
    static const char json[] =
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|a)*(?:b|c)\"},"
        "\"behavior\":\"Isolated\"}," BPE "}";
    trm_tokenizer *t;
    int32_t *ids;
    size_t count;
    char text[3000];

    memset(text, 'a', sizeof(text));
    text[2999] = 'd';
    ck_assert_int_eq(trm_tokenizer_from_json("slow", json, strlen(json), &t), TRM_OK);
    ck_assert_int_eq(trm_tokenizer_encode(t, text, sizeof(text), 0, &ids, &count),
                     TRM_ERR_INVALID_ARG);
    trm_tokenizer_destroy(t);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

START_TEST(says_what_it_cannot_encode)
{
    static const char *const jsons[] = {
        "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"no\",\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}",
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1]]}}",
        "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"no\",\"vocab\":{\"a\":0},\"merges\":[]}}",
    };
    trm_tokenizer *t;
    int32_t *ids;
    size_t count;

    ck_assert_int_eq(trm_tokenizer_from_json("j", jsons[_i], strlen(jsons[_i]), &t), TRM_OK);
    ck_assert_int_eq(trm_tokenizer_encode(t, "a", 1, 0, &ids, &count), TRM_OK);
    trm_free(ids);
    ck_assert_int_eq(trm_tokenizer_encode(t, "z", 1, 0, &ids, &count), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "no token"));
    trm_tokenizer_destroy(t);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* ---- no memory ---- */

static const char *const memory_jsons[] = {
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true}],\"normalizer\":{\"type\":"
    "\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Replace\",\"pattern\":{"
    "\"Regex\":"
    "\"c\"},\"content\":\"b\"}]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":"
    "\"ByteLevel\"}," BPE "}",
    "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":"
    "\"BertPreTokenizer\"}"
    ",\"decoder\":{\"type\":\"WordPiece\"},\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"a\","
    "\"vocab\":{\"a\":0,\"##b\":1}}}",
    "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"},\"decoder\":{\"type\":"
    "\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"model\":{"
    "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",-1],[\"b\",-2]]}}",
};

static trm_status whole_way(const char *json)
{
    static const char text[] =
        "ab <x> \xC3\xA9\xCC\xA3 cab abababababababababababababababababababab";
    trm_tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t count, bytes;
    char *out = NULL;
    trm_status st;

    TRM_TRY(st, trm_tokenizer_from_json("m", json, strlen(json), &t), end);
    TRM_TRY(st, trm_tokenizer_encode(t, text, strlen(text), TRM_ENCODE_SPECIAL, &ids, &count), end);
    TRM_TRY(st, trm_tokenizer_decode(t, ids, count, false, &out, &bytes), end);
end:
    trm_free(out);
    trm_free(ids);
    trm_tokenizer_destroy(t);
    return st;
}

START_TEST(survives_no_memory)
{
    trm_status st = TRM_ERR_NO_MEMORY;
    int64_t calls = 0;

    for (; st != TRM_OK && calls < 2000; calls++) {
        trm_alloc_fail_after(calls);
        st = whole_way(memory_jsons[_i]);
        ck_assert_msg(st == TRM_OK || st == TRM_ERR_NO_MEMORY, "%s", trm_message());
        ck_assert_int_eq(trm_alloc_live(), 0);
    }
    trm_alloc_fail_after(-1);
    ck_assert_int_eq(st, TRM_OK);
    ck_assert_int_gt(calls, 20);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer_bad");
    TCase *c = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, refuses, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(c, refuses_deep_sequences);
    tcase_add_loop_test(c, refuses_models, 0, sizeof(model_rows) / sizeof(model_rows[0]));
    tcase_add_loop_test(c, takes_long_texts, 0,
                        sizeof(long_jsons) / sizeof(long_jsons[0]) * sizeof(units) /
                            sizeof(units[0]));
    tcase_add_test(c, bounds_slow_patterns);
    tcase_add_loop_test(c, says_what_it_cannot_encode, 0, 4);
    tcase_add_loop_test(c, survives_no_memory, 0, sizeof(memory_jsons) / sizeof(memory_jsons[0]));
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
