"""Causal language modelling: predict the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.padding import pad_inputs
from rembert.tasks.declarations import Score
from rembert.tasks.examples import Example
from rembert.tasks.language_model import LanguageModelTask, log_probabilities
from rembert.tasks.scoring import Output
from rembert.tasks.task import Batch, Feature, identified


class CausalLM(LanguageModelTask):
    """Predicts every token from those before it. The perplexity is that of the tokens and `[SEP]`, given `[CLS]`.

    Args:
        tokenizer, max_length, data, join: as for `LanguageModelTask`.

    Example:
        >>> from pathlib import Path
        >>> from rembert import RemBertTokenizer
        >>> _ = Path("texts.txt").write_text("The ferry leaves at nine.\\nThe ferry is late.")
        >>> task = CausalLM(RemBertTokenizer.from_pretrained("google/rembert"), max_length=64)
        >>> len(list(task.training_features(task.read("texts.txt"))))  # both texts in one row
        1
    """

    name = "causal-lm"
    head = "causal-lm"
    scores: ClassVar = (
        Score("loss", lower_is_better=True),
        Score("perplexity", lower_is_better=True),
        Score("accuracy"),
    )

    def config_overrides(self) -> dict[str, Any]:
        return {"is_decoder": True}

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        batch["labels"] = np.where(batch["attention_mask"], batch["input_ids"], IGNORE_INDEX)
        return batch

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        logs = log_probabilities(outputs)
        mean = -float(logs.mean()) if logs.size else 0.0
        return identified(
            example,
            log_probability=float(logs.sum()),
            tokens=int(logs.size),
            perplexity=math.exp(min(mean, 709.0)),
        )
