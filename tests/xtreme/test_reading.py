"""XTREME's files as examples: what its scripts write is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rembert.common.errors import DataError
from rembert.tasks.definitions.question_answering import QuestionAnswering
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.xtreme.reading import read_pairs, read_questions, read_tags, write_training_examples


def test_quotes_of_the_csv_writer_are_undone(tmp_path: Path) -> None:
    path = tmp_path / "test-en.tsv"
    path.write_text('"""Nine"" he said."\tIt "was" nine.\r\n\tOnly one.\r\n', newline="")
    first, second = read_pairs(path, "en")
    assert (first.text, first.text_pair, first.label) == ('"Nine" he said.', 'It "was" nine.', None)
    assert (second.text, second.text_pair) == ("", "Only one.")  # each line needs a prediction
    path.write_text("one\ttwo\tthree\tfour\n")
    with pytest.raises(DataError, match=r"test-en.tsv:1: two sentences and a label were expected. Received: 4"):
        list(read_pairs(path, "en"))


def test_every_blank_line_ends_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "test-en.tsv"
    path.write_text("#\nport\n\n\nGraz\n")
    assert [example.words for example in read_tags(path, "en")] == [("#", "port"), (), ("Graz",)]
    path.write_text("Port\tB-LOC\n\tO\nGraz\tI-LOC\n")  # the second word was a space
    [example] = read_tags(path, "en")
    assert (example.words, example.tags) == (("Port", "Graz"), ("B-LOC", "I-LOC"))
    path.write_text("Port\tB-LOC\n\nGraz\nsleeps\tO\n")
    with pytest.raises(DataError, match=r"test-en.tsv:3: a word, or a word and a tag, were expected"):
        list(read_tags(path, "en"))


def test_removed_answers_are_no_labels(tmp_path: Path) -> None:
    def squad(*answers: dict[str, object]) -> str:
        question = {"id": 7, "question": "When?", "answers": list(answers)}
        return json.dumps({"data": [{"paragraphs": [{"context": "At nine.", "qas": [question]}]}]})

    path = tmp_path / "xquad.en.json"
    path.write_text(squad({"text": "", "answer_start": 0}))
    [example] = read_questions(path, "en")
    assert (example.id, example.answers) == ("7", None)
    assert write_training_examples(QuestionAnswering, path, tmp_path / "train.jsonl") == 1
    path.write_text(squad({"text": "nine", "answer_start": 3}))
    assert write_training_examples(QuestionAnswering, path, tmp_path / "train.jsonl") == 0
    [row] = map(json.loads, (tmp_path / "train.jsonl").read_text().splitlines())
    assert row == {"question": "When?", "context": "At nine.", "answers": [{"text": "nine", "answer_start": 3}]}


def test_training_pairs_need_both_texts_and_a_label(tmp_path: Path) -> None:
    path = tmp_path / "train-en.tsv"
    path.write_text("One.\tTwo.\t1\nOne.\t\t1\nOne.\tTwo.\n")
    assert write_training_examples(SequenceClassification, path, tmp_path / "train.jsonl") == 2
    assert json.loads((tmp_path / "train.jsonl").read_text()) == {"text": "One.", "text_pair": "Two.", "label": "1"}
