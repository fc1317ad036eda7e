/* What the files of the load client share: bench_url.c (options, the course), bench_url_target.c
 * (what the server has), bench_url_body.c (requests), bench_url_answer.c (answers),
 * bench_url_load.c (arrivals and transfers), bench_url_report.c (numbers). One thread. */
#ifndef TRM_LAUNCH_BENCH_URL_IMPL_H
#define TRM_LAUNCH_BENCH_URL_IMPL_H

#include "base/memory.h"
#include "launch/options.h"

#include <curl/curl.h>
#include <jansson.h>

typedef enum trmi_url_kind {
    TRMI_URL_COMPLETIONS,
    TRMI_URL_CHAT,
    TRMI_URL_EMBEDDINGS,
    TRMI_URL_INFER,
    TRMI_URL_PREDICT
} trmi_url_kind;

typedef struct trmi_url_options {
    const char *url, *api, *endpoint, *model, *key, *burst, *prompt, *prompt_file, *image, *json;
    trm_option_list inputs;
    double rate, duration, timeout;
    int64_t concurrency, requests, warmup, prompt_tokens, max_tokens, batch, seed, connections;
    bool stream, no_stream, ignore_eos, insecure;
    /* made of them */
    int64_t burst_size;
    double burst_period; /* s */
} trmi_url_options;

/* What is asked, of whom. Strings are in `arena`. */
typedef struct trmi_url_target {
    trm_arena *arena;
    const char *base;  /* the URL without a slash at its end */
    const char *model; /* name */
    const char *path;  /* URL of the requests */
    trmi_url_kind kind;
    bool stream;
    json_t *metadata; /* v2: of the model; else NULL */
    struct curl_slist *headers;
} trmi_url_target;
/* Asks the server. COMM: it cannot be reached; NOT_FOUND: no such model, or none is ready. */
TRM_MUST_USE trm_status trmi_url_target_find(const trmi_url_options *o, trmi_url_target *t);
void trmi_url_target_fini(trmi_url_target *t);
const char *trmi_url_kind_name(trmi_url_kind kind);
/* A JSON answer to GET, or to POST of `body`; *json_out NULL where it is none. `http_out`: status.
 */
TRM_MUST_USE trm_status trmi_url_fetch(const trmi_url_options *o, const trmi_url_target *t,
                                       const char *path, const char *body, json_t **json_out,
                                       long *http_out);
/* The text of a server for a terminal: one line, no control characters. */
void trmi_url_one_line(const char *text, char *out, size_t bytes);
/* Sets what every request wants: URL, headers, TLS, timeout. */
void trmi_url_set_up(CURL *easy, const trmi_url_options *o, const char *url,
                     struct curl_slist *headers);

/* The bodies of requests: the same seed gives the same ones. */
typedef struct trmi_url_bodies {
    const trmi_url_options *options;
    trmi_url_target *target;
    trm_arena *arena;
    const char **prompts; /* given ones, in turn; NULL: random */
    int prompt_count;
    const int64_t *ids; /* tokens of the model's vocabulary, for random prompts; NULL: words */
    int id_count;
    double words_a_token;
    const void *fixed; /* of INFER and PREDICT: the same each time */
    size_t fixed_bytes;
} trmi_url_bodies;
TRM_MUST_USE trm_status trmi_url_bodies_make(const trmi_url_options *o, trmi_url_target *t,
                                             trmi_url_bodies *b);
/* Of request `index`; *owned_out is the caller's to free(), or NULL. */
TRM_MUST_USE trm_status trmi_url_body(const trmi_url_bodies *b, int64_t index,
                                      const void **body_out, size_t *bytes_out, char **owned_out);
/* splitmix64 */
uint64_t trmi_url_random(uint64_t *state);
double trmi_url_uniform(uint64_t *state); /* in (0, 1) */
/* bench_url_tensors.c: the body of an infer request, and the length of its JSON part. */
TRM_MUST_USE trm_status trmi_url_infer_body(const trmi_url_options *o, trmi_url_target *t,
                                            const void **body_out, size_t *bytes_out);

/* Times in milliseconds. Past 2^20 of them a random sample of that many stays. */
typedef struct trmi_url_samples {
    double *v;
    size_t count, room;
    uint64_t seen, random;
    double sum, max;
    bool sorted, no_memory;
} trmi_url_samples;
void trmi_url_samples_add(trmi_url_samples *s, double ms);
double trmi_url_quantile(trmi_url_samples *s, double q); /* nearest rank; 0 of none */

/* An answer as it comes. */
typedef struct trmi_url_answer {
    const trmi_url_target *target;
    trmi_url_samples *gaps; /* between chunks with text; NULL: warm-up */
    char *text;             /* a line, or the whole body as far as it is of use; from trm_malloc */
    size_t bytes, room;
    bool cut;  /* it was too long */
    bool done; /* [DONE] */
    bool bad;  /* an error inside a stream, or no JSON */
    bool usage;
    int64_t chunks; /* with text */
    int64_t tokens_in, tokens_out;
    int64_t first_us, last_us, end_us; /* of chunks with text; of anything; 0: none */
    char message[200];                 /* of an error */
} trmi_url_answer;
void trmi_url_answer_begin(trmi_url_answer *a, const trmi_url_target *t, trmi_url_samples *gaps);
void trmi_url_answer_take(trmi_url_answer *a, const char *data, size_t bytes, int64_t now_us,
                          long http);
/* NULL: good; else what is wrong with it, a few words. */
const char *trmi_url_answer_end(trmi_url_answer *a, long http);
void trmi_url_answer_fini(trmi_url_answer *a);

#define TRMI_URL_FAILURES 16
typedef struct trmi_url_result {
    int64_t sent, good, failed, cut; /* cut: under way when the user ended it */
    struct {
        char what[48];
        int64_t count;
    } failures[TRMI_URL_FAILURES];
    int failure_count;
    char first_failure[256];
    double seconds; /* from the first arrival to the last answer */
    int64_t tokens_in, tokens_out;
    int64_t most_at_once;
    trmi_url_samples first, gap, total, lag; /* lag: sent after it was due */
    bool interrupted;
} trmi_url_result;
/* `requests` from body `from` on. warmup: closed loop. Failures of requests are counted, not
 * returned. */
TRM_MUST_USE trm_status trmi_url_load(const trmi_url_bodies *b, int64_t from, bool warmup,
                                      trmi_url_result *result);
void trmi_url_result_fini(trmi_url_result *result);

TRM_MUST_USE trm_status trmi_url_report(const trmi_url_options *o, const trmi_url_target *t,
                                        trmi_url_result *r);

#endif
