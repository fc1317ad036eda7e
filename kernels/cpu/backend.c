/* The CPU device: memory, kernel objects, packed weights, instruction-set dispatch. */
#define _GNU_SOURCE
#include "kernels/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const isa_names[] = {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};

trm_isa trmi_cpu_isa(void)
{
    static int known = -1; /* idempotent: every thread computes the same */
    trm_isa isa = TRM_ISA_SCALAR;
    const char *limit;

    if (known >= 0)
        return (trm_isa)known;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        isa = TRM_ISA_AVX2;
    if (isa == TRM_ISA_AVX2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        isa = TRM_ISA_AVX512;
    if (isa == TRM_ISA_AVX512 && __builtin_cpu_supports("avx512vnni"))
        isa = TRM_ISA_AVX512_VNNI;
    if (isa == TRM_ISA_AVX512_VNNI && __builtin_cpu_supports("avx512bf16"))
        isa = TRM_ISA_AVX512_BF16;
    limit = getenv("TRM_CPU_ISA");
    for (int i = 0; limit != NULL && i <= (int)TRM_ISA_AVX512_BF16; i++)
        if (strcmp(limit, isa_names[i]) == 0 && i < (int)isa)
            isa = (trm_isa)i;
    known = (int)isa;
    return isa;
}

int trm_device_isa(void)
{
    return (int)trmi_cpu_isa();
}

trm_status trmi_cpu_pack(trm_cpu *cpu, uint64_t key, const char *form, size_t bytes,
                         trmi_pack **pack_out, bool *found_out)
{
    trmi_pack *p;

    *found_out = false;
    for (p = cpu->packs; p != NULL && key != 0; p = p->next) {
        if (p->key == key && strcmp(p->form, form) == 0) {
            p->holders++;
            *pack_out = p;
            *found_out = true;
            return TRM_OK;
        }
    }
    p = trm_calloc(1, sizeof(*p));
    if (p != NULL) {
        trm_weight_store *store = (key & TRM_WEIGHT_SHARED_KEY) != 0 ? cpu->base.weights : NULL;

        p->form = trm_strdup(form);
        if (store != NULL && p->form != NULL)
            p->memory = store->get(store, key, form, bytes, found_out);
        p->shared = p->memory != NULL;
        if (p->memory == NULL)
            p->memory = trm_aligned_malloc(bytes);
    }
    if (p == NULL || p->form == NULL || p->memory == NULL) {
        if (p != NULL) {
            trm_free(p->form);
            trm_aligned_free(p->memory); /* not the store's: with a form there is memory */
        }
        trm_free(p);
        return trm_fail(TRM_ERR_NO_MEMORY, "packed weight of %zu bytes", bytes);
    }
    p->key = key;
    p->bytes = bytes;
    p->holders = 1;
    *(p->shared ? &cpu->base.shared_bytes : &cpu->base.packed_bytes) += bytes;
    p->next = cpu->packs;
    cpu->packs = p;
    *pack_out = p;
    return TRM_OK;
}

void trmi_cpu_pack_settle(trm_cpu *cpu, const trmi_pack *pack, bool ok)
{
    if (pack->shared)
        cpu->base.weights->settle(cpu->base.weights, pack->memory, ok);
}

void trmi_cpu_pack_release(trm_cpu *cpu, trmi_pack *pack)
{
    trmi_pack **at = &cpu->packs;

    if (--pack->holders > 0)
        return;
    while (*at != pack)
        at = &(*at)->next;
    *at = pack->next;
    *(pack->shared ? &cpu->base.shared_bytes : &cpu->base.packed_bytes) -= pack->bytes;
    trm_free(pack->form);
    if (!pack->shared)
        trm_aligned_free(pack->memory);
    trm_free(pack);
}

trm_status trmi_kernel_new(size_t bytes, const trm_kernel_ops *ops, void *kernel_out)
{
    trm_kernel *k = trm_calloc(1, bytes);

    if (k == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "kernel object");
    k->ops = ops;
    *(trm_kernel **)kernel_out = k;
    return TRM_OK;
}

void trmi_kernel_free(trm_kernel *k)
{
    trm_free(k);
}

static void cpu_info(trm_device *d, trm_device_info *info)
{
    char model[80] = "CPU", line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            snprintf(model, sizeof(model), "%.70s", colon + 2);
            model[strcspn(model, "\n")] = '\0';
            break;
        }
    }
    if (f != NULL)
        fclose(f);
    memset(info, 0, sizeof(*info));
    info->threads = ((trm_cpu *)d)->threads;
    snprintf(info->name, sizeof(info->name), "%s, %d thread%s, %s", model, info->threads,
             info->threads == 1 ? "" : "s", isa_names[trmi_cpu_isa()]);
    info->memory_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    info->bf16_fast = trmi_cpu_isa() >= TRM_ISA_AVX512_BF16;
}

