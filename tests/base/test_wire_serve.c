/* The wire's messages of serving: frames that another msgpack library wrote down decode to the
 * stated values and encode to the same bytes; truncations, changed bytes, every limit; tensors in
 * shared memory. */
#include "base/wire_serve.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
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

static float values[2] = {1.5f, -2};
static const trm_wire_tensor input = {
    .name = "x", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {1, 2}, .data = values}};
static const trm_wire_tensor output = {
    .name = "y", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = values}};
static const trm_wire_tensor shared = {.name = "x",
                                       .tensor = {TRM_DTYPE_F32, .rank = 2, .dims = {1, 65536}},
                                       .shared = true,
                                       .offset = 128};
static const trm_wire_label labels[] = {{3, 0.75f, "cat"}, {-1, 0.25f, ""}};

static const trm_wire_request infer = {.id = 7,
                                       .kind = TRM_REQUEST_INFER,
                                       .model = "resnet",
                                       .version = 3,
                                       .priority = -1,
                                       .deadline_ms = 2500,
                                       .tag = "",
                                       .tensors = &input,
                                       .tensor_count = 1};
static const trm_wire_request chat = {.id = 300,
                                      .kind = TRM_REQUEST_CHAT,
                                      .model = "lm",
                                      .slot = 4,
                                      .priority = 2,
                                      .stream = true,
                                      .seed = 12345678901234567890ull,
                                      .created = 1700000000,
                                      .tag = "ab",
                                      .body = "{\"a\":1}",
                                      .body_bytes = 7};
static const trm_wire_request by_reference = {.id = 1,
                                              .kind = TRM_REQUEST_INFER,
                                              .model = "m",
                                              .tag = "",
                                              .tensors = &shared,
                                              .tensor_count = 1};
static const trm_wire_part part = {
    .id = 7, .new_tokens = 2, .body = "{\"c\":1}\n{\"c\":2}\n", .body_bytes = 16};
static const trm_wire_answer answer = {.id = 7,
                                       .message = "",
                                       .model = "resnet",
                                       .version = 3,
                                       .outputs = &output,
                                       .output_count = 1,
                                       .labels = labels,
                                       .label_count = 2,
                                       .label_rows = 2,
                                       .prompt_tokens = 1,
                                       .cached_tokens = 2,
                                       .new_tokens = 3,
                                       .queue_us = 40000,
                                       .first_us = 500000,
                                       .run_us = 1ull << 33,
                                       .batch = 8};
static const trm_wire_answer failed = {
    .id = 9, .status = TRM_ERR_NOT_FOUND, .message = "no model 'x'", .model = ""};
static const trm_wire_load load = {
    .slot = 4, .name = "lm", .version = 2, .path = "/models/lm", .settings = "{\"max_batch\":8}"};
static const trm_wire_model model = {.slot = 4,
                                     .state = TRM_MODEL_READY,
                                     .message = "",
                                     .metadata = "{\"kind\":\"generate\"}",
                                     .credits = 16};
static const trm_wire_model_stats model_stats = {.slot = 4,
                                                 .running = 1,
                                                 .waiting = 2,
                                                 .kv_pages = 300,
                                                 .kv_pages_used = 20,
                                                 .prefix_queries = 1000,
                                                 .prefix_hits = 900,
                                                 .preemptions = 0,
                                                 .steps = 50,
                                                 .prompt_tokens = 60,
                                                 .new_tokens = 70,
                                                 .step_us = 80000,
                                                 .batches = 5,
                                                 .batched = 40};
static const trm_wire_rank_stats rank_stats = {.rank = 0,
                                               .pid = 4711,
                                               .host = "node1",
                                               .device = "cpu",
                                               .memory_bytes = 1ull << 31,
                                               .busy_us = 5,
                                               .cpu_us = 6};
static const trm_wire_stats stats = {.time_us = 1000000,
                                     .models = &model_stats,
                                     .model_count = 1,
                                     .ranks = &rank_stats,
                                     .rank_count = 1};

