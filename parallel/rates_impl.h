/* Inside the rates: what a node is to the cost model, and what was measured.
 *
 * A node is work of a class with a few sizes ("features"). Its time is a baseline, the same formula
 * for every machine of a kind (a fixed cost, multiply-adds at a peak rate, bytes at a bandwidth),
 * times a correction, which is interpolated between measured samples of the class: in the
 * logarithms of features and of measured/baseline, by inverse distance. At a sample the measured
 * time comes out; far from all samples the correction of the class as a whole. */
#ifndef TRM_PARALLEL_RATES_IMPL_H
#define TRM_PARALLEL_RATES_IMPL_H

#include "parallel/rates.h"
#include "parallel/rates_devices.h"

#define TRMI_FEATURES 6
#define TRMI_SAMPLES_MAX 400

typedef enum trmi_class {
    TRMI_DENSE,     /* m, n, k: a product with one right-hand matrix */
    TRMI_PRODUCT,   /* m, n, k, batch: products of two batches of matrices */
    TRMI_CONV,      /* in, out channels, output pixels, images, taps, stride */
    TRMI_CONV_FEW,  /* the same, at most 4 input channels */
    TRMI_DEPTHWISE, /* channels, 1, output pixels, images, taps, stride */
    TRMI_GROUPED,   /* in, out channels of a group, output pixels, images, taps, groups */
    TRMI_CONV_UP,   /* transposed: in, out channels, output pixels, images, taps, stride */
    TRMI_ATTENTION, /* heads of all images, query, key length, head dim */
    TRMI_RECURRENT, /* steps, batch, input, hidden size */
    TRMI_ADD,       /* from here on: bytes read and written, then what matters beside them */
    TRMI_MATH,      /* bytes: transcendental functions */
    TRMI_NORM,      /* bytes, row */
    TRMI_SOFTMAX,   /* bytes, row */
    TRMI_POOL,      /* bytes, taps */
    TRMI_REDUCE,    /* bytes */
    TRMI_MOVE,      /* bytes: transposes, slices, concatenations, padding */
    TRMI_GATHER,    /* bytes moved, row */
    TRMI_OTHER,     /* bytes: what is not measured */
    TRMI_LANGUAGE,  /* products and attention of language models: what is longer, multiply-adds or
                       bytes; not measured */
    TRMI_CLASSES
} trmi_class;

typedef struct trmi_work {
    trmi_class kind;
    double feature[TRMI_FEATURES]; /* >= 1 */
    double flops;                  /* 2 a multiply-add */
    double bytes;                  /* read and written once */
    double weights;                /* of those, weights */
} trmi_work;

/* What a node does. False: nothing (views, shape arithmetic). */
bool trmi_work_of(const trm_node *node, const trm_tensor *in, const trm_tensor *out,
                  trmi_work *work_out);
const char *trmi_class_name(trmi_class c);

/* In a step a kernel is slower than when it is run again and again: its code and tables are cold
 * too. Step over sum of its kernels, four networks, batch 1 and 8, one thread: 1.06 to 1.18
 * (ResNet-50, BERT-base, MobileNetV2, ViT-B/16; 2 cores of a Xeon with AVX-512, 2026-11-21). */
#define TRMI_IN_STEP 1.1

typedef enum trmi_case {
    TRMI_ALONE,   /* one thread */
    TRMI_TEAM,    /* all threads */
    TRMI_CROWDED, /* one thread, with every other CPU doing the same */
    TRMI_CASES
} trmi_case;

typedef struct trmi_sample {
    trmi_work work;
    double us[TRMI_CASES]; /* 0: not measured */
} trmi_sample;

#define TRMI_REACHES 4
#define TRMI_REACH_SAMPLES 1 /* 32 MiB */
extern const double trmi_reach_mib[TRMI_REACHES];

typedef struct trmi_line { /* alpha + beta * bytes, microseconds */
    double alpha, beta;
} trmi_line;

/* An accelerator (rates_gpu.c). Peaks come from a data sheet or a probe; what of them is reached is
 * assumed or from a probe. */
typedef struct trmi_gpu {
    bool is; /* costs are an accelerator's */
    int multiprocessors;
    double gflops[2], int8_gops; /* peaks: fp32, 16 bits; int8 */
    double gb_s;                 /* of its memory, reached */
    double dense[2], conv[2];    /* share of the peak that large products and convolutions reach */
    double gap_us;               /* from one kernel to the next inside a captured graph */
    double copy_gb_s, copy_us;   /* to or from pinned host memory, each copy */
    trmi_card_link link;         /* to the other devices of the host */
    double link_gb_s;            /* a direction */
    trm_rates *host;             /* of the CPU beside it: operators without a kernel run there */
} trmi_gpu;
#define TRMI_GPU_RESERVE                                                                           \
    ((size_t)600 << 20) /* a CUDA context with the code of cuBLASLt, cuDNN and                     \
                           NCCL; a tenth of small memories */

