"""Checks of a checkpoint before a model loads it, for both frameworks: its configuration and its contents."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from rembert.common.config import RemBertConfig, as_config
from rembert.common.errors import CheckpointError, ConfigError
from rembert.common.keywords import HubOptions, check_known, take_hub_options
from rembert.common.name_matching import Match
from rembert.common.parameters import file_name
from rembert.common.warning import warn


def loading_config(
    stored: RemBertConfig | None,
    given: Any,
    overrides: dict[str, Any],
    source: str,
    hub: HubOptions | None = None,
    kind: type[RemBertConfig] = RemBertConfig,
) -> RemBertConfig:
    """The configuration of the model to load: `given` or else `stored`, with the keys in `overrides` replaced.

    Args:
        stored: the checkpoint's configuration, or None.
        given: the caller's configuration, that of transformers, or where to find one.
        overrides: keys of a configuration by name.
        source: the checkpoint, for messages; the configuration's `name_or_path`.
        hub: how to download `given`.
        kind: the class of the configuration, a model's `config_class`.

    Raises:
        KeywordError: an override is not a key of a configuration, as any unknown keyword.
        ConfigError: there is no configuration, or an override is invalid.
    """
    if isinstance(given, str | os.PathLike):
        given = read_config(given, HubOptions() if hub is None else hub)
    base = given if given is not None else stored
    if base is None:
        raise ConfigError(f"{source} has no configuration. Pass `config=RemBertConfig(...)`.")
    base = as_config(base, kind)
    check_known(overrides, base.known_keys(), "from_pretrained")
    config = type(base).from_dict(base.to_dict(), **overrides)
    config.name_or_path = source
    return config


def arguments_and_config(
    own: Iterable[str], config: Any, keywords: dict[str, Any], kind: type[RemBertConfig]
) -> tuple[dict[str, Any], RemBertConfig]:
    """What a `from_config` passes to the constructor: the class's own arguments, and the configuration.

    Args:
        own: the names of the class's own arguments.
        config: a configuration, also that of transformers.
        keywords: own arguments, and keys of the configuration to replace.
        kind: the class of the configuration.

    Raises:
        KeywordError: a keyword is unknown.
        ConfigError: the configuration is invalid.
    """
    rest = take_hub_options(keywords)[1]
    arguments = {name: rest.pop(name) for name in own if name in rest}
    base = as_config(config, kind)
    return arguments, loading_config(None, base, rest, base.name_or_path, kind=kind)


def read_config(name_or_path: str | os.PathLike[str], hub: HubOptions) -> RemBertConfig:
    """The configuration at a path or of this name on the Hub."""
    return RemBertConfig.from_pretrained(name_or_path, **vars(hub))


MAX_NEW_LAYERS = 64  # TensorFlow takes a second to make 16 layers
MAX_PARAMETER = 2**32  # numbers in one parameter; the largest of the released model has a tenth of that
_TABLES = ("vocab_size", "max_position_embeddings", "type_vocab_size")
_WIDTHS = ("input_embedding_size", "output_embedding_size", "intermediate_size")


def check_sizes(config: RemBertConfig, tensors: Iterable[str], source: str, *, report_only: bool) -> None:
    """Refuse a configuration that a checkpoint contradicts or that no model has, before a model is built from it.

    Args:
        config: of the model to make.
        tensors: names in the checkpoint.
        source: the checkpoint, for messages.
        report_only: allow a checkpoint with fewer layers, up to `MAX_NEW_LAYERS`.

    Raises:
        CheckpointError: quotes the numbers.
    """
    found = [re.search(r"(?:^|\.)encoder\.layer\.(\d+)\.", name) for name in tensors]
    layers = len({each[1] for each in found if each})
    if config.num_hidden_layers > layers + (MAX_NEW_LAYERS if report_only or not layers else 0):
        raise CheckpointError(
            f"{source} has {layers} layers. Received: `num_hidden_layers={config.num_hidden_layers}` in the "
            "configuration."
        )
    pairs = [(table, width) for table in _TABLES for width in _WIDTHS[:2]]
    for one, other in [("hidden_size", "hidden_size"), *(("hidden_size", width) for width in _WIDTHS), *pairs]:
        sizes = getattr(config, one), getattr(config, other)
        if sizes[0] * sizes[1] > MAX_PARAMETER:
            raise CheckpointError(
                f"{source}: a parameter must have at most {MAX_PARAMETER} numbers. Received: `{one}={sizes[0]}` and "
                f"`{other}={sizes[1]}` in the configuration."
            )


def check_match(
    match: Match, *, source: str, model: str, head: str, ignore_mismatched_sizes: bool, report_only: bool
) -> dict[str, list[Any]]:
    """Check that a checkpoint can be loaded into a model, and report the differences.

    The encoder must be complete. A head, a pooler or cross-attention may be missing: a warning names their parameters,
    which are newly initialised, and tensors of another head, which are not used.

    Args:
        match: from `rembert.common.name_matching.match`.
        source: the checkpoint, for messages.
        model: the name of the class, for messages.
        head: the model's, a key of `HEADS`.
        ignore_mismatched_sizes: initialise parameters of another shape instead of raising an error.
        report_only: neither raise nor warn because of missing and unexpected parameters; the caller reads the report.

    Returns:
        `missing_keys`, `unexpected_keys`, and `mismatched_keys` as (name, shape in checkpoint, shape in model); the
        names are those of the model's own file and `state_dict`, or, if unexpected, those of the checkpoint.

    Raises:
        CheckpointError: the checkpoint does not fit; lists every problem.
    """
    problems = []
    missing = [name for name in match.missing if _belongs_to_encoder(name)]
    if missing and not report_only:
        problems.append(_counted("Missing", missing))
    if match.unexpected and not report_only:
        problems.append(_counted("Unexpected", match.unexpected))
    if match.mismatched and not ignore_mismatched_sizes:
        problems.append(f"{_mismatched(match)} Pass `ignore_mismatched_sizes=True` to initialise these.")
    _raise_problems(problems, source, model)
    if not report_only:
        notes = []
        if match.fresh:
            notes.append(
                f"Missing parameters, which were newly initialised: {_listed(match.fresh)}. Train the model "
                "before you use its outputs."
            )
        if match.unused:
            notes.append(f"These parameters in it are not used by this model: {_listed(match.unused)}.")
        if notes:
            warn(f"{model} from {source}: " + " ".join(notes))
    return {
        "missing_keys": [file_name(name, head) for name in match.missing],
        "unexpected_keys": [*match.unused, *match.unexpected],
        "mismatched_keys": [(file_name(m.name, head), m.in_checkpoint, m.in_model) for m in match.mismatched],
    }


def check_exact_match(match: Match, *, source: str, model: str) -> None:
    """Check that a file of weights holds exactly the parameters of a model.

    Raises:
        CheckpointError: it does not; lists every problem.
    """
    problems = []
    if match.missing:
        problems.append(_counted("Missing", match.missing))
    extra = [*match.unused, *match.unexpected, *match.ignored]
    if extra:
        problems.append(_counted("Not in the model", extra))
    if match.mismatched:
        problems.append(_mismatched(match))
    _raise_problems(problems, source, model)


def _raise_problems(problems: list[str], source: str, model: str) -> None:
    if problems:
        raise CheckpointError(f"{source} does not fit {model}. " + " ".join(problems))


def _belongs_to_encoder(name: str) -> bool:
    is_optional = name.startswith("rembert.pooler.") or ".crossattention." in name
    return name.startswith("rembert.") and not is_optional


def _mismatched(match: Match) -> str:
    shapes = [f"{m.name} {list(m.in_checkpoint)} (the model has {list(m.in_model)})" for m in match.mismatched]
    return _counted("With another shape", shapes)


def _counted(what: str, names: list[str]) -> str:
    return f"{what} ({len(names)}): {_listed(names)}."


def _listed(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
