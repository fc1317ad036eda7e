#!/usr/bin/env python3
"""Expected renderings of chat templates: tests/data/templates/cases.json.

usage: templates.py [--out FILE] [--templates DIR]

Every template of DIR (default: tests/data/templates) is rendered with every conversation below by transformers' own
environment (utils.chat_template_utils over Jinja2), and so is each line of the language's constructs. A rendering that
raises is a case too. Needs the packages transformers and Jinja2; torch is not needed. Made with the versions that
cases.json names.
"""
import argparse
import datetime
import json
import os
import sys

try:
    import jinja2
    import transformers
    from transformers.utils import chat_template_utils
except ImportError as e:
    print(f"templates: {e}")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from template_constructs import CONSTRUCTS, VARIABLES  # noqa: E402

NOW = 1767323045  # 2026-01-02 03:04:05 UTC
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "templates")


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=tz)


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City, e.g. \"Zürich\""},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": ["integer", "null"], "minimum": 1},
                "spots": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}},
                                                     "required": ["x"]}},
            },
            "required": ["city"],
        },
        "return": {"type": "object", "properties": {"degrees": {"type": "number"}}},
    },
}
NOTE = {"type": "function", "function": {"name": "note", "description": "Keeps <a & b>",
                                         "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "What is 2 + 2?"}
SYSTEM = {"role": "system", "content": "You are terse."}
ANSWER = {"role": "assistant", "content": "4"}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call12345", "type": "function",
     "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "spots": [{"x": 1.5}]}}}]}
CALLS = {"role": "assistant", "content": None, "tool_calls": CALL["tool_calls"] + [
    {"id": "call67890", "type": "function", "function": {"name": "note", "arguments": {}}}]}
CALL_TEXT = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Bern\"}"}}]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"degrees\": -3.5}"}
RESULT2 = {"role": "tool", "name": "note", "tool_call_id": "call67890", "content": "kept"}
THOUGHT = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
REASONED = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two.\n"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image"},
                                     {"type": "text", "text": " what is it?"}]}

CONVERSATIONS = {
    "user": {"messages": [USER]},
    "system": {"messages": [SYSTEM, USER]},
    "turns": {"messages": [USER, ANSWER, {"role": "user", "content": "And 3 + 3?"}]},
    "answered": {"messages": [SYSTEM, USER, ANSWER], "off": True},
    "developer": {"messages": [{"role": "developer", "content": "Be kind."}, USER]},
    "tools": {"messages": [SYSTEM, USER], "tools": [WEATHER, NOTE]},
    "call": {"messages": [USER, CALL, RESULT], "tools": [WEATHER]},
    "calls": {"messages": [SYSTEM, USER, CALLS, RESULT, RESULT2, ANSWER, USER], "tools": [WEATHER, NOTE]},
    "call text": {"messages": [USER, CALL_TEXT, RESULT, ANSWER], "off": True},
    "thought": {"messages": [USER, THOUGHT, USER, THOUGHT], "off": True},
    "reasoned": {"messages": [USER, REASONED, USER]},
    "no thinking": {"messages": [USER], "enable_thinking": False},
    "parts": {"messages": [SYSTEM, PARTS]},
    "empty": {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": ""}]},
    "null": {"messages": [USER, {"role": "assistant", "content": None}, USER]},
    "unicode": {"messages": [{"role": "user", "content": "  Größe: 你好, \U0001f600\u00a0\n"}, ANSWER,
                             {"role": "user", "content": "\t<|im_end|> \"quoted\" \\n {{ x }}\r\n"}]},
    "assistant first": {"messages": [ANSWER, USER]},
    "two users": {"messages": [USER, USER]},
    "system later": {"messages": [USER, SYSTEM, USER]},
    "nothing": {"messages": []},
}


def inputs():
    made = {}
    for name, given in CONVERSATIONS.items():
        given = dict(given)
        prompt = not given.pop("off", False)
        made[name] = {"messages": [], "tools": None, "documents": None, "add_generation_prompt": prompt,
                      "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **given}
    made["variables"] = VARIABLES
    return made


def render(text, variables):
    try:
        return {"want": chat_template_utils._compile_jinja_template(text).render(**json.loads(json.dumps(variables)))}
    except Exception as e:  # whatever it is, ours must refuse too
        return {"raises": f"{type(e).__name__}: {e}"[:100]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(FOLDER, "cases.json"))
    parser.add_argument("--templates", default=FOLDER)
    parser.add_argument("--inline", action="store_true", help="texts of templates within the file")
    args = parser.parse_args()
    chat_template_utils.datetime = FixedTime
    given = inputs()
    cases = []
    for file in sorted(os.listdir(args.templates)):
        if not file.endswith(".jinja"):
            continue
        with open(os.path.join(args.templates, file), encoding="utf-8", newline="") as f:
            text = f.read()
        for name, variables in given.items():
            if name != "variables":
                where = {"text": text} if args.inline else {"file": file}
                cases.append({"name": f"{file} {name}", **where, "input": name, **render(text, variables)})
    for i, text in enumerate(CONSTRUCTS):
        cases.append({"name": f"construct {i}: {text}"[:80], "text": text, "input": "variables",
                      **render(text, VARIABLES)})
    made = {"by": {"transformers": transformers.__version__, "jinja2": jinja2.__version__,
                   "python": sys.version.split()[0]}, "now": NOW, "inputs": given, "cases": cases}
    with open(args.out, "w", encoding="utf-8") as f:
        json.dump(made, f, ensure_ascii=False, indent=0, separators=(",", ":"))
        f.write("\n")
    raised = sum("raises" in c for c in cases)
    print(f"{args.out}: {len(cases)} cases, {raised} of them raise")


if __name__ == "__main__":
    main()
