"""`RemBertScorer`: the similarity of a candidate to its reference, by a learned metric (BLEURT)."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from rembert.tasks.batching import sorted_batches

WINDOW = 4096  # pairs that are sorted by length together
_REMEMBERED = 1 << 16  # pairs

AGGREGATES = ("best", "mean")

TextPair = tuple[str, str]  # candidate, reference


class Score(NamedTuple):
    """The score of one pair, and whether its texts were truncated.

    Example:
        >>> Score(value=0.75, was_cut=False).value
        0.75
    """

    value: float
    was_cut: bool


class RemBertScorer:
    """Scores candidates against references with a metric of the BLEURT-20 family. Create it with `from_pretrained`.

    Attributes:
        name: the checkpoint's name.
        framework: "pt" or "tf".
        model: the framework's own model, a sequence classifier with one output, in evaluation mode. Its scores are
            differentiable in `inputs_embeds`; see `encode`.
        tokenizer: gives the SentencePiece ids.
        max_length: the maximum length of an input in tokens; longer texts are truncated.
        fingerprint: a digest of everything that determines the scores.

    Example:
        >>> scorer = RemBertScorer.from_pretrained("BLEURT-20")
        >>> scores = scorer.score(
        ...     candidates=["a bird sings", "a bird sings"], references=["a bird chirps", ["a bird", "birds chirp"]]
        ... )
        >>> scores.shape, scores.dtype
        ((2,), dtype('float64'))
        >>> [each.shape for each in scorer.score_references(["a bird sings"], [["a bird", "birds chirp"]])]
        [(2,)]
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
        self._cache = _ScoreCache(_REMEMBERED)

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
            device: of PyTorch, by name; by default a GPU if there is one.
            dtype: of the weights and the computation; by default float32.
            max_length: the maximum length of an input in tokens; by default the checkpoint's `max_seq_length`.
            batch_tokens: the approximate number of tokens in a batch; by default one that suits the device.
            **overrides: keys of the configuration to replace, for example `hidden_act="gelu"`.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged, or it is not a RemBERT with one regression output.
            TokenizerError: it has no SentencePiece model that fits.
            MissingDependencyError: the framework is not installed.
            InputError: an argument is not allowed.
            TypeError: an override is not a key of the configuration.
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
            references: n texts, or n lists of one or more texts.
            aggregate: with several references, "best" takes the highest score, "mean" the mean.

        Returns:
            [n] float64. A score is about 1 for a perfect candidate and about 0 for a random one, and is not bounded.

        Raises:
            InputError: the numbers of candidates and references differ, a candidate has no reference, or an item is
                not a string.
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

    def stream(self, pairs: Iterable[TextPair]) -> Iterator[Score]:
        """The score of each (candidate, reference) in order, for any number of pairs in constant memory.

        Some thousand pairs at a time are sorted by length, to avoid padding. A repeated pair is computed once.

        Raises:
            InputError: an item is not a pair of strings, or a text holds lone surrogates.
            CheckpointError: the model returns NaN or infinite scores.
        """
        source = iter(pairs)
        while window := list(islice(source, WINDOW)):
            yield from self.score_window(window)

    def score_window(
        self, pairs: Sequence[TextPair], done: Callable[[list[int], list[Score]], None] | None = None
    ) -> list[Score]:
        """The score of each (candidate, reference); all pairs are sorted by length together.

        Args:
            pairs: as many as fit into memory.
            done: called after every batch with the indexes of its pairs and their scores.

        Raises:
            InputError: an item is not a pair of strings, or a text holds lone surrogates.
            CheckpointError: the model returns NaN or infinite scores.
        """
        indexes = _indexes(pairs)
        scores: list[Score] = [Score(np.nan, False)] * len(pairs)

        def record(found: Mapping[TextPair, Score]) -> None:
            self._cache.update(found)
            recorded = [(index, score) for texts, score in found.items() for index in indexes[texts]]
            for index, score in recorded:
                scores[index] = score
            if done is not None and recorded:
                done([index for index, _ in recorded], [score for _, score in recorded])

        known = {texts: score for texts in indexes if (score := self._cache.get(texts)) is not None}
        record(known)
        for batch in self._computed([texts for texts in indexes if texts not in known]):
            record(batch)
        return scores

    def _computed(self, texts: Sequence[TextPair]) -> Iterator[dict[TextPair, Score]]:
        """The scores of distinct pairs, batch by batch, longest first."""
        encoded = self._encoder([candidate for candidate, _ in texts], [reference for _, reference in texts])
        for batch in sorted_batches([len(pair.ids) for pair in encoded], max(len(texts), 1), self._batch_tokens):
            found = self._run([encoded[index] for index in batch])
            yield {texts[index]: score for index, score in zip(batch, found, strict=True)}

    def encode(self, candidates: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
        """The model's arguments for pairs: `input_ids`, `attention_mask`, `token_type_ids`, each [b, s] int32.

        Replace `input_ids` by their word embeddings as `inputs_embeds` for gradients of the scores in the embeddings.

        Raises:
            InputError: the numbers of candidates and references differ, or an item is not a string.
        """
        if any(len(many) > 1 for many in _check_texts(candidates, references)):
            raise InputError("`references` must be one text for each candidate. Received: lists of several.")
        references = [one if isinstance(one, str) else one[0] for one in references]
        return padded(self._encoder(candidates, references))

    def _run(self, batch: Sequence[Pair]) -> list[Score]:
        values = self._regressor(batch)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"The scores of {self.name} must be finite. Received: {values.tolist()!r:.80}. With "
                "`dtype='float16'`, try float32; otherwise the weights are damaged."
            )
        return [Score(value, pair.was_cut) for value, pair in zip(values.tolist(), batch, strict=True)]


