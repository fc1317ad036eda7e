/* Device memory that other processes open by a handle: all of it lies in one file without a name,
 * which they reach through /proc. Only with TRM_EMU_DEVICES above 1, or TRM_EMU_IPC=1: memory of
 * this kind is shared with forked processes too. */
#include "tests/cuda/emulation/emu_state.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace trm_emu
{

static int file = -1;
static int64_t file_end; /* places are not used twice */

struct Handle { /* what is in a cudaIpcMemHandle_t */
    char magic[8];
    int64_t pid, fd, at, bytes, offset; /* of the memory in its first page */
};
static_assert(sizeof(Handle) <= sizeof(cudaIpcMemHandle_t), "a handle has 64 bytes");
static const char magic[8] = "trm_emu";

bool shares_memory()
{
    static const bool is = device_count() > 1 || option("TRM_EMU_IPC");

    return is;
}

bool share(char *p, size_t bytes, int64_t *at_out)
{
    if (file < 0)
        file = memfd_create("trm_emu", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, file_end + int64_t(bytes)) != 0 ||
        mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, file_end) ==
            MAP_FAILED)
        return false;
    *at_out = file_end;
    file_end += int64_t(bytes);
    return true;
}

void unshare(int64_t at, size_t bytes)
{
    (void)fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, int64_t(bytes));
}

} // namespace trm_emu

using namespace trm_emu;

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *p)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    auto at = find(p);
    Handle h = {};

    if (at == allocs.end() || at->second.kind != kDevice || at->second.imported)
        return refuse(cudaErrorInvalidValue, "cudaIpcGetMemHandle: %p is not this process's memory",
                      p);
    if (at->second.shared_at < 0)
        return refuse(cudaErrorNotSupported, "cudaIpcGetMemHandle: set TRM_EMU_IPC=1");
    std::memcpy(h.magic, magic, sizeof magic);
    h.pid = getpid();
    h.fd = file;
    h.at = at->second.shared_at;
    h.bytes = int64_t(at->second.bytes);
    h.offset = int64_t(at->first - reinterpret_cast<uintptr_t>(at->second.map) - kPage);
    std::memset(out, 0, sizeof *out);
    std::memcpy(out, &h, sizeof h);
    return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **out, cudaIpcMemHandle_t handle, unsigned)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    Handle h;
    char path[64];
    size_t inner;
    char *map;
    int fd;

    if (cudaError_t e = unsafe_call("cudaIpcOpenMemHandle"))
        return e;
    std::memcpy(&h, &handle, sizeof h);
    if (std::memcmp(h.magic, magic, sizeof magic) != 0)
        return refuse(cudaErrorInvalidValue, "cudaIpcOpenMemHandle: not a handle");
    std::snprintf(path, sizeof path, "/proc/%lld/fd/%lld", static_cast<long long>(h.pid),
                  static_cast<long long>(h.fd));
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return refuse(cudaErrorMapBufferObjectFailed, "cudaIpcOpenMemHandle: the process is gone");
    inner = (size_t(h.offset + h.bytes) + kPage - 1) / kPage * kPage;
    map = static_cast<char *>(mmap(nullptr, inner + 2 * kPage, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map == MAP_FAILED ||
        mmap(map + kPage, inner, guarded() ? PROT_NONE : PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, fd, h.at) == MAP_FAILED) {
        close(fd);
        return refuse(cudaErrorMapBufferObjectFailed, "cudaIpcOpenMemHandle: it cannot be mapped");
    }
    close(fd);
    *out = map + kPage + h.offset;
    allocs[reinterpret_cast<uintptr_t>(*out)] =
        Alloc{size_t(h.bytes), kDevice, current_device(), false, true, map, inner + 2 * kPage, -1};
    return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void *p)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    auto at = allocs.find(reinterpret_cast<uintptr_t>(p));

    if (at == allocs.end() || !at->second.imported)
        return refuse(cudaErrorInvalidValue, "cudaIpcCloseMemHandle: %p was not opened", p);
    run_all(hold);
    at = allocs.find(reinterpret_cast<uintptr_t>(p));
    unmap_memory(at->second);
    allocs.erase(at);
    return cudaSuccess;
}
