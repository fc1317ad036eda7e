/* A request under way in a generator, with its answers as they grow: what batch scoring and serving
 * share. One owner. */
#ifndef TRM_WORKER_LANGUAGE_RUN_H
#define TRM_WORKER_LANGUAGE_RUN_H

#include "worker/language/request.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_lm_run trmi_lm_run;
struct trmi_lm_link { /* what the generator's callbacks get */
    trmi_lm_run *run;
    int prompt;
};
struct trmi_lm_run {
    trm_lm_request *request;
    const trm_language *language;
    trm_generator *generator;
    trm_lm_answer *answers; /* [prompts * choices] */
    int left;               /* answers that are not over */
    struct trmi_lm_link *links;
    trm_generation **generations; /* [prompts] NULL: over */
    /* Called from inside the generator, behind the answer's own update; answer: prompt * choices +
     * choice. `token` NULL: answers collect the text themselves; else they do not. The run must
     * not be ended inside. */
    void (*token)(trmi_lm_run *run, int answer, const trm_generated *t);
    void (*end)(trmi_lm_run *run, int answer, const trm_generation_end *e);
};

/* Starts all prompts of run->request; the other fields that callers give are `language`,
 * `generator`, `token`, `end`. After a failure trmi_lm_run_fini cleans up. */
TRM_MUST_USE trm_status trmi_lm_run_start(trmi_lm_run *run);
/* Ends what is under way: `end` is called for each. */
void trmi_lm_run_cancel(trmi_lm_run *run);
/* The first answer that failed; NULL: none has. */
const trm_lm_answer *trmi_lm_run_failure(const trmi_lm_run *run);
/* Its status, and its message as one line. */
trm_status trmi_lm_failure_text(const trm_lm_answer *failure, char *text, size_t bytes);
/* Frees all of it, the request too. Nothing may be under way. */
void trmi_lm_run_fini(trmi_lm_run *run);

#ifdef __cplusplus
}
#endif
#endif
