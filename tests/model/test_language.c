/* Language models as packages: what is one, what of a folder is found, what is refused. */
#define _GNU_SOURCE /* mkdtemp, nftw */
#include "base/log.h"
#include "tests/model/format_tests.h"
#include "tests/model/tokenizer_stub.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODELS TRM_SOURCE_DIR "/tests/data/language/models/"

static char folder[64];

static void set_up(void)
{
    snprintf(folder, sizeof(folder), "/tmp/trm_language_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    stub.count = 1;
    stub.special_from = 0;
    stub.made_of[0] = '\0';
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

static void tear_down(void)
{
    ck_assert_int_eq(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static const char *inside(const char *name)
{
    static char path[4][256];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[0]), "%s/%s", folder, name);
    return path[next];
}

static void put_file(const char *name, const char *text)
{
    write_file(inside(name), text, strlen(text));
}

/* The weights and the configuration of a tiny model, in the folder of the test. */
static void take_model(const char *name)
{
    char from[512];

    snprintf(from, sizeof(from), MODELS "%s/model.safetensors", name);
    copy_file(from, inside("model.safetensors"));
    snprintf(from, sizeof(from), MODELS "%s/config.json", name);
    copy_file(from, inside("config.json"));
}

static trm_language *open_ok(const char *path, const trm_language_options *options)
{
    trm_language *l = NULL;

    ck_assert_msg(trm_language_open(path, options, &l) == TRM_OK, "%s: %s", path, trm_message());
    return l;
}

static void refuse(const char *path, const trm_language_options *options, trm_status status,
                   const char *message)
{
    trm_language *l = NULL;
    trm_status st = trm_language_open(path, options, &l);

    ck_assert_msg(st == status, "%s: %d, %s", path, (int)st, trm_message());
    ck_assert_msg(strstr(trm_message(), message) != NULL, "%s: %s", path, trm_message());
}

/* ---- whole models ---- */

static const struct model {
    const char *path;
    bool encoder;
    const char *output;
} models[] = {
    {"llama", false, "logits"},
    {"llama-q8_0.gguf", false, "logits"},
    {"mixtral-f16.gguf", false, "logits"},
    {"gemma3", false, "logits"},
    {"phi3-f16.gguf", false, "logits"},
    {"gpt2-f16.gguf", false, "logits"},
    {"qwen3moe", false, "logits"},
    {"bert", true, "embeddings"},
    {"bert-classes", true, "logits"},
    {"xlm-roberta", true, "embeddings"},
};

START_TEST(opens)
{
    trm_language_options o = {.no_tokenizer = true};
    char path[512];
    trm_language *l;
    uint64_t a = 0, b = 0;

    snprintf(path, sizeof(path), MODELS "%s", models[_i].path);
    ck_assert(trm_language_is(path));
    l = open_ok(path, &o);
    ck_assert(l->encoder == models[_i].encoder);
    ck_assert(l->gguf_file == (strstr(path, ".gguf") != NULL));
    ck_assert_int_eq(l->graph->output_count, 1);
    ck_assert_str_eq(l->graph->values[l->graph->outputs[0]].name, models[_i].output);
    ck_assert_int_gt(trm_graph_parameter_count(l->graph), 1000);
    ck_assert_ptr_null(l->tokenizer);
    ck_assert_int_eq(l->context, l->config.context);
    ck_assert_int_eq(trm_language_identity(l, &a), TRM_OK);
    trm_language_close(l);
    l = open_ok(path, &o);
    ck_assert_int_eq(trm_language_identity(l, &b), TRM_OK);
    ck_assert(a == b);
    trm_language_close(l);
}
END_TEST

/* ---- what is one ---- */

START_TEST(is_one)
{
    ck_assert(!trm_language_is(folder));
    put_file("config.json", "{}");
    ck_assert(trm_language_is(folder)); /* what is missing is said when it is opened */
    put_file("model.onnx", "x");
    ck_assert(!trm_language_is(folder));
    refuse(folder, NULL, TRM_ERR_UNSUPPORTED, "holds an ONNX network");
    put_file("model.safetensors", "x");
    ck_assert(!trm_language_is(folder)); /* a folder with both stays the network that it was */
    ck_assert(trm_language_is(inside("model.safetensors")));
    ck_assert(!trm_language_is(inside("model.onnx")));
    ck_assert(!trm_language_is(inside("none.gguf")));
    ck_assert(!trm_language_is(""));
}
END_TEST

START_TEST(is_none)
{
    refuse(inside("x"), NULL, TRM_ERR_NOT_FOUND, "does not exist");
    refuse(folder, NULL, TRM_ERR_NOT_FOUND, "no config.json");
    put_file("adapter_config.json", "{}");
    refuse(folder, NULL, TRM_ERR_UNSUPPORTED, "LoRA");
    put_file("x.bin", "PK");
    refuse(inside("x.bin"), NULL, TRM_ERR_UNSUPPORTED, "convert to safetensors");
    put_file("x.txt", "PK");
    refuse(inside("x.txt"), NULL, TRM_ERR_UNSUPPORTED, "supported are folders");
    put_file("x.gguf", "PK");
    refuse(inside("x.gguf"), NULL, TRM_ERR_BAD_FILE, "GGUF header");
    put_file("x.safetensors", "PK");
    refuse(inside("x.safetensors"), NULL, TRM_ERR_NOT_FOUND, "config.json' is missing");
    put_file("config.json", "{\"architectures\":[\"LlamaForCausalLM\"]}");
    refuse(inside("x.safetensors"), NULL, TRM_ERR_BAD_FILE, "safetensors file");
    put_file("pytorch_model.bin", "PK");
    refuse(folder, NULL, TRM_ERR_UNSUPPORTED, "convert to safetensors");
}
END_TEST

/* A file of weights beside its config.json is the model; a shard stands for all of them. */
START_TEST(single_files)
{
    trm_language_options o = {.no_tokenizer = true};

    take_model("mistral");
    trm_language_close(open_ok(inside("model.safetensors"), &o));
    ck_assert_int_eq(rename(inside("model.safetensors"), inside("other.safetensors")), 0);
    trm_language_close(open_ok(inside("other.safetensors"), &o));
    refuse(folder, &o, TRM_ERR_NOT_FOUND, "holds neither");
    ck_assert_int_eq(rename(inside("other.safetensors"), inside("m-00001-of-00001.safetensors")),
                     0);
    refuse(inside("m-00001-of-00001.safetensors"), &o, TRM_ERR_NOT_FOUND, "holds neither");
}
END_TEST

/* Weights that do not fit the configuration. */
START_TEST(misfit)
{
    trm_language_options o = {.no_tokenizer = true};

    take_model("mistral");
    put_file("config.json", "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64}");
    refuse(folder, &o, TRM_ERR_BAD_FILE, folder);
}
END_TEST

/* ---- options ---- */

START_TEST(options)
{
    trm_language_options o = {.no_tokenizer = true, .context = 16};
    trm_language *l;
    uint64_t a = 0, b = 0, c = 0;

    take_model("mistral");
    l = open_ok(folder, &o);
    ck_assert_int_eq(l->context, 16);
    ck_assert_int_eq(trm_language_identity(l, &a), TRM_OK);
    trm_language_close(l);
    o.context = 0;
    l = open_ok(folder, &o);
    ck_assert_int_eq(trm_language_identity(l, &b), TRM_OK);
    o.context = l->config.context + 1;
    trm_language_close(l);
    refuse(folder, &o, TRM_ERR_INVALID_ARG, "a context of");
    o.context = -1;
    refuse(folder, &o, TRM_ERR_INVALID_ARG, "a context of -1");
    o.context = 0;
    o.dtype = TRM_DTYPE_BF16;
    l = open_ok(folder, &o);
    ck_assert_int_eq(trm_language_identity(l, &c), TRM_OK);
    trm_language_close(l);
    ck_assert(a != b && b != c && a != c);
    o.dtype = TRM_DTYPE_F16;
    refuse(folder, &o, TRM_ERR_INVALID_ARG, "activations in f16");
}
END_TEST

/* ---- text ---- */

START_TEST(tokenizers)
{
    trm_language *l;

    take_model("mistral");
    l = open_ok(folder, NULL);
    ck_assert_ptr_null(l->tokenizer);
    ck_assert_ptr_null(l->bos_text);
    trm_language_close(l);
    put_file("tokenizer.model", "x");
    trm_language_close(open_ok(folder, NULL));
    ck_assert_str_eq(stub.made_of, "sentencepiece tokenizer.model");
    put_file("tokenizer.json", "x");
    stub.count = 8;
    l = open_ok(folder, NULL);
    ck_assert_str_eq(stub.made_of, "json tokenizer.json");
    ck_assert_str_eq(l->bos_text, "<1>");
    ck_assert_str_eq(l->eos_text, "<2>");
    trm_language_close(l);
    put_file("special_tokens_map.json", "{\"bos_token\":\"[B]\",\"eos_token\":\"[E]\"}");
    put_file("tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":null}");
    l = open_ok(folder, NULL);
    ck_assert_str_eq(l->bos_text, "<s>");
    ck_assert_str_eq(l->eos_text, "[E]");
    trm_language_close(l);
    put_file("tokenizer.json", "");
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "tokenizer.json' is empty");
}
END_TEST

START_TEST(vocabularies)
{
    trm_language *l;
    size_t rows;

    take_model("mistral");
    put_file("tokenizer.json", "x");
    l = open_ok(folder, NULL);
    rows = (size_t)l->config.vocabulary;
    trm_language_close(l);
    stub.count = rows;
    trm_language_close(open_ok(folder, NULL));
    stub.count = rows + 1;
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "different models");
    stub.special_from = rows;
    trm_language_close(open_ok(folder, NULL));
    stub.special_from = rows + 1;
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "different models");
}
END_TEST

