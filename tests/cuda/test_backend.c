/* The CUDA device's table: memory, copies, streams, events, captures, uploads, and what it says
 * where there is no device, no memory, or a GPU that has failed. */
#define _GNU_SOURCE
#include "base/team.h"
#include "tests/cuda/child_kit.h"
#include "tests/cuda/cuda_kit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define OPS (kit_gpu->ops)

static void *device_memory(size_t bytes)
{
    void *p = NULL;

    KIT_OK(OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, bytes, &p));
    return p;
}

static unsigned char *pattern(size_t bytes, unsigned seed)
{
    unsigned char *p = malloc(bytes + 1);

    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (unsigned char)(seed >> 24);
    }
    return p;
}

/* What is in device memory, when everything enqueued on `s` has run. */
static void expect(trm_stream *s, const void *device, const unsigned char *want, size_t bytes)
{
    unsigned char *got = malloc(bytes + 1);

    ck_assert_ptr_nonnull(got);
    KIT_OK(OPS->copy_out(kit_gpu, s, got, device, bytes));
    KIT_OK(OPS->stream_wait(kit_gpu, s));
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != want[i]) /* an assertion a byte would take minutes */
            ck_abort_msg("byte %zu of %zu: got %u, want %u", i, bytes, got[i], want[i]);
    free(got);
}

START_TEST(describes_itself)
{
    trm_device_info info;
    trm_op_desc desc = {.op = TRM_OP_NONE};

    OPS->info(kit_gpu, &info);
    ck_assert_ptr_nonnull(strstr(info.name, "cuda:0, sm_"));
    ck_assert_uint_gt(info.memory_bytes, 0);
    ck_assert_str_eq(OPS->name, "cuda");
    ck_assert(!kit_gpu->host_memory);
    ck_assert_ptr_eq(trm_device_host(kit_gpu), kit_cpu);
    ck_assert(!OPS->supports(kit_gpu, &desc));
}
END_TEST

START_TEST(memory_is_aligned)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000003};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int kind = TRM_MEMORY_DEVICE; kind <= TRM_MEMORY_PINNED; kind++) {
            void *p = NULL;

            KIT_OK(OPS->alloc(kit_gpu, (trm_memory_kind)kind, sizes[i], &p));
            ck_assert_ptr_nonnull(p);
            ck_assert_uint_eq((uintptr_t)p % TRM_ALIGN, 0);
            if (kind == TRM_MEMORY_PINNED)
                memset(p, 1, sizes[i]);
            OPS->free(kit_gpu, (trm_memory_kind)kind, p);
        }
    }
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, NULL);
    OPS->free(kit_gpu, TRM_MEMORY_PINNED, NULL);
}
END_TEST

START_TEST(copies_and_fills)
{
    const size_t n = 100000;
    unsigned char *a = pattern(n, 1), *b = pattern(n, 2), *pinned = NULL;
    unsigned char *p = device_memory(n), *q = device_memory(n);
    void *host = NULL;

    KIT_OK(OPS->alloc(kit_gpu, TRM_MEMORY_PINNED, n, &host));
    pinned = host;
    KIT_OK(OPS->copy_in(kit_gpu, NULL, p, a, n));
    expect(NULL, p, a, n);
    memcpy(pinned, b, n);
    KIT_OK(OPS->copy_in(kit_gpu, NULL, q, pinned, n));
    expect(NULL, q, b, n);
    KIT_OK(OPS->copy_within(kit_gpu, NULL, q + 7, p + 1000, 501));
    memcpy(b + 7, a + 1000, 501);
    expect(NULL, q, b, n);
    KIT_OK(OPS->fill_zero(kit_gpu, NULL, q + 3, 1001));
    memset(b + 3, 0, 1001);
    KIT_OK(OPS->copy_out(kit_gpu, NULL, pinned, q, n));
    KIT_OK(OPS->stream_wait(kit_gpu, NULL));
    ck_assert_int_eq(memcmp(pinned, b, n), 0);
    /* nothing to do */
    KIT_OK(OPS->copy_in(kit_gpu, NULL, NULL, NULL, 0));
    KIT_OK(OPS->copy_out(kit_gpu, NULL, NULL, NULL, 0));
    KIT_OK(OPS->copy_within(kit_gpu, NULL, NULL, NULL, 0));
    KIT_OK(OPS->copy_within(kit_gpu, NULL, q, q, n));
    KIT_OK(OPS->fill_zero(kit_gpu, NULL, NULL, 0));
    KIT_OK(OPS->upload(kit_gpu, NULL, NULL, 0));
    expect(NULL, q, b, n);
    OPS->free(kit_gpu, TRM_MEMORY_PINNED, pinned);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, q);
    free(a);
    free(b);
}
END_TEST

