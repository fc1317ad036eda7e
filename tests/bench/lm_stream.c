/* What a streamed token costs the executor's thread: chunk lines of 64 streams, written and taken.
 *
 *   lm_stream [tokens of a stream]
 */
#define _GNU_SOURCE
#include "worker/language/stream.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STREAMS 64

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const struct {
    const char *name;
    trm_lm_endpoint endpoint;
    int logprobs, choices;
} rows[] = {
    {"chat", TRM_LM_CHAT, -1, 1},
    {"chat, n = 4", TRM_LM_CHAT, -1, 4},
    {"text", TRM_LM_COMPLETIONS, -1, 1},
    {"chat, logprobs", TRM_LM_CHAT, 0, 1},
    {"chat, logprobs, 5", TRM_LM_CHAT, 5, 1},
};

static trm_status run(int row, const trm_language *l, int tokens, double *ns_out, double *bytes_out)
{
    static char model[] = "some-model-7b-instruct";
    int32_t ids[] = {1, 2};
    trm_lm_prompt prompt = {.ids = ids, .count = 2};
    trm_lm_request r = {.endpoint = rows[row].endpoint,
                        .model = model,
                        .prompt_count = 1,
                        .choices = rows[row].choices,
                        .prompts = &prompt};
    trm_sampled sampled = {.id = 300, .logprob = -1.2345678f, .top_count = 0};
    trm_lm_stream *s[STREAMS];
    double start, bytes = 0;

    trm_sampling_init(&r.sampling);
    r.sampling.logprobs = rows[row].logprobs;
    sampled.top_count = rows[row].logprobs > 0 ? rows[row].logprobs : 0;
    for (int i = 0; i < sampled.top_count; i++) {
        sampled.top_ids[i] = 300 + i;
        sampled.top_logprobs[i] = -1.5f * (float)(i + 1) - 0.123f;
    }
    for (int i = 0; i < STREAMS; i++)
        TRM_CHECK(trm_lm_stream_create(&r, l, "0123456789abcdef01234567", 1700000000, &s[i]));
    start = now();
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < STREAMS; i++) {
            const char *lines;
            size_t count;
            uint32_t n;

            for (int c = 0; c < r.choices; c++) {
                const trm_generated g = {
                    .choice = c, .token = &sampled, .text = " \"token\"", .bytes = 8};

                trm_lm_stream_token(s[i], c, &g);
            }
            TRM_CHECK(trm_lm_stream_take(s[i], &lines, &count, &n));
            bytes += (double)count;
        }
    *ns_out = (now() - start) * 1e9 / ((double)tokens * STREAMS * r.choices);
    *bytes_out = bytes / ((double)tokens * STREAMS * r.choices);
    for (int i = 0; i < STREAMS; i++)
        trm_lm_stream_destroy(s[i]);
    return TRM_OK;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long tokens = argc > 1 ? strtol(argv[1], &end, 10) : 2000;
    trm_language l = {0};
    trm_file *file;

    if (tokens < 1 || tokens > 10000000 || (end != NULL && *end != '\0') ||
        trm_file_open(TRM_SOURCE_DIR "/configs/demo/tiny-sotu/tokenizer.json", &file) != TRM_OK)
        return 2;
    if (trm_tokenizer_from_json("tokenizer.json", trm_file_data(file), trm_file_bytes(file),
                                &l.tokenizer) != TRM_OK)
        return 2;
    printf("%-20s %10s %12s\n", "", "ns/token", "bytes/token");
    for (int i = 0; i < (int)(sizeof(rows) / sizeof(rows[0])); i++) {
        double ns = 0, bytes = 0;

        if (run(i, &l, (int)tokens, &ns, &bytes) != TRM_OK) {
            fprintf(stderr, "%s\n", trm_message());
            return 1;
        }
        printf("%-20s %10.0f %12.0f\n", rows[i].name, ns, bytes);
    }
    trm_tokenizer_destroy(l.tokenizer);
    trm_file_unref(file);
    return 0;
}
