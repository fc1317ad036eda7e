/* See step.h. */
#include "worker/language/step.h"

#include "base/memory.h"

#include <stddef.h>
#include <string.h>

#define MAGIC 0x324c5254u /* "TRL2" */

struct head {
    uint32_t magic;
    int32_t has_types;
    int32_t token_count, token_rows, part_count, part_rows, pick_count, pick_rows, page_count,
        begin_count;
};

struct begin_head {
    int32_t slot, bias_count;
    int64_t prompt_count;
    uint64_t constraint_bytes; /* 0: none */
};

#define SAMPLING_FIXED offsetof(trm_sampling, bias)

trm_status trm_lm_step_init(trm_lm_step *s, int tokens, int parts, int picks, int pages, int begins,
                            bool with_types)
{
    memset(s, 0, sizeof(*s));
    s->token_max = tokens;
    s->part_max = parts;
    s->pick_max = picks;
    s->page_max = pages;
    s->begin_max = begins;
    s->has_types = with_types;
    s->tokens = trm_malloc((size_t)tokens + 1, sizeof(*s->tokens));
    s->types = with_types ? trm_malloc((size_t)tokens + 1, sizeof(*s->types)) : NULL;
    s->parts = trm_malloc((size_t)parts + 1, sizeof(*s->parts));
    s->picks = trm_malloc((size_t)picks + 1, sizeof(*s->picks));
    s->pages = trm_malloc((size_t)pages + 1, sizeof(*s->pages));
    s->begins = trm_malloc((size_t)begins + 1, sizeof(*s->begins));
    if (s->tokens == NULL || (with_types && s->types == NULL) || s->parts == NULL ||
        s->picks == NULL || s->pages == NULL || s->begins == NULL) {
        trm_lm_step_fini(s);
        return trm_fail(TRM_ERR_NO_MEMORY, "a step of %d tokens", tokens);
    }
    return TRM_OK;
}

void trm_lm_step_fini(trm_lm_step *s)
{
    trm_free(s->tokens);
    trm_free(s->types);
    trm_free(s->parts);
    trm_free(s->picks);
    trm_free(s->pages);
    trm_free(s->begins);
    memset(s, 0, sizeof(*s));
}

void trm_lm_step_clear(trm_lm_step *s)
{
    s->token_count = s->token_rows = s->part_count = s->part_rows = s->pick_count = s->pick_rows =
        s->page_count = s->begin_count = 0;
}

static unsigned char *put(unsigned char *at, const void *data, size_t bytes)
{
    if (bytes > 0)
        memcpy(at, data, bytes);
    return at + trm_align_up(bytes, 8);
}

static size_t padded(size_t count, size_t elem)
{
    return trm_align_up(count * elem, 8);
}

static size_t encoded_bytes(const trm_lm_step *s)
{
    size_t n = padded(1, sizeof(struct head));

    n += padded((size_t)s->token_count, sizeof(*s->tokens)) * (s->has_types ? 2 : 1);
    n += padded((size_t)s->part_count, sizeof(*s->parts));
    n += padded((size_t)s->pick_count, sizeof(*s->picks));
    n += padded((size_t)s->page_count, sizeof(*s->pages));
    for (int i = 0; i < s->begin_count; i++) {
        const trm_lm_begin *b = &s->begins[i];

        n += padded(1, sizeof(struct begin_head)) + padded(1, sizeof(trm_sampling)) +
             padded((size_t)b->prompt_count, sizeof(int32_t)) + padded(b->constraint_bytes, 1);
    }
    return n;
}

trm_status trm_lm_step_encode(const trm_lm_step *s, void **buffer, size_t *max, size_t *bytes_out)
{
    struct head h = {MAGIC,        s->has_types,  s->token_count, s->token_rows, s->part_count,
                     s->part_rows, s->pick_count, s->pick_rows,   s->page_count, s->begin_count};
    size_t bytes = encoded_bytes(s);
    unsigned char *at;

    if (bytes > *max) {
        void *grown = trm_realloc(*buffer, bytes + bytes / 2, 1);

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a step of %zu bytes", bytes);
        *buffer = grown;
        *max = bytes + bytes / 2;
    }
    at = put(*buffer, &h, sizeof(h));
    at = put(at, s->tokens, (size_t)s->token_count * sizeof(*s->tokens));
    if (s->has_types)
        at = put(at, s->types, (size_t)s->token_count * sizeof(*s->types));
    at = put(at, s->parts, (size_t)s->part_count * sizeof(*s->parts));
    at = put(at, s->picks, (size_t)s->pick_count * sizeof(*s->picks));
    at = put(at, s->pages, (size_t)s->page_count * sizeof(*s->pages));
    for (int i = 0; i < s->begin_count; i++) {
        const trm_lm_begin *b = &s->begins[i];
        struct begin_head bh = {b->slot, b->bias_count, b->prompt_count, b->constraint_bytes};
        size_t used = SAMPLING_FIXED + (size_t)b->bias_count * sizeof(trm_logit_bias);

        at = put(at, &bh, sizeof(bh));
        at = put(at, b->sampling, used);
        at = put(at, b->prompt, (size_t)b->prompt_count * sizeof(int32_t));
        at = put(at, b->constraint, b->constraint_bytes);
    }
    *bytes_out = (size_t)(at - (unsigned char *)*buffer);
    return TRM_OK;
}

