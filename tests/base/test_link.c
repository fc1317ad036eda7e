/* ROUTER and DEALER ends: frames both ways, vanished peers, strangers, clean folders. */
#define _GNU_SOURCE
#include "base/link_zmq.h"
#include "base/link_address.h"
#include "base/wait.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

static const char *const endpoints[] = {"inproc://t", "ipc", "tcp://127.0.0.1:*"};

static trm_link_frame *get(trm_link *l, char *peer)
{
    int64_t deadline = trm_deadline_us(10000);
    trm_link_frame *f = NULL;

    while (trm_link_recv(l, peer, &f) != TRM_OK) {
        ck_assert(trm_now_us() < deadline);
        trm_link_wait(l, 100);
    }
    return f;
}

START_TEST(both_ways)
{
    trm_link_context *c = NULL;
    trm_link *router = NULL, *dealer = NULL;
    char peer[TRM_LINK_PEER_BYTES], folder[256];
    trm_link_frame *f;
    struct stat info;

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, endpoints[_i], &router), TRM_OK);
    ck_assert_int_eq(trm_link_send(router, "0/1", "x", 1), TRM_ERR_COMM);
    ck_assert_int_eq(trm_link_connect(c, trm_link_endpoint(router), "0/1", &dealer), TRM_OK);
    ck_assert_int_eq(trm_link_send(dealer, NULL, "hello", 5), TRM_OK);
    f = get(router, peer);
    ck_assert_str_eq(peer, "0/1");
    ck_assert_uint_eq(f->bytes, 5);
    ck_assert(memcmp(f->data, "hello", 5) == 0);
    trm_link_frame_destroy(f);
    if (_i == 1) { /* the folder is private, and gone after hide; the connection stays */
        snprintf(folder, sizeof(folder), "%s", trm_link_endpoint(router) + strlen("ipc://"));
        *strrchr(folder, '/') = '\0';
        ck_assert_int_eq(stat(folder, &info), 0);
        ck_assert_uint_eq(info.st_mode & 0777, 0700);
        trm_link_hide(router);
        ck_assert_int_ne(stat(folder, &info), 0);
    }
    ck_assert_int_eq(trm_link_send(router, "0/1", "", 0), TRM_OK);
    f = get(dealer, NULL);
    ck_assert_uint_eq(f->bytes, 0);
    trm_link_frame_destroy(f);
    f = NULL;
    ck_assert_int_eq(trm_link_recv(router, peer, &f), TRM_ERR_TIMEOUT);
    trm_link_close(dealer);
    trm_link_close(router);
    trm_link_context_destroy(c);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* between hosts: keys let a peer in, nothing else does, and the bytes on the wire are not ours */
