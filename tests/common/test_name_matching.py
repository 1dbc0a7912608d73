"""The tensors of a checkpoint, matched by name and shape with a model's parameters."""

from __future__ import annotations

import pytest

from rembert.common.errors import CheckpointError, InputError
from rembert.common.name_matching import canonical_name, check_shapes, match
from rembert.common.parameters import HEADS, file_name, parameters
from tests.frameworks import small_config


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("rembert.encoder.layer.3.output.LayerNorm.gamma", "rembert.encoder.layer.3.output.LayerNorm.weight"),
        ("embeddings.LayerNorm.beta", "rembert.embeddings.LayerNorm.bias"),
        ("encoder.layer.0.output.dense.bias", "rembert.encoder.layer.0.output.dense.bias"),
        ("pooler.dense.weight", "rembert.pooler.dense.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.decoder.bias"),
        ("module.rembert.pooler.dense.bias", "rembert.pooler.dense.bias"),
        ("module.encoder.layer.0.output.dense.bias", "rembert.encoder.layer.0.output.dense.bias"),
        ("embeddings.position_ids", None),
        ("rembert.embeddings.position_ids", None),
    ],
)
def test_other_spellings_become_canonical(name: str, canonical: str | None) -> None:
    assert canonical_name(name) == canonical


def test_canonical_names_are_kept() -> None:
    for head in HEADS:
        for name in parameters(small_config(is_decoder=True, add_cross_attention=True), head):
            assert canonical_name(name) == name
            assert canonical_name(file_name(name, head)) == name


def test_tensors_are_each_in_one_list() -> None:
    table = parameters(small_config(num_hidden_layers=1), "token-classification")
    tensors = {name: parameter.shape for name, parameter in table.items()}
    classifier = tensors.pop("classifier.weight")
    tensors["classifier.bias"] = (9,)
    tensors["rembert.pooler.dense.bias"] = (12,)
    tensors["embeddings.position_ids"] = (1, 18)
    tensors["rembert.encoder.layer.7.output.dense.bias"] = (12,)
    tensors["qa_outputs.weight"] = (2, 12)
    tensors["lm_head.weight"] = (3,)
    found = match(table, tensors)
    assert classifier == (5, 12)
    assert found.missing == ["classifier.weight"]
    assert [(each.name, each.in_checkpoint, each.in_model) for each in found.mismatched] == [
        ("classifier.bias", (9,), (5,))
    ]
    assert found.fresh == ["classifier.weight", "classifier.bias"]
    assert found.ignored == ["rembert.pooler.dense.bias", "embeddings.position_ids"]
    assert found.unused == ["rembert.encoder.layer.7.output.dense.bias", "qa_outputs.weight"]
    assert found.unexpected == ["lm_head.weight"]
    assert len(found.found) == len(table) - 2


def test_two_spellings_of_one_parameter_are_refused() -> None:
    table = parameters(small_config(), "model")
    with pytest.raises(CheckpointError, match=r"`embeddings\.LayerNorm\.gamma` and `rembert\.embeddings"):
        match(table, {"embeddings.LayerNorm.gamma": (10,), "rembert.embeddings.LayerNorm.weight": (10,)})


def test_shapes_of_another_configuration_are_refused() -> None:
    table = parameters(small_config(), "model")
    shapes = {name: parameter.shape for name, parameter in table.items()}
    check_shapes(table, shapes)
    shapes["rembert.embeddings.word_embeddings.weight"] = (70, 10)
    with pytest.raises(InputError, match=r"must have the shape .* \[61, 10\]\. Received: \[70"):
        check_shapes(table, shapes)
