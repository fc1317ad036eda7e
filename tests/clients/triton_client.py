#!/usr/bin/env python3
"""usage: triton_client.py TRIREME SOURCE_DIR

tritonclient.http as it comes against trireme serve: health, metadata, configuration, statistics; infer with JSON and with binary tensors of
every datatype, compared with what was sent, with numpy and with onnxruntime's stored output; requested outputs, classification, ids,
compression, priorities and timeouts; error texts; load, unload and reload under traffic; 16 requests at once."""
import json
import pathlib
import sys
import threading

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

here = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(here.parent / "mpi"), str(here.parent / "cli")]
import onnx_bytes as ox  # noqa: E402
from serving import SCALE, Cluster, fail  # noqa: E402

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
RESNET = source / "tests/data/networks/resnet18"

# v2's datatype: numpy's, ONNX's number
TYPES = {
    "BOOL": (np.bool_, 9), "UINT8": (np.uint8, 2), "INT8": (np.int8, 3), "UINT16": (np.uint16, 4), "INT16": (np.int16, 5),
    "INT32": (np.int32, 6), "INT64": (np.int64, 7), "UINT32": (np.uint32, 12), "UINT64": (np.uint64, 13), "FP16": (np.float16, 10),
    "FP32": (np.float32, 1), "FP64": (np.float64, 11),
}


def write_models(folder):
    """types: each input comes back; sums: a + b and a * b."""
    names = [t.lower() for t in TYPES]
    nodes = [ox.node("Identity", [f"in_{n}"], [f"out_{n}"], name=n) for n in names]
    ins = [ox.info(f"in_{n}", TYPES[n.upper()][1], ["n", 3]) for n in names]
    outs = [ox.info(f"out_{n}", TYPES[n.upper()][1], ["n", 3]) for n in names]
    (folder / "types.onnx").write_bytes(ox.model(nodes, ins, outs))
    nodes = [ox.node("Add", ["a", "b"], ["sum"]), ox.node("Mul", ["a", "b"], ["product"])]
    ins = [ox.info(x, ox.F32, ["n", 4]) for x in "ab"]
    outs = [ox.info(x, ox.F32, ["n", 4]) for x in ("sum", "product")]
    (folder / "sums.onnx").write_bytes(ox.model(nodes, ins, outs))


def check(condition, text):
    if not condition:
        fail(cluster, text)


def same(got, want, text):
    check(got is not None and got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want, equal_nan=want.dtype.kind == "f"),
          f"{text}: {got!r}, want {want!r}")


