/* Wire messages: round trips, msgpack-c as an independent reader, truncation, hostile bytes, and a
 * frame recorded from version 2 that must stay readable. */
#include "base/wire.h"

#include <check.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

static trm_arena *arena;

static void setup(void)
{
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
}

static void teardown(void)
{
    trm_arena_destroy(arena);
}

static float values[6] = {1.5f, -2, 3, 0, 5, 1e30f};
static const trm_wire_tensor tensors[] = {
    {.name = "image",
     .tensor = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {2, 3}, .data = values}},
    {.name = "", .tensor = {.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {0}, .data = values}},
    {.name = "s", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 0, .data = values}},
};
static const trm_wire_record records[] = {
    {.id = 7, .kind = TRM_RECORD_IMAGE_PATH, .name = "b.png", .bytes = "a/b.png", .byte_count = 7},
    {.id = UINT64_MAX,
     .kind = TRM_RECORD_IMAGE_BYTES,
     .name = "x",
     .bytes = "\0\1\2",
     .byte_count = 3},
    {.id = 0, .kind = TRM_RECORD_TENSORS, .name = "0", .tensors = tensors, .tensor_count = 3},
};
static const trm_wire_label labels[] = {{3, 0.75f, "three"}, {-1, 0.25f, ""}};
static const trm_wire_result results[] = {
    {.id = 7,
     .message = "",
     .outputs = tensors,
     .output_count = 2,
     .labels = labels,
     .label_count = 2},
    {.id = 300, .status = TRM_ERR_BAD_FILE, .message = "x.png: not an image"},
};
static const trm_wire_message messages[] = {
    {.kind = TRM_WIRE_HELLO,
     .host = "node7",
     .rank = 3,
     .pid = 70000,
     .segment = "/proc/7/fd/9:00",
     .segment_bytes = 1ull << 40},
    {.kind = TRM_WIRE_READY, .credits = 64, .batch_max = 32},
    {.kind = TRM_WIRE_CREDIT, .credits = 1u << 31},
    {.kind = TRM_WIRE_BATCH, .records = records, .count = 3},
    {.kind = TRM_WIRE_RESULT, .results = results, .count = 2},
    {.kind = TRM_WIRE_HEARTBEAT, .phase = TRM_PHASE_STEADY, .progress = 123456789012ull},
    {.kind = TRM_WIRE_ERROR, .status = TRM_ERR_COMM, .message = "lost"},
    {.kind = TRM_WIRE_DRAIN},
    {.kind = TRM_WIRE_STOP, .lost = true},
};
enum { MESSAGES = sizeof(messages) / sizeof(messages[0]) };

static void same_tensors(const trm_wire_tensor *a, const trm_wire_tensor *b, int n)
{
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;

        ck_assert_str_eq(a[i].name, b[i].name);
        ck_assert_int_eq(a[i].tensor.dtype, b[i].tensor.dtype);
        ck_assert(trm_tensor_same_shape(&a[i].tensor, &b[i].tensor));
        ck_assert_int_eq(trm_tensor_bytes(&a[i].tensor, &bytes), TRM_OK);
        ck_assert(bytes == 0 || memcmp(a[i].tensor.data, b[i].tensor.data, bytes) == 0);
    }
}

static void same(const trm_wire_message *a, const trm_wire_message *b)
{
    ck_assert_int_eq(a->kind, b->kind);
    ck_assert_str_eq(a->host ? a->host : "", b->host);
    ck_assert_int_eq(a->rank, b->rank);
    ck_assert_int_eq(a->pid, b->pid);
    ck_assert_str_eq(a->segment ? a->segment : "", b->segment);
    ck_assert_uint_eq(a->segment_bytes, b->segment_bytes);
    ck_assert_uint_eq(a->credits, b->credits);
    ck_assert_uint_eq(a->batch_max, b->batch_max);
    ck_assert_int_eq(a->count, b->count);
    ck_assert_int_eq(a->phase, b->phase);
    ck_assert_uint_eq(a->progress, b->progress);
    ck_assert_int_eq(a->status, b->status);
    ck_assert_str_eq(a->message ? a->message : "", b->message);
    ck_assert_int_eq(a->lost, b->lost);
    for (int i = 0; a->records != NULL && i < a->count; i++) {
        const trm_wire_record *x = &a->records[i], *y = &b->records[i];

        ck_assert_uint_eq(x->id, y->id);
        ck_assert_int_eq(x->kind, y->kind);
        ck_assert_str_eq(x->name, y->name);
        ck_assert_uint_eq(x->byte_count, y->byte_count);
        ck_assert(x->byte_count == 0 || memcmp(x->bytes, y->bytes, x->byte_count) == 0);
        ck_assert_int_eq(x->tensor_count, y->tensor_count);
        same_tensors(x->tensors, y->tensors, x->tensor_count);
    }
    for (int i = 0; a->results != NULL && i < a->count; i++) {
        const trm_wire_result *x = &a->results[i], *y = &b->results[i];

        ck_assert_uint_eq(x->id, y->id);
        ck_assert_int_eq(x->status, y->status);
        ck_assert_str_eq(x->message, y->message);
        ck_assert_int_eq(x->output_count, y->output_count);
        same_tensors(x->outputs, y->outputs, x->output_count);
        ck_assert_int_eq(x->label_count, y->label_count);
        for (int k = 0; k < x->label_count; k++) {
            ck_assert_int_eq(x->labels[k].index, y->labels[k].index);
            ck_assert(fabsf(x->labels[k].score - y->labels[k].score) <= 0);
            ck_assert_str_eq(x->labels[k].text, y->labels[k].text);
        }
    }
}

