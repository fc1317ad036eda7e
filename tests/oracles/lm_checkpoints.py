#!/usr/bin/env python3
"""Tiny language models with random weights, and what PyTorch makes of them: the data of
tests/worker/test_lm_logits.c under tests/data/language/models.

    lm_checkpoints.py [NAME ...]

Made with transformers 5.24.0, torch 2.15.0 and gguf 0.19.0; other versions write the same numbers up
to the last bits. Weights are rounded to the dtype in which they are stored, and everything is then
computed in fp32 by the eager implementation, the whole sequence anew at each step and without a
cache. A folder has a checkpoint as its users have it (config.json, safetensors), and for every
reference an .npz:

    prompt [64]         token ids
    rows   [r]          positions of the prompt whose logits are kept
    logits [r + n, V]   at those, and at each of n greedy steps: row r is what follows the prompt
    tokens [n]          the greedy tokens

Variants are other config files over the same weights (config.NAME.json, NAME.npz). Seeds are
chosen such that no step of the greedy path is decided by less than 1e-3. Encoders have ids,
lengths, and their outputs. rope.npz: rotary frequencies of models of full size, the scale behind
them.
"""
import json
import os
import sys

sys.path.pop(0)  # this folder, where files are named as packages are
import numpy as np
import torch
import transformers

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "language", "models")
PROMPT, STEPS, ROWS = 64, 32, list(range(0, 63, 9))
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

torch.set_grad_enabled(False)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def randomise(model, seed, dtype):
    """Weights that make states of size one and logits that differ; rounded to dtype."""
    gen = torch.Generator().manual_seed(seed)
    norms = {n for n, p in model.named_parameters() if "norm" in n.lower() or ".ln_" in n}
    gemma = "Gemma" in type(model).__name__
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=gen)
        if name in norms:
            around = 0.0 if name.endswith("bias") or p.abs().max() == 0 else 1.0
            v = around + 0.2 * r
            if gemma and name == "model.norm.weight":
                v = v + 4  # tied embeddings are small: else a token is followed by itself
        elif p.dim() == 1:
            v = 0.3 * r
        elif "embed" in name or "wte" in name or "wpe" in name:
            v = (0.02 if gemma else 0.5) * r
        else:
            inputs = p.shape[0] if "c_" in name.split(".")[-2] else p.shape[-1]
            v = 1.2 * r / inputs**0.5
        if any(part in name for part in ("gate.weight", "q_proj", "k_proj", "qkv", "c_attn", "query",
                                         "key")):
            v = v * 2  # routers and attention that choose
        p.copy_(v.to(dtype).float())


def forward(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model, prompt):
    """(logits [r + n, V], tokens [n], smallest gap)"""
    ids, tokens, gap = list(prompt), [], 1e9
    logits = forward(model, ids)
    kept = [logits[i].numpy() for i in ROWS]
    for _ in range(STEPS):
        last = logits[-1]
        top = torch.topk(last, 2).values
        gap = min(gap, float(top[0] - top[1]))
        kept.append(last.numpy())
        tokens.append(int(last.argmax()))
        ids.append(tokens[-1])
        logits = forward(model, ids)
    return np.stack(kept).astype(np.float32), np.array(tokens, np.int32), gap


def reference(model, path, vocabulary, least=1e-3):
    for seed in range(100):
        prompt = np.random.default_rng(seed).integers(3, vocabulary, PROMPT).astype(np.int32)
        logits, tokens, gap = greedy(model, prompt.tolist())
        if gap > least and len(set(tokens.tolist())) > STEPS // 3:
            break
    else:
        raise SystemExit(f"{path}: no seed gives a clear path")
    np.savez(path, prompt=prompt, rows=np.array(ROWS, np.int32), logits=logits, tokens=tokens)
    print(f"{os.path.relpath(path, ROOT)}: prompt seed {seed}, gap {gap:.4f}, "
          f"logits' deviation {logits.std():.2f}, tokens {len(set(tokens.tolist()))}")


