/* Graphs of language models: nodes and attributes by layer, what the placement pass may split,
 * rotary frequencies against transformers', and what is said of files that do not fit. */
#include "base/npy.h"
#include "base/tree.h"
#include "model/architectures/blocks.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA TRM_SOURCE_DIR "/tests/data/language/models/"
#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

typedef struct model {
    trm_lm_config c;
    trm_weights *weights;
    trm_graph *g;
} model;

static void read_model(model *m, const char *folder, const char *config)
{
    trm_file *file;
    char path[512];

    memset(m, 0, sizeof(*m));
    snprintf(path, sizeof(path), DATA "%s/%s", folder, config);
    OK(trm_file_open(path, &file));
    OK(trm_lm_config_huggingface(path, (const char *)trm_file_data(file), trm_file_bytes(file),
                                 NULL, 0, &m->c));
    trm_file_unref(file);
    snprintf(path, sizeof(path), DATA "%s", folder);
    OK(trm_weights_open_safetensors(path, &m->weights));
}

static void close_model(model *m)
{
    trm_graph_destroy(m->g);
    trm_weights_close(m->weights);
    trm_lm_config_fini(&m->c);
}

static const trm_node *node_named(const trm_graph *g, const char *name)
{
    for (int i = 0; i < g->node_count; i++)
        if (strcmp(g->nodes[i].name, name) == 0)
            return &g->nodes[i];
    return NULL;
}

static int count_of(const trm_graph *g, trm_op op)
{
    int n = 0;

    for (int i = 0; i < g->node_count; i++)
        n += g->nodes[i].op == op;
    return n;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    bool gguf;
    const char *row; /* NULL: none */
} finds[] = {
    {"LlamaForCausalLM", false, "llama"},
    {"MistralForCausalLM", false, "mistral"},
    {"Qwen2ForCausalLM", false, "qwen2"},
    {"Qwen3MoeForCausalLM", false, "qwen3moe"},
    {"Gemma3ForConditionalGeneration", false, "gemma3"},
    {"XLMRobertaForSequenceClassification", false, "roberta"},
    {"llama", true, "llama"},
    {"qwen3moe", true, "qwen3moe"},
    {"bert", true, "bert"},
    {"llama", false, NULL},
    {"LlamaForCausalLM", true, NULL},
    {"MambaForCausalLM", false, NULL},
    {"", false, NULL},
};

START_TEST(finds_architectures)
{
    const trm_architecture *a = trm_architecture_find(finds[_i].name, finds[_i].gguf);

    if (finds[_i].row == NULL) {
        ck_assert_ptr_null(a);
        return;
    }
    ck_assert_ptr_nonnull(a);
    ck_assert_str_eq(a->name, finds[_i].row);
    ck_assert_ptr_eq(trm_architecture_named(a->name), a);
    ck_assert_ptr_nonnull(strstr(trm_architecture_list(finds[_i].gguf), finds[_i].name));
}
END_TEST

/* ---- graphs ---- */

static const struct {
    const char *folder, *config;
    int linears, norms, ropes, adds, experts; /* nodes of the whole graph */
    int inputs;
    const char *output;
} shapes[] = {
    {"llama", "config.json", 2 * 7 + 1, 2 * 2 + 1, 4, 4, 0, 4, "logits"},
    {"llama-biases", "config.json", 2 * 7 + 1, 2 * 2 + 1, 4, 4, 0, 4, "logits"},
    {"qwen3", "config.json", 2 * 7 + 1, 2 * 4 + 1, 4, 4, 0, 4, "logits"},
    {"gemma", "config.json", 2 * 7 + 1, 2 * 2 + 1, 4, 4, 0, 4, "logits"},
    {"gemma2", "config.json", 3 * 7 + 1, 3 * 4 + 1, 6, 6, 0, 4, "logits"},
    {"gemma3", "config.json", 7 * 7 + 1, 7 * 6 + 1, 14, 14, 0, 4, "logits"},
    {"phi3", "config.json", 2 * 7 + 1, 2 * 2 + 1, 4, 4, 0, 4, "logits"},
    {"gpt2", "config.json", 2 * 6 + 1, 2 * 2 + 1, 0, 5, 0, 4, "logits"},
    {"starcoder2", "config.json", 2 * 6 + 1, 2 * 2 + 1, 4, 4, 0, 4, "logits"},
    {"mixtral", "config.json", 2 * 5 + 1, 2 * 2 + 1, 4, 4, 2, 4, "logits"},
    {"qwen3moe", "config.json", 2 * 7 + 5 + 1, 3 * 4 + 1, 6, 6, 1, 4, "logits"},
    {"bert", "config.json", 2 * 6, 2 * 2 + 1, 0, 6, 0, 4, "embeddings"},
    {"xlm-roberta", "config.json", 2 * 6, 2 * 2 + 1, 0, 6, 0, 4, "embeddings"},
    {"bert-classes", "config.json", 2 * 6 + 2, 2 * 2 + 1, 0, 6, 0, 4, "logits"},
};

