/* TrmPagedAttention: against the reference in double, and layout invariance: the bits of a row do
 * not depend on how a sequence is cut into steps, on what else is in the step, on pages, threads,
 * or on how heads are dealt to ranks. */
#include "kernels/cpu/lm_attention.h"
#include "kernels/language.h"
#include "kernels/reference/lm_attention.h"
#include "tests/kernels/math_harness.h"

#include <stdio.h>

/* Check writes to its pipe at every assertion: too slow for one an element. */
#define WANT(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

#define SEQUENCES 3

typedef struct shape {
    const char *name;
    int heads, kv_heads, head_dim, window;
    float cap;
    trm_dtype dtype;
    int lengths[SEQUENCES];
    bool encoder, sinks;
} shape;

static const shape shapes[] = {
    {"one head", 1, 1, 32, 0, 0, TRM_DTYPE_F32, {70, 1, 16}, false, false},
    {"groups of 4, f16", 8, 2, 64, 0, 0, TRM_DTYPE_F16, {150, 33, 1}, false, false},
    {"groups of 3, bf16", 6, 2, 128, 0, 0, TRM_DTYPE_BF16, {65, 64, 63}, false, false},
    {"groups of 7", 7, 1, 64, 0, 0, TRM_DTYPE_F32, {40, 17, 80}, false, false},
    {"groups of 14, f16", 14, 1, 80, 0, 0, TRM_DTYPE_F16, {40, 17, 90}, false, false},
    {"window 5", 4, 2, 64, 5, 0, TRM_DTYPE_F32, {140, 20, 6}, false, false},
    {"window 2", 4, 4, 32, 2, 0, TRM_DTYPE_F16, {75, 20, 6}, false, false},
    {"window 70, cap", 4, 1, 256, 70, 20, TRM_DTYPE_BF16, {160, 20, 90}, false, false},
    {"cap", 4, 2, 96, 0, 5, TRM_DTYPE_F32, {100, 20, 6}, false, false},
    {"odd head f32", 2, 1, 50, 0, 0, TRM_DTYPE_F32, {100, 20, 6}, false, false},
    {"odd head f16", 2, 2, 38, 0, 0, TRM_DTYPE_F16, {100, 20, 6}, false, false},
    {"odd head bf16", 4, 1, 72, 9, 0, TRM_DTYPE_BF16, {100, 20, 6}, false, false},
    {"head of 2", 2, 1, 2, 0, 0, TRM_DTYPE_F16, {100, 20, 6}, false, false},
    {"head of 512", 2, 1, 512, 0, 0, TRM_DTYPE_F32, {70, 20, 6}, false, false},
    {"sinks", 8, 2, 64, 20, 0, TRM_DTYPE_F32, {100, 20, 6}, false, true},
    {"bytes, groups of 4", 8, 2, 64, 0, 0, TRM_DTYPE_I8, {150, 33, 1}, false, false},
    {"bytes, window 70, cap", 4, 1, 128, 70, 20, TRM_DTYPE_I8, {160, 20, 90}, false, false},
    {"bytes, odd head", 2, 2, 38, 0, 0, TRM_DTYPE_I8, {100, 20, 6}, false, true},
    {"encoder", 4, 4, 64, 0, 0, TRM_DTYPE_F32, {70, 1, 130}, true, false},
    {"encoder, groups, odd", 6, 2, 40, 0, 0, TRM_DTYPE_F32, {20, 16, 3}, true, false},
};
#define SHAPES (int)(sizeof(shapes) / sizeof(shapes[0]))

/* The numbers of a shape: q, k, v and outputs of every sequence. */
typedef struct world {
    const shape *s;
    float *q[SEQUENCES], *k[SEQUENCES], *v[SEQUENCES], *want[SEQUENCES], *got[SEQUENCES];
    float *sinks;
    float *step[4]; /* q, k, v, output of a step */
    unsigned char *cache, *workspace;
    size_t workspace_bytes;
    int page_count;
    bool backwards; /* which pages sequences get */
} world;

