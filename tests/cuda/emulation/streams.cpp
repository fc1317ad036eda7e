/* Streams and events. Work runs in the enqueuing thread, at once; with TRM_EMU_LATE=1 it waits in
 * its stream's queue until somebody waits for it, so that a missing wait shows as stale data. */
#include "tests/cuda/emulation/emu_state.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>

namespace trm_emu
{

std::mutex &lock = *new std::mutex;
std::condition_variable &changed = *new std::condition_variable;
std::set<CUstream_st *> &streams = *new std::set<CUstream_st *>;
std::set<CUevent_st *> &events = *new std::set<CUevent_st *>;
static CUstream_st &null_stream = *new CUstream_st;

bool late()
{
    static const bool is = option("TRM_EMU_LATE");

    return is;
}

/* A query says that an event has not passed so soon after it was recorded. */
static double slow_ms()
{
    static const char *const text = std::getenv("TRM_EMU_SLOW");
    static const double ms = text != nullptr ? std::atof(text) : 0;

    return ms;
}

CUstream_st *stream_of(cudaStream_t s)
{
    if (s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread)
        return &null_stream;
    return streams.count(s) != 0 ? s : nullptr;
}

/* The Nth kernel and all that follows fails: TRM_EMU_FAULT=N:code */
static bool faulty()
{
    static const char *const text = std::getenv("TRM_EMU_FAULT");
    static const long at = text != nullptr ? std::atol(text) : 0;
    static std::atomic<long> count{0};
    const char *colon;

    if (at <= 0 || ++count < at)
        return false;
    colon = std::strchr(text, ':');
    sticky = colon != nullptr ? std::atoi(colon + 1) : int(cudaErrorIllegalAddress);
    return true;
}

void run_item(const Item &item)
{
    if (sticky != 0 || (item.kernel && faulty()))
        return;
    guard_open();
    item.work();
    guard_close();
}

/* Items are taken one at a time and run without the lock, so that two threads can drive two
 * streams that wait for each other's events, or whose kernels do. */
void run_until(const std::shared_ptr<Queue> &q, uint64_t seq, Hold &hold)
{
    while (q->done < seq) {
        if (q->running) {
            changed.wait(hold);
            continue;
        }
        Item item = std::move(q->items.front());

        q->items.pop_front();
        q->running = true;
        if (item.queue != nullptr) {
            run_until(item.queue, item.seq, hold);
        } else {
            hold.unlock();
            run_item(item);
            item.work = nullptr;
            hold.lock();
        }
        q->running = false;
        q->done++;
        changed.notify_all();
    }
}

void run_all(Hold &hold)
{
    std::vector<std::shared_ptr<Queue>> all{null_stream.queue};

    for (CUstream_st *s : streams)
        all.push_back(s->queue);
    for (const std::shared_ptr<Queue> &q : all)
        run_until(q, q->enqueued, hold);
}

static void push_wait(CUstream_st *s, const std::shared_ptr<Queue> &q, uint64_t seq)
{
    if (q->done >= seq || q == s->queue)
        return;
    s->queue->items.push_back(Item{nullptr, "wait", false, q, seq});
    s->queue->enqueued++;
}

uint64_t push(CUstream_st *s, Item item, Hold &hold)
{
    uint64_t seq;

    /* the legacy stream runs in order with all blocking ones */
    if (s == &null_stream) {
        for (CUstream_st *o : streams)
            if (o->blocking)
                push_wait(s, o->queue, o->queue->enqueued);
    } else if (s->blocking) {
        push_wait(s, null_stream.queue, null_stream.queue->enqueued);
    }
    s->queue->items.push_back(std::move(item));
    seq = ++s->queue->enqueued;
    if (!late())
        run_until(s->queue, seq, hold);
    return seq;
}

cudaError_t enqueue_item(cudaStream_t stream, Item item)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr)
        return refuse(cudaErrorInvalidResourceHandle, "%s: no such stream", item.name);
    if (s->capture != nullptr) {
        if (s->capture->invalid)
            return done(cudaErrorStreamCaptureInvalidated);
        s->capture->nodes.push_back(std::move(item));
        s->known[s] = s->capture->nodes.size();
        return cudaSuccess;
    }
    push(s, std::move(item), hold);
    return enter();
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work, const char *name)
{
    return enqueue_item(stream, Item{std::move(work), name, false, nullptr, 0});
}

static double now_ms()
{
    using namespace std::chrono;

    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

} // namespace trm_emu

