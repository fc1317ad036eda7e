/* The emulated device itself: that kernels run on it as on a GPU, and that it reports the faults
 * which it is there to report. The tests are in its library (tests/cuda/emulation/selftest*.cu);
 * here each is run in a process of its own. */
#include "tests/cuda/child_kit.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define FAULT 1 /* ASan reports it and exits */
#define FAULT_SAYS(words) "AddressSanitizer"
#else
#define FAULT (CHILD_KILLED + SIGSEGV)
#define FAULT_SAYS(words) words
#endif
#define FAILED 70 /* a fault that the emulation itself finds */

static int (*selftest)(const char *name);

static const child_row works[] = {
    {"launches", {NULL}, 0, NULL},
    {"indices", {NULL}, 0, NULL},
    {"indices", {"TRM_EMU_THREADS=3"}, 0, NULL},
    {"warps", {NULL}, 0, NULL},
    {"warps", {"TRM_EMU_ORDER=rev"}, 0, NULL},
    {"warps", {"TRM_EMU_ORDER=rand:7"}, 0, NULL},
    {"products", {NULL}, 0, NULL},
    {"products", {"TRM_EMU_ORDER=rand:7"}, 0, NULL},
    {"block_sum", {NULL}, 0, NULL},
    {"block_sum", {"TRM_EMU_ORDER=rev"}, 0, NULL},
    {"block_sum", {"TRM_EMU_ORDER=rand"}, 0, NULL},
    {"block_sum", {"TRM_EMU_THREADS=4", "TRM_EMU_ORDER=rand"}, 0, NULL},
    {"spin", {NULL}, 0, NULL},
    {"configurations", {NULL}, 0, "grid (0,1,1)"},
    {"copies", {NULL}, 0, "said to be device to host, the pointers are host to device"},
    {"fresh", {NULL}, 0, NULL},
    {"graphs", {NULL}, 0, NULL},
    {"graphs", {"TRM_EMU_LATE=1"}, 0, NULL},
    {"capture_rules", {NULL}, 0, "cudaMalloc while a stream is being captured"},
    {"capture_rules", {"TRM_EMU_LATE=1"}, 0, NULL},
    {"late", {"TRM_EMU_LATE=1"}, 0, NULL},
    {"ping_pong", {NULL}, 0, NULL},
    {"ping_pong", {"TRM_EMU_LATE=1"}, 0, NULL},
    {"times", {NULL}, 0, NULL},
    {"ipc", {"TRM_EMU_IPC=1"}, 0, NULL},
    {"ipc", {"TRM_EMU_DEVICES=2", "TRM_EMU_LATE=1"}, 0, NULL},
    {"indices", {"TRM_EMU_ORDER=rand:3"}, 0, NULL},
    {"memory_limit", {"TRM_EMU_MEMORY=1000000"}, 0, NULL},
    {"sticky", {"TRM_EMU_FAULT=2:700"}, 0, NULL},
    {"sticky", {"TRM_EMU_FAULT=2:700", "TRM_EMU_LATE=1"}, 0, NULL},
    {"launches", {"TRM_EMU_LEAKS=1"}, 0, NULL},
    {"graphs", {"TRM_EMU_LEAKS=1"}, 0, NULL},
    {"launches", {"TRM_EMU_GUARD=1"}, 0, NULL},
};

static const child_row faults[] = {
    {"missing_barrier", {NULL}, 1, NULL},
    {"missing_barrier", {"TRM_EMU_ORDER=rev"}, 1, NULL},
    {"missing_barrier", {"TRM_EMU_ORDER=rand"}, 1, NULL},
    {"no_begin", {NULL}, FAILED, "kernel emu_no_begin, block (0,0,0): thread 3 ended without"},
    {"early_exit", {NULL}, FAILED, "31 of 32 threads wait at __syncthreads"},
    {"two_barriers", {NULL}, FAILED, "divergent barrier"},
    {"part_of_warp", {NULL}, FAILED, "only 0000ffff of its warp arrived"},
    {"outside_mask", {NULL}, FAILED, "thread 8 shuffles from lane 16"},
    {"overrun", {NULL}, FAILED, "of 40 bytes was overrun: byte 4 behind its end"},
    {"far_overrun", {NULL}, FAULT, FAULT_SAYS("360 bytes behind the end of device memory of 40")},
    {"use_after_free", {NULL}, FAULT, FAULT_SAYS("memory that was freed")},
    {"smem_overrun", {NULL}, FAULT, FAULT_SAYS("behind the end of 512 bytes of dynamic shared")},
    {"host_touches", {"TRM_EMU_GUARD=1"}, FAULT, FAULT_SAYS("host code: fault at")},
    {"leaks", {"TRM_EMU_LEAKS=1"}, 71, "leak: device memory of 12345 bytes"},
};

START_TEST(works_as_a_gpu)
{
    child_check(&works[_i]);
}
END_TEST

START_TEST(faults_are_reported)
{
    child_check(&faults[_i]);
}
END_TEST

/* In a file of its own: the test runs beside itself, shuffled, in the same folder. */
START_TEST(coverage_names_kernels)
{
    char path[] = "/tmp/trm-coverage-XXXXXX", setting[64], line[64] = "";
    child_row row = {"block_sum", {setting}, 0, NULL};
    int fd = mkstemp(path);
    FILE *f;

    ck_assert_int_ge(fd, 0);
    snprintf(setting, sizeof(setting), "TRM_EMU_COVERAGE=%s", path);
    child_check(&row);
    child_check(&row); /* appends */
    f = fdopen(fd, "r");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < 2; i++) {
        ck_assert_ptr_nonnull(fgets(line, (int)sizeof(line), f));
        ck_assert_str_eq(line, "emu_block_sum\n");
    }
    ck_assert_ptr_null(fgets(line, (int)sizeof(line), f));
    fclose(f);
    (void)remove(path);
}
END_TEST

int main(int argc, char **argv)
{
    const char *path = getenv("TRM_CUDA_MODULE");
    void *module = path != NULL ? dlopen(path, RTLD_NOW) : NULL;
    void *symbol = module != NULL ? dlsym(module, "trm_emu_selftest") : NULL;
    Suite *s = suite_create("emulation");
    TCase *t = tcase_create("emulation");
    SRunner *r;
    int failed;

    if (symbol == NULL) {
        fprintf(stderr, "not the emulated module: %s\n", path != NULL ? dlerror() : "none is set");
        return 77;
    }
    memcpy(&selftest, &symbol, sizeof(selftest));
    if (argc == 3 && strcmp(argv[1], CHILD_FLAG) == 0)
        return selftest(argv[2]);
    tcase_add_loop_test(t, works_as_a_gpu, 0, sizeof(works) / sizeof(works[0]));
    tcase_add_loop_test(t, faults_are_reported, 0, sizeof(faults) / sizeof(faults[0]));
    tcase_add_test(t, coverage_names_kernels);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
