"""Fresh weights: what they are, and that a seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from rembert.common.parameters import Kind
from tests.frameworks import Framework, on_both
from tests.parity.cases import CASES, Case, by_case


@on_both
@pytest.mark.parametrize("deviation", [0.02, 0.3])
def test_statistics(framework: Framework, deviation: float) -> None:
    config = CASES[0].config(
        vocab_size=900, hidden_size=60, input_embedding_size=50, intermediate_size=90, initializer_range=deviation
    )
    model = framework.build(config, "masked-lm")
    weights, table = framework.weights(model), model.parameter_table()
    for name, array in weights.items():
        kind = table[name].kind
        if kind is Kind.SCALE:
            assert (array == 1).all(), name
        elif kind in (Kind.BIAS, Kind.SHIFT):
            assert (array == 0).all(), name
        else:
            # Five standard errors of a deviation, and of a mean, from this many numbers.
            assert abs(array.std() / deviation - 1) < 5 / np.sqrt(2 * array.size), name
            assert abs(array.mean()) < 5 * deviation / np.sqrt(array.size), name
    drawn = [array for name, array in weights.items() if table[name].kind in (Kind.KERNEL, Kind.EMBEDDING)]
    assert len({array.flat[0] for array in drawn}) == len(drawn)  # no two from the same numbers


@on_both
@by_case()
def test_a_seed_repeats_a_model(framework: Framework, case: Case) -> None:
    config = case.config(num_hidden_layers=1)
    weights = []
    for seed in (5, 5, 6):
        framework.seed(seed)
        weights.append(framework.weights(framework.build(config, case.head)))
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((weights[0][name] != weights[2][name]).any() for name in weights[0])


@on_both
def test_dropout(framework: Framework) -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    config = case.config(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, classifier_dropout_prob=0.5)
    model, inputs = framework.build(config, case.head), case.inputs(config)

    def logits(training: bool) -> np.ndarray:
        if framework.name == "pt":
            model.train(training)
            return framework.array(framework.call(model, **inputs).logits)
        return framework.array(framework.call(model, **inputs, training=training).logits)

    assert (logits(False) == logits(False)).all()
    assert (logits(True) != logits(True)).any()
