/* What GGUF's metadata says: configurations, and the vocabulary for the tokenizer. */
#include "base/log.h"
#include "model/language/language_impl.h"
#include "tests/model/format_tests.h"
#include "tests/model/tokenizer_stub.h"

#include <math.h>

static bytes file;

/* Pairs and tensors are counted as they are put, and the header is written last. */
static struct {
    bytes pairs, infos;
    uint64_t pair_count, info_count, data_bytes;
} made;

static void set_up(void)
{
    memset(&made, 0, sizeof(made));
    memset(&stub, 0, sizeof(stub));
}

static void u32(const char *key, uint32_t v)
{
    put_u32(&made.pairs, key, v);
    made.pair_count++;
}

static void f32(const char *key, float v)
{
    put_f32(&made.pairs, key, v);
    made.pair_count++;
}

static void text(const char *key, const char *v)
{
    put_string(&made.pairs, key, v);
    made.pair_count++;
}

static void flag(const char *key, bool v)
{
    put_text(&made.pairs, key);
    put_int(&made.pairs, TRM_GGUF_BOOL, 4);
    put_int(&made.pairs, v, 1);
    made.pair_count++;
}

static void ints(const char *key, int count, const int32_t *v)
{
    put_text(&made.pairs, key);
    put_int(&made.pairs, TRM_GGUF_ARRAY, 4);
    put_int(&made.pairs, TRM_GGUF_I32, 4);
    put_int(&made.pairs, (uint64_t)count, 8);
    put(&made.pairs, v, (size_t)count * 4);
    made.pair_count++;
}

static void floats(const char *key, int count, const float *v)
{
    put_text(&made.pairs, key);
    put_int(&made.pairs, TRM_GGUF_ARRAY, 4);
    put_int(&made.pairs, TRM_GGUF_F32, 4);
    put_int(&made.pairs, (uint64_t)count, 8);
    put(&made.pairs, v, (size_t)count * 4);
    made.pair_count++;
}

static void texts(const char *key, int count, const char *const *v)
{
    put_text(&made.pairs, key);
    put_int(&made.pairs, TRM_GGUF_ARRAY, 4);
    put_int(&made.pairs, TRM_GGUF_STRING, 4);
    put_int(&made.pairs, (uint64_t)count, 8);
    for (int i = 0; i < count; i++)
        put_text(&made.pairs, v[i]);
    made.pair_count++;
}

/* A tensor of 8-bit numbers; of floats (all zero) where `type` is 0. Dims innermost first. */
static void tensor(const char *name, int rank, const int64_t *dims, uint32_t type)
{
    uint64_t n = type == 0 ? 4 : 1;

    for (int i = 0; i < rank; i++)
        n *= (uint64_t)dims[i];
    put_info(&made.infos, name, rank, dims, type, made.data_bytes);
    made.data_bytes += (n + 31) / 32 * 32;
    made.info_count++;
}

#define TYPE_I8 24

static trm_gguf *finish(unsigned char data)
{
    trm_gguf *g = NULL;
    trm_file *f = NULL;

    file.count = 0;
    put_header(&file, 3, made.info_count, made.pair_count);
    put(&file, made.pairs.at, made.pairs.count);
    put(&file, made.infos.at, made.infos.count);
    put_align(&file, 32);
    for (uint64_t i = 0; i < made.data_bytes; i++)
        put_int(&file, data, 1);
    ck_assert_int_eq(trm_file_from_memory(file.at, file.count, "x.gguf", &f), TRM_OK);
    ck_assert_msg(trmi_gguf_from_file(f, &g) == TRM_OK, "%s", trm_message());
    trm_file_unref(f);
    return g;
}

/* "<arch>.<suffix>". */
static const char *key(const char *arch, const char *suffix)
{
    static char buf[4][100];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(buf[next], sizeof(buf[0]), "%s.%s", arch, suffix);
    return buf[next];
}

/* What every file has: 2 layers, 64 wide, 4 heads, context 100, 50 tokens. */
static void basics(const char *arch)
{
    static const int64_t embedding[] = {64, 50};

    text("general.architecture", arch);
    u32(key(arch, "block_count"), 2);
    u32(key(arch, "embedding_length"), 64);
    u32(key(arch, "feed_forward_length"), 96);
    u32(key(arch, "context_length"), 100);
    u32(key(arch, "attention.head_count"), 4);
    f32(key(arch, strcmp(arch, "gpt2") == 0 || strcmp(arch, "bert") == 0
                      ? "attention.layer_norm_epsilon"
                      : "attention.layer_norm_rms_epsilon"),
        1e-5f);
    tensor("token_embd.weight", 2, embedding, TYPE_I8);
}

