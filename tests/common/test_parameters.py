"""The parameter table: counts, kinds and shapes, and which heads have a pooler."""

from __future__ import annotations

import pytest

from rembert import RemBertConfig
from rembert.common.parameters import HEADS, Kind, file_name, parameter_count, parameters
from tests.frameworks import PT, needs_pt, small_config


def test_counts_are_those_of_the_released_model() -> None:
    # The paper's table says 575M in fine-tuning and 995M in pre-training; these are the released files' own.
    assert parameter_count(RemBertConfig(), "model") == 575_920_384
    assert parameter_count(RemBertConfig(), "masked-lm") == 993_263_548


@needs_pt
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("settings", [{}, {"is_decoder": True, "add_cross_attention": True}], ids=["encoder", "cross"])
@pytest.mark.filterwarnings("ignore")
def test_models_of_released_size_have_the_declared_parameters(head: str, settings: dict[str, bool]) -> None:
    import torch

    config = RemBertConfig(**settings)
    with torch.device("meta"):
        model = PT.model_class(head)(config)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own == {file_name(name, head): each.shape for name, each in parameters(config, head).items()}
    assert model.num_parameters() == parameter_count(config, head)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_kinds_follow_names_and_shapes() -> None:
    table = parameters(small_config(), "masked-lm")
    for name, parameter in table.items():
        ranks = {Kind.EMBEDDING: 2, Kind.KERNEL: 2, Kind.BIAS: 1, Kind.SCALE: 1, Kind.SHIFT: 1}
        assert len(parameter.shape) == ranks[parameter.kind]
        assert ("LayerNorm" in name) == (parameter.kind in (Kind.SCALE, Kind.SHIFT))
        assert ("_embeddings." in name) == (parameter.kind is Kind.EMBEDDING)
        assert parameter.name == name


def test_pooler_can_be_chosen() -> None:
    pooler = {"rembert.pooler.dense.weight", "rembert.pooler.dense.bias"}
    for name, head in HEADS.items():
        table = parameters(small_config(), name).keys()
        assert (pooler <= table) == head.has_pooler
        assert parameters(small_config(), name, pooler=True).keys() == table | pooler
        assert parameters(small_config(), name, pooler=False).keys() == table - pooler
