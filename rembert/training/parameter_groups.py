"""Groups of parameters that share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rembert.common.parameters import Kind, Parameter
from rembert.training.recipe import Recipe

_EMBEDDINGS = "rembert.embeddings."
_LAYER = "rembert.encoder.layer."


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters by canonical name, the factor of their learning rate, and their weight decay."""

    names: tuple[str, ...]
    rate_factor: float
    weight_decay: float


def parameter_groups(recipe: Recipe, table: Mapping[str, Parameter]) -> list[ParameterGroup]:
    """The trained parameters of a model in groups; frozen ones are in none.

    Args:
        recipe: the frozen parameters, the rates and the decay.
        table: the model's parameters by canonical name.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    layers = 1 + max((_layer(name) for name in table), default=0)
    for name, parameter in table.items():
        if recipe.freeze_embeddings and name.startswith(_EMBEDDINGS):
            continue
        decay = recipe.weight_decay if parameter.kind in (Kind.KERNEL, Kind.EMBEDDING) else 0.0
        groups.setdefault((recipe.layer_decay ** _depth(name, layers), decay), []).append(name)
    return [ParameterGroup(tuple(names), factor, decay) for (factor, decay), names in groups.items()]


def _layer(name: str) -> int:
    return int(name.removeprefix(_LAYER).split(".")[0]) if name.startswith(_LAYER) else -1


def _depth(name: str, layers: int) -> int:
    """The number of layers above a parameter: 0 for the head, 1 for the top layer; all of them and 1 below them."""
    if name.startswith(_LAYER):
        return layers - _layer(name)
    return layers + 1 if name.startswith((_EMBEDDINGS, "rembert.encoder.")) else 0
