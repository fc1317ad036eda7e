/* Fibers: how the threads of a block take turns, and what is checked while they do. */
#include "tests/cuda/emulation/emu_block.hpp"
#include "tests/cuda/emulation/emu_state.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <sys/mman.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define TRM_EMU_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define TRM_EMU_ASAN 0
#endif

/* ---- context switch: saves the callee-saved registers and swaps stacks ---- */

extern "C" __attribute__((visibility("hidden"))) void trm_emu_switch(void **save_sp, void *load_sp);
#if defined(__x86_64__)
__asm__(".text\n.hidden trm_emu_switch\n.globl trm_emu_switch\n"
        ".type trm_emu_switch,@function\ntrm_emu_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n"
        ".size trm_emu_switch,.-trm_emu_switch\n");
static void *make_context(char *top, void (*entry)())
{
    void **sp = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15));

    *--sp = nullptr; /* entry never returns; this keeps the stack aligned as after a call */
    *--sp = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    return sp;
}
#elif defined(__aarch64__)
__asm__(".text\n.hidden trm_emu_switch\n.globl trm_emu_switch\n"
        ".type trm_emu_switch,%function\ntrm_emu_switch:\n"
        "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\n"
        "stp x25,x26,[sp,#48]\nstp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\n"
        "stp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\nmov x9,sp\n"
        "str x9,[x0]\nmov sp,x1\nldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\n"
        "ldp x25,x26,[sp,#48]\nldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\n"
        "ldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#160\n"
        "ret\n");
static void *make_context(char *top, void (*entry)())
{
    void **sp = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(15)) - 20;

    std::memset(sp, 0, 160);
    sp[11] = reinterpret_cast<void *>(entry); /* x30 */
    return sp;
}
#else
#error "the emulation has no context switch for this processor"
#endif