/* Written by the msgpack package of Python from the lists that docs/protocol.md describes, when
 * version 2 was made: a change that breaks one of them needs version 3. */
static const struct {
    const char *name;
    trm_wire_message message;
    const char *hex;
} frames[] = {
    {"hello",
     {.kind = TRM_WIRE_HELLO,
      .host = "node1",
      .pid = 4711,
      .segment = "/proc/1/fd/2:00",
      .segment_bytes = 65536},
     "970201a56e6f64653100cd1267af2f70726f632f312f66642f323a3030ce00010000"},
    {"infer",
     {.kind = TRM_WIRE_REQUEST, .u.request = &infer},
     "9f020a0705a67265736e65740300ffcd09c4000000a0c4009194a17801920102c4080000c03f000000c0"},
    {"chat",
     {.kind = TRM_WIRE_REQUEST, .u.request = &chat},
     "9f020acd012c01a26c6d0004020001cfab54a98ceb1f0ad2ce6553f100a26162c4077b2261223a317d90"},
    {"tensor in shared memory",
     {.kind = TRM_WIRE_REQUEST, .u.request = &by_reference},
     "9f020a0105a16d00000000000000a0c4009194a178019201ce0001000092cc80ce00040000"},
    {"cancel", {.kind = TRM_WIRE_CANCEL, .u.id = UINT64_MAX}, "93020bcfffffffffffffffff"},
    {"part",
     {.kind = TRM_WIRE_PART, .u.part = &part},
     "95020c0702c4107b2263223a317d0a7b2263223a327d0a"},
    {"answer",
     {.kind = TRM_WIRE_ANSWER, .u.answer = &answer},
     "9c020d0700a0a67265736e657403c4009194a179019102c4080000c03f000000c0929303ca3f400000a36361"
     "7493ffca3e800000a00297010203cd9c40ce0007a120cf000000020000000008"},
    {"failed answer",
     {.kind = TRM_WIRE_ANSWER, .u.answer = &failed},
     "9c020d0903ac6e6f206d6f64656c20277827a000c4009090009700000000000000"},
    {"load",
     {.kind = TRM_WIRE_LOAD, .u.load = &load},
     "97020e04a26c6d02aa2f6d6f64656c732f6c6daf7b226d61785f6261746368223a387d"},
    {"unload", {.kind = TRM_WIRE_UNLOAD, .u.slot = 4}, "93020f04"},
    {"model",
     {.kind = TRM_WIRE_MODEL, .u.model = &model},
     "9702100401a0b37b226b696e64223a2267656e6572617465227d10"},
    {"stats",
     {.kind = TRM_WIRE_STATS, .u.stats = &stats},
     "950211ce000f4240919e040102cd012c14cd03e8cd038400323c46ce000138800528919700cd1267a56e6f64"
     "6531a3637075ce800000000506"},
    {"release", {.kind = TRM_WIRE_RELEASE, .u.release = {128, 262144}}, "940212cc80ce00040000"},
};
enum { FRAMES = sizeof(frames) / sizeof(frames[0]) };

static size_t unhex(const char *hex, unsigned char *out, size_t room)
{
    size_t n = strlen(hex) / 2;

    ck_assert_uint_le(n, room);
    for (size_t i = 0; i < n; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};

        out[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return n;
}

static void same_tensors(const trm_wire_tensor *a, const trm_wire_tensor *b, int n)
{
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;

        ck_assert_str_eq(a[i].name, b[i].name);
        ck_assert_int_eq(a[i].tensor.dtype, b[i].tensor.dtype);
        ck_assert(trm_tensor_same_shape(&a[i].tensor, &b[i].tensor));
        ck_assert_int_eq(a[i].shared, b[i].shared);
        ck_assert_uint_eq(a[i].offset, b[i].offset);
        ck_assert_int_eq(trm_tensor_bytes(&a[i].tensor, &bytes), TRM_OK);
        if (a[i].shared)
            ck_assert_ptr_null(b[i].tensor.data);
        else
            ck_assert(bytes == 0 || memcmp(a[i].tensor.data, b[i].tensor.data, bytes) == 0);
    }
}

