/* Options of commands that run language models: one table for all of them. */
#ifndef TRM_LAUNCH_LM_OPTIONS_H
#define TRM_LAUNCH_LM_OPTIONS_H

#include "launch/ranks.h"
#include "worker/language/lm_model.h"
#include "worker/language/request.h"

typedef struct trm_lm_cli {
    /* the engine */
    int64_t context, kv_cache, max_batch, step_tokens, decode_ms;
    const char *kv_dtype; /* NULL: auto */
    const char *chat_template;
    bool no_prefix_cache;
    /* sampling; -1, NAN or NULL: not given */
    int64_t max_tokens, min_tokens, top_k, logprobs, seed;
    double temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty,
        frequency_penalty;
    bool ignore_eos;
    trm_option_list stop;
} trm_lm_cli;

#define TRM_LM_CLI_DEFAULTS                                                                        \
    {                                                                                              \
        .max_tokens = -1, .min_tokens = -1, .top_k = -1, .logprobs = -1, .seed = -1,               \
        .temperature = NAN, .top_p = NAN, .min_p = NAN, .typical_p = NAN,                          \
        .repetition_penalty = NAN, .presence_penalty = NAN, .frequency_penalty = NAN               \
    }
/* clang-format off */
#define TRM_LM_ENGINE_OPTIONS(c)                                                                   \
    {"context", TRM_OPTION_INT, "N", 1, 1 << 28, NULL,                                             \
     "language models: tokens of a sequence at most (the model's)", &(c).context},                 \
    {"kv-cache", TRM_OPTION_BYTES, "BYTES", 0, 0, NULL,                                            \
     "KV cache of a replica, all its ranks together (up to 1GiB; GPUs: what is left)", &(c).kv_cache},                 \
    {"kv-dtype", TRM_OPTION_STRING, "T", 0, 0, "fp32|fp16|bf16|i8",                                \
     "of the KV cache (fp32; fp16 where weights are quantised; GPUs: as activations)", &(c).kv_dtype},                   \
    {"max-batch", TRM_OPTION_INT, "N", 1, 4096, NULL,                                              \
     "sequences that run at once (64)", &(c).max_batch},                                           \
    {"step-tokens", TRM_OPTION_INT, "N", 1, 65536, NULL,                                           \
     "tokens of a step at most: prompts are computed in pieces (512, on CUDA 1024)", &(c).step_tokens},          \
    {"decode-budget-ms", TRM_OPTION_INT, "N", 0, 100000, NULL,                                     \
     "time that a step may take while sequences decode (0: no limit)", &(c).decode_ms},            \
    {"no-prefix-cache", TRM_OPTION_FLAG, NULL, 0, 0, NULL,                                         \
     "compute every prompt from its beginning", &(c).no_prefix_cache}
#define TRM_LM_SAMPLING_OPTIONS(c)                                                                 \
    {"max-tokens", TRM_OPTION_INT, "N", 1, INT32_MAX, NULL,                                        \
     "new tokens at most", &(c).max_tokens},                                                       \
    {"min-tokens", TRM_OPTION_INT, "N", 0, INT32_MAX, NULL,                                        \
     "new tokens at least", &(c).min_tokens},                                                      \
    {"temperature", TRM_OPTION_FLOAT, "T", 0, 0, NULL,                                             \
     "0: greedy (the model's, else 0)", &(c).temperature},                                         \
    {"top-k", TRM_OPTION_INT, "K", 0, INT32_MAX, NULL, "0: off", &(c).top_k},                      \
    {"top-p", TRM_OPTION_FLOAT, "P", 0, 0, NULL, "1: off", &(c).top_p},                            \
    {"min-p", TRM_OPTION_FLOAT, "P", 0, 0, NULL, "0: off", &(c).min_p},                            \
    {"typical-p", TRM_OPTION_FLOAT, "P", 0, 0, NULL, "1: off", &(c).typical_p},                    \
    {"repetition-penalty", TRM_OPTION_FLOAT, "X", 0, 0, NULL, "1: off",                            \
     &(c).repetition_penalty},                                                                     \
    {"presence-penalty", TRM_OPTION_FLOAT, "X", 0, 0, NULL, "0: off", &(c).presence_penalty},      \
    {"frequency-penalty", TRM_OPTION_FLOAT, "X", 0, 0, NULL, "0: off", &(c).frequency_penalty},    \
    {"seed", TRM_OPTION_INT, "S", 0, INT64_MAX, NULL,                                              \
     "of the random draws: the same seed, the same text", &(c).seed},                              \
    {"ignore-eos", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "end tokens end nothing", &(c).ignore_eos},  \
    {"stop", TRM_OPTION_LIST, "TEXT...", 0, 0, NULL, "texts that end the answer", &(c).stop},      \
    {"chat-template", TRM_OPTION_STRING, "FILE", 0, 0, NULL,                                       \
     "instead of the model's own", &(c).chat_template}
#define TRM_LM_LOGPROBS_OPTION(c)                                                                  \
    {"logprobs", TRM_OPTION_INT, "N", 0, TRM_SAMPLING_TOP_MAX, NULL,                               \
     "report log-probabilities, and of N alternatives", &(c).logprobs}
/* clang-format on */

/* Into the options of a model, whose layout part is filled (trm_ranks_options). UNSUPPORTED: a
 * device or dtype that language models do not run on. */
TRM_MUST_USE trm_status trm_lm_cli_model(const trm_lm_cli *c, const trm_common_options *common,
                                         trm_lm_options *options_inout);
/* Defaults of requests: the model's, then the command line's. */
TRM_MUST_USE trm_status trm_lm_cli_defaults(const trm_lm_cli *c, const trm_language *l,
                                            trm_lm_request_defaults *defaults_out);
/* Collective: the model over the ranks of `r`, into r->lm. `tokenizer`: as trm_lm_options. */
TRM_MUST_USE trm_status trm_ranks_open_language(trm_ranks *r, const char *path, trm_status before,
                                                const trm_lm_options *options);

/* run_language.c: --prompt. */
typedef struct trm_run_language {
    trm_ranks *ranks;
    trm_common_options *common;
    const trm_parallel_options *parallel;
    trm_lm_cli *cli;
    const char *path, *prompt, *prompt_file;
    bool raw, profile;
} trm_run_language;
TRM_MUST_USE trm_status trm_run_language_on_ranks(const trm_run_language *o);

#endif
