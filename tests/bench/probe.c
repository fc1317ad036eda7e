/* What the machine can do now: fp32 multiply-adds and memory reads per second, on N threads.
 *
 * usage: probe THREADS    prints {"gflops": F, "gbps": B}. Built by bench.py with -O3 -march=native
 * -fopenmp. FMA: enough independent accumulators to cover the latency of two pipes, the best of
 * several short runs. Memory: the sum of an array far larger than the caches. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
enum { CHAINS = 12, REPEATS = 400000, RUNS = 8 };

static float fma_loop(float seed)
{
    vec a[CHAINS], m, c;
    float sum = 0;

    for (int l = 0; l < LANES; l++) {
        m[l] = 0.999f;
        c[l] = seed;
        for (int i = 0; i < CHAINS; i++)
            a[i][l] = (float)i + seed;
    }
    for (int r = 0; r < REPEATS; r++)
        for (int i = 0; i < CHAINS; i++)
            a[i] = a[i] * m + c;
    for (int i = 0; i < CHAINS; i++)
        for (int l = 0; l < LANES; l++)
            sum += a[i][l];
    return sum;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    size_t count = (size_t)96 << 20; /* floats: 384 MB */
    float *data = malloc(count * sizeof(float)), total = 0;
    double gflops = 0, gbps = 0;

    if (data == NULL || threads < 1)
        return 1;
    omp_set_num_threads(threads);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++)
        data[i] = 1.0f;
    for (int run = 0; run < RUNS; run++) {
        double start = omp_get_wtime(), s;

#pragma omp parallel reduction(+ : total)
        total += fma_loop(1e-3f * (float)run);
        s = omp_get_wtime() - start;
        if (2e-9 * LANES * CHAINS * REPEATS * threads / s > gflops)
            gflops = 2e-9 * LANES * CHAINS * REPEATS * threads / s;
    }
    for (int run = 0; run < 3; run++) {
        double start = omp_get_wtime(), s;
        float sum = 0;

#pragma omp parallel for simd schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < count; i++)
            sum += data[i];
        s = omp_get_wtime() - start;
        total += sum;
        if (4e-9 * (double)count / s > gbps)
            gbps = 4e-9 * (double)count / s;
    }
    free(data);
    /* `total` is printed so that nothing is optimised away */
    printf("{\"gflops\": %.2f, \"gbps\": %.2f, \"check\": %g}\n", gflops, gbps, (double)total);
    return 0;
}
