"""Causal language modelling: the next piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.padding import pad_inputs
from rembert.tasks.examples import Example
from rembert.tasks.language_model import LanguageModelTask
from rembert.tasks.task import Batch, Feature, Output, identified


class CausalLM(LanguageModelTask):
    """Predicts every piece from those before it. Perplexity is that of the pieces and `[SEP]`, given `[CLS]`."""

    name = "causal-lm"

    def config_overrides(self) -> dict[str, Any]:
        return {"is_decoder": True}

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        batch["labels"] = np.where(batch["attention_mask"], batch["input_ids"], IGNORE_INDEX)
        return batch

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        logs = np.concatenate([output["log_probs"] for output in outputs]).astype(np.float64)
        mean = -float(logs.mean()) if logs.size else 0.0
        return identified(
            example,
            log_probability=float(logs.sum()),
            pieces=int(logs.size),
            perplexity=math.exp(min(mean, 709.0)),
        )
