"""Which head a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable

from rembert.common.config import RemBertConfig
from rembert.common.parameters import HEADS_BY_ARCHITECTURE, canonical_name


def named_head(config: RemBertConfig) -> str | None:
    """The head that a config's `architectures` names; None where it names none of ours."""
    listed = config.architectures if isinstance(config.architectures, list) else []
    heads = (HEADS_BY_ARCHITECTURE.get(str(architecture).removeprefix("TF")) for architecture in listed)
    return next((head.name for head in heads if head is not None), None)


def recognise_head(config: RemBertConfig, tensors: Iterable[str]) -> str:
    """The head that a checkpoint holds: what its config says, or else what its tensors are.

    A classifier alone does not tell sequence from token classification: it is the former with a pooler, the latter
    without one.
    """
    said = named_head(config)
    if said is not None:
        return said
    names = [name for name in map(canonical_name, tensors) if name is not None]
    if any(name.startswith("cls.predictions.") for name in names):
        return "causal-lm" if config.is_decoder else "masked-lm"
    if any(name.startswith("qa_outputs.") for name in names):
        return "question-answering"
    if any(name.startswith("classifier.") for name in names):
        return "sequence-classification" if has_pooler_in(names) else "token-classification"
    return "model"


def has_pooler_in(names: Iterable[str]) -> bool:
    """Whether a pooler is among tensors of these names, in any spelling."""
    return any((canonical_name(name) or "").startswith("rembert.pooler.") for name in names)
