/* The CUDA backend's paged attention against the CPU's, over sequences of steps, and its bits: a
 * row's do not depend on how its sequence is cut into steps, on what else is in the step, on T, on
 * who merges splits, or on how heads are dealt to ranks. */
#include "kernels/cuda/lm_step.h"
#include "kernels/language.h"
#include "tests/cuda/cuda_kit.h"

#define SEQUENCES 3
#define LAYER 1
#define F32 TRM_DTYPE_F32
#define F16 TRM_DTYPE_F16
#define BF16 TRM_DTYPE_BF16
#define I8 TRM_DTYPE_I8

/* Check notes every assertion: too slow for one an element. */
#define WANT(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

static const struct shape {
    const char *name, *kernel, *kv_dtype;
    trm_dtype dtype;
    int heads, kv_heads, head_dim, window;
    float cap;
    bool encoder, sinks;
    int rotary; /* elements of a head that are turned; negative: interleaved */
    int lengths[SEQUENCES];
    double atol; /* numbers are in [-1, 1]; q is exact in 16 bits unless it is turned: what is left
                    is the rounding of weights */
} shapes[] = {
    /* clang-format off */
    {"f32, 64", "simt", "f32", F32, 4, 2, 64, 0, 0, false, false, 0, {290, 40, 17}, 1e-6},
    {"f32, 20, window, cap", "simt", "f32", F32, 4, 1, 20, 290, 3, false, true, 0, {530, 20, 5}, 1e-6},
    {"f32, 37", "simt", "f32", F32, 2, 2, 37, 0, 0, false, false, 20, {270, 40, 17}, 1e-6},
    {"f32, 160", "simt", "f32", F32, 3, 1, 160, 0, 0, false, false, 0, {30, 9, 1}, 1e-6},
    {"f32, 512", "simt", "f32", F32, 2, 1, 512, 0, 0, false, false, 0, {20, 9, 1}, 1e-6},
    {"f16, 24", "simt", "f16", F16, 4, 2, 24, 0, 0, false, false, 0, {270, 40, 17}, 1e-6},
    {"i8, 40", "simt", "i8", I8, 2, 1, 40, 0, 0, false, false, 0, {270, 40, 17}, 1e-6},
    {"f16, 32", "mma", "f16", F16, 2, 2, 32, 0, 0, false, true, 0, {530, 40, 17}, 3e-4},
    {"f16, 80, turned", "mma", "f16", F16, 4, 1, 80, 0, 0, false, false, 80, {270, 40, 17}, 7e-4},
    {"bf16, 64, groups of 8", "mma", "bf16", BF16, 8, 1, 64, 0, 0, false, false, 0, {300, 70, 17}, 2.5e-3},
    {"bf16, 128, window", "mma", "bf16", BF16, 4, 1, 128, 100, 0, false, false, 0, {290, 40, 17}, 2.5e-3},
    {"bf16, 64, window 300, cap", "mma", "bf16", BF16, 3, 1, 64, 300, 2, false, true, 0, {560, 40, 17}, 2.5e-3},
    {"bf16, 96, turned", "mma", "bf16", BF16, 2, 2, 96, 0, 0, false, false, -48, {270, 40, 17}, 4e-3},
    {"bf16, 256", "mma", "bf16", BF16, 2, 1, 256, 0, 0, false, false, 0, {270, 20, 17}, 2.5e-3},
    {"i8, 64", "mma", "i8", I8, 4, 2, 64, 0, 0, false, false, 0, {270, 40, 17}, 2.5e-3},
    {"i8, 128, window", "mma", "i8", I8, 2, 1, 128, 70, 0, false, false, 64, {110, 40, 17}, 4e-3},
    {"i8, 160", "mma", "i8", I8, 2, 1, 160, 0, 0, false, false, 64, {70, 40, 17}, 4e-3},
    {"encoder f32", "simt", "f32", F32, 2, 2, 64, 0, 0, true, false, 0, {270, 7, 90}, 1e-6},
    {"encoder bf16", "mma", "bf16", BF16, 4, 2, 64, 0, 0, true, false, 0, {270, 7, 90}, 2.5e-3},
    {"encoder f16, turned", "mma", "f16", F16, 2, 2, 32, 0, 0, true, false, 32, {70, 7, 90}, 7e-4},
    /* clang-format on */
};
#define SHAPES (int)(sizeof(shapes) / sizeof(shapes[0]))

