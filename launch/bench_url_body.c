/* Bodies of requests. Random prompts are made of tokens of the model's own vocabulary where the
 * server has /tokenize, so that they have the length that was asked for and no two share a
 * beginning that a cache would know; else of common words, about one token each. */
#include "launch/bench_url_impl.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define POOL_WORDS 512
#define PROMPTS_MAX 100000
#define DEFAULT_TOKENS 128

uint64_t trmi_url_random(uint64_t *state)
{
    /* Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double trmi_url_uniform(uint64_t *state)
{
    return ((double)(trmi_url_random(state) >> 11) + 0.5) * 0x1p-53;
}

/* `n` words and their end; from trm_malloc. */
static char *words(int64_t n, uint64_t *state)
{
    static const char *const list[] = {
        "the",  "of",    "and",  "to",   "in",   "a",     "is",    "that",  "for",   "it",
        "as",   "was",   "with", "be",   "by",   "on",    "not",   "he",    "his",   "but",
        "at",   "are",   "this", "have", "from", "or",    "had",   "an",    "they",  "which",
        "one",  "you",   "were", "all",  "her",  "she",   "there", "would", "their", "we",
        "him",  "been",  "has",  "when", "who",  "will",  "no",    "more",  "if",    "out",
        "so",   "up",    "said", "what", "its",  "about", "than",  "into",  "them",  "can",
        "only", "other", "time", "new"};
    const size_t count = sizeof(list) / sizeof(list[0]);
    char *text = trm_malloc((size_t)n + 1, 8);
    size_t at = 0;

    for (int64_t i = 0; text != NULL && i < n; i++) {
        const char *word = list[trmi_url_random(state) % count];
        size_t bytes = strlen(word);

        if (i > 0)
            text[at++] = ' ';
        memcpy(text + at, word, bytes);
        at += bytes;
    }
    if (text != NULL)
        text[at] = '\0';
    return text;
}

/* The vocabulary that random prompts are drawn from. A server without /tokenize is fine. */
static trm_status learn_tokens(trmi_url_bodies *b)
{
    const trmi_url_options *o = b->options;
    uint64_t state = (uint64_t)o->seed;
    char *text = words(POOL_WORDS, &state), *body = NULL;
    json_t *ask = NULL, *answer = NULL, *tokens, *token;
    int64_t *ids = NULL;
    size_t i, n = 0;
    long http = 0;
    trm_status st = TRM_OK;

    b->words_a_token = 1;
    ask = text == NULL ? NULL : json_pack("{s:s,s:s}", "model", b->target->model, "prompt", text);
    body = ask == NULL ? NULL : json_dumps(ask, JSON_COMPACT);
    if (body == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a text");
        goto done;
    }
    TRM_TRY(st, trmi_url_fetch(o, b->target, "/tokenize", body, &answer, &http), done);
    tokens = json_object_get(answer, "tokens");
    if (http != 200 || json_array_size(tokens) < POOL_WORDS / 8)
        goto done;
    ids = trm_arena_alloc(b->arena, json_array_size(tokens), sizeof(*ids));
    if (ids == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "tokens");
        goto done;
    }
    json_array_foreach(tokens, i, token)
    {
        if (i > 0 && json_is_integer(token)) /* the first may open a text */
            ids[n++] = json_integer_value(token);
    }
    if (n > 0) {
        b->ids = ids;
        b->id_count = (int)n;
        b->words_a_token = (double)POOL_WORDS / (double)n;
    }

done:
    json_decref(ask);
    json_decref(answer);
    trm_free(text);
    free(body);
    return st;
}

static trm_status read_prompts(trmi_url_bodies *b, const char *path)
{
    trm_file *f = NULL;
    const char *at, *end;
    trm_status st;

    TRM_CHECK(trm_file_open(path, &f));
    at = (const char *)trm_file_data(f);
    end = at + trm_file_bytes(f);
    b->prompts = trm_arena_alloc(b->arena, PROMPTS_MAX, sizeof(*b->prompts));
    st = b->prompts == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "prompts") : TRM_OK;
    while (st == TRM_OK && at < end && b->prompt_count < PROMPTS_MAX) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((line_end != NULL ? line_end : end) - at);
        size_t text = n > 0 && at[n - 1] == '\r' ? n - 1 : n;
        char *copy = text > 0 ? trm_arena_strndup(b->arena, at, text) : NULL;
        json_t *is_text = copy != NULL ? json_string(copy) : NULL;

        if (text > 0 && (is_text == NULL || strlen(copy) != text))
            st = trm_fail(TRM_ERR_BAD_FILE, "--prompt-file %s: prompt %d is no UTF-8 text", path,
                          b->prompt_count + 1);
        else if (text > 0)
            b->prompts[b->prompt_count++] = copy;
        json_decref(is_text);
        at += n + 1;
    }
    if (st == TRM_OK && b->prompt_count == 0)
        st = trm_fail(TRM_ERR_BAD_FILE, "--prompt-file %s: no prompt in it", path);
    trm_file_unref(f);
    return st;
}

