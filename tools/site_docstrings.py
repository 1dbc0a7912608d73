"""An extension of griffe, which reads the docstrings for the site: turns this project's form into Google's.

`Example:` becomes `Examples:`, and an entry for several arguments (`low, high: …`) becomes one entry for each.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_SHARED_ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+)(:.*(?:\n\1 +\S.*)*)", re.MULTILINE)


class SiteDocstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = _SHARED_ENTRY.sub(_separate, text)


def _separate(entry: re.Match[str]) -> str:
    indent, names, description = entry.groups()
    return "\n".join(f"{indent}{name}{description}" for name in names.split(", "))
