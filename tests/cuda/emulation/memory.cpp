/* Device and pinned memory. Each allocation of device memory is a mapping of its own between pages
 * that fault; it ends at the end of its mapping up to CUDA's alignment of 256, the bytes in between
 * are checked when it is freed. Fresh memory is filled with 0xFF (NaN), but the middle of huge
 * blocks, whose pages come when they are touched; freed addresses fault.
 *
 * TRM_EMU_MEMORY=bytes  device memory there is (8 GiB)
 * TRM_EMU_REFUSE=bytes  device memory of just so many bytes is not to be had
 * TRM_EMU_GUARD=1       device memory can only be touched by kernels and copies */
#include "tests/cuda/emulation/emu_state.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace trm_emu
{

std::map<uintptr_t, Alloc> &allocs = *new std::map<uintptr_t, Alloc>;
static size_t used; /* of device memory */
static int touching;
constexpr size_t kAlign = 256;
constexpr size_t kQuarantine = 512; /* freed addresses that still fault */
/* From here on a block is huge: filling it costs more than a whole test (delays of 256 MiB that are
 * written so that a GPU has something to do). */
constexpr size_t kHuge = size_t(64) << 20;
static auto &quarantine = *new std::deque<std::pair<char *, size_t>>;

static size_t limit()
{
    static const char *const text = std::getenv("TRM_EMU_MEMORY");
    static const size_t bytes =
        text != nullptr ? size_t(std::strtoull(text, nullptr, 10)) : size_t(8) << 30;

    return bytes;
}
static bool refused(size_t bytes)
{
    static const char *const text = std::getenv("TRM_EMU_REFUSE");

    return text != nullptr && bytes == size_t(std::strtoull(text, nullptr, 10));
}
bool guarded()
{
    static const bool is = option("TRM_EMU_GUARD");

    return is;
}

static void protect(int how)
{
    for (const auto &a : allocs)
        if (a.second.kind == kDevice)
            mprotect(a.second.map + kPage, a.second.map_bytes - 2 * kPage, how);
}
void guard_open()
{
    if (!guarded())
        return;
    Hold hold(lock);

    if (touching++ == 0)
        protect(PROT_READ | PROT_WRITE);
}
void guard_close()
{
    if (!guarded())
        return;
    Hold hold(lock);

    if (--touching == 0)
        protect(PROT_NONE);
}

std::map<uintptr_t, Alloc>::iterator find(const void *p)
{
    auto at = allocs.upper_bound(reinterpret_cast<uintptr_t>(p));

    if (at == allocs.begin())
        return allocs.end();
    --at;
    return reinterpret_cast<uintptr_t>(p) - at->first <= at->second.bytes ? at : allocs.end();
}
static Kind kind_locked(const void *p, size_t bytes)
{
    auto at = find(p);

    if (at == allocs.end())
        return kPageable;
    if (reinterpret_cast<uintptr_t>(p) - at->first + bytes > at->second.bytes) {
        if (reinterpret_cast<uintptr_t>(p) - at->first == at->second.bytes &&
            at->second.kind == kPinned)
            return kPageable; /* just behind it */
        return kBad;
    }
    return at->second.kind;
}
Kind kind_of(const void *p, size_t bytes)
{
    Hold hold(lock);

    return kind_locked(p, bytes);
}
bool is_device(const void *p, size_t bytes)
{
    return kind_of(p, bytes) == kDevice;
}

static void fill(char *p, int value, size_t bytes)
{
    const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
    char *first = p + (kPage - begin % kPage) % kPage;
    char *last = p + bytes - (begin + bytes) % kPage;

    if (value == 0 && bytes >= kHuge && !shares_memory() &&
        madvise(first, size_t(last - first), MADV_DONTNEED) == 0) { /* zeros when it is read */
        std::memset(p, 0, size_t(first - p));
        std::memset(last, 0, size_t(p + bytes - last));
        return;
    }
    std::memset(p, value, bytes);
}

static char *map_memory(size_t bytes, Alloc *a)
{
    const size_t span = (bytes + kAlign - 1) / kAlign * kAlign;
    const size_t inner = (span + kPage - 1) / kPage * kPage;
    void *map = mmap(nullptr, inner + 2 * kPage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *p;

    if (map == MAP_FAILED)
        return nullptr;
    a->map = static_cast<char *>(map);
    a->map_bytes = inner + 2 * kPage;
    if (a->kind == kDevice && shares_memory() && !share(a->map + kPage, inner, &a->shared_at)) {
        munmap(map, a->map_bytes);
        return nullptr;
    }
    mprotect(a->map, kPage, PROT_NONE);
    mprotect(a->map + kPage + inner, kPage, PROT_NONE);
    p = a->map + kPage + inner - span;
    if (span < kHuge) {
        std::memset(p, 0xff, span);
    } else {
        std::memset(p, 0xff, kPage);
        std::memset(p + span - kPage, 0xff, kPage);
    }
    return p;
}

static const char *kind_name(Kind kind)
{
    return kind == kDevice ? "device memory" : kind == kPinned ? "pinned memory" : "host memory";
}

static void check_guard(const char *p, const Alloc &a)
{
    const size_t span = (a.bytes + kAlign - 1) / kAlign * kAlign;

    if (guarded())
        mprotect(a.map + kPage, a.map_bytes - 2 * kPage, PROT_READ | PROT_WRITE);
    for (size_t i = a.bytes; i < span; i++) {
        if (static_cast<unsigned char>(p[i]) == 0xff)
            continue;
        std::fprintf(stderr,
                     "trm_emu: %s of %zu bytes was overrun: byte %zu behind its end was written\n",
                     kind_name(a.kind), a.bytes, i - a.bytes);
        std::_Exit(70);
    }
}

static cudaError_t allocate(void **out, size_t bytes, Kind kind, const char *what)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    Alloc a{bytes, kind, current_device(), false, false, nullptr, 0, -1};
    char *p;

    if (out == nullptr)
        return done(cudaErrorInvalidValue);
    if (cudaError_t e = unsafe_call(what))
        return e;
    *out = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    if (kind == kDevice && (refused(bytes) || bytes > limit() || used > limit() - bytes))
        return done(cudaErrorMemoryAllocation);
    p = map_memory(bytes, &a);
    if (p == nullptr)
        return done(cudaErrorMemoryAllocation);
    if (kind == kDevice) {
        used += bytes;
        if (guarded() && touching == 0)
            mprotect(a.map + kPage, a.map_bytes - 2 * kPage, PROT_NONE);
    }
    allocs[reinterpret_cast<uintptr_t>(p)] = a;
    *out = p;
    return cudaSuccess;
}

/* The address space is kept for a while, so that uses after this fault. */
void unmap_memory(const Alloc &a)
{
    mmap(a.map, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
         0);
    quarantine.emplace_back(a.map, a.map_bytes);
    if (quarantine.size() > kQuarantine) {
        munmap(quarantine.front().first, quarantine.front().second);
        quarantine.pop_front();
    }
}

/* The lock is held. */
static cudaError_t release(void *p, Kind kind, const char *what)
{
    auto at = allocs.find(reinterpret_cast<uintptr_t>(p));

    if (at == allocs.end() || at->second.kind != kind || at->second.registered ||
        at->second.imported)
        return refuse(cudaErrorInvalidValue, "%s: %p is not the start of %s", what, p,
                      kind_name(kind));
    check_guard(static_cast<char *>(p), at->second);
    if (kind == kDevice)
        used -= at->second.bytes;
    if (at->second.shared_at >= 0)
        unshare(at->second.shared_at, at->second.map_bytes - 2 * kPage);
    unmap_memory(at->second);
    allocs.erase(at);
    return cudaSuccess;
}
static cudaError_t free_memory(void *p, Kind kind, const char *what)
{
    Hold hold(lock);
    cudaError_t e;

    if (p == nullptr)
        return enter();
    if (sticky == 0) {
        e = unsafe_call(what);
        if (e != cudaSuccess)
            return e;
        run_all(hold);
    }
    e = release(p, kind, what);
    return e != cudaSuccess ? e : enter();
}

int report_memory_leaks()
{
    for (const auto &a : allocs)
        std::fprintf(stderr, "trm_emu: leak: %s of %zu bytes%s\n", kind_name(a.second.kind),
                     a.second.bytes, a.second.registered ? " is still registered" : "");
    return int(allocs.size());
}

void describe_address(const void *p, char *text, size_t bytes)
{
    const char *c = static_cast<const char *>(p);
    const bool held = lock.try_lock();

    text[0] = '\0';
    for (const auto &a : allocs) {
        const char *start = reinterpret_cast<const char *>(a.first);

        if (a.second.map == nullptr || c < a.second.map || c >= a.second.map + a.second.map_bytes)
            continue;
        if (c >= start && c < start + a.second.bytes)
            std::snprintf(text, bytes, "device memory touched outside of kernels and copies");
        else if (c < start)
            std::snprintf(text, bytes, "%zu bytes before %s of %zu bytes", size_t(start - c),
                          kind_name(a.second.kind), a.second.bytes);
        else
            std::snprintf(text, bytes, "%zu bytes behind the end of %s of %zu bytes",
                          size_t(c - start) - a.second.bytes, kind_name(a.second.kind),
                          a.second.bytes);
    }
    for (const auto &q : quarantine)
        if (c >= q.first && c < q.first + q.second)
            std::snprintf(text, bytes, "memory that was freed");
    if (held)
        lock.unlock();
}

/* ---- copies ---- */

static const char *const kind_words[] = {"host to host", "host to device", "device to host",
                                         "device to device", "default"};

/* Checks both ends; settles cudaMemcpyDefault. */
static cudaError_t check_copy(const char *what, const void *to, size_t to_bytes, const void *from,
                              size_t from_bytes, cudaMemcpyKind *kind)
{
    const Kind t = kind_of(to, to_bytes), f = kind_of(from, from_bytes);
    int want;

    if (unsigned(*kind) > unsigned(cudaMemcpyDefault))
        return refuse(cudaErrorInvalidMemcpyDirection, "%s: no such direction", what);
    if (t == kBad || f == kBad)
        return refuse(cudaErrorInvalidValue, "%s: %zu bytes are more than the %s memory has", what,
                      t == kBad ? to_bytes : from_bytes, t == kBad ? "target" : "source");
    want = (f == kDevice ? 2 : 0) + (t == kDevice ? 1 : 0);
    if (*kind == cudaMemcpyDefault)
        *kind = cudaMemcpyKind(want);
    if (int(*kind) != want)
        return refuse(cudaErrorInvalidValue, "%s: said to be %s, the pointers are %s", what,
                      kind_words[*kind], kind_words[want]);
    return cudaSuccess;
}

static cudaError_t copy_async(const char *what, void *to, const void *from, size_t bytes,
                              cudaMemcpyKind kind, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    if (bytes == 0)
        return cudaSuccess;
    if (cudaError_t e = check_copy(what, to, bytes, from, bytes, &kind))
        return e;
    if (late() && kind == cudaMemcpyHostToDevice && kind_of(from, bytes) == kPageable) {
        Hold hold(lock);
        CUstream_st *s = stream_of(stream);
        bool captured = s != nullptr && s->capture != nullptr;

        hold.unlock();
        if (!captured) { /* pageable memory is read before the call returns */
            auto staged = std::make_shared<std::vector<char>>(
                static_cast<const char *>(from), static_cast<const char *>(from) + bytes);

            return enqueue(
                stream, [=] { std::memcpy(to, staged->data(), bytes); }, what);
        }
    }
    return enqueue(
        stream, [=] { std::memmove(to, from, bytes); }, what);
}

static cudaError_t wait_null(const char *what)
{
    {
        Hold hold(lock);

        if (cudaError_t e = unsafe_call(what))
            return e;
    }
    return cudaStreamSynchronize(nullptr);
}

} // namespace trm_emu

