/* The attention core for one instruction set. No include guard. The including file defines
 * TRMI_LM_ATTENTION_TABLE (the table to fill), VEC (a vector of LANES floats), V_SET1, V_ZERO,
 * V_LOADU, V_STOREU, V_MUL, V_FMA(a, b, c) = a * b + c, V_F16(p), V_BF16(p) (LANES elements to
 * fp32), V_TAIL(kind, p, n) (n < LANES elements, the other lanes zero), QK_PAGES (pages whose
 * scores are made together) and PV_VECTORS (vectors of an output row made together).
 *
 * Scores: for each position, dims in ascending order in one chain of multiply-adds. Outputs: for
 * each dim, positions in ascending order in one chain. So a tile of any form gives the same bits.
 */
#include "kernels/cpu/lm_attention.h"
#include "kernels/cpu/vector_math.h"

#include <math.h>
#include <string.h>

enum kv_kind { KV_F32, KV_F16, KV_BF16 };
#define PAGE_VECTORS (TRM_KV_PAGE / LANES)
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS size_t kv_bytes(const enum kv_kind kind)
{
    return kind == KV_F32 ? 4 : 2;
}

ALWAYS VEC load(const enum kv_kind kind, const char *p)
{
    return kind == KV_F32 ? V_LOADU((const float *)(const void *)p)
                          : (kind == KV_F16 ? V_F16(p) : V_BF16(p));
}

/* s[r][position] = q[r] . k[position], of the first `pages` pages, `at_once` together. */
ALWAYS void scores(const trmi_lm_tile *t, const enum kv_kind kind, const int rows, const int pages,
                   const int at_once, float (*s)[TRMI_LM_BLOCK])
{
    const size_t dims = t->head_dim, step = TRM_KV_PAGE * kv_bytes(kind);

    for (int page = 0; page < pages; page += at_once) {
        const char *keys[QK_PAGES];
        VEC acc[TRMI_LM_TILE][QK_PAGES * PAGE_VECTORS];

        for (int p = 0; p < at_once; p++)
            keys[p] = t->keys[page + p];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < at_once * PAGE_VECTORS; v++)
                acc[r][v] = V_ZERO();
        for (size_t d = 0; d < dims; d++) {
            VEC k[QK_PAGES * PAGE_VECTORS];

            if (t->ahead)
                for (int p = 0; p < at_once; p++)
                    __builtin_prefetch((const char *)t->values[page + p] + d * step);

            for (int v = 0; v < at_once * PAGE_VECTORS; v++)
                k[v] = load(kind, keys[v / PAGE_VECTORS] + d * step +
                                      (size_t)(v % PAGE_VECTORS) * LANES * kv_bytes(kind));
            for (int r = 0; r < rows; r++) {
                VEC q = V_SET1(t->q[(size_t)r * t->stride + d]);

                for (int v = 0; v < at_once * PAGE_VECTORS; v++)
                    acc[r][v] = V_FMA(q, k[v], acc[r][v]);
            }
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < at_once * PAGE_VECTORS; v++)
                V_STOREU(s[r] + page * TRM_KV_PAGE + v * LANES, acc[r][v]);
    }
}

static __attribute__((noinline)) void soften(float *s, float scale, float cap)
{
    const float inverse = 1.0f / cap;

    for (int j = 0; j < TRMI_LM_BLOCK; j++)
        s[j] = cap * trmi_tanh(s[j] * scale * inverse);
}

/* e^x for x <= 0; what would be subnormal is zero. */
static inline float exp_below(float x)
{
    uint32_t n;
    float y = x < -87.0f ? -87.0f : x, r = trmi_exp_reduce(y, &n);
    float p = TRMI_FMA(trmi_exp_poly(r) * r, r, r) + 1.0f;

    p *= trmi_float_of((n + 127u) << 23);
    return x < -87.0f ? 0.0f : p;
}

/* Scores become weights e^(score - top), zero where a query does not see; alpha[r]: what its output
 * so far is to be multiplied by. Sums run in 16 lanes of position % 16, folded by SUM_OF. Stages go
 * over all rows, so that one row's latencies hide behind another's work. */
