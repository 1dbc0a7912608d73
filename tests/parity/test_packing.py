"""Padding taken out and put back, and batches that come packed: the same numbers as with every position computed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from tests.frameworks import TF, Arrays, Framework, difference, flat, needs_tf, on_both
from tests.parity.cases import CASES, CHOICES, FORWARDS, Case, by_case, shared

# float64; the same numbers are added in another order.
TOLERANCE = 1e-12
LENGTH = 7
RIGHT = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
LEFT = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]])
HOLES = np.array([[0, 1, 0, 1, 1, 0, 1], [1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1, 0]])
NOTHING = np.zeros((3, 7), np.int64)
MASKS = {"mixed": np.concatenate([RIGHT, LEFT, HOLES, NOTHING[:2]]), "nothing": NOTHING}
by_mask = pytest.mark.parametrize("mask", MASKS)
# A decoder with cross-attention computes every position, and takes no packed inputs.
PACKABLE = [case for case in FORWARDS if not case.settings.get("add_cross_attention")]


def _model(framework: Framework, case: Case, implementation: str = "auto") -> Any:
    return (
        shared(framework, case)
        if implementation == "auto"
        else shared(framework, case, attn_implementation=implementation)
    )


def _call(framework: Framework, case: Case, inputs: Arrays, implementation: str = "auto", **flags: Any) -> Arrays:
    return flat(framework, framework.call(_model(framework, case, implementation), **inputs, **flags))


def _inputs(case: Case, mask: np.ndarray) -> Arrays:
    inputs = case.inputs(case.config(), batch=len(mask), length=LENGTH)
    shape = inputs["attention_mask"].shape
    inputs["attention_mask"] = np.broadcast_to(mask[:, None] if len(shape) == 3 else mask, shape).copy()
    return inputs


def _unlabelled(inputs: Arrays) -> Arrays:
    return {name: array for name, array in inputs.items() if not name.startswith(("labels", "start", "end"))}


@needs_tf
@by_mask
def test_groups_of_sequences_change_nothing(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(each for each in CASES if each.name == "model")
    inputs = _inputs(case, MASKS[mask])
    wanted = _call(TF, case, inputs)  # a small batch: one group
    monkeypatch.setattr("rembert.tf.packing.POSITIONS", 1)
    for name, array in _call(TF, case, inputs).items():
        assert difference(array, wanted[name]) < TOLERANCE, name


@on_both
@by_case(FORWARDS)
@by_mask
def test_every_implementation_gives_the_same(framework: Framework, case: Case, mask: str) -> None:
    inputs, flags = _inputs(case, MASKS[mask]), {"output_hidden_states": True}
    if case.settings.get("is_decoder") and case.head != "masked-lm":
        flags["use_cache"] = False  # a call that returns a cache computes every position
    wanted = _call(framework, case, inputs, "eager", **flags)
    for other in (
        _call(framework, case, inputs, "auto", **flags),
        _call(framework, case, inputs, "sdpa", **flags),
        _call(framework, case, inputs, "auto", **flags, output_attentions=True),
    ):
        for name, array in wanted.items():
            assert difference(other[name], array) <= TOLERANCE, name


@on_both
@by_case([case for case in FORWARDS if case.head != "model"])
@by_mask
def test_every_implementation_gives_the_same_gradients(framework: Framework, case: Case, mask: str) -> None:
    inputs = _inputs(case, MASKS[mask])
    if case.settings.get("is_decoder"):
        inputs["use_cache"] = False
    wanted, other = (framework.gradients(_model(framework, case, each), **inputs) for each in ("eager", "auto"))
    scale = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert np.abs(other[name] - gradient).max() <= TOLERANCE * (scale or 1.0), name


@on_both
@by_case([case for case in CASES if case.name in ("model", "decoder", "one_label_each", "token_classification")])
@pytest.mark.parametrize(
    "flags", [{}, {"output_attentions": True}], ids=["padding removed", "every position computed"]
)
def test_gradients_reach_the_returned_states(framework: Framework, case: Case, flags: dict[str, bool]) -> None:
    """As without padding: a row that is passed by itself, with its positions."""
    model, mask = _model(framework, case), np.concatenate([RIGHT[1:], LEFT[1:], HOLES])
    inputs = _unlabelled(_inputs(case, mask))
    first = np.asarray(next(iter(framework.call(model, **inputs).values())))
    weights = np.random.default_rng(0).standard_normal(first.shape)
    if first.ndim == 3:
        weights *= mask[..., None]
    padded = framework.state_gradients(model, weights, **inputs, **flags)
    assert len(padded) == 3
    for row, real in enumerate(mask != 0):
        alone = {name: array[row : row + 1, real] for name, array in inputs.items() if name != "attention_mask"}
        own = weights[row : row + 1, real] if first.ndim == 3 else weights[row : row + 1]
        wanted = framework.state_gradients(model, own, **alone, position_ids=np.flatnonzero(real)[None])
        for state, (one, other) in enumerate(zip(padded, wanted, strict=True)):
            assert one is not None
            assert other is not None
            assert difference(one[row, real], other[0]) <= TOLERANCE, (row, state)
            assert not one[row, ~real].any(), (row, state)


@on_both
def test_gradients_reach_the_states_of_packed_inputs(framework: Framework) -> None:
    model, inputs = _model(framework, CASES[0]), _packed(CASES[0], _inputs(CASES[0], RIGHT))
    weights = np.random.default_rng(0).standard_normal((len(inputs["input_ids"]), model.config.hidden_size))
    wanted = framework.state_gradients(model, weights, **inputs)
    explicit = framework.state_gradients(model, weights, **inputs, output_attentions=True)
    for one, other in zip(explicit, wanted, strict=True):
        assert one is not None
        assert other is not None
        assert difference(one, other) <= TOLERANCE


@on_both
@by_case([case for case in CASES if case.name in ("model", "decoder")])
@by_mask
@pytest.mark.parametrize(
    "flags", [{}, {"use_cache": False}, {"output_attentions": True}], ids=["as it comes", "no cache", "attentions"]
)
def test_padding_comes_back_as_zeros(framework: Framework, case: Case, mask: str, flags: dict[str, bool]) -> None:
    inputs = _inputs(case, MASKS[mask])
    outputs = _call(framework, case, inputs, output_hidden_states=True, **flags)
    padding = inputs["attention_mask"] == 0
    states = [array for name, array in outputs.items() if name.startswith(("last_hidden", "hidden_states"))]
    assert len(states) == 4
    for array in states:
        assert (array[padding] == 0).all()
        assert (array[~padding] != 0).any(axis=-1).all()


@on_both
@by_mask
def test_the_first_real_token_is_pooled(framework: Framework, mask: str) -> None:
    case = CASES[0]
    inputs = _inputs(case, MASKS[mask])
    outputs = _call(framework, case, inputs)
    weights = framework.weights(_model(framework, case))
    first = np.array([next((index for index in range(LENGTH) if row[index]), 0) for row in inputs["attention_mask"]])
    states = outputs["last_hidden_state"][np.arange(len(first)), first]
    wanted = np.tanh(states @ weights["rembert.pooler.dense.weight"].T + weights["rembert.pooler.dense.bias"])
    assert difference(outputs["pooler_output"], wanted) <= TOLERANCE


@on_both
def test_a_continued_call_with_padding(framework: Framework) -> None:
    """With a cache, padding among the new tokens comes back as zeros too, and the first real new token is pooled."""
    case = next(case for case in CASES if case.name == "decoder")
    inputs = _inputs(case, LEFT)
    whole = _call(framework, case, inputs)
    first = {name: array[:, :3] for name, array in inputs.items()}
    outputs = framework.call(_model(framework, case), **first)
    rest = {name: array[:, 3:] for name, array in inputs.items()}
    rest["attention_mask"] = inputs["attention_mask"]
    continued = _call(framework, case, {**rest, "past_key_values": outputs.past_key_values})
    assert difference(continued["last_hidden_state"], whole["last_hidden_state"][:, 3:]) <= TOLERANCE
    assert difference(continued["pooler_output"][1:], whole["pooler_output"][1:]) <= TOLERANCE


# ------------------------------------------------------------------ batches that come packed


def _packed(case: Case, inputs: Arrays) -> Arrays:
    """The same tokens one after another, instead of a batch padded on the right."""
    real = inputs["attention_mask"] != 0
    lengths = real.reshape(-1, real.shape[-1]).sum(1)
    result: Arrays = {"cu_seqlens": np.concatenate([[0], lengths.cumsum()]).astype(np.int32)}
    for name, array in inputs.items():
        if name != "attention_mask":
            result[name] = array[real] if array.shape[: real.ndim] == real.shape else array
    return result


@on_both
@by_case(PACKABLE)
@pytest.mark.parametrize("implementation", ["auto", "eager"])
def test_packed_inputs(framework: Framework, case: Case, implementation: str) -> None:
    inputs = _inputs(case, RIGHT)
    for name in ("start_positions", "end_positions"):
        if name in inputs:
            inputs[name] = np.array([6, 1, 0])
    real = inputs["attention_mask"].reshape(-1, LENGTH) != 0
    padded = _call(framework, case, inputs, implementation, output_hidden_states=True)
    packed = _call(framework, case, _packed(case, inputs), implementation, output_hidden_states=True)
    for name, array in padded.items():
        if not name.startswith(("past_key_values", "attentions")):
            wanted = array[real] if array.shape[:2] == real.shape else array
            assert difference(packed[name], wanted) <= TOLERANCE, name


@on_both
@by_case([case for case in PACKABLE if case.head == "sequence-classification"])
def test_gradients_of_packed_inputs(framework: Framework, case: Case) -> None:
    inputs, model = _inputs(case, RIGHT), _model(framework, case)
    wanted = framework.gradients(model, **inputs)
    packed = framework.gradients(model, **_packed(case, inputs), max_seqlen=LENGTH)
    scale = max(np.abs(gradient).max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert np.abs(packed[name] - gradient).max() <= TOLERANCE * scale, name


@on_both
def test_packed_embeddings_and_positions(framework: Framework) -> None:
    case = CASES[0]
    inputs = _packed(case, _inputs(case, RIGHT))
    wanted = _call(framework, case, inputs)["last_hidden_state"]
    table = framework.weights(_model(framework, case))["rembert.embeddings.word_embeddings.weight"]
    spelled = {**inputs, "inputs_embeds": table[inputs["input_ids"]]}
    del spelled["input_ids"]
    starts = inputs["cu_seqlens"]
    spelled["position_ids"] = np.concatenate([np.arange(end - start) for start, end in pairwise(starts)])
    assert difference(_call(framework, case, spelled)["last_hidden_state"], wanted) <= TOLERANCE
    moved = _call(framework, case, {**spelled, "position_ids": spelled["position_ids"] + 1})["last_hidden_state"]
    assert difference(moved, wanted) > 1e-3


@on_both
def test_packed_choices_without_labels(framework: Framework) -> None:
    case = next(case for case in CASES if case.head == "multiple-choice")
    inputs = _unlabelled(_inputs(case, RIGHT))
    wanted = _call(framework, case, inputs)["logits"]
    packed = _call(framework, case, _packed(case, inputs), num_choices=CHOICES)["logits"]
    assert difference(packed, wanted) <= TOLERANCE


@on_both
@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_boundaries_of_narrow_integers(framework: Framework, kind: type) -> None:
    inputs = _packed(CASES[0], _unlabelled(_inputs(CASES[0], RIGHT)))
    wanted = _call(framework, CASES[0], inputs)
    actual = _call(framework, CASES[0], {**inputs, "cu_seqlens": inputs["cu_seqlens"].astype(kind)})
    for name, array in wanted.items():
        assert np.array_equal(actual[name], array), name


IDS, ENDS = np.ones(6, np.int64), np.array([0, 2, 6])
REFUSED = {
    "too few tokens": ({"cu_seqlens": np.array([0, 2, 7])}, ("`cu_seqlens`", "here 6", "from 0 to 7")),
    "too many tokens": ({"cu_seqlens": np.array([0, 2, 5])}, ("here 6", "from 0 to 5")),
    "no start": ({"cu_seqlens": np.array([1, 2, 6])}, ("from 1 to 6",)),
    "an empty sequence": ({"cu_seqlens": np.array([0, 2, 2, 6])}, ("at least one token", "2 and then 2")),
    "falling": ({"cu_seqlens": np.array([0, 4, 2, 6])}, ("must increase", "4 and then 2", "sequence 1")),
    "floats": ({"cu_seqlens": np.array([0.0, 6.0])}, ("`cu_seqlens` must hold integers",)),
    "one number": ({"cu_seqlens": np.array([6])}, ("at least two numbers", "[1]")),
    "two dimensions": ({"cu_seqlens": ENDS[None]}, ("[sequences + 1]", "[1, 3]")),
    "longest too short": ({"max_seqlen": 3}, ("`max_seqlen`", "here 4", "`max_seqlen=3`")),
    "a padded batch": ({"input_ids": IDS[None]}, ("`input_ids`", "[tokens]", "[1, 6]")),
    "a mask": ({"attention_mask": IDS}, ("`cu_seqlens` and `attention_mask`",)),
    "token types": ({"token_type_ids": IDS[:5]}, ("`token_type_ids`", "[5]")),
    "positions": ({"position_ids": IDS[None]}, ("`position_ids`", "[1, 6]")),
    "longest without boundaries": (
        {"input_ids": IDS[None], "cu_seqlens": None, "max_seqlen": 6},
        ("`max_seqlen=6` without `cu_seqlens`",),
    ),
    "longer than positions": (
        {"input_ids": np.ones(19, np.int64), "cu_seqlens": np.array([0, 19])},
        ("`max_position_embeddings=18`", "19 tokens"),
    ),
}


@on_both
@pytest.mark.parametrize("name", REFUSED)
def test_invalid_packed_inputs_are_refused(framework: Framework, name: str) -> None:
    arguments, says = REFUSED[name]
    with pytest.raises(InputError) as error:
        framework.call(_model(framework, CASES[0]), **{"input_ids": IDS, "cu_seqlens": ENDS, **arguments})
    assert all(part in str(error.value) for part in says), str(error.value)


@on_both
def test_invalid_packed_choices_are_refused(framework: Framework) -> None:
    model = _model(framework, next(case for case in CASES if case.head == "multiple-choice"))
    packed = {"input_ids": IDS, "cu_seqlens": ENDS}
    for arguments, says in (
        ({}, "need `num_choices` or `labels`"),
        ({"num_choices": 3}, "2 sequences, `num_choices=3`"),
        ({"labels": np.zeros(3, np.int64)}, "2 sequences.* and 3 labels"),
    ):
        with pytest.raises(InputError, match=says):
            framework.call(model, **packed, **arguments)


@on_both
def test_invalid_labels_of_packed_tokens_are_refused(framework: Framework) -> None:
    model = _model(framework, next(case for case in CASES if case.head == "token-classification"))
    with pytest.raises(InputError, match=r"`labels` must have the shape \[tokens\], here \[6\].*\[5\]"):
        framework.call(model, input_ids=IDS, cu_seqlens=ENDS, labels=IDS[:5])
