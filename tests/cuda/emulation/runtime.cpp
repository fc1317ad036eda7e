/* The emulated CUDA runtime: devices, errors, launches. Its C ABI is the real one.
 *
 * TRM_EMU_LATE=1        work waits until somebody waits for it (streams.cpp)
 * TRM_EMU_SLOW=MS       queries of events do not see what was recorded less than MS ago: a device
 *                       that takes its time
 * TRM_EMU_FAULT=N:code  the Nth kernel that runs and all after it fails with CUDA error `code`
 * TRM_EMU_LEAKS=1       at exit, report what was not freed and exit with 71
 * TRM_EMU_DEVICES=n     devices, all of them the same memory (1)
 * Memory: memory.cpp, ipc.cpp. The driver: driver.cpp. */
#include "tests/cuda/emulation/emu_state.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace trm_emu
{

std::atomic<int> sticky{0};
static thread_local cudaError_t last_error;
static thread_local int device;

bool option(const char *name)
{
    const char *v = std::getenv(name);

    return v != nullptr && v[0] != '\0' && std::strcmp(v, "0") != 0;
}
int device_count()
{
    const char *v = std::getenv("TRM_EMU_DEVICES");

    return v != nullptr ? std::atoi(v) : 1;
}
int current_device()
{
    return device;
}

cudaError_t done(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}
cudaError_t enter()
{
    return done(cudaError_t(sticky.load()));
}
cudaError_t refuse(cudaError_t e, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    std::fprintf(stderr, "trm_emu: ");
    std::vfprintf(stderr, format, ap);
    std::fprintf(stderr, " (%s)\n", cudaGetErrorName(e));
    va_end(ap);
    return done(e);
}

/* ---- at exit ---- */

struct AtExit {
    std::map<const void *, const char *> kernels; /* that were launched, and as what */

    ~AtExit();
};
static AtExit at_exit;

static int report_leaks()
{
    const struct {
        const char *what;
        size_t count;
    } rows[] = {{"a stream", streams.size()},
                {"an event", events.size()},
                {"a graph", graphs.size()},
                {"an instantiated graph", execs.size()}};
    int leaks = report_memory_leaks();

    for (const auto &row : rows)
        for (size_t i = 0; i < row.count; i++, leaks++)
            std::fprintf(stderr, "trm_emu: leak: %s\n", row.what);
    return leaks;
}

AtExit::~AtExit()
{
    const char *path = std::getenv("TRM_EMU_COVERAGE");

    if (path != nullptr && !kernels.empty()) {
        std::set<std::string> names;
        std::string text;
        FILE *f = std::fopen(path, "a");

        for (const auto &k : kernels)
            names.insert(kernel_name(k.first, k.second));
        for (const std::string &name : names)
            text += name + "\n";
        if (f != nullptr) {
            std::fwrite(text.data(), 1, text.size(), f);
            std::fclose(f);
        }
    }
    if (option("TRM_EMU_LEAKS") && report_leaks() != 0) {
        std::fflush(nullptr);
        _exit(71);
    }
}

/* ---- launches ---- */

static auto &opted_smem = *new std::map<const void *, int>; /* cudaFuncSetAttribute */

cudaError_t launch(cudaStream_t stream, const Launch &launch)
{
    const dim3 g = launch.grid, b = launch.block;
    const uint64_t threads = uint64_t(b.x) * b.y * b.z;
    int opted = 48 * 1024;

    TRM_EMU_ENTER();
    if (threads == 0 || threads > 1024 || b.x > 1024 || b.y > 1024 || b.z > 64 || g.x == 0 ||
        g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        return refuse(cudaErrorInvalidConfiguration, "kernel %s: grid (%u,%u,%u), block (%u,%u,%u)",
                      launch.name, g.x, g.y, g.z, b.x, b.y, b.z);
    {
        Hold hold(lock);
        auto at = opted_smem.find(launch.kernel);

        if (at != opted_smem.end() && at->second > opted)
            opted = at->second;
        at_exit.kernels.emplace(launch.kernel, launch.name);
    }
    if (launch.smem > size_t(opted))
        return refuse(cudaErrorInvalidValue,
                      "kernel %s: %zu bytes of dynamic shared memory, %d are allowed", launch.name,
                      launch.smem, opted);
    return enqueue_item(stream,
                        Item{[launch] { run_grid(launch); }, launch.name, true, nullptr, 0});
}

} // namespace trm_emu

using namespace trm_emu;

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || value > 227 * 1024)
        return refuse(cudaErrorInvalidValue, "cudaFuncSetAttribute: %d bytes of shared memory",
                      value);
    opted_smem[kernel] = value;
    return cudaSuccess;
}
cudaError_t cudaFuncSetCacheConfig(const void *, cudaFuncCache)
{
    return enter();
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *kernel)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    auto at = opted_smem.find(kernel);

    *out = cudaFuncAttributes();
    out->maxThreadsPerBlock = 1024;
    out->numRegs = 32;
    out->ptxVersion = out->binaryVersion = 90;
    out->maxDynamicSharedSizeBytes = at != opted_smem.end() ? at->second : 48 * 1024;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *,
                                                                   int threads, size_t smem,
                                                                   unsigned)
{
    int by_smem;

    TRM_EMU_ENTER();
    if (threads <= 0 || threads > 1024)
        return done(cudaErrorInvalidValue);
    *blocks = 2048 / ((threads + 31) / 32 * 32);
    by_smem = int(size_t(228) * 1024 / (smem + 1024));
    if (*blocks > by_smem)
        *blocks = by_smem;
    if (*blocks > 32)
        *blocks = 32;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel,
                                                          int threads, size_t smem)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, threads, smem, 0);
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = sticky != 0 ? cudaError_t(sticky.load()) : last_error;

    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void)
{
    return sticky != 0 ? cudaError_t(sticky.load()) : last_error;
}

