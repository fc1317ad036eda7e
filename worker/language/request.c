/* Reading requests: see request.h. Every field has a row in one table. */
#include "worker/language/request_impl.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const urls[TRM_LM_ENDPOINT_COUNT] = {"/v1/completions", "/v1/chat/completions",
                                                        "/v1/embeddings"};

trm_lm_endpoint trm_lm_endpoint_of(const char *url)
{
    int i = 0;

    while (i < TRM_LM_ENDPOINT_COUNT && strcmp(urls[i], url) != 0)
        i++;
    return (trm_lm_endpoint)i;
}

/* ---- fields ---- */

typedef trm_status (*field_fn)(struct trmi_lm_reading *g, const char *name, const json_t *v);

const char *trmi_lm_model_name(const struct trmi_lm_reading *g)
{
    return g->defaults->name != NULL ? g->defaults->name : g->l->path;
}

trm_status trmi_lm_wrong(const char *name, const char *want)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "'%s': want %s", name, want);
}

static trm_status get_float(const char *name, const json_t *v, float *out)
{
    if (!json_is_number(v))
        return trmi_lm_wrong(name, "a number");
    *out = (float)json_number_value(v);
    return TRM_OK;
}

trm_status trmi_lm_get_int(const char *name, const json_t *v, int64_t lo, int64_t hi, int64_t *out)
{
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < lo || n > hi)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': want an integer from %" PRId64 " to %" PRId64,
                        name, lo, hi);
    *out = n;
    return TRM_OK;
}

static trm_status get_bool(const char *name, const json_t *v, bool *out)
{
    if (!json_is_boolean(v))
        return trmi_lm_wrong(name, "true or false");
    *out = json_is_true(v);
    return TRM_OK;
}

#define FLOAT_FIELD(field)                                                                         \
    static trm_status read_##field(struct trmi_lm_reading *g, const char *name, const json_t *v)   \
    {                                                                                              \
        return get_float(name, v, &g->r->sampling.field);                                          \
    }
FLOAT_FIELD(temperature)
FLOAT_FIELD(top_p)
FLOAT_FIELD(min_p)
FLOAT_FIELD(typical_p)
FLOAT_FIELD(repetition_penalty)
FLOAT_FIELD(presence_penalty)
FLOAT_FIELD(frequency_penalty)

#define BOOL_FIELD(field)                                                                          \
    static trm_status read_##field(struct trmi_lm_reading *g, const char *name, const json_t *v)   \
    {                                                                                              \
        return get_bool(name, v, &g->r->field);                                                    \
    }
BOOL_FIELD(echo)
BOOL_FIELD(include_stop)
BOOL_FIELD(stream)

static trm_status read_token_ids(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    return get_bool(name, v, &g->r->token_ids);
}

static trm_status read_skip_special(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    bool skip = true;

    TRM_CHECK(get_bool(name, v, &skip));
    g->r->keep_special = !skip;
    return TRM_OK;
}

static trm_status read_top_k(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, -1, INT32_MAX, &n));
    g->r->sampling.top_k = n < 0 ? 0 : (int32_t)n;
    return TRM_OK;
}

static trm_status read_seed(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    if (!json_is_integer(v))
        return trmi_lm_wrong(name, "an integer");
    g->r->sampling.seed = (uint64_t)json_integer_value(v);
    return TRM_OK;
}

static trm_status read_max_tokens(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(
        trmi_lm_get_int(name, v, g->r->endpoint == TRM_LM_COMPLETIONS ? 0 : 1, INT32_MAX, &n));
    g->r->sampling.max_tokens = (int32_t)n;
    g->max_tokens = true;
    return TRM_OK;
}

static trm_status read_min_tokens(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 0, INT32_MAX, &n));
    g->r->sampling.min_tokens = (int32_t)n;
    return TRM_OK;
}

static trm_status read_n(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 1, 128, &n));
    g->r->choices = (int)n;
    return TRM_OK;
}

static trm_status read_best_of(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 1, 128, &n));
    if (n != json_integer_value(json_object_get(g->body, "n")) && n != 1)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'best_of' other than 'n' is not done");
    return TRM_OK;
}

/* completions: a number of alternatives; chat: whether. */
static trm_status read_logprobs(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;
    bool wanted = false;

    if (g->r->endpoint == TRM_LM_CHAT) {
        TRM_CHECK(get_bool(name, v, &wanted));
        g->chat_logprobs = wanted;
        if (wanted && g->r->sampling.logprobs < 0)
            g->r->sampling.logprobs = 0;
        return TRM_OK;
    }
    TRM_CHECK(trmi_lm_get_int(name, v, 0, TRM_SAMPLING_TOP_MAX, &n));
    g->r->sampling.logprobs = (int32_t)n;
    return TRM_OK;
}

