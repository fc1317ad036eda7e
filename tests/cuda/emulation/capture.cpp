/* Captures of streams and their replay. A capture is the list of what was enqueued, in the order of
 * the calls, which is one of the orders that the recorded dependencies allow. */
#include "tests/cuda/emulation/emu_state.hpp"

namespace trm_emu
{

std::set<CUgraph_st *> &graphs = *new std::set<CUgraph_st *>;
std::set<CUgraphExec_st *> &execs = *new std::set<CUgraphExec_st *>;
static std::vector<Capture *> &captures = *new std::vector<Capture *>;
static unsigned long long captures_made;

Capture *capture_by_id(unsigned long long id)
{
    for (Capture *c : captures)
        if (c->id == id)
            return c;
    return nullptr;
}

cudaError_t unsafe_call(const char *what)
{
    for (Capture *c : captures) {
        if (c->mode == cudaStreamCaptureModeRelaxed ||
            (c->mode == cudaStreamCaptureModeThreadLocal && c->owner != std::this_thread::get_id()))
            continue;
        c->invalid = true;
        return refuse(cudaErrorStreamCaptureUnsupported, "%s while a stream is being captured",
                      what);
    }
    return cudaSuccess;
}

cudaError_t unsafe_on(CUstream_st *s, const char *what)
{
    s->capture->invalid = true;
    return refuse(cudaErrorStreamCaptureUnsupported, "%s on a stream that is being captured", what);
}

static void run_nodes(const std::vector<Item> &nodes)
{
    for (const Item &node : nodes)
        run_item(node);
}

} // namespace trm_emu

using namespace trm_emu;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);
    Capture *c;

    if (s == nullptr)
        return refuse(cudaErrorInvalidResourceHandle, "cudaStreamBeginCapture: no such stream");
    if (streams.count(s) == 0)
        return refuse(cudaErrorStreamCaptureUnsupported,
                      "cudaStreamBeginCapture: the legacy stream cannot be captured");
    if (s->capture != nullptr)
        return refuse(cudaErrorIllegalState, "cudaStreamBeginCapture: it is being captured");
    c = new Capture;
    c->origin = s;
    c->owner = std::this_thread::get_id();
    c->mode = mode;
    c->id = ++captures_made;
    c->streams.insert(s);
    s->capture = c;
    s->known.clear();
    captures.push_back(c);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph_out)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);
    Capture *c;
    cudaError_t e = cudaSuccess;

    *graph_out = nullptr;
    if (s == nullptr || s->capture == nullptr)
        return refuse(cudaErrorIllegalState, "cudaStreamEndCapture: it is not being captured");
    c = s->capture;
    if (c->origin != s) {
        c->invalid = true;
        return refuse(cudaErrorStreamCaptureUnmatched,
                      "cudaStreamEndCapture: not the stream in which the capture began");
    }
    if (c->mode != cudaStreamCaptureModeRelaxed && c->owner != std::this_thread::get_id())
        return refuse(cudaErrorStreamCaptureWrongThread,
                      "cudaStreamEndCapture: another thread began the capture");
    if (c->invalid) {
        e = done(cudaErrorStreamCaptureInvalidated);
    } else {
        for (CUstream_st *o : c->streams)
            if (o->known[o] > s->known[o])
                e = refuse(cudaErrorStreamCaptureUnjoined,
                           "cudaStreamEndCapture: a forked stream was not joined");
    }
    for (CUstream_st *o : c->streams) {
        o->capture = nullptr;
        o->known.clear();
    }
    for (size_t i = 0; i < captures.size(); i++)
        if (captures[i] == c)
            captures.erase(captures.begin() + long(i--));
    if (e == cudaSuccess) {
        *graph_out = new CUgraph_st{std::make_shared<const std::vector<Item>>(std::move(c->nodes))};
        graphs.insert(*graph_out);
    }
    delete c;
    return e;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    TRM_EMU_ENTER();
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (s == nullptr)
        return done(cudaErrorInvalidResourceHandle);
    *status = s->capture == nullptr ? cudaStreamCaptureStatusNone
              : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **dependencies,
                                     const cudaGraphEdgeData **edges, size_t *count)
{
    cudaError_t e = cudaStreamIsCapturing(stream, status);

    if (e != cudaSuccess)
        return e;
    Hold hold(lock);
    CUstream_st *s = stream_of(stream);

    if (id != nullptr)
        *id = s->capture != nullptr ? s->capture->id : 0;
    if (graph != nullptr)
        *graph = nullptr;
    if (dependencies != nullptr)
        *dependencies = nullptr;
    if (edges != nullptr)
        *edges = nullptr;
    if (count != nullptr)
        *count = 0;
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    static thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;

    std::swap(*mode, current);
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (graphs.count(graph) == 0)
        return refuse(cudaErrorInvalidValue, "cudaGraphInstantiate: no such graph");
    *out = new CUgraphExec_st{graph->nodes};
    execs.insert(*out);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    Hold hold(lock);

    if (graphs.erase(graph) == 0)
        return refuse(cudaErrorInvalidValue, "cudaGraphDestroy: no such graph");
    delete graph;
    return enter();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    Hold hold(lock);

    if (execs.erase(exec) == 0)
        return refuse(cudaErrorInvalidValue, "cudaGraphExecDestroy: no such graph");
    delete exec;
    return enter();
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    return execs.count(exec) != 0 ? cudaSuccess : done(cudaErrorInvalidValue);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    TRM_EMU_ENTER();
    Nodes nodes;

    {
        Hold hold(lock);

        if (execs.count(exec) == 0)
            return refuse(cudaErrorInvalidValue, "cudaGraphLaunch: no such graph");
        nodes = exec->nodes;
    }
    return enqueue(
        stream, [nodes] { run_nodes(*nodes); }, "graph");
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    TRM_EMU_ENTER();
    Hold hold(lock);

    if (graphs.count(graph) == 0 || nodes != nullptr)
        return done(cudaErrorInvalidValue);
    *count = graph->nodes->size();
    return cudaSuccess;
}