static float *numbers(size_t n, double lo, double hi)
{
    float *v = trm_arena_alloc_aligned(h_arena, (n + 1) * sizeof(float));

    for (size_t i = 0; i < n; i++)
        v[i] = (float)h_uniform(lo, hi);
    return v;
}

static void make_world(world *w, const shape *s)
{
    size_t rows = 32; /* and what may lie between sequences */

    memset(w, 0, sizeof(*w));
    w->s = s;
    h_seed = 77;
    for (int i = 0; i < SEQUENCES; i++) {
        size_t n = (size_t)s->lengths[i] * (size_t)s->head_dim;

        w->q[i] = numbers(n * (size_t)s->heads, -3, 3);
        w->k[i] = numbers(n * (size_t)s->kv_heads, -1, 1);
        w->v[i] = numbers(n * (size_t)s->kv_heads, -1, 1);
        w->want[i] = numbers(n * (size_t)s->heads, 0, 0);
        w->got[i] = numbers(n * (size_t)s->heads, 0, 0);
        w->page_count += s->lengths[i] / TRM_KV_PAGE + 1;
        rows += (size_t)s->lengths[i];
    }
    for (int i = 0; i < 4; i++)
        w->step[i] = numbers(rows * (size_t)(s->heads * s->head_dim), 0, 0);
    w->cache = trm_arena_alloc_aligned(
        h_arena,
        (size_t)w->page_count * trm_kv_page_bytes(s->kv_heads, s->head_dim, TRM_DTYPE_F32));
    w->sinks = s->sinks ? numbers((size_t)s->heads, -1, 3) : NULL;
}

/* A part of a step: `count` tokens of sequence `sequence` from `from` on, in rows from `row` on. */
typedef struct piece {
    int sequence, from, count, row;
} piece;

/* Heads [first, first + heads) as a rank's; whole: 0, s->heads. */
typedef struct rank {
    int first, heads;
} rank;

static int rank_kv(const shape *s, rank r, int *kv_first)
{
    int group = s->heads / s->kv_heads;

    *kv_first = r.first / group;
    return (r.first + r.heads - 1) / group - *kv_first + 1;
}

/* A cache full of NaN for this rank. */
static void new_cache(world *w, rank r)
{
    int unused, kv = rank_kv(w->s, r, &unused);

    memset(w->cache, 0xff,
           (size_t)w->page_count * trm_kv_page_bytes(kv, w->s->head_dim, w->s->dtype));
}

static trm_attrs *attrs_of(const shape *s, rank r)
{
    trm_attrs *a = h_attrs();
    int unused;

    h_int(a, "heads", r.heads);
    h_int(a, "kv_heads", rank_kv(s, r, &unused));
    h_int(a, "head_dim", s->head_dim);
    h_int(a, "group", s->heads / s->kv_heads);
    h_int(a, "first_head", r.first);
    h_int(a, "window", s->window);
    h_int(a, "layer", 1);
    h_int(a, "encoder", s->encoder ? 1 : 0);
    h_float(a, "scale", 0.3f);
    h_float(a, "softcap", s->cap);
    return a;
}

static void run_kernel(world *w, rank r, trm_tensor *in, trm_tensor *out)
{
    const void *in_data[5];
    void *out_data[1] = {out->data};
    trm_op_desc desc = {.op = TRM_OP_TrmPagedAttention,
                        .attrs = attrs_of(w->s, r),
                        .name = "test",
                        .input_count = 5,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = out};
    trm_kernel *k = NULL;
    trm_status st = h_device->ops->prepare(h_device, &desc, &k);

    WANT(st == TRM_OK, "%s: %s", w->s->name, trm_message());
    for (int i = 0; i < 5; i++)
        in_data[i] = in[i].data;
    if (k->workspace_bytes > w->workspace_bytes) {
        w->workspace_bytes = 2 * k->workspace_bytes;
        w->workspace = trm_arena_alloc_aligned(h_arena, w->workspace_bytes);
    }
    st = k->ops->run(k, NULL, in_data, out_data, w->workspace);
    WANT(st == TRM_OK, "%s: %s", w->s->name, trm_message());
    trm_kernel_destroy(k);
}

