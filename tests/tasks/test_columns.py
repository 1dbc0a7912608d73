"""Which columns are read as what: pairs of texts, names with another spelling, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rembert.common.errors import DataError
from rembert.tasks import DataOptions, Task, get_task
from rembert.tasks.columns import Columns
from rembert.tasks.data import DataWarning
from tests.tasks.support import TOKENIZER, lines


def task(**data: object) -> Task:
    return get_task("sequence-classification", TOKENIZER(), max_length=64, data=DataOptions(**data))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("question", "sentence"),  # QNLI
        ("premise", "hypo"),  # XGLUE
        ("premise", "hypothesis"),
        ("question", "passage"),  # BoolQ
        ("sentence1", "sentence_2"),
        ("Sentence1", "Sentence2"),
        ("question1", "question2"),  # QQP
        ("text", "text_pair"),
        ("original", "translation"),  # MLQE-PE
        ("reference", "candidate"),
    ],
)
def test_both_texts_of_a_pair_are_read(tmp_path: Path, first: str, second: str) -> None:
    row = {"index": 7, second: "and this", first: "this", "label": "x"}
    [example] = task().read(lines(tmp_path / "a.jsonl", [row]))
    assert (example.text, example.text_pair, example.label, example.id) == ("this", "and this", "x", "7")


def test_the_caller_decides_before_the_usual_names(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"question": "this", "sentence": "that", "label": "x"}])
    [example] = task(columns={"text": "sentence", "text_pair": "question"}).read(path)
    assert (example.text, example.text_pair) == ("that", "this")
    with pytest.warns(DataWarning, match="'sentence' may be text, but is not read; read is text=question"):
        [example] = task(columns={"text": "question", "text_pair": ""}).read(path)
    assert (example.text, example.text_pair) == ("this", None)
    with pytest.raises(DataError, match=r"a column 'other' was expected for the text_pair\. Received: question, sent"):
        list(task(columns={"text_pair": "other"}).read(path))


def test_what_is_read_and_what_is_not_is_said(tmp_path: Path) -> None:
    reader, said = task(), []
    reader.report.say = said.append
    rows = [{"title": "T", "text": "one", "label": label} for label in ("sport", "Sport ", "1", "1.0", "sport")]
    list(reader.read(lines(tmp_path / "a.jsonl", rows)))
    assert said == [
        f"{tmp_path / 'a.jsonl'}: text=text, label=label; not read: title",
        f"warning: {tmp_path / 'a.jsonl'}: 'title' may be text, but is not read; read is text=text, label=label. "
        "`columns` (--text-column, --text-pair-column, --column) decides.",
    ]
    said.clear()
    reader.tell_classes("training", reader.report.classes)
    assert said == [
        "training: 4 classes: 'sport' 2, '1' 1, '1.0' 1, 'Sport ' 1",
        "warning: training: '1' (1) and '1.0' (1) look alike, but are different classes.",
        "warning: training: 'Sport ' (1) and 'sport' (2) look alike, but are different classes.",
    ]


def test_forms_of_unicode_look_alike(tmp_path: Path) -> None:
    reader = task()
    rows = [{"text": "one", "label": label} for label in ("caf\u00e9", "cafe\u0301")]
    list(reader.read(lines(tmp_path / "a.jsonl", rows)))
    with pytest.warns(DataWarning, match="look alike"):
        reader.tell_classes("training", reader.report.classes)


def test_annotators_who_disagree_give_no_label(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "gold_label": label} for label in ("-", "neutral")]
    found = list(task().read(lines(tmp_path / "a.jsonl", rows)))
    assert [example.label for example in found] == [None, "neutral"]


def test_a_column_belongs_to_one_field() -> None:
    columns = Columns({"text": ("text", "body"), "text_pair": ("text_pair", "body")})
    assert columns.of(["body"]) == {"text": "body"}
    assert Columns({"text": ("text",), "label": ("label",)}, ignored=["label"]).of(["text", "label"]) == {
        "text": "text"
    }
