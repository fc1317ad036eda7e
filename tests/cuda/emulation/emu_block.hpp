/* One block of CUDA threads on the CPU: each thread is a fiber, all fibers of a block share one OS
 * thread, so a `static thread_local` variable is exactly a block's __shared__ variable. A fiber
 * runs until a barrier or a warp collective and then hands over to the next runnable one.
 *
 * A thread that never waits needs no fiber of its own: a thread that ends goes on as the next
 * thread that has not begun, on the same stack; a new stack is taken only when a thread must wait
 * while others have not begun. */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_BLOCK_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_BLOCK_HPP

#include <vector_functions.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace trm_emu
{

constexpr unsigned kMaxThreads = 1024;
struct Lane;
struct Copies;                                      /* cp.async that is on its way */
using WarpFn = void (*)(Lane *warp, unsigned mask); /* a collective, for all lanes in mask */

struct Lane {
    void *sp;
    uint3 tid;
    unsigned id;
    bool started, began; /* began: TRM_KERNEL_BEGIN was called */
    bool done;
    unsigned mask; /* the warp collective this lane waits in, */
    WarpFn fn;     /* NULL: none */
    const void *in;
    void *out;
    int a, b;
    char *stack; /* lowest usable byte */
    void *asan_fake;
    Copies *copies;
};

struct Block {
    dim3 grid, block;
    uint3 bid;
    unsigned n, live;
    Lane *cur;
    uint64_t ready[kMaxThreads / 64];
    unsigned bar_count, bar_line, warp_waiting[kMaxThreads / 32];
    int bar_sum, bar_result;
    void *dyn;
    size_t dyn_bytes;
    void (*call)(const void *);
    const void *arg;
    const void *kernel;
    const char *kernel_text;
    void *main_sp;
    int order;
    uint64_t rng;
    Lane *lanes;
    const void *main_stack;
    size_t main_stack_size;
    void *main_fake;
};

/* Near the top of every stack of a fiber. Stacks are aligned to their size; the place differs from
 * stack to stack, so that they do not all compete for the same lines of the caches. */
struct Top {
    Lane *lane;
    Block *block;
    char pad[48];
};
extern unsigned stack_shift; /* log2 of the bytes of a stack */

inline Top *top_of(uintptr_t address)
{
    const uintptr_t i = address >> stack_shift;

    return reinterpret_cast<Top *>((i + 1) << stack_shift) - 1 - (i * 37 & 255);
}
inline Top *here() /* not volatile: one thread of a kernel stays on one stack */
{
    uintptr_t sp;

#if defined(__x86_64__)
    __asm__("movq %%rsp, %0" : "=r"(sp));
#else
    __asm__("mov %0, sp" : "=r"(sp));
#endif
    return top_of(sp);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char *format, ...);
int barrier(unsigned line, int pred); /* how many threads had pred */
void collective(unsigned mask, WarpFn fn, const void *in, void *out, int a, int b);
void yield_lane();
void copy_start(void *to, const void *from, unsigned bytes);
void copy_commit();
void copy_wait(unsigned pending);

/* ---- the collectives ---- */

/* modes: 0 idx, 1 up, 2 down, 3 xor */
template <class T, int kMode> void shuffle_fn(Lane *w, unsigned mask)
{
    for (unsigned m = mask; m; m &= m - 1) {
        const int lane = __builtin_ctz(m);
        const Lane &l = w[lane];
        const int width = l.b, base = lane & ~(width - 1);
        int from = lane;

        if (kMode == 0)
            from = base + (l.a & (width - 1));
        else if (kMode == 1)
            from = lane - l.a < base ? lane : lane - l.a;
        else if (kMode == 2)
            from = lane + l.a >= base + width ? lane : lane + l.a;
        else
            from = (lane ^ l.a) >= base + width ? lane : lane ^ l.a;
        if (!(mask >> from & 1))
            fail("thread %u shuffles from lane %d, which is not in mask %08x", l.id, from, mask);
        std::memcpy(l.out, w[from].in, sizeof(T));
    }
}
template <class T, int kMode> inline T shuffle(unsigned mask, T v, int p, int width)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "size");
    T r;

    collective(mask, shuffle_fn<T, kMode>, &v, &r, p, width);
    return r;
}
template <class T> void match_fn(Lane *w, unsigned mask)
{
    for (unsigned m = mask; m; m &= m - 1) {
        unsigned r = 0;

        for (unsigned k = mask; k; k &= k - 1)
            if (!std::memcmp(w[__builtin_ctz(k)].in, w[__builtin_ctz(m)].in, sizeof(T)))
                r |= 1u << __builtin_ctz(k);
        *static_cast<unsigned *>(w[__builtin_ctz(m)].out) = r;
    }
}
template <class T> inline unsigned match(unsigned mask, T v)
{
    unsigned r;

    collective(mask, match_fn<T>, &v, &r, 0, 0);
    return r;
}
struct Add {
    template <class T> T operator()(T a, T b)
    {
        return T(a + b);
    }
};
struct Max {
    template <class T> T operator()(T a, T b)
    {
        return a < b ? b : a;
    }
};
struct Min {
    template <class T> T operator()(T a, T b)
    {
        return b < a ? b : a;
    }
};
struct And {
    template <class T> T operator()(T a, T b)
    {
        return a & b;
    }
};
struct Or {
    template <class T> T operator()(T a, T b)
    {
        return a | b;
    }
};
struct Xor {
    template <class T> T operator()(T a, T b)
    {
        return a ^ b;
    }
};
template <class T, class Op> void reduce_fn(Lane *w, unsigned mask)
{
    T r = *static_cast<const T *>(w[__builtin_ctz(mask)].in);

    for (unsigned m = mask & (mask - 1); m; m &= m - 1)
        r = Op()(r, *static_cast<const T *>(w[__builtin_ctz(m)].in));
    for (unsigned m = mask; m; m &= m - 1)
        *static_cast<T *>(w[__builtin_ctz(m)].out) = r;
}
template <class T, class Op> inline T reduce(unsigned mask, T v)
{
    static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value, "as in CUDA");
    T r;

    collective(mask, reduce_fn<T, Op>, &v, &r, 0, 0);
    return r;
}
void nop_fn(Lane *w, unsigned mask);
unsigned ballot(unsigned mask, int pred);

/* fragments laid out as the PTX manual says */
struct MmaIn {
    const uint32_t *a, *b;
    const float *c;
};
struct MmaS8In {
    const uint32_t *a, *b; /* a: 2 words of k16, 4 of k32; b: 1, 2 */
    const int32_t *c;
};
void mma_s8_k32_fn(Lane *w, unsigned mask);
void mma_s8_k16_fn(Lane *w, unsigned mask);
void mma_bf16_fn(Lane *w, unsigned mask);
void mma_f16_fn(Lane *w, unsigned mask);
void ldmatrix_fn(Lane *w, unsigned mask);
void ldmatrix_trans_fn(Lane *w, unsigned mask);

} // namespace trm_emu
#endif
