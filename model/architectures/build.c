/* From a configuration and weights to a graph: inputs and outputs, and what nothing uses. */
#include "model/architectures/blocks.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define UNUSED_SHOWN 5

/* Tensors that checkpoints carry and no inference needs: buffers that are computed here, heads of
 * training and of other tasks, towers of other modalities. Matched anywhere in the name. */
static const char *const not_needed[] = {
    "rotary_emb.inv_freq", /* old checkpoints' frequencies */
    "attn.masked_bias",    /* GPT-2's causal mask */
    "attn.bias",           "attn_rot_embd",
    "position_ids",        "lm_head.", /* of tied models */
    "cls.predictions.",    "cls.seq_relationship.",
    "pooler.dense.",       "vision_tower.",
    "vision_model.",       "multi_modal_projector.",
    "rope_freqs",          "rope_factors_",
};

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const trm_weight *const *)a;
    uintptr_t y = (uintptr_t) * (const trm_weight *const *)b;

    return (x > y) - (x < y);
}

void trmi_arch_use(trm_lm_build *b, const trm_weight *w)
{
    const trm_weight **at =
        bsearch(&w, b->sorted, trm_weights_count(b->weights), sizeof(*b->sorted), by_address);

    if (at != NULL)
        b->used[at - b->sorted] = true;
}

static bool is_needed(const char *name)
{
    for (size_t i = 0; i < sizeof(not_needed) / sizeof(not_needed[0]); i++)
        if (strstr(name, not_needed[i]) != NULL)
            return false;
    return true;
}

static void report_unused(const trm_lm_build *b)
{
    size_t count = 0, n = trm_weights_count(b->weights);

    for (size_t i = 0; i < n; i++) {
        const trm_weight *w = trm_weights_at(b->weights, i);
        const trm_weight **at = bsearch(&w, b->sorted, n, sizeof(*b->sorted), by_address);

        if (at == NULL || b->used[at - b->sorted] || !is_needed(w->name))
            continue;
        if (count++ < UNUSED_SHOWN)
            TRM_LOG(TRM_LOG_WARN, "model", "tensor '%s' is not used by %s", w->name,
                    b->c->source_name);
    }
    if (count > UNUSED_SHOWN)
        TRM_LOG(TRM_LOG_WARN, "model", "and %zu more tensors are not used", count - UNUSED_SHOWN);
}

/* What every function may rely on; the reader of the configuration has checked most of it. */
static trm_status check_config(const trm_lm_config *c)
{
    const struct {
        const char *name;
        int64_t value, max;
    } rows[] = {
        {"layers", c->layers, TRM_LM_LAYERS_MAX},
        {"hidden", c->hidden, 1 << 24},
        {"heads", c->heads, 1 << 16},
        {"kv_heads", c->kv_heads, 1 << 16},
        {"head_dim", c->head_dim, 1 << 16},
        {"vocabulary", c->vocabulary, INT32_MAX},
        {"context", c->context, INT32_MAX},
        {"feed_forward", c->experts > 0 ? 1 : c->feed_forward, 1 << 28},
        {"experts_used", c->experts > 0 ? c->experts_used : 1, c->experts > 0 ? c->experts : 1},
        {"expert_feed_forward", c->experts > 0 ? c->expert_feed_forward : 1, 1 << 28},
        {"experts", c->experts > 0 ? c->experts : 1, 1 << 16},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].value < 1 || rows[i].value > rows[i].max)
            return trm_fail(TRM_ERR_BAD_FILE, "%s is %lld, want 1 to %lld", rows[i].name,
                            (long long)rows[i].value, (long long)rows[i].max);
    if (c->heads % c->kv_heads != 0)
        return trm_fail(TRM_ERR_BAD_FILE, "%lld heads cannot share %lld key and value heads",
                        (long long)c->heads, (long long)c->kv_heads);
    return TRM_OK;
}

static trm_status add_input(trm_lm_build *b, const char *name, trm_dtype dtype, int64_t dim,
                            int *value_out)
{
    trm_tensor desc = {.dtype = dtype, .rank = 1};

    desc.dims[0] = dim;
    return trm_graph_add_value(b->g, name, &desc, value_out);
}

