#!/usr/bin/python3
"""Writes model/tokenizer/unicode_tables.h: which characters the `tokenizers` library takes for what. Its parts carry Unicode tables of
different ages (8 to 17), and the ids depend on them, so they are read out of the library itself, character by character. Regular
expressions are PCRE2's, of Unicode 14 in PCRE2 10.42: for them only what is newer is listed, against this Python's unicodedata, which
must be of Unicode 14 too (Python 3.11). The committed file was made with tokenizers 0.23.3."""
import os
import sys
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path = [p for p in sys.path if os.path.abspath(p or ".") != HERE]
from tokenizers import Regex, normalizers, pre_tokenizers  # noqa: E402

CHARS = [c for c in range(0x80, 0x110000) if not 0xd800 <= c < 0xe000]
CATEGORIES = ["L", "Lu", "Ll", "Lm", "Lo", "M", "Mn", "Mc", "N", "Nd", "No", "P", "Po", "S", "So"]
# compatibility decompositions that came with Unicode 15 and 16, which the library does not know either
LATER = list(range(0x1e030, 0x1e06e)) + [0xa7f1] + list(range(0x1ccd6, 0x1ccfa))


def ranges(chars):
    out = []
    for c in chars:
        if out and out[-1][1] == c - 1 or out and out[-1][1] == 0xd7ff and c == 0xe000:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def parts(pre, c):
    return len(pre.pre_tokenize_str("a" + chr(c) + "b"))


def table(f, name, chars, what):
    f.write(f"/* {what} */\nstatic const trmi_range {name}[] = {{\n")
    rows = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(chars)]
    for i in range(0, len(rows), 4):
        f.write("    " + " ".join(rows[i:i + 4]) + "\n")
    f.write("};\n")


def newer(pattern, known):
    cut = pre_tokenizers.Split(Regex(pattern), "removed")
    return [c for c in CHARS if not known(c) and not cut.pre_tokenize_str(chr(c))]


def pattern_table(f, name, chars):
    rows, line = [], ""
    for a, b in ranges(chars):
        item = f"\\\\x{{{a:X}}}" + ("" if a == b else f"-\\\\x{{{b:X}}}")
        if len(line) + len(item) > 84:
            rows.append(line)
            line = ""
        line += item
    rows.append(line)
    f.write(f"#define NEWER_{name} \\\n" + " \\\n".join(f'    "{r}"' for r in rows) + "\n")


def main():
    assert unicodedata.unidata_version == "14.0.0"
    punctuation, whitespace, digits = pre_tokenizers.Punctuation(), pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)
    bert = {"handle_chinese_chars": False, "lowercase": False}
    clean = normalizers.BertNormalizer(clean_text=True, strip_accents=False, **bert)
    accents = normalizers.BertNormalizer(clean_text=False, strip_accents=True, **bert)
    strip, lower, nfkd, nfd = normalizers.StripAccents(), normalizers.Lowercase(), normalizers.NFKD(), normalizers.NFD()
    with open(os.path.join(HERE, "..", "..", "model", "tokenizer", "unicode_tables.h"), "w", encoding="ascii") as f:
        f.write("/* Made by tests/oracles/tokenizers_unicode.py: characters from U+0080 on as the `tokenizers` library\n"
                " * classes them. text.c, normalize_unicode.c and regex_translate.c say how they are used. */\n"
                "#ifndef TRM_MODEL_TOKENIZER_UNICODE_TABLES_H\n#define TRM_MODEL_TOKENIZER_UNICODE_TABLES_H\n\n"
                "#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n"
                "/* clang-format off */\n#ifdef TRMI_UNICODE_CLASSES\n"
                "typedef struct trmi_range {\n    uint32_t first, last;\n} trmi_range;\n")
        table(f, "punctuation_ranges", [c for c in CHARS if parts(punctuation, c) > 1], "Punctuation, BertPreTokenizer")
        table(f, "word_ranges", [c for c in CHARS if parts(whitespace, c) == 1], "\\\\w of Whitespace and of single_word".replace("\\\\", "\\"))
        table(f, "number_ranges", [c for c in CHARS if parts(digits, c) > 1], "Digits")
        table(f, "other_ranges", [c for c in CHARS if c != 0xfffd and clean.normalize_str(chr(c)) == ""], "what BertNormalizer's clean_text removes, less U+FFFD")
        table(f, "nonspacing_ranges", [c for c in CHARS if len(nfd.normalize_str(chr(c))) == 1 and accents.normalize_str(chr(c)) == ""], "what BertNormalizer's strip_accents removes")
        table(f, "mark_ranges", [c for c in CHARS if strip.normalize_str(chr(c)) == ""], "what StripAccents removes; others have combining class 0")
        table(f, "whole_ranges", sorted(set(LATER) | {c for c in CHARS if nfkd.normalize_str(chr(c)) == chr(c) != unicodedata.normalize("NFKD", chr(c))}),
              "what the library does not decompose and Unicode does")
        f.write("/* lower case that is newer than Unicode 14: first, last, what is added */\n"
                "static const struct {\n    uint32_t first, last;\n    int32_t add;\n} lower_ranges[] = {\n")
        rows = []
        for c in CHARS:
            low = lower.normalize_str(chr(c))
            if low != chr(c).lower():
                add = ord(low) - c
                if rows and rows[-1][1] == c - 1 and rows[-1][2] == add:
                    rows[-1][1] = c
                else:
                    rows.append([c, c, add])
        for a, b, add in rows:
            f.write(f"    {{0x{a:X}, 0x{b:X}, {add}}},\n")
        f.write("};\n#endif\n\n#ifdef TRMI_UNICODE_PATTERNS\n/* insides of classes: what Oniguruma knows and Unicode 14 does not */\n")
        for k in CATEGORIES:
            pattern_table(f, k, newer(f"\\p{{{k}}}", lambda c, k=k: unicodedata.category(chr(c)).startswith(k)))
        han = newer("\\p{Han}", lambda c: unicodedata.category(chr(c)) != "Cn")
        pattern_table(f, "HAN", han)
        # Alphabetic is not in unicodedata: what is unassigned there
        pattern_table(f, "ALPHABETIC", newer("[[:alpha:]]", lambda c: unicodedata.category(chr(c)) != "Cn"))
        pattern_table(f, "WORD", newer("\\w", lambda c: unicodedata.category(chr(c)) != "Cn"))
        f.write("#endif\n/* clang-format on */\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n")


if __name__ == "__main__":
    main()