/* Runs pieces as one step of `rows` rows; outputs go to w->got. */
static void run_step(world *w, const piece *pieces, int count, int rows, rank r)
{
    const shape *s = w->s;
    int kv_first, kv = rank_kv(s, r, &kv_first), d = s->head_dim;
    trm_tensor in[5], out = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, r.heads * d}};
    int32_t pages[SEQUENCES][64];
    trm_step_sequence sequences[SEQUENCES];
    trm_kv_layer layers[2] = {{NULL, 0}, {w->cache, trm_kv_page_bytes(kv, s->head_dim, s->dtype)}};
    trm_step step = {.tokens = rows,
                     .sequence_count = count,
                     .sequences_padded = count,
                     .sequences = sequences,
                     .kv_dtype = s->dtype,
                     .layer_count = 2,
                     .layers = layers};
    int64_t address = (int64_t)(uintptr_t)&step;

    for (int i = 0; i < 3; i++) /* 0xff: padding must not matter */
        in[i] = (trm_tensor){
            .dtype = TRM_DTYPE_F32,
            .rank = 2,
            .dims = {rows, (i == 0 ? r.heads : kv) * d},
            .data = memset(w->step[i], 0xff,
                           (size_t)(rows * (i == 0 ? r.heads : kv) * d) * sizeof(float))};
    in[3] = (trm_tensor){.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {1}, .data = &address};
    in[4] = (trm_tensor){.dtype = TRM_DTYPE_NONE};
    if (s->sinks) {
        in[4] = H_TENSOR(TRM_DTYPE_F32, r.heads);
        memcpy(in[4].data, w->sinks + r.first, (size_t)r.heads * sizeof(float));
    }
    out.data = w->step[3];
    memset(out.data, 0xff, (size_t)(rows * r.heads * d) * sizeof(float));
    for (int i = 0; i < count; i++) {
        const piece *p = &pieces[i];
        int at = 0;

        for (int k = 0; k < p->sequence; k++)
            at += s->lengths[k] / TRM_KV_PAGE + 1;
        for (int k = 0; k < s->lengths[p->sequence] / TRM_KV_PAGE + 1; k++)
            pages[i][k] = w->backwards ? w->page_count - 1 - at - k : at + k;
        sequences[i] = (trm_step_sequence){p->row, p->count, p->from, pages[i]};
        for (int t = 0; t < p->count; t++) {
            size_t row = (size_t)(p->row + t), token = (size_t)(p->from + t);

            memcpy((float *)in[0].data + row * (size_t)(r.heads * d),
                   w->q[p->sequence] + (token * (size_t)s->heads + (size_t)r.first) * (size_t)d,
                   (size_t)(r.heads * d) * sizeof(float));
            memcpy((float *)in[1].data + row * (size_t)(kv * d),
                   w->k[p->sequence] + (token * (size_t)s->kv_heads + (size_t)kv_first) * (size_t)d,
                   (size_t)(kv * d) * sizeof(float));
            memcpy((float *)in[2].data + row * (size_t)(kv * d),
                   w->v[p->sequence] + (token * (size_t)s->kv_heads + (size_t)kv_first) * (size_t)d,
                   (size_t)(kv * d) * sizeof(float));
        }
    }
    run_kernel(w, r, in, &out);
    for (int row = 0; row < rows; row++) {
        const float *o = (const float *)out.data + row * r.heads * d;
        bool padding = true;

        for (int i = 0; i < count; i++) {
            const piece *p = &pieces[i];
            int t = row - p->row;

            if (t < 0 || t >= p->count)
                continue;
            padding = false;
            memcpy(w->got[p->sequence] + ((p->from + t) * s->heads + r.first) * d, o,
                   (size_t)(r.heads * d) * sizeof(float));
        }
        for (int i = 0; padding && i < r.heads * d; i++)
            WANT(o[i] == 0.0f, "%s: padding row %d is %g", s->name, row, (double)o[i]);
    }
}