static trm_status add_inputs(trm_lm_build *b, bool encoder)
{
    int64_t tokens, rows;
    int inputs[4], n = 0;

    TRM_CHECK(trm_graph_symbol(b->g, "tokens", &tokens));
    TRM_CHECK(trm_graph_symbol(b->g, encoder ? "sequences" : "rows", &rows));
    TRM_CHECK(add_input(b, "tokens", TRM_DTYPE_I32, tokens, &b->tokens));
    TRM_CHECK(add_input(b, "positions", TRM_DTYPE_I32, tokens, &b->positions));
    TRM_CHECK(add_input(b, "step", TRM_DTYPE_I64, encoder ? rows : 1, &b->step));
    inputs[n++] = b->tokens;
    inputs[n++] = b->positions;
    inputs[n++] = b->step;
    if (!encoder) {
        TRM_CHECK(add_input(b, "rows", TRM_DTYPE_I32, rows, &b->rows));
        inputs[n++] = b->rows;
    } else if (b->c->token_types > 0) {
        TRM_CHECK(add_input(b, "token_types", TRM_DTYPE_I32, tokens, &b->token_types));
        inputs[n++] = b->token_types;
    }
    return trm_graph_set_inputs(b->g, inputs, n);
}

/* The output's value gets the name by which it is asked for. */
static trm_status set_output(trm_lm_build *b, bool encoder)
{
    const char *name = encoder && b->c->labels == 0 ? "embeddings" : "logits";
    trm_value *v = &b->g->values[b->output];
    char *copy = trm_arena_strdup(b->g->arena, name);
    int other = trm_graph_find_value(b->g, name);

    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "graph");
    if (other >= 0 && other != b->output)
        b->g->values[other].name = trm_graph_fresh_name(b->g, name);
    v->name = copy;
    return trm_graph_set_outputs(b->g, &b->output, 1);
}

trm_status trm_architecture_build(const trm_lm_config *c, const trm_weights *weights,
                                  const trm_language_options *options, trm_graph **graph_out)
{
    const trm_architecture *a = trm_architecture_named(c->architecture);
    const trm_language_options none = {.context = 0};
    size_t count = trm_weights_count(weights);
    trm_lm_build b = {.c = c,
                      .weights = weights,
                      .options = options == NULL ? &none : options,
                      .layer = -1,
                      .tokens = TRM_NO_VALUE,
                      .positions = TRM_NO_VALUE,
                      .step = TRM_NO_VALUE,
                      .rows = TRM_NO_VALUE,
                      .token_types = TRM_NO_VALUE,
                      .embedding = TRM_NO_VALUE,
                      .rope = {TRM_NO_VALUE, TRM_NO_VALUE},
                      .output = TRM_NO_VALUE};
    trm_status st;

    if (a == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "architecture '%s' is not supported; these are: %s",
                        c->architecture, trm_architecture_list(c->gguf));
    TRM_CHECK(check_config(c));
    b.sorted = (const trm_weight **)trm_malloc(count == 0 ? 1 : count, sizeof(*b.sorted));
    b.used = (bool *)trm_calloc(count == 0 ? 1 : count, sizeof(bool));
    if (b.sorted == NULL || b.used == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "building %s", c->architecture);
        goto fail;
    }
    for (size_t i = 0; i < count; i++)
        b.sorted[i] = trm_weights_at(weights, i);
    qsort(b.sorted, count, sizeof(*b.sorted), by_address);
    TRM_TRY(st, trm_graph_create(NULL, c->architecture, &b.g), fail);
    b.g->format = c->gguf ? "gguf" : "safetensors";
    TRM_TRY(st, add_inputs(&b, a->encoder), fail);
    TRM_TRY(st, a->build(&b), fail);
    TRM_TRY(st, set_output(&b, a->encoder), fail);
    TRM_TRY(st, trm_graph_sort(b.g), fail);
    report_unused(&b);
    trm_free(b.sorted);
    trm_free(b.used);
    *graph_out = b.g;
    return TRM_OK;

fail:
    trm_graph_destroy(b.g);
    trm_free(b.sorted);
    trm_free(b.used);
    return st;
}
