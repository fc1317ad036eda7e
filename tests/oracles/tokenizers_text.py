"""Text for tests/oracles/tokenizers.py: what tokenizers are trained on, and strings to try them with. Deterministic."""
import random
import unicodedata

OLD_ONLY = True

SENTENCES = """The quick brown fox jumps over the lazy dog, doesn't it?
In 1969, Neil Armstrong said: "That's one small step for [a] man, one giant leap for mankind."
We've got 3 apples, 14 oranges and 1,592 bananas; they'll cost $65.35 (or €60) at 9:30 tomorrow.
I'm sure you're right, but he'd rather not: she'll see what they've done to John's house.
def main(argc, argv):\n    for i in range(0, 10):\n        print(f"{i:>4} -> {i**2}")\n    return None
int main(void)\n{\n\tprintf("hello, world\\n");\n\treturn 0; /* done */\n}
SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name ORDER BY 2 DESC;
https://example.com/path/to/page.html?query=1&other=two#anchor user@example.org
Straße, Übermut, naïve café, façade, coöperate, señor, Ångström, smörgåsbord, crème brûlée.
Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.
Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń. Đặng thị hồng, tiếng Việt.
Съешь ещё этих мягких французских булок, да выпей чаю. Привет, мир!
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Γειά σου Κόσμε, ΟΔΥΣΣΕΥΣ.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق
דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם
नमस्ते दुनिया, ऋषियों को सताने वाले दुष्ट राक्षसों का नाश। মানুষ বাংলা
我能吞下玻璃而不伤身体。今天天气很好，我们去公园散步吧！漢字繁體中文。
いろはにほへと ちりぬるを、わかよたれそ つねならむ。カタカナとﾊﾝｶｸ、東京タワー。
다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 세계! 한국어 문장입니다.
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า สวัสดีชาวโลก ภาษาไทย
ქართული ენა, Հայերեն լեզու, አማርኛ, ᠮᠣᠩᠭᠣᠯ, தமிழ் மொழி, ಕನ್ನಡ, മലയാളം
😀 🙂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ❤️ ☃ ✈️ 1️⃣ ∑∫√∞≠≈ →←↑↓ ♠♣♥♦ ½ ¾ ² ³ ™ © ® № ℃ Ⅷ ①②③
""".splitlines()
SENTENCES = [s.replace("\\n", "\n").replace("\\t", "\t") for s in SENTENCES]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "éèêëàâäôöûüçñßæœøåÉÈÀÖÜ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюяАБВЁё", "αβγδεζηθικλμνξοπρστυφχψωςΑΒΣάέή", "אבגדהוזחטיכלמנסעפצקרשתםןףץ", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "कखगघचछजझटठडढतथदधनपफबभमयरलवशषसहािीुूेैोौं्", "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生",
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめも", "アイウエオカキクケコサシスセソタチツテトナニヌネノガギグゲゴー",
    "가나다라마바사아자차카타파하각난닫랄맘밥삿앙", "กขคงจฉชซญฎฏฐณดตถทธนบปผพฟภมยรลวศสหอะาิีุูเแโใไ่้",
    "ⅠⅡⅢⅣⅷ①②③½¾²³٠١٢٣४५६", "😀🙂👍🏽👩‍👧🏳️🌈🇫🇷❤️☃✈1️⃣", "\u0301\u0300\u0308\u0327\u0323\u0345\u05b4\u093c\u20dd", "ﬁﬂﬀﬃ㎏㍿ｆｕｌｌ１２３ªº℃Å",
]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "“”‘’«»…—–、。，！？；：「」（）·¡¿§¶"
BLANKS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u200b", "\u200d", "\u0085", "\u2003", "\v", "\u180e", "\u202f"]
CONTROLS = [chr(c) for c in list(range(0, 32)) + [127, 128, 0x8f, 0x9f, 0xad, 0x200e, 0x2060, 0xfeff, 0xfffd, 0xfff9, 0xe000, 0x10fffd, 0xffff, 0x1d173]]
WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have from which she they would there been
 their one who will more when no if out so what up said about other into than its time only could new them man some these then two first
 may any like now my such make over our even most me state after also made many did must before back see through way where get much go well
 your know should down work year because come people just say each those take day good how long little use hand high last great own government
 tokenization unbelievable internationalization antidisestablishmentarianism running houses quickly happiness""".split()


def corpus():
    """Some 200 KB in many scripts."""
    rng = random.Random(1)
    lines = list(SENTENCES) * 20
    for _ in range(3000):
        lines.append(" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 14))) + rng.choice([".", "!", "?", ", etc.", "'s", ""]))
    for alphabet in ALPHABETS:
        words = ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6))) for _ in range(40)]
        for _ in range(60):
            lines.append(" ".join(rng.choice(words) for _ in range(rng.randint(2, 8))))
    rng.shuffle(lines)
    return lines


def word(rng):
    kind = rng.random()
    if kind < 0.35:
        w = rng.choice(WORDS)
        return rng.choice([w, w, w.title(), w.upper(), w + rng.choice(["'s", "n't", "'LL", "'ve", "’s", "ing", "'ſ", "'d"])])
    if kind < 0.75:
        a = rng.choice(ALPHABETS)
        return "".join(rng.choice(a) for _ in range(rng.randint(1, 9)))
    if kind < 0.85:
        return "".join(rng.choice(PUNCTUATION) for _ in range(rng.randint(1, 5)))
    if kind < 0.92:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 12)))
    if kind < 0.95:
        return rng.choice(WORDS[:20]) * rng.randint(2, 30)
    if kind < 0.97:
        return rng.choice(CONTROLS)
    return "".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randint(2, 6)))


def character(rng):
    """Any, of those that have been in Unicode for long: libraries agree on them."""
    while True:
        c = chr(rng.choice([rng.randint(0x20, 0x2fff), rng.randint(0x3000, 0xd7ff), rng.randint(0xf900, 0xffff), rng.randint(0x10000, 0x1fbff)]))
        if not OLD_ONLY or unicodedata.ucd_3_2_0.category(c) != "Cn":
            return c


def one(rng, special):
    """One string of bytes."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(["", " ", "\n", "a", " a", "a ", "  ", "\u0301", "\u0301a", "▁", "▁a", "▁▁ a", "Ġ", "##a", "\0", "\x00a", "<0x0A>", "</w>", "a</w>"]).encode()
    if kind < 0.10:
        return (rng.choice("ab \n\t.-=_0é中▁\u00a0\u0301\U0001F600") * rng.randint(1, 120)).encode()
    if kind < 0.20:
        s = rng.choice(SENTENCES)
        a = rng.randint(0, len(s))
        return s[a:a + rng.randint(1, 80)].encode()
    if kind < 0.26:
        b = bytearray(rng.choice(SENTENCES).encode())
        for _ in range(rng.randint(1, 6)):
            b[rng.randrange(len(b))] = rng.randrange(256)
        a = rng.randint(0, len(b))
        return bytes(b[a:a + rng.randint(1, 60)])
    if kind < 0.29:
        return bytes(rng.randrange(256) for _ in range(rng.randint(1, 24)))
    if kind < 0.32:
        return "".join(character(rng) for _ in range(rng.randint(1, 10))).encode()
    parts = []
    for _ in range(rng.randint(1, 9)):
        parts.append(word(rng))
        if rng.random() < 0.8:
            parts.append(rng.choice(BLANKS))
        if special and rng.random() < 0.08:
            parts.append(rng.choice(special))
        if rng.random() < 0.1:
            parts.append(rng.choice(PUNCTUATION) * rng.randint(1, 3))
    if rng.random() < 0.2:
        parts.insert(0, rng.choice(BLANKS))
    return "".join(parts).encode()


def strings(count, seed, special):
    rng = random.Random(seed)
    return [one(rng, special) for _ in range(count)]


def english(megabytes):
    """Plain English, for timing."""
    rng = random.Random(3)
    out, size = [], 0
    while size < megabytes * 1e6:
        s = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 20))).capitalize() + rng.choice([". ", ".\n", ", "])
        out.append(s)
        size += len(s)
    return "".join(out)
