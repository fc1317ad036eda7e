#!/usr/bin/env python3
"""usage: soak.py TRIREME SOURCE_DIR [SECONDS]     (40 by default)

Two replicas with the demo models and an encoder under everything at once: good clients of every API whose answers are compared with
those of an idle server, models loaded anew, clients that leave, are slow, broken (soak_hostile.py), have no key, or are too many.
At the end: no request is left, the counts add up, answers are still right, memory and open files have not grown, exit code 0.
TRM_SOAK_RANKS=1: one process (for sanitizers, which then judge memory: TRM_SOAK_MEMORY=off).

Memory. The KV cache is small, so that it is full after the first third, in which programs for all sizes of steps are bound and malloc's
arenas find their size as well. What processes have for themselves in the second third and in the last (medians of samples, so that peaks
of models that are loaded do not count) may differ by 4 MiB and 3 %: malloc's fragments move by that much from run to run. The thirds
are 13 s apart at 40 s, some thousands of requests: that notices 1 to 2 KiB lost a request, ten minutes 100 bytes.
77: no mpirun here.
"""
import csv
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import struct
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import soak_hostile as hostile
from serving import SCALE, Cluster, fail, resident

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 40
RANKS = int(os.environ.get("TRM_SOAK_RANKS", "2"))
BODY = 256 << 10
PER_KEY = 24
KEYS = {n: f"the-long-key-of-{n}" for n in ("good", "files", "bad", "many", "slow", "root")}
DIGITS = source / "configs/demo/digits"
PROMPTS = ["We must", "The state of the Union is", "My fellow citizens", "Peace", "In the year", "Congress has", "The people of", "Tonight"]
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
          "required": ["name", "age"], "additionalProperties": False}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"

if RANKS > 1 and shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)
work = pathlib.Path(tempfile.mkdtemp())
stop, lock = threading.Event(), threading.Lock()
counts, errors = {}, []


def count(name, n=1):
    with lock:
        counts[name] = counts.get(name, 0) + n


def bearer(name):
    return {"Authorization": f"Bearer {KEYS[name]}"}


def must(condition, text):
    if not condition:
        raise AssertionError(text)


def start():
    """The server; the tests' BERT gets a tokenizer whose vocabulary fits it."""
    shutil.copytree(source / "tests/data/language/models/bert", work / "bert")
    t = json.loads((source / "tests/data/tokenizers/bert_uncased.json").read_text())
    t["model"]["vocab"] = {k: v for k, v in t["model"]["vocab"].items() if v < 256}
    (work / "bert/tokenizer.json").write_text(json.dumps(t))
    (work / "template").write_text(TEMPLATE)
    (work / "tmp").mkdir()
    keys = work / "keys"
    keys.write_text("".join(f"{n} {k}{' admin' if n == 'root' else ''}\n" for n, k in KEYS.items()))
    keys.chmod(0o600)
    models = (f'  - {{ name: digits, path: "{DIGITS}/model.onnx", max_batch: 8 }}\n'
              f'  - {{ name: sotu, path: "{source}/configs/demo/tiny-sotu", kv_cache: 8MiB, chat_template: "{work}/template" }}\n'
              f'  - {{ name: bert, path: "{work}/bert" }}\n'
              f'  - {{ name: extra, path: "{DIGITS}/model.onnx", load: false }}')
    limits = f"limits: {{ body: {BODY}, upload: 1MiB, requests_per_key: {PER_KEY}, connections: 200, idle_s: {5 * SCALE}, batch_requests: 6 }}"
    c = Cluster(trireme, models, cluster=f"replicas: {RANKS}", gateway=f'keys: "{keys}", access_log: "{work}/access"', more=limits, ranks=RANKS,
                env={"TMPDIR": str(work / "tmp")})
    return c.ready()


