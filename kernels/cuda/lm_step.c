/* The block of a step (lm_step.h): laid out, filled in host memory, sent. */
#include "kernels/cuda/lm_step.h"

#include <string.h>

#define BLOCK_ALIGN 256

/* The block while it is made; bytes beyond `max` are counted and not written. */
struct making {
    unsigned char *to;
    size_t at, max;
};

static void *take(struct making *m, size_t bytes, uint32_t *at_out)
{
    size_t at = trm_align_up(m->at, 16);

    m->at = at + bytes;
    *at_out = (uint32_t)at;
    return m->at <= m->max ? m->to + at : NULL;
}

static void put(struct making *m, const void *from, size_t bytes, uint32_t *at_out)
{
    void *to;

    *at_out = 0;
    if (bytes == 0)
        return;
    to = take(m, bytes, at_out);
    if (to != NULL)
        memcpy(to, from, bytes);
}

/* ---- where the graph's inputs are ---- */

static size_t words(int32_t count)
{
    return trm_align_up((size_t)count * sizeof(int32_t), BLOCK_ALIGN);
}

size_t trmi_cuda_step_input_at(trm_device *d, const trm_step *step, trm_step_input input)
{
    const size_t first = trm_align_up(sizeof(trmi_lm_block), BLOCK_ALIGN),
                 row = words(step->token_max);

    (void)d;
    switch (input) {
    case TRM_STEP_TOKENS:
        return first;
    case TRM_STEP_POSITIONS:
        return first + row;
    case TRM_STEP_TYPES:
        return first + 2 * row;
    case TRM_STEP_ROWS:
        return first + 3 * row;
    default:
        return 0;
    }
}

static void put_input(struct making *m, trm_device *d, const trm_step *step, trm_step_input input,
                      const int32_t *from, int32_t count, uint32_t *at_out)
{
    size_t at = trmi_cuda_step_input_at(d, step, input);

    *at_out = (uint32_t)at;
    if (at + (size_t)count * sizeof(*from) > m->max || count == 0)
        return;
    if (from != NULL)
        memcpy(m->to + at, from, (size_t)count * sizeof(*from));
    else
        memset(m->to + at, 0, (size_t)count * sizeof(*from));
}

static void put_inputs(struct making *m, trm_device *d, const trm_step *step, trmi_lm_block *b)
{
    put_input(m, d, step, TRM_STEP_TOKENS, step->token_ids, step->token_rows, &b->tokens_at);
    put_input(m, d, step, TRM_STEP_POSITIONS, step->positions, step->token_rows, &b->positions_at);
    put_input(m, d, step, TRM_STEP_TYPES, step->types, step->token_rows, &b->types_at);
    put_input(m, d, step, TRM_STEP_ROWS, step->rows, step->pick_rows, &b->rows_at);
    m->at = trmi_cuda_step_input_at(d, step, TRM_STEP_ROWS) + words(step->pick_max);
}

/* ---- sequences ---- */

static size_t pages_of(const trm_step_sequence *q)
{
    return q->pages == NULL ? 0
                            : ((size_t)(q->position + q->tokens) + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
}

static void put_sequences(struct making *m, const trm_step *step, trmi_lm_block *b)
{
    size_t count = (size_t)step->sequence_count, pages = 0;
    trmi_lm_sequence *to = take(m, count * sizeof(*to), &b->sequences_at);
    int32_t *rows = take(m, (size_t)step->token_rows * sizeof(*rows), &b->row_sequences_at), *list;

    for (size_t i = 0; i < count; i++)
        pages += pages_of(&step->sequences[i]);
    list = take(m, pages * sizeof(*list), &b->pages_at);
    for (int32_t r = 0; rows != NULL && r < step->token_rows; r++)
        rows[r] = -1;
    pages = 0;
    for (size_t i = 0; i < count; i++) {
        const trm_step_sequence *q = &step->sequences[i];
        size_t n = pages_of(q);

        if (to != NULL)
            to[i] = (trmi_lm_sequence){q->row, q->tokens, q->position, (int32_t)pages};
        for (int32_t r = 0; rows != NULL && r < q->tokens; r++)
            rows[q->row + r] = (int32_t)i;
        if (list != NULL && n > 0)
            memcpy(list + pages, q->pages, n * sizeof(*list));
        pages += n;
    }
}

/* ---- attention's work ---- */

static int32_t splits_of(int32_t keys)
{
    return (keys + TRMI_LM_SPLIT - 1) / TRMI_LM_SPLIT;
}

static int32_t sequence_splits(const trm_step_sequence *q)
{
    return splits_of(q->position + q->tokens);
}

static bool is_narrow(const trm_step *step, const trm_step_sequence *q)
{
    return step->token_rows <= TRMI_LM_NARROW_ROWS || q->tokens <= TRMI_LM_NARROW_TOKENS;
}

/* Which sequences have their splits dealt out: those of `splits` and more, and of those with one
 * fewer as many as `left` partial results hold. The longest first: they would take longest. */
typedef struct dealing {
    int32_t splits;
    int64_t left;
} dealing;

/* Partial results of all sequences with `splits` or more. */
static int64_t partials_from(const trm_step *step, int32_t splits)
{
    int64_t count = 0;

    for (int32_t i = 0; i < step->sequence_count; i++) {
        const trm_step_sequence *q = &step->sequences[i];

        if (is_narrow(step, q) && sequence_splits(q) >= splits)
            count += (int64_t)q->tokens * sequence_splits(q);
    }
    return count;
}

static dealing deal(const trm_step *step)
{
    const int64_t most = trmi_lm_partials_max(step->token_rows);
    int32_t low = 2, high = 2; /* the answer is in [low, high] */

    for (int32_t i = 0; i < step->sequence_count; i++)
        if (sequence_splits(&step->sequences[i]) >= high)
            high = sequence_splits(&step->sequences[i]) + 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;

        if (partials_from(step, middle) <= most)
            high = middle;
        else
            low = middle + 1;
    }
    return (dealing){low, most - partials_from(step, low)};
}

