"""`RemBertScorer`: how close a candidate is to its reference, as a learned metric (BLEURT) sees it."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from rembert.bleurt.checkpoint import open_metric
from rembert.bleurt.pairs import Pair, PairEncoder
from rembert.bleurt.regressors import Regressor, load_regressor, padded
from rembert.common.arguments import check_argument, integer, one_of
from rembert.common.errors import CheckpointError, InputError
from rembert.common.loading import loading_config
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.backends import check_framework
from rembert.tasks.batching import in_sorted_batches

WINDOW = 4096  # pairs that are sorted by length at once
_REMEMBERED = 1 << 16  # pairs whose scores are kept, should they come again

AGGREGATES = ("best", "mean")


class Score(NamedTuple):
    """The score of one pair, and whether its texts had to be cut."""

    value: float
    was_cut: bool


class RemBertScorer:
    """Scores candidates against references. Made by `from_pretrained`.

    Attributes:
        name: the checkpoint's name.
        framework: "pt" or "tf".
        model: the framework's own model, a sequence classifier with one output, in evaluation mode. Its scores can be
            differentiated in `inputs_embeds`; see `encode`.
        tokenizer: gives the SentencePiece ids.
        max_length: the longest input in pieces; longer texts are cut.
        fingerprint: of all that decides the scores: equal ones give equal scores.
    """

    def __init__(
        self, name: str, framework: str, regressor: Regressor, tokenizer: RemBertTokenizer, max_length: int,
        fingerprint: bytes, batch_tokens: int | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.framework = framework
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.fingerprint = fingerprint
        self._regressor = regressor
        self._encoder = PairEncoder(tokenizer, max_length)
        self._batch_tokens = regressor.batch_tokens if batch_tokens is None else batch_tokens
        check_argument("batch_tokens", self._batch_tokens, integer(at_least=1))
        self._known: OrderedDict[bytes, Score] = OrderedDict()  # the latest; texts may be long, their keys are not

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, framework: str = "pt", device: str | None = None,
        dtype: str | None = None, max_length: int | None = None, batch_tokens: int | None = None, **overrides: Any,
    ) -> RemBertScorer:  # fmt: skip
        """Load a metric.

        Args:
            path: a BLEURT checkpoint (a SavedModel's directory, or the ZIP archive it comes in), a converted one, or a
                name on the Hugging Face Hub.
            framework: "pt" or "tf".
            device: PyTorch's name of a device; by default a GPU where there is one.
            dtype: of the weights and the computation; by default float32.
            max_length: the longest input in pieces; by default as the checkpoint says (`max_seq_length`).
            batch_tokens: how many pieces a batch has about; by default what suits the device.
            overrides: keys of the configuration to replace, as `hidden_act="gelu"`.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged, or it is not a RemBERT with one regression output.
            TokenizerError: it has no SentencePiece model that fits.
            MissingDependencyError: the framework is not installed.
            InputError: another argument that cannot be used.
            TypeError: an override that is no key of a configuration.
        """
        check_framework(framework)
        with open_metric(path, max_length=max_length) as found:
            config = loading_config(found.config, None, overrides, found.name)
            regressor = load_regressor(framework, found.directory, config, device=device, dtype=dtype)
            choices = repr((framework, dtype or "float32", found.max_length, sorted(overrides.items())))
            fingerprint = hashlib.blake2b(found.fingerprint + choices.encode()).digest()
            return cls(
                found.name, framework, regressor, found.tokenizer, found.max_length, fingerprint, batch_tokens
            )  # fmt: skip

    @property
    def model(self) -> Any:
        """The framework's own model."""
        return self._regressor.model

    def score(
        self, candidates: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]], *,
        aggregate: str = "best",
    ) -> np.ndarray:  # fmt: skip
        """The scores of candidates.

        Args:
            candidates: n texts.
            references: n texts, or n lists of one or more texts each.
            aggregate: what becomes of several references: "best" takes the highest score, "mean" the mean.

        Returns:
            [n] float64. A score is about 1 for a perfect candidate and about 0 for a random one, and is not bounded.

        Raises:
            InputError: not as many references as candidates, a candidate without a reference, or what is no text.
        """
        check_argument("aggregate", aggregate, one_of(AGGREGATES))
        per_reference = self.score_references(candidates, references)
        combine = np.max if aggregate == "best" else np.mean
        return np.array([combine(scores) for scores in per_reference], np.float64)

    def score_references(
        self, candidates: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """The score of every candidate with each of its references: n arrays [r]. Arguments as for `score`."""
        lists = _check_texts(candidates, references)
        pairs = ((candidate, one) for candidate, many in zip(candidates, lists, strict=True) for one in many)
        values = np.fromiter((score.value for score in self.stream(pairs)), np.float64)
        return np.split(values, np.cumsum([len(many) for many in lists])[:-1]) if lists else []

    def stream(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Score]:
        """The score of each (candidate, reference) in order, for any number of pairs in constant memory.

        Some thousand pairs at a time are sorted by length, so that little is padded; a pair that came before is not
        computed again.

        Raises:
            InputError: what is no pair of texts, or a text with lone surrogates.
            CheckpointError: the model gives what is no number.
        """
        source = iter(pairs)
        while window := list(islice(source, WINDOW)):
            yield from self.score_window(window)

    def score_window(
        self, pairs: Sequence[tuple[str, str]], done: Callable[[list[int], list[Score]], None] | None = None
    ) -> list[Score]:
        """The score of each (candidate, reference), sorted by length all at once.

        Args:
            pairs: as many as the memory shall hold.
            done: called after every batch with the numbers of pairs and their scores, for whoever keeps them at once.

        Raises:
            InputError: what is no pair of texts, or a text with lone surrogates.
            CheckpointError: the model gives what is no number.
        """
        places: dict[tuple[str, str], list[int]] = {}
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                raise InputError(f"A pair must be (candidate, reference). Received: {pair!r:.60}.")
            places.setdefault(pair, []).append(number)
        scores: list[Score | None] = [None] * len(pairs)

        def settle(found: dict[tuple[str, str], Score]) -> None:
            numbers = [number for texts in found for number in places[texts]]
            for texts, score in found.items():
                key = _key(texts)
                self._known[key] = score
                self._known.move_to_end(key)
                for number in places[texts]:
                    scores[number] = score
            if done is not None and numbers:
                done(numbers, [scores[number] for number in numbers])  # type: ignore[misc]  # they are there now

        known = {texts: self._known.get(_key(texts)) for texts in places}
        settle({texts: score for texts, score in known.items() if score is not None})
        fresh = [texts for texts, score in known.items() if score is None]
        encoded = self._encoder([candidate for candidate, _ in fresh], [reference for _, reference in fresh])
        items = list(zip(fresh, encoded, strict=True))

        def run(batch: list[tuple[tuple[str, str], Pair]]) -> list[Score]:
            found = self._run([pair for _, pair in batch])
            settle({texts: score for (texts, _), score in zip(batch, found, strict=True)})
            return found

        many = len(items) or 1
        for _ in in_sorted_batches(
            items, run, length=_length, batch_size=many, max_tokens=self._batch_tokens, window=many
        ):
            pass  # `settle` has put it in its place
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return scores  # type: ignore[return-value]  # every place has been filled

    def encode(self, candidates: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
        """The model's arguments for some pairs: `input_ids`, `attention_mask`, `token_type_ids`, each [b, s] int32.

        With the word embeddings of the ids as `inputs_embeds` in place of `input_ids`, a loss made of the scores has
        gradients in the texts' embeddings.

        Raises:
            InputError: not one reference for each candidate, or what is no text.
        """
        if any(len(many) > 1 for many in _check_texts(candidates, references)):
            raise InputError("`references` must be one text for each candidate. Received: lists of several.")
        references = [one if isinstance(one, str) else one[0] for one in references]
        return padded(self._encoder(candidates, references))

    def _run(self, batch: Sequence[Pair]) -> list[Score]:
        values = self._regressor(batch)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"The model of {self.name} gives scores that are no numbers. Received: {values.tolist()!r:.80}. "
                "With `dtype='float16'`, try float32; else the weights are damaged."
            )
        return [Score(value, pair.was_cut) for value, pair in zip(values.tolist(), batch, strict=True)]


def _key(texts: tuple[str, str]) -> bytes:
    """What stands for the texts of a pair: equal ones have equal keys, and no others in practice."""
    one, other = (text.encode("utf-8", "surrogatepass") for text in texts)
    return hashlib.blake2b(len(one).to_bytes(8, "little") + one + other, digest_size=16).digest()


def _length(item: tuple[tuple[str, str], Pair]) -> int:
    return len(item[1].ids)


def _check_texts(candidates: Any, references: Any) -> list[list[str]]:
    """The references of each candidate.

    Raises:
        InputError: these are no texts, or not as many references as candidates.
    """
    for name, texts in (("candidates", candidates), ("references", references)):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InputError(f"`{name}` must be a list of texts. Received: {texts!r:.60}.")
    if len(candidates) != len(references):
        raise InputError(
            f"There must be as many `references` as `candidates`. Received: {len(references)} and {len(candidates)}."
        )
    lists = [[one] if isinstance(one, str) else list(one or ()) for one in references]
    for number, (candidate, many) in enumerate(zip(candidates, lists, strict=True)):
        if not many:
            raise InputError(f"Every candidate needs a reference. Received: none for candidate {number}.")
        for text in (candidate, *many):
            if not isinstance(text, str):
                raise InputError(f"Candidates and references must be texts. Received: {text!r:.60} at {number}.")
    return lists
