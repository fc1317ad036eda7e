/* Plans for a graph of cuDNN: what the heuristics offer, less what would not be exact enough. */
#include "kernels/cuda/dnn_graph.h"

#include "base/wait.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIGS_MAX 24 /* asked for per heuristic */
#define KNOBS_MAX 32

typedef cudnnBackendDescriptor_t descriptor;

static trm_status make(cudnnBackendDescriptorType_t type, descriptor *out)
{
    return trmi_cuda_dnn_check(cudnnBackendCreateDescriptor(type, out), "descriptor");
}

static void drop(descriptor d)
{
    if (d != NULL)
        (void)cudnnBackendDestroyDescriptor(d);
}

static trm_status set(descriptor d, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    return trmi_cuda_dnn_check(cudnnBackendSetAttribute(d, name, type, count, values), "attribute");
}

static trm_status get(descriptor d, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type, int64_t max, int64_t *count_out,
                      void *values)
{
    *count_out = 0;
    return trmi_cuda_dnn_check(cudnnBackendGetAttribute(d, name, type, max, count_out, values),
                               "attribute");
}

/* ---- engines ---- */

/* Whether an engine may be used: results must not depend on the run, fp32 must stay fp32, and the
 * large Winograd tiles lose too many bits. */
static bool notes_allow(const trmi_dnn_desc *desc, const cudnnBackendNumericalNote_t *notes,
                        int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        switch (notes[i]) {
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
            if (desc->x == TRM_DTYPE_F32)
                return false;
            break;
        case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
        case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
            return false;
        default:
            break;
        }
    }
    return true;
}

/* "10 2=5 13=1" */
static trm_status write_engine(descriptor engine, descriptor config, char *text)
{
    descriptor knobs[KNOBS_MAX] = {NULL};
    cudnnBackendKnobType_t type;
    int64_t index, value, count, n;
    size_t at;
    trm_status st;

    TRM_CHECK(get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &index));
    at = (size_t)snprintf(text, TRMI_DNN_ENGINE_TEXT, "%" PRId64, index);
    for (int i = 0; i < KNOBS_MAX; i++)
        TRM_TRY(st, make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]), done);
    TRM_TRY(st,
            get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, KNOBS_MAX,
                &count, knobs),
            done);
    for (int64_t i = 0; i < count && at < TRMI_DNN_ENGINE_TEXT; i++) {
        TRM_TRY(st,
                get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &n, &type),
                done);
        TRM_TRY(st,
                get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &n, &value),
                done);
        at += (size_t)snprintf(text + at, TRMI_DNN_ENGINE_TEXT - at, " %d=%" PRId64, (int)type,
                               value);
    }
    if (at >= TRMI_DNN_ENGINE_TEXT)
        text[0] = 0; /* cannot be written down */
done:
    for (int i = 0; i < KNOBS_MAX; i++)
        drop(knobs[i]);
    return st;
}

/* Looks at a configuration's engine. *usable_out: by its notes. */
static trm_status read_engine(const trmi_dnn_desc *desc, descriptor config, bool *usable_out,
                              trmi_dnn_candidate *c)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT + 6];
    cudnnBackendBehaviorNote_t behaviour[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT + 6];
    descriptor engine = NULL;
    int64_t n, count;
    trm_status st;

    *usable_out = false;
    TRM_CHECK(make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    TRM_TRY(st,
            get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine),
            done);
    TRM_TRY(st,
            get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                (int64_t)(sizeof(notes) / sizeof(notes[0])), &count, notes),
            done);
    *usable_out = notes_allow(desc, notes, count);
    TRM_TRY(st,
            get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                (int64_t)(sizeof(behaviour) / sizeof(behaviour[0])), &count, behaviour),
            done);
    for (int64_t i = 0; i < count; i++) {
        c->compiled = c->compiled || behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
        if (behaviour[i] == CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER ||
            behaviour[i] == CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER)
            *usable_out = false;
    }
    if (*usable_out)
        TRM_TRY(st, write_engine(engine, config, c->engine), done);
done:
    drop(engine);
    return st;
}

/* ---- plans ---- */

static trm_status build(descriptor config, descriptor device, trmi_dnn_candidate *c)
{
    int64_t n;
    trm_status st;

    TRM_CHECK(make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &c->plan));
    TRM_TRY(st,
            set(c->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                &config),
            fail);
    TRM_TRY(st,
            set(c->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                &device),
            fail);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(c->plan), "plan"), fail);
    TRM_TRY(st,
            get(c->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                &c->workspace_bytes),
            fail);
    return TRM_OK;
fail:
    drop(c->plan);
    c->plan = NULL;
    return st;
}

static trm_status ask(const trmi_dnn_graph *g, descriptor device, cudnnBackendHeurMode_t mode,
                      descriptor *configs, int64_t *count_out)
{
    descriptor heuristics = NULL;
    trm_status st;

    *count_out = 0;
    TRM_CHECK(make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    TRM_TRY(st,
            set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                &g->graph),
            done);
    TRM_TRY(st, set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode), done);
    TRM_TRY(st,
            set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                &device),
            done);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(heuristics), "heuristics"), done);
    TRM_TRY(st,
            get(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                CONFIGS_MAX, count_out, configs),
            done);
done:
    drop(heuristics);
    return st;
}

