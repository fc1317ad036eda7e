/* Between the two halves of the emulated cuDNN: descriptors (cudnn.cpp) and what they mean
 * (cudnn_run.cpp). */
#ifndef TRM_TESTS_CUDA_EMULATION_CUDNN_EMU_HPP
#define TRM_TESTS_CUDA_EMULATION_CUDNN_EMU_HPP

#include "tests/cuda/emulation/emu_runtime.hpp"

#include <cudnn_graph.h>

#include <cstring>
#include <map>
#include <memory>
#include <vector>

namespace trm_emu
{
namespace dnn
{

constexpr int64_t kWorkspaceBytes = 1000;

struct Descriptor;

struct Value {
    cudnnBackendAttributeType_t type = CUDNN_TYPE_CHAR;
    int64_t count = 0;
    std::vector<unsigned char> bytes;
    std::vector<std::shared_ptr<Descriptor>> descriptors;

    void set(cudnnBackendAttributeType_t t, int64_t n, const void *from, size_t element)
    {
        const auto *p = static_cast<const unsigned char *>(from);

        type = t;
        count = n;
        bytes.assign(p, p + static_cast<size_t>(n) * element);
    }
};

struct Descriptor {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<int, Value> values;

    void put(int name, cudnnBackendAttributeType_t t, int64_t n, const void *from)
    {
        const bool byte = t == CUDNN_TYPE_BOOLEAN || t == CUDNN_TYPE_CHAR;
        const bool wide = t == CUDNN_TYPE_INT64 || t == CUDNN_TYPE_DOUBLE ||
                          t == CUDNN_TYPE_VOID_PTR || t == CUDNN_TYPE_HANDLE;

        values[name].set(t, n, from, byte ? 1 : wide ? 8 : 4);
    }
    void put_descriptors(int name, const std::vector<std::shared_ptr<Descriptor>> &list)
    {
        Value &v = values[name];

        v.type = CUDNN_TYPE_BACKEND_DESCRIPTOR;
        v.count = static_cast<int64_t>(list.size());
        v.descriptors = list;
    }
    const std::vector<std::shared_ptr<Descriptor>> &descriptors(int name) const
    {
        return values.at(name).descriptors;
    }
    std::vector<int64_t> ints(int name) const
    {
        const Value &v = values.at(name);
        std::vector<int64_t> out(static_cast<size_t>(v.count));

        std::memcpy(out.data(), v.bytes.data(), v.bytes.size());
        return out;
    }
    int64_t get_int64(int name) const
    {
        return ints(name)[0];
    }
    int32_t get_int32(int name) const
    {
        int32_t v;

        std::memcpy(&v, values.at(name).bytes.data(), sizeof(v));
        return v;
    }
    float get_float(int name, float otherwise) const
    {
        float v = otherwise;

        if (values.count(name) != 0)
            std::memcpy(&v, values.at(name).bytes.data(), sizeof(v));
        return v;
    }
    bool flag(int name) const
    {
        return values.count(name) != 0 && values.at(name).bytes[0] != 0;
    }
};

/* One execution: the graph, and where its tensors lie. */
struct Run {
    std::shared_ptr<Descriptor> graph;
    bool tf32 = false;
    std::map<int64_t, void *> pointers;
    std::map<int64_t, float> scalars; /* tensors passed by value */
    void *workspace = nullptr;
};

/* Tensors of an operation, the output last. */
std::vector<std::shared_ptr<Descriptor>> tensors_of(const Descriptor &op);
/* What is wrong with a descriptor that has all its attributes; nullptr: nothing. */
const char *wrong(const Descriptor &d);
/* Takes the pointers of a variant pack. nullptr, or what is wrong with them. */
const char *bind(Run &run, const Descriptor &pack);
void interpret(const Run &run);

} // namespace dnn
} // namespace trm_emu
#endif
