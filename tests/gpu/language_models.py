#!/usr/bin/env python3
"""Checkpoints of true shape with random weights, for speed: what a step costs depends on shapes and types, not on values.

usage: language_models.py FOLDER [NAME...]
  llama-8b        Llama-3.1-8B, bf16 safetensors (16.1 GB)
  llama-8b-q4_k   the same shape as a GGUF file: Q4_K, head Q6_K (4.9 GB)
Needs numpy only. Weights are written in pieces; values are small, so that nothing overflows."""
import json
import os
import struct
import sys

import numpy as np

LLAMA_8B = dict(hidden=4096, layers=32, heads=32, kv_heads=8, head_dim=128, feed_forward=14336, vocabulary=128256)
PIECE = 1 << 26


def shapes(c):
    q, kv, h, f = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"], c["hidden"], c["feed_forward"]
    yield "model.embed_tokens.weight", (c["vocabulary"], h)
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "self_attn.q_proj.weight", (q, h)
        yield p + "self_attn.k_proj.weight", (kv, h)
        yield p + "self_attn.v_proj.weight", (kv, h)
        yield p + "self_attn.o_proj.weight", (h, q)
        yield p + "post_attention_layernorm.weight", (h,)
        yield p + "mlp.gate_proj.weight", (f, h)
        yield p + "mlp.up_proj.weight", (f, h)
        yield p + "mlp.down_proj.weight", (h, f)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (c["vocabulary"], h)


def random_bf16(rng, count):
    """Uniform in +-0.03 as bf16's upper halves of fp32."""
    x = rng.random(count, dtype=np.float32)
    x = (x - np.float32(0.5)) * np.float32(0.06)
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def safetensors(folder, c):
    os.makedirs(folder, exist_ok=True)
    header, at = {}, 0
    for name, shape in shapes(c):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(1)
    block = random_bf16(rng, PIECE // 2)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(c):
            left = 2 * int(np.prod(shape))
            if len(shape) == 1:
                f.write(np.full(shape, 0x3F80, np.uint16).tobytes())
                continue
            while left > 0:
                turn = int(rng.integers(0, 4096))  # pieces differ
                data = np.roll(block, turn).tobytes()[: min(left, PIECE)]
                f.write(data)
                left -= len(data)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c["hidden"],
        "intermediate_size": c["feed_forward"], "num_hidden_layers": c["layers"], "num_attention_heads": c["heads"],
        "num_key_value_heads": c["kv_heads"], "head_dim": c["head_dim"], "vocab_size": c["vocabulary"],
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": 128001,
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    tokenizer(folder, c["vocabulary"])


def tokenizer(folder, vocabulary):
    """Bytes, and words that no text has: enough for prompts of token ids and answers as text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    alphabet = [chr(b) if b in printable else chr(next(extra)) for b in range(256)]
    names = alphabet + [f"t{i}" for i in range(256, vocabulary)]
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                   "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                   "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                                       "use_regex": True},
                   "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                             "vocab": {n: i for i, n in enumerate(names)}, "merges": []}}, f)


# ---- GGUF ----
F32, Q4_K, Q6_K = 0, 12, 14
BLOCKS = {Q4_K: (256, 144), Q6_K: (256, 210)}


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, list):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(text(x) for x in v)
    return struct.pack("<II", 4, v)


def random_blocks(rng, kind, count):
    """Whole blocks: random quants, scales that make weights of about 0.03."""
    size = BLOCKS[kind][1]
    b = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if kind == Q4_K:
        b[:, 0:4] = np.frombuffer(np.array([6e-5, 3e-4], np.float16).tobytes(), np.uint8)
    else:
        b[:, 208:210] = np.frombuffer(np.array([2e-5], np.float16).tobytes(), np.uint8)
        b[:, 192:208] = rng.integers(0, 64, (count, 16), dtype=np.uint8)
    return b


def gguf(path, c):
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    tensors = []
    for name, shape in shapes(c):
        part = name.removesuffix(".weight").split(".")
        if part[0] == "lm_head":
            to, kind = "output.weight", Q6_K
        elif part[1] == "embed_tokens":
            to, kind = "token_embd.weight", Q4_K
        elif part[1] == "norm":
            to, kind = "output_norm.weight", F32
        else:
            to, kind = f"blk.{part[2]}.{names['.'.join(part[3:])]}.weight", F32 if len(shape) == 1 else Q4_K
        tensors.append((to, shape, kind))
    tokens = [f"<{i}>" for i in range(c["vocabulary"])]
    meta = {
        "general.architecture": "llama", "general.name": "random", "llama.context_length": 131072,
        "llama.embedding_length": c["hidden"], "llama.block_count": c["layers"],
        "llama.feed_forward_length": c["feed_forward"], "llama.attention.head_count": c["heads"],
        "llama.attention.head_count_kv": c["kv_heads"], "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500000.0, "llama.rope.dimension_count": c["head_dim"], "llama.vocab_size": c["vocabulary"],
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
    }
    info, at = b"", 0
    for name, shape, kind in tensors:
        n = int(np.prod(shape))
        size = 4 * n if kind == F32 else n // BLOCKS[kind][0] * BLOCKS[kind][1]
        info += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        info += struct.pack("<IQ", kind, at)
        at += (size + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    head += b"".join(text(k) + value(v) for k, v in meta.items()) + info
    rng = np.random.default_rng(2)
    ready = {k: random_blocks(rng, k, PIECE // BLOCKS[k][1]) for k in BLOCKS}
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for name, shape, kind in tensors:
            n = int(np.prod(shape))
            if kind == F32:
                f.write(np.ones(n, np.float32).tobytes())
                continue
            left = n // BLOCKS[kind][0]
            while left > 0:
                some = min(left, len(ready[kind]))
                f.write(ready[kind][:some].tobytes())
                left -= some
            f.write(bytes(-f.tell() % 32))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, wanted = sys.argv[1], sys.argv[2:] or ["llama-8b", "llama-8b-q4_k"]
    os.makedirs(folder, exist_ok=True)
    c = dict(LLAMA_8B)
    if os.environ.get("TRM_TINY"):  # to try the script itself
        c.update(hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, feed_forward=512, vocabulary=1024)
    for name in wanted:
        if name == "llama-8b":
            safetensors(os.path.join(folder, name), c)
        elif name == "llama-8b-q4_k":
            gguf(os.path.join(folder, name + ".gguf"), c)
        else:
            sys.exit(f"no model '{name}'")
        print(name)


main()
