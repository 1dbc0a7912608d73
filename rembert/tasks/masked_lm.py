"""Masked language modelling: the pieces under the mask."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.masking import Masking
from rembert.common.collation.padding import pad_inputs, pad_labels
from rembert.common.errors import InputError
from rembert.tasks.examples import Example
from rembert.tasks.language_model import LanguageModelTask
from rembert.tasks.task import Batch, Feature, Output, Scorer, identified

_SPACE = "▁"
# Scripts that are written without spaces, by the first word of their characters' names: a piece is a word there.
_WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})


class MaskedLM(LanguageModelTask):
    """Predicts masked pieces. Masks are drawn anew for every batch in training, and are a function of the row in
    evaluation, so scores can be compared.

    Args:
        tokenizer, max_length, data, join: as for `LanguageModelTask`.
        mask_probability: the part of the pieces that is masked.
        masking: "piece", "word" or "span"; see `rembert.common.collation.masking`.
        every_piece: in evaluation, mask every piece in turn, one row for each: the pseudo-log-likelihood of
            Salazar et al. (ACL 2020), section 2.1, and exp of its negative mean, the pseudo-perplexity.

    Raises:
        InputError: the tokenizer has no mask token, or a value is refused.
    """

    name = "masked-lm"
    options: ClassVar[tuple[str, ...]] = ("mask_probability", "masking", "every_piece", "join")

    def __init__(
        self,
        *args: Any,
        mask_probability: float = 0.15,
        masking: str = "piece",
        every_piece: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if self.tokenizer.mask_token_id is None:
            raise InputError("A tokenizer with a mask token is needed. Received: one without `mask_token`.")
        self.every_piece = every_piece
        self.mask_probability = mask_probability
        self.masking = masking
        self._masks = Masking(
            self.tokenizer.mask_token_id,
            frozenset(self.tokenizer.all_special_ids),
            self.tokenizer.vocab_size,
            mask_probability,
            masking,
            starts_word=None if masking == "piece" else self._starts_word,
        )

    @cached_property
    def _starts_word(self) -> np.ndarray:
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return np.array([_starts_word(piece) for piece in pieces])

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        rows = super().batch_features(examples)
        if not self.every_piece:
            return rows
        return [[masked for feature in features for masked in self._each_masked(feature)] for features in rows]

    def _each_masked(self, feature: Feature) -> list[Feature]:
        # The rows share one text's pieces; each is masked when its batch is made.
        positions = np.flatnonzero(~np.isin(feature["input_ids"], list(self._masks.special_ids)))
        return [{**feature, "masked": int(position)} for position in positions]

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        rows = []
        for feature in features:
            ids, position = feature["input_ids"], feature.get("masked")
            if position is None:
                own = np.random.default_rng(zlib.crc32(ids.tobytes())) if rng is None else rng
                masked, labels = self._masks(ids, own)
            else:
                masked, labels = ids.copy(), np.full(ids.shape, IGNORE_INDEX, np.int32)
                masked[position], labels[position] = self._masks.mask_token_id, ids[position]
            rows.append({**feature, "input_ids": masked, "labels": labels})
        return {**pad_inputs(rows, self.pad_token_id), "labels": pad_labels(rows)}

    def scorer(self) -> Scorer:
        return _Renamed(super().scorer(), "pseudo_perplexity" if self.every_piece else "perplexity")

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        logs = np.concatenate([output["log_probs"] for output in outputs] or [np.zeros(0)]).astype(np.float64)
        name = "pseudo_log_likelihood" if self.every_piece else "masked_log_likelihood"
        return identified(example, **{name: float(logs.sum()), "pieces": int(logs.size)})


class _Renamed(Scorer):
    """A scorer of pieces, with the names that its numbers have for masked ones."""

    def __init__(self, scorer: Scorer, perplexity: str) -> None:
        self._scorer = scorer
        self._perplexity = perplexity

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        self._scorer.add(example, outputs)

    def result(self) -> dict[str, float]:
        found = self._scorer.result()
        names = {"loss": "loss", "perplexity": self._perplexity, "accuracy": "masked_accuracy"}
        return {names[name]: value for name, value in found.items()}


def _starts_word(piece: str) -> bool:
    """Whether a piece begins a word: after a space, and in a script without spaces."""
    if piece.startswith(_SPACE):
        return True
    name = unicodedata.name(piece[0], "") if piece else ""
    return re.split("[ -]", name)[0] in _WITHOUT_SPACES
