/* What CUDA has beside the C library: integer and float intrinsics, min and max, caching loads. */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_MATH_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_MATH_HPP

namespace trm_emu {

template <class To, class From> inline To bits(From v)
{
    static_assert(sizeof(To) == sizeof(From), "size");
    To r;

    memcpy(&r, &v, sizeof r);
    return r;
}
/* A float to an integer as the GPU does it: NaN is 0, what does not fit is clamped. */
template <class I, class F> inline I to_int(F v)
{
    if (v != v)
        return 0;
    if (v <= F(std::numeric_limits<I>::min()))
        return std::numeric_limits<I>::min();
    if (v >= F(std::numeric_limits<I>::max()))
        return std::numeric_limits<I>::max();
    return I(v);
}
inline float rsqrt_f(float x)
{
    return 1.0f / sqrtf(x);
}
inline double rsqrt_d(double x)
{
    return 1.0 / sqrt(x);
}

} // namespace trm_emu

/* glibc reserves some of these names and newer ones declare others, hence macros */
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)
#define __tanhf(x) tanhf(x)
#define rsqrtf(x) (::trm_emu::rsqrt_f(x))
#define rsqrt(x) (::trm_emu::rsqrt_d(x))
#define sinpif(x) (sinf(3.14159265358979323846f * (x)))
#define cospif(x) (cosf(3.14159265358979323846f * (x)))
#define sinpi(x) (sin(3.14159265358979323846 * (x)))
#define cospi(x) (cos(3.14159265358979323846 * (x)))

#define __builtin_assume(x) ((void)0)
#define __trap() (::trm_emu::fail("__trap()"))

