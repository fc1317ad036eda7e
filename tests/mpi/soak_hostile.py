"""What no client should send: requests that are broken on purpose, on every layer, and clients that leave at the wrong moment. Standard
library only; soak.py runs it."""
import json
import pathlib
import random
import re
import socket
import struct
import time

CLOSED = 0  # the connection ends without an answer


def routes(source):
    """Every endpoint of the gateway as its sources list them: (method, pattern, flags)."""
    found = []
    for path in sorted(pathlib.Path(source, "coordinator/gateway").glob("*.c")):
        found += re.findall(r'\{"(GET|POST|PUT|DELETE)",\s*"(/[^"]*)",\s*\w+,\s*([^}]*?)\}', path.read_text())
    return found


def filled(pattern):
    known = {"{model}": "sotu", "{model...}": "sotu", "{version}": "1", "{id}": "file-0"}
    return re.sub(r"\{[a-z.]+\}", lambda m: known[m.group(0)], pattern)


class Raw:
    """A connection on which bytes are sent as they are."""

    def __init__(self, address, timeout):
        self.s = socket.create_connection(address, timeout=timeout)

    def send(self, data):
        try:
            self.s.sendall(data)
        except OSError:
            pass  # it has answered and closed already: what it said is read next

    def status(self):
        """Of the answer, CLOSED, or None where nothing came in time."""
        got = b""
        try:
            while b"\r\n" not in got and len(got) < 4096:
                piece = self.s.recv(4096)
                if not piece:
                    break
                got += piece
        except TimeoutError:
            return None
        except OSError:
            pass
        m = re.match(rb"HTTP/1\.[01] (\d\d\d) ", got)
        return int(m.group(1)) if m else CLOSED

    def close(self, reset=False):
        if reset:  # RST instead of FIN
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()


def head(method, path, key, *lines, length=None):
    rows = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *lines]
    if length is not None:
        rows.append(f"Content-Length: {length}")
    return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1")


def infer_binary(size, data, header=None, claimed=None):
    """An infer request with a binary tensor, or one whose sizes lie: (body, line of the header)."""
    text = json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "parameters": {"binary_data_size": size}}]}).encode()
    return text + data, f"Inference-Header-Content-Length: {len(text) if claimed is None else claimed}"


