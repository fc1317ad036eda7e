/* Configurations: config.json against what transformers makes of it, GGUF's metadata, and values
 * that make no sense. */
#include "tests/model/format_tests.h"

#include <math.h>

static trm_status parse(const char *config, const char *generation, trm_lm_config *c)
{
    return trm_lm_config_huggingface("m/config.json", config, strlen(config), generation,
                                     generation == NULL ? 0 : strlen(generation), c);
}

/* ---- config.json against transformers ---- */

static json_t *rows;

static void load_rows(void)
{
    rows = load_json("configs.json");
}

static void free_rows(void)
{
    json_decref(rows);
}

static const char *row_name;

static void same_int(json_t *want, const char *key, int64_t got)
{
    json_t *v = json_object_get(want, key);

    if (v != NULL)
        ck_assert_msg(json_integer_value(v) == got, "%s: %s is %lld, want %lld", row_name, key,
                      (long long)got, (long long)json_integer_value(v));
}

static void same_bool(json_t *want, const char *key, bool got)
{
    json_t *v = json_object_get(want, key);

    if (v != NULL)
        ck_assert_msg(json_is_true(v) == got, "%s: %s is %d", row_name, key, got);
}

/* `otherwise`: what it is where transformers has no such setting. */
static void same_float(json_t *want, const char *key, double otherwise, double got)
{
    json_t *v = json_object_get(want, key);
    double x = v == NULL ? otherwise : json_number_value(v);

    ck_assert_msg(fabs(got - x) <= 1e-6 * fabs(x), "%s: %s is %g, want %g", row_name, key, got, x);
}

static void same_scaling(json_t *want, const trm_lm_config *c)
{
    static const char *const names[] = {"default", "linear",   "dynamic",
                                        "yarn",    "longrope", "llama3"};
    const char *kind = json_string_value(json_object_get(want, "rope_type"));

    if (kind == NULL) {
        ck_assert(c->rope_theta == 0 && c->rope_scaling == TRM_ROPE_NONE);
        return;
    }
    ck_assert_str_eq(names[c->rope_scaling], kind);
    same_float(want, "rope_theta", 0, c->rope_theta);
    same_float(want, "rope_local_theta", 0, c->rope_local_theta);
    if (c->rope_scaling != TRM_ROPE_LONGROPE)
        same_float(want, "rope_factor", 0, c->rope_factor);
    same_float(want, "rope_low_freq_factor", 0, c->rope_low_freq_factor);
    same_float(want, "rope_high_freq_factor", 0, c->rope_high_freq_factor);
    same_int(want, "rope_original_context", c->rope_original_context);
    same_int(want, "rotary_dim", c->rotary_dim);
    for (int64_t i = 0; i < c->rope_factor_count; i++) {
        json_t *shorts = json_object_get(want, "rope_short"),
               *longs = json_object_get(want, "rope_long");

        ck_assert(json_number_value(json_array_get(shorts, (size_t)i)) == c->rope_short[i]);
        ck_assert(json_number_value(json_array_get(longs, (size_t)i)) == c->rope_long[i]);
    }
    ck_assert_uint_eq(json_array_size(json_object_get(want, "rope_long")),
                      (size_t)c->rope_factor_count);
}

static void same_lists(json_t *want, const trm_lm_config *c)
{
    json_t *eos = json_object_get(want, "eos"), *labels = json_object_get(want, "labels");
    json_t *windows = json_object_get(want, "windows");

    ck_assert_msg((int)json_array_size(eos) == c->eos_count, "%s: %d eos", row_name, c->eos_count);
    for (int i = 0; i < c->eos_count; i++)
        ck_assert_int_eq(json_integer_value(json_array_get(eos, (size_t)i)), c->eos[i]);
    ck_assert_uint_eq(json_array_size(labels), (size_t)c->labels);
    for (int64_t i = 0; i < c->labels; i++)
        ck_assert_str_eq(json_string_value(json_array_get(labels, (size_t)i)), c->label_names[i]);
    for (int64_t l = 0; l < c->layers; l++) {
        int64_t got = trm_lm_layer_windowed(c, l) ? c->window : 0;

        ck_assert_msg(json_integer_value(json_array_get(windows, (size_t)l)) == got,
                      "%s: layer %lld has window %lld", row_name, (long long)l, (long long)got);
    }
}

