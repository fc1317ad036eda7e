/* Names of kernels from the symbol table of this library's file: a launch through a function
 * pointer says nothing about the name. */
#include "tests/cuda/emulation/emu_state.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace trm_emu
{

/* The whole file, mapped for good; NULL: it cannot be read. */
static const char *map_file(const char *path, size_t *bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *p = MAP_FAILED;

    if (fd < 0)
        return nullptr;
    if (fstat(fd, &st) == 0 && size_t(st.st_size) > sizeof(Elf64_Ehdr))
        p = mmap(nullptr, size_t(st.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return nullptr;
    *bytes = size_t(st.st_size);
    return static_cast<const char *>(p);
}

static const char *symbol_at(const char *file, size_t bytes, uintptr_t offset)
{
    const Elf64_Ehdr *e = reinterpret_cast<const Elf64_Ehdr *>(file);
    const Elf64_Shdr *sections = reinterpret_cast<const Elf64_Shdr *>(file + e->e_shoff);

    if (std::memcmp(e->e_ident, ELFMAG, SELFMAG) != 0 || e->e_ident[EI_CLASS] != ELFCLASS64 ||
        e->e_shoff + size_t(e->e_shnum) * sizeof(Elf64_Shdr) > bytes)
        return nullptr;
    for (unsigned i = 0; i < e->e_shnum; i++) {
        const Elf64_Shdr &s = sections[i];
        const Elf64_Sym *symbols = reinterpret_cast<const Elf64_Sym *>(file + s.sh_offset);

        if (s.sh_type != SHT_SYMTAB)
            continue;
        for (size_t k = 0; k < s.sh_size / sizeof(Elf64_Sym); k++)
            if (ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC && symbols[k].st_value == offset)
                return file + sections[s.sh_link].sh_offset + symbols[k].st_name;
    }
    return nullptr;
}

/* "void (anonymous namespace)::scale<float, 4>(float*)" and "(scale<float, 4>)" give "scale". */
static std::string base_name(std::string s)
{
    const std::string unnamed = "(anonymous namespace)::";
    size_t at;

    while ((at = s.find(unnamed)) != std::string::npos)
        s.erase(at, unnamed.size());
    s.erase(0, s.find_first_not_of("( "));
    s.erase(std::min(s.find_first_of("<()"), s.size()));
    s.erase(0, s.find_last_of(": ") + 1);
    return s;
}

std::string kernel_name(const void *kernel, const char *text)
{
    static std::mutex names_lock;
    static auto &names = *new std::map<const void *, std::string>;
    static const char *file;
    static size_t bytes;
    std::lock_guard<std::mutex> hold(names_lock);
    std::string &name = names[kernel];
    const char *symbol = nullptr;
    Dl_info info;

    if (!name.empty())
        return name;
    name = base_name(text);
    if (dladdr(kernel, &info) == 0)
        return name;
    if (file == nullptr)
        file = map_file(info.dli_fname, &bytes);
    if (file != nullptr)
        symbol = symbol_at(file, bytes,
                           reinterpret_cast<uintptr_t>(kernel) -
                               reinterpret_cast<uintptr_t>(info.dli_fbase));
    if (symbol != nullptr) {
        int status = 0;
        char *whole = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);

        name = base_name(status == 0 ? whole : symbol);
        std::free(whole);
    }
    return name;
}

} // namespace trm_emu
