"""What both frameworks load a model from: a configuration and tensors by name, wherever these come from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rembert.bridge.checkpoint import check_floats, open_checkpoint
from rembert.bridge.tensors import TensorSource
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.keywords import HubOptions
from rembert.common.loading import check_sizes, loading_config, read_config


@dataclass(frozen=True)
class Stored:
    """What a model is loaded from.

    Attributes:
        source: where it comes from, for messages.
        config: of the model to make.
        tensors: by the names in the files after `key_mapping`, in PyTorch's orientation.
    """

    source: str
    config: RemBertConfig
    tensors: Mapping[str, TensorSource]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' shapes by name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def require_floats(self, names: Iterable[str]) -> None:
        """Refuse tensors that cannot be weights; `CheckpointError` names the first one and its dtype."""
        check_floats(self.source, {name: self.tensors[name] for name in names})


@contextmanager
def open_stored(
    name_or_path: str | os.PathLike[str] | None,
    hub: HubOptions,
    *,
    config: Any,
    overrides: dict[str, Any],
    tensors: Mapping[str, TensorSource] | None,
    key_mapping: Mapping[str, str] | None,
    report_only: bool,
    config_class: type[RemBertConfig] = RemBertConfig,
) -> Iterator[Stored]:
    """Open what a `from_pretrained` loads; it is closed at the end of the block.

    Args:
        name_or_path: a checkpoint directory, a file of weights, or a name on the Hub; None beside `tensors` and
            `config`.
        hub: how a repository is downloaded, the subfolder, and the variant of the weights.
        config: replaces that of the checkpoint: a configuration, or where to find one.
        overrides: keys of the configuration to replace.
        tensors: replace those of the checkpoint.
        key_mapping: regular expressions and their replacements; of each name, the first one found is replaced.
        report_only: allow a checkpoint with fewer layers than the configuration, within limits.
        config_class: the class of the configuration to make.

    Raises:
        NotFoundError: there is no such path or repository, or no checkpoint in it.
        CheckpointError: the checkpoint is damaged or has fewer layers than `config`, or two tensors get one name.
        ConfigError: the configuration is missing or invalid.
        KeywordError: the key of an override is unknown.
    """
    if tensors is not None:
        source = "`state_dict`" if name_or_path is None else os.fspath(name_or_path)
        own = None if name_or_path is None or config is not None else read_config(name_or_path, hub)
        made = loading_config(own, config, overrides, source, hub, config_class)
        yield Stored(source, made, _renamed(tensors, key_mapping))
        return
    if name_or_path is None:
        raise InputError("`pretrained_model_name_or_path` must be given. Received: None, and no `state_dict`.")
    with open_checkpoint(name_or_path, hub=hub) as checkpoint:
        source = os.fspath(name_or_path)
        made = loading_config(checkpoint.config, config, overrides, source, hub, config_class)
        found = _renamed({name: checkpoint.source(name) for name in checkpoint.tensors}, key_mapping)
        check_sizes(made, found, source, report_only=report_only)
        yield Stored(source, made, found)
        found.clear()


def _renamed(tensors: Mapping[str, TensorSource], mapping: Mapping[str, str] | None) -> dict[str, TensorSource]:
    """Tensors under their names after `key_mapping`."""
    for pattern in mapping or {}:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as problem:
            raise InputError(
                f"The keys of `key_mapping` must be regular expressions. Received: {pattern!r:.100}: {problem}."
            ) from None
    renamed: dict[str, TensorSource] = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in (mapping or {}).items():
            new, count = re.subn(pattern, replacement, name)
            if count:
                break
        if new in renamed:
            raise CheckpointError(f"`key_mapping` gives two tensors the name `{new}`. The second one is `{name}`.")
        renamed[new] = tensor
    return renamed
