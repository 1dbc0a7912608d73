"""The errors that this library raises. Every message says what was wrong, the value received, and what to do.

Each class inherits from the built-in error that a caller would expect (`ValueError`, `ImportError`, …), so existing
`except` clauses keep working.
"""

from __future__ import annotations


class RemBertError(Exception):
    """Base of the errors that this library raises.

    Example:
        >>> from rembert import RemBertConfig
        >>> try:
        ...     RemBertConfig(hidden_size=100, num_attention_heads=18).validate()
        ... except RemBertError as problem:
        ...     type(problem).__name__
        'ConfigError'
    """


class ConfigError(RemBertError, ValueError):
    """A configuration is invalid: no model can be built from it."""


class InputError(RemBertError, ValueError):
    """An argument of a model, a tokenizer or a function is invalid."""


class TokenizerError(RemBertError, ValueError):
    """A tokenizer file is missing, damaged, or not one of a RemBERT tokenizer."""


class CheckpointError(RemBertError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class NotFoundError(CheckpointError, ConfigError, TokenizerError, FileNotFoundError):
    """A path, a file in a directory, or a repository of the hub that does not exist."""


class KeywordError(RemBertError, TypeError):
    """A keyword that a function does not know, or that it cannot follow."""


class DataError(RemBertError, ValueError):
    """A file of examples is invalid; the message begins with the file's name and, if known, the line's number."""


class ExportError(RemBertError, RuntimeError):
    """An exported model does not reproduce the model's results; it is deleted."""


class TrainingError(RemBertError, RuntimeError):
    """A training run cannot continue, for example because the loss became NaN or infinite."""


class MissingDependencyError(RemBertError, ImportError):
    """A package, or a new enough version of it, is not installed."""

    def __init__(
        self, package: str, *, needed_for: str, extra: str | None = None, installed: str | None = None
    ) -> None:
        """`needed_for` names the feature, `extra` the extra of `rembert` that installs the package.

        `package` may name the lowest version, as `transformers>=5`; `installed` is then the older one that is there.
        """
        install = f"rembert[{extra}]" if extra else package
        found = f"but version {installed} is installed" if installed else "which is not installed"
        super().__init__(f"{needed_for} needs `{package}`, {found}. Run `pip install '{install}'`.")
