/* What CUDA devices are here, asked of the driver alone: opening libcuda costs a millisecond where
 * there is no driver, and the runtime with its libraries 90. The driver's functions are declared
 * here by hand (its ABI is stable), so that the program builds without CUDA's headers. */
#define _GNU_SOURCE
#include "kernels/cuda_module.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int driver_result; /* CUresult */
typedef int driver_device; /* CUdevice */

/* CUdevice_attribute and CUdevice_P2PAttribute */
enum { ATTR_MULTIPROCESSORS = 16, ATTR_MAJOR = 75, ATTR_MINOR = 76 };
enum { P2P_PERFORMANCE_RANK = 1 };

struct driver {
    driver_result (*init)(unsigned);
    driver_result (*version)(int *);
    driver_result (*count)(int *);
    driver_result (*get)(driver_device *, int);
    driver_result (*name)(char *, int, driver_device);
    driver_result (*memory)(size_t *, driver_device);
    driver_result (*attribute)(int *, int, driver_device);
    driver_result (*pci)(char *, int, driver_device);
    driver_result (*can_access)(int *, driver_device, driver_device);
    driver_result (*p2p)(int *, int, driver_device, driver_device);
    driver_result (*error)(driver_result, const char **);
};

static bool resolve(void *handle, struct driver *d)
{
    static const char *const names[] = {"cuInit",
                                        "cuDriverGetVersion",
                                        "cuDeviceGetCount",
                                        "cuDeviceGet",
                                        "cuDeviceGetName",
                                        "cuDeviceTotalMem_v2",
                                        "cuDeviceGetAttribute",
                                        "cuDeviceGetPCIBusId",
                                        "cuDeviceCanAccessPeer",
                                        "cuDeviceGetP2PAttribute",
                                        "cuGetErrorString"};
    void *symbols[sizeof(names) / sizeof(names[0])];

    static_assert(sizeof(symbols) == sizeof(struct driver), "a name for each function");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        symbols[i] = dlsym(handle, names[i]);
        if (symbols[i] == NULL)
            return false;
    }
    memcpy(d, symbols, sizeof(*d));
    return true;
}

static void read_device(const struct driver *d, int i, trm_cuda_found *f)
{
    driver_device dev = 0;
    int major = 0, minor = 0;

    if (d->get(&dev, i) != 0)
        return;
    if (d->name(f->name, (int)sizeof(f->name), dev) != 0)
        snprintf(f->name, sizeof(f->name), "CUDA device %d", i);
    if (d->pci(f->pci, (int)sizeof(f->pci), dev) != 0)
        f->pci[0] = '\0';
    (void)d->memory(&f->memory_bytes, dev);
    (void)d->attribute(&major, ATTR_MAJOR, dev);
    (void)d->attribute(&minor, ATTR_MINOR, dev);
    (void)d->attribute(&f->multiprocessors, ATTR_MULTIPROCESSORS, dev);
    f->capability = major * 10 + minor;
}

/* The driver ranks pairs by speed: 0 is its fastest kind, which is NVLink where there is any. */
static void read_links(const struct driver *d, trm_cuda_probe_result *r)
{
    for (int i = 0; i < r->count; i++) {
        for (int j = 0; j < r->count; j++) {
            driver_device a = 0, b = 0;
            int can = 0, rank = 1;

            if (i == j || d->get(&a, i) != 0 || d->get(&b, j) != 0 ||
                d->can_access(&can, a, b) != 0 || can == 0)
                continue;
            if (d->p2p(&rank, P2P_PERFORMANCE_RANK, a, b) != 0)
                rank = 1;
            r->found[i].link[j] = rank == 0 ? TRM_CUDA_LINK_NVLINK : TRM_CUDA_LINK_PCI;
        }
    }
}

void trm_cuda_probe(trm_cuda_probe_result *r)
{
    const char *path = getenv("TRM_CUDA_DRIVER"), *words = "";
    struct driver d;
    driver_result e;
    void *handle;

    memset(r, 0, sizeof(*r));
    handle = dlopen(path != NULL && path[0] != '\0' ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(r->why, sizeof(r->why), "no CUDA driver: %s", dlerror());
        return;
    }
    if (!resolve(handle, &d)) {
        snprintf(r->why, sizeof(r->why), "no CUDA driver: libcuda.so.1 lacks a function: %s",
                 dlerror());
        return;
    }
    e = d.init(0);
    if (e != 0 && d.error(e, &words) != 0)
        words = "unknown";
    (void)d.version(&r->driver_version);
    if (e == 0 && r->driver_version < TRM_CUDA_DRIVER_MIN)
        snprintf(r->why, sizeof(r->why),
                 "the CUDA driver is too old: it knows CUDA %d.%d, the backend needs %d.%d",
                 r->driver_version / 1000, r->driver_version % 1000 / 10,
                 TRM_CUDA_DRIVER_MIN / 1000, TRM_CUDA_DRIVER_MIN % 1000 / 10);
    else if (e == 100) /* CUDA_ERROR_NO_DEVICE */
        snprintf(r->why, sizeof(r->why), "no CUDA device: the driver sees none");
    else if (e != 0)
        snprintf(r->why, sizeof(r->why), "the CUDA driver does not start: %s (error %d)", words, e);
    if (r->why[0] != '\0')
        return;
    if (d.count(&r->count) != 0 || r->count <= 0) {
        r->count = 0;
        snprintf(r->why, sizeof(r->why), "no CUDA device: the driver sees none");
        return;
    }
    if (r->count > TRM_CUDA_DEVICES_MAX)
        r->count = TRM_CUDA_DEVICES_MAX;
    for (int i = 0; i < r->count; i++)
        read_device(&d, i, &r->found[i]);
    read_links(&d, r);
}
