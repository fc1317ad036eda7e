/* Masks: exactly the tokens whose bytes may follow, at every place of random texts; texts that are
 * drawn so always come to an end and are JSON; memory that is given back changes nothing. */
#include "tests/worker/grammar_kit.h"
#include "tests/worker/vocabulary_kit.h"

#include "worker/language/sampler.h"

#include <math.h>

#define S(schema) "{\"type\": \"json_schema\", \"schema\": " schema "}"

static const struct {
    const char *name, *what;
    bool json;
} cases[] = {
    {"object", "{\"type\": \"json_object\"}", true},
    {"any", S("{}"), true},
    {"person",
     S("{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"age\": "
       "{\"type\": \"integer\", "
       "\"minimum\": 0, \"maximum\": 120}, \"tags\": {\"type\": \"array\", \"items\": {\"enum\": "
       "[\"red\", \"green\"]}}}, "
       "\"required\": [\"name\", \"age\"], \"additionalProperties\": false}"),
     true},
    {"list",
     S("{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"type\": \"object\", \"properties\": "
       "{\"value\": {\"type\": "
       "\"number\"}, \"next\": {\"anyOf\": [{\"$ref\": \"#/$defs/n\"}, {\"type\": \"null\"}]}}, "
       "\"required\": "
       "[\"value\", \"next\"]}}}"),
     true},
    {"lengths",
     S("{\"type\": \"array\", \"items\": {\"type\": \"string\", \"minLength\": 2, \"maxLength\": "
       "9}, \"maxItems\": 4}"),
     true},
    {"patterns",
     S("{\"type\": \"array\", \"minItems\": 2, \"maxItems\": 3, \"items\": {\"type\": \"string\", "
       "\"pattern\": "
       "\"^(the|[A-Z]{2}|\\\\d+-)+[^a]?$\", \"maxLength\": 12}}"),
     true},
    {"dates",
     S("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", \"format\": "
       "\"date-time\"}}, \"required\": [\"a\"]}"),
     true},
    {"map",
     S("{\"type\": \"object\", \"properties\": {\"age\": {\"type\": \"integer\"}, \"a\": "
       "{\"type\": \"null\"}}, \"additionalProperties\": {\"type\": \"number\", \"minimum\": -2.5, "
       "\"maximum\": 12.25}}"),
     true},
    {"kinds",
     S("{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"kind\": {\"const\": \"a\"}, "
       "\"value\": {\"type\": "
       "\"integer\"}}, \"required\": [\"kind\", \"value\"]}, {\"type\": \"object\", "
       "\"properties\": {\"kind\": {\"const\": "
       "\"ab\"}, \"value\": {\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}}, \"required\": "
       "[\"kind\", \"value\"]}]}"),
     true},
    {"nested ambiguity",
     S("{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}, \"x\": "
       "{\"type\": \"null\"}}}, "
       "{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}, \"b\": {\"type\": "
       "\"null\"}}}]}"),
     true},
    {"choice", "{\"type\": \"choice\", \"choice\": [\"the red\", \"the green\", \"red\", \"the\"]}",
     false},
    {"regex", "{\"type\": \"regex\", \"regex\": \"(ab|abc|[^a]){0,5}(foo|\\\\d{3})\"}", false},
    {"calls",
     "{\"type\": \"any_of\", \"most\": 3, \"separator\": \", \", \"any_of\": [{\"type\": "
     "\"tagged\", \"begin\": \"<foo>\", "
     "\"schema\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"integer\"}}, "
     "\"required\": [\"x\"]}, "
     "\"end\": \"</foo>\"}, {\"type\": \"tagged\", \"begin\": \"<bar>\"}]}",
     false},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

/* Whether the token's bytes may follow, one after the other. */
static bool may_follow(trm_constraint *c, const trm_token_trie *t, int32_t token)
{
    uint32_t at = c->at;

    for (uint32_t i = t->offsets[token]; i < t->offsets[token + 1]; i++)
        if (trmi_automaton_next(c->a, at, (uint8_t)t->pool[i], &at) != TRM_OK || at == TRMI_DEAD)
            return false;
    return t->offsets[token + 1] > t->offsets[token];
}

static void append(char *text, size_t *bytes, size_t room, const trm_token_trie *t, int32_t token)
{
    size_t n = t->offsets[token + 1] - t->offsets[token];

    ck_assert_uint_lt(*bytes + n, room);
    memcpy(text + *bytes, t->pool + t->offsets[token], n);
    *bytes += n;
}

/* One text; its tokens' masks are compared with what each token's bytes say. */
static size_t walk(trm_grammar *g, const trm_token_trie *t, uint64_t *seed, bool check, char *text,
                   size_t room)
{
    const int32_t end = KIT_EOS;
    trm_constraint *c;
    size_t bytes = 0;

    ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
    for (int n = 0;; n++) {
        float logits[KIT_VOCABULARY] = {0};
        int32_t token;

        ck_assert_int_lt(n, 5000);
        ck_assert_msg(trm_constraint_mask(c, logits, KIT_VOCABULARY) == TRM_OK, "%s",
                      trm_message());
        for (int32_t i = 0; check && i < KIT_VOCABULARY; i++)
            if (i != KIT_EOS)
                ck_assert_msg((logits[i] == 0) == may_follow(c, t, i), "token %d after %.*s",
                              (int)i, (int)bytes, text);
        ck_assert((logits[KIT_EOS] == 0) == trm_constraint_may_end(c));
        token = kit_draw(t, logits, seed, n > 30);
        ck_assert_int_ge(token, 0);
        ck_assert_msg(trm_constraint_accept(c, token) == TRM_OK, "%s", trm_message());
        if (token == KIT_EOS)
            break;
        append(text, &bytes, room, t, token);
    }
    ck_assert(trm_constraint_complete(c));
    trm_constraint_destroy(c);
    return bytes;
}

START_TEST(test_masks)
{
    trm_token_trie *t = kit_trie();
    uint64_t seed = 77;
    trm_grammar *g;
    char text[20000];

    if (kit_compile(cases[_i].what, &g) != TRM_OK)
        ck_abort_msg("%s: %s", cases[_i].name, trm_message());
    for (int n = 0; n < 60; n++) {
        size_t bytes = walk(g, t, &seed, n < 6, text, sizeof(text));
        json_error_t e;
        json_t *j;

        if (!cases[_i].json)
            continue;
        j = json_loadb(text, bytes, JSON_DECODE_ANY, &e);
        ck_assert_msg(j != NULL, "%s: %s: %.*s", cases[_i].name, e.text, (int)bytes, text);
        json_decref(j);
    }
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
}
END_TEST

/* Four texts at once, of a grammar whose states are dropped all the time: the same masks. */
START_TEST(test_dropping)
{
    trm_token_trie *t = kit_trie();
    const int32_t end = KIT_EOS;
    trm_grammar *g[2];
    trm_constraint *c[2][4];
    uint64_t seed = 9;

    for (int k = 0; k < 2; k++) {
        ck_assert_int_eq(kit_compile(cases[_i].what, &g[k]), TRM_OK);
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(trm_constraint_create(g[k], t, &end, 1, &c[k][i]), TRM_OK);
    }
    g[1]->automaton->states_soft = 3;
    for (int n = 0; n < 300; n++) {
        float a[KIT_VOCABULARY] = {0}, b[KIT_VOCABULARY] = {0};
        int i = n % 4;
        int32_t token;

        ck_assert_int_eq(trm_constraint_mask(c[0][i], a, KIT_VOCABULARY), TRM_OK);
        ck_assert_int_eq(trm_constraint_mask(c[1][i], b, KIT_VOCABULARY), TRM_OK);
        ck_assert_mem_eq(a, b, sizeof(a));
        token = kit_draw(t, a, &seed, n > 200);
        for (int k = 0; k < 2; k++) {
            ck_assert_int_eq(trm_constraint_accept(c[k][i], token), TRM_OK);
            if (token != KIT_EOS)
                continue;
            trm_constraint_destroy(c[k][i]);
            ck_assert_int_eq(trm_constraint_create(g[k], t, &end, 1, &c[k][i]), TRM_OK);
        }
    }
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 4; i++)
            trm_constraint_destroy(c[k][i]);
        trm_grammar_destroy(g[k]);
    }
    trm_token_trie_destroy(t);
}
END_TEST

