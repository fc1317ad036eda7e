#!/usr/bin/env python3
"""usage: openai_client.py TRIREME SOURCE_DIR [CASE...]

The `openai` package, unmodified, against trireme serve with the demo model and an encoder. Each case is a function below."""
import base64
import json
import pathlib
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "mpi"))
from serving import SCALE, Cluster

import openai

trireme, source = sys.argv[1], pathlib.Path(sys.argv[2])
DEMO = source / "configs/demo/tiny-sotu"
KEYS = "ann a-long-key-of-ann\nbob a-long-key-of-bob\nroot a-long-key-of-root admin\n"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 16}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
                   "party": {"enum": ["north", "south"]}},
    "required": ["name", "age", "party"],
    "additionalProperties": False,
}
HELLO = [{"role": "user", "content": "Tell me of the Union."}]
work = pathlib.Path(tempfile.mkdtemp())
base = MODELS = None


def client(key="a-long-key-of-ann", **more):
    return openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=120 * SCALE, **more)


def address(cluster):
    return cluster.url.geturl().rstrip("/") + "/v1"


def encoder():
    """The tests' BERT with a tokenizer whose vocabulary fits it."""
    folder = work / "bert"
    shutil.copytree(source / "tests/data/language/models/bert", folder)
    t = json.loads((source / "tests/data/tokenizers/bert_uncased.json").read_text())
    t["model"]["vocab"] = {k: v for k, v in t["model"]["vocab"].items() if v < 256}
    (folder / "tokenizer.json").write_text(json.dumps(t))
    return folder


def raises(kind, call, code=None):
    try:
        call()
    except kind as e:
        assert type(e) is kind, type(e)
        assert code is None or e.code == code, (e.code, code)
        assert e.message and e.type, e
        return e
    raise AssertionError(f"wanted {kind.__name__}")


def models():
    c = client()
    listed = [m.id for m in c.models.list()]
    assert listed == ["bert", "sotu"], listed
    m = c.models.retrieve("sotu")
    assert m.id == "sotu" and m.object == "model" and m.owned_by == "trireme" and m.max_model_len == 512, m
    assert abs(m.created - time.time()) < 3600 * SCALE, m
    assert c.models.retrieve("sotu:1").id == "sotu:1"
    raises(openai.NotFoundError, lambda: c.models.retrieve("nobody"), "model_not_found")


def completions():
    c = client()
    r = c.completions.create(model="sotu", prompt="We must", max_tokens=8, temperature=0)
    assert r.object == "text_completion" and r.model.startswith("sotu") and len(r.choices) == 1, r
    assert r.choices[0].finish_reason == "length" and r.choices[0].text, r
    assert r.usage.completion_tokens == 8 and r.usage.total_tokens == r.usage.prompt_tokens + 8, r.usage
    assert c.completions.create(model="sotu:1", prompt="We must", max_tokens=8, temperature=0).choices[0].text == r.choices[0].text
    several = c.completions.create(model="sotu", prompt=["We must", "Peace"], n=2, max_tokens=4, seed=3)
    assert [x.index for x in several.choices] == [0, 1, 2, 3], several
    ids = c.completions.create(model="sotu", prompt=[0, 89, 103, 606], max_tokens=8, temperature=0)
    assert ids.choices[0].text == r.choices[0].text, (ids, r)
    echo = c.completions.create(model="sotu", prompt="We must", max_tokens=2, temperature=0, echo=True)
    assert echo.choices[0].text.startswith("We must"), echo
    raw = c.completions.with_raw_response.create(model="sotu", prompt="We must", max_tokens=1)
    assert raw.headers["x-request-id"] in raw.parse().id, (raw.headers, raw.parse().id)
    late = c.completions.create(model="sotu", prompt="We must", max_tokens=1, extra_body={"priority": 3, "top_k": 5})
    assert late.choices[0].text