START_TEST(encrypted)
{
    trm_link_context *server = NULL, *client = NULL, *stranger = NULL;
    trm_link *router = NULL, *dealer = NULL, *other = NULL;
    char peer[TRM_LINK_PEER_BYTES];
    trm_link_frame *f = NULL;
    trm_link_keys keys, wrong;
    int64_t until;

    ck_assert_int_eq(trm_link_keys_create(&keys), TRM_OK);
    ck_assert_int_eq(trm_link_keys_create(&wrong), TRM_OK);
    ck_assert_uint_eq(strlen(keys.public_key), TRM_LINK_KEY_BYTES - 1);
    ck_assert_str_ne(keys.public_key, wrong.public_key);
    ck_assert_str_ne(keys.public_key, keys.peer_public_key);
    ck_assert_int_eq(trm_link_context_create(&server), TRM_OK);
    ck_assert_int_eq(trm_link_context_create(&client), TRM_OK);
    ck_assert_int_eq(trm_link_context_create(&stranger), TRM_OK);
    trm_link_context_encrypt(server, &keys);
    trm_link_context_encrypt(client, &keys);
    if (_i == 1)
        trm_link_context_encrypt(stranger, &wrong); /* _i == 0: without any */
    ck_assert_int_eq(trm_link_bind(server, "tcp://127.0.0.1:*", &router), TRM_OK);
    ck_assert_int_eq(trm_link_connect(stranger, trm_link_endpoint(router), "9/1", &other), TRM_OK);
    (void)!trm_link_send(other, NULL, "let me in", 9);
    ck_assert_int_eq(trm_link_connect(client, trm_link_endpoint(router), "1/1", &dealer), TRM_OK);
    ck_assert_int_eq(trm_link_send(dealer, NULL, "hello", 5), TRM_OK);
    f = get(router, peer); /* the stranger was first, but is not heard */
    ck_assert_str_eq(peer, "1/1");
    ck_assert(f->bytes == 5 && memcmp(f->data, "hello", 5) == 0);
    trm_link_frame_destroy(f);
    f = NULL;
    ck_assert_int_eq(trm_link_send(router, "1/1", "ok", 2), TRM_OK);
    trm_link_frame_destroy(get(dealer, NULL));
    until = trm_now_us() + 200000;
    while (trm_now_us() < until) {
        ck_assert_int_eq(trm_link_recv(router, peer, &f), TRM_ERR_TIMEOUT);
        trm_link_wait(router, 20);
    }
    ck_assert_int_eq(trm_link_send(router, "9/1", "x", 1), TRM_ERR_COMM);
    trm_link_close(other);
    trm_link_close(dealer);
    trm_link_close(router);
    trm_link_context_destroy(stranger);
    trm_link_context_destroy(client);
    trm_link_context_destroy(server);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* of a list the first that answers is taken; names that mean loopback here are other hosts' */
START_TEST(the_first_that_answers)
{
    trm_link_context *c = NULL;
    trm_link *router = NULL;
    char list[TRM_LINK_ENDPOINT_BYTES], got[TRM_LINK_ENDPOINT_BYTES] = "";
    const char *port;

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "tcp://127.0.0.1:*", &router), TRM_OK);
    port = strrchr(trm_link_endpoint(router), ':') + 1;
    snprintf(list, sizeof(list),
             "tcp://no.such.host.invalid:1 tcp://localhost:%s nonsense tcp://127.0.0.1:1 "
             "tcp://127.0.0.1:%s tcp://127.0.0.1:2",
             port, port);
    ck_assert_int_eq(trmi_link_reach(list, got, sizeof(got)), TRM_OK);
    ck_assert_str_eq(got, trm_link_endpoint(router));
    snprintf(list, sizeof(list), "tcp://localhost:%s tcp://127.0.0.1:1", port);
    ck_assert_int_eq(trmi_link_reach(list, got, sizeof(got)), TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(trm_message(), "--zmq-listen"));
    ck_assert_int_eq(trmi_link_reach("", got, sizeof(got)), TRM_ERR_COMM);
    trm_link_close(router);
    trm_link_context_destroy(c);
}
END_TEST

START_TEST(all_addresses)
{
    char list[TRM_LINK_ENDPOINT_BYTES], name[256] = "", want[300], tiny[24];

    ck_assert_int_eq(gethostname(name, sizeof(name) - 1), 0);
    trmi_link_addresses("4000", list, sizeof(list));
    snprintf(want, sizeof(want), "tcp://%s:4000", name);
    ck_assert(strncmp(list, want, strlen(want)) == 0);
    ck_assert_ptr_null(strstr(list, "127.0.0.1"));
    trmi_link_addresses("4000", tiny, sizeof(tiny)); /* whole ones that fit, or none */
    ck_assert_uint_lt(strlen(tiny), sizeof(tiny));
    ck_assert(tiny[0] == '\0' || strncmp(tiny, "tcp://", 6) == 0);
}
END_TEST

