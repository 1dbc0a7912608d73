"""A checkpoint's tensors matched by name and shape with the parameters of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import BASE_PREFIX, HEADS, Head, Parameter, parameters


def canonical_name(name: str) -> str | None:
    """The canonical spelling of a name found in a checkpoint, or None for what is no parameter.

    Understands `LayerNorm.gamma`/`beta`, and adds the `rembert.` prefix that a bare encoder's checkpoint lacks.
    Old `position_ids` buffers are no parameters.
    """
    if name.endswith(".position_ids"):
        return None
    name = name.removeprefix("module.")  # a model saved from inside a data-parallel wrapper
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = BASE_PREFIX + name
    return name


@dataclass(frozen=True)
class Mismatch:
    """A parameter whose shape in the checkpoint differs from the model's."""

    name: str
    in_checkpoint: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """How a checkpoint's tensors fit a model's parameters, by canonical name.

    `found` maps a parameter to the tensor that holds it. Tensors that no parameter takes are in one of three lists:
    `ignored` are passed over in silence (a pooler beside a head without one, old buffers), `unused` belong to a
    RemBERT with another head or more layers, `unexpected` belong to no RemBERT.
    """

    found: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> list[str]:
        """Parameters that the checkpoint does not give: missing or mismatched."""
        return [*self.missing, *(mismatch.name for mismatch in self.mismatched)]


def match(wanted: Mapping[str, Parameter], tensors: Mapping[str, tuple[int, ...]]) -> Match:
    """Find the tensor of every wanted parameter.

    Args:
        wanted: the model's parameters by canonical name.
        tensors: a checkpoint's tensor names, as they stand in its files, and shapes in PyTorch's orientation.

    Raises:
        CheckpointError: two tensors are the same parameter under two spellings.
    """
    result = Match()
    known = _known_names(tuple(HEADS.values()))
    for name in tensors:
        canonical = canonical_name(name)
        if canonical is None:
            result.ignored.append(name)
        elif canonical in result.found:
            raise CheckpointError(
                f"Two tensors are the same parameter `{canonical}`: `{result.found[canonical]}` and `{name}`."
            )
        elif canonical in wanted:
            result.found[canonical] = name
        elif canonical.startswith("rembert.pooler."):
            result.ignored.append(name)
        elif _LAYER_INDEX.sub(".layer.0.", canonical) in known:
            result.unused.append(name)
        else:
            result.unexpected.append(name)
    for name, parameter in wanted.items():
        if name not in result.found:
            result.missing.append(name)
        elif (shape := tensors[result.found[name]]) != parameter.shape:
            result.mismatched.append(Mismatch(name, shape, parameter.shape))
            del result.found[name]
    return result


def check_shapes(wanted: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse to save tensors that the model's own configuration would not take back.

    Args:
        wanted: the model's parameters by canonical name.
        shapes: of the tensors, by the same names, in PyTorch's orientation.

    Raises:
        InputError: quotes the first that does not fit.
    """
    for name, parameter in wanted.items():
        if shapes[name] != parameter.shape:
            raise InputError(
                f"`{name}` must have the shape that the configuration says, {list(parameter.shape)}. Received: "
                f"{list(shapes[name])}. `resize_token_embeddings` of the whole model changes all tables together."
            )


_LAYER_INDEX = re.compile(r"\.layer\.\d+\.")


@cache
def _known_names(heads: tuple[Head, ...]) -> frozenset[str]:
    """The names of all parameters of these heads, with every feature on and a single layer."""
    config = RemBertConfig(num_hidden_layers=1, is_decoder=True, add_cross_attention=True)
    return frozenset(name for head in heads for name in parameters(config, head.name, pooler=True))
