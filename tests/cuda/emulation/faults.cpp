/* Says what an access that faults was: SIGSEGV and SIGBUS in a kernel, or in host code that touches
 * device memory. The signal then takes its ordinary way. */
#include "tests/cuda/emulation/emu_block.hpp"
#include "tests/cuda/emulation/emu_state.hpp"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace trm_emu
{

#if !defined(__SANITIZE_ADDRESS__) /* its report says more */
static struct sigaction before[2];

static int index_of(int signal)
{
    return signal == SIGSEGV ? 0 : 1;
}

static void on_fault(int signal, siginfo_t *info, void *)
{
    char where[256] = "host code", what[256];
    int n;

    describe_address(info->si_addr, what, sizeof what);
    if (describe_thread(where, sizeof where, info->si_addr, what, sizeof what) || what[0] != '\0') {
        char line[640];

        n = std::snprintf(line, sizeof line, "trm_emu: %s: fault at %p: %s\n", where, info->si_addr,
                          what[0] != '\0' ? what : "no memory there");
        if (n > 0 && write(STDERR_FILENO, line, size_t(n) < sizeof line ? size_t(n) : 0) < 0)
            _exit(70);
    }
    sigaction(signal, &before[index_of(signal)], nullptr); /* and again on return */
}

__attribute__((constructor)) static void watch_faults()
{
    struct sigaction action = {};

    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
}
#endif

/* A fiber whose stack has overflowed needs another one for the handler. */
void fault_stack()
{
    static thread_local bool have;
    stack_t s = {};

    if (have)
        return;
    have = true;
    if (sigaltstack(nullptr, &s) == 0 && (s.ss_flags & SS_DISABLE) == 0)
        return; /* somebody's */
    s.ss_size = 64 * 1024;
    s.ss_sp = std::malloc(s.ss_size); /* as long as the thread, and a bit longer */
    s.ss_flags = 0;
    (void)sigaltstack(&s, nullptr);
}

} // namespace trm_emu
