/* cuBLASLt as far as kernels/cuda/gemm_cublaslt.c uses it: its C interface over plain loops in the
 * emulated streams. It refuses what the library's documentation says that it refuses (dtype
 * combinations, the rules of int8 and fp8, biases of another type, too small leading dimensions,
 * missing workspace, pointers that are less aligned than was said when the algorithm was chosen),
 * so that a caller's mistake shows without a GPU.
 *
 * TRM_EMU_BLASLT=none: the heuristics find no algorithm. TRM_EMU_BLASLT=tensor: nor one for fp8
 * with vectors of scales, as on chips other than sm_90. */
#include "base/tensor.h"
#include "tests/cuda/emulation/emu_runtime.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace
{

struct Layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
    int32_t order = CUBLASLT_ORDER_COL, batch = 1;
    int64_t step = 0;
};

struct Op {
    cublasComputeType_t compute;
    cudaDataType scale;
    int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    int32_t bias_type = -1;
    /* fp8: scales of a and of b */
    int32_t modes[2] = {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
                        CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F};
    const void *scales[2] = {nullptr, nullptr};
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t align[4] = {256, 256, 256, 256};
};

/* What lies in a cublasLtMatmulAlgo_t. */
struct Algo {
    uint64_t magic;
    uint32_t number, workspace;
    uint32_t align[4];
    uint64_t shape; /* hash of what it was chosen for */
};
constexpr uint64_t kMagic = 0x7472692d6c740001u;
static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t), "algo");

const Layout &of(cublasLtMatrixLayout_t l)
{
    return *reinterpret_cast<const Layout *>(l);
}

struct Product {
    Op op;
    Layout a, b, c, d;
    uint64_t m, n, k;
};

bool epilogue_known(uint32_t e)
{
    switch (e) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
        return true;
    default:
        return false;
    }
}

bool outer(const Product &p)
{
    return p.op.modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
}

/* "TN", everything aligned to 16 bytes, one kind of scales on both sides. */
bool fp8_known(const Product &p)
{
    const char *mode = std::getenv("TRM_EMU_BLASLT");

    if (outer(p) && (p.op.scales[0] == nullptr || p.op.scales[1] == nullptr ||
                     (mode != nullptr && std::strcmp(mode, "tensor") == 0)))
        return false;
    return p.op.modes[0] == p.op.modes[1] &&
           (outer(p) || p.op.modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F) &&
           p.d.type == CUDA_R_32F && p.op.epilogue == CUBLASLT_EPILOGUE_DEFAULT &&
           p.op.trans_a == CUBLAS_OP_T && p.op.trans_b == CUBLAS_OP_N && p.m % 16 == 0 &&
           p.k % 16 == 0 && p.a.ld % 16 == 0 && p.b.ld % 16 == 0 && p.d.ld % 4 == 0 &&
           p.c.ld % 4 == 0;
}

bool types_known(const Product &p)
{
    cudaDataType ab = p.a.type, d = p.d.type;

    if (p.b.type != ab || p.c.type != d)
        return false;
    if (ab == CUDA_R_8F_E4M3)
        return p.op.compute == CUBLAS_COMPUTE_32F && p.op.scale == CUDA_R_32F && fp8_known(p);
    if (outer(p) || p.op.scales[0] != nullptr || p.op.scales[1] != nullptr)
        return false;
    switch (p.op.compute) {
    case CUBLAS_COMPUTE_32F:
        if (p.op.scale != CUDA_R_32F)
            return false;
        return (ab == CUDA_R_32F && d == CUDA_R_32F) ||
               ((ab == CUDA_R_16F || ab == CUDA_R_16BF) && (d == ab || d == CUDA_R_32F));
    case CUBLAS_COMPUTE_64F:
        return p.op.scale == CUDA_R_64F && ab == CUDA_R_64F && d == CUDA_R_64F &&
               p.op.epilogue == CUBLASLT_EPILOGUE_DEFAULT;
    case CUBLAS_COMPUTE_32I:
        return p.op.scale == CUDA_R_32I && ab == CUDA_R_8I && d == CUDA_R_32I &&
               p.op.epilogue == CUBLASLT_EPILOGUE_DEFAULT && p.op.trans_a == CUBLAS_OP_T &&
               p.op.trans_b == CUBLAS_OP_N && p.m % 4 == 0 && p.k % 4 == 0 && p.a.ld % 4 == 0 &&
               p.b.ld % 4 == 0;
    default:
        return false;
    }
}

