/* Pre-tokenizers: each takes the pieces of the one before and cuts them further, or rewrites their
 * text into a buffer of its own. */
#define _GNU_SOURCE /* memmem */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

const char trmi_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void trmi_pretokenizer_fini(trmi_pretokenizer *p)
{
    trmi_regex_destroy(p->regex);
    p->regex = NULL;
}

void trmi_words_fini(trmi_words *w)
{
    trm_free(w->now.v);
    trm_free(w->next.v);
    trmi_buf_fini(&w->buffers[0]);
    trmi_buf_fini(&w->buffers[1]);
    memset(w, 0, sizeof(*w));
}

static void add_piece(trmi_pieces *p, size_t at, size_t bytes, bool head)
{
    if (p->failed)
        return;
    if (p->count == p->room && !trmi_grow((void **)&p->v, &p->room, p->count + 1, sizeof(*p->v))) {
        p->failed = true;
        return;
    }
    p->v[p->count].at = at;
    p->v[p->count].bytes = bytes;
    p->v[p->count].head = head;
    p->count++;
}

/* ---- cutting by matches ---- */

/* Takes the matches of one piece, and what lies between them, in order. */
typedef struct cutter {
    trmi_pieces *out;
    trmi_behavior behavior;
    bool head;         /* of the whole piece */
    size_t base;       /* where the piece begins */
    size_t first;      /* this piece's pieces begin here in out */
    bool before_match; /* the last part was a match */
    bool before_any;   /* there was a part */
    size_t open;       /* MERGED_WITH_NEXT: a match that waits for its next; SIZE_MAX: none */
} cutter;

static void cut_piece(cutter *c, size_t start, size_t end)
{
    if (end > start)
        add_piece(c->out, c->base + start, end - start, c->head && start == 0);
}

static void extend_last(cutter *c, size_t end)
{
    trmi_piece *last = &c->out->v[c->out->count - 1];

    last->bytes = c->base + end - last->at;
}

static bool has_last(const cutter *c)
{
    return !c->out->failed && c->out->count > c->first;
}

static void cut(cutter *c, size_t start, size_t end, bool match)
{
    switch (c->behavior) {
    case TRMI_REMOVED:
        if (!match)
            cut_piece(c, start, end);
        break;
    case TRMI_ISOLATED:
        cut_piece(c, start, end);
        break;
    case TRMI_CONTIGUOUS:
        if (c->before_any && match == c->before_match && has_last(c))
            extend_last(c, end);
        else
            cut_piece(c, start, end);
        break;
    case TRMI_MERGED_WITH_PREVIOUS:
        if (match && !c->before_match && has_last(c))
            extend_last(c, end);
        else
            cut_piece(c, start, end);
        break;
    case TRMI_MERGED_WITH_NEXT:
        /* a match waits; the next part takes it along, unless that is a match too */
        if (c->open != SIZE_MAX && match) {
            cut_piece(c, c->open, start);
            c->open = SIZE_MAX;
        }
        if (match) {
            c->open = start;
        } else {
            cut_piece(c, c->open == SIZE_MAX ? start : c->open, end);
            c->open = SIZE_MAX;
        }
        break;
    }
    c->before_match = match;
    c->before_any = true;
}

static void cut_end(cutter *c, size_t count)
{
    if (c->open != SIZE_MAX)
        cut_piece(c, c->open, count);
}

static trm_status split_by_regex(const trmi_regex *regex, bool invert, trmi_matcher *m,
                                 const char *text, size_t count, cutter *c)
{
    size_t from = 0, done = 0, start, end, last_end = SIZE_MAX;
    bool found;

    while (from <= count) {
        TRM_CHECK(trmi_regex_find(regex, m, text, count, from, &found, &start, &end));
        if (!found)
            break;
        if (start == end && end == last_end) { /* an empty match right behind the last one */
            size_t bytes = 1;

            if (from < count)
                (void)trmi_utf8_get(text + from, &bytes);
            from += bytes;
            continue;
        }
        if (start > done)
            cut(c, done, start, invert);
        cut(c, start, end, !invert);
        from = done = last_end = end;
    }
    if (done < count)
        cut(c, done, count, invert);
    return TRM_OK;
}