/* a killed peer makes sends fail within two seconds */
START_TEST(a_killed_peer_is_noticed)
{
    trm_link_context *c = NULL;
    trm_link *router = NULL;
    char peer[TRM_LINK_PEER_BYTES], endpoint[TRM_LINK_ENDPOINT_BYTES];
    int go[2], status;
    int64_t killed;
    trm_status st;
    pid_t pid;

    /* the child is forked before this process has any ZeroMQ state */
    ck_assert_int_eq(pipe(go), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        trm_link *dealer = NULL;

        if (read(go[0], endpoint, sizeof(endpoint)) <= 0 || trm_link_context_create(&c) != TRM_OK ||
            trm_link_connect(c, endpoint, "1/1", &dealer) != TRM_OK ||
            trm_link_send(dealer, NULL, "hi", 2) != TRM_OK)
            _exit(1);
        for (;;)
            pause();
    }
    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "ipc", &router), TRM_OK);
    strcpy(endpoint, trm_link_endpoint(router));
    ck_assert_int_eq(write(go[1], endpoint, sizeof(endpoint)), (ssize_t)sizeof(endpoint));
    trm_link_frame_destroy(get(router, peer));
    ck_assert_int_eq(trm_link_send(router, "1/1", "x", 1), TRM_OK);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    killed = trm_now_us();
    do {
        trm_link_wait(router, 20);
        st = trm_link_send(router, "1/1", "x", 1);
    } while (st == TRM_OK && trm_now_us() < killed + trm_scaled_ms(5000) * 1000);
    ck_assert_int_eq(st, TRM_ERR_COMM);
    ck_assert_int_lt(trm_now_us() - killed, trm_scaled_ms(2000) * 1000);
    trm_link_close(router);
    trm_link_context_destroy(c);
}
END_TEST

/* messages of another shape than ours are skipped, and what follows them arrives */
START_TEST(strangers_are_skipped)
{
    trm_link_context *c = NULL;
    trm_link *router = NULL;
    char peer[TRM_LINK_PEER_BYTES], longest[200];
    trm_link_frame *f;
    void *zmq = zmq_ctx_new(), *s = zmq_socket(zmq, ZMQ_DEALER), *odd = zmq_socket(zmq, ZMQ_DEALER);

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "tcp://127.0.0.1:*", &router), TRM_OK);
    memset(longest, 'x', sizeof(longest));
    zmq_setsockopt(odd, ZMQ_ROUTING_ID, longest, sizeof(longest));
    zmq_setsockopt(s, ZMQ_ROUTING_ID, "2/1", 3);
    ck_assert_int_eq(zmq_connect(odd, trm_link_endpoint(router)), 0);
    ck_assert_int_eq(zmq_connect(s, trm_link_endpoint(router)), 0);
    zmq_send(odd, "a", 1, 0);
    zmq_send(s, "a", 1, ZMQ_SNDMORE);
    zmq_send(s, "b", 1, 0);
    zmq_send(s, "right", 5, 0);
    f = get(router, peer);
    ck_assert_str_eq(peer, "2/1");
    ck_assert_uint_eq(f->bytes, 5);
    trm_link_frame_destroy(f);
    zmq_close(s);
    zmq_close(odd);
    zmq_ctx_term(zmq);
    trm_link_close(router);
    trm_link_context_destroy(c);
}
END_TEST

static void *waker(void *link)
{
    usleep(20000);
    trm_link_wake(link);
    return NULL;
}

