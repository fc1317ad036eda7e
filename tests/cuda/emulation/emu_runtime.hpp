/* What the emulated libraries (cuBLASLt, cuDNN, NCCL) and the emulated kernels ask of the emulated
 * CUDA runtime. All of it may be called from any thread. */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_RUNTIME_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_RUNTIME_HPP

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>

namespace trm_emu {

/* Work in a stream, as a kernel launch is: it runs at once in the calling thread, or later where
 * TRM_EMU_LATE=1, or is recorded (and runs at each launch of the graph) while the stream is being
 * captured. `work` must not call the runtime; it sees device memory as ordinary memory. The name
 * (a literal) is for messages. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work, const char *name);

/* [p, p + bytes) lies inside one live allocation of device memory (p + 0 bytes too). */
bool is_device(const void *p, std::size_t bytes);

/* What a kernel launch asks for; refused as CUDA refuses it, else enqueued. `kernel` is the
 * function (for cudaFuncSetAttribute), `call(arg)` runs one thread of it, `arg` is kept alive. */
struct Launch {
    const void *kernel;
    const char *name;
    dim3 grid, block;
    std::size_t smem;
    void (*call)(const void *arg);
    std::shared_ptr<const void> arg;
};
cudaError_t launch(cudaStream_t stream, const Launch &launch);

/* Runs the blocks of a launch in the calling thread (fibers.cpp). */
void run_grid(const Launch &launch);

} // namespace trm_emu
#endif
