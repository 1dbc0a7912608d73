"""The warning that a version of another library lacks an internal name which this library uses where it exists."""

from __future__ import annotations

import functools
import warnings


@functools.cache
def warn_missing(library: str, name: str, effect: str) -> None:
    """Warn, once in a process for each name, that `library` (with its version) lacks `name`.

    Args:
        library: for example "PyTorch 2.13.0".
        name: the missing name as the library writes it.
        effect: what happens instead: the slower or plainer way.
    """
    warnings.warn(
        f"{library} has no `{name}`: {effect}. docs/versions.md lists the versions that rembert was tested with.",
        stacklevel=3,
    )