static rank whole(const shape *s)
{
    return (rank){0, s->heads};
}

static size_t elems(const shape *s, int sequence)
{
    return (size_t)(s->lengths[sequence] * s->heads * s->head_dim);
}

/* Every sequence by itself in one step. */
static void alone(world *w)
{
    new_cache(w, whole(w->s));
    for (int i = 0; i < SEQUENCES; i++) {
        piece p = {i, 0, w->s->lengths[i], 0};

        run_step(w, &p, 1, p.count, whole(w->s));
    }
}

static void keep(world *w)
{
    for (int i = 0; i < SEQUENCES; i++) {
        memcpy(w->want[i], w->got[i], elems(w->s, i) * sizeof(float));
        memset(w->got[i], 0xff, elems(w->s, i) * sizeof(float));
    }
}

static void same_bits(const world *w, const char *what)
{
    for (int i = 0; i < SEQUENCES; i++)
        for (size_t e = 0; e < elems(w->s, i); e++)
            WANT(memcmp(&w->got[i][e], &w->want[i][e], sizeof(float)) == 0,
                 "%s, %s: sequence %d, token %zu, element %zu: %.9g, alone %.9g", w->s->name, what,
                 i, e / (size_t)(w->s->heads * w->s->head_dim),
                 e % (size_t)(w->s->heads * w->s->head_dim), (double)w->got[i][e],
                 (double)w->want[i][e]);
}

static float rounded(trm_dtype dtype, float x)
{
    return dtype == TRM_DTYPE_F16    ? trm_f16_to_f32(trm_f32_to_f16(x))
           : dtype == TRM_DTYPE_BF16 ? trm_bf16_to_f32(trm_f32_to_bf16(x))
                                     : x;
}

/* What a cache of bytes makes of a head. */
static void as_bytes(float *x, size_t n)
{
    float most = 0.0f, scale;

    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    scale = most / 127.0f;
    for (size_t i = 0; i < n; i++)
        x[i] = scale > 0.0f ? rintf(x[i] * (1.0f / scale)) * scale : 0.0f;
}

START_TEST(reference)
{
    const shape *s = &shapes[_i];
    world w;

    make_world(&w, s);
    alone(&w);
    for (int i = 0; i < SEQUENCES; i++) {
        size_t n = (size_t)(s->lengths[i] * s->kv_heads * s->head_dim);
        float *k = numbers(n, 0, 0), *v = numbers(n, 0, 0);
        double want[TRMI_LM_HEAD_MAX];
        trm_lm_attention_ref ref = {.tokens = (size_t)s->lengths[i],
                                    .heads = (size_t)s->heads,
                                    .kv_heads = (size_t)s->kv_heads,
                                    .head_dim = (size_t)s->head_dim,
                                    .group = (size_t)(s->heads / s->kv_heads),
                                    .scale = (double)0.3f,
                                    .softcap = (double)s->cap,
                                    .window = (size_t)s->window,
                                    .encoder = s->encoder,
                                    .q = w.q[i],
                                    .k = k,
                                    .v = v,
                                    .sinks = w.sinks};

        for (size_t e = 0; e < n; e++) {
            k[e] = rounded(s->dtype, w.k[i][e]);
            v[e] = rounded(s->dtype, w.v[i][e]);
        }
        for (size_t e = 0; s->dtype == TRM_DTYPE_I8 && e < n; e += (size_t)s->head_dim) {
            as_bytes(k + e, (size_t)s->head_dim);
            as_bytes(v + e, (size_t)s->head_dim);
        }
        for (int t = 0; t < s->lengths[i]; t += t < 20 ? 1 : 9)
            for (int h = 0; h < s->heads; h++) {
                trm_lm_attention_reference(&ref, (size_t)t, (size_t)h, want);
                for (int d = 0; d < s->head_dim; d++) {
                    double got = (double)w.got[i][(t * s->heads + h) * s->head_dim + d];

                    /* scores reach 100: their rounding is in the weights' exponents */
                    WANT(fabs(got - want[d]) <= 2e-5,
                         "%s: sequence %d token %d head %d dim %d: got %.9g, want %.9g", s->name, i,
                         t, h, d, got, want[d]);
                }
            }
    }
}
END_TEST

