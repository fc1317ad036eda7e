/* trireme score: runs a model over many records, on every rank of the job.
 *
 * Every rank is a replica: it opens the model and runs a leader on its main thread. Rank 0 also
 * holds the input, the output, the router's thread and the job's thread. Set-up is done by all
 * ranks before the output is opened, and they agree on its status. */
#include "base/link_zmq.h"
#include "base/log.h"
#include "coordinator/score.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/score_progress.h"
#include "launch/score_resume.h"
#include "parallel/job.h"
#include "worker/score_model.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SETUP_TIMEOUT_MS 600000 /* loading a large model from a slow disk */
#define BATCH_DEFAULT 16
#define TOP_DEFAULT 5
#define WINDOW_BATCHES 4 /* a replica: two it holds, two ready for it or waiting to be written */

struct score {
    trm_common_options common;
    const char *model_path, *input, *output, *labels, *output_name, *bind;
    bool resume, overwrite, raw;
    int64_t batch, top;

    trm_job job;
    trm_device *device;
    trm_tensor_model *model;
    trm_score_model *score_model;
    trm_link_context *context;

    /* rank 0 only */
    trm_source *source;
    trm_truth *truth;
    trm_journal *journal;
    trm_sink *sink;
    trm_sink_options sink_options;
    trm_router *router;
    trm_score_progress progress;
    pthread_t thread;
    trm_status job_status;
    char job_message[1024];
};

/* What rank 0 has found out about the input, for all. */
struct settings {
    bool ok, images, labels, done;
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
};

/* ---- set-up ---- */

static trm_status open_input(struct score *s, struct settings *set)
{
    TRM_CHECK(trm_source_open(s->input, &s->source));
    if (s->labels != NULL)
        TRM_CHECK(trm_truth_open(s->labels, &s->truth));
    set->images = s->source->images;
    return TRM_OK;
}

/* Labels are written where the output is a list of scores and someone wants classes. */
static bool classifies(const struct score *s, const struct settings *set, const trm_value *scores)
{
    const trm_package *p = s->model->package;
    bool wanted = set->images || s->top > 0 || s->labels != NULL || p->labels != NULL;

    return wanted && trm_dtype_is_float(scores->desc.dtype) &&
           (scores->desc.rank == 2 || scores->desc.rank < 0);
}

/* Elements of one record's part of `v`; -1: not fixed. */
static int64_t columns_of(const trm_value *v)
{
    int64_t n = 1;

    if (v->desc.rank < 1)
        return -1;
    for (int d = 1; d < v->desc.rank; d++)
        if (v->desc.dims[d] < 0 || !trm_mul_ok(n, v->desc.dims[d], &n) || n > 65536)
            return -1;
    return n;
}

/* Classes of the output, -1: not known before it runs. */
static trm_status check_top(int64_t top, const trm_value *scores)
{
    int64_t classes = columns_of(scores);

    if (classes >= 0 && top > classes)
        return trm_fail(TRM_ERR_INVALID_ARG, "--top %lld: output '%s' has only %lld classes",
                        (long long)top, scores->name, (long long)classes);
    return TRM_OK;
}

static trm_status open_model(struct score *s, const struct settings *set)
{
    trm_tensor_model_options options = {.dtype = trm_dtype_from_name(s->common.dtype)};
    trm_score_model_options so = {
        .batch = (int)s->batch, .images = set->images, .output = s->output_name};
    const char *extension = trm_path_extension(s->output);
    bool npy = strcasecmp(extension, "npy") == 0, csv = strcasecmp(extension, "csv") == 0;
    const trm_value *scores;
    int threads = 1, output = 0;
    bool classes;

    trm_job_take_cores(&s->job, strcmp(s->bind, "share") == 0, &threads);
    if (s->common.threads > 0)
        threads = (int)s->common.threads;
    TRM_CHECK(trm_device_cpu_create(threads, &s->device));
    TRM_CHECK(trm_tensor_model_open(s->model_path, s->device, &options, &s->model));
    if (s->output_name != NULL)
        TRM_CHECK(trm_score_model_output(s->model, s->output_name, &output));
    else
        TRM_CHECK(trm_tensor_model_scores(s->model, &output));
    scores = &s->model->graph->values[s->model->graph->outputs[output]];
    classes = classifies(s, set, scores);
    if (!classes && (s->top > 0 || s->labels != NULL))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--top and --labels want class scores, but output '%s' is no [records, "
                        "classes] of floats",
                        scores->name);
    TRM_CHECK(check_top(s->top, scores));
    if (classes) {
        so.top = s->top > 0                     ? (int)s->top
                 : csv || npy                   ? 1
                 : s->model->package->top_k > 0 ? s->model->package->top_k
                                                : TOP_DEFAULT;
        if (npy && s->labels == NULL)
            so.top = 0;
    }
    so.keep_outputs = npy || s->raw || !classes;
    TRM_CHECK(trm_score_model_create(s->model, &so, &s->score_model));
    s->sink_options =
        (trm_sink_options){.resume = s->resume,
                           .overwrite = s->overwrite,
                           .images = set->images,
                           .label_count = s->raw || npy ? 0 : so.top,
                           .output = s->output_name != NULL ? s->output_name : scores->name,
                           .columns = columns_of(scores),
                           .column_name = scores->name};
    return TRM_OK;
}