using namespace trm_emu;

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s;

    if (out == nullptr || flags > cudaStreamNonBlocking)
        return done(cudaErrorInvalidValue);
    s = new CUstream_st;
    s->flags = flags;
    s->blocking = flags == cudaStreamDefault;
    s->priority = priority < -5 ? -5 : priority > 0 ? 0 : priority;
    streams.insert(s);
    *out = s;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    return cudaStreamCreateWithPriority(out, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    return cudaStreamCreateWithPriority(out, cudaStreamDefault, 0);
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr)
        return done(cudaErrorInvalidResourceHandle);
    *priority = s->priority;
    return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr)
        return done(cudaErrorInvalidResourceHandle);
    *flags = s->flags;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    TRM_EMU_ENTER();
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr || stream == nullptr)
        return refuse(cudaErrorInvalidResourceHandle, "cudaStreamDestroy: no such stream");
    if (s->capture != nullptr)
        (void)unsafe_on(s, "cudaStreamDestroy");
    run_until(s->queue, s->queue->enqueued, hold);
    streams.erase(s);
    delete s;
    return enter();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr)
        return refuse(cudaErrorInvalidResourceHandle, "cudaStreamSynchronize: no such stream");
    if (s->capture != nullptr)
        return unsafe_on(s, "cudaStreamSynchronize");
    if (cudaError_t e = unsafe_call("cudaStreamSynchronize"))
        return e;
    if (s == &null_stream)
        for (CUstream_st *o : std::set<CUstream_st *>(streams))
            if (o->blocking)
                run_until(o->queue, o->queue->enqueued, hold);
    run_until(s->queue, s->queue->enqueued, hold);
    return enter();
}
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);
    bool ready;

    if (s == nullptr)
        return refuse(cudaErrorInvalidResourceHandle, "cudaStreamQuery: no such stream");
    if (s->capture != nullptr)
        return unsafe_on(s, "cudaStreamQuery");
    if (cudaError_t e = unsafe_call("cudaStreamQuery"))
        return e;
    ready = s->queue->done == s->queue->enqueued;
    run_until(s->queue, s->queue->enqueued, hold);
    return ready ? enter() : done(cudaErrorNotReady);
}
cudaError_t cudaDeviceSynchronize(void)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (cudaError_t e = unsafe_call("cudaDeviceSynchronize"))
        return e;
    run_all(hold);
    return enter();
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *data)
{
    return enqueue(
        stream, [=] { fn(data); }, "host function");
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (out == nullptr)
        return done(cudaErrorInvalidValue);
    *out = new CUevent_st;
    (*out)->flags = flags;
    events.insert(*out);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    Hold hold(lock);

    if (events.erase(e) == 0)
        return refuse(cudaErrorInvalidResourceHandle, "cudaEventDestroy: no such event");
    delete e;
    return enter();
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr || events.count(e) == 0)
        return refuse(cudaErrorInvalidResourceHandle, "cudaEventRecord: no such stream or event");
    if (s->capture != nullptr) {
        if (s->capture->invalid)
            return done(cudaErrorStreamCaptureInvalidated);
        e->capture = s->capture->id;
        e->known = s->known;
        e->queue = nullptr;
        return cudaSuccess;
    }
    e->capture = 0;
    e->at = std::make_shared<double>(0.0);
    e->recorded = now_ms();
    {
        std::shared_ptr<double> at = e->at;

        e->queue = s->queue;
        e->seq = s->queue->enqueued + 1; /* at least; push may put waits before it */
        e->seq = push(s, Item{[at] { *at = now_ms(); }, "event", false, nullptr, 0}, hold);
    }
    return enter();
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t stream, unsigned)
{
    return cudaEventRecord(e, stream);
}
static cudaError_t check_event(cudaEvent_t e, const char *what)
{
    if (events.count(e) == 0)
        return refuse(cudaErrorInvalidResourceHandle, "%s: no such event", what);
    if (e->capture != 0) {
        if (Capture *c = capture_by_id(e->capture))
            c->invalid = true;
        return refuse(cudaErrorCapturedEvent, "%s: the event was recorded in a capture", what);
    }
    return unsafe_call(what);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (cudaError_t bad = check_event(e, "cudaEventSynchronize"))
        return bad;
    if (e->queue != nullptr)
        run_until(std::shared_ptr<Queue>(e->queue), e->seq, hold);
    return enter();
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    bool ready;

    if (cudaError_t bad = check_event(e, "cudaEventQuery"))
        return bad;
    ready = e->queue == nullptr || e->queue->done >= e->seq;
    if (!ready)
        run_until(std::shared_ptr<Queue>(e->queue), e->seq, hold);
    if (e->queue != nullptr && now_ms() - e->recorded < slow_ms())
        return done(cudaErrorNotReady);
    return ready ? enter() : done(cudaErrorNotReady);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (events.count(from) == 0 || events.count(to) == 0 || from->queue == nullptr ||
        to->queue == nullptr || ((from->flags | to->flags) & cudaEventDisableTiming) != 0)
        return refuse(cudaErrorInvalidResourceHandle,
                      "cudaEventElapsedTime: not recorded, or made without timing");
    if (from->queue->done < from->seq || to->queue->done < to->seq)
        return done(cudaErrorNotReady);
    *ms = float(*to->at - *from->at);
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);
    Capture *c;

    if (s == nullptr || events.count(e) == 0)
        return refuse(cudaErrorInvalidResourceHandle,
                      "cudaStreamWaitEvent: no such stream or event");
    if (e->capture != 0) {
        c = capture_by_id(e->capture);
        if (c == nullptr)
            return refuse(cudaErrorCapturedEvent,
                          "cudaStreamWaitEvent: the event belongs to a capture that has ended");
        if (s->capture != nullptr && s->capture != c) {
            c->invalid = s->capture->invalid = true;
            return refuse(cudaErrorStreamCaptureMerge, "cudaStreamWaitEvent: two captures meet");
        }
        if (c->invalid)
            return done(cudaErrorStreamCaptureInvalidated);
        if (s == &null_stream)
            return unsafe_call("cudaStreamWaitEvent");
        if (s->capture == nullptr) {
            s->capture = c;
            s->known.clear();
            c->streams.insert(s);
        }
        for (const auto &k : e->known)
            if (s->known[k.first] < k.second)
                s->known[k.first] = k.second;
        return cudaSuccess;
    }
    if (s->capture != nullptr) {
        if (s->capture->invalid)
            return done(cudaErrorStreamCaptureInvalidated);
        if (e->queue == nullptr)
            return cudaSuccess;
        s->capture->invalid = true;
        return refuse(cudaErrorStreamCaptureIsolation,
                      "cudaStreamWaitEvent: the event was recorded outside of the capture");
    }
    if (e->queue != nullptr)
        push_wait(s, e->queue, e->seq);
    return cudaSuccess;
}