/* A sequence in steps of `chunk` tokens. */
static void in_chunks(world *w, int chunk)
{
    char what[32];

    new_cache(w, whole(w->s));
    for (int i = 0; i < SEQUENCES; i++)
        for (int at = 0; at < w->s->lengths[i]; at += chunk) {
            int n = w->s->lengths[i] - at < chunk ? w->s->lengths[i] - at : chunk;
            piece p = {i, at, n, 0};

            run_step(w, &p, 1, n, whole(w->s));
        }
    snprintf(what, sizeof(what), "steps of %d", chunk);
    same_bits(w, what);
}

/* All sequences in each step, of different lengths, with rows between them. */
static void mixed(world *w, rank r, bool backwards)
{
    static const int chunks[SEQUENCES] = {23, 1, 5};
    int at[SEQUENCES] = {0};

    new_cache(w, r);
    w->backwards = backwards;
    for (;;) {
        piece p[SEQUENCES];
        int count = 0, row = 3;

        for (int k = 0; k < SEQUENCES; k++) {
            int i = backwards ? SEQUENCES - 1 - k : k;
            int left = w->s->lengths[i] - at[i];
            int n = w->s->encoder ? left : left < chunks[k] ? left : chunks[k];

            if (n == 0)
                continue;
            p[count++] = (piece){i, at[i], n, row};
            at[i] += n;
            row += n + k;
        }
        if (count == 0)
            break;
        run_step(w, p, count, row + 2, r);
    }
    w->backwards = false;
}

START_TEST(steps)
{
    world w;

    make_world(&w, &shapes[_i]);
    alone(&w);
    keep(&w);
    if (!shapes[_i].encoder) {
        in_chunks(&w, 1);
        in_chunks(&w, 7);
        in_chunks(&w, 16);
        in_chunks(&w, 33);
    }
    mixed(&w, whole(w.s), false);
    same_bits(&w, "mixed");
    mixed(&w, whole(w.s), true);
    same_bits(&w, "mixed backwards");
}
END_TEST

START_TEST(team_sizes)
{
    trm_device *two = h_device;
    world w;

    make_world(&w, &shapes[_i]);
    alone(&w);
    keep(&w);
    for (int threads = 1; threads <= 5; threads += 2) {
        ck_assert_int_eq(trm_device_cpu_create(threads, &h_device), TRM_OK);
        alone(&w);
        same_bits(&w, "other threads");
        mixed(&w, whole(w.s), false);
        same_bits(&w, "mixed, other threads");
        trm_device_destroy(h_device);
    }
    h_device = two;
    ck_assert_int_eq(trm_device_cpu_create(2, &two), TRM_OK); /* the team's size again */
    trm_device_destroy(two);
}
END_TEST

START_TEST(heads_split)
{
    const shape *s = &shapes[_i];
    world w;

    make_world(&w, s);
    alone(&w);
    keep(&w);
    for (int ranks = 2; ranks <= 4 && ranks <= s->heads; ranks++) {
        for (int k = 0; k < ranks; k++) {
            rank r = {s->heads * k / ranks, s->heads * (k + 1) / ranks - s->heads * k / ranks};

            mixed(&w, r, k % 2 != 0);
        }
        same_bits(&w, "heads split");
    }
}
END_TEST