def refused(status, part, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except InferenceServerException as e:
        check(e.status() == status and part in e.message(), f"{e.status()} {e.message()!r}, want {status} ...{part!r}")
        return
    fail(cluster, f"nothing was refused, want {status} ...{part!r}")


def tensor(name, array, binary=True, datatype=None):
    t = triton.InferInput(name, list(array.shape), datatype or {np.dtype(v[0]): k for k, v in TYPES.items()}[array.dtype])
    return t.set_data_from_numpy(array, binary_data=binary)


def sample(dtype, n=2):
    rng = np.random.default_rng(7)
    if dtype == np.bool_:
        return rng.random((n, 3)) < 0.5
    if np.issubdtype(dtype, np.integer):
        i = np.iinfo(dtype)
        a = rng.integers(i.min, i.max, (n, 3), dtype=dtype, endpoint=True)
        a.flat[:2] = i.min, i.max
        return a
    a = (rng.standard_normal((n, 3)) * 100).astype(dtype)
    a.flat[:2] = np.finfo(dtype).max, np.finfo(dtype).tiny
    return a


def server_and_models(c):
    check(c.is_server_live() and c.is_server_ready(), "the server is not ready")
    check(c.is_model_ready("types") and c.is_model_ready("types", "1"), "a model is not ready")
    check(not c.is_model_ready("nothing") and not c.is_model_ready("photos"), "a model is ready that is not")
    m = c.get_server_metadata()
    check(m["name"] == "trireme" and m["version"] and "binary_tensor_data" in m["extensions"], str(m))
    m = c.get_model_metadata("types")
    check(m["name"] == "types" and m["versions"] == ["1"] and m["platform"], str(m))
    check([(i["name"], i["datatype"], i["shape"]) for i in m["inputs"]] == [(f"in_{t.lower()}", t, [-1, 3]) for t in TYPES], str(m["inputs"]))
    check([(o["name"], o["datatype"]) for o in m["outputs"]] == [(f"out_{t.lower()}", t) for t in TYPES], str(m["outputs"]))
    g = c.get_model_config("sums")
    check(g["name"] == "sums" and g["max_batch_size"] == 8 and g["backend"] == "trireme", str(g))
    check([(i["name"], i["data_type"], i["dims"]) for i in g["input"]] == [("a", "TYPE_FP32", [4]), ("b", "TYPE_FP32", [4])], str(g))
    check("dynamic_batching" in g and g["instance_group"][0]["count"] == 1, str(g))
    refused("404", "nothing", c.get_model_metadata, "nothing")
    refused("404", "", c.get_model_metadata, "types", "9")
    refused("503", "photos", c.get_model_metadata, "photos")


def datatypes(c):
    arrays = {t: sample(TYPES[t][0]) for t in TYPES}
    for binary_in in (True, False):
        for binary_out in (True, False):
            ins = [tensor(f"in_{t.lower()}", arrays[t], binary_in) for t in TYPES]
            outs = [triton.InferRequestedOutput(f"out_{t.lower()}", binary_data=binary_out) for t in TYPES]
            r = c.infer("types", ins, outputs=outs, request_id="a \"b\"")
            check(r.get_response()["id"] == "a \"b\"" and r.get_response()["model_version"] == "1", str(r.get_response()))
            for t in TYPES:
                same(r.as_numpy(f"out_{t.lower()}"), arrays[t], f"{t}, binary in {binary_in}, out {binary_out}")
    # some of each, and all outputs as they come
    ins = [tensor(f"in_{t.lower()}", arrays[t], i % 2 == 0) for i, t in enumerate(TYPES)]
    r = c.infer("types", ins, model_version="1")
    for t in TYPES:
        same(r.as_numpy(f"out_{t.lower()}"), arrays[t], t)
    check([o["name"] for o in r.get_response()["outputs"]] == [f"out_{t.lower()}" for t in TYPES], "the outputs' order")


def values(c):
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((3, 4), dtype=np.float32) for _ in "ab")
    ins = [tensor("a", a, False), tensor("b", b)]
    r = c.infer("sums", ins)
    same(r.as_numpy("sum"), a + b, "a + b")
    same(r.as_numpy("product"), a * b, "a * b")
    # asked for: one, in another form; and in another order
    r = c.infer("sums", ins, outputs=[triton.InferRequestedOutput("product", binary_data=False)])
    same(r.as_numpy("product"), a * b, "a * b as JSON")
    check(r.as_numpy("sum") is None, "an output that nobody asked for")
    r = c.infer("sums", ins, outputs=[triton.InferRequestedOutput("product"), triton.InferRequestedOutput("sum", binary_data=False)])
    check([o["name"] for o in r.get_response()["outputs"]] == ["product", "sum"], "the order asked for")
    same(r.as_numpy("sum"), a + b, "a + b beside a binary one")
    for packed in ("gzip", "deflate"):
        same(c.infer("sums", ins, request_compression_algorithm=packed, response_compression_algorithm=packed).as_numpy("sum"), a + b, packed)
    same(c.infer("sums", ins, priority=1, timeout=30_000_000).as_numpy("sum"), a + b, "priority and timeout")
    # the C and C++ clients are told the same: the static helpers build and read bodies
    body, size = triton.InferenceServerClient.generate_request_body(ins)
    check(size is not None and isinstance(body, bytes), "a body with binary tensors")
    # classification: the greatest first, value:index
    top = c.infer("sums", ins, outputs=[triton.InferRequestedOutput("sum", class_count=2)]).as_numpy("sum")
    check(top.shape == (3, 2), f"classification: {top!r}")
    for row, sums in zip(top, a + b):
        order = np.argsort(-sums)[:2]
        got = [t.decode().split(":") for t in row]
        check([int(g[1]) for g in got] == list(order) and [np.float32(g[0]) for g in got] == list(sums[order]), f"{row!r} of {sums!r}")


