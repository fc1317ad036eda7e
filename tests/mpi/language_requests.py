#!/usr/bin/env python3
"""Requests for tests of language models: mixed lengths, greedy and seeded, with log-probabilities.

usage: language_requests.py COUNT VOCABULARY CONTEXT [SEED [constrained]]     (one JSON object a line)
Prompts are token ids, so that any model will do; some share long beginnings, as conversations do."""
import json
import random
import sys


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
CONSTRAINTS = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
    {"response_format": {"type": "json_object"}},
    {"guided_choice": ["yes", "no", "perhaps"]},
    {"structured_outputs": {"regex": "[a-c]{3,9}(, [0-9]{2})*"}},
]


def main():
    count, vocabulary, context = (int(a) for a in sys.argv[1:4])
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 7)
    families = [[rng.randrange(vocabulary) for _ in range(context // 2)] for _ in range(3)]
    for i in range(count):
        length = max(1, min(int(rng.expovariate(1 / (context / 5))), context * 5 // 8))
        shared = families[i % 3][: rng.randrange(context // 3)] if i % 2 else []
        prompt = (shared + [rng.randrange(vocabulary) for _ in range(length)])[: context * 5 // 8]
        body = {
            "id": f"r{i}",
            "prompt": prompt,
            "max_tokens": rng.randrange(1, min(40, context * 3 // 8)),
            "logprobs": rng.randrange(4),
            "return_token_ids": True,
            "ignore_eos": bool(i % 4),
        }
        if i % 3 != 0:
            body.update(seed=rng.randrange(1 << 40), temperature=rng.choice([0.5, 0.8, 1.0, 1.5]))
        if i % 9 == 1:
            body.update(top_k=20, top_p=0.9)
        if i % 9 == 2:
            body.update(min_p=0.02, repetition_penalty=1.2)
        if i % 9 == 4:
            body.update(presence_penalty=0.5, frequency_penalty=0.3, logit_bias={"5": 2.0, "7": -100})
        if i % 9 == 5:
            body.update(typical_p=0.9)
        if i % 11 == 3:
            body["n"] = 3
        if i % 13 == 6:
            body["prompt_logprobs"] = 2
        if "temperature" not in body:
            body["temperature"] = 0
        if len(sys.argv) > 5 and i % 4 == 2: # the text has a form, which the rank that samples keeps to
            body.update(CONSTRAINTS[i // 4 % 4])
        print(json.dumps(body))


main()
