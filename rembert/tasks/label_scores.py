"""Scores of the labelled tokens of a language model, without the logits of all tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.config import RemBertConfig
from rembert.tasks.backends import Arrays, Runner

_LOGITS_AT_ONCE = 1 << 26  # 256 MB of float32; a single row may need more


def label_scores(runner: Runner, config: RemBertConfig, batch: Mapping[str, np.ndarray]) -> Arrays:
    """A language model's scores of the labelled tokens of a batch.

    Args:
        runner: of the model.
        config: the model's.
        batch: the model's inputs and its labels [b, s].

    Returns:
        `log_probs`, `predicted` and `expected` at the labels' positions, [b, s], or in a decoder at the positions that
        predict them, [b, s - 1]. `expected` is -100 where there is no label.
    """
    labels = batch["labels"][:, 1:] if config.is_decoder else batch["labels"]
    log_probs = np.zeros(labels.shape, np.float32)
    predicted = np.full(labels.shape, IGNORE_INDEX, np.int64)
    is_label = labels != IGNORE_INDEX
    width = max(1, int(is_label.sum(1).max(initial=0)))
    # The labelled positions of each row come first, in order; shorter rows are filled with other positions.
    positions = np.argsort(~is_label, axis=1, kind="stable")[:, :width]
    rows = max(1, _LOGITS_AT_ONCE // (width * config.vocab_size))
    for start in range(0, len(labels), rows):
        part, at = slice(start, start + rows), positions[start : start + rows]
        inputs = {name: batch[name][part] for name in ("input_ids", "attention_mask", "token_type_ids")}
        ids = np.take_along_axis(labels[part], at, 1)
        logs, likely = runner.label_scores({**inputs, "logits_at": at}, np.maximum(ids, 0))
        np.put_along_axis(log_probs[part], at, logs, 1)
        np.put_along_axis(predicted[part], at, likely, 1)
    return {"log_probs": log_probs, "predicted": predicted, "expected": labels}
