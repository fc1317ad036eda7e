#!/usr/bin/env python3
"""Fixtures of model/language: what other libraries say of weights and configurations.

Writes to tests/data/language/formats/:
  configs.json       config.json texts and the settings transformers makes of them
  plain.safetensors  every dtype, by the safetensors package
  shards/            a sharded folder with its index
  all.gguf           every supported type of tensor and kind of metadata, by the gguf package
  split-0000?-of-00003.gguf
  manifest.json      what those packages read back: names, dtypes, dims, places, first bytes
Made with transformers 5.24.0, safetensors 0.8.0, gguf 0.19.0, numpy 2.4.6.
usage: formats.py [OUT_DIR]
"""
import copy
import json
import os
import sys

import gguf
import numpy as np
import safetensors.numpy
from gguf import GGMLQuantizationType as Q
from transformers import AutoConfig

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../data/language/formats")
os.makedirs(out, exist_ok=True)
rng = np.random.default_rng(7)

# ---- configurations: published files' settings, and files that leave everything out ----

SILENT = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
CONFIGS = {"defaults of " + t: {"architectures": [c], "model_type": t} for t, c in SILENT.items()}
CONFIGS.update({
    "no architectures": {"model_type": "bert", "hidden_size": 384, "num_attention_heads": 12},
    "llama 2 7b": {
        "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000},
    "llama 3.1 8b": {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "vocab_size": 128256},
    "llama in the new spelling": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 64, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                            "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
                            "rope_type": "llama3"}},
    "linear": {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
               "rope_scaling": {"type": "linear", "factor": 2.0}},
    "dynamic": {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "part of a head": {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                       "partial_rotary_factor": 0.5},
    "mistral 7b v0.3": {
        "architectures": ["MistralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "sliding_window": None, "vocab_size": 32768},
    "mixtral 8x7b": {
        "architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32000},
    "qwen 2.5 0.5b": {
        "architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645, "hidden_size": 896,
        "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
        "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
        "use_sliding_window": False, "vocab_size": 151936},
    "qwen 2.5 with windows and yarn": {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "model_type": "qwen2", "max_window_layers": 3,
        "num_attention_heads": 14, "num_hidden_layers": 5, "num_key_value_heads": 2, "sliding_window": 128,
        "use_sliding_window": True,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "qwen 3 0.6b": {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
        "vocab_size": 151936},
    "qwen 3 30b a3b": {
        "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": True,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 151936},
    "gemma 2 2b": {
        "architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2",
        "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "vocab_size": 256000},
    "gemma 2 without caps": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "query_pre_attn_scalar": 144},
    "gemma 3 1b": {
        "architectures": ["Gemma3ForCausalLM"], "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
        "sliding_window_pattern": 6, "vocab_size": 262144},
    "gemma 3 in the new spelling": {
        "architectures": ["Gemma3ForCausalLM"], "head_dim": 256, "hidden_size": 640, "intermediate_size": 2048,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 1, "sliding_window": 512,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 11000.0}},
        "vocab_size": 262144},
    "gemma 3 4b": {
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
        "eos_token_id": [1, 106], "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                        "sliding_window": 1024}},
    "phi 3 mini 4k": {
        "architectures": ["Phi3ForCausalLM"], "bos_token_id": 1, "eos_token_id": 32000, "hidden_size": 3072,
        "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "vocab_size": 32064},
    "phi 3 mini 128k": {
        "architectures": ["Phi3ForCausalLM"], "hidden_size": 256, "max_position_embeddings": 131072,
        "model_type": "phi3", "num_attention_heads": 16, "num_hidden_layers": 2, "num_key_value_heads": 16,
        "original_max_position_embeddings": 4096, "sliding_window": 262144, "vocab_size": 32064,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.05, 1.1, 1.15, 1.2, 1.5, 1.75, 2.0],
                         "long_factor": [1.0, 1.5, 2.25, 4.0, 8.0, 16.0, 32.5, 64.25]}},
    "gpt2 medium": {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 50256,
        "eos_token_id": 50256, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 1024,
        "n_head": 16, "n_layer": 24, "n_positions": 1024, "vocab_size": 50257},
    "bert sentiment": {
        "architectures": ["BertForSequenceClassification"], "hidden_size": 128, "num_attention_heads": 2,
        "num_hidden_layers": 2, "intermediate_size": 512, "model_type": "bert", "pad_token_id": 0,
        "type_vocab_size": 2, "vocab_size": 30522, "id2label": {"0": "no", "1": "maybe", "2": "yes"},
        "label2id": {"no": 0, "maybe": 1, "yes": 2}},
    "xlm-r base": {
        "architectures": ["XLMRobertaModel"], "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 768,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "model_type": "xlm-roberta",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "type_vocab_size": 1,
        "vocab_size": 250002},
})
TANH = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def first(c, *names):
    for n in names:
        if getattr(c, n, None) is not None:
            return getattr(c, n)
    return None


def resolved(text):
    text = copy.deepcopy(text)
    kind = text.pop("model_type")
    whole = AutoConfig.for_model(kind, **text)
    c = getattr(whole, "text_config", None) or whole
    layers, window = c.num_hidden_layers, first(c, "sliding_window") or 0
    types = getattr(c, "layer_types", None)
    windowed = [t == "sliding_attention" for t in types] if types else [True] * layers
    heads = c.num_attention_heads
    want = {
        "layers": layers, "hidden": c.hidden_size, "heads": heads, "vocabulary": c.vocab_size,
        "feed_forward": first(c, "intermediate_size", "n_inner") or 4 * c.hidden_size,
        "kv_heads": first(c, "num_key_value_heads") or heads,
        "head_dim": first(c, "head_dim") or c.hidden_size // heads,
        "context": c.max_position_embeddings,
        "norm_epsilon": first(c, "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
        "activation": first(c, "hidden_activation", "hidden_act", "activation_function"),
        "tied": bool(whole.tie_word_embeddings),
        "windows": [window if w and window else 0 for w in windowed],
    }
    want["activation"] = TANH.get(want["activation"], want["activation"])
    if "roberta" in kind:
        want["position_offset"] = c.pad_token_id + 1
        want["context"] -= c.pad_token_id + 1
    for name in ("attention_bias", "mlp_bias"):
        if hasattr(c, name):
            want[name] = bool(getattr(c, name))
    if hasattr(c, "query_pre_attn_scalar"):
        want["attention_scale"] = c.query_pre_attn_scalar**-0.5
        want["attention_softcap"] = c.attn_logit_softcapping or 0
        want["logit_softcap"] = c.final_logit_softcapping or 0
    rope = getattr(c, "rope_parameters", None)
    if rope:
        if "sliding_attention" in rope:
            want["rope_local_theta"] = rope["sliding_attention"]["rope_theta"]
            rope = rope["full_attention"]
        want["rope_theta"] = rope["rope_theta"]
        want["rope_type"] = rope["rope_type"]
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            if name in rope:
                want["rope_" + name] = rope[name]
        if "original_max_position_embeddings" in rope:
            want["rope_original_context"] = rope["original_max_position_embeddings"]
        if rope.get("partial_rotary_factor", 1) != 1:
            want["rotary_dim"] = int(want["head_dim"] * rope["partial_rotary_factor"])
        for name in ("short", "long"):
            if name + "_factor" in rope:
                want["rope_" + name] = rope[name + "_factor"]
    if "moe" in kind or kind == "mixtral":
        want["experts"] = first(c, "num_experts", "num_local_experts")
        want["experts_used"] = c.num_experts_per_tok
        want["expert_feed_forward"] = first(c, "moe_intermediate_size") or c.intermediate_size
        want["experts_normalize"] = getattr(c, "norm_topk_prob", True)
    if "SequenceClassification" in text.get("architectures", [""])[0]:
        want["labels"] = [c.id2label[i] for i in range(c.num_labels)]
    if hasattr(c, "type_vocab_size"):
        want["token_types"] = c.type_vocab_size
    eos = text.get("eos_token_id", c.eos_token_id)
    want["eos"] = eos if isinstance(eos, list) else [] if eos is None else [eos]
    bos = text.get("bos_token_id", c.bos_token_id)
    want["bos"] = -1 if bos is None else bos
    want["pad"] = -1 if c.pad_token_id is None else c.pad_token_id
    return want


rows = [{"name": n, "config": c, "want": resolved(c)} for n, c in CONFIGS.items()]
with open(os.path.join(out, "configs.json"), "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")

# ---- safetensors ----

manifest = {}
tensors = {
    "f64": rng.normal(size=(2, 3)), "f32": rng.normal(size=(3, 4)).astype(np.float32),
    "f16": rng.normal(size=(5,)).astype(np.float16), "i64": np.arange(3), "i32": np.arange(4, dtype=np.int32),
    "i16": np.arange(5, dtype=np.int16), "i8": np.arange(6, dtype=np.int8), "u8": np.arange(7, dtype=np.uint8),
    "u16": np.arange(3, dtype=np.uint16), "u32": np.arange(2, dtype=np.uint32), "u64": np.arange(2, dtype=np.uint64),
    "bool": np.array([True, False, True]), "one": np.array(3.5, np.float32), "none": np.zeros((0, 4), np.float32),
}
safetensors.numpy.save_file(tensors, os.path.join(out, "plain.safetensors"), metadata={"format": "np"})
manifest["plain.safetensors"] = [
    {"name": n, "dtype": n if n in ("f64", "f16") else "f32" if n in ("one", "none") else n,
     "dims": list(t.shape), "bytes": t.tobytes().hex()} for n, t in tensors.items()]
os.makedirs(os.path.join(out, "shards"), exist_ok=True)
shards, index = [], {"metadata": {"total_size": 0}, "weight_map": {}}
for i in range(2):
    part = {f"layer.{i}.a": rng.normal(size=(2, 2)).astype(np.float32),
            f"layer.{i}.b": np.arange(3 + i, dtype=np.int32)}
    file = f"model-{i + 1:05d}-of-00002.safetensors"
    safetensors.numpy.save_file(part, os.path.join(out, "shards", file))
    for n, t in part.items():
        index["weight_map"][n] = file
        index["metadata"]["total_size"] += t.nbytes
        shards.append({"name": n, "dtype": "i32" if n.endswith("b") else "f32", "dims": list(t.shape),
                       "bytes": t.tobytes().hex()})
with open(os.path.join(out, "shards", "model.safetensors.index.json"), "w") as f:
    json.dump(index, f, indent=1)
manifest["shards"] = shards

# ---- GGUF ----


def quantized(kind, shape):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return rng.integers(0, 256, size=(*shape[:-1], shape[-1] // block * size), dtype=np.uint8)


def keys(w):
    w.add_uint8("k.u8", 200)
    w.add_int8("k.i8", -5)
    w.add_uint16("k.u16", 60000)
    w.add_int16("k.i16", -600)
    w.add_uint32("k.u32", 4000000000)
    w.add_int32("k.i32", -70000)
    w.add_uint64("k.u64", 1 << 40)
    w.add_int64("k.i64", -(1 << 40))
    w.add_float32("k.f32", 0.5)
    w.add_float64("k.f64", -0.1)
    w.add_bool("k.bool", True)
    w.add_string("k.string", "Grüße\nzwei")
    w.add_array("k.strings", ["a", "", "Ġthe", "日本"])
    w.add_array("k.ints", [1, -2, 3])
    w.add_array("k.floats", [0.5, -1.5])
    w.add_array("k.bools", [True, False, True])


TYPES = [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K,
         Q.I8, Q.I16, Q.I32, Q.I64, Q.F64]


def add(w, name, kind, shape):
    plain = {Q.F32: np.float32, Q.F16: np.float16, Q.I8: np.int8, Q.I16: np.int16, Q.I32: np.int32,
             Q.I64: np.int64, Q.F64: np.float64}
    if kind in plain:
        w.add_tensor(name, (rng.normal(size=shape) * 10).astype(plain[kind]))
    else:
        w.add_tensor(name, quantized(kind, shape), raw_dtype=kind)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def described(path):
    r = gguf.GGUFReader(path)
    return [{"name": t.name, "dtype": t.tensor_type.name.lower(), "dims": [int(d) for d in reversed(t.shape)],
             "offset": int(t.data_offset), "bytes": bytes(r.data[t.data_offset:t.data_offset + min(16, t.n_bytes)]).hex()}
            for t in r.tensors]


path = os.path.join(out, "all.gguf")
w = gguf.GGUFWriter(path, "llama")
keys(w)
for i, kind in enumerate(TYPES):
    block = gguf.GGML_QUANT_SIZES[kind][0]
    add(w, f"t.{kind.name}", kind, (2, 256 if block == 256 else 32) if i % 2 else (256 if block == 256 else 32,))
finish(w)
manifest["all.gguf"] = described(path)

w = gguf.GGUFWriter(os.path.join(out, "split.gguf"), "llama", split_max_tensors=2)
w.add_uint32("k.u32", 5)
for i in range(5):
    add(w, f"blk.{i}", Q.F32, (3,))
finish(w)
manifest["split"] = sum((described(os.path.join(out, f"split-{i + 1:05d}-of-00003.gguf")) for i in range(3)), [])

with open(os.path.join(out, "manifest.json"), "w") as f:
    f.write("{\n" + ",\n".join(json.dumps(k) + ": [\n" + ",\n".join(json.dumps(r) for r in v) + "\n]"
                               for k, v in manifest.items()) + "\n}\n")
for folder, _, names in os.walk(out):
    for n in names:
        os.chmod(os.path.join(folder, n), 0o644)
