"""Texts to rows of pieces, cut where they are too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rembert.tasks.task import Feature, Task


def encode(task: Task, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Feature]:
    """A feature with `input_ids` and `token_type_ids` for each text or pair; those that are cut are counted.

    Args:
        task: gives tokenizer, length and report.
        texts: the first texts.
        pairs: the second texts; None where there is none.
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
        return task.tokenizer([texts[number] for number in some], second, return_attention_mask=False, **options)

    whole = call(numbers, truncation=False)
    for place, number in enumerate(numbers):
        rows[number] = row_of(whole["input_ids"][place], whole["token_type_ids"][place])
    long = [number for number in numbers if len(rows[number]["input_ids"]) > task.max_length]
    if long:
        task.report.truncated += len(long)
        cut = call(long, truncation=True, max_length=task.max_length)
        for place, number in enumerate(long):
            rows[number] = row_of(cut["input_ids"][place], cut["token_type_ids"][place])


def row_of(ids: Sequence[int], types: Sequence[int] | None = None) -> Feature:
    """`input_ids` and `token_type_ids` (0 where left out) in five bytes a piece: lists would take forty."""
    return {
        "input_ids": np.array(ids, np.int32),
        "token_type_ids": np.zeros(len(ids), np.int8) if types is None else np.array(types, np.int8),
    }