# ---- good clients: (name, method, path, body, headers); their answers are known ----
def good_requests():
    for i, prompt in enumerate(PROMPTS * 3):
        r = {"model": "sotu", "max_tokens": 4 + 3 * i, "temperature": 0 if i % 4 == 0 else 0.9, "seed": 100 + i, "top_p": 0.95, "n": 1 + i % 2}
        if i % 3 == 2:
            yield "chat", "/v1/chat/completions", dict(r, messages=[{"role": "user", "content": prompt * (1 + i % 5)}])
        else:
            yield "completions", "/v1/completions", dict(r, prompt=prompt * (1 + i % 7), logprobs=2, priority=i % 3)
    for i, prompt in enumerate(PROMPTS[:4]):
        form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
        yield "schema", "/v1/completions", {"model": "sotu", "prompt": prompt, "max_tokens": 80, "seed": i, "temperature": 0.7, "response_format": form}
        yield "tokenize", "/tokenize", {"model": "sotu", "prompt": prompt * 10}
        yield "detokenize", "/detokenize", {"model": "sotu", "tokens": [5 + i, 90, 700 + i]}
        yield "embeddings", "/v1/embeddings", {"model": "bert", "input": [prompt, "a b c"]}
        yield "generate", "/v2/models/sotu/generate", {"text_input": prompt, "parameters": {"max_tokens": 9, "temperature": 0}}


def choices(answer):
    """The part of an answer that is the same each time."""
    if "choices" in answer:
        rows = sorted(answer["choices"], key=lambda x: x["index"])
        return [(x["index"], x["text"] if "text" in x else x["message"]["content"], x["finish_reason"], x.get("logprobs")) for x in rows]
    return {k: v for k, v in answer.items() if k not in ("id", "created")}


def joined(events):
    out = {}
    for e in events:
        for x in e["choices"]:
            text, reason = out.get(x["index"], ("", None))
            out[x["index"]] = (text + (x["text"] if "text" in x else x["delta"].get("content") or ""), x["finish_reason"] or reason)
    return [(i, *out[i]) for i in sorted(out)]


def ask(c, path, body, key="good", headers=None, method="POST", connection=None):
    """One of the orderly clients: 429 means to come again."""
    while True:
        status, a = c.ask(method, path, body, dict(bearer(key), **(headers or {})), connection)
        if status != 429:
            return status, a
        count("429 to orderly ones")
        time.sleep(0.05)


def text_client(c, expected, rng):
    connection = c.connect()
    while not stop.is_set():
        kind, path, body = rng.choice(list(GOOD))
        want = expected[GOOD.index((kind, path, body))]
        if kind in ("chat", "completions") and rng.random() < 0.5:
            connection.request("POST", path, body=json.dumps(dict(body, stream=True)), headers=bearer("good"))
            r = connection.getresponse()
            lines = [x.decode().strip() for x in r]
            if r.status == 429:
                continue
            must(r.status == 200, f"{path} stream: {r.status} {lines}")
            events = [x[6:] for x in lines if x.startswith("data: ")]
            must(events and events[-1] == "[DONE]", f"{path} stream: it ends with {events[-1:]}")
            got = joined([json.loads(x) for x in events[:-1]])
            must(got == [x[:3] for x in want], f"{path} stream: {got}, want {want}")
            kind += " stream"
        else:
            status, a = ask(c, path, body, connection=connection)
            must(status == 200, f"{path}: {status} {a}")
            must(choices(a) == want, f"{path}: {a}, want {want}")
        count(kind)
    connection.close()


