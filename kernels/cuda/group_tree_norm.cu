/* A sum by the summation tree, the residual and a norm, in peers' memory (group_sum.h) and in one
 * launch: sum = residual + the tree's sum, out = norm(sum) * (gain + offset) + bias.
 *
 * A block has whole rows, since a norm needs all of one: a row, or, up to 1024 elements, a row a
 * warp. Threads have the elements that TrmAddNorm's have (lm_norm.cuh), so the bits are those of
 * that kernel after the sum. Each thread puts its elements of this rank's parts into the block's
 * areas and reads the same elements of everybody's: the sum never lies in memory. A row is longer
 * than an area, so a block has several, whose turns may differ; peers meet once, at the first.
 *
 * The residual and the gain are loaded before the block waits for its peers. Then all loads of
 * several vectors are on their way at once, 8 to 16 a thread: few rows are few blocks, and what
 * such a launch costs is one way to the peers and back. For that the usual trees, those of 2, 4 or
 * 8 equal ranks, are unrolled; others go over the stack, a vector at a time. */
#include "kernels/cuda/group_tree.cuh"
#include "kernels/cuda/lm_norm.cuh"

using namespace trmi_lm_norm;

namespace
{

constexpr int kWarps = 4;                       /* rows of a block, a warp each */
constexpr int kElems = 32;                      /* of a row that a warp has */
constexpr uint32_t kSmall = 512 * kThreadElems; /* longer rows: more threads, fewer registers */

struct TreeNorm {
    NormParams norm; /* x: the residual */
    const float *in; /* this rank's parts, `stride` elements apart */
    size_t stride;
    uint32_t areas; /* of a block */
    uint32_t shift; /* log2 of an area's vectors of each part */
    int mine;       /* parts of this rank */
};

/* Where vector v of the block lies in a rank's memory, part 0. */
__device__ __forceinline__ uint32_t place_of(const TreeNorm &p, uint32_t first, uint32_t turns,
                                             uint32_t v)
{
    const uint32_t area = v >> p.shift, in_area = v - (area << p.shift);

    return static_cast<uint32_t>(offsetof(trmi_group_memory, slot)) +
           ((turns >> area & 1) * TRMI_GROUP_BLOCKS + first + area) * TRMI_GROUP_AREA +
           in_area * 16;
}

__device__ __forceinline__ tree_vector *part_at(trmi_group_memory *memory, uint32_t place,
                                                const TreeNorm &p, uint32_t part)
{
    return reinterpret_cast<tree_vector *>(reinterpret_cast<unsigned char *>(memory) + place +
                                           (part << p.shift) * 16);
}

/* The tree of a power of two of equal ranks. */
template <int kParts> __device__ __forceinline__ tree_vector add_pairs(tree_vector (&x)[kParts])
{
#pragma unroll
    for (int n = kParts; n > 1; n /= 2)
#pragma unroll
        for (int i = 0; i < n / 2; i++)
            x[i] = add_vectors(x[2 * i], x[2 * i + 1]);
    return x[0];
}

__device__ __forceinline__ void add_vector(Four &f, const tree_vector &x)
{
#pragma unroll
    for (int j = 0; j < 4; j++)
        f.v[j] = __fadd_rn(f.v[j], x.v[j]);
}

/* f += everybody's parts of the thread's elements. kParts: 0: any tree. kMany: there are 64
 * registers. */
template <int N, int kParts, bool kMany>
__device__ __forceinline__ void
add_parts(const TreeNorm &p, const trmi_group_tree &tree, const trmi_group_sum &g, uint32_t first,
          uint32_t turns, uint32_t row_at, uint32_t lane, uint32_t step, Four (&f)[N / 4])
{
    if constexpr (kParts == 0) {
#pragma unroll 1
        for (int c = 0; c < N / 4; c++) {
            const uint32_t v = c * step + lane;

            if (v * 4 >= p.norm.n)
                break;
            const uint32_t place = place_of(p, first, turns, row_at + v);
            const tree_vector x = add_tree < TRM_TREE_DEPTH_MAX,
                              kMany ? 4 : 8 > (tree, [&](int k) {
                                              return *part_at(g.memory[tree.rank[k]], place, p,
                                                              tree.part[k]);
                                          });

#pragma unroll
            for (int k = 0; k < N / 4; k++) /* f stays in registers */
                if (k == c)
                    add_vector(f[k], x);
        }
    } else {
        constexpr int kMost = kMany ? 4 : 16; /* vectors on their way */
        constexpr int kTogether = kMost / kParts > 4 ? 4 : kMost > kParts ? kMost / kParts : 1;

#pragma unroll
        for (int c = 0; c < N / 4; c += kTogether) {
            tree_vector x[kTogether][kParts] = {};

#pragma unroll
            for (int i = 0; i < kTogether; i++) {
                const uint32_t v = (c + i) * step + lane;

                if (v * 4 < p.norm.n) {
                    const uint32_t place = place_of(p, first, turns, row_at + v);

#pragma unroll
                    for (int k = 0; k < kParts; k++)
                        x[i][k] = *part_at(g.memory[tree.rank[k]], place, p, tree.part[k]);
                }
            }
#pragma unroll
            for (int i = 0; i < kTogether; i++)
                add_vector(f[c + i], add_pairs(x[i]));
        }
    }
}

/* All threads of a block, which has read what it needs of areas [first, first + areas): lane i
 * of the first warp knows the count of area first + i. */
__device__ __forceinline__ void leave_areas(const trmi_group_sum &g, uint32_t first, uint32_t areas,
                                            uint32_t count)
{
    __syncthreads();
    if (threadIdx.x >= areas) /* 32 at most */
        return;
    for (int r = 0; r < g.size; r++)
        if (r != g.rank)
            trm_store_release_sys(&g.memory[r]->done[g.rank][first + threadIdx.x], count + 1);
    g.memory[g.rank]->count[first + threadIdx.x] = count + 1;
}

template <int kKind, int N, bool kBlock, bool kVector, int kParts, int kThreads>
__global__ void __launch_bounds__(kThreads)
    group_tree_norm(TreeNorm p, const __grid_constant__ trmi_group_tree tree,
                    const __grid_constant__ trmi_group_sum g)
{
    TRM_KERNEL_BEGIN();
    __shared__ float scratch[32];
    constexpr bool kMany = kThreads > 512;
    const uint32_t warp = threadIdx.x / 32, first = blockIdx.x * p.areas;
    const uint32_t row = kBlock ? blockIdx.x : blockIdx.x * kWarps + warp;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, step = kBlock ? blockDim.x : 32;
    const uint32_t row_at = kBlock ? 0 : warp * ((p.norm.n + 3) / 4); /* among the block's */
    const size_t at = static_cast<size_t>(row) * p.norm.n;
    const bool there = row < p.norm.groups;
    trmi_group_memory *own = g.memory[g.rank];
    const uint32_t count = threadIdx.x % 32 < p.areas ? own->count[first + threadIdx.x % 32] : 0;
    const uint32_t turns = __ballot_sync(kAll, (count + 1) & 1);
    const uint32_t sum = __shfl_sync(kAll, count, 0) + 1;
    Four f[N / 4], gain[N / 4];

    if (__syncthreads_or(own->late != 0))
        return;
#pragma unroll
    for (int c = 0; c < N / 4; c++) {
        const uint32_t e = (c * step + lane) * 4;

        f[c] = load_four<kVector>(p.norm.x + at, there ? e : p.norm.n, p.norm.n);
        if (!kMany)
            gain[c] = load_four<kVector>(p.norm.gain, e, p.norm.n);
    }
    for (int k = 0; k < p.mine && there; k++) {
        const float *from = p.in + static_cast<size_t>(k) * p.stride + at;

#pragma unroll
        for (int c = 0; c < N / 4; c++) {
            const uint32_t v = c * step + lane;

            if (v * 4 < p.norm.n) {
                const Four x = load_four<kVector>(from, v * 4, p.norm.n);

                *part_at(own, place_of(p, first, turns, row_at + v), p,
                         k) = {{x.v[0], x.v[1], x.v[2], x.v[3]}};
            }
        }
    }
    if (!meet_peers(g, first, sum))
        return;
    if (there)
        add_parts<N, kParts, kMany>(p, tree, g, first, turns, row_at, lane, step, f);
    leave_areas(g, first, p.areas, count);
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        if (kMany)
            gain[c] = load_four<kVector>(p.norm.gain, (c * step + lane) * 4, p.norm.n);
    if (there) /* whole warps */
        norm_held<kKind, N, kVector>(p.norm, at, lane, step, f, gain, GroupFold<kBlock>{scratch});
}

/* What a launch is made of. */
struct Geometry {
    uint32_t shift, areas, rows; /* rows: of a block */
    uint32_t blocks;             /* at most; 0: such rows do not fit */
};

Geometry geometry_of(size_t width, int most)
{
    const uint32_t vectors = TRMI_GROUP_AREA / 16 / static_cast<uint32_t>(most);
    Geometry m = {};

    if (width == 0 || width > kBlockMost)
        return m;
    while (2u << m.shift <= vectors)
        m.shift++;
    m.rows = width <= kWarpMost ? kWarps : 1;
    m.areas = ((static_cast<uint32_t>(width) + 3) / 4 * m.rows + (1u << m.shift) - 1) >> m.shift;
    m.blocks = TRMI_GROUP_BLOCKS / m.areas;
    return m;
}

/* 2, 4, 8: parts of a tree of pairs; 0: another one. */
int pairs_of(const trmi_group_tree *tree)
{
    if (tree->count != 2 && tree->count != 4 && tree->count != 8)
        return 0;
    for (int i = 0; i < tree->count; i++)
        if (tree->merges[i] != __builtin_ctz(static_cast<unsigned>(i) + 1))
            return 0;
    return tree->count;
}

struct Launch {
    cudaStream_t stream;
    uint32_t blocks, threads;
    const TreeNorm &p;
    const trmi_group_tree &tree;
    const trmi_group_sum &sum;
};

template <int kKind, int N, bool kBlock, bool kVector, int kParts, int kThreads>
trm_status launch(const Launch &l)
{
    return trmi_launched(TRM_LAUNCH((group_tree_norm<kKind, N, kBlock, kVector, kParts, kThreads>),
                                    l.blocks, l.threads, 0, l.stream, l.p, l.tree, l.sum),
                         "group_tree_norm");
}

template <int kKind, int kThreads> trm_status dispatch_block(const Launch &l, bool wide)
{
    if (!wide)
        return launch<kKind, kThreadElems, true, false, 0, kThreads>(l);
    switch (pairs_of(&l.tree)) {
    case 2:
        return launch<kKind, kThreadElems, true, true, 2, kThreads>(l);
    case 4:
        return launch<kKind, kThreadElems, true, true, 4, kThreads>(l);
    case 8:
        return launch<kKind, kThreadElems, true, true, 8, kThreads>(l);
    default:
        return launch<kKind, kThreadElems, true, true, 0, kThreads>(l);
    }
}

template <int kKind> trm_status dispatch(const Launch &l, bool wide)
{
    if (l.p.norm.n <= kWarpMost)
        return wide ? launch<kKind, kElems, false, true, 0, kWarps * 32>(l)
                    : launch<kKind, kElems, false, false, 0, kWarps * 32>(l);
    return l.p.norm.n <= kSmall ? dispatch_block<kKind, 512>(l, wide)
                                : dispatch_block<kKind, 1024>(l, wide);
}

} // namespace

