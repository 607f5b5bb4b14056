"""The texts on which two encoders must agree before the faster one is trusted.

They are picked for what splits encoders in practice: white space of every kind, contractions, digits of many scripts,
combining marks, joined emoji, control characters, long runs, and the text of special tokens; then seeded random
mixtures of all of them. About 60 kB: the reference encoder needs some 20 ms for them.
"""

from __future__ import annotations

import random
from functools import cache

from llm_training.tokenizer.byte_alphabet import SEPARATOR

_FRAGMENTS = (
    *("hello", "World", "don't", "I'LL", "we've", "it's", "'s", "'ſ", "naïve", "Straße", "ﬁne", "İstanbul", "ǅ"),
    *("0", "7", "42", "1234567", "3.14", "1e-5", "٣٤", "१२", "Ⅷ", "½", "²"),
    *(
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\v\f",
        "\x1c",
        "\x85",
        "\xa0",
        "\u2003",
        "\u2028",
        "\u3000",
        "\u200b",
        " \n ",
        "\n    ",
    ),
    *("!", "?!", "...", "—", "“q”", "()", "{}", "[0]", "->", "==", "!=", "//", "/*", "*/", "#", "@", "$", "_", "__init__", "snake_case"),
    *(
        "é",
        "e\u0301",
        "a\u0308\u0323",
        "한국어",
        "\u1112\u1161\u11ab",
        "日本語",
        "中文",
        "ไทย",
        "עברית",
        "العربية",
        "हिन्दी",
        "Ελλάς",
        "русский",
    ),
    *("👩\u200d👩\u200d👧", "🏳️\u200d🌈", "🇺🇳", "🙂", "\U0001f9d1\U0001f3fd", "𝔘𝔫𝔦", "𐍈", "\U0001e900"),
    *("\x00", "\x07", "\x1b[31m", "\x7f", "\ufeff", "\ufffd", "\u202e", "\ue000", "\U0010ffff"),
    *(SEPARATOR, "<|endoftext", "|>", "<|im_start|>", "<s>", "</s>", "[MASK]", "<unk>", "@-@"),
    *(
        "def f(x):\n    return x\n",
        "    if a:\n\tb\n",
        "for(i=0;i<n;++i){",
        "https://example.org/a?b=c&d",
        "x" * 300,
        " " * 130,
        "ab" * 90,
        "=" * 70,
    ),
)
_NUM_MIXTURES = 400


@cache
def probe_texts() -> tuple[str, ...]:
    """The probe set, always the same."""
    generator = random.Random(20_240_229)  # noqa: S311 - a fixed mixture, not a secret
    mixtures = ["".join(generator.choices(_FRAGMENTS, k=generator.randint(2, 24))) for _ in range(_NUM_MIXTURES)]
    neighbours = [f"a{chr(point)}b {chr(point)}1{chr(point)}" for point in range(0x20, 0x2500, 7)]
    return ("", *_FRAGMENTS, *mixtures, *neighbours)
