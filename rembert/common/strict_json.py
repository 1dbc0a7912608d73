"""JSON from files that nobody vouches for."""

from __future__ import annotations

import json
from typing import Any


def loads(text: bytes) -> Any:
    """Parse UTF-8 JSON, refusing an object that has a key twice (the last one would silently win).

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key `{repeated:.100}` stands twice in one object")
    return content
