/* Setting a score up: input, model and output, checked by all ranks before anything is written. */
#include "launch/score_job.h"
#include "launch/score_resume.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TOP_DEFAULT 5
#define WINDOW_BATCHES 4 /* a replica: two it holds, two ready for it or waiting to be written */

static trm_status open_input(struct trmi_score *s, struct trmi_score_settings *set)
{
    TRM_CHECK(s->language ? trm_source_open_requests(s->input, &s->source)
                          : trm_source_open(s->input, &s->source));
    if (s->labels != NULL)
        TRM_CHECK(trm_truth_open(s->labels, &s->truth));
    set->images = s->source->images;
    return trm_score_hosts_prepare(&s->ranks.job, s->input, &set->hosts);
}

/* Labels are written where the output is a list of scores and someone wants classes. */
static bool classifies(const struct trmi_score *s, const struct trmi_score_settings *set,
                       const trm_value *scores)
{
    const trm_package *p = s->ranks.model->package;
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

/* A folder or a list of images, as far as every rank can tell: the path may be on another host. */
static bool names_images(const char *path)
{
    const char *extension = trm_path_extension(path);

    return strcasecmp(extension, "jsonl") != 0 && strcasecmp(extension, "npy") != 0 &&
           strcasecmp(extension, "npz") != 0;
}

/* Every rank, together: the model over the ranks. */
static trm_status open_model(struct trmi_score *s, trm_status st)
{
    trm_tensor_model_options options = {0};
    /* each rank a replica, unless a limit asks for more thought */
    trm_parallel otherwise = {0, 1, 1};

    if (s->parallel.memory > 0)
        otherwise = (trm_parallel){0, 0, 0};
    if (st == TRM_OK)
        st = trm_ranks_device(&s->ranks, &s->common, strcmp(s->bind, "share") == 0);
    if (st == TRM_OK)
        st = trm_ranks_options(&s->ranks, &s->common, &s->parallel, otherwise,
                               TRM_OBJECTIVE_THROUGHPUT, &options);
    options.batch = s->batch;
    options.images = names_images(s->input);
    if (options.parallel.pipeline > 1) /* a batch is cut into as many as there are stages */
        options.batch = (s->batch + options.parallel.pipeline - 1) / options.parallel.pipeline;
    return trm_ranks_open(&s->ranks, s->model_path, st, &options);
}

/* Every rank, when the model is open: what is to be written. */
static trm_status settle_output(struct trmi_score *s, const struct trmi_score_settings *set)
{
    trm_score_model_options so = {
        .batch = (int)s->batch, .images = set->images, .output = s->output_name};
    const char *extension = trm_path_extension(s->output);
    bool npy = strcasecmp(extension, "npy") == 0, csv = strcasecmp(extension, "csv") == 0;
    const trm_value *scores;
    int output = 0;
    bool classes;

    if (s->output_name != NULL)
        TRM_CHECK(trm_score_model_output(s->ranks.model, s->output_name, &output));
    else
        TRM_CHECK(trm_tensor_model_scores(s->ranks.model, &output));
    scores = &s->ranks.model->graph->values[s->ranks.model->graph->outputs[output]];
    classes = classifies(s, set, scores);
    if (!classes && (s->top > 0 || s->labels != NULL))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--top and --labels want class scores, but output '%s' is no [records, "
                        "classes] of floats",
                        scores->name);
    TRM_CHECK(check_top(s->top, scores));
    if (classes) {
        so.top = s->top > 0                           ? (int)s->top
                 : csv || npy                         ? 1
                 : s->ranks.model->package->top_k > 0 ? s->ranks.model->package->top_k
                                                      : TOP_DEFAULT;
        if (npy && s->labels == NULL)
            so.top = 0;
    }
    so.keep_outputs = npy || s->raw || !classes;
    if (s->ranks.model->replica != NULL && trm_replica_leads(s->ranks.model->replica))
        TRM_CHECK(trm_score_model_create(s->ranks.model, &so, &s->score_model));
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

static trm_status check_records(const struct trmi_score *s)
{
    trm_status st =
        trm_score_model_fits(s->ranks.model, s->source->tensors, s->source->tensor_count);

    return st == TRM_OK ? st : trm_fail_context(st, "input '%s'", s->input);
}

static trm_status check_output(struct trmi_score *s)
{
    trm_score_what what = {.input = s->input,
                           .output = s->output,
                           .dtype = s->common.dtype,
                           .output_name = s->output_name,
                           .source = s->source,
                           .package = s->language ? NULL : s->ranks.model->package,
                           .language = s->language ? s->ranks.lm->language : NULL,
                           .defaults = &s->lm_defaults,
                           .kv_dtype = s->language ? s->ranks.lm->kv_dtype : TRM_DTYPE_NONE,
                           .sink = &s->sink_options};

    if (trm_path_same(s->output, s->input) ||
        (s->labels != NULL && trm_path_same(s->output, s->labels)))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "output '%s' is an input of this run: want another file", s->output);
    return trm_score_journal_open(&what, &s->journal);
}

trm_status trmi_score_set_up(struct trmi_score *s, struct trmi_score_settings *set)
{
    const trm_parallel *p;
    trm_status st = TRM_OK;

    if (s->ranks.job.rank == 0)
        st = trm_path_exists(s->model_path)
                 ? open_input(s, set)
                 : trm_fail(TRM_ERR_NOT_FOUND, "model '%s' does not exist", s->model_path);
    set->ok = st == TRM_OK;
    /* a failed broadcast outweighs: the job cannot go on at all */
    if (s->ranks.job.size > 1) {
        char text[1024];
        trm_status sent;

        snprintf(text, sizeof(text), "%s", trm_message());
        sent = trm_job_bcast(&s->ranks.job, set, sizeof(*set), 0, TRM_SETUP_TIMEOUT_MS);
        if (sent != TRM_OK)
            return sent;
        if (st != TRM_OK)
            st = trm_fail(st, "%s", text);
    }
    /* all ranks, and with the same status */
    TRM_CHECK(s->language ? trmi_score_language_model(s, st) : open_model(s, st));
    p = &trm_ranks_layout(&s->ranks)->parallel;
    trm_score_hosts_settle(&set->hosts, &s->ranks.job, p->data, p->tensor * p->pipeline);
    st = s->language ? trmi_score_language_output(s) : settle_output(s, set);
    if (st == TRM_OK && s->ranks.job.rank == 0 && s->source->tensors != NULL)
        st = check_records(s);
    if (st == TRM_OK && s->ranks.job.rank == 0)
        st = check_output(s);
    if (st == TRM_OK)
        st = trm_link_context_create(&s->context);
    if (st == TRM_OK && set->hosts.remote)
        trm_link_context_encrypt(s->context, &set->hosts.keys);
    TRM_CHECK(trm_job_agree(&s->ranks.job, st, TRM_SETUP_TIMEOUT_MS));
    return trm_score_hosts_paths(&s->ranks.job, &set->hosts, s->source, TRM_SETUP_TIMEOUT_MS);
}

/* Rank 0: output and router. */
trm_status trmi_score_open_output(struct trmi_score *s, const struct trmi_score_settings *set)
{
    int replicas = trm_ranks_layout(&s->ranks)->parallel.data;
    char buf[TRM_LINK_ENDPOINT_BYTES];
    trm_router_options ro = {
        .context = s->context,
        .endpoint = trm_score_hosts_endpoint(&set->hosts, replicas, s->listen, buf, sizeof(buf)),
        .replicas = replicas,
        .window = WINDOW_BATCHES * (int)s->batch * replicas};

    if (s->journal != NULL)
        TRM_CHECK(trm_journal_start(s->journal));
    TRM_CHECK(trm_sink_open(s->output, &s->sink_options, s->journal, &s->sink));
    TRM_CHECK(trm_source_skip(s->source, s->sink->rows));
    ro.first_id = (uint64_t)s->sink->rows;
    return trm_router_create(&ro, &s->router);
}
