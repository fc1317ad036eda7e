/* Streams, events, captures and deferred work: tests of the emulated runtime, and the entry by
 * which tests/cuda/test_emulation.c runs all of them. */
#include "kernels/cuda/gpu.cuh"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/cuda/emulation/selftest.hpp"

namespace {

__global__ void emu_increase(int *x, int by)
{
    TRM_KERNEL_BEGIN();
    x[0] += by;
}
__global__ void emu_bench_plain(float *x, int n)
{
    TRM_KERNEL_BEGIN();
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n)
        x[i] += 1.0f;
}
__global__ void emu_bench_barrier(float *x, int n)
{
    TRM_KERNEL_BEGIN();
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);

    __syncthreads();
    if (i < n)
        x[i] += 1.0f;
}

#define WANT(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "selftest line %d: %s\n", __LINE__, #cond);                            \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)
#define OK(call) WANT((call) == cudaSuccess)

/* An int in device memory, a pinned one, two streams and an event. */
struct Kit {
    int *d = nullptr, *h = nullptr;
    cudaStream_t a = nullptr, b = nullptr;
    cudaEvent_t e = nullptr, f = nullptr;

    Kit()
    {
        (void)cudaMalloc(reinterpret_cast<void **>(&d), sizeof(int));
        (void)cudaMallocHost(reinterpret_cast<void **>(&h), sizeof(int));
        (void)cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
        (void)cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
        (void)cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
        (void)cudaEventCreateWithFlags(&f, cudaEventDisableTiming);
        (void)cudaMemset(d, 0, sizeof(int));
        (void)cudaDeviceSynchronize();
        *h = -1;
    }
    ~Kit()
    {
        (void)cudaEventDestroy(e);
        (void)cudaEventDestroy(f);
        (void)cudaStreamDestroy(a);
        (void)cudaStreamDestroy(b);
        (void)cudaFreeHost(h);
        (void)cudaFree(d);
    }
    cudaError_t add(int by, cudaStream_t s) { return TRM_LAUNCH(emu_increase, 1, 1, 0, s, d, by); }
    cudaError_t fetch(cudaStream_t s)
    {
        return cudaMemcpyAsync(h, d, sizeof(int), cudaMemcpyDeviceToHost, s);
    }
    int value()
    {
        int v = -1;

        (void)cudaDeviceSynchronize();
        (void)cudaMemcpy(&v, d, sizeof(int), cudaMemcpyDeviceToHost);
        return v;
    }
};
/* Ends the capture of s, which must give `want`. */
int end(cudaStream_t s, cudaError_t want)
{
    cudaGraph_t g = nullptr;
    cudaError_t e = cudaStreamEndCapture(s, &g);

    if (g != nullptr)
        (void)cudaGraphDestroy(g);
    return e == want && (g == nullptr) == (want != cudaSuccess) ? 0 : 1;
}
constexpr cudaStreamCaptureMode kLocal = cudaStreamCaptureModeThreadLocal;

