/* The batches' thread: takes batches in the order in which they came, up to TRMI_BATCH_RUNS_MAX at
 * once, checks their lines, and keeps options.batch_requests lines under way through the hub, a
 * line of each batch in turn. Answers come on the hub's thread and are written by this one.
 *
 * What is done is what stands in the outputs: a process that is killed and one that ends in order
 * leave the same behind, and the next one goes on from there. A request that was under way then is
 * run again; one that is written never is. So an answer that only says that this process is ending
 * (COMM while draining, CANCELLED) is not written. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_batch_impl.h"

#include "base/log.h"
#include "base/wait.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STOP_MS 60000 /* the hub answers what is cancelled at once */

/* ---- states ---- */
static void set_status(trmi_batch_run *r, trmi_batch_status status)
{
    trmi_openai_batch *b = r->batch;

    pthread_mutex_lock(&r->f->mu);
    if (b->status != status || b->at[status] == 0)
        b->at[status] = time(NULL);
    b->status = status;
    pthread_mutex_unlock(&r->f->mu);
    if (trmi_openai_save_batch(r->f, b) != TRM_OK)
        TRM_LOG(TRM_LOG_WARN, "gateway", "batch %s: %s", b->id, trm_message());
    TRM_LOG(TRM_LOG_INFO, "gateway", "batch %s is %s", b->id, trmi_batch_status_name(status));
}

/* ---- a batch ---- */
static void adopt(trmi_batches *t)
{
    struct trmi_openai_files *f = t->f;

    while (t->run_count < TRMI_BATCH_RUNS_MAX) {
        trmi_openai_batch *b = NULL;
        trmi_batch_run *r;

        pthread_mutex_lock(&f->mu);
        for (int i = 0; i < f->batch_count && b == NULL; i++)
            if (!f->batches[i]->run && !trmi_batch_final(f->batches[i]->status))
                b = f->batches[i];
        if (b != NULL)
            b->run = true;
        pthread_mutex_unlock(&f->mu);
        if (b == NULL)
            return;
        if (trmi_batch_run_open(f, b, &r) == TRM_OK) {
            t->runs[t->run_count++] = r;
            continue;
        }
        TRM_LOG(TRM_LOG_WARN, "gateway", "batch %s: %s", b->id, trm_message());
        pthread_mutex_lock(&f->mu);
        b->errors = json_pack("[{s:s,s:o,s:n,s:n}]", "code", "invalid_input_file", "message",
                              trmi_openai_string(trm_message()), "param", "line");
        b->status = TRMI_BATCH_FAILED;
        b->at[TRMI_BATCH_FAILED] = time(NULL);
        b->run = false;
        pthread_mutex_unlock(&f->mu);
        if (trmi_openai_save_batch(f, b) != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "gateway", "batch %s: %s", b->id, trm_message());
    }
}

/* All lines have been looked at: run them, or tell what is wrong. */
static void start_running(trmi_batch_run *r)
{
    int completed, failed;

    if (json_array_size(r->errors) > 0) {
        trmi_batch_end_as(r, TRMI_BATCH_FAILED);
        return;
    }
    if (trmi_batch_resume(r, &completed, &failed) != TRM_OK) {
        trmi_batch_fail_run(r, "server_error");
        return;
    }
    pthread_mutex_lock(&r->f->mu);
    r->batch->total = r->count;
    r->batch->completed = completed;
    r->batch->failed = failed;
    pthread_mutex_unlock(&r->f->mu);
    r->phase = TRMI_BATCH_RUNNING;
    set_status(r, TRMI_BATCH_IN_PROGRESS);
}

static void cancel_under_way(trmi_batches *t, trmi_batch_run *r)
{
    if (r->cancelled)
        return;
    r->cancelled = true;
    for (int i = 0; i < t->item_count; i++)
        if (t->items[i]->run == r)
            trm_hub_cancel(t->f->g->hub, t->items[i]->id);
}

static void write_expired(trmi_batch_run *r)
{
    for (int i = 0; i < r->count && r->end == TRMI_BATCH_EXPIRED; i++)
        if (r->lines[i].state != TRMI_LINE_DONE)
            trmi_batch_line_done(r, i, 0, "", NULL, 0, "batch_expired",
                                 "the batch's completion window has ended");
}