struct trm_rates {
    char source[96];
    char machine[160]; /* CPU, number, instruction set, program version: the key of the cache */
    char date[16];     /* of the measurement */
    size_t memory_bytes;
    int cpus;    /* of the machine */
    int threads; /* of TRMI_TEAM */
#define TRMI_QUIET 0.85
    int probes;         /* that were merged */
    double undisturbed; /* share of a CPU that the probe got while it used one; 1: quiet */
    /* the baseline, per thread */
    double gflops[2];   /* f32, bf16 */
    double gb_s;        /* of one thread */
    double gb_s_all;    /* of the machine */
    double fixed_us;    /* of a kernel */
    double dispatch_us; /* of a node, by the executor */
    double bf16[2];     /* bf16 time / f32 time of large dense work: one thread, the team */
    /* us to read a MiB when so many are read in turn (trmi_reach_mib): one thread, the team.
     * Samples are of weights read at TRMI_REACH_SAMPLES; in a large model they come from further
     * away. 0: not measured */
    double read_us_mb[2][TRMI_REACHES];
    trmi_line link[TRM_LINK_KINDS][2]; /* collectives of two ranks (bytes of one contribution),
                                          messages */
    int sample_count;
    trmi_sample *samples;
    trmi_gpu gpu;
};

/* ---- accelerators: rates_gpu.c ---- */
/* Built-in rates made those of a card by its data sheet. */
TRM_MUST_USE trm_status trmi_gpu_from_card(trm_rates *r, const trmi_card *card);
/* Microseconds of work whose fp32 bytes count `scale` times (0.5: they are 16 bits). */
double trmi_gpu_us(const trm_rates *r, const trmi_work *w, trm_dtype dtype, double scale);
/* A node; as trm_cost_node_us. Without a kernel: the time of the CPU; copies are not counted. */
double trmi_gpu_node_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                        const trm_tensor *out, bool fused);
double trmi_gpu_collective_us(const trm_cost_context *c, trm_collective kind, int ranks,
                              size_t bytes);
/* rates_language.c: operators of language models, which are the device's whatever its table has.
 * False: it is none of them. */
bool trmi_gpu_language_us(const trm_cost_context *c, const trm_node *node, const trm_tensor *in,
                          const trm_tensor *out, double *us_out);
/* What the device's fused forms make part of another kernel: the node, or the gap before it. */
typedef enum trmi_absorbed { TRMI_ABSORBED_NOT, TRMI_ABSORBED, TRMI_ABSORBED_GAP } trmi_absorbed;
trmi_absorbed trmi_gpu_language_absorbed(const trm_graph *g, int node);
double trmi_gpu_language_gap_us(const trm_rates *r);
/* One copy between the device and its host. */
double trmi_gpu_copy_us(const trm_rates *r, double bytes);
/* rates_gpu_probe.c: measures through the device's operations for about `budget_ms`; what cannot be
 * measured stays as it is. */
TRM_MUST_USE trm_status trmi_gpu_probe(trm_device *device, int budget_ms, trm_rates *r);

TRM_MUST_USE trm_status trmi_rates_builtin(trm_rates **rates_out); /* a plain CPU */
void trmi_rates_plain_cpu(trm_rates *r, int cpus);
void trmi_rates_dated(trm_rates *r); /* measured today */
/* Fills samples, team size, bf16, links; measures for about budget_ms, on a busy machine at most
 * twice that. Changes the size of the team and leaves it as it was. */
TRM_MUST_USE trm_status trmi_rates_probe(int budget_ms, trm_rates *r);

/* Fills the lines of TRM_LINK_HOST. */
TRM_MUST_USE trm_status trmi_rates_probe_links(trm_rates *r);

/* A node of one operator with everything a device's `prepare` wants: what the probe measures. */
typedef struct trmi_trial {
    trm_node node;
    trm_tensor in[8], out[4]; /* data: constants */
    int warm;                 /* bit i: input i has just been made (in the cache) */
} trmi_trial;
int trmi_trial_count(void);
bool trmi_trial_crowded(int i); /* also measured with all CPUs busy */
/* Constants point into `data` (data_bytes at least TRMI_TRIAL_BYTES); attributes into `arena`. */
#define TRMI_TRIAL_BYTES ((size_t)40 << 20)
TRM_MUST_USE trm_status trmi_trial_make(int i, trm_dtype dtype, void *data, trm_arena *arena,
                                        trmi_trial *trial_out);
/* Path of the cache file of `machine`; NULL: no place for one. trm_free. */
char *trmi_rates_cache_path(const char *machine);
/* NOT_FOUND: none there; BAD_FILE: torn, foreign, another version. */
TRM_MUST_USE trm_status trmi_rates_load(const char *path, trm_rates *r);
TRM_MUST_USE trm_status trmi_rates_store(const char *path, const trm_rates *r);
/* Adds what `other` measured of the same machine: the least time of a sample is the truest. */
void trmi_rates_merge(trm_rates *r, const trm_rates *other);
/* Microseconds of work on one rank. */
double trmi_rates_us(const trm_rates *r, const trmi_work *w, int threads, int busy_ranks,
                     trm_dtype dtype);
/* What reading the weights costs beyond what the samples hold, in a step that reads step_bytes in
 * all; 0: a lot. */
double trmi_rates_far_us(const trm_rates *r, const trmi_work *w, int threads, int busy_ranks,
                         size_t step_bytes);
/* What the other samples say of this one. */
double trmi_rates_expect(const trm_rates *r, const trmi_sample *sample, trmi_case which);

#endif