static const struct {
    cudaError_t code;
    const char *name, *words;
} error_rows[] = {
#define ROW(code, words)                                                                           \
    {                                                                                              \
        code, #code, words                                                                         \
    }
    ROW(cudaSuccess, "no error"),
    ROW(cudaErrorInvalidValue, "invalid argument"),
    ROW(cudaErrorMemoryAllocation, "out of memory"),
    ROW(cudaErrorInitializationError, "initialization error"),
    ROW(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ROW(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    ROW(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ROW(cudaErrorStubLibrary, "CUDA driver is a stub library"),
    ROW(cudaErrorInsufficientDriver,
        "CUDA driver version is insufficient for CUDA runtime version"),
    ROW(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ROW(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ROW(cudaErrorInvalidDevice, "invalid device ordinal"),
    ROW(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    ROW(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices"),
    ROW(cudaErrorNvlinkUncorrectable, "uncorrectable NVLink error detected during the execution"),
    ROW(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ROW(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    ROW(cudaErrorNotReady, "device not ready"),
    ROW(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ROW(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    ROW(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    ROW(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
    ROW(cudaErrorPeerAccessNotEnabled, "peer access has not been enabled"),
    ROW(cudaErrorContextIsDestroyed, "context is destroyed"),
    ROW(cudaErrorAssert, "device-side assert triggered"),
    ROW(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is "
                                              "already mapped"),
    ROW(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory "
                                          "region"),
    ROW(cudaErrorHardwareStackError, "hardware stack error"),
    ROW(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    ROW(cudaErrorMisalignedAddress, "misaligned address"),
    ROW(cudaErrorInvalidAddressSpace, "operation not supported on global/shared address space"),
    ROW(cudaErrorInvalidPc, "invalid program counter"),
    ROW(cudaErrorLaunchFailure, "unspecified launch failure"),
    ROW(cudaErrorNotPermitted, "operation not permitted"),
    ROW(cudaErrorNotSupported, "operation not supported"),
    ROW(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ROW(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during "
                                           "capture"),
    ROW(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture "
                                     "sequences"),
    ROW(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ROW(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ROW(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    ROW(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a "
                                        "capturing blocking stream"),
    ROW(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing "
                                "stream"),
    ROW(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence "
                                           "from another thread"),
    ROW(cudaErrorUnknown, "unknown error"),
#undef ROW
};
const char *cudaGetErrorName(cudaError_t e)
{
    for (const auto &row : error_rows)
        if (row.code == e)
            return row.name;
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t e)
{
    for (const auto &row : error_rows)
        if (row.code == e)
            return row.words;
    return "unrecognized error code";
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    TRM_EMU_ENTER();
    *count = device_count();
    return *count > 0 ? cudaSuccess : done(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int d)
{
    TRM_EMU_ENTER();
    if (d < 0 || d >= device_count())
        return refuse(cudaErrorInvalidDevice, "cudaSetDevice: %d of %d", d, device_count());
    device = d;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *d)
{
    TRM_EMU_ENTER();
    *d = device;
    return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned)
{
    return enter();
}
cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int d)
{
    size_t free_bytes;

    TRM_EMU_ENTER();
    if (d < 0 || d >= device_count())
        return done(cudaErrorInvalidDevice);
    std::memset(p, 0, sizeof *p);
    std::snprintf(p->name, sizeof p->name, "Emulated GPU");
    (void)cudaMemGetInfo(&free_bytes, &p->totalGlobalMem);
    p->major = 9;
    p->minor = 0;
    p->multiProcessorCount = 132;
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = 227 * 1024;
    p->sharedMemPerMultiprocessor = 228 * 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->l2CacheSize = 50 << 20;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->memPitch = 0x7fffffff;
    p->memoryBusWidth = 5120;
    p->asyncEngineCount = 3;
    p->concurrentKernels = 1;
    p->unifiedAddressing = 1;
    p->canMapHostMemory = 1;
    p->pciBusID = d + 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int d)
{
    TRM_EMU_ENTER();
    if (d < 0 || d >= device_count())
        return done(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
        *value = 1024;
        break;
    case cudaDevAttrMaxBlockDimZ:
        *value = 64;
        break;
    case cudaDevAttrMaxGridDimX:
        *value = 0x7fffffff;
        break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
        *value = 65535;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 * 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = 227 * 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = 228 * 1024;
        break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = 132;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = 32;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = 3;
        break;
    case cudaDevAttrClockRate:
        *value = 1755000;
        break;
    default:
        *value = 0;
        break;
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int d)
{
    TRM_EMU_ENTER();
    std::snprintf(text, size_t(bytes), "0000:%02x:00.0", d + 1);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetByPCIBusId(int *d, const char *text)
{
    unsigned bus = 0;

    TRM_EMU_ENTER();
    if (std::sscanf(text, "0000:%x:00.0", &bus) != 1 || bus == 0 || int(bus) > device_count())
        return done(cudaErrorInvalidDevice);
    *d = int(bus) - 1;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b)
{
    TRM_EMU_ENTER();
    *can = a != b && a >= 0 && b >= 0 && a < device_count() && b < device_count();
    return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int d, unsigned)
{
    TRM_EMU_ENTER();
    return d >= 0 && d < device_count() && d != device ? cudaSuccess : done(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceDisablePeerAccess(int)
{
    return enter();
}
cudaError_t cudaGetDriverEntryPoint(const char *, void **out, unsigned long long,
                                    cudaDriverEntryPointQueryResult *found)
{
    *out = nullptr;
    if (found != nullptr)
        *found = cudaDriverEntryPointSymbolNotFound;
    return done(cudaErrorNotSupported);
}