using namespace trm_emu;

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    return allocate(out, bytes, kDevice, "cudaMalloc");
}
cudaError_t cudaFree(void *p)
{
    return free_memory(p, kDevice, "cudaFree");
}
cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    return allocate(out, bytes, kPinned, "cudaMallocHost");
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    return allocate(out, bytes, kPinned, "cudaHostAlloc");
}
cudaError_t cudaFreeHost(void *p)
{
    return free_memory(p, kPinned, "cudaFreeHost");
}
cudaError_t cudaHostGetDevicePointer(void **out, void *host, unsigned)
{
    TRM_EMU_ENTER();
    if (kind_of(host, 1) != kPinned)
        return refuse(cudaErrorInvalidValue, "cudaHostGetDevicePointer: not pinned memory");
    *out = host;
    return cudaSuccess;
}
/* The pools' allocations are made and freed in stream order; here the call itself makes them. */
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t)
{
    return allocate(out, bytes, kDevice, "cudaMallocAsync");
}
cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    if (p == nullptr)
        return cudaSuccess;
    if (kind_of(p, 1) != kDevice)
        return refuse(cudaErrorInvalidValue, "cudaFreeAsync: %p is not device memory", p);
    return enqueue(
        stream,
        [p] {
            Hold hold(lock);

            (void)release(p, kDevice, "cudaFreeAsync");
        },
        "cudaFreeAsync");
}
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (p == nullptr || bytes == 0)
        return done(cudaErrorInvalidValue);
    if (find(p) != allocs.end())
        return refuse(cudaErrorHostMemoryAlreadyRegistered, "cudaHostRegister: %p is known", p);
    allocs[reinterpret_cast<uintptr_t>(p)] =
        Alloc{bytes, kPinned, current_device(), true, false, nullptr, 0, -1};
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    auto at = allocs.find(reinterpret_cast<uintptr_t>(p));

    if (at == allocs.end() || !at->second.registered)
        return refuse(cudaErrorHostMemoryNotRegistered, "cudaHostUnregister: %p is not registered",
                      p);
    run_all(hold);
    allocs.erase(reinterpret_cast<uintptr_t>(p));
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    *free_bytes = limit() - used;
    *all_bytes = limit();
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *p)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    auto at = find(p);

    *out = cudaPointerAttributes();
    out->device = current_device();
    out->hostPointer = const_cast<void *>(p);
    if (at == allocs.end()) {
        out->type = cudaMemoryTypeUnregistered;
        return cudaSuccess;
    }
    out->type = at->second.kind == kDevice ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    out->device = at->second.device;
    out->devicePointer = const_cast<void *>(p);
    if (at->second.kind == kDevice)
        out->hostPointer = nullptr;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy_async("cudaMemcpyAsync", to, from, bytes, kind, stream);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    TRM_EMU_ENTER();
    {
        Hold hold(lock);

        if (cudaError_t e = unsafe_call("cudaMemcpy"))
            return e;
    }
    if (cudaError_t e = copy_async("cudaMemcpy", to, from, bytes, kind, nullptr))
        return e;
    return wait_null("cudaMemcpy");
}
cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes,
                                cudaStream_t stream)
{
    return copy_async("cudaMemcpyPeerAsync", to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemcpyPeer(void *to, int, const void *from, int, size_t bytes)
{
    return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    if (width == 0 || height == 0)
        return cudaSuccess;
    if (to_pitch < width || from_pitch < width)
        return refuse(cudaErrorInvalidPitchValue, "cudaMemcpy2DAsync: a pitch below the width");
    if (cudaError_t e = check_copy("cudaMemcpy2DAsync", to, (height - 1) * to_pitch + width, from,
                                   (height - 1) * from_pitch + width, &kind))
        return e;
    return enqueue(
        stream,
        [=] {
            for (size_t i = 0; i < height; i++)
                std::memcpy(static_cast<char *>(to) + i * to_pitch,
                            static_cast<const char *>(from) + i * from_pitch, width);
        },
        "cudaMemcpy2DAsync");
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    if (bytes == 0)
        return cudaSuccess;
    if (kind_of(to, bytes) != kDevice)
        return refuse(cudaErrorInvalidValue,
                      "cudaMemsetAsync: %zu bytes at %p are not in device memory", bytes, to);
    return enqueue(
        stream, [=] { fill(static_cast<char *>(to), value, bytes); }, "cudaMemsetAsync");
}
cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    TRM_EMU_ENTER();
    {
        Hold hold(lock);

        if (cudaError_t e = unsafe_call("cudaMemset"))
            return e;
    }
    return cudaMemsetAsync(to, value, bytes, nullptr);
}