static void split_by_text(const trm_text *pattern, bool invert, const char *text, size_t count,
                          cutter *c)
{
    size_t done = 0;

    while (pattern->count > 0 && done < count) {
        const char *hit = memmem(text + done, count - done, pattern->bytes, pattern->count);
        size_t start;

        if (hit == NULL)
            break;
        start = (size_t)(hit - text);
        if (start > done)
            cut(c, done, start, invert);
        cut(c, start, start + pattern->count, !invert);
        done = start + pattern->count;
    }
    if (done < count)
        cut(c, done, count, invert);
}

static void split_by_class(const trmi_pretokenizer *p, const char *text, size_t count, cutter *c)
{
    size_t done = 0;

    for (size_t i = 0; i < count;) {
        size_t bytes;
        uint32_t k = trmi_utf8_get(text + i, &bytes);

        if (p->is != NULL ? p->is(k) : k == p->delimiter) {
            if (i > done)
                cut(c, done, i, false);
            cut(c, i, i + bytes, true);
            done = i + bytes;
        }
        i += bytes;
    }
    if (done < count)
        cut(c, done, count, false);
}

/* \w+|[^\w\s]+: runs of one of three classes, white space left out. */
static void split_words(const char *text, size_t count, cutter *c)
{
    size_t start = 0;
    int kind = -1;

    for (size_t i = 0; i < count;) {
        size_t bytes;
        uint32_t k = trmi_utf8_get(text + i, &bytes);
        int now = trmi_is_word(k) ? 1 : trmi_is_white(k) ? 0 : 2;

        if (now != kind) {
            if (kind > 0)
                cut_piece(c, start, i);
            start = i;
            kind = now;
        }
        i += bytes;
    }
    if (kind > 0)
        cut_piece(c, start, count);
}

static trm_status split_piece(const trmi_pretokenizer *p, trmi_matcher *m, trmi_words *w,
                              const trmi_piece *piece)
{
    cutter c = {.out = &w->next,
                .behavior = p->behavior,
                .head = piece->head,
                .base = piece->at,
                .first = w->next.count,
                .open = SIZE_MAX};
    const char *text = w->text + piece->at;

    switch (p->kind) {
    case TRMI_PRETOKENIZER_WHITESPACE:
        split_words(text, piece->bytes, &c);
        break;
    case TRMI_PRETOKENIZER_CHARACTERS:
        split_by_class(p, text, piece->bytes, &c);
        break;
    default:
        if (p->regex != NULL)
            TRM_CHECK(split_by_regex(p->regex, p->invert, m, text, piece->bytes, &c));
        else
            split_by_text(&p->pattern, p->invert, text, piece->bytes, &c);
    }
    cut_end(&c, piece->bytes);
    return TRM_OK;
}

static void swap_pieces(trmi_words *w)
{
    trmi_pieces p = w->now;

    w->now = w->next;
    w->next = p;
    w->next.count = 0;
}

static trm_status split_all(const trmi_pretokenizer *p, trmi_matcher *m, trmi_words *w)
{
    for (size_t i = 0; i < w->now.count; i++)
        TRM_CHECK(split_piece(p, m, w, &w->now.v[i]));
    swap_pieces(w);
    return TRM_OK;
}

/* ---- those that rewrite ---- */

/* The buffer that holds no text now, empty. */
static trmi_buf *other_buffer(trmi_words *w)
{
    w->turn = 1 - w->turn;
    trmi_buf_clear(&w->buffers[w->turn]);
    return &w->buffers[w->turn];
}

/* The pieces now lie in `b`. */
static trm_status rewritten(trmi_words *w, const trmi_buf *b)
{
    TRM_CHECK(trmi_buf_status(b, "text on its way through a pre-tokenizer"));
    if (b->count > TRMI_TEXT_BYTES_MAX * 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "the text grows beyond %zu bytes",
                        TRMI_TEXT_BYTES_MAX * 2);
    w->text = b->bytes;
    return TRM_OK;
}

