"""A serving cluster under test: starts `trireme serve` (alone or under mpirun), speaks HTTP to it, ends it. Standard library only."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

SCALE = int(os.environ.get("TRM_DEADLINE_SCALE", "1"))


class Cluster:
    """`models` and the rest are YAML text; ranks > 1, or mpirun=True, start it under mpirun."""

    threads = 1  # of each rank

    def __init__(self, trireme, models, cluster="", gateway="", more="", ranks=1, mpirun=False, command="serve", env=None, log="warn"):
        self.work = pathlib.Path(tempfile.mkdtemp())
        self.config = self.work / "cluster.yaml"
        self.config.write_text(
            f"cluster: {{ threads: {self.threads}{', ' + cluster if cluster else ''} }}\nmodels:\n{models}\n"
            f"gateway: {{ listen: \"127.0.0.1:0\"{', ' + gateway if gateway else ''} }}\n{more}\n"
        )
        self.log_path = self.work / "log"
        self.log = open(self.log_path, "wb")
        line = [trireme, command, str(self.config), "--log", log]
        self.mpirun = mpirun or ranks > 1
        if self.mpirun:
            line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] + line
        full = dict(os.environ, OMP_WAIT_POLICY="passive", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        full.update(TRM_PROBE="quick", TRM_CACHE=os.environ.get("TRM_CACHE", str(self.work / "cache")))
        full.update(env or {})
        full = {k: v for k, v in full.items() if v != ""}
        self.begun = time.monotonic()
        self.process = subprocess.Popen(line, env=full, stdout=self.log, stderr=self.log, start_new_session=True)
        self.url = None

    def text(self):
        return self.log_path.read_text(errors="replace")

    def ready(self, timeout=60):
        deadline = time.monotonic() + timeout * SCALE
        while time.monotonic() < deadline:
            m = re.search(r"ready after ([0-9.]+) s.*?(https?://[^,\s]+)", self.text())
            if m:
                self.url = urllib.parse.urlparse(m.group(2))
                self.ready_s = float(m.group(1))
                return self
            if self.process.poll() is not None:
                fail(self, f"it ended with {self.process.returncode} before it was ready")
            time.sleep(0.02)
        fail(self, "it did not become ready")

    def connect(self, timeout=120):
        return http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=timeout * SCALE)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, JSON or bytes)"""
        c = connection or self.connect()
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        c.request(method, path, body=data, headers=headers or {})
        r = c.getresponse()
        raw = r.read()
        if connection is None:
            c.close()
        if r.headers.get("Content-Type", "").startswith("application/json") and raw:
            return r.status, json.loads(raw)
        return r.status, raw

    def stream(self, path, body, connection=None):
        """The objects of a stream's events; the last one is "[DONE]"."""
        c = connection or self.connect()
        c.request("POST", path, body=json.dumps(dict(body, stream=True)).encode())
        r = c.getresponse()
        assert r.status == 200, (r.status, r.read())
        events = []
        for line in r:
            line = line.decode().strip()
            if line.startswith("data: "):
                events.append(line[6:] if line[6:] == "[DONE]" else json.loads(line[6:]))
        if connection is None:
            c.close()
        return events

    def ranks(self):
        """Process ids of the ranks."""
        out = []
        for p in pathlib.Path("/proc").iterdir():
            if not p.name.isdigit():
                continue
            try:
                line = (p / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.config).encode() in line and b"mpirun" not in line[0] and len(line) > 2 and line[1] == b"serve":
                out.append(int(p.name))
        return sorted(out)

    def signal(self, s):
        self.process.send_signal(s)

    def end(self, s=None, timeout=40):
        """Asks it to end; the exit code. Under mpirun the word for it is SIGUSR1, which mpirun hands on."""
        if self.process.poll() is None:
            self.signal(s or (signal.SIGUSR1 if self.mpirun else signal.SIGTERM))
        return self.wait(timeout)

    def wait(self, timeout=40):
        try:
            code = self.process.wait(timeout * SCALE)
        except subprocess.TimeoutExpired:
            fail(self, "it did not end")
        self.close()
        return code

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.work, ignore_errors=True)


def fail(cluster, text):
    if cluster is not None:
        print(cluster.text()[-4000:])
        cluster.close()
    print(f"FAILED: {text}")
    sys.exit(1)


def cpu_ticks(pids):
    total = 0
    for p in pids:
        fields = pathlib.Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def resident(pid):
    """Private bytes: what a process has for itself."""
    total = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            total += int(line.split()[1]) * 1024
    return total
