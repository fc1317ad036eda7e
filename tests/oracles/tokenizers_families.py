"""The tokenizers that tests/oracles/tokenizers.py makes: one for each way in which published models tokenize, trained with the
`tokenizers` library (sentencepiece's character maps come from its own trainer) on tokenizers_text.corpus()."""
import base64
import io
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizers_text

CL100K = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
QWEN2 = CL100K.replace("{1,3}", "")
TIKTOKEN = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
O200K = "|".join([
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
KIMI = "|".join([
    r"""[\p{Han}]+""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]
DEEPSEEK_CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+"]
CLIP = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""

CORPUS = tokenizers_text.corpus()


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def edit(tok, **model):
    """The tokenizer with fields of its model changed, read back from JSON."""
    j = json.loads(tok.to_str())
    j["model"].update(model)
    return Tokenizer.from_str(json.dumps(j))


def byte_bpe(steps, size, special=("<|begin|>", "<|end|>"), normalizer=None, **model):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                                        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return edit(tok, **model) if model else tok


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})


def template(tok, single, pair):
    names = {w.split(":")[0] for w in (single + " " + pair).split() if not w.startswith("$")}
    tok.post_processor = processors.TemplateProcessing(single, pair, [(n, tok.token_to_id(n)) for n in sorted(names)])


def gpt2(size):
    tok = byte_bpe([byte_level()], size, ["<|endoftext|>"])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def roberta(size):
    tok = byte_bpe([pre_tokenizers.ByteLevel(add_prefix_space=True)], size, ["<s>", "<pad>", "</s>", "<unk>"])
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tok


def llama3(size):
    tok = byte_bpe([split(CL100K), byte_level(use_regex=False)], size, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], ignore_merges=True)
    template(tok, "<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1")
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), tok.post_processor])
    return tok


def qwen2(size):
    tok = byte_bpe([split(QWEN2), byte_level(use_regex=False)], size, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())
    tok.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("Æther", normalized=True)])
    return tok


def tiktoken(size):
    return byte_bpe([split(TIKTOKEN), byte_level(use_regex=False)], size)


def o200k(size):
    return byte_bpe([split(O200K), byte_level(use_regex=False)], size)


def kimi(size):
    return byte_bpe([split(KIMI), byte_level(use_regex=False)], size)


def deepseek(size):
    return byte_bpe([*(split(p) for p in DEEPSEEK), byte_level(use_regex=False)], size)


def deepseek_coder(size):
    return byte_bpe([*(split(p) for p in DEEPSEEK_CODER), pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=False)], size)


def starcoder(size):
    return byte_bpe([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)], size)


def sp_bpe(size, byte_tokens=True, special=("<unk>", "<s>", "</s>"), **model):
    """BPE as sentencepiece files become, trained on words with their blank in front."""
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    names = list(special) + ([f"<0x{b:02X}>" for b in range(256)] if byte_tokens else [])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=names, limit_alphabet=160))
    j = json.loads(tok.to_str())
    j["added_tokens"] = [t for t in j["added_tokens"] if t["content"] in special]
    j["pre_tokenizer"] = None
    j["model"].update({"byte_fallback": byte_tokens, "fuse_unk": True, **model})
    return Tokenizer.from_str(json.dumps(j))


def llama2_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def llama2(size):
    tok = sp_bpe(size)
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = llama2_decoder()
    template(tok, "<s> $A", "<s> $A <s>:1 $B:1")
    return tok


def mistral(size):
    tok = sp_bpe(size)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = llama2_decoder()
    template(tok, "<s> $A </s>", "<s> $A </s> $B:1 </s>:1")
    return tok


def gemma(size):
    tok = sp_bpe(size, special=("<pad>", "<eos>", "<bos>", "<unk>"))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.add_tokens([AddedToken("▁" * n, normalized=False) for n in range(2, 12)] + [AddedToken("\n\n", normalized=False), AddedToken("<table>", normalized=False)])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    template(tok, "<bos> $A", "<bos> $A <bos>:1 $B:1")
    return tok


def sp_unknown(size):
    tok = sp_bpe(size, byte_tokens=False, fuse_unk=False)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    return tok


def sp_fused(size):
    tok = sp_bpe(size, byte_tokens=False)
    tok.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()])
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    return tok


def clip(size):
    tok = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([split(CLIP, "removed", True), byte_level()])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>",
                                                        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), add_prefix_space=False)
    return tok


def bpe_suffix(size):
    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>"], end_of_word_suffix="</w>", limit_alphabet=100))
    tok.decoder = decoders.BPEDecoder()
    return tok


def bpe_prefix(size):
    tok = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>"], continuing_subword_prefix="##", limit_alphabet=100))
    tok.decoder = decoders.WordPiece(cleanup=False)
    return tok


def wordpiece(size, normalizer):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=size, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], limit_alphabet=300))
    tok.decoder = decoders.WordPiece()
    return tok


def bert_uncased(size):
    tok = wordpiece(size, normalizers.BertNormalizer(lowercase=True))
    template(tok, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tok


def bert_cased(size):
    tok = wordpiece(size, normalizers.BertNormalizer(lowercase=False, strip_accents=False))
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tok.add_tokens([AddedToken("ing", single_word=True), AddedToken("new", lstrip=True, rstrip=True)])
    return tok


def charsmap(full):
    """A sentencepiece character map: nmt_nfkc, or a small one of the same shape for what is kept."""
    import sentencepiece
    out = io.BytesIO()
    options = {"normalization_rule_name": "nmt_nfkc"}
    if not full:
        rules = [("\u0065\u0301", "\u00e9"), ("\ufb01", "fi"), ("\ufb03", "ffi"), ("\t", " "), ("\n", " "), ("\r", " "), ("\u00a0", " "), ("\u3000", " "), ("\u200b", " "),
                 ("\u2028", " "), ("\u00ad", ""), ("\u0007", ""), ("\u2460", "1"), ("\u2075", "5"), ("\u338f", "kg"), ("\uff41", "a"), ("\uff11", "1"), ("\u1100\u1161", "\uac00"),
                 ("\u0061\u0308", "\u00e4"), ("\uff76\uff9e", "\u30ac"), ("\uff76", "\u30ab"), ("\u2026", "..."), ("\u00bd", "1/2"), ("\U0001f1eb", "F")]
        with open("/tmp/rules.tsv", "w", encoding="utf-8") as f:
            for a, b in rules:
                f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
        options = {"normalization_rule_tsv": "/tmp/rules.tsv"}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS[:2000]), model_writer=out, model_type="char", vocab_size=4000, hard_vocab_limit=False, minloglevel=2, **options)
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto()
    m.ParseFromString(out.getvalue())
    return base64.b64encode(m.normalizer_spec.precompiled_charsmap).decode()


MAPS = {}


def precompiled(full):
    if full not in MAPS:
        MAPS[full] = charsmap(full)
    return {"type": "Precompiled", "precompiled_charsmap": MAPS[full]}


def unigram(size, normalizer, pre, special, unknown="<unk>", **model):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=size, show_progress=False, special_tokens=list(special), unk_token=unknown))
    j = json.loads(tok.to_str())
    j["normalizer"], j["pre_tokenizer"] = normalizer, pre
    j["model"].update(model)
    return Tokenizer.from_str(json.dumps(j))


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def t5(size, full=True):
    tok = unigram(size, precompiled(full), {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}, ["<pad>", "</s>", "<unk>"])
    tok.decoder = decoders.Metaspace()
    template(tok, "$A </s>", "$A </s> $B </s>")
    return tok


def xlmr(size, full=True):
    tok = unigram(size, {"type": "Sequence", "normalizers": [precompiled(full), {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
                  {**METASPACE, "prepend_scheme": "first"}, ["<s>", "<pad>", "</s>", "<unk>"])
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    template(tok, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    return tok


def albert(size, full=True):
    steps = [{"type": "Replace", "pattern": {"String": "``"}, "content": "\""}, {"type": "Replace", "pattern": {"String": "''"}, "content": "\""}, {"type": "NFKD"}, {"type": "StripAccents"},
             {"type": "Lowercase"}, precompiled(full)]
    tok = unigram(size, {"type": "Sequence", "normalizers": steps}, METASPACE, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    tok.decoder = decoders.Metaspace()
    template(tok, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tok


def unigram_bytes(size):
    tok = unigram(size, None, METASPACE, ["<unk>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], byte_fallback=True)
    j = json.loads(tok.to_str())
    j["added_tokens"] = j["added_tokens"][:2]
    tok = Tokenizer.from_str(json.dumps(j))
    tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tok


def word_level(size):
    tok = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation("isolated")])
    tok.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>"]))
    return tok


def odd_splits(size):
    """Behaviours that published tokenizers seldom use."""
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.CharDelimiterSplit("|"), pre_tokenizers.Split("of", "merged_with_next"), split(r"\d", "merged_with_previous"), split(r"[a-z]+", "contiguous", True),
        pre_tokenizers.Punctuation("merged_with_next"), split(r"[\s,]+", "contiguous"), pre_tokenizers.Metaspace("_", "first")])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>"], limit_alphabet=200))
    tok.decoder = decoders.Sequence([decoders.Replace(Regex("[._]"), " "), decoders.Strip("e", 1, 0), decoders.Fuse(), decoders.Replace("th", "TH"), decoders.Strip("a", 2, 0)])
    return tok


BYTE_LEVEL = [gpt2, roberta, llama3, qwen2, tiktoken, o200k, kimi, deepseek, deepseek_coder, starcoder, clip]
SENTENCEPIECE = [llama2, mistral, gemma, sp_unknown, sp_fused]
OTHER = [bpe_suffix, bpe_prefix, bert_uncased, bert_cased, t5, xlmr, albert, unigram_bytes, word_level, odd_splits]
FAMILIES = {f.__name__: f for f in BYTE_LEVEL + SENTENCEPIECE + OTHER}
HAVE_MAPS = (t5, xlmr, albert)


def make(name, size, full):
    f = FAMILIES[name]
    return f(size, full) if f in HAVE_MAPS else f(size)