/* Peers without a name get one, if the link takes them. */
START_TEST(anonymous)
{
    static const struct {
        const char *name, *id;
        size_t bytes;
        const char *peer;
    } rows[] = {{"text", "me", 2, "me"},
                {"with a zero", "\0\x1a\xff", 3, "#001aff"},
                {"begins like ours", "#me", 3, "#236d65"}};
    trm_link_context *c = NULL;
    trm_link *router = NULL;
    void *zmq = zmq_ctx_new(), *unnamed = zmq_socket(zmq, ZMQ_DEALER);
    char peer[TRM_LINK_PEER_BYTES], back[8] = "";
    trm_link_frame *f;

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "ipc", &router), TRM_OK);
    trm_link_take_anonymous(router);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        void *s = zmq_socket(zmq, ZMQ_DEALER);

        zmq_setsockopt(s, ZMQ_ROUTING_ID, rows[i].id, rows[i].bytes);
        ck_assert_int_eq(zmq_connect(s, trm_link_endpoint(router)), 0);
        ck_assert_int_eq(zmq_send(s, "x", 1, 0), 1);
        f = get(router, peer);
        ck_assert_msg(strcmp(peer, rows[i].peer) == 0, "%s: %s", rows[i].name, peer);
        trm_link_frame_destroy(f);
        ck_assert_int_eq(trm_link_send(router, peer, "back", 5), TRM_OK);
        ck_assert_int_eq(zmq_recv(s, back, sizeof(back), 0), 5);
        zmq_close(s);
    }
    ck_assert_int_eq(zmq_connect(unnamed, trm_link_endpoint(router)), 0);
    ck_assert_int_eq(zmq_send(unnamed, "x", 1, 0), 1);
    f = get(router, peer);
    ck_assert_int_eq(peer[0], '#');
    ck_assert_uint_eq(strlen(peer), 11);
    trm_link_frame_destroy(f);
    ck_assert_int_eq(trm_link_send(router, peer, "back", 5), TRM_OK);
    ck_assert_int_eq(zmq_recv(unnamed, back, sizeof(back), 0), 5);
    zmq_close(unnamed);
    zmq_ctx_term(zmq);
    trm_link_close(router);
    trm_link_context_destroy(c);
}
END_TEST

/* A wait for two links ends by a wake of either, and by a frame of either. */
START_TEST(wait_for_any)
{
    trm_link_context *c = NULL;
    trm_link *links[2], *dealer = NULL;
    char peer[TRM_LINK_PEER_BYTES];
    int64_t start = trm_now_us();

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "inproc://a", &links[0]), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "inproc://b", &links[1]), TRM_OK);
    trm_link_wake(links[_i]);
    trm_link_wait_any(links, 2, 600000);
    ck_assert_int_eq(trm_link_connect(c, trm_link_endpoint(links[_i]), "p", &dealer), TRM_OK);
    ck_assert_int_eq(trm_link_send(dealer, NULL, "x", 1), TRM_OK);
    trm_link_wait_any(links, 2, 600000);
    trm_link_frame_destroy(get(links[_i], peer));
    ck_assert_int_lt(trm_now_us() - start, 300000000);
    trm_link_wait_any(links, 2, 1); /* nothing: the time ends it */
    trm_link_close(dealer);
    trm_link_close(links[0]);
    trm_link_close(links[1]);
    trm_link_context_destroy(c);
}
END_TEST

START_TEST(wake_ends_a_wait)
{
    trm_link_context *c = NULL;
    trm_link *router = NULL;
    int64_t start = trm_now_us();
    pthread_t t;

    ck_assert_int_eq(trm_link_context_create(&c), TRM_OK);
    ck_assert_int_eq(trm_link_bind(c, "inproc://w", &router), TRM_OK);
    ck_assert_int_eq(pthread_create(&t, NULL, waker, router), 0);
    trm_link_wait(router, 30000);
    ck_assert_int_lt(trm_now_us() - start, 20000000);
    pthread_join(t, NULL);
    ck_assert_int_eq(trm_link_bind(c, "nonsense", &router), TRM_ERR_COMM);
    trm_link_close(router);
    trm_link_context_destroy(c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("link");
    TCase *tc = tcase_create("link");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, both_ways, 0, 3);
    tcase_add_loop_test(tc, encrypted, 0, 2);
    tcase_add_test(tc, the_first_that_answers);
    tcase_add_test(tc, all_addresses);
    tcase_add_test(tc, a_killed_peer_is_noticed);
    tcase_add_test(tc, strangers_are_skipped);
    tcase_add_test(tc, wake_ends_a_wait);
    tcase_add_test(tc, anonymous);
    tcase_add_loop_test(tc, wait_for_any, 0, 2);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
