/* Numbers of a load: quantiles, the table, JSON. */
#include "launch/bench_url_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT ((size_t)1 << 20)

void trmi_url_samples_add(trmi_url_samples *s, double ms)
{
    size_t at = s->count;

    s->seen++;
    s->sum += ms;
    if (ms > s->max)
        s->max = ms;
    s->sorted = false;
    if (s->count == KEPT) { /* Vitter, "Random sampling with a reservoir", 1985, algorithm R */
        at = (size_t)(trmi_url_random(&s->random) % s->seen);
        if (at < KEPT)
            s->v[at] = ms;
        return;
    }
    if (s->count == s->room) {
        size_t room = s->room == 0 ? 1024 : 2 * s->room;
        double *grown = trm_realloc(s->v, room, sizeof(double));

        if (grown == NULL) {
            s->no_memory = true;
            return;
        }
        s->v = grown;
        s->room = room;
    }
    s->v[at] = ms;
    s->count++;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

double trmi_url_quantile(trmi_url_samples *s, double q)
{
    double rank = ceil(q * (double)s->count);

    if (s->count == 0)
        return 0;
    if (!s->sorted)
        qsort(s->v, s->count, sizeof(double), ascending);
    s->sorted = true;
    return s->v[rank < 1 ? 0 : (size_t)rank - 1];
}

void trmi_url_result_fini(trmi_url_result *result)
{
    trm_free(result->first.v);
    trm_free(result->gap.v);
    trm_free(result->total.v);
    trm_free(result->lag.v);
    memset(result, 0, sizeof(*result));
}

static double mean(const trmi_url_samples *s)
{
    return s->seen == 0 ? 0 : s->sum / (double)s->seen;
}

static double a_second(int64_t count, const trmi_url_result *r)
{
    return r->seconds > 0 ? (double)count / r->seconds : 0;
}

static void print_times(const char *name, trmi_url_samples *s)
{
    if (s->seen > 0)
        printf("%-9s mean %.3f ms, p50 %.3f, p90 %.3f, p99 %.3f, p99.9 %.3f, max %.3f (%" PRIu64
               ")\n",
               name, mean(s), trmi_url_quantile(s, 0.5), trmi_url_quantile(s, 0.9),
               trmi_url_quantile(s, 0.99), trmi_url_quantile(s, 0.999), s->max, s->seen);
}

static void loop_text(const trmi_url_options *o, char *text, size_t bytes)
{
    if (o->burst != NULL)
        snprintf(text, bytes, "bursts of %" PRId64 " every %g s", o->burst_size, o->burst_period);
    else if (o->rate > 0)
        snprintf(text, bytes, "open loop, %g requests/s (Poisson)", o->rate);
    else
        snprintf(text, bytes, "closed loop, %" PRId64 " at once", o->concurrency);
}

static void print_table(const trmi_url_options *o, const trmi_url_target *t, trmi_url_result *r)
{
    char loop[80], model[200];

    loop_text(o, loop, sizeof(loop));
    trmi_url_one_line(t->model, model, sizeof(model));
    printf("server    %s (%s%s, model %s)\n", t->base, trmi_url_kind_name(t->kind),
           t->stream ? ", streamed" : "", model);
    printf("load      %s, at most %" PRId64 " under way\n", loop, r->most_at_once);
    printf("requests  %" PRId64 " answered in %.3f s, %" PRId64 " failed", r->good, r->seconds,
           r->failed);
    for (int i = 0; i < r->failure_count; i++)
        printf("%s%s: %" PRId64, i == 0 ? " (" : ", ", r->failures[i].what, r->failures[i].count);
    printf("%s\n", r->failure_count > 0 ? ")" : "");
    if (r->first_failure[0] != '\0')
        printf("failure   %s\n", r->first_failure);
    printf("rate      %.2f requests/s", a_second(r->good, r));
    if (r->tokens_out > 0)
        printf(", %.1f tokens/s", a_second(r->tokens_out, r));
    if (r->tokens_in > 0)
        printf(", %.1f prompt tokens/s", a_second(r->tokens_in, r));
    printf("\n");
    print_times("first", &r->first);
    print_times("token", &r->gap);
    print_times("total", &r->total);
    if (o->concurrency == 0)
        print_times("late", &r->lag);
}

static json_t *times_json(trmi_url_samples *s)
{
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "count", (json_int_t)s->seen, "mean_ms",
                     mean(s), "p50_ms", trmi_url_quantile(s, 0.5), "p90_ms",
                     trmi_url_quantile(s, 0.9), "p99_ms", trmi_url_quantile(s, 0.99), "p99_9_ms",
                     trmi_url_quantile(s, 0.999), "max_ms", s->max);
}

/* In ascending order. */
static json_t *every_time(trmi_url_samples *s)
{
    json_t *list = json_array();

    (void)trmi_url_quantile(s, 0);
    for (size_t i = 0; i < s->count; i++)
        json_array_append_new(list, json_real(s->v[i]));
    return list;
}

static json_t *to_json(const trmi_url_options *o, const trmi_url_target *t, trmi_url_result *r)
{
    json_t *failures = json_object();
    json_t *out;
    char loop[80];

    loop_text(o, loop, sizeof(loop));
    for (int i = 0; i < r->failure_count; i++)
        json_object_set_new(failures, r->failures[i].what, json_integer(r->failures[i].count));
    out = json_pack("{s:s,s:s,s:s,s:b,s:s,s:I,s:I,s:I,s:o,s:f,s:f,s:I,s:f,s:I,s:f,s:I}", "url",
                    t->base, "model", t->model, "endpoint", trmi_url_kind_name(t->kind), "stream",
                    t->stream, "load", loop, "sent", (json_int_t)r->sent, "answered",
                    (json_int_t)r->good, "failed", (json_int_t)r->failed, "failures", failures,
                    "seconds", r->seconds, "requests_per_s", a_second(r->good, r), "tokens",
                    (json_int_t)r->tokens_out, "tokens_per_s", a_second(r->tokens_out, r),
                    "prompt_tokens", (json_int_t)r->tokens_in, "prompt_tokens_per_s",
                    a_second(r->tokens_in, r), "most_at_once", (json_int_t)r->most_at_once);
    if (out == NULL)
        return NULL;
    json_object_set_new(out, "first", times_json(&r->first));
    json_object_set_new(out, "token", times_json(&r->gap));
    json_object_set_new(out, "total", times_json(&r->total));
    json_object_set_new(out, "late", times_json(&r->lag));
    json_object_set_new(out, "first_ms", every_time(&r->first));
    json_object_set_new(out, "total_ms", every_time(&r->total));
    return out;
}

trm_status trmi_url_report(const trmi_url_options *o, const trmi_url_target *t, trmi_url_result *r)
{
    bool to_stdout = o->json != NULL && strcmp(o->json, "-") == 0;
    json_t *out = o->json != NULL ? to_json(o, t, r) : NULL;
    const size_t flags = JSON_INDENT(1) | JSON_REAL_PRECISION(9);
    trm_status st = TRM_OK;

    if (!to_stdout)
        print_table(o, t, r);
    if (o->json != NULL && out == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "--json");
    else if (to_stdout && json_dumpf(out, stdout, flags) == 0)
        printf("\n");
    else if (o->json != NULL && (to_stdout || json_dump_file(out, o->json, flags) != 0))
        st = trm_fail(TRM_ERR_IO, "--json '%s': cannot write it", o->json);
    json_decref(out);
    fflush(stdout);
    return st;
}