static bool known(const trmi_dnn_candidates *c, const char *engine)
{
    for (int i = 0; i < c->count && engine[0] != 0; i++)
        if (strcmp(c->list[i].engine, engine) == 0)
            return true;
    return false;
}

/* Adds what one heuristic offers. An engine that cannot be built is passed over: that is how they
 * say that they do not take a shape. */
static trm_status add(const trmi_dnn_desc *desc, const trmi_dnn_graph *g, descriptor device,
                      cudnnBackendHeurMode_t mode, int max, int64_t until, trmi_dnn_candidates *c)
{
    descriptor configs[CONFIGS_MAX] = {NULL};
    int64_t count = 0;
    trm_status st = TRM_OK;

    for (int i = 0; i < CONFIGS_MAX; i++)
        TRM_TRY(st, make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]), done);
    if (ask(g, device, mode, configs, &count) != TRM_OK)
        count = 0;
    c->offered += (int)count;
    for (int64_t i = 0; i < count && c->count < max; i++) {
        trmi_dnn_candidate *candidate = &c->list[c->count];
        bool usable = false;

        if (c->count > 0 && trm_now_us() > until)
            break;
        memset(candidate, 0, sizeof(*candidate));
        if (read_engine(desc, configs[i], &usable, candidate) != TRM_OK)
            continue;
        if (!usable) {
            c->inexact++;
            continue;
        }
        if (!known(c, candidate->engine) && build(configs[i], device, candidate) == TRM_OK)
            c->count++;
    }
done:
    for (int i = 0; i < CONFIGS_MAX; i++)
        drop(configs[i]);
    return st;
}

trm_status trmi_cuda_dnn_candidates(const trmi_dnn_desc *desc, const trmi_dnn_graph *g,
                                    descriptor device, int max, int64_t budget_ms,
                                    trmi_dnn_candidates *c)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                                   CUDNN_HEUR_MODE_FALLBACK};
    int64_t until = trm_now_us() + budget_ms * 1000;

    memset(c, 0, sizeof(*c));
    if (max > TRMI_DNN_CANDIDATES_MAX)
        max = TRMI_DNN_CANDIDATES_MAX;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]) && c->count == 0; i++)
        TRM_CHECK(add(desc, g, device, modes[i], max, until, c));
    if (c->count == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "cuDNN has no engine: %d configurations offered, %d not exact enough",
                        c->offered, c->inexact);
    return TRM_OK;
}

void trmi_cuda_dnn_candidates_fini(trmi_dnn_candidates *c)
{
    for (int i = 0; i < c->count; i++) {
        drop(c->list[i].plan);
        c->list[i].plan = NULL;
    }
    c->count = 0;
}

/* ---- engines written down ---- */

static trm_status read_knobs(const char *text, int64_t *index_out, int *count_out,
                             cudnnBackendKnobType_t *types, int64_t *values)
{
    char *end;

    *index_out = strtoll(text, &end, 10);
    if (end == text)
        return trm_fail(TRM_ERR_BAD_FILE, "engine '%s'", text);
    for (*count_out = 0; *end == ' ' && *count_out < KNOBS_MAX; (*count_out)++) {
        const char *from = end + 1;
        long type = strtol(from, &end, 10);

        if (end == from || *end != '=')
            return trm_fail(TRM_ERR_BAD_FILE, "engine '%s'", text);
        from = end + 1;
        types[*count_out] = (cudnnBackendKnobType_t)type;
        values[*count_out] = strtoll(from, &end, 10);
        if (end == from)
            return trm_fail(TRM_ERR_BAD_FILE, "engine '%s'", text);
    }
    return *end == 0 ? TRM_OK : trm_fail(TRM_ERR_BAD_FILE, "engine '%s'", text);
}

trm_status trmi_cuda_dnn_candidate(const trmi_dnn_graph *g, descriptor device, const char *text,
                                   trmi_dnn_candidate *c)
{
    descriptor engine = NULL, config = NULL, knobs[KNOBS_MAX] = {NULL};
    cudnnBackendKnobType_t types[KNOBS_MAX];
    int64_t index, values[KNOBS_MAX];
    int count;
    trm_status st;

    memset(c, 0, sizeof(*c));
    TRM_CHECK(read_knobs(text, &index, &count, types, values));
    snprintf(c->engine, sizeof(c->engine), "%s", text);
    TRM_TRY(st, make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine), done);
    TRM_TRY(
        st,
        set(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->graph),
        done);
    TRM_TRY(st, set(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index), done);
    TRM_TRY(st,
            set(engine, CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &device),
            done);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(engine), "engine"), done);
    for (int i = 0; i < count; i++) {
        TRM_TRY(st, make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]), done);
        TRM_TRY(st,
                set(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &types[i]),
                done);
        TRM_TRY(st,
                set(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &values[i]),
                done);
        TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(knobs[i]), "knob"), done);
    }
    TRM_TRY(st, make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config), done);
    TRM_TRY(st, set(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine),
            done);
    if (count > 0)
        TRM_TRY(st,
                set(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                    knobs),
                done);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(config), "configuration"), done);
    st = build(config, device, c);
done:
    for (int i = 0; i < KNOBS_MAX; i++)
        drop(knobs[i]);
    drop(config);
    drop(engine);
    return st;
}
