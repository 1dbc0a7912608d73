"""Both frameworks against the goldens: outputs, losses, gradients, greedy decoding.

The numbers were made with another library, PyTorch in float32 with dropout off; see `tests/fixtures/golden`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from tests.frameworks import GOLDEN, Arrays, Framework, difference, flat, on_both, scale_of_gradient


class Golden(NamedTuple):
    """One golden: its directory and the head it is of."""

    directory: str
    head: str

    def read(self) -> dict[str, Arrays]:
        """The arrays by their first name: in, out, grad, gradnorm, gen."""
        groups: dict[str, Arrays] = {"in": {}, "out": {}, "grad": {}, "gradnorm": {}, "gen": {}}
        with np.load(GOLDEN / self.directory / "expected.npz") as file:
            for name in file.files:
                group, _, rest = name.partition(".")
                groups[group][rest] = file[name]
        return groups


GOLDENS = [
    Golden("model", "model"),
    Golden("masked_lm", "masked-lm"),
    Golden("causal_lm", "causal-lm"),
    Golden("causal_lm_cross", "causal-lm"),
    Golden("sequence_classification", "sequence-classification"),
    Golden("sequence_regression", "sequence-classification"),
    Golden("sequence_multilabel", "sequence-classification"),
    Golden("multiple_choice", "multiple-choice"),
    Golden("token_classification", "token-classification"),
    Golden("question_answering", "question-answering"),
]
TRAINED = [golden for golden in GOLDENS if golden.head != "model"]
LAYERS = 2
OUTPUTS, GRADIENTS = 1e-5, 1e-5  # parts of an output's, or of a gradient's, largest number


def by_golden(goldens: list[Golden]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("golden", goldens, ids=lambda golden: golden.directory)


@cache
def _model(framework: Framework, golden: Golden) -> object:
    return framework.load(GOLDEN / golden.directory, golden.head)


def _real(name: str, array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An output without the rows of padded positions, which have no meaning."""
    real = mask.reshape(-1, mask.shape[-1]) != 0  # [b, s]; choices are rows of the batch
    if name.startswith(("attentions", "cross_attentions")):
        return array.transpose(0, 2, 1, 3)[real]  # [b, h, s, t]: the queries
    return array[real] if array.shape[:2] == real.shape else array


def _inputs(golden: Golden, inputs: Arrays) -> Arrays:
    """The golden's inputs, with a mask of pairs where its library's loss counts padding and ours does not.

    A question answering model leaves padding out of the softmax over positions. A mask of pairs speaks of no padding:
    with it the same positions compete as did there.
    """
    if golden.head != "question-answering":
        return inputs
    mask = inputs["attention_mask"]
    pairs = np.repeat(mask[:, None], mask.shape[1], axis=1)
    return {**inputs, "attention_mask": pairs}


def test_every_golden_is_used() -> None:
    assert {golden.directory for golden in GOLDENS} == {path.parent.name for path in GOLDEN.glob("*/expected.npz")}


@on_both
@by_golden(GOLDENS)
def test_outputs(framework: Framework, golden: Golden) -> None:
    expected = golden.read()
    call = framework.call(
        _model(framework, golden),
        **_inputs(golden, expected["in"]),
        output_attentions=True,
        output_hidden_states=True,
    )
    outputs = flat(framework, call)
    assert {name for name in outputs if not name.startswith("past_key_values")} == set(expected["out"])
    for name, array in expected["out"].items():
        actual, wanted = (_real(name, each, expected["in"]["attention_mask"]) for each in (outputs[name], array))
        assert difference(actual, wanted) <= OUTPUTS, name


@on_both
@by_golden(GOLDENS)
def test_outputs_do_not_depend_on_other_requested_outputs(framework: Framework, golden: Golden) -> None:
    # Without attention probabilities padding is taken out, and PyTorch takes its fused attention.
    expected = golden.read()
    if golden.head == "question-answering":
        expected["out"]["loss"] = _span_loss(expected)
    outputs = flat(framework, framework.call(_model(framework, golden), **expected["in"]))
    asked = [name for name in expected["out"] if not name.startswith(("hidden", "attentions", "cross_attentions"))]
    assert {name for name in outputs if not name.startswith("past_key_values")} == set(asked)
    for name in asked:
        mask = expected["in"]["attention_mask"]
        actual, wanted = _real(name, outputs[name], mask), _real(name, expected["out"][name], mask)
        assert difference(actual, wanted) <= OUTPUTS, name


def _span_loss(expected: dict[str, Arrays]) -> np.ndarray:
    """The loss of the golden's own logits, where real positions alone compete and answers on padding do not count."""
    real, costs = expected["in"]["attention_mask"] != 0, []
    for name in ("start", "end"):
        logits, positions = expected["out"][f"{name}_logits"], expected["in"][f"{name}_positions"].clip(0)
        each = [
            np.log(np.exp(row[mask].astype(np.float64)).sum()) - row[position]
            for row, mask, position in zip(logits, real, positions, strict=True)
            if position < len(row) and mask[position]
        ]
        costs.append(np.mean(each))
    return np.asarray(np.mean(costs), np.float32)


@on_both
@by_golden(TRAINED)
def test_gradients(framework: Framework, golden: Golden) -> None:
    expected = golden.read()
    gradients = framework.gradients(_model(framework, golden), **_inputs(golden, expected["in"]))
    assert set(gradients) == set(expected["gradnorm"])
    for name, array in expected["grad"].items():
        scale = np.abs(expected["grad"][scale_of_gradient(name, golden.head, LAYERS)]).max()
        assert np.abs(gradients[name] - array).max() <= GRADIENTS * scale, name
    for name, norm in expected["gradnorm"].items():
        scale = expected["gradnorm"][scale_of_gradient(name, golden.head, LAYERS)]
        assert abs(np.linalg.norm(gradients[name].astype(np.float64)) - norm) <= GRADIENTS * scale, name


@on_both
def test_greedy_decoding_with_the_cache(framework: Framework) -> None:
    # The golden of the decoder with cross-attention is no reference here: the cache it was decoded with held the
    # source's keys among the decoder's own, and the same library without a cache gives other tokens.
    golden = Golden("causal_lm", "causal-lm")
    model, expected = _model(framework, golden), golden.read()["gen"]
    tokens = given = expected["prompt"]
    cache = None
    while tokens.shape[1] < expected["greedy"].shape[1]:
        outputs = framework.call(model, input_ids=given, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        given = framework.array(outputs.logits)[:, -1:].argmax(-1)
        tokens = np.concatenate([tokens, given], axis=1)
    assert tokens.tolist() == expected["greedy"].tolist()