static bool cpu_supports(trm_device *d, const trm_op_desc *desc)
{
    (void)d;
    if (trmi_cpu_kernel(desc->op) != NULL)
        return true;
    (void)trm_fail(TRM_ERR_UNSUPPORTED, "operator %s has no CPU kernel",
                   trm_op_get(desc->op)->name);
    return false;
}

static trm_status cpu_prepare(trm_device *d, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trmi_cpu_prepare prepare = trmi_cpu_kernel(desc->op);

    if (prepare == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "operator %s has no CPU kernel",
                        trm_op_get(desc->op)->name);
    return prepare((trm_cpu *)d, desc, kernel_out);
}

static trm_status cpu_alloc(trm_device *d, trm_memory_kind kind, size_t bytes, void **memory_out)
{
    void *p = trm_aligned_malloc(bytes);

    (void)d;
    (void)kind;
    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes of host memory", bytes);
    *memory_out = p;
    return TRM_OK;
}

static void cpu_free(trm_device *d, trm_memory_kind kind, void *memory)
{
    (void)d;
    (void)kind;
    trm_aligned_free(memory);
}

static trm_status cpu_copy_in(trm_device *d, trm_stream *s, void *to, const void *from,
                              size_t bytes)
{
    (void)d;
    (void)s;
    if (bytes > 0 && to != from)
        memmove(to, from, bytes);
    return TRM_OK;
}

static trm_status cpu_copy_out(trm_device *d, trm_stream *s, void *to, const void *from,
                               size_t bytes)
{
    return cpu_copy_in(d, s, to, from, bytes);
}

static trm_status cpu_fill_zero(trm_device *d, trm_stream *s, void *to, size_t bytes)
{
    (void)d;
    (void)s;
    memset(to, 0, bytes);
    return TRM_OK;
}

static void cpu_destroy(trm_device *d)
{
    trm_cpu *cpu = (trm_cpu *)d;

    TRM_ASSERT(cpu->packs == NULL); /* the kernels that held them are gone */
    trmi_dnnl_fini(cpu);
    trm_free(cpu);
}

static const trm_device_ops cpu_ops = {
    .name = "cpu",
    .info = cpu_info,
    .supports = cpu_supports,
    .prepare = cpu_prepare,
    .prepare_reorder = trmi_cpu_prepare_reorder,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy_in = cpu_copy_in,
    .copy_out = cpu_copy_out,
    .fill_zero = cpu_fill_zero,
    .destroy = cpu_destroy,
};

trm_status trm_device_cpu_create(int threads, trm_device **device_out)
{
    trm_cpu *cpu = trm_calloc(1, sizeof(*cpu));
    trm_status st;

    if (cpu == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cpu device");
    trm_team_init(threads);
    cpu->base.ops = &cpu_ops;
    cpu->base.host_memory = true;
    cpu->threads = trm_team_size();
    st = trmi_dnnl_init(cpu);
    if (st != TRM_OK) {
        trm_free(cpu);
        return st;
    }
    *device_out = &cpu->base;
    return TRM_OK;
}
