/* NCCL is opened when it is first wanted, so that the backend works without it: libnccl.so.2, or
 * what TRM_NCCL_LIBRARY names. It stays open. */
#include "kernels/cuda/group_impl.h"

#if TRMI_HAVE_NCCL

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_MIN 21800 /* all calls of a communicator may be non-blocking */

static trmi_nccl nccl;
static char missing[300]; /* why there is none */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
    const char *name;
    size_t at;
} calls[] = {
#define ROW(name) {"nccl" #name, offsetof(trmi_nccl, name)},
    TRMI_NCCL_CALLS(ROW)
#undef ROW
};

static void load(void)
{
    const char *named = getenv("TRM_NCCL_LIBRARY");
    const char *path = named != NULL && named[0] != '\0' ? named : "libnccl.so.2";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        snprintf(missing, sizeof(missing), "NCCL: %s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *symbol = dlsym(library, calls[i].name);

        if (symbol == NULL) {
            snprintf(missing, sizeof(missing), "NCCL: %s has no %s", path, calls[i].name);
            return;
        }
        memcpy((char *)&nccl + calls[i].at, &symbol, sizeof(symbol));
    }
    if (nccl.GetVersion(&nccl.version) != ncclSuccess || nccl.version < VERSION_MIN)
        snprintf(missing, sizeof(missing), "NCCL: %s is version %d.%d: want 2.18 or newer", path,
                 nccl.version / 10000, nccl.version / 100 % 100);
}

trm_status trmi_cuda_nccl(const trmi_nccl **nccl_out)
{
    (void)pthread_once(&once, load);
    if (missing[0] != '\0')
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s", missing);
    *nccl_out = &nccl;
    return TRM_OK;
}

#endif