namespace trm_emu
{

struct Copies {
    struct One {
        void *to;
        const void *from;
        unsigned bytes;
    };
    std::vector<One> open;
    std::vector<std::vector<One>> groups;
};

/* What one OS thread needs to run blocks; kept for the next launch. */
struct Context {
    Block block;
    Lane lanes[kMaxThreads];
    dim3 dims;      /* what the lanes' tid are for */
    char *stacks;   /* kMaxThreads of them */
    unsigned taken; /* stacks that were ever used */
    std::vector<char *> spare;
    char *dyn_end; /* dynamic shared memory ends here: then a page that faults */
};

constexpr size_t kDynMax = 228 * 1024;

static unsigned stack_log2()
{
    const char *s = std::getenv("TRM_EMU_STACK_KB");
    const size_t want = (s != nullptr ? size_t(std::atoi(s)) : TRM_EMU_ASAN ? 256 : 64) * 1024;
    unsigned shift = 15; /* 16 KB are given away by top_of */

    while ((size_t(1) << shift) < want)
        shift++;
    return shift;
}
unsigned stack_shift = stack_log2();
static size_t stack_bytes()
{
    return size_t(1) << stack_shift;
}

static std::mutex pool_lock;
static std::vector<Context *> &pool = *new std::vector<Context *>; /* outlives all */
static thread_local Block *running;                                /* for messages */

void fail(const char *format, ...)
{
    const Block *b = running;
    va_list ap;

    va_start(ap, format);
    std::fprintf(stderr, "trm_emu: kernel %s, block (%u,%u,%u): ",
                 kernel_name(b->kernel, b->kernel_text).c_str(), b->bid.x, b->bid.y, b->bid.z);
    std::vfprintf(stderr, format, ap);
    std::fputc('\n', stderr);
    va_end(ap);
    std::_Exit(70); /* in a debugger: break trm_emu::fail */
}

bool describe_thread(char *where, size_t where_bytes, const void *p, char *what, size_t what_bytes)
{
    const Block *b = running;
    const Context *c = reinterpret_cast<const Context *>(b); /* its first member */
    const char *at = static_cast<const char *>(p);

    if (b == nullptr)
        return false;
    std::snprintf(where, where_bytes, "kernel %s, block (%u,%u,%u), thread %u",
                  kernel_name(b->kernel, b->kernel_text).c_str(), b->bid.x, b->bid.y, b->bid.z,
                  b->cur ? b->cur->id : 0);
    if (at >= c->dyn_end && at < c->dyn_end + kPage)
        std::snprintf(what, what_bytes,
                      "%zu bytes behind the end of %zu bytes of dynamic shared "
                      "memory",
                      size_t(at - static_cast<const char *>(b->dyn)) - b->dyn_bytes, b->dyn_bytes);
    else if (at >= c->stacks && at < c->stacks + kMaxThreads * stack_bytes())
        std::snprintf(what, what_bytes, "the thread's stack has overflowed (TRM_EMU_STACK_KB)");
    return true;
}

/* ---- turns ---- */

static int next_ready(Block *b) /* the next runnable lane, or -1 */
{
    const unsigned words = (b->n + 63) / 64;
    unsigned from = b->cur ? b->cur->id : b->n - 1, w;
    uint64_t m;

    if (b->order == 2) {
        b->rng ^= b->rng << 13, b->rng ^= b->rng >> 7, b->rng ^= b->rng << 17;
        from = unsigned(b->rng % b->n);
    }
    w = from / 64;
    if (b->order == 1) { /* downwards */
        m = b->ready[w] & ((uint64_t(1) << (from % 64)) - 1);
        for (unsigned i = 0; i <= words; i++) {
            if (m)
                return int(w * 64 + 63) - __builtin_clzll(m);
            w = w ? w - 1 : words - 1;
            m = b->ready[w];
        }
        return -1;
    }
    m = from % 64 == 63 ? 0 : b->ready[w] & ~((uint64_t(2) << (from % 64)) - 1);
    for (unsigned i = 0; i <= words; i++) {
        if (m)
            return int(w * 64 + unsigned(__builtin_ctzll(m)));
        w = w + 1 == words ? 0 : w + 1;
        m = b->ready[w];
    }
    return -1;
}

[[noreturn]] static void deadlock(const Block *b)
{
    unsigned done = 0, warp = 0;
    const Lane *w = nullptr;

    for (unsigned i = 0; i < b->n; i++) {
        done += b->lanes[i].done;
        if (!b->lanes[i].done && b->lanes[i].fn)
            warp++, w = w ? w : &b->lanes[i];
    }
    if (w)
        fail("deadlock: thread %u waits in a warp collective for mask %08x, only %08x of its warp "
             "arrived (%u threads wait so, %u at __syncthreads, %u exited)",
             w->id, w->mask, b->warp_waiting[w->id / 32], warp, b->bar_count, done);
    fail("deadlock: %u of %u threads wait at __syncthreads (line %u), %u exited before it",
         b->bar_count, b->n, b->bar_line, done);
}

static void swap(void **save, void *load, void **fake, const void *stack, size_t bytes)
{
#if TRM_EMU_ASAN
    __sanitizer_start_switch_fiber(fake, stack, bytes);
    trm_emu_switch(save, load);
    __sanitizer_finish_switch_fiber(fake ? *fake : nullptr, nullptr, nullptr);
#else
    (void)fake, (void)stack, (void)bytes;
    trm_emu_switch(save, load);
#endif
    __asm__ volatile("" ::: "memory");
}

static Context *context_of(Block *b)
{
    return reinterpret_cast<Context *>(b); /* its first member */
}
static size_t usable_bytes()
{
    return stack_bytes() - kPage;
}

static void set_ready(Block *b, unsigned id)
{
    b->ready[id / 64] |= uint64_t(1) << (id % 64);
}
static void clear_ready(Block *b, unsigned id)
{
    b->ready[id / 64] &= ~(uint64_t(1) << (id % 64));
}

static void start(Block *b, Lane *l, char *stack)
{
    Top *top = top_of(reinterpret_cast<uintptr_t>(stack));

    l->started = true;
    l->began = l->done = false;
    l->fn = nullptr;
    l->asan_fake = nullptr;
    l->stack = stack;
    top->lane = l;
    top->block = b;
}

static void lane_main()
{
    Top *top = here();
    Block *b = top->block;

#if TRM_EMU_ASAN
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!b->main_stack)
        b->main_stack = bottom, b->main_stack_size = bytes;
#endif
    for (;;) {
        Lane *l = b->cur, *to;
        int next;

        b->call(b->arg);
        if (!l->began)
            fail("thread %u ended without TRM_KERNEL_BEGIN()", l->id);
        l->done = true;
        b->live--;
        clear_ready(b, l->id);
        next = next_ready(b);
        if (next < 0 && b->live)
            deadlock(b);
        context_of(b)->spare.push_back(l->stack);
        if (next < 0) {
            swap(&l->sp, b->main_sp, nullptr, b->main_stack, b->main_stack_size);
            __builtin_unreachable();
        }
        to = &b->lanes[next];
        b->cur = to;
        if (to->started) {
            swap(&l->sp, to->sp, nullptr, to->stack, usable_bytes());
            __builtin_unreachable();
        }
        context_of(b)->spare.pop_back();
        start(b, to, l->stack);
    }
}

