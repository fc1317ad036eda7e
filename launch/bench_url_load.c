/* Arrivals and transfers: one thread over libcurl's multi interface.
 *
 * In an open loop a request's times count from when it was due, not from when it was sent: where
 * the server, the client or the limit of connections holds requests back, that wait is part of
 * what a user would have seen. Waiting for libcurl is to the millisecond, so arrivals wake it
 * through a timerfd. */
#include "launch/bench_url_impl.h"

#include "base/wait.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define WARMUP_AT_ONCE 8
#define SECOND_US INT64_C(1000000)
#define QUIET_PERIOD_US (10 * SECOND_US) /* between lines of progress that nobody watches */

struct slot {
    struct load *load;
    CURL *easy;
    trmi_url_answer answer;
    char *owned;
    int64_t due_us, sent_us;
    int64_t at; /* in load.slots */
};

struct load {
    const trmi_url_bodies *bodies;
    const trmi_url_options *o;
    trmi_url_result *r;
    bool warmup;
    CURLM *multi;
    int timer;
    struct slot **slots; /* [count], the busy ones first */
    int64_t count, busy, at_once;
    int64_t from, wanted; /* wanted: requests; INT64_MAX: until the time is over */
    int64_t start_us, stop_us, last_us;
    int64_t due_us; /* of the next request */
    double poisson_us;
    uint64_t random;
    int64_t told_us;
    bool watched;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static void count_failure(trmi_url_result *r, const char *what, const char *message)
{
    int i = 0;

    r->failed++;
    if (r->first_failure[0] == '\0')
        snprintf(r->first_failure, sizeof(r->first_failure), "%s%s%s", what,
                 message[0] != '\0' ? ": " : "", message);
    while (i < r->failure_count && strcmp(r->failures[i].what, what) != 0)
        i++;
    if (i == TRMI_URL_FAILURES)
        i--; /* the last row takes the rest */
    if (i == r->failure_count)
        snprintf(r->failures[r->failure_count++].what, sizeof(r->failures[0].what), "%s",
                 i == TRMI_URL_FAILURES - 1 ? "other" : what);
    r->failures[i].count++;
}

/* ---- transfers ---- */
static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
    struct slot *s = ctx;
    long http = 0;

    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &http);
    trmi_url_answer_take(&s->answer, data, size * n, trm_now_us(), http);
    return size * n;
}

static trm_status new_slot(struct load *l)
{
    const trmi_url_target *t = l->bodies->target;
    struct slot **grown =
        trm_realloc(l->slots, (size_t)l->count + 1, sizeof(struct slot *)); /* rows never move */
    struct slot *s = trm_calloc(1, sizeof(*s));

    if (grown != NULL)
        l->slots = grown;
    if (s != NULL)
        s->easy = curl_easy_init();
    if (grown == NULL || s == NULL || s->easy == NULL) {
        trm_free(s);
        return trm_fail(TRM_ERR_NO_MEMORY, "a connection");
    }
    s->load = l;
    trmi_url_set_up(s->easy, l->o, t->path, t->headers);
    curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, (long)(l->o->timeout * 1000));
    curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
    s->at = l->count;
    l->slots[l->count++] = s;
    return TRM_OK;
}

static trm_status send_next(struct load *l, int64_t due_us)
{
    const void *body;
    size_t bytes;
    struct slot *s;

    if (l->busy == l->count)
        TRM_CHECK(new_slot(l));
    s = l->slots[l->busy];
    TRM_CHECK(trmi_url_body(l->bodies, l->from + l->r->sent, &body, &bytes, &s->owned));
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, body);
    trmi_url_answer_begin(&s->answer, l->bodies->target, l->warmup ? NULL : &l->r->gap);
    s->due_us = due_us;
    s->sent_us = trm_now_us();
    if (curl_multi_add_handle(l->multi, s->easy) != CURLM_OK)
        return trm_fail(TRM_ERR_NO_MEMORY, "a transfer");
    l->busy++;
    l->r->sent++;
    if (l->busy > l->r->most_at_once)
        l->r->most_at_once = l->busy;
    return TRM_OK;
}

