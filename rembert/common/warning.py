"""Warnings, at the line of the program that uses this library."""

from __future__ import annotations

import inspect
import warnings

# The packages whose code may stand between a user's line and a warning: this one, and those that call it.
_INSIDE = frozenset({"rembert", "torch", "keras", "tensorflow", "transformers"})


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning whose file and line are those of the innermost caller outside this library.

    A fixed `stacklevel` would be right for one way to call a function only: constructors are also called by
    `from_pretrained` and by subclasses, methods by methods under older names, and decorators add frames.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
