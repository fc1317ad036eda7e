/* Opening the CUDA backend's module. */
#define _GNU_SOURCE
#include "kernels/cuda_module.h"

#include "base/log.h"

#include <dlfcn.h>
#include <elf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODULE_NAME "libtrireme_cuda.so"

/* One owner (the executor thread) opens it; it stays: CUDA libraries cannot be unloaded safely. */
static const trm_cuda_module *module;

/* Beside the program, in ../lib, or NULL. */
static const char *find_module(char *path, size_t bytes)
{
    static const char *const places[] = {"", "../lib/", "../lib/x86_64-linux-gnu/"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    const char *asked = getenv("TRM_CUDA_MODULE");
    char *slash;

    if (asked != NULL && asked[0] != '\0') {
        snprintf(path, bytes, "%s", asked);
        return path;
    }
    self[n < 0 ? 0 : n] = '\0';
    slash = strrchr(self, '/');
    for (size_t i = 0; slash != NULL && i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, bytes, "%.*s/%s%s", (int)(slash - self), self, places[i], MODULE_NAME);
        if (access(path, R_OK) == 0)
            return path;
    }
    return MODULE_NAME;
}

/* The loader maps what the file's headers promise and dies where the file ends before: a copy that
 * was cut short is found here. What is no ELF file it refuses by itself. */
static bool is_whole(const char *path)
{
    FILE *f = fopen(path, "rbe");
    Elf64_Ehdr head;
    bool whole = true;
    struct stat s;

    if (f == NULL)
        return true;
    if (fread(&head, sizeof(head), 1, f) == 1 && memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
        fstat(fileno(f), &s) == 0)
        whole = head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize <= (uint64_t)s.st_size;
    fclose(f);
    return whole;
}

static trm_status open_module(void)
{
    char path[PATH_MAX + 64];
    const char *name;
    const trm_cuda_module *m;
    trm_cuda_module_entry entry;
    void *handle, *symbol;

    if (module != NULL)
        return TRM_OK;
    name = find_module(path, sizeof(path));
    if (!is_whole(name))
        return trm_fail(TRM_ERR_UNSUPPORTED, "the CUDA backend cannot be loaded: %s is cut short",
                        name);
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "the CUDA backend cannot be loaded: %s", dlerror());
    symbol = dlsym(handle, TRM_CUDA_MODULE_ENTRY);
    memcpy(&entry, &symbol, sizeof(entry)); /* ISO C has no cast between the two */
    m = symbol == NULL ? NULL : entry();
    if (m == NULL || m->abi != TRM_CUDA_MODULE_ABI || m->device_bytes != sizeof(trm_device) ||
        m->ops_bytes != sizeof(trm_device_ops) || m->kernel_bytes != sizeof(trm_kernel) ||
        m->op_count != TRM_OP_COUNT)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s is no CUDA backend of this build: build both together", name);
    TRM_LOG(TRM_LOG_DEBUG, "cuda", "opened %s", name);
    module = m;
    return TRM_OK;
}

trm_status trm_cuda_module_versions(char *text, size_t bytes)
{
    TRM_CHECK(open_module());
    module->versions(text, bytes);
    return TRM_OK;
}

trm_status trm_device_cuda_create(const trm_cuda_options *options, trm_device *host,
                                  trm_device **device_out)
{
    trm_cuda_probe_result *probe = trm_calloc(1, sizeof(*probe));
    trm_status st = TRM_OK;

    if (probe == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    trm_cuda_probe(probe);
    if (probe->why[0] != '\0')
        st = trm_fail(TRM_ERR_UNSUPPORTED, "%s", probe->why);
    else if (options->device < 0 || options->device >= probe->count)
        st = trm_fail(TRM_ERR_INVALID_ARG, "CUDA device %d: this host has %d (0 to %d)",
                      options->device, probe->count, probe->count - 1);
    trm_free(probe);
    TRM_CHECK(st);
    TRM_CHECK(open_module());
    return module->create(options, host, device_out);
}
