/* cuDNN as far as kernels/cuda/dnn*.c uses it: the C interface of its graph API (descriptors are
 * bags of attributes), heuristics that offer a few engines, and an interpreter of the graph in the
 * emulated streams (cudnn_run.cpp). It refuses what the library refuses: attributes that a
 * descriptor does not have, of another type, or set after it was finalized; missing ones; shapes
 * that do not fit; pointers that are no device memory or not aligned as was said.
 *
 * TRM_EMU_CUDNN=none: no engine for anything; =single: only for graphs of one operation. */
#include "tests/cuda/emulation/cudnn_emu.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace trm_emu::dnn;

namespace
{

thread_local char last_error[256];

cudnnStatus_t refuse(cudnnStatus_t status, const char *why)
{
    std::snprintf(last_error, sizeof(last_error), "emulated cuDNN: %s", why);
    return status;
}

size_t bytes_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

/* What a descriptor can be told. */
struct Rule {
    cudnnBackendDescriptorType_t owner;
    int name;
    cudnnBackendAttributeType_t type;
    bool required;
};

/* clang-format off */
const Rule rules[] = {
#define RULE(owner, name, type, required)                                                          \
    {CUDNN_BACKEND_##owner##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, required},
    RULE(DEVICEPROP, DEVICEPROP_HANDLE, HANDLE, true)
    RULE(TENSOR, TENSOR_UNIQUE_ID, INT64, true)
    RULE(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, true)
    RULE(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, true)
    RULE(TENSOR, TENSOR_DIMENSIONS, INT64, true)
    RULE(TENSOR, TENSOR_STRIDES, INT64, true)
    RULE(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, false)
    RULE(TENSOR, TENSOR_IS_BY_VALUE, BOOLEAN, false)
    RULE(CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, INT64, true)
    RULE(CONVOLUTION, CONVOLUTION_COMP_TYPE, DATA_TYPE, true)
    RULE(CONVOLUTION, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, true)
    RULE(CONVOLUTION, CONVOLUTION_PRE_PADDINGS, INT64, true)
    RULE(CONVOLUTION, CONVOLUTION_POST_PADDINGS, INT64, true)
    RULE(CONVOLUTION, CONVOLUTION_DILATIONS, INT64, true)
    RULE(CONVOLUTION, CONVOLUTION_FILTER_STRIDES, INT64, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_X, BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_W, BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_Y, BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_ALPHA, FLOAT, true)
    RULE(OPERATION_CONVOLUTION_FORWARD, OPERATION_CONVOLUTION_FORWARD_BETA, FLOAT, true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_DY, BACKEND_DESCRIPTOR,
         true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_W, BACKEND_DESCRIPTOR,
         true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_DX, BACKEND_DESCRIPTOR,
         true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_ALPHA, FLOAT, true)
    RULE(OPERATION_CONVOLUTION_BACKWARD_DATA, OPERATION_CONVOLUTION_BWD_DATA_BETA, FLOAT, true)
    RULE(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, true)
    RULE(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, true)
    RULE(POINTWISE, POINTWISE_RELU_LOWER_CLIP, FLOAT, false)
    RULE(POINTWISE, POINTWISE_RELU_UPPER_CLIP, FLOAT, false)
    RULE(POINTWISE, POINTWISE_RELU_LOWER_CLIP_SLOPE, FLOAT, false)
    RULE(POINTWISE, POINTWISE_ELU_ALPHA, FLOAT, false)
    RULE(POINTWISE, POINTWISE_SWISH_BETA, FLOAT, false)
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, true)
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, false)
    RULE(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, true)
    RULE(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, true)
    RULE(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, true)
    RULE(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, true)
    RULE(ENGINEHEUR, ENGINEHEUR_DEVICEPROP, BACKEND_DESCRIPTOR, true)
    RULE(ENGINE, ENGINE_OPERATION_GRAPH, BACKEND_DESCRIPTOR, true)
    RULE(ENGINE, ENGINE_GLOBAL_INDEX, INT64, true)
    RULE(ENGINE, ENGINE_DEVICEPROP, BACKEND_DESCRIPTOR, true)
    RULE(KNOB_CHOICE, KNOB_CHOICE_KNOB_TYPE, KNOB_TYPE, true)
    RULE(KNOB_CHOICE, KNOB_CHOICE_KNOB_VALUE, INT64, true)
    RULE(ENGINECFG, ENGINECFG_ENGINE, BACKEND_DESCRIPTOR, true)
    RULE(ENGINECFG, ENGINECFG_KNOB_CHOICES, BACKEND_DESCRIPTOR, false)
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, true)
    RULE(EXECUTION_PLAN, EXECUTION_PLAN_DEVICEPROP, BACKEND_DESCRIPTOR, true)
    RULE(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, true)
    RULE(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, true)
    RULE(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, true)
