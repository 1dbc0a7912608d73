"""The head of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from rembert.common.config import RemBertConfig
from rembert.common.name_matching import canonical_name
from rembert.common.parameters import HEADS, Head, head_of_architecture


def named_head(config: RemBertConfig) -> str | None:
    """The head that a configuration's `architectures` names, or None."""
    listed = config.architectures if isinstance(config.architectures, list) else []
    heads = (head_of_architecture(str(architecture)) for architecture in listed)
    return next((head.name for head in heads if head is not None), None)


def recognise_head(config: RemBertConfig, tensors: Iterable[str]) -> str:
    """The head of a checkpoint: the one that its configuration names, or else the one that fits its tensors best.

    The best fit has the most of its own parameters in the checkpoint and lacks the fewest. Heads with parameters of
    the same names differ in `is_decoder` and the pooler: a classifier with one is for sequences, one without for
    tokens.

    Args:
        config: of the checkpoint.
        tensors: the names in it, of any format.
    """
    named = named_head(config)
    if named is not None:
        return named
    names = {name for name in map(canonical_name, tensors) if name is not None}
    has_pooler = has_pooler_in(names)

    def fit(head: Head) -> tuple[int, int, bool, bool]:
        own = {parameter.name for parameter in head.own_parameters(config)}
        found = len(own & names)
        return found, found - len(own), head.predicts_next == config.is_decoder, head.has_pooler == has_pooler

    # `max` returns the first of equal ones. Without parameters of any head, it is the base model.
    best = max(HEADS.values(), key=fit)
    return best.name


def has_pooler_in(names: Iterable[str]) -> bool:
    """Whether tensors of these names, of any format, include a pooler."""
    return any((canonical_name(name) or "").startswith("rembert.pooler.") for name in names)