/* Grammars made to cost much end with an error or a mask, within the budget. */
static const char *const hostile[] = {
    "{\"type\": \"regex\", \"regex\": \"[ab]*a[ab]{18}\"}",
    "{\"type\": \"regex\", \"regex\": \"(a|b|ab|ba|abc)*(a?){200}a{200}\"}",
    "{\"type\": \"regex\", \"regex\": \"(.*.*.*.*.*.*.*.*.*){20}x\"}",
    "{\"type\": \"regex\", \"regex\": \"((((((((((a*)*)*)*)*)*)*)*)*)*)*b\"}",
    S("{\"anyOf\": [{\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}, {\"type\": \"array\", "
      "\"prefixItems\": [{\"$ref\": "
      "\"#\"}, {\"$ref\": \"#\"}]}, {\"type\": \"array\", \"items\": {\"anyOf\": [{\"$ref\": "
      "\"#\"}, {\"type\": \"array\", "
      "\"items\": {\"$ref\": \"#\"}}]}}]}"),
};

START_TEST(test_hostile)
{
    trm_token_trie *t = kit_trie();
    const int32_t end = KIT_EOS;
    uint64_t seed = 3;
    trm_constraint *c;
    trm_grammar *g;
    trm_status st = TRM_OK;

    if (kit_compile(hostile[_i], &g) == TRM_OK) {
        ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
        for (int n = 0; n < 60 && st == TRM_OK; n++) {
            float logits[KIT_VOCABULARY] = {0};
            int32_t token;

            st = trm_constraint_mask(c, logits, KIT_VOCABULARY);
            if (st != TRM_OK)
                break;
            token = kit_draw(t, logits, &seed, false);
            st = trm_constraint_accept(c, token);
            if (token == KIT_EOS)
                break;
        }
        ck_assert_msg(st == TRM_OK || st == TRM_ERR_UNSUPPORTED, "%s", trm_message());
        trm_constraint_destroy(c);
        trm_grammar_destroy(g);
    }
    trm_token_trie_destroy(t);
}
END_TEST