/* Numbers of a shape; turned: q and k as the CPU's TrmRope makes them. */
typedef struct world {
    const struct shape *s;
    float *q[SEQUENCES], *k[SEQUENCES], *v[SEQUENCES], *q_turned[SEQUENCES], *k_turned[SEQUENCES];
    float *want[SEQUENCES], *got[SEQUENCES], *sinks, *frequencies;
    int page_count, page_first[SEQUENCES];
    size_t page_bytes;
    unsigned char *cache; /* of the device that runs */
    trm_device *device;
    bool fused;    /* the kernel turns q and k */
    bool together; /* items of splits are put together again */
} world;

static float *numbers(size_t n)
{
    float *v = trm_arena_alloc_aligned(kit_arena, (n + 1) * sizeof(float));

    for (size_t i = 0; i < n; i++)
        v[i] = (float)floor(kit_uniform(-64, 65)) / 64.0f;
    return v;
}

static int rotary_of(const struct shape *s)
{
    return abs(s->rotary);
}

/* TrmRope on the CPU over `heads` heads of a sequence. */
static float *turned(const world *w, float *x, int tokens, int heads)
{
    const struct shape *s = w->s;
    int half = rotary_of(s) / 2;
    trm_attrs *a = kit_attrs();
    trm_tensor results[1] = {{.dtype = TRM_DTYPE_NONE}};
    cuda_case c = {.name = s->name,
                   .op = TRM_OP_TrmRope,
                   .attrs = a,
                   .in = {KIT_T(TRM_DTYPE_F32, tokens, heads * s->head_dim),
                          kit_data(KIT_T(TRM_DTYPE_I32, tokens)), KIT_T(TRM_DTYPE_F32, half)},
                   .out = {KIT_T(TRM_DTYPE_F32, tokens, heads * s->head_dim)},
                   .in_count = 3,
                   .out_count = 1};

    if (half == 0)
        return x;
    kit_int(a, "head_dim", s->head_dim);
    kit_int(a, "interleaved", s->rotary < 0);
    kit_float(a, "scale", 1.125f);
    c.in[0].data = x;
    c.in[2].data = w->frequencies;
    for (int i = 0; i < tokens; i++)
        trm_tensor_set_i64(&c.in[1], (size_t)i, i);
    KIT_OK(kit_run(&c, kit_cpu, results));
    return results[0].data;
}

static void make_world(world *w, const struct shape *s)
{
    memset(w, 0, sizeof(*w));
    w->s = s;
    kit_name = s->name;
    w->frequencies = numbers((size_t)(rotary_of(s) / 2));
    for (int i = 0; i < rotary_of(s) / 2; i++)
        w->frequencies[i] = powf(10000.0f, -2.0f * (float)i / (float)rotary_of(s));
    for (int i = 0; i < SEQUENCES; i++) {
        size_t n = (size_t)(s->lengths[i] * s->head_dim);

        w->q[i] = numbers(n * (size_t)s->heads);
        w->k[i] = numbers(n * (size_t)s->kv_heads);
        w->v[i] = numbers(n * (size_t)s->kv_heads);
        w->q_turned[i] = turned(w, w->q[i], s->lengths[i], s->heads);
        w->k_turned[i] = turned(w, w->k[i], s->lengths[i], s->kv_heads);
        w->want[i] = numbers(n * (size_t)s->heads);
        w->got[i] = numbers(n * (size_t)s->heads);
        w->page_first[i] = w->page_count;
        w->page_count += s->lengths[i] / TRM_KV_PAGE + 1;
    }
    w->sinks = s->sinks ? numbers((size_t)s->heads) : NULL;
    w->fused = true;
}

