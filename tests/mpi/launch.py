#!/usr/bin/env python3
"""usage: launch.py TRIREME SOURCE_DIR CASE

trireme launch with a demo model on two replicas. Cases:
  replica      a rank of a replica is killed under traffic: no request is lost, the replica comes back, in a next epoch
  coordinator  the coordinator is killed: the cluster comes back as a whole
  drain        SIGTERM while streams are under way: they end well, exit code 0, nothing is left behind
  killed       launch itself is killed: nothing survives it
  bad          what is refused before anything is started, and a cluster that cannot become ready
77: no mpirun here.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serving import SCALE, Cluster, fail

trireme, source, case = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
MODEL = source / "configs/demo/tiny-sotu"
MODELS = f'  - {{ name: sotu, path: "{MODEL}" }}'
ASK = {"model": "sotu", "prompt": "We must", "max_tokens": 24, "temperature": 0}

if shutil.which("mpirun") is None:
    print("skip: no mpirun")
    sys.exit(77)


def launched(run, **more):
    return Cluster(trireme, MODELS, cluster="replicas: 2" + more.pop("cluster", ""), command="launch",
                   env={"XDG_RUNTIME_DIR": str(run), "TMPDIR": str(run)}, **more)


def roles(c):
    """{"coordinator": [pid], "0/1": [pid], ...}"""
    out = {}
    for pid in c.ranks():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
        def option(name):
            return words[words.index(name) + 1]
        role = option("--role")
        out.setdefault(role if role == "coordinator" else f'{option("--replica")}/{option("--epoch")}', []).append(pid)
    return out


def until(c, what, condition, seconds=30):
    deadline = time.monotonic() + seconds * SCALE
    while not condition():
        if time.monotonic() > deadline:
            fail(c, f"waited {seconds} s: {what}")
        time.sleep(0.05)


def answered(c):
    try:
        return c.ask("POST", "/v1/completions", ASK)[0] == 200
    except OSError:
        return False


def replica(run):
    c = launched(run).ready()
    status, first = c.ask("POST", "/v1/completions", ASK)
    if status != 200:
        fail(c, f"{status} {first}")
    errors, done, going = [], [0], threading.Event()

    def client():
        connection = c.connect()
        while not going.is_set():
            try:
                status, a = c.ask("POST", "/v1/completions", ASK, connection=connection)
                if status != 200 or a["choices"][0]["text"] != first["choices"][0]["text"]:
                    errors.append(f"{status} {a}")
                done[0] += 1
            except Exception as e:  # noqa: BLE001: a thread's failure is the test's
                errors.append(repr(e))
                return

    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for victim, epoch in (("0/1", "0/2"), ("1/1", "1/2"), ("0/2", "0/3")):
        until(c, f"replica {victim} runs", lambda: victim in roles(c))
        before = done[0]
        os.kill(roles(c)[victim][0], signal.SIGKILL)
        until(c, f"replica {epoch} runs", lambda: epoch in roles(c))
        until(c, "requests are answered", lambda: done[0] > before + 20)
        time.sleep(1)  # so that the new one serves before the next one goes
    going.set()
    for t in threads:
        t.join()
    if errors:
        fail(c, f"{len(errors)} of {done[0]}: {errors[0]}")
    code = c.end(signal.SIGTERM)
    if code != 0:
        fail(None, f"exit code {code}")


def coordinator(run):
    c = launched(run).ready()
    old = {p for pids in roles(c).values() for p in pids}
    os.kill(roles(c)["coordinator"][0], signal.SIGKILL)
    until(c, "a new cluster", lambda: c.text().count("ready after") == 2)
    c.url = urllib.parse.urlparse(re.findall(r"ready after .*?(https?://[^,\s]+)", c.text())[-1])  # another port
    until(c, "requests are answered", lambda: answered(c))
    now = roles(c)
    if set(now) != {"coordinator", "0/2", "1/2"} or old & {p for pids in now.values() for p in pids}:
        fail(c, f"{now}")
    if c.end(signal.SIGTERM) != 0:
        fail(None, "exit code")


def drain(run):
    c = launched(run).ready()
    got, errors = [], []

    def stream():
        try:
            got.append(c.stream("/v1/completions", dict(ASK, max_tokens=200, ignore_eos=True)))
        except Exception as e:  # noqa: BLE001
            errors.append(repr(e))

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for t in threads:
        t.start()
    until(c, "streams are under way", lambda: c.ask("GET", "/health/ready")[0] == 200)
    time.sleep(0.05)
    c.signal(signal.SIGTERM)
    for t in threads:
        t.join()
    code = c.wait()
    if code != 0:
        fail(None, f"exit code {code}")
    if errors or len(got) != 4 or any(e[-1] != "[DONE]" for e in got):
        fail(None, f"{errors} {[e[-1] for e in got]}")
    left = [p for p in pathlib.Path(run).iterdir() if p.name.startswith("trireme-run-")]
    if left:
        fail(None, f"left behind: {left}")


def killed(run):
    c = launched(run).ready()
    if len(c.ranks()) != 3:
        fail(c, f"{roles(c)}")
    c.process.send_signal(signal.SIGKILL)
    c.process.wait()
    until(c, "all have ended", lambda: not c.ranks(), 15)
    c.close()


def bad(run):
    config = pathlib.Path(run) / "c.yaml"
    good = f"cluster: {{ replicas: 3, parallel: \"tensor=2\" }}\nmodels:\n{MODELS}\n"
    for name, text, options, code, says in [
        ("hostfile", good, ["--hostfile", "hosts"], 2, "--hostfile: replicas are started on this host only"),
        ("slurm", good, ["--slurm"], 2, "later version"),
        ("no file", None, [], 2, "c.yaml"),
        ("no model", good.replace(str(MODEL), "/nonexistent"), [], 2, "/nonexistent"),
        ("unknown key", good + "launch: 1\n", [], 2, "launch"),
        ("no mpirun", good, [], 2, "coordinator ended with exit code 127 before the cluster was ready"),
        ("dry run", good, ["--dry-run"], 0, "--role replica --replica 2 --epoch 1 --run-dir"),
    ]:
        config.unlink(missing_ok=True)
        if text is not None:
            config.write_text(text)
        env = dict(os.environ, XDG_RUNTIME_DIR=str(run))
        if name == "no mpirun":
            env["TRM_MPIRUN"] = "/nonexistent/mpirun"
        p = subprocess.run([trireme, "launch", str(config)] + options, capture_output=True, text=True, env=env, timeout=60 * SCALE)
        if p.returncode != code or says not in p.stdout + p.stderr:
            fail(None, f"{name}: exit code {p.returncode}, want {code} and '{says}': {p.stdout} {p.stderr}")
        if name == "dry run":
            lines = p.stdout.splitlines()
            if len(lines) != 4 or sum("-np 2 " in line for line in lines) != 3 or "--role coordinator" not in lines[0]:
                fail(None, f"dry run: {p.stdout}")
    # the port is taken: the coordinator cannot serve, and says why
    c = launched(run).ready()
    port = c.url.port
    p = subprocess.run([trireme, "launch", str(c.config), "--listen", f"127.0.0.1:{port}"], capture_output=True, text=True,
                       env=dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"), timeout=120 * SCALE)
    if p.returncode == 0 or f"port {port} of 127.0.0.1 is taken" not in p.stderr.splitlines()[-1]:
        fail(c, f"taken port: {p.returncode} {p.stderr}")
    if c.end(signal.SIGTERM) != 0:
        fail(None, "exit code")


with tempfile.TemporaryDirectory() as folder:
    {"replica": replica, "coordinator": coordinator, "drain": drain, "killed": killed, "bad": bad}[case](folder)
print(f"{case}: fine")