START_TEST(round_trip)
{
    const trm_wire_message *m = &messages[_i];
    trm_wire_buffer b = {0};
    trm_wire_message back;
    msgpack_unpacked un;
    size_t at = 0;

    ck_assert_int_eq(trm_wire_encode(m, &b), TRM_OK);
    ck_assert_msg(trm_wire_decode(b.data, b.bytes, arena, &back) == TRM_OK, "%s", trm_message());
    same(m, &back);
    ck_assert_int_eq(trm_wire_peek(b.data, b.bytes), m->kind);
    ck_assert_int_eq(trm_wire_peek(b.data, 2), 0);
    /* the library's own reader finds the same envelope */
    msgpack_unpacked_init(&un);
    ck_assert_int_eq(msgpack_unpack_next(&un, (const char *)b.data, b.bytes, &at),
                     MSGPACK_UNPACK_SUCCESS);
    ck_assert_uint_eq(at, b.bytes);
    ck_assert_int_eq(un.data.type, MSGPACK_OBJECT_ARRAY);
    ck_assert_uint_eq(un.data.via.array.ptr[0].via.u64, TRM_WIRE_VERSION);
    ck_assert_uint_eq(un.data.via.array.ptr[1].via.u64, (uint64_t)m->kind);
    msgpack_unpacked_destroy(&un);
    trm_wire_buffer_fini(&b);
}
END_TEST

/* every proper prefix, and one byte too many, is refused; the copies are exact so that a sanitizer
 * sees any overrun */
START_TEST(truncated)
{
    trm_wire_buffer b = {0};
    trm_wire_message back;

    ck_assert_int_eq(trm_wire_encode(&messages[_i], &b), TRM_OK);
    for (size_t n = 0; n <= b.bytes + 1; n++) {
        unsigned char *copy = malloc(n + (n == 0));

        ck_assert_ptr_nonnull(copy);
        memset(copy, 0, n + (n == 0));
        memcpy(copy, b.data, n < b.bytes ? n : b.bytes);
        ck_assert_int_eq(trm_wire_decode(copy, n, arena, &back),
                         n == b.bytes ? TRM_OK : TRM_ERR_COMM);
        free(copy);
    }
    trm_wire_buffer_fini(&b);
}
END_TEST

/* every single-byte change gives a status, never a crash, and little memory */
START_TEST(mutated)
{
    trm_wire_buffer b = {0};
    trm_wire_message back;

    ck_assert_int_eq(trm_wire_encode(&messages[_i], &b), TRM_OK);
    for (size_t at = 0; at < b.bytes; at++) {
        unsigned char old = b.data[at];

        for (unsigned v = 0; v < 256; v++) {
            trm_status st;

            b.data[at] = (unsigned char)v;
            st = trm_wire_decode(b.data, b.bytes, arena, &back);
            ck_assert(st == TRM_OK || st == TRM_ERR_COMM);
        }
        b.data[at] = old;
    }
    ck_assert_uint_lt(trm_arena_bytes(arena), (size_t)256 << 20);
    trm_wire_buffer_fini(&b);
}
END_TEST

static const struct {
    const char *name, *bytes;
    size_t n;
    const char *says;
} hostile[] = {
    {"empty", "", 0, "ends too early"},
    {"a map", "\x80", 1, "not a message"},
    {"other version", "\x92\x01\x08", 3, "version 1"},
    {"kind 0", "\x92\x02\x00", 3, "wrong number"},
    {"kind 99", "\x92\x02\x63", 3, "unknown kind"},
    {"drain with a field", "\x93\x02\x08\x00", 4, "wrong number"},
    {"four billion records", "\x93\x02\x04\xdd\xff\xff\xff\xff", 8, "records"},
    {"records without bytes", "\x93\x02\x04\xdc\x0f\xff\x95", 7, "records"},
    {"text of 4 GiB", "\x97\x02\x01\xdb\xff\xff\xff\xff\x01\x01", 10, "host"},
    {"text with a zero", "\x97\x02\x01\xa1\x00\x01\x01\xa0\x00", 9, "host"},
    {"negative rank", "\x97\x02\x01\xa1h\xff\x01\xa0\x00", 9, "rank"},
    {"rank of 64 bits", "\x97\x02\x01\xa1h\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01\xa0\x00", 17,
     "rank"},
    {"status ok as error", "\x94\x02\x07\x00\xa0", 5, "status"},
    {"nested arrays", "\x93\x02\x04\x91\x91\x91\x91\x91", 8, "five fields"},
    /* [2, BATCH, [[0, TENSORS, "", bin0, [["", F32, [2^40, 2^40], bin0]]]]]: size overflows */
    {"huge dims",
     "\x93\x02\x04\x91\x95\x00\x02\xa0\xc4\x00\x91\x94\xa0\x01\x92"
     "\xcf\x00\x00\x01\x00\x00\x00\x00\x00\xcf\x00\x00\x01\x00\x00\x00\x00\x00\xc4\x00",
     35, "size of its shape"},
};

