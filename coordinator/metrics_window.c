/* Histograms since the start, and the window of the last 60 seconds. */
#include "coordinator/metrics_impl.h"

#include <string.h>

const trmi_bounds trmi_bounds_request = {
    .count = 21,
    .seconds = true,
    .upper = {500,     1000,     2500,     5000,     10000,    25000,     50000,
              100000,  250000,   500000,   1000000,  2000000,  3000000,   5000000,
              8000000, 10000000, 20000000, 40000000, 80000000, 300000000, 600000000}};
const trmi_bounds trmi_bounds_first = {
    .count = 22,
    .seconds = true,
    .upper = {1000,     2500,     5000,     10000,    20000,     40000,    60000,   80000,
              100000,   250000,   500000,   750000,   1000000,   2500000,  5000000, 7500000,
              10000000, 20000000, 40000000, 80000000, 160000000, 640000000}};
const trmi_bounds trmi_bounds_token = {
    .count = 21, .seconds = true, .upper = {500,     1000,     2500,    5000,   10000,   15000,
                                            25000,   50000,    75000,   100000, 150000,  200000,
                                            300000,  400000,   500000,  750000, 1000000, 2500000,
                                            5000000, 10000000, 40000000}};
const trmi_bounds trmi_bounds_http = {.count = 16,
                                      .seconds = true,
                                      .upper = {100, 250, 500, 1000, 2500, 5000, 10000, 25000,
                                                100000, 250000, 500000, 1000000, 5000000, 10000000,
                                                60000000, 600000000}};
const trmi_bounds trmi_bounds_tokens = {.count = 19,
                                        .upper = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000,
                                                  5000, 10000, 20000, 50000, 100000, 200000, 500000,
                                                  1000000}};
const trmi_bounds trmi_bounds_batch = {
    .count = 13, .upper = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512}};

void trmi_histogram_add(trmi_histogram *h, const trmi_bounds *bounds, uint64_t value, uint64_t n)
{
    int i = 0;

    while (i < bounds->count && value > bounds->upper[i])
        i++;
    h->buckets[i] += n;
    h->count += n;
    h->sum += value * n;
}

/* ---- window ---- */
#define SUB_BITS 3
#define SUBS (1u << SUB_BITS)

static unsigned bucket_of(uint64_t us)
{
    unsigned octave, index;

    if (us < SUBS)
        return (unsigned)us;
    octave = 63 - (unsigned)__builtin_clzll(us);
    index = (octave - SUB_BITS + 1) * SUBS + (unsigned)((us >> (octave - SUB_BITS)) & (SUBS - 1));
    return index < TRMI_WINDOW_BUCKETS ? index : TRMI_WINDOW_BUCKETS - 1;
}

/* The least value of a bucket; of the bucket behind it: its end. */
static double bucket_start(unsigned index)
{
    unsigned octave = index / SUBS;

    if (octave == 0)
        return index;
    return (double)((uint64_t)(SUBS + index % SUBS) << (octave - 1));
}

trmi_window *trmi_window_create(uint64_t now_us)
{
    trmi_window *w = trm_calloc(1, sizeof(*w)); /* pages that are never touched stay unbacked */

    if (w != NULL) {
        w->start_us = now_us;
        w->second = now_us / 1000000;
    }
    return w;
}

static void forget(trmi_window *w, trmi_window_second *s)
{
    for (int i = 0; i < TRMI_RATE_COUNT; i++)
        w->rates[i] -= s->rates[i];
    for (int l = 0; l < TRMI_LATENCY_COUNT; l++)
        for (int b = 0; b < TRMI_WINDOW_BUCKETS; b++) {
            w->buckets[l][b] -= s->buckets[l][b];
            w->counts[l] -= s->buckets[l][b];
        }
    memset(s, 0, sizeof(*s));
}

/* A clock that stands or goes back counts for the newest second. */
static trmi_window_second *advance(trmi_window *w, uint64_t now_us)
{
    uint64_t now = now_us / 1000000;

    if (now >= w->second + TRMI_WINDOW_SECONDS)
        w->second = now - TRMI_WINDOW_SECONDS; /* each place is left once below */
    while (w->second < now) {
        w->second++;
        forget(w, &w->ring[w->second % TRMI_WINDOW_SECONDS]);
    }
    return &w->ring[w->second % TRMI_WINDOW_SECONDS];
}

void trmi_window_count(trmi_window *w, uint64_t now_us, trmi_rate rate, uint64_t n)
{
    if (w == NULL || n == 0)
        return;
    advance(w, now_us)->rates[rate] += n;
    w->rates[rate] += n;
}

void trmi_window_observe(trmi_window *w, uint64_t now_us, trmi_latency latency, uint64_t us,
                         uint32_t n)
{
    unsigned bucket = bucket_of(us);
    uint32_t *place;

    if (w == NULL || n == 0)
        return;
    place = &advance(w, now_us)->buckets[latency][bucket];
    if (n > UINT32_MAX - *place)
        n = UINT32_MAX - *place; /* keeps the sum equal to its parts */
    *place += n;
    w->buckets[latency][bucket] += n;
    w->counts[latency] += n;
}

/* The value that a share `p` of the samples does not exceed, as if a bucket's samples were spread
 * over it evenly. */
static double percentile(const trmi_window *w, trmi_latency l, double p)
{
    double wanted = p * (double)w->counts[l], before = 0;

    for (unsigned b = 0; b < TRMI_WINDOW_BUCKETS; b++) {
        double here = (double)w->buckets[l][b];

        if (here > 0 && before + here >= wanted) {
            double low = bucket_start(b), high = bucket_start(b + 1);

            return low + (high - low) * (wanted - before) / here;
        }
        before += here;
    }
    return bucket_start(TRMI_WINDOW_BUCKETS);
}

void trmi_metrics_window_read(trmi_window *w, uint64_t now_us, trmi_recent *recent_out)
{
    static const double shares[3] = {0.5, 0.9, 0.99};
    uint64_t first_us;
    double seconds;

    memset(recent_out, 0, sizeof(*recent_out));
    if (w == NULL)
        return;
    advance(w, now_us);
    first_us = w->second >= TRMI_WINDOW_SECONDS - 1
                   ? (w->second - (TRMI_WINDOW_SECONDS - 1)) * 1000000
                   : 0;
    if (first_us < w->start_us)
        first_us = w->start_us;
    /* a window younger than a second would make rates of a single request absurd */
    seconds = now_us > first_us + 1000000 ? (double)(now_us - first_us) / 1e6 : 1;
    for (int i = 0; i < TRMI_RATE_COUNT; i++) {
        recent_out->sums[i] = w->rates[i];
        recent_out->per_second[i] = (double)w->rates[i] / seconds;
    }
    for (int l = 0; l < TRMI_LATENCY_COUNT; l++) {
        recent_out->samples[l] = w->counts[l];
        for (int p = 0; p < 3 && w->counts[l] > 0; p++)
            recent_out->ms[l][p] = percentile(w, (trmi_latency)l, shares[p]) / 1000;
    }
}