static bool is_dealt(const trm_step_sequence *q, dealing *d)
{
    int32_t splits = sequence_splits(q);
    int64_t count = (int64_t)q->tokens * splits;

    if (splits < 2 || splits < d->splits - 1)
        return false;
    if (splits >= d->splits)
        return true;
    if (count > d->left)
        return false;
    d->left -= count;
    return true;
}

/* Items and merges; written where there is room. */
typedef struct work {
    trmi_lm_item *items;
    trmi_lm_merge *merges;
    int32_t item_count, merge_count, partial_count;
} work;

static void add_item(work *w, trmi_lm_item item)
{
    if (w->items != NULL)
        w->items[w->item_count] = item;
    w->item_count++;
}

/* Tiles of `size` rows, each with all its splits; the last, which see most keys, first. */
static void add_whole(work *w, const trm_step_sequence *q, int32_t sequence, int32_t size)
{
    for (int32_t t = (q->tokens + size - 1) / size - 1; t >= 0; t--) {
        int32_t first = t * size, left = q->tokens - first, rows = left < size ? left : size;

        add_item(w, (trmi_lm_item){.sequence = sequence,
                                   .row = q->row + first,
                                   .rows = rows,
                                   .split_end = splits_of(q->position + first + rows),
                                   .slot = -1});
    }
}

static void add_dealt(work *w, const trm_step_sequence *q, int32_t sequence)
{
    const int32_t step = sequence_splits(q);

    for (int32_t first = 0; first < q->tokens; first += TRMI_LM_NARROW) {
        int32_t left = q->tokens - first, rows = left < TRMI_LM_NARROW ? left : TRMI_LM_NARROW;
        int32_t splits = splits_of(q->position + first + rows);

        for (int32_t s = 0; s < splits; s++)
            add_item(w, (trmi_lm_item){.sequence = sequence,
                                       .row = q->row + first,
                                       .rows = rows,
                                       .split_begin = s,
                                       .split_end = s + 1,
                                       .slot = w->partial_count + first * step + s,
                                       .slot_step = step});
        for (int32_t r = first; r < first + rows; r++) {
            if (w->merges != NULL)
                w->merges[w->merge_count] =
                    (trmi_lm_merge){sequence, q->row + r, w->partial_count + r * step, splits};
            w->merge_count++;
        }
    }
    w->partial_count += q->tokens * step;
}

/* Whole ones first, each of which takes long. */
static void add_work(work *w, const trm_step *step, int32_t *wide_out)
{
    const dealing d = deal(step);

    for (int pass = 0; pass < 3; pass++) {
        dealing left = d;

        if (pass == 2)
            *wide_out = w->item_count;
        for (int32_t i = 0; i < step->sequence_count; i++) {
            const trm_step_sequence *q = &step->sequences[i];
            bool narrow = is_narrow(step, q), dealt = narrow && is_dealt(q, &left);

            if (pass == 0 && narrow && !dealt)
                add_whole(w, q, i, TRMI_LM_NARROW);
            else if (pass == 1 && dealt)
                add_dealt(w, q, i);
            else if (pass == 2 && !narrow)
                add_whole(w, q, i, TRMI_LM_WIDE);
        }
    }
    *wide_out = w->item_count - *wide_out;
}

