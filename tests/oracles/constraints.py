#!/usr/bin/env python3
"""Texts drawn at random under constraints, against Python's jsonschema and re. Needs jsonschema.

usage: constraints.py CONSTRAINT_WALK [COUNT [SEED]]
Every text of every schema must be JSON and valid; of a choice or a regular expression: it must match. Exit code 77 where
jsonschema is not installed."""
import json
import re
import subprocess
import sys

try:
    import jsonschema
except ImportError as e:
    print(f"constraints: {e}")
    sys.exit(77)

STRING, INTEGER, NUMBER, BOOLEAN, NULL = ({"type": t} for t in ("string", "integer", "number", "boolean", "null"))


def obj(required=None, additional=None, **properties):
    s = {"type": "object", "properties": properties}
    if required is not None:
        s["required"] = required.split()
    if additional is not None:
        s["additionalProperties"] = additional
    return s


def text(pattern, **more):
    return {"type": "string", "pattern": pattern, **more}


NODE = obj("value", value=INTEGER, left={"$ref": "#/$defs/node"}, right={"$ref": "#/$defs/node"})
PERSON = obj("name age", False, name=STRING, age={"type": "integer", "minimum": 0, "maximum": 150}, nick=STRING)
SCHEMAS = [
    {}, True, STRING, INTEGER, NUMBER, BOOLEAN, NULL, {"type": "object"}, {"type": "array"},
    {"type": ["string", "null"]}, {"type": ["integer", "array", "object"]}, {"type": ["number", "boolean"]},
    PERSON, obj(a=STRING), obj("", True, a=INTEGER), obj("a b", {"type": "integer"}, a=NULL, b=BOOLEAN),
    obj("b", None, a=INTEGER, b=INTEGER, c=INTEGER, d=INTEGER), obj("zz", True, a=INTEGER), obj("", False),
    {"type": "object", "additionalProperties": STRING}, {"type": "object", "required": ["k", "l"]},
    {"type": "object", "patternProperties": {"^[a-z]{1,3}$": INTEGER}, "additionalProperties": False},
    {"type": "object", "patternProperties": {"x": BOOLEAN}},
    obj("name", {"type": "integer"}, **{"name": STRING, "na": STRING, "é世": NULL, 'q"\\': NULL, "": NULL}),
    {"type": "array", "items": INTEGER}, {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 3},
    {"type": "array", "minItems": 2}, {"type": "array", "maxItems": 2, "items": {"type": "array", "items": NUMBER}},
    {"type": "array", "prefixItems": [STRING, INTEGER]}, {"type": "array", "prefixItems": [STRING, INTEGER], "items": False},
    {"type": "array", "prefixItems": [NULL], "items": BOOLEAN, "minItems": 3},
    {"type": "array", "prefixItems": [NULL, NULL, NULL], "items": BOOLEAN, "minItems": 1, "maxItems": 2},
    {"enum": ["red", "green", 1, None, True, {"a": [1, 2.5, "x\n"]}, [], "\u00e9\"\\"]}, {"const": {"k": ["v"]}},
    {"type": "string", "enum": ["a", 5]}, {"const": -0.25}, {"enum": [1e20, 1e-7, 123456789012]},
    {"type": "string", "minLength": 3}, {"type": "string", "maxLength": 4}, {"type": "string", "minLength": 2, "maxLength": 2},
    {"type": "string", "minLength": 1, "maxLength": 70}, {"type": "string", "maxLength": 0},
    text("^[a-z]+$"), text("^(foo|bar)?baz$"), text("x"), text("^a"), text("b$"), text("^$"), text("^\\d{3}-\\d{4}$"),
    text("^[^0-9]{2,5}$"), text("^\\w+\\s\\w+$"), text("^.{1,3}$"), text('^["\\\\\\n]+$'), text("^[\\u4e16-\\u754c]+$"),
    text("^\\S+@\\S+$"), text("^(a|ab)(c|bcd)*$"), text("^a{2,}b{0,3}c{4}$"), text("^(?:ab?)+$|^x$", maxLength=9),
    text("^[a-f]*$", minLength=2, maxLength=5), text("e", minLength=3, maxLength=8), text("^[\\w.-]+$", minLength=2),
    text("^[A-Z][a-z]*(-[A-Z][a-z]*)*$"), text("^([01]\\d|2[0-3]):[0-5]\\d$"), text("^\\D\\W$"), text("^(a(b(c)?)?)?$"),
    *({"type": "string", "format": f} for f in ("date", "time", "date-time", "uuid", "ipv4", "email")),
    {"type": "string", "format": "date", "maxLength": 10}, {"type": "string", "format": "unknown-format"},
    *({"type": "integer", **b} for b in (
        {"minimum": 0}, {"maximum": 0}, {"minimum": -5, "maximum": 5}, {"minimum": 99, "maximum": 1001},
        {"exclusiveMinimum": 9, "exclusiveMaximum": 21}, {"minimum": -1234, "maximum": -999}, {"minimum": 10, "maximum": 10},
        {"minimum": -100, "maximum": 7}, {"exclusiveMaximum": -1}, {"minimum": 2.5, "maximum": 9.5}, {"multipleOf": 1},
        {"minimum": 1000000, "maximum": 9999999999}, {"minimum": -9223372036854775807, "maximum": 9223372036854775807})),
    *({"type": "number", **b} for b in (
        {"minimum": 0, "maximum": 1}, {"exclusiveMinimum": 0}, {"maximum": -0.5}, {"minimum": -1.75, "maximum": 2.125},
        {"exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3}, {"minimum": 99.5, "maximum": 100.25}, {"exclusiveMaximum": 0},
        {"minimum": 3, "maximum": 3}, {"minimum": -2, "exclusiveMaximum": -1}, {"minimum": 1e-5, "maximum": 1e15})),
    {"anyOf": [STRING, INTEGER]}, {"oneOf": [NULL, PERSON]}, {"anyOf": [obj("a", a=INTEGER), obj("a b", a=STRING, b=NULL)]},
    {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, BOOLEAN]},
    {"allOf": [PERSON]}, {"allOf": [obj("a", a=INTEGER), obj("b", b=STRING)]},
    {"allOf": [obj("a", a={"type": "integer", "minimum": 3}), obj(a={"maximum": 8}, c=NULL)]},
    {"allOf": [{"type": ["integer", "null", "string"]}, {"type": ["number", "null"]}]},
    {"allOf": [{"enum": [1, 2, 3, "a"]}, {"enum": ["a", 3, 4]}]}, {"allOf": [obj(None, False, a=NULL), obj(b=NULL)]},
    {"allOf": [{"anyOf": [STRING, INTEGER]}, {"anyOf": [INTEGER, NULL]}]},
    {"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 3}]}, {"allOf": [{"type": "array", "items": INTEGER}, {"items": {"minimum": 5}}]},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}}, {"type": "array", "items": {"$ref": "#/definitions/p"}, "definitions": {"p": PERSON}},
    {"$ref": "#/$defs/i", "minimum": 4, "$defs": {"i": {"type": "integer", "maximum": 6}}}, obj("next", next={"anyOf": [{"$ref": "#"}, NULL]}),
    {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, NUMBER]}}, "$ref": "#/$defs/a"},
    {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": obj(n={"$ref": "#/$defs/a"}, x=INTEGER), "b": obj(n={"$ref": "#/$defs/b"})}},
    obj("kind value", False, kind={"enum": ["circle", "square"]}, value={"anyOf": [obj("r", r=NUMBER), obj("s", s=NUMBER)]}),
    obj("a", False, a={"type": "array", "items": obj("b", False, b={"type": "array", "items": obj("c", False, c=STRING)})}),
    obj(None, None, a=False, b=NULL), {"items": INTEGER}, {"properties": {"a": NULL}}, {"minimum": 5},
    {"title": "t", "description": "d", "default": 1, "examples": [2], "$schema": "x", "type": "boolean"},
]
OTHERS = [
    {"type": "json_object"},
    {"type": "choice", "choice": ["a", "ab", "the red", "\u4e16\u754c", "x\ny"]},
    *({"type": "regex", "regex": r} for r in (
        "[a-c]{2,4}", "(foo|bar)+", "a*b?c+", "\\d+(\\.\\d+)?", "[^a]b", "(?:x|yz){3}", ".{0,3}", "\\w\\W\\s\\S\\d\\D", "a|b|", "(?P<n>a)b", "\u00e9+[\u4e16-\u754c]")),
]


