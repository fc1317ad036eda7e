#!/usr/bin/env python3
"""trireme bench --url against a server made here that notes what it was sent.

usage: bench_url.py TRIREME

Only the standard library is needed. Nothing here depends on how fast the machine is: what is checked of times is an order
or a lower bound.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCALE = float(os.environ.get("TRM_DEADLINE_SCALE", "1"))
LIMIT = 60 * SCALE
KEY = "secret-key"
MODELS = {"lm": "generate", "enc": "embed", "net": "tensor"}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, mode="all"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = mode
        self.seen, self.lock = [], threading.Lock()  # (time, path, headers, body)
        self.under_way = self.most = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass

    def of(self, path):
        return [s for s in self.seen if s[1] == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def answer(self, status, body, content_type="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.note(b"")
        if self.server.mode == "keys" and self.headers["Authorization"] != "Bearer " + KEY:
            self.answer(401, {"error": {"message": "no"}})
        elif self.path == "/v1/models" and self.server.mode == "v2":
            self.answer(404, {"error": "not here"})
        elif self.path == "/v1/models":
            models = [] if self.server.mode == "empty" else MODELS
            self.answer(200, {"data": [{"id": m, "kind": MODELS[m]} for m in models]})
        elif self.path == "/v2/models/net":
            self.answer(200, {"name": "net", "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 3, -1]},
                {"name": "mask", "datatype": "INT64", "shape": [-1, 2]}]})
        elif self.path == "/v2/models/words":
            self.answer(200, {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1]}]})
        else:
            self.answer(404, {"error": "no such model\x1b[31m"})

    def note(self, body):
        with self.server.lock:
            self.server.seen.append((time.monotonic(), self.path, dict(self.headers), body))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.note(body)
        with self.server.lock:
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        try:
            self.post(body)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def post(self, body):
        mode, path = self.server.mode, self.path
        if path == "/v2/repository/index":
            self.answer(200, [] if mode == "empty" else [{"name": "old", "state": "UNAVAILABLE"}, {"name": "net", "state": "READY"}])
        elif path == "/tokenize" and mode != "plain":
            n = len(json.loads(body)["prompt"].split())
            self.answer(200, {"tokens": list(range(1, 2 * n + 1)), "count": 2 * n})
        elif path == "/tokenize":
            self.answer(404, {"detail": "not found"})
        elif path == "/v1/embeddings":
            self.answer(200, {"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            self.complete(json.loads(body), path == "/v1/chat/completions")
        elif path.startswith("/v2/models/net/infer") or path.startswith("/predictions/"):
            time.sleep(0.02)
            self.answer(200, b"\x00" * 64, "application/octet-stream")
        else:
            self.answer(404, {"error": "no such model\x1b[31m"})

    def complete(self, body, chat):
        mode, number = self.server.mode, len(self.server.of(self.path))
        if mode == "busy" and number % 4 == 0:
            self.answer(429, {"error": {"message": "come again later"}})
            return
        if mode == "broken":
            self.answer(200, b"<html>", "text/html")
            return
        if mode == "slow":
            time.sleep(0.2)
        if mode == "hang":
            time.sleep(30)
        usage = {"prompt_tokens": 11, "completion_tokens": 5}
        if not body.get("stream"):
            self.answer(200, {"choices": [{"text": "hello"}], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        lines = [b": a comment\n"]
        if chat:
            lines += [self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})]
        for _ in range(5):
            lines += [self.event({"choices": [{"delta": {"content": "a"}} if chat else {"text": "a"}]})]
        if mode == "error in stream":
            lines += [self.event({"error": {"message": "the replica was lost"}})]
        if "stream_options" in body and mode != "plain":
            lines += [self.event({"choices": [], "usage": usage})]
        if mode != "cut":
            lines += [b"data: [DONE]\r\n\r\n"]
        for line in lines:
            middle = len(line) // 2  # a line comes in two pieces
            for piece in (line[:middle], line[middle:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.005)
        self.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def event(o):
        return b"data: " + json.dumps(o).encode() + b"\n\n"


def bench(*args, code=0):
    done = subprocess.run([TRIREME, "bench", *args], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done


def numbers(server, *args, code=0):
    done = bench("--url", server.url, "--json", "-", *args, code=code)
    return json.loads(done.stdout)


def check(got, **want):
    for name, value in want.items():
        assert got[name] == value, (name, got[name], value)


def test_completions():
    s = Server()
    r = numbers(s, "--requests", "20", "--concurrency", "4", "--warmup", "3", "--prompt-tokens", "33",
                "--max-tokens", "5", "--ignore-eos")
    check(r, model="lm", endpoint="completions", stream=True, answered=20, failed=0, tokens=100, prompt_tokens=220)
    assert r["first"]["count"] == 20 and r["token"]["count"] == 80 and len(r["total_ms"]) == 20, r
    assert 0 < r["first"]["p50_ms"] < r["total"]["p50_ms"], r
    assert r["total"]["p50_ms"] > 5 * 5, r  # the server waits between lines
    assert r["most_at_once"] <= 4 and s.most <= 4, r
    sent = [json.loads(x[3]) for x in s.of("/v1/completions")]
    assert len(sent) == 23
    assert all(len(b["prompt"]) == 33 and b["max_tokens"] == 5 and b["ignore_eos"] is True for b in sent)
    assert len({str(b["prompt"]) for b in sent}) == 23, "two prompts are the same"
    again = Server()
    numbers(again, "--requests", "20", "--concurrency", "1", "--prompt-tokens", "33")
    first = [json.loads(x[3])["prompt"] for x in again.of("/v1/completions")]
    assert sorted(map(str, first)) == sorted(str(b["prompt"]) for b in sent[3:]), "the seed does not make the prompts"


def test_table_and_file():
    s = Server()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        done = bench("--url", s.url + "/v1/", "--requests", "3", "--json", path)
        with open(path) as f:
            check(json.load(f), answered=3, url=s.url)
    for word in ("server", "requests  3 answered", "rate", "first", "token", "total", "p99.9", "tokens/s"):
        assert word in done.stdout, (word, done.stdout)
    assert "late" not in done.stdout


def test_chat_and_plain():
    s = Server("plain")  # no /tokenize, no usage in streams
    r = numbers(s, "--endpoint", "chat", "--requests", "4", "--prompt-tokens", "9")
    check(r, endpoint="chat", answered=4, tokens=20)
    assert r["first"]["count"] == 4 and r["token"]["count"] == 16, "the role is no token"
    bodies = [json.loads(x[3]) for x in s.of("/v1/chat/completions")]
    assert all(len(b["messages"][0]["content"].split()) == 9 for b in bodies)
    r = numbers(s, "--no-stream", "--requests", "2", "--prompt", "h\u00e9 \"x\"")
    check(r, answered=2, tokens=10, stream=False)
    assert r["first"]["count"] == 0
    assert json.loads(s.of("/v1/completions")[0][3])["prompt"] == "h\u00e9 \"x\""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write("one\n\ntwo\r\n")
        f.flush()
        numbers(s, "--prompt-file", f.name, "--requests", "3")
    assert [json.loads(x[3])["prompt"] for x in s.of("/v1/completions")[2:]] == ["one", "two", "one"]


def test_embeddings():
    s = Server()
    r = numbers(s, "--model", "enc", "--requests", "2")
    check(r, endpoint="embeddings", answered=2, prompt_tokens=14, tokens=0, stream=False)


def test_infer():
    s = Server()
    r = numbers(s, "--model", "net", "--requests", "5", "--batch", "2", "--prompt-tokens", "4")
    check(r, endpoint="infer", answered=5)
    _, _, headers, body = s.of("/v2/models/net/infer")[0]
    n = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:n])
    x, mask = head["inputs"]
    assert (x["shape"], mask["shape"], x["datatype"]) == ([2, 3, 4], [2, 2], "FP32")
    assert x["parameters"]["binary_data_size"] == 96 and len(body) == n + 96 + 32
    assert struct.unpack("<4q", body[-32:]) == (1, 1, 1, 1)
    floats = struct.unpack("<24f", body[n:n + 96])
    assert len(set(floats)) == 24 and all(-10 < v < 10 for v in floats)
    v2 = Server("v2")  # a server without OpenAI's API: the first ready model of the repository
    check(numbers(v2, "--requests", "1"), model="net", endpoint="infer", answered=1)


def npy(shape, data, descr="<f4"):
    head = ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)).encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def test_files():
    s = Server()
    with tempfile.TemporaryDirectory() as folder:
        x, mask, image = (os.path.join(folder, n) for n in ("x.npy", "m.npy", "i.jpg"))
        with open(x, "wb") as f:
            f.write(npy("(1, 3, 1)", struct.pack("<3f", 1, 2, 3)))
        with open(mask, "wb") as f:
            f.write(npy("(1, 2)", struct.pack("<2q", 7, 8), "<i8"))
        with open(image, "wb") as f:
            f.write(b"\xff\xd8picture")
        numbers(s, "--model", "net", "--input", "mask=" + mask, "x=" + x, "--requests", "1")
        body = s.of("/v2/models/net/infer")[0][3]
        assert body.endswith(struct.pack("<3f", 1, 2, 3) + struct.pack("<2q", 7, 8))
        check(numbers(s, "--image", image, "--requests", "2"), endpoint="predict", model="net", answered=2)
        assert s.of("/predictions/net")[0][3] == b"\xff\xd8picture"
        for bad, why in ((["--input", "x=" + x], "'mask' is missing"), (["--input", "y=" + x], "no such input"),
                         (["--input", "x=" + x, "x=" + x], "given twice"), (["--input", "x"], "NAME=FILE"),
                         (["--input", "x=nowhere.npy"], "nowhere"), (["--image", "nowhere.jpg"], "nowhere")):
            done = bench("--url", s.url, "--model", "net", *bad, code=2)
            assert why in done.stderr and done.stderr.count("\n") == 1 and done.stdout == "", (bad, done)


def test_failures():
    r = numbers(Server("busy"), "--requests", "20")
    check(r, answered=15, failed=5, failures={"status 429": 5})
    s = Server("error in stream")
    done = bench("--url", s.url, "--requests", "2", code=1)
    assert "error in a stream: 2" in done.stdout and "the replica was lost" in done.stderr, done
    check(numbers(Server("cut"), "--requests", "2", code=1), failures={"cut stream": 2})
    check(numbers(Server("broken"), "--requests", "2", "--no-stream", code=1), failures={"no JSON": 2})
    check(numbers(Server("hang"), "--requests", "2", "--timeout", "0.3", "--no-stream", code=1),
          failures={"timeout": 2})
    r = numbers(Server(), "--model", "absent", "--api", "openai", "--endpoint", "embeddings", "--requests", "1")
    check(r, answered=1)  # what the server takes is its business


def test_open_loop():
    s = Server("slow")  # 200 ms and more each, one at a time: they pile up, and that shows
    r = numbers(s, "--rate", "50", "--requests", "8", "--connections", "1", "--no-stream")
    check(r, answered=8, most_at_once=1)
    assert r["late"]["max_ms"] > 500, "waiting for a connection does not count"
    assert r["total"]["max_ms"] > 700 and r["total"]["p50_ms"] < r["total"]["max_ms"], r
    s = Server("slow")
    r = numbers(s, "--rate", "1000", "--requests", "30", "--no-stream")
    check(r, answered=30)
    assert s.most > 3, "an open loop does not wait for answers"
    r = numbers(Server(), "--rate", "20", "--duration", "1", "--no-stream")
    assert 5 <= r["sent"] <= 40 and r["answered"] == r["sent"], r


def test_bursts():
    s = Server()
    r = numbers(s, "--burst", "4:300ms", "--requests", "12", "--no-stream")
    check(r, answered=12)
    times = [t for t, *_ in s.of("/v1/completions")]
    assert times[4] - times[0] > 0.2 and times[8] - times[4] > 0.2, times
    assert r["most_at_once"] >= 4, r


def test_keys():
    s = Server("keys")
    for more, why in (([], "--key KEY"), (["--key", "wrong"], "does not take")):
        done = bench("--url", s.url, *more, code=2)
        assert why in done.stderr and done.stderr.count("\n") == 1, done
    check(numbers(s, "--key", KEY, "--requests", "1"), answered=1)


def test_interrupt():
    s = Server("slow")
    p = subprocess.Popen([TRIREME, "bench", "--url", s.url, "--no-stream", "--duration", "50"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LIMIT
    while len(s.of("/v1/completions")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=LIMIT)
    assert p.returncode == 1 and "answered in" in out and "interrupted" in err, (p.returncode, out, err)


def test_bad_options():
    s = Server()
    gone = Server()
    gone_url = gone.url
    gone.shutdown()
    gone.server_close()
    url = ["--url", s.url]
    cases = [
        (["--url", "127.0.0.1:80"], 2, "http://HOST:PORT"),
        (["--url", "file:///etc/passwd"], 2, "http://HOST:PORT"),
        (["--url"], 2, "wants a value"),
        (["--url", gone_url], 1, gone_url),
        (url + ["model.onnx"], 2, "unexpected argument"),
        (url + ["--rate", "x"], 2, "want a number"),
        (url + ["--rate", "-1"], 2, "--rate -1"),
        (url + ["--rate", "inf"], 2, "--rate inf"),
        (url + ["--rate", "1", "--concurrency", "2"], 2, "exclude each other"),
        (url + ["--rate", "1", "--burst", "2:1"], 2, "exclude each other"),
        (url + ["--burst", "2"], 2, "N:PERIOD"),
        (url + ["--burst", "0:1"], 2, "N:PERIOD"),
        (url + ["--burst", "2:0"], 2, "N:PERIOD"),
        (url + ["--burst", "2:nan"], 2, "N:PERIOD"),
        (url + ["--burst", "2:1h"], 2, "N:PERIOD"),
        (url + ["--burst", "2x:1"], 2, "N:PERIOD"),
        (url + ["--concurrency", "0"], 2, "--concurrency"),
        (url + ["--requests", "0"], 2, "--requests"),
        (url + ["--duration", "-3"], 2, "--duration"),
        (url + ["--timeout", "0"], 2, "--timeout"),
        (url + ["--api", "grpc"], 2, "openai|v2"),
        (url + ["--endpoint", "images"], 2, "completions|chat|embeddings"),
        (url + ["--stream", "--no-stream"], 2, "exclude each other"),
        (url + ["--prompt", "a", "--prompt-file", "b"], 2, "exclude each other"),
        (url + ["--prompt", "a", "--prompt-tokens", "3"], 2, "exclude each other"),
        (url + ["--prompt-file", "nowhere.txt"], 2, "nowhere.txt"),
        (url + ["--prompt-file", os.devnull], 2, os.devnull),
        (url + ["--prompt", b"\xff"], 2, "UTF-8"),
        (url + ["--api", "openai", "--image", "x"], 2, "tensor models"),
        (url + ["--api", "v2", "--stream"], 2, "--api openai"),
        (url + ["--image", "x", "--input", "y=z"], 2, "exclude each other"),
        (url + ["--key", "a\nb"], 2, "--key"),
        (url + ["--modle", "x"], 2, "--model"),
        (url + ["--model", "absent", "--api", "v2"], 2, "no such model"),
        (url + ["--model", "words", "--api", "v2"], 2, "--api openai"),
        (url + ["--json", "/nowhere/x.json", "--requests", "1"], 1, "/nowhere/x.json"),
        (["--url", Server("empty").url], 2, "no ready model"),
        (url + ["--seed", "-1"], 2, "--seed"),
    ]
    assert b"\x1b" not in subprocess.run([TRIREME, "bench", *url, "--model", "absent", "--api", "v2"], capture_output=True,
                                         timeout=LIMIT).stderr, "a server's text reaches the terminal as it is"
    for args, code, why in cases:
        done = subprocess.run([TRIREME, "bench", *args], capture_output=True, timeout=LIMIT)
        err = done.stderr.decode()
        assert done.returncode == code and why in err and err.count("\n") == 1, (args, done)
        assert code == 1 or done.stdout == b"", (args, done)


def main():
    tests = [(n, f) for n, f in sorted(globals().items()) if n.startswith("test_")]
    for name, test in tests:
        test()
        print(f"{name}: passed", flush=True)
    print(f"{len(tests)} tests passed")


TRIREME = os.path.abspath(sys.argv[1])
main()