int graphs()
{
    Kit k;
    cudaGraph_t g;
    cudaGraphExec_t x;
    cudaStreamCaptureStatus status;

    OK(cudaStreamBeginCapture(k.a, kLocal));
    OK(cudaStreamIsCapturing(k.a, &status));
    WANT(status == cudaStreamCaptureStatusActive);
    OK(k.add(1, k.a));
    OK(cudaEventRecord(k.e, k.a)); /* fork */
    OK(cudaStreamWaitEvent(k.b, k.e, 0));
    OK(cudaStreamIsCapturing(k.b, &status));
    WANT(status == cudaStreamCaptureStatusActive);
    OK(k.add(10, k.b));
    OK(cudaEventRecord(k.f, k.b)); /* join */
    OK(k.add(100, k.a));
    OK(cudaStreamWaitEvent(k.a, k.f, 0));
    OK(k.fetch(k.a));
    OK(cudaStreamEndCapture(k.a, &g));
    OK(cudaStreamIsCapturing(k.b, &status));
    WANT(status == cudaStreamCaptureStatusNone);
    WANT(k.value() == 0 && *k.h == -1); /* nothing has run */
    OK(cudaGraphInstantiate(&x, g, 0));
    OK(cudaGraphDestroy(g));
    OK(cudaGraphUpload(x, k.a));
    OK(cudaGraphLaunch(x, k.a));
    OK(cudaStreamSynchronize(k.a));
    WANT(*k.h == 111);
    OK(cudaGraphLaunch(x, k.a));
    OK(cudaGraphLaunch(x, k.a));
    OK(cudaGraphExecDestroy(x));
    OK(cudaStreamSynchronize(k.a));
    WANT(*k.h == 333);
    return 0;
}
int capture_rules()
{
    Kit k;
    void *p = nullptr;
    cudaStreamCaptureStatus status;
    cudaError_t elsewhere = cudaErrorUnknown;

    OK(cudaEventRecord(k.f, k.b));
    OK(cudaStreamBeginCapture(k.a, kLocal));
    WANT(cudaMalloc(&p, 16) == cudaErrorStreamCaptureUnsupported);
    OK(cudaStreamIsCapturing(k.a, &status));
    WANT(status == cudaStreamCaptureStatusInvalidated);
    WANT(k.add(1, k.a) == cudaErrorStreamCaptureInvalidated);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);
    OK(k.add(1, k.a)); /* the stream is usable again */

    OK(cudaStreamBeginCapture(k.a, kLocal));
    WANT(cudaStreamSynchronize(k.a) == cudaErrorStreamCaptureUnsupported);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal));
    WANT(cudaMemcpy(k.h, k.d, 4, cudaMemcpyDeviceToHost) == cudaErrorStreamCaptureUnsupported);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal));
    WANT(cudaFree(k.d) == cudaErrorStreamCaptureUnsupported);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal)); /* an event from outside */
    WANT(cudaStreamWaitEvent(k.a, k.f, 0) == cudaErrorStreamCaptureIsolation);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal)); /* waiting for what has not run */
    OK(cudaEventRecord(k.e, k.a));
    WANT(cudaEventSynchronize(k.e) == cudaErrorCapturedEvent);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal)); /* not joined */
    OK(cudaEventRecord(k.e, k.a));
    OK(cudaStreamWaitEvent(k.b, k.e, 0));
    OK(k.add(1, k.b));
    WANT(end(k.a, cudaErrorStreamCaptureUnjoined) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal)); /* ended in the wrong place */
    OK(cudaEventRecord(k.e, k.a));
    OK(cudaStreamWaitEvent(k.b, k.e, 0));
    WANT(end(k.b, cudaErrorStreamCaptureUnmatched) == 0);
    WANT(end(k.a, cudaErrorStreamCaptureInvalidated) == 0);

    OK(cudaStreamBeginCapture(k.a, kLocal)); /* other threads may do what this one may not */
    std::thread other([&] {
        void *q = nullptr;

        elsewhere = cudaMalloc(&q, 16);
        if (elsewhere == cudaSuccess)
            elsewhere = cudaFree(q);
    });
    other.join();
    OK(elsewhere);
    OK(k.add(1, k.b)); /* and other streams work */
    WANT(end(k.a, cudaSuccess) == 0);
    WANT(end(k.a, cudaErrorIllegalState) == 0);
    WANT(cudaStreamBeginCapture(nullptr, kLocal) == cudaErrorStreamCaptureUnsupported);
    return 0;
}
/* With TRM_EMU_LATE=1: nothing happens before somebody waits for it. */
int late()
{
    Kit k;
    int pageable = 5, v;

    OK(cudaMemcpyAsync(k.d, &pageable, 4, cudaMemcpyHostToDevice, k.a));
    pageable = 6; /* was read already */
    OK(k.add(1, k.a));
    OK(k.fetch(k.a));
    WANT(*k.h == -1);
    OK(cudaMemcpy(&v, k.d, 4, cudaMemcpyDeviceToHost)); /* waits for blocking streams only */
    WANT(v == 0);
    OK(cudaStreamSynchronize(k.b));
    WANT(*k.h == -1);
    OK(cudaStreamSynchronize(k.a));
    WANT(*k.h == 6);

    *k.h = 50; /* pinned memory is read when the copy runs */
    OK(cudaMemcpyAsync(k.d, k.h, 4, cudaMemcpyHostToDevice, k.a));
    *k.h = 60;
    OK(cudaEventRecord(k.e, k.a));
    OK(k.add(1000, k.a)); /* behind the event */
    OK(cudaStreamWaitEvent(k.b, k.e, 0));
    OK(k.add(1, k.b));
    OK(k.fetch(k.b));
    WANT(*k.h == 60);
    OK(cudaStreamSynchronize(k.b));
    WANT(*k.h == 61);
    WANT(cudaStreamQuery(k.a) == cudaErrorNotReady);
    (void)cudaGetLastError();
    OK(cudaStreamQuery(k.a));
    WANT(k.value() == 1061);

    OK(k.add(1, k.a));
    OK(cudaEventRecord(k.e, k.a));
    WANT(cudaEventQuery(k.e) == cudaErrorNotReady);
    (void)cudaGetLastError();
    OK(cudaEventQuery(k.e));
    OK(k.add(1, k.a));
    OK(k.fetch(k.a));
    OK(cudaDeviceSynchronize());
    WANT(*k.h == 1063);
    return 0;
}
/* Two threads, each with a stream, whose events wait for each other in turns. */
int ping_pong()
{
    constexpr int kRounds = 50;
    Kit k;
    std::vector<cudaEvent_t> there(kRounds), back(kRounds);
    bool good = true;

    for (int i = 0; i < kRounds; i++) {
        OK(cudaEventCreateWithFlags(&there[size_t(i)], cudaEventDisableTiming));
        OK(cudaEventCreateWithFlags(&back[size_t(i)], cudaEventDisableTiming));
    }
    for (int i = 0; i < kRounds; i++) {
        OK(k.add(1, k.a));
        OK(cudaEventRecord(there[size_t(i)], k.a));
        OK(cudaStreamWaitEvent(k.b, there[size_t(i)], 0));
        OK(k.add(1, k.b));
        OK(cudaEventRecord(back[size_t(i)], k.b));
        OK(cudaStreamWaitEvent(k.a, back[size_t(i)], 0));
    }
    std::thread other([&] { good = cudaStreamSynchronize(k.b) == cudaSuccess; });
    OK(cudaStreamSynchronize(k.a));
    other.join();
    WANT(good && k.value() == 2 * kRounds);
    for (int i = 0; i < kRounds; i++) {
        OK(cudaEventDestroy(there[size_t(i)]));
        OK(cudaEventDestroy(back[size_t(i)]));
    }
    return 0;
}
int times()
{
    cudaEvent_t e, f;
    float ms = -1;

    OK(cudaEventCreate(&e));
    OK(cudaEventCreate(&f));
    OK(cudaEventRecord(e, nullptr));
    OK(cudaEventRecord(f, nullptr));
    OK(cudaEventSynchronize(f));
    OK(cudaEventElapsedTime(&ms, e, f));
    WANT(ms >= 0);
    OK(cudaEventDestroy(e));
    OK(cudaEventDestroy(f));
    return 0;
}