ALWAYS void weigh(const trmi_lm_tile *t, const int rows, float (*s)[TRMI_LM_BLOCK], float *alpha)
{
    const float scale = t->scale, cap = t->cap;
    float base[TRMI_LM_TILE];

    for (int r = 0; r < rows; r++) {
        const int first = t->first[r], last = t->last[r];
        float fold[TRM_KV_PAGE], top;

        if (cap > 0.0f)
            soften(s[r], scale, cap);
        else
            for (int j = 0; j < TRMI_LM_BLOCK; j++)
                s[r][j] *= scale;
        for (int j = 0; j < TRMI_LM_BLOCK; j++)
            s[r][j] = j >= first && j < last ? s[r][j] : -INFINITY;
        for (int j = 0; j < TRM_KV_PAGE; j++) {
            float a = s[r][j], b = s[r][j + TRM_KV_PAGE];
            float c = s[r][j + 2 * TRM_KV_PAGE], d = s[r][j + 3 * TRM_KV_PAGE];

            a = a > b ? a : b;
            c = c > d ? c : d;
            fold[j] = a > c ? a : c;
        }
        top = TOP_OF(fold);
        top = t->top[r] > top ? t->top[r] : top;
        base[r] = top > -INFINITY ? top : 0.0f;
        alpha[r] = t->top[r] - base[r];
        t->top[r] = top;
    }
    for (int r = 0; r < TRMI_LM_TILE; r++)
        alpha[r] = r < rows ? exp_below(alpha[r]) : 0.0f;
    for (int r = 0; r < rows; r++) {
        float fold[TRM_KV_PAGE];

        for (int j = 0; j < TRMI_LM_BLOCK; j++)
            s[r][j] = exp_below(s[r][j] - base[r]);
        for (int j = 0; j < TRM_KV_PAGE; j++)
            fold[j] = (s[r][j] + s[r][j + TRM_KV_PAGE]) +
                      (s[r][j + 2 * TRM_KV_PAGE] + s[r][j + 3 * TRM_KV_PAGE]);
        t->sum[r] = t->sum[r] * alpha[r] + SUM_OF(fold);
    }
}

/* One query, positions [from, to) of the block, into its accumulators. */
ALWAYS void add_row(const trmi_lm_tile *t, const enum kv_kind kind, const int vectors, int rest,
                    size_t c, const float *s, int from, int to, VEC *acc)
{
    const size_t row = t->head_dim * kv_bytes(kind);

    for (int j = from; j < to; j++) {
        const char *v = (const char *)t->values[j / TRM_KV_PAGE] + (size_t)(j % TRM_KV_PAGE) * row +
                        c * kv_bytes(kind);
        VEC w = V_SET1(s[j]);

        for (int i = 0; i < vectors; i++)
            acc[i] = V_FMA(w,
                           rest > 0 ? V_TAIL(kind, v, rest)
                                    : load(kind, v + (size_t)i * LANES * kv_bytes(kind)),
                           acc[i]);
    }
}

/* out[r][c ...] = alpha[r] * out[r] + sum over positions of weight * v[position], `vectors` vectors
 * from dim c on (rest > 0: the one vector has that many dims). Positions that all rows see, [lo,
 * hi), are walked together; what a row sees before and after them by itself. */
