/* Tests of the emulation that run inside its library (they call the runtime, which is not
 * exported): tests/cuda/test_emulation.c runs each by its name. */
#ifndef TRM_TESTS_CUDA_EMULATION_SELFTEST_HPP
#define TRM_TESTS_CUDA_EMULATION_SELFTEST_HPP

struct Selftest {
    const char *name;
    int (*run)(); /* 0: as it should be */
};
/* each ends with a row of NULLs */
extern const Selftest trm_emu_kernel_tests[], trm_emu_stream_tests[];

#endif