/* Elements of constants that are no weights. */
static int64_t frequencies(const trm_graph *g)
{
    int64_t n = 0;

    for (int v = 0; v < g->value_count; v++)
        if (strncmp(g->values[v].name, "rope.", 5) == 0)
            n += g->values[v].desc.dims[0];
    return n;
}

/* Of the file's tensors, but for those that are no part of the network. */
static int64_t elements(const model *m)
{
    const int64_t unread = m->c.position_offset * m->c.hidden; /* RoBERTa's first positions */
    int64_t n = 0;

    for (size_t i = 0; i < trm_weights_count(m->weights); i++) {
        const trm_weight *w = trm_weights_at(m->weights, i);

        if (strstr(w->name, "pooler.") == NULL || m->c.labels > 0)
            n += (int64_t)trm_tensor_numel(&w->desc);
    }
    return n - unread;
}

START_TEST(builds_graphs)
{
    model m;

    read_model(&m, shapes[_i].folder, shapes[_i].config);
    OK(trm_architecture_build(&m.c, m.weights, NULL, &m.g));
    ck_assert_int_eq(count_of(m.g, TRM_OP_TrmLinear), shapes[_i].linears);
    ck_assert_int_eq(count_of(m.g, TRM_OP_TrmNorm), shapes[_i].norms);
    ck_assert_int_eq(count_of(m.g, TRM_OP_TrmRope), shapes[_i].ropes);
    ck_assert_int_eq(count_of(m.g, TRM_OP_Add), shapes[_i].adds);
    ck_assert_int_eq(count_of(m.g, TRM_OP_TrmExperts), shapes[_i].experts);
    ck_assert_int_eq(count_of(m.g, TRM_OP_TrmPagedAttention), m.c.layers);
    ck_assert_int_eq(m.g->input_count, shapes[_i].inputs);
    ck_assert_int_eq(m.g->output_count, 1);
    ck_assert_str_eq(m.g->values[m.g->outputs[0]].name, shapes[_i].output);
    ck_assert_str_eq(m.g->values[m.g->inputs[0]].name, "tokens");
    ck_assert_int_eq(trm_graph_parameter_count(m.g) - frequencies(m.g), elements(&m));
    for (int64_t l = 0; l < m.c.layers; l++) {
        const trm_node *n;
        char name[64];

        snprintf(name, sizeof(name), "layers.%d.attention", (int)l);
        n = node_named(m.g, name);
        ck_assert_ptr_nonnull(n);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "layer", -1), l);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "window", 0),
                         trm_lm_layer_windowed(&m.c, l) ? m.c.window : 0);
        snprintf(name, sizeof(name), "layers.%d.o", (int)l);
        n = node_named(m.g, name);
        ck_assert_ptr_nonnull(n);
        if (m.c.head_dim != 24) /* four heads make the first whole vectors, and the whole sum */
            ck_assert_int_gt(trm_attr_int(&n->attrs, "unit", 0), 0);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "unit", 0) % m.c.head_dim, 0);
        snprintf(name, sizeof(name), "layers.%d.up", (int)l);
        n = node_named(m.g, name);
        ck_assert(n == NULL || trm_attr_find(&n->attrs, "unit") == NULL);
    }
    close_model(&m);
}
END_TEST