/* Nothing is under way any more: outputs become files, and the batch final. */
static void finish(trmi_batch_run *r)
{
    bool output = false, error = false;

    if (r->end == TRMI_BATCH_COMPLETED || r->end == TRMI_BATCH_EXPIRED)
        set_status(r, TRMI_BATCH_FINALIZING);
    if (r->end == TRMI_BATCH_EXPIRED)
        write_expired(r);
    if (trmi_batch_publish(r, &output, &error) != TRM_OK) {
        trmi_batch_add_error(r, "server_error", NULL, 0, trm_message());
        r->end = TRMI_BATCH_FAILED;
    }
    pthread_mutex_lock(&r->f->mu);
    r->batch->has_output = output;
    r->batch->has_error = error;
    if (json_array_size(r->errors) > 0 && r->batch->errors == NULL)
        r->batch->errors = json_incref(r->errors);
    pthread_mutex_unlock(&r->f->mu);
    set_status(r, r->end);
}

/* True: it is over. */
static bool step(trmi_batches *t, trmi_batch_run *r)
{
    bool cancel, done = false;

    pthread_mutex_lock(&t->f->mu);
    cancel = r->batch->cancel;
    pthread_mutex_unlock(&t->f->mu);
    if (r->phase != TRMI_BATCH_ENDING && cancel) {
        set_status(r, TRMI_BATCH_CANCELLING);
        trmi_batch_end_as(r, TRMI_BATCH_CANCELLED);
    } else if (r->phase != TRMI_BATCH_ENDING && time(NULL) >= r->batch->expires) {
        trmi_batch_end_as(r, TRMI_BATCH_EXPIRED);
    }
    if (r->phase == TRMI_BATCH_CHECKING) {
        if (trmi_batch_check_some(r, &done) != TRM_OK)
            trmi_batch_fail_run(r, "server_error");
        else if (done)
            start_running(r);
    }
    if (r->phase == TRMI_BATCH_RUNNING && r->under_way == 0) {
        while (r->next < r->count && r->lines[r->next].state == TRMI_LINE_DONE)
            r->next++;
        if (r->next == r->count)
            trmi_batch_end_as(r, TRMI_BATCH_COMPLETED);
    }
    if (r->phase != TRMI_BATCH_ENDING)
        return false;
    cancel_under_way(t, r);
    if (r->under_way > 0)
        return false;
    finish(r);
    return true;
}

static void step_all(trmi_batches *t)
{
    for (int i = 0; i < t->run_count; i++) {
        trmi_batch_run *r = t->runs[i];

        if (!step(t, r))
            continue;
        t->runs[i--] = t->runs[--t->run_count];
        pthread_mutex_lock(&t->f->mu);
        r->batch->run = false;
        pthread_mutex_unlock(&t->f->mu);
        trmi_batch_run_close(r);
    }
}

/* A line of each batch in turn, until enough are under way. */
static void submit_all(trmi_batches *t)
{
    int64_t now = trm_now_us();
    int idle = 0;

    while (t->run_count > 0 && idle < t->run_count && t->item_count < t->item_max) {
        t->turn = (t->turn + 1) % t->run_count;
        idle = trmi_batch_submit_next(t, t->runs[t->turn], now) ? 0 : idle + 1;
    }
}

/* How long nothing can be done unless somebody says something, ms. */
static int64_t patience(const trmi_batches *t)
{
    int64_t ms = t->run_count > 0 ? 1000 : 60000; /* expiry is looked for each second */

    for (int i = 0; i < t->run_count; i++) {
        const trmi_batch_run *r = t->runs[i];

        if (r->phase == TRMI_BATCH_CHECKING || (r->phase == TRMI_BATCH_ENDING && r->under_way == 0))
            return 0;
        if (r->phase != TRMI_BATCH_RUNNING || r->next >= r->count)
            continue;
        if (ms > TRMI_BATCH_RETRY_US / 1000 && t->item_count < t->item_max)
            ms = TRMI_BATCH_RETRY_US / 1000;
    }
    return ms;
}

