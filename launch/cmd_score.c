/* trireme score: runs a model over many records, on every rank of the job.
 *
 * The ranks are divided into replicas (one rank each, or tensor x pipeline of them); the first rank
 * of each runs a leader on its main thread, the others follow it. Rank 0 also holds the input, the
 * output, the router's thread and the job's thread. Set-up is done by all ranks before the output
 * is opened, and they agree on its status. */
#include "base/log.h"
#include "launch/commands.h"
#include "launch/score_job.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define BATCH_DEFAULT 16

/* ---- the run ---- */

static void *job_main(void *ctx)
{
    struct trmi_score *s = ctx;
    trm_score_job job = {.router = s->router,
                         .source = s->source,
                         .sink = s->sink,
                         .seen = trm_score_progress_seen,
                         .ctx = &s->progress};

    s->job_status = trm_score_run(&job);
    if (s->job_status != TRM_OK)
        snprintf(s->job_message, sizeof(s->job_message), "%s", trm_message());
    /* whatever came of it: the replicas, ours among them, are told to stop */
    if (trm_router_stop(s->router))
        s->ranks.job.lost = true;
    return NULL;
}

static trm_status run_replica(struct trmi_score *s, const char *endpoint)
{
    char identity[32];
    trm_leader_options options = {.context = s->context,
                                  .endpoint = endpoint,
                                  .identity = identity,
                                  .rank = s->ranks.job.rank};
    trm_leader_model model =
        s->language ? trm_lm_score_callback(s->lm_score) : trm_score_model_callback(s->score_model);
    trm_status st;
    bool lost;

    snprintf(identity, sizeof(identity), "%d/1", trm_ranks_layout(&s->ranks)->place.replica);
    st = trm_leader_run(&options, &model, &lost);
    if (s->ranks.job.rank != 0 && lost) /* rank 0 hears it from the router itself */
        s->ranks.job.lost = true;
    return st;
}

/* Rank 0's verdict on the whole job. */
static trm_status conclude(struct trmi_score *s)
{
    trm_router_stats stats;
    int64_t records = s->sink->rows;
    trm_status st = trm_sink_close(s->sink);
    bool all_failed; /* then the verdict has the first error, and the summary need not */

    s->sink = NULL;
    if (st == TRM_OK && s->job_status == TRM_OK && s->journal != NULL)
        st = trm_journal_complete(s->journal, records);
    trm_router_get_stats(s->router, &stats);
    all_failed = st == TRM_OK && s->job_status == TRM_OK && s->progress.records > 0 &&
                 s->progress.errors == s->progress.records &&
                 s->progress.skipped == s->progress.skipped_errors;
    trm_score_progress_end(&s->progress, !all_failed);
    if (stats.dead > 0 && strstr(s->job_message, stats.last_dead) == NULL)
        fprintf(stderr, "%d of %d replicas lost on the way; the last: %s\n", stats.dead,
                trm_ranks_layout(&s->ranks)->parallel.data, stats.last_dead);
    if (s->job_status != TRM_OK)
        return trm_fail(s->job_status == TRM_ERR_IO || s->job_status == TRM_ERR_NO_MEMORY
                            ? s->job_status
                            : TRM_ERR_COMM,
                        "%s", s->job_message);
    if (all_failed)
        st = trm_fail(TRM_ERR_IO, "all %lld records failed; the first: %s",
                      (long long)s->progress.records, s->progress.first_error);
    return st;
}