START_TEST(layers_differ)
{
    static const int windows[] = {20, 20, 20, 20, 20, 0, 20}; /* Gemma 3: five to one */
    const trm_node *n, *r;
    char name[64];
    model m;

    read_model(&m, "gemma3", "config.json");
    OK(trm_architecture_build(&m.c, m.weights, NULL, &m.g));
    for (int l = 0; l < 7; l++) {
        snprintf(name, sizeof(name), "layers.%d.attention", l);
        n = node_named(m.g, name);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "window", 0), windows[l]);
        ck_assert_float_eq(trm_attr_float(&n->attrs, "scale", 0), (float)(1.0 / sqrt(20.0)));
        snprintf(name, sizeof(name), "layers.%d.q_rope", l);
        r = node_named(m.g, name);
        ck_assert_str_eq(m.g->values[r->inputs[2]].name,
                         windows[l] > 0 ? "rope.local_frequencies" : "rope.frequencies");
    }
    n = node_named(m.g, "embedding");
    ck_assert_float_eq(trm_attr_float(&n->attrs, "scale", 1), (float)sqrt(96.0));
    n = node_named(m.g, "layers.0.q_norm");
    ck_assert_float_eq(trm_attr_float(&n->attrs, "offset", 0), 1.0f);
    close_model(&m);
}
END_TEST

/* Activations are rounded to BF16 where weights are BF16 or fp8 and nowhere else; in 16 bits as
 * weights are where that is asked for; not at all by default. The head of fp8 models is F16. */
static const struct {
    const char *folder;
    trm_language_options options;
    const char *layers, *head;
} roundings[] = {
    {"mistral", {.dtype = TRM_DTYPE_BF16}, "bf16", "bf16"},
    {"mistral", {.as_weights = true}, "bf16", "bf16"},
    {"mistral", {0}, "", ""},
    {"llama-biases", {.dtype = TRM_DTYPE_BF16}, "", ""},
    {"packed-fp8", {.dtype = TRM_DTYPE_BF16}, "bf16", ""},
    {"packed-fp8", {.as_weights = true}, "bf16", "f16"},
    {"packed-fp8-128", {.as_weights = true}, "bf16", "f16"},
    {"packed-fp8", {0}, "", ""},
    {"packed-gptq", {.as_weights = true}, "", "f16"},
};

START_TEST(rounds_activations)
{
    model m;

    read_model(&m, roundings[_i].folder, "config.json");
    OK(trm_architecture_build(&m.c, m.weights, &roundings[_i].options, &m.g));
    for (int i = 0; i < m.g->node_count; i++)
        if (m.g->nodes[i].op == TRM_OP_TrmLinear)
            ck_assert_str_eq(trm_attr_string(&m.g->nodes[i].attrs, "act", ""),
                             strcmp(m.g->nodes[i].name, "logits") == 0 ? roundings[_i].head
                                                                       : roundings[_i].layers);
    close_model(&m);
}
END_TEST

/* What packed linear weights become: fp8 stays where K is whole blocks. */
static const struct {
    const char *folder;
    trm_dtype dtype;
    int experts; /* matrices of a constant; 0: none */
} packings[] = {
    {"packed-gptq", TRM_DTYPE_Q5_0, 0},         {"packed-gptq-8", TRM_DTYPE_Q8_0, 0},
    {"packed-gptq-sym", TRM_DTYPE_Q4_0, 0},     {"packed-awq", TRM_DTYPE_Q5_0, 0},
    {"packed-ints", TRM_DTYPE_Q4_0, 0},         {"packed-fp8", TRM_DTYPE_F8_ROW, 0},
    {"packed-fp8-tensor", TRM_DTYPE_F8_ROW, 0}, {"packed-fp8-block", TRM_DTYPE_BF16, 0},
    {"packed-fp8-128", TRM_DTYPE_F8_128, 0},    {"packed-fp8-experts", TRM_DTYPE_F8_128, 4},
};