static void same_bytes(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    ck_assert_uint_eq(a_bytes, b_bytes);
    ck_assert(a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

static void same_request(const trm_wire_request *a, const trm_wire_request *b)
{
    ck_assert_uint_eq(a->id, b->id);
    ck_assert_int_eq(a->kind, b->kind);
    ck_assert_str_eq(a->model, b->model);
    ck_assert_int_eq(a->version, b->version);
    ck_assert_uint_eq(a->slot, b->slot);
    ck_assert_int_eq(a->priority, b->priority);
    ck_assert_uint_eq(a->deadline_ms, b->deadline_ms);
    ck_assert_int_eq(a->stream, b->stream);
    ck_assert_uint_eq(a->seed, b->seed);
    ck_assert_int_eq(a->created, b->created);
    ck_assert_str_eq(a->tag, b->tag);
    same_bytes(a->body, a->body_bytes, b->body, b->body_bytes);
    ck_assert_int_eq(a->tensor_count, b->tensor_count);
    same_tensors(a->tensors, b->tensors, a->tensor_count);
}

static void same_answer(const trm_wire_answer *a, const trm_wire_answer *b)
{
    ck_assert_uint_eq(a->id, b->id);
    ck_assert_int_eq(a->status, b->status);
    ck_assert_str_eq(a->message, b->message);
    ck_assert_str_eq(a->model, b->model);
    ck_assert_int_eq(a->version, b->version);
    same_bytes(a->body, a->body_bytes, b->body, b->body_bytes);
    ck_assert_int_eq(a->output_count, b->output_count);
    same_tensors(a->outputs, b->outputs, a->output_count);
    ck_assert_int_eq(a->label_count, b->label_count);
    ck_assert_int_eq(a->label_rows, b->label_rows);
    for (int i = 0; i < a->label_count; i++) {
        ck_assert_int_eq(a->labels[i].index, b->labels[i].index);
        ck_assert(fabsf(a->labels[i].score - b->labels[i].score) <= 0);
        ck_assert_str_eq(a->labels[i].text, b->labels[i].text);
    }
    ck_assert_uint_eq(a->prompt_tokens, b->prompt_tokens);
    ck_assert_uint_eq(a->cached_tokens, b->cached_tokens);
    ck_assert_uint_eq(a->new_tokens, b->new_tokens);
    ck_assert_uint_eq(a->queue_us, b->queue_us);
    ck_assert_uint_eq(a->first_us, b->first_us);
    ck_assert_uint_eq(a->run_us, b->run_us);
    ck_assert_uint_eq(a->batch, b->batch);
}

static void same_model_stats(const trm_wire_model_stats *a, const trm_wire_model_stats *b)
{
    ck_assert_uint_eq(a->slot, b->slot);
    ck_assert_uint_eq(a->running, b->running);
    ck_assert_uint_eq(a->waiting, b->waiting);
    ck_assert_uint_eq(a->kv_pages, b->kv_pages);
    ck_assert_uint_eq(a->kv_pages_used, b->kv_pages_used);
    ck_assert_uint_eq(a->prefix_queries, b->prefix_queries);
    ck_assert_uint_eq(a->prefix_hits, b->prefix_hits);
    ck_assert_uint_eq(a->preemptions, b->preemptions);
    ck_assert_uint_eq(a->steps, b->steps);
    ck_assert_uint_eq(a->prompt_tokens, b->prompt_tokens);
    ck_assert_uint_eq(a->new_tokens, b->new_tokens);
    ck_assert_uint_eq(a->step_us, b->step_us);
    ck_assert_uint_eq(a->batches, b->batches);
    ck_assert_uint_eq(a->batched, b->batched);
}

static void same_stats(const trm_wire_stats *a, const trm_wire_stats *b)
{
    ck_assert_uint_eq(a->time_us, b->time_us);
    ck_assert_int_eq(a->model_count, b->model_count);
    for (int i = 0; i < a->model_count; i++)
        same_model_stats(&a->models[i], &b->models[i]);
    ck_assert_int_eq(a->rank_count, b->rank_count);
    for (int i = 0; i < a->rank_count; i++) {
        ck_assert_int_eq(a->ranks[i].rank, b->ranks[i].rank);
        ck_assert_int_eq(a->ranks[i].pid, b->ranks[i].pid);
        ck_assert_str_eq(a->ranks[i].host, b->ranks[i].host);
        ck_assert_str_eq(a->ranks[i].device, b->ranks[i].device);
        ck_assert_uint_eq(a->ranks[i].memory_bytes, b->ranks[i].memory_bytes);
        ck_assert_uint_eq(a->ranks[i].busy_us, b->ranks[i].busy_us);
        ck_assert_uint_eq(a->ranks[i].cpu_us, b->ranks[i].cpu_us);
    }
}

static void same(const trm_wire_message *a, const trm_wire_message *b)
{
    ck_assert_int_eq(a->kind, b->kind);
    switch (a->kind) {
    case TRM_WIRE_HELLO:
        ck_assert_str_eq(a->host, b->host);
        ck_assert_int_eq(a->pid, b->pid);
        ck_assert_str_eq(a->segment, b->segment);
        ck_assert_uint_eq(a->segment_bytes, b->segment_bytes);
        break;
    case TRM_WIRE_REQUEST:
        same_request(a->u.request, b->u.request);
        break;
    case TRM_WIRE_CANCEL:
        ck_assert_uint_eq(a->u.id, b->u.id);
        break;
    case TRM_WIRE_PART:
        ck_assert_uint_eq(a->u.part->id, b->u.part->id);
        ck_assert_uint_eq(a->u.part->new_tokens, b->u.part->new_tokens);
        same_bytes(a->u.part->body, a->u.part->body_bytes, b->u.part->body, b->u.part->body_bytes);
        break;
    case TRM_WIRE_ANSWER:
        same_answer(a->u.answer, b->u.answer);
        break;
    case TRM_WIRE_LOAD:
        ck_assert_uint_eq(a->u.load->slot, b->u.load->slot);
        ck_assert_str_eq(a->u.load->name, b->u.load->name);
        ck_assert_int_eq(a->u.load->version, b->u.load->version);
        ck_assert_str_eq(a->u.load->path, b->u.load->path);
        ck_assert_str_eq(a->u.load->settings, b->u.load->settings);
        break;
    case TRM_WIRE_UNLOAD:
        ck_assert_uint_eq(a->u.slot, b->u.slot);
        break;
    case TRM_WIRE_MODEL:
        ck_assert_uint_eq(a->u.model->slot, b->u.model->slot);
        ck_assert_int_eq(a->u.model->state, b->u.model->state);
        ck_assert_str_eq(a->u.model->message, b->u.model->message);
        ck_assert_str_eq(a->u.model->metadata, b->u.model->metadata);
        ck_assert_uint_eq(a->u.model->credits, b->u.model->credits);
        break;
    case TRM_WIRE_STATS:
        same_stats(a->u.stats, b->u.stats);
        break;
    default:
        ck_assert_uint_eq(a->u.release.offset, b->u.release.offset);
        ck_assert_uint_eq(a->u.release.bytes, b->u.release.bytes);
    }
}

START_TEST(recorded_frames)
{
    unsigned char frame[256];
    size_t n = unhex(frames[_i].hex, frame, sizeof(frame));
    trm_wire_buffer b = {0};
    trm_wire_message m;

    ck_assert_msg(trm_wire_decode(frame, n, arena, &m) == TRM_OK, "%s: %s", frames[_i].name,
                  trm_message());
    same(&frames[_i].message, &m);
    ck_assert_int_eq(trm_wire_peek(frame, n), m.kind);
    ck_assert_msg(trm_wire_encode(&frames[_i].message, &b) == TRM_OK, "%s: %s", frames[_i].name,
                  trm_message());
    same_bytes(b.data, b.bytes, frame, n);
    /* and what was decoded encodes to them again */
    b.bytes = 0;
    ck_assert_int_eq(trm_wire_encode(&m, &b), TRM_OK);
    same_bytes(b.data, b.bytes, frame, n);
    trm_wire_buffer_fini(&b);
}
END_TEST

/* exact copies, so that a sanitizer sees any overrun */
START_TEST(truncated)
{
    unsigned char frame[256] = {0};
    size_t bytes = unhex(frames[_i].hex, frame, sizeof(frame));
    trm_wire_message m;

    for (size_t n = 0; n <= bytes + 1; n++) {
        unsigned char *copy = malloc(n + (n == 0));

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, frame, n);
        ck_assert_int_eq(trm_wire_decode(copy, n, arena, &m), n == bytes ? TRM_OK : TRM_ERR_COMM);
        free(copy);
    }
}
END_TEST

START_TEST(mutated)
{
    unsigned char frame[256] = {0};
    size_t bytes = unhex(frames[_i].hex, frame, sizeof(frame));
    trm_wire_buffer b = {0};
    trm_wire_message m;

    for (size_t at = 0; at < bytes; at++) {
        unsigned char old = frame[at];

        for (unsigned v = 0; v < 256; v++) {
            trm_status st;

            frame[at] = (unsigned char)v;
            st = trm_wire_decode(frame, bytes, arena, &m);
            ck_assert(st == TRM_OK || st == TRM_ERR_COMM);
            /* what the reader takes the writer takes too, but for tensors of another type */
            b.bytes = 0;
            if (st == TRM_OK)
                ck_assert_msg(trm_wire_encode(&m, &b) == TRM_OK, "%s", trm_message());
        }
        frame[at] = old;
    }
    ck_assert_uint_lt(trm_arena_bytes(arena), (size_t)256 << 20);
    trm_wire_buffer_fini(&b);
}
END_TEST

START_TEST(no_memory)
{
    unsigned char frame[256];
    size_t n = unhex(frames[_i].hex, frame, sizeof(frame));
    trm_wire_message m;
    int failures = 0;

    for (int k = 0; k < 32; k++) {
        trm_arena *small;
        trm_status st;

        ck_assert_int_eq(trm_arena_create(16, &small), TRM_OK);
        trm_alloc_fail_after(k);
        st = trm_wire_decode(frame, n, small, &m);
        trm_alloc_fail_after(-1);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        failures += st != TRM_OK;
        trm_arena_destroy(small);
    }
    ck_assert_int_lt(failures, 32);
}
END_TEST

static const struct {
    const char *name, *hex, *says;
} hostile[] = {
    {"version 1", "9f010a", "version 1"},
    {"cancel with two fields", "94020b0102", "wrong number"},
    {"kind of request 7", "9f020a0707a16d000000000000 0000", "request kind"},
    {"model is no text", "9f020a0705c0000000000000000000c40090", "model"},
    {"version is negative", "9f020a0705a16dff000000000000a0c40090", "model version"},
    {"priority over 32 bits", "9f020a0705a16d0000ce80000000000000000 0a0c40090", "priority"},
    {"stream is 2", "9f020a0705a16d000000000200000 0a0c40090", "stream"},
    {"created is negative", "9f020a0705a16d0000000000 00ffa0c40090", "created"},
    {"body is a text", "9f020a0705a16d00000000000000a0a090", "request body"},
    {"body of 4 GiB", "9f020a0705a16d00000000000000a0c6ffffffff90", "request body"},
    {"257 tensors", "9f020a0705a16d00000000000000a0c400dc0101", "tensors"},
    {"rank 9", "9f020a0705a16d00000000000000a0c4009194a1780199", "tensor dims"},
    {"block type", "9f020a0705a16d00000000000000a0c4009194a1780e9101c40100", "tensor dtype"},
    {"reference of one field", "9f020a0705a16d00000000000000a0c4009194a1780191019104",
     "tensor data"},
    {"reference of a wrong size", "9f020a0705a16d00000000000000a0c4009194a1780191019200 05",
     "size of its shape"},
    {"negative offset", "9f020a0705a16d00000000000000a0c4009194a17801910192ff04", "tensor offset"},
    {"record with a reference", "93020491950702a0c4009194a17801910192 0004", "tensor data"},
    {"status 99", "9c020d0963a0a000c4009090009700000000000000", "answer status"},
    {"labels without rows", "9c020d0900a0a000c400 909101ca00000000a0009700000000000000", "label"},
    {"3 labels in 2 rows",
     "9c020d0900a0a000c400909393 01ca00000000a09301ca00000000a09301ca00000000a00297000000000000 00",
     "fill their rows"},
    {"rows over the limit", "9c020d0900a0a000c4009090ce000100019700000000000000", "label rows"},
    {"six statistics", "9c020d0900a0a000c40090900096000000000000", "seven fields"},
    {"settings of 4 GiB", "97020e04a16d00a0dbffffffff", "model settings"},
    {"settings over the limit", "97020e04a16d00a0db00100001", "model settings"},
    {"state 5", "970210040 5a0a010", "model state"},
    {"1025 models", "95021100dc040190", "models"},
    {"1025 ranks", "9502110090dc0401", "ranks"},
    {"a model of 13", "95021100919d0000000000000000000000000090", "fourteen"},
    {"a rank of 8", "9502110090919800", "seven fields"},
    {"segment is no text", "970201a0000000 00", "segment"},
};

START_TEST(refuses)
{
    char hex[256];
    size_t n = 0, bytes;
    unsigned char frame[192] = {0};
    trm_wire_message m;

    for (const char *h = hostile[_i].hex; *h != '\0'; h++) /* blanks are for the reader */
        if (*h != ' ')
            hex[n++] = *h;
    hex[n] = '\0';
    bytes = unhex(hex, frame, sizeof(frame));
    /* zeros behind, so that what is refused is the field and not the frame's end */
    ck_assert_msg(trm_wire_decode(frame, bytes + 64, arena, &m) == TRM_ERR_COMM, "%s was taken",
                  hostile[_i].name);
    ck_assert_msg(strstr(trm_message(), hostile[_i].says) != NULL, "%s: %s", hostile[_i].name,
                  trm_message());
}
END_TEST

/* ---- the writer's limits ---- */

static char long_text[TRM_WIRE_JSON_MAX + 2];
static trm_wire_tensor many[TRM_WIRE_TENSORS_MAX + 1];

static trm_status encoded(trm_wire_message m)
{
    trm_wire_buffer b = {0};
    trm_wire_message back;
    trm_status st = trm_wire_encode(&m, &b);

    if (st == TRM_OK) /* what the writer takes the reader takes */
        ck_assert_msg(trm_wire_decode(b.data, b.bytes, arena, &back) == TRM_OK, "%s",
                      trm_message());
    else
        ck_assert_uint_eq(b.bytes, 0);
    trm_wire_buffer_fini(&b);
    return st;
}

static trm_status send_request(trm_wire_request q)
{
    return encoded((trm_wire_message){.kind = TRM_WIRE_REQUEST, .u.request = &q});
}

static trm_status send_answer(trm_wire_answer a)
{
    return encoded((trm_wire_message){.kind = TRM_WIRE_ANSWER, .u.answer = &a});
}

static trm_status send_model(trm_wire_model m)
{
    return encoded((trm_wire_message){.kind = TRM_WIRE_MODEL, .u.model = &m});
}

static trm_status send_stats(trm_wire_stats s)
{
    return encoded((trm_wire_message){.kind = TRM_WIRE_STATS, .u.stats = &s});
}

START_TEST(writer_limits)
{
    trm_wire_request q = infer;
    trm_wire_answer a = answer;
    trm_wire_model m = model;
    trm_wire_stats s = stats;
    trm_wire_load l = load;

    memset(long_text, 'x', TRM_WIRE_TEXT_MAX + 1);
    q.model = long_text;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    long_text[TRM_WIRE_TEXT_MAX] = '\0';
    ck_assert_int_eq(send_request(q), TRM_OK);
    q = infer;
    q.kind = TRM_REQUEST_KIND_COUNT;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    q = infer;
    q.version = -1;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    q = infer;
    for (int i = 0; i <= TRM_WIRE_TENSORS_MAX; i++)
        many[i] = input;
    q.tensors = many;
    q.tensor_count = TRM_WIRE_TENSORS_MAX;
    ck_assert_int_eq(send_request(q), TRM_OK);
    q.tensor_count++;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    q.tensor_count = -1;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    q.tensor_count = 1;
    many[0].tensor.data = NULL;
    ck_assert_int_eq(send_request(q), TRM_ERR_INVALID_ARG);
    a.label_rows = 0;
    ck_assert_int_eq(send_answer(a), TRM_ERR_INVALID_ARG);
    a.label_rows = 3;
    ck_assert_int_eq(send_answer(a), TRM_ERR_INVALID_ARG);
    a = answer;
    a.status = TRM_STATUS_COUNT;
    ck_assert_int_eq(send_answer(a), TRM_ERR_INVALID_ARG);
    a = answer;
    memset(long_text, 'x', TRM_WIRE_JSON_MAX + 1);
    a.message = long_text; /* is cut */
    ck_assert_int_eq(send_answer(a), TRM_OK);
    m.metadata = long_text;
    ck_assert_int_eq(send_model(m), TRM_ERR_INVALID_ARG);
    l.settings = long_text;
    ck_assert_int_eq(encoded((trm_wire_message){.kind = TRM_WIRE_LOAD, .u.load = &l}),
                     TRM_ERR_INVALID_ARG);
    long_text[TRM_WIRE_JSON_MAX] = '\0';
    ck_assert_int_eq(send_model(m), TRM_OK);
    m = model;
    m.state = TRM_MODEL_STATE_COUNT;
    ck_assert_int_eq(send_model(m), TRM_ERR_INVALID_ARG);
    s.rank_count = TRM_WIRE_STATS_MAX + 1;
    ck_assert_int_eq(send_stats(s), TRM_ERR_INVALID_ARG);
    s.rank_count = 1;
    s.model_count = -1;
    ck_assert_int_eq(send_stats(s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(encoded((trm_wire_message){.kind = TRM_WIRE_KIND_COUNT}), TRM_ERR_INVALID_ARG);
}
END_TEST

/* a message that is cut ends with a whole character */
START_TEST(cut_text)
{
    trm_wire_answer a = answer;
    trm_wire_buffer b = {0};
    trm_wire_message back;

    memset(long_text, 'x', TRM_WIRE_TEXT_MAX);
    memcpy(long_text + TRM_WIRE_TEXT_MAX - 2, "\xe2\x82\xac", 4);
    a.message = long_text;
    ck_assert_int_eq(
        trm_wire_encode(&(trm_wire_message){.kind = TRM_WIRE_ANSWER, .u.answer = &a}, &b), TRM_OK);
    ck_assert_int_eq(trm_wire_decode(b.data, b.bytes, arena, &back), TRM_OK);
    ck_assert_uint_eq(strlen(back.u.answer->message), TRM_WIRE_TEXT_MAX - 2);
    trm_wire_buffer_fini(&b);
}
END_TEST

/* ---- tensors in shared memory ---- */

START_TEST(share_and_resolve)
{
    size_t large = 3 * TRM_EXCHANGE_LEAST;
    unsigned char *data = malloc(large);
    trm_wire_tensor t[] = {
        {.name = "large",
         .tensor = {.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {(int64_t)large}, .data = data}},
        {.name = "small",
         .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = values}},
        {.name = "no room",
         .tensor = {.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {(int64_t)large}, .data = data}},
    };
    trm_wire_answer a = answer;
    trm_wire_message m = {.kind = TRM_WIRE_ANSWER, .u.answer = &a}, back;
    trm_wire_buffer b = {0};
    trm_exchange *x = NULL;
    trm_exchange_view *v = NULL;
    const trm_wire_tensor *got;
    int count;

    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < large; i++)
        data[i] = (unsigned char)(i * 7);
    ck_assert_int_eq(trm_exchange_create(5 * TRM_EXCHANGE_LEAST, &x), TRM_OK);
    ck_assert_int_eq(trm_exchange_attach(trm_exchange_name(x), trm_exchange_bytes(x), &v), TRM_OK);
    trm_wire_share(t, 3, NULL);
    ck_assert(!t[0].shared);
    trm_wire_share(t, 3, x);
    ck_assert(t[0].shared && !t[1].shared && !t[2].shared);
    ck_assert_uint_eq(trm_exchange_used(x), large);
    a.outputs = t;
    a.output_count = 3;
    ck_assert_int_eq(trm_wire_encode(&m, &b), TRM_OK);
    ck_assert_uint_lt(b.bytes, large + 256);
    ck_assert_int_eq(trm_wire_decode(b.data, b.bytes, arena, &back), TRM_OK);
    ck_assert_int_eq(trm_wire_resolve(&back, NULL), TRM_ERR_COMM);
    ck_assert_int_eq(trm_wire_resolve(&back, v), TRM_OK);
    got = trm_wire_tensors(&back, &count);
    ck_assert_int_eq(count, 3);
    ck_assert(got[0].shared && !got[1].shared);
    ck_assert(memcmp(got[0].tensor.data, data, large) == 0);
    ck_assert(memcmp(got[2].tensor.data, data, large) == 0);
    ck_assert_int_eq(trm_exchange_release(x, got[0].offset, large), TRM_OK);
    ck_assert_uint_eq(trm_exchange_used(x), 0);

    /* references that lead out of the segment, or to the middle of a word */
    t[0].offset = trm_exchange_bytes(x) - large + TRM_ALIGN;
    for (int i = 0; i < 3; i++) {
        static const uint64_t wrong[] = {UINT64_MAX - 63, 1, 0};

        b.bytes = 0;
        ck_assert_int_eq(trm_wire_encode(&m, &b), TRM_OK);
        ck_assert_int_eq(trm_wire_decode(b.data, b.bytes, arena, &back), TRM_OK);
        ck_assert_int_eq(trm_wire_resolve(&back, v), TRM_ERR_COMM);
        t[0].offset = wrong[i];
    }
    trm_wire_unshare(t, 3, x);
    ck_assert(!t[0].shared);
    trm_wire_buffer_fini(&b);
    trm_exchange_detach(v);
    trm_exchange_destroy(x);
    free(data);
}
END_TEST

START_TEST(names)
{
    for (int i = 0; i < TRM_REQUEST_KIND_COUNT; i++)
        ck_assert_str_ne(trm_request_kind_name((trm_request_kind)i), "unknown");
    for (int i = 0; i < TRM_MODEL_STATE_COUNT; i++)
        ck_assert_str_ne(trm_model_state_name((trm_model_state)i), "unknown");
    for (int i = 1; i < TRM_WIRE_KIND_COUNT; i++)
        ck_assert_str_ne(trm_wire_kind_name((trm_wire_kind)i), "unknown");
    ck_assert_str_eq(trm_request_kind_name(TRM_REQUEST_KIND_COUNT), "unknown");
    ck_assert_str_eq(trm_model_state_name((trm_model_state)-1), "unknown");
    ck_assert_str_eq(trm_request_kind_name(TRM_REQUEST_PREDICT), "predict");
    ck_assert_str_eq(trm_model_state_name(TRM_MODEL_FAILED), "failed");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire_serve");
    TCase *tc = tcase_create("wire_serve");
    SRunner *runner;
    int bad;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, recorded_frames, 0, FRAMES);
    tcase_add_loop_test(tc, truncated, 0, FRAMES);
    tcase_add_loop_test(tc, mutated, 0, FRAMES);
    tcase_add_loop_test(tc, no_memory, 0, FRAMES);
    tcase_add_loop_test(tc, refuses, 0, (int)(sizeof(hostile) / sizeof(hostile[0])));
    tcase_add_test(tc, writer_limits);
    tcase_add_test(tc, cut_text);
    tcase_add_test(tc, share_and_resolve);
    tcase_add_test(tc, names);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    return bad == 0 ? 0 : 1;
}