START_TEST(refuses)
{
    trm_wire_message back;

    ck_assert_msg(trm_wire_decode(hostile[_i].bytes, hostile[_i].n, arena, &back) == TRM_ERR_COMM,
                  "%s was taken", hostile[_i].name);
    ck_assert_msg(strstr(trm_message(), hostile[_i].says) != NULL, "%s: %s", hostile[_i].name,
                  trm_message());
}
END_TEST

/* bytes written down when version 2 was made: a change that breaks this needs version 3 */
START_TEST(recorded_frames)
{
    static const unsigned char ready[] = {0x94, 0x02, 0x02, 0x40, 0x20};
    static const unsigned char result[] = {0x93, 0x02, 0x05, 0x91, 0x95, 0x07, 0x00, 0xa0, 0x91,
                                           0x94, 0xa1, 'y',  0x01, 0x92, 0x01, 0x01, 0xc4, 0x04,
                                           0x00, 0x00, 0xc0, 0x3f, 0x91, 0x93, 0x03, 0xca, 0x3f,
                                           0x40, 0x00, 0x00, 0xa3, 'c',  'a',  't'};
    trm_wire_message m;
    float v;

    ck_assert_int_eq(trm_wire_decode(ready, sizeof(ready), arena, &m), TRM_OK);
    ck_assert_uint_eq(m.credits, 64);
    ck_assert_uint_eq(m.batch_max, 32);
    ck_assert_msg(trm_wire_decode(result, sizeof(result), arena, &m) == TRM_OK, "%s",
                  trm_message());
    ck_assert_str_eq(m.results[0].labels[0].text, "cat");
    memcpy(&v, m.results[0].outputs[0].tensor.data, 4);
    ck_assert(fabsf(v - 1.5f) <= 0);
}
END_TEST

START_TEST(batch_of_kept_records)
{
    trm_wire_buffer kept[3] = {{0}}, b = {0}, whole = {0};
    const trm_wire_buffer *list[3];

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(trm_wire_encode_record(&records[i], &kept[i]), TRM_OK);
        list[i] = &kept[i];
    }
    ck_assert_int_eq(trm_wire_encode_batch(list, 3, &b), TRM_OK);
    ck_assert_int_eq(trm_wire_encode(&messages[3], &whole), TRM_OK);
    ck_assert_uint_eq(b.bytes, whole.bytes);
    ck_assert(memcmp(b.data, whole.data, b.bytes) == 0);
    for (int i = 0; i < 3; i++)
        trm_wire_buffer_fini(&kept[i]);
    trm_wire_buffer_fini(&b);
    trm_wire_buffer_fini(&whole);
}
END_TEST

START_TEST(encoder_refuses_and_takes_back)
{
    trm_wire_tensor open = {.name = "x",
                            .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {-1}}};
    trm_wire_record r = {
        .kind = TRM_RECORD_TENSORS, .name = "r", .tensors = &open, .tensor_count = 1};
    trm_wire_buffer b = {0};

    ck_assert_int_eq(trm_wire_encode(&messages[0], &b), TRM_OK);
    for (size_t before = b.bytes; before != 0; before = 0) {
        ck_assert_int_eq(trm_wire_encode_record(&r, &b), TRM_ERR_INVALID_ARG);
        ck_assert_uint_eq(b.bytes, before);
        trm_wire_buffer_fini(&b);
        trm_alloc_fail_after(0);
        ck_assert_int_eq(trm_wire_encode(&messages[0], &b), TRM_ERR_NO_MEMORY);
        trm_alloc_fail_after(-1);
        ck_assert_uint_eq(b.bytes, 0);
    }
    trm_wire_buffer_fini(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tc = tcase_create("wire");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, round_trip, 0, MESSAGES);
    tcase_add_loop_test(tc, truncated, 0, MESSAGES);
    tcase_add_loop_test(tc, mutated, 0, MESSAGES);
    tcase_add_loop_test(tc, refuses, 0, (int)(sizeof(hostile) / sizeof(hostile[0])));
    tcase_add_test(tc, recorded_frames);
    tcase_add_test(tc, batch_of_kept_records);
    tcase_add_test(tc, encoder_refuses_and_takes_back);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
