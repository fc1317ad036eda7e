/* One loop: fill the window, take the next result, write it. The window is the memory bound: no
 * record is read before there is room for it. */
#include "coordinator/score.h"
#include "base/wait.h"

#include <stdio.h>

#define TICK_MS 200
#define FLUSH_MS 1000

/* Reads records until the window is full or there are none. */
static trm_status fill(const trm_score_job *job, bool *ended)
{
    while (!*ended && !trm_router_is_full(job->router)) {
        trm_wire_record record;

        TRM_CHECK(trm_source_next(job->source, &record, ended));
        if (*ended)
            trm_router_end_input(job->router);
        else
            TRM_CHECK(trm_router_submit(job->router, &record));
    }
    return TRM_OK;
}

static trm_status run(const trm_score_job *job)
{
    int64_t flush_us = (job->flush_ms > 0 ? job->flush_ms : FLUSH_MS) * 1000;
    int64_t next_flush_us = trm_now_us() + flush_us, next_tick_us = 0;
    bool ended = false;

    for (;;) {
        trm_taken taken = {0};
        trm_status st;
        int64_t now;

        TRM_CHECK(fill(job, &ended));
        if (ended && trm_router_held(job->router) == 0)
            return TRM_OK;
        now = trm_now_us();
        st = trm_router_take(job->router, now + TICK_MS * 1000, &taken);
        if (st == TRM_OK) {
            st = trm_sink_write(job->sink, &taken);
            if (st == TRM_OK && job->seen != NULL)
                job->seen(job->ctx, &taken);
            trm_taken_fini(&taken);
        } else if (st == TRM_ERR_TIMEOUT) {
            st = TRM_OK;
        }
        if (st != TRM_OK)
            return st;
        now = trm_now_us();
        if (now >= next_flush_us) {
            TRM_CHECK(trm_sink_flush(job->sink));
            next_flush_us = now + flush_us;
        }
        if (now >= next_tick_us && job->seen != NULL) {
            job->seen(job->ctx, NULL);
            next_tick_us = now + TICK_MS * 1000;
        }
    }
}

trm_status trm_score_run(const trm_score_job *job)
{
    trm_status st = run(job);
    char text[1024];

    if (st == TRM_OK)
        return trm_sink_flush(job->sink);
    snprintf(text, sizeof(text), "%s", trm_message());
    (void)!trm_sink_flush(job->sink); /* the first failure is the one to tell */
    return trm_fail(st, "%s", text);
}