/* around what is copied directly, and around the staging buffers, of which there are four */
static void upload_all_sizes(void)
{
    const size_t small = 65536, stage = (size_t)8 << 20;
    const size_t sizes[] = {1,         small - 1,     small,         small + 1,
                            stage - 1, stage,         stage + 1,     2 * stage,
                            4 * stage, 4 * stage + 5, 5 * stage - 1, 6 * stage + 1};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *a = pattern(sizes[i], (unsigned)i), *copy = pattern(sizes[i], (unsigned)i);
        void *p = device_memory(sizes[i]);

        KIT_OK(OPS->upload(kit_gpu, p, a, sizes[i]));
        memset(a, 0, sizes[i]); /* the source may be reused on return */
        expect(NULL, p, copy, sizes[i]);
        OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
        free(a);
        free(copy);
    }
}

START_TEST(uploads_of_any_size)
{
    upload_all_sizes();
    trm_team_init(3); /* pieces are filled by all of them */
    upload_all_sizes();
    trm_team_init(1);
}
END_TEST

/* Weights lie in mapped files, at any byte; the file's pages need not be in memory. */
START_TEST(uploads_from_a_file)
{
    const size_t bytes = ((size_t)20 << 20) + 77, at = 4099;
    unsigned char *a = pattern(bytes, 9);
    char name[] = "/tmp/trireme-upload-XXXXXX";
    int fd = mkstemp(name);
    const unsigned char *mapped;
    void *p = device_memory(bytes), *memory;

    ck_assert_int_ge(fd, 0);
    unlink(name);
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, a + done, bytes - done);

        ck_assert_int_gt(n, 0);
        done += (size_t)n;
    }
    memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    mapped = memory;
    (void)fsync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* where the file system does it */
    KIT_OK(OPS->upload(kit_gpu, p, mapped + at, bytes - at));
    expect(NULL, p, a + at, bytes - at);
    munmap(memory, bytes);
    close(fd);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    free(a);
}
END_TEST

START_TEST(streams_wait_for_events)
{
    const size_t n = 5000;
    unsigned char *a = pattern(n, 3), *pinned;
    void *p = device_memory(n), *q = device_memory(n), *host = NULL;
    trm_stream *s = NULL, *t = NULL;
    trm_event *e = NULL, *never = NULL;
    bool done = false;

    KIT_OK(OPS->alloc(kit_gpu, TRM_MEMORY_PINNED, n, &host));
    pinned = host;
    memset(pinned, 0, n);
    KIT_OK(OPS->stream_create(kit_gpu, &s));
    KIT_OK(OPS->stream_create(kit_gpu, &t));
    KIT_OK(OPS->event_create(kit_gpu, &e));
    KIT_OK(OPS->event_create(kit_gpu, &never));
    KIT_OK(OPS->event_done(kit_gpu, never, &done)); /* nothing to wait for */
    ck_assert(done);
    KIT_OK(OPS->event_wait(kit_gpu, never, t));
    KIT_OK(OPS->copy_in(kit_gpu, s, p, a, n));
    KIT_OK(OPS->event_record(kit_gpu, e, s));
    KIT_OK(OPS->event_wait(kit_gpu, e, t));
    KIT_OK(OPS->copy_within(kit_gpu, t, q, p, n));
    KIT_OK(OPS->copy_out(kit_gpu, t, pinned, q, n));
    KIT_OK(OPS->event_record(kit_gpu, e, t));
    for (done = false; !done;)
        KIT_OK(OPS->event_done(kit_gpu, e, &done));
    ck_assert_int_eq(memcmp(pinned, a, n), 0);
    KIT_OK(OPS->stream_wait(kit_gpu, t));
    KIT_OK(OPS->stream_wait(kit_gpu, s));
    OPS->event_destroy(kit_gpu, e);
    OPS->event_destroy(kit_gpu, never);
    OPS->event_destroy(kit_gpu, NULL);
    OPS->stream_destroy(kit_gpu, s);
    OPS->stream_destroy(kit_gpu, t);
    OPS->stream_destroy(kit_gpu, NULL);
    OPS->free(kit_gpu, TRM_MEMORY_PINNED, host);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, q);
    free(a);
}
END_TEST