/* Ends a transfer and puts its slot behind the busy ones. */
static void free_slot(struct load *l, struct slot *s)
{
    struct slot *last = l->slots[--l->busy];

    curl_multi_remove_handle(l->multi, s->easy);
    free(s->owned);
    s->owned = NULL;
    last->at = s->at;
    l->slots[last->at] = last;
    s->at = l->busy;
    l->slots[s->at] = s;
}

static void take_answer(struct load *l, struct slot *s, CURLcode rc)
{
    trmi_url_answer *a = &s->answer;
    trmi_url_result *r = l->r;
    const char *bad = NULL;
    char what[48];
    long http = 0;
    int64_t end_us;

    if (rc == CURLE_OK) {
        curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &http);
        bad = trmi_url_answer_end(a, http);
        snprintf(what, sizeof(what), "%s", bad != NULL ? bad : "");
        if (http != 200)
            snprintf(what, sizeof(what), "status %ld", http);
    } else {
        bad = rc == CURLE_OPERATION_TIMEDOUT ? "timeout" : curl_easy_strerror(rc);
        snprintf(what, sizeof(what), "%s", bad);
    }
    end_us = a->end_us != 0 ? a->end_us : trm_now_us();
    if (end_us > l->last_us)
        l->last_us = end_us;
    if (bad != NULL) {
        count_failure(r, what, a->message);
    } else {
        r->good++;
        r->tokens_in += a->tokens_in;
        r->tokens_out += a->tokens_out;
        trmi_url_samples_add(&r->total, (double)(end_us - s->due_us) / 1e3);
        trmi_url_samples_add(&r->lag, (double)(s->sent_us - s->due_us) / 1e3);
        if (a->first_us != 0)
            trmi_url_samples_add(&r->first, (double)(a->first_us - s->due_us) / 1e3);
    }
    free_slot(l, s);
}

/* ---- arrivals ---- */
static bool closed_loop(const struct load *l)
{
    return l->warmup || l->o->concurrency > 0;
}

/* When request number `sent` is due; closed loops: as soon as one is free. */
static void set_due(struct load *l)
{
    if (closed_loop(l)) {
        l->due_us = 0;
    } else if (l->o->burst != NULL) {
        double burst = floor((double)l->r->sent / (double)l->o->burst_size);

        l->due_us = l->start_us + (int64_t)(burst * l->o->burst_period * 1e6);
    } else {
        l->poisson_us -= log(trmi_url_uniform(&l->random)) / l->o->rate * 1e6;
        l->due_us = l->start_us + (int64_t)l->poisson_us;
    }
}

static bool more_to_send(const struct load *l)
{
    int64_t due = l->due_us != 0 ? l->due_us : trm_now_us();

    return !interrupted && l->r->sent < l->wanted && due < l->stop_us;
}

static trm_status send_due(struct load *l)
{
    while (more_to_send(l) && l->busy < l->at_once) {
        int64_t now = trm_now_us();

        if (l->due_us > now)
            break;
        TRM_CHECK(send_next(l, l->due_us != 0 ? l->due_us : now));
        set_due(l);
    }
    return TRM_OK;
}

static void set_timer(struct load *l)
{
    int64_t in_us = l->due_us - trm_now_us();
    struct itimerspec spec;

    memset(&spec, 0, sizeof(spec));
    if (l->due_us != 0 && more_to_send(l) && l->busy < l->at_once) {
        if (in_us < 1)
            in_us = 1;
        spec.it_value.tv_sec = in_us / SECOND_US;
        spec.it_value.tv_nsec = in_us % SECOND_US * 1000;
    }
    timerfd_settime(l->timer, 0, &spec, NULL);
}

static void tell(struct load *l)
{
    int64_t now = trm_now_us(), since = now - l->told_us;
    double seconds = (double)(now - l->start_us) / 1e6;

    if (since < (l->watched ? SECOND_US : QUIET_PERIOD_US))
        return;
    l->told_us = now;
    fprintf(stderr,
            "%s%s%.0f s: %" PRId64 " sent, %" PRId64 " answered, %" PRId64 " failed, "
            "%" PRId64 " under way, %.1f/s%s",
            l->watched ? "\r" : "", l->warmup ? "warm-up " : "", seconds, l->r->sent, l->r->good,
            l->r->failed, l->busy, (double)l->r->good / seconds, l->watched ? "\033[K" : "\n");
    fflush(stderr);
}