START_TEST(against_transformers)
{
    json_t *row = json_array_get(rows, (size_t)_i), *want;
    char *text;
    trm_lm_config c;

    if (row == NULL)
        return;
    row_name = json_string_value(json_object_get(row, "name"));
    want = json_object_get(row, "want");
    text = json_dumps(json_object_get(row, "config"), 0);
    ck_assert_msg(parse(text, NULL, &c) == TRM_OK, "%s: %s", row_name, trm_message());
    same_int(want, "layers", c.layers);
    same_int(want, "hidden", c.hidden);
    same_int(want, "feed_forward", c.feed_forward);
    same_int(want, "heads", c.heads);
    same_int(want, "kv_heads", c.kv_heads);
    same_int(want, "head_dim", c.head_dim);
    same_int(want, "vocabulary", c.vocabulary);
    same_int(want, "context", c.context);
    same_int(want, "experts", c.experts);
    same_int(want, "experts_used", c.experts_used);
    same_int(want, "expert_feed_forward", c.expert_feed_forward);
    same_int(want, "token_types", c.token_types);
    same_int(want, "position_offset", c.position_offset);
    same_int(want, "bos", c.bos);
    same_int(want, "pad", c.pad);
    same_bool(want, "tied", c.tied_embeddings);
    same_bool(want, "attention_bias", c.attention_bias);
    same_bool(want, "attention_bias", c.output_bias);
    same_bool(want, "mlp_bias", c.mlp_bias);
    same_bool(want, "experts_normalize", c.experts_normalize);
    same_float(want, "norm_epsilon", 0, (double)c.norm_epsilon);
    same_float(want, "attention_scale", 0, (double)c.attention_scale);
    same_float(want, "attention_softcap", 0, (double)c.attention_softcap);
    same_float(want, "logit_softcap", 0, (double)c.logit_softcap);
    ck_assert_str_eq(c.activation, json_string_value(json_object_get(want, "activation")));
    same_scaling(want, &c);
    same_lists(want, &c);
    trm_lm_config_fini(&c);
    free(text);
}
END_TEST

/* ---- single settings ---- */

#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],"

START_TEST(biases)
{
    static const struct {
        const char *class_name;
        bool attention, output, mlp;
    } want[] = {{"LlamaForCausalLM", false, false, false},
                {"Qwen2ForCausalLM", true, false, false},
                {"MistralForCausalLM", false, false, false},
                {"GPT2LMHeadModel", true, true, true},
                {"BertModel", true, true, true}};
    char text[100];
    trm_lm_config c;

    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        snprintf(text, sizeof(text), "{\"architectures\":[\"%s\"]}", want[i].class_name);
        ck_assert_msg(parse(text, NULL, &c) == TRM_OK, "%s", trm_message());
        ck_assert(c.attention_bias == want[i].attention && c.output_bias == want[i].output &&
                  c.mlp_bias == want[i].mlp);
        trm_lm_config_fini(&c);
    }
}
END_TEST

START_TEST(generation)
{
    trm_lm_config c;

    ck_assert_msg(parse("{" LLAMA "\"eos_token_id\":7,\"bos_token_id\":5}",
                        "{\"eos_token_id\":[3,4,3],\"temperature\":0.5,\"top_p\":0.25,\"top_k\":9,"
                        "\"repetition_penalty\":1.25,\"pad_token_id\":99999999}",
                        &c) == TRM_OK,
                  "%s", trm_message());
    ck_assert(c.eos_count == 2 && c.eos[0] == 3 && c.eos[1] == 4 && c.bos == 5 && c.pad == -1);
    ck_assert(c.default_temperature == 0.5f && c.default_top_p == 0.25f && c.default_top_k == 9);
    ck_assert(c.default_repetition_penalty == 1.25f);
    trm_lm_config_fini(&c);
    ck_assert_int_eq(parse("{" LLAMA "\"eos_token_id\":7}", "{\"do_sample\":false}", &c), TRM_OK);
    ck_assert(c.eos_count == 1 && c.eos[0] == 7 && c.default_temperature == 0);
    ck_assert(c.default_top_p < 0 && c.default_top_k < 0);
    trm_lm_config_fini(&c);
    ck_assert_int_eq(parse("{" LLAMA "\"eos_token_id\":null}", NULL, &c), TRM_OK);
    ck_assert(c.eos_count == 1 && c.eos[0] == 2 && c.default_temperature < 0);
    trm_lm_config_fini(&c);
}
END_TEST

