/* See run.h. */
#include "worker/language/run.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static int answer_count(const trmi_lm_run *run)
{
    return run->request->prompt_count * run->request->choices;
}

static void on_token(void *ctx, const trm_generated *t)
{
    const struct trmi_lm_link *link = ctx;
    trmi_lm_run *run = link->run;
    int i = link->prompt * run->request->choices + t->choice;

    if (run->token != NULL)
        run->token(run, i, t);
    else
        trm_lm_answer_token(&run->answers[i], run->request, run->language, t);
}

static void on_end(void *ctx, const trm_generation_end *e)
{
    const struct trmi_lm_link *link = ctx;
    trmi_lm_run *run = link->run;
    int first = link->prompt * run->request->choices, i = first + e->choice;
    bool all = true;

    trm_lm_answer_end(&run->answers[i], e);
    for (int k = 0; k < run->request->choices; k++)
        all = all && run->answers[first + k].over;
    if (all)
        run->generations[link->prompt] = NULL;
    run->left--;
    if (run->end != NULL)
        run->end(run, i, e);
}

trm_status trmi_lm_run_start(trmi_lm_run *run)
{
    size_t prompts = (size_t)run->request->prompt_count, answers = (size_t)answer_count(run);

    run->answers = trm_calloc(answers, sizeof(*run->answers));
    run->links = trm_calloc(prompts, sizeof(*run->links));
    run->generations = trm_calloc(prompts, sizeof(trm_generation *));
    if (run->answers == NULL || run->links == NULL || run->generations == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    run->left = (int)answers;
    for (int p = 0; p < run->request->prompt_count; p++) {
        run->links[p] = (struct trmi_lm_link){.run = run, .prompt = p};
        TRM_CHECK(trm_lm_request_start(run->request, p, run->generator, &run->links[p], on_token,
                                       on_end, &run->generations[p]));
    }
    return TRM_OK;
}

void trmi_lm_run_cancel(trmi_lm_run *run)
{
    for (int p = 0; run->generations != NULL && p < run->request->prompt_count; p++)
        if (run->generations[p] != NULL)
            trm_generator_cancel(run->generator, run->generations[p]);
}

const trm_lm_answer *trmi_lm_run_failure(const trmi_lm_run *run)
{
    for (int i = 0; i < answer_count(run); i++)
        if (run->answers[i].status != TRM_OK || run->answers[i].no_memory)
            return &run->answers[i];
    return NULL;
}

trm_status trmi_lm_failure_text(const trm_lm_answer *a, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s", a->no_memory || a->message == NULL ? "no memory" : a->message);
    return a->no_memory ? TRM_ERR_NO_MEMORY : a->status;
}

void trmi_lm_run_fini(trmi_lm_run *run)
{
    for (int i = 0; run->answers != NULL && i < answer_count(run); i++)
        trm_lm_answer_fini(&run->answers[i]);
    trm_free(run->answers);
    trm_free(run->links);
    trm_free(run->generations);
    trm_lm_request_destroy(run->request);
    memset(run, 0, sizeof(*run));
}
