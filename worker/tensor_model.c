/* From a path to a replica. */
#include "worker/tensor_model.h"

#include "worker/model_layout.h"

#include <stdio.h>
#include <string.h>

/* Every operator must have a kernel: said before anything runs, all missing ones at once. */
static trm_status find_missing(const trm_graph *g, trm_device *device, char *missing, size_t bytes)
{
    trm_device *host = trm_device_host(device);

    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];
        trm_op_desc desc = {.op = node->op, .attrs = &node->attrs, .name = node->name};
        const char *name = trm_op_get(node->op)->name;

        for (int i = 0; i < node->attrs.count; i++)
            if (node->attrs.items[i].kind == TRM_ATTR_GRAPH)
                TRM_CHECK(find_missing(node->attrs.items[i].v.graph, device, missing, bytes));
        if ((trm_op_get(node->op)->flags & (TRM_OPF_CONTROL | TRM_OPF_COLLECTIVE)) != 0 ||
            device->ops->supports(device, &desc) ||
            host->ops->supports(host, &desc)) /* a device's gaps are filled by its host */
            continue;
        if (strstr(missing, name) == NULL && strlen(missing) + strlen(name) + 4 < bytes) {
            if (missing[0] != '\0')
                strcat(missing, ", ");
            strcat(missing, name);
        }
    }
    return TRM_OK;
}

trm_status trmi_check_operators(const char *path, const trm_graph *g, trm_device *device)
{
    char missing[512] = "";

    TRM_CHECK(find_missing(g, device, missing, sizeof(missing)));
    if (missing[0] != '\0')
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s: device '%s' has no kernel for %s (docs/operators.md lists what it "
                        "has)",
                        path, device->ops->name, missing);
    return TRM_OK;
}

static trm_status prepare(trm_tensor_model *m, const char *path, bool images, trm_device *folding)
{
    trm_evaluator evaluator = {0};
    trm_status st = TRM_OK;

    TRM_CHECK(trm_package_open(path, &m->package));
    m->graph = m->package->graph;
    m->path = m->package->model_path;
    if (images && !m->device->host_memory) {
        st = trm_package_take_bytes(m->package);
        if (st != TRM_OK)
            return trm_fail_context(st, "%s", path);
    }
    TRM_CHECK(trm_evaluator_create(folding, &evaluator));
    st = trm_pass_prepare(m->graph, &evaluator);
    trm_evaluator_destroy(&evaluator);
    if (st != TRM_OK)
        return trm_fail_context(st, "%s", path);
    return trmi_check_operators(path, m->graph, m->device);
}

/* This rank's share. Every rank of the job comes here, with a replica or without. */
static trm_status load(trm_tensor_model *m, const trm_tensor_model_options *o)
{
    trm_replica_options ro = {.graph = m->graph,
                              .plan = m->plan,
                              .place = m->place,
                              .device = m->device,
                              .replica = m->replica_comm,
                              .stage = m->stage_comm,
                              .dtype = o != NULL ? o->dtype : TRM_DTYPE_NONE,
                              .no_memory = trmi_layout_explain,
                              .ctx = m,
                              .engine = {.profile = o != NULL && o->profile,
                                         .programs_max = o != NULL ? o->programs : 0}};
    trm_status st = TRM_OK;

    ro.engine.weight_space = trmi_layout_weight_space(m);
    if (m->place.replica < m->parallel.data)
        st = trm_replica_create(&ro, &m->replica);
    if (st == TRM_ERR_NO_MEMORY)
        trmi_layout_explain(m);
    return o == NULL || o->job == NULL ? st : trm_job_agree(o->job, st, TRMI_OPEN_TIMEOUT_MS);
}

trm_status trm_tensor_model_begin(const char *path, trm_device *device, trm_device *folding,
                                  const trm_tensor_model_options *options,
                                  trm_tensor_model **model_out)
{
    trm_tensor_model *m = trm_calloc(1, sizeof(*m));

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "model '%s'", path);
    m->device = device;
    m->begun = prepare(m, path, options != NULL && options->images,
                       folding != NULL ? folding : trm_device_host(device));
    if (m->begun != TRM_OK)
        snprintf(m->begun_text, sizeof(m->begun_text), "%s", trm_message());
    *model_out = m;
    return TRM_OK;
}

trm_status trm_tensor_model_finish(trm_tensor_model *m, const trm_tensor_model_options *options)
{
    trm_status st = m->begun == TRM_OK ? TRM_OK : trm_fail(m->begun, "%s", m->begun_text);

    TRM_TRY(st, trmi_layout_plan(m, options, st), fail);
    TRM_TRY(st, trmi_layout_groups(m, options), fail);
    TRM_TRY(st, load(m, options), fail);
    return TRM_OK;
fail:
    trm_tensor_model_close(m);
    return st;
}

trm_status trm_tensor_model_open(const char *path, trm_device *device,
                                 const trm_tensor_model_options *options,
                                 trm_tensor_model **model_out)
{
    trm_tensor_model *m = NULL;

    TRM_CHECK(trm_tensor_model_begin(path, device, NULL, options, &m));
    TRM_CHECK(trm_tensor_model_finish(m, options));
    *model_out = m;
    return TRM_OK;
}

void trm_tensor_model_close(trm_tensor_model *m)
{
    if (m == NULL)
        return;
    trm_replica_destroy(m->replica);
    trmi_layout_close(m);
    trm_package_close(m->package);
    trm_free(m);
}

trm_status trm_tensor_model_scores(const trm_tensor_model *m, int *output_out)
{
    const char *want = m->package->output_name;

    *output_out = 0;
    if (want == NULL)
        return TRM_OK;
    for (int i = 0; i < m->graph->output_count; i++) {
        if (strcmp(m->graph->values[m->graph->outputs[i]].name, want) == 0) {
            *output_out = i;
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_CONFIG,
                    "the YAML beside '%s' names output '%s'; the model's first output is '%s'",
                    m->package->model_path, want, m->graph->values[m->graph->outputs[0]].name);
}

bool trm_tensor_model_batches(const trm_tensor_model *m)
{
    const trm_graph *g = m->graph;
    int64_t batch = 0;

    if (g->input_count == 0)
        return false;
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *d = &g->values[g->inputs[i]].desc;

        if (d->rank < 1 || d->dims[0] >= 0 || (i > 0 && d->dims[0] != batch))
            return false;
        batch = d->dims[0];
    }
    for (int i = 0; i < g->output_count; i++) {
        const trm_tensor *d = &g->values[g->outputs[i]].desc;

        if (d->rank < 1 || d->dims[0] >= 0)
            return false;
    }
    return true;
}
