/* Paged attention: time of a decode step, a prefill and a step of encoders.
 *
 * usage: lm_attention THREADS [f32|f16|bf16 ...]
 * Decode lines give the bytes of cache read a second (cold: a layer's cache is read once in a pass
 * over many layers, as a model does it); prefill lines the operations a second, counted as 4 *
 * head_dim * (visible positions) a query and head.
 *
 * Build: gcc -O2 -I. tests/bench/lm_attention.c build/release/libtrm_kernels.a
 * build/release/libtrm_base.a -o lm_attention and the libraries those name (dnnl, gomp, m). */
#include "base/team.h"
#include "kernels/device.h"
#include "kernels/language.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench {
    const char *name;
    int heads, kv_heads, head_dim, sequences, tokens, position, layers, window, encoder;
} bench;

static const bench benches[] = {
    {"decode, context 2048, groups of 4", 32, 8, 128, 1, 1, 2047, 16, 0, 0},
    {"decode, context 8192, groups of 4", 32, 8, 128, 1, 1, 8191, 8, 0, 0},
    {"decode, context 2048, groups of 1", 32, 32, 128, 1, 1, 2047, 8, 0, 0},
    {"decode, context 2048, groups of 7", 14, 2, 64, 1, 1, 2047, 24, 0, 0},
    {"decode, context 2048, groups of 8, head 256", 8, 1, 256, 1, 1, 2047, 24, 0, 0},
    {"decode, 16 sequences of 1024", 32, 8, 128, 16, 1, 1023, 4, 0, 0},
    {"decode, 32 sequences of 100", 32, 8, 128, 32, 1, 99, 16, 0, 0},
    {"prefill 512", 32, 8, 128, 1, 512, 0, 1, 0, 0},
    {"prefill 512 at 4096", 32, 8, 128, 1, 512, 4096, 1, 0, 0},
    {"prefill 512, head 64", 32, 8, 64, 1, 512, 0, 1, 0, 0},
    {"prefill 512, head 80, groups of 1", 32, 32, 80, 1, 512, 0, 1, 0, 0},
    {"prefill 512 at 4096, window 1024, head 256", 8, 4, 256, 1, 512, 4096, 1, 1024, 0},
    {"encoder, 16 sequences of 32", 12, 12, 64, 16, 32, 0, 1, 0, 1},
    {"encoder, 1 sequence of 512", 12, 12, 64, 1, 512, 0, 1, 0, 1},
};

/* With one thread its own time: others may load the machine. */
static double now(void)
{
    struct timespec t;

    clock_gettime(trm_team_size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "no memory\n");
        _Exit(1);
    }
    return p;
}

static float *numbers(size_t n)
{
    float *v = need(trm_aligned_malloc(n * sizeof(float)));
    uint32_t seed = 1;

    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    return v;
}

/* Positions that all queries of a sequence see together. */
static double seen(const bench *b)
{
    double all = 0;

    for (int t = 0; t < b->tokens; t++) {
        int n = b->encoder ? b->tokens : b->position + t + 1;

        all += b->window > 0 && n > b->window ? b->window : n;
    }
    return all;
}