START_TEST(captures_replay)
{
    const size_t n = 3000;
    unsigned char *a = pattern(n, 4), *b = pattern(n, 5);
    void *p = device_memory(n), *q = device_memory(n), *r = device_memory(n), *more = NULL;
    trm_stream *s = NULL, *side = NULL;
    trm_event *fork_event = NULL, *join = NULL;
    trm_capture *c = NULL;

    KIT_OK(OPS->stream_create(kit_gpu, &s));
    KIT_OK(OPS->stream_create(kit_gpu, &side));
    KIT_OK(OPS->event_create(kit_gpu, &fork_event));
    KIT_OK(OPS->event_create(kit_gpu, &join));
    KIT_OK(OPS->copy_in(kit_gpu, s, p, a, n));
    KIT_OK(OPS->fill_zero(kit_gpu, s, q, n));
    KIT_OK(OPS->stream_wait(kit_gpu, s));

    KIT_OK(OPS->capture_begin(kit_gpu, s));
    KIT_OK(OPS->copy_within(kit_gpu, s, q, p, n));
    KIT_OK(OPS->event_record(kit_gpu, fork_event, s));
    KIT_OK(OPS->event_wait(kit_gpu, fork_event, side));
    KIT_OK(OPS->copy_within(kit_gpu, side, r, q, n));
    KIT_OK(OPS->event_record(kit_gpu, join, side));
    KIT_OK(OPS->event_wait(kit_gpu, join, s));
    KIT_OK(OPS->capture_end(kit_gpu, s, &c));
    memset(b, 0, n);
    expect(s, q, b, n); /* recorded, not run */
    for (unsigned round = 0; round < 3; round++) {
        free(b);
        b = pattern(n, 10 + round);
        KIT_OK(OPS->copy_in(kit_gpu, s, p, b, n));
        KIT_OK(OPS->capture_launch(kit_gpu, c, s));
        expect(s, r, b, n);
    }
    OPS->capture_destroy(kit_gpu, c);
    OPS->capture_destroy(kit_gpu, NULL);

    /* a capture that fails leaves a stream that works */
    KIT_OK(OPS->capture_begin(kit_gpu, s));
    ck_assert_int_ne(OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 10, &more), TRM_OK);
    c = NULL;
    ck_assert_int_ne(OPS->capture_end(kit_gpu, s, &c), TRM_OK);
    ck_assert_ptr_null(c);
    KIT_OK(OPS->copy_in(kit_gpu, s, p, a, n));
    expect(s, p, a, n);

    OPS->event_destroy(kit_gpu, fork_event);
    OPS->event_destroy(kit_gpu, join);
    OPS->stream_destroy(kit_gpu, side);
    OPS->stream_destroy(kit_gpu, s);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, q);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, r);
    free(a);
    free(b);
}
END_TEST

/* ---- in processes of their own ---- */

static int say(trm_status st)
{
    printf("%s: %s\n", trm_status_name(st), st == TRM_OK ? "" : trm_message());
    return st != TRM_OK && strchr(trm_message(), '\n') != NULL ? 3 : 0;
}

static trm_status create(void)
{
    trm_cuda_options options = {.device = getenv("CHILD_DEVICE") != NULL ? 7 : 0};

    TRM_CHECK(trm_device_cpu_create(1, &kit_cpu));
    return trm_device_cuda_create(&options, kit_cpu, &kit_gpu);
}

static int child_create(void)
{
    trm_status st = create();

    if (st == TRM_OK)
        trm_device_destroy(kit_gpu);
    trm_device_destroy(kit_cpu);
    return say(st);
}

static int child_memory(void)
{
    void *p = NULL, *q = NULL;
    int bad;

    if (create() != TRM_OK || OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 20000000, &p) != TRM_OK)
        return say(TRM_ERR_INTERNAL);
    bad = say(OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 60000000, &q));
    if (OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 30000000, &q) != TRM_OK) /* what fits, fits */
        return say(TRM_ERR_INTERNAL);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, q);
    trm_device_destroy(kit_gpu);
    trm_device_destroy(kit_cpu);
    return bad;
}

