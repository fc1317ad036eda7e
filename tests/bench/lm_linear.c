/* How fast products of language models run here: weights read a second with few rows, operations a
 * second with many, beside a plain read of memory and the vector units' peak.
 *
 *   lm_linear [-n N] [-k K] [-m M] [-t threads] [-d dtype] [-r repeats] [-l leaves]
 *
 * Without -d: every float type of this machine's level and below. Best of the repeats; enough
 * copies of the weight are walked that caches do not serve them where M is small. */
#define _GNU_SOURCE
#include "kernels/cpu/lm_linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* With one thread its own time: others may load the machine. */
static double now(void)
{
    struct timespec t;

    clock_gettime(trm_team_size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct read_job {
    const uint64_t *from;
    uint64_t sum[64];
} read_job;

static void read_part(void *ctx, size_t begin, size_t end)
{
    read_job *job = ctx;
    uint64_t s[8] = {0};

    for (size_t i = begin * 8; i < end * 8; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] += job->from[i + j];
    for (size_t j = 1; j < 8; j++)
        s[0] += s[j];
    __atomic_fetch_add(&job->sum[0], s[0], __ATOMIC_RELAXED);
}

static void bench_read(int repeats)
{
    size_t bytes = (size_t)256 << 20;
    uint64_t *block = trm_aligned_malloc(bytes);
    read_job job = {.from = block};
    double best = 1e9;

    if (block == NULL)
        return;
    memset(block, 1, bytes);
    for (int i = 0; i < repeats; i++) {
        double t = now();

        trm_team_for(bytes / 64, 1, read_part, &job);
        t = now() - t;
        best = t < best ? t : best;
    }
    printf("plain read: %.1f GB/s (%llx)\n", (double)bytes / best * 1e-9,
           (unsigned long long)job.sum[0] & 0xf);
    trm_aligned_free(block);
}

typedef struct setup {
    size_t n, k, m;
    int repeats;
    size_t leaves;
} setup;

static void bench(const trmi_lm_type *type, const setup *s)
{
    trmi_lm_weight w = trmi_lm_weight_of(type, s->n, s->k, NULL);
    size_t bytes = trmi_lm_weight_bytes(&w);
    size_t copies = s->m < 64 ? 1 + ((size_t)192 << 20) / bytes : 1;
    unsigned char *data = trm_aligned_malloc(bytes * copies);
    size_t row_bytes =
        s->k / trm_dtype_block_elems(type->dtype) * trm_dtype_block_bytes(type->dtype);
    unsigned char *file = trm_calloc(s->n, row_bytes);
    float *x = trm_calloc(s->m * s->k, sizeof(float)),
          *out = trm_calloc(s->m * s->n, sizeof(float));
    size_t stride = trmi_lm_row_stride(type, s->k);
    void *converted = trm_aligned_malloc(stride * s->m + 64);
    const void **rows = trm_calloc(s->m, sizeof(*rows));
    double best = 1e9, packing = 0;
    trmi_lm_leaves leaves;

    if (data == NULL || file == NULL || x == NULL || out == NULL || converted == NULL ||
        rows == NULL ||
        trmi_lm_leaves_init(&leaves, s->k, s->leaves > 0 ? s->k / s->leaves : 0, 0,
                            (int64_t)s->leaves) != TRM_OK) {
        printf("%s: no memory, or leaves do not divide K\n", type->name);
        goto done;
    }
    for (size_t i = 0; i < s->n * row_bytes; i++)
        file[i] = (unsigned char)(i * 2654435761u >> 24) & 0x3f;
    for (size_t i = 0; i < s->m * s->k; i++)
        x[i] = (float)(i % 17) - 8.0f;
    for (size_t c = 0; c < copies; c++) {
        packing = now();
        trmi_lm_weight_pack(&w, file, row_bytes, 0, data + c * bytes);
        packing = now() - packing;
    }
    for (int i = 0; i < s->repeats; i++) {
        double t = now();

        for (size_t c = 0; c < copies; c++) {
            trmi_lm_product p = {.weight = &w,
                                 .leaves = &leaves,
                                 .rows = rows,
                                 .m = s->m,
                                 .out = out,
                                 .out_stride = s->n};

            w.data = data + c * bytes;
            trmi_lm_rows_convert(type, x, s->k, s->m, s->k, converted, rows);
            trmi_lm_products_run(&p, 1);
        }
        t = (now() - t) / (double)copies;
        best = t < best ? t : best;
    }
    printf("%-22s N %zu K %zu M %zu: %8.1f us, %6.1f GB/s of weights, %7.1f GFLOP/s; packs at %.2f "
           "GB/s\n",
           type->name, s->n, s->k, s->m, best * 1e6, (double)bytes / best * 1e-9,
           2e-9 * (double)(s->n * s->k * s->m) / best, (double)bytes / packing * 1e-9);
done:
    trm_aligned_free(data);
    trm_free(file);
    trm_free(x);
    trm_free(out);
    trm_aligned_free(converted);
    trm_free(rows);
}

int main(int argc, char **argv)
{
    setup s = {4096, 4096, 1, 5, 0};
    trm_dtype dtype = TRM_DTYPE_NONE;
    int threads = 1, option;

    while ((option = getopt(argc, argv, "n:k:m:t:d:r:l:")) != -1) {
        long long v = optarg != NULL ? strtoll(optarg, NULL, 10) : 0;

        switch (option) {
        case 'n':
            s.n = (size_t)v;
            break;
        case 'k':
            s.k = (size_t)v;
            break;
        case 'm':
            s.m = (size_t)v;
            break;
        case 't':
            threads = (int)v;
            break;
        case 'd':
            dtype = trm_dtype_from_name(optarg);
            break;
        case 'r':
            s.repeats = (int)v;
            break;
        case 'l':
            s.leaves = (size_t)v;
            break;
        default:
            return 2;
        }
    }
    trm_team_init(threads);
    bench_read(s.repeats);
    for (int i = 0; trmi_lm_type_at(i) != NULL; i++) {
        const trmi_lm_type *type = trmi_lm_type_at(i);

        if (type->isa <= trmi_cpu_isa() && (dtype == TRM_DTYPE_NONE || type->dtype == dtype) &&
            s.k % trm_dtype_block_elems(type->dtype) == 0)
            bench(type, &s);
    }
    return 0;
}
