#!/usr/bin/env python3
"""usage: serve.py TRIREME SOURCE_DIR. trireme serve with language models on a device with memory of its own, over the emulated driver
(TRM_CUDA_DRIVER, TRM_CUDA_MODULE are set): two models at once, the CPU's tokens, clients that leave, models loaded anew, a drain;
a device that is lost while models are loaded, and while requests are under way."""
import json
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "mpi"))
from serving import SCALE, Cluster, fail

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
MODELS = "".join(f'  - {{ name: {n}, path: "{source}/tests/data/language/models/{n}", dtype: fp32, kv_cache: 2MiB }}\n'
                 for n in ("llama", "gemma3"))


def answers(c):
    """Tokens of several requests at once; None where one was not answered."""
    out = [None] * 6

    def one(i):
        status, a = c.ask("POST", "/v1/completions", {"model": ("llama", "gemma3")[i % 2], "prompt": [1 + i, 5, 9], "max_tokens": 3 + i % 3,
                                                      "temperature": 0.8 * (i % 3 > 0), "seed": i, "return_token_ids": True})
        out[i] = [x["token_ids"] for x in a["choices"]] if status == 200 else None

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(out))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


def on(device, fault=None):
    return Cluster(trireme, MODELS, cluster=f"device: {device}", env={"TRM_EMU_FAULT": fault} if fault else {})


def same_as_cpu():
    c = on("cpu").ready()
    want = answers(c)
    c.end()
    c = on("cuda").ready()
    got = answers(c)
    if None in want or got != want:
        fail(c, f"on the device {got}, on the CPU {want}")
    for model in ("llama", "gemma3"):
        k = c.connect()
        k.request("POST", "/v1/completions", body=json.dumps({"model": model, "prompt": [1], "max_tokens": 40, "stream": True}).encode())
        k.getresponse().read(1)
        k.close()
    status, a = c.ask("POST", "/v2/repository/models/llama/load", {})
    if status != 200 or answers(c) != want:
        fail(c, f"after clients left and a model was loaded anew ({status} {a}): other answers")
    code = c.end()
    if code != 0:
        fail(None, f"exit code {code} after a drain")


def lost():
    c = on("cuda", "1:700")  # the first launch of a kernel
    try:
        code = c.process.wait(60 * SCALE)
    except subprocess.TimeoutExpired:
        fail(c, "a device that is lost at once: it goes on")
    if code != 1 or c.text().splitlines()[-1].count("the GPU failed") != 1:
        fail(c, f"a device that is lost at once: exit code {code}, want 1 and why")
    c.close()
    c = on("cuda", "12000:700").ready()  # sizes of steps are bound and captured first, which runs some thousand kernels
    for _ in range(300):
        if None in answers(c):
            break
    else:
        fail(c, "the device was not lost")
    try:
        code = c.process.wait(60 * SCALE)
    except subprocess.TimeoutExpired:
        fail(c, "a device that is lost: it goes on")
    if code != 1 or "no replica is left; the last was" not in c.text() or "the GPU failed" not in c.text().splitlines()[-1]:
        fail(c, f"a device that is lost: exit code {code}, want 1 and why")
    c.close()


same_as_cpu()
lost()
print("ok")
