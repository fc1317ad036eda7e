/* Inside the emulated CUDA runtime (memory.cpp, streams.cpp, capture.cpp, runtime.cpp). */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_STATE_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_STATE_HPP

#include "tests/cuda/emulation/emu_runtime.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace trm_emu {

struct Queue;
struct Item {
    std::function<void()> work; /* empty: wait until `queue` has done `seq` items */
    const char *name;
    bool kernel;
    std::shared_ptr<Queue> queue;
    uint64_t seq;
};
struct Queue { /* of one stream; items are numbered from 1 */
    std::deque<Item> items;
    uint64_t enqueued = 0, done = 0;
    bool running = false;
};
/* How far a stream has gone in each stream of its capture. */
using Known = std::map<CUstream_st *, size_t>;
struct Capture {
    CUstream_st *origin;
    std::thread::id owner;
    cudaStreamCaptureMode mode;
    bool invalid = false;
    unsigned long long id;
    std::vector<Item> nodes;
    std::set<CUstream_st *> streams;
};
using Nodes = std::shared_ptr<const std::vector<Item>>;

} // namespace trm_emu

struct CUstream_st {
    std::shared_ptr<trm_emu::Queue> queue = std::make_shared<trm_emu::Queue>();
    bool blocking = true;
    unsigned flags = 0;
    int priority = 0;
    trm_emu::Capture *capture = nullptr;
    trm_emu::Known known;
};
struct CUevent_st {
    unsigned flags = 0;
    std::shared_ptr<trm_emu::Queue> queue; /* NULL: not recorded */
    uint64_t seq = 0;
    double recorded = 0; /* ms */
    std::shared_ptr<double> at = std::make_shared<double>(0.0); /* ms; when its item ran */
    unsigned long long capture = 0; /* id of the capture in which it was recorded last */
    trm_emu::Known known;
};
struct CUgraph_st {
    trm_emu::Nodes nodes;
};
struct CUgraphExec_st {
    trm_emu::Nodes nodes;
};

namespace trm_emu {

/* The tables are never destroyed: other destructors may still call the runtime at exit. One lock
 * for all of them; not held while work runs. */
extern std::mutex &lock;
extern std::condition_variable &changed;
using Hold = std::unique_lock<std::mutex>;

/* What is alive, for the report of leaks. */
extern std::set<CUstream_st *> &streams;
extern std::set<CUevent_st *> &events;
extern std::set<CUgraph_st *> &graphs;
extern std::set<CUgraphExec_st *> &execs;

/* ---- errors (runtime.cpp) ---- */

extern std::atomic<int> sticky;
cudaError_t done(cudaError_t e);                 /* remembers e for cudaGetLastError, gives it */
cudaError_t enter();                             /* the sticky error, or success */
__attribute__((format(printf, 2, 3))) cudaError_t
refuse(cudaError_t e, const char *format, ...);  /* one line to stderr; done(e) */
#define TRM_EMU_ENTER()                                                                            \
    if (cudaError_t entered_ = ::trm_emu::enter())                                                 \
    return entered_
bool option(const char *name); /* the environment variable is set and not "0" */
int device_count();
int current_device();

/* ---- streams (streams.cpp) ---- */

bool late(); /* TRM_EMU_LATE=1 */
CUstream_st *stream_of(cudaStream_t s);              /* NULL: no such stream; lock held */
uint64_t push(CUstream_st *s, Item item, Hold &hold); /* runs it unless late */
void run_until(const std::shared_ptr<Queue> &q, uint64_t seq, Hold &hold);
void run_all(Hold &hold);
cudaError_t enqueue_item(cudaStream_t s, Item item);
void run_item(const Item &item); /* lock not held */

/* ---- capture (capture.cpp); lock held ---- */

/* A call that is not allowed while this thread captures: invalidates, and gives the error. */
cudaError_t unsafe_call(const char *what);
cudaError_t unsafe_on(CUstream_st *s, const char *what); /* s is being captured */
Capture *capture_by_id(unsigned long long id);

/* ---- memory (memory.cpp) ---- */

enum Kind { kPageable, kDevice, kPinned, kBad }; /* kBad: over the end of an allocation */
Kind kind_of(const void *p, size_t bytes);       /* takes the lock */
struct Alloc {
    size_t bytes;
    Kind kind;
    int device;
    bool registered; /* pinned by cudaHostRegister */
    bool imported;   /* another process's (ipc.cpp) */
    char *map;       /* with a page at either end that faults; NULL: not mapped by us */
    size_t map_bytes;
    int64_t shared_at; /* place in the file that other processes can map; < 0: private */
};
constexpr size_t kPage = 4096;
extern std::map<uintptr_t, Alloc> &allocs; /* by address; lock held */
std::map<uintptr_t, Alloc>::iterator find(const void *p); /* the one around p */
void unmap_memory(const Alloc &a);
bool guarded(); /* TRM_EMU_GUARD=1 */
void guard_open(); /* TRM_EMU_GUARD=1: device memory can be touched in between */
void guard_close();
int report_memory_leaks();
/* "" where p has nothing to do with memory of the runtime */
void describe_address(const void *p, char *text, size_t bytes);

/* ---- memory of several processes (ipc.cpp); lock held ---- */

bool shares_memory();
/* Puts fresh shared memory of `bytes` at p; *at_out: its place in the file. */
bool share(char *p, size_t bytes, int64_t *at_out);
void unshare(int64_t at, size_t bytes);

/* ---- messages ---- */

/* Its name without template arguments; `text` is what the launch called it. */
std::string kernel_name(const void *kernel, const char *text);
/* The kernel's thread that runs in this OS thread, and what memory of its block p belongs to (else
 * `what` is left alone). False: none runs. */
bool describe_thread(char *where, size_t where_bytes, const void *p, char *what, size_t what_bytes);
void fault_stack();

} // namespace trm_emu
#endif
