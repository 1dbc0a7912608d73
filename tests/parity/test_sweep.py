"""A random search over configurations and inputs for anything on which PyTorch and TensorFlow differ, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert.common.config import RemBertConfig
from rembert.common.config_values import ACTIVATIONS
from tests.amounts import EXAMPLES
from tests.frameworks import PT, TF, Arrays, flat, needs_pt, needs_tf
from tests.parity.cases import CASES, Case, build_both

pytestmark = [needs_pt, needs_tf]

# Of the largest number in any output, or in any gradient of the model: a single one may be zero but for rounding, as
# the gradient of a query with a single key.
TOLERANCE = 1e-10


class Example(NamedTuple):
    case: Case
    config: RemBertConfig
    inputs: Arrays
    flags: dict[str, bool]
    seed: int


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any head, any sizes down to one of everything, any combination of arguments that go together."""
    case = draw(st.sampled_from(CASES))
    vocabulary, heads = draw(st.integers(2, 40)), draw(st.integers(1, 3))
    widths = heads * draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    # LayerNorm of a few numbers that are nearly equal divides rounding by the root of epsilon, its gradient by the
    # root's third power, so a small one would show rounding and nothing else. The fixed cases have 1e-12.
    epsilon = draw(st.sampled_from([1e-3, 1e-2]))
    config = case.config(
        vocab_size=vocabulary,
        num_attention_heads=heads,
        hidden_size=widths[0],
        num_hidden_layers=draw(st.integers(1, 2)),
        input_embedding_size=widths[1],
        output_embedding_size=widths[2],
        intermediate_size=draw(st.integers(1, 9)),
        max_position_embeddings=draw(st.integers(8, 12)),
        type_vocab_size=draw(st.integers(1, 4)),
        num_labels=draw(st.integers(2, 4)),
        hidden_act=draw(st.sampled_from(ACTIVATIONS)),
        layer_norm_eps=epsilon,
        pad_token_id=draw(st.none() | st.integers(0, vocabulary - 1)),
    )
    batch, length, seed = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(0, 999))
    inputs = case.inputs(config, seed, batch, length)
    numbers = np.random.default_rng(seed + 1)
    rows = inputs["input_ids"].shape[:-1]

    mask = draw(st.sampled_from(["none", "end", "start", "holes", "all padding", "matrix"]))
    if mask == "none" or (mask == "matrix" and case.head == "multiple-choice"):
        del inputs["attention_mask"]
    elif mask == "start":
        inputs["attention_mask"] = inputs["attention_mask"][..., ::-1].copy()
    elif mask == "holes":
        inputs["attention_mask"] = numbers.integers(0, 2, (*rows, length))
    elif mask == "all padding":
        inputs["attention_mask"][-1] = 0
    elif mask == "matrix":
        inputs["attention_mask"] = numbers.integers(0, 2, (*rows, length, length))
    if "attention_mask" in inputs:
        kind = draw(st.sampled_from(["int64", "int32", "bool", "float32"]))
        inputs["attention_mask"] = inputs["attention_mask"].astype(kind)

    if draw(st.booleans()):
        del inputs["token_type_ids"]
    if draw(st.booleans()):
        every = (*rows, length) if case.head == "multiple-choice" or draw(st.booleans()) else (1, length)
        inputs["position_ids"] = numbers.integers(0, config.max_position_embeddings, every)
    if draw(st.booleans()):
        del inputs["input_ids"]
        inputs["inputs_embeds"] = numbers.standard_normal((*rows, length, config.input_embedding_size))
    if config.add_cross_attention:
        source = draw(st.sampled_from(["no source", "no mask", "mask", "matrix"]))
        if source == "no source":
            del inputs["encoder_hidden_states"]
        if source != "mask":
            del inputs["encoder_attention_mask"]
        if source == "matrix":
            shape = (batch, length, inputs["encoder_hidden_states"].shape[1])
            inputs["encoder_attention_mask"] = numbers.integers(0, 2, shape)
    for name in inputs:
        if inputs[name].dtype == np.int64 and draw(st.booleans()):
            inputs[name] = inputs[name].astype(np.int32)
    flags = {name: draw(st.booleans()) for name in ("output_attentions", "output_hidden_states")}
    return Example(case, config, inputs, flags, seed)


def check(example: Example) -> None:
    models = build_both(example.case, example.config, seed=example.seed)
    pt, tf = (
        flat(each, each.call(model, **example.inputs, **example.flags))
        for each, model in zip((PT, TF), models, strict=True)
    )
    check_near(pt, tf)
    if "loss" in pt:
        pt, tf = (each.gradients(model, **example.inputs) for each, model in zip((PT, TF), models, strict=True))
        check_near(pt, tf)


def check_near(pt: Arrays, tf: Arrays) -> None:
    assert list(pt) == list(tf)
    # A model of width 1 may have no gradient at all: then rounding has nothing to be a part of.
    scale = max(1e-4, *(np.abs(array).max(initial=0.0) for array in pt.values()))
    for name, array in pt.items():
        assert np.isfinite(array).all(), name
        if () not in (np.shape(array), np.shape(tf[name])):  # a 0 alone stands for a parameter that was not used
            assert np.shape(tf[name]) == np.shape(array), name
        assert np.abs(array - tf[name]).max(initial=0.0) <= TOLERANCE * scale, name


@given(examples())
def test_any_model_on_any_input(example: Example) -> None:
    check(example)


@pytest.mark.slow
@settings(settings.get_profile("slow"), max_examples=EXAMPLES)
@given(examples())
def test_any_model_on_any_input_at_length(example: Example) -> None:
    check(example)