START_TEST(packed_weights)
{
    int linears = 0, experts = 0;
    model m;

    read_model(&m, packings[_i].folder, "config.json");
    OK(trm_architecture_build(&m.c, m.weights, NULL, &m.g));
    for (int i = 0; i < m.g->node_count; i++) {
        const trm_node *n = &m.g->nodes[i];
        const trm_tensor *w = &m.g->values[n->inputs[1]].desc;

        if (n->op == TRM_OP_TrmLinear && strcmp(n->name, "logits") != 0 &&
            (packings[_i].experts == 0 || w->dims[0] != packings[_i].experts)) {
            ck_assert_int_eq(w->dtype, packings[_i].dtype);
            linears++;
        }
        for (int k = 2; n->op == TRM_OP_TrmExperts && k < 5; k++, experts++) {
            w = &m.g->values[n->inputs[k]].desc;
            ck_assert_int_eq(w->dtype, packings[_i].dtype);
            ck_assert_int_eq(w->dims[0], packings[_i].experts);
        }
    }
    ck_assert_int_eq(linears, packings[_i].experts > 0 ? 8 : 14);
    ck_assert_int_eq(experts, packings[_i].experts > 0 ? 6 : 0);
    close_model(&m);
}
END_TEST

static const struct {
    int64_t inputs;
    trm_dtype dtype;
    int64_t grain, unit;
} units[] = {
    {4096, TRM_DTYPE_BF16, 128, 128}, /* 32 heads */
    {11008, TRM_DTYPE_BF16, 1, 256},  /* 344 of 32: 43 leaves */
    {11008, TRM_DTYPE_Q4_K, 1, 256},  /* 43 superblocks */
    {4096, TRM_DTYPE_Q4_K, 128, 256}, /* 16 superblocks of two heads */
    {1024, TRM_DTYPE_Q6_K, 96, 0},    /* no common multiple divides it */
    {896, TRM_DTYPE_Q8_0, 64, 64},    /* 14 heads */
    {4864, TRM_DTYPE_Q8_0, 1, 256},   /* 152 of 32: 19 leaves */
    {4864, TRM_DTYPE_F8_ROW, 1, 256}, {18944, TRM_DTYPE_F8_128, 1, 512}, /* 148 of 128: 37 leaves */
    {128, TRM_DTYPE_F8_128, 32, 0},                                      /* one block */
    {48, TRM_DTYPE_F32, 12, 12},                                         /* no whole vectors */
    {48, TRM_DTYPE_F32, 1, 2},        {15, TRM_DTYPE_F32, 5, 0},         /* kernels want pairs */
    {96, TRM_DTYPE_F32, 96, 0}, /* one head: one leaf is none */
    {64, TRM_DTYPE_F32, 0, 0},
};

START_TEST(units_of_sums)
{
    int64_t unit = trmi_arch_unit(units[_i].inputs, units[_i].dtype, units[_i].grain);

    ck_assert_int_eq(unit, units[_i].unit);
    if (unit > 0)
        ck_assert_int_le(units[_i].inputs / unit, TRM_TREE_LEAVES_MAX);
}
END_TEST

/* ---- rotary frequencies ---- */

static const struct {
    const char *name;
    trm_lm_config c;
    int64_t context;
} ropes[] = {
    {"llama-3.1",
     {.head_dim = 128,
      .context = 131072,
      .rope_theta = 500000.0,
      .rope_scaling = TRM_ROPE_LLAMA3,
      .rope_factor = 8.0,
      .rope_low_freq_factor = 1.0,
      .rope_high_freq_factor = 4.0,
      .rope_original_context = 8192},
     131072},
    {"qwen2.5-yarn",
     {.head_dim = 128,
      .context = 131072,
      .rope_theta = 1e6,
      .rope_scaling = TRM_ROPE_YARN,
      .rope_factor = 4.0,
      .rope_original_context = 32768},
     131072},
    {"linear",
     {.head_dim = 64,
      .context = 8192,
      .rope_theta = 10000.0,
      .rope_scaling = TRM_ROPE_LINEAR,
      .rope_factor = 3.0},
     8192},
    {"dynamic",
     {.head_dim = 80,
      .context = 4096,
      .rope_theta = 10000.0,
      .rope_scaling = TRM_ROPE_DYNAMIC,
      .rope_factor = 2.0},
     10000},
    {"plain", {.head_dim = 256, .context = 8192, .rope_theta = 1e6}, 8192},
};

