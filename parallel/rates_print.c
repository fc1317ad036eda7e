/* Rates for people: a few typical sizes, by one thread, the team, and one thread among busy ones.
 */
#include "parallel/rates_impl.h"

typedef struct row {
    const char *name;
    trmi_work work;
    bool by_bytes; /* GB/s instead of Gflop/s */
} row;

static const row rows[] = {
    {"product 1 x 1000 x 2048",
     {.kind = TRMI_DENSE,
      .feature = {1, 1000, 2048, 1, 1, 1},
      .flops = 2.0 * 1000 * 2048,
      .bytes = 4.0 * (2048 + 1000 + 1000 * 2048)},
     false},
    {"product 128 x 768 x 768",
     {.kind = TRMI_DENSE,
      .feature = {128, 768, 768, 1, 1, 1},
      .flops = 2.0 * 128 * 768 * 768,
      .bytes = 4.0 * (2 * 128 * 768 + 768 * 768)},
     false},
    {"product 1024 x 768 x 768",
     {.kind = TRMI_DENSE,
      .feature = {1024, 768, 768, 1, 1, 1},
      .flops = 2.0 * 1024 * 768 * 768,
      .bytes = 4.0 * (2 * 1024 * 768 + 768 * 768)},
     false},
    {"convolution 3x3, 256 channels, 14x14",
     {.kind = TRMI_CONV,
      .feature = {256, 256, 196, 1, 9, 1},
      .flops = 2.0 * 196 * 9 * 256 * 256,
      .bytes = 4.0 * (2 * 196 * 256 + 9 * 256 * 256)},
     false},
    {"convolution 1x1, 256 to 64, 56x56",
     {.kind = TRMI_CONV,
      .feature = {256, 64, 3136, 1, 1, 1},
      .flops = 2.0 * 3136 * 256 * 64,
      .bytes = 4.0 * (3136 * (256 + 64) + 256 * 64)},
     false},
    {"depthwise 3x3, 144 channels, 56x56",
     {.kind = TRMI_DEPTHWISE,
      .feature = {144, 1, 3136, 1, 9, 1},
      .flops = 2.0 * 3136 * 9 * 144,
      .bytes = 4.0 * (2 * 3136 * 144 + 9 * 144)},
     false},
    {"attention, 12 heads of 64, 128 long",
     {.kind = TRMI_ATTENTION,
      .feature = {12, 128, 128, 64, 1, 1},
      .flops = 4.0 * 12 * 128 * 128 * 64,
      .bytes = 4.0 * 4 * 12 * 128 * 64},
     false},
    {"sum of two tensors, 1.5 MB",
     {.kind = TRMI_ADD, .feature = {1.5e6, 1, 1, 1, 1, 1}, .bytes = 1.5e6},
     true},
    {"sum of two tensors, 36 MB",
     {.kind = TRMI_ADD, .feature = {36e6, 1, 1, 1, 1, 1}, .bytes = 36e6},
     true},
};

static double speed(const trm_rates *r, const row *w, int threads, int busy)
{
    double us = trmi_rates_us(r, &w->work, threads, busy, TRM_DTYPE_F32);

    return (w->by_bytes ? w->work.bytes : w->work.flops) / us / 1e3;
}

/* Of an accelerator: fp32, bf16. */
static void print_gpu(const trm_rates *r, FILE *file)
{
    trm_cost_context c = {.rates = r, .threads = 1, .busy_ranks = 1};

    fprintf(file, "rates %s\n  %-38s %10s %12s\n", r->source, "", "fp32", "bf16");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const row *w = &rows[i];
        double much = w->by_bytes ? w->work.bytes : w->work.flops;

        fprintf(file, "  %-38s %10.1f", w->name,
                much / trmi_gpu_us(r, &w->work, TRM_DTYPE_F32, 1) / 1e3);
        if (w->by_bytes)
            fprintf(file, " %12s GB/s\n", "");
        else
            fprintf(file, " %12.1f Gflop/s\n",
                    much / trmi_gpu_us(r, &w->work, TRM_DTYPE_BF16, 0.5) / 1e3);
    }
    fprintf(file, "  %-38s %10.1f %12.1f Tflop/s\n", "large products",
            r->gpu.gflops[0] * r->gpu.dense[0] / 1e3, r->gpu.gflops[1] * r->gpu.dense[1] / 1e3);
    fprintf(file, "  its memory                             %.0f GB/s\n", r->gpu.gb_s);
    fprintf(file, "  from a kernel to the next              %.1f us\n", r->gpu.gap_us);
    fprintf(file, "  copy between device and host           %.1f us + %.1f us a MiB\n",
            r->gpu.copy_us, 1048.576 / r->gpu.copy_gb_s);
    fprintf(file, "  all-reduce of 8 devices (%s)%*s %.1f us, of 64 MiB %.0f us\n",
            r->gpu.link == TRMI_CARD_NVLINK ? "NVLink" : "PCIe",
            r->gpu.link == TRMI_CARD_NVLINK ? 6 : 8, "",
            trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, 8, 16384),
            trm_cost_collective_us(&c, TRM_COLLECTIVE_ALLREDUCE, 8, (size_t)64 << 20));
}

void trm_rates_print(const trm_rates *r, FILE *file)
{
    const trmi_line *sum = &r->link[TRM_LINK_HOST][0], *message = &r->link[TRM_LINK_HOST][1];
    char team[24];

    if (r->gpu.is) {
        print_gpu(r, file);
        return;
    }
    snprintf(team, sizeof(team), "%d threads", r->threads);
    fprintf(file, "rates %s\n", r->source);
    fprintf(file, "  %-38s %10s", "", "1 thread");
    if (r->cpus > 1)
        fprintf(file, " %12s %12s", team, "1, rest busy");
    fputc('\n', file);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const row *w = &rows[i];

        fprintf(file, "  %-38s %10.1f", w->name, speed(r, w, 1, 1));
        if (r->cpus > 1)
            fprintf(file, " %12.1f %12.1f", speed(r, w, r->threads, 1), speed(r, w, 1, r->cpus));
        fprintf(file, " %s\n", w->by_bytes ? "GB/s" : "Gflop/s");
    }
    if (r->read_us_mb[0][0] > 0) {
        fprintf(file, "  %-38s %10.1f", "reading weights, 192 MiB in turn",
                1048.576 / r->read_us_mb[0][TRMI_REACHES - 1]);
        if (r->read_us_mb[1][0] > 0)
            fprintf(file, " %12.1f %12s", 1048.576 / r->read_us_mb[1][TRMI_REACHES - 1], "");
        fprintf(file, " GB/s\n");
    }
    if (r->bf16[0] > 0)
        fprintf(file, "  %-38s %10.1f\n", "bf16 products, times as fast", 1 / r->bf16[0]);
    fprintf(file, "  all-reduce of 2 ranks of this host     %.1f us + %.1f us a MiB\n", sum->alpha,
            sum->beta * 1048576);
    fprintf(file, "  message between ranks of this host     %.1f us + %.1f us a MiB\n",
            message->alpha, message->beta * 1048576);
    if (r->sample_count > 0 && r->undisturbed < 0.85)
        fprintf(
            file,
            "  the machine was busy: the probe had %.0f %% of a CPU; --measure on a quiet one\n",
            100 * r->undisturbed);
}