static const struct chat {
    const char *name, *config, *jinja, *json;
    const char *text, *tools;
} chats[] = {
    {"none", "{}", NULL, NULL, NULL, NULL},
    {"null", "{\"chat_template\":null}", NULL, NULL, NULL, NULL},
    {"a string", "{\"chat_template\":\"a\"}", NULL, NULL, "a", NULL},
    {"a list",
     "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},{\"name\":\"x\",\"template\":"
     "\"x\"},{\"name\":\"default\",\"template\":\"d\"}]}",
     NULL, NULL, "d", "t"},
    {"a list of one", "{\"chat_template\":[{\"name\":\"x\",\"template\":\"x\"}]}", NULL, NULL, "x",
     NULL},
    {"a file", "{\"chat_template\":\"a\"}", "j", "{\"chat_template\":\"b\"}", "j", NULL},
    {"JSON", "{}", NULL, "{\"chat_template\":\"b\"}", "b", NULL},
    {"the string before JSON", "{\"chat_template\":\"a\"}", NULL, "{\"chat_template\":\"b\"}", "a",
     NULL},
};

START_TEST(chat_templates)
{
    const struct chat *r = &chats[_i];
    trm_language *l;

    take_model("mistral");
    put_file("tokenizer_config.json", r->config);
    if (r->jinja != NULL)
        put_file("chat_template.jinja", r->jinja);
    if (r->json != NULL)
        put_file("chat_template.json", r->json);
    l = open_ok(folder, NULL);
    ck_assert((l->chat_text == NULL) == (r->text == NULL));
    ck_assert((l->chat_tools_text == NULL) == (r->tools == NULL));
    ck_assert((l->chat == NULL) == (r->text == NULL));
    ck_assert((l->chat_tools == NULL) == (r->tools == NULL));
    if (r->text != NULL)
        ck_assert_str_eq(l->chat_text, r->text);
    if (r->tools != NULL)
        ck_assert_str_eq(l->chat_tools_text, r->tools);
    trm_language_close(l);
}
END_TEST