static trm_lm_config config_of(void)
{
    trm_gguf *g = finish(0);
    trm_lm_config c;

    ck_assert_msg(trm_lm_config_gguf(g, &c) == TRM_OK, "%s", trm_message());
    trm_gguf_close(g);
    return c;
}

/* ---- configurations ---- */

static const struct plain {
    const char *arch;
    bool interleaved, qk_norm, attention_bias, mlp_bias;
    double theta, local_theta;
    const char *activation;
} plains[] = {
    {"llama", true, false, false, false, 1e4, 0, "silu"},
    {"qwen2", false, false, true, false, 1e4, 0, "silu"},
    {"qwen3", false, true, false, false, 1e4, 0, "silu"},
    {"gemma", false, false, false, false, 1e4, 0, "gelu_tanh"},
    {"gemma2", false, false, false, false, 1e4, 0, "gelu_tanh"},
    {"gemma3", false, true, false, false, 1e4, 0, "gelu_tanh"},
    {"phi3", false, false, false, false, 1e4, 0, "silu"},
    {"gpt2", false, false, true, true, 0, 0, "gelu_tanh"},
    {"bert", false, false, true, true, 0, 0, "gelu"},
};

START_TEST(what_files_leave_out)
{
    const struct plain *r = &plains[_i];
    trm_lm_config c;

    basics(r->arch);
    c = config_of();
    ck_assert_str_eq(c.source_name, r->arch);
    ck_assert_str_eq(c.activation, r->activation);
    ck_assert(c.layers == 2 && c.hidden == 64 && c.feed_forward == 96 && c.heads == 4);
    ck_assert(c.kv_heads == 4 && c.head_dim == 16 && c.context == 100 && c.vocabulary == 50);
    ck_assert(c.norm_epsilon == 1e-5f && c.tied_embeddings && c.gguf);
    ck_assert(c.rope_interleaved == r->interleaved && c.qk_norm == r->qk_norm);
    ck_assert(c.attention_bias == r->attention_bias && c.mlp_bias == r->mlp_bias);
    ck_assert(c.rope_theta == r->theta && c.rope_scaling == TRM_ROPE_NONE);
    ck_assert_msg(c.rope_local_theta == r->local_theta, "%s", r->arch);
    ck_assert(c.norm_offset == 0 && c.bos == -1 && c.eos_count == 0 && c.experts == 0);
    trm_lm_config_fini(&c);
}
END_TEST

START_TEST(heads_and_output)
{
    static const int64_t output[] = {64, 50};
    static const int32_t same[] = {2, 2};
    trm_lm_config c;

    basics("llama");
    ints("llama.attention.head_count_kv", 2, same);
    u32("llama.attention.key_length", 24);
    u32("llama.attention.value_length", 24);
    u32("llama.rope.dimension_count", 12);
    f32("llama.rope.freq_base", 5e5f);
    tensor("output.weight", 2, output, TYPE_I8);
    tensor("blk.0.attn_q.bias", 1, output, TYPE_I8);
    c = config_of();
    ck_assert(c.kv_heads == 2 && c.head_dim == 24 && c.rotary_dim == 12 && c.rope_theta == 5e5);
    ck_assert(!c.tied_embeddings && c.attention_bias && !c.output_bias);
    trm_lm_config_fini(&c);
}
END_TEST

START_TEST(experts)
{
    trm_lm_config c;

    basics("qwen3moe");
    u32("qwen3moe.expert_count", 8);
    u32("qwen3moe.expert_used_count", 2);
    u32("qwen3moe.expert_feed_forward_length", 32);
    c = config_of();
    ck_assert(c.experts == 8 && c.experts_used == 2 && c.expert_feed_forward == 32);
    ck_assert(c.experts_normalize && trm_lm_layer_has_experts(&c, 1));
    trm_lm_config_fini(&c);
    set_up();
    basics("llama");
    u32("llama.expert_count", 8);
    u32("llama.expert_used_count", 2);
    c = config_of();
    ck_assert(c.experts == 8 && c.expert_feed_forward == 96 && c.experts_normalize);
    trm_lm_config_fini(&c);
}
END_TEST