def old_style(config):
    """config.json as transformers 4 wrote it."""
    c = dict(config)
    c["torch_dtype"] = c.pop("dtype", "float32")
    c["transformers_version"] = "4.44.0"
    if c["model_type"] == "qwen3_moe":
        c["num_experts"] = c.pop("num_local_experts")
    rope = c.pop("rope_parameters", None)
    c.pop("layer_types", None)
    if rope is not None:
        rope = dict(rope)
        c["rope_theta"] = rope.pop("rope_theta")
        rope.pop("partial_rotary_factor", None)
        c["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    return c


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def build(cls, config):
    config._attn_implementation = "eager"
    return getattr(transformers, cls)(config).eval().float()


def checkpoint(name, cls, config, dtype="bf16", old=True, shard=None, extra=None, seed=1):
    """Writes the folder; returns the model, which computes in fp32 with the stored weights."""
    folder = os.path.join(ROOT, name)
    os.makedirs(folder, exist_ok=True)
    model = build(cls, config)
    randomise(model, seed, DTYPES[dtype])
    stored = build(cls, config)
    stored.load_state_dict(model.state_dict())
    stored.to(DTYPES[dtype]).save_pretrained(folder, max_shard_size=shard or "5GB")
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        c = json.load(f)
    c.pop("_name_or_path", None)
    if old:
        c = old_style(c)
    for file in os.listdir(folder):  # safetensors makes files for their owner alone
        os.chmod(os.path.join(folder, file), 0o644)
    c.update(extra or {})
    write_json(path, c)
    return model, folder, c


def common(**more):
    c = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=256, max_position_embeddings=128,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    c.update(more)
    return c


def llama():
    config = transformers.LlamaConfig(**common(tie_word_embeddings=False), rope_theta=10000.0)
    model, folder, c = checkpoint("llama", "LlamaForCausalLM", config, dtype="f32", shard="150KB")
    reference(model, os.path.join(folder, "reference.npz"), 256)
    state = model.state_dict()
    scalings = {
        "linear": {"rope_type": "linear", "factor": 4.0},
        "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        "yarn_mscale": {"rope_type": "yarn", "factor": 2.5, "mscale": 0.707, "mscale_all_dim": 1.2,
                        "beta_fast": 16, "beta_slow": 2, "original_max_position_embeddings": 40},
        "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
        "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    }
    for name, scaling in scalings.items():
        config = transformers.LlamaConfig(**common(tie_word_embeddings=False),
                                          rope_parameters=dict(scaling, rope_theta=10000.0))
        variant = build("LlamaForCausalLM", config)
        variant.load_state_dict(state)
        v = dict(c, rope_scaling=scaling)
        if name == "dynamic":
            # as for a context of 192: the frequencies do not change with the sequence
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
            frequencies, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=192)
            variant.model.rotary_emb.rope_type = "default"
            variant.model.rotary_emb.inv_freq = frequencies
        if name == "linear":  # the oldest form
            v["rope_scaling"] = {"type": "linear", "factor": 4.0}
        if name == "llama3":  # the newest form
            del v["rope_scaling"], v["rope_theta"]
            v["rope_parameters"] = dict(scaling, rope_theta=10000.0)
        write_json(os.path.join(folder, f"config.{name}.json"), v)
        reference(variant, os.path.join(folder, f"{name}.npz"), 256)


def llama_biases():
    config = transformers.LlamaConfig(**common(tie_word_embeddings=True, head_dim=24,
                                               num_key_value_heads=4, attention_bias=True,
                                               mlp_bias=True))
    model, folder, _ = checkpoint("llama-biases", "LlamaForCausalLM", config, dtype="f16")
    reference(model, os.path.join(folder, "reference.npz"), 256)