def network(c):
    """Against the output that onnxruntime gave."""
    x, want = np.load(RESNET / "input_0.npy"), np.load(RESNET / "ort_0.npy")
    c.load_model("photos")
    check(c.is_model_ready("photos"), "photos is not ready")
    m = c.get_model_metadata("photos")
    r = c.infer("photos", [tensor(m["inputs"][0]["name"], x)])
    got = r.as_numpy(m["outputs"][0]["name"])
    check(got.shape == want.shape and np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), f"resnet18 differs by {np.abs(got - want).max()}")
    r = c.infer("photos", [tensor(m["inputs"][0]["name"], x, False)], outputs=[triton.InferRequestedOutput(m["outputs"][0]["name"], binary_data=False)])
    same(r.as_numpy(m["outputs"][0]["name"]), got, "the same as JSON")
    c.unload_model("photos")
    check(not c.is_model_ready("photos"), "photos is ready after unload")


def errors(c):
    a = np.ones((1, 4), np.float32)
    both = [tensor("a", a), tensor("b", a)]
    refused("404", "nothing", c.infer, "nothing", both)
    refused("404", "", c.infer, "sums", both, model_version="7")
    refused("400", "version 'x'", c.infer, "sums", both, model_version="x")
    refused("400", "'b'", c.infer, "sums", both[:1])
    refused("400", "'c'", c.infer, "sums", both[:1] + [tensor("c", a)])
    refused("400", "given twice", c.infer, "sums", [both[0], both[0]])
    refused("400", "'b'", c.infer, "sums", [both[0], tensor("b", np.ones((1, 5), np.float32))])
    refused("400", "", c.infer, "sums", [tensor("a", np.ones((9, 4), np.float32)), tensor("b", np.ones((9, 4), np.float32))])
    refused("400", "difference", c.infer, "sums", both, outputs=[triton.InferRequestedOutput("difference")])
    text = triton.InferInput("a", [1, 4], "BYTES").set_data_from_numpy(np.array([[b"x"] * 4], dtype=np.object_))
    refused("400", "'a' is BYTES", c.infer, "sums", [text, both[1]])
    refused("400", "stateful models are not supported", c.infer, "sums", both, sequence_id=5, sequence_start=True)
    refused("400", "shared memory", c.infer, "sums", [both[0], triton.InferInput("b", [1, 4], "FP32").set_shared_memory("r", 16)])
    same(c.infer("sums", both).as_numpy("sum"), a + a, "after all that")


def language(c):
    prompt = triton.InferInput("text_input", [1], "BYTES").set_data_from_numpy(np.array([b"My fellow"], dtype=np.object_))
    tokens = tensor("max_tokens", np.array([8], np.int32))
    m = c.get_model_metadata("sotu")
    check(m["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": [1]}, str(m))
    texts = set()
    for binary in (True, False):
        r = c.infer("sotu", [prompt, tokens], outputs=[triton.InferRequestedOutput("text_output", binary_data=binary)], parameters={"temperature": 0})
        out = r.as_numpy("text_output")[0]
        texts.add(out.decode() if isinstance(out, bytes) else out)
    check(len(texts) == 1 and len(texts.pop()) > 8, "the text of an infer request")
    status, o = cluster.ask("POST", "/v2/models/sotu/generate", {"text_input": "My fellow", "max_tokens": 8, "temperature": 0})
    check(status == 200 and o["text_output"] == (out.decode() if isinstance(out, bytes) else out), str(o))


def at_once(c):
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((1 + i % 3, 4), dtype=np.float32) for i in range(16)]
    calls = [c.async_infer("sums", [tensor("a", a), tensor("b", a)], request_id=str(i)) for i, a in enumerate(arrays)]
    for i, (a, call) in enumerate(zip(arrays, calls)):
        r = call.get_result()
        check(r.get_response()["id"] == str(i), "an answer of another request")
        same(r.as_numpy("product"), a * a, f"request {i} of 16 at once")