static trm_status given_prompt(trmi_url_bodies *b, const char *text)
{
    json_t *is_text = json_string(text);

    json_decref(is_text);
    if (is_text == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "--prompt: want UTF-8 text");
    b->prompts = trm_arena_alloc(b->arena, 1, sizeof(*b->prompts));
    if (b->prompts == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a prompt");
    b->prompts[0] = text;
    b->prompt_count = 1;
    return TRM_OK;
}

static trm_status read_image(trmi_url_bodies *b, const char *path)
{
    trm_file *f = NULL;
    void *copy;

    TRM_CHECK(trm_file_open(path, &f));
    copy = trm_arena_alloc(b->arena, trm_file_bytes(f) + 1, 1);
    if (copy != NULL && trm_file_bytes(f) > 0)
        memcpy(copy, trm_file_data(f), trm_file_bytes(f));
    b->fixed = copy;
    b->fixed_bytes = trm_file_bytes(f);
    trm_file_unref(f);
    return copy != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "the image");
}

trm_status trmi_url_bodies_make(const trmi_url_options *o, trmi_url_target *t, trmi_url_bodies *b)
{
    b->options = o;
    b->target = t;
    b->arena = t->arena;
    if (t->kind == TRMI_URL_INFER)
        return trmi_url_infer_body(o, t, &b->fixed, &b->fixed_bytes);
    if (t->kind == TRMI_URL_PREDICT)
        return read_image(b, o->image);
    if (o->prompt != NULL)
        return given_prompt(b, o->prompt);
    if (o->prompt_file != NULL)
        return read_prompts(b, o->prompt_file);
    return learn_tokens(b);
}

/* A prompt: a text, or for completions tokens. */
static json_t *prompt(const trmi_url_bodies *b, int64_t index)
{
    int64_t n = b->options->prompt_tokens > 0 ? b->options->prompt_tokens : DEFAULT_TOKENS;
    uint64_t state = (uint64_t)b->options->seed;
    json_t *o = NULL;
    char *text;

    if (b->prompts != NULL)
        return json_string(b->prompts[index % b->prompt_count]);
    state = trmi_url_random(&state) + (uint64_t)index;
    state = trmi_url_random(&state);
    if (b->ids != NULL && b->target->kind == TRMI_URL_COMPLETIONS) {
        o = json_array();
        for (int64_t i = 0; o != NULL && i < n; i++)
            json_array_append_new(
                o, json_integer(b->ids[trmi_url_random(&state) % (uint64_t)b->id_count]));
        return o;
    }
    n = (int64_t)((double)n * b->words_a_token + 0.5);
    text = words(n > 0 ? n : 1, &state);
    o = text != NULL ? json_string(text) : NULL;
    trm_free(text);
    return o;
}

trm_status trmi_url_body(const trmi_url_bodies *b, int64_t index, const void **body_out,
                         size_t *bytes_out, char **owned_out)
{
    const trmi_url_options *o = b->options;
    const trmi_url_target *t = b->target;
    json_t *p, *body = NULL;

    *owned_out = NULL;
    if (t->kind >= TRMI_URL_INFER) {
        *body_out = b->fixed;
        *bytes_out = b->fixed_bytes;
        return TRM_OK;
    }
    p = prompt(b, index);
    if (t->kind == TRMI_URL_EMBEDDINGS)
        body = json_pack("{s:s,s:o}", "model", t->model, "input", p);
    else if (t->kind == TRMI_URL_CHAT)
        body = json_pack("{s:s,s:[{s:s,s:o}]}", "model", t->model, "messages", "role", "user",
                         "content", p);
    else
        body = json_pack("{s:s,s:o}", "model", t->model, "prompt", p);
    if (body != NULL && t->kind != TRMI_URL_EMBEDDINGS) {
        json_object_set_new(body, "max_tokens",
                            json_integer(o->max_tokens > 0 ? o->max_tokens : DEFAULT_TOKENS));
        json_object_set_new(body, "temperature", json_integer(0));
        if (o->ignore_eos)
            json_object_set_new(body, "ignore_eos", json_true());
        if (t->stream)
            json_object_set_new(body, "stream", json_true());
        if (t->stream)
            json_object_set_new(body, "stream_options", json_pack("{s:b}", "include_usage", 1));
    }
    *owned_out = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (*owned_out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    *body_out = *owned_out;
    *bytes_out = strlen(*owned_out);
    return TRM_OK;
}
