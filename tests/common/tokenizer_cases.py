"""What the tokenizer tests share: the fixture model, text to try, small models made on the fly."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import sentencepiece

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tokenizer"
# 32,000 tokens, NMT-NFKC, trained on text in 500 languages; <pad> 0, </s> 1, <unk> 2, [CLS] 3, [SEP] 4, [MASK] 5.
MODEL = FIXTURES / "sentencepiece.model"

TRICKY = [
    "",
    " ",
    "     ",
    "\t\n \u3000",
    "a  b   c",
    " lead and trail ",
    "½ … ´x ﬁne ﬃ ﷺ Å",
    "Ａ１ ｶﾞ ㍿ ①",
    "e\u0301 o\u0308\u0323 \u0301x",
    "a\x00b\x01c\x7f",
    "a\u200bb \u200b c\u00ad d\ufeff",
    "x▁y ▁▁ z▁",
    "``quoted'' text",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈 🇩🇪 🙂🙂",
    "सभी मनुष्यों को गौरव",
    "বলিয়া য়েন ঘোষণা",
    "กำเนิด ทั้งปวง",
    "각 각",
    "人人生而自由,在尊严和权利上一律平等。",
    "الإعلان العالمي لحقوق الإنسان",
    "\U0001d400\U0001d401 \U00020000 \U000e0001 \U0010ffff",
    "supercalifragilistic " * 30,
]


@cache
def processor() -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself, with the fixture model: the truth these tests compare with."""
    return sentencepiece.SentencePieceProcessor(model_file=str(MODEL))


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Random Unicode of all planes, without surrogates; half of it from scripts that the normaliser changes."""
    rng = random.Random(seed)
    busy = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x900, 0xDFF), (0x1100, 0x11FF), (0x2000, 0x206F),
            (0x2100, 0x218F), (0x3000, 0x30FF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE70, 0xFFEF),
            (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF)]  # fmt: skip

    def character() -> str:
        if rng.random() < 0.15:
            return rng.choice(" \u3000▁\t")
        if rng.random() < 0.5:
            return chr(rng.randint(*rng.choice(busy)))
        code = rng.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(character() for _ in range(rng.randrange(1, 24))) for _ in range(count)]


def train(model_type: str = "unigram", lines: Sequence[str] = (), **options: object) -> bytes:
    """A small SentencePiece model of the given lines, or of a few sentences."""
    words = "the of and a to in is you that it he was for on are as with his they be at one have this from"
    rng = random.Random(1)
    lines = lines or [" ".join(rng.choices(words.split(), k=8)) for _ in range(300)]
    target = io.BytesIO()
    settings: dict[str, object] = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=target, model_type=model_type, **settings
    )
    return target.getvalue()