SPACES = "\\t-\\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"


def ecma(pattern):
    """ECMA 262's meaning of a pattern in Python's (with re.ASCII)."""
    return pattern.replace("\\S", f"[^{SPACES}]").replace("\\s", f"[{SPACES}]").replace("$", "\\Z")


def has_pattern(_, pattern, value, __):
    if isinstance(value, str) and not re.search(ecma(pattern), value, re.ASCII):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": has_pattern})


def check(what, out, count):
    if isinstance(out, dict):
        return f"refused: {out}"
    if len(out) != count:
        return f"{len(out)} texts"
    for t in out:
        if what["type"] == "choice":
            if t not in what["choice"]:
                return f"{t!r} is no choice"
        elif what["type"] == "regex":
            if not re.fullmatch(ecma(what["regex"]), t, re.ASCII):
                return f"{t!r} does not match"
        else:
            try:
                value = json.loads(t)
            except ValueError as e:
                return f"{t!r}: {e}"
            schema = what.get("schema", {"type": "object"})
            try:
                Validator(schema, format_checker=Validator.FORMAT_CHECKER).validate(value)
            except jsonschema.ValidationError as e:
                return f"{t!r}: {e.message}"
    return None


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    seed = sys.argv[3] if len(sys.argv) > 3 else "1"
    whats = [{"type": "json_schema", "schema": s} for s in SCHEMAS] + OTHERS
    lines = "".join(json.dumps(w) + "\n" for w in whats)
    ran = subprocess.run([sys.argv[1], str(count), seed], input=lines, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"constraint_walk: {ran.stderr}")
    answers = ran.stdout.rstrip("\n").split("\n")
    assert len(answers) == len(whats), (len(answers), len(whats))
    wrong, distinct = 0, 0
    for what, answer in zip(whats, answers):
        out = json.loads(answer)
        problem = check(what, out, count)
        distinct += len(set(out))
        if problem is not None:
            wrong += 1
            print(f"{json.dumps(what)}\n    {problem}")
    print(f"{len(whats)} constraints, {count} texts each, {distinct} different ones; {wrong} wrong")
    sys.exit(wrong > 0)


main()
