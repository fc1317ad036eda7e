/* Atomics and fences. */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_ATOMIC_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_ATOMIC_HPP

namespace trm_emu {

template <class T> struct Same { /* keeps a parameter out of template deduction */
    using type = T;
};
template <class T, class F> inline T atomic_update(T *p, F f) /* gives the old value */
{
    T old, now;

    if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0)
        fail("atomic on %p: not aligned to %zu", static_cast<void *>(p), sizeof(T));
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do
        now = f(old);
    while (!__atomic_compare_exchange(p, &old, &now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return old;
}

} // namespace trm_emu

#define TRM_EMU_ATOMIC(name, expr)                                                                 \
    template <class T> inline T name(T *p, typename trm_emu::Same<T>::type v)                      \
    {                                                                                              \
        return trm_emu::atomic_update(p, [v](T o) { return T(expr); });                            \
    }                                                                                              \
    template <class T> inline T name##_block(T *p, typename trm_emu::Same<T>::type v)              \
    {                                                                                              \
        return name(p, v);                                                                         \
    }                                                                                              \
    template <class T> inline T name##_system(T *p, typename trm_emu::Same<T>::type v)             \
    {                                                                                              \
        return name(p, v);                                                                         \
    }
TRM_EMU_ATOMIC(atomicAdd, o + v)
TRM_EMU_ATOMIC(atomicSub, o - v)
TRM_EMU_ATOMIC(atomicMax, o < v ? v : o)
TRM_EMU_ATOMIC(atomicMin, v < o ? v : o)
TRM_EMU_ATOMIC(atomicAnd, o & v)
TRM_EMU_ATOMIC(atomicOr, o | v)
TRM_EMU_ATOMIC(atomicXor, o ^ v)
TRM_EMU_ATOMIC(atomicExch, ((void)o, v))
TRM_EMU_ATOMIC(atomicInc, o >= v ? T(0) : T(o + 1))
TRM_EMU_ATOMIC(atomicDec, o == T(0) || o > v ? v : T(o - 1))
#undef TRM_EMU_ATOMIC

template <class T>
inline T atomicCAS(T *p, typename trm_emu::Same<T>::type old, typename trm_emu::Same<T>::type now)
{
    __atomic_compare_exchange(p, &old, &now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return old;
}
template <class T>
inline T atomicCAS_system(T *p, typename trm_emu::Same<T>::type old,
                          typename trm_emu::Same<T>::type now)
{
    return atomicCAS(p, old, now);
}
inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_system()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