/* NaN and infinities of one row stay in it: what comes later in the sequence, in the same block of
 * the cache, must not reach what came before. */
START_TEST(no_leaks)
{
    const shape *s = &shapes[_i];
    world w;
    size_t row;

    if (s->encoder || s->lengths[0] < 40)
        return;
    make_world(&w, s);
    alone(&w);
    keep(&w);
    row = (size_t)(s->kv_heads * s->head_dim);
    for (size_t e = 0; e < row; e++) {
        w.k[0][37 * row + e] = NAN;
        w.v[0][37 * row + e] = e % 2 == 0 ? INFINITY : NAN;
    }
    alone(&w);
    for (size_t e = 0; e < 37 * (size_t)(s->heads * s->head_dim); e++)
        WANT(memcmp(&w.got[0][e], &w.want[0][e], sizeof(float)) == 0,
             "%s: element %zu is %g, was %g", s->name, e, (double)w.got[0][e],
             (double)w.want[0][e]);
    ck_assert(isnan(w.got[0][37 * (size_t)(s->heads * s->head_dim)]));
}
END_TEST

/* Every instruction set gives nearly the same. */
START_TEST(instruction_sets)
{
    static const struct {
        const char *name;
        const trmi_lm_attention *core;
        int isa;
    } cores[] = {{"base", &trmi_lm_attention_base, TRM_ISA_SCALAR},
                 {"avx2", &trmi_lm_attention_avx2, TRM_ISA_AVX2},
                 {"avx512", &trmi_lm_attention_avx512, TRM_ISA_AVX512}};
    static const int dims[] = {2, 16, 30, 64, 80, 100, 128};
    const trm_dtype dtype = (trm_dtype)(TRM_DTYPE_F32 + _i);
    const size_t size = trm_dtype_bytes(dtype);

    for (size_t n = 0; n < sizeof(dims) / sizeof(dims[0]); n++)
        for (int count = 1; count <= TRMI_LM_TILE; count++) {
            size_t d = (size_t)dims[n], stride = trm_align_up(d, 16), all = d * TRMI_LM_BLOCK;
            float *q = numbers(6 * stride, -1, 1), *out[3], top[3][6], sum[3][6];
            trm_tensor keys = h_random(H_TENSOR(dtype, (int64_t)all), -1, 1);
            trm_tensor values = h_random(H_TENSOR(dtype, (int64_t)all), -1, 1);

            for (int c = 0; c < 3 && cores[c].isa <= (int)trmi_cpu_isa(); c++) {
                trmi_lm_tile t = {.count = count,
                                  .head_dim = d,
                                  .q = q,
                                  .stride = stride,
                                  .top = top[c],
                                  .sum = sum[c],
                                  .scale = 1.0f,
                                  .cap = n % 2 == 0 ? 0.0f : 3.0f};

                out[c] = t.out = numbers(6 * stride, 0, 0);
                for (int p = 0; p < TRMI_LM_BLOCK_PAGES; p++) {
                    t.keys[p] = (char *)keys.data + (size_t)p * TRM_KV_PAGE * d * size;
                    t.values[p] = (char *)values.data + (size_t)p * TRM_KV_PAGE * d * size;
                }
                for (int i = 0; i < count; i++) {
                    top[c][i] = -INFINITY;
                    sum[c][i] = 0.0f;
                    t.first[i] = i == 3 ? 60 : 3 * i;
                    t.last[i] = i == 4 ? 12 : 30 + i * 6;
                }
                (dtype == TRM_DTYPE_F32   ? cores[c].core->f32
                 : dtype == TRM_DTYPE_F16 ? cores[c].core->f16
                                          : cores[c].core->bf16)(&t);
                for (size_t i = 0; i < (size_t)count; i++) {
                    if (t.first[i] >= t.last[i])
                        WANT(sum[c][i] == 0.0f && isinf(top[c][i]), "query %zu", i);
                    WANT(fabsf(sum[c][i] - sum[0][i]) <= 1e-5f * sum[0][i], "query %zu", i);
                    for (size_t e = 0; e < d; e++)
                        WANT(fabsf(out[c][i * stride + e] - out[0][i * stride + e]) < 2e-5f,
                             "%s, %zu dims, query %zu, dim %zu: %g, base %g", cores[c].name, d, i,
                             e, (double)out[c][i * stride + e], (double)out[0][i * stride + e]);
                }
            }
        }
}
END_TEST