START_TEST(gemmas)
{
    trm_lm_config c;

    basics("gemma2");
    c = config_of();
    ck_assert(c.window == 4096 && trm_lm_layer_windowed(&c, 0) && !trm_lm_layer_windowed(&c, 1));
    ck_assert(c.attention_softcap == 50 && c.logit_softcap == 30 && c.embedding_scale == 8);
    ck_assert(c.attention_scale == 0.25f);
    trm_lm_config_fini(&c);
    set_up();
    basics("gemma3");
    u32("gemma3.attention.sliding_window", 32);
    f32("gemma3.rope.freq_base", 1e6f);
    text("gemma3.rope.scaling.type", "linear");
    f32("gemma3.rope.scaling.factor", 8);
    c = config_of();
    ck_assert(c.window == 32 && trm_lm_layer_windowed(&c, 4) && !trm_lm_layer_windowed(&c, 5));
    ck_assert(c.rope_theta == 1e6 && c.rope_local_theta == 1e4 && c.logit_softcap == 0);
    ck_assert(c.rope_scaling == TRM_ROPE_LINEAR && c.rope_factor == 8);
    ck_assert_int_eq(trm_lm_context_max(&c), 100);
    trm_lm_config_fini(&c);
    set_up();
    basics("llama");
    f32("llama.rope.scale_linear", 2);
    c = config_of();
    ck_assert(c.rope_scaling == TRM_ROPE_LINEAR && c.rope_factor == 2);
    trm_lm_config_fini(&c);
}
END_TEST

START_TEST(yarn)
{
    trm_lm_config c;

    basics("qwen2");
    text("qwen2.rope.scaling.type", "yarn");
    f32("qwen2.rope.scaling.factor", 4);
    u32("qwen2.rope.scaling.original_context_length", 50);
    c = config_of();
    ck_assert(c.rope_scaling == TRM_ROPE_YARN && c.rope_factor == 4);
    ck_assert(c.rope_original_context == 50 && c.rope_attention_factor == 0);
    ck_assert(c.rope_beta_fast == 32 && c.rope_beta_slow == 1);
    ck_assert_int_eq(trm_lm_context_max(&c), 200);
    trm_lm_config_fini(&c);
}
END_TEST

/* Llama 3.1: the factors are a tensor. Bytes 0x3f give 0.747.. each. */
START_TEST(rope_factors)
{
    static const int64_t eight[] = {8}, four[] = {4};
    trm_gguf *g;
    trm_lm_config c;

    basics("llama");
    tensor("rope_freqs.weight", 1, eight, 0);
    g = finish(0x3f);
    ck_assert_msg(trm_lm_config_gguf(g, &c) == TRM_OK, "%s", trm_message());
    trm_gguf_close(g);
    ck_assert(c.rope_scaling == TRM_ROPE_LONGROPE && c.rope_factor_count == 8);
    ck_assert(c.rope_attention_factor == 1 && fabs(c.rope_short[7] - 0.747) < 1e-3);
    ck_assert(c.rope_long[0] == c.rope_short[0] && c.rope_long != c.rope_short);
    trm_lm_config_fini(&c);
    set_up();
    basics("phi3");
    f32("phi3.rope.scaling.attn_factor", 1.25f);
    u32("phi3.rope.scaling.original_context_length", 20);
    tensor("rope_factors_short.weight", 1, eight, 0);
    tensor("rope_factors_long.weight", 1, eight, 0);
    g = finish(0x3f);
    ck_assert_msg(trm_lm_config_gguf(g, &c) == TRM_OK, "%s", trm_message());
    trm_gguf_close(g);
    ck_assert(c.rope_scaling == TRM_ROPE_LONGROPE && c.rope_attention_factor == 1.25);
    ck_assert(c.rope_original_context == 20 && c.rope_factor == 5);
    trm_lm_config_fini(&c);
    set_up();
    basics("llama"); /* of another length */
    tensor("rope_freqs.weight", 1, four, 0);
    g = finish(0x3f);
    ck_assert_int_eq(trm_lm_config_gguf(g, &c), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "4 RoPE factors for 16 dims: want 8"));
    trm_gguf_close(g);
}
END_TEST

START_TEST(encoder)
{
    static const int64_t types[] = {64, 2};
    trm_lm_config c;

    basics("bert");
    u32("bert.pooling_type", 2);
    tensor("token_types.weight", 2, types, TYPE_I8);
    c = config_of();
    ck_assert_str_eq(c.pooling, "cls");
    ck_assert(c.pooling_normalize && c.token_types == 2 && c.rope_theta == 0);
    trm_lm_config_fini(&c);
}
END_TEST

