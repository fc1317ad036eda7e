/* Answers as they grow: see request.h. */
#include "worker/language/response_impl.h"

#include "base/memory.h"

#include <string.h>

void trm_lm_answer_fini(trm_lm_answer *a)
{
    trm_free(a->text);
    trm_free(a->message);
    trm_free(a->ids);
    trm_free(a->stopped);
    trm_free(a->row);
    json_decref(a->logprobs);
    json_decref(a->prompt_logprobs);
    memset(a, 0, sizeof(*a));
}

static void add_text(trm_lm_answer *a, const char *text, size_t bytes)
{
    if (a->bytes + bytes + 1 > a->bytes_max) {
        size_t max = 2 * (a->bytes + bytes) + 64;
        char *grown = trm_realloc(a->text, max, 1);

        if (grown == NULL) {
            a->no_memory = true;
            return;
        }
        a->text = grown;
        a->bytes_max = max;
    }
    if (bytes > 0)
        memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = '\0';
}

void trm_lm_answer_token(trm_lm_answer *a, const trm_lm_request *r, const trm_language *l,
                         const trm_generated *t)
{
    json_t **list = t->prompt ? &a->prompt_logprobs : &a->logprobs;

    if (!t->prompt && r->only_prompt)
        return;
    add_text(a, t->text, t->bytes);
    if (t->token == NULL || r->sampling.logprobs < 0)
        return;
    if (*list == NULL)
        *list = json_array();
    if (json_array_append_new(*list, trmi_lm_token_logprob(l, t->token)) != 0)
        a->no_memory = true;
}

static char *copy_text(trm_lm_answer *a, const char *text)
{
    char *copy = text == NULL ? NULL : trm_strdup(text);

    a->no_memory = a->no_memory || (text != NULL && copy == NULL);
    return copy;
}

void trm_lm_answer_end(trm_lm_answer *a, const trm_generation_end *e)
{
    size_t ids = (size_t)e->new_tokens, width = (size_t)e->width;

    a->over = true;
    a->finish = e->finish;
    a->status = e->status;
    a->message = copy_text(a, e->message);
    a->stopped = copy_text(a, e->stopped);
    a->prompt_tokens = e->prompt_tokens;
    a->new_tokens = e->new_tokens;
    a->cached_tokens = e->cached_tokens;
    a->begun_us = e->begun_us;
    if (ids > 0 && (a->ids = trm_malloc(ids, sizeof(*a->ids))) != NULL)
        memcpy(a->ids, e->ids, ids * sizeof(*a->ids));
    if (e->row != NULL && (a->row = trm_malloc(width + 1, sizeof(*a->row))) != NULL) {
        memcpy(a->row, e->row, width * sizeof(*a->row));
        a->width = e->width;
    }
    a->no_memory =
        a->no_memory || (ids > 0 && a->ids == NULL) || (e->row != NULL && a->row == NULL);
}