/* After a kernel that faults every call says that the device is lost. */
static int child_lost(void)
{
    trm_tensor from = KIT_T(TRM_DTYPE_F32, 2, 3, 4, 5), to = from;
    trm_kernel *k = NULL;
    void *p = NULL, *q = NULL, *more = NULL;
    const void *in[1];
    void *out[1];
    bool done;
    trm_event *e = NULL;
    char host[16] = {0};
    trm_status st[6];

    to.layout = TRM_LAYOUT_CHANNELS_LAST;
    if (create() != TRM_OK || OPS->prepare_reorder(kit_gpu, &from, &to, &k) != TRM_OK ||
        OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 480, &p) != TRM_OK ||
        OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 480, &q) != TRM_OK ||
        OPS->event_create(kit_gpu, &e) != TRM_OK || OPS->event_record(kit_gpu, e, NULL) != TRM_OK)
        return say(TRM_ERR_INTERNAL);
    in[0] = p;
    out[0] = q;
    (void)k->ops->run(k, NULL, in, out, NULL); /* may see it already */
    st[0] = OPS->stream_wait(kit_gpu, NULL);
    (void)say(st[0]);
    st[1] = OPS->alloc(kit_gpu, TRM_MEMORY_DEVICE, 10, &more);
    st[2] = OPS->copy_in(kit_gpu, NULL, p, host, sizeof(host));
    st[3] = k->ops->run(k, NULL, in, out, NULL);
    st[4] = OPS->event_done(kit_gpu, e, &done);
    st[5] = OPS->stream_wait(kit_gpu, NULL);
    for (int i = 0; i < 6; i++)
        if (st[i] != TRM_ERR_DEVICE)
            return 10 + i;
    trm_kernel_destroy(k); /* nothing of this crashes */
    OPS->event_destroy(kit_gpu, e);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, p);
    OPS->free(kit_gpu, TRM_MEMORY_DEVICE, q);
    trm_device_destroy(kit_gpu);
    trm_device_destroy(kit_cpu);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} children[] = {{"create", child_create}, {"memory", child_memory}, {"lost", child_lost}};

static const child_row rows[] = {
    {"create", {NULL}, 0, "ok: "},
    {"create", {"TRM_EMU_LEAKS=1"}, 0, "ok: "},
    {"create", {"TRM_EMU_DRIVER=none"}, 0, "no CUDA device: the driver sees none"},
    {"create", {"TRM_EMU_DEVICES=0"}, 0, "no CUDA device: the driver sees none"},
    {"create", {"TRM_EMU_DRIVER=old"}, 0, "too old: it knows CUDA 11.4"},
    {"create", {"TRM_EMU_DRIVER=stub"}, 0, "does not start: CUDA driver is a stub library"},
    {"create", {"TRM_CUDA_DRIVER=/nonexistent/libcuda.so.1"}, 0, "no CUDA driver: "},
    {"create", {"TRM_CUDA_MODULE=/nonexistent/libtrireme_cuda.so"}, 0, "/nonexistent/"},
    {"create", {"CHILD_DEVICE=7"}, 0, "CUDA device 7: this host has 1"},
    {"create", {"CHILD_DEVICE=7", "TRM_EMU_DEVICES=8"}, 0, "ok: "},
    {"memory", {"TRM_EMU_MEMORY=50000000"}, 0, "60.0 MB of device memory: 30.0 MB of 50.0 MB"},
    {"lost", {"TRM_EMU_FAULT=1:700"}, 0, "CUDA error 700"},
    {"lost", {"TRM_EMU_FAULT=1:719"}, 0, "CUDA error 719"},
    {"lost", {"TRM_EMU_FAULT=1:700", "TRM_EMU_LATE=1"}, 0, "CUDA error 700"},
};

START_TEST(processes)
{
    if (getenv("TRM_CUDA_DRIVER") != NULL) /* the emulated one, which can be told what to be */
        child_check(&rows[_i]);
}
END_TEST

/* All of the above once more, with work that waits until somebody waits for it. */
START_TEST(late)
{
    static const child_row row = {"all", {"TRM_EMU_LATE=1", "TRM_EMU_LEAKS=1"}, 0, NULL};
    static const child_row guarded = {"all", {"TRM_EMU_GUARD=1"}, 0, NULL};

    if (getenv("TRM_CUDA_DRIVER") != NULL) {
        child_check(&row);
        child_check(&guarded);
    }
}
END_TEST

int main(int argc, char **argv)
{
    TCase *t = tcase_create("backend");
    bool all = argc == 3 && strcmp(argv[2], "all") == 0;

    if (argc == 3 && strcmp(argv[1], CHILD_FLAG) == 0 && !all) {
        for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++)
            if (strcmp(children[i].name, argv[2]) == 0)
                return children[i].run();
        return 2;
    }
    tcase_add_test(t, describes_itself);
    tcase_add_test(t, memory_is_aligned);
    tcase_add_test(t, copies_and_fills);
    tcase_add_test(t, uploads_of_any_size);
    tcase_add_test(t, uploads_from_a_file);
    tcase_add_test(t, streams_wait_for_events);
    tcase_add_test(t, captures_replay);
    if (!all) {
        tcase_add_loop_test(t, processes, 0, sizeof(rows) / sizeof(rows[0]));
        tcase_add_test(t, late);
    }
    return kit_main("backend", t);
}
