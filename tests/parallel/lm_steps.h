/* Steps of small language models: tokens of two sequences with a paged cache. */
#ifndef TRM_TESTS_PARALLEL_LM_STEPS_H
#define TRM_TESTS_PARALLEL_LM_STEPS_H

#include "tests/parallel/lm_kit.h"

#define LAYERS_MAX 4
#define PAGES 8
#define SEQUENCES 2

/* What a step brings: tokens of two sequences, and padding. */
typedef struct batch {
    int tokens, padded, count;
    int32_t length[SEQUENCES], position[SEQUENCES];
} batch;

/* A prefill of both, one of a sequence beside a token of the other, two single tokens. */
static const batch batches[] = {
    {.tokens = 24, .padded = 26, .count = 2, .length = {19, 5}},
    {.tokens = 12, .padded = 12, .count = 2, .length = {1, 11}, .position = {19, 5}},
    {.tokens = 2, .padded = 4, .count = 2, .length = {1, 1}, .position = {20, 16}},
};
#define STEPS ((int)(sizeof(batches) / sizeof(batches[0])))

/* The cache of one rank, of the layers in its graph. */
typedef struct cache {
    trm_kv_layer layers[LAYERS_MAX];
    trm_step step;
    trm_step_sequence sequences[SEQUENCES];
    int64_t address;
} cache;

static const int32_t pages_of[SEQUENCES][PAGES / 2] = {{3, 0, 6, 1}, {2, 7, 5, 4}};

static inline void cache_open(cache *c, const trm_graph *g, trm_dtype dtype)
{
    memset(c, 0, sizeof(*c));
    c->step.kv_dtype = dtype;
    c->step.layer_count = LAYERS_MAX;
    c->step.layers = c->layers;
    c->step.sequences = c->sequences;
    for (int n = 0; n < g->node_count; n++) {
        const trm_attrs *a = &g->nodes[n].attrs;
        trm_kv_layer *l = &c->layers[trm_attr_int(a, "layer", 0)];

        if (g->nodes[n].op != TRM_OP_TrmPagedAttention)
            continue;
        l->page_bytes = trm_kv_page_bytes(trm_attr_int(a, "kv_heads", 0),
                                          trm_attr_int(a, "head_dim", 0), dtype);
        l->pages = trm_aligned_malloc(PAGES * l->page_bytes);
        memset(l->pages, 0xff, PAGES * l->page_bytes); /* NaN: must not be read unwritten */
    }
}

static inline void cache_close(cache *c)
{
    for (int l = 0; l < LAYERS_MAX; l++)
        trm_aligned_free(c->layers[l].pages);
}

static inline void cache_step(cache *c, const batch *b)
{
    int32_t row = 0;

    c->step.tokens = b->tokens;
    c->step.sequence_count = c->step.sequences_padded = b->count;
    for (int i = 0; i < b->count; i++) {
        c->sequences[i] = (trm_step_sequence){
            .row = row, .tokens = b->length[i], .position = b->position[i], .pages = pages_of[i]};
        row += b->length[i];
    }
    c->address = (int64_t)(intptr_t)&c->step;
}

typedef struct feed { /* inputs "tokens", "positions", "step", "rows" */
    int32_t tokens[32], positions[32], rows[SEQUENCES];
    int64_t step[SEQUENCES]; /* the address; as many as there are sequences */
    trm_tensor at[4];
} feed;

static inline void feed_step(feed *f, const batch *b, const lm_shape *s, cache *c)
{
    int row = 0;

    for (int i = 0; i < b->count; i++) {
        for (int t = 0; t < b->length[i]; t++, row++) {
            f->positions[row] = b->position[i] + t;
            f->tokens[row] = (int32_t)((f->positions[row] * 7 + i * 13 + 5) % s->vocabulary);
        }
        f->rows[i] = row - 1;
    }
    for (; row < b->padded; row++)
        f->positions[row] = f->tokens[row] = 0;
    lm_descs(b->padded, b->count, f->at);
    f->at[0].data = f->tokens;
    f->at[1].data = f->positions;
    f->at[2].data = f->step;
    f->step[0] = c->address;
    if (s->encoder)
        f->at[2].dims[0] = b->count;
    f->at[3].data = f->rows;
}

#endif