static trm_status run_job(struct trmi_score *s, struct trmi_score_settings *set)
{
    trm_status st = TRM_OK, replica;
    int rc;

    TRM_CHECK(trmi_score_set_up(s, set));
    if (s->ranks.job.rank == 0 && s->journal != NULL && trm_journal_is_complete(s->journal)) {
        fprintf(stderr, "output '%s' is complete: %lld records\n", s->output,
                (long long)trm_journal_last(s->journal)->records);
        set->done = true;
    } else if (s->ranks.job.rank == 0) {
        st = trmi_score_open_output(s, set);
        if (st == TRM_OK)
            snprintf(set->endpoint, sizeof(set->endpoint), "%s", trm_router_endpoint(s->router));
    }
    TRM_CHECK(trm_job_agree(&s->ranks.job, st, TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_job_bcast(&s->ranks.job, set, sizeof(*set), 0, TRM_SETUP_TIMEOUT_MS));
    if (set->done)
        return TRM_OK;
    if (!trm_ranks_lead(&s->ranks, &st))
        return st;
    if (s->ranks.job.rank != 0)
        return run_replica(s, set->endpoint);

    s->progress.total = s->source->count;
    s->progress.skipped = s->sink->rows;
    s->progress.skipped_errors = s->sink->errors;
    s->progress.truth = s->truth;
    trm_score_progress_start(&s->progress);
    rc = pthread_create(&s->thread, NULL, job_main, s);
    if (rc != 0) {
        s->ranks.job.lost = trm_router_stop(s->router);
        return trm_fail(TRM_ERR_NO_MEMORY, "cannot start a thread: %s", strerror(rc));
    }
    replica = run_replica(s, set->endpoint);
    if (replica != TRM_OK) /* the router knows, and the others go on */
        TRM_LOG(TRM_LOG_DEBUG, "score", "this rank's replica: %s", trm_message());
    pthread_join(s->thread, NULL);
    return conclude(s);
}

static void clean_up(struct trmi_score *s)
{
    if (trm_sink_close(s->sink) != TRM_OK)
        TRM_LOG(TRM_LOG_WARN, "score", "%s", trm_message());
    trm_journal_close(s->journal);
    trm_router_destroy(s->router);
    trm_source_close(s->source);
    trm_truth_close(s->truth);
    trm_link_context_destroy(s->context);
    trm_score_model_destroy(s->score_model);
    trm_lm_score_destroy(s->lm_score);
    trm_options_free_list(&s->lm.stop);
}

/* ---- command line ---- */

static trm_status parse(struct trmi_score *s, int argc, char **argv, bool *help_out)
{
    const trm_option options[] = {
        {"input", TRM_OPTION_STRING, "PATH", 0, 0, NULL,
         "folder or .txt list of images, .jsonl, .npy or .npz; language models: .jsonl of requests "
         "or .txt of prompts",
         &s->input},
        {"output", TRM_OPTION_STRING, "FILE", 0, 0, NULL, "results: .jsonl, .csv or .npy",
         &s->output},
        {"resume", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "go on with an output that is not complete",
         &s->resume},
        {"overwrite", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "replace an existing output",
         &s->overwrite},
        {"batch", TRM_OPTION_INT, "N", 1, 1024, NULL, "records a replica runs at once (16)",
         &s->batch},
        {"top", TRM_OPTION_INT, "K", 0, 1000, NULL,
         "labels a record (default: the model's YAML, else 5; csv: 1)", &s->top},
        {"labels", TRM_OPTION_STRING, "FILE.csv", 0, 0, NULL,
         "known labels (file,label): prints the accuracy", &s->labels},
        {"output-name", TRM_OPTION_STRING, "NAME", 0, 0, NULL,
         "which of the model's outputs (default: the YAML's, else the first)", &s->output_name},
        {"raw", TRM_OPTION_FLAG, NULL, 0, 0, NULL, "write output values instead of labels",
         &s->raw},
        {"bind", TRM_OPTION_STRING, "B", 0, 0, "share|keep",
         "CPUs: this rank's share of the node's, or as the launcher set them (share)", &s->bind},
        {"zmq-listen", TRM_OPTION_STRING, "ADDRESS[:PORT]", 0, 0, NULL,
         "several hosts: where rank 0 listens (TRM_ZMQ_LISTEN; default: all its addresses)",
         &s->listen},
        TRM_LM_SAMPLING_OPTIONS(s->lm),
        TRM_LM_LOGPROBS_OPTION(s->lm),
        TRM_LM_ENGINE_OPTIONS(s->lm),
        TRM_PARALLEL_OPTIONS(s->parallel),
        TRM_DEVICE_OPTIONS(s->common),
    };
    trm_arguments args = {.command = "score",
                          .usage = "MODEL --input PATH --output FILE [--resume|--overwrite] ...",
                          .options = options,
                          .option_count = sizeof(options) / sizeof(options[0]),
                          .positional_min = 1,
                          .positional_max = 1};

    TRM_CHECK(trm_options_parse(&args, argc, argv));
    *help_out = args.help;
    if (args.help)
        return TRM_OK;
    s->model_path = args.positionals[0];
    if (s->input == NULL || s->output == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "--%s is missing: 'trireme score --help' says more",
                        s->input == NULL ? "input" : "output");
    TRM_CHECK(trm_common_apply(&s->common));
    s->language = trm_language_is(s->model_path);
    if (!s->language)
        return TRM_OK;
    if (s->labels != NULL || s->top > 0 || s->raw || s->output_name != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--labels, --top, --raw and --output-name are not for language models");
    if (s->batch != BATCH_DEFAULT)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--batch is not for language models: want --max-batch");
    return TRM_OK;
}

trm_status trm_cmd_score(int argc, char **argv)
{
    struct trmi_score s = {.common = TRM_COMMON_DEFAULTS,
                           .bind = "share",
                           .batch = BATCH_DEFAULT,
                           .lm = TRM_LM_CLI_DEFAULTS,
                           .ranks = {.command = "score"}};
    struct trmi_score_settings set = {0};
    bool help = false;
    trm_status st;
    char text[1024] = "";

    TRM_CHECK(trm_job_init(&s.ranks.job));
    if (trm_ranks_silent(&s.ranks, argc, argv))
        return trm_ranks_end(&s.ranks, TRM_OK);
    st = parse(&s, argc, argv, &help);
    if (st == TRM_OK && !help)
        st = run_job(&s, &set);
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    clean_up(&s);
    return trm_ranks_end(&s.ranks, st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text));
}
