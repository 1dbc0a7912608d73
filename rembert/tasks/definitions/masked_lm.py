"""Masked language modelling: predict the masked tokens."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rembert.common.arguments import number
from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.masking import STRATEGIES, Masking
from rembert.common.collation.padding import pad_inputs, pad_labels
from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.declarations import Option, Score
from rembert.tasks.examples import Example
from rembert.tasks.language_model import JOIN, LanguageModelTask, log_probabilities
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, identified

_SPACE = "▁"
# Scripts written without spaces, by the first word of their characters' names: every token is a word there.
_WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})


class MaskedLM(LanguageModelTask):
    """Predicts masked tokens. In training, masks are drawn for every batch; in evaluation they depend on the row only,
    so that scores are comparable.

    Args:
        tokenizer, max_length, data, join: as for `LanguageModelTask`.
        mask_probability: the proportion of tokens that are masked.
        masking: "token", "word" or "span"; see `rembert.common.collation.masking`.
        every_token: in evaluation, mask every token in turn, one row for each: the pseudo-log-likelihood of
            Salazar et al. (ACL 2020), section 2.1, and exp of its negative mean, the pseudo-perplexity.

    Raises:
        InputError: the tokenizer has no mask token, or an option is not allowed.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("texts.txt").write_text("The ferry leaves at nine.")
        >>> task = MaskedLM(RemBertTokenizer.from_pretrained("google/rembert"), max_length=64, every_token=True)
        >>> [example] = task.read("texts.txt")
        >>> batch = task.collate(task.features(example))
        >>> (batch["input_ids"] == task.tokenizer.mask_token_id).sum(1)  # one mask in each row
        array([1, ..., 1])
    """

    name = "masked-lm"
    head = "masked-lm"
    options: ClassVar = (
        Option(
            "mask_probability",
            float,
            "the proportion of masked tokens",
            default=0.15,
            constraint=number(above=0, at_most=1),
        ),
        Option("masking", str, "the unit that is masked", default="token", choices=STRATEGIES),
        Option("every_token", bool, "score by masking every token in turn (pseudo-perplexity)", default=False),
        JOIN,
    )
    scores: ClassVar = (
        Score("loss", lower_is_better=True),
        Score("perplexity", lower_is_better=True),
        Score("pseudo_perplexity", lower_is_better=True),
        Score("masked_accuracy"),
    )
    mask_probability: float
    masking: str
    every_token: bool

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        if self.tokenizer.mask_token_id is None:
            raise InputError("`tokenizer` must have a mask token. Received: one without `mask_token`.")
        self._masks = Masking(
            self.tokenizer.mask_token_id,
            frozenset(self.tokenizer.all_special_ids),
            self.tokenizer.vocab_size,
            self.mask_probability,
            self.masking,
            starts_word=None if self.masking == "token" else self._starts_word,
        )

    @cached_property
    def _starts_word(self) -> np.ndarray:
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        return np.array([_starts_word(token) for token in tokens])

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        rows = super().batch_features(examples)
        if not self.every_token:
            return rows
        return [[masked for feature in features for masked in self._each_masked(feature)] for features in rows]

    def _each_masked(self, feature: Feature) -> list[Feature]:
        # The rows share the arrays of one text; each is masked when its batch is made.
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
        return _Renamed(super().scorer(), "pseudo_perplexity" if self.every_token else "perplexity")

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        logs = log_probabilities(outputs)
        name = "pseudo_log_likelihood" if self.every_token else "masked_log_likelihood"
        return identified(example, **{name: float(logs.sum()), "tokens": int(logs.size)})


class _Renamed(Scorer):
    """A scorer of tokens with the names of the scores of masked tokens."""

    def __init__(self, scorer: Scorer, perplexity: str) -> None:
        self._scorer = scorer
        self._perplexity = perplexity

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        self._scorer.add(example, outputs)

    def result(self) -> dict[str, float]:
        found = self._scorer.result()
        names = {"loss": "loss", "perplexity": self._perplexity, "accuracy": "masked_accuracy"}
        return {names[name]: value for name, value in found.items()}


def _starts_word(token: str) -> bool:
    """Whether a token begins a word: after a space, and in a script without spaces."""
    if token.startswith(_SPACE):
        return True
    name = unicodedata.name(token[0], "") if token else ""
    return re.split("[ -]", name)[0] in _WITHOUT_SPACES