/* `count` tokens of a sequence from `from` on, in rows from `row` on. */
typedef struct piece {
    int sequence, from, count, row;
} piece;
/* Heads [first, first + heads): a rank's. */
typedef struct rank {
    int first, heads;
} rank;

static rank whole(const world *w)
{
    return (rank){0, w->s->heads};
}

static int rank_kv(const struct shape *s, rank r, int *kv_first)
{
    int group = s->heads / s->kv_heads;

    *kv_first = r.first / group;
    return (r.first + r.heads - 1) / group - *kv_first + 1;
}

static trm_attrs *attrs_of(const world *w, rank r, const char *kv_dtype)
{
    const struct shape *s = w->s;
    trm_attrs *a = kit_attrs();
    int unused;

    kit_int(a, "heads", r.heads);
    kit_int(a, "kv_heads", rank_kv(s, r, &unused));
    kit_int(a, "head_dim", s->head_dim);
    kit_int(a, "group", s->heads / s->kv_heads);
    kit_int(a, "first_head", r.first);
    kit_int(a, "window", s->window);
    kit_int(a, "layer", LAYER);
    kit_int(a, "encoder", s->encoder ? 1 : 0);
    kit_float(a, "scale", 3.0f / sqrtf((float)s->head_dim));
    kit_float(a, "softcap", s->cap);
    kit_int(a, "rope_interleaved", s->rotary < 0);
    kit_float(a, "rope_scale", 1.125f);
    kit_string(a, "kv_dtype", kv_dtype);
    return a;
}

/* A cache full of NaN on a device, for this rank. */
static void new_cache(world *w, trm_device *d, rank r)
{
    int unused, kv = rank_kv(w->s, r, &unused);
    size_t bytes;
    void *garbage;

    if (w->cache != NULL)
        w->device->ops->free(w->device, TRM_MEMORY_DEVICE, w->cache);
    w->device = d;
    w->page_bytes = trm_kv_page_bytes(kv, w->s->head_dim, w->s->dtype);
    bytes = w->page_bytes * (size_t)w->page_count;
    w->cache = kit_device_memory(d, bytes);
    garbage = trm_arena_alloc_aligned(kit_arena, bytes);
    memset(garbage, 0xff, bytes);
    KIT_OK(d->ops->copy_in(d, NULL, w->cache, garbage, bytes));
    kit_wait(d);
}

static void free_cache(world *w)
{
    w->device->ops->free(w->device, TRM_MEMORY_DEVICE, w->cache);
    w->cache = NULL;
}

/* Every row's splits in one item, as where partial results do not fit. */
static void put_together(trmi_lm_block *b)
{
    trmi_lm_item *items = (trmi_lm_item *)(void *)((unsigned char *)b + b->items_at);
    int32_t kept = 0;

    for (int32_t i = 0; i < b->item_count + b->wide_count; i++) {
        trmi_lm_item item = items[i];

        if (item.slot >= 0 && item.split_begin > 0) {
            items[kept - 1].split_end = item.split_end;
            continue;
        }
        item.slot = -1;
        items[kept++] = item;
    }
    b->item_count = kept - b->wide_count;
    b->merge_count = 0;
}

/* What a kernel gets as `step`: on the CPU the trm_step itself. */
static void *step_memory(world *w, trm_step *step, const int64_t *address, size_t *positions_at)
{
    trm_device *d = w->device;
    size_t bytes, room = 1 << 20;
    void *host, *memory;

    if (d == kit_cpu) {
        memory = kit_device_memory(d, sizeof(*address));
        memcpy(memory, address, sizeof(*address));
        return memory;
    }
    host = trm_arena_alloc_aligned(kit_arena, room);
    KIT_OK(d->ops->step_encode(d, step, host, room, &bytes));
    if (w->together)
        put_together(host);
    memory = kit_device_memory(d, bytes);
    KIT_OK(d->ops->step_send(d, NULL, step, memory, host, bytes));
    kit_wait(d);
    *positions_at = d->ops->step_input_at(d, step, TRM_STEP_POSITIONS);
    return memory;
}