static trm_status read_top_logprobs(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 0, TRM_SAMPLING_TOP_MAX, &n));
    if (!json_is_true(json_object_get(g->body, "logprobs")))
        return trm_fail(TRM_ERR_INVALID_ARG, "'top_logprobs' wants 'logprobs': true");
    g->r->sampling.logprobs = (int32_t)n;
    return TRM_OK;
}

static trm_status read_prompt_logprobs(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 0, TRM_SAMPLING_TOP_MAX, &n));
    g->r->prompt_logprobs = true;
    if (g->r->sampling.logprobs < n)
        g->r->sampling.logprobs = (int32_t)n;
    return TRM_OK;
}

static trm_status default_stops(const trm_lm_request_defaults *d, trm_lm_request *r)
{
    r->stops = trm_calloc(d->stop_count + 1, sizeof(*r->stops));
    for (size_t i = 0; r->stops != NULL && i < d->stop_count; i++) {
        r->stops[i] = trm_strdup(d->stops[i]);
        if (r->stops[i] == NULL)
            break;
        r->stop_count = i + 1;
    }
    return r->stops != NULL && r->stop_count == d->stop_count
               ? TRM_OK
               : trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
}

static trm_status read_stop(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    trm_lm_request *r = g->r;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;

    if (n > 64)
        return trmi_lm_wrong(name, "at most 64 strings");
    r->stops = trm_calloc(n + 1, sizeof(*r->stops));
    if (r->stops == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;

        if (!json_is_string(s) || json_string_length(s) == 0)
            return trmi_lm_wrong(name, "a string that is not empty, or a list of them");
        r->stops[i] = trm_strdup(json_string_value(s));
        if (r->stops[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "stop strings");
        r->stop_count = i + 1;
    }
    return TRM_OK;
}

static trm_status read_stop_ids(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    trm_sampling *s = &g->r->sampling;

    if (!json_is_array(v))
        return trmi_lm_wrong(name, "a list of token ids");
    for (size_t i = 0; i < json_array_size(v); i++) {
        int64_t id = 0;

        TRM_CHECK(trmi_lm_get_int(name, json_array_get(v, i), 0, g->l->config.vocabulary - 1, &id));
        if (s->end_count == TRM_SAMPLING_END_MAX)
            return trmi_lm_wrong(name, "fewer ids");
        s->end[s->end_count++] = (int32_t)id;
    }
    return TRM_OK;
}

static trm_status read_ignore_eos(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    bool ignore = false;

    TRM_CHECK(get_bool(name, v, &ignore));
    g->r->sampling.ignore_end = ignore;
    return TRM_OK;
}

static trm_status read_bias(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    trm_sampling *s = &g->r->sampling;
    const char *key;
    json_t *bias;

    if (!json_is_object(v))
        return trmi_lm_wrong(name, "an object of token ids and numbers");
    json_object_foreach((json_t *)(uintptr_t)v, key, bias)
    {
        char *end = NULL;
        long long id = strtoll(key, &end, 10);

        if (*key == '\0' || *end != '\0' || id < 0 || id >= g->l->config.vocabulary ||
            !json_is_number(bias))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "'logit_bias': '%s': want token ids below %" PRId64 " and numbers", key,
                            g->l->config.vocabulary);
        if (s->bias_count == TRM_SAMPLING_BIAS_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "'logit_bias': want at most %d ids",
                            TRM_SAMPLING_BIAS_MAX);
        s->bias[s->bias_count++] =
            (trm_logit_bias){.id = (int32_t)id, .bias = (float)json_number_value(bias)};
    }
    return TRM_OK;
}

static trm_status read_encoding(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    const char *s = json_string_value(v);

    if (s == NULL || (strcmp(s, "float") != 0 && strcmp(s, "base64") != 0))
        return trmi_lm_wrong(name, "\"float\" or \"base64\"");
    g->r->base64 = strcmp(s, "base64") == 0;
    return TRM_OK;
}

static trm_status read_dimensions(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    int64_t n = 0;

    TRM_CHECK(trmi_lm_get_int(name, v, 1, INT32_MAX, &n));
    if (n != g->l->config.hidden)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'dimensions': this model gives %" PRId64,
                        g->l->config.hidden);
    return TRM_OK;
}