def bad_bodies(body_limit):
    """(name, path, body, statuses, more header lines)"""
    big = b'{"model": "sotu", "prompt": "' + b"x" * body_limit + b'"}'
    zeros = b"\0" * 4096
    rows = []
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/v2/models/digits/infer",
                 "/v2/models/sotu/generate", "/v2/models/sotu/generate_stream", "/v1/batches"):
        for name, body in [("nothing", b""), ("half an object", b'{"model": "sotu", "prompt": '), ("an array", b"[]"), ("null", b"null"),
                           ("a number", b"1e999"), ("deep", b"[" * 50000), ("deep objects", b'{"a":' * 30000), ("zero bytes", b"\0" * 100),
                           ("no UTF-8", b'{"model": "\xff\xfe", "prompt": "\xc0\x80"}'), ("surrogate", b'{"model": "sotu", "prompt": "\\ud800"}'),
                           ("text after it", b'{"model": "sotu"} {}'), ("twice", b'{"model": "sotu", "model": 3, "prompt": 7}')]:
            rows.append((name, path, body, (400, 404), ()))
        rows.append(("too large", path, big, (413,), ()))
    for name, more in [("max_tokens", {"max_tokens": "many"}), ("negative", {"max_tokens": -1}), ("temperature", {"temperature": []}),
                       ("temperature 2", {"temperature": 1e300}), ("n", {"n": 100000000}), ("n 0", {"n": 0}), ("stop", {"stop": {"a": 1}}),
                       ("logit_bias", {"logit_bias": {"x": "y"}}), ("logit_bias 2", {"logit_bias": {"99999999": 1}}), ("top_p", {"top_p": -3}),
                       ("stream", {"stream": "perhaps"}), ("prompt", {"prompt": {"a": 1}}), ("token", {"prompt": [1, 2, 99999999]}),
                       ("tokens", {"prompt": [-1]}), ("long", {"prompt": [5] * 5000}), ("seed", {"seed": "x"}),
                       ("schema", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}}),
                       ("format", {"response_format": 3}), ("regex", {"guided_regex": "(((((("}),
                       ("regex 2", {"guided_regex": "(a{1000}){1000}"}), ("priority", {"priority": "high"})]:
        body = json.dumps(dict({"model": "sotu", "prompt": "We", "max_tokens": 4}, **more)).encode()
        rows.append((name, "/v1/completions", body, (400, 422), ()))
    for name, body in [("another model", {"model": "nothing", "prompt": "x"}), ("model 3", {"model": 3, "prompt": "x"})]:
        rows.append((name, "/v1/completions", json.dumps(body).encode(), (400, 404), ()))
    for name, x in [("no inputs", {}), ("inputs", {"inputs": 3}), ("too few", {"inputs": [{"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [1]}]}),
                    ("datatype", {"inputs": [{"name": "image", "shape": [1], "datatype": "FP31", "data": [1]}]}),
                    ("shape", {"inputs": [{"name": "image", "shape": [-1, 1, 32, 32], "datatype": "FP32", "data": []}]}),
                    ("huge", {"inputs": [{"name": "image", "shape": [2**62, 2**62, 32, 32], "datatype": "FP32", "data": []}]}),
                    ("rank", {"inputs": [{"name": "image", "shape": [1] * 1000, "datatype": "FP32", "data": [1]}]}),
                    ("name", {"inputs": [{"name": "picture", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [0] * 1024}]}),
                    ("strings", {"inputs": [{"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": ["a"] * 1024}]}),
                    ("output", {"inputs": [{"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [0] * 1024}], "outputs": [{"name": "no"}]})]:
        rows.append((name, "/v2/models/digits/infer", json.dumps(x).encode(), (400,), ()))
    for name, args in [("binary too short", (4096, zeros[:100])), ("binary too long", (4096, zeros + b"x")), ("binary size", (100, zeros[:100])),
                       ("binary minus", (-1, zeros)), ("binary 2^64", (2**64, zeros)), ("header minus", (4096, zeros, None, -5)),
                       ("header beyond", (4096, zeros, None, 10**9)), ("header cut", (4096, zeros, None, 10)), ("header 2^70", (4096, zeros, None, 2**70))]:
        body, line = infer_binary(*args)
        rows.append((name, "/v2/models/digits/infer", body, (400,), (line,)))
    rows.append(("deflate that is none", "/v2/models/digits/infer", b"\x78\x9cgarbage", (400,), ("Content-Encoding: deflate",)))
    for name, body in [("no picture", b"hello"), ("PNG cut", b"\x89PNG\r\n\x1a\n" + b"\0" * 20), ("JPEG cut", b"\xff\xd8\xff\xe0" + b"\0" * 30), ("no bytes", b"")]:
        rows.append((name, "/predictions/digits", body, (400,), ("Content-Type: image/png",)))
    part = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    for name, body, kind in [("no boundary", part, "multipart/form-data"), ("no end", part, "multipart/form-data; boundary=b"),
                             ("another boundary", part + b"--b--\r\n", "multipart/form-data; boundary=c"),
                             ("no file", part + b"--b--\r\n", "multipart/form-data; boundary=b"),
                             ("no name", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
                             ("no headers' end", b"--b\r\nContent-Disposition: form-data; name=", "multipart/form-data; boundary=b"),
                             ("long boundary", part, "multipart/form-data; boundary=" + "b" * 5000), ("no multipart", b"x", "text/plain"),
                             ("no lines", part + b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n\r\n--b--\r\n',
                              "multipart/form-data; boundary=b")]:
        rows.append((name, "/v1/files", body, (200, 400) if name == "no lines" else (400,), (f"Content-Type: {kind}",)))
    return rows


def bad_http(key):
    """(name, bytes, statuses): broken below the bodies. The connection is then closed."""
    ok = head("POST", "/v1/completions", key, "Transfer-Encoding: chunked")
    return [
        ("garbage", bytes(range(1, 256)) * 20 + b"\r\n\r\n", (400, CLOSED)),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 600 + b"\r\n\r\n", (400, CLOSED)),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 404, 405, 505, CLOSED)),
        ("HTTP/9", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", (400, 505, CLOSED)),
        ("no version", b"GET /\r\n\r\n", (400, 505, CLOSED)),
        ("no host", b"GET /health/live HTTP/1.1\r\n\r\n", (400, CLOSED)),
        ("long line", b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400, 414, 431, CLOSED)),
        ("long header", head("GET", "/v1/models", key, "X-Long: " + "y" * 200000), (400, 413, 431, CLOSED)),
        ("many headers", head("GET", "/v1/models", key, *(f"X-{i}: 1" for i in range(20000))), (400, 413, 431, CLOSED)),
        ("many queries", b"GET /v1/models?" + b"&".join(b"a%d=1" % i for i in range(20000)) + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400, 401, 413, 414, 431, CLOSED)),
        ("header without a name", b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", (200, 400, CLOSED)),
        ("zero in a header", b"GET / HTTP/1.1\r\nHost: x\r\nA: \0b\r\n\r\n", (200, 400, CLOSED)),
        ("broken %", head("GET", "/v1/models/%zz", key), (400,)),
        ("zero in the path", head("GET", "/v1/models/a%00b", key), (400,)),
        ("dots", head("GET", "/v1/files/..%2f..%2fetc%2fpasswd/content", key), (400, 404)),
        ("length minus", head("POST", "/v1/completions", key, length=-5), (400, CLOSED)),
        ("length 2^70", head("POST", "/v1/completions", key, length=2**70), (400, 413, CLOSED)),
        ("length too large", head("POST", "/v1/completions", key, length=10**12), (413,)),
        ("two lengths", head("POST", "/v1/completions", key, "Content-Length: 3", length=4) + b"abcd", (400, CLOSED)),
        ("length and chunks", head("POST", "/v1/completions", key, "Transfer-Encoding: chunked", length=4) + b"0\r\n\r\n", (400, CLOSED)),
        ("coding", head("POST", "/v1/completions", key, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", (400, 501, CLOSED)),
        ("chunk of no number", ok + b"xyz\r\nabc\r\n", (400, CLOSED)),
        ("chunk of -1", ok + b"-1\r\nabc\r\n0\r\n\r\n", (400, CLOSED)),
        ("chunk of 2^80", ok + b"FFFFFFFFFFFFFFFFFFFF\r\nabc\r\n", (400, 413, CLOSED)),
        ("chunk that is longer", ok + b"2\r\nabcdef\r\n0\r\n\r\n", (400, CLOSED)),
        ("chunks of no JSON", ok + b"1\r\n{\r\n1\r\n{\r\n0\r\n\r\n", (400,)),
        ("chunk's extension", ok + b"1;" + b"e" * 100000 + b"\r\n{\r\n0\r\n\r\n", (400, 413, 500, CLOSED)),  # 500: libmicrohttpd's own
        ("chunks too large", ok + b"10000\r\n" + b"x" * 65536 + b"\r\n" + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 8 + b"0\r\n\r\n", (413, CLOSED)),
        ("method", b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", (400, 401, 405, 501, CLOSED)),
        ("no path", head("GET", "/nothing/here", key), (404,)),
        ("another method", head("DELETE", "/v1/completions", key), (405,)),
    ]


def leave(address, key, rng, timeout):
    """One client that goes at a wrong moment; nothing to check but that the server lives on."""
    c = Raw(address, timeout)
    long_one = json.dumps({"model": "sotu", "prompt": "We must " * rng.randint(1, 30), "max_tokens": 300, "ignore_eos": True, "n": rng.randint(1, 3),
                           "stream": rng.random() < 0.7, "seed": rng.randint(0, 1 << 30)}).encode()
    kind = rng.randrange(6)
    try:
        if kind == 0:  # in the middle of a head
            c.send(head("POST", "/v1/completions", key, length=len(long_one))[:rng.randint(1, 60)])
        elif kind == 1:  # of a body
            c.send(head("POST", "/v1/completions", key, length=len(long_one)) + long_one[:rng.randint(0, len(long_one) - 1)])
        elif kind == 2:  # of an upload
            c.send(head("POST", "/v1/files", key, "Content-Type: multipart/form-data; boundary=b", length=500000) + b"--b\r\n" + b"x" * rng.randint(0, 300000))
        elif kind == 3:  # of a chunk
            c.send(head("POST", "/v2/models/digits/infer", key, "Transfer-Encoding: chunked") + b"4000\r\n" + b"y" * rng.randint(0, 8000))
        elif kind == 4:  # while it waits, at once
            c.send(head("POST", "/v1/completions", key, length=len(long_one)) + long_one)
        else:  # of the answer
            c.send(head("POST", "/v1/completions", key, length=len(long_one)) + long_one)
            c.s.settimeout(rng.random() * 0.3 + 0.01)
            try:
                c.s.recv(rng.randint(1, 2000))
            except OSError:
                pass
        time.sleep(rng.random() * 0.02)
    finally:
        c.close(reset=rng.random() < 0.5)


def slow_write(address, key, body, seconds, timeout):
    """The status of a request whose body comes in drops."""
    c = Raw(address, timeout)
    data = head("POST", "/v1/completions", key, length=len(body)) + body
    steps = 20
    try:
        for i in range(steps):
            c.send(data[len(data) * i // steps:len(data) * (i + 1) // steps])
            time.sleep(seconds / steps)
        return c.status()
    finally:
        c.close()


def slow_read(address, key, body, seconds, timeout):
    """(status, whether a stream that is read slowly came whole)"""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.settimeout(timeout)
    got = b""
    try:
        s.connect(address)
        s.sendall(head("POST", "/v1/completions", key, "Connection: close", length=len(body)) + body)
        end = time.monotonic() + seconds
        while True:
            piece = s.recv(300 if time.monotonic() < end else 65536)
            if not piece:
                break
            got += piece
            if time.monotonic() < end:
                time.sleep(0.05)
    finally:
        s.close()
    return int(got[9:12]), b"data: [DONE]" in got


def choose(rows, seed):
    """Endless, each once before any twice."""
    rng = random.Random(seed)
    while True:
        order = list(rows)
        rng.shuffle(order)
        yield from order
