"""The parameter table: counts, names, and how a checkpoint's names are matched with it."""

from __future__ import annotations

import pytest

from rembert import RemBertConfig
from rembert.common.errors import CheckpointError
from rembert.common.name_matching import canonical_name, match
from rembert.common.parameters import HEADS, Kind, file_name, parameter_count, parameters
from tests.frameworks import PT, needs_pt, small_config


def test_counts_of_the_released_model() -> None:
    # The paper's table says 575M in fine-tuning and 995M in pre-training; these are the released files' own.
    assert parameter_count(RemBertConfig(), "model") == 575_920_384
    assert parameter_count(RemBertConfig(), "masked-lm") == 993_263_548


@needs_pt
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("settings", [{}, {"is_decoder": True, "add_cross_attention": True}], ids=["encoder", "cross"])
@pytest.mark.filterwarnings("ignore")
def test_every_head_at_full_size_is_what_the_table_says(head: str, settings: dict[str, bool]) -> None:
    import torch

    config = RemBertConfig(**settings)
    with torch.device("meta"):
        model = PT.model_class(head)(config)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own == {file_name(name, head): each.shape for name, each in parameters(config, head).items()}
    assert model.num_parameters() == parameter_count(config, head)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_kinds() -> None:
    table = parameters(small_config(), "masked-lm")
    for name, parameter in table.items():
        ranks = {Kind.EMBEDDING: 2, Kind.KERNEL: 2, Kind.BIAS: 1, Kind.SCALE: 1, Kind.SHIFT: 1}
        assert len(parameter.shape) == ranks[parameter.kind]
        assert ("LayerNorm" in name) == (parameter.kind in (Kind.SCALE, Kind.SHIFT))
        assert ("_embeddings." in name) == (parameter.kind is Kind.EMBEDDING)
        assert parameter.name == name


def test_the_pooler_can_be_chosen() -> None:
    pooler = {"rembert.pooler.dense.weight", "rembert.pooler.dense.bias"}
    for name, head in HEADS.items():
        table = parameters(small_config(), name).keys()
        assert (pooler <= table) == head.has_pooler
        assert parameters(small_config(), name, pooler=True).keys() == table | pooler
        assert parameters(small_config(), name, pooler=False).keys() == table - pooler


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
def test_spellings(name: str, canonical: str | None) -> None:
    assert canonical_name(name) == canonical


def test_canonical_names_stay() -> None:
    for head in HEADS:
        for name in parameters(small_config(is_decoder=True, add_cross_attention=True), head):
            assert canonical_name(name) == name
            assert canonical_name(file_name(name, head)) == name


def test_every_tensor_is_in_one_list() -> None:
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


def test_one_parameter_under_two_spellings() -> None:
    table = parameters(small_config(), "model")
    with pytest.raises(CheckpointError, match=r"`embeddings\.LayerNorm\.gamma` and `rembert\.embeddings"):
        match(table, {"embeddings.LayerNorm.gamma": (10,), "rembert.embeddings.LayerNorm.weight": (10,)})