static trm_status read_model(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    if (!json_is_string(v))
        return trmi_lm_wrong(name, "a string");
    g->r->model = trm_strdup(json_string_value(v));
    return g->r->model == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "a request") : TRM_OK;
}

static trm_status read_stream_options(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    if (!json_is_object(v))
        return trmi_lm_wrong(name, "an object");
    g->r->stream_usage = json_is_true(json_object_get(v, "include_usage"));
    return TRM_OK;
}

static trm_status pass_over(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    (void)g;
    (void)name;
    (void)v;
    return TRM_OK;
}

/* Not done: refused unless it says nothing. */
static trm_status refuse(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    (void)g;
    if ((json_is_string(v) && json_string_length(v) == 0) || json_is_false(v) ||
        (json_is_array(v) && json_array_size(v) == 0))
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED, "'%s' is not done", name);
}

enum { C = 1, H = 2, E = 4 }; /* completions, chat, embeddings */
static const struct {
    const char *name;
    int endpoints;
    field_fn read;
} fields[] = {
    {"model", C | H | E, read_model},
    {"prompt", C, pass_over}, /* read at the end */
    {"messages", H, pass_over},
    {"tools", H, pass_over},
    {"tool_choice", H, pass_over},
    {"chat_template_kwargs", H, pass_over},
    {"add_generation_prompt", H, pass_over},
    {"continue_final_message", H, refuse},
    {"documents", H, pass_over},
    {"input", E, pass_over},
    {"temperature", C | H, read_temperature},
    {"top_p", C | H, read_top_p},
    {"top_k", C | H, read_top_k},
    {"min_p", C | H, read_min_p},
    {"typical_p", C | H, read_typical_p},
    {"repetition_penalty", C | H, read_repetition_penalty},
    {"presence_penalty", C | H, read_presence_penalty},
    {"frequency_penalty", C | H, read_frequency_penalty},
    {"seed", C | H, read_seed},
    {"max_tokens", C | H, read_max_tokens},
    {"max_completion_tokens", H, read_max_tokens},
    {"min_tokens", C | H, read_min_tokens},
    {"n", C | H, read_n},
    {"best_of", C, read_best_of},
    {"logprobs", C | H, read_logprobs},
    {"top_logprobs", H, read_top_logprobs},
    {"prompt_logprobs", C | H, read_prompt_logprobs},
    {"stop", C | H, read_stop},
    {"stop_token_ids", C | H, read_stop_ids},
    {"ignore_eos", C | H, read_ignore_eos},
    {"include_stop_str_in_output", C | H, read_include_stop},
    {"skip_special_tokens", C | H, read_skip_special},
    {"logit_bias", C | H, read_bias},
    {"echo", C, read_echo},
    {"suffix", C, refuse},
    {"return_token_ids", C | H, read_token_ids},
    {"response_format", C | H, trmi_lm_read_format},
    {"structured_outputs", C | H, trmi_lm_read_guided},
    {"guided_json", C | H, trmi_lm_read_guided},
    {"guided_choice", C | H, trmi_lm_read_guided},
    {"guided_regex", C | H, trmi_lm_read_guided},
    {"guided_grammar", C | H, refuse},
    {"guided_whitespace_pattern", C | H, refuse},
    {"guided_decoding_backend", C | H, pass_over},
    {"stream", C | H, read_stream},
    {"stream_options", C | H, read_stream_options},
    {"encoding_format", E, read_encoding},
    {"dimensions", E, read_dimensions},
    {"user", C | H | E, pass_over},
    {"metadata", C | H | E, pass_over},
    {"store", C | H, pass_over},
    {"service_tier", C | H, pass_over},
    {"priority", C | H | E, pass_over}, /* the coordinator has seen to it */
    {"parallel_tool_calls", H, pass_over},
    {"functions", H, refuse},
    {"function_call", H, refuse},
    {"modalities", H, pass_over},
    {"reasoning_effort", H, pass_over},
    {"use_beam_search", C | H, refuse},
};

static trm_status read_fields(struct trmi_lm_reading *g)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)g->body, key, v)
    {
        size_t i = 0, n = sizeof(fields) / sizeof(fields[0]);

        while (i < n && (strcmp(fields[i].name, key) != 0 ||
                         (fields[i].endpoints & 1 << g->r->endpoint) == 0))
            i++;
        if (i == n)
            return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is no field of %s", key,
                            urls[g->r->endpoint]);
        if (!json_is_null(v))
            TRM_CHECK(fields[i].read(g, key, v));
    }
    return TRM_OK;
}

/* ---- all of it ---- */

