"""Sequence classification: labels of three kinds, pairs, truncation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.common.errors import DataError
from rembert.tasks import DataOptions, get_task
from tests.tasks.support import (
    ROWS,
    TOKENIZER,
    config,
    lines,
    opened,
)


def test_single_labels_become_class_ids(tmp_path: Path) -> None:
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS))
    assert task.config_overrides() == {
        "problem_type": "single_label_classification",
        "id2label": {0: "sport", 1: "travel"},
    }
    features = [feature for example in examples for feature in task.features(example)]
    batch = task.collate(features)
    expected = TOKENIZER()([row["text"] for row in ROWS], padding=True, return_tensors="np")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(batch[name], expected[name])
    assert batch["labels"].tolist() == [1, 0, 0]
    outputs = [[{"logits": np.array(row)}] for row in ([2.0, 0.0], [1.0, 0.0], [0.0, 3.0])]
    scores = task.score(examples, outputs)
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert (scores["accuracy_de"], scores["accuracy_sw"], scores["accuracy_mean"]) == (1.0, 0.0, 0.5)
    found = task.decode(examples[0], outputs[0])
    assert (found["label"], found["score"]) == ("sport", pytest.approx(1 / (1 + np.exp(-2))))
    assert sum(found["scores"].values()) == pytest.approx(1)


def test_labels_are_restored_from_a_configuration(tmp_path: Path) -> None:
    task, _ = opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS))
    later = get_task("sequence-classification", TOKENIZER(), max_length=64)
    later.prepare(config=config(**task.config_overrides()))
    assert later.config_overrides() == task.config_overrides()
    other = lines(tmp_path / "b.jsonl", [ROWS[0], {"text": "Regen", "label": "weather"}])
    with pytest.raises(DataError, match=r"b\.jsonl:2: the label must be one of the model's: sport, travel.*'weather'"):
        list(later.read(other))
    lenient = get_task("sequence-classification", TOKENIZER(), max_length=64, data=DataOptions(skip_bad_lines=True))
    lenient.prepare(config=config(**task.config_overrides()))
    assert len(list(lenient.read(other))) == 1
    assert lenient.report.skipped == 1


def test_numeric_names_are_sorted_by_value(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in (10, 2, 2, 1)]
    task, _ = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides()["id2label"] == {0: "1", 1: "2", 2: "10"}


def test_several_labels_become_indicators(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": ["b", "a"]}, {"text": "y", "label": []}, {"text": "z", "label": ["c"]}]
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides()["problem_type"] == "multi_label_classification"
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    assert batch["labels"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert batch["labels"].dtype == np.float32
    outputs = [[{"logits": np.array(row)}] for row in ([1.0, 2.0, -1.0], [-1.0, -1.0, -9.0], [-1.0, -1.0, -1.0])]
    assert task.score(examples, outputs)["accuracy"] == pytest.approx(2 / 3)
    assert task.decode(examples[0], outputs[0])["labels"] == ["a", "b"]
    table = tmp_path / "a.csv"
    table.write_text("text,label\nx,b|a\ny,\nz,c\n")
    split, same = opened("sequence-classification", table, label_separator="|")
    again = split.collate([feature for example in same for feature in split.features(example)])
    np.testing.assert_array_equal(again["labels"], batch["labels"])


def test_fractions_mean_regression(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": 1.5}, {"text": "y", "label": 2}, {"text": "z", "label": 0.25}]
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides() == {"problem_type": "regression", "num_labels": 1}
    assert task.metric == "pearson"
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    assert batch["labels"].tolist() == [1.5, 2.0, 0.25]
    outputs = [[{"logits": np.array([2 * row["label"] + 1])}] for row in rows]  # a line: correlation 1
    scores = task.score(examples, outputs)
    assert (scores["pearson"], scores["spearman"]) == (pytest.approx(1), pytest.approx(1))
    assert task.decode(examples[0], outputs[0]) == {"value": 4.0}


def test_a_name_among_numbers_is_refused_unless_they_are_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,0.5\ny,high\nz,2\n")
    with pytest.raises(
        DataError, match=r"a\.csv:3: the label must be a number, like 0\.5 elsewhere.* Received: 'high'"
    ):
        opened("sequence-classification", path)
    task, _ = opened("sequence-classification", path, problem_type="single_label_classification")
    assert task.labels == ["0.5", "2", "high"]


def test_pairs_are_encoded_together_and_long_texts_are_truncated(tmp_path: Path) -> None:
    long = "eins zwei drei vier fünf " * 40
    rows = [{"premise": "Es regnet.", "hypothesis": "Es ist nass.", "label": "x"}, {"text": long, "label": "y"}]
    path = lines(tmp_path / "a.jsonl", rows)
    task, examples = opened("sequence-classification", path, max_length=20)
    features = [task.features(example)[0] for example in examples]
    pair = TOKENIZER()(rows[0]["premise"], rows[0]["hypothesis"])
    assert features[0]["input_ids"].tolist() == pair["input_ids"]
    assert features[0]["token_type_ids"].tolist() == pair["token_type_ids"]
    assert features[1]["input_ids"].tolist() == TOKENIZER()(long, truncation=True, max_length=20)["input_ids"]
    assert task.report.truncated == 1


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS[1:]))
    with pytest.raises(DataError, match=r"a\.jsonl:2: a label was expected"):
        opened("sequence-classification", lines(tmp_path / "a.jsonl", [ROWS[0], {"text": "x"}]))
