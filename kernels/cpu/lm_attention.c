/* TrmPagedAttention: prepare, and how a step's work is divided.
 *
 * A run writes the step's keys and values to their pages (encoders: to pages of the workspace),
 * then attends. A task is a sequence, a key/value head and a run of that head's queries (rows times
 * the query heads that share it): it walks the blocks of the cache that its queries see, all its
 * tiles on one block before the next, so that a block is fetched once. Tasks are dealt to threads
 * by what they cost; workspace is a thread's, whatever the context's length. */
#include "kernels/cpu/lm_attention.h"
#include "kernels/cpu/lm_kv.h"
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/lm_step.h"
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

#define QUERIES 48             /* of a task: their outputs stay in the second-level cache */
#define ENCODER_PAGES_MORE 64  /* pages of an encoder's workspace besides one a 16 rows */
#define WORK_OF_THREAD 16384   /* queries times positions, times head_dim / 64, worth a thread */
#define WRITES_OF_THREAD 65536 /* elements */

typedef struct attention_kernel {
    trm_kernel base;
    size_t rows, heads, kv_heads, head_dim, stride, group, first_head, window;
    float scale, cap;
    int layer;
    bool encoder, sinks;
    size_t threads, scratch_floats;                 /* of one thread */
    size_t seen_at, scratch_at, pages_at, page_max; /* workspace */
} attention_kernel;

typedef struct attention_job {
    const attention_kernel *k;
    const trm_step *step;
    const float *q, *key, *value, *sinks;
    float *out;
    unsigned char *pages; /* of the layer, or of the workspace */
    size_t page_bytes;
    trm_dtype dtype;
    const trmi_lm_attention *core;
    trmi_lm_attend_fn attend;
    float *scratch;
    int sequence_begin, sequence_end;
    size_t queries_max, parts, cost;
} attention_job;

/* Query heads [*first, *last) of this rank that read local kv head `c`. */
static void heads_of(const attention_kernel *k, size_t c, size_t *first, size_t *last)
{
    size_t begin = (k->first_head / k->group + c) * k->group, end = begin + k->group;

    *first = begin > k->first_head ? begin - k->first_head : 0;
    *last = end > k->first_head ? end - k->first_head : 0;
    *last = *last < k->heads ? *last : k->heads;
    *first = *first < *last ? *first : *last;
}