START_TEST(frequencies_as_transformers)
{
    trm_npz *file;
    trm_npy *npy;
    int64_t n = ropes[_i].c.head_dim / 2;
    float got[129], want[129], scale;

    OK(trm_npz_open(DATA "rope.npz", &file));
    OK(trm_npz_get(file, trm_npz_find(file, ropes[_i].name), &npy));
    ck_assert_int_eq(trm_npy_desc(npy)->dims[0], n + 1);
    OK(trm_npy_read_rows(npy, 0, n + 1, want));
    OK(trmi_rope_frequencies(&ropes[_i].c, ropes[_i].context, false, got, &scale));
    for (int64_t i = 0; i < n; i++) /* powers may differ in the last bits */
        ck_assert_msg(fabsf(got[i] - want[i]) <= 3e-7f * want[i], "%s: %d is %.9g, want %.9g",
                      ropes[_i].name, (int)i, (double)got[i], (double)want[i]);
    ck_assert_float_eq_tol(scale, want[n], 1e-6f);
    trm_npy_close(npy);
    trm_npz_close(file);
}
END_TEST

static const struct {
    const char *name;
    trm_lm_config c;
    const char *message;
} bad_ropes[] = {
    {"theta", {.head_dim = 16, .context = 64}, "theta"},
    {"nan", {.head_dim = 16, .context = 64, .rope_theta = (double)NAN}, "theta"},
    {"factor",
     {.head_dim = 16, .context = 64, .rope_theta = 1e4, .rope_scaling = TRM_ROPE_LINEAR},
     "factor"},
    {"original",
     {.head_dim = 16,
      .context = 64,
      .rope_theta = 1e4,
      .rope_factor = 2.0,
      .rope_scaling = TRM_ROPE_YARN},
     "original"},
    {"no lists",
     {.head_dim = 16,
      .context = 64,
      .rope_theta = 1e4,
      .rope_original_context = 32,
      .rope_scaling = TRM_ROPE_LONGROPE},
     "LongRoPE"},
    {"order",
     {.head_dim = 16,
      .context = 64,
      .rope_theta = 1e4,
      .rope_original_context = 32,
      .rope_factor = 2.0,
      .rope_low_freq_factor = 4.0,
      .rope_high_freq_factor = 1.0,
      .rope_scaling = TRM_ROPE_LLAMA3},
     "high_freq_factor"},
};

START_TEST(refuses_ropes)
{
    float f[8], scale;

    ck_assert_int_eq(trmi_rope_frequencies(&bad_ropes[_i].c, 64, false, f, &scale),
                     TRM_ERR_BAD_FILE);
    ck_assert_msg(strstr(trm_message(), bad_ropes[_i].message) != NULL, "%s", trm_message());
}
END_TEST

/* ---- files that do not fit ---- */

static void fewer_rows(trm_lm_config *c)
{
    c->vocabulary = 255;
}

static void wider(trm_lm_config *c)
{
    c->hidden = 96;
}

static void more_layers(trm_lm_config *c)
{
    c->layers = 3;
}

static void more_heads(trm_lm_config *c)
{
    c->kv_heads = 4;
}

static void biased(trm_lm_config *c)
{
    c->attention_bias = true;
}

static void normed(trm_lm_config *c)
{
    c->qk_norm = true;
}

static void unshared(trm_lm_config *c)
{
    c->kv_heads = 3;
}

static void unknown(trm_lm_config *c)
{
    snprintf(c->architecture, sizeof(c->architecture), "mamba");
}

static void odd(trm_lm_config *c)
{
    c->rotary_dim = 5;
}

static void huge(trm_lm_config *c)
{
    c->feed_forward = INT64_MAX / 2;
}

static void with_experts(trm_lm_config *c)
{
    c->experts = c->experts_used = c->expert_feed_forward = 4;
}

