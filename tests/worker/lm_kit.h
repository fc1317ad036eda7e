/* Language models on one device, without a scheduler: one sequence, or an encoder's batch. The CPU;
 * with TRM_TEST_DEVICE=cuda in the environment a GPU, or what stands for one. */
#ifndef TRM_TESTS_WORKER_LM_KIT_H
#define TRM_TESTS_WORKER_LM_KIT_H

#include "base/file.h"
#include "kernels/device_open.h"
#include "kernels/language.h"
#include "model/architectures/architecture.h"
#include "model/passes/passes.h"
#include "model/shape/shape.h"
#include "worker/engine.h"
#include "worker/language/feed_device.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

/* How products and the cache round, as worker/language/lm_model.h has it for --dtype and
 * --kv-dtype. */
typedef struct lm_precision {
    const char *name;
    trm_dtype act;   /* BF16: of bf16 weights on the CPU; NONE: nothing is rounded */
    bool as_weights; /* activations to the weights' type: what devices do by default */
    trm_dtype kv;    /* NONE: F32, and with as_weights what is the default there */
} lm_precision;

typedef struct lm {
    trm_lm_config config;
    trm_weights *weights; /* owned; NULL: the GGUF file's */
    trm_gguf *gguf;
    trm_graph *graph;
    trm_device *device;
    trm_device_pair pair;
    trmi_feed_device *away; /* NULL: the device's memory is the host's */
    trm_engine *engine;
    trm_kv_layer *layers;
    int32_t page_count, *pages; /* a sequence's, not in the order in which they lie in the cache */
    trm_dtype kv_dtype;
} lm;

static inline bool is_gguf(const char *path)
{
    return strcmp(trm_path_extension(path), "gguf") == 0;
}

/* `path`: a folder, in which `config` is the file to read, or a .gguf file. */
static inline void lm_read(lm *m, const char *path, const char *config)
{
    char *name = trm_path_join(path, config);
    trm_file *file = NULL;

    memset(m, 0, sizeof(*m));
    if (is_gguf(path)) {
        OK(trm_gguf_open(path, &m->gguf));
        OK(trm_lm_config_gguf(m->gguf, &m->config));
    } else {
        OK(trm_file_open(name, &file));
        OK(trm_lm_config_huggingface(name, (const char *)trm_file_data(file), trm_file_bytes(file),
                                     NULL, 0, &m->config));
        OK(trm_weights_open_safetensors(path, &m->weights));
    }
    trm_file_unref(file);
    trm_free(name);
}

/* Inputs of the graph that come with the step. */
static inline void lm_place(lm *m)
{
    static const char *const names[TRM_STEP_SELF + 1] = {"tokens", "positions", "rows",
                                                         "token_types", "step"};
    int inputs[TRM_STEP_SELF + 1];

    for (int i = 0; i <= TRM_STEP_SELF; i++) {
        inputs[i] = -1;
        for (int k = 0; k < m->graph->input_count; k++)
            if (strcmp(m->graph->values[m->graph->inputs[k]].name, names[i]) == 0)
                inputs[i] = k;
    }
    OK(trmi_feed_device_create(m->device, m->engine, inputs, 0, 0, &m->away));
}

/* The cache's type by default: fp16 beside block types, else what products round to. */
static inline trm_dtype lm_kv_default(const trm_graph *g)
{
    trm_dtype dtype = TRM_DTYPE_F32;

    for (int v = 0; v < g->value_count; v++)
        if (trm_graph_is_constant(g, v) && trm_dtype_is_block(g->values[v].desc.dtype))
            return TRM_DTYPE_F16;
    for (int n = 0; n < g->node_count && dtype == TRM_DTYPE_F32; n++) {
        const char *act = trm_attr_string(&g->nodes[n].attrs, "act", "");

        if (g->nodes[n].op == TRM_OP_TrmLinear && act[0] != '\0')
            dtype = trm_dtype_from_name(act);
    }
    return dtype;
}

/* Graph and engine; context 0: the model's. Not `fused`: without trm_pass_fuse_language
 * and trm_pass_round_language. precision NULL: nothing is rounded. */
