/* The emulated libcuda: what kernels/cuda_probe.c asks of it. Exported from the same library as the
 * module.
 *
 * TRM_EMU_DRIVER=none|old|stub  no device; a driver for CUDA 11.4; the toolkit's stub library
 * TRM_EMU_DEVICES=n             devices (1) */
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/cuda/emulation/emu_state.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

/* Declared here by hand, as the probe does it: cuda.h is not needed. */
enum { kSuccess = 0, kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101, kStub = 34 };

static bool driver_is(const char *what)
{
    const char *v = std::getenv("TRM_EMU_DRIVER");

    return v != nullptr && std::strcmp(v, what) == 0;
}
static bool is_device(int d)
{
    return d >= 0 && d < trm_emu::device_count();
}

EXPORT int cuInit(unsigned)
{
    if (driver_is("none") || driver_is("absent") || trm_emu::device_count() <= 0)
        return kNoDevice;
    return driver_is("stub") ? kStub : kSuccess;
}
EXPORT int cuDriverGetVersion(int *version)
{
    *version = driver_is("old") ? 11040 : 13000;
    return kSuccess;
}
EXPORT int cuDeviceGetCount(int *count)
{
    *count = trm_emu::device_count();
    return kSuccess;
}
EXPORT int cuDeviceGet(int *out, int d)
{
    *out = d;
    return is_device(d) ? kSuccess : kInvalidDevice;
}
EXPORT int cuDeviceGetName(char *name, int bytes, int d)
{
    std::snprintf(name, size_t(bytes), "Emulated GPU");
    return is_device(d) ? kSuccess : kInvalidDevice;
}
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int d)
{
    size_t free_bytes;

    if (!is_device(d) || cudaMemGetInfo(&free_bytes, bytes) != cudaSuccess)
        return kInvalidDevice;
    return kSuccess;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int d)
{
    /* the numbers of CUdevice_attribute and cudaDeviceAttr are the same */
    return cudaDeviceGetAttribute(value, cudaDeviceAttr(attribute), d) == cudaSuccess
               ? kSuccess
               : kInvalidDevice;
}
EXPORT int cuDeviceGetPCIBusId(char *text, int bytes, int d)
{
    if (!is_device(d))
        return kInvalidDevice;
    return cudaDeviceGetPCIBusId(text, bytes, d) == cudaSuccess ? kSuccess : kInvalidValue;
}
EXPORT int cuDeviceCanAccessPeer(int *can, int a, int b)
{
    *can = is_device(a) && is_device(b) && a != b;
    return kSuccess;
}
EXPORT int cuDeviceGetP2PAttribute(int *value, int, int a, int b)
{
    *value = 0; /* the fastest rank */
    return is_device(a) && is_device(b) && a != b ? kSuccess : kInvalidDevice;
}
EXPORT int cuGetErrorString(int error, const char **words)
{
    static const struct {
        int code;
        const char *words;
    } rows[] = {{kSuccess, "no error"},
                {kInvalidValue, "invalid argument"},
                {kNoDevice, "no CUDA-capable device is detected"},
                {kInvalidDevice, "invalid device ordinal"},
                {kStub, "CUDA driver is a stub library"}};

    for (const auto &row : rows) {
        if (row.code == error) {
            *words = row.words;
            return kSuccess;
        }
    }
    *words = nullptr;
    return kInvalidValue;
}
