/* trireme score with a language model: what differs from tensor models in setting it up. */
#include "launch/score_job.h"

#include <string.h>
#include <strings.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL || slash[1] == '\0' ? path : slash + 1;
}

/* Every rank, together: the model over the ranks. */
trm_status trmi_score_language_model(struct trmi_score *s, trm_status st)
{
    trm_lm_options options = {0};
    trm_parallel otherwise = {0, 1, 1};

    if (s->parallel.memory > 0)
        otherwise = (trm_parallel){0, 0, 0};
    if (st == TRM_OK)
        st = trm_ranks_device(&s->ranks, &s->common, strcmp(s->bind, "share") == 0);
    if (st == TRM_OK)
        st = trm_ranks_options(&s->ranks, &s->common, &s->parallel, otherwise,
                               TRM_OBJECTIVE_THROUGHPUT, &options.layout);
    if (st == TRM_OK)
        st = trm_lm_cli_model(&s->lm, &s->common, &options);
    return trm_ranks_open_language(&s->ranks, s->model_path, st, &options);
}

/* Every rank, when the model is open. */
trm_status trmi_score_language_output(struct trmi_score *s)
{
    trm_lm_model *m = s->ranks.lm;
    bool npy = strcasecmp(trm_path_extension(s->output), "npy") == 0;

    if (npy && !m->language->encoder)
        return trm_fail(TRM_ERR_INVALID_ARG, "output '%s': answers are text: want .jsonl",
                        s->output);
    TRM_CHECK(trm_lm_cli_defaults(&s->lm, m->language, &s->lm_defaults));
    s->batch = m->limits.batch;
    if (trm_lm_model_leads(m))
        TRM_CHECK(
            trm_lm_score_create(m, base_name(s->model_path), &s->lm_defaults, npy, &s->lm_score));
    s->sink_options = (trm_sink_options){.resume = s->resume,
                                         .overwrite = s->overwrite,
                                         .requests = true,
                                         .output = npy ? "embedding" : NULL,
                                         .columns = m->language->config.hidden};
    return TRM_OK;
}
