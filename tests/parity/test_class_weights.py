"""Class weights in both frameworks against a weighted cross entropy written out in NumPy, and in the command."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.errors import InputError
from rembert.training.class_weights import balanced_weights
from rembert.training.micro_batches import label_count, split_batch
from tests.frameworks import PT, TF, Framework, needs_pt, needs_tf, on_both, random_weights, small_config
from tests.training.runs import losses as run_losses
from tests.training.runs import write_examples, write_start

WEIGHTS = [0.5, 3.0, 1.25]
LOGITS = np.random.default_rng(0).standard_normal((5, 3))
LABELS = np.array([2, 1, -100, 0, 1])


def weighted(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> float:
    """sum w[y] (1 - ε) cost[y] + ε / classes sum w cost, over the sum of w[y]; cost is -log softmax."""
    total = weight = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label >= 0:
            costs = np.log(np.exp(row).sum()) - row
            total += (1 - smoothing) * WEIGHTS[label] * costs[label] + smoothing * np.mean(WEIGHTS * costs)
            weight += WEIGHTS[label]
    return total / weight


def losses(framework: Framework) -> Any:
    return importlib.import_module(f"rembert.{framework.name}.losses")


@on_both
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_mean_is_weighted(framework: Framework, smoothing: float) -> None:
    tensors = framework.tensor(LOGITS), framework.tensor(LABELS)
    found = losses(framework).sequence_loss(*tensors, "single_label_classification", smoothing, WEIGHTS)
    assert float(framework.array(found)) == pytest.approx(weighted(LOGITS, LABELS, smoothing), rel=1e-12)
    mask = framework.tensor(np.array([[1, 1, 1, 1, 0]]))
    by_token = losses(framework).token_loss(tensors[0][None], tensors[1][None], mask, smoothing, WEIGHTS)
    assert float(framework.array(by_token)) == pytest.approx(weighted(LOGITS[:4], LABELS[:4], smoothing), rel=1e-12)
    nothing = losses(framework).cross_entropy(tensors[0], framework.tensor(LABELS * 0 - 100), class_weights=WEIGHTS)
    assert float(framework.array(nothing)) == 0


@on_both
def test_with_several_classes_each_term_is_weighted(framework: Framework) -> None:
    targets = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    costs = targets * np.log1p(np.exp(-LOGITS)) + (1 - targets) * np.log1p(np.exp(LOGITS))
    tensors = framework.tensor(LOGITS), framework.tensor(targets)
    found = losses(framework).sequence_loss(*tensors, "multi_label_classification", 0.0, WEIGHTS)
    assert float(framework.array(found)) == pytest.approx(float(np.mean(costs * WEIGHTS)), rel=1e-12)


@needs_pt
@needs_tf
def test_gradients_of_a_model_are_those_of_the_weighted_loss() -> None:
    """The bias of the classifier has the gradient w[y] (softmax - one-hot), summed over the rows and divided by the
    sum of w[y]; the frameworks agree in all other gradients."""
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
    made = small_config(num_labels=3, **rates)
    weights = random_weights(made, "sequence-classification")
    labels = np.array([2, 1, 0])
    batch = {"input_ids": np.random.default_rng(1).integers(5, 60, (3, 7)), "labels": labels}
    found = {}
    for framework in (PT, TF):
        model = framework.build(made, "sequence-classification", dtype="float64")
        framework.set_weights(model, weights)
        logits = framework.array(framework.call(model, **batch).logits)
        model.class_weights = WEIGHTS
        mode = {"training": True} if framework is TF else {}
        if framework is PT:
            model.train()
        found[framework.name] = framework.gradients(model, **batch, **mode)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shares = np.array(WEIGHTS)[labels, None]
    expected = (shares * (probabilities - np.eye(3)[labels])).sum(0) / shares.sum()
    np.testing.assert_allclose(found["pt"]["classifier.bias"], expected, rtol=1e-9)
    for name, gradient in found["pt"].items():
        np.testing.assert_allclose(gradient, found["tf"][name], rtol=1e-7, atol=1e-10, err_msg=name)
    with pytest.raises(InputError, match=r"one for each of 3 labels. Received: 2"):
        model.class_weights = [1.0, 2.0]


def test_micro_batches_have_their_share_of_the_weights() -> None:
    batch = {"input_ids": np.zeros((4, 2)), "labels": np.array([0, 1, 1, 2])}
    parts = split_batch(batch, 2, lambda each: label_count("sequence-classification", each, None, WEIGHTS))
    np.testing.assert_allclose([weight for _, weight in parts], [3.5 / 7.75, 4.25 / 7.75])
    # scikit-learn's "balanced": n / (classes * count)
    np.testing.assert_allclose(balanced_weights(np.array([5, 3, 2])), [10 / 15, 10 / 9, 10 / 6])


@pytest.mark.slow
@needs_pt
@needs_tf
def test_both_frameworks_train_alike_with_named_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, train = write_start(tmp_path / "start"), write_examples(tmp_path / "train.jsonl", 10)
    call = ["finetune", "sequence-classification", "--model", str(start), "--from-scratch", "--train", str(train)]
    call += ["--max-steps", "3", "--batch-size", "5", "--log-steps", "1", "--labels", "sky", "road", "food", "sea"]
    for name, more in (
        ("pt", ["--class-weights", "balanced"]),
        ("tf", ["--class-weights", "balanced", "--framework", "tf"]),
        ("parts", ["--class-weights", "balanced", "--accumulation-steps", "2"]),
        ("numbers", ["--class-weights", "1.1111111111111112", "1.1111111111111112", "0.8333333333333334", "1"]),
        ("none", []),
    ):
        assert main([*call, *more, "--output", str(tmp_path / name)]) == 0, name
        if name == "pt":
            assert "class weights: 'sky' 1.111, 'road' 1.111, 'food' 0.8333, 'sea' 1" in capsys.readouterr().err
    for other in ("tf", "parts", "numbers"):
        np.testing.assert_allclose(run_losses(tmp_path / "pt"), run_losses(tmp_path / other), rtol=1e-5)
    assert not np.allclose(run_losses(tmp_path / "pt"), run_losses(tmp_path / "none"), rtol=1e-4)
    saved = json.loads((tmp_path / "pt" / "config.json").read_text())
    assert saved["id2label"] == {"0": "sky", "1": "road", "2": "food", "3": "sea"}
    for wrong, said in (
        (["--class-weights", "1", "2"], "must be 4 numbers, for sky, road, food, sea. Received: 2 numbers"),
        (["--class-weights", "even"], "must be balanced or numbers"),
        (["--labels", "sky", "road"], "the label must be one of the model's: sky, road. Received: 'food'"),
        (["--labels", "sky", "sky"], "a list of names, each once"),
    ):
        assert main([*call, *wrong, "--output", str(tmp_path / "wrong")]) != 0
        assert said in capsys.readouterr().err
    data = ["--data", str(train), "--model", str(tmp_path / "pt")]
    assert main(["predict", "sequence-classification", *data, "--labels", "S", "R", "F", "W"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[0])["scores"]) == set("SRFW")
    assert main(["predict", "sequence-classification", *data, "--labels", "S", "R"]) == 2
    assert "the model's 4 classes. Received: 2, S, R" in capsys.readouterr().err
