"""Rows of different lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rembert.common.checks import IGNORE_INDEX

Rows = Sequence[Sequence[int] | np.ndarray]


def pad_rows(rows: Rows, value: int) -> np.ndarray:
    """[b, s] int64: each row, padded with `value` to the length s of the longest row.

    Example:
        >>> pad_rows([[5, 6, 7], [8]], 0)
        array([[5, 6, 7],
               [8, 0, 0]])
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    width = int(lengths.max(initial=0))
    padded = np.full((len(rows), width), value, np.int64)
    if len(rows):
        padded[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return padded


def pad_inputs(features: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, np.ndarray]:
    """`input_ids`, `attention_mask` (1 for tokens, 0 for padding) and `token_type_ids`, each [b, s].

    Example:
        >>> rows = [[2, 9, 3], [2, 3]]
        >>> features = [{"input_ids": row, "token_type_ids": [0] * len(row)} for row in rows]
        >>> pad_inputs(features, pad_token_id=1)["attention_mask"]
        array([[1, 1, 1],
               [1, 1, 0]])
    """
    ids = [feature["input_ids"] for feature in features]
    input_ids = pad_rows(ids, pad_token_id)
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return {
        "input_ids": input_ids,
        "attention_mask": (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64),
        "token_type_ids": pad_rows([feature["token_type_ids"] for feature in features], 0),
    }


def pad_labels(features: Sequence[dict[str, Any]]) -> np.ndarray:
    """[b, s]: a label for each token, -100 on padding."""
    return pad_rows([feature["labels"] for feature in features], IGNORE_INDEX)