static void *to_device(trm_device *d, const float *x, size_t n)
{
    void *p = kit_device_memory(d, n * sizeof(float));

    KIT_OK(d->ops->copy_in(d, NULL, p, x, n * sizeof(float)));
    kit_wait(d);
    return p;
}

/* The kernel on what is in `host` (q, k, v, sinks), to `out`. */
static void run_kernel(world *w, rank r, trm_step *step, float *const *host, float *out)
{
    const struct shape *s = w->s;
    trm_device *d = w->device;
    int unused, kv = rank_kv(s, r, &unused), rows = step->token_rows, half = rotary_of(s) / 2;
    int64_t address = (int64_t)(uintptr_t)step;
    bool fused = w->fused && half > 0 && d == kit_gpu;
    trm_tensor in[7] = {KIT_T(TRM_DTYPE_F32, rows, r.heads * s->head_dim),
                        KIT_T(TRM_DTYPE_F32, rows, kv * s->head_dim),
                        KIT_T(TRM_DTYPE_F32, rows, kv * s->head_dim),
                        KIT_T(TRM_DTYPE_I64, 1),
                        KIT_T(s->sinks ? TRM_DTYPE_F32 : TRM_DTYPE_NONE, r.heads),
                        KIT_T(fused ? TRM_DTYPE_I32 : TRM_DTYPE_NONE, rows),
                        KIT_T(fused ? TRM_DTYPE_F32 : TRM_DTYPE_NONE, half)};
    trm_tensor result = in[0];
    trm_op_desc desc = {.op = TRM_OP_TrmPagedAttention,
                        .attrs = attrs_of(w, r, s->kv_dtype),
                        .name = "test",
                        .input_count = fused ? 7 : 5,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &result};
    void *memory[9] = {NULL}, *out_data[1];
    const void *in_data[7] = {NULL};
    size_t positions_at = 0, n = (size_t)(rows * r.heads * s->head_dim);
    trm_kernel *k = NULL;

    KIT_OK(d->ops->prepare(d, &desc, &k));
    if (d == kit_gpu)
        WANT(strstr(k->ops->name, s->kernel) != NULL, "%s: runs '%s'", s->name, k->ops->name);
    for (int i = 0; i < 3; i++)
        memory[i] = to_device(d, host[i], trm_tensor_numel(&in[i]));
    memory[3] = step_memory(w, step, &address, &positions_at);
    if (s->sinks)
        memory[4] = to_device(d, host[3], (size_t)r.heads);
    if (fused)
        memory[6] = to_device(d, w->frequencies, (size_t)half);
    memory[7] = kit_device_memory(d, k->workspace_bytes);
    memory[8] = out_data[0] = to_device(d, out, n);
    for (int i = 0; i < 7; i++)
        in_data[i] = memory[i];
    if (fused)
        in_data[5] = (char *)memory[3] + positions_at;
    KIT_OK(k->ops->run(k, NULL, in_data, out_data, memory[7]));
    kit_wait(d);
    KIT_OK(d->ops->copy_out(d, NULL, out, out_data[0], n * sizeof(float)));
    kit_wait(d);
    for (int i = 0; i < 9; i++)
        d->ops->free(d, TRM_MEMORY_DEVICE, memory[i]);
    trm_kernel_destroy(k);
}