START_TEST(contexts)
{
    static const struct {
        const char *rope;
        int64_t want; /* of 1000 */
    } want[] = {
        {"null", 1000},
        {"{\"type\":\"linear\",\"factor\":4}", 4000},
        {"{\"type\":\"dynamic\",\"factor\":2.5}", 2500},
        {"{\"type\":\"yarn\",\"factor\":8,\"original_max_position_embeddings\":500}", 4000},
        {"{\"rope_type\":\"yarn\",\"factor\":8,\"original_max_position_embeddings\":50}", 1000},
        {"{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
         1000},
    };
    char text[300];
    trm_lm_config c;

    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        snprintf(text, sizeof(text),
                 "{" LLAMA "\"max_position_embeddings\":1000,"
                 "\"rope_scaling\":%s}",
                 want[i].rope);
        ck_assert_msg(parse(text, NULL, &c) == TRM_OK, "%s", trm_message());
        ck_assert_int_eq(trm_lm_context_max(&c), want[i].want);
        trm_lm_config_fini(&c);
    }
}
END_TEST

/* ---- what is refused ---- */

#define PHI3 "\"architectures\":[\"Phi3ForCausalLM\"],"

static const struct bad {
    const char *name, *config, *generation;
    trm_status status;
    const char *message;
} bad[] = {
    {"no JSON", "{", NULL, TRM_ERR_BAD_FILE, "line 1"},
    {"a list", "[]", NULL, TRM_ERR_BAD_FILE, "no JSON object"},
    {"nothing", "{}", NULL, TRM_ERR_BAD_FILE, "neither \"architectures\" nor \"model_type\""},
    {"an unknown class", "{\"architectures\":[\"FooForCausalLM\"]}", NULL, TRM_ERR_UNSUPPORTED,
     "is a FooForCausalLM; supported are LlamaForCausalLM"},
    {"an unknown type", "{\"model_type\":\"foo\"}", NULL, TRM_ERR_UNSUPPORTED,
     "model_type 'foo'; supported are"},
    {"a number for a class", "{\"architectures\":[1]}", NULL, TRM_ERR_BAD_FILE,
     "\"architectures\""},
    {"a key twice", "{" LLAMA "\"a\":1,\"a\":2}", NULL, TRM_ERR_BAD_FILE, "duplicate"},
    {"no layers", "{" LLAMA "\"num_hidden_layers\":0}", NULL, TRM_ERR_BAD_FILE,
     "\"num_hidden_layers\" is 0"},
    {"too many layers", "{" LLAMA "\"num_hidden_layers\":1025}", NULL, TRM_ERR_BAD_FILE,
     "layers is 1025: want 1 to 1024"},
    {"a fraction", "{" LLAMA "\"hidden_size\":4096.5}", NULL, TRM_ERR_BAD_FILE,
     "\"hidden_size\": want a whole number"},
    {"a string", "{" LLAMA "\"hidden_size\":\"4096\"}", NULL, TRM_ERR_BAD_FILE,
     "\"hidden_size\": want a whole number"},
    {"no heads", "{" LLAMA "\"num_attention_heads\":0}", NULL, TRM_ERR_BAD_FILE,
     "\"num_attention_heads\" is 0"},
    {"heads that do not divide", "{" LLAMA "\"num_attention_heads\":33}", NULL, TRM_ERR_BAD_FILE,
     "no multiple"},
    {"key/value heads that do not divide", "{" LLAMA "\"num_key_value_heads\":5}", NULL,
     TRM_ERR_BAD_FILE, "key/value heads"},
    {"a huge head", "{" LLAMA "\"head_dim\":1099511627776}", NULL, TRM_ERR_BAD_FILE, "head size"},
    {"an odd head", "{" LLAMA "\"head_dim\":33}", NULL, TRM_ERR_BAD_FILE, "even"},
    {"a huge vocabulary", "{" LLAMA "\"vocab_size\":4294967296}", NULL, TRM_ERR_BAD_FILE,
     "the vocabulary"},
    {"epsilon 0", "{" LLAMA "\"rms_norm_eps\":0}", NULL, TRM_ERR_BAD_FILE, "\"rms_norm_eps\""},
    {"an activation", "{" LLAMA "\"hidden_act\":\"mish\"}", NULL, TRM_ERR_UNSUPPORTED,
     "\"hidden_act\" is 'mish'; supported are silu"},
    {"a bool as number", "{" LLAMA "\"tie_word_embeddings\":1}", NULL, TRM_ERR_BAD_FILE,
     "true or false"},
    {"quantized by others", "{" LLAMA "\"quantization_config\":{\"quant_method\":\"hqq\"}}", NULL,
     TRM_ERR_UNSUPPORTED, "quant_method 'hqq'; supported are GPTQ"},
    {"GPTQ without bits", "{" LLAMA "\"quantization_config\":{\"quant_method\":\"gptq\"}}", NULL,
     TRM_ERR_UNSUPPORTED, "bits '0'"},
    {"GPTQ of 3 bits",
     "{" LLAMA "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128}}",
     NULL, TRM_ERR_UNSUPPORTED, "bits '3'"},
    {"AWQ for other kernels",
     "{" LLAMA
     "\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"version\":\"gemv\"}}",
     NULL, TRM_ERR_UNSUPPORTED, "AWQ version 'gemv'"},
    {"packed, but not ours",
     "{" LLAMA "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
     "\"int-quantized\"}}",
     NULL, TRM_ERR_UNSUPPORTED, "format 'int-quantized'"},
    {"fp8 in other blocks",
     "{" LLAMA "\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}}",
     NULL, TRM_ERR_UNSUPPORTED, "want [128, 128]"},
    {"compressed-tensors fp8 in blocks",
     "{" LLAMA "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
     "\"float-quantized\",\"config_groups\":{\"0\":{\"weights\":{\"strategy\":\"block\"}}}}}",
     NULL, TRM_ERR_UNSUPPORTED, "block"},
    {"packing that is no object", "{" LLAMA "\"quantization_config\":[]}", NULL, TRM_ERR_BAD_FILE,
     "no object"},
    {"theta 0", "{" LLAMA "\"rope_theta\":0}", NULL, TRM_ERR_BAD_FILE, "\"rope_theta\""},
    {"a scaling", "{" LLAMA "\"rope_scaling\":{\"type\":\"mrope\"}}", NULL, TRM_ERR_UNSUPPORTED,
     "type 'mrope'; supported are default, linear"},
    {"a scaling that is a number", "{" LLAMA "\"rope_scaling\":2}", NULL, TRM_ERR_BAD_FILE,
     "\"rope_scaling\""},
    {"no factor", "{" LLAMA "\"rope_scaling\":{\"type\":\"linear\"}}", NULL, TRM_ERR_BAD_FILE,
     "without \"factor\""},
    {"llama3 without its factors", "{" LLAMA "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}}",
     NULL, TRM_ERR_BAD_FILE, "low_freq_factor"},
    {"yarn without truncation",
     "{" LLAMA "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":8,\"truncate\":false}}", NULL,
     TRM_ERR_UNSUPPORTED, "truncate"},
    {"too few factors",
     "{" PHI3 "\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1],\"long_factor\":[1]}}", NULL,
     TRM_ERR_BAD_FILE, "want a list of 48 numbers"},
    {"a Phi3 with another scaling", "{" PHI3 "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
     NULL, TRM_ERR_UNSUPPORTED, "longrope"},
    {"a factor of 0",
     "{" PHI3 "\"hidden_size\":4,\"num_attention_heads\":1,\"num_key_value_heads\":1,"
     "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,0],\"long_factor\":[1,1]}}",
     NULL, TRM_ERR_BAD_FILE, "factor 1 is not positive"},
    {"settings by layer", "{" LLAMA "\"rope_parameters\":{\"full_attention\":{}}}", NULL,
     TRM_ERR_UNSUPPORTED, "by kind of layer"},
    {"layer_types of another length",
     "{\"architectures\":[\"Gemma2ForCausalLM\"],\"layer_types\":[\"full_attention\"]}", NULL,
     TRM_ERR_BAD_FILE, "want a list of 26"},
    {"an unknown layer type",
     "{\"architectures\":[\"Gemma2ForCausalLM\"],\"num_hidden_layers\":1,\"layer_types\":[\"x\"]}",
     NULL, TRM_ERR_UNSUPPORTED, "has 'x'"},
    {"a bidirectional Gemma",
     "{\"architectures\":[\"Gemma3ForCausalLM\"],\"use_bidirectional_attention\":true}", NULL,
     TRM_ERR_UNSUPPORTED, "use_bidirectional_attention"},
    {"more experts used than there are",
     "{\"architectures\":[\"MixtralForCausalLM\"],\"num_experts_per_tok\":9}", NULL,
     TRM_ERR_BAD_FILE, "experts used is 9: want 1 to 8"},
    {"layers without experts",
     "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"mlp_only_layers\":[1]}", NULL,
     TRM_ERR_UNSUPPORTED, "mlp_only_layers"},
    {"a GPT-2 that scales by layer",
     "{\"architectures\":[\"GPT2LMHeadModel\"],\"scale_attn_by_inverse_layer_idx\":true}", NULL,
     TRM_ERR_UNSUPPORTED, "scale_attn_by_inverse_layer_idx"},
    {"relative positions",
     "{\"architectures\":[\"BertModel\"],\"position_embedding_type\":\"relative_key\"}", NULL,
     TRM_ERR_UNSUPPORTED, "relative_key"},
    {"a label without a name",
     "{\"architectures\":[\"BertForSequenceClassification\"],\"id2label\":{\"0\":\"a\",\"2\":\"b\"}"
     "}",
     NULL, TRM_ERR_BAD_FILE, "no name for \"1\""},
    {"positions all for padding",
     "{\"architectures\":[\"RobertaModel\"],\"max_position_embeddings\":2}", NULL, TRM_ERR_BAD_FILE,
     "the context is 0"},
    {"an end that is text", "{" LLAMA "\"eos_token_id\":\"x\"}", NULL, TRM_ERR_BAD_FILE,
     "\"eos_token_id\""},
    {"a bad generation file", "{" LLAMA "\"x\":1}", "[", TRM_ERR_BAD_FILE,
     "m/generation_config.json' line 1"},
    {"a temperature below 0", "{" LLAMA "\"x\":1}", "{\"temperature\":-1}", TRM_ERR_BAD_FILE,
     "\"temperature\" is -1"},
    {"a list of names as ends", "{" LLAMA "\"x\":1}", "{\"eos_token_id\":[\"a\"]}",
     TRM_ERR_BAD_FILE, "\"eos_token_id\"[0]"},
};