static int run(trm_device *device, trm_arena *arena, const bench *b, trm_dtype dtype)
{
    int rows = b->sequences * b->tokens;
    int pages_each = (b->position + b->tokens + TRM_KV_PAGE - 1) / TRM_KV_PAGE;
    size_t page = trm_kv_page_bytes(b->kv_heads, b->head_dim, dtype);
    size_t page_count = (size_t)(b->sequences * pages_each);
    size_t layer_bytes = page_count * page;
    int32_t *pages = need(trm_malloc(page_count, sizeof(*pages)));
    trm_step_sequence *sequences = need(trm_calloc((size_t)b->sequences, sizeof(*sequences)));
    trm_kv_layer *layers = need(trm_calloc((size_t)b->layers, sizeof(*layers)));
    trm_step step = {rows, b->sequences, b->sequences, sequences, dtype, b->layers, layers};
    int64_t address = (int64_t)(uintptr_t)&step;
    trm_kernel **kernels = need(trm_calloc((size_t)b->layers, sizeof(*kernels)));
    float *q = numbers((size_t)(rows * b->heads * b->head_dim));
    float *k = numbers((size_t)(rows * b->kv_heads * b->head_dim));
    float *out = numbers((size_t)(rows * b->heads * b->head_dim));
    unsigned char *cache = need(trm_aligned_malloc(layer_bytes * (size_t)b->layers));
    void *workspace = NULL;
    double best = 1e9, total = 0;
    int reps = 0;

    for (size_t i = 0; i < layer_bytes * (size_t)b->layers / 2; i++)
        ((uint16_t *)(void *)cache)[i] = (uint16_t)(0x3000u + (i * 7919 & 0x8bffu));
    for (size_t i = 0; i < page_count; i++) /* page numbers in no order: 7919 is prime */
        pages[i] = (int32_t)(i * 7919 % page_count);
    for (int i = 0; i < b->sequences; i++)
        sequences[i] =
            (trm_step_sequence){i * b->tokens, b->tokens, b->position, pages + i * pages_each};
    for (int l = 0; l < b->layers; l++) {
        trm_attrs attrs = {NULL, 0, 0};
        trm_tensor in[4] = {
            {TRM_DTYPE_F32, TRM_LAYOUT_PLAIN, 2, {rows, b->heads * b->head_dim}, NULL},
            {TRM_DTYPE_F32, TRM_LAYOUT_PLAIN, 2, {rows, b->kv_heads * b->head_dim}, NULL},
            {TRM_DTYPE_F32, TRM_LAYOUT_PLAIN, 2, {rows, b->kv_heads * b->head_dim}, NULL},
            {TRM_DTYPE_I64, TRM_LAYOUT_PLAIN, 1, {1}, NULL}};
        trm_tensor o = in[0];
        trm_op_desc desc = {.op = TRM_OP_TrmPagedAttention,
                            .attrs = &attrs,
                            .name = "bench",
                            .input_count = 4,
                            .output_count = 1,
                            .inputs = in,
                            .outputs = &o};
        const struct {
            const char *name;
            int value;
        } ints[] = {{"heads", b->heads},
                    {"kv_heads", b->kv_heads},
                    {"head_dim", b->head_dim},
                    {"layer", l},
                    {"window", b->window},
                    {"encoder", b->encoder},
                    {"group", b->heads / b->kv_heads}};

        for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++)
            if (trm_attr_set_int(&attrs, arena, ints[i].name, ints[i].value) != TRM_OK)
                return 1;
        if (trm_attr_set_float(&attrs, arena, "scale", 0.1f) != TRM_OK ||
            device->ops->prepare(device, &desc, &kernels[l]) != TRM_OK) {
            fprintf(stderr, "%s: %s\n", b->name, trm_message());
            return 1;
        }
        if (workspace == NULL)
            workspace = need(trm_aligned_malloc(kernels[l]->workspace_bytes + 64));
        layers[l] = (trm_kv_layer){cache + (size_t)l * layer_bytes, page};
    }
    while (total < 0.4 || reps < 3) {
        const void *in[4] = {q, k, k, &address};
        void *outs[1] = {out};
        double start = now(), took;

        for (int l = 0; l < b->layers; l++)
            if (kernels[l]->ops->run(kernels[l], NULL, in, outs, workspace) != TRM_OK) {
                fprintf(stderr, "%s: %s\n", b->name, trm_message());
                return 1;
            }
        took = now() - start;
        total += took;
        best = took < best ? took : best;
        reps++;
    }
    printf("%-44s %-5s %9.1f us a layer, %6.2f GB/s, %6.1f GFLOP/s\n", b->name,
           b->encoder ? "f32" : trm_dtype_name(dtype), best / b->layers * 1e6,
           (double)layer_bytes * b->layers / best * 1e-9,
           4.0 * seen(b) * b->sequences * b->heads * b->head_dim * b->layers / best * 1e-9);
    for (int l = 0; l < b->layers; l++)
        trm_kernel_destroy(kernels[l]);
    trm_free(pages);
    trm_free(sequences);
    trm_free(layers);
    trm_free(kernels);
    trm_aligned_free(q);
    trm_aligned_free(k);
    trm_aligned_free(out);
    trm_aligned_free(cache);
    trm_aligned_free(workspace);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    trm_device *device;
    trm_arena *arena;

    if (trm_device_cpu_create(threads, &device) != TRM_OK || trm_arena_create(0, &arena) != TRM_OK)
        return 1;
    for (int i = 2; i == 2 || i < argc; i++) {
        trm_dtype dtype = argc > i ? trm_dtype_from_name(argv[i]) : TRM_DTYPE_F16;

        for (size_t k = 0; k < sizeof(benches) / sizeof(benches[0]); k++)
            if (run(device, arena, &benches[k], dtype) != 0)
                return 1;
    }
    trm_arena_destroy(arena);
    trm_device_destroy(device);
    return 0;
}