class _ScoreCache:
    """The scores of the latest pairs. Keys are digests, since texts may be long."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores: OrderedDict[bytes, Score] = OrderedDict()

    def get(self, texts: TextPair) -> Score | None:
        """The score of a pair, or None."""
        return self._scores.get(self._key(texts))

    def update(self, found: Mapping[TextPair, Score]) -> None:
        """Keep scores, and drop the oldest ones that exceed the size."""
        for texts, score in found.items():
            key = self._key(texts)
            self._scores[key] = score
            self._scores.move_to_end(key)
        while len(self._scores) > self._size:
            self._scores.popitem(last=False)

    def clear(self) -> None:
        """Drop all scores."""
        self._scores.clear()

    @staticmethod
    def _key(texts: TextPair) -> bytes:
        one, other = (text.encode("utf-8", "surrogatepass") for text in texts)
        return hashlib.blake2b(len(one).to_bytes(8, "little") + one + other, digest_size=16).digest()


def _indexes(pairs: Sequence[TextPair]) -> dict[TextPair, list[int]]:
    """The indexes at which each distinct pair occurs.

    Raises:
        InputError: an item is not a pair of strings.
    """
    indexes: dict[TextPair, list[int]] = {}
    for index, pair in enumerate(pairs):
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InputError(f"A pair must be (candidate, reference). Received: {pair!r:.60}.")
        indexes.setdefault(pair, []).append(index)
    return indexes


def _check_texts(candidates: Any, references: Any) -> list[list[str]]:
    """The references of each candidate.

    Raises:
        InputError: the numbers of candidates and references differ, or an item is not a string.
    """
    for name, texts in (("candidates", candidates), ("references", references)):
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InputError(f"`{name}` must be a list of strings. Received: `{name}={texts!r:.60}`.")
    if len(candidates) != len(references):
        raise InputError(
            f"`references` must have one item for each of the {len(candidates)} candidates. Received: "
            f"{len(references)}."
        )
    lists = [[one] if isinstance(one, str) else list(one or ()) for one in references]
    for number, (candidate, many) in enumerate(zip(candidates, lists, strict=True)):
        if not many:
            raise InputError(f"Every candidate must have a reference. Received: none for candidate {number}.")
        for text in (candidate, *many):
            if not isinstance(text, str):
                raise InputError(f"Candidates and references must be strings. Received: {text!r:.60} at {number}.")
    return lists