static trm_status byte_level(const trmi_pretokenizer *p, trmi_matcher *m, trmi_words *w)
{
    trmi_buf *b;
    bool prefixed = false;

    for (size_t i = 0; i < w->now.count && p->add_prefix_space && !prefixed; i++)
        prefixed = w->text[w->now.v[i].at] != ' ';
    if (prefixed) {
        b = other_buffer(w);
        for (size_t i = 0; i < w->now.count; i++) {
            trmi_piece *piece = &w->now.v[i];
            size_t at = b->count;

            if (w->text[piece->at] != ' ')
                trmi_buf_byte(b, ' ');
            trmi_buf_add(b, w->text + piece->at, piece->bytes);
            piece->at = at;
            piece->bytes = b->count - at;
        }
        TRM_CHECK(rewritten(w, b));
    }
    if (p->regex != NULL)
        TRM_CHECK(split_all(p, m, w));
    b = other_buffer(w);
    for (size_t i = 0; i < w->now.count; i++) {
        trmi_piece *piece = &w->now.v[i];
        size_t at = b->count;

        trmi_byte_level_add(b, w->text + piece->at, piece->bytes);
        piece->at = at;
        piece->bytes = b->count - at;
    }
    return rewritten(w, b);
}

static trm_status metaspace(const trmi_pretokenizer *p, trmi_words *w)
{
    trmi_buf *b = other_buffer(w);
    char mark[4];
    size_t mark_bytes = trmi_utf8_put(p->delimiter, mark);
    trm_text pattern = {mark, mark_bytes};

    for (size_t i = 0; i < w->now.count; i++) {
        const trmi_piece *piece = &w->now.v[i];
        const char *text = w->text + piece->at;
        size_t at = b->count, k = 0;
        cutter c = {.out = &w->next,
                    .behavior = TRMI_MERGED_WITH_NEXT,
                    .head = piece->head,
                    .base = at,
                    .first = w->next.count,
                    .open = SIZE_MAX};

        if ((p->prepend == TRMI_PREPEND_ALWAYS ||
             (p->prepend == TRMI_PREPEND_FIRST && piece->head)) &&
            text[0] != ' ' && !(piece->bytes >= mark_bytes && memcmp(text, mark, mark_bytes) == 0))
            trmi_buf_add(b, mark, mark_bytes);
        while (k < piece->bytes) {
            const char *blank = memchr(text + k, ' ', piece->bytes - k);
            size_t run = blank == NULL ? piece->bytes - k : (size_t)(blank - text) - k;

            trmi_buf_add(b, text + k, run);
            k += run;
            if (blank != NULL) {
                trmi_buf_add(b, mark, mark_bytes);
                k++;
            }
        }
        TRM_CHECK(trmi_buf_status(b, "text on its way through a pre-tokenizer"));
        if (!p->split) {
            add_piece(&w->next, at, b->count - at, piece->head);
            continue;
        }
        split_by_text(&pattern, false, b->bytes + at, b->count - at, &c);
        cut_end(&c, b->count - at);
    }
    swap_pieces(w);
    return rewritten(w, b);
}

trm_status trmi_pretokenize(const trmi_pretokenizer *steps, size_t count, trmi_matcher *m,
                            const char *text, size_t bytes, bool head, trmi_words *w)
{
    w->text = text;
    w->now.count = w->next.count = 0;
    if (bytes > 0)
        add_piece(&w->now, 0, bytes, head);
    for (size_t i = 0; i < count; i++) {
        const trmi_pretokenizer *p = &steps[i];

        if (p->kind == TRMI_PRETOKENIZER_BYTE_LEVEL)
            TRM_CHECK(byte_level(p, m, w));
        else if (p->kind == TRMI_PRETOKENIZER_METASPACE)
            TRM_CHECK(metaspace(p, w));
        else
            TRM_CHECK(split_all(p, m, w));
        if (w->now.failed || w->next.failed)
            return trmi_no_memory("pieces of a text");
    }
    return w->now.failed ? trmi_no_memory("pieces of a text") : TRM_OK;
}
