"""Recipes: refused values, schedules of the learning rate, parameter groups, and micro-batches."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from rembert.common.errors import InputError
from rembert.common.parameters import HEADS, Kind, parameters
from rembert.tasks import TASKS, Recipe
from rembert.training.micro_batches import label_count, split_batch
from rembert.training.parameter_groups import parameter_groups
from rembert.training.schedule import learning_rate
from tests.frameworks import small_config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", math.nan),
        ("max_steps", 0),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("learning_rate", 0.0),
        ("learning_rate", "1e-5"),
        ("schedule", "linaer"),
        ("warmup", 1.0),
        ("weight_decay", -0.1),
        ("layer_decay", 0),
        ("layer_decay", 1.1),
        ("max_grad_norm", 0),
        ("label_smoothing", 1),
        ("dropout", -0.1),
        ("precision", "float16"),
        ("seed", -1),
        ("patience", 0),
        ("metric", ""),
        ("freeze_embeddings", 1),
    ],
)
def test_a_value_outside_its_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{name}` must be .* Received: `{name}={value!r}`"):
        Recipe(**{name: value})


def test_numpy_numbers_become_numbers_of_python() -> None:
    recipe = Recipe(batch_size=np.int64(8), learning_rate=np.float32(0.5), seed=np.uint8(3))  # type: ignore[arg-type]
    assert (recipe.batch_size, recipe.learning_rate, recipe.seed) == (8, 0.5, 3)
    assert json.dumps(asdict(recipe))  # as `run.json` holds it


def test_more_parts_than_examples_are_refused() -> None:
    with pytest.raises(InputError, match="accumulation_steps=9"):
        Recipe(batch_size=8, accumulation_steps=9)


def test_every_task_has_defaults() -> None:
    for task in TASKS:
        recipe = Recipe.for_task(task, seed=3)
        assert recipe.seed == 3
        assert 3e-6 <= recipe.learning_rate <= 2e-5  # what is reported to work for the released size
    with pytest.raises(InputError, match="`task` must be one of"):
        Recipe.for_task("summarization")
    with pytest.raises(InputError, match="learnin_rate"):
        Recipe.for_task("masked-lm", learnin_rate=1)


@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_linear_schedule_is_that_of_transformers(total: int, warmup: float) -> None:
    torch = pytest.importorskip("torch")
    schedules = pytest.importorskip("transformers.optimization")
    rise = math.ceil(warmup * total)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    theirs = schedules.get_linear_schedule_with_warmup(optimizer, rise, total)
    recipe = Recipe(learning_rate=2.0, warmup=warmup)
    for step in range(total):
        expected = theirs.get_last_lr()[0]
        if step < rise:
            expected += 2.0 / rise  # theirs makes its first update at rate 0: ours begins one step later in the rise
        assert learning_rate(recipe, step, total) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        theirs.step()


def test_cosine_and_constant_schedules() -> None:
    rates = [learning_rate(Recipe(learning_rate=1.0, warmup=0.0, schedule="cosine"), step, 4) for step in range(4)]
    assert rates == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert learning_rate(Recipe(learning_rate=1.0, schedule="constant"), 99, 100) == 1.0


@pytest.mark.parametrize("head", HEADS)
def test_biases_and_norms_do_not_decay(head: str) -> None:
    table = parameters(small_config(), head)
    groups = parameter_groups(Recipe(weight_decay=0.1), table)
    assert sorted(name for group in groups for name in group.names) == sorted(table)
    for group in groups:
        assert group.rate_factor == 1.0
        for name in group.names:
            decays = table[name].kind in (Kind.KERNEL, Kind.EMBEDDING)
            assert group.weight_decay == (0.1 if decays else 0.0)


def test_rates_fall_layer_by_layer_and_embeddings_can_be_frozen() -> None:
    table = parameters(small_config(num_hidden_layers=3), "sequence-classification")
    recipe = Recipe(layer_decay=0.5)
    factors = {name: group.rate_factor for group in parameter_groups(recipe, table) for name in group.names}
    assert factors["classifier.weight"] == factors["rembert.pooler.dense.bias"] == 1.0
    assert factors["rembert.encoder.layer.2.output.dense.weight"] == 0.5
    assert factors["rembert.encoder.layer.0.attention.self.key.bias"] == 0.125
    assert factors["rembert.encoder.embedding_hidden_mapping_in.weight"] == 0.0625
    assert factors["rembert.embeddings.word_embeddings.weight"] == 0.0625
    trained = {
        name for group in parameter_groups(replace(recipe, freeze_embeddings=True), table) for name in group.names
    }
    assert table.keys() - trained == {name for name in table if name.startswith("rembert.embeddings.")}


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 8])
def test_weighted_means_of_micro_batches_add_up_to_the_mean_of_the_batch(parts: int) -> None:
    numbers = np.random.default_rng(0)
    labels = np.where(numbers.random((7, 5)) < 0.5, numbers.integers(0, 9, (7, 5)), -100)
    mask = np.ones_like(labels)
    mask[2] = 0
    batch = {"input_ids": labels, "labels": labels, "attention_mask": mask, "values": numbers.random((7, 5))}

    def mean(part: dict[str, np.ndarray]) -> float:
        counted = (part["labels"] != -100) & (part["attention_mask"] != 0)
        return float(part["values"][counted].mean()) if counted.any() else 0.0

    found = split_batch(batch, parts, lambda part: label_count("masked-lm", part))
    assert len(found) == parts
    assert all(len(part["labels"]) for part, _ in found)
    assert sum(weight for _, weight in found) == pytest.approx(1.0)
    assert sum(weight * mean(part) for part, weight in found) == pytest.approx(mean(batch))


def test_a_batch_without_labels_weighs_nothing() -> None:
    batch = {"input_ids": np.ones((3, 4), int), "labels": np.full((3, 4), -100)}
    found = split_batch(batch, 2, lambda part: label_count("token-classification", part))
    assert [weight for _, weight in found] == [0, 0]