def mistral():
    config = transformers.MistralConfig(**common(sliding_window=20))
    model, folder, _ = checkpoint("mistral", "MistralForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def qwen2():
    config = transformers.Qwen2Config(**common(num_hidden_layers=3, use_sliding_window=True,
                                               sliding_window=20, max_window_layers=1,
                                               tie_word_embeddings=True, rope_theta=1e6))
    model, folder, _ = checkpoint("qwen2", "Qwen2ForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    c["use_sliding_window"] = False
    write_json(os.path.join(folder, "config.whole.json"), c)
    whole = build("Qwen2ForCausalLM", transformers.Qwen2Config(**common(
        num_hidden_layers=3, use_sliding_window=False, sliding_window=20, max_window_layers=1,
        tie_word_embeddings=True, rope_theta=1e6)))
    whole.load_state_dict(model.state_dict())
    reference(whole, os.path.join(folder, "whole.npz"), 256)


def qwen3():
    config = transformers.Qwen3Config(**common(head_dim=32, rope_theta=1e6))
    model, folder, _ = checkpoint("qwen3", "Qwen3ForCausalLM", config, old=False)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def gemma():
    config = transformers.GemmaConfig(**common(head_dim=16, num_key_value_heads=1, hidden_size=96))
    model, folder, _ = checkpoint("gemma", "GemmaForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def gemma2():
    config = transformers.Gemma2Config(**common(
        head_dim=16, num_hidden_layers=3, sliding_window=20, query_pre_attn_scalar=24,
        attn_logit_softcapping=3.0, final_logit_softcapping=6.0))
    model, folder, _ = checkpoint("gemma2", "Gemma2ForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def gemma3():
    config = transformers.Gemma3TextConfig(**common(
        hidden_size=96, head_dim=16, num_hidden_layers=7, num_key_value_heads=1, sliding_window=20,
        intermediate_size=64, query_pre_attn_scalar=20,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}))
    model, folder, c = checkpoint("gemma3", "Gemma3ForCausalLM", config, old=False)
    reference(model, os.path.join(folder, "reference.npz"), 256)
    v = dict(c)  # as transformers 4.50 wrote it
    v.pop("layer_types")
    v.pop("rope_parameters")
    v.update(sliding_window_pattern=6, rope_theta=1e6, rope_local_base_freq=10000.0,
             rope_scaling={"rope_type": "linear", "factor": 8.0})
    write_json(os.path.join(folder, "config.old.json"), v)


def phi3():
    n = 4  # 16 elements a head, half of them turn
    config = transformers.Phi3Config(**common(
        sliding_window=30, max_position_embeddings=256, original_max_position_embeddings=48,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0,
                         "partial_rotary_factor": 0.5,
                         "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.2, 2.5, 6.0, 9.0]}))
    assert len(config.rope_parameters["short_factor"]) == n
    model, folder, c = checkpoint("phi3", "Phi3ForCausalLM", config)
    c["partial_rotary_factor"] = 0.5
    c["rope_scaling"] = {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7],
                         "long_factor": [1.2, 2.5, 6.0, 9.0]}
    c["original_max_position_embeddings"] = 48
    write_json(os.path.join(folder, "config.json"), c)
    reference(model, os.path.join(folder, "reference.npz"), 256)
    # short factors: the sequence stays within the original context
    config.original_max_position_embeddings = 128
    config.rope_parameters["original_max_position_embeddings"] = 128
    short = build("Phi3ForCausalLM", config)
    short.load_state_dict(model.state_dict())
    c["original_max_position_embeddings"] = 128
    write_json(os.path.join(folder, "config.short.json"), c)
    reference(short, os.path.join(folder, "short.npz"), 256)


def gpt2():
    config = transformers.GPT2Config(n_embd=48, n_head=4, n_layer=2, n_positions=128,
                                     vocab_size=256, bos_token_id=1, eos_token_id=2)
    model, folder, _ = checkpoint("gpt2", "GPT2LMHeadModel", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def starcoder2():
    config = transformers.Starcoder2Config(**{
        k: v for k, v in common(sliding_window=20, norm_epsilon=1e-5, use_bias=True).items()
        if k != "rms_norm_eps"})
    model, folder, _ = checkpoint("starcoder2", "Starcoder2ForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def mixtral():
    config = transformers.MixtralConfig(**common(num_local_experts=4, num_experts_per_tok=2,
                                                 intermediate_size=64))
    model, folder, _ = checkpoint("mixtral", "MixtralForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)


def qwen3moe():
    config = transformers.Qwen3MoeConfig(**common(
        head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32,
        num_hidden_layers=3, decoder_sparse_step=2, mlp_only_layers=[], norm_topk_prob=True))
    model, folder, _ = checkpoint("qwen3moe", "Qwen3MoeForCausalLM", config)
    reference(model, os.path.join(folder, "reference.npz"), 256)
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    c["norm_topk_prob"] = False
    write_json(os.path.join(folder, "config.plain.json"), c)
    config.norm_topk_prob = False
    plain = build("Qwen3MoeForCausalLM", config)
    plain.load_state_dict(model.state_dict())
    reference(plain, os.path.join(folder, "plain.npz"), 256)


# ---- encoders ----

LENGTHS = [12, 1, 30, 5]


def encoder_inputs(vocabulary, pad, types):
    rng = np.random.default_rng(7)
    ids = [rng.integers(5, vocabulary, n) for n in LENGTHS]
    width = max(LENGTHS)
    padded = np.full((len(ids), width), pad, np.int64)
    mask = np.zeros((len(ids), width), np.int64)
    kinds = np.zeros((len(ids), width), np.int64)
    for i, row in enumerate(ids):
        padded[i, : len(row)] = row
        mask[i, : len(row)] = 1
        if types > 1:
            kinds[i, len(row) // 2 : len(row)] = 1
    return ids, dict(input_ids=torch.tensor(padded), attention_mask=torch.tensor(mask),
                     token_type_ids=torch.tensor(kinds))


def encoder(name, cls, config, pad, **more):
    model, _, _ = checkpoint(name, cls, config, old=True, **more)
    encoder_reference(os.path.join(name, "reference"), model, config, pad)


def encoder_reference(name, model, config, pad):
    ids, inputs = encoder_inputs(config.vocab_size, pad, config.type_vocab_size)
    arrays = dict(ids=np.concatenate(ids).astype(np.int32), lengths=np.array(LENGTHS, np.int32),
                  types=np.concatenate([inputs["token_type_ids"][i, :n].numpy()
                                        for i, n in enumerate(LENGTHS)]).astype(np.int32))
    out = model(**inputs)
    if "logits" in out:
        arrays["logits"] = out.logits.numpy()
    else:
        states, mask = out.last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        arrays["mean"] = mean.numpy()
        arrays["cls"] = states[:, 0].numpy()
        arrays["normalized"] = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.savez(os.path.join(ROOT, name + ".npz"), **arrays)
    print(name, {k: v.shape for k, v in arrays.items()})


def small(**more):
    c = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             vocab_size=256, max_position_embeddings=64, pad_token_id=0)
    c.update(more)
    return c


def bert():
    encoder("bert", "BertModel", transformers.BertConfig(**small()), 0)


def bert_classes():
    encoder("bert-classes", "BertForSequenceClassification",
            transformers.BertConfig(**small(num_labels=3)), 0,
            extra={"id2label": {"0": "sad", "1": "calm", "2": "glad"},
                   "label2id": {"sad": 0, "calm": 1, "glad": 2}})


def roberta():
    config = dict(type_vocab_size=1, pad_token_id=1, max_position_embeddings=66)
    encoder("xlm-roberta", "XLMRobertaModel", transformers.XLMRobertaConfig(**small(**config)), 1)


def roberta_classes():
    config = dict(type_vocab_size=1, pad_token_id=1, max_position_embeddings=66, num_labels=2)
    encoder("roberta-classes", "RobertaForSequenceClassification",
            transformers.RobertaConfig(**small(**config)), 1,
            extra={"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}})


# ---- frequencies of models of full size ----

ROPES = {
    "llama-3.1": dict(head_dim=128, max_position_embeddings=131072, rope=dict(
        rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
        high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "qwen2.5-yarn": dict(head_dim=128, max_position_embeddings=131072, rope=dict(
        rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768)),
    "linear": dict(head_dim=64, max_position_embeddings=8192, rope=dict(
        rope_type="linear", rope_theta=10000.0, factor=3.0)),
    "dynamic": dict(head_dim=80, max_position_embeddings=4096, length=10000, rope=dict(
        rope_type="dynamic", rope_theta=10000.0, factor=2.0)),
    "plain": dict(head_dim=256, max_position_embeddings=8192, rope=dict(
        rope_type="default", rope_theta=1e6)),
}


def rope():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    arrays = {}
    for name, r in ROPES.items():
        config = transformers.LlamaConfig(head_dim=r["head_dim"], rope_parameters=r["rope"],
                                          max_position_embeddings=r["max_position_embeddings"])
        if r["rope"]["rope_type"] == "default":
            model = build("LlamaForCausalLM", transformers.LlamaConfig(**common(
                head_dim=r["head_dim"], rope_parameters=r["rope"])))
            f, scale = model.model.rotary_emb.inv_freq, 1.0
        else:
            f, scale = ROPE_INIT_FUNCTIONS[r["rope"]["rope_type"]](config, "cpu",
                                                                   seq_len=r.get("length"))
        arrays[name] = np.append(f.numpy(), np.float32(scale)).astype(np.float32)
    np.savez(os.path.join(ROOT, "rope.npz"), **arrays)
    print("rope", {k: v.shape for k, v in arrays.items()})


# ---- GGUF ----


def rows_in_pairs(w, heads):
    """Rows of q or k as GGUF's llamas have them: element i of the first half of a head and of the
    second become neighbours."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_file(name, arch, model, tensors, kind, settings):
    """Matrices in `kind`, vectors and what `tensors` gives as float32. Returns the file's folder."""
    import gguf
    path = os.path.join(ROOT, name)
    w = gguf.GGUFWriter(path, arch)
    c = model.config
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_head_count(c.num_attention_heads)
    for key, value in settings.items():
        getattr(w, "add_" + key)(*value if isinstance(value, tuple) else (value,))
    w.add_tokenizer_model("llama")
    w.add_token_list([f"<{i}>" for i in range(c.vocab_size)])
    w.add_token_scores([0.0] * c.vocab_size)
    w.add_token_types([1] * c.vocab_size)
    for tensor, data in tensors.items():
        if data.ndim > 1 and kind != "F32":
            qtype = gguf.GGMLQuantizationType[kind]
            w.add_tensor(tensor, gguf.quants.quantize(data, qtype), raw_dtype=qtype)
        else:
            w.add_tensor(tensor, data.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def rounded(model, kind):
    """The model's matrices as `kind` holds them."""
    import gguf
    qtype = gguf.GGMLQuantizationType[kind]
    for p in model.parameters():
        if p.dim() > 1:
            p.copy_(torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(p.numpy(), qtype),
                                                        qtype)))


LLAMA_GGUF = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp",
}


def renamed(model, names, change=None):
    out = {}
    tied = getattr(model.config, "tie_word_embeddings", False)
    for name, p in model.named_parameters():
        if tied and name == "lm_head.weight":
            continue
        stem, _, suffix = name.rpartition(".")
        data = p.numpy()
        head, layer = "", stem.split(".")
        if stem.startswith("model.layers.") or stem.startswith("transformer.h.") or \
                stem.startswith("encoder.layer."):
            head, stem = f"blk.{layer[2]}.", ".".join(layer[3:])
        if change is not None:
            data = change(stem, data)
        out[f"{head}{names[stem]}.{suffix}"] = np.ascontiguousarray(data)
    return out


def llama_settings(config, **more):
    s = dict(feed_forward_length=config.intermediate_size,
             head_count_kv=config.num_key_value_heads,
             layer_norm_rms_eps=config.rms_norm_eps)
    s.update(more)
    return s


def round_activations(module, args):
    """What products with block types do to their inputs (kernels/language.h): int8, one scale for
    32 elements."""
    x = args[0]
    b = x.reshape(*x.shape[:-1], -1, 32)
    scale = b.abs().amax(-1, keepdim=True) / 127
    q = torch.where(scale > 0, torch.round(b / scale), torch.zeros(()))
    return ((q * scale).reshape(x.shape),)


def llama_gguf(name, kind, scaling, seed):
    """Llama 3.1's scaling is a tensor of factors there."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    config = transformers.LlamaConfig(**common(rope_parameters=scaling))
    model = build("LlamaForCausalLM", config)
    randomise(model, seed, torch.float32)
    rounded(model, kind)
    heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}
    tensors = renamed(model, LLAMA_GGUF,
                      lambda n, d: rows_in_pairs(d, heads[n]) if n in heads else d)
    if scaling["rope_type"] == "llama3":
        plain = 1.0 / 10000.0 ** (np.arange(0, 16, 2, dtype=np.float32) / 16)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        tensors["rope_freqs.weight"] = plain / scaled.numpy()
    path = gguf_file(name, "llama", model, tensors, kind, llama_settings(
        config, rope_freq_base=10000.0, rope_dimension_count=16))
    if kind != "F16":
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(round_activations)
    # where a last bit decides how an activation is rounded, logits differ by more than that
    reference(model, path[: -len(".gguf")] + ".npz", 256, 1e-3 if kind == "F16" else 4e-2)


def gguf_llama():
    llama_gguf("llama-f16.gguf", "F16", {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, 3)


def gguf_q8():
    llama_gguf("llama-q8_0.gguf", "Q8_0", {"rope_type": "default", "rope_theta": 10000.0}, 4)


def gguf_gemma3():
    config = transformers.Gemma3TextConfig(**common(
        hidden_size=96, head_dim=16, num_hidden_layers=7, num_key_value_heads=1, sliding_window=20,
        intermediate_size=64, query_pre_attn_scalar=16,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}))
    model = build("Gemma3ForCausalLM", config)
    randomise(model, 5, torch.float16)
    names = dict(LLAMA_GGUF, **{"post_attention_layernorm": "post_attention_norm",
                                "pre_feedforward_layernorm": "ffn_norm",
                                "post_feedforward_layernorm": "post_ffw_norm"})
    tensors = renamed(model, names, lambda n, d: d + 1 if "norm" in n else d)
    import gguf
    path = gguf_file("gemma3-f16.gguf", "gemma3", model, tensors, "F16", llama_settings(
        config, key_length=16, value_length=16, sliding_window=20, rope_freq_base=1e6,
        rope_scaling_type=gguf.RopeScalingType.LINEAR, rope_scaling_factor=8.0))
    reference(model, path[: -len(".gguf")] + ".npz", 256)


def gguf_mixtral():
    config = transformers.MixtralConfig(**common(num_local_experts=4, num_experts_per_tok=2,
                                                 intermediate_size=64, rope_theta=1e6))
    model = build("MixtralForCausalLM", config)
    randomise(model, 6, torch.float16)
    heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}
    plain, experts = {}, {}
    for name, p in model.named_parameters():
        (experts if "experts" in name else plain)[name] = p

    class Plain:  # what renamed() looks at
        named_parameters = staticmethod(plain.items)
        config = model.config
    tensors = renamed(Plain, LLAMA_GGUF,
                      lambda n, d: rows_in_pairs(d, heads[n]) if n in heads else d)
    for name, p in experts.items():
        layer, data = name.split(".")[2], p.numpy()
        if "gate_up" in name:
            tensors[f"blk.{layer}.ffn_gate_exps.weight"] = np.ascontiguousarray(data[:, :64])
            tensors[f"blk.{layer}.ffn_up_exps.weight"] = np.ascontiguousarray(data[:, 64:])
        else:
            tensors[f"blk.{layer}.ffn_down_exps.weight"] = data
    path = gguf_file("mixtral-f16.gguf", "llama", model, tensors, "F16", llama_settings(
        config, rope_freq_base=1e6, rope_dimension_count=16, expert_count=4, expert_used_count=2))
    reference(model, path[: -len(".gguf")] + ".npz", 256)


def gguf_phi3():
    long, short = [1.2, 2.5, 6.0, 9.0], [1.0, 1.1, 1.3, 1.7]
    config = transformers.Phi3Config(**common(
        max_position_embeddings=256, original_max_position_embeddings=48,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0,
                         "partial_rotary_factor": 0.5, "short_factor": short, "long_factor": long}))
    model = build("Phi3ForCausalLM", config)
    randomise(model, 7, torch.float16)
    tensors = renamed(model, LLAMA_GGUF)
    tensors["rope_factors_long.weight"] = np.array(long, np.float32)
    tensors["rope_factors_short.weight"] = np.array(short, np.float32)
    factor = (1 + np.log(256 / 48) / np.log(48)) ** 0.5
    path = gguf_file("phi3-f16.gguf", "phi3", model, tensors, "F16", llama_settings(
        config, rope_freq_base=10000.0, rope_dimension_count=8, rope_scaling_orig_ctx_len=48,
        rope_scaling_attn_factors=float(factor)))
    reference(model, path[: -len(".gguf")] + ".npz", 256)


def gguf_gpt2():
    config = transformers.GPT2Config(n_embd=64, n_head=4, n_layer=2, n_positions=128,
                                     vocab_size=256, bos_token_id=1, eos_token_id=2)
    model = build("GPT2LMHeadModel", config)
    randomise(model, 8, torch.float16)
    names = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd",
             "transformer.ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
             "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up",
             "mlp.c_proj": "ffn_down"}
    tensors = renamed(model, names, lambda n, d: d.T if ".c_" in n and d.ndim == 2 else d)
    path = gguf_file("gpt2-f16.gguf", "gpt2", model, tensors, "F16",
                     dict(feed_forward_length=256, layer_norm_eps=config.layer_norm_epsilon))
    reference(model, path[: -len(".gguf")] + ".npz", 256)


def gguf_bert():
    """The converter drops RoBERTa's first positions; names are BERT's."""
    import gguf
    config = transformers.XLMRobertaConfig(**small(type_vocab_size=1, pad_token_id=1,
                                                   max_position_embeddings=66))
    model = build("XLMRobertaModel", config)
    randomise(model, 9, torch.float16)
    names = {"embeddings.word_embeddings": "token_embd",
             "embeddings.position_embeddings": "position_embd",
             "embeddings.token_type_embeddings": "token_types",
             "embeddings.LayerNorm": "token_embd_norm", "attention.self.query": "attn_q",
             "attention.self.key": "attn_k", "attention.self.value": "attn_v",
             "attention.output.dense": "attn_output",
             "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up",
             "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
             "pooler.dense": "pooler"}
    tensors = renamed(model, names, lambda n, d: d[2:] if n.endswith("position_embeddings") else d)
    del tensors["pooler.weight"], tensors["pooler.bias"]
    config.max_position_embeddings = 64
    path = gguf_file("bert-f16.gguf", "bert", model, tensors, "F16",
                     dict(feed_forward_length=96, layer_norm_eps=config.layer_norm_eps,
                          pooling_type=gguf.PoolingType.MEAN, causal_attention=False,
                          token_type_count=1))
    config.max_position_embeddings = 66
    encoder_reference("bert-f16", model, config, 1)


ALL = dict(rope=rope, gguf_bert=gguf_bert, gguf_llama=gguf_llama, gguf_q8=gguf_q8, gguf_gemma3=gguf_gemma3,
           gguf_mixtral=gguf_mixtral, gguf_phi3=gguf_phi3, gguf_gpt2=gguf_gpt2, llama=llama, llama_biases=llama_biases, mistral=mistral, qwen2=qwen2, qwen3=qwen3,
           gemma=gemma, gemma2=gemma2, gemma3=gemma3, phi3=phi3, gpt2=gpt2, starcoder2=starcoder2,
           mixtral=mixtral,
           qwen3moe=qwen3moe, bert=bert, bert_classes=bert_classes, roberta=roberta,
           roberta_classes=roberta_classes)

if __name__ == "__main__":
    for wanted in sys.argv[1:] or ALL:
        ALL[wanted]()
