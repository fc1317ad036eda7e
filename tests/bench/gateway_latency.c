/* What the gateway adds: the same small inference over HTTP (a keep-alive connection, binary
 * tensors) and over the public ZeroMQ endpoint, one at a time, in turns of 200.
 *   gateway_latency 127.0.0.1 8080 tcp://127.0.0.1:5555 digits image 1x1x32x32 20000
 * Prints p50 and p99 of each, and their differences, in microseconds. */
#define _GNU_SOURCE
#include "base/link_zmq.h"
#include "base/wait.h"
#include "base/wire_serve.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN 200
#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != TRM_OK)                                                                      \
            die(trm_message());                                                                    \
    } while (0)

static void die(const char *text)
{
    fprintf(stderr, "gateway_latency: %s\n", text);
    exit(1);
}

struct http {
    int fd;
    char *request;
    size_t bytes;
};

static void http_open(struct http *h, const char *host, int port, const char *model,
                      const char *input, const trm_tensor *t, const float *data, size_t data_bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    char json[512], dims[128] = "", head[1024];
    int one = 1, n, j;

    for (int d = 0; d < t->rank; d++)
        snprintf(dims + strlen(dims), sizeof(dims) - strlen(dims), "%s%d", d > 0 ? "," : "",
                 (int)t->dims[d]);
    j = snprintf(
        json, sizeof(json),
        "{\"inputs\":[{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[%s],\"parameters\":"
        "{\"binary_data_size\":%zu}}],\"parameters\":{\"binary_data_output\":true}}",
        input, dims, data_bytes);
    n = snprintf(head, sizeof(head),
                 "POST /v2/models/%s/infer HTTP/1.1\r\nHost: x\r\nContent-Type: "
                 "application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 model, j, (size_t)j + data_bytes);
    h->bytes = (size_t)n + (size_t)j + data_bytes;
    h->request = malloc(h->bytes);
    h->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (h->request == NULL || h->fd < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1 ||
        connect(h->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("cannot connect");
    (void)setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    memcpy(h->request, head, (size_t)n);
    memcpy(h->request + n, json, (size_t)j);
    memcpy(h->request + n + j, data, data_bytes);
}

static void http_ask(const struct http *h)
{
    char buf[16384];
    size_t got = 0, want = 0;

    for (size_t at = 0; at < h->bytes;) {
        ssize_t n = write(h->fd, h->request + at, h->bytes - at);

        if (n <= 0)
            die("write");
        at += (size_t)n;
    }
    while (want == 0 || got < want) {
        ssize_t n = read(h->fd, buf + got, sizeof(buf) - 1 - got);
        const char *end, *length;

        if (n <= 0)
            die("read");
        got += (size_t)n;
        buf[got] = '\0';
        if (want == 0 && (end = strstr(buf, "\r\n\r\n")) != NULL) {
            length = strcasestr(buf, "\r\ncontent-length:");
            if (strncmp(buf, "HTTP/1.1 200", 12) != 0 || length == NULL)
                die(buf);
            want = (size_t)(end + 4 - buf) + strtoul(length + 17, NULL, 10);
        }
    }
}

static void zmq_ask(trm_link *link, const char *model, const char *input, const trm_tensor *t,
                    float *data, uint64_t id)
{
    trm_wire_tensor tensor = {.name = input, .tensor = *t};
    trm_wire_request r = {.id = id,
                          .kind = TRM_REQUEST_INFER,
                          .model = model,
                          .tag = "",
                          .tensors = &tensor,
                          .tensor_count = 1};
    trm_wire_message m = {.kind = TRM_WIRE_REQUEST};
    trm_wire_buffer b = {0};
    trm_link_frame *f = NULL;
    trm_arena *arena = NULL;

    tensor.tensor.data = data;
    m.u.request = &r;
    OK(trm_wire_encode(&m, &b));
    OK(trm_link_send(link, NULL, b.data, b.bytes));
    while (trm_link_recv(link, NULL, &f) != TRM_OK)
        trm_link_wait(link, 1000);
    OK(trm_arena_create(1024, &arena));
    OK(trm_wire_decode(f->data, f->bytes, arena, &m));
    if (m.kind != TRM_WIRE_ANSWER || m.u.answer->status != TRM_OK || m.u.answer->id != id)
        die("a bad answer over ZeroMQ");
    trm_arena_destroy(arena);
    trm_link_frame_destroy(f);
    trm_wire_buffer_fini(&b);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32};
    int n = argc > 7 ? (int)strtol(argv[7], NULL, 10) : 20000;
    int64_t *http_us, *zmq_us;
    trm_link_context *context;
    trm_link *link;
    struct http h;
    float *data;
    size_t elems = 1;

    if (argc < 7)
        die("usage: HOST PORT ZMQ_ENDPOINT MODEL INPUT DIMS [COUNT]");
    for (char *s = argv[6]; *s != '\0' && t.rank < 6; s += strspn(s, "x")) {
        t.dims[t.rank] = strtol(s, &s, 10);
        elems *= (size_t)t.dims[t.rank++];
    }
    n = n / (2 * TURN) * TURN;
    data = calloc(elems, sizeof(*data));
    http_us = calloc((size_t)n + 1, sizeof(*http_us));
    zmq_us = calloc((size_t)n + 1, sizeof(*zmq_us));
    if (data == NULL || http_us == NULL || zmq_us == NULL || n == 0)
        die("memory, or a count under 400");
    http_open(&h, argv[1], (int)strtol(argv[2], NULL, 10), argv[4], argv[5], &t, data,
              elems * sizeof(*data));
    OK(trm_link_context_create(&context));
    OK(trm_link_connect(context, argv[3], "gateway_latency", &link));
    for (int i = 0; i < n; i += TURN) {
        for (int k = 0; k < TURN; k++) {
            int64_t at = trm_now_us();

            http_ask(&h);
            http_us[i + k] = trm_now_us() - at;
        }
        for (int k = 0; k < TURN; k++) {
            int64_t at = trm_now_us();

            zmq_ask(link, argv[4], argv[5], &t, data, (uint64_t)(i + k));
            zmq_us[i + k] = trm_now_us() - at;
        }
    }
    qsort(http_us, (size_t)n, sizeof(*http_us), by_value);
    qsort(zmq_us, (size_t)n, sizeof(*zmq_us), by_value);
    printf("requests of each: %d\n", n);
    printf("http    p50 %lld us, p99 %lld us\n", (long long)http_us[n / 2],
           (long long)http_us[n * 99LL / 100]);
    printf("zeromq  p50 %lld us, p99 %lld us\n", (long long)zmq_us[n / 2],
           (long long)zmq_us[n * 99LL / 100]);
    printf("gateway adds p50 %lld us, p99 %lld us\n", (long long)(http_us[n / 2] - zmq_us[n / 2]),
           (long long)(http_us[n * 99LL / 100] - zmq_us[n * 99LL / 100]));
    trm_link_close(link);
    trm_link_context_destroy(context);
    (void)close(h.fd);
    free(h.request);
    free(http_us);
    free(zmq_us);
    free(data);
    return 0;
}
