/* What constraints cost: bench_lm_constraint MODEL (a folder or a .gguf file with its tokenizer).
 * Texts of schemas are taken token by token; a mask is made before each, the first time and again.
 */
#include "base/memory.h"
#include "model/language/language.h"
#include "worker/language/grammar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name, *what, *text;
} cases[] = {
    {"object", "{\"type\": \"json_object\"}",
     "{\"name\": \"Ada Lovelace\", \"age\": 36, \"tags\": [\"mathematics\", \"computing\"], "
     "\"address\": {\"city\": "
     "\"London\", \"zip\": null}}"},
    {"person",
     "{\"type\": \"json_schema\", \"schema\": {\"type\": \"object\", \"properties\": {\"name\": "
     "{\"type\": \"string\"}, "
     "\"age\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 150}, \"email\": {\"type\": "
     "\"string\"}, \"tags\": "
     "{\"type\": \"array\", \"items\": {\"type\": \"string\"}}}, \"required\": [\"name\", \"age\", "
     "\"email\", \"tags\"], "
     "\"additionalProperties\": false}}",
     "{\n  \"name\": \"Ada Lovelace\",\n  \"age\": 36,\n  \"email\": \"ada@example.org\",\n  "
     "\"tags\": [\"mathematics\", "
     "\"the analytical engine\"]\n}"},
    {"lengths",
     "{\"type\": \"json_schema\", \"schema\": {\"type\": \"object\", \"properties\": {\"title\": "
     "{\"type\": \"string\", "
     "\"maxLength\": 80}}, \"required\": [\"title\"]}}",
     "{\"title\": \"Notes on the analytical engine invented by Charles Babbage\"}"},
    {"pattern",
     "{\"type\": \"json_schema\", \"schema\": {\"type\": \"object\", \"properties\": {\"id\": "
     "{\"type\": \"string\", "
     "\"pattern\": \"^[A-Z]{2,4}-[0-9]{4,8}$\"}, \"when\": {\"type\": \"string\", \"format\": "
     "\"date-time\"}}, "
     "\"required\": [\"id\", \"when\"]}}",
     "{\"id\": \"ABC-123456\", \"when\": \"2024-02-29T12:30:00Z\"}"},
};

/* Of this thread: the machine may be busy with others. */
static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double ms(int64_t since)
{
    return (double)(now_ns() - since) / 1e6;
}

static int run(const trm_language *l, const trm_token_trie *t, size_t k)
{
    int64_t vocabulary = t->vocabulary, since = now_ns();
    float *logits = trm_calloc((size_t)vocabulary, sizeof(*logits));
    json_t *what = json_loads(cases[k].what, 0, NULL);
    trm_grammar *g = NULL;
    int32_t *ids = NULL, end = 1;
    size_t count = 0;

    if (logits == NULL || trm_grammar_compile(what, &g) != TRM_OK ||
        trm_tokenizer_encode(l->tokenizer, cases[k].text, strlen(cases[k].text), TRM_ENCODE_PLAIN,
                             &ids, &count) != TRM_OK) {
        fprintf(stderr, "%s\n", trm_message());
        return 1;
    }
    printf("%-8s compiled in %.2f ms, %u states\n", cases[k].name, ms(since), g->state_count);
    for (int round = 0; round < 3; round++) {
        trm_constraint *c;
        double sum = 0, most = 0, accept = 0;

        if (trm_constraint_create(g, t, &end, 1, &c) != TRM_OK)
            return 1;
        for (size_t i = 0; i < count; i++) {
            double took;

            since = now_ns();
            if (trm_constraint_mask(c, logits, vocabulary) != TRM_OK)
                return 1;
            took = ms(since);
            sum += took;
            most = took > most ? took : most;
            since = now_ns();
            if (trm_constraint_accept(c, ids[i]) != TRM_OK) {
                fprintf(stderr, "token %zu: %s\n", i, trm_message());
                return 1;
            }
            accept += ms(since);
            memset(logits, 0, (size_t)vocabulary * sizeof(*logits));
        }
        printf("  round %d: %zu tokens, a mask %.3f ms, at most %.3f; accept %.4f ms; %zu states, "
               "%.1f MB\n",
               round, count, sum / (double)count, most, accept / (double)count,
               g->automaton->state_count, (double)g->automaton->bytes / 1e6);
        trm_constraint_destroy(c);
    }
    trm_grammar_destroy(g);
    json_decref(what);
    trm_free(ids);
    trm_free(logits);
    return 0;
}

int main(int argc, char **argv)
{
    const trm_language_options options = {.context = 0};
    trm_token_trie *t = NULL;
    trm_language *l = NULL;
    int64_t since;

    if (argc != 2 || trm_language_open(argv[1], &options, &l) != TRM_OK) {
        fprintf(stderr, "usage: bench_lm_constraint MODEL: %s\n", argc == 2 ? trm_message() : "");
        return 2;
    }
    since = now_ns();
    if (trm_token_trie_create(l->tokenizer, l->config.vocabulary, &t) != TRM_OK) {
        fprintf(stderr, "%s\n", trm_message());
        return 1;
    }
    printf("trie: %u nodes, %u tokens of %lld in %.1f ms\n", t->count, t->id_count,
           (long long)t->vocabulary, ms(since));
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++)
        if (run(l, t, k) != 0)
            return 1;
    trm_token_trie_destroy(t);
    trm_language_close(l);
    return 0;
}
