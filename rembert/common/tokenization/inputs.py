"""The forms of a text argument, converted to one: a list of samples, and for pairs a list of second samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rembert.common.errors import InputError

Samples = list[Any]  # of strings, or of lists of words


def sort_inputs(text: Any, text_pair: Any, words: bool) -> tuple[Samples, Samples | None, bool]:
    """First samples, second samples (None without pairs), and whether the input was a batch.

    Args:
        text: a sample, a list of samples, or (without `text_pair`) a list of pairs of samples.
        text_pair: None, or second samples in the same form.
        words: samples are lists of words.

    Raises:
        InputError: the input has none of these forms.
    """
    if words:
        return _sort_words(text, text_pair)
    if isinstance(text, str):
        if text_pair is not None and not isinstance(text_pair, str):
            raise InputError(f"`text_pair` must be a string, as `text` is. Received: {describe(text_pair)}.")
        return [text], None if text_pair is None else [text_pair], False
    _check_list("text", text, "a string or a list of strings")
    if text_pair is None and len(text) and all(_is_pair(item) for item in text):
        return [first for first, _ in text], [second for _, second in text], True
    _check_strings("text", text)
    return list(text), _second(text, text_pair, _check_strings), True


def _sort_words(text: Any, text_pair: Any) -> tuple[Samples, Samples | None, bool]:
    _check_list("text", text, "a list of words or a list of such lists, with `is_split_into_words=True`")
    if text_pair is None and len(text) and all(map(_is_pair_of_words, text)):
        return [first for first, _ in text], [second for _, second in text], True
    batched = len(text) > 0 and not isinstance(text[0], str)
    if not batched:
        _check_strings("text", text)
        if text_pair is not None:
            _check_list("text_pair", text_pair, "a list of words, as `text` is")
            _check_strings("text_pair", text_pair)
        return [text], None if text_pair is None else [text_pair], False
    _check_words("text", text)
    return list(text), _second(text, text_pair, _check_words), True


def _second(text: Any, text_pair: Any, check: Any) -> Samples | None:
    if text_pair is None:
        return None
    _check_list("text_pair", text_pair, "a list, as `text` is")
    if len(text_pair) != len(text):
        raise InputError(
            f"`text` and `text_pair` must have the same length. Received: {len(text)} and {len(text_pair)} texts."
        )
    check("text_pair", text_pair)
    return list(text_pair)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)


def _is_pair_of_words(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(map(_is_words, item))


def _is_words(item: Any) -> bool:
    return isinstance(item, list | tuple) and all(isinstance(word, str) for word in item)


def _check_list(name: str, value: Any, form: str) -> None:
    array = getattr(value, "ndim", 0) > 0  # an array without dimensions has no length
    if isinstance(value, str | bytes) or not (isinstance(value, Sequence) or array):
        raise InputError(f"`{name}` must be {form}. Received: {describe(value)}.")


def _check_strings(name: str, values: Any) -> None:
    if not set(map(type, values)) - {str}:  # visits each value only if one of them is no string
        return
    for number, value in enumerate(values):
        if not isinstance(value, str):
            advice = " Pass `is_split_into_words=True` for lists of words." if isinstance(value, list | tuple) else ""
            raise InputError(f"`{name}` must hold strings. Received: {describe(value)} at position {number}.{advice}")


def _check_words(name: str, values: Any) -> None:
    for number, value in enumerate(values):
        _check_list(f"{name}[{number}]", value, "a list of words, as the first one is")
        _check_strings(f"{name}[{number}]", value)


def describe(value: Any) -> str:
    """The type and the start of a value, for messages."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
