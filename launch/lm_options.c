/* See lm_options.h. */
#include "launch/lm_options.h"

#include "base/log.h"

#include <math.h>
#include <string.h>

trm_status trm_lm_cli_model(const trm_lm_cli *c, const trm_common_options *common,
                            trm_lm_options *o)
{
    o->layout.dtype =
        common->dtype == trm_dtype_unsaid ? TRM_DTYPE_NONE : trm_dtype_from_name(common->dtype);
    o->context = c->context;
    o->kv_bytes = c->kv_cache;
    o->kv_dtype = c->kv_dtype == NULL ? TRM_DTYPE_NONE : trm_dtype_from_name(c->kv_dtype);
    o->batch = (int)c->max_batch;
    o->step_tokens = (int)c->step_tokens;
    o->decode_budget_us = (double)c->decode_ms * 1e3;
    o->no_prefix = c->no_prefix_cache;
    o->chat_template = c->chat_template;
    o->tokenizer = true;
    return TRM_OK;
}

trm_status trm_lm_cli_defaults(const trm_lm_cli *c, const trm_language *l,
                               trm_lm_request_defaults *d)
{
    trm_sampling *s = &d->sampling;

    memset(d, 0, sizeof(*d));
    trm_generator_defaults(l, s);
    d->add_special = true;
    d->stops = c->stop.items;
    d->stop_count = (size_t)c->stop.count;
    for (int i = 0; i < c->stop.count; i++)
        if (c->stop.items[i][0] == '\0')
            return trm_fail(TRM_ERR_INVALID_ARG, "--stop: a text is empty");
    if (!isnan(c->temperature))
        s->temperature = (float)c->temperature;
    if (c->top_k >= 0)
        s->top_k = (int32_t)c->top_k;
    if (!isnan(c->top_p))
        s->top_p = (float)c->top_p;
    if (!isnan(c->min_p))
        s->min_p = (float)c->min_p;
    if (!isnan(c->typical_p))
        s->typical_p = (float)c->typical_p;
    if (!isnan(c->repetition_penalty))
        s->repetition_penalty = (float)c->repetition_penalty;
    if (!isnan(c->presence_penalty))
        s->presence_penalty = (float)c->presence_penalty;
    if (!isnan(c->frequency_penalty))
        s->frequency_penalty = (float)c->frequency_penalty;
    if (c->min_tokens >= 0)
        s->min_tokens = (int32_t)c->min_tokens;
    if (c->max_tokens >= 0) {
        s->max_tokens = (int32_t)c->max_tokens;
        d->max_tokens_given = true;
    }
    s->logprobs = (int32_t)c->logprobs;
    if (c->ignore_eos)
        s->end_count = 0;
    d->seed = c->seed >= 0 ? (uint64_t)c->seed : trm_random_seed();
    d->seed_given = c->seed >= 0;
    s->seed = d->seed;
    return trm_sampling_check(s, l->config.vocabulary);
}

trm_status trm_ranks_open_language(trm_ranks *r, const char *path, trm_status before,
                                   const trm_lm_options *options)
{
    TRM_CHECK(trm_job_agree(&r->job, before, TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_lm_model_open(path, r->device, options, &r->lm));
    if (r->job.rank == 0 && r->lm->layout.plan != NULL && trmi_log_enabled(TRM_LOG_INFO, "plan"))
        trm_ranks_describe(r, stderr);
    return TRM_OK;
}
