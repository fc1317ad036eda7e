"""usage: top.py TRIREME. `trireme top` against a made-up server: plain text, and live in a pseudo-terminal."""
import fcntl
import http.server
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

trireme = sys.argv[1]
failed = 0
SECONDS = 60 * int(os.environ.get("TRM_DEADLINE_SCALE", "1"))


def status(n):
    latency = {"p50": 12.5, "p90": 20.0, "p99": 31.25, "count": 9}
    return {
        "version": "9.8.7", "uptime_s": 3700.5,
        "cluster": {"ready": True, "draining": False, "reason": "", "ready_replicas": 1, "expected_replicas": 2,
                    "running": 4, "waiting": 2},
        "http": {"connections": 3},
        "models": [
            {"name": "alpha", "version": 1, "state": "ready", "replicas": 1, "running": 4, "waiting": 2, "requests": n,
             "requests_s": 3.25, "failures": 1, "generation_tokens": 10 * n, "step_generation_tokens": 10 * n,
             "step_prompt_tokens": 100 * n, "generation_tokens_s": 77.0, "prompt_tokens_s": 700.0, "ttft_ms": latency,
             "itl_ms": latency, "e2e_ms": latency, "kv_usage": 0.42},
            {"name": "evil \u001b[31m\u009b2J\ny" + "x" * 300, "version": 1, "state": "failed", "reason": "no\u001b]0;file",
             "e2e_ms": None, "requests": "many", "running": -1e300, "failures": 1e300},
            {"name": "zeta \u00e4\u20ac\u65e5\u672c", "version": 2, "state": "loading", "running": 9},
        ],
        "replicas": [
            {"identity": "0/1", "state": "ready", "phase": "steady", "in_flight": 4, "done": 17, "host": "node",
             "ranks": [{"rank": 0, "device": "cpu", "memory_bytes": 5 << 20, "utilisation": 0.5, "cpu": 1.5,
                        "pid": 77, "host": "node"}]},
            {"identity": "1/1", "state": "dead", "host": "node2", "reason": "silent for 1.5 s"},
        ],
    }


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    looks = 0
    mode = "good"

    def log_message(self, *_):
        pass

    def do_GET(self):
        Server.looks += 1
        code, body = 200, json.dumps(status(Server.looks)).encode()
        if self.headers.get("Authorization") not in (None, "Bearer sesame"):
            code, body = 401, b'{"error": "unauthorized"}'
        elif self.path == "/fails/status":
            code, body = 503, b'{"error": "the hub is gone"}'
        elif self.path == "/page/status":
            code, body = 200, b"<html>"
        elif self.path == "/list/status":
            code, body = 200, b"[1]"
        elif self.path == "/odd/status":
            code, body = 200, b'{"models": [1, null, {"name": 5}], "replicas": [{"ranks": {}}, 3], "cluster": [], "x": {}}'
        elif self.path == "/empty/status":
            code, body = 200, b"{}"
        elif self.path != "/status":
            code, body = 404, b'{"error": "no such path"}'
        elif Server.mode == "gone":
            code, body = 503, b'{"error": "it went away"}'
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def fail(name, text):
    global failed
    failed = 1
    print("FAILED: %s: %s" % (name, text))


