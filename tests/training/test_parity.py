"""PyTorch and TensorFlow train alike: the same losses at each step, and the same weights at the end."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.common.parameters import HEADS
from rembert.training.micro_batches import label_count, split_batch
from rembert.training.recipe import Recipe
from rembert.training.schedule import learning_rate
from tests.frameworks import Arrays, needs_pt, needs_tf, small_config

TASKS = [head for head in HEADS if head != "model"]
QUICK = ("sequence-classification", "token-classification")  # the others in the slow part
either_tf_slow = pytest.mark.parametrize(
    "framework", [pytest.param("pt", marks=needs_pt), pytest.param("tf", marks=[needs_tf, pytest.mark.slow])]
)
RATE = 3e-3


def batches(head: str, count: int, problem_type: str | None = None) -> list[Arrays]:
    """Batches of five rows of several lengths, with the labels of the head."""
    numbers = np.random.default_rng(1)
    found = []
    for _ in range(count):
        rows, length = 5, int(numbers.integers(6, 13))
        ids = numbers.integers(3, 61, (rows, length))
        mask = (np.arange(length) < numbers.integers(3, length + 1, (rows, 1))).astype(np.int64)
        batch: Arrays = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        if head in ("masked-lm", "causal-lm"):
            batch["labels"] = np.where(numbers.random(ids.shape) < 0.5, ids, -100)
        elif head == "token-classification":
            batch["labels"] = np.where(numbers.random(ids.shape) < 0.7, numbers.integers(0, 5, ids.shape), -100)
        elif head == "question-answering":
            batch["start_positions"], batch["end_positions"] = numbers.integers(0, 3, (2, rows))
        elif head == "multiple-choice":
            batch = {name: np.stack([array, np.roll(array, 1, 0)], 1) for name, array in batch.items()}
            batch["labels"] = numbers.integers(0, 2, rows)
        elif problem_type == "multi_label_classification":
            batch["labels"] = numbers.integers(0, 2, (rows, 5)).astype(np.float32)
        elif problem_type == "regression":
            batch["labels"] = numbers.standard_normal((rows, 5)).astype(np.float32)
        else:
            batch["labels"] = numbers.integers(0, 5, rows)
        found.append(batch)
    return found


def trainer(framework: str, head: str, start: Path, recipe: Recipe, **overrides: Any) -> Any:
    module = import_module(f"rembert.training.{framework}_trainer")
    return module.Trainer(head, start, recipe, {"is_decoder": head == "causal-lm", **overrides}, from_scratch=True)


def curve(trained: Any, data: list[Arrays], recipe: Recipe) -> np.ndarray:
    """Loss and gradient norm of one update for each batch."""
    count = partial(label_count, trained.head, problem_type=trained.config.problem_type)
    found = []
    for step, batch in enumerate(data):
        micro_batches = split_batch(batch, recipe.accumulation_steps, count)
        found.append(trained.train_step(micro_batches, learning_rate(recipe, step, len(data)), step))
    return np.array([[float(loss), float(norm)] for loss, norm in found])


def curves(framework: str, head: str, source: Path, recipes: list[Recipe], data: list[Arrays]) -> list[np.ndarray]:
    """The curve of each recipe from the same weights; the recipes have one graph, which TensorFlow traces once."""
    if framework == "pt":
        return [curve(trainer(framework, head, source, recipe), data, recipe) for recipe in recipes]
    trained, found = trainer(framework, head, source, recipes[0]), []
    trained.save(source / "first")
    moments = {name: source.read() for name, source in trained.state().items()}
    for recipe in recipes:
        trained.load(source / "first", moments, 0)
        trained.recipe = recipe
        found.append(curve(trained, data, recipe))
    return found


def weights(trained: Any, directory: Path) -> Arrays:
    from safetensors.numpy import load_file

    trained.save(directory)
    return load_file(directory / "model.safetensors")


def start(directory: Path, **changes: Any) -> Path:
    small_config(**{"initializer_range": 0.1, "num_hidden_layers": 1, **changes}).save_pretrained(directory)
    return directory


@needs_pt
@needs_tf
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float64", 1e-9), pytest.param("float32", 1e-3, marks=pytest.mark.slow)],  # the promise is 1e-6; it gives 1e-13
)
def test_loss_curves_agree_over_a_hundred_updates(tmp_path: Path, precision: str, tolerance: float) -> None:
    recipe = Recipe(learning_rate=1e-2, precision=precision, weight_decay=0.1)
    data = batches("sequence-classification", 10) * 10
    source = start(tmp_path, num_hidden_layers=2)
    pt, tf = (curve(trainer(name, "sequence-classification", source, recipe), data, recipe) for name in ("pt", "tf"))
    assert np.abs(tf[:, 0] / pt[:, 0] - 1).max() < tolerance
    assert np.ptp(pt[:, 0]) > 0.5  # training changes the loss, so equal curves mean something


@needs_pt
@needs_tf
@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[] if head in QUICK else pytest.mark.slow) for head in TASKS]
)
def test_every_head_trains_alike(tmp_path: Path, head: str) -> None:
    recipe = Recipe(
        learning_rate=RATE, precision="float64", layer_decay=0.8, label_smoothing=0.1, max_grad_norm=0.5, dropout=0.0
    )
    source, data = start(tmp_path / "start"), batches(head, 8)
    pt, tf = (trainer(name, head, source, recipe) for name in ("pt", "tf"))
    first, second = curve(pt, data, recipe), curve(tf, data, recipe)
    np.testing.assert_allclose(second, first, rtol=1e-9)
    assert first[:, 1].max() > 0.5  # some gradients are clipped
    one, other = weights(pt, tmp_path / "pt"), weights(tf, tmp_path / "tf")
    assert one.keys() == other.keys()
    for name in one:
        # The gradient of a key's bias is only rounding, which Adam magnifies to steps of either sign.
        if not name.endswith("self.key.bias"):
            np.testing.assert_allclose(other[name], one[name], atol=1e-9, err_msg=name)


@pytest.mark.slow
@needs_pt
@needs_tf
@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_other_problems_of_sequence_classification_train_alike(tmp_path: Path, problem_type: str) -> None:
    smoothing = 0.1 if problem_type == "multi_label_classification" else 0.0
    recipe = Recipe(learning_rate=RATE, precision="float64", label_smoothing=smoothing, freeze_embeddings=True)
    source, data = start(tmp_path), batches("sequence-classification", 6, problem_type)
    curves = [
        curve(trainer(name, "sequence-classification", source, recipe, problem_type=problem_type), data, recipe)
        for name in ("pt", "tf")
    ]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9)


@either_tf_slow
@pytest.mark.parametrize("head", ["token-classification", "question-answering", "causal-lm"])
def test_micro_batches_give_the_result_of_the_batch(tmp_path: Path, framework: str, head: str) -> None:
    recipes = [
        Recipe(learning_rate=RATE, precision="float64", accumulation_steps=parts, batch_size=5) for parts in (1, 2, 5)
    ]
    whole, halves, rows = curves(framework, head, start(tmp_path), recipes, batches(head, 4))
    np.testing.assert_allclose(halves, whole, rtol=1e-9)
    np.testing.assert_allclose(rows, whole, rtol=1e-9)


@pytest.mark.parametrize("framework", [pytest.param("pt", marks=needs_pt), pytest.param("tf", marks=needs_tf)])
def test_frozen_embeddings_stay(tmp_path: Path, framework: str) -> None:
    source, data = start(tmp_path / "start"), batches("token-classification", 3)
    recipe = Recipe(learning_rate=RATE, freeze_embeddings=True)
    trained = trainer(framework, "token-classification", source, recipe)
    before = weights(trained, tmp_path / "before")
    curve(trained, data, recipe)
    after = weights(trained, tmp_path / "after")
    for name in before:
        # A key's bias may stay where it is: its gradient is zero but for rounding.
        if not name.endswith("key.bias"):
            assert np.array_equal(before[name], after[name]) == name.startswith("rembert.embeddings."), name


@either_tf_slow
def test_bfloat16_keeps_weights_in_float32_and_trains_nearly_alike(tmp_path: Path, framework: str) -> None:
    source, data = start(tmp_path / "start"), batches("token-classification", 5)
    curves = {}
    for precision in ("float32", "bfloat16"):
        recipe = Recipe(learning_rate=1e-4, precision=precision)
        trained = trainer(framework, "token-classification", source, recipe)
        curves[precision] = curve(trained, data, recipe)[:, 0]
    assert {array.dtype for array in weights(trained, tmp_path / "saved").values()} == {np.dtype(np.float32)}
    difference = np.abs(curves["bfloat16"] / curves["float32"] - 1).max()
    assert 1e-6 < difference < 2e-2  # bfloat16 has 8 bits: 4e-3 for each number


@either_tf_slow
def test_dropout_is_the_same_for_the_same_seed_and_step(tmp_path: Path, framework: str) -> None:
    recipes = [Recipe(learning_rate=RATE, dropout=0.3, seed=seed) for seed in (0, 0, 1)]
    data = batches("sequence-classification", 3)
    first, again, other = curves(framework, "sequence-classification", start(tmp_path), recipes, data)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(other, first)


@either_tf_slow
def test_gradient_checkpointing_changes_no_number(tmp_path: Path, framework: str) -> None:
    source, data = start(tmp_path), batches("token-classification", 3)
    curves = []
    for again in (False, True):
        recipe = Recipe(learning_rate=RATE, precision="float64", gradient_checkpointing=again)
        curves.append(curve(trainer(framework, "token-classification", source, recipe), data, recipe))
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-12)