static const struct {
    const char *name, *folder;
    void (*change)(trm_lm_config *c);
    trm_status status;
    const char *message;
} misfits[] = {
    {"vocabulary", "llama", fewer_rows, TRM_ERR_BAD_FILE,
     "tensor 'model.embed_tokens.weight' is [256, 64], the config wants [255, 64]"},
    {"hidden", "llama", wider, TRM_ERR_BAD_FILE, "the config wants [256, 96]"},
    {"layers", "llama", more_layers, TRM_ERR_BAD_FILE,
     "tensor 'model.layers.2.input_layernorm.weight' is missing"},
    {"kv heads", "llama", more_heads, TRM_ERR_BAD_FILE,
     "tensor 'model.layers.0.self_attn.k_proj.weight' is [32, 64], the config wants [64, 64]"},
    {"fused", "phi3", more_heads, TRM_ERR_BAD_FILE,
     "qkv_proj.weight' is [128, 64], the config wants [192, 64]"},
    {"transposed", "gpt2", wider, TRM_ERR_BAD_FILE, "wte.weight"},
    {"bias", "llama", biased, TRM_ERR_BAD_FILE, "q_proj.bias' is missing"},
    {"q norm", "llama", normed, TRM_ERR_BAD_FILE, "q_norm.weight' is missing"},
    {"heads", "llama", unshared, TRM_ERR_BAD_FILE, "4 heads cannot share 3"},
    {"architecture", "llama", unknown, TRM_ERR_UNSUPPORTED, "Qwen2ForCausalLM"},
    {"rotary", "llama", odd, TRM_ERR_BAD_FILE, "even"},
    {"overflow", "llama", huge, TRM_ERR_BAD_FILE, "feed_forward"},
    {"experts", "llama", with_experts, TRM_ERR_UNSUPPORTED, "experts"},
};

START_TEST(names_misfits)
{
    model m;

    read_model(&m, misfits[_i].folder, "config.json");
    misfits[_i].change(&m.c);
    ck_assert_int_eq(trm_architecture_build(&m.c, m.weights, NULL, &m.g), misfits[_i].status);
    ck_assert_msg(strstr(trm_message(), misfits[_i].message) != NULL, "%s: %s", misfits[_i].name,
                  trm_message());
    ck_assert_ptr_null(m.g);
    close_model(&m);
}
END_TEST

/* Whichever allocation fails, it is said and nothing stays. */
START_TEST(survives_no_memory)
{
    static const char *const folders[] = {"llama",        "gpt2",        "mixtral",
                                          "bert-classes", "packed-gptq", "packed-fp8-experts"};
    int64_t live;
    trm_status st = TRM_ERR_NO_MEMORY;
    model m;

    read_model(&m, folders[_i], "config.json");
    live = trm_alloc_live();
    for (int64_t n = 0; st != TRM_OK; n++) {
        ck_assert_int_lt(n, 2000);
        trm_alloc_fail_after(n);
        st = trm_architecture_build(&m.c, m.weights, NULL, &m.g);
        trm_alloc_fail_after(-1);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        if (st != TRM_OK)
            ck_assert_int_eq(trm_alloc_live(), live);
    }
    close_model(&m);
}
END_TEST

#define COUNT(table) (int)(sizeof(table) / sizeof((table)[0]))

int main(void)
{
    Suite *s = suite_create("architectures");
    TCase *t = tcase_create("architectures");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(t, finds_architectures, 0, COUNT(finds));
    tcase_add_loop_test(t, builds_graphs, 0, COUNT(shapes));
    tcase_add_test(t, layers_differ);
    tcase_add_loop_test(t, rounds_activations, 0, (int)(sizeof(roundings) / sizeof(roundings[0])));
    tcase_add_loop_test(t, packed_weights, 0, (int)(sizeof(packings) / sizeof(packings[0])));
    tcase_add_loop_test(t, units_of_sums, 0, COUNT(units));
    tcase_add_loop_test(t, frequencies_as_transformers, 0, COUNT(ropes));
    tcase_add_loop_test(t, refuses_ropes, 0, COUNT(bad_ropes));
    tcase_add_loop_test(t, names_misfits, 0, COUNT(misfits));
    tcase_add_loop_test(t, survives_no_memory, 0, 6);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