static inline void lm_build_as(lm *m, int64_t context, bool fused, const lm_precision *precision)
{
    const lm_precision plain = {.name = "fp32"}, *p = precision == NULL ? &plain : precision;
    const char *device = getenv("TRM_TEST_DEVICE");
    const trm_language_options options = {
        .context = context, .dtype = p->act, .as_weights = p->as_weights};

    OK(trm_architecture_build(&m->config,
                              m->weights != NULL ? m->weights : trm_gguf_weights(m->gguf), &options,
                              &m->graph));
    m->kv_dtype = p->kv != TRM_DTYPE_NONE ? p->kv
                  : p->as_weights         ? lm_kv_default(m->graph)
                                          : TRM_DTYPE_F32;
    for (int n = 0; n < m->graph->node_count; n++)
        if (m->graph->nodes[n].op == TRM_OP_TrmPagedAttention)
            OK(trm_attr_set_string(&m->graph->nodes[n].attrs, m->graph->arena, "kv_dtype",
                                   trm_dtype_name(m->kv_dtype)));
    OK(trm_pass_prepare(m->graph, NULL));
    if (fused) {
        OK(trm_pass_finish(m->graph));
    } else {
        OK(trm_pass_posts(m->graph));
        OK(trm_graph_infer(m->graph));
    }
    OK(trm_device_open(device == NULL ? "cpu" : device, 0, 2, &m->pair));
    m->device = m->pair.device;
    if (fused)
        OK(trm_pass_round_language(m->graph, m->device->rounding));
    OK(trm_engine_create(m->graph, m->device, NULL, &m->engine));
    if (!m->device->host_memory)
        lm_place(m);
}

static inline void lm_build(lm *m, int64_t context)
{
    lm_build_as(m, context, true, NULL);
}

/* Heads of a layer's keys and values on this rank: the graph says it. 0: the layer is not here. */
static inline int64_t lm_kv_heads(const lm *m, int64_t layer)
{
    for (int n = 0; n < m->graph->node_count; n++)
        if (m->graph->nodes[n].op == TRM_OP_TrmPagedAttention &&
            trm_attr_int(&m->graph->nodes[n].attrs, "layer", 0) == layer)
            return trm_attr_int(&m->graph->nodes[n].attrs, "kv_heads", 0);
    return 0;
}

