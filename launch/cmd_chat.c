/* trireme chat: a conversation in the terminal. Rank 0 reads lines and streams answers; the history
 * goes through the model's chat template each time, and the prefix cache makes that cheap. */
#define _GNU_SOURCE
#include "base/file.h"
#include "launch/commands.h"
#include "launch/lm_options.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_LEAST 64 /* tokens left for an answer before old turns are dropped */

struct chat {
    trm_common_options common;
    trm_parallel_options parallel;
    trm_lm_cli cli;
    trm_ranks ranks;
    const char *path, *system;
    json_t *messages;
    trm_lm_request_defaults defaults;
    char *answer; /* of the turn under way */
    size_t answer_bytes, answer_max;
    trm_status st;
    char said[512];
    bool terminal, broken, cut;
};

/* ---- a turn ---- */

static void on_token(void *ctx, const trm_generated *t)
{
    struct chat *c = ctx;

    if (t->bytes == 0)
        return;
    if (fwrite(t->text, 1, t->bytes, stdout) != t->bytes || fflush(stdout) != 0)
        c->broken = true;
    if (c->answer_bytes + t->bytes + 1 > c->answer_max) {
        size_t max = 2 * (c->answer_bytes + t->bytes) + 256;
        char *grown = trm_realloc(c->answer, max, 1);

        if (grown == NULL) {
            c->broken = true;
            return;
        }
        c->answer = grown;
        c->answer_max = max;
    }
    memcpy(c->answer + c->answer_bytes, t->text, t->bytes);
    c->answer_bytes += t->bytes;
    c->answer[c->answer_bytes] = '\0';
}

static void on_end(void *ctx, const trm_generation_end *e)
{
    struct chat *c = ctx;

    c->st = e->status;
    c->cut = e->finish == TRM_FINISH_LENGTH;
    snprintf(c->said, sizeof(c->said), "%s", e->message != NULL ? e->message : "");
}