static const char *const words[] = {"<unk>", "<s>", "</s>", "a", "<|im_end|>", "<|eot_id|>"};
static const int32_t kinds[] = {2, 3, 3, 1, 3, 1};

START_TEST(ends)
{
    trm_lm_config c;

    basics("llama");
    u32("tokenizer.ggml.bos_token_id", 1);
    u32("tokenizer.ggml.eos_token_id", 2);
    u32("tokenizer.ggml.padding_token_id", 4000000000u);
    texts("tokenizer.ggml.tokens", 6, words);
    ints("tokenizer.ggml.token_type", 6, kinds);
    f32("general.sampling.temp", 0.5f);
    u32("general.sampling.top_k", 7);
    c = config_of();
    ck_assert(c.bos == 1 && c.pad == -1);
    ck_assert(c.eos_count == 2 && c.eos[0] == 2 && c.eos[1] == 4); /* 5 is no control token */
    ck_assert(c.default_temperature == 0.5f && c.default_top_k == 7 && c.default_top_p < 0);
    trm_lm_config_fini(&c);
}
END_TEST

/* ---- what is refused ---- */

static void no_arch(void)
{
    u32("a", 1);
}
static void arch_number(void)
{
    u32("general.architecture", 1);
}
static void other_arch(void)
{
    text("general.architecture", "mamba");
}
static void no_layers(void)
{
    text("general.architecture", "llama");
}
static void zero_heads(void)
{
    text("general.architecture", "llama");
    u32("llama.block_count", 2);
    u32("llama.embedding_length", 64);
    u32("llama.context_length", 100);
    u32("llama.attention.head_count", 0);
}
static void text_for_number(void)
{
    text("general.architecture", "llama");
    text("llama.block_count", "2");
}
static void no_epsilon(void)
{
    static const int64_t embedding[] = {64, 50};

    zero_heads();
    made.pair_count--;
    made.pairs.count -= 8 + strlen("llama.attention.head_count") + 8;
    u32("llama.attention.head_count", 4);
    u32("llama.feed_forward_length", 96);
    tensor("token_embd.weight", 2, embedding, TYPE_I8);
}
static void heads_by_layer(void)
{
    static const int32_t other[] = {2, 4};

    basics("llama");
    ints("llama.attention.head_count_kv", 2, other);
}
static void other_values(void)
{
    basics("llama");
    u32("llama.attention.value_length", 8);
}
static void other_scaling(void)
{
    basics("llama");
    text("llama.rope.scaling.type", "ntk");
}
static void ranking(void)
{
    basics("bert");
    u32("bert.pooling_type", 4);
}
static void infinite_theta(void)
{
    basics("llama");
    f32("llama.rope.freq_base", INFINITY);
}
static void kv_heads_3(void)
{
    basics("llama");
    u32("llama.attention.head_count_kv", 3);
}

static const struct bad {
    const char *name;
    void (*make)(void);
    trm_status status;
    const char *message;
} bad[] = {
    {"no architecture", no_arch, TRM_ERR_BAD_FILE, "no general.architecture"},
    {"a number for it", arch_number, TRM_ERR_BAD_FILE, "no general.architecture"},
    {"another", other_arch, TRM_ERR_UNSUPPORTED, "is a mamba; supported are llama"},
    {"no layers", no_layers, TRM_ERR_BAD_FILE, "has no 'llama.block_count'"},
    {"text for a number", text_for_number, TRM_ERR_BAD_FILE, "'llama.block_count' is a string"},
    {"no heads", zero_heads, TRM_ERR_BAD_FILE, "head_count is 0"},
    {"no epsilon", no_epsilon, TRM_ERR_BAD_FILE, "epsilon"},
    {"heads by layer", heads_by_layer, TRM_ERR_UNSUPPORTED, "is 2 for layer 0 and 4 for layer 1"},
    {"values of another size", other_values, TRM_ERR_UNSUPPORTED, "keys of 16 and values of 8"},
    {"another scaling", other_scaling, TRM_ERR_UNSUPPORTED, "is 'ntk'; supported are none, linear"},
    {"a ranking model", ranking, TRM_ERR_UNSUPPORTED, "pooling_type 4"},
    {"an infinite base", infinite_theta, TRM_ERR_BAD_FILE, "RoPE base"},
    {"heads that do not divide", kv_heads_3, TRM_ERR_BAD_FILE, "key/value heads"},
};