/* With TRM_EMU_IPC=1: another process adds to memory of this one. */
int ipc()
{
    Kit k;
    cudaIpcMemHandle_t handle;
    int *big = nullptr, status = 0, v = 0;
    void *p = nullptr;
    pid_t pid;

    OK(cudaMalloc(reinterpret_cast<void **>(&big), 5000 * sizeof(int)));
    OK(cudaMemset(big, 0, 5000 * sizeof(int)));
    OK(cudaDeviceSynchronize());
    OK(cudaIpcGetMemHandle(&handle, big + 17)); /* of the allocation around it */
    pid = fork();
    if (pid == 0) {
        if (cudaIpcOpenMemHandle(&p, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess ||
            p == big ||
            TRM_LAUNCH(emu_increase, 1, 1, 0, k.a, static_cast<int *>(p) + 4999, 5) !=
                cudaSuccess ||
            cudaStreamSynchronize(k.a) != cudaSuccess || cudaFree(p) != cudaErrorInvalidValue ||
            cudaIpcCloseMemHandle(p) != cudaSuccess)
            _exit(1);
        _exit(0);
    }
    WANT(waitpid(pid, &status, 0) == pid && status == 0);
    OK(cudaMemcpy(&v, big + 4999, sizeof v, cudaMemcpyDeviceToHost));
    WANT(v == 5);
    WANT(cudaIpcCloseMemHandle(big) == cudaErrorInvalidValue);
    memset(&handle, 1, sizeof handle);
    WANT(cudaIpcOpenMemHandle(&p, handle, 0) == cudaErrorInvalidValue);
    OK(cudaFree(big));
    return 0;
}

double cpu_us()
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) * 1e6 + double(t.tv_nsec) / 1e3;
}
/* Prints what a block of 256 threads costs; not run by the tests. */
int bench()
{
    constexpr int kBlocks = 2000, kCount = kBlocks * 256;
    float *x;
    const struct {
        const char *name;
        void (*kernel)(float *, int);
        int blocks, launches;
    } rows[] = {{"no barrier", emu_bench_plain, kBlocks, 1},
                {"one barrier", emu_bench_barrier, kBlocks, 1},
                {"a launch of one block", emu_bench_plain, 1, kBlocks}};

    OK(cudaMalloc(reinterpret_cast<void **>(&x), kCount * sizeof(float)));
    OK(cudaMemset(x, 0, kCount * sizeof(float)));
    for (const auto &row : rows) {
        double best = 1e9;

        for (int i = 0; i < 5; i++) {
            const double start = cpu_us();

            for (int k = 0; k < row.launches; k++)
                OK(TRM_LAUNCH(row.kernel, row.blocks, 256, 0, nullptr, x, kCount));
            best = min(best, (cpu_us() - start) / kBlocks);
        }
        printf("%-24s %.2f us a block of 256 threads\n", row.name, best);
    }
    OK(cudaFree(x));
    return 0;
}

} // namespace

const Selftest trm_emu_stream_tests[] = {
    {"graphs", graphs},       {"capture_rules", capture_rules}, {"late", late},
    {"ping_pong", ping_pong}, {"times", times},                 {"ipc", ipc},
    {"bench", bench},         {nullptr, nullptr},
};

extern "C" __attribute__((visibility("default"))) int trm_emu_selftest(const char *name)
{
    for (const Selftest *table : {trm_emu_kernel_tests, trm_emu_stream_tests})
        for (const Selftest *t = table; t->name != nullptr; t++)
            if (strcmp(t->name, name) == 0)
                return t->run();
    fprintf(stderr, "no such selftest: %s\n", name);
    return 2;
}
