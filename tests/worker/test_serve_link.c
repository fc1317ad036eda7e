/* The link of a serving leader to its coordinator: large outputs lie in shared memory only where
 * the coordinator is on this host. */
#include "worker/serve_impl.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define FLOATS 65536

static trm_link_context *context;
static trm_link *hub;
static trm_exchange *segment;
static char peer[TRM_LINK_PEER_BYTES];

/* The next message of a kind, within seconds. `arena` holds it. */
static void await(trm_wire_kind kind, trm_arena *arena, trm_wire_message *m)
{
    int64_t deadline_us = trm_deadline_us(20000);

    for (;;) {
        trm_link_frame *f = NULL;
        void *copy;

        ck_assert_msg(trm_now_us() < deadline_us, "no %s has come", trm_wire_kind_name(kind));
        if (trm_link_recv(hub, peer, &f) != TRM_OK) {
            trm_link_wait(hub, 50);
            continue;
        }
        copy = trm_arena_alloc(arena, f->bytes, 1);
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, f->data, f->bytes);
        OK(trm_wire_decode(copy, f->bytes, arena, m));
        trm_link_frame_destroy(f);
        if (m->kind == kind)
            return;
    }
}

static void say(const trm_wire_message *m)
{
    trm_wire_buffer b = {0};

    OK(trm_wire_encode(m, &b));
    OK(trm_link_send(hub, peer, b.data, b.bytes));
    trm_wire_buffer_fini(&b);
}

static const struct sharing_row {
    const char *name;
    bool same_host;
} sharing_rows[] = {{"the coordinator's host", true}, {"another host", false}};

START_TEST(sharing)
{
    const struct sharing_row *t = &sharing_rows[_i];
    const trm_serve_options o = {.endpoint = "inproc://link", .identity = "0/1"};
    trm_serve_options options = o;
    trm_wire_message m, hello = {.kind = TRM_WIRE_HELLO, .host = "h", .segment = ""},
                        post = {.kind = TRM_WIRE_ANSWER};
    trm_wire_tensor out = {.name = "y",
                           .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {FLOATS}}};
    trm_wire_answer answer = {.id = 7,
                              .message = "",
                              .model = "m",
                              .version = 1,
                              .body = "",
                              .outputs = &out,
                              .output_count = 1};
    trmi_serve_link *link = NULL;
    trm_arena *arena = NULL;
    float *values = calloc(FLOATS, sizeof(*values));

    ck_assert_ptr_nonnull(values);
    out.tensor.data = values;
    post.u.answer = &answer;
    OK(trm_link_context_create(&context));
    OK(trm_link_bind(context, o.endpoint, &hub));
    OK(trm_arena_create(0, &arena));
    if (t->same_host) {
        OK(trm_exchange_create((size_t)1 << 20, &segment));
        hello.segment = trm_exchange_name(segment);
        hello.segment_bytes = trm_exchange_bytes(segment);
    }
    options.context = context;
    OK(trmi_serve_link_start(&options, &link));
    await(TRM_WIRE_HELLO, arena, &m);
    say(&hello);
    say(&(trm_wire_message){.kind = TRM_WIRE_UNLOAD, .u.slot = 1}); /* behind it: when it is read */
    for (trmi_serve_inbound *in = NULL; in == NULL;) {
        trmi_serve_link_wait(link, trm_deadline_us(20000));
        in = trmi_serve_link_take(link);
        if (in == NULL)
            continue;
        trm_link_frame_destroy(in->frame);
        trm_free(in);
        break;
    }
    OK(trmi_serve_link_post(link, &post));
    await(TRM_WIRE_ANSWER, arena, &m);
    ck_assert_int_eq(m.u.answer->output_count, 1);
    ck_assert_msg(m.u.answer->outputs[0].shared == t->same_host, "%s", t->name);
    trmi_serve_link_end(link);
    trm_link_close(hub);
    trm_link_context_destroy(context);
    trm_exchange_destroy(segment);
    trm_arena_destroy(arena);
    segment = NULL;
    free(values);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("serve_link");
    TCase *t = tcase_create("link");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, sharing, 0, (int)(sizeof(sharing_rows) / sizeof(sharing_rows[0])));
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