bool layout_sound(const Layout &l, const Layout &d)
{
    return l.order == CUBLASLT_ORDER_COL && l.rows > 0 && l.cols > 0 && l.rows <= INT32_MAX &&
           l.cols <= INT32_MAX && l.ld >= static_cast<int64_t>(l.rows) && l.batch == d.batch &&
           l.batch > 0;
}

cublasStatus_t product_of(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                          cublasLtMatrixLayout_t d, Product *out)
{
    if (op == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    Product p{*reinterpret_cast<const Op *>(op), of(a), of(b), of(c), of(d), 0, 0, 0};
    p.m = p.d.rows;
    p.n = p.d.cols;
    bool ta = p.op.trans_a == CUBLAS_OP_T, tb = p.op.trans_b == CUBLAS_OP_T;
    p.k = ta ? p.a.rows : p.a.cols;
    if ((ta ? p.a.cols : p.a.rows) != p.m || (tb ? p.b.cols : p.b.rows) != p.k ||
        (tb ? p.b.rows : p.b.cols) != p.n || p.c.rows != p.m || p.c.cols != p.n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!layout_sound(p.a, p.d) || !layout_sound(p.b, p.d) || !layout_sound(p.c, p.d) ||
        !layout_sound(p.d, p.d))
        return CUBLAS_STATUS_INVALID_VALUE;
    /* results must not overlap: matrices one after another, or their columns interleaved */
    if (p.d.batch > 1 &&
        p.d.step < p.d.ld * static_cast<int64_t>(p.n - 1) + static_cast<int64_t>(p.m) &&
        (p.d.step < static_cast<int64_t>(p.m) ||
         p.d.ld < p.d.step * (p.d.batch - 1) + static_cast<int64_t>(p.m)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!epilogue_known(p.op.epilogue) || !types_known(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((p.op.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 &&
        (p.op.bias == nullptr || (p.op.bias_type != -1 && p.op.bias_type != p.d.type)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *out = p;
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t hash_of(const Product &p)
{
    uint64_t h = 1469598103934665603u;
    auto mix = [&h](uint64_t v) { h = (h ^ v) * 1099511628211u; };

    for (const Layout *l : {&p.a, &p.b, &p.c, &p.d}) {
        mix(l->type);
        mix(l->rows);
        mix(l->cols);
        mix(static_cast<uint64_t>(l->ld));
        mix(static_cast<uint64_t>(l->batch));
        mix(static_cast<uint64_t>(l->step));
    }
    mix(static_cast<uint64_t>(p.op.trans_a) << 8 | static_cast<uint64_t>(p.op.trans_b));
    mix(p.op.epilogue);
    mix(p.op.compute);
    mix(static_cast<uint64_t>(p.op.modes[0]));
    return h;
}

/* ---- elements ---- */

size_t bytes_of(cudaDataType t)
{
    return t == CUDA_R_64F                         ? 8
           : t == CUDA_R_32F || t == CUDA_R_32I    ? 4
           : t == CUDA_R_8I || t == CUDA_R_8F_E4M3 ? 1
                                                   : 2;
}

float e4m3(uint8_t b)
{
    const int e = b >> 3 & 15, m = b & 7;
    const float x = (b & 0x7f) == 0x7f ? NAN
                    : e == 0           ? std::ldexp(static_cast<float>(m), -9)
                                       : std::ldexp(1.0f + static_cast<float>(m) / 8.0f, e - 7);

    return (b & 0x80) != 0 ? -x : x;
}

template <class T> T element(cudaDataType type, const void *p, size_t i)
{
    switch (type) {
    case CUDA_R_64F:
        return static_cast<T>(static_cast<const double *>(p)[i]);
    case CUDA_R_32F:
        return static_cast<T>(static_cast<const float *>(p)[i]);
    case CUDA_R_16F:
        return static_cast<T>(trm_f16_to_f32(static_cast<const uint16_t *>(p)[i]));
    case CUDA_R_16BF:
        return static_cast<T>(trm_bf16_to_f32(static_cast<const uint16_t *>(p)[i]));
    case CUDA_R_32I:
        return static_cast<T>(static_cast<const int32_t *>(p)[i]);
    case CUDA_R_8F_E4M3:
        return static_cast<T>(e4m3(static_cast<const uint8_t *>(p)[i]));
    default:
        return static_cast<T>(static_cast<const int8_t *>(p)[i]);
    }
}

template <class T> void store(cudaDataType type, void *p, size_t i, T v)
{
    switch (type) {
    case CUDA_R_64F:
        static_cast<double *>(p)[i] = static_cast<double>(v);
        break;
    case CUDA_R_32F:
        static_cast<float *>(p)[i] = static_cast<float>(v);
        break;
    case CUDA_R_16F:
        static_cast<uint16_t *>(p)[i] = trm_f32_to_f16(static_cast<float>(v));
        break;
    case CUDA_R_16BF:
        static_cast<uint16_t *>(p)[i] = trm_f32_to_bf16(static_cast<float>(v));
        break;
    default:
        static_cast<int32_t *>(p)[i] = static_cast<int32_t>(v);
        break;
    }
}

template <class T> T activated(uint32_t epilogue, T v)
{
    if ((epilogue & CUBLASLT_EPILOGUE_RELU) != 0)
        return v > 0 ? v : v != v ? v : T(0);
    if ((epilogue & CUBLASLT_EPILOGUE_GELU) != 0) {
        double x = static_cast<double>(v);

        return static_cast<T>(0.5 * x *
                              (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))));
    }
    return v;
}

/* ---- the loops ---- */

constexpr size_t kRows = 32, kCols = 4, kDepth = 128;

/* D's tile of kRows rows and kCols columns; a: [k][kRows], b: [k][kCols]. Sums of kDepth terms are
 * added to the whole, so that errors grow as they do in the library's tiles. */
template <class T>
__attribute__((optimize("O3"))) void tile(const T *__restrict a, const T *__restrict b, size_t k,
                                          T *__restrict out)
{
    for (size_t from = 0; from < k; from += kDepth) {
        T part[kCols][kRows] = {};
        size_t to = std::min(k, from + kDepth);

        for (size_t l = from; l < to; l++)
            for (size_t j = 0; j < kCols; j++)
                for (size_t i = 0; i < kRows; i++)
                    part[j][i] += b[l * kCols + j] * a[l * kRows + i];
        for (size_t j = 0; j < kCols; j++)
            for (size_t i = 0; i < kRows; i++)
                out[j * kRows + i] += part[j][i];
    }
}

const void *at(const Layout &l, const void *p, size_t batch)
{
    return static_cast<const char *>(p) +
           static_cast<int64_t>(batch) * l.step * static_cast<int64_t>(bytes_of(l.type));
}

/* T: what sums are made in. */
template <class T>
void run_one(const Product &p, const void *a, const void *b, const void *c, void *d, T alpha,
             T beta)
{
    size_t lda = static_cast<size_t>(p.a.ld), ldb = static_cast<size_t>(p.b.ld);
    bool ta = p.op.trans_a == CUBLAS_OP_T, tb = p.op.trans_b == CUBLAS_OP_T;
    size_t blocks = (p.m + kRows - 1) / kRows;
    std::vector<T> packed(blocks * p.k * kRows, T(0)), columns(p.k * kCols);

    for (size_t i = 0; i < p.m; i++)
        for (size_t l = 0; l < p.k; l++)
            packed[(i / kRows * p.k + l) * kRows + i % kRows] =
                element<T>(p.a.type, a, ta ? i * lda + l : l * lda + i);
    for (size_t j0 = 0; j0 < p.n; j0 += kCols) {
        std::fill(columns.begin(), columns.end(), T(0));
        for (size_t j = j0; j < std::min(static_cast<size_t>(p.n), j0 + kCols); j++)
            for (size_t l = 0; l < p.k; l++)
                columns[l * kCols + j - j0] =
                    element<T>(p.b.type, b, tb ? l * ldb + j : j * ldb + l);
        for (size_t i0 = 0; i0 < p.m; i0 += kRows) {
            T out[kCols * kRows] = {};

            tile<T>(packed.data() + i0 * p.k, columns.data(), p.k, out);
            for (size_t j = j0; j < std::min(static_cast<size_t>(p.n), j0 + kCols); j++)
                for (size_t i = i0; i < std::min(static_cast<size_t>(p.m), i0 + kRows); i++) {
                    T v = alpha * out[(j - j0) * kRows + i - i0];

                    for (int side = 0; side < 2; side++)
                        if (p.op.scales[side] != nullptr)
                            v *= static_cast<T>(
                                static_cast<const float *>(p.op.scales[side])[!outer(p)   ? 0
                                                                              : side == 0 ? i
                                                                                          : j]);
                    if (beta != T(0))
                        v += beta * element<T>(p.c.type, c, j * static_cast<size_t>(p.c.ld) + i);
                    if ((p.op.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0)
                        v += element<T>(p.d.type, p.op.bias, i);
                    store<T>(p.d.type, d, j * static_cast<size_t>(p.d.ld) + i,
                             activated<T>(p.op.epilogue, v));
                }
        }
    }
}

template <class T>
void run_all(const Product &p, const void *a, const void *b, const void *c, void *d, T alpha,
             T beta)
{
    for (size_t x = 0; x < static_cast<size_t>(p.d.batch); x++)
        run_one<T>(p, at(p.a, a, x), at(p.b, b, x), at(p.c, c, x),
                   const_cast<void *>(at(p.d, d, x)), alpha, beta);
}

bool readable(const Layout &l, const void *p)
{
    size_t elems = static_cast<size_t>(l.ld) * (l.cols - 1) + l.rows +
                   static_cast<size_t>(l.batch - 1) * static_cast<size_t>(l.step);

    return trm_emu::is_device(p, elems * bytes_of(l.type));
}

bool aligned(const void *p, uint32_t to)
{
    return reinterpret_cast<uintptr_t>(p) % to == 0;
}

/* Attributes: the size must be the field's. */
template <class T> cublasStatus_t take(T *field, const void *buf, size_t bytes)
{
    if (buf == nullptr || bytes != sizeof(T))
        return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(field, buf, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

char handle_object;

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = reinterpret_cast<cublasLtHandle_t>(&handle_object);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "another CUBLAS_STATUS";
    }
}

size_t cublasLtGetVersion(void)
{
    return 1; /* no library has it: choices on disk are never mixed */
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    auto *l = new Layout{type, rows, cols, ld};

    *out = reinterpret_cast<cublasLtMatrixLayout_t>(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete reinterpret_cast<Layout *>(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t what,
                                                const void *buf, size_t bytes)
{
    auto *l = reinterpret_cast<Layout *>(layout);

    switch (what) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return take(&l->order, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take(&l->batch, buf, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return take(&l->step, buf, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *out = reinterpret_cast<cublasLtMatmulDesc_t>(new Op{compute, scale});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op)
{
    delete reinterpret_cast<Op *>(op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t what, const void *buf,
                                              size_t bytes)
{
    auto *op = reinterpret_cast<Op *>(desc);

    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&op->trans_a, buf, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&op->trans_b, buf, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&op->epilogue, buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&op->bias, buf, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return take(&op->bias_type, buf, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return take(&op->scales[0], buf, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return take(&op->scales[1], buf, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
        return take(&op->modes[0], buf, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        return take(&op->modes[1], buf, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete reinterpret_cast<Preference *>(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *buf, size_t bytes)
{
    auto *p = reinterpret_cast<Preference *>(preference);

    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&p->workspace, buf, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&p->schemes, buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return take(&p->align[0], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return take(&p->align[1], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return take(&p->align[2], buf, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&p->align[3], buf, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *got)
{
    const char *mode = std::getenv("TRM_EMU_BLASLT");
    const auto *want = reinterpret_cast<const Preference *>(preference);
    Product p{};

    if (handle == nullptr)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (wanted <= 0 || want == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t st = product_of(op, a, b, c, d, &p); st != CUBLAS_STATUS_SUCCESS)
        return st;
    *got = 0;
    if (mode != nullptr && std::strcmp(mode, "none") == 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    /* the second one takes workspace, as split sums do */
    for (uint32_t i = 0; i < 2 && i < static_cast<uint32_t>(wanted); i++) {
        Algo algo{kMagic, i, i * 4096, {}, hash_of(p)};

        if (algo.workspace > want->workspace)
            break;
        std::memcpy(algo.align, want->align, sizeof(algo.align));
        results[i] = {};
        std::memcpy(&results[i].algo, &algo, sizeof(algo));
        results[i].workspaceSize = algo.workspace;
        results[i].state = CUBLAS_STATUS_SUCCESS;
        results[i].wavesCount = 1.0f;
        ++*got;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    Product p{};
    Algo chosen;

    if (handle == nullptr)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (cublasStatus_t st = product_of(op, a, b, c, d, &p); st != CUBLAS_STATUS_SUCCESS)
        return st;
    std::memcpy(&chosen, algo, sizeof(chosen));
    if (chosen.magic != kMagic || chosen.number > 1 || chosen.shape != hash_of(p))
        return CUBLAS_STATUS_INVALID_VALUE;
    result->workspaceSize = chosen.workspace;
    result->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    Product p{};
    Algo chosen;

    if (handle == nullptr)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (alpha == nullptr || beta == nullptr || algo == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t st = product_of(op, a_layout, b_layout, c_layout, d_layout, &p);
        st != CUBLAS_STATUS_SUCCESS)
        return st;
    std::memcpy(&chosen, algo, sizeof(chosen));
    if (chosen.magic != kMagic || chosen.shape != hash_of(p) ||
        workspace_bytes < chosen.workspace ||
        (chosen.workspace > 0 &&
         (!aligned(workspace, 16) || !trm_emu::is_device(workspace, workspace_bytes))))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned(a, chosen.align[0]) || !aligned(b, chosen.align[1]) ||
        !aligned(c, chosen.align[2]) || !aligned(d, chosen.align[3]))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.a.type == CUDA_R_8F_E4M3 &&
        (!aligned(a, 16) || !aligned(b, 16) || !aligned(c, 16) || !aligned(d, 16)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int side = 0; side < 2; side++)
        if (p.op.scales[side] != nullptr &&
            !trm_emu::is_device(p.op.scales[side], (!outer(p)   ? 1
                                                    : side == 0 ? p.m
                                                                : p.n) *
                                                       sizeof(float)))
            return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!readable(p.a, a) || !readable(p.b, b) || !readable(p.c, c) || !readable(p.d, d))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    /* in place, C and D must lie alike */
    if (c == d && (p.c.ld != p.d.ld || p.c.step != p.d.step))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((p.op.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0 &&
        !trm_emu::is_device(p.op.bias, p.m * bytes_of(p.d.type)))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    union {
        double d;
        float f;
        int32_t i;
    } s[2];
    size_t scale_bytes = p.op.scale == CUDA_R_64F ? 8 : 4;
    std::memcpy(&s[0], alpha, scale_bytes);
    std::memcpy(&s[1], beta, scale_bytes);
    auto work = [=] {
        if (chosen.workspace > 0)
            std::memset(workspace, 0xee, chosen.workspace);
        if (p.op.compute == CUBLAS_COMPUTE_64F)
            run_all<double>(p, a, b, c, d, s[0].d, s[1].d);
        else if (p.op.compute == CUBLAS_COMPUTE_32I)
            run_all<int32_t>(p, a, b, c, d, s[0].i, s[1].i);
        else
            run_all<float>(p, a, b, c, d, s[0].f, s[1].f);
    };
    return trm_emu::enqueue(stream, work, "cublasLtMatmul") == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