/* A stack for a thread that has not begun. */
static void enter(Block *b, Lane *l)
{
    Context *c = context_of(b);
    char *stack;

    if (c->spare.empty()) {
        stack = c->stacks + size_t(c->taken++) * stack_bytes() + kPage;
        mprotect(stack - kPage, kPage, PROT_NONE); /* overflow faults */
    } else {
        stack = c->spare.back();
        c->spare.pop_back();
    }
#if TRM_EMU_ASAN
    __asan_unpoison_memory_region(stack, usable_bytes());
#endif
    start(b, l, stack);
    l->sp = make_context(reinterpret_cast<char *>(top_of(reinterpret_cast<uintptr_t>(stack))),
                         lane_main);
}

/* Runs another lane; returns when this one is chosen again. */
static void hand_over(Block *b)
{
    Lane *me = b->cur, *to;
    const int next = next_ready(b);

    if (next < 0)
        deadlock(b);
    to = &b->lanes[next];
    if (to == me)
        return;
    if (!to->started)
        enter(b, to);
    b->cur = to;
    swap(&me->sp, to->sp, &me->asan_fake, to->stack, usable_bytes());
}

/* ---- what kernels call ---- */

int barrier(unsigned line, int pred)
{
    Block *b = here()->block;

    if (b->bar_count && b->bar_line != line)
        fail("divergent barrier: thread %u is at __syncthreads on line %u, others on line %u",
             b->cur->id, line, b->bar_line);
    b->bar_line = line;
    b->bar_sum += pred != 0;
    if (++b->bar_count < b->n) {
        clear_ready(b, b->cur->id);
        hand_over(b);
        return b->bar_result;
    }
    b->bar_result = b->bar_sum;
    b->bar_count = 0, b->bar_sum = 0;
    for (unsigned i = 0; i < b->n; i += 64)
        b->ready[i / 64] = b->n - i >= 64 ? ~uint64_t(0) : (uint64_t(1) << (b->n - i)) - 1;
    if (b->order) { /* else the last to arrive goes on first */
        const int result = b->bar_result;

        hand_over(b);
        return result;
    }
    return b->bar_result;
}

void collective(unsigned mask, WarpFn fn, const void *in, void *out, int p, int q)
{
    Block *b = here()->block;
    Lane *me = b->cur, *warp = &b->lanes[me->id & ~31u];
    const unsigned lane = me->id & 31, in_warp = b->n - (me->id & ~31u);
    const unsigned exists = in_warp >= 32 ? ~0u : (1u << in_warp) - 1;
    unsigned &waiting = b->warp_waiting[me->id / 32];

    if (!(mask >> lane & 1))
        fail("thread %u calls a warp collective with mask %08x that leaves it out", me->id, mask);
    mask &= exists;
    me->mask = mask, me->fn = fn, me->in = in, me->out = out, me->a = p, me->b = q;
    waiting |= 1u << lane;
    if ((waiting & mask) != mask) {
        clear_ready(b, me->id);
        hand_over(b);
        return;
    }
    for (unsigned m = mask; m; m &= m - 1) {
        const Lane &l = warp[__builtin_ctz(m)];

        if (l.fn != fn || l.mask != mask)
            fail("threads %u and %u of a warp meet in different warp collectives (masks %08x, "
                 "%08x)",
                 me->id, l.id, mask, l.mask);
    }
    fn(warp, mask);
    waiting &= ~mask;
    for (unsigned m = mask; m; m &= m - 1) {
        Lane &l = warp[__builtin_ctz(m)];

        l.fn = nullptr;
        set_ready(b, l.id);
    }
    if (b->order)
        hand_over(b);
}

void yield_lane()
{
    Block *b = here()->block;
    const Lane *me = b->cur;
    const int next = next_ready(b);

    if (next >= 0 && &b->lanes[next] != me)
        hand_over(b);
    else
        std::this_thread::yield();
}

