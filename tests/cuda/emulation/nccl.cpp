/* The emulated NCCL, for ranks that are processes of this machine: the C ABI of the calls that
 * kernels/cuda/group_*.c makes. An id names a file without a name in the process that made it;
 * ranks meet and exchange data in it. As the real one, communicators do not block: every other call
 * says ncclInProgress, and until it has been polled for, the next one is refused.
 *
 * A rank that does not come to a collective, or not to the other end of a send or receive, is
 * reported as ncclRemoteError after TRM_EMU_NCCL_DEADLINE_MS (30000), or as soon as it is gone.
 * Sums: float, double and integers of 32 and 64 bits. A group is of collectives, or of at most one
 * send and one receive for each peer.
 *
 * TRM_EMU_NCCL_FAULT=init:RANK  that rank never arrives
 * TRM_EMU_NCCL_FAULT=N[:RANK]   the Nth collective (of that rank) fails with ncclRemoteError
 * TRM_EMU_NCCL_LOG=1            to stderr, each communicator: how many collectives it has run */
#include "tests/cuda/emulation/emu_state.hpp"

#if __has_include(<nccl.h>)

#pragma GCC visibility push(default)
#include <nccl.h>
#pragma GCC visibility pop

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace trm_emu {

constexpr int kRanks = 64, kOps = 256;
constexpr uint64_t kSends = 32; /* to one peer in a group */
constexpr size_t kArea = size_t(64) << 20; /* of a rank: what it gives in one go */

enum OpKind { kAllReduce, kAllGather, kReduceScatter, kReduce, kSend, kRecv };
static const char *const op_names[] = {"AllReduce", "AllGather", "ReduceScatter",
                                       "Reduce",    "Send",      "Recv"};

struct Given { /* what other ranks see of an operation */
    int kind, peer, dtype;
    size_t count, at; /* in the rank's area */
};
struct Place { /* of a rank */
    std::atomic<int> pid;
    std::atomic<int> state; /* 0, here 1, gone 2 */
    std::atomic<uint64_t> passed;
    int count;
    Given given[kOps];
    std::atomic<uint64_t> posted[kRanks], taken[kRanks]; /* what it has sent to each */
    size_t sent_at[kRanks][kSends], sent_bytes[kRanks][kSends]; /* posted or taken % kSends */
};
struct Meeting {
    Place ranks[kRanks];
};
constexpr size_t kHeader = (sizeof(Meeting) + 4095) / 4096 * 4096;

struct Op {
    Given given;
    const void *from;
    void *to;
};

struct Comm { /* work in streams may outlive the handle */
    Meeting *meeting = nullptr;
    size_t map_bytes = 0;
    int rank = 0, size = 0, busy = 0;
    uint64_t calls = 0, items = 0, barriers = 0;
    bool started = false, finalized = false;
    std::atomic<bool> aborted{false};
    std::atomic<int> error{ncclSuccess};
    std::string last;

    ~Comm()
    {
        if (meeting != nullptr)
            munmap(meeting, map_bytes);
    }
    char *area(int r) const
    {
        return reinterpret_cast<char *>(meeting) + kHeader + size_t(r) * kArea;
    }
    Place &place(int r) const
    {
        return meeting->ranks[r];
    }
};

static ncclResult_t fail(Comm *c, ncclResult_t r, const std::string &text)
{
    if (c->error == ncclSuccess) {
        c->last = text;
        c->error = r;
    }
    return r;
}

static int64_t now_ms()
{
    using namespace std::chrono;

    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

/* "init:2": what "init", rank 2; "5": what "5", rank -1 */
static bool fault_is(const std::string &what, int rank)
{
    const char *text = std::getenv("TRM_EMU_NCCL_FAULT");
    const std::string all = text != nullptr ? text : "", of = what + ":" + std::to_string(rank);

    return all == what || all == of;
}

static bool gone(const Place &p)
{
    return p.state == 2 || (kill(p.pid, 0) != 0 && errno == ESRCH);
}

/* Waits until `here` holds of rank r; says who has not come to what. */
template <class F> static bool await(Comm *c, int r, const char *what, F here)
{
    const char *text = std::getenv("TRM_EMU_NCCL_DEADLINE_MS");
    const int64_t deadline = now_ms() + (text != nullptr ? std::atoll(text) : 30000);
    const std::string who = "rank " + std::to_string(r);

    for (unsigned turn = 0; !here(); turn++) {
        const bool look = turn % 64 == 63;

        if (c->aborted)
            return false;
        if (look && gone(c->place(r)) && !here())
            return fail(c, ncclRemoteError, who + " is gone, seen in " + what), false;
        if (look && now_ms() > deadline)
            return fail(c, ncclRemoteError, who + " has not come to " + what), false;
        if (turn < 64)
            std::this_thread::yield();
        else
            usleep(100);
    }
    return true;
}

/* All ranks have come this far. */
static bool barrier(Comm *c, const char *what)
{
    const uint64_t n = ++c->barriers;

    c->place(c->rank).passed = n;
    for (int r = 0; r < c->size; r++)
        if (!await(c, r, what, [=] { return c->place(r).passed >= n; }))
            return false;
    return true;
}

static size_t width(int dtype)
{
    switch (dtype) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat32:
    case ncclInt32:
    case ncclUint32:
        return 4;
    case ncclFloat64:
    case ncclInt64:
    case ncclUint64:
        return 8;
    default:
        return 0;
    }
}

/* Elements that a rank gives. */
static size_t gives(const Comm *c, const Given &g)
{
    switch (g.kind) {
    case kReduceScatter:
        return g.count * size_t(c->size);
    case kRecv:
        return 0;
    default:
        return g.count;
    }
}
static size_t gets(const Comm *c, const Given &g)
{
    switch (g.kind) {
    case kAllGather:
        return g.count * size_t(c->size);
    case kReduce:
        return g.peer == c->rank ? g.count : 0;
    case kSend:
        return 0;
    default:
        return g.count;
    }
}

static bool give(Comm *c, const std::vector<Op> &ops)
{
    Place &mine = c->place(c->rank);
    size_t at = 0;

    for (size_t i = 0; i < ops.size(); i++) {
        const size_t bytes = gives(c, ops[i].given) * width(ops[i].given.dtype);

        if (at + bytes > kArea)
            return fail(c, ncclInternalError, "more data than the emulation has room for"), false;
        mine.given[i] = ops[i].given;
        mine.given[i].at = at;
        if (bytes > 0)
            std::memcpy(c->area(c->rank) + at, ops[i].from, bytes);
        at += (bytes + 15) / 16 * 16;
    }
    mine.count = int(ops.size());
    return true;
}

template <class T> static void add(void *to, const char *from, size_t count, bool first)
{
    T *t = static_cast<T *>(to);

    for (size_t i = 0; i < count; i++) {
        T x;

        std::memcpy(&x, from + i * sizeof(T), sizeof x);
        t[i] = first ? x : T(t[i] + x);
    }
}

static void add_any(int dtype, void *to, const char *from, size_t count, bool first)
{
    if (dtype == ncclFloat32)
        add<float>(to, from, count, first);
    else if (dtype == ncclFloat64)
        add<double>(to, from, count, first);
    else if (width(dtype) == 4)
        add<uint32_t>(to, from, count, first);
    else
        add<uint64_t>(to, from, count, first);
}

/* Sends are there for their receivers, who take those of a peer in order, and then all that was sent
 * is gone. */
static bool pass(Comm *c, const std::vector<Op> &ops, const char *what)
{
    Place &mine = c->place(c->rank);

    for (size_t i = 0; i < ops.size(); i++) {
        const Given &g = mine.given[i];

        if (g.kind != kSend)
            continue;
        const uint64_t n = mine.posted[g.peer];

        if (n - mine.taken[g.peer] >= kSends)
            return fail(c, ncclInvalidUsage, "more sends to one peer than the emulation takes"),
                   false;
        mine.sent_at[g.peer][n % kSends] = g.at;
        mine.sent_bytes[g.peer][n % kSends] = g.count * width(g.dtype);
        mine.posted[g.peer]++;
    }
    for (const Op &op : ops) {
        Place &p = c->place(op.given.peer);
        const size_t bytes = op.given.count * width(op.given.dtype);
        const int me = c->rank;

        if (op.given.kind != kRecv)
            continue;
        if (!await(c, op.given.peer, what, [&] { return p.posted[me] > p.taken[me]; }))
            return false;
        const uint64_t n = p.taken[me] % kSends;

        if (p.sent_bytes[me][n] != bytes)
            return fail(c, ncclInvalidUsage, "a receive and its send differ"), false;
        std::memcpy(op.to, c->area(op.given.peer) + p.sent_at[me][n], bytes);
        p.taken[me]++;
    }
    for (const Op &op : ops)
        if (op.given.kind == kSend && !await(c, op.given.peer, what, [&] {
                return mine.taken[op.given.peer] == mine.posted[op.given.peer];
            }))
            return false;
    return true;
}

/* The nth collective. */
static bool take(Comm *c, const Op &op, int nth)
{
    const Given &mine = op.given;
    const size_t bytes = mine.count * width(mine.dtype);

    for (int r = 0; r < c->size; r++) {
        const Given *g = &c->place(r).given[nth];
        const char *from;

        if (nth >= c->place(r).count || g->kind != mine.kind || g->count != mine.count ||
            g->dtype != mine.dtype || g->peer != mine.peer)
            return fail(c, ncclInvalidUsage,
                        std::string("ranks disagree on ") + op_names[mine.kind]),
                   false;
        from = c->area(r) + g->at;
        if (mine.kind == kAllGather)
            std::memcpy(static_cast<char *>(op.to) + size_t(r) * bytes, from, bytes);
        else if (mine.kind != kReduce || mine.peer == c->rank)
            add_any(mine.dtype, op.to,
                    from + (mine.kind == kReduceScatter ? size_t(c->rank) * bytes : 0), mine.count,
                    r == 0);
    }
    return true;
}

static void run(Comm *c, const std::vector<Op> &ops)
{
    const std::string item = std::to_string(++c->items);
    const std::string what = "collective " + item + " (" + op_names[ops[0].given.kind] + ")";
    const size_t sends = size_t(std::count_if(
        ops.begin(), ops.end(), [](const Op &o) { return o.given.kind >= kSend; }));

    if (c->aborted || c->error != ncclSuccess)
        return;
    if (fault_is(item, c->rank)) {
        fail(c, ncclRemoteError, what + " was made to fail");
        return;
    }
    if (sends > 0 && sends < ops.size()) {
        fail(c, ncclInvalidUsage, "collectives and sends in one group");
        return;
    }
    if (!give(c, ops))
        return;
    if (sends > 0) {
        (void)pass(c, ops, what.c_str());
        return;
    }
    if (!barrier(c, what.c_str()))
        return;
    for (size_t i = 0; i < ops.size(); i++)
        if (!take(c, ops[i], int(i)))
            return;
    (void)barrier(c, what.c_str());
}

/* ---- groups ---- */

struct Launch1 {
    std::shared_ptr<Comm> comm;
    cudaStream_t stream;
    std::vector<Op> ops;
};
static thread_local int depth;
static thread_local std::vector<Launch1> open_group;
static thread_local ncclResult_t group_error;

static ncclResult_t start(const Launch1 &l)
{
    Comm *c = l.comm.get();
    std::shared_ptr<Comm> keep = l.comm;
    std::vector<Op> ops = l.ops;

    if (c->error != ncclSuccess)
        return ncclResult_t(c->error.load());
    if (enqueue(l.stream, [keep, ops] { run(keep.get(), ops); }, "NCCL") != cudaSuccess)
        return fail(c, ncclUnhandledCudaError, "the stream refused it");
    if (++c->calls % 2 != 0)
        return ncclSuccess;
    c->busy = 2;
    return ncclInProgress;
}

static ncclResult_t add_op(std::shared_ptr<Comm> c, cudaStream_t stream, const Op &op)
{
    const size_t each = width(op.given.dtype);
    const bool sums = op.given.kind == kAllReduce || op.given.kind == kReduceScatter ||
                      op.given.kind == kReduce;
    ncclResult_t r = ncclSuccess;

    if (!c->started || c->finalized || c->busy > 0)
        r = fail(c.get(), ncclInvalidUsage,
                 std::string(op_names[op.given.kind]) + ": the communicator is not ready");
    else if (each == 0 || (sums && each == 1) || op.given.peer >= c->size || op.given.count == 0)
        r = fail(c.get(), ncclInvalidArgument,
                 std::string(op_names[op.given.kind]) + ": type, peer or count");
    else if ((gives(c.get(), op.given) > 0 &&
              !is_device(op.from, gives(c.get(), op.given) * each)) ||
             (gets(c.get(), op.given) > 0 && !is_device(op.to, gets(c.get(), op.given) * each)))
        r = fail(c.get(), ncclInvalidArgument,
                 std::string(op_names[op.given.kind]) + ": not device memory");
    if (depth == 0)
        return r != ncclSuccess ? r : start(Launch1{c, stream, {op}});
    if (r != ncclSuccess)
        return group_error = r;
    for (Launch1 &l : open_group)
        if (l.comm == c && l.stream == stream && l.ops.size() < size_t(kOps))
            return l.ops.push_back(op), ncclSuccess;
    open_group.push_back(Launch1{c, stream, {op}});
    return ncclSuccess;
}

} // namespace trm_emu