def logprobs():
    c = client()
    r = c.completions.create(model="sotu", prompt="We must", max_tokens=4, temperature=0, logprobs=3)
    l = r.choices[0].logprobs
    assert len(l.tokens) == len(l.token_logprobs) == len(l.top_logprobs) == len(l.text_offset) == 4, l
    assert "".join(l.tokens) == r.choices[0].text and all(len(t) >= 3 for t in l.top_logprobs), l
    assert all(abs(max(t.values()) - p) < 1e-4 for t, p in zip(l.top_logprobs, l.token_logprobs)), l
    r = c.chat.completions.create(model="sotu", messages=HELLO, max_completion_tokens=4, logprobs=True, top_logprobs=2, temperature=0)
    content = r.choices[0].logprobs.content
    assert len(content) == 4 and all(len(t.top_logprobs) == 2 for t in content), content
    assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace").startswith(r.choices[0].message.content[:3]), r


def sampling():
    c = client()
    ask = dict(model="sotu", prompt="We must", max_tokens=12)
    a, b = (c.completions.create(seed=7, temperature=1, **ask).choices[0].text for _ in range(2))
    assert a == b, (a, b)
    n = c.completions.create(seed=7, temperature=1, n=3, **ask)
    assert len({x.text for x in n.choices}) > 1, n
    plain = c.completions.create(temperature=0, **ask).choices[0].text
    stop = plain.split()[1]
    stopped = c.completions.create(temperature=0, stop=[stop], **ask).choices[0]
    assert stopped.finish_reason == "stop" and stop not in stopped.text and plain.startswith(stopped.text), (plain, stopped)
    forced = c.completions.create(temperature=0, logit_bias={"606": 100}, **ask)
    token = c.post("/detokenize", body={"model": "sotu", "tokens": [606]}, cast_to=object)["prompt"]
    assert forced.choices[0].text == token * 12, (forced, token)
    for field, value in ("temperature", -1), ("top_p", 2), ("n", 0), ("max_tokens", -5), ("logprobs", -1):
        raises(openai.BadRequestError, lambda f=field, v=value: c.completions.create(**{**ask, f: v}))