def digit_client(c, images, tensors, rng):
    connection = c.connect()
    while not stop.is_set():
        if rng.random() < 0.4:
            name, label = rng.choice(images)
            status, a = ask(c, "/predictions/digits", (DIGITS / "images" / name).read_bytes(), headers={"Content-Type": "image/png"}, connection=connection)
            must(status == 200 and next(iter(a)) == label, f"prediction of {name}: {status} {a}, want {label}")
            count("predictions")
            continue
        values, want = rng.choice(tensors)
        n = len(values) // 1024
        if rng.random() < 0.5:
            body = json.dumps({"inputs": [{"name": "image", "shape": [n, 1, 32, 32], "datatype": "FP32", "data": values}]}).encode()
            status, a = ask(c, "/v2/models/digits/infer", body, connection=connection)
            must(status == 200, f"infer: {status} {a}")
            got = a["outputs"][0]["data"]
            count("infer")
        else:
            o = {"inputs": [{"name": "image", "shape": [n, 1, 32, 32], "datatype": "FP32", "parameters": {"binary_data_size": 4096 * n}}],
                 "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}
            text = json.dumps(o).encode()
            status, a = ask(c, "/v2/models/digits/infer", text + struct.pack(f"<{len(values)}f", *values),
                            headers={"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}, connection=connection)
            must(status == 200 and isinstance(a, bytes), f"binary infer: {status} {a}")
            got = struct.unpack(f"<{10 * n}f", a[-40 * n:])
            count("infer binary")
        if want is not None:
            must(max(abs(x - y) for x, y in zip(got, want)) < 1e-3 and len(got) == len(want), f"infer: {got}, want {want}")
    connection.close()


def file_client(c, rng):
    n = 0
    while not stop.is_set():
        n += 1
        lines = [{"custom_id": f"l{i}", "method": "POST", "url": "/v1/completions", "body": GOOD[i][2]} for i in (0, 1, 3, 4, 6, 7)]
        text = "\n".join(json.dumps(x) for x in lines).encode()
        body = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; name="file"; '
                b'filename="r.jsonl"\r\n\r\n' + text + b"\r\n--b--\r\n")
        status, f = ask(c, "/v1/files", body, "files", {"Content-Type": "multipart/form-data; boundary=b"})
        must(status == 200, f"upload: {status} {f}")
        status, b = ask(c, "/v1/batches", {"input_file_id": f["id"], "endpoint": "/v1/completions", "completion_window": "24h"}, "files")
        must(status == 200, f"batch: {status} {b}")
        if n % 4 == 0:
            ask(c, f"/v1/batches/{b['id']}/cancel", b"", "files")
        end = time.monotonic() + 60 * SCALE
        while b["status"] in ("validating", "in_progress", "finalizing", "cancelling"):
            must(time.monotonic() < end, f"a batch does not end: {b}")
            time.sleep(0.05)
            status, b = ask(c, f"/v1/batches/{b['id']}", None, "files", method="GET")
        must(b["status"] in (("completed",) if n % 4 else ("completed", "cancelled")), f"batch: {b}")
        if n % 4:
            status, out = ask(c, f"/v1/files/{b['output_file_id']}/content", None, "files", method="GET")
            rows = [json.loads(x) for x in (out if isinstance(out, bytes) else json.dumps(out).encode()).splitlines()]
            must(status == 200 and len(rows) == len(lines), f"a batch's output: {status} {out!r}")
            for row in rows:
                i = [x["custom_id"] for x in lines].index(row["custom_id"])
                must(choices(row["response"]["body"]) == EXPECTED[(0, 1, 3, 4, 6, 7)[i]], f"a batch's line: {row}")
        for i in [f["id"], b.get("output_file_id"), b.get("error_file_id")]:
            if i:
                status, a = ask(c, f"/v1/files/{i}", None, "files", method="DELETE")
                must(status == 200, f"deletion: {status} {a}")
        count("batches")
        stop.wait(0.3)


def load_client(c, rng):
    while not stop.wait(rng.random() * 3):
        m = rng.choice(["digits", "sotu", "bert", "extra"])
        status, a = ask(c, f"/v2/repository/models/{m}/load", {}, "root")
        must(status == 200, f"load {m}: {status} {a}")
        if m == "extra":
            status, a = ask(c, "/predictions/extra", (DIGITS / "images/000.png").read_bytes())
            must(status == 200, f"prediction after a load: {status} {a}")
            status, a = ask(c, "/v2/repository/models/extra/unload", {}, "root")
            must(status == 200, f"unload: {status} {a}")
        count("loads")


# ---- the others ----
def broken_client(c, rng):
    address = (c.url.hostname, c.url.port)
    bodies = hostile.choose(hostile.bad_bodies(BODY), rng.random())
    http = hostile.choose(hostile.bad_http(KEYS["bad"]), rng.random())
    while not stop.is_set():
        for _ in range(3):
            name, path, body, statuses, lines = next(bodies)
            r = hostile.Raw(address, 60 * SCALE)
            r.send(hostile.head("POST", path, KEYS["bad"], *lines, length=len(body)) + body)
            status = r.status()
            r.close()
            must(status in statuses or status == 429, f"{path}, {name}: {status}, want {statuses}")
            count("broken bodies")
        name, data, statuses = next(http)
        r = hostile.Raw(address, 60 * SCALE)
        r.send(data)
        status = r.status()
        r.close(reset=rng.random() < 0.5)
        must(status in statuses or status == 429, f"{name}: {status}, want {statuses}")
        count("broken HTTP")
        stop.wait(0.01)


def leaving_client(c, rng):
    while not stop.is_set():
        hostile.leave((c.url.hostname, c.url.port), KEYS["bad"], rng, 60 * SCALE)
        count("left")


def slow_client(c, rng):
    address = (c.url.hostname, c.url.port)
    while not stop.is_set():
        body = json.dumps({"model": "sotu", "prompt": "We", "max_tokens": 8}).encode()
        status = hostile.slow_write(address, KEYS["slow"], body, 2, 60 * SCALE)
        must(status == 200, f"a slow writer: {status}")
        body = json.dumps({"model": "sotu", "prompt": "We", "max_tokens": 200, "ignore_eos": True, "n": 4, "stream": True, "logprobs": 5}).encode()
        status, whole = hostile.slow_read(address, KEYS["slow"], body, 3, 60 * SCALE)
        must(status == 200 and whole, f"a slow reader: {status}, whole: {whole}")
        count("slow")


def keyless_client(c, rng):
    """Every path without a key, with a wrong one, with one that may not administer."""
    table = hostile.routes(source)
    must(len(table) > 40, f"{len(table)} routes found in the sources")
    connection = c.connect()
    while not stop.is_set():
        for method, pattern, flags in table:
            path = hostile.filled(pattern)
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": KEYS["good"] + "x"}, {"Authorization": "Basic " + KEYS["good"]},
                            {"Authorization": "Bearer "}):
                status, a = c.ask(method, path, b"{}" if method == "POST" else None, headers, connection)
                must((status != 401) if "OPEN" in flags else status == 401, f"{method} {path} with {headers}: {status} {a}")
                count("wrong keys")
            if "ADMIN" in flags:
                status, a = c.ask(method, path, b"{}", bearer("good"), connection)
                must(status == 403 or status == 429, f"{method} {path} with a key that may not: {status}")
            if stop.is_set():
                return
        stop.wait(1)


def crowd(c, rng):
    """More requests of one key than it may have: some are answered 429, the others well."""
    got = []

    def one(i):
        connection = c.connect()
        connection.request("POST", "/v1/completions", headers=bearer("many"), body=json.dumps(
            {"model": "sotu", "prompt": f"Number {i}", "max_tokens": 60, "ignore_eos": True, "seed": i, "stream": bool(i % 2)}))
        r = connection.getresponse()
        r.read()
        got.append((r.status, r.headers.get("Retry-After")))
        connection.close()

    while not stop.wait(rng.random() * 4):
        got.clear()
        threads = [threading.Thread(target=guarded, args=("crowd", one, i)) for i in range(2 * PER_KEY)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        bad = [x for x in got if x[0] not in (200, 429) or (x[0] == 429) != (x[1] is not None)]
        must(not bad and len(got) == 2 * PER_KEY, f"a crowd: {bad}, {len(got)}")
        count("crowd 200", sum(x[0] == 200 for x in got))
        count("crowd 429", sum(x[0] == 429 for x in got))


def guarded(name, call, *args):
    try:
        call(*args)
    except Exception as e:  # noqa: BLE001: a thread's failure is the test's
        with lock:
            errors.append(f"{name}: {type(e).__name__} {e}"[:1500])
        stop.set()


# ---- checks ----
def tensors_and_images(c):
    rng, tensors = random.Random(3), []
    for n in (1, 1, 2, 3):
        values = [struct.unpack("<f", struct.pack("<f", rng.random()))[0] for _ in range(1024 * n)]
        status, a = ask(c, "/v2/models/digits/infer", {"inputs": [{"name": "image", "shape": [n, 1, 32, 32], "datatype": "FP32", "data": values}]})
        if status != 200:
            fail(c, f"infer: {status} {a}")
        tensors.append((values, a["outputs"][0]["data"]))
    with open(DIGITS / "labels.csv", newline="") as f:
        images = [(row[0], row[1]) for row in csv.reader(f) if (DIGITS / "images" / row[0]).exists()]
    right = []
    for name, label in images[:60]:  # the network is not always right
        status, a = ask(c, "/predictions/digits", (DIGITS / "images" / name).read_bytes(), headers={"Content-Type": "image/png"})
        if status == 200 and next(iter(a)) == label:
            right.append((name, label))
    if len(right) < 50:
        fail(c, f"{len(right)} of 60 pictures are recognized")
    return tensors, right


def answers(c):
    out = []
    for kind, path, body in GOOD:
        status, a = ask(c, path, body)
        if status != 200:
            fail(c, f"{path}: {status} {a}")
        if kind == "schema":
            text = a["choices"][0]["text"]
            if a["choices"][0]["finish_reason"] == "stop" and set(json.loads(text)) != {"name", "age"}:
                fail(c, f"{path}: {text} is not of the schema")
        out.append(choices(a))
    return out


def quiet(c):
    """Waits for the end of what clients have left behind; the status."""
    end = time.monotonic() + 15 * SCALE
    while time.monotonic() < end:
        status, s = c.ask("GET", "/status", headers=bearer("root"))
        if status == 200 and s["cluster"]["running"] == s["cluster"]["waiting"] == 0 and s["http"]["connections"] <= 1:
            if all(r["in_flight"] == 0 for r in s["replicas"]):
                return s
        time.sleep(0.1)
    fail(c, f"requests are left: {s['cluster']}, {s['http']}, {[r['in_flight'] for r in s['replicas']]}")


def open_files(pids):
    return [len(os.listdir(f"/proc/{p}/fd")) for p in pids]


def check_connections(c):
    """More than may be open at once: the others wait or are refused, and those that say nothing are closed."""
    held, address = [], (c.url.hostname, c.url.port)
    for _ in range(230):
        try:
            held.append(hostile.Raw(address, 30 * SCALE))
        except OSError:
            pass
    time.sleep(0.5)
    end = time.monotonic() + 30 * SCALE
    status = None
    while time.monotonic() < end and status != 200:  # idle ones are closed after idle_s
        try:
            status, _ = c.ask("GET", "/health/live")
        except OSError:
            time.sleep(0.2)
    if status != 200:
        fail(c, "silent connections keep others out")
    for h in held:
        h.close()


def metrics(c):
    status, text = c.ask("GET", "/metrics", headers=bearer("root"))
    if status != 200:
        fail(c, f"/metrics: {status}")
    out = {}
    for name, labels, value in re.findall(r'^(\w+)(?:\{(.*)\})? (\S+)$', text.decode(), re.M):
        out[(name, tuple(re.findall(r'(\w+)="([^"]*)"', labels)))] = float(value)
    return out


def check_counts(c, before):
    m, s = metrics(c), quiet(c)

    def total(name, **labels):
        return sum(v for (n, l), v in m.items() if n == name and all(dict(l).get(k) == x for k, x in labels.items()))

    for route in {dict(l)["route"] for n, l in m if n == "trireme_http_requests_total"}:
        answered, timed = total("trireme_http_requests_total", route=route), total("trireme_http_request_duration_seconds_count", route=route)
        if answered != timed and route not in ("/status", "/metrics"):
            fail(c, f"/metrics: {route} was answered {answered} times and timed {timed} times")
    for model in s["models"]:
        ended = total("trireme_request_success_total", model=model["name"]), total("trireme_request_failure_total", model=model["name"])
        if ended != (model["requests"], model["failures"]):
            fail(c, f"{model['name']}: {ended} in /metrics, {model['requests']}, {model['failures']} in /status")
        if total("trireme_num_requests_running", model=model["name"]) + total("trireme_num_requests_waiting", model=model["name"]) != 0:
            fail(c, f"{model['name']}: /metrics says that requests run")
    for kind, route in [("embeddings", "/v1/embeddings"), ("tokenize", "/tokenize"), ("detokenize", "/detokenize")]:  # nobody leaves these
        served = total("trireme_http_requests_total", route=route, code="200")
        if served != counts.get(kind, 0) + before[kind]:
            fail(c, f"{route}: {served} were answered 200, clients had {counts.get(kind, 0)} and {before[kind]}")
    strange = {(dict(l)["route"], dict(l)["code"]): v for (n, l), v in m.items() if n == "trireme_http_requests_total" and dict(l)["code"] in ("500", "502", "503", "504")}
    if (s["configuration"] or {}).get("groups") is None:
        fail(c, f"/status has lost the configuration: {s['configuration']}")
    if strange or s["replicas_lost"] != 0:
        fail(c, f"answers that should not be: {strange}; {s['replicas_lost']} replicas lost")
    cancelled = total("trireme_request_failure_total", reason="cancelled")
    return int(total("trireme_http_requests_total")), int(cancelled)


def check_memory(c, samples):
    n = len(samples) // 3
    if os.environ.get("TRM_SOAK_MEMORY") == "off" or n < 3:
        return
    if "TRM_SOAK_TRACE" in os.environ:
        pathlib.Path(os.environ["TRM_SOAK_TRACE"]).write_text("".join(" ".join(str(v) for v in x) + "\n" for x in samples))
    for rank in range(RANKS):
        then, now = (statistics.median(x[rank] for x in part) for part in (samples[n:2 * n], samples[2 * n:]))
        print(f"rank {rank}: private memory {samples[0][rank] / 1e6:.1f} MB at the start, {then / 1e6:.1f} in the second third, {now / 1e6:.1f} in the last")
        if now - then > max(4 << 20, then * 0.03):
            fail(c, f"rank {rank} has grown by {(now - then) / 1e6:.2f} MB")


def main():
    global GOOD
    GOOD = list(good_requests())
    c = start()
    try:
        soak(c)
    except OSError as e:  # a connection that the server has cut, mostly because it is gone
        fail(c, f"{type(e).__name__} {e}; the server's exit code: {c.process.poll()}")


def soak(c):
    global EXPECTED
    EXPECTED = answers(c)
    tensors, images = tensors_and_images(c)
    before = {k: sum(g[0] == k for g in GOOD) for k in ("embeddings", "tokenize", "detokenize")}
    pids, samples = c.ranks(), []
    if len(pids) != RANKS:
        fail(c, f"{len(pids)} processes, want {RANKS}")
    for m in ("digits", "extra"):  # files that are opened once
        ask(c, f"/v2/repository/models/{m}/load", {}, "root")
    ask(c, "/v2/repository/models/extra/unload", {}, "root")
    quiet(c)
    files = open_files(pids)
    clients = [(text_client, (EXPECTED,))] * 6 + [(digit_client, (images, tensors))] * 3 + [(file_client, ()), (load_client, ()), (crowd, ()), (keyless_client, ())]
    clients += [(broken_client, ())] * 2 + [(leaving_client, ())] * 3 + [(slow_client, ())] * 2
    threads = [threading.Thread(target=guarded, args=(f.__name__, f, c, *a, random.Random(i))) for i, (f, a) in enumerate(clients)]
    begun = time.monotonic()
    for t in threads:
        t.start()
    while time.monotonic() - begun < seconds and not stop.is_set():
        time.sleep(min(0.5, seconds / 60))
        if c.process.poll() is not None:
            break
        samples.append([resident(p) for p in pids])
    stop.set()
    for t in threads:
        t.join(120 * SCALE)
    if c.process.poll() is not None:
        fail(c, f"the server has ended with {c.process.returncode}")
    if errors or any(t.is_alive() for t in threads):
        fail(c, "\n".join(errors[:4]) or f"clients hang: {[t for t in threads if t.is_alive()]}")
    print(", ".join(f"{k} {v}" for k, v in sorted(counts.items())))
    for kind in ("429 to orderly ones",):
        counts.pop(kind, None)
    missing = {"completions", "completions stream", "chat", "chat stream", "schema", "tokenize", "detokenize", "embeddings", "generate", "infer", "infer binary",
               "predictions", "batches", "loads", "broken bodies", "broken HTTP", "left", "slow", "wrong keys", "crowd 200", "crowd 429"} - set(counts)
    if missing:
        fail(c, f"these never came: {missing}")
    quiet(c)
    requests, cancelled = check_counts(c, before)
    print(f"{requests} requests, {cancelled} cancelled by clients that left; nothing is left, the counts add up")
    check_connections(c)
    if answers(c) != EXPECTED:
        fail(c, "answers have changed")
    quiet(c)
    after = open_files(pids)
    if any(b > a + 2 for a, b in zip(files, after)):
        fail(c, f"open files: {files}, then {after}")
    left = [p.name for p in (work / "tmp").glob("trireme-upload-*")]
    if left:
        fail(c, f"uploads that nobody took are left: {left[:3]}")
    check_memory(c, samples)
    logged = [x for x in c.text().splitlines() if re.match(r"\S+ E ", x) or "ERROR: " in x or "runtime error" in x or "WARNING: ThreadSanitizer" in x]
    if logged:
        fail(c, f"it has logged errors: {logged[:3]}")
    text, code = c.text(), c.end()
    if code != 0:
        print(text[-4000:])
        fail(None, f"exit code {code}")
    print(f"open files {files}, then {after}; answers as at the start; exit code 0")


try:
    main()
finally:
    shutil.rmtree(work, ignore_errors=True)
