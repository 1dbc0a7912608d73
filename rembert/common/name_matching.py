"""Match the tensors of a checkpoint with the parameters of a model, by name and shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import BASE_MODEL, BASE_PREFIX, HEADS, Head, Parameter, parameters


def canonical_name(name: str) -> str | None:
    """The canonical name of a tensor in a PyTorch checkpoint; None for the `position_ids` buffers of old checkpoints.

    `gamma` and `beta` become `weight` and `bias`, and names of a base model get the prefix `rembert.`.

    Example:
        >>> canonical_name("embeddings.LayerNorm.gamma")
        'rembert.embeddings.LayerNorm.weight'
    """
    if name.endswith(".position_ids"):
        return None
    name = name.removeprefix("module.")  # saved from a data-parallel wrapper
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = BASE_PREFIX + name
    return name


@dataclass(frozen=True)
class Mismatch:
    """A parameter with different shapes in a checkpoint and in a model."""

    name: str
    in_checkpoint: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """The result of `match`.

    Attributes:
        found: the name of the tensor for each parameter that the checkpoint has.
        missing: parameters that the checkpoint lacks.
        mismatched: parameters with another shape in the checkpoint.
        unused: tensors of a RemBERT with another head or more layers.
        unexpected: tensors that do not belong to a RemBERT.
        ignored: tensors that no report mentions: a pooler that the head does not have, and old buffers.
    """

    found: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> list[str]:
        """The parameters that must be newly initialised: those missing and those mismatched."""
        return [*self.missing, *(mismatch.name for mismatch in self.mismatched)]


def match(wanted: Mapping[str, Parameter], tensors: Mapping[str, tuple[int, ...]]) -> Match:
    """Find the tensor of each parameter.

    Args:
        wanted: the model's parameters by canonical name.
        tensors: the shapes of a checkpoint's tensors, in PyTorch's orientation, by the names in its files.

    Raises:
        CheckpointError: two tensors have names of the same parameter.
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


def kept_tensors(match: Match, config: RemBertConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The tensors that a model keeps for the next one though its head does not use them: the pooler.

    The parameters of another head are not kept: they were trained with another encoder than the one that is saved.

    Args:
        match: from `match`.
        config: the model's.
        shapes: of the checkpoint's tensors by their names in the files.

    Returns:
        The name of each tensor by canonical name.
    """
    table = parameters(config, BASE_MODEL)
    named = {canonical_name(name): name for name in match.ignored}
    return {each: name for each, name in named.items() if each in table and shapes[name] == table[each].shape}


# What a layer is called in `state_dict` when its parameter is computed from others, and how to make it plain again.
_COMPUTED = {
    "_orig": "torch.nn.utils.prune.remove(layer, 'weight')",
    "_v": "torch.nn.utils.remove_weight_norm(layer)",
    "parametrizations": "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    "base_layer": "`merge_and_unload()` of the adapter",
}


def check_complete(state: Mapping[str, object], names: Iterable[str]) -> None:
    """Check before saving that a `state_dict` holds every parameter.

    Args:
        state: by the names of `state_dict`.
        names: of the parameters.

    Raises:
        InputError: names those missing, and says what to do about a layer that was pruned, parametrised, adapted or
            replaced.
    """
    absent = [name for name in names if name not in state]
    if not absent:
        return
    layer, _, last = absent[0].rpartition(".")
    inside = [name.removeprefix(f"{layer}.") for name in state if name.startswith(f"{layer}.")]
    remedy = ""
    for mark, call in _COMPUTED.items():
        if any(name in (f"{last}{mark}", f"{mark}_{last}") or name.startswith(f"{mark}.") for name in inside):
            remedy = f" `{layer}` computes it from other parameters. Make it plain first: {call}."
            break
    if inside and not remedy and last not in inside:
        remedy = f" {replaced(layer, inside)}"
    raise InputError(f"`state_dict` must hold every parameter. Missing: {', '.join(absent[:12])}.{remedy}")


def replaced(layer: str, parts: list[str]) -> str:
    """What to do about a layer that was replaced by another kind of layer, with `parts`, as a sentence."""
    return (
        f"`{layer}` was replaced by a module with {', '.join(parts[:4])}. Give the new one another name in a subclass "
        "that uses it in its forward pass; `save_pretrained` and `from_pretrained` of the subclass keep it."
    )


def check_shapes(wanted: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check before saving that a model's tensors have the shapes of its configuration.

    Args:
        wanted: the model's parameters by canonical name.
        shapes: of the tensors, in PyTorch's orientation, by canonical name.

    Raises:
        InputError: a shape differs; the message quotes it.
    """
    for name, parameter in wanted.items():
        if shapes[name] != parameter.shape:
            raise InputError(
                f"`{name}` must have the shape of the configuration, {list(parameter.shape)}. Received: "
                f"{list(shapes[name])}. {_remedy(name, shapes[name])}"
            )


def _remedy(name: str, shape: tuple[int, ...]) -> str:
    """How a model with a parameter of this shape can be saved."""
    if name.startswith("classifier."):
        return f"For another number of labels, set `model.config.num_labels = {shape[0]}` before you save."
    return "To change the vocabulary, call `resize_token_embeddings` of the model."


_LAYER_INDEX = re.compile(r"\.layer\.\d+\.")


@cache
def _known_names(heads: tuple[Head, ...]) -> frozenset[str]:
    """The names of all parameters of these heads, with all features and a single layer."""
    config = RemBertConfig(num_hidden_layers=1, is_decoder=True, add_cross_attention=True)
    return frozenset(name for head in heads for name in parameters(config, head.name, pooler=True))