extern "C" size_t trmi_cuda_group_tree_norm_rows(size_t width, const trmi_group_tree *tree)
{
    const Geometry m = geometry_of(width, tree->most);

    return static_cast<size_t>(m.blocks) * m.rows;
}

extern "C" trm_status trmi_cuda_group_tree_norm(cudaStream_t stream, const float *in, size_t stride,
                                                size_t rows, const trm_group_norm *norm,
                                                const trmi_group_tree *tree,
                                                const trmi_group_sum *sum)
{
    const Geometry m = geometry_of(norm->width, tree->most);
    TreeNorm p = {};
    bool wide;

    if (rows > static_cast<size_t>(m.blocks) * m.rows)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a sum and norm of %zu rows of %zu in one step: want "
                        "at most %zu",
                        rows, norm->width, static_cast<size_t>(m.blocks) * m.rows);
    if (rows == 0)
        return TRM_OK;
    p.norm.groups = static_cast<uint32_t>(rows);
    p.norm.n = static_cast<uint32_t>(norm->width);
    p.norm.epsilon = norm->epsilon;
    p.norm.offset = norm->offset;
    p.norm.x = static_cast<const float *>(norm->residual);
    p.norm.gain = static_cast<const float *>(norm->weight);
    p.norm.bias = static_cast<const float *>(norm->bias);
    p.norm.sum = static_cast<float *>(norm->sum);
    p.norm.out = static_cast<float *>(norm->normed);
    p.in = in;
    p.stride = stride;
    p.areas = m.areas;
    p.shift = m.shift;
    for (int i = 0; i < tree->count; i++)
        p.mine += tree->rank[i] == sum->rank;
    wide = p.norm.n % 4 == 0 && stride % 4 == 0 && aligned16(in) && aligned16(p.norm.x) &&
           aligned16(p.norm.gain) && aligned16(p.norm.bias) && aligned16(p.norm.sum) &&
           aligned16(p.norm.out);

    const Launch l = {stream,
                      (p.norm.groups + m.rows - 1) / m.rows,
                      p.norm.n <= kWarpMost ? kWarps * 32 : threads_of(p.norm.n),
                      p,
                      *tree,
                      *sum};

    return norm->layer ? dispatch<TRMI_LMC_LAYER>(l, wide) : dispatch<TRMI_LMC_RMS>(l, wide);
}