def statistics(c):
    before = c.get_inference_statistics("sums", "1")["model_stats"][0]
    a = np.ones((2, 4), np.float32)
    for _ in range(5):
        c.infer("sums", [tensor("a", a), tensor("b", a)])
    refused("400", "", c.infer, "sums", [tensor("a", a)])
    s = c.get_inference_statistics("sums")["model_stats"][0]
    good, bad = (s["inference_stats"][k]["count"] - before["inference_stats"][k]["count"] for k in ("success", "fail"))
    check(s["name"] == "sums" and s["version"] == "1" and (good, bad) == (5, 1), f"{good} successes and {bad} failures: {s}")
    check(s["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"], str(s))
    check(s["inference_count"] - before["inference_count"] >= 5 and s["last_inference"] > 1_600_000_000_000, str(s))
    names = {m["name"] for m in c.get_inference_statistics()["model_stats"]}
    check({"types", "sums", "sotu"} <= names, str(names))
    refused("404", "nothing", c.get_inference_statistics, "nothing")


def repository(c):
    index = {(m["name"], m["version"]): m["state"] for m in c.get_model_repository_index()}
    check(index[("sums", "1")] == "READY" and index[("photos", "1")] == "UNAVAILABLE", str(index))
    c.load_model("sums", config=json.dumps({"name": "sums", "max_batch_size": 4}))
    check(c.get_model_config("sums")["max_batch_size"] == 4, "max_batch_size of a load")
    c.load_model("sums")
    check(c.get_model_config("sums")["max_batch_size"] == 8, "a load as the configuration says")
    refused("404", "nothing", c.load_model, "nothing")
    refused("404", "nothing", c.unload_model, "nothing")
    refused("400", "path", c.load_model, "sums", config=json.dumps({"path": "/"}))
    refused("400", "max_batch", c.load_model, "sums", config=json.dumps({"max_batch_size": "many"}))
    refused("400", "broken", c.load_model, "broken")
    state = [m for m in c.get_model_repository_index() if m["name"] == "broken"]
    check(state[0]["state"] == "UNAVAILABLE" and state[0]["reason"], str(state))
    c.unload_model("types")
    refused("503", "types", c.infer, "types", [tensor("in_bool", np.ones((1, 3), np.bool_))])
    c.load_model("types")
    check(c.is_model_ready("types"), "types is not ready again")


def reload_under_traffic(c):
    stop, trouble, done = threading.Event(), [], [0]

    def traffic(seed):
        a = np.full((1, 4), seed, np.float32)
        with triton.InferenceServerClient(url, network_timeout=120 * SCALE, connection_timeout=120 * SCALE) as mine:
            while not stop.is_set() and not trouble:
                try:
                    r = mine.infer("sums", [tensor("a", a), tensor("b", a)])
                    if not np.array_equal(r.as_numpy("sum"), a + a):
                        trouble.append("a wrong sum")
                    done[0] += 1
                except Exception as e:  # any failure of a request is one of this test
                    trouble.append(repr(e))

    threads = [threading.Thread(target=traffic, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for _ in range(5):
        c.load_model("sums")
    stop.set()
    for t in threads:
        t.join()
    check(not trouble and done[0] > 0, f"{done[0]} requests, then {trouble[:3]}")


import tempfile  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    write_models(pathlib.Path(folder))
    (pathlib.Path(folder) / "broken.onnx").write_bytes(b"no model")
    cluster = Cluster(
        trireme,
        f'  - {{ name: types, path: "{folder}/types.onnx" }}\n  - {{ name: sums, path: "{folder}/sums.onnx", max_batch: 8 }}\n'
        f'  - {{ name: photos, path: "{RESNET}/model.onnx", load: false }}\n  - {{ name: broken, path: "{folder}/broken.onnx", load: false }}\n'
        f'  - {{ name: sotu, path: "{source}/configs/demo/tiny-sotu" }}',
        cluster="device: cpu",
    ).ready()
    url = f"{cluster.url.hostname}:{cluster.url.port}"
    try:
        with triton.InferenceServerClient(url, concurrency=16, network_timeout=120 * SCALE, connection_timeout=120 * SCALE) as client:
            for case in (server_and_models, datatypes, values, network, errors, language, at_once, statistics, repository, reload_under_traffic):
                case(client)
                print(f"triton client: {case.__name__}")
    except Exception as e:
        import traceback

        traceback.print_exc()
        fail(cluster, repr(e))
    code = cluster.end()
    if code != 0:
        print(f"FAILED: exit code {code}")
        sys.exit(1)
