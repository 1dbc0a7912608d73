"""JSON from untrusted files."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64  # levels of nesting; a checkpoint's files have five
# A configuration may name a million labels twice; the `tokenizer.json` of 250,300 tokens has 750,000. A value takes up
# to 250 bytes of memory.
MAX_VALUES = 2**21
_MARKS = (b",", b"[", b"{")  # values are at most one more than these
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(text: bytes) -> Any:
    """Parse UTF-8 JSON; an object with a key twice is an error (the last value would be used silently).

    What could be read but not written again is refused too: half of a surrogate pair, and deep nesting. So is what
    would take gigabytes of memory, before it is parsed.

    Raises:
        ValueError: it is not such JSON.
    """
    if sum(map(text.count, _MARKS)) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES} values")
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(f"it has more than {MAX_DEPTH} levels") from None
    _check_depth(content)
    if _SURROGATE.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return content


def _check_depth(content: Any) -> None:
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            value
            for outer in level
            for value in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(value, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it has more than {MAX_DEPTH} levels")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key `{repeated:.100}` occurs twice in one object")
    return content
