"""The warning that another library's version lacks an internal name that this library would use."""

from __future__ import annotations

import functools

from rembert.common.warning import warn


@functools.cache
def warn_missing(library: str, name: str, effect: str) -> None:
    """Warn, once in a process for each name, that `library` (with its version) lacks `name`.

    Args:
        library: for example "PyTorch 2.13.0".
        name: the missing name as the library writes it.
        effect: what happens instead.
    """
    warn(
        f"{library} has no `{name}`: {effect}. docs/versions.md lists the versions that rembert was tested with.",
    )
