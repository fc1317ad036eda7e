/* Parameters of sampling: defaults and ranges. */
#include "worker/language/sampler.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

void trm_sampling_init(trm_sampling *s)
{
    memset(s, 0, sizeof(*s));
    s->top_p = 1;
    s->typical_p = 1;
    s->repetition_penalty = 1;
    s->logprobs = -1;
}

/* `above`: the least value itself is not allowed. */
static const struct {
    const char *name;
    size_t offset;
    float least, most;
    bool above;
} reals[] = {
    {"temperature", offsetof(trm_sampling, temperature), 0, 100, false},
    {"top_p", offsetof(trm_sampling, top_p), 0, 1, true},
    {"min_p", offsetof(trm_sampling, min_p), 0, 1, false},
    {"typical_p", offsetof(trm_sampling, typical_p), 0, 1, true},
    {"repetition_penalty", offsetof(trm_sampling, repetition_penalty), 0, 100, true},
    {"presence_penalty", offsetof(trm_sampling, presence_penalty), -2, 2, false},
    {"frequency_penalty", offsetof(trm_sampling, frequency_penalty), -2, 2, false},
};

static const struct {
    const char *name;
    size_t offset;
    int32_t least, most;
} integers[] = {
    {"top_k", offsetof(trm_sampling, top_k), 0, INT32_MAX},
    {"logprobs", offsetof(trm_sampling, logprobs), -1, TRM_SAMPLING_TOP_MAX},
    {"max_tokens", offsetof(trm_sampling, max_tokens), 0, INT32_MAX},
    {"min_tokens", offsetof(trm_sampling, min_tokens), 0, INT32_MAX},
    {"the number of end tokens", offsetof(trm_sampling, end_count), 0, TRM_SAMPLING_END_MAX},
    {"the number of logit biases", offsetof(trm_sampling, bias_count), 0, TRM_SAMPLING_BIAS_MAX},
};

static trm_status check_ids(const trm_sampling *s, int64_t vocabulary)
{
    for (int32_t i = 0; i < s->end_count; i++)
        if (s->end[i] < 0 || s->end[i] >= vocabulary)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "end token %" PRId32 " is not in the vocabulary of %" PRId64, s->end[i],
                            vocabulary);
    for (int32_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].id < 0 || s->bias[i].id >= vocabulary)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "logit_bias names token %" PRId32 ", the vocabulary has %" PRId64,
                            s->bias[i].id, vocabulary);
        if (!(s->bias[i].bias >= -100 && s->bias[i].bias <= 100))
            return trm_fail(TRM_ERR_INVALID_ARG, "logit_bias is %g, wanted -100 to 100",
                            (double)s->bias[i].bias);
    }
    return TRM_OK;
}

trm_status trm_sampling_check(const trm_sampling *s, int64_t vocabulary)
{
    if (vocabulary < 1 || vocabulary > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a vocabulary of %" PRId64 " tokens", vocabulary);
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
        float v;

        memcpy(&v, (const char *)s + reals[i].offset, sizeof(v));
        if (!(v >= reals[i].least && v <= reals[i].most) || (reals[i].above && v == reals[i].least))
            return trm_fail(TRM_ERR_INVALID_ARG, "%s is %g, wanted %s%g to %g", reals[i].name,
                            (double)v, reals[i].above ? "above " : "", (double)reals[i].least,
                            (double)reals[i].most);
    }
    for (size_t i = 0; i < sizeof(integers) / sizeof(integers[0]); i++) {
        int32_t v;

        memcpy(&v, (const char *)s + integers[i].offset, sizeof(v));
        if (v < integers[i].least || v > integers[i].most)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s is %" PRId32 ", wanted %" PRId32 " to %" PRId32, integers[i].name,
                            v, integers[i].least, integers[i].most);
    }
    if (s->max_tokens > 0 && s->min_tokens > s->max_tokens)
        return trm_fail(TRM_ERR_INVALID_ARG, "min_tokens is %" PRId32 ", max_tokens %" PRId32,
                        s->min_tokens, s->max_tokens);
    return check_ids(s, vocabulary);
}
