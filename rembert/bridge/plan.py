"""How a checkpoint's tensors become a model's: which head it holds, and which tensor is which parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rembert.bridge.checkpoint import Checkpoint
from rembert.bridge.tensors import TensorInfo
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError
from rembert.common.parameters import HEADS_BY_ARCHITECTURE, Match, Parameter, canonical_name, match, parameters

_POOLER = "rembert.pooler."


@dataclass(frozen=True)
class Fit:
    """A checkpoint seen as one model class: the head, its parameters, and how the tensors match them."""

    head: str
    table: Mapping[str, Parameter]
    match: Match = field(default_factory=Match)


def recognise_head(config: RemBertConfig, tensors: Mapping[str, TensorInfo]) -> str:
    """The head that a checkpoint holds: what its config says, or else what its tensors are.

    A classifier alone does not tell sequence from token classification: it is the former with a pooler, the latter
    without one.
    """
    for architecture in config.architectures or []:
        head = HEADS_BY_ARCHITECTURE.get(str(architecture).removeprefix("TF"))
        if head is not None:
            return head.name
    names = {name for name in map(canonical_name, tensors) if name is not None}
    if any(name.startswith("cls.predictions.") for name in names):
        return "causal-lm" if config.is_decoder else "masked-lm"
    if any(name.startswith("qa_outputs.") for name in names):
        return "question-answering"
    if any(name.startswith("classifier.") for name in names):
        has_pooler = any(name.startswith(_POOLER) for name in names)
        return "sequence-classification" if has_pooler else "token-classification"
    return "model"


def fit(checkpoint: Checkpoint, config: RemBertConfig) -> Fit:
    """Match a checkpoint's tensors with the parameters of the head it holds.

    A pooler is kept where there is one, also beside a head that has none; a bare encoder may lack it.
    """
    head = recognise_head(config, checkpoint.tensors)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    has_pooler = any((canonical_name(name) or "").startswith(_POOLER) for name in shapes)
    table = parameters(config, head, pooler=True if has_pooler else False if head == "model" else None)
    return Fit(head, table, match(table, shapes))


def require(checkpoint: Checkpoint, found: Fit) -> None:
    """Refuse a checkpoint whose names or shapes do not fit its config.

    Raises:
        CheckpointError: everything that is missing, unknown or of the wrong shape, in one message.
    """
    problems = []
    for label, names in (("missing", found.match.missing), ("unknown", found.match.unexpected)):
        if names:
            problems.append(f"{len(names)} {label} ({_some(names)})")
    problems += [
        f"`{mismatch.name}` has shape {list(mismatch.in_checkpoint)}, the config says {list(mismatch.in_model)}"
        for mismatch in found.match.mismatched[:3]
    ]
    if len(found.match.mismatched) > 3:
        problems.append(f"{len(found.match.mismatched) - 3} more of the wrong shape")
    if problems:
        raise CheckpointError(
            f"{checkpoint.path}: the tensors do not fit the config of a {found.head} model: {'; '.join(problems)}."
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name:.100}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"