/* What prepare and run refuse. */
typedef struct refusal {
    const char *attr;
    int64_t value;
    trm_status status;
    const char *says;
} refusal;
static const refusal refusals[] = {
    {"heads", 0, TRM_ERR_INVALID_ARG, "at least 1"},
    {"heads", 5, TRM_ERR_INVALID_ARG, "rows of heads"},
    {"heads", INT64_MAX, TRM_ERR_INVALID_ARG, "at least 1"},
    {"kv_heads", -1, TRM_ERR_INVALID_ARG, "at least 1"},
    {"head_dim", 0, TRM_ERR_INVALID_ARG, "at least 1"},
    {"head_dim", 1024, TRM_ERR_UNSUPPORTED, "at most 512"},
    {"head_dim", INT64_MAX, TRM_ERR_UNSUPPORTED, "at most 512"},
    {"group", 0, TRM_ERR_INVALID_ARG, "group"},
    {"group", 1, TRM_ERR_INVALID_ARG, "group"},
    {"first_head", -1, TRM_ERR_INVALID_ARG, "first_head"},
    {"first_head", 1, TRM_ERR_INVALID_ARG, "first_head"},
    {"layer", -1, TRM_ERR_INVALID_ARG, "layer"},
    {"layer", 2, TRM_ERR_INVALID_ARG, "layer 2 of a cache of 2"},
    {"layer", 0, TRM_ERR_INVALID_ARG, "pages of 0 bytes"},
    {"window", -1, TRM_ERR_INVALID_ARG, "window"},
};

START_TEST(refused)
{
    const refusal *f = &refusals[_i];
    const shape *s = &shapes[1];
    trm_attrs *a = attrs_of(s, whole(s));
    trm_kv_layer layers[2] = {{NULL, 0}, {NULL, trm_kv_page_bytes(2, 64, TRM_DTYPE_F16)}};
    trm_step step = {.kv_dtype = TRM_DTYPE_F16, .layer_count = 2, .layers = layers};
    trm_tensor in[4] = {H_TENSOR(TRM_DTYPE_F32, 3, 512), H_TENSOR(TRM_DTYPE_F32, 3, 128),
                        H_TENSOR(TRM_DTYPE_F32, 3, 128), H_TENSOR(TRM_DTYPE_I64, 1)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 3, 512);
    trm_status st;

    trm_tensor_set_i64(&in[3], 0, (int64_t)(uintptr_t)&step);
    h_int(a, f->attr, f->value);
    st = h_run(TRM_OP_TrmPagedAttention, a, in, 4, &out, 1);
    WANT(st == f->status && strstr(trm_message(), f->says) != NULL, "%s %lld: %d: %s", f->attr,
         (long long)f->value, (int)st, st == TRM_OK ? "" : trm_message());
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm attention");

    tcase_add_loop_test(t, reference, 0, SHAPES);
    tcase_add_loop_test(t, steps, 0, SHAPES);
    tcase_add_loop_test(t, team_sizes, 0, SHAPES);
    tcase_add_loop_test(t, heads_split, 0, SHAPES);
    tcase_add_loop_test(t, no_leaks, 0, SHAPES);
    tcase_add_loop_test(t, instruction_sets, 0, 3);
    tcase_add_loop_test(t, refused, 0, (int)(sizeof(refusals) / sizeof(refusals[0])));
    return h_main("lm attention", t);
}
