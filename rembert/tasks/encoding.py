"""Texts to rows of tokens, truncated to the maximum length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rembert.tasks.task import Feature, Task


def encode(task: Task, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Feature]:
    """A feature with `input_ids` and `token_type_ids` for each text or pair; truncated texts are counted.

    Args:
        task: has the tokenizer, the maximum length and the report.
        texts: the first texts.
        pairs: the second texts; None for a text without one.
    """
    rows: list[Feature] = [{} for _ in texts]
    alone = [number for number in range(len(texts)) if pairs is None or pairs[number] is None]
    paired = [number for number in range(len(texts)) if pairs is not None and pairs[number] is not None]
    for numbers, second in ((alone, None), (paired, pairs)):
        if numbers:
            _encode_alike(task, rows, numbers, texts, second)
    return rows


def _encode_alike(
    task: Task, rows: list[Feature], numbers: list[int], texts: Sequence[str], pairs: Sequence[str | None] | None
) -> None:
    def call(some: list[int], **options: Any) -> Any:
        second = None if pairs is None else [pairs[number] for number in some]
        first = [texts[number] for number in some]
        # Long rows are counted and cut below.
        return task.tokenizer(first, second, return_attention_mask=False, verbose=False, **options)

    def store(some: list[int], encoded: Any) -> None:
        for number, ids, types in zip(some, encoded["input_ids"], encoded["token_type_ids"], strict=True):
            rows[number] = row_of(ids, types)

    store(numbers, call(numbers, truncation=False))
    long = [number for number in numbers if len(rows[number]["input_ids"]) > task.max_length]
    if long:
        task.report.truncated += len(long)
        store(long, call(long, truncation=True, max_length=task.max_length))


def token_ids(task: Task, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of texts, without special tokens and without truncation."""
    rows: list[list[int]] = task.tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        return_token_type_ids=False,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    return rows


def row_of(ids: Sequence[int], types: Sequence[int] | None = None) -> Feature:
    """`input_ids` and `token_type_ids` (by default 0) as arrays: five bytes per token, where lists take forty."""
    return {
        "input_ids": np.array(ids, np.int32),
        "token_type_ids": np.zeros(len(ids), np.int8) if types is None else np.array(types, np.int8),
    }
