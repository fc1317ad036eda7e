#!/usr/bin/env python3
"""A client of Trireme's public ZeroMQ endpoint, docs/protocol.md. Needs pyzmq and msgpack.

zmq_client.py tcp://127.0.0.1:5555 my-model "Once upon a time"     a completion, as it comes
zmq_client.py tcp://127.0.0.1:5555 my-network 1x3 0.5 1 -2         a tensor [1, 3] of f32
"""
import itertools
import json
import math
import struct
import sys

import msgpack
import zmq

VERSION = 2
REQUEST, CANCEL, PART, ANSWER = 10, 11, 12, 13
KINDS = {"completions": 0, "chat": 1, "embeddings": 2, "tokenize": 3, "detokenize": 4, "infer": 5, "predict": 6}
DTYPES = {"f32": 1, "f16": 2, "bf16": 3, "f64": 4, "i8": 5, "u8": 6, "i16": 7, "u16": 8, "i32": 9, "u32": 10,
          "i64": 11, "u64": 12, "bool": 13}


class Client:
    def __init__(self, endpoint, timeout_ms=60000):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.connect(endpoint)
        self.ids = itertools.count(1)

    def send(self, kind, model, body=b"", tensors=(), version=0, priority=0, deadline_ms=0, stream=False):
        """tensors: (name, dtype, dims, bytes) each. Returns the request's id."""
        request = next(self.ids)
        packed = [[name, DTYPES[dtype], list(dims), data] for name, dtype, dims, data in tensors]
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.socket.send(msgpack.packb([VERSION, REQUEST, request, KINDS[kind], model, version, 0, priority,
                                        deadline_ms, int(stream), 0, 0, "", body, packed]))
        return request

    def cancel(self, request):
        self.socket.send(msgpack.packb([VERSION, CANCEL, request]))

    def receive(self):
        """The next PART or ANSWER of any request: (kind, id, fields)."""
        version, kind, request, *fields = msgpack.unpackb(self.socket.recv())
        if version != VERSION:
            raise RuntimeError(f"protocol version {version}, want {VERSION}")
        return kind, request, fields


def main(endpoint, model, *words):
    client = Client(endpoint)
    try:
        dims = [int(d) for d in words[0].split("x")]
        values = [float(w) for w in words[1:]]
        values += [0.0] * (math.prod(dims) - len(values))  # those that are not given
        client.send("infer", model, tensors=[("", "f32", dims, struct.pack(f"<{len(values)}f", *values))])
    except ValueError:
        client.send("completions", model, {"prompt": words[0], "max_tokens": 64}, stream=True)
    while True:
        kind, _, fields = client.receive()
        if kind == PART:
            print(fields[1].decode(), end="", flush=True)
        elif kind == ANSWER:
            status, message, name, version, _, outputs, labels, _, _ = fields
            print("status", status, message)
            for output, dtype, dims, data in outputs:
                floats = struct.unpack(f"<{len(data) // 4}f", data) if dtype == DTYPES["f32"] else ()
                print(json.dumps(output) + str(dims), *(f"{v:g}" for v in floats))
            return status != 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