/* First page of an encoder's sequence in the workspace. */
static size_t encoder_page(const attention_job *job, int sequence)
{
    size_t page = 0;

    for (int i = job->sequence_begin; i < sequence; i++)
        page += (size_t)(job->step->sequences[i].tokens + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
    return page;
}

/* Keys (values: half 1) of local kv head c in page `index` of a sequence; `base`: encoder_page. */
static unsigned char *page_of(const attention_job *job, const trm_step_sequence *q, size_t base,
                              size_t index, int half, size_t c)
{
    const attention_kernel *k = job->k;
    size_t page = k->encoder ? base + index : (size_t)q->pages[index];
    size_t head = TRM_KV_PAGE * k->head_dim * trm_dtype_bytes(job->dtype);

    head += job->dtype == TRM_DTYPE_I8 ? TRM_KV_PAGE * sizeof(float) : 0;

    return job->pages + page * job->page_bytes + ((size_t)half * k->kv_heads + c) * head;
}

/* ---- writing ---- */

/* Keys and values of `n` tokens of one page, from column `at` on, all kv heads. key, value: the
 * first token's rows. */
static void write_page(const attention_job *job, const trm_step_sequence *q, size_t base,
                       size_t index, size_t at, size_t n, const float *key, const float *value)
{
    const attention_kernel *k = job->k;
    size_t row = k->kv_heads * k->head_dim;

    for (size_t c = 0; c < k->kv_heads; c++)
        trmi_lm_kv_write(job->dtype, k->head_dim, page_of(job, q, base, index, 0, c),
                         page_of(job, q, base, index, 1, c), at, n, key + c * k->head_dim,
                         value + c * k->head_dim, row);
}

/* Tokens [begin, end) of those of the job's sequences, counted one after the other. */
static void write_range(void *ctx, size_t begin, size_t end)
{
    const attention_job *job = ctx;
    size_t row = job->k->kv_heads * job->k->head_dim, at = 0;

    for (int i = job->sequence_begin; i < job->sequence_end && at < end; i++) {
        const trm_step_sequence *q = &job->step->sequences[i];
        size_t tokens = (size_t)q->tokens, base = job->k->encoder ? encoder_page(job, i) : 0;
        size_t t = begin > at ? begin - at : 0, last = end - at < tokens ? end - at : tokens;

        while (t < last) {
            size_t position = (job->k->encoder ? 0 : (size_t)q->position) + t;
            size_t in_page = position % TRM_KV_PAGE, n = TRM_KV_PAGE - in_page;
            size_t from = ((size_t)q->row + t) * row;

            n = n < last - t ? n : last - t;
            write_page(job, q, base, position / TRM_KV_PAGE, in_page, n, job->key + from,
                       job->value + from);
            t += n;
        }
        at += tokens;
    }
}

/* ---- attending ---- */

typedef struct task {
    const trm_step_sequence *q;
    size_t base, c; /* encoder_page, local kv head */
    size_t head_first, heads;
    size_t query_begin, query_end; /* query: (row of the sequence) * heads + head */
} task;

/* Positions [*lo, *hi) that row `row` of the sequence sees. */
static void sees(const attention_kernel *k, const trm_step_sequence *q, size_t row, size_t *lo,
                 size_t *hi)
{
    size_t position = (size_t)q->position + row;

    *lo = !k->encoder && k->window > 0 && position + 1 > k->window ? position + 1 - k->window : 0;
    *hi = k->encoder ? (size_t)q->tokens : position + 1;
}

/* A task's queries, in a thread's scratch. */
typedef struct query_set {
    size_t count, lo, hi; /* positions that any of them sees */
    float *q, *out;       /* [QUERIES][stride] */
    float *wide;          /* bytes: keys and values of a block as fp32 */
    float top[QUERIES], sum[QUERIES];
    size_t first[QUERIES], last[QUERIES], row[QUERIES], head[QUERIES];
} query_set;

/* A block's pages of bytes as fp32, once for all tiles. */
static void widen_block(const attention_job *job, trmi_lm_tile *tile, float *wide)
{
    const size_t dims = job->k->head_dim, page = TRM_KV_PAGE * dims;

    for (size_t p = 0; p < TRMI_LM_BLOCK_PAGES; p++) {
        float *keys = wide + 2 * p * page, *values = keys + page;

        job->core->widen_keys(dims, tile->keys[p], keys);
        job->core->widen_values(dims, tile->values[p], values);
        tile->keys[p] = keys;
        tile->values[p] = values;
        tile->next[p] = NULL;
    }
}

static void attend_block(const attention_job *job, const task *t, size_t block, query_set *s)
{
    const attention_kernel *k = job->k;
    size_t tiles = (s->count + TRMI_LM_TILE - 1) / TRMI_LM_TILE, begin = block * TRMI_LM_BLOCK;
    size_t per = (s->count + tiles - 1) / tiles;
    size_t page_first = s->lo / TRM_KV_PAGE, page_last = (s->hi - 1) / TRM_KV_PAGE;
    trmi_lm_tile tile = {
        .head_dim = k->head_dim, .stride = k->stride, .scale = k->scale, .cap = k->cap};

    for (size_t p = 0; p < TRMI_LM_BLOCK_PAGES; p++) {
        size_t index = block * TRMI_LM_BLOCK_PAGES + p;

        index = index < page_first ? page_first : index > page_last ? page_last : index;
        tile.keys[p] = page_of(job, t->q, t->base, index, 0, t->c);
        tile.values[p] = page_of(job, t->q, t->base, index, 1, t->c);
        index = (block + 1) * TRMI_LM_BLOCK_PAGES + p;
        if (index <= page_last)
            tile.next[p] = page_of(job, t->q, t->base, index, 0, t->c);
    }
    tile.ahead = job->dtype != TRM_DTYPE_I8;
    if (job->dtype == TRM_DTYPE_I8)
        widen_block(job, &tile, s->wide);
    for (size_t at = 0; at < s->count; at += per) {
        size_t n = s->count - at < per ? s->count - at : per;
        bool any = false;

        for (size_t i = 0; i < n; i++) {
            size_t from = s->first[at + i] > begin ? s->first[at + i] - begin : 0;
            size_t to = s->last[at + i] > begin ? s->last[at + i] - begin : 0;

            tile.first[i] = (int)(from < TRMI_LM_BLOCK ? from : TRMI_LM_BLOCK);
            tile.last[i] = (int)(to < TRMI_LM_BLOCK ? to : TRMI_LM_BLOCK);
            any |= tile.first[i] < tile.last[i];
        }
        if (!any)
            continue;
        tile.count = (int)n;
        tile.q = s->q + at * k->stride;
        tile.out = s->out + at * k->stride;
        tile.top = s->top + at;
        tile.sum = s->sum + at;
        job->attend(&tile);
        tile.ahead = false;
        memset(tile.next, 0, sizeof(tile.next));
    }
}

static void attend_task(const attention_job *job, const task *t, float *scratch)
{
    const attention_kernel *k = job->k;
    size_t token = t->query_begin / t->heads, head = t->query_begin % t->heads;
    query_set s = {.count = t->query_end - t->query_begin,
                   .q = scratch,
                   .out = scratch + QUERIES * k->stride,
                   .wide = scratch + 2 * QUERIES * k->stride};

    for (size_t i = 0; i < s.count; i++) {
        sees(k, t->q, token, &s.first[i], &s.last[i]);
        s.row[i] = (size_t)t->q->row + token;
        s.head[i] = t->head_first + head;
        memcpy(s.q + i * k->stride, job->q + (s.row[i] * k->heads + s.head[i]) * k->head_dim,
               k->head_dim * sizeof(float));
        s.top[i] = job->sinks != NULL ? job->sinks[s.head[i]] : -INFINITY;
        s.sum[i] = s.top[i] > -INFINITY ? 1.0f : 0.0f;
        if (++head == t->heads) {
            head = 0;
            token++;
        }
    }
    s.lo = s.first[0];
    s.hi = s.last[s.count - 1];
    memset(s.out, 0, s.count * k->stride * sizeof(float));
    for (size_t block = s.lo / TRMI_LM_BLOCK; block * TRMI_LM_BLOCK < s.hi; block++)
        attend_block(job, t, block, &s);
    for (size_t i = 0; i < s.count; i++) {
        float *to = job->out + (s.row[i] * k->heads + s.head[i]) * k->head_dim;
        const float *from = s.out + i * k->stride, inverse = 1.0f / s.sum[i];

        for (size_t d = 0; d < k->head_dim; d++)
            to[d] = from[d] * inverse;
    }
}

/* What a task costs, in queries times positions. A block costs its fetch however few queries
 * there are. */
static size_t task_cost(const attention_kernel *k, const task *t)
{
    size_t queries = t->query_end - t->query_begin, lo, hi, unused;

    sees(k, t->q, t->query_begin / t->heads, &lo, &unused);
    sees(k, t->q, (t->query_end - 1) / t->heads, &unused, &hi);
    return (queries < 4 ? 4 : queries) * (hi - lo + TRMI_LM_BLOCK / 2);
}

/* Calls fn on every task in order, with what those before it cost. */
typedef void (*task_fn)(void *ctx, const attention_job *job, const task *t, size_t before);
static size_t walk(const attention_job *job, task_fn fn, void *ctx)
{
    size_t cost = 0;
    task t = {.base = 0};

    for (int i = job->sequence_begin; i < job->sequence_end; i++) {
        t.q = &job->step->sequences[i];
        for (t.c = 0; t.c < job->k->kv_heads; t.c++) {
            size_t last, queries;

            heads_of(job->k, t.c, &t.head_first, &last);
            t.heads = last - t.head_first;
            queries = t.heads * (size_t)t.q->tokens;
            for (size_t at = 0; at < queries; at = t.query_end) {
                t.query_begin = at;
                t.query_end = queries - at < job->queries_max ? queries : at + job->queries_max;
                if (fn != NULL)
                    fn(ctx, job, &t, cost);
                cost += task_cost(job->k, &t);
            }
        }
        if (job->k->encoder)
            t.base += (size_t)(t.q->tokens + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
    }
    return cost;
}

typedef struct part {
    size_t begin, end; /* of the cost */
    float *scratch;
} part;

static void part_task(void *ctx, const attention_job *job, const task *t, size_t before)
{
    const part *p = ctx;

    if (before >= p->begin && before < p->end)
        attend_task(job, t, p->scratch);
}

static void attend_range(void *ctx, size_t begin, size_t end)
{
    const attention_job *job = ctx;

    for (size_t i = begin; i < end; i++) {
        part p = {.begin = job->cost / job->parts * i,
                  .end = i + 1 == job->parts ? job->cost : job->cost / job->parts * (i + 1),
                  .scratch = job->scratch + i * job->k->scratch_floats};

        walk(job, part_task, &p);
    }
}

/* Sequences [sequence_begin, sequence_end). */
static void attend_sequences(attention_job *job)
{
    const attention_kernel *k = job->k;
    size_t tokens = 0, pairs = 0, most = 1, row = 2 * k->kv_heads * k->head_dim;

    for (int i = job->sequence_begin; i < job->sequence_end; i++) {
        size_t queries = (size_t)job->step->sequences[i].tokens * k->group;

        tokens += (size_t)job->step->sequences[i].tokens;
        pairs += k->kv_heads;
        most = queries > most ? queries : most;
    }
    trm_team_for(tokens, 1 + WRITES_OF_THREAD / row, write_range, job);
    job->queries_max = QUERIES;
    job->cost = walk(job, NULL, NULL);
    /* all threads or none: OpenMP's team is made anew when its size changes */
    job->parts = job->cost * (1 + k->head_dim / 64) < 2 * WORK_OF_THREAD ? 1 : k->threads;
    if (pairs > 0 &&
        pairs * ((most + QUERIES - 1) / QUERIES) < job->parts) { /* smaller tasks, one a thread */
        size_t each = (job->parts + pairs - 1) / pairs;

        job->queries_max = (most + each - 1) / each;
        job->cost = walk(job, NULL, NULL);
    }
    trm_team_for(job->parts, 1, attend_range, job);
}

/* ---- the kernel ---- */

static trm_status settle_cache(attention_job *job)
{
    const attention_kernel *k = job->k;
    const trm_kv_layer *layer;

    if (k->layer >= job->step->layer_count)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmPagedAttention: layer %d of a cache of %d",
                        k->layer, (int)job->step->layer_count);
    layer = &job->step->layers[k->layer];
    job->dtype = job->step->kv_dtype;
    if (job->dtype != TRM_DTYPE_F32 && job->dtype != TRM_DTYPE_I8 && !trmi_is_half(job->dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmPagedAttention: a cache of %s: want f32, f16, bf16 or i8",
                        trm_dtype_name(job->dtype));
    job->pages = layer->pages;
    job->page_bytes = layer->page_bytes;
    if (job->page_bytes !=
        trm_kv_page_bytes((int64_t)k->kv_heads, (int64_t)k->head_dim, job->dtype))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmPagedAttention: layer %d has pages of %zu bytes: %zu heads of %zu %s",
                        k->layer, job->page_bytes, k->kv_heads, k->head_dim,
                        trm_dtype_name(job->dtype));
    return TRM_OK;
}

/* Rows that no sequence has become zeros. */
static void clear_others(const attention_job *job, unsigned char *seen)
{
    const attention_kernel *k = job->k;
    size_t bytes = k->heads * k->head_dim * sizeof(float);

    memset(seen, 0, k->rows);
    for (int i = 0; i < job->step->sequence_count; i++)
        memset(seen + job->step->sequences[i].row, 1, (size_t)job->step->sequences[i].tokens);
    for (size_t r = 0; r < k->rows; r++)
        if (!seen[r])
            memset((char *)job->out + r * bytes, 0, bytes);
}

static trm_status attention_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const attention_kernel *k = (const attention_kernel *)base;
    unsigned char *w = workspace;
    attention_job job = {.k = k,
                         .q = in[0],
                         .key = in[1],
                         .value = in[2],
                         .sinks = k->sinks ? in[4] : NULL,
                         .out = out[0],
                         .dtype = TRM_DTYPE_F32,
                         .scratch = (float *)(void *)(w + k->scratch_at)};
    trm_isa isa = trmi_cpu_isa();
    const trmi_lm_attention *core = isa >= TRM_ISA_AVX512 ? &trmi_lm_attention_avx512
                                    : isa >= TRM_ISA_AVX2 ? &trmi_lm_attention_avx2
                                                          : &trmi_lm_attention_base;

    (void)s;
    TRM_CHECK(trmi_lm_step(in[3], k->rows, &job.step));
    if (k->encoder) {
        job.pages = w + k->pages_at;
        job.page_bytes =
            trm_kv_page_bytes((int64_t)k->kv_heads, (int64_t)k->head_dim, TRM_DTYPE_F32);
    } else {
        TRM_CHECK(settle_cache(&job));
    }
    job.core = core;
    job.attend = job.dtype == TRM_DTYPE_F16    ? core->f16
                 : job.dtype == TRM_DTYPE_BF16 ? core->bf16
                                               : core->f32;
    clear_others(&job, w + k->seen_at);
    while (job.sequence_begin < job.step->sequence_count) {
        size_t pages = 0;

        job.sequence_end = k->encoder ? job.sequence_begin : job.step->sequence_count;
        while (job.sequence_end < job.step->sequence_count) {
            pages += (size_t)(job.step->sequences[job.sequence_end].tokens + TRM_KV_PAGE - 1) /
                     TRM_KV_PAGE;
            if (pages > k->page_max)
                break;
            job.sequence_end++;
        }
        attend_sequences(&job);
        job.sequence_begin = job.sequence_end;
    }
    return TRM_OK;
}

