"""What must hold in each framework by itself: masks, padding, causality, the cache, embeddings as input."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frameworks import Arrays, Framework, difference, flat, on_both, random_weights
from tests.parity.cases import CASES, DECODERS, FORWARDS, KINDS, WITH_LOSS, Case, as_dtype, by_case, shared

# float64; the same numbers are added in another order.
TOLERANCE = 1e-12
few = settings(max_examples=4)


def _call(framework: Framework, case: Case, inputs: Arrays, **flags: Any) -> Arrays:
    return flat(framework, framework.call(shared(framework, case), **inputs, **flags))


def _widened(case: Case, inputs: Arrays, columns: int, at_start: bool = False) -> Arrays:
    """The same inputs with `columns` of padding: any tokens, and labels that must not count."""
    numbers = np.random.default_rng(columns)
    result = dict(inputs)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        array = inputs[name]
        shape = (*array.shape[:-1], columns)
        extra = np.zeros(shape, np.int64) if name != "input_ids" else numbers.integers(0, 61, shape)
        result[name] = np.concatenate([extra, array] if at_start else [array, extra], axis=-1)
    if inputs.get("labels", np.zeros(0)).shape == inputs["input_ids"].shape and case.head != "multiple-choice":
        extra = numbers.integers(0, 5, (len(inputs["labels"]), columns))
        result["labels"] = np.concatenate([extra, inputs["labels"]] if at_start else [inputs["labels"], extra], axis=1)
    return result


@on_both
@by_case(FORWARDS)
def test_padding_never_changes_a_real_token(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config(), length=6)
    for name in ("start_positions", "end_positions"):
        if name in inputs:
            del inputs[name]  # whether a position lies outside depends on the length
    short = _call(framework, case, inputs)
    long = _call(framework, case, _widened(case, inputs, 4))
    real = inputs["attention_mask"].reshape(-1, 6) != 0
    for name, array in short.items():
        longer = long[name]
        if name.startswith("past_key_values") and array.shape[2] == 6:
            array, longer = (each.transpose(0, 2, 1, 3)[:, :6][real] for each in (array, longer))
        elif array.shape[:2] == real.shape:
            array, longer = array[real], longer[:, :6][real]
        assert difference(longer, array) <= TOLERANCE, name


@on_both
@by_case([case for case in FORWARDS if case.head not in ("multiple-choice", "question-answering")])
def test_padding_on_the_left(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config(), batch=1, length=6)
    short = _call(framework, case, inputs)
    positions = np.arange(9)[None] - 3
    long = _call(framework, case, {**_widened(case, inputs, 3, at_start=True), "position_ids": positions.clip(0)})
    for name in ("last_hidden_state", "pooler_output", "logits"):
        if name in short:
            array = long[name][:, 3:] if short[name].ndim == 3 else long[name]
            assert difference(array, short[name]) <= TOLERANCE, name


@on_both
@by_case(KINDS)
def test_rows_of_a_batch_do_not_see_each_other(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    together = _call(framework, case, inputs)
    alone = _call(framework, case, {name: array[1:2] for name, array in inputs.items()})
    for name in ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits"):
        if name in together:
            assert difference(alone[name], together[name][1:2]) <= TOLERANCE, name


@on_both
@by_case([case for case in KINDS if case.head != "multiple-choice"])
def test_a_mask_of_pairs_is_equivalent_to_a_mask_of_tokens(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    inputs.pop("labels", None)  # a mask of pairs does not determine which labels are on padding
    tokens = inputs["attention_mask"]
    length = tokens.shape[1]
    pairs = np.broadcast_to(tokens[:, None], (len(tokens), length, length)).copy()
    if case.config().is_decoder:
        pairs *= np.tri(length, dtype=np.int64)  # taken as it is, so causality stands in it
    ours = _call(framework, case, {**inputs, "attention_mask": pairs})
    for name, array in _call(framework, case, inputs).items():
        other = ours[name]
        if array.shape[:2] == tokens.shape:  # a mask of pairs does not determine which rows are padding, either
            array, other = (each[tokens != 0] for each in (array, other))
        assert difference(other, array) <= TOLERANCE, name


@on_both
@by_case(FORWARDS)
def test_omitted_arguments_have_their_defaults(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    shape = inputs["input_ids"].shape
    inputs = {name: array for name, array in inputs.items() if name not in ("attention_mask", "token_type_ids")}
    spelled = {
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        "position_ids": np.broadcast_to(np.arange(shape[-1]), shape).copy(),
    }
    short, long = _call(framework, case, inputs), _call(framework, case, {**inputs, **spelled})
    for name, array in short.items():
        assert difference(long[name], array) <= TOLERANCE, name


@on_both
@by_case(FORWARDS)
def test_indices_reach_their_tables(framework: Framework, case: Case) -> None:
    """Every index moved by one, and every table rotated by one row: the same numbers."""
    config = case.config()
    inputs, sizes = case.inputs(config), {"input_ids": 61, "token_type_ids": 2, "position_ids": 18}
    shape = inputs["input_ids"].shape
    inputs["position_ids"] = np.random.default_rng(0).integers(0, 18, shape)
    tables = ("word_embeddings", "token_type_embeddings", "position_embeddings")
    plain, rotated = shared(framework, case), framework.build(config, case.head, dtype="float64")
    weights = framework.weights(plain)
    for table in tables:
        name = f"rembert.embeddings.{table}.weight"
        weights[name] = np.roll(weights[name], 1, axis=0)
    framework.set_weights(rotated, weights)
    moved = {**inputs, **{name: (inputs[name] + 1) % size for name, size in sizes.items()}}
    asked = {name: array for name, array in inputs.items() if not name.startswith(("labels", "start", "end"))}
    moved = {name: moved[name] for name in asked}
    expected = _call(framework, case, asked)
    for name, array in flat(framework, framework.call(rotated, **moved)).items():
        assert difference(array, expected[name]) <= TOLERANCE, name


@on_both
@by_case(FORWARDS)
def test_embeddings_as_input(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    table = framework.weights(shared(framework, case))["rembert.embeddings.word_embeddings.weight"]
    by_id = _call(framework, case, inputs)
    looked_up = table[inputs.pop("input_ids")]
    by_vector = _call(framework, case, {**inputs, "inputs_embeds": looked_up})
    for name, array in by_id.items():
        assert difference(by_vector[name], array) <= TOLERANCE, name


# ------------------------------------------------------------------ decoders


@on_both
@by_case(DECODERS)
def test_a_decoder_does_not_attend_to_later_tokens(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    inputs.pop("labels", None)
    del inputs["attention_mask"]
    changed = inputs["input_ids"].copy()
    changed[:, 4:] = (changed[:, 4:] + 1) % 61
    name = "last_hidden_state" if case.head == "model" else "logits"
    before = _call(framework, case, inputs)[name]
    after = _call(framework, case, {**inputs, "input_ids": changed})[name]
    assert difference(after[:, :4], before[:, :4]) <= TOLERANCE
    assert difference(after[:, 4:], before[:, 4:]) > 1e-3


@on_both
@by_case(DECODERS)
@few
@given(cuts=st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True).map(sorted), padded=st.booleans())
def test_the_cache_changes_nothing(framework: Framework, case: Case, cuts: list[int], padded: bool) -> None:
    """The sequence in chunks, each given the cache of the earlier ones, with and without padding."""
    inputs = case.inputs(case.config(), length=7)
    inputs.pop("labels", None)
    if not padded:
        del inputs["attention_mask"]
    whole = _call(framework, case, inputs, output_attentions=True)
    cache, parts, seen = None, [], 0
    for cut in [*cuts, 7]:
        chunk = {name: inputs[name][:, seen:cut] for name in ("input_ids", "token_type_ids")}
        if padded:
            chunk["attention_mask"] = inputs["attention_mask"][:, :cut]
        if cache is None:
            chunk["encoder_hidden_states"] = inputs.get("encoder_hidden_states")  # later read from the cache
        chunk["encoder_attention_mask"] = inputs.get("encoder_attention_mask")
        if "encoder_hidden_states" not in inputs:
            chunk = {name: array for name, array in chunk.items() if not name.startswith("encoder_")}
        outputs = framework.call(shared(framework, case), **chunk, past_key_values=cache, use_cache=True)
        cache, seen = outputs.past_key_values, cut
        parts.append(flat(framework, outputs))
    name = "last_hidden_state" if case.head == "model" else "logits"
    assert difference(np.concatenate([part[name] for part in parts], axis=1), whole[name]) <= TOLERANCE
    for name, array in parts[-1].items():
        if name.startswith("past_key_values"):
            assert difference(array, whole[name]) <= TOLERANCE, name


@on_both
def test_a_cache_is_returned_on_request(framework: Framework) -> None:
    case = next(case for case in DECODERS if case.name == "causal_lm_cross")
    inputs = case.inputs(case.config())
    model = shared(framework, case)
    cache = framework.call(model, **inputs).past_key_values
    assert [len(layer) for layer in cache] == [4, 4]
    assert {tuple(part.shape) for layer in cache for part in layer} == {(3, 3, 7, 4), (3, 3, 4, 4)}
    assert "past_key_values" not in framework.call(model, **inputs, use_cache=False)
    model.config.use_cache = False
    try:
        assert "past_key_values" not in framework.call(model, **inputs)
        assert "past_key_values" in framework.call(model, **inputs, use_cache=True)
    finally:
        model.config.use_cache = True


@on_both
def test_a_cache_is_not_changed_by_the_call_that_takes_it(framework: Framework) -> None:
    case = next(case for case in DECODERS if case.name == "causal_lm")
    ids, model = case.inputs(case.config())["input_ids"], shared(framework, case)
    cache = framework.call(model, input_ids=ids[:, :3]).past_key_values
    before = framework.array(cache)
    framework.call(model, input_ids=ids[:, 3:], past_key_values=cache)
    after = framework.array(cache)
    assert all((a == b).all() for one, two in zip(before, after, strict=True) for a, b in zip(one, two, strict=True))


@on_both
def test_an_encoder_returns_no_cache(framework: Framework) -> None:
    case = CASES[0]
    outputs = framework.call(shared(framework, case), **case.inputs(case.config()), use_cache=True)
    assert "past_key_values" not in outputs


@on_both
def test_one_token_raises_no_warning(framework: Framework) -> None:
    case = next(case for case in DECODERS if case.name == "causal_lm")
    model = shared(framework, case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        framework.call(model, input_ids=np.array([[5]]))


# ------------------------------------------------------------------ rows without a key to attend to, and labels


@on_both
@by_case(KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])  # the sweep has float64
def test_all_padding_is_finite(framework: Framework, case: Case, dtype: str) -> None:
    config = case.config()
    model = framework.build(config, case.head, dtype=dtype)
    framework.set_weights(model, random_weights(config, case.head, dtype="float32"))
    inputs = as_dtype(case.inputs(config), np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))
    for name in inputs:
        if name.endswith("attention_mask"):
            inputs[name][:] = 0
    for flags in ({}, {"output_attentions": True}):
        outputs = framework.call(model, **inputs, **flags)
        assert all(np.isfinite(array).all() for array in flat(framework, outputs).values())


@on_both
@pytest.mark.parametrize("name", ["one_label_each", "causal_lm_cross"])
def test_gradients_without_a_key_to_attend_to(framework: Framework, name: str) -> None:
    # PyTorch's fused attention against its explicit form, and the mask that means the same.
    case = next(case for case in CASES if case.name == name)
    inputs = case.inputs(case.config())
    for mask in ("attention_mask", "encoder_attention_mask"):
        if mask in inputs:
            inputs[mask][:] = 0
    if case.head == "causal-lm":
        inputs["attention_mask"][:, 3:] = 1  # else no label would count; the queries before see nothing
    model = shared(framework, case)
    fused = framework.gradients(model, **inputs)
    explicit = framework.gradients(model, **inputs, output_attentions=True)
    scale = max(np.abs(gradient).max() for gradient in explicit.values())
    for parameter, gradient in explicit.items():
        assert np.abs(fused[parameter] - gradient).max() <= 1e-10 * scale, parameter


@on_both
def test_left_padding_never_attends_to_later_tokens(framework: Framework) -> None:
    # The last column of padding predicts the first token.
    case = next(case for case in DECODERS if case.name == "causal_lm")
    inputs = {"input_ids": np.arange(14).reshape(2, 7), "attention_mask": np.array([[0, 0, 1, 1, 1, 1, 1]] * 2)}
    before = _call(framework, case, inputs)["logits"]
    inputs["input_ids"][:, 3:] += 20
    assert difference(_call(framework, case, inputs)["logits"][:, :3], before[:, :3]) <= TOLERANCE


@on_both
@by_case([case for case in WITH_LOSS if case.head in ("masked-lm", "causal-lm", "token-classification")])
def test_a_label_on_padding_does_not_count(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    spelled = np.where(inputs["attention_mask"] == 0, -100, inputs["labels"])
    loss = _call(framework, case, inputs)["loss"]
    assert loss == _call(framework, case, {**inputs, "labels": spelled})["loss"]
    unmasked = {name: array for name, array in inputs.items() if name != "attention_mask"}
    assert loss != _call(framework, case, unmasked)["loss"]


@on_both
@by_case([case for case in WITH_LOSS if case.inputs(case.config()).get("labels", np.zeros(0)).dtype == np.int64])
def test_no_label_that_counts_is_a_loss_of_zero(framework: Framework, case: Case) -> None:
    inputs = case.inputs(case.config())
    inputs["labels"][:] = -100
    assert _call(framework, case, inputs)["loss"] == 0
    gradients = framework.gradients(shared(framework, case), **inputs)
    assert all((gradient == 0).all() for gradient in gradients.values())


@on_both
def test_answers_outside_the_sequence(framework: Framework) -> None:
    case = next(case for case in CASES if case.head == "question-answering")
    inputs = case.inputs(case.config())

    def loss(starts: list[int], ends: list[int]) -> float:
        positions = {"start_positions": np.array(starts), "end_positions": np.array(ends)}
        return float(_call(framework, case, {**inputs, **positions})["loss"])

    assert loss([7, 8, 900], [7, 7, 2**40]) == 0  # s and more are ignored
    assert loss([-1, 2, 3], [-9, 4, 5]) == loss([0, 2, 3], [0, 4, 5])  # negative ones count as 0
    assert loss([1, 7, 3], [2, 7, 5]) != loss([1, 0, 3], [2, 0, 5])
