/* Calls of the leader become runs, runs become steps of the replica, as many under way as it takes;
 * a run that fails is cut into its records, so that a failure is each one's own. */
#include "base/log.h"
#include "worker/score_impl.h"

#include <string.h>

static bool same_inputs(const trm_score_model *s, const trmi_prepared *a, const trmi_prepared *b)
{
    if (a->whole || b->whole)
        return false;
    for (int i = 0; i < s->model->graph->input_count; i++)
        if (a->inputs[i].dtype != b->inputs[i].dtype ||
            !trm_tensor_same_shape(&a->inputs[i], &b->inputs[i]))
            return false;
    return true;
}

/* The size of the next run of up to `n` records: see the header. */
static int run_size(const trm_score_model *s, int n)
{
    int size = 1;

    if (!s->stacks)
        return 1;
    if (s->fixed_batch > 0)
        return n < s->fixed_batch ? n : (int)s->fixed_batch;
    if (n >= s->run_batch)
        return s->run_batch;
    while (size * 2 <= n)
        size *= 2;
    return size;
}

/* ---- results ---- */

static void set_error(trm_wire_result *result, trm_status st, trm_arena *scratch)
{
    const char *text = trm_arena_strdup(scratch, trm_message());

    memset(result, 0, sizeof(*result));
    result->status = st;
    result->message = text != NULL ? text : trm_status_name(st);
}

/* The run has failed: with several records it is tried again one by one. */
static void run_failed(trm_score_model *s, struct trmi_score_run *run, trm_status st)
{
    struct trmi_score_call *call = run->call;
    struct trmi_score_run *singles;

    singles = run->n == 1 ? NULL : trm_arena_alloc(call->scratch, (size_t)run->n, sizeof(*run));
    if (singles == NULL) {
        for (int k = 0; k < run->n; k++)
            set_error(&call->results[run->at + k], st, call->scratch);
        call->left -= run->n;
        return;
    }
    for (int k = run->n - 1; k >= 0; k--) {
        singles[k] =
            (struct trmi_score_run){.call = call, .at = run->at + k, .n = 1, .next = s->todo};
        s->todo = &singles[k];
    }
}

static trm_status take_outputs(trm_score_model *s, struct trmi_score_run *run)
{
    struct trmi_score_call *call = run->call;
    int64_t batch = s->fixed_batch > 0 ? s->fixed_batch : run->n, rows;

    if (run->n > 1 && !trmi_score_splits(s, batch)) {
        TRM_LOG(TRM_LOG_INFO, "score", "outputs are not one row a record: no more batches");
        s->stacks = false;
        return TRM_ERR_UNSUPPORTED;
    }
    /* an output that is not one row a record goes out as it is */
    rows = !call->prepared[run->at].whole && trmi_score_splits(s, batch) ? batch : 0;
    for (int k = 0; k < run->n; k++)
        TRM_CHECK(trmi_score_split(s, k, rows, call->scratch, &call->results[run->at + k]));
    call->left -= run->n;
    return TRM_OK;
}

/* The oldest run under way. COMM: the replica is lost; other failures are the records'. */
static trm_status collect(trm_score_model *s, trm_leader *leader)
{
    struct trmi_score_run *run = s->ring[s->ring_first];
    trm_status st = trm_replica_collect(s->model->replica, s->out);

    if (st == TRM_ERR_COMM)
        return st;
    s->ring_first = (s->ring_first + 1) % s->ring_max;
    s->ring_count--;
    if (st == TRM_OK)
        st = take_outputs(s, run);
    if (st != TRM_OK)
        run_failed(s, run, st);
    if (leader != NULL)
        trm_leader_progress(leader);
    return TRM_OK;
}

/* ---- steps ---- */