START_TEST(refused)
{
    trm_lm_config c;

    ck_assert_msg(parse(bad[_i].config, bad[_i].generation, &c) == bad[_i].status, "%s: %s",
                  bad[_i].name, trm_message());
    ck_assert_msg(strstr(trm_message(), bad[_i].message) != NULL, "%s: %s", bad[_i].name,
                  trm_message());
}
END_TEST

START_TEST(no_memory)
{
    static const char text[] =
        "{\"architectures\":[\"BertForSequenceClassification\"],\"id2label\":{\"0\":\"a\"}}";
    int64_t live = trm_alloc_live();
    trm_status st = TRM_ERR_NO_MEMORY;
    trm_lm_config c;

    for (int64_t n = 0; st == TRM_ERR_NO_MEMORY; n++) {
        trm_alloc_fail_after(n);
        st = parse(text, "{}", &c);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_lm_config_fini(&c);
        ck_assert_int_eq(trm_alloc_live(), live);
        ck_assert_int_lt(n, 100);
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language_config");
    TCase *t = tcase_create("transformers"), *o = tcase_create("others");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, load_rows, free_rows);
    tcase_add_loop_test(t, against_transformers, 0, 48);
    tcase_add_test(o, biases);
    tcase_add_test(o, generation);
    tcase_add_test(o, contexts);
    tcase_add_loop_test(o, refused, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(o, no_memory);
    suite_add_tcase(s, t);
    suite_add_tcase(s, o);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
