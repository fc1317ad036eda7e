/* The build id is read from the loaded program: its file may have been replaced since. */
#define _GNU_SOURCE
#include "parallel/build_id.h"
#include "base/memory.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

uint64_t trmi_hash(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

/* Notes of one segment: (name bytes, data bytes, type), name and data each padded to 4. */
static bool hash_notes(const unsigned char *at, size_t bytes, uint64_t *hash)
{
    ElfW(Nhdr) h;

    while (bytes >= sizeof(h)) {
        size_t name, data;

        memcpy(&h, at, sizeof(h));
        name = trm_align_up(h.n_namesz, 4);
        data = trm_align_up(h.n_descsz, 4);
        if (name > bytes - sizeof(h) || data > bytes - sizeof(h) - name)
            return false;
        if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4 &&
            memcmp(at + sizeof(h), "GNU", 4) == 0) {
            *hash = trmi_hash(*hash, at + sizeof(h) + name, h.n_descsz);
            return true;
        }
        at += sizeof(h) + name + data;
        bytes -= sizeof(h) + name + data;
    }
    return false;
}

struct search {
    bool found;
    uint64_t hash;
};

static int look(struct dl_phdr_info *info, size_t bytes, void *ctx)
{
    struct search *s = ctx;

    (void)bytes;
    for (int i = 0; !s->found && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type ==
            PT_NOTE) /* an address of the loaded program, which glibc gives as a number */
            s->found = hash_notes((const unsigned char *)(info->dlpi_addr + p->p_vaddr), p->p_memsz,
                                  &s->hash);
    }
    return 1; /* the first object is the program: no library is looked at */
}

static uint64_t hash_file(uint64_t hash)
{
    unsigned char buf[16384];
    FILE *f = fopen("/proc/self/exe", "re");
    size_t n;

    while (f != NULL && (n = fread(buf, 1, sizeof(buf), f)) > 0)
        hash = trmi_hash(hash, buf, n);
    if (f != NULL)
        fclose(f);
    return hash;
}

uint64_t trmi_build_id(void)
{
    struct search s = {.hash = trmi_hash(TRMI_HASH_START, TRM_VERSION, strlen(TRM_VERSION))};

    dl_iterate_phdr(look, &s);
    return s.found ? s.hash : hash_file(s.hash);
}
