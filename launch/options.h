/* Command-line options: each command has a table of rows; the parser checks kinds and ranges and
 * writes to the targets. */
#ifndef TRM_LAUNCH_OPTIONS_H
#define TRM_LAUNCH_OPTIONS_H

#include "kernels/device_open.h"
#include "parallel/planner.h"

typedef enum trm_option_kind {
    TRM_OPTION_FLAG,   /* --name                target: bool */
    TRM_OPTION_INT,    /* --name N              target: int64_t, min..max */
    TRM_OPTION_FLOAT,  /* --name X              target: double */
    TRM_OPTION_STRING, /* --name TEXT           target: const char *; choices: "a|b|c" or NULL */
    TRM_OPTION_BYTES,  /* --name 4GiB           target: int64_t */
    TRM_OPTION_LIST    /* --name A B ..., again target: trm_option_list */
} trm_option_kind;

typedef struct trm_option_list {
    const char **items; /* into argv; array from trm_malloc: trm_options_free_list */
    int count;
} trm_option_list;

typedef struct trm_option {
    const char *name; /* without dashes */
    trm_option_kind kind;
    const char *value_name; /* for help: "N", "FILE" */
    int64_t min, max;       /* INT, BYTES; both 0: any non-negative */
    const char *choices;    /* STRING */
    const char *help;
    void *target; /* already holds the default */
} trm_option;

typedef struct trm_arguments {
    const char *command, *usage; /* "score", "MODEL --input FILE ..." */
    const trm_option *options;
    int option_count;
    int positional_min, positional_max; /* at most 8 */
    const char *positionals[8];
    int positional_count;
    bool help; /* --help was given and printed: return TRM_OK without doing anything */
} trm_arguments;

/* INVALID_ARG names the option, what was given and what would be right (with a near name for a
 * misspelt one). */
TRM_MUST_USE trm_status trm_options_parse(trm_arguments *args, int argc, char **argv);
void trm_options_free_list(trm_option_list *list);

/* Options that commands share: a table takes the rows that mean something to it. TRM_LOG_OPTION is
 * for every command, TRM_DEVICE_OPTIONS for those that compute. */
typedef struct trm_common_options {
    int64_t threads;           /* 0: this rank's share of the node's cores */
    const char *device;        /* kernels/device_open.h */
    const char *dtype;         /* fp32|bf16|fp16; trm_dtype_unsaid: not given, fp32 */
    const char *deterministic; /* layout|off */
    const char *log;           /* NULL: TRM_LOG */
} trm_common_options;
extern const char trm_dtype_unsaid[]; /* "fp32" */
#define TRM_COMMON_DEFAULTS                                                                        \
    {                                                                                              \
        .threads = 0, .device = "auto", .dtype = trm_dtype_unsaid, .deterministic = "layout",      \
        .log = NULL                                                                                \
    }
/* clang-format off */
#define TRM_LOG_OPTION(c)                                                                          \
    {"log", TRM_OPTION_STRING, "LEVEL", 0, 0, "error|warn|info|debug|trace",                       \
     "what to log (warn)", &(c).log}
#define TRM_DEVICE_OPTIONS(c)                                                                      \
    {"threads", TRM_OPTION_INT, "N", 0, 1024, NULL,                                                \
     "threads of this rank (0: its share of the cores)", &(c).threads},                            \
    {"device", TRM_OPTION_STRING, "D", 0, 0, NULL,                                                 \
     "where to compute: auto, cpu, cuda, cuda:0,2 (auto)", &(c).device},                           \
    {"dtype", TRM_OPTION_STRING, "T", 0, 0, "fp32|bf16|fp16",                                      \
     "precision of convolutions and matmuls (fp32; language models on GPUs: as weights)",          \
     &(c).dtype},                                                                                  \
    {"deterministic", TRM_OPTION_STRING, "D", 0, 0, "layout|off",                                  \
     "language models: layout: the same bits in every layout and batch; off: GPUs add in "        \
     "whatever order is fastest (the CPU as layout)", &(c).deterministic},                         \
    TRM_LOG_OPTION(c)
/* clang-format on */

/* Options of commands that run on several ranks. */
typedef struct trm_parallel_options {
    const char *parallel;  /* auto, or data=D,tensor=T,pipeline=P */
    const char *objective; /* throughput|latency */
    int64_t memory;        /* bytes a rank; 0: the device's */
} trm_parallel_options;
#define TRM_PARALLEL_DEFAULTS                                                                      \
    {                                                                                              \
        .parallel = "auto", .objective = "throughput", .memory = 0                                 \
    }
/* clang-format off */
#define TRM_PARALLEL_OPTIONS(c)                                                                    \
    {"parallel", TRM_OPTION_STRING, "LAYOUT", 0, 0, NULL,                                          \
     "data=D,tensor=T,pipeline=P, or auto (auto)", &(c).parallel},                                 \
    {"objective", TRM_OPTION_STRING, "O", 0, 0, "throughput|latency",                              \
     "what auto looks for (throughput)", &(c).objective},                                          \
    {"memory", TRM_OPTION_BYTES, "BYTES", 0, 0, NULL,                                              \
     "limit of a rank, 800MiB (what the device has)", &(c).memory}
/* clang-format on */

/* Into `parallel`, `objective` and `memory_bytes` of the planner's options. */
TRM_MUST_USE trm_status trm_parallel_apply(const trm_parallel_options *c, trm_plan_options *plan);

/* Applies log level; checks the device name. */
TRM_MUST_USE trm_status trm_common_apply(const trm_common_options *c);

#endif