/* Runs pieces as one step of `rows` rows; results go to w->got. */
static void run_step(world *w, const piece *pieces, int count, int rows, rank r)
{
    const struct shape *s = w->s;
    int kv_first, kv = rank_kv(s, r, &kv_first), dim = s->head_dim;
    bool raw = w->fused && w->device == kit_gpu;
    size_t sizes[3] = {(size_t)(rows * r.heads * dim), (size_t)(rows * kv * dim),
                       (size_t)(rows * kv * dim)};
    float *host[4] = {numbers(sizes[0]), numbers(sizes[1]), numbers(sizes[2]),
                      s->sinks ? w->sinks + r.first : NULL};
    float *out = numbers(sizes[0]);
    int32_t *positions = trm_arena_alloc(kit_arena, (size_t)rows, sizeof(*positions));
    int32_t *ids = trm_arena_alloc(kit_arena, (size_t)rows, sizeof(*ids)), pages[SEQUENCES][64];
    trm_step_sequence sequences[SEQUENCES];
    trm_kv_layer layers[LAYER + 1] = {{NULL, 0}};
    trm_step step = {.tokens = rows,
                     .sequence_count = count,
                     .sequences_padded = count,
                     .sequences = sequences,
                     .kv_dtype = s->dtype,
                     .layer_count = LAYER + 1,
                     .layers = layers,
                     .token_rows = rows,
                     .token_max = rows + 5,
                     .token_ids = ids,
                     .positions = positions};

    layers[LAYER] = (trm_kv_layer){w->cache, w->page_bytes};
    for (int i = 0; i < 3; i++)
        memset(host[i], 0xff, sizes[i] * sizeof(float)); /* padding must not matter */
    memset(out, 0xff, sizes[0] * sizeof(float));
    for (int i = 0; i < count; i++) {
        const piece *p = &pieces[i];
        const float *q = (raw ? w->q : w->q_turned)[p->sequence];
        const float *k = (raw ? w->k : w->k_turned)[p->sequence], *v = w->v[p->sequence];

        for (int n = 0; n < s->lengths[p->sequence] / TRM_KV_PAGE + 1; n++) /* backwards */
            pages[i][n] = w->page_count - 1 - w->page_first[p->sequence] - n;
        sequences[i] = (trm_step_sequence){p->row, p->count, p->from, s->encoder ? NULL : pages[i]};
        for (int t = 0; t < p->count; t++) {
            int row = p->row + t, token = p->from + t;

            positions[row] = token;
            memcpy(host[0] + row * r.heads * dim, q + (token * s->heads + r.first) * dim,
                   (size_t)(r.heads * dim) * sizeof(float));
            memcpy(host[1] + row * kv * dim, k + (token * s->kv_heads + kv_first) * dim,
                   (size_t)(kv * dim) * sizeof(float));
            memcpy(host[2] + row * kv * dim, v + (token * s->kv_heads + kv_first) * dim,
                   (size_t)(kv * dim) * sizeof(float));
        }
    }
    run_kernel(w, r, &step, host, out);
    for (int row = 0; row < rows; row++) {
        const float *o = out + row * r.heads * dim;
        bool padding = true;

        for (int i = 0; i < count; i++) {
            const piece *p = &pieces[i];

            if (row < p->row || row >= p->row + p->count)
                continue;
            padding = false;
            memcpy(w->got[p->sequence] + ((p->from + row - p->row) * s->heads + r.first) * dim, o,
                   (size_t)(r.heads * dim) * sizeof(float));
        }
        for (int i = 0; padding && i < r.heads * dim; i++)
            WANT(o[i] == 0.0f, "%s: padding row %d is %g", s->name, row, (double)o[i]);
    }
}

/* Every sequence by itself in one step. */
static void alone(world *w, trm_device *d)
{
    new_cache(w, d, whole(w));
    for (int i = 0; i < SEQUENCES; i++) {
        piece p = {i, 0, w->s->lengths[i], 0};

        run_step(w, &p, 1, p.count, whole(w));
    }
}

static void keep(world *w)
{
    for (int i = 0; i < SEQUENCES; i++) {
        size_t n = (size_t)(w->s->lengths[i] * w->s->heads * w->s->head_dim);

        memcpy(w->want[i], w->got[i], n * sizeof(float));
        memset(w->got[i], 0xff, n * sizeof(float));
    }
}

static bool same_bits(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(float)) == 0;
}