static trm_status add_message(struct chat *c, const char *role, const char *text, size_t bytes)
{
    json_t *m = json_pack("{s:s, s:s%}", "role", role, "content", text, bytes);

    if (m == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the line is not UTF-8");
    return json_array_append_new(c->messages, m) == 0
               ? TRM_OK
               : trm_fail(TRM_ERR_NO_MEMORY, "the conversation");
}

static bool fits(const struct chat *c, const trm_lm_request *r, int64_t left)
{
    return (int64_t)r->prompts[0].count + left <= c->ranks.lm->limits.context;
}

/* Reads the conversation as a request; where it has grown beyond the context its oldest turns go.
 */
static trm_status read_turn(struct chat *c, trm_lm_request **request_out)
{
    const trm_lm_model *m = c->ranks.lm;
    size_t keep = c->system != NULL ? 1 : 0;
    json_t *body = json_object();
    int forgotten = 0;
    trm_status st;

    if (body == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a turn");
    json_object_set(body, "messages", c->messages);
    for (;;) {
        st = trm_lm_request_read(m->language, TRM_LM_CHAT, body, &c->defaults, request_out);
        if (st != TRM_OK || fits(c, *request_out, ANSWER_LEAST) ||
            json_array_size(c->messages) < keep + 3)
            break;
        trm_lm_request_destroy(*request_out);
        *request_out = NULL;
        json_array_remove(c->messages, keep); /* a question and its answer */
        json_array_remove(c->messages, keep);
        forgotten++;
    }
    json_decref(body);
    if (st == TRM_OK && forgotten > 0 && fits(c, *request_out, 1))
        fprintf(stderr, "(the context is full: the oldest %s forgotten)\n",
                forgotten == 1 ? "turn is" : "turns are");
    return st;
}

static trm_status turn(struct chat *c, const char *line, size_t bytes)
{
    trm_lm_request *request = NULL;
    trm_generation *g;
    trm_status st;

    TRM_CHECK(add_message(c, "user", line, bytes));
    st = read_turn(c, &request);
    c->answer_bytes = 0;
    if (st == TRM_OK)
        st = trm_lm_request_start(request, 0, c->ranks.lm->generator, c, on_token, on_end, &g);
    while (st == TRM_OK && trm_generator_count(c->ranks.lm->generator) > 0 && !c->broken)
        st = trm_generator_step(c->ranks.lm->generator);
    trm_lm_request_destroy(request);
    if (st == TRM_OK && c->st != TRM_OK)
        st = trm_fail(c->st, "%s", c->said);
    if (st == TRM_OK && c->broken)
        st = trm_fail(TRM_ERR_IO, "standard output cannot be written");
    if (st != TRM_OK && c->answer_bytes > 0) { /* what went wrong is said on a line of its own */
        printf("\n");
        (void)fflush(stdout);
    }
    if (st != TRM_OK)
        return st;
    printf("\n");
    if (c->cut)
        fprintf(stderr, "(cut: --max-tokens or the context)\n");
    return add_message(c, "assistant", c->answer != NULL ? c->answer : "", c->answer_bytes);
}

/* ---- the conversation ---- */

static trm_status begin(struct chat *c)
{
    json_decref(c->messages);
    c->messages = json_array();
    if (c->messages == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "the conversation");
    return c->system == NULL ? TRM_OK : add_message(c, "system", c->system, strlen(c->system));
}

/* Bad input of one line is said, and the conversation goes on as if it had not been; what ends it
 * comes back. */
static trm_status take_line(struct chat *c, const char *line, size_t bytes)
{
    json_t *before;
    trm_status st;

    if (strcmp(line, "/reset") == 0)
        return begin(c);
    before = json_copy(c->messages);
    if (before == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "the conversation");
    st = turn(c, line, bytes);
    if (st != TRM_ERR_INVALID_ARG && st != TRM_ERR_UNSUPPORTED) {
        json_decref(before);
        return st;
    }
    fprintf(stderr, "%s\n", trm_message());
    json_decref(c->messages);
    c->messages = before;
    return TRM_OK;
}

static trm_status converse(struct chat *c)
{
    char *line = NULL;
    size_t max = 0;
    trm_status st = begin(c);

    if (c->terminal)
        fprintf(stderr, "/reset begins anew, /exit or the end of input ends\n");
    while (st == TRM_OK) {
        ssize_t n;

        if (c->terminal)
            fprintf(stderr, "> ");
        n = getline(&line, &max, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (strcmp(line, "/exit") == 0)
            break;
        if (n > 0)
            st = take_line(c, line, (size_t)n);
    }
    free(line);
    return st;
}

static trm_status lead(struct chat *c)
{
    const trm_language *l = c->ranks.lm->language;

    if (l->encoder)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is an encoder: it does not answer", c->path);
    if (l->chat == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s has no chat template: want --chat-template FILE, or 'trireme run "
                        "--prompt'",
                        c->path);
    TRM_CHECK(trm_lm_cli_defaults(&c->cli, l, &c->defaults));
    return converse(c);
}

static trm_status on_ranks(struct chat *c)
{
    trm_lm_options options = {0};
    trm_status st = TRM_OK;

    if (!trm_language_is(c->path))
        st = trm_path_exists(c->path)
                 ? trm_fail(TRM_ERR_INVALID_ARG,
                            "'%s' is no language model: want a folder with config.json, or .gguf",
                            c->path)
                 : trm_fail(TRM_ERR_NOT_FOUND, "model '%s' does not exist", c->path);
    if (st == TRM_OK)
        st = trm_ranks_device(&c->ranks, &c->common, true);
    if (st == TRM_OK)
        st = trm_ranks_options(&c->ranks, &c->common, &c->parallel, (trm_parallel){1, 0, 0},
                               TRM_OBJECTIVE_LATENCY, &options.layout);
    if (st == TRM_OK)
        st = trm_lm_cli_model(&c->cli, &c->common, &options);
    c->ranks.one_works = true;
    TRM_CHECK(trm_ranks_open_language(&c->ranks, c->path, st, &options));
    if (!trm_ranks_lead(&c->ranks, &st))
        return st;
    return c->ranks.job.rank == 0 ? lead(c) : TRM_OK;
}

trm_status trm_cmd_chat(int argc, char **argv)
{
    struct chat c = {.common = TRM_COMMON_DEFAULTS,
                     .cli = TRM_LM_CLI_DEFAULTS,
                     .ranks = {.command = "chat"},
                     .terminal = isatty(STDIN_FILENO) != 0};
    const trm_option options[] = {
        {"system", TRM_OPTION_STRING, "TEXT", 0, 0, NULL, "the system message", &c.system},
        TRM_LM_SAMPLING_OPTIONS(c.cli),
        TRM_LM_ENGINE_OPTIONS(c.cli),
        TRM_PARALLEL_OPTIONS(c.parallel),
        TRM_DEVICE_OPTIONS(c.common),
    };
    trm_arguments args = {.command = "chat",
                          .usage = "MODEL [--system TEXT] [--temperature T] ...",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};
    trm_status st;

    TRM_CHECK(trm_job_init(&c.ranks.job));
    if (trm_ranks_silent(&c.ranks, argc, argv))
        return trm_ranks_end(&c.ranks, TRM_OK);
    st = trm_options_parse(&args, argc, argv);
    if (st == TRM_OK && !args.help)
        st = trm_common_apply(&c.common);
    if (st == TRM_OK && !args.help) {
        c.path = args.positionals[0];
        st = on_ranks(&c);
    }
    trm_options_free_list(&c.cli.stop);
    json_decref(c.messages);
    trm_free(c.answer);
    return trm_ranks_end(&c.ranks, st);
}