ALWAYS void outputs(const trmi_lm_tile *t, const enum kv_kind kind, const int rows,
                    const int vectors, int rest, size_t c, float (*s)[TRMI_LM_BLOCK],
                    const float *alpha, int lo, int hi)
{
    const size_t row = t->head_dim * kv_bytes(kind);
    /* of the next keys, as many bytes a position as of the values */
    const size_t fetch = (size_t)vectors * LANES * kv_bytes(kind);
    VEC acc[TRMI_LM_TILE][PV_VECTORS];

    for (int r = 0; r < rows; r++)
        for (int i = 0; i < vectors; i++)
            acc[r][i] = V_MUL(V_LOADU(t->out + (size_t)r * t->stride + c + (size_t)i * LANES),
                              V_SET1(alpha[r]));
    for (int r = 0; r < rows; r++)
        add_row(t, kind, vectors, rest, c, s[r], t->first[r], lo < t->last[r] ? lo : t->last[r],
                acc[r]);
    for (int j = lo; j < hi;) {
        const char *v = (const char *)t->values[j / TRM_KV_PAGE] + (size_t)(j % TRM_KV_PAGE) * row +
                        c * kv_bytes(kind);
        const char *next = t->next[j / TRM_KV_PAGE];
        int end = (j / TRM_KV_PAGE + 1) * TRM_KV_PAGE;

        end = end < hi ? end : hi;
        if (next != NULL)
            next += TRM_KV_PAGE * c * kv_bytes(kind) + (size_t)(j % TRM_KV_PAGE) * fetch;
        for (; j < end; j++, v += row) {
            VEC value[PV_VECTORS];

            if (next != NULL) {
                for (size_t i = 0; i < fetch; i += 64)
                    __builtin_prefetch(next + i);
                next += fetch;
            }

            for (int i = 0; i < vectors; i++)
                value[i] = rest > 0 ? V_TAIL(kind, v, rest)
                                    : load(kind, v + (size_t)i * LANES * kv_bytes(kind));
            for (int r = 0; r < rows; r++) {
                VEC w = V_SET1(s[r][j]);

                for (int i = 0; i < vectors; i++)
                    acc[r][i] = V_FMA(w, value[i], acc[r][i]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        add_row(t, kind, vectors, rest, c, s[r], hi > t->first[r] ? hi : t->first[r], t->last[r],
                acc[r]);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < vectors; i++)
            V_STOREU(t->out + (size_t)r * t->stride + c + (size_t)i * LANES, acc[r][i]);
}

ALWAYS void attend_rows(const trmi_lm_tile *t, const enum kv_kind kind, const int rows)
{
    float s[TRMI_LM_TILE][TRMI_LM_BLOCK], alpha[TRMI_LM_TILE];
    int lo = 0, hi = TRMI_LM_BLOCK, end = 0;
    size_t c = 0;

    for (int r = 0; r < rows; r++)
        end = end > t->last[r] ? end : t->last[r];
    if (end > TRMI_LM_BLOCK / 2) {
        scores(t, kind, rows, TRMI_LM_BLOCK_PAGES, QK_PAGES, s);
    } else { /* short sequences, and the last block of long ones */
        memset(s, 0, sizeof(s));
        scores(t, kind, rows, TRMI_LM_BLOCK_PAGES / 2, QK_PAGES > 2 ? 2 : QK_PAGES, s);
    }
    weigh(t, rows, s, alpha);
    for (int r = 0; r < rows; r++) {
        lo = lo > t->first[r] ? lo : t->first[r];
        hi = hi < t->last[r] ? hi : t->last[r];
    }
    if (lo >= hi) /* nothing in common: each row by itself */
        lo = hi = TRMI_LM_BLOCK;
    for (; c + PV_VECTORS * LANES <= t->head_dim; c += PV_VECTORS * LANES)
        outputs(t, kind, rows, PV_VECTORS, 0, c, s, alpha, lo, hi);
    for (; c + LANES <= t->head_dim; c += LANES)
        outputs(t, kind, rows, 1, 0, c, s, alpha, lo, hi);
    if (c < t->head_dim)
        outputs(t, kind, rows, 1, (int)(t->head_dim - c), c, s, alpha, lo, hi);
}

ALWAYS void attend(const trmi_lm_tile *t, const enum kv_kind kind)
{
    switch (t->count) {
    case 1:
        attend_rows(t, kind, 1);
        break;
    case 2:
        attend_rows(t, kind, 2);
        break;
    case 3:
        attend_rows(t, kind, 3);
        break;
    case 4:
        attend_rows(t, kind, 4);
        break;
    case 5:
        attend_rows(t, kind, 5);
        break;
    default:
        attend_rows(t, kind, 6);
        break;
    }
}

static void attend_f32(const trmi_lm_tile *t)
{
    attend(t, KV_F32);
}

static void attend_f16(const trmi_lm_tile *t)
{
    attend(t, KV_F16);
}

static void attend_bf16(const trmi_lm_tile *t)
{
    attend(t, KV_BF16);
}

/* ---- bytes ---- */

static void scales_of(size_t head_dim, const int8_t *page, float *scales)
{
    memcpy(scales, page + TRM_KV_PAGE * head_dim, TRM_KV_PAGE * sizeof(float));
}

static void widen_keys(size_t head_dim, const int8_t *page, float *to)
{
    float scales[TRM_KV_PAGE];

    scales_of(head_dim, page, scales);
    for (size_t d = 0; d < head_dim; d++)
        _Pragma("GCC ivdep") for (size_t j = 0; j < TRM_KV_PAGE; j++) to[d * TRM_KV_PAGE + j] =
            (float)page[d * TRM_KV_PAGE + j] * scales[j];
}

static void widen_values(size_t head_dim, const int8_t *page, float *to)
{
    float scales[TRM_KV_PAGE];

    scales_of(head_dim, page, scales);
    for (size_t j = 0; j < TRM_KV_PAGE; j++)
        _Pragma("GCC ivdep") for (size_t d = 0; d < head_dim; d++) to[j * head_dim + d] =
            (float)page[j * head_dim + d] * scales[j];
}

const trmi_lm_attention TRMI_LM_ATTENTION_TABLE = {attend_f32, attend_f16, attend_bf16, widen_keys,
                                                   widen_values};
