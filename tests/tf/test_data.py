"""Batches of a few shapes: every example once, padded as it should be, and no more shapes than lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.tf import bucket_by_length  # noqa: E402
from tests.frameworks import TF, difference  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

TOKENS = next(case for case in CASES if case.name == "token_classification")
SIZES = [3, 7, 1, 12, 4, 5, 8, 2, 12, 6]


def _examples() -> list[dict[str, np.ndarray]]:
    numbers = np.random.default_rng(0)
    return [{"input_ids": numbers.integers(1, 61, size), "labels": numbers.integers(0, 5, size)} for size in SIZES]


def _dataset(examples: list[Any]) -> Any:
    signature = tf.nest.map_structure(lambda array: tf.TensorSpec([None] * array.ndim, array.dtype), examples[0])
    return tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)


@pytest.mark.parametrize("pair", [False, True])
def test_every_example_once(pair: bool) -> None:
    examples = _examples()
    given = [({"input_ids": each["input_ids"]}, each["labels"]) for each in examples] if pair else examples
    seen = []
    for batch in bucket_by_length(_dataset(given), lengths=(4, 8, 12), batch_size=(4, 3, 2), pad_token_id=60):
        inputs, labels = batch if pair else (batch, batch["labels"])
        ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()
        assert ids.shape == mask.shape == labels.shape
        assert (ids.shape[0], ids.shape[1]) <= ({4: 4, 8: 3, 12: 2}[ids.shape[1]], ids.shape[1])
        assert (ids[mask == 0] == 60).all()
        assert (labels.numpy()[mask == 0] == -100).all()
        smaller = {4: 0, 8: 4, 12: 8}[ids.shape[1]]
        for row, real, own in zip(ids, mask.astype(bool), labels.numpy(), strict=True):
            assert smaller < real.sum()
            assert real[: real.sum()].all()
            seen.append((*row[real], -1, *own[real]))
    assert sorted(seen) == sorted((*each["input_ids"], -1, *each["labels"]) for each in examples)


@pytest.mark.slow
def test_xla_on_a_few_shapes() -> None:
    models = [build(TF, TOKENS, TOKENS.config(num_hidden_layers=1, classifier_dropout_prob=0.0)) for _ in range(2)]
    data = bucket_by_length(_dataset(_examples()), lengths=(4, 12), batch_size=2, drop_remainder=True)
    for model, way in zip(models, ({"jit_compile": True}, {"run_eagerly": True}), strict=True):
        model.compile(keras.optimizers.SGD(0.125), **way)
        model.fit(data, epochs=2, verbose=0)
    assert {tuple(batch["input_ids"].shape) for batch in data} == {(2, 4), (2, 12)}
    weights = TF.weights(models[1])
    for name, array in TF.weights(models[0]).items():
        assert difference(array, weights[name]) <= 1e-10, name


def test_invalid_arguments_are_refused() -> None:
    data = _dataset(_examples())
    with pytest.raises(InputError, match=r"`lengths` must be positive and increasing.*\(4, 4\)"):
        bucket_by_length(data, lengths=(4, 4))
    with pytest.raises(InputError, match=r"one for each of the 2 lengths.*\[1, 2, 3\]"):
        bucket_by_length(data, lengths=(4, 8), batch_size=(1, 2, 3))
    with pytest.raises(InputError, match="must hold single examples"):
        bucket_by_length(data.padded_batch(2))
    with pytest.raises(InputError, match="must hold single examples"):
        bucket_by_length(tf.data.Dataset.range(3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 8 tokens, the last of `lengths`"):
        list(bucket_by_length(data, lengths=(4, 8)))
