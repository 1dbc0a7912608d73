"""Match the tensors of a checkpoint with the parameters of a model, also of a model with another head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from rembert.bridge.checkpoint import Checkpoint
from rembert.bridge.heads import has_pooler_in, recognise_head
from rembert.bridge.tensors import TensorSource
from rembert.common.arguments import check_argument, one_of, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError
from rembert.common.initialization import initial_values
from rembert.common.name_matching import Match, match
from rembert.common.parameters import BASE_MODEL, BASE_PREFIX, HEADS, Parameter, parameters


@dataclass(frozen=True)
class CheckpointMatch:
    """The head of a checkpoint, the parameters of that head, and how the tensors match them."""

    head: str
    table: Mapping[str, Parameter]
    match: Match

    @property
    def unknown(self) -> list[str]:
        """Tensors that this model does not have."""
        return [*self.match.unexpected, *self.match.unused]


def match_checkpoint(checkpoint: Checkpoint, config: RemBertConfig) -> CheckpointMatch:
    """Match a checkpoint's tensors with the parameters of its head.

    A pooler in the checkpoint is always kept, also where the head has none. A bare encoder may lack one.
    """
    head = recognise_head(config, checkpoint.tensors)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    pooler = True if has_pooler_in(shapes) else False if head == BASE_MODEL else None
    table = parameters(config, head, pooler=pooler)
    return CheckpointMatch(head, table, match(table, shapes))


def require_match(checkpoint: Checkpoint, found: CheckpointMatch) -> None:
    """Refuse a checkpoint with names or shapes that do not fit its configuration.

    Raises:
        CheckpointError: lists everything that is missing, unknown or of the wrong shape.
    """
    problems = []
    for label, names in (("missing", found.match.missing), ("unknown", found.unknown)):
        if names:
            problems.append(f"{len(names)} {label} ({_some(names)})")
    problems += [
        f"`{mismatch.name}` has shape {list(mismatch.in_checkpoint)}, the config has {list(mismatch.in_model)}"
        for mismatch in found.match.mismatched[:3]
    ]
    if len(found.match.mismatched) > 3:
        problems.append(f"{len(found.match.mismatched) - 3} more of the wrong shape")
    if problems:
        raise CheckpointError(
            f"{checkpoint.path}: the tensors do not fit the config of a {found.head} model: {'; '.join(problems)}."
        )


# ---------------------------------------------------------------------- another head


@dataclass(frozen=True)
class Selection:
    """The values of a model's parameters; those newly initialised, and the tensors dropped."""

    head: str
    tensors: dict[str, TensorSource]
    fresh: list[str]
    dropped: list[str]


def select_parameters(
    checkpoint: Checkpoint, found: CheckpointMatch, config: RemBertConfig, head: str | None
) -> Selection:
    """The parameters of a model with `head` (by default the checkpoint's own); those it lacks are newly initialised.

    The encoder and a pooler are always kept. A head's own parameters are kept if they mean the same in both heads, as
    in the language models.

    Raises:
        InputError: `head` is unknown.
    """
    check_argument("head", head, optional(one_of(HEADS)))
    if head is None or head == found.head:
        kept = {name: checkpoint.source(found.match.found[name]) for name in found.table}
        return Selection(found.head, kept, [], [])
    has_pooler = has_pooler_in(found.table) or HEADS[head].has_pooler
    table = parameters(config, head, pooler=has_pooler)
    shared = HEADS[head].means_the_same(HEADS[found.head])
    keep = {name for name in found.table if name in table and (shared or name.startswith(BASE_PREFIX))}
    tensors = {
        name: checkpoint.source(found.match.found[name]) if name in keep else _initialized(parameter, config)
        for name, parameter in table.items()
    }
    return Selection(
        head,
        tensors,
        fresh=[name for name in table if name not in keep],
        dropped=[found.match.found[name] for name in found.table if name not in keep],
    )


def _initialized(parameter: Parameter, config: RemBertConfig) -> TensorSource:
    """The initial values of a parameter, the same in every run."""
    read = partial(initial_values, parameter, config.initializer_range)
    return TensorSource(parameter.shape, np.dtype(np.float32), read)


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name:.100}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"