START_TEST(bad_chat_templates)
{
    trm_language_options o = {.chat_template = inside("mine.jinja")};
    trm_language *l;

    take_model("mistral");
    put_file("tokenizer_config.json", "{\"chat_template\":\"{% if %}\"}");
    l = open_ok(folder, NULL); /* other text works */
    ck_assert_ptr_null(l->chat);
    ck_assert_str_eq(l->chat_text, "{% if %}");
    trm_language_close(l);
    refuse(folder, &o, TRM_ERR_NOT_FOUND, "mine.jinja");
    put_file("mine.jinja", "{% if %}");
    refuse(folder, &o, TRM_ERR_BAD_FILE, "line");
    put_file("mine.jinja", "mine");
    l = open_ok(folder, &o);
    ck_assert_str_eq(l->chat_text, "mine");
    ck_assert_ptr_nonnull(l->chat);
    trm_language_close(l);
    put_file("tokenizer_config.json", "{\"chat_template\":1}");
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "want a string or a list");
    put_file("tokenizer_config.json", "{\"chat_template\":[{}]}");
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "\"chat_template\"[0]");
    put_file("tokenizer_config.json", "{");
    refuse(folder, NULL, TRM_ERR_BAD_FILE, "tokenizer_config.json' line 1");
}
END_TEST

/* ---- sentence-transformers ---- */

#define MODULES(more)                                                                              \
    "[{\"idx\":0,\"name\":\"0\",\"path\":\"\",\"type\":\"sentence_transformers.models."            \
    "Transformer\"}" more "]"
#define POOLING                                                                                    \
    ",{\"idx\":1,\"name\":\"1\",\"path\":\"1_Pooling\","                                           \
    "\"type\":\"sentence_transformers.models.Pooling\"}"
#define NORMALIZE                                                                                  \
    ",{\"idx\":2,\"name\":\"2\",\"path\":\"2_Normalize\","                                         \
    "\"type\":\"sentence_transformers.models.Normalize\"}"