using namespace trm_emu;

struct ncclComm {
    std::shared_ptr<Comm> state;
};

struct Id { /* what is in a ncclUniqueId */
    char magic[8];
    int64_t pid, fd;
};
static const char id_magic[8] = "emunccl";

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out)
{
    const int fd = memfd_create("trm_emu_nccl", MFD_CLOEXEC); /* as long as the process */
    Id id = {};

    if (fd < 0 || ftruncate(fd, off_t(kHeader + kRanks * kArea)) != 0)
        return ncclSystemError;
    std::memcpy(id.magic, id_magic, sizeof id_magic);
    id.pid = getpid();
    id.fd = fd;
    std::memset(out, 0, sizeof *out);
    std::memcpy(out, &id, sizeof id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId name, int rank,
                                    ncclConfig_t *config)
{
    auto c = std::make_shared<Comm>();
    char path[64];
    Id id;
    int fd;
    void *map;

    std::memcpy(&id, &name, sizeof id);
    if (std::memcmp(id.magic, id_magic, sizeof id_magic) != 0 || rank < 0 || rank >= size ||
        size > kRanks || config == nullptr || config->blocking != 0)
        return ncclInvalidArgument;
    std::snprintf(path, sizeof path, "/proc/%lld/fd/%lld", static_cast<long long>(id.pid),
                  static_cast<long long>(id.fd));
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return ncclSystemError;
    c->map_bytes = kHeader + size_t(size) * kArea;
    map = mmap(nullptr, c->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return ncclSystemError;
    c->meeting = static_cast<Meeting *>(map);
    c->rank = rank;
    c->size = size;
    c->place(rank).pid = getpid();
    if (!fault_is("init", rank))
        c->place(rank).state = 1;
    *out = new ncclComm{c};
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out)
{
    Comm *c = comm->state.get();
    bool all = true;

    for (int r = 0; r < c->size && !c->started; r++)
        all = all && c->place(r).state != 0;
    if (all && !c->started && !fault_is("init", c->rank))
        c->started = true;
    if (c->busy > 0)
        c->busy--;
    *out = c->error != ncclSuccess         ? ncclResult_t(c->error.load())
           : !c->started || c->busy > 0 ? ncclInProgress
                                        : ncclSuccess;
    return ncclSuccess;
}

static ncclResult_t end(ncclComm_t comm)
{
    Comm *c = comm->state.get();

    c->aborted = true;
    if (c->place(c->rank).state == 1)
        c->place(c->rank).state = 2;
    if (option("TRM_EMU_NCCL_LOG"))
        std::fprintf(stderr, "trm_emu: NCCL rank %d of %d: %llu collectives\n", c->rank, c->size,
                     static_cast<unsigned long long>(c->items));
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (comm->state->busy > 0 || !comm->state->started)
        return fail(comm->state.get(), ncclInvalidUsage, "Finalize: not ready");
    comm->state->finalized = true;
    comm->state->busy = 3;
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm->state->finalized || comm->state->busy > 0) {
        std::fprintf(stderr, "trm_emu: ncclCommDestroy: not finalized\n");
        std::_Exit(70);
    }
    return end(comm);
}
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    return end(comm);
}

