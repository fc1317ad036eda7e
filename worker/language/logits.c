/* Whole rows of logits. Loops run over lanes of a fixed number that the compiler turns into
 * vectors; how many a vector holds changes nothing in the result. */
#include "worker/language/sampler_impl.h"

#include <math.h>
#include <string.h>

#define LANES 16

/* Compiled for wider vectors too, chosen when the program is loaded. The results are the same: each
 * lane is summed by itself and nothing is contracted. Not under the thread sanitizer, which starts
 * after that choice. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define WIDER __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDER
#endif

/* exp by 2^n * e^r, |r| <= ln(2)/2: Cody and Waite's reduction, a polynomial of degree 6 (Taylor's
 * series economised; the coefficients are those of Cephes' expf). */
static inline float exp_lane(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float y = x < -87.0f ? -87.0f : x;
    float n = y * 1.44269504088896341f + shift - shift;
    float r = y - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    int32_t bits;
    float scale;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    bits = ((int32_t)n + 127) * (1 << 23);
    memcpy(&scale, &bits, sizeof(scale));
    p *= scale;
    return x < -87.0f ? 0.0f : p;
}

float trmi_exp(float x)
{
    return exp_lane(x);
}

static inline int32_t not_finite(float x)
{
    int32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return (bits & 0x7f800000) == 0x7f800000;
}

/* Of a whole chunk. */
WIDER static float chunk_max(const float *row, int32_t *bad_out)
{
    float max[LANES];
    int32_t bad[LANES] = {0}, total = 0;

    memcpy(max, row, sizeof(max));
    for (int i = 0; i < TRMI_ROW_CHUNK; i += LANES)
        for (int k = 0; k < LANES; k++)
            max[k] = row[i + k] > max[k] ? row[i + k] : max[k];
    for (int i = 0; i < TRMI_ROW_CHUNK; i += LANES)
        for (int k = 0; k < LANES; k++)
            bad[k] += not_finite(row[i + k]);
    for (int k = 0; k < LANES; k++) {
        total += bad[k];
        max[0] = max[k] > max[0] ? max[k] : max[0];
    }
    *bad_out = total;
    return max[0];
}

/* The chunk at `from`, filled up with `fill` where the row ends within it. */
static const float *chunk_at(const float *row, int64_t count, int64_t from, float fill,
                             float space[TRMI_ROW_CHUNK])
{
    if (count - from >= TRMI_ROW_CHUNK)
        return row + from;
    for (int64_t i = 0; i < TRMI_ROW_CHUNK; i++)
        space[i] = i < count - from ? row[from + i] : fill;
    return space;
}

int64_t trmi_row_largest(const float *row, int64_t count, float *max_out, int32_t *id_out)
{
    float space[TRMI_ROW_CHUNK], max = -INFINITY;
    int64_t bad = 0, best = 0;

    for (int64_t from = 0; from < count; from += TRMI_ROW_CHUNK) {
        int32_t some;
        float m = chunk_max(chunk_at(row, count, from, row[from], space), &some);

        bad += some;
        if (m > max) {
            max = m;
            best = from;
        }
    }
    while (best < count - 1 && row[best] != max)
        best++;
    *max_out = max;
    *id_out = (int32_t)best;
    return bad;
}

WIDER static double chunk_sum(const float *row, float max, float scale)
{
    float sum[LANES] = {0};
    double total = 0;

    for (int i = 0; i < TRMI_ROW_CHUNK; i += LANES)
        for (int k = 0; k < LANES; k++)
            sum[k] += exp_lane((row[i + k] - max) * scale);
    for (int k = 0; k < LANES; k++)
        total += (double)sum[k];
    return total;
}

double trmi_row_sum(const float *row, int64_t count, float max, float scale, double *chunks)
{
    float space[TRMI_ROW_CHUNK];
    double total = 0;

    for (int64_t from = 0, i = 0; from < count; from += TRMI_ROW_CHUNK, i++) {
        double sum = chunk_sum(chunk_at(row, count, from, -INFINITY, space), max, scale);

        if (chunks != NULL)
            chunks[i] = sum;
        total += sum;
    }
    return total;
}

int32_t trmi_row_top(const float *row, int64_t count, int32_t wanted, int32_t *ids, float *values)
{
    float space[TRMI_ROW_CHUNK];
    int32_t have = 0, bad;

    if (wanted <= 0)
        return 0;
    for (int64_t from = 0; from < count; from += TRMI_ROW_CHUNK) {
        const float *chunk = chunk_at(row, count, from, -INFINITY, space);
        int64_t n = count - from < TRMI_ROW_CHUNK ? count - from : TRMI_ROW_CHUNK;

        if (have == wanted && !(chunk_max(chunk, &bad) > values[have - 1]))
            continue; /* as large, but with a higher id */
        for (int64_t i = 0; i < n; i++) {
            int32_t at;

            if (have == wanted && !(chunk[i] > values[have - 1]))
                continue;
            have += have < wanted;
            for (at = have - 1; at > 0 && chunk[i] > values[at - 1]; at--) {
                values[at] = values[at - 1];
                ids[at] = ids[at - 1];
            }
            values[at] = chunk[i];
            ids[at] = (int32_t)(from + i);
        }
    }
    return have;
}

WIDER static int32_t chunk_larger(const float *row, float value)
{
    int32_t larger[LANES] = {0}, total = 0;

    for (int i = 0; i < TRMI_ROW_CHUNK; i += LANES)
        for (int k = 0; k < LANES; k++)
            larger[k] += row[i + k] > value;
    for (int k = 0; k < LANES; k++)
        total += larger[k];
    return total;
}

int64_t trmi_row_rank(const float *row, int64_t count, int32_t id)
{
    float space[TRMI_ROW_CHUNK], value = row[id];
    int64_t rank = 1;

    for (int64_t from = 0; from < count; from += TRMI_ROW_CHUNK)
        rank += chunk_larger(chunk_at(row, count, from, -INFINITY, space), value);
    for (int64_t i = 0; i < id; i++)
        rank += row[i] == value;
    return rank;
}
