/* Work of requests that takes longer than the server's or the hub's thread may stay away from
 * theirs: reading and writing megabytes of JSON. One thread, first come first served; how much may
 * wait is bounded by the server's connections. */
#include "coordinator/gateway/v2_impl.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

struct trmi_work {
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t more;
    trmi_work_item *first, *last; /* guarded by mu */
    bool stop;                    /* guarded by mu */
};

static void *thread_main(void *ctx)
{
    struct trmi_work *w = ctx;

    pthread_mutex_lock(&w->mu);
    for (;;) {
        trmi_work_item *item = w->first;

        if (item == NULL) {
            if (w->stop)
                break;
            pthread_cond_wait(&w->more, &w->mu); /* until there is work, or it is stopped */
            continue;
        }
        w->first = item->next;
        if (w->first == NULL)
            w->last = NULL;
        pthread_mutex_unlock(&w->mu);
        item->run(item); /* may free it */
        pthread_mutex_lock(&w->mu);
    }
    pthread_mutex_unlock(&w->mu);
    return NULL;
}

trm_status trmi_work_start(struct trmi_work **work_out)
{
    struct trmi_work *w = trm_calloc(1, sizeof(*w));
    sigset_t all, before;
    int rc;

    if (w == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "the gateway's worker");
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_init(&w->mu, NULL);
    pthread_cond_init(&w->more, NULL);
    rc = pthread_create(&w->thread, NULL, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        pthread_cond_destroy(&w->more);
        pthread_mutex_destroy(&w->mu);
        trm_free(w);
        return trm_fail(TRM_ERR_NO_MEMORY, "the gateway's worker: no thread: %s", strerror(rc));
    }
    *work_out = w;
    return TRM_OK;
}

void trmi_work_stop(struct trmi_work *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->mu);
    w->stop = true;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->mu);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->mu);
    trm_free(w);
}

void trmi_work_add(struct trmi_work *w, trmi_work_item *item)
{
    if (w == NULL) { /* a gateway without the thread */
        item->run(item);
        return;
    }
    item->next = NULL;
    pthread_mutex_lock(&w->mu);
    if (w->last == NULL)
        w->first = item;
    else
        w->last->next = item;
    w->last = item;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->mu);
}
