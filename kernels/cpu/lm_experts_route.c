/* Routes of TrmExperts: softmax, the best experts of each token, rows by expert; and the weighted
 * sum of what experts gave. Everything about a token is computed from that token alone. */
#include "kernels/cpu/lm_experts.h"
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

#define PIECE ((size_t)256) /* elements of a token that are summed at once: on the stack */

typedef struct route_job {
    const trmi_experts_shape *s;
    const trmi_experts_routes *r;
    const float *logits, *y;
    float *out;
} route_job;

/* Best first, ties to the lower expert; then sorted by expert. NaN, which softmax gives a whole
 * token, chooses the first ones. */
static void choose(const trmi_experts_shape *s, float *scores, int32_t *chosen, float *shares)
{
    float sum = 0.0f;

    for (size_t c = 0; c < s->top_k; c++) {
        size_t best = s->all;

        for (size_t e = 0; e < s->all; e++)
            if (scores[e] != -INFINITY && (best == s->all || scores[e] > scores[best]))
                best = e;
        chosen[c] = (int32_t)best;
        shares[c] = scores[best];
        sum += scores[best];
        scores[best] = -INFINITY; /* taken */
    }
    for (size_t c = 0; c < s->top_k && s->normalize; c++)
        shares[c] /= sum;
    for (size_t c = 1; c < s->top_k; c++) {
        int32_t e = chosen[c];
        float share = shares[c];
        size_t at = c;

        for (; at > 0 && chosen[at - 1] > e; at--) {
            chosen[at] = chosen[at - 1];
            shares[at] = shares[at - 1];
        }
        chosen[at] = e;
        shares[at] = share;
    }
}

static void route_tokens(void *ctx, size_t begin, size_t end)
{
    const route_job *job = ctx;
    const trmi_experts_shape *s = job->s;

    for (size_t t = begin; t < end; t++) {
        float *scores = job->r->scores + t * s->all;

        trmi_vec_get()->softmax(scores, job->logits + t * s->all, s->all, false);
        choose(s, scores, job->r->chosen + t * s->top_k, job->r->shares + t * s->top_k);
    }
}

void trmi_experts_route(const trmi_experts_shape *s, const float *logits,
                        const trmi_experts_routes *r)
{
    route_job job = {.s = s, .r = r, .logits = logits};

    trm_team_for(s->tokens, 1 + TRMI_GRAIN / (s->all * (s->top_k + 8)), route_tokens, &job);
    memset(r->starts, 0, (s->local + 1) * sizeof(*r->starts));
    for (size_t i = 0; i < s->tokens * s->top_k; i++) {
        size_t e = (size_t)r->chosen[i] - s->first; /* wraps below first */

        if (e < s->local)
            r->starts[e + 1]++;
    }
    for (size_t e = 0; e < s->local; e++)
        r->starts[e + 1] += r->starts[e];
    for (size_t i = 0; i < s->tokens * s->top_k; i++) {
        size_t e = (size_t)r->chosen[i] - s->first;

        r->rows[i] = -1;
        if (e < s->local) {
            r->tokens[r->starts[e]] = (int32_t)(i / s->top_k);
            r->rows[i] = (int32_t)r->starts[e]++;
        }
    }
    for (size_t e = s->local; e > 0; e--) /* each start has moved to the next expert's */
        r->starts[e] = r->starts[e - 1];
    r->starts[0] = 0;
}

/* Elements [at, at + n) of one token: groups in order, each its experts in order; folded as a
 * product's leaves are. A group without a chosen expert is zero. */
static void combine_piece(const route_job *job, size_t t, size_t at, size_t n)
{
    const trmi_experts_shape *s = job->s;
    const int32_t *chosen = job->r->chosen + t * s->top_k, *rows = job->r->rows + t * s->top_k;
    const float *shares = job->r->shares + t * s->top_k;
    _Alignas(64) float stack[TRM_TREE_DEPTH_MAX][PIECE];
    size_t c = 0;
    int depth = 0, part = 0;

    while (c < s->top_k && (size_t)chosen[c] < s->first)
        c++;
    for (int g = 0; g < s->fold.count; g++) {
        size_t end = s->first + ((size_t)g + 1) * s->group;
        float *sum = stack[depth++];

        memset(sum, 0, n * sizeof(*sum));
        for (; c < s->top_k && (size_t)chosen[c] < end; c++) {
            const float *y = job->y + (size_t)rows[c] * s->width + at;
            float share = shares[c];

            for (size_t i = 0; i < n; i++)
                sum[i] += share * y[i];
        }
        for (int merges = s->fold.merges[g]; merges > 0; merges--, depth--)
            for (size_t i = 0; i < n; i++)
                stack[depth - 2][i] += stack[depth - 1][i];
        if (g + 1 == s->fold.ends[part])
            memcpy(job->out + ((size_t)part++ * s->tokens + t) * s->width + at, stack[--depth],
                   n * sizeof(float));
    }
}

static void combine_range(void *ctx, size_t begin, size_t end)
{
    const route_job *job = ctx;
    size_t width = job->s->width, pieces = (width + PIECE - 1) / PIECE;

    for (size_t i = begin; i < end; i++) {
        size_t at = i % pieces * PIECE;

        combine_piece(job, i / pieces, at, width - at < PIECE ? width - at : PIECE);
    }
}

void trmi_experts_combine(const trmi_experts_shape *s, const trmi_experts_routes *r, const float *y,
                          float *out)
{
    route_job job = {.s = s, .r = r, .y = y, .out = out};
    size_t pieces = (s->width + PIECE - 1) / PIECE;

    trm_team_for(s->tokens * pieces, 1 + TRMI_GRAIN / PIECE / (s->top_k + 1), combine_range, &job);
}
