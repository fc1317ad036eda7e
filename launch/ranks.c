/* Commands on several ranks. */
#define _GNU_SOURCE
#include "launch/ranks.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

bool trm_ranks_silent(const trm_ranks *r, int argc, char **argv)
{
    for (int i = 0; i < argc && r->job.rank != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

trm_status trm_ranks_device(trm_ranks *r, const trm_common_options *common, bool share)
{
    int threads = 1;

    trm_job_take_cores(&r->job, share, &threads);
    r->threads = common->threads > 0 ? (int)common->threads : threads;
    TRM_CHECK(trm_device_open(common->device,
                              trm_job_topology(&r->job)->rank[r->job.rank].local_rank, r->threads,
                              &r->devices));
    r->device = r->devices.device;
    r->device->order_free = !r->device->host_memory && strcmp(common->deterministic, "off") == 0;
    return TRM_OK;
}

trm_status trm_ranks_options(trm_ranks *r, const trm_common_options *common,
                             const trm_parallel_options *parallel, trm_parallel otherwise,
                             trm_objective objective, trm_tensor_model_options *o)
{
    const trm_topology *t = trm_job_topology(&r->job);
    /* what the ranks of rank 0's host have together */
    int cores = t->rank[0].cores * trm_topology_local_size(t, 0);

    *o = (trm_tensor_model_options){.dtype = trm_dtype_from_name(common->dtype),
                                    .job = &r->job,
                                    .hosts = trm_job_topology(&r->job)->host_of,
                                    .parallel = otherwise,
                                    .objective = objective,
                                    .memory_bytes = (size_t)parallel->memory,
                                    .threads = r->threads,
                                    .cores = cores};
    if (parallel->parallel != NULL) {
        trm_status st = trm_parallel_parse(parallel->parallel, &o->parallel);

        if (st != TRM_OK)
            return trm_fail_context(st, "--parallel");
    }
    if (parallel->objective != NULL)
        o->objective = strcmp(parallel->objective, "latency") == 0 ? TRM_OBJECTIVE_LATENCY
                                                                   : TRM_OBJECTIVE_THROUGHPUT;
    return TRM_OK;
}

trm_status trm_ranks_open(trm_ranks *r, const char *path, trm_status before,
                          const trm_tensor_model_options *options)
{
    TRM_CHECK(trm_job_agree(&r->job, before, TRM_SETUP_TIMEOUT_MS));
    TRM_CHECK(trm_tensor_model_open(path, r->device, options, &r->model));
    if (r->job.rank == 0 && r->model->plan != NULL && trmi_log_enabled(TRM_LOG_INFO, "plan"))
        trm_ranks_describe(r, stderr);
    return TRM_OK;
}

const trm_tensor_model *trm_ranks_layout(const trm_ranks *r)
{
    return r->lm != NULL ? &r->lm->layout : r->model;
}

bool trm_ranks_lead(trm_ranks *r, trm_status *st_out)
{
    trm_replica *replica = r->lm != NULL ? NULL : r->model->replica;

    *st_out = TRM_OK;
    if (r->lm != NULL && r->lm->replica != NULL) {
        if (trm_lm_replica_leads(r->lm->replica))
            return true;
        *st_out = trm_lm_replica_follow(r->lm->replica);
    }
    if (replica != NULL && trm_replica_leads(replica))
        return true;
    if (replica != NULL)
        *st_out = trm_replica_follow(replica);
    if (*st_out == TRM_ERR_COMM)
        r->job.lost = true; /* MPI cannot be relied on either */
    return false;
}

void trm_ranks_describe(const trm_ranks *r, FILE *file)
{
    const trm_tensor_model *m = trm_ranks_layout(r);
    const trm_plan *plan = m->plan;
    char text[80];

    fprintf(file, "layout    %s", trm_parallel_text(&m->parallel, text, sizeof(text)));
    if (m->parallel.data * m->parallel.tensor * m->parallel.pipeline < r->job.size)
        fprintf(file, ", %d of %d ranks are left over",
                r->job.size - m->parallel.data * m->parallel.tensor * m->parallel.pipeline,
                r->job.size);
    fprintf(file, "\n");
    if (plan == NULL)
        return;
    for (int i = 0; i < plan->ledger_count; i++) {
        const trm_ledger *l = &plan->ledger[i];

        fprintf(file,
                "ledger    stage %d, shard %d: weights %.1f MB (%.1f of the file's pages), "
                "activations %.1f, staging %.1f, "
                "communicators %.1f, workspace %.1f, KV cache %.1f, in all %.1f\n",
                i / m->parallel.tensor, i % m->parallel.tensor, (double)l->weights / 1e6,
                (double)l->mapped / 1e6, (double)l->activations / 1e6, (double)l->staging / 1e6,
                (double)l->communicators / 1e6, (double)l->workspace / 1e6, (double)l->kv / 1e6,
                (double)trm_ledger_total(l) / 1e6);
    }
}

/* Ranks without a part would come to the job's end long before the others, and be taken for the
 * first of many that do not come. */
static void wait_for_workers(trm_ranks *r)
{
    const trm_tensor_model *m = trm_ranks_layout(r);
    const trm_parallel *p = m == NULL ? NULL : &m->parallel;

    if (p == NULL || r->job.lost ||
        (p->data * p->tensor * p->pipeline == r->job.size && (!r->one_works || p->data == 1)))
        return;
    if (trm_job_agree(&r->job, TRM_OK, TRM_WORK_TIMEOUT_MS) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "ranks", "end: %s", trm_message());
}

trm_status trm_ranks_end(trm_ranks *r, trm_status st)
{
    char text[1024] = "";

    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    if (r->model != NULL && r->model->replica != NULL &&
        trm_replica_stop(r->model->replica) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "ranks", "stop: %s", trm_message());
    if (r->lm != NULL && r->lm->replica != NULL && trm_lm_replica_stop(r->lm->replica) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "ranks", "stop: %s", trm_message());
    if (st == TRM_ERR_COMM && r->job.size > 1)
        r->job.lost = true;
    wait_for_workers(r);
    trm_tensor_model_close(r->model);
    r->model = NULL;
    trm_lm_model_close(r->lm);
    r->lm = NULL;
    trm_device_close(&r->devices);
    r->device = NULL;
    /* rank 0 says what all have agreed on; a leader that lost its coordinator speaks itself */
    if (r->job.rank != 0 && !(st == TRM_ERR_COMM && r->job.lost && !r->job.told))
        st = TRM_OK;
    if (r->job.lost && st != TRM_OK)
        fprintf(stderr, "trireme %s: %s%s\n", r->command, r->job.rank != 0 ? "a replica: " : "",
                text);
    trm_job_end(&r->job, trm_status_exit_code(st)); /* after a loss this is the end */
    return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", text);
}
