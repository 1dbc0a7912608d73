"""Sentence retrieval without training: Tatoeba by cosine similarity, BUCC by its margin.

The vectors are means of hidden states of an inner layer, which XTREME's baselines found better than the last one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.errors import DataError
from rembert.common.files import write_text
from rembert.common.parameters import BASE_MODEL
from rembert.common.text_lines import read_lines
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.tasks.backends import find_device, load_trained
from rembert.tasks.embedding import Texts, embed
from rembert.tasks.examples import TextExample
from rembert.tasks.reading import Location
from rembert.xtreme.layout import examples_file

_AT_ONCE = 1 << 25  # similarities: 128 MB
_NEIGHBOURS = 4  # of a sentence, in the margin
_MAX_LENGTH = 512
Mined = list[tuple[int, int, float]]  # rows of both sides with their score, best first


def nearest(queries: np.ndarray, keys: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The keys most similar to each query, best first; of equal ones the first.

    Args:
        queries: [n, e] of length 1.
        keys: [m, e] of length 1.
        count: k, at most m are given.

    Returns:
        Similarities [n, k] and rows of `keys` [n, k].

    Example:
        >>> _, rows = nearest(np.eye(3, dtype=np.float32)[[2, 0]], np.eye(3, dtype=np.float32))
        >>> rows[:, 0]
        array([2, 0])
    """
    count = min(count, len(keys))
    scores = np.empty((len(queries), count), np.float32)
    rows = np.empty((len(queries), count), np.int64)
    step = max(1, _AT_ONCE // max(len(keys), 1))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        similar = queries[part] @ keys.T
        if count == 1:
            best = similar.argmax(1)[:, None]
        else:
            best = np.sort(np.argpartition(-similar, count - 1, axis=1)[:, :count], axis=1)
            order = np.argsort(-np.take_along_axis(similar, best, 1), axis=1, kind="stable")
            best = np.take_along_axis(best, order, 1)
        rows[part], scores[part] = best, np.take_along_axis(similar, best, 1)
    return scores, rows


def mine(one: np.ndarray, other: np.ndarray) -> Mined:
    """Pairs of sentences by the ratio margin of Artetxe and Schwenk (ACL 2019), each sentence in one pair at most.

    A pair's score is its cosine similarity divided by the mean similarity of both sentences to their four nearest
    neighbours. The best pair of each sentence, in both directions, is taken in the order of the scores.

    Args:
        one, other: [n, e] and [m, e] of length 1.
    """
    (forth, forth_rows), (back, back_rows) = nearest(one, other, _NEIGHBOURS), nearest(other, one, _NEIGHBOURS)
    forth_mean, back_mean = forth.mean(1), back.mean(1)
    pairs = [
        (np.arange(len(one)), *_best(forth, forth_rows, forth_mean, back_mean)),
        (np.arange(len(other)), *_best(back, back_rows, back_mean, forth_mean)),
    ]
    (rows, found, scores), (other_rows, other_found, other_scores) = pairs
    first, second = np.concatenate([rows, other_found]), np.concatenate([found, other_rows])
    all_scores = np.concatenate([scores, other_scores])
    mined: Mined = []
    seen: tuple[set[int], set[int]] = (set(), set())
    for at in np.argsort(-all_scores, kind="stable"):
        left, right = int(first[at]), int(second[at])
        if left not in seen[0] and right not in seen[1]:
            seen[0].add(left)
            seen[1].add(right)
            mined.append((left, right, float(all_scores[at])))
    return mined


def _best(
    similar: np.ndarray, rows: np.ndarray, mean: np.ndarray, other_mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The candidate of each row with the best margin, and that margin."""
    margins = similar / ((mean[:, None] + other_mean[rows]) / 2)
    best = margins.argmax(1)
    each = np.arange(len(rows))
    return rows[each, best], margins[each, best]


def best_threshold(scores: Sequence[float], correct: Sequence[bool], expected: int) -> float:
    """The threshold on descending scores with the best F1: in the middle of two scores.

    Args:
        scores: of candidates, descending.
        correct: whether each candidate is right.
        expected: how many pairs are right, found or not.

    Example:
        >>> best_threshold([1.5, 1.25, 1.0, 0.75], [True, True, False, False], expected=2)
        1.125
    """
    threshold, best, right = 0.0, 0.0, 0
    for number, is_right in enumerate(correct):
        right += is_right
        f1 = 2 * right / (number + 1 + expected)
        if f1 > best:
            best = f1
            threshold = (scores[number] + scores[min(number + 1, len(scores) - 1)]) / 2
    return threshold


class Retriever:
    """A model that writes the predictions of Tatoeba and BUCC.

    Args:
        model: any checkpoint.
        framework: 'pt' or 'tf'.
        layer: whose hidden states are taken, 0 for the encoder's input; by default at 7/12 of the depth, as in
            XTREME's baselines.
        max_length: of a sentence in tokens.
        batch_size: rows at once.
        device: of PyTorch.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        InputError: the model has no such layer.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        framework: str,
        *,
        layer: int | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        found = find_device(framework, device)
        tokenizer = RemBertTokenizerFast.from_pretrained(model)
        self._model = load_trained(framework, BASE_MODEL, model, device=found, add_pooling_layer=False)
        config = self._model.config
        check_argument("layer", layer, optional(integer(at_least=0, at_most=config.num_hidden_layers)))
        self._layer = round(config.num_hidden_layers * 7 / 12) if layer is None else layer
        length = min(max_length or _MAX_LENGTH, config.max_position_embeddings)
        self._task = Texts(tokenizer, max_length=length)
        self._batch_size = batch_size

    def write(
        self, data: Path, languages: Mapping[str, Sequence[str]], target: Callable[[str, str], Path]
    ) -> Iterator[Path]:
        """Write a file for each language of each task, and give its path when it is complete.

        Args and errors as for `Predictor.write`.
        """
        for task, codes in languages.items():
            predict = {"tatoeba": self._tatoeba, "bucc2018": self._bucc}[task]
            for code in codes:
                path = target(task, code)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, predict(data, code))
                yield path

    def _tatoeba(self, data: Path, language: str) -> str:
        """For each English sentence the number, from 0, of the nearest sentence of the language."""
        sources, targets = (
            self._vectors(*_texts(examples_file(data, "tatoeba", language, side=side))) for side in (language, "en")
        )
        return "".join(f"{row}\n" for row in nearest(targets, sources)[1][:, 0])

    def _bucc(self, data: Path, language: str) -> str:
        """The ids of the pairs above the threshold that is best on the development data."""
        gold_file = examples_file(data, "bucc2018", language, side="gold", split="dev")
        lines = (line.text.strip() for line in read_lines(gold_file, strict=True))
        gold = {tuple(line.split("\t")) for line in lines if line}
        mined = self._mined(data, language, "dev")
        scores = [score for *_, score in mined]
        threshold = best_threshold(scores, [(one, other) in gold for one, other, _ in mined], len(gold))
        pairs = [(one, other) for one, other, score in self._mined(data, language, "test") if score >= threshold]
        return "".join(f"{one}\t{other}\n" for one, other in pairs)

    def _mined(self, data: Path, language: str, split: str) -> list[tuple[str, str, float]]:
        """Mined pairs as ids, best first. A sentence that occurs under several ids is in none."""
        sides = []
        for side in (language, "en"):
            file = examples_file(data, "bucc2018", language, side=side, split=split)
            ids: dict[str, list[str]] = {}
            for line in read_lines(file, strict=True):
                identity, tab, text = line.text.partition("\t")
                if not tab:
                    raise DataError(f"{file}:{line.number}: an id, a tab and a sentence were expected.")
                ids.setdefault(text.strip(), []).append(identity.strip())
            sides.append((list(ids.values()), self._vectors(file, list(ids))))
        (left, one), (right, other) = sides
        return [
            (left[a][0], right[b][0], score) for a, b, score in mine(one, other) if len(left[a]) == len(right[b]) == 1
        ]

    def _vectors(self, file: Path, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, e] of length 1."""
        examples = (
            TextExample(Location(os.fspath(file), number), None, None, text=text, text_pair=None, label=None)
            for number, text in enumerate(texts, 1)
        )
        found = list(
            embed(self._task, self._model, examples, batch_size=self._batch_size, layer=self._layer, normalize=True)
        )
        if not found:
            raise DataError(f"{file}: at least one sentence was expected. Received: none.")
        return np.stack(found)


def _texts(file: Path) -> tuple[Path, list[str]]:
    return file, [line.text.strip() for line in read_lines(file, strict=True)]