START_TEST(refused)
{
    trm_lm_config c;
    trm_gguf *g;

    bad[_i].make();
    g = finish(0);
    ck_assert_msg(trm_lm_config_gguf(g, &c) == bad[_i].status, "%s: %s", bad[_i].name,
                  trm_message());
    ck_assert_msg(strstr(trm_message(), bad[_i].message) != NULL, "%s: %s", bad[_i].name,
                  trm_message());
    trm_gguf_close(g);
}
END_TEST

/* ---- vocabulary ---- */

START_TEST(vocabulary)
{
    static const char *const merges[] = {"a b", "ab c"};
    static const float scores[] = {0, -1, -2, -3.5f, 0, 0};
    trm_tokenizer *t = NULL;
    trm_gguf *g;

    text("tokenizer.ggml.model", "gpt2");
    text("tokenizer.ggml.pre", "llama-bpe");
    texts("tokenizer.ggml.tokens", 6, words);
    ints("tokenizer.ggml.token_type", 6, kinds);
    floats("tokenizer.ggml.scores", 6, scores);
    texts("tokenizer.ggml.merges", 2, merges);
    u32("tokenizer.ggml.bos_token_id", 1);
    u32("tokenizer.ggml.eos_token_id", 2);
    u32("tokenizer.ggml.unknown_token_id", 0);
    u32("tokenizer.ggml.seperator_token_id", 3);
    u32("tokenizer.ggml.padding_token_id", 6); /* none of them */
    u32("tokenizer.ggml.cls_token_id", 4);
    flag("tokenizer.ggml.add_bos_token", true);
    flag("tokenizer.ggml.add_space_prefix", false);
    g = finish(0);
    ck_assert_msg(trm_gguf_tokenizer(g, &t) == TRM_OK, "%s", trm_message());
    ck_assert_str_eq(stub.made_of, "gguf x.gguf");
    ck_assert_uint_eq(stub.vocabulary.count, 6);
    ck_assert_uint_eq(stub.vocabulary.merge_count, 2);
    ck_assert_str_eq(stub.text, "gpt2 llama-bpe </s> -3.5 2 ab c");
    ck_assert(stub.vocabulary.bos == 1 && stub.vocabulary.eos == 2);
    ck_assert(stub.vocabulary.unknown == 0 && stub.vocabulary.separator == 3);
    ck_assert(stub.vocabulary.padding == -1 && stub.vocabulary.cls == 4);
    ck_assert(stub.vocabulary.mask == -1 && stub.vocabulary.add_bos == 1);
    ck_assert(stub.vocabulary.add_eos == -1 && stub.vocabulary.add_space_prefix == 0);
    trm_gguf_close(g);
}
END_TEST

START_TEST(bad_vocabularies)
{
    static const float scores[] = {0, -1};
    trm_tokenizer *t = NULL;
    trm_gguf *g;

    u32("a", 1);
    g = finish(0);
    ck_assert_int_eq(trm_gguf_tokenizer(g, &t), TRM_ERR_NOT_FOUND);
    trm_gguf_close(g);
    set_up();
    text("tokenizer.ggml.model", "gpt2");
    texts("tokenizer.ggml.tokens", 0, words);
    g = finish(0);
    ck_assert_int_eq(trm_gguf_tokenizer(g, &t), TRM_ERR_BAD_FILE);
    trm_gguf_close(g);
    set_up();
    text("tokenizer.ggml.model", "gpt2");
    texts("tokenizer.ggml.tokens", 6, words);
    floats("tokenizer.ggml.scores", 2, scores);
    g = finish(0);
    ck_assert_int_eq(trm_gguf_tokenizer(g, &t), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "want one for each of 6 tokens"));
    trm_gguf_close(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language_gguf");
    TCase *t = tcase_create("metadata");
    SRunner *r;
    int failed;

    if (trm_log_set_level("error") != TRM_OK)
        return EXIT_FAILURE;
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_add_loop_test(t, what_files_leave_out, 0, sizeof(plains) / sizeof(plains[0]));
    tcase_add_test(t, heads_and_output);
    tcase_add_test(t, experts);
    tcase_add_test(t, gemmas);
    tcase_add_test(t, yarn);
    tcase_add_test(t, rope_factors);
    tcase_add_test(t, encoder);
    tcase_add_test(t, ends);
    tcase_add_loop_test(t, refused, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(t, vocabulary);
    tcase_add_test(t, bad_vocabularies);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