static void settle(struct trmi_lm_reading *g)
{
    trm_lm_request *r = g->r;

    if (!g->max_tokens && !g->defaults->max_tokens_given)
        r->sampling.max_tokens = r->endpoint == TRM_LM_COMPLETIONS ? 16 : 0;
    if (r->endpoint == TRM_LM_COMPLETIONS && r->sampling.max_tokens == 0) {
        r->only_prompt = true;
        r->sampling.max_tokens = 1;
    }
    if (r->echo && r->sampling.logprobs >= 0)
        r->prompt_logprobs = true;
}

/* A text that must have a form ends where it is whole, ignore_eos or not. */
static void settle_ends(struct trmi_lm_reading *g)
{
    trm_lm_request *r = g->r;

    if (r->sampling.ignore_end &&
        r->constraint == NULL) { /* the model's end tokens are the first in the list */
        int given = r->sampling.end_count - g->defaults->sampling.end_count;

        memmove(r->sampling.end, r->sampling.end + g->defaults->sampling.end_count,
                (size_t)given * sizeof(*r->sampling.end));
        r->sampling.end_count = given;
    }
}

trm_status trm_lm_request_read(const trm_language *l, trm_lm_endpoint endpoint, const json_t *body,
                               const trm_lm_request_defaults *defaults,
                               trm_lm_request **request_out)
{
    trm_lm_request *r;
    struct trmi_lm_reading g = {.l = l, .defaults = defaults, .body = body};
    trm_status st;

    if (!json_is_object(body))
        return trm_fail(TRM_ERR_INVALID_ARG, "the request is no JSON object");
    if (l->encoder != (endpoint == TRM_LM_EMBEDDINGS))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s %s: %s is for %s", trmi_lm_model_name(&g),
                        l->encoder ? "is an encoder" : "generates text", urls[endpoint],
                        l->encoder ? "models that generate" : "encoders");
    r = trm_calloc(1, sizeof(*r));
    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    g.r = r;
    r->endpoint = endpoint;
    r->choices = 1;
    r->sampling = defaults->sampling;
    r->sampling.seed = defaults->seed;
    TRM_TRY(st, read_fields(&g), fail);
    settle(&g);
    if (r->stops == NULL && endpoint != TRM_LM_EMBEDDINGS)
        TRM_TRY(st, default_stops(defaults, r), fail);
    if (endpoint == TRM_LM_CHAT && defaults->tool_format != NULL)
        TRM_TRY(st, trmi_lm_read_tools(&g), fail);
    if (endpoint == TRM_LM_CHAT)
        TRM_TRY(st, trmi_lm_read_chat(&g), fail);
    else
        TRM_TRY(st, trmi_lm_read_prompts(&g, endpoint == TRM_LM_EMBEDDINGS ? "input" : "prompt"),
                fail);
    settle_ends(&g);
    TRM_TRY(st, trm_sampling_check(&r->sampling, l->config.vocabulary), fail);
    *request_out = r;
    return TRM_OK;
fail:
    trm_lm_request_destroy(r);
    return st;
}

void trm_lm_request_destroy(trm_lm_request *r)
{
    if (r == NULL)
        return;
    for (int i = 0; i < r->prompt_count; i++) {
        trm_free(r->prompts[i].ids);
        trm_free(r->prompts[i].types);
        trm_free(r->prompts[i].text);
    }
    for (size_t i = 0; i < r->stop_count; i++)
        trm_free(r->stops[i]);
    trm_tools_destroy(r->tools);
    trm_free(r->prompts);
    trm_free(r->stops);
    trm_free(r->model);
    trm_free(r->constraint);
    trm_free(r);
}

trm_status trm_lm_request_start(const trm_lm_request *r, int i, trm_generator *g, void *ctx,
                                void (*token)(void *ctx, const trm_generated *t),
                                void (*end)(void *ctx, const trm_generation_end *e),
                                trm_generation **generation_out)
{
    const trm_lm_prompt *p = &r->prompts[i];
    trm_generation_options o = {.prompt = p->ids,
                                .prompt_count = p->count,
                                .types = p->types,
                                .sampling = &r->sampling,
                                .constraint = r->constraint,
                                .choices = r->choices,
                                .priority = r->priority,
                                .prompt_logprobs = r->prompt_logprobs,
                                .keep_special = r->keep_special,
                                .include_stop = r->include_stop,
                                .stops = (const char *const *)r->stops,
                                .stop_count = r->stop_count,
                                .ctx = ctx,
                                .token = token,
                                .end = end};

    return trm_generator_add(g, &o, generation_out);
}