static const trm_kernel_ops attention_ops = {
    .name = "lm attention", .run = attention_run, .destroy = trmi_kernel_free};

static trm_status bad(const trm_op_desc *desc, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "TrmPagedAttention '%s': %s", desc->name, what);
}

static trm_status settle(attention_kernel *k, const trm_op_desc *desc)
{
    const trm_attrs *a = desc->attrs;
    int64_t heads = trm_attr_int(a, "heads", 0), kv_heads = trm_attr_int(a, "kv_heads", 0);
    int64_t head_dim = trm_attr_int(a, "head_dim", 0);
    int64_t group = trm_attr_int(a, "group", kv_heads > 0 ? heads / kv_heads : 0);
    int64_t first = trm_attr_int(a, "first_head", 0), layer = trm_attr_int(a, "layer", 0);
    int64_t window = trm_attr_int(a, "window", 0), rows = desc->inputs[0].dims[0];

    if (heads < 1 || kv_heads < 1 || head_dim < 1 || heads > INT32_MAX || kv_heads > INT32_MAX)
        return bad(desc, "heads, kv_heads and head_dim must be at least 1");
    if (head_dim > TRMI_LM_HEAD_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmPagedAttention '%s': heads of %lld elements: at most %d", desc->name,
                        (long long)head_dim, TRMI_LM_HEAD_MAX);
    for (int i = 0; i < 3; i++)
        if (desc->inputs[i].dims[0] != rows ||
            desc->inputs[i].dims[1] != (i == 0 ? heads : kv_heads) * head_dim)
            return bad(desc, "q, k and v do not have rows of heads * head_dim");
    if (!trm_tensor_same_shape(&desc->inputs[0], &desc->outputs[0]))
        return bad(desc, "the output must have the shape of q");
    if (desc->inputs[3].dims[0] < 1 || (k->sinks && desc->inputs[4].dims[0] != heads))
        return bad(desc, "step must have an element, sinks one a head");
    if (group < 1 || first < 0 || first > INT32_MAX ||
        (first + heads - 1) / group - first / group >= kv_heads)
        return bad(desc, "group and first_head ask for key heads that are not there");
    if (layer < 0 || layer > INT32_MAX || window < 0)
        return bad(desc, "layer and window must be 0 or more");
    k->encoder = trm_attr_int(a, "encoder", 0) != 0;
    if (k->encoder && window > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmPagedAttention '%s': a window in an encoder",
                        desc->name);
    k->rows = (size_t)rows;
    k->heads = (size_t)heads;
    k->kv_heads = (size_t)kv_heads;
    k->head_dim = (size_t)head_dim;
    k->group = (size_t)group;
    k->first_head = (size_t)first;
    k->layer = (int)layer;
    k->window = (size_t)window;
    k->scale = trm_attr_float(a, "scale", 1.0f);
    k->cap = trm_attr_float(a, "softcap", 0.0f);
    return TRM_OK;
}