static trm_status pump(struct load *l)
{
    struct curl_waitfd timer = {.fd = l->timer, .events = CURL_WAIT_POLLIN};
    uint64_t ticks;
    CURLMsg *m;
    int running = 0, left;
    bool ended = false;

    if (curl_multi_perform(l->multi, &running) != CURLM_OK)
        return trm_fail(TRM_ERR_INTERNAL, "libcurl cannot go on");
    while ((m = curl_multi_info_read(l->multi, &left)) != NULL) {
        struct slot *s = NULL;
        CURLcode rc = m->data.result;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
        take_answer(l, s, rc); /* `m` is gone with its handle */
        ended = true;
    }
    if (!l->warmup || l->watched)
        tell(l);
    if (ended && more_to_send(l))
        return TRM_OK; /* perhaps a place is free now */
    if (l->busy == 0 && !more_to_send(l))
        return TRM_OK;
    set_timer(l);
    if (curl_multi_poll(l->multi, &timer, 1, 1000, NULL) != CURLM_OK && !interrupted)
        return trm_fail(TRM_ERR_INTERNAL, "libcurl cannot wait");
    if (timer.revents != 0 && read(l->timer, &ticks, sizeof(ticks)) < 0)
        ticks = 0; /* it did not expire after all */
    return TRM_OK;
}

/* As many descriptors as the system lets this process have: each connection takes one. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static trm_status prepare(struct load *l)
{
    const trmi_url_options *o = l->o;

    raise_descriptors();
    l->multi = curl_multi_init();
    l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->multi == NULL || l->timer < 0)
        return trm_fail(TRM_ERR_NO_MEMORY, "libcurl");
    l->at_once = o->concurrency > 0 ? o->concurrency : o->connections;
    l->wanted = o->requests > 0 ? o->requests : INT64_MAX;
    if (l->warmup) {
        l->wanted = o->warmup;
        if (o->concurrency == 0)
            l->at_once = WARMUP_AT_ONCE;
    }
    curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)l->at_once);
    l->random = (uint64_t)o->seed ^ 0x6a09e667f3bcc908u;
    l->watched = isatty(STDERR_FILENO) == 1;
    l->start_us = l->told_us = trm_now_us();
    l->stop_us = INT64_MAX;
    if (o->duration > 0 && !l->warmup)
        l->stop_us = l->start_us + (int64_t)(o->duration * 1e6);
    set_due(l);
    return TRM_OK;
}

trm_status trmi_url_load(const trmi_url_bodies *b, int64_t from, bool warmup,
                         trmi_url_result *result)
{
    struct load l = {
        .bodies = b, .o = b->options, .r = result, .warmup = warmup, .timer = -1, .from = from};
    struct sigaction act = {.sa_handler = on_signal}, old_int, old_term;
    trm_status st;

    interrupted = 0;
    sigaction(SIGINT, &act, &old_int);
    sigaction(SIGTERM, &act, &old_term);
    st = prepare(&l);
    while (st == TRM_OK && !interrupted && (l.busy > 0 || more_to_send(&l))) {
        st = send_due(&l);
        if (st == TRM_OK)
            st = pump(&l);
    }
    result->interrupted = interrupted != 0;
    result->cut = l.busy;
    if (l.last_us > l.start_us)
        result->seconds = (double)(l.last_us - l.start_us) / 1e6;
    if (l.watched && l.told_us != l.start_us)
        fprintf(stderr, "\r\033[K");
    while (l.busy > 0)
        free_slot(&l, l.slots[0]);
    for (int64_t i = 0; i < l.count; i++) {
        curl_easy_cleanup(l.slots[i]->easy);
        trmi_url_answer_fini(&l.slots[i]->answer);
        trm_free(l.slots[i]);
    }
    trm_free(l.slots);
    curl_multi_cleanup(l.multi);
    if (l.timer >= 0)
        close(l.timer);
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    if (st == TRM_OK && (result->total.no_memory || result->gap.no_memory))
        st = trm_fail(TRM_ERR_NO_MEMORY, "the times of the requests");
    return st;
}
