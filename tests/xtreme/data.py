"""A small copy of the layout that XTREME's `download_data.sh` leaves, with labels; the texts were written for it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rembert.xtreme.benchmark import BENCHMARK

# Each test example in these languages: enough for a mean and a transfer gap.
LANGUAGES = ("de", "en", "fr", "ru", "zh", "ar", "sw")
_PAIRS = (
    ("The ferry leaves at nine.", 'The "ferry" goes at nine.', "1"),
    ("The bread is warm.", "The wind is cold.", "0"),
    ("", "The rain falls.", "0"),
    ("The train is late.", "The train comes late.", "1"),
)
_SENTENCES = (
    (("Anna", "sees", "the", "ferry", "."), ("PROPN", "VERB", "DET", "NOUN", "PUNCT"), ("B-PER", "O", "O", "O", "O")),
    (("#", "Port", "Graz", "sleeps"), ("SYM", "PROPN", "PROPN", "VERB"), ("O", "B-LOC", "I-LOC", "O")),
    (("Rain", "and", "wind"), ("NOUN", "CCONJ", "NOUN"), ("O", "O", "O")),
)
_CONTEXT = "The lighthouse on Fern Island was lit in 1871. Its keeper, Ada Moss, wrote down every ship that passed."
_QUESTIONS = (("Who kept the lighthouse?", "Ada Moss"), ("When was it lit?", "1871"))


def write_benchmark(root: Path) -> tuple[Path, Path]:
    """Files of every task; returns the data and the labels of the test data."""
    data, labels = root / "download", root / "labels"
    for task in ("pawsx", "xnli"):
        _write_pairs(data, labels, task)
    for number, task in enumerate(("udpos", "panx")):
        _write_tags(data, labels, task, number)
    _write_questions(data, labels)
    _write_retrieval(data, labels)
    return data, labels


def _languages(task: str) -> list[str]:
    return [code for code in BENCHMARK[task].languages if code in LANGUAGES]


def _write_pairs(data: Path, labels: Path, task: str) -> None:
    names = {"0": "0", "1": "1"} if task == "pawsx" else {"0": "contradiction", "1": "entailment"}
    rows = [(one, two, names[label]) for one, two, label in _PAIRS]
    _write_rows(data / task / "train-en.tsv", rows * 2)
    _write_rows(data / task / "dev-en.tsv", rows)
    for code in _languages(task):
        shown = [(f"{one} {code}" if one else "", two) for one, two, _ in rows]
        _write_rows(data / task / f"test-{code}.tsv", shown)
        _write(labels / task / f"test-{code}.tsv", "".join(f"{label}\n" for *_, label in rows))


def _write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows(rows)  # as XTREME writes them, quotes included


def _write_tags(data: Path, labels: Path, task: str, number: int) -> None:
    both = [list(zip(each[0], each[1 + number], strict=True)) for each in _SENTENCES]
    tagged = "\n".join("".join(f"{word}\t{tag}\n" for word, tag in rows) for rows in both)
    for split in ("train", "dev"):
        _write(data / task / f"{split}-en.tsv", "\tO\n" * number + tagged)  # PAN-X has words without a character
    for code in _languages(task):
        words = "\n".join("".join(f"{word}\n" for word, _ in rows) for rows in both)
        _write(data / task / f"test-{code}.tsv", words)
        _write(labels / task / f"test-{code}.tsv", "\n".join("".join(f"{tag}\n" for _, tag in rows) for rows in both))


def _write_questions(data: Path, labels: Path) -> None:
    def squad(prefix: str, labelled: bool = True) -> dict[str, Any]:
        questions = [
            {
                "id": f"{prefix}-{number}" if prefix else "same",
                "question": question,
                "answers": [
                    {"text": answer, "answer_start": _CONTEXT.index(answer)}
                    if labelled
                    else {"text": "", "answer_start": 0}
                ],
            }
            for number, (question, answer) in enumerate(_QUESTIONS)
        ]
        return {"version": "1.1", "data": [{"paragraphs": [{"context": _CONTEXT, "qas": questions}]}]}

    _write_json(data / "squad" / "train-v1.1.json", squad("train"))
    _write_json(data / "squad" / "dev-v1.1.json", squad("dev"))
    # XTREME shortens the ids of this file's questions until they repeat.
    _write_json(data / "tydiqa" / "tydiqa-goldp-v1.1-train" / "tydiqa.goldp.en.train.json", squad(""))
    places = {
        "xquad": "xquad/xquad.{0}.json",
        "mlqa": "mlqa/MLQA_V1/test/test-context-{0}-question-{0}.json",
        "tydiqa": "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{0}.dev.json",
    }
    for task, place in places.items():
        for code in _languages(task):
            _write_json(data / place.format(code), squad(code, labelled=False))
            _write_json(labels / task / f"test-{code}.json", squad(code))


def _write_retrieval(data: Path, labels: Path) -> None:
    """Sentences beside the same ones with a word more: a model without training finds most of them."""
    plain = [one for one, *_ in _PAIRS if one] + [two for _, two, _ in _PAIRS] + [_CONTEXT[:45], _CONTEXT[46:]]
    for code in _languages("tatoeba"):
        english = sorted(plain)
        _write(data / "tatoeba" / f"{code}-en.{code}", "".join(f"{text} {code}\n" for text in plain))
        _write(data / "tatoeba" / f"{code}-en.en", "".join(f"{text}\n" for text in english))
        _write(labels / "tatoeba" / f"test-{code}.tsv", "".join(f"{plain.index(text)}\n" for text in english))
    for code in _languages("bucc2018"):
        for split, shown in (("dev", plain[:5]), ("test", plain[3:])):
            rows = list(enumerate(shown))
            gold = "".join(f"{code}-{at}\ten-{at}\n" for at, _ in rows[1:])
            sides = {
                code: "".join(f"{code}-{at}\t{text} {code}\n" for at, text in rows),
                "en": "".join(f"en-{at}\t{text}\n" for at, text in rows[1:]),
            }
            for side, text in {**sides, **({"gold": gold} if split == "dev" else {})}.items():
                _write(data / "bucc2018" / f"{code}-en.{split}.{side}", text)
        _write(labels / "bucc2018" / f"test-{code}.tsv", gold)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, ensure_ascii=False))