static void compare(const world *w, const char *what, double atol)
{
    const struct shape *s = w->s;

    for (int i = 0; i < SEQUENCES; i++)
        for (int e = 0; e < s->lengths[i] * s->heads * s->head_dim; e++) {
            const float *got = &w->got[i][e], *want = &w->want[i][e];

            WANT(atol > 0 ? fabs((double)*got - (double)*want) <= atol : same_bits(got, want),
                 "%s, %s: sequence %d, token %d, head %d, dim %d: %.9g, want %.9g", s->name, what,
                 i, e / s->head_dim / s->heads, e / s->head_dim % s->heads, e % s->head_dim,
                 (double)*got, (double)*want);
        }
}

/* The first sequence in steps of 100 (wide tiles) up to its last tokens, which follow in steps of 7
 * and 1 with the ends of the others; those are prefilled together. */
static void mixed(world *w, rank r)
{
    const struct shape *s = w->s;
    int end[SEQUENCES], at[SEQUENCES] = {0};

    new_cache(w, kit_gpu, r);
    for (int i = 0; i < SEQUENCES; i++) { /* few steps: surplus blocks take time here */
        int last = i == 0 ? 10 : 4;

        end[i] = s->lengths[i] > last ? s->lengths[i] - last : 0;
    }
    while (at[0] < end[0]) {
        int left = end[0] - at[0];
        piece p = {0, at[0], left < 100 ? left : 100, 2};

        run_step(w, &p, 1, p.count + 3, r);
        at[0] += p.count;
    }
    if (end[1] + end[2] > 0) {
        piece p[2] = {{2, 0, end[2], 0}, {1, 0, end[1], end[2] + 1}};

        at[1] = end[1];
        at[2] = end[2];
        run_step(w, p, 2, end[1] + end[2] + 1, r);
    }
    for (;;) {
        piece p[SEQUENCES];
        int count = 0, row = 0;

        for (int i = SEQUENCES - 1; i >= 0; i--) {
            int left = s->lengths[i] - at[i], n = i == 0 && left > 6 ? 7 : 1;

            if (left == 0)
                continue;
            p[count++] = (piece){i, at[i], n, row};
            at[i] += n;
            row += n;
        }
        if (count == 0)
            break;
        run_step(w, p, count, row + (row % 2), r);
    }
}

START_TEST(cpu)
{
    const struct shape *s = &shapes[_i];
    world w;

    make_world(&w, s);
    alone(&w, kit_cpu);
    keep(&w);
    alone(&w, kit_gpu);
    compare(&w, "as the CPU", s->atol);
    free_cache(&w);
}
END_TEST

START_TEST(bits)
{
    const struct shape *s = &shapes[_i];
    world w;

    make_world(&w, s);
    alone(&w, kit_gpu);
    keep(&w);
    if (s->rotary != 0) {
        w.fused = false;
        alone(&w, kit_gpu);
        compare(&w, "turned before", 0);
        w.fused = true;
    }
    if (s->encoder) {
        piece p[SEQUENCES] = {{1, 0, s->lengths[1], 1}};

        p[1] = (piece){2, 0, s->lengths[2], 1 + s->lengths[1]};
        p[2] = (piece){0, 0, s->lengths[0], p[1].row + s->lengths[2]};
        run_step(&w, p, SEQUENCES, p[2].row + s->lengths[0] + 2, whole(&w));
        compare(&w, "together", 0);
    } else {
        mixed(&w, whole(&w));
        compare(&w, "mixed", 0);
        w.together = true;
        for (int k = 0; k < 2; k++) {
            rank r = {s->heads * k / 2, s->heads * (k + 1) / 2 - s->heads * k / 2};

            mixed(&w, r);
        }
        compare(&w, "heads dealt to ranks, splits together", 0);
    }
    free_cache(&w);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm attention");

    tcase_add_loop_test(t, cpu, 0, SHAPES);
    tcase_add_loop_test(t, bits, 0, SHAPES);
    return kit_main("cuda lm attention", t);
}
