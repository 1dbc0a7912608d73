"""Calls that are refused before any work is done: the same error, word for word, in both frameworks."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from rembert.common.errors import ConfigError, InputError
from tests.frameworks import PT, TF, Arrays, Framework, on_both
from tests.parity.cases import CASES

BY_NAME = {case.name: case for case in CASES}
CONFIGS = {name: BY_NAME[name].config() for name in BY_NAME}


@cache
def _model(framework: Framework, name: str) -> Any:
    return framework.build(CONFIGS[name], BY_NAME[name].head)


def _ids(batch: int = 2, length: int = 5) -> np.ndarray:
    return np.ones((batch, length), np.int64)


def _with(array: np.ndarray, value: Any) -> np.ndarray:
    array = array.copy()
    array.flat[-1] = value
    return array


class Refusal(NamedTuple):
    """A model, arguments that it must refuse, and parts of the message."""

    case: str
    arguments: dict[str, Any]
    says: tuple[str, ...]


IDS = {"input_ids": _ids()}
LABELS = np.zeros((2, 5), np.int64)
CACHE = tuple((np.zeros((2, 3, 3, 4), np.float32),) * 2 for _ in range(2))  # 3 positions, 2 layers
REFUSALS = {
    # Indices outside their tables. small_config has 61 tokens, 2 token types, 18 positions.
    "id too large": Refusal("model", {"input_ids": _with(_ids(), 61)}, ("`input_ids`", "[0, 60]", "Received: 61")),
    "id negative": Refusal("model", {"input_ids": _with(_ids(), -1)}, ("`vocab_size=61`", "Received: -1")),
    "id far out": Refusal("model", {"input_ids": _with(_ids(), 2**40)}, ("Received: 1099511627776",)),
    "ids of floats": Refusal(
        "model", {"input_ids": _ids().astype(np.float32)}, ("`input_ids`", "integers", "float32")
    ),
    "ids of bools": Refusal("model", {"input_ids": _ids().astype(bool)}, ("`input_ids`", "integers", "bool")),
    "token type": Refusal(
        "model", {**IDS, "token_type_ids": _with(LABELS, 2)}, ("`type_vocab_size=2`", "Received: 2")
    ),
    "token type negative": Refusal("model", {**IDS, "token_type_ids": _with(LABELS, -3)}, ("Received: -3",)),
    "position": Refusal(
        "model", {**IDS, "position_ids": _with(LABELS, 18)}, ("`max_position_embeddings=18`", "Received: 18")
    ),
    "position negative": Refusal("model", {**IDS, "position_ids": _with(LABELS, -1)}, ("Received: -1",)),
    # Shapes.
    "too long": Refusal("model", {"input_ids": _ids(2, 19)}, ("`max_position_embeddings=18`", "19 tokens")),
    "too long with the cache": Refusal(
        "decoder", {"input_ids": _ids(2, 16), "past_key_values": CACHE}, ("19 tokens", "3 of them cached")
    ),
    "no token": Refusal("model", {"input_ids": _ids(2, 0)}, ("at least one token",)),
    "one dimension": Refusal("model", {"input_ids": np.ones(5, np.int64)}, ("`input_ids`", "[5]")),
    "three dimensions": Refusal("model", {"input_ids": np.ones((2, 2, 5), np.int64)}, ("[2, 2, 5]",)),
    "both inputs": Refusal("model", {**IDS, "inputs_embeds": np.zeros((2, 5, 10), np.float32)}, ("both",)),
    "neither input": Refusal("model", {"attention_mask": _ids()}, ("neither",)),
    "width of embeddings": Refusal(
        "model", {"inputs_embeds": np.zeros((2, 5, 12), np.float32)}, ("10]", "[2, 5, 12]")
    ),
    "mask too short": Refusal("model", {**IDS, "attention_mask": _ids(2, 4)}, ("`attention_mask`", "[2, 4]")),
    "mask of another batch": Refusal("model", {**IDS, "attention_mask": _ids(1, 5)}, ("[1, 5]", "[2, 5]")),
    "mask of pairs": Refusal("model", {**IDS, "attention_mask": np.ones((2, 5, 4), np.int64)}, ("[2, 5, 4]",)),
    "mask of four dimensions": Refusal("model", {**IDS, "attention_mask": np.ones((2, 1, 1, 5))}, ("[2, 1, 1, 5]",)),
    "mask without the cache": Refusal(
        "decoder", {**IDS, "attention_mask": _ids(), "past_key_values": CACHE}, ("cached", "[2, 8]", "[2, 5]")
    ),
    "token types of another shape": Refusal("model", {**IDS, "token_type_ids": LABELS[:, :3]}, ("[2, 3]",)),
    "positions of another shape": Refusal("model", {**IDS, "position_ids": LABELS[:, :3]}, ("[2, 3]",)),
    # Decoders.
    "cache without a decoder": Refusal("model", {**IDS, "past_key_values": CACHE}, ("`is_decoder=False`",)),
    "cache of another depth": Refusal(
        "decoder", {**IDS, "past_key_values": CACHE[:1]}, ("1 entries", "`num_hidden_layers=2`")
    ),
    "cache of nothing in a layer": Refusal(
        "decoder", {**IDS, "past_key_values": (CACHE[0], (None, None))}, ("['NoneType', 'NoneType'] in entry 1",)
    ),
    "cache of an empty layer": Refusal("decoder", {**IDS, "past_key_values": ((), ())}, ("tuple in entry 0",)),
    "cache of other dimensions": Refusal(
        "decoder", {**IDS, "past_key_values": ((np.zeros(3),) * 2,) * 2}, ("[[3], [3]] in entry 0",)
    ),
    "cache of no layers": Refusal("decoder", {**IDS, "past_key_values": ()}, ("0 entries", "`num_hidden_layers=2`")),
    "cache of another batch": Refusal(
        "decoder",
        {"input_ids": _ids(3), "past_key_values": CACHE},
        ("`past_key_values[0][0]`", "[3, 3, None, 4]", "[2, 3, 3, 4]"),
    ),
    "cache of other heads": Refusal(
        "decoder",
        {**IDS, "past_key_values": ((np.zeros((2, 4, 3, 3), np.float32),) * 2,) * 2},
        ("`past_key_values[0][0]`", "[2, 3, None, 4]", "[2, 4, 3, 3]"),
    ),
    "cache of several lengths": Refusal(
        "decoder",
        {**IDS, "past_key_values": (CACHE[0], (CACHE[0][0], np.zeros((2, 3, 2, 4), np.float32)))},
        ("`past_key_values[1][1]`", "[2, 3, 3, 4]", "[2, 3, 2, 4]"),
    ),
    "cache of another dtype": Refusal(
        "decoder",
        {**IDS, "past_key_values": ((CACHE[0][0], np.zeros((2, 3, 3, 4), np.float64)), CACHE[1])},
        ("`past_key_values[0][1]`", "float32", "Received: float64"),
    ),
    "cache of one tensor": Refusal(
        "decoder", {**IDS, "past_key_values": (CACHE[0], CACHE[0][:1])}, ("(key, value)", "1 tensors in entry 1")
    ),
    "cache of a source that is not attended to": Refusal(
        "decoder", {**IDS, "past_key_values": (CACHE[0] * 2,) * 2}, ("4 tensors in entry 0",)
    ),
    "cache of a source of two lengths": Refusal(
        "causal_lm_cross",
        {**IDS, "past_key_values": ((*CACHE[0], CACHE[0][0], np.zeros((2, 3, 5, 4), np.float32)),) * 2},
        ("`past_key_values[0][3]`", "source's key", "[2, 3, 5, 4]"),
    ),
    "source without cross-attention": Refusal(
        "causal_lm",
        {**IDS, "encoder_hidden_states": np.zeros((2, 4, 12), np.float32)},
        ("`encoder_hidden_states`", "`add_cross_attention=False`"),
    ),
    "source mask without cross-attention": Refusal(
        "masked_lm", {**IDS, "encoder_attention_mask": _ids()}, ("`encoder_attention_mask`",)
    ),
    "width of the source": Refusal(
        "causal_lm_cross", {**IDS, "encoder_hidden_states": np.zeros((2, 4, 7), np.float32)}, ("[2, 4, 7]",)
    ),
    "source mask of another shape": Refusal(
        "causal_lm_cross",
        {
            **IDS,
            "encoder_hidden_states": np.zeros((2, 4, 12), np.float32),
            "encoder_attention_mask": np.ones((2, 5), np.int64),
        },
        ("`encoder_attention_mask`", "[2, 5]"),
    ),
    # Labels.
    "masked token label": Refusal(
        "masked_lm", {**IDS, "labels": _with(LABELS, 61)}, ("[0, 60]", "-100", "Received: 61")
    ),
    "next token label": Refusal("causal_lm", {**IDS, "labels": _with(LABELS, -1)}, ("Received: -1",)),
    "labels and positions": Refusal(
        "masked_lm",
        {**IDS, "labels": LABELS, "logits_at": LABELS[:, :2]},
        ("`labels`", "of `logits_at`", "[2, 2]", "[2, 5]"),
    ),
    "positions of logits": Refusal(
        "causal_lm",
        {**IDS, "logits_at": _with(LABELS[:, :2], 5)},
        ("`logits_at`", "[0, 4]", "5 tokens", "Received: 5"),
    ),
    "position of logits negative": Refusal(
        "masked_lm", {**IDS, "logits_at": _with(LABELS[:, :2], -1)}, ("`logits_at`", "Received: -1")
    ),
    "positions of logits' batch": Refusal(
        "masked_lm", {**IDS, "logits_at": LABELS[:1]}, ("`logits_at`", "[batch, positions]", "[1, 5]")
    ),
    "positions of logits as floats": Refusal(
        "masked_lm", {**IDS, "logits_at": LABELS.astype(np.float32)}, ("`logits_at`", "integers", "float32")
    ),
    "token label": Refusal("token_classification", {**IDS, "labels": _with(LABELS, 5)}, ("[0, 4]", "Received: 5")),
    "token label -99": Refusal("token_classification", {**IDS, "labels": _with(LABELS, -99)}, ("Received: -99",)),
    "token labels' shape": Refusal("token_classification", {**IDS, "labels": LABELS[:, :4]}, ("[2, 4]",)),
    "token labels of floats": Refusal(
        "token_classification", {**IDS, "labels": LABELS.astype(np.float32)}, ("`labels`", "integers", "float32")
    ),
    "token labels of bools": Refusal(
        "token_classification", {**IDS, "labels": LABELS.astype(bool)}, ("`labels`", "integers", "bool")
    ),
    "class label": Refusal("one_label_each", {**IDS, "labels": np.array([0, 5])}, ("[0, 4]", "Received: 5")),
    "class label negative": Refusal("one_label_each", {**IDS, "labels": np.array([0, -1])}, ("Received: -1",)),
    "class labels' number": Refusal("one_label_each", {**IDS, "labels": np.array([0, 1, 2])}, ("[3]",)),
    "labels of several classes": Refusal("several_labels", {**IDS, "labels": np.zeros((2, 4))}, ("[2, 4]", "[2, 5]")),
    "numbers": Refusal("several_numbers", {**IDS, "labels": np.zeros(2)}, ("[2]", "[2, 5]")),
    "one number": Refusal("one_number", {**IDS, "labels": np.zeros(3)}, ("[3]",)),
    "positions' number": Refusal(
        "question_answering",
        {**IDS, "start_positions": np.array([1]), "end_positions": np.array([1, 2])},
        ("`start_positions`", "[1]"),
    ),
    "positions of floats": Refusal(
        "question_answering", {**IDS, "start_positions": np.zeros(2)}, ("`start_positions`", "integers", "float64")
    ),
    "positions of bools": Refusal(
        "question_answering", {**IDS, "end_positions": np.zeros(2, bool)}, ("`end_positions`", "integers", "bool")
    ),
    # Choices.
    "no choices": Refusal("multiple_choice", IDS, ("[batch, choices, sequence]", "[2, 5]")),
    "choice label": Refusal(
        "multiple_choice",
        {"input_ids": np.ones((2, 3, 5), np.int64), "labels": np.array([0, 3])},
        ("[0, 2]", "3 choices", "Received: 3"),
    ),
    "mask of no choices": Refusal(
        "multiple_choice",
        {"input_ids": np.ones((2, 3, 5), np.int64), "attention_mask": np.ones((2, 5), np.int64)},
        ("`attention_mask`", "[2, 5]"),
    ),
    "mask of other choices": Refusal(
        "multiple_choice",
        {"input_ids": np.ones((2, 3, 5), np.int64), "attention_mask": np.ones((3, 2, 5), np.int64)},
        ("`attention_mask`", "[3, 2, 5]"),
    ),
    "neither choice": Refusal("multiple_choice", {"labels": np.array([0, 3])}, ("neither",)),
}
each = pytest.mark.parametrize("name", REFUSALS)


def _said(framework: Framework, name: str) -> str:
    refusal = REFUSALS[name]
    with pytest.raises(InputError) as error:
        framework.call(_model(framework, refusal.case), **refusal.arguments)
    return str(error.value)


@on_both
@each
def test_bad_input_is_refused(framework: Framework, name: str) -> None:
    said = _said(framework, name)
    assert all(part in said for part in REFUSALS[name].says), said


@each
def test_both_frameworks_give_the_same_message(name: str) -> None:
    pytest.importorskip("torch"), pytest.importorskip("keras")
    assert _said(PT, name) == _said(TF, name)


@on_both
def test_other_objects_than_tensors_are_refused(framework: Framework) -> None:
    with pytest.raises(InputError, match=r"`attention_mask` must be a.* Received: str"):
        framework.call(_model(framework, "model"), **IDS, attention_mask="all")
    with pytest.raises(InputError, match=r"`past_key_values` must be a tuple.* Received: \w*Tensor\."):
        framework.call(_model(framework, "decoder"), **IDS, past_key_values=np.zeros((2, 2, 2, 3, 3, 4), np.float32))
    for case in ("one_label_each", "masked_lm", "causal_lm", "token_classification"):
        with pytest.raises(InputError, match=r"`labels` must be a.* Received: list"):
            framework.call(_model(framework, case), **IDS, labels=[1, 2])
    with pytest.raises(InputError, match=r"`end_positions` must be a.* Received: list"):
        framework.call(_model(framework, "question_answering"), **IDS, end_positions=[1, 2])


@on_both
def test_valid_calls_are_accepted(framework: Framework) -> None:
    """The edges of every range."""
    ends: Arrays = {"input_ids": _with(_ids(2, 18), 60), "token_type_ids": _with(LABELS[:, :1].repeat(18, 1), 1)}
    framework.call(_model(framework, "model"), **ends, position_ids=np.arange(18)[None])
    framework.call(_model(framework, "token_classification"), **IDS, labels=_with(_with(LABELS, 4), -100))
    framework.call(_model(framework, "one_label_each"), **IDS, labels=np.array([[0], [4]]))
    framework.call(_model(framework, "one_number"), **IDS, labels=np.array([[0.5], [4]]))
    framework.call(_model(framework, "decoder"), input_ids=_ids(2, 15), past_key_values=CACHE)
    framework.call(
        _model(framework, "question_answering"),
        **IDS,
        start_positions=np.array([[-1], [99]]),
        end_positions=np.array([[-1], [99]]),
    )


@on_both
@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32])
def test_integers_of_any_width(framework: Framework, kind: type) -> None:
    """Labels too: what is ignored among them must not wrap around."""
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    for case, labels in (("token_classification", LABELS + 1), ("masked_lm", LABELS + 3), ("causal_lm", LABELS + 3)):
        arguments = {"input_ids": _ids(), "attention_mask": mask, "token_type_ids": LABELS, "labels": labels}
        model = _model(framework, case)
        wanted = float(framework.call(model, **arguments).loss)
        assert float(framework.call(model, **{key: a.astype(kind) for key, a in arguments.items()}).loss) == wanted
    positions = {"start_positions": np.array([1, 100]), "end_positions": np.array([2, 0])}
    model = _model(framework, "question_answering")
    wanted = float(framework.call(model, **IDS, **positions).loss)
    got = framework.call(model, **IDS, **{name: array.astype(kind) for name, array in positions.items()})
    assert float(got.loss) == wanted


@on_both
def test_a_model_needs_a_configuration(framework: Framework) -> None:
    with pytest.raises(ConfigError, match=r"`config` must be a RemBertConfig\. Received: `config={"):
        framework.model_class("model")({"hidden_size": 4})
    config = BY_NAME["model"].config()
    config.hidden_size = 13
    with pytest.raises(ConfigError, match="`hidden_size=13` and `num_attention_heads=3`"):
        framework.model_class("model")(config)
