/* Additions of the summation tree, four neighbouring elements of all parts a thread. Included by
 * .cu files.
 *
 * The stack is a shift register: pushing and merging move every entry, so that all indices are
 * constants and it stays in registers (an indexed array would lie in local memory); a move costs no
 * more than an addition, and for equal ranks, whose stack has at most four entries, a sum of eight
 * parts is about 60 moves a component. Parts are loaded eight at a time before any is added: a load
 * from a peer takes a microsecond or more. */
#ifndef TRM_KERNELS_CUDA_GROUP_TREE_CUH
#define TRM_KERNELS_CUDA_GROUP_TREE_CUH

#include "kernels/cuda/group_peer.cuh"
#include "kernels/cuda/group_tree.h"

constexpr int kTreeBatch = 8;

struct alignas(16) tree_vector {
    float v[4];
};

static __device__ tree_vector add_vectors(const tree_vector &a, const tree_vector &b)
{
    tree_vector x;

#pragma unroll
    for (int k = 0; k < 4; k++)
        x.v[k] = a.v[k] + b.v[k];
    return x;
}

template <int kDepth> struct tree_stack {
    tree_vector top[kDepth];

    __device__ void push(const tree_vector &x)
    {
#pragma unroll
        for (int i = kDepth - 1; i > 0; i--)
            top[i] = top[i - 1];
        top[0] = x;
    }
    __device__ void merge() /* left + right: the right one is on top */
    {
        top[0] = add_vectors(top[1], top[0]);
#pragma unroll
        for (int i = 1; i < kDepth - 1; i++)
            top[i] = top[i + 1];
    }
};

/* load(i): this thread's elements of part i. */
template <int kDepth, int kBatch = kTreeBatch, class Load>
static __device__ tree_vector add_tree(const trmi_group_tree &tree, Load load)
{
    tree_stack<kDepth> stack = {};

    for (int first = 0; first < tree.count; first += kBatch) {
        tree_vector x[kBatch] = {};

#pragma unroll
        for (int k = 0; k < kBatch; k++)
            if (first + k < tree.count)
                x[k] = load(first + k);
#pragma unroll
        for (int k = 0; k < kBatch; k++) {
            if (first + k >= tree.count)
                break;
            stack.push(x[k]);
            for (int m = tree.merges[first + k]; m > 0; m--)
                stack.merge();
        }
    }
    return stack.top[0];
}

#endif