START_TEST(test_bad_calls)
{
    trm_token_trie *t = kit_trie(), *other = kit_bytes_trie();
    const int32_t end = KIT_EOS, far = KIT_VOCABULARY;
    float logits[KIT_VOCABULARY] = {0};
    trm_constraint *c, *d;
    trm_grammar *g;

    ck_assert_int_eq(kit_compile(cases[10].what, &g), TRM_OK);
    ck_assert_int_eq(trm_constraint_create(g, t, &far, 1, &c), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
    ck_assert_int_eq(trm_constraint_create(g, other, NULL, 0, &d), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_mask(c, logits, 5), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_accept(c, -1), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_accept(c, KIT_VOCABULARY), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_accept(c, KIT_VOCABULARY - 1),
                     TRM_ERR_INVALID_ARG);                                /* no text */
    ck_assert_int_eq(trm_constraint_accept(c, end), TRM_ERR_INVALID_ARG); /* not yet */
    ck_assert_int_eq(trm_constraint_accept(c, '?'), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_constraint_accept(c, 't'), TRM_OK);
    ck_assert_int_eq(trm_constraint_accept(c, 'h'), TRM_OK);
    ck_assert(!trm_constraint_may_end(c));
    ck_assert_int_eq(trm_constraint_accept(c, 'e'), TRM_OK);
    ck_assert(trm_constraint_may_end(c) && !trm_constraint_complete(c)); /* "the" or "the red" */
    ck_assert_int_eq(trm_constraint_accept(c, end), TRM_OK);
    ck_assert(trm_constraint_complete(c));
    ck_assert_int_eq(trm_constraint_accept(c, ' '), TRM_ERR_INVALID_ARG);
    trm_constraint_destroy(c);
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
    trm_token_trie_destroy(other);
}
END_TEST

/* With a sampler: forbidden tokens are never drawn nor told of, whatever bias and penalties say; an
 * end comes where the text is complete, min_tokens or not. */
START_TEST(test_sampler)
{
    static const float temperatures[] = {0, 1, 0, 1};
    trm_token_trie *t = kit_trie();
    const int32_t end = KIT_EOS;
    trm_constraint *c;
    trm_sampling p;
    trm_sampler *s;
    trm_grammar *g;
    char text[64] = "";
    size_t bytes = 0;

    trm_sampling_init(&p);
    p.temperature = temperatures[_i];
    p.min_tokens = _i >= 2 ? 40 : 0;
    p.max_tokens = 40;
    p.logprobs = 5;
    p.presence_penalty = 1.5f;
    p.repetition_penalty = 1.3f;
    p.top_p = 0.95f;
    p.seed = 4;
    p.end[p.end_count++] = end;
    p.bias[p.bias_count++] = (trm_logit_bias){'?', 100};
    p.bias[p.bias_count++] = (trm_logit_bias){'t', -100};
    ck_assert_int_eq(kit_compile(cases[10].what, &g), TRM_OK);
    ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
    ck_assert_int_eq(trm_sampler_create(&p, KIT_VOCABULARY, NULL, 0, &s), TRM_OK);
    trm_sampler_constrain(s, c);
    for (int n = 0; n < 40; n++) {
        float logits[KIT_VOCABULARY];
        trm_sampled out;
        double sum = 0;

        for (int i = 0; i < KIT_VOCABULARY; i++)
            logits[i] = (float)((i * 37 + n * 11) % 101) / 25;
        ck_assert_msg(trm_sampler_next(s, logits, 5 + n, &out) == TRM_OK, "%s", trm_message());
        ck_assert(isfinite(out.logprob));
        ck_assert_int_ge(out.rank, 1);
        for (int i = 0; i < out.top_count; i++) {
            ck_assert(isfinite(out.top_logprobs[i]));
            sum += exp((double)out.top_logprobs[i]);
        }
        ck_assert(sum < 1.0001);
        if (out.top_count < 5) /* all that may come: they are the whole */
            ck_assert(sum > 0.9999);
        if (out.id == end)
            break;
        append(text, &bytes, sizeof(text), t, out.id);
    }
    text[bytes] = '\0';
    ck_assert_msg(strcmp(text, "the red") == 0 || strcmp(text, "the green") == 0 ||
                      strcmp(text, "red") == 0 || strcmp(text, "the") == 0,
                  "%s", text);
    trm_sampler_destroy(s);
    trm_grammar_destroy(g);
    trm_token_trie_destroy(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("constraint");
    TCase *tc = tcase_create("constraint");
    SRunner *r;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_masks, 0, (int)CASES);
    tcase_add_loop_test(tc, test_dropping, 0, (int)CASES);
    tcase_add_loop_test(tc, test_hostile, 0, (int)(sizeof(hostile) / sizeof(hostile[0])));
    tcase_add_test(tc, test_bad_calls);
    tcase_add_loop_test(tc, test_sampler, 0, 4);
    suite_add_tcase(s, tc);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