const char *ncclGetErrorString(ncclResult_t r)
{
    static const char *const words[] = {
        "no error",         "unhandled cuda error", "unhandled system error",
        "internal error",   "invalid argument",     "invalid usage",
        "remote process exited or there was a network error", "operation in progress"};

    return unsigned(r) < sizeof words / sizeof words[0] ? words[r] : "unknown result code";
}
const char *ncclGetLastError(ncclComm_t comm)
{
    return comm != nullptr ? comm->state->last.c_str() : "";
}

ncclResult_t ncclGroupStart()
{
    depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd()
{
    ncclResult_t r = group_error;

    if (depth == 0)
        return ncclInvalidUsage;
    if (--depth > 0)
        return ncclSuccess;
    for (const Launch1 &l : open_group)
        if (r == ncclSuccess || r == ncclInProgress)
            r = start(l);
    open_group.clear();
    group_error = ncclSuccess;
    return r;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t dtype,
                           ncclRedOp_t, ncclComm_t comm, cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kAllReduce, 0, dtype, count, 0}, from, to});
}
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t dtype,
                           ncclComm_t comm, cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kAllGather, 0, dtype, count, 0}, from, to});
}
ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t dtype,
                               ncclRedOp_t, ncclComm_t comm, cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kReduceScatter, 0, dtype, count, 0}, from, to});
}
ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t dtype, ncclRedOp_t,
                        int root, ncclComm_t comm, cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kReduce, root, dtype, count, 0}, from, to});
}
ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t dtype, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kSend, peer, dtype, count, 0}, from, nullptr});
}
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add_op(comm->state, stream, Op{{kRecv, peer, dtype, count, 0}, nullptr, to});
}

#endif
