/* bench_language.c: bench of a language model. */
#ifndef TRM_LAUNCH_BENCH_LANGUAGE_H
#define TRM_LAUNCH_BENCH_LANGUAGE_H

#include "launch/lm_options.h"

typedef struct trm_bench_language {
    trm_ranks *ranks;
    trm_common_options *common;
    const trm_parallel_options *parallel;
    const trm_lm_cli *cli;
    const char *path;
    int64_t batch, prompt_tokens, new_tokens, warmup, rounds, seed;
    bool json, profile;
} trm_bench_language;

TRM_MUST_USE trm_status trm_bench_language_on_ranks(const trm_bench_language *o);

#endif