static Copies *copies()
{
    Lane *l = here()->lane;

    if (l->copies == nullptr)
        l->copies = new Copies; /* kept by the context */
    return l->copies;
}
void copy_start(void *to, const void *from, unsigned bytes)
{
    copies()->open.push_back({to, from, bytes});
}
void copy_commit()
{
    Copies *c = copies();

    c->groups.push_back(std::move(c->open));
    c->open.clear();
}
void copy_wait(unsigned pending) /* the copy is made here, so that a missing wait shows */
{
    Copies *c = copies();

    while (c->groups.size() > pending) {
        for (const Copies::One &x : c->groups.front())
            std::memcpy(x.to, x.from, x.bytes);
        c->groups.erase(c->groups.begin());
    }
}

void nop_fn(Lane *, unsigned)
{
}
static void ballot_fn(Lane *w, unsigned mask)
{
    unsigned r = 0;

    for (unsigned m = mask; m; m &= m - 1)
        r |= unsigned(w[__builtin_ctz(m)].a != 0) << __builtin_ctz(m);
    for (unsigned m = mask; m; m &= m - 1)
        *static_cast<unsigned *>(w[__builtin_ctz(m)].out) = r;
}
unsigned ballot(unsigned mask, int pred)
{
    unsigned r;

    collective(mask, ballot_fn, nullptr, &r, pred, 0);
    return r;
}

static float bf16_bits(uint32_t u)
{
    float f;

    u <<= 16;
    std::memcpy(&f, &u, 4);
    return f;
}
static float f16_bits(uint32_t u)
{
    return __half2float(__half(__half_raw{static_cast<unsigned short>(u)}));
}
static void mma(Lane *w, unsigned mask, float (*up)(uint32_t))
{
    float a[16][16], b[16][8];

    if (mask != ~0u)
        fail("mma needs a full warp");
    for (int l = 0; l < 32; l++) {
        const MmaIn &x = *static_cast<const MmaIn *>(w[l].in);
        const int g = l >> 2, t = (l & 3) * 2;

        for (int h = 0; h < 2; h++) {
            a[g][t + h] = up(x.a[0] >> 16 * h & 0xffff);
            a[g + 8][t + h] = up(x.a[1] >> 16 * h & 0xffff);
            a[g][t + 8 + h] = up(x.a[2] >> 16 * h & 0xffff);
            a[g + 8][t + 8 + h] = up(x.a[3] >> 16 * h & 0xffff);
            b[t + h][g] = up(x.b[0] >> 16 * h & 0xffff);
            b[t + 8 + h][g] = up(x.b[1] >> 16 * h & 0xffff);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaIn &x = *static_cast<const MmaIn *>(w[l].in);
        float *d = static_cast<float *>(w[l].out);

        for (int i = 0; i < 4; i++) {
            float s = x.c[i];

            for (int k = 0; k < 16; k++)
                s += a[(l >> 2) + (i >> 1) * 8][k] * b[k][(l & 3) * 2 + (i & 1)];
            d[i] = s;
        }
    }
}
void mma_bf16_fn(Lane *w, unsigned mask)
{
    mma(w, mask, bf16_bits);
}
void mma_f16_fn(Lane *w, unsigned mask)
{
    mma(w, mask, f16_bits);
}

/* a: transposed */
static void ldmatrix(Lane *w, unsigned mask, bool trans)
{
    if (mask != ~0u)
        fail("ldmatrix needs a full warp");
    for (int l = 0; l < 32; l++)
        if (reinterpret_cast<uintptr_t>(w[l].in) % 16 != 0)
            fail("ldmatrix: thread %u has row %p, which is not aligned to 16", w[l].id, w[l].in);
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++)
            for (int h = 0; h < 2; h++) {
                const int row = trans ? (l & 3) * 2 + h : l >> 2;
                const int column = trans ? l >> 2 : (l & 3) * 2 + h;

                std::memcpy(static_cast<char *>(w[l].out) + m * 4 + h * 2,
                            static_cast<const char *>(w[m * 8 + row].in) + column * 2, 2);
            }
}
void ldmatrix_fn(Lane *w, unsigned mask)
{
    ldmatrix(w, mask, false);
}
void ldmatrix_trans_fn(Lane *w, unsigned mask)
{
    ldmatrix(w, mask, true);
}

/* ---- launch ---- */

static char *reserve(size_t bytes, size_t align)
{
    void *p = mmap(nullptr, bytes + align, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        std::abort();
    return reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(p) + align - 1) & ~(align - 1));
}