def chat():
    c = client()
    r = c.chat.completions.create(model="sotu", messages=[{"role": "system", "content": "Be brief."}] + HELLO, max_tokens=6, temperature=0)
    assert r.object == "chat.completion" and r.choices[0].message.role == "assistant" and r.choices[0].message.content, r
    assert r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 6, r
    parts = c.chat.completions.create(model="sotu", max_tokens=6, temperature=0, messages=[
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": HELLO[0]["content"]}]}])
    assert parts.choices[0].message.content == r.choices[0].message.content, (parts, r)
    assert c.chat.completions.create(model="sotu", messages=HELLO, max_tokens=2, n=3).choices[2].index == 2


def streaming():
    c = client()
    ask = dict(model="sotu", max_tokens=10, temperature=0)
    whole = c.completions.create(prompt="We must", **ask)
    chunks = list(c.completions.create(prompt="We must", stream=True, stream_options={"include_usage": True}, **ask))
    assert "".join(x.choices[0].text for x in chunks if x.choices) == whole.choices[0].text, chunks
    assert chunks[-1].usage.completion_tokens == 10 and not chunks[-1].choices, chunks[-1]
    assert [x.choices[0].finish_reason for x in chunks if x.choices][-1] == "length"
    whole = c.chat.completions.create(messages=HELLO, **ask)
    chunks = list(c.chat.completions.create(messages=HELLO, stream=True, **ask))
    assert chunks[0].choices[0].delta.role == "assistant" and all(x.object == "chat.completion.chunk" for x in chunks)
    assert "".join(x.choices[0].delta.content or "" for x in chunks) == whole.choices[0].message.content, chunks
    assert all(x.usage is None for x in chunks)
    two = list(c.chat.completions.create(messages=HELLO, stream=True, n=2, seed=1, **{**ask, "temperature": 1}))
    assert {x.choices[0].index for x in two} == {0, 1}
    stop = whole.choices[0].message.content.split()[1]
    with c.chat.completions.stream(messages=HELLO, stop=stop, **ask) as s:  # the package's own reader of streams
        for _ in s:
            pass
        done = s.get_final_completion().choices[0]
        assert done.finish_reason == "stop" and whole.choices[0].message.content.startswith(done.message.content), done
    # refused before the first part: an HTTP error, not an event
    raises(openai.BadRequestError, lambda: c.completions.create(prompt="x", stream=True, **{**ask, "temperature": -1}))
    raises(openai.NotFoundError, lambda: c.completions.create(prompt="x", stream=True, **{**ask, "model": "nobody"}), "model_not_found")


def leaving():
    """A client that closes a stream early; what it held is free again."""
    c = client()
    for _ in range(12):
        s = c.completions.create(model="sotu", prompt="We must", max_tokens=450, stream=True, extra_body={"ignore_eos": True})
        next(iter(s))
        s.close()
    c.completions.create(model="sotu", prompt="We must", max_tokens=1)


def embeddings():
    c = client()
    floats = c.embeddings.create(model="bert", input=["a b", "c"], encoding_format="float")
    coded = c.embeddings.create(model="bert", input=["a b", "c"], encoding_format="base64")
    default = c.embeddings.create(model="bert", input=["a b", "c"])  # the package asks for base64 and decodes it
    assert [e.index for e in floats.data] == [0, 1] and len(floats.data[0].embedding) == 64, floats
    for f, b, d in zip(floats.data, coded.data, default.data):
        values = struct.unpack("<64f", base64.b64decode(b.embedding))
        assert max(abs(x - y) for x, y in zip(f.embedding, values)) < 1e-5
        assert max(abs(x - y) for x, y in zip(f.embedding, d.embedding)) < 1e-5
    assert floats.data[0].embedding != floats.data[1].embedding and floats.usage.prompt_tokens > 0, floats.usage
    one = c.embeddings.create(model="bert", input="c", encoding_format="float")
    assert max(abs(x - y) for x, y in zip(one.data[0].embedding, floats.data[1].embedding)) < 1e-3
    raises(openai.BadRequestError, lambda: c.embeddings.create(model="bert", input="a", encoding_format="hex"))
    raises(openai.BadRequestError, lambda: c.embeddings.create(model="bert", input=[]))
    raises(openai.BadRequestError, lambda: c.completions.create(model="bert", prompt="a"))


def person(text):
    p = json.loads(text)
    assert set(p) == {"name", "age", "party"} and isinstance(p["name"], str) and 0 <= p["age"] <= 150 and p["party"] in ("north", "south"), p


def schema():
    c = client()
    ask = dict(model="sotu", messages=HELLO, max_tokens=200, temperature=1)
    form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    for seed in range(4):
        r = c.chat.completions.create(response_format=form, seed=seed, **ask)
        assert r.choices[0].finish_reason == "stop", r
        person(r.choices[0].message.content)
    chunks = c.chat.completions.create(response_format=form, seed=9, stream=True, **ask)
    person("".join(x.choices[0].delta.content or "" for x in chunks))
    r = c.chat.completions.create(response_format={"type": "json_object"}, seed=2, **{**ask, "max_tokens": 400, "temperature": 0})
    if r.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(r.choices[0].message.content), dict), r
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    raises(openai.BadRequestError, lambda: c.chat.completions.create(response_format=bad, **ask))


def tools():
    c = client()
    ask = dict(model="sotu", messages=HELLO, max_tokens=200, temperature=1, tools=[WEATHER])
    for choice in "required", {"type": "function", "function": {"name": "get_weather"}}:
        r = c.chat.completions.create(tool_choice=choice, seed=5, **ask)
        calls = r.choices[0].message.tool_calls
        assert calls and calls[0].function.name == "get_weather" and calls[0].id and calls[0].type == "function", r
        a = json.loads(calls[0].function.arguments)
        assert set(a) == {"place", "days"} and 1 <= a["days"] <= 9, a
        if choice == "required":
            assert r.choices[0].finish_reason == "tool_calls", r
    chunks = list(c.chat.completions.create(tool_choice="required", seed=5, stream=True, **ask))
    deltas = [t for x in chunks if x.choices for t in x.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather" and deltas[0].id, chunks
    a = json.loads("".join(t.function.arguments or "" for t in deltas if t.index == 0))
    assert set(a) == {"place", "days"}, a
    answered = HELLO + [r.choices[0].message.model_dump(exclude_none=True),
                        {"role": "tool", "tool_call_id": calls[0].id, "content": "rain"}]
    assert c.chat.completions.create(**{**ask, "messages": answered, "max_tokens": 4, "tool_choice": "none"}).choices[0].message.content
    raises(openai.BadRequestError,
           lambda: c.chat.completions.create(tool_choice={"type": "function", "function": {"name": "nobody"}}, **ask))


def batch_lines(count):
    for i in range(count):
        yield {"custom_id": f"line-{i}", "method": "POST", "url": "/v1/completions",
               "body": {"model": "sotu" if i % 10 != 3 else "nobody", "prompt": f"In the year 18{i:02d}", "max_tokens": 4, "seed": i}}


def finished(c, batch):
    deadline = time.monotonic() + 120 * SCALE
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = c.batches.retrieve(batch.id)
    return batch


def batches():
    c, other = client(), client("a-long-key-of-bob")
    lines = list(batch_lines(30))
    path = work / "requests.jsonl"
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    f = c.files.create(file=path.open("rb"), purpose="batch")
    assert f.filename == "requests.jsonl" and f.purpose == "batch" and f.bytes == path.stat().st_size and f.status == "processed", f
    assert c.files.content(f.id).read() == path.read_bytes()
    assert [x.id for x in c.files.list()] == [f.id] and not list(other.files.list())
    raises(openai.NotFoundError, lambda: other.files.retrieve(f.id))
    raises(openai.NotFoundError, lambda: other.batches.create(input_file_id=f.id, endpoint="/v1/completions", completion_window="24h"))
    b = c.batches.create(input_file_id=f.id, endpoint="/v1/completions", completion_window="24h", metadata={"of": "a test"})
    assert b.status == "validating" and b.metadata == {"of": "a test"}, b
    b = finished(c, b)
    assert b.status == "completed" and (b.request_counts.total, b.request_counts.completed, b.request_counts.failed) == (30, 27, 3), b
    got = {}
    for line in c.files.content(b.output_file_id).text.splitlines():
        o = json.loads(line)
        assert o["error"] is None and o["response"]["status_code"] == 200 and o["custom_id"] not in got, o
        got[o["custom_id"]] = o["response"]["body"]["choices"][0]["text"]
    for line in c.files.content(b.error_file_id).text.splitlines():
        o = json.loads(line)
        assert o["response"]["status_code"] == 404 and o["response"]["body"]["error"]["code"] == "model_not_found", o
        got[o["custom_id"]] = None
    assert set(got) == {x["custom_id"] for x in lines}
    for x in lines[:3]:  # what a batch computes is what a request gets
        assert c.completions.create(**x["body"]).choices[0].text == got[x["custom_id"]], x
    assert [x.id for x in c.batches.list(limit=1)] == [b.id] and not list(other.batches.list())
    raises(openai.NotFoundError, lambda: other.batches.retrieve(b.id))
    raises(openai.ConflictError, lambda: c.batches.cancel(b.id))
    bad = c.files.create(file=("bad.jsonl", json.dumps(lines[0]) + "\n" + json.dumps(lines[0]) + "\nhello\n"), purpose="batch")
    w = finished(c, c.batches.create(input_file_id=bad.id, endpoint="/v1/completions", completion_window="24h"))
    assert w.status == "failed" and [(e.code, e.line) for e in w.errors.data] == [("duplicate_custom_id", 2), ("invalid_json_line", 3)], w
    long = [dict(x, body={**x["body"], "model": "sotu", "max_tokens": 400, "ignore_eos": True}) for x in lines]
    slow = c.files.create(file=("slow.jsonl", "\n".join(map(json.dumps, long))), purpose="batch")
    s = c.batches.create(input_file_id=slow.id, endpoint="/v1/completions", completion_window="24h")
    raises(openai.ConflictError, lambda: c.files.delete(slow.id))
    assert c.batches.cancel(s.id).status == "cancelling"
    assert finished(c, s).status == "cancelled"
    for i in f.id, bad.id, slow.id, b.output_file_id, b.error_file_id:
        assert c.files.delete(i).deleted
    raises(openai.NotFoundError, lambda: c.files.retrieve(f.id))
    chats = [{"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions",
              "body": {"model": "sotu", "messages": HELLO, "max_tokens": 3}} for i in range(3)]
    f = c.files.create(file=("chat.jsonl", "\n".join(map(json.dumps, chats))), purpose="batch")
    b = finished(c, c.batches.create(input_file_id=f.id, endpoint="/v1/chat/completions", completion_window="24h"))
    assert b.status == "completed" and b.request_counts.completed == 3 and b.error_file_id is None, b
    embeds = [{"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": {"model": "bert", "input": "a"}} for i in range(3)]
    f = c.files.create(file=("embed.jsonl", "\n".join(map(json.dumps, embeds))), purpose="batch")
    b = finished(c, c.batches.create(input_file_id=f.id, endpoint="/v1/embeddings", completion_window="24h"))
    assert b.status == "completed" and b.request_counts.completed == 3, b


def restart():
    """The server is killed while it runs a batch; the next one goes on: no line is lost, none comes twice."""
    global base
    outer, folder = base, work / "kept"
    config = dict(gateway=f'keys: "{work}/keys", files: "{folder}"', more="limits: { batch_requests: 4 }")
    first = Cluster(trireme, MODELS, **config).ready()
    try:
        base = address(first)
        c = client()
        lines = [dict(x, body={**x["body"], "model": "sotu", "max_tokens": 60, "ignore_eos": True}) for x in batch_lines(60)]
        f = c.files.create(file=("long.jsonl", "\n".join(map(json.dumps, lines))), purpose="batch")
        b = c.batches.create(input_file_id=f.id, endpoint="/v1/completions", completion_window="24h")
        while c.batches.retrieve(b.id).request_counts.completed < 5:
            time.sleep(0.002)
        first.process.kill()
        first.process.wait()
        written = "".join(p.read_text() for p in (folder / "files").glob("*.data") if not p.with_suffix(".json").exists())
        before = {o["custom_id"]: o["id"] for o in map(json.loads, written.splitlines()[:-1])}
        second = Cluster(trireme, MODELS, **config).ready()
        try:
            base = address(second)
            c = client()
            done = finished(c, c.batches.retrieve(b.id))
            assert done.status == "completed" and done.request_counts.completed == 60, done
            after = [json.loads(x) for x in c.files.content(done.output_file_id).text.splitlines()]
            assert sorted(o["custom_id"] for o in after) == sorted(x["custom_id"] for x in lines)
            kept = {o["custom_id"]: o["id"] for o in after}
            assert len(before) >= 4 and all(kept[k] == v for k, v in before.items()), before
            assert second.end() == 0
        finally:
            second.close()
    finally:
        first.close()
        base = outer


def errors():
    c = client()
    ask = dict(model="sotu", prompt="We must", max_tokens=1)
    raises(openai.AuthenticationError, lambda: client("wrong").completions.create(**ask), "invalid_api_key")
    raises(openai.NotFoundError, lambda: c.completions.create(**{**ask, "model": "nobody"}), "model_not_found")
    raises(openai.BadRequestError, lambda: c.completions.create(**{**ask, "max_tokens": "many"}))
    raises(openai.BadRequestError, lambda: c.completions.create(extra_body={"nonsense": 1}, **ask))
    raises(openai.BadRequestError, lambda: c.completions.create(**{**ask, "prompt": "word " * 2000}))
    raises(openai.NotFoundError, lambda: c.post("/nothing", body={}, cast_to=object))
    e = raises(openai.BadRequestError, lambda: c.post("/completions", content=b'{"model":', cast_to=object))
    assert "line 1" in e.message, e.message
    try:
        c.post("/completions", content=b" " * (2 << 20), cast_to=object)
        raise AssertionError("wanted 413")
    except openai.APIStatusError as e:
        assert e.status_code == 413, e
    slow = client("a-long-key-of-bob")
    streams = [slow.completions.create(model="sotu", prompt="We must", max_tokens=450, n=6, stream=True,
                                       extra_body={"ignore_eos": True}) for _ in range(8)]
    e = raises(openai.RateLimitError, lambda: slow.completions.create(**ask), "rate_limit_exceeded")
    assert e.response.headers["retry-after"], e.response.headers
    c.completions.create(**ask)  # another key has its own
    for s in streams:
        s.close()
    deadline = time.monotonic() + 30 * SCALE
    while True:
        try:
            slow.completions.create(**ask)
            break
        except openai.RateLimitError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    late = client(default_headers={"X-Request-Timeout": "0.001"})
    try:
        late.completions.create(**{**ask, "max_tokens": 400}, extra_body={"ignore_eos": True})
        raise AssertionError("wanted a timeout")
    except openai.InternalServerError as e:
        assert e.status_code == 504, e


def many():
    """64 streams at once, as eight clients with a key each would have them: no answer is mixed up with another."""
    ask = dict(model="sotu", max_tokens=12, temperature=1)
    c = client("a-long-key-of-root")
    want = [c.completions.create(prompt=f"In the year 18{i:02d}", seed=i, **ask).choices[0].text for i in range(8)]
    bad = []

    def one(key):
        mine = client(key)
        for i in range(8):
            chunks = mine.completions.create(prompt=f"In the year 18{i:02d}", seed=i, stream=True, **ask)
            if "".join(x.choices[0].text for x in chunks) != want[i]:
                bad.append(i)

    threads = [threading.Thread(target=one, args=(k,)) for k in ("a-long-key-of-ann", "a-long-key-of-bob", "a-long-key-of-root") for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad, bad


CASES = [models, completions, logprobs, sampling, chat, streaming, leaving, embeddings, schema, tools, batches, restart, errors, many]


def main():
    global base, MODELS
    keys = work / "keys"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    template = source / "tests/data/templates/own-chatml.jinja"
    wanted = sys.argv[3:]
    bad = []
    MODELS = f'  - {{ name: sotu, path: "{DEMO}", chat_template: "{template}" }}\n  - {{ name: bert, path: "{encoder()}" }}'
    cluster = Cluster(trireme, MODELS, gateway=f'keys: "{keys}", files: "{work}/files"',
                      more="limits: { requests_per_key: 8, body: 1MiB }")
    try:
        cluster.ready()
        base = address(cluster)
        for case in CASES:
            if wanted and case.__name__ not in wanted:
                continue
            began = time.monotonic()
            try:
                case()
                print(f"ok   {case.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
            except Exception:
                bad.append(case.__name__)
                traceback.print_exc()
                print(f"FAILED {case.__name__}", flush=True)
        if bad:
            print(cluster.text()[-4000:])
        code = cluster.end()
        if code != 0:
            bad.append(f"exit code {code}")
    finally:
        cluster.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"openai {openai.__version__}: " + (f"FAILED: {', '.join(bad)}" if bad else "all passed"))
    return 1 if bad else 0


sys.exit(main())