#undef RULE
};
/* clang-format on */

const Rule *rule_of(cudnnBackendDescriptorType_t owner, int name)
{
    for (const Rule &r : rules)
        if (r.owner == owner && r.name == name)
            return &r;
    return nullptr;
}

std::shared_ptr<Descriptor> &at(cudnnBackendDescriptor_t d)
{
    return *static_cast<std::shared_ptr<Descriptor> *>(d);
}

/* ---- engines ---- */

/* 30 computes fp32 as TF32, which nobody may choose for fp32. */
enum { ENGINE_FAST = 10, ENGINE_COMPILED = 22, ENGINE_TF32 = 30 };

std::shared_ptr<Descriptor> engine_of(const std::shared_ptr<Descriptor> &graph, int64_t index,
                                      const std::shared_ptr<Descriptor> &device)
{
    auto e = std::make_shared<Descriptor>();

    e->type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    e->finalized = true;
    e->put_descriptors(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, {graph});
    e->put_descriptors(CUDNN_ATTR_ENGINE_DEVICEPROP, {device});
    e->put(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    return e;
}

std::shared_ptr<Descriptor> config_of(const std::shared_ptr<Descriptor> &engine, int64_t tile)
{
    auto c = std::make_shared<Descriptor>(), k = std::make_shared<Descriptor>();
    const int32_t type = CUDNN_KNOB_TYPE_TILE_SIZE;

    k->type = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    k->finalized = true;
    k->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    k->put(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &tile);
    c->type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    c->finalized = true;
    c->put_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, {engine});
    c->put_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, {k});
    return c;
}

bool single_precision(const Descriptor &graph)
{
    for (const auto &op : graph.descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS))
        for (const auto &t : tensors_of(*op))
            if (!t->flag(CUDNN_ATTR_TENSOR_IS_VIRTUAL) &&
                t->get_int32(CUDNN_ATTR_TENSOR_DATA_TYPE) != CUDNN_DATA_FLOAT)
                return false;
    return true;
}

std::vector<std::shared_ptr<Descriptor>> results_of(const Descriptor &heuristics)
{
    const auto graph = heuristics.descriptors(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)[0];
    const auto device = heuristics.descriptors(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP)[0];
    const char *limit = std::getenv("TRM_EMU_CUDNN");
    std::vector<std::shared_ptr<Descriptor>> list;

    if (limit != nullptr && (std::strcmp(limit, "none") == 0 ||
                             graph->descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS).size() > 1))
        return list;
    if (single_precision(*graph))
        list.push_back(config_of(engine_of(graph, ENGINE_TF32, device), 1));
    list.push_back(config_of(engine_of(graph, ENGINE_FAST, device), 5));
    list.push_back(config_of(engine_of(graph, ENGINE_COMPILED, device), 2));
    return list;
}

std::vector<int32_t> notes_of(const Descriptor &engine, bool numerical)
{
    const int64_t index = engine.get_int64(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);

    if (!numerical && index == ENGINE_COMPILED)
        return {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION};
    if (numerical && index == ENGINE_TF32)
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS};
    return {};
}

cudnnStatus_t give(const std::vector<std::shared_ptr<Descriptor>> &from, int64_t max,
                   int64_t *count, void *out)
{
    auto *handles = static_cast<cudnnBackendDescriptor_t *>(out);
    const int64_t n = static_cast<int64_t>(from.size());

    *count = n;
    if (max == 0)
        return CUDNN_STATUS_SUCCESS;
    *count = n < max ? n : max;
    for (int64_t i = 0; i < *count; i++) {
        if (handles[i] == nullptr || at(handles[i])->type != from[static_cast<size_t>(i)]->type)
            return refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
                          "a descriptor to fill is of another type");
        at(handles[i]) = from[static_cast<size_t>(i)];
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize(Descriptor &d)
{
    for (const Rule &r : rules)
        if (r.owner == d.type && r.required && d.values.count(r.name) == 0)
            return refuse(CUDNN_STATUS_BAD_PARAM, "a required attribute is missing");
    for (const auto &v : d.values)
        for (const auto &child : v.second.descriptors)
            if (!child->finalized)
                return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                              "an attribute's descriptor is not finalized");
    if (const char *why = wrong(d))
        return refuse(CUDNN_STATUS_BAD_PARAM, why);
    if (d.type == CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
        const int64_t index = d.get_int64(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);

        if (index != ENGINE_FAST && index != ENGINE_COMPILED && index != ENGINE_TF32)
            return refuse(CUDNN_STATUS_NOT_SUPPORTED, "no such engine");
    }
    d.finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

} // namespace

