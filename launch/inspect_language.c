/* trireme inspect with a language model. */
#include "launch/inspect_language.h"

#include "kernels/cuda_operators.h"
#include "model/language/language.h"
#include "model/passes/passes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void row(const char *name)
{
    printf("%-12s ", name);
}

static void print_attention(const trm_lm_config *c)
{
    int64_t windowed = 0;

    for (int64_t l = 0; l < c->layers; l++)
        if (c->layer_windowed != NULL
                ? c->layer_windowed[l] != 0
                : c->window > 0 && !(c->global_every > 0 && (l + 1) % c->global_every == 0))
            windowed++;
    row("attention");
    printf("%" PRId64 " heads, %" PRId64 " key/value heads, head size %" PRId64, c->heads,
           c->kv_heads, c->head_dim);
    if (c->window > 0 && windowed > 0)
        printf(", window %" PRId64 " in %" PRId64 " layers", c->window, windowed);
    if (c->qk_norm)
        printf(", q and k normalised");
    printf("\n");
}

static void print_rope(const trm_lm_config *c)
{
    static const char *const kinds[] = {"",       ", linear",   ", dynamic",
                                        ", yarn", ", longrope", ", llama3"};

    if (c->rope_theta <= 0)
        return;
    row("rope");
    printf("base %.9g%s", c->rope_theta, kinds[c->rope_scaling]);
    if (c->rope_scaling != TRM_ROPE_NONE && c->rope_factor > 0)
        printf(" by %.9g", c->rope_factor);
    if (c->rope_local_theta > 0)
        printf(", %.9g in windowed layers", c->rope_local_theta);
    printf("\n");
}

/* Bytes of weights by dtype, largest share first. */
static void print_weights(const trm_language *l)
{
    size_t bytes[TRM_DTYPE_COUNT] = {0}, all = 0;
    const trm_graph *g = l->graph;

    for (size_t i = 0; i < trm_weights_count(l->weights); i++) {
        const trm_weight *w = trm_weights_at(l->weights, i);
        size_t n = 0;

        if (trm_tensor_bytes(&w->desc, &n) == TRM_OK)
            bytes[w->fp8 ? TRM_DTYPE_F8_ROW : w->desc.dtype] += n;
        all += n;
    }
    row("parameters");
    printf("%" PRId64 "; %.1f MB of weights:", trm_graph_parameter_count(g), (double)all / 1e6);
    for (bool first = true;; first = false) {
        int best = 0;

        for (int i = 1; i < TRM_DTYPE_COUNT; i++)
            if (bytes[i] > bytes[best])
                best = i;
        if (bytes[best] == 0)
            break;
        printf("%s %s %.1f", first ? "" : ",",
               best == TRM_DTYPE_F8_ROW ? "fp8" : trm_dtype_name((trm_dtype)best),
               (double)bytes[best] / 1e6);
        bytes[best] = 0;
    }
    printf("\n");
}

static void print_values(const char *title, const trm_graph *g, const int *values, int count)
{
    for (int i = 0; i < count; i++) {
        const trm_value *v = &g->values[values[i]];

        printf("%-12s %s %s [", i == 0 ? title : "", v->name, trm_dtype_name(v->desc.dtype));
        for (int d = 0; d < v->desc.rank; d++) {
            const char *name = trm_graph_dim_name(g, v->desc.dims[d]);

            if (name != NULL)
                printf("%s%s", d > 0 ? ", " : "", name);
            else
                printf("%s%" PRId64, d > 0 ? ", " : "", v->desc.dims[d]);
        }
        printf("]\n");
    }
}

static void print_operators(const trm_graph *g)
{
    int counts[TRM_OP_COUNT] = {0};

    for (int n = 0; n < g->node_count; n++)
        counts[g->nodes[n].op]++;
    row("operators");
    printf("%d nodes:", g->node_count);
    for (bool first = true;; first = false) {
        int best = 0;

        for (int i = 1; i < TRM_OP_COUNT; i++)
            if (counts[i] > counts[best])
                best = i;
        if (counts[best] == 0)
            break;
        printf("%s %s %d", first ? "" : ",", trm_op_get((trm_op)best)->name, counts[best]);
        counts[best] = 0;
    }
    printf("\n");
}

/* What has a kernel there. Passes for the device fuse nodes later, which adds none that has none.
 */
static void print_places(const trm_graph *g)
{
    int there = 0, here = 0;

    for (int n = 0; n < g->node_count; n++)
        *(trm_cuda_has_operator(g->nodes[n].op) ? &there : &here) += 1;
    row("on cuda");
    printf("%d nodes\n", there);
    row("on the CPU");
    printf("%d nodes", here);
    for (int n = 0, told = 0; n < g->node_count && told < 8; n++)
        if (!trm_cuda_has_operator(g->nodes[n].op))
            printf("%s%s", told++ == 0 ? ": " : ", ", g->nodes[n].name);
    printf("\n");
}

static void print_ends(const trm_language *l)
{
    const trm_lm_config *c = &l->config;

    if (l->tokenizer != NULL) {
        row("tokenizer");
        printf("%s\n", trm_tokenizer_description(l->tokenizer));
    }
    if (l->encoder)
        return;
    row("ends at");
    for (int i = 0; i < c->eos_count; i++)
        printf("%s%" PRId32, i > 0 ? ", " : "", c->eos[i]);
    printf("%s\n", c->eos_count == 0 ? "no token" : "");
    row("chat");
    printf("%s\n", l->chat != NULL ? "template of the model" : "no template");
}

trm_status trm_inspect_language(const char *path, bool cuda)
{
    const trm_language_options options = {0};
    trm_language *l = NULL;
    const trm_lm_config *c;

    TRM_CHECK(trm_language_open(path, &options, &l));
    c = &l->config;
    row("model");
    printf("%s\n", l->path);
    row("format");
    printf("%s\n", l->gguf_file ? "gguf" : "safetensors");
    row("architecture");
    printf("%s (%s), %" PRId64 " layers, hidden %" PRId64 ", feed-forward %" PRId64
           ", vocabulary %" PRId64 ", context %" PRId64 "\n",
           c->architecture, c->source_name, c->layers, c->hidden, c->feed_forward, c->vocabulary,
           c->context);
    print_attention(c);
    print_rope(c);
    if (c->experts > 0) {
        row("experts");
        printf("%" PRId64 ", %" PRId64 " a token\n", c->experts, c->experts_used);
    }
    print_weights(l);
    print_ends(l);
    print_values("inputs", l->graph, l->graph->inputs, l->graph->input_count);
    print_values("outputs", l->graph, l->graph->outputs, l->graph->output_count);
    print_operators(l->graph);
    if (cuda)
        print_places(l->graph);
    trm_language_close(l);
    return TRM_OK;
}