static trm_status check_records(const struct score *s)
{
    trm_status st = trm_score_model_fits(s->model, s->source->tensors, s->source->tensor_count);

    return st == TRM_OK ? st : trm_fail_context(st, "input '%s'", s->input);
}

static trm_status check_output(struct score *s)
{
    trm_score_what what = {.input = s->input,
                           .output = s->output,
                           .dtype = s->common.dtype,
                           .output_name = s->output_name,
                           .source = s->source,
                           .package = s->model->package,
                           .sink = &s->sink_options};

    if (trm_path_same(s->output, s->input) ||
        (s->labels != NULL && trm_path_same(s->output, s->labels)))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s' is an input of this run: want another file", s->output);
    return trm_score_journal_open(&what, &s->journal);
}

static trm_status set_up(struct score *s, struct settings *set)
{
    trm_status st = TRM_OK;

    if (s->job.rank == 0)
        st = open_input(s, set);
    set->ok = st == TRM_OK;
    /* a failed broadcast outweighs: the job cannot go on at all */
    if (s->job.size > 1) {
        char text[1024];
        trm_status sent;

        snprintf(text, sizeof(text), "%s", trm_message());
        sent = trm_job_bcast(&s->job, set, sizeof(*set), 0, SETUP_TIMEOUT_MS);
        if (sent != TRM_OK)
            return sent;
        if (st != TRM_OK)
            st = trm_fail(st, "%s", text);
    }
    if (set->ok && s->job.local_size != s->job.size)
        st = trm_fail(TRM_ERR_UNSUPPORTED,
                      "the %d ranks lie on several hosts: score runs on one host in this version",
                      s->job.size);
    if (set->ok && st == TRM_OK)
        st = open_model(s, set);
    if (set->ok && st == TRM_OK && s->job.rank == 0 && s->source->tensors != NULL)
        st = check_records(s);
    if (set->ok && st == TRM_OK && s->job.rank == 0)
        st = check_output(s);
    if (st == TRM_OK)
        st = trm_link_context_create(&s->context);
    return trm_job_agree(&s->job, st, SETUP_TIMEOUT_MS);
}

/* Rank 0: output and router. */
static trm_status open_output(struct score *s)
{
    trm_router_options ro = {.context = s->context,
                             .endpoint = s->job.size == 1 ? "inproc://score" : "ipc",
                             .replicas = s->job.size,
                             .window = WINDOW_BATCHES * (int)s->batch * s->job.size};

    if (s->journal != NULL)
        TRM_CHECK(trm_journal_start(s->journal));
    TRM_CHECK(trm_sink_open(s->output, &s->sink_options, s->journal, &s->sink));
    TRM_CHECK(trm_source_skip(s->source, s->sink->rows));
    ro.first_id = (uint64_t)s->sink->rows;
    return trm_router_create(&ro, &s->router);
}

/* ---- the run ---- */

static void *job_main(void *ctx)
{
    struct score *s = ctx;
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
        s->job.lost = true;
    return NULL;
}

static trm_status run_replica(struct score *s, const char *endpoint)
{
    char identity[32];
    trm_leader_options options = {
        .context = s->context, .endpoint = endpoint, .identity = identity, .rank = s->job.rank};
    trm_leader_model model = trm_score_model_callback(s->score_model);
    trm_status st;
    bool lost;

    snprintf(identity, sizeof(identity), "%d/1", s->job.rank);
    st = trm_leader_run(&options, &model, &lost);
    if (s->job.rank != 0 && lost) /* rank 0 hears it from the router itself */
        s->job.lost = true;
    return st;
}

