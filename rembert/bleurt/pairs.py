"""A candidate and its reference as the model's input, prepared exactly as by BLEURT.

`[CLS] reference [SEP] candidate [SEP]`: Sellam et al., "BLEURT: Learning Robust Metrics for Text Generation" (ACL
2020), section 3, with the truncation of its published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.common.tokenization.truncation import Truncation, windows

SPECIALS = 3  # [CLS] and two [SEP]


@dataclass(frozen=True, slots=True)
class Pair:
    """One input of the model.

    Attributes:
        ids: [s] int32, `[CLS] reference [SEP] candidate [SEP]`.
        first: the number of ids of type 0, up to the first [SEP].
        was_cut: whether the texts were truncated.
    """

    ids: np.ndarray
    first: int
    was_cut: bool

    @property
    def types(self) -> np.ndarray:
        """[s] int32: 0 up to the first [SEP], 1 after."""
        return (np.arange(len(self.ids)) >= self.first).astype(np.int32)


class PairEncoder:
    """Texts to pairs.

    SentencePiece encodes the texts as they are, so `[SEP]` inside a text is five characters, as in BLEURT; a call of
    the tokenizer would read it as the special token. The longer side is truncated from its end until the pair fits; of
    sides of equal length, the candidate first.
    """

    def __init__(self, tokenizer: RemBertTokenizer, max_length: int) -> None:
        self.max_length = max_length
        self._model = tokenizer.sentencepiece_model
        cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        if cls_id is None or sep_id is None:
            raise InputError("`tokenizer` must have `[CLS]` and `[SEP]`. Received: one without.")
        self._cls, self._sep = [cls_id], [sep_id]

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[Pair]:
        """One pair for each candidate and the reference at the same index.

        Raises:
            InputError: a text holds lone surrogates.
        """
        # A reference often belongs to several candidates, and the reverse: each text is encoded once.
        texts = dict.fromkeys(chain(references, candidates))
        ids = dict(zip(texts, self._model.encode(list(texts)), strict=True))
        return [self._pair(ids[reference], ids[one]) for one, reference in zip(candidates, references, strict=True)]

    def _pair(self, reference: list[int], candidate: list[int]) -> Pair:
        was_cut = len(reference) + len(candidate) + SPECIALS > self.max_length
        if was_cut:
            (kept,) = windows(
                0, (len(reference), len(candidate)), max_length=self.max_length, specials=SPECIALS,
                strategy=Truncation.LONGEST_FIRST, stride=0, overflow=False, side="right",
            )  # fmt: skip
            assert kept.second is not None  # there are two texts
            reference, candidate = reference[kept.first], candidate[kept.second]
        ids = [*self._cls, *reference, *self._sep, *candidate, *self._sep]
        return Pair(np.array(ids, np.int32), len(reference) + 2, was_cut)