inline float fdividef(float a, float b)
{
    return a / b;
}
inline void sincospif(float x, float *s, float *c)
{
    *s = sinpif(x);
    *c = cospif(x);
}
inline float rhypotf(float a, float b)
{
    return 1.0f / hypotf(a, b);
}
inline double rhypot(double a, double b)
{
    return 1.0 / hypot(a, b);
}
inline float rcbrtf(float x)
{
    return 1.0f / cbrtf(x);
}
inline float normcdff(float x)
{
    return 0.5f * erfcf(-x * 0.70710678118654752f);
}
inline double normcdf(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}
inline float __frsqrt_rn(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline double __dsqrt_rn(double x)
{
    return sqrt(x);
}
inline double __drcp_rn(double x)
{
    return 1.0 / x;
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __saturatef(float x)
{
    return x > 0 ? x > 1 ? 1.0f : x : 0.0f; /* NaN: 0 */
}
#define TRM_EMU_BINARY(name, T, expr)                                                              \
    inline T name(T a, T b)                                                                        \
    {                                                                                              \
        return expr;                                                                               \
    }
TRM_EMU_BINARY(__fadd_rn, float, a + b)
TRM_EMU_BINARY(__fsub_rn, float, a - b)
TRM_EMU_BINARY(__fmul_rn, float, a *b)
TRM_EMU_BINARY(__fdiv_rn, float, a / b)
TRM_EMU_BINARY(__dadd_rn, double, a + b)
TRM_EMU_BINARY(__dsub_rn, double, a - b)
TRM_EMU_BINARY(__dmul_rn, double, a *b)
TRM_EMU_BINARY(__ddiv_rn, double, a / b)
TRM_EMU_BINARY(__mul24, int, (a << 8 >> 8) * (b << 8 >> 8))
TRM_EMU_BINARY(__umul24, unsigned, (a & 0xffffff) * (b & 0xffffff))
TRM_EMU_BINARY(__umulhi, unsigned, unsigned(uint64_t(a) * b >> 32))
TRM_EMU_BINARY(__mulhi, int, int(int64_t(a) * b >> 32))
TRM_EMU_BINARY(__umul64hi, unsigned long long,
               (unsigned long long)((unsigned __int128)a * b >> 64))
TRM_EMU_BINARY(__mul64hi, long long, (long long)((__int128)a * b >> 64))
TRM_EMU_BINARY(__hadd, int, int((int64_t(a) + b) >> 1))
TRM_EMU_BINARY(__rhadd, int, int((int64_t(a) + b + 1) >> 1))
TRM_EMU_BINARY(__uhadd, unsigned, unsigned((uint64_t(a) + b) >> 1))
#undef TRM_EMU_BINARY
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}

/* ---- bits ---- */

#define TRM_EMU_CAST(name, To, From)                                                               \
    inline To name(From v)                                                                         \
    {                                                                                              \
        return ::trm_emu::bits<To>(v);                                                             \
    }
TRM_EMU_CAST(__float_as_int, int, float)
TRM_EMU_CAST(__float_as_uint, unsigned, float)
TRM_EMU_CAST(__int_as_float, float, int)
TRM_EMU_CAST(__uint_as_float, float, unsigned)
TRM_EMU_CAST(__double_as_longlong, long long, double)
TRM_EMU_CAST(__longlong_as_double, double, long long)
#undef TRM_EMU_CAST
inline int __double2hiint(double v)
{
    return int(trm_emu::bits<uint64_t>(v) >> 32);
}
inline int __double2loint(double v)
{
    return int(trm_emu::bits<uint64_t>(v));
}
inline double __hiloint2double(int hi, int lo)
{
    return trm_emu::bits<double>(uint64_t(unsigned(hi)) << 32 | unsigned(lo));
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz(unsigned(x)) : 32;
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x)
{
    unsigned r = 0;

    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1u) << (31 - i);
    return r;
}
inline unsigned long long __brevll(unsigned long long x)
{
    return (unsigned long long)__brev(unsigned(x)) << 32 | __brev(unsigned(x >> 32));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    const uint64_t all = uint64_t(b) << 32 | a;
    unsigned r = 0;

    for (int i = 0; i < 4; i++)
        r |= unsigned(all >> (s >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return r;
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by)
{
    return unsigned((uint64_t(hi) << 32 | lo) << (by & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by)
{
    return unsigned((uint64_t(hi) << 32 | lo) >> (by & 31));
}
inline unsigned __sad(int a, int b, unsigned c)
{
    return unsigned(a < b ? int64_t(b) - a : int64_t(a) - b) + c;
}
inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c = int(unsigned(c) + unsigned(int8_t(a >> i) * int8_t(b >> i)));
    return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (a >> i & 0xff) * (b >> i & 0xff);
    return c;
}

/* ---- conversions ---- */

#define TRM_EMU_TO_INT(name, I, F)                                                                 \
    inline I name##_rn(F v)                                                                        \
    {                                                                                              \
        return ::trm_emu::to_int<I>(F(nearbyint(v)));                                              \
    }                                                                                              \
    inline I name##_rz(F v)                                                                        \
    {                                                                                              \
        return ::trm_emu::to_int<I>(F(trunc(v)));                                                  \
    }                                                                                              \
    inline I name##_ru(F v)                                                                        \
    {                                                                                              \
        return ::trm_emu::to_int<I>(F(ceil(v)));                                                   \
    }                                                                                              \
    inline I name##_rd(F v)                                                                        \
    {                                                                                              \
        return ::trm_emu::to_int<I>(F(floor(v)));                                                  \
    }
TRM_EMU_TO_INT(__float2int, int, float)
TRM_EMU_TO_INT(__float2uint, unsigned, float)
TRM_EMU_TO_INT(__float2ll, long long, float)
TRM_EMU_TO_INT(__float2ull, unsigned long long, float)
TRM_EMU_TO_INT(__double2int, int, double)
TRM_EMU_TO_INT(__double2uint, unsigned, double)
TRM_EMU_TO_INT(__double2ll, long long, double)
TRM_EMU_TO_INT(__double2ull, unsigned long long, double)
#undef TRM_EMU_TO_INT
#define TRM_EMU_TO_FLOAT(name, F, I)                                                               \
    inline F name(I v)                                                                             \
    {                                                                                              \
        return F(v);                                                                               \
    }
TRM_EMU_TO_FLOAT(__int2float_rn, float, int)
TRM_EMU_TO_FLOAT(__uint2float_rn, float, unsigned)
TRM_EMU_TO_FLOAT(__ll2float_rn, float, long long)
TRM_EMU_TO_FLOAT(__ull2float_rn, float, unsigned long long)
TRM_EMU_TO_FLOAT(__int2double_rn, double, int)
TRM_EMU_TO_FLOAT(__uint2double_rn, double, unsigned)
TRM_EMU_TO_FLOAT(__ll2double_rn, double, long long)
TRM_EMU_TO_FLOAT(__ull2double_rn, double, unsigned long long)
TRM_EMU_TO_FLOAT(__double2float_rn, float, double)
#undef TRM_EMU_TO_FLOAT

/* ---- loads and stores with a caching hint; vector types must be aligned as on the GPU ---- */

namespace trm_emu {

template <class T> inline T load(const T *p)
{
    if (reinterpret_cast<uintptr_t>(p) % alignof(T) != 0)
        fail("a load of %zu bytes from %p: not aligned", sizeof(T), static_cast<const void *>(p));
    return *p;
}
template <class T> inline void store(T *p, T v)
{
    if (reinterpret_cast<uintptr_t>(p) % alignof(T) != 0)
        fail("a store of %zu bytes to %p: not aligned", sizeof(T), static_cast<void *>(p));
    *p = v;
}

} // namespace trm_emu

#define TRM_EMU_LOAD(name)                                                                         \
    template <class T> inline T name(const T *p)                                                   \
    {                                                                                              \
        return ::trm_emu::load(p);                                                                 \
    }
TRM_EMU_LOAD(__ldg)
TRM_EMU_LOAD(__ldcs)
TRM_EMU_LOAD(__ldcg)
TRM_EMU_LOAD(__ldca)
TRM_EMU_LOAD(__ldlu)
TRM_EMU_LOAD(__ldcv)
#undef TRM_EMU_LOAD
#define TRM_EMU_STORE(name)                                                                        \
    template <class T> inline void name(T *p, typename ::trm_emu::Same<T>::type v)                 \
    {                                                                                              \
        ::trm_emu::store(p, v);                                                                    \
    }
TRM_EMU_STORE(__stcs)
TRM_EMU_STORE(__stcg)
TRM_EMU_STORE(__stwb)
TRM_EMU_STORE(__stwt)
#undef TRM_EMU_STORE
template <class T> inline size_t __cvta_generic_to_shared(T *p)
{
    return reinterpret_cast<size_t>(p);
}
inline long long clock64()
{
    return 0;
}

/* ---- min and max: as CUDA's, mixed signs are compared as unsigned, a NaN loses ---- */

#define TRM_EMU_MINMAX(R, A, B)                                                                    \
    inline R max(A a, B b)                                                                         \
    {                                                                                              \
        return static_cast<R>(a) < static_cast<R>(b) ? b : a;                              \
    }                                                                                              \
    inline R min(A a, B b)                                                                         \
    {                                                                                              \
        return static_cast<R>(b) < static_cast<R>(a) ? b : a;                              \
    }
#define TRM_EMU_MINMAX3(S, U)                                                                      \
    TRM_EMU_MINMAX(S, S, S)                                                                        \
    TRM_EMU_MINMAX(U, U, U)                                                                        \
    TRM_EMU_MINMAX(U, S, U)                                                                        \
    TRM_EMU_MINMAX(U, U, S)
TRM_EMU_MINMAX3(int, unsigned)
TRM_EMU_MINMAX3(long, unsigned long)
TRM_EMU_MINMAX3(long long, unsigned long long)
#undef TRM_EMU_MINMAX3
#undef TRM_EMU_MINMAX
#define TRM_EMU_FMINMAX(R, A, B, suffix)                                                           \
    inline R max(A a, B b)                                                                         \
    {                                                                                              \
        return fmax##suffix(a, b);                                                                 \
    }                                                                                              \
    inline R min(A a, B b)                                                                         \
    {                                                                                              \
        return fmin##suffix(a, b);                                                                 \
    }
TRM_EMU_FMINMAX(float, float, float, f)
TRM_EMU_FMINMAX(double, double, double, )
TRM_EMU_FMINMAX(double, float, double, )
TRM_EMU_FMINMAX(double, double, float, )
#undef TRM_EMU_FMINMAX
inline unsigned umin(unsigned a, unsigned b)
{
    return a < b ? a : b;
}
inline unsigned umax(unsigned a, unsigned b)
{
    return a < b ? b : a;
}

#endif
