"""The errors this library raises. Every message says what was wrong, the value received, and what to do.

Each class is also the built-in class that a caller would expect (`ValueError`, `ImportError`, …), so existing
`except` clauses keep working.
"""

from __future__ import annotations


class RemBertError(Exception):
    """Base of every error that this library raises on purpose.

    Example:
        >>> from rembert import RemBertConfig
        >>> try:
        ...     RemBertConfig(hidden_size=100, num_attention_heads=18).validate()
        ... except RemBertError as problem:
        ...     type(problem).__name__
        'ConfigError'
    """


class ConfigError(RemBertError, ValueError):
    """A configuration that no model can be built from."""


class InputError(RemBertError, ValueError):
    """An argument of a model, a tokenizer or a function that cannot be used."""


class TokenizerError(RemBertError, ValueError):
    """A tokenizer file that is missing, damaged, or not what a RemBERT tokenizer needs."""


class CheckpointError(RemBertError, ValueError):
    """A checkpoint that is missing, damaged, or does not fit the model."""


class NotFoundError(CheckpointError, ConfigError, TokenizerError, FileNotFoundError):
    """A path, a file in a directory, or a repository of the hub that does not exist."""


class KeywordError(RemBertError, TypeError):
    """A keyword that a function does not know, or that it cannot follow."""


class DataError(RemBertError, ValueError):
    """A file of examples that cannot be used; the message begins with the file and, where there is one, the line."""


class ExportError(RemBertError, RuntimeError):
    """An exported model that does not compute what the model does; nothing is left of it."""


class TrainingError(RemBertError, RuntimeError):
    """A training run that cannot go on, as when its loss is no number any more."""


class MissingDependencyError(RemBertError, ImportError):
    """An optional package that a feature needs is not installed."""

    def __init__(self, package: str, *, needed_for: str, extra: str | None = None) -> None:
        """`package` is the missing one, `needed_for` what was asked for, `extra` the extra of ours that brings it."""
        install = f"rembert[{extra}]" if extra else package
        super().__init__(f"{needed_for} needs `{package}`, which is not installed. Run `pip install '{install}'`.")