static const struct sentence {
    const char *name, *modules, *pooling, *limit;
    trm_status status;
    const char *want; /* pooling or message */
    bool normalize;
    int64_t tokens_max;
} sentences[] = {
    {"no modules", NULL, NULL, NULL, TRM_OK, "mean", false, 0},
    {"a mean", MODULES(POOLING NORMALIZE), "{\"pooling_mode_mean_tokens\":true}",
     "{\"max_seq_length\":9}", TRM_OK, "mean", true, 9},
    {"cls", MODULES(POOLING),
     "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":false}",
     "{\"max_seq_length\":99999}", TRM_OK, "cls", false, 0},
    {"the last, newer", MODULES(POOLING), "{\"pooling_mode\":\"lasttoken\"}", NULL, TRM_OK, "last",
     false, 0},
    {"two modes", MODULES(POOLING),
     "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":true}", NULL,
     TRM_ERR_UNSUPPORTED, "two modes", false, 0},
    {"max", MODULES(POOLING), "{\"pooling_mode_max_tokens\":true}", NULL, TRM_ERR_UNSUPPORTED,
     "pooling 'max'", false, 0},
    {"a list", MODULES(POOLING), "{\"pooling_mode\":[\"mean\",\"cls\"]}", NULL, TRM_ERR_UNSUPPORTED,
     "of a list", false, 0},
    {"without the prompt", MODULES(POOLING), "{\"pooling_mode\":\"mean\",\"include_prompt\":false}",
     NULL, TRM_ERR_UNSUPPORTED, "include_prompt", false, 0},
    {"a missing file", MODULES(POOLING), NULL, NULL, TRM_ERR_NOT_FOUND, "1_Pooling/config.json",
     false, 0},
    {"another module",
     MODULES(",{\"path\":\"2_Dense\",\"type\":\"sentence_transformers.models.Dense\"}"), NULL, NULL,
     TRM_ERR_UNSUPPORTED, "models.Dense", false, 0},
    {"a path out", MODULES(",{\"path\":\"../x\",\"type\":\"a.Pooling\"}"), NULL, NULL,
     TRM_ERR_BAD_FILE, "../x", false, 0},
    {"no list", "{}", NULL, NULL, TRM_ERR_BAD_FILE, "want a list of modules", false, 0},
    {"numbers", "[1]", NULL, NULL, TRM_ERR_BAD_FILE, "\"type\" and \"path\"", false, 0},
    {"a bad limit", NULL, NULL, "{\"max_seq_length\":0}", TRM_ERR_BAD_FILE, "max_seq_length", false,
     0},
};

START_TEST(sentence_folders)
{
    const struct sentence *r = &sentences[_i];
    trm_language_options o = {.no_tokenizer = true};
    trm_language *l;

    take_model("bert");
    if (r->modules != NULL)
        put_file("modules.json", r->modules);
    ck_assert_int_eq(mkdir(inside("1_Pooling"), 0700), 0);
    if (r->pooling != NULL)
        put_file("1_Pooling/config.json", r->pooling);
    if (r->limit != NULL)
        put_file("sentence_bert_config.json", r->limit);
    if (r->status != TRM_OK) {
        refuse(folder, &o, r->status, r->want);
        return;
    }
    l = open_ok(folder, &o);
    ck_assert_str_eq(l->config.pooling, r->want);
    ck_assert(l->config.pooling_normalize == r->normalize);
    ck_assert_int_eq(l->config.tokens_max, r->tokens_max);
    trm_language_close(l);
}
END_TEST

START_TEST(embeddings_on_a_decoder)
{
    take_model("mistral");
    put_file("modules.json", MODULES(POOLING));
    refuse(folder, NULL, TRM_ERR_UNSUPPORTED, "embedding model");
}
END_TEST

START_TEST(no_memory)
{
    int64_t live;
    trm_status st = TRM_ERR_NO_MEMORY;
    trm_language *l = NULL;

    take_model("bert");
    put_file("tokenizer.json", "x");
    put_file("tokenizer_config.json", "{\"chat_template\":\"a\"}");
    live = trm_alloc_live();
    for (int64_t n = 0; st == TRM_ERR_NO_MEMORY; n++) {
        trm_alloc_fail_after(n);
        st = trm_language_open(folder, NULL, &l);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_language_close(l);
        ck_assert_msg(trm_alloc_live() == live, "call %lld", (long long)n);
        ck_assert_int_lt(n, 20000);
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language");
    TCase *t = tcase_create("packages");
    SRunner *r;
    int failed;

    if (trm_log_set_level("error") != TRM_OK) /* warnings of missing tokenizers are many */
        return EXIT_FAILURE;
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, opens, 0, sizeof(models) / sizeof(models[0]));
    tcase_add_test(t, is_one);
    tcase_add_test(t, is_none);
    tcase_add_test(t, single_files);
    tcase_add_test(t, misfit);
    tcase_add_test(t, options);
    tcase_add_test(t, tokenizers);
    tcase_add_test(t, vocabularies);
    tcase_add_loop_test(t, chat_templates, 0, sizeof(chats) / sizeof(chats[0]));
    tcase_add_test(t, bad_chat_templates);
    tcase_add_loop_test(t, sentence_folders, 0, sizeof(sentences) / sizeof(sentences[0]));
    tcase_add_test(t, embeddings_on_a_decoder);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