def check(name, want, pattern, *args):
    p = subprocess.run([trireme, "top", *args], capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    text = (p.stdout + p.stderr).decode("utf-8", "replace")
    if p.returncode != want or pattern not in text:
        fail(name, "exit code %d, want %d, and %r in\n%s" % (p.returncode, want, pattern, text))
    if want != 0 and len(p.stderr.splitlines()) != 1:
        fail(name, "want one line, got %r" % p.stderr)
    return p.stdout


class Live:
    """top in a terminal of its own."""

    def __init__(self, *args, term="xterm", **more):
        self.master, self.slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self.slave)
        env = dict(os.environ, TERM=term, LC_ALL="C.UTF-8", **more)
        self.p = subprocess.Popen([trireme, "top", *args], stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE,
                                  env=env)
        self.text = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 65536)

    def wait(self, pattern):
        """Until the pattern has come; what was read before is dropped."""
        end = time.monotonic() + SECONDS
        while pattern not in self.text and time.monotonic() < end:
            self.read(0.2)
        found = pattern in self.text
        if not found:
            fail("live", "%r did not come: %r" % (pattern, self.text[-500:]))
        self.text = b""
        return found

    def key(self, keys):
        os.write(self.master, keys)

    def end(self, name, code):
        end = time.monotonic() + SECONDS
        while self.p.poll() is None and time.monotonic() < end:
            self.read(0.1)
        if self.p.poll() is None:
            self.p.kill()
            fail(name, "does not end")
        self.read(0.2)
        if self.p.wait() != code:
            fail(name, "exit code %d, want %d: %r" % (self.p.returncode, code, self.p.stderr.read()))
        if b"\x1b[?1049l" not in self.text:
            fail(name, "the screen is not put back: %r" % self.text[-200:])
        if termios.tcgetattr(self.slave) != self.before:
            fail(name, "the terminal's settings are not put back")
        self.p.stderr.close()
        os.close(self.master)
        os.close(self.slave)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = "127.0.0.1:%d" % server.server_port
url = "http://" + host

out = check("once", 0, "alpha/1", url, "--once")
text = out.decode("utf-8", "replace")
for want in ("trireme 9.8.7", "1 of 2 replicas ready", "4 running, 2 waiting", "12.5ms", "31.2ms", "42%", "77.0", "5.0 MiB",
             "[||||||||||||||||                ]", "silent for 1.5 s"):
    if want not in text:
        fail("once", "no %r in\n%s" % (want, text))
if any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in text):
    fail("once", "control characters in %r" % text)
if max(map(len, text.splitlines())) > 160:
    fail("once", "a line is too long:\n%s" % text)
check("no terminal", 0, "alpha/1", host + "/")
first = check("sort", 0, "zeta", url, "--sort", "running").decode("utf-8", "replace")
if first.index("zeta") > first.index("alpha"):
    fail("sort", first)
check("key", 0, "alpha/1", url, "--key", "sesame")
check("wrong key", 2, "does not take this --key", url, "--key", "other")
check("key with a line end", 2, "without blanks", url, "--key", "a\nb: c")
check("server fails", 1, "the hub is gone", url + "/fails")
check("no such path", 2, "is this a Trireme server?", url + "/other")
check("no JSON", 2, "no JSON", url + "/page")
check("a list", 2, "no JSON", url + "/list")
check("odd members", 0, "MODEL", url + "/odd")
check("empty", 0, "no model is known yet", url + "/empty")
check("nobody there", 1, "onnect", "http://127.0.0.1:1")
check("another scheme", 2, "want http:// or https://", "ftp://host")
check("no URL", 2, "is no URL", "a b")
check("interval", 2, "want 0.1 to 3600", url, "--interval", "0")
check("nothing given", 2, "", "--once")

t = Live(url, "--interval", "0.2")
if t.wait(b"alpha/1"):
    t.key(b"s")
    t.wait(b"running)")
    t.key(b"p")
    t.wait(b"PAUSED")
    t.key(b"p")
    t.resize(8, 60)
    t.p.send_signal(signal.SIGWINCH)
    t.wait(b"alpha/1")
    t.key(b"\x1b[B\x1b[6~\x1b[A")
    Server.mode = "gone"
    t.wait(b"it went away")
    Server.mode = "good"
    t.wait(b"q quit")
t.key(b"q")
t.end("quit", 0)

for name, number, code in (("SIGTERM", signal.SIGTERM, -signal.SIGTERM), ("SIGINT", signal.SIGINT, 0)):
    t = Live(url, "--interval", "60")
    t.wait(b"alpha/1")
    t.p.send_signal(number)
    t.end(name, code)

# ncurses itself does not give everything back then
t = Live(url, term="no-such-terminal", ASAN_OPTIONS="detect_leaks=0")
t.text = b"\x1b[?1049l"  # nothing to put back
t.end("unknown terminal", 2)
sys.exit(failed)