static trm_status begin(trm_score_model *s, struct trmi_score_run *run, trm_leader *leader)
{
    const trmi_prepared *records = run->call->prepared + run->at;
    int64_t batch = s->fixed_batch > 0 ? s->fixed_batch : run->n;
    trm_status st = TRM_OK;

    if (records[0].whole)
        memcpy(s->in, records[0].inputs, (size_t)s->model->graph->input_count * sizeof(*s->in));
    else
        st = trmi_score_stack(s, records, run->n, batch);
    if (st == TRM_OK)
        st = trm_replica_submit(s->model->replica, s->in);
    if (st == TRM_ERR_COMM)
        return st;
    if (st != TRM_OK) {
        run_failed(s, run, st);
        return TRM_OK;
    }
    s->ring[(s->ring_first + s->ring_count) % s->ring_max] = run;
    s->ring_count++;
    /* one at a time is complete at once; with stages there is always room for the next */
    return s->ring_count == s->ring_max ? collect(s, leader) : TRM_OK;
}

static trm_status begin_all(trm_score_model *s, trm_leader *leader)
{
    while (s->todo != NULL) {
        struct trmi_score_run *run = s->todo;

        s->todo = run->next;
        TRM_CHECK(begin(s, run, leader));
    }
    return TRM_OK;
}

/* Cuts the call into runs. */
static trm_status plan_runs(trm_score_model *s, struct trmi_score_call *call, int n)
{
    const trmi_prepared *prepared = call->prepared;
    struct trmi_score_run **end = &s->todo;

    for (int at = 0, size; at < n; at += size) {
        struct trmi_score_run *run;
        int same = 1;

        if (prepared[at].st != TRM_OK) {
            call->results[at] =
                (trm_wire_result){.status = prepared[at].st, .message = prepared[at].message};
            call->left--;
            size = 1;
            continue;
        }
        while (at + same < n && prepared[at + same].st == TRM_OK &&
               same_inputs(s, &prepared[at], &prepared[at + same]))
            same++;
        size = run_size(s, same);
        run = trm_arena_alloc(call->scratch, 1, sizeof(*run));
        if (run == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %d records", n);
        *run = (struct trmi_score_run){.call = call, .at = at, .n = size};
        *end = run;
        end = &run->next;
    }
    return TRM_OK;
}

static trm_status run(void *ctx, trm_leader *leader, const trm_wire_record *records, int n,
                      trm_arena *scratch, trm_wire_result *results_out)
{
    trm_score_model *s = ctx;
    trmi_prepared *prepared = trm_arena_alloc(scratch, (size_t)n + 1, sizeof(*prepared));
    struct trmi_score_call *call = trm_arena_alloc(scratch, 1, sizeof(*call));

    if (prepared == NULL || call == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a batch of %d records", n);
    for (int i = 0; i < n; i++) {
        trmi_score_prepare(s->model, &records[i], scratch, &prepared[i]);
        if (leader != NULL)
            trm_leader_progress(leader);
    }
    *call = (struct trmi_score_call){
        .prepared = prepared, .results = results_out, .scratch = scratch, .left = n};
    if (s->last != NULL)
        s->last->next = call;
    else
        s->first = call;
    s->last = call;
    TRM_CHECK(plan_runs(s, call, n));
    return begin_all(s, leader);
}

static int64_t done(void *ctx)
{
    trm_score_model *s = ctx;

    for (; s->first != NULL && s->first->left == 0; s->done++) {
        s->first = s->first->next;
        if (s->first == NULL)
            s->last = NULL;
    }
    return s->done;
}

static trm_status wait_for_one(void *ctx, trm_leader *leader)
{
    trm_score_model *s = ctx;

    if (s->ring_count > 0)
        TRM_CHECK(collect(s, leader));
    return begin_all(s, leader);
}

static void drop(void *ctx)
{
    trm_score_model *s = ctx;

    s->todo = NULL;
    s->first = s->last = NULL;
    s->ring_count = 0;
}

trm_leader_model trm_score_model_callback(trm_score_model *score)
{
    trm_leader_model m = {.ctx = score,
                          .batch_max = score->options.batch,
                          .run = run,
                          .done = done,
                          .wait = wait_for_one,
                          .drop = drop};

    return m;
}
