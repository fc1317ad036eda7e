#!/bin/sh
# usage: sparse_model.sh DIR LAYERS HIDDEN HEADS KV_HEADS FEED_FORWARD VOCABULARY [DTYPE [CONTEXT]]. A folder with a Llama of
# that shape: config.json, and model.safetensors with a true header before data that is a hole in the file: 405 billion
# parameters take a few kilobytes. All weights are zero. DTYPE: BF16 (default), F16, F32. For plans, and for timing where
# values do not matter. Shapes: the published configurations of Llama 3.1, e.g. 8B:  32 4096 32 8 14336 128256
set -eu
dir=$1 layers=$2 hidden=$3 heads=$4 kv=$5 ffn=$6 vocabulary=$7 dtype=${8:-BF16} context=${9:-131072}
case $dtype in
BF16) torch=bfloat16 ;;
F16) torch=float16 ;;
F32) torch=float32 ;;
*)
    echo "sparse_model.sh: DTYPE $dtype: want BF16, F16 or F32" >&2
    exit 2
    ;;
esac
mkdir -p "$dir"
cat >"$dir/config.json" <<END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": $hidden,
 "intermediate_size": $ffn, "num_hidden_layers": $layers, "num_attention_heads": $heads, "num_key_value_heads": $kv,
 "head_dim": $((hidden / heads)), "vocab_size": $vocabulary, "max_position_embeddings": $context, "rms_norm_eps": 1e-05,
 "rope_theta": 500000.0, "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false, "bos_token_id": 1,
 "eos_token_id": 2, "torch_dtype": "$torch"}
END
# the header, then how many bytes of data there are; numbers beyond 2^53 do not occur
awk -v layers="$layers" -v hidden="$hidden" -v heads="$heads" -v kv="$kv" -v ffn="$ffn" -v vocabulary="$vocabulary" \
    -v dtype="$dtype" '
function tensor(name, rows, columns,    n) {
    n = (columns > 0 ? rows * columns : rows) * bytes
    printf "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d%s],\"data_offsets\":[%.0f,%.0f]}", comma, name, dtype, rows,
        (columns > 0 ? "," columns : ""), at, at + n
    comma = ","
    at += n
}
BEGIN {
    bytes = dtype == "F32" ? 4 : 2
    head = hidden / heads
    printf "{"
    tensor("model.embed_tokens.weight", vocabulary, hidden)
    for (i = 0; i < layers; i++) {
        p = "model.layers." i "."
        tensor(p "input_layernorm.weight", hidden, 0)
        tensor(p "self_attn.q_proj.weight", hidden, hidden)
        tensor(p "self_attn.k_proj.weight", kv * head, hidden)
        tensor(p "self_attn.v_proj.weight", kv * head, hidden)
        tensor(p "self_attn.o_proj.weight", hidden, hidden)
        tensor(p "post_attention_layernorm.weight", hidden, 0)
        tensor(p "mlp.gate_proj.weight", ffn, hidden)
        tensor(p "mlp.up_proj.weight", ffn, hidden)
        tensor(p "mlp.down_proj.weight", hidden, ffn)
    }
    tensor("model.norm.weight", hidden, 0)
    tensor("lm_head.weight", vocabulary, hidden)
    printf "}\n%.0f", at
}' >"$dir/header.txt"
data=$(tail -n 1 "$dir/header.txt")
header=$(head -n 1 "$dir/header.txt")
n=$(((${#header} + 7) / 8 * 8)) # data begins at a multiple of 8: spaces fill the header
octal() { # the lowest 8 bytes of $1, lowest first
    rest=$1 text=
    for _ in 1 2 3 4 5 6 7 8; do
        text=$text$(printf '\\%03o' $((rest % 256)))
        rest=$((rest / 256))
    done
    printf '%s' "$text"
}
{
    printf "$(octal $n)"
    printf "%-${n}s" "$header"
} >"$dir/model.safetensors"
truncate -s $((8 + n + data)) "$dir/model.safetensors"
rm "$dir/header.txt"