trm_status trmi_prepare_lm_attention_plain(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    attention_kernel *k;
    size_t bytes;
    trm_status st;

    TRM_CHECK(trmi_lm_begin(desc, 2));
    for (int i = 0; i < 3; i++)
        TRM_CHECK(trmi_lm_want(desc, i, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_want(desc, 3, TRM_DTYPE_I64, 1));
    if (trmi_has_input(desc, 4))
        TRM_CHECK(trmi_lm_want(desc, 4, TRM_DTYPE_F32, 1));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &attention_ops, &k));
    k->sinks = trmi_has_input(desc, 4);
    TRM_TRY(st, settle(k, desc), fail);
    k->threads = (size_t)cpu->threads;
    k->stride = trm_align_up(k->head_dim, 16);
    k->scratch_floats = 2 * QUERIES * k->stride + 2 * TRMI_LM_BLOCK * k->head_dim;
    k->scratch_floats = trm_align_up(k->scratch_floats, 16);
    k->scratch_at = trm_align_up(k->rows, TRM_ALIGN);
    k->pages_at = k->scratch_at + k->threads * k->scratch_floats * sizeof(float);
    k->base.workspace_bytes = k->pages_at;
    if (k->encoder) {
        k->page_max = (k->rows + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
        k->page_max += k->rows < ENCODER_PAGES_MORE ? k->rows : ENCODER_PAGES_MORE;
        if (!trm_mul_ok(
                k->page_max,
                trm_kv_page_bytes((int64_t)k->kv_heads, (int64_t)k->head_dim, TRM_DTYPE_F32),
                &bytes) ||
            !trm_add_ok(bytes, k->pages_at, &k->base.workspace_bytes)) {
            st = bad(desc, "too large");
            goto fail;
        }
    }
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