/* Sleeps until there is something to do; gives what was answered. Under mu. */
static trmi_batch_item *sleep_and_take(trmi_batches *t, int64_t ms)
{
    struct trmi_openai_files *f = t->f;
    trmi_batch_item *done;
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (ms > 0 && f->done == NULL && !f->batch_stop && !f->batch_look)
        if (pthread_cond_timedwait(&f->batch_more, &f->mu, &until) != 0)
            break;
    f->batch_look = false;
    done = f->done;
    f->done = NULL;
    return done;
}

static void take_all(trmi_batches *t, trmi_batch_item *done, bool stopping)
{
    while (done != NULL) {
        trmi_batch_item *next = done->next;

        trmi_batch_take_answer(t, done, stopping);
        done = next;
    }
}

/* Cancels what is under way and takes what is answered all the same. */
static void wind_up(trmi_batches *t)
{
    int64_t deadline = trm_deadline_us(STOP_MS);

    for (int i = 0; i < t->run_count; i++)
        cancel_under_way(t, t->runs[i]);
    while (t->item_count > 0 && trm_now_us() < deadline) {
        trmi_batch_item *done = NULL;

        pthread_mutex_lock(&t->f->mu);
        while (t->f->done == NULL && trm_now_us() < deadline) {
            struct timespec until;

            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec++;
            (void)pthread_cond_timedwait(&t->f->batch_more, &t->f->mu, &until);
        }
        done = t->f->done;
        t->f->done = NULL;
        pthread_mutex_unlock(&t->f->mu);
        take_all(t, done, true);
    }
}

static void *batches_main(void *ctx)
{
    trmi_batches *t = ctx;
    struct trmi_openai_files *f = t->f;
    int64_t ms = 0;
    bool stop = false;

    while (!stop) {
        trmi_batch_item *done;

        pthread_mutex_lock(&f->mu);
        done = sleep_and_take(t, ms);
        stop = f->batch_stop;
        pthread_mutex_unlock(&f->mu);
        take_all(t, done, stop);
        if (stop)
            break;
        adopt(t);
        step_all(t);
        submit_all(t);
        ms = patience(t);
    }
    wind_up(t);
    if (t->item_count > 0) /* the hub has broken its promise; what its callbacks need must stay */
        TRM_LOG(TRM_LOG_ERROR, "gateway", "%d requests of batches were not answered",
                t->item_count);
    for (int i = 0; i < t->run_count && t->item_count == 0; i++)
        trmi_batch_run_close(t->runs[i]);
    trm_free(t->items);
    trm_free(t);
    return NULL;
}

trm_status trmi_openai_batches_start(struct trmi_openai_files *f)
{
    trmi_batches *t = trm_calloc(1, sizeof(*t));
    int rc = ENOMEM;

    if (t != NULL) {
        t->f = f;
        t->item_max = f->g->options.batch_requests > 0 ? f->g->options.batch_requests : 64;
        t->items = trm_calloc((size_t)t->item_max, sizeof(t->items[0]));
        if (t->items != NULL)
            rc = pthread_create(&f->batch_thread, NULL, batches_main, t);
    }
    if (rc != 0) {
        if (t != NULL)
            trm_free(t->items);
        trm_free(t);
        return trm_fail(TRM_ERR_NO_MEMORY, "the thread of batches: %s", strerror(rc));
    }
    f->batch_started = true;
    return TRM_OK;
}

void trmi_openai_batches_stop(struct trmi_openai_files *f)
{
    if (!f->batch_started)
        return;
    pthread_mutex_lock(&f->mu);
    f->batch_stop = true;
    pthread_cond_signal(&f->batch_more);
    pthread_mutex_unlock(&f->mu);
    (void)pthread_join(f->batch_thread, NULL);
    f->batch_started = false;
}

void trmi_openai_batches_wake(struct trmi_openai_files *f)
{
    pthread_mutex_lock(&f->mu);
    f->batch_look = true;
    pthread_cond_signal(&f->batch_more);
    pthread_mutex_unlock(&f->mu);
}
