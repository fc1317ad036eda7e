"""Sentencepiece's own models (tokenizer.model) for tests/oracles/tokenizers.py: trained and encoded by the sentencepiece library.
Decoding is that of the `tokenizers` library for such models, and must agree with sentencepiece's where no unknown token is in it."""
import io
import os

import sentencepiece
from tokenizers import decoders

import tokenizers_text

FAMILIES = {
    "spm_bpe": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "character_coverage": 0.98},
    "spm_bpe_unknown": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc", "character_coverage": 0.98},
    "spm_gemma": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False, "split_digits": True,
                  "allow_whitespace_only_pieces": True, "character_coverage": 0.98, "user_defined_symbols": ["\n", "\n\n", "▁▁", "▁▁▁", "<div>", "ing"]},
    "spm_unigram": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "character_coverage": 0.98, "pad_id": 3},
    "spm_unigram_bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "character_coverage": 0.98, "user_defined_symbols": ["<div>"]},
}
# nmt_nfkc's map is 240 KB: what is kept has a small one
RULES = "/tmp/trireme-rules.tsv"


def train(name, size, full):
    out = io.BytesIO()
    options = dict(FAMILIES[name])
    if not full and options["normalization_rule_name"] == "nmt_nfkc":
        with open(RULES, "w", encoding="utf-8") as f:
            for a, b in [("\ufb01", "fi"), ("\t", " "), ("\n", " "), ("\r", " "), ("\u00a0", " "), ("\u3000", " "), ("\u00ad", ""), ("e\u0301", "\u00e9"), ("\uff41", "a"), ("\u2026", "..."), ("\u2460", "1")]:
                f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
        del options["normalization_rule_name"]
        options["normalization_rule_tsv"] = RULES
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(tokenizers_text.corpus()), model_writer=out, vocab_size=size, hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
    return out.getvalue()


def rows(name, model, count, seed):
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    bpe, dummy = FAMILIES[name]["model_type"] == "bpe", FAMILIES[name].get("add_dummy_prefix", True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + ([decoders.Strip(" ", 1, 0)] if dummy else [])
    decoder = decoders.Sequence(steps)
    out = []
    for b in tokenizers_text.strings(count, seed, FAMILIES[name].get("user_defined_symbols", [])):
        text = b.decode("utf-8", errors="replace")
        plain = sp.encode(text)
        ids = [sp.bos_id(), *plain] if bpe else [*plain, sp.eos_id()]
        pieces = [sp.id_to_piece(i) for i in ids]
        kept = [p for i, p in zip(ids, pieces) if not sp.is_control(i) and not sp.is_unknown(i)]
        decoded, skipped = decoder.decode(pieces), decoder.decode(kept)
        if sp.unk_id() not in plain and "\ufffd" not in skipped and (dummy or not skipped.startswith(" ")):
            assert skipped == sp.decode(plain), (text, skipped, sp.decode(plain))
        out.append((b.hex(), [",".join(map(str, v)) or "-" for v in (plain, ids)] + [t.encode().hex() or "-" for t in (decoded, skipped)]))
    return out


def generate(data, write_cases):
    for name in FAMILIES:
        model = train(name, 1000, False)
        with open(os.path.join(data, name + ".model"), "wb") as f:
            f.write(model)
        write_cases(name, rows(name, model, 32, 23))


def check(program, tmp, count, only, compare):
    bad = 0
    for name in FAMILIES:
        if only in (None, name):
            model = train(name, 2000, True)
            path = os.path.join(tmp, name + ".model")
            with open(path, "wb") as f:
                f.write(model)
            bad += compare(program, path, rows(name, model, count, 101), name)
    return bad
