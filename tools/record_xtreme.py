"""Record what XTREME's `evaluate.py` says of random predictions, for `tests/xtreme/test_scoring.py`.

The evaluator needs seqeval, which has no wheel, and gives other scores of parts of speech with versions from 1.0 on.
Run this once with each of the two versions, in virtual environments of their own, on a clone of
google-research/xtreme:

    python -m venv environment
    environment/bin/python -m pip install numpy scikit-learn
    environment/bin/python -m pip install --use-pep517 --no-deps seqeval==0.0.12    # then 1.2.2
    environment/bin/python tools/record_xtreme.py CLONE tests/fixtures/xtreme

It writes `examples.json`, the same for both, and `scores-VERSION.json`.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

SEED = 29
# fmt: off
POS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
    "SYM", "VERB", "X", "_",
)
NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
# fmt: on
LABELS = {"pawsx": ("0", "1"), "xnli": ("contradiction", "entailment", "neutral")}
# Words with articles, punctuation and characters that the rules of MLQA's languages treat differently.
WORDS = {
    "ar": ["العبّارة", "،", "تغادر", "؟", "الثامنة", "«", "الميناء", "»", "في"],
    "bn": ["ফেরি", "।", "নয়টায়", "ছাড়ে", "ঘাট"],
    "de": ["die", "Fähre,", "das", "»Boot«", "fährt", "um", "acht.", "Ein", "Hafen"],
    "el": ["το", "πλοίο", "φεύγει", "·", "στις", "εννέα"],
    "en": ["the", "ferry,", "a", "pier!", "Leaves", "at", "The", "nine.", "an", "9:00"],
    "es": ["el", "barco,", "una", "¿hora?", "sale", "a", "las", "nueve.", "Los", "muelles"],
    "fi": ["lautta", "lähtee", "yhdeksältä,", "laituri"],
    "hi": ["नाव", "नौ", "बजे", "।", "जाती", "है", "घाट"],
    "id": ["kapal", "itu", "berangkat,", "pukul", "sembilan"],
    "ko": ["배는", "아홉시에", "떠난다.", "부두"],
    "ru": ["паром", "уходит", "в", "девять,", "«пристань»"],
    "sw": ["feri", "inaondoka", "saa", "tatu,", "gati"],
    "te": ["పడవ", "తొమ్మిది", "గంటలకు,", "రేవు"],
    "th": ["เรือ", "ออก", "เก้าโมง", "ท่าเรือ"],
    "tr": ["vapur", "dokuzda", "kalkar,", "iskele"],
    "vi": ["chiếc", "phà", "của", "cái", "bến", "là", "những", "giờ,", "chín"],
    "zh": ["渡轮", "九点出发。", "码头", "ferry", "9", "、", "在"],
}
LANGUAGES = {
    "pawsx": "de en es fr ja ko zh",
    "xnli": "ar bg de el en es fr hi ru sw th tr ur vi zh",
    "panx": "ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw yo my zh "
    "kk tr et fi hu",
    "udpos": "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh",
    "bucc2018": "de fr ru zh",
    "tatoeba": "ar he vi id jv tl eu ml ta te af nl de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw zh kk tr et "
    "fi hu",
    "xquad": "en es de el ru tr ar vi th zh hi",
    "mlqa": "en es de ar hi vi zh",
    "tydiqa": "en ar bn fi id ko ru sw te",
}


def changed(rng: random.Random, values: Sequence[str], choices: Sequence[str], share: float = 0.3) -> list[str]:
    """The values, about a third of them drawn again, as a model's predictions are."""
    return [rng.choice(choices) if rng.random() < share else value for value in values]


def lines_of(rng: random.Random, task: str, language: str) -> tuple[str, str]:
    """The texts of a file of labels and of one of predictions, both in lines."""
    if task in LABELS:
        names = list(LABELS[task])
        wanted = rng.choices(names, k=9)
        return _lines(wanted), _lines(changed(rng, wanted, names))
    if task == "tatoeba":
        numbers = [str(number) for number in range(8)]
        wanted = rng.sample(numbers, k=8)
        return _lines(wanted), _lines(changed(rng, wanted, numbers))
    if task == "bucc2018":
        pairs = [f"{language}-{number:09}\ten-{number + 7:09}" for number in range(12)]
        return _lines(rng.sample(pairs, k=8)), _lines(rng.sample(pairs, k=6))
    tags = POS if task == "udpos" else NER
    wanted_rows = [rng.choices(tags, k=rng.randint(1, 9)) for _ in range(4)]
    found_rows = [changed(rng, row, tags) for row in wanted_rows]
    return "\n".join(map(_lines, wanted_rows)), "\n".join(map(_lines, found_rows))


def questions_of(rng: random.Random, language: str) -> tuple[str, str]:
    """The texts of a file of labels and of one of predictions, both in JSON; one question has no prediction."""
    words, separator = WORDS[language], "" if language in ("zh", "th") else " "

    def answer() -> str:
        return separator.join(rng.choices(words, k=rng.randint(1, 4)))

    questions, found = [], {}
    for number in range(6):
        answers = [answer() for _ in range(rng.randint(1, 2))]
        questions.append({"id": f"{language}-{number}", "answers": [{"text": text} for text in answers]})
        if number:
            parts = answers[0].split(" ")
            found[f"{language}-{number}"] = rng.choice(
                [answers[0].upper(), answer(), " ".join(parts[:-1]), "", *answers]
            )
    labels = {"version": "1.1", "data": [{"paragraphs": [{"context": "", "qas": questions}]}]}
    return json.dumps(labels, ensure_ascii=False), json.dumps(found, ensure_ascii=False)


def _lines(values: Sequence[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def main(clone: Path, target: Path) -> None:
    sys.path.insert(0, str(clone))
    from evaluate import evaluate  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")  # seqeval's own, of tags without entities
    rng = random.Random(SEED)
    examples: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        folders = {name: Path(root, name) for name in ("labels", "predictions")}
        for task, codes in LANGUAGES.items():
            for language in codes.split():
                is_qa = task in ("xquad", "mlqa", "tydiqa")
                made = questions_of(rng, language) if is_qa else lines_of(rng, task, language)
                examples.setdefault(task, {})[language] = dict(zip(folders, made, strict=True))
                for folder, text in zip(folders.values(), made, strict=True):
                    path = folder / task / f"test-{language}.{'json' if is_qa else 'tsv'}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
        groups, tasks = evaluate(str(folders["predictions"]), str(folders["labels"]), "xtreme")
    made_by = {"made_by": f"tools/record_xtreme.py, seqeval {version('seqeval')}, seed {SEED}"}
    for name, content in (("examples", examples), (f"scores-{version('seqeval')}", {**made_by, **groups, **tasks})):
        text = json.dumps(content, ensure_ascii=False, indent=0)
        (target / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
