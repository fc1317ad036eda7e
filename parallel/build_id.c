/* The build id is read from the loaded program: its file may have been replaced since. */
#define _GNU_SOURCE
#include "parallel/build_id.h"
#include "base/hash.h"
#include "base/memory.h"

#include <elf.h>
#include <link.h>
#include <string.h>

/* Notes of one segment: (name bytes, data bytes, type), name and data each padded to 4. */
static bool hash_notes(const unsigned char *at, size_t bytes, trm_hash *hash)
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
            trm_hash_add(hash, at + sizeof(h) + name, h.n_descsz);
            return true;
        }
        at += sizeof(h) + name + data;
        bytes -= sizeof(h) + name + data;
    }
    return false;
}

struct search {
    bool found;
    trm_hash hash;
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

uint64_t trmi_build_id(void)
{
    struct search s = {.found = false};

    trm_hash_init(&s.hash, 0);
    trm_hash_text(&s.hash, TRM_VERSION);
    dl_iterate_phdr(look, &s);
    if (!s.found && trm_hash_file(&s.hash, "/proc/self/exe") != TRM_OK)
        return 0; /* no file system of processes: nothing tells builds apart but their versions */
    return trm_hash_value(&s.hash);
}
