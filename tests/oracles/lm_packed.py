#!/usr/bin/env python3
"""Tiny checkpoints whose linear weights other libraries have packed, and what PyTorch makes of
the same numbers: the rows "packed-*" of tests/worker/test_lm_logits.c.

    lm_packed.py LIBRARIES [NAME ...]

LIBRARIES: a folder with gptq/ (auto_gptq 0.7.1's wheel, unpacked), awq/ (autoawq 0.2.9) and ct/
(compressed-tensors 0.20.0), which do the packing; nothing else of them is used. Weights are rounded
to the nearest step with a scale a group, and the reference computes in fp32 with what they then are.
Weights of block types meet activations rounded to int8 (kernels/language.h), in the reference too.
"""
import importlib.util
import json
import os
import sys
import types

sys.path.pop(0)  # this folder, where files are named as packages are
import torch
import transformers
from safetensors.torch import save_file

here = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location("lm_checkpoints", os.path.join(here, "lm_checkpoints.py"))
base = importlib.util.module_from_spec(spec)
sys.path.insert(0, here)  # it takes it away again
spec.loader.exec_module(base)
GROUP = 32
BLOCK = 128


def load(file, name):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(w, bits, symmetric):
    """Scales and zero points [groups, outputs], fp16 scales; and what w becomes."""
    n, k = w.shape
    g = w.reshape(n, k // GROUP, GROUP)
    top = 2**bits - 1
    if symmetric:
        scale = (g.abs().amax(-1) / (top / 2)).half().float()
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = g.amin(-1).clamp(max=0), g.amax(-1).clamp(min=0)
        scale = ((high - low) / top).half().float()
        zero = torch.round(-low / scale).clamp(1, top)
    q = torch.clamp(torch.round(g / scale[..., None]) + zero[..., None], 0, top)
    made = ((q - zero[..., None]) * scale[..., None]).reshape(n, k)
    return scale, zero, q.reshape(n, k), made


def gptq(linear, bits, symmetric, libraries):
    module = load(os.path.join(libraries, "gptq/auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py"), "gptq_linear")
    scale, zero, _, made = steps(linear.weight.data, bits, symmetric)
    linear.weight.data = made
    out = types.SimpleNamespace(bits=bits, group_size=GROUP, infeatures=made.shape[1], outfeatures=made.shape[0])
    module.QuantLinear.pack(out, linear, scale.clone(), zero.clone(), None)
    g_idx = torch.arange(made.shape[1], dtype=torch.int32) // GROUP
    return {"qweight": out.qweight, "qzeros": out.qzeros, "scales": out.scales.half(), "g_idx": g_idx.to(torch.int32)}


def awq(linear, bits, symmetric, libraries):
    sys.path.insert(0, os.path.join(libraries, "awq"))
    stub = types.ModuleType("awq.utils.utils")
    stub.get_best_device = lambda: "cpu"
    packing = types.ModuleType("awq.utils.packing_utils")
    packing.dequantize_gemm = None
    module_utils = types.ModuleType("awq.utils.module")
    module_utils.try_import = lambda name: (None, "")
    for name, m in (("awq", types.ModuleType("awq")), ("awq.utils", types.ModuleType("awq.utils")),
                    ("awq.utils.utils", stub), ("awq.utils.packing_utils", packing), ("awq.utils.module", module_utils)):
        sys.modules.setdefault(name, m)
    module = load(os.path.join(libraries, "awq/awq/modules/linear/gemm.py"), "awq_linear")
    scale, zero, _, made = steps(linear.weight.data, bits, symmetric)
    linear.weight.data = made
    out = module.WQLinear_GEMM.from_linear(linear, bits, GROUP, scales=scale.t().contiguous(), zeros=zero.t().contiguous())
    return {"qweight": out.qweight, "qzeros": out.qzeros, "scales": out.scales}


def ints(linear, bits, symmetric, libraries):
    helpers = load(os.path.join(libraries, "ct/compressed_tensors/compressors/pack_quantized/helpers.py"), "ct_helpers")
    scale, zero, q, made = steps(linear.weight.data, bits, True)
    linear.weight.data = made
    packed = helpers.pack_to_int32((q - 2 ** (bits - 1)).to(torch.int8), bits)
    return {"weight_packed": packed, "weight_scale": scale.half(), "weight_shape": torch.tensor(made.shape)}


def fp8(linear, block, channel, libraries):
    w = linear.weight.data
    n, k = w.shape
    if block:
        rows, columns = -(-n // BLOCK), -(-k // BLOCK)
        scale = torch.empty(rows, columns)
        for r in range(rows):
            for c in range(columns):
                part = w[r * BLOCK:(r + 1) * BLOCK, c * BLOCK:(c + 1) * BLOCK]
                scale[r, c] = part.abs().max() / 448
        name, shaped = "weight_scale_inv", scale
        scale = scale.repeat_interleave(BLOCK, 0)[:n].repeat_interleave(BLOCK, 1)[:, :k]
    elif channel:
        scale = (w.abs().amax(1, keepdim=True) / 448).float()
        name, shaped = "weight_scale", scale
    else:
        scale = (w.abs().max() / 448).float()
        name, shaped = "weight_scale", scale
    q = (w / scale).to(torch.float8_e4m3fn)
    linear.weight.data = q.float() * scale
    if block and k % BLOCK != 0:  # as kept: model/architectures/packed.h
        linear.weight.data = linear.weight.data.to(torch.bfloat16).float()
    return {"weight": q, name: shaped}


CASES = {
    "packed-gptq": (gptq, 4, False, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False}),
    "packed-gptq-8": (gptq, 8, True, {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "desc_act": False, "sym": True}),
    "packed-gptq-sym": (gptq, 4, True, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "packed-awq": (awq, 4, False, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}),
    "packed-ints": (ints, 4, True, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": GROUP, "symmetric": True, "type": "int",
                                                      "strategy": "group"}}}, "ignore": ["lm_head"]}),
    "packed-fp8": (fp8, False, True, {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"]}),
    "packed-fp8-tensor": (fp8, False, False, {"quant_method": "fp8", "activation_scheme": "dynamic"}),
    "packed-fp8-block": (fp8, True, False, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "packed-fp8-128": (fp8, True, False, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "packed-fp8-experts": (fp8, True, False, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
}

# whose K are whole blocks, and more than one where ranks share a sum
SIZES = {"packed-fp8-128": {"hidden_size": 128, "head_dim": 64, "intermediate_size": 256}}
# of weights with which no activation lies so near the middle between two steps that fp32 decides
SEEDS = {"packed-gptq-8": 12}


def experts(module, prefix, pack, one, two, libraries):
    """Each expert's three matrices, which transformers 5 keeps in two tensors."""
    joint, down, tensors = module.gate_up_proj, module.down_proj, {}
    half = joint.shape[1] // 2
    for e in range(joint.shape[0]):
        for name, of in (("gate_proj", joint.data[e, :half]), ("up_proj", joint.data[e, half:]), ("down_proj", down.data[e])):
            linear = types.SimpleNamespace(weight=types.SimpleNamespace(data=of.clone()))
            for suffix, t in pack(linear, one, two, libraries).items():
                tensors[f"{prefix}.{e}.{name}.{suffix}"] = t.contiguous()
            of.copy_(linear.weight.data)
    return tensors


def configuration(name):
    sizes = base.common(tie_word_embeddings=False, vocab_size=160)
    if name == "packed-fp8-experts":
        sizes.update(hidden_size=128, head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=128,
                     norm_topk_prob=True, decoder_sparse_step=1)
        return "Qwen3MoeForCausalLM", transformers.Qwen3MoeConfig(**sizes, rope_theta=10000.0)
    sizes.update(SIZES.get(name, {}))
    return "LlamaForCausalLM", transformers.LlamaConfig(**sizes, rope_theta=10000.0)


def main():
    libraries = sys.argv[1]
    for name in sys.argv[2:] or CASES:
        pack, one, two, settings = CASES[name]
        family, config = configuration(name)
        model = base.build(family, config)
        base.randomise(model, SEEDS.get(name, 11), torch.float16)
        tensors, packed = {}, set()
        for n, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and n != "lm_head":
                for suffix, t in pack(module, one, two, libraries).items():
                    tensors[f"{n}.{suffix}"] = t.contiguous()
                packed.add(n + ".weight")
            elif n.endswith(".experts"):
                tensors.update(experts(module, n, pack, one, two, libraries))
                packed.update((n + ".gate_up_proj", n + ".down_proj"))
        for n, p in model.named_parameters():
            if n not in packed:
                tensors[n] = p.data.half().contiguous()
        folder = os.path.join(base.ROOT, name)
        os.makedirs(folder, exist_ok=True)
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
        c = base.old_style(config.to_dict())
        keep = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "vocab_size", "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
                "model_type", "hidden_act", "tie_word_embeddings", "head_dim", "rope_theta", "num_experts",
                "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers")
        c = dict({k: c[k] for k in keep if k in c}, architectures=[family], torch_dtype="float16",
                 quantization_config=settings)
        base.write_json(os.path.join(folder, "config.json"), c)
        if pack is not fp8:
            for n, module in model.named_modules():
                if n + ".weight" in packed:
                    module.register_forward_pre_hook(base.round_activations)
        base.reference(model, os.path.join(folder, "reference.npz"), 160, 1e-3 if pack is fp8 else 4e-2)


main()