static inline void lm_cache(lm *m, int32_t tokens)
{
    const trm_lm_config *c = &m->config;

    void *slab = NULL;
    size_t all = 0;

    m->page_count = (tokens + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
    m->pages = (int32_t *)trm_malloc((size_t)m->page_count, sizeof(int32_t));
    m->layers = (trm_kv_layer *)trm_calloc((size_t)c->layers, sizeof(*m->layers));
    ck_assert(m->pages != NULL && m->layers != NULL);
    for (int32_t i = 0; i < m->page_count; i++)
        m->pages[i] = i % 2 == 0 ? m->page_count - 1 - i / 2 : i / 2;
    for (int64_t l = 0; l < c->layers; l++) {
        trm_kv_layer *k = &m->layers[l];

        k->page_bytes = trm_kv_page_bytes(lm_kv_heads(m, l), c->head_dim, m->kv_dtype);
        if (m->away != NULL) {
            all += trm_align_up(k->page_bytes * (size_t)m->page_count, 256);
            continue;
        }
        k->pages = trm_aligned_malloc(k->page_bytes * (size_t)m->page_count + 1);
        ck_assert_ptr_nonnull(k->pages);
        memset(k->pages, 0xff, k->page_bytes * (size_t)m->page_count); /* NaN: nobody reads ahead */
    }
    if (m->away == NULL)
        return;
    OK(trmi_feed_device_cache(m->away, all + 1, &slab));
    all = 0;
    for (int64_t l = 0; l < c->layers; l++) {
        m->layers[l].pages = (unsigned char *)slab + all;
        all += trm_align_up(m->layers[l].page_bytes * (size_t)m->page_count, 256);
    }
}

static inline void lm_open_as(lm *m, const char *path, const char *config, int64_t context,
                              int32_t tokens, bool fused, const lm_precision *precision)
{
    lm_read(m, path, config);
    lm_build_as(m, context, fused, precision);
    lm_cache(m, tokens);
}

static inline void lm_open(lm *m, const char *path, const char *config, int64_t context,
                           int32_t tokens)
{
    lm_open_as(m, path, config, context, tokens, true, NULL);
}

static inline void lm_close(lm *m)
{
    bool away = m->away != NULL;

    trmi_feed_device_destroy(m->away);
    trm_engine_destroy(m->engine);
    if (m->pair.device != NULL)
        trm_device_close(&m->pair);
    else
        trm_device_destroy(m->device);
    trm_graph_destroy(m->graph);
    for (int64_t l = 0; m->layers != NULL && !away && l < m->config.layers; l++)
        trm_aligned_free(m->layers[l].pages);
    trm_free(m->layers);
    trm_free(m->pages);
    trm_weights_close(m->weights);
    trm_gguf_close(m->gguf);
    trm_lm_config_fini(&m->config);
}

static inline trm_tensor lm_vector(trm_dtype dtype, int64_t count, const void *data)
{
    trm_tensor t = {.dtype = dtype, .rank = 1};

    t.dims[0] = count;
    t.data = (void *)(uintptr_t)data;
    return t;
}

static inline void lm_run(lm *m, const trm_step *step, const int32_t *tokens, const void *last,
                          int64_t last_count, trm_tensor *out)
{
    int32_t *positions = (int32_t *)trm_malloc((size_t)step->tokens, sizeof(int32_t));
    int64_t *address = (int64_t *)trm_calloc((size_t)step->sequences_padded, sizeof(int64_t));
    int inputs = m->graph->input_count;
    trm_tensor in[4];

    ck_assert(positions != NULL && address != NULL && inputs <= 4);
    for (int32_t s = 0; s < step->sequence_count; s++)
        for (int32_t i = 0; i < step->sequences[s].tokens; i++)
            positions[step->sequences[s].row + i] = step->sequences[s].position + i;
    address[0] = (int64_t)(uintptr_t)step;
    in[0] = lm_vector(TRM_DTYPE_I32, step->tokens, tokens);
    in[1] = lm_vector(TRM_DTYPE_I32, step->tokens, positions);
    in[2] = lm_vector(TRM_DTYPE_I64, step->sequences_padded, address);
    in[3] = lm_vector(TRM_DTYPE_I32, last_count, last);
    if (m->away != NULL) {
        trm_step sent = *step;
        bool types =
            inputs == 4 && strcmp(m->graph->values[m->graph->inputs[3]].name, "token_types") == 0;

        sent.token_rows = sent.tokens;
        sent.pick_rows = types ? 0 : (int32_t)last_count;
        sent.token_max = sent.pick_max = 1024;
        sent.token_ids = tokens;
        sent.positions = positions;
        sent.types = types ? last : NULL;
        sent.rows = types ? NULL : last;
        OK(trmi_feed_device_send(m->away, &sent));
    }
    OK(trm_engine_run(m->engine, in, out));
    trm_free(positions);
    trm_free(address);
}

/* Tokens at positions [position, position + count) of the sequence; the logits of `rows`, numbers
 * of these tokens, are the engine's until the next step. */
static inline const float *lm_step(lm *m, const int32_t *tokens, int32_t count, int32_t position,
                                   const int32_t *rows, int32_t row_count)
{
    trm_step_sequence sequence = {
        .row = 0, .tokens = count, .position = position, .pages = m->pages};
    trm_step step = {.tokens = count,
                     .sequence_count = 1,
                     .sequences_padded = 1,
                     .sequences = &sequence,
                     .kv_dtype = m->kv_dtype,
                     .layer_count = (int32_t)m->config.layers,
                     .layers = m->layers};
    trm_tensor out;

    lm_run(m, &step, tokens, rows, row_count, &out);
    ck_assert_int_eq(out.dims[0], row_count);
    ck_assert_int_eq(out.dims[1], m->config.vocabulary);
    return (const float *)out.data;
}

/* An encoder's step: all sequences at once; [count, width]. */
static inline trm_tensor lm_encode(lm *m, const int32_t *tokens, const int32_t *types,
                                   const int32_t *lengths, int32_t count)
{
    trm_step_sequence sequences[16];
    trm_step step = {.sequence_count = count,
                     .sequences_padded = count,
                     .sequences = sequences,
                     .kv_dtype = m->kv_dtype};
    trm_tensor out;

    ck_assert_int_le(count, 16);
    for (int32_t s = 0; s < count; s++) {
        sequences[s] = (trm_step_sequence){.row = step.tokens, .tokens = lengths[s]};
        step.tokens += lengths[s];
    }
    lm_run(m, &step, tokens, types, step.tokens, &out);
    ck_assert_int_eq(out.dims[0], count);
    return out;
}
#endif