/* Rank 0's verdict on the whole job. */
static trm_status conclude(struct score *s)
{
    trm_router_stats stats;
    int64_t records = s->sink->rows;
    trm_status st = trm_sink_close(s->sink);

    s->sink = NULL;
    if (st == TRM_OK && s->job_status == TRM_OK && s->journal != NULL)
        st = trm_journal_complete(s->journal, records);
    trm_router_get_stats(s->router, &stats);
    trm_score_progress_end(&s->progress);
    if (stats.dead > 0)
        fprintf(stderr, "%d of %d replicas lost on the way; the last: %s\n", stats.dead,
                s->job.size, stats.last_dead);
    if (s->job_status != TRM_OK)
        return trm_fail(s->job_status == TRM_ERR_IO || s->job_status == TRM_ERR_NO_MEMORY
                            ? s->job_status
                            : TRM_ERR_COMM,
                        "%s", s->job_message);
    if (st == TRM_OK && s->progress.records > 0 && s->progress.errors == s->progress.records &&
        s->progress.skipped == s->progress.skipped_errors)
        st = trm_fail(TRM_ERR_IO, "all %lld records failed; the first: %s",
                      (long long)s->progress.records, s->progress.first_error);
    return st;
}

static trm_status run_job(struct score *s, struct settings *set)
{
    trm_status st = TRM_OK, replica;
    int rc;

    TRM_CHECK(set_up(s, set));
    if (s->job.rank == 0 && s->journal != NULL && trm_journal_is_complete(s->journal)) {
        fprintf(stderr, "output '%s' is complete: %lld records\n", s->output,
                (long long)trm_journal_last(s->journal)->records);
        set->done = true;
    } else if (s->job.rank == 0) {
        st = open_output(s);
        if (st == TRM_OK)
            snprintf(set->endpoint, sizeof(set->endpoint), "%s", trm_router_endpoint(s->router));
    }
    TRM_CHECK(trm_job_agree(&s->job, st, SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_job_bcast(&s->job, set, sizeof(*set), 0, SETUP_TIMEOUT_MS));
    if (set->done)
        return TRM_OK;
    if (s->job.rank != 0)
        return run_replica(s, set->endpoint);

    s->progress.total = s->source->count;
    s->progress.skipped = s->sink->rows;
    s->progress.skipped_errors = s->sink->errors;
    s->progress.truth = s->truth;
    trm_score_progress_start(&s->progress);
    rc = pthread_create(&s->thread, NULL, job_main, s);
    if (rc != 0) {
        s->job.lost = trm_router_stop(s->router);
        return trm_fail(TRM_ERR_NO_MEMORY, "cannot start a thread: %s", strerror(rc));
    }
    replica = run_replica(s, set->endpoint);
    if (replica != TRM_OK) /* the router knows, and the others go on */
        TRM_LOG(TRM_LOG_DEBUG, "score", "this rank's replica: %s", trm_message());
    pthread_join(s->thread, NULL);
    return conclude(s);
}

static void clean_up(struct score *s)
{
    if (trm_sink_close(s->sink) != TRM_OK)
        TRM_LOG(TRM_LOG_WARN, "score", "%s", trm_message());
    trm_journal_close(s->journal);
    trm_router_destroy(s->router);
    trm_source_close(s->source);
    trm_truth_close(s->truth);
    trm_link_context_destroy(s->context);
    trm_score_model_destroy(s->score_model);
    trm_tensor_model_close(s->model);
    trm_device_destroy(s->device);
}

/* ---- command line ---- */

static trm_status parse(struct score *s, int argc, char **argv, bool *help_out)
{
    const trm_option options[] = {
        {"input", TRM_OPTION_STRING, "PATH", 0, 0, NULL,
         "folder or .txt list of images, .jsonl, .npy or .npz", &s->input},
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
    return trm_common_apply(&s->common);
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

trm_status trm_cmd_score(int argc, char **argv)
{
    struct score s = {.common = TRM_COMMON_DEFAULTS, .bind = "share", .batch = BATCH_DEFAULT};
    struct settings set = {0};
    bool help = false;
    trm_status st;
    char text[1024] = "";

    TRM_CHECK(trm_job_init(&s.job));
    if (s.job.rank != 0 && asks_for_help(argc, argv)) {
        trm_job_end(&s.job, 0);
        return TRM_OK;
    }
    st = parse(&s, argc, argv, &help);
    if (st == TRM_OK && !help)
        st = run_job(&s, &set);
    else if (st != TRM_OK && s.job.rank == 0)
        snprintf(text, sizeof(text), "%s", trm_message());
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    clean_up(&s);
    /* rank 0 tells what all have agreed on; a replica that lost its coordinator speaks itself */
    if (s.job.rank != 0 && !(st == TRM_ERR_COMM && s.job.lost && !s.job.told))
        st = TRM_OK;
    if (s.job.lost && st != TRM_OK)
        fprintf(stderr, "trireme score: %s%s\n", s.job.rank != 0 ? "a replica: " : "", text);
    trm_job_end(&s.job, trm_status_exit_code(st)); /* after a loss this is the end */
    return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text);
}
