"""The output classes: ordered mappings with attributes, of which None is no part."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from rembert.common.outputs import (
    OUTPUT_TYPES,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    ModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)

every_type = pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)


def _answer() -> QuestionAnsweringModelOutput:
    return QuestionAnsweringModelOutput(end_logits=np.ones(2), start_logits=np.zeros(2), hidden_states=None)


def test_mapping_holds_the_fields_that_are_present() -> None:
    output = _answer()
    assert list(output) == list(output.keys()) == ["start_logits", "end_logits"]  # as declared, not as given
    assert len(output) == 2
    assert type(dict(output)) is dict
    assert dict(output).keys() == output.keys()
    assert "loss" not in output
    assert output.get("loss") is None
    with pytest.raises(KeyError):
        output["loss"]
    assert {**output}["end_logits"] is output.end_logits


def test_attributes_of_absent_fields_are_none() -> None:
    output = _answer()
    assert output.start_logits is output["start_logits"]
    assert output.loss is None
    assert output.attentions is None
    with pytest.raises(AttributeError, match="logits"):
        _ = output.logits
    assert not hasattr(output, "pooler_output")


def test_positions_and_slices_count_present_fields() -> None:
    output = _answer()
    assert output[0] is output.start_logits
    assert output[-1] is output.end_logits
    assert output[:1] == (output.start_logits,)
    assert output.to_tuple() == (output.start_logits, output.end_logits)
    assert output[np.int64(1)] is output.end_logits
    with pytest.raises(IndexError):
        output[2]
    start, end = output.to_tuple()
    assert (start, end) == (output[0], output[1])


def test_flatten_numbers_what_is_in_tuples() -> None:
    cache = ((np.zeros(1), np.ones(1)), (np.ones(2), np.ones(3)))
    output = CausalLMOutputWithCrossAttentions(logits=np.ones(4), past_key_values=cache)
    flat = output.flatten()
    names = ["past_key_values.0.0", "past_key_values.0.1", "past_key_values.1.0", "past_key_values.1.1"]
    assert list(flat) == ["logits", *names]
    assert flat["past_key_values.1.0"] is cache[1][0]


@pytest.mark.parametrize("by_key", [True, False])
def test_fields_keep_their_order_when_set_later(by_key: bool) -> None:
    output = _answer()
    if by_key:
        output["loss"] = 3.0
    else:
        output.loss = 3.0
    assert list(output) == ["loss", "start_logits", "end_logits"]
    assert output[0] == output.loss == 3.0
    assert next(iter(output.values())) == output.to_tuple()[0]
    if by_key:
        output["loss"] = None
    else:
        output.loss = None
    assert list(output) == ["start_logits", "end_logits"]
    output["start_logits"] = 5
    assert output[0] == 5


@every_type
def test_unknown_keywords_are_refused(kind: type[ModelOutput]) -> None:
    with pytest.raises(KeyError, match="lojits"):
        kind(lojits=1)
    with pytest.raises(AttributeError, match="lojits"):
        _ = kind().lojits


def test_other_keys_come_after_the_fields() -> None:
    output = _answer()
    output["score"] = 3
    output.place = (4, 5)
    output.loss = 1.0
    assert list(output) == ["loss", "start_logits", "end_logits", "score", "place"]
    assert (output.score, output["place"], output[3], output[-1]) == (3, (4, 5), 3, (4, 5))
    assert output.to_tuple() == tuple(output.values())
    output["score"] = None
    assert "score" not in output
    with pytest.raises(AttributeError, match="score"):
        _ = output.score


@pytest.mark.parametrize("way", ["update", "keywords", "|=", "setdefault"])
def test_updates_keep_the_order_and_are_pickled(way: str) -> None:
    output = SequenceClassifierOutput(logits=np.ones(2))
    added = {"names": ["a"], "loss": 2.0, "attentions": None}
    if way == "update":
        output.update(added)
    elif way == "keywords":
        output.update(**added)
    elif way == "|=":
        output |= added
    else:
        for name, value in added.items():
            output.setdefault(name, value)
    assert list(output) == ["loss", "logits", "names"]
    for twin in (
        pickle.loads(pickle.dumps(output)),
        copy.deepcopy(output),
        output.copy(),
        type(output)(output.items()),
    ):
        assert type(twin) is SequenceClassifierOutput
        assert list(twin) == list(output)
        assert (twin[0], twin[2], twin.names) == (2.0, ["a"], ["a"])


def test_a_plain_tuple_keeps_the_pooler_in_its_position() -> None:
    states = (np.zeros(1), np.ones(1))
    output = BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states[1], hidden_states=states)
    assert output.to_plain_tuple() == (states[1], None, states)
    assert output.to_tuple() == (states[1], states)
    assert SequenceClassifierOutput(logits=1).to_plain_tuple() == (1,)


@every_type
def test_copies_keep_class_and_content(kind: type[ModelOutput]) -> None:
    whole = kind({name: (np.arange(3), np.arange(2)) for name in kind.fields})
    assert tuple(whole) == kind.fields
    for output in (whole, kind({kind.fields[-1]: (np.arange(3),)}), kind()):
        for twin in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
            assert type(twin) is kind
            assert list(twin) == list(output)
            for one, other in zip(twin.to_tuple(), output.to_tuple(), strict=True):
                assert all((a == b).all() for a, b in zip(one, other, strict=True))
    deep = copy.deepcopy(whole)
    deep[0][0][0] = 9
    assert whole[0][0][0] == 0


def test_mappings_and_pairs_give_the_same_output() -> None:
    pairs = [("logits", 2), ("loss", 1)]
    for output in (
        CausalLMOutputWithCrossAttentions(pairs),
        CausalLMOutputWithCrossAttentions(dict(pairs)),
        CausalLMOutputWithCrossAttentions({"logits": 2}, loss=1),
    ):
        assert output.to_tuple() == (1, 2)


def test_order_is_that_of_transformers() -> None:
    # A caller that unpacks a tuple relies on it.
    fields = BaseModelOutputWithPoolingAndCrossAttentions.fields
    names = "last_hidden_state pooler_output past_key_values hidden_states attentions cross_attentions"
    assert fields == tuple(names.split())
    assert CausalLMOutputWithCrossAttentions.fields[:3] == ("loss", "logits", "past_key_values")
