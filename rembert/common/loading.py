"""What both frameworks do with a checkpoint before a model takes it: configuration, fit, report."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from rembert.common.arguments import check_argument, instance_of
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, ConfigError
from rembert.common.name_matching import Match

_CONFIG_KEYS = frozenset(inspect.signature(RemBertConfig).parameters) - {"extra"}


def loading_config(
    found: RemBertConfig | None, given: RemBertConfig | None, overrides: dict[str, Any], source: str
) -> RemBertConfig:
    """The configuration to load with: the one `given`, else the checkpoint's, with keys replaced by `overrides`.

    Raises:
        TypeError: an override that is no key of a configuration, as for any unknown keyword.
        ConfigError: there is neither, or an override is refused.
    """
    unknown = sorted(set(overrides) - _CONFIG_KEYS)
    if unknown:
        raise TypeError(
            f"from_pretrained() got an unexpected keyword: {', '.join(map(repr, unknown))}. It takes its own "
            "arguments and the keys of RemBertConfig."
        )
    base = given if given is not None else found
    if base is None:
        raise ConfigError(f"{source} has no configuration beside it. Pass `config=RemBertConfig(...)`.")
    check_argument("config", base, instance_of(RemBertConfig), ConfigError)
    return RemBertConfig.from_dict(base.to_dict(), **overrides)


def settle(
    match: Match, *, source: str, model: str, ignore_mismatched_sizes: bool, report_only: bool
) -> dict[str, list[Any]]:
    """Refuse a checkpoint that does not fit, warn of what is fresh or left out, and return the report.

    The encoder must be whole. A head, a pooler or cross-attention may be missing: they are then fresh and named in a
    warning, as are tensors of another head that are not used.

    Args:
        match: from `rembert.common.name_matching.match`.
        source: the checkpoint, for messages.
        model: the class's name, for messages.
        ignore_mismatched_sizes: parameters of another shape are fresh instead of refused.
        report_only: missing and unexpected parameters are neither refused nor warned of: the caller reads the report.

    Returns:
        `missing_keys`, `unexpected_keys`, and `mismatched_keys` as (name, shape in checkpoint, shape in model).

    Raises:
        CheckpointError: one message with everything that does not fit.
    """
    problems = []
    absent = [name for name in match.missing if _belongs_to_encoder(name)]
    if absent and not report_only:
        problems.append(f"Missing ({len(absent)}): {_listed(absent)}.")
    if match.unexpected and not report_only:
        problems.append(f"Unexpected ({len(match.unexpected)}): {_listed(match.unexpected)}.")
    if match.mismatched and not ignore_mismatched_sizes:
        problems.append(f"{_of_another_shape(match)} Pass `ignore_mismatched_sizes=True` to initialise these afresh.")
    if problems:
        raise CheckpointError(f"{source} does not fit {model}. " + " ".join(problems))
    if not report_only:
        notes = []
        if match.fresh:
            notes.append(
                f"These parameters are not in it and were initialised afresh: {_listed(match.fresh)}. Train the model "
                "before you use what they give."
            )
        if match.unused:
            notes.append(f"These parameters in it are not used by this model: {_listed(match.unused)}.")
        if notes:
            warnings.warn(f"{model} from {source}: " + " ".join(notes), stacklevel=3)
    return {
        "missing_keys": list(match.missing),
        "unexpected_keys": [*match.unused, *match.unexpected],
        "mismatched_keys": [(m.name, m.in_checkpoint, m.in_model) for m in match.mismatched],
    }


def require_all(match: Match, *, source: str, model: str) -> None:
    """Refuse a file of weights that does not hold exactly a model's parameters.

    Raises:
        CheckpointError: one message with everything that does not fit.
    """
    problems = []
    if match.missing:
        problems.append(f"Missing ({len(match.missing)}): {_listed(match.missing)}.")
    too_many = [*match.unused, *match.unexpected, *match.ignored]
    if too_many:
        problems.append(f"Not in the model ({len(too_many)}): {_listed(too_many)}.")
    if match.mismatched:
        problems.append(_of_another_shape(match))
    if problems:
        raise CheckpointError(f"{source} does not fit {model}. " + " ".join(problems))


def _belongs_to_encoder(name: str) -> bool:
    optional = name.startswith("rembert.pooler.") or ".crossattention." in name
    return name.startswith("rembert.") and not optional


def _of_another_shape(match: Match) -> str:
    shapes = [f"{m.name} {list(m.in_checkpoint)} (the model has {list(m.in_model)})" for m in match.mismatched]
    return f"Of another shape ({len(shapes)}): {_listed(shapes)}."


def _listed(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
