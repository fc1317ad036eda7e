#!/usr/bin/python3
"""The oracle of model/tokenizer/: the `tokenizers` library and sentencepiece.

  tokenizers.py                         writes tests/data/tokenizers/: small tokenizers of every family (tokenizers_families.py), each with
                                        strings and what the library makes of them (<family>.cases; tests/model/test_tokenizer.c reads them)
  tokenizers.py --check PROGRAM [--count N] [--family F] [--json FILE]... [--any]
                                        trains larger ones and compares tests/model/tokenize.c on N strings of each family, and on given files;
                                        --any: characters of every age

A line of a .cases file: text, ids, ids with special tokens, decoded, decoded without special tokens; texts in hexadecimal, "-" where
empty. "=": the ids before; decoded, the text; at the end, what is decoded before. A text with a comma is a pair: its third field is types. The committed files were made with
tokenizers 0.23.3 and sentencepiece 0.2.3. Exit status 77 where they are not installed."""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# this file's name is the library's too
sys.path = [p for p in sys.path if os.path.abspath(p or ".") != HERE]
try:
    import tokenizers
    import sentencepiece
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)
sys.path.append(HERE)
import tokenizers_families  # noqa: E402
import tokenizers_sentencepiece  # noqa: E402
import tokenizers_text  # noqa: E402

DATA = os.path.join(HERE, "..", "data", "tokenizers")


def hexed(text):
    return text.encode().hex() or "-"


def listed(ids):
    return ",".join(map(str, ids)) or "-"


def expected(tok, b):
    text = b.decode("utf-8", errors="replace")
    plain = tok.encode(text, add_special_tokens=False).ids
    ids = tok.encode(text).ids
    return [listed(plain), listed(ids), hexed(tok.decode(ids, skip_special_tokens=False)), hexed(tok.decode(ids))]


def expected_pair(tok, a, b):
    e = tok.encode(a.decode("utf-8", errors="replace"), b.decode("utf-8", errors="replace"))
    return [listed(e.ids), listed(e.type_ids), hexed(tok.decode(e.ids, skip_special_tokens=False)), hexed(tok.decode(e.ids))]


def specials(tok):
    return [t.content for t in tok.get_added_tokens_decoder().values()]


def cases(tok, count, seed):
    """(input, expected fields)"""
    out = []
    strings = tokenizers_text.strings(count, seed, specials(tok))
    for i, b in enumerate(strings):
        if i % 10 == 9:
            a = strings[i - 1]
            out.append((f"{a.hex()},{b.hex()}", expected_pair(tok, a, b)))
        else:
            out.append((b.hex(), expected(tok, b)))
    return out


def write_fixture(name, tok, count):
    tok.save(os.path.join(DATA, name + ".json"), pretty=False)
    write_cases(name, cases(tok, count, 17))


def write_cases(name, rows):
    with open(os.path.join(DATA, name + ".cases"), "w", encoding="ascii") as f:
        for text, fields in rows:
            ids, other, decoded, skipped = fields
            other = "=" if other == ids and "," not in text else other
            skipped = "=" if skipped == decoded else skipped
            decoded = "=" if decoded == (text or "-") else decoded
            f.write(" ".join([text or "-", ids, other, decoded, skipped]) + "\n")


def generate():
    os.makedirs(DATA, exist_ok=True)
    for name in tokenizers_families.FAMILIES:
        write_fixture(name, tokenizers_families.make(name, 700, False), 32)
    tokenizers_sentencepiece.generate(DATA, write_cases)


def compare(program, path, rows, label):
    run = subprocess.run([program, path], input="\n".join(r[0] for r in rows) + "\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    lines = run.stdout.splitlines()
    bad = 0
    for i, (text, fields) in enumerate(rows):
        got = lines[i].split(" ") if i < len(lines) else ["nothing"]
        if got != fields:
            bad += 1
            if bad <= 4:
                print(f"  {text!r} = {[bytes.fromhex(t).decode('utf-8', errors='replace') for t in text.split(',')]}")
                for what, g, w in zip(("ids", "special", "decoded", "without special"), got + ["nothing"] * 4, fields):
                    if g != w:
                        print(f"    {what}: got {g}\n    {' ' * len(what)}  want {w}")
    print(f"{label}: {len(rows)} strings, {bad} differ{': ' + run.stderr if run.returncode else ''}", flush=True)
    return bad + (run.returncode != 0)


def check(program, count, only, files):
    bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        names = [] if files else [n for n in tokenizers_families.FAMILIES if only in (None, n)]
        for name in names:
            tok = tokenizers_families.make(name, 2000, True)
            path = os.path.join(tmp, name + ".json")
            tok.save(path)
            bad += compare(program, path, cases(tok, count, 99), name)
        for path in files:
            tok = tokenizers.Tokenizer.from_file(path)
            tok.no_truncation()
            tok.no_padding()
            bad += compare(program, path, cases(tok, count, 99), path)
        if not files:
            bad += tokenizers_sentencepiece.check(program, tmp, count, only, compare)
    return 1 if bad else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", metavar="PROGRAM")
    p.add_argument("--count", type=int, default=1000)
    p.add_argument("--family")
    p.add_argument("--json", nargs="*", default=[])
    p.add_argument("--any", action="store_true")
    a = p.parse_args()
    tokenizers_text.OLD_ONLY = not a.any
    if a.check is None:
        generate()
        return 0
    return check(a.check, a.count, a.family, a.json)


if __name__ == "__main__":
    sys.exit(main())