static void put_items(struct making *m, const trm_step *step, trmi_lm_block *b)
{
    work count = {.items = NULL}, w = {.items = NULL};

    add_work(&count, step, &b->wide_count);
    w.items = take(m, (size_t)count.item_count * sizeof(*w.items), &b->items_at);
    w.merges = take(m, (size_t)count.merge_count * sizeof(*w.merges), &b->merges_at);
    add_work(&w, step, &b->wide_count);
    b->item_count = count.item_count - b->wide_count;
    b->merge_count = count.merge_count;
}

static void put_layers(struct making *m, const trm_step *step, trmi_lm_block *b)
{
    trmi_lm_layer *to = take(m, (size_t)step->layer_count * sizeof(*to), &b->layers_at);

    for (int32_t i = 0; to != NULL && i < step->layer_count; i++)
        to[i] = (trmi_lm_layer){step->layers[i].pages, step->layers[i].page_bytes};
}

/* ---- sampling ---- */

static void put_samples(struct making *m, const trm_step *step, trmi_lm_block *b)
{
    size_t mask = ((size_t)step->vocabulary + 31) / 32 * sizeof(uint32_t);
    trmi_lm_sample *to = take(m, (size_t)step->sample_count * sizeof(*to), &b->samples_at);
    trmi_lm_begin *begins = take(m, (size_t)step->begin_count * sizeof(*begins), &b->begins_at);

    for (int32_t i = 0; i < step->sample_count; i++) {
        const trm_step_sample *s = &step->samples[i];
        trmi_lm_sample out = {.sample = *s};

        out.sample.bias = NULL;
        out.sample.ends = NULL;
        out.sample.allowed = NULL;
        put(m, s->bias, (size_t)s->bias_count * sizeof(*s->bias), &out.bias_at);
        put(m, s->ends, (size_t)s->end_count * sizeof(*s->ends), &out.ends_at);
        put(m, s->allowed, s->allowed == NULL ? 0 : mask, &out.allowed_at);
        if (to != NULL)
            to[i] = out;
    }
    for (int32_t i = 0; i < step->begin_count; i++) {
        const trm_step_begin *s = &step->begins[i];
        trmi_lm_begin out = {.slot = s->slot, .prompt_count = s->prompt_count};

        put(m, s->prompt, (size_t)s->prompt_count * sizeof(*s->prompt), &out.prompt_at);
        if (begins != NULL)
            begins[i] = out;
    }
}

/* ---- the whole ---- */

trm_status trmi_cuda_step_encode(trm_device *d, const trm_step *step, void *host, size_t host_max,
                                 size_t *bytes_out)
{
    struct making m = {.to = host, .max = host_max};
    trmi_lm_block b = {.tokens = step->tokens,
                       .token_rows = step->token_rows,
                       .pick_rows = step->pick_rows,
                       .sequence_count = step->sequence_count,
                       .sequences_padded = step->sequences_padded,
                       .sample_count = step->sample_count,
                       .begin_count = step->begin_count,
                       .vocabulary = step->vocabulary,
                       .slots = step->slots,
                       .slot_tokens = step->slot_tokens,
                       .slot_counts = step->slot_counts};

    if (step->token_rows > step->token_max || step->pick_rows > step->pick_max)
        return trm_fail(TRM_ERR_INVALID_ARG, "a step of %d rows and %d picks: want %d and %d",
                        step->token_rows, step->pick_rows, step->token_max, step->pick_max);
    put_inputs(&m, d, step, &b);
    put_sequences(&m, step, &b);
    put_items(&m, step, &b);
    put_layers(&m, step, &b);
    put_samples(&m, step, &b);
    b.bytes = m.at = trm_align_up(m.at, BLOCK_ALIGN);
    *bytes_out = m.at;
    if (m.at > host_max)
        return trm_fail(TRM_ERR_NO_MEMORY, "a step's block of %zu bytes", m.at);
    memcpy(host, &b, sizeof(b));
    return TRM_OK;
}

trm_status trmi_cuda_step_send(trm_device *d, trm_stream *s, const trm_step *step, void *block,
                               const void *host, size_t bytes)
{
    cudaStream_t stream = s != NULL ? s->stream : ((const trm_cuda *)d)->stream;

    TRM_CHECK(trmi_cuda_check(cudaMemcpyAsync(block, host, bytes, cudaMemcpyHostToDevice, stream),
                              "a step"));
    for (int32_t i = 0; i < step->token_rows && step->slot_tokens != NULL; i++)
        if (step->token_ids[i] < -1)
            return trmi_cuda_lm_tokens(block, step, stream);
    return TRM_OK;
}
