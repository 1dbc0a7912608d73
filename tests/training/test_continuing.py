"""Training from the result of another run: what is kept of its head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rembert import RemBertConfig
from rembert.tasks import finetune
from rembert.training.initial_model import fresh_names, kept_labels
from tests.frameworks import Framework, needs_pt, on_both_tf_slow
from tests.training.runs import weights, write_examples, write_start

NOTHING_MISSING: dict[str, list[str]] = {"missing_keys": [], "mismatched_keys": []}
CLASSIFIER = ["classifier.weight", "classifier.bias"]


def _checkpoint(path: Path, architecture: str | None, names: list[str] | None, **settings: object) -> Path:
    path.mkdir()
    labels = {} if names is None else {"id2label": dict(enumerate(names))}
    config = RemBertConfig(**labels, **settings)  # type: ignore[arg-type]
    if architecture is not None:
        config.architectures = [architecture]
    config.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("architecture", "names", "head", "labels", "fresh"),
    [
        ("RemBertForSequenceClassification", ["a", "b"], "sequence-classification", ["a", "b"], []),
        ("TFRemBertForSequenceClassification", None, "sequence-classification", ["a", "b"], []),  # without names
        (None, ["x", "y"], "sequence-classification", ["x", "y"], []),
        ("RemBertForSequenceClassification", ["a", "b"], "sequence-classification", ["b", "a"], CLASSIFIER),
        ("RemBertForSequenceClassification", ["a", "b"], "sequence-classification", ["x", "y"], CLASSIFIER),
        ("RemBertForSequenceClassification", ["a", "b"], "token-classification", ["a", "b"], CLASSIFIER),
        ("RemBertForSequenceClassification", ["a"], "multiple-choice", None, CLASSIFIER),
        ("RemBertForMaskedLM", None, "question-answering", None, []),
    ],
)
def test_a_classifier_is_kept_for_the_same_classes_of_the_same_head(
    architecture: str | None, names: list[str] | None, head: str, labels: list[str] | None, fresh: list[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    source = _checkpoint(tmp_path / "a", architecture, names)
    overrides = {} if labels is None else {"id2label": dict(enumerate(labels))}
    assert fresh_names(NOTHING_MISSING, str(source), head, overrides) == fresh


def test_a_regression_is_no_classification(tmp_path: Path) -> None:
    architecture = "RemBertForSequenceClassification"
    source = _checkpoint(tmp_path / "a", architecture, ["a", "b"], problem_type="regression")
    overrides = {"problem_type": "single_label_classification", "id2label": {0: "a", 1: "b"}}
    assert fresh_names(NOTHING_MISSING, str(source), "sequence-classification", overrides) == CLASSIFIER


def test_labels_of_another_head_and_numbered_ones_are_not_kept(tmp_path: Path) -> None:
    architecture = "RemBertForSequenceClassification"
    config = RemBertConfig.from_pretrained(_checkpoint(tmp_path / "a", architecture, ["b", "a"]))
    assert kept_labels(config, "sequence-classification") == ["b", "a"]
    assert kept_labels(config, "token-classification") == []
    unnamed = RemBertConfig.from_pretrained(_checkpoint(tmp_path / "b", architecture, None))
    assert kept_labels(unnamed, "sequence-classification") == []


@on_both_tf_slow
def test_a_finished_run_is_trained_on(framework: Framework, tmp_path: Path) -> None:
    start, train = write_start(tmp_path / "start"), write_examples(tmp_path / "train.jsonl", 6)
    task, quick = "sequence-classification", {"max_steps": 1, "batch_size": 6, "framework": framework.name}
    labels = {"label_names": ["sky", "food", "road"]}
    finetune(task, start, train, output=tmp_path / "first", from_scratch=True, options=labels, **quick)
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    fewer = [row for row in rows if row["label"] != "road"]
    finetune(task, tmp_path / "first", fewer, output=tmp_path / "second", learning_rate=1e-12, **quick)
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["sky", "food", "road"], "the classes of the first run, in its order"
    for name, values in weights(tmp_path / "first").items():
        np.testing.assert_allclose(weights(tmp_path / "second")[name], values, atol=1e-9, err_msg=name)


@needs_pt
def test_other_classes_get_a_new_classifier(tmp_path: Path) -> None:
    start, train = write_start(tmp_path / "start"), write_examples(tmp_path / "train.jsonl", 6)
    quick = {"max_steps": 1, "batch_size": 6}
    finetune("sequence-classification", start, train, output=tmp_path / "first", from_scratch=True, **quick)
    said: list[str] = []
    rows = [{"text": text, "label": label} for text, label in (("The bus", "x"), ("rain", "y"), ("soup", "z"))]
    finetune("sequence-classification", tmp_path / "first", rows, output=tmp_path / "new", say=said.append, **quick)
    assert "fresh weights: classifier.weight, classifier.bias" in said
    words = [{"tokens": ["The", "bus"], "tags": ["food", "sky"]}, {"tokens": ["rain"], "tags": ["road"]}]
    finetune("token-classification", tmp_path / "first", words, output=tmp_path / "tags", say=said.append, **quick)
    assert said.count("fresh weights: classifier.weight, classifier.bias") == 2
