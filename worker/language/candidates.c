/* Which tokens may be drawn, and the draw.
 *
 * top_k and top_p need the largest values in order, but sorting a vocabulary is dear. z = (logit -
 * largest) / temperature is dealt into buckets instead, 1/32 wide: whole buckets before the one in
 * which the count or the mass is reached are in, those behind it are out, and only that one bucket
 * is sorted. typical_p does the same by its own key. */
#include "worker/language/sampler_impl.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 2048
#define BUCKETS_A_UNIT 32.0f
#define TOP_SCAN 64 /* top_k up to this is one pass with a short list */

/* Never falls as key grows. */
static int bucket_of(float key)
{
    float b = key * BUCKETS_A_UNIT;

    return b < 0 ? 0 : b < BUCKETS - 1 ? (int)b : BUCKETS - 1;
}

static trm_status reserve(trmi_candidates *c, size_t count)
{
    trmi_candidate *grown;
    size_t room = c->room == 0 ? 256 : c->room;

    if (count <= c->room)
        return TRM_OK;
    while (room < count)
        room *= 2;
    grown = trm_realloc(c->items, room, sizeof(*grown));
    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu candidates", room);
    c->items = grown;
    c->room = room;
    return TRM_OK;
}

static trm_status push(trmi_candidates *c, int64_t id, float z)
{
    TRM_CHECK(reserve(c, c->count + 1));
    c->items[c->count].id = (int32_t)id;
    c->items[c->count].z = z;
    c->items[c->count].key = -z;
    c->items[c->count++].weight = (double)trmi_exp(z);
    return TRM_OK;
}

static int by_key(const void *a, const void *b)
{
    const trmi_candidate *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The first tokens of the row in descending order end in this bucket: by count (top_k), or where
 * that is 0 by mass (top_p of *total_out, the whole). */
static int cut_bucket(const float *row, int64_t count, float max, float scale, int64_t top_k,
                      double top_p, double *total_out)
{
    int64_t counts[BUCKETS] = {0}, some = 0;
    double masses[BUCKETS] = {0}, mass = 0, total = 0;
    int b;

    for (int64_t i = 0; i < count; i++) {
        float z = (row[i] - max) * scale;
        int at = bucket_of(-z);

        counts[at]++;
        if (top_k == 0)
            masses[at] += (double)trmi_exp(z);
    }
    for (b = 0; b < BUCKETS; b++)
        total += masses[b];
    for (b = 0; b < BUCKETS - 1; b++) {
        some += counts[b];
        mass += masses[b];
        if (top_k > 0 ? some >= top_k : mass >= top_p * total)
            break;
    }
    *total_out = total;
    return b;
}

/* All of the row up to a bucket. */
static trm_status collect(const float *row, int64_t count, float max, float scale, int bucket,
                          trmi_candidates *c)
{
    for (int64_t i = 0; i < count; i++) {
        float z = (row[i] - max) * scale;

        if (bucket_of(-z) <= bucket)
            TRM_CHECK(push(c, i, z));
    }
    return TRM_OK;
}

static trm_status collect_from(const float *row, int64_t count, float max, float scale, float least,
                               trmi_candidates *c)
{
    for (int64_t i = 0; i < count; i++) {
        float z = (row[i] - max) * scale;

        if (z >= least)
            TRM_CHECK(push(c, i, z));
    }
    return TRM_OK;
}

static trm_status collect_top(const float *row, int64_t count, float max, float scale,
                              int32_t top_k, trmi_candidates *c)
{
    int32_t ids[TOP_SCAN], n;
    float values[TOP_SCAN];
    double unused;

    if (top_k <= TOP_SCAN) {
        n = trmi_row_top(row, count, top_k, ids, values);
        for (int32_t i = 0; i < n; i++)
            TRM_CHECK(push(c, ids[i], (values[i] - max) * scale));
        return TRM_OK;
    }
    TRM_CHECK(
        collect(row, count, max, scale, cut_bucket(row, count, max, scale, top_k, 0, &unused), c));
    qsort(c->items, c->count, sizeof(*c->items), by_key);
    if (c->count > (size_t)top_k)
        c->count = (size_t)top_k;
    return TRM_OK;
}

static double mass_of(const trmi_candidates *c)
{
    double total = 0;

    for (size_t i = 0; i < c->count; i++)
        total += c->items[i].weight;
    return total;
}

/* Keeps the candidates with the least keys that together hold the mass `wanted` (the one that
 * reaches it is kept). `ties`: and those whose key is as large as the last one's. */
static trm_status keep_mass(trmi_candidates *c, double wanted, bool ties)
{
    double masses[BUCKETS] = {0}, mass = 0;
    size_t inside = 0, last, kept = 0;
    int b;

    for (size_t i = 0; i < c->count; i++)
        masses[bucket_of(c->items[i].key)] += c->items[i].weight;
    for (b = 0; b < BUCKETS - 1 && mass + masses[b] < wanted; b++)
        mass += masses[b];
    /* before the bucket: in, in their order; within it: behind them, sorted; others: dropped */
    TRM_CHECK(reserve(c, c->count * 2));
    last = c->count;
    for (size_t i = 0; i < c->count; i++) {
        int at = bucket_of(c->items[i].key);

        if (at < b)
            c->items[inside++] = c->items[i];
        else if (at == b)
            c->items[last++] = c->items[i];
    }
    last -= c->count;
    memmove(c->items + inside, c->items + c->count, last * sizeof(*c->items));
    qsort(c->items + inside, last, sizeof(*c->items), by_key);
    for (kept = 0; kept < last && (kept + inside == 0 || mass < wanted); kept++)
        mass += c->items[inside + kept].weight;
    while (ties && kept > 0 && kept < last &&
           c->items[inside + kept].key == c->items[inside + kept - 1].key)
        kept++;
    c->count = inside + kept;
    return TRM_OK;
}

static void keep_min_p(trmi_candidates *c, float min_p)
{
    double most = 0;
    size_t kept = 0;

    for (size_t i = 0; i < c->count; i++)
        most = c->items[i].weight > most ? c->items[i].weight : most;
    for (size_t i = 0; i < c->count; i++)
        if (c->items[i].weight >= (double)min_p * most)
            c->items[kept++] = c->items[i];
    c->count = kept;
}

/* C. Meister et al., "Locally typical sampling" (2022): closest to the entropy first. */
static trm_status keep_typical(trmi_candidates *c, float typical_p)
{
    double total = mass_of(c), mean = 0, log_total, entropy;

    for (size_t i = 0; i < c->count; i++)
        if (c->items[i].weight > 0)
            mean += c->items[i].weight * (double)c->items[i].z;
    log_total = log(total);
    entropy = log_total - mean / total; /* -sum p log p, log p = z - log total */
    for (size_t i = 0; i < c->count; i++)
        c->items[i].key = (float)fabs(log_total - (double)c->items[i].z - entropy);
    return keep_mass(c, (double)typical_p * total, true);
}

static int32_t draw_candidate(const trmi_candidates *c, double u)
{
    double at = u * mass_of(c), sum = 0;
    size_t last = 0;

    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i].weight == 0)
            continue;
        last = i;
        sum += c->items[i].weight;
        if (sum > at)
            break;
    }
    return c->items[last].id;
}

