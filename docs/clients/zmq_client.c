/* A client of Trireme's public ZeroMQ endpoint (docs/protocol.md): one tensor in, the outputs out.
 *   cc zmq_client.c -o zmq_client -lzmq -lmsgpackc
 *   ./zmq_client tcp://127.0.0.1:5555 my-network 1x3 0.5 1 -2    an f32 tensor of dims [1, 3] */
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static void pack_infer(msgpack_packer *p, const char *model, const long *dims, size_t rank,
                       const float *values, size_t n)
{
    /* id, kind (infer), model, version (the newest), slot, priority, deadline_ms, stream, seed,
     * created, tag, body, tensors */
    msgpack_pack_array(p, 15);
    msgpack_pack_int(p, 2);  /* version of the protocol */
    msgpack_pack_int(p, 10); /* REQUEST */
    msgpack_pack_int(p, 1);
    msgpack_pack_int(p, 5);
    msgpack_pack_str_with_body(p, model, strlen(model));
    for (int i = 0; i < 7; i++)
        msgpack_pack_int(p, 0);
    msgpack_pack_str_with_body(p, "", 0);
    msgpack_pack_bin_with_body(p, "", 0);
    msgpack_pack_array(p, 1);
    msgpack_pack_array(p, 4); /* name (the only input), dtype (f32), dims, data */
    msgpack_pack_str_with_body(p, "", 0);
    msgpack_pack_int(p, 1);
    msgpack_pack_array(p, rank);
    for (size_t d = 0; d < rank; d++)
        msgpack_pack_long(p, dims[d]);
    msgpack_pack_bin_with_body(p, values, n * sizeof(*values));
}

/* ANSWER: [2, 13, id, status, message, model, version, body, outputs, ...] */
static int print_answer(const msgpack_object *answer)
{
    const msgpack_object *f = answer->via.array.ptr;

    if (answer->type != MSGPACK_OBJECT_ARRAY || answer->via.array.size != 12 || f[1].via.u64 != 13)
        return fprintf(stderr, "not an answer of this version\n"), 1;
    printf("status %d %.*s\n", (int)f[3].via.u64, (int)f[4].via.str.size, f[4].via.str.ptr);
    for (uint32_t i = 0; i < f[8].via.array.size; i++) {
        const msgpack_object *tensor = f[8].via.array.ptr[i].via.array.ptr;

        msgpack_object_print(stdout, tensor[0]);
        msgpack_object_print(stdout, tensor[2]);
        for (uint32_t k = 0; tensor[1].via.u64 == 1 && k < tensor[3].via.bin.size; k += 4) {
            float v;

            memcpy(&v, tensor[3].via.bin.ptr + k, sizeof(v));
            printf(" %g", (double)v);
        }
        printf("\n");
    }
    return f[3].via.u64 != 0;
}

int main(int argc, char **argv)
{
    void *context = zmq_ctx_new(), *link = zmq_socket(context, ZMQ_DEALER);
    static float values[1 << 20]; /* those that are not given are 0 */
    const char *at = argc > 3 ? argv[3] : "";
    size_t rank = 0, n = 1;
    long dims[8];
    int wait_ms = 60000, failed = 1;
    msgpack_sbuffer out;
    msgpack_packer packer;
    msgpack_unpacked in;
    zmq_msg_t answer;

    for (char *end; *at != '\0' && rank < 8; at = *end == 'x' ? end + 1 : end) {
        dims[rank] = strtol(at, &end, 10);
        if (end == at || dims[rank] < 1 || dims[rank] > 1 << 20 || n > 1 << 20)
            return fprintf(stderr, "bad dims\n"), 2;
        n *= (size_t)dims[rank++];
    }
    if (rank == 0 || *at != '\0' || n > 1 << 20 || (size_t)argc - 4 > n ||
        zmq_connect(link, argv[1]) != 0)
        return fprintf(stderr, "zmq_client ENDPOINT MODEL DIMS NUMBER...\n"), 2;
    for (int i = 4; i < argc; i++)
        values[i - 4] = strtof(argv[i], NULL);
    msgpack_sbuffer_init(&out);
    msgpack_packer_init(&packer, &out, msgpack_sbuffer_write);
    pack_infer(&packer, argv[2], dims, rank, values, n);
    zmq_setsockopt(link, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms));
    zmq_setsockopt(link, ZMQ_LINGER, &wait_ms, sizeof(wait_ms));
    zmq_msg_init(&answer);
    msgpack_unpacked_init(&in);
    if (zmq_send(link, out.data, out.size, 0) >= 0 && zmq_msg_recv(&answer, link, 0) >= 0 &&
        msgpack_unpack_next(&in, zmq_msg_data(&answer), zmq_msg_size(&answer), NULL) ==
            MSGPACK_UNPACK_SUCCESS)
        failed = print_answer(&in.data);
    else
        fprintf(stderr, "no answer\n");
    msgpack_unpacked_destroy(&in);
    zmq_msg_close(&answer);
    msgpack_sbuffer_destroy(&out);
    zmq_close(link);
    zmq_ctx_term(context);
    return failed;
}