struct reader {
    const unsigned char *at;
    size_t left;
};

static const void *get(struct reader *r, size_t count, size_t elem)
{
    size_t bytes = padded(count, elem);
    const void *p = r->at;

    if (bytes > r->left)
        return NULL;
    r->at += bytes;
    r->left -= bytes;
    return p;
}

static bool get_into(struct reader *r, void *to, int count, int max, size_t elem)
{
    const void *p;

    if (count < 0 || count > max || (p = get(r, (size_t)count, elem)) == NULL)
        return false;
    memcpy(to, p, (size_t)count * elem);
    return true;
}

static bool get_begin(struct reader *r, trm_lm_begin *b)
{
    struct begin_head bh;
    const void *p = get(r, 1, sizeof(bh));

    if (p == NULL)
        return false;
    memcpy(&bh, p, sizeof(bh));
    if (bh.bias_count < 0 || bh.bias_count > TRM_SAMPLING_BIAS_MAX || bh.prompt_count < 0 ||
        (uint64_t)bh.prompt_count > r->left / sizeof(int32_t) || bh.constraint_bytes > r->left)
        return false;
    b->slot = bh.slot;
    b->bias_count = bh.bias_count;
    b->prompt_count = bh.prompt_count;
    p = get(r, SAMPLING_FIXED + (size_t)bh.bias_count * sizeof(trm_logit_bias), 1);
    if (p == NULL)
        return false;
    b->sampling = p;
    b->prompt = get(r, (size_t)bh.prompt_count, sizeof(int32_t));
    if (b->prompt == NULL)
        return false;
    b->constraint_bytes = (size_t)bh.constraint_bytes;
    b->constraint = b->constraint_bytes == 0 ? NULL : get(r, b->constraint_bytes, 1);
    return (b->constraint != NULL) == (b->constraint_bytes > 0) &&
           b->sampling->bias_count == b->bias_count;
}

/* What kernels and the cache index by must lie in range, whoever sent it. */
static bool is_sound(const trm_lm_step *s)
{
    if (s->token_rows < s->token_count || s->pick_rows < s->pick_count || s->token_rows < 0)
        return false;
    for (int i = 0; i < s->part_count; i++) {
        const trm_lm_part *p = &s->parts[i];

        if (p->row < 0 || p->tokens < 1 || p->row > s->token_count - p->tokens || p->position < 0 ||
            p->page_first < 0 || p->page_count < 0 || p->page_first > s->page_count - p->page_count)
            return false;
    }
    for (int i = 0; i < s->pick_count; i++)
        if (s->picks[i].row < 0 || s->picks[i].row >= s->token_count)
            return false;
    return true;
}

trm_status trm_lm_step_decode(trm_lm_step *s, const void *bytes, size_t count)
{
    struct reader r = {bytes, count};
    struct head h;
    const void *p = get(&r, 1, sizeof(h));

    if (p == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "a step of %zu bytes is cut short", count);
    memcpy(&h, p, sizeof(h));
    if (h.magic != MAGIC || (h.has_types != 0) != s->has_types)
        return trm_fail(TRM_ERR_INVALID_ARG, "these bytes are no step of this model");
    s->token_count = h.token_count;
    s->token_rows = h.token_rows;
    s->part_count = h.part_count;
    s->part_rows = h.part_rows;
    s->pick_count = h.pick_count;
    s->pick_rows = h.pick_rows;
    s->page_count = h.page_count;
    s->begin_count = h.begin_count;
    if (!get_into(&r, s->tokens, h.token_count, s->token_max, sizeof(*s->tokens)) ||
        (s->has_types && !get_into(&r, s->types, h.token_count, s->token_max, sizeof(*s->types))) ||
        !get_into(&r, s->parts, h.part_count, s->part_max, sizeof(*s->parts)) ||
        !get_into(&r, s->picks, h.pick_count, s->pick_max, sizeof(*s->picks)) ||
        !get_into(&r, s->pages, h.page_count, s->page_max, sizeof(*s->pages)) ||
        h.begin_count < 0 || h.begin_count > s->begin_max)
        return trm_fail(TRM_ERR_INVALID_ARG, "a step of %zu bytes: counts do not fit", count);
    for (int i = 0; i < h.begin_count; i++)
        if (!get_begin(&r, &s->begins[i]))
            return trm_fail(TRM_ERR_INVALID_ARG, "a step's sampler %d is damaged", i);
    if (!is_sound(s))
        return trm_fail(TRM_ERR_INVALID_ARG, "a step of %zu bytes: rows or pages out of range",
                        count);
    return TRM_OK;
}

int trm_lm_grid(int count)
{
    int step = 1;

    while (count > 16 * step)
        step *= 2;
    return (count + step - 1) / step * step;
}