static Context *take_context()
{
    Context *c;

    {
        std::lock_guard<std::mutex> hold(pool_lock);

        if (!pool.empty()) {
            c = pool.back();
            pool.pop_back();
            return c;
        }
    }
    c = new Context();
    c->stacks = reserve(size_t(kMaxThreads) * stack_bytes(), stack_bytes());
    c->dyn_end = reserve(kDynMax + kPage, kPage) + kDynMax;
    mprotect(c->dyn_end, kPage, PROT_NONE);
    for (unsigned i = 0; i < kMaxThreads; i++)
        c->lanes[i].id = i;
    c->block.lanes = c->lanes;
    if (const char *o = std::getenv("TRM_EMU_ORDER")) {
        const char *seed = std::strchr(o, ':');

        c->block.order = !std::strncmp(o, "rand", 4) ? 2 : !std::strcmp(o, "rev");
        c->block.rng =
            (seed ? std::strtoull(seed + 1, nullptr, 10) : 0) * 2654435761u + 88172645463325252u;
    }
    return c;
}

static void run_blocks(const Launch &launch, std::atomic<uint64_t> *next)
{
    Context *c = take_context();
    Block *b = &c->block, *outer = running;
    const dim3 grid = launch.grid, dims = launch.block;
    const uint64_t total = uint64_t(grid.x) * grid.y * grid.z;
    uint64_t stride = total * 5 / 8 + 1; /* of the blocks in a mixed order */

    while (std::gcd(stride, total) != 1)
        stride++;
    b->grid = grid, b->block = dims, b->kernel = launch.kernel, b->kernel_text = launch.name;
    b->call = launch.call, b->arg = launch.arg.get();
    b->n = dims.x * dims.y * dims.z;
    if (c->dims.x != dims.x || c->dims.y != dims.y || c->dims.z != dims.z || !c->lanes[0].stack) {
        c->dims = dims;
        for (unsigned t = 0; t < b->n; t++)
            c->lanes[t].tid = make_uint3(t % dims.x, t / dims.x % dims.y, t / dims.x / dims.y);
    }
    b->dyn_bytes = launch.smem;
    b->dyn = c->dyn_end - (launch.smem + 127) / 128 * 128;
#if TRM_EMU_ASAN
    __asan_poison_memory_region(static_cast<char *>(b->dyn) + launch.smem,
                                (launch.smem + 127) / 128 * 128 - launch.smem);
#endif
    running = b;
    fault_stack();
    for (uint64_t i; (i = next->fetch_add(1)) < total;) {
        Lane *first;

        const uint64_t at = b->order == 0   ? i
                            : b->order == 1 ? total - 1 - i
                                            : uint64_t((unsigned __int128)i * stride % total);

        b->bid = make_uint3(unsigned(at % grid.x), unsigned(at / grid.x % grid.y),
                            unsigned(at / grid.x / grid.y));
        b->live = b->n, b->bar_count = 0, b->bar_sum = 0, b->cur = nullptr;
        b->main_stack = nullptr;
        for (unsigned t = 0; t < b->n; t += 64)
            b->ready[t / 64] = b->n - t >= 64 ? ~uint64_t(0) : (uint64_t(1) << (b->n - t)) - 1;
        std::memset(b->warp_waiting, 0, sizeof b->warp_waiting);
        if (launch.smem)
            std::memset(b->dyn, 0xff, launch.smem); /* NaN: use before write shows */
        for (unsigned t = 0; t < b->n; t++) {
            c->lanes[t].started = c->lanes[t].done = false;
            c->lanes[t].fn = nullptr;
            if (c->lanes[t].copies) {
                c->lanes[t].copies->open.clear();
                c->lanes[t].copies->groups.clear();
            }
        }
        first = &c->lanes[unsigned(next_ready(b))];
        b->cur = first;
        enter(b, first);
        swap(&b->main_sp, first->sp, &b->main_fake, first->stack, usable_bytes());
    }
    running = outer;
#if TRM_EMU_ASAN
    __asan_unpoison_memory_region(b->dyn, (launch.smem + 127) / 128 * 128);
#endif
    std::lock_guard<std::mutex> hold(pool_lock);
    pool.push_back(c);
}

void run_grid(const Launch &launch)
{
    static const int threads =
        std::getenv("TRM_EMU_THREADS") ? std::atoi(std::getenv("TRM_EMU_THREADS")) : 1;
    const uint64_t total = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> others;

    for (int i = 1; i < threads && uint64_t(i) < total; i++)
        others.emplace_back([&] { run_blocks(launch, &next); });
    run_blocks(launch, &next);
    for (std::thread &t : others)
        t.join();
}

} // namespace trm_emu