struct cudnnContext {
    cudaStream_t stream;
};

/* ---- the C interface ---- */

extern "C" size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}

extern "C" const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_REFUSED";
}

extern "C" void cudnnGetLastErrorString(char *message, size_t max_size)
{
    std::snprintf(message, max_size, "%s", last_error);
}

extern "C" cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = new cudnnContext{nullptr};
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                      cudnnBackendDescriptor_t *descriptor)
{
    auto d = std::make_shared<Descriptor>();

    d->type = type;
    *descriptor = new std::shared_ptr<Descriptor>(d);
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    delete static_cast<std::shared_ptr<Descriptor> *>(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    return finalize(*at(descriptor));
}

extern "C" cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                                  cudnnBackendAttributeName_t name,
                                                  cudnnBackendAttributeType_t type, int64_t count,
                                                  const void *values)
{
    Descriptor &d = *at(descriptor);
    const Rule *rule = rule_of(d.type, name);

    if (d.finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM, "an attribute is set after finalize");
    if (rule == nullptr)
        return refuse(CUDNN_STATUS_BAD_PARAM, "the descriptor has no such attribute");
    if (rule->type != type)
        return refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "an attribute is of another type");
    if (count < 1 || values == nullptr)
        return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "an attribute has no value");
    if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        d.put(name, type, count, values);
        return CUDNN_STATUS_SUCCESS;
    }
    std::vector<std::shared_ptr<Descriptor>> list;
    for (int64_t i = 0; i < count; i++)
        list.push_back(at(static_cast<const cudnnBackendDescriptor_t *>(values)[i]));
    d.put_descriptors(name, list);
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                                  cudnnBackendAttributeName_t name,
                                                  cudnnBackendAttributeType_t type, int64_t max,
                                                  int64_t *count, void *out)
{
    const Descriptor &d = *at(descriptor);
    int64_t scratch = 0, workspace = kWorkspaceBytes;
    Value value;

    if (count == nullptr)
        count = &scratch;
    if (!d.finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "read before finalize");
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS)
        return give(results_of(d), max, count, out);
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE || name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE) {
        const auto notes = notes_of(d, name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE);

        *count = static_cast<int64_t>(notes.size());
        for (int64_t i = 0; i < *count && i < max; i++)
            static_cast<int32_t *>(out)[i] = notes[static_cast<size_t>(i)];
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        value.set(CUDNN_TYPE_INT64, 1, &workspace, sizeof(workspace));
    } else {
        const auto found = d.values.find(name);

        if (found == d.values.end())
            return refuse(CUDNN_STATUS_BAD_PARAM, "the descriptor has no such attribute");
        value = found->second;
    }
    if (value.type != type)
        return refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "an attribute is of another type");
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return give(value.descriptors, max, count, out);
    *count = value.count;
    if (max > 0)
        std::memcpy(out, value.bytes.data(),
                    static_cast<size_t>(value.count < max ? value.count : max) * bytes_of(type));
    return CUDNN_STATUS_SUCCESS;
}

extern "C" cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                             cudnnBackendDescriptor_t pack)
{
    const std::shared_ptr<Descriptor> p = at(plan), v = at(pack);
    const auto config = p->descriptors(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)[0];
    const auto engine = config->descriptors(CUDNN_ATTR_ENGINECFG_ENGINE)[0];
    auto run = std::make_shared<Run>();
    const char *why;

    if (!p->finalized || !v->finalized)
        return refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "executed before finalize");
    run->graph = engine->descriptors(CUDNN_ATTR_ENGINE_OPERATION_GRAPH)[0];
    run->tf32 = engine->get_int64(CUDNN_ATTR_ENGINE_GLOBAL_INDEX) == ENGINE_TF32;
    why = bind(*run, *v);
    if (why != nullptr)
        return refuse(CUDNN_STATUS_BAD_PARAM, why);
    return trm_emu::enqueue(
               handle->stream, [run] { interpret(*run); }, "cuDNN plan") == cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : refuse(CUDNN_STATUS_EXECUTION_FAILED, "the stream takes no work");
}