/* From the whole row: the chunk by the chunks' sums, the token within it. */
static int32_t draw_row(const float *row, int64_t count, float max, float scale, double u,
                        double *chunks)
{
    double at = u * trmi_row_sum(row, count, max, scale, chunks), sum = 0;
    int64_t n = trmi_row_chunks(count), chunk = -1, last = 0;

    for (int64_t i = 0; i < n; i++) {
        if (chunks[i] == 0)
            continue;
        chunk = i;
        if (sum + chunks[i] > at)
            break;
        sum += chunks[i];
    }
    if (sum > at) /* past the end by rounding: the last chunk that holds anything */
        sum = at;
    last = chunk * TRMI_ROW_CHUNK;
    for (int64_t i = last; i < count && i < (chunk + 1) * TRMI_ROW_CHUNK; i++) {
        double weight = (double)trmi_exp((row[i] - max) * scale);

        if (weight == 0)
            continue;
        last = i;
        sum += weight;
        if (sum > at)
            break;
    }
    return (int32_t)last;
}

trm_status trmi_draw(const trm_sampling *s, const float *row, int64_t count, float max, double u,
                     trmi_candidates *c, int32_t *id_out)
{
    float scale = 1 / s->temperature;
    double total = 0;
    int bucket;
    bool top_k = s->top_k > 0 && s->top_k < count;

    scale = scale < 1e30f ? scale : 1e30f; /* differences times this stay numbers */
    if (!top_k && s->top_p >= 1 && s->min_p <= 0 && s->typical_p >= 1) {
        *id_out = draw_row(row, count, max, scale, u, c->chunks);
        return TRM_OK;
    }
    c->count = 0;
    if (top_k) {
        TRM_CHECK(collect_top(row, count, max, scale, s->top_k, c));
        total = mass_of(c);
    } else if (s->top_p < 1) {
        bucket = cut_bucket(row, count, max, scale, 0, (double)s->top_p, &total);
        TRM_CHECK(collect(row, count, max, scale, bucket, c));
    } else if (s->min_p > 0) {
        TRM_CHECK(collect_from(row, count, max, scale, logf(s->min_p) - 1e-3f, c));
    } else {
        TRM_CHECK(collect_from(row, count, max, scale, -87, c));
    }
    if (s->top_p < 1)
        TRM_CHECK(keep_mass(c, (double)s->top_p * total, false));
    if (s->min_p > 0)
        keep_min_p(c, s->min_p);
    if (s->typical_p < 1)
        TRM_CHECK(keep_typical(c, s->typical_p));
    *id_out = draw_candidate(c, u);
    return TRM_OK;
}
