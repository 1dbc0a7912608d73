"""Exact match and F1 of answers in [0, 1], as SQuAD's and MLQA's own evaluators define them.

- SQuAD 1.1 (Rajpurkar et al., 2016, section 6.1): the best over an example's answers, after lower-casing and dropping
  ASCII punctuation and English articles; F1 is that of the bags of words.
- SQuAD 2.0 (Rajpurkar et al., 2018): no answer is the empty answer, which only matches itself. Answers that are empty
  after normalisation are left out.
- MLQA (Lewis et al., 2020, section 4.3 and its evaluator): punctuation of all scripts, articles by language, and
  Chinese cut into characters.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from rembert.common.metrics.classification import f1

_ASCII_PUNCTUATION = frozenset(string.punctuation)
_ENGLISH_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# As in MLQA's evaluator. The Arabic article is removed wherever its two letters occur, also inside words.
_ARTICLES: dict[str, re.Pattern[str] | None] = {
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "ar": re.compile("ال"),
    "hi": None,
    "zh": None,
}
_IN_CHARACTERS = frozenset({"zh"})
_FIRST_HAN, _LAST_HAN = "\u4e00", "\u9fa5"  # the range of Chinese characters in MLQA's evaluator

Normalize = Callable[[str], str]
Pair = tuple[float, float]


def normalize_squad(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, one space between words.

    Example:
        >>> normalize_squad("The  Eiffel Tower!")
        'eiffel tower'
    """
    kept = "".join(char for char in text.lower() if char not in _ASCII_PUNCTUATION)
    return " ".join(_ENGLISH_ARTICLES.sub(" ", kept).split())


def normalize_mlqa(text: str, language: str) -> str:
    """Lower case, without punctuation of any script and the language's articles, one space between words.

    Args:
        text: an answer.
        language: a language of `mlqa_language`.
    """
    kept = "".join(char for char in text.lower() if not _is_punctuation(char))
    if (articles := _ARTICLES[language]) is not None:
        kept = articles.sub(" ", kept)
    return " ".join(_characters(kept) if language in _IN_CHARACTERS else kept.split())


def mlqa_language(code: str | None) -> str | None:
    """The one of MLQA's seven languages that a code means (`zh`, `zh-CN`, `zh_Hans`), or None."""
    language = re.split("[-_]", code.lower())[0] if code else None
    return language if language in _ARTICLES else None


@lru_cache(maxsize=1 << 16)
def _is_punctuation(char: str) -> bool:
    return char in _ASCII_PUNCTUATION or unicodedata.category(char).startswith("P")


def _characters(text: str) -> Iterator[str]:
    """Chinese characters one by one, and the text between them split at spaces."""
    for word in text.split():
        rest = ""
        for char in word:
            if _FIRST_HAN <= char <= _LAST_HAN:
                if rest:
                    yield rest
                    rest = ""
                yield char
            else:
                rest += char
        if rest:
            yield rest


def exact_match(predicted: str, expected: str, normalize: Normalize = normalize_squad) -> float:
    """1 if both are equal after normalisation, else 0."""
    return float(normalize(predicted) == normalize(expected))


def word_f1(
    predicted: str, expected: str, normalize: Normalize = normalize_squad, *, empty_matches: bool = False
) -> float:
    """F1 of the bags of normalized words.

    Args:
        predicted, expected: the answers.
        normalize: applied to both; words are separated by spaces.
        empty_matches: whether two answers without words are equal (SQuAD 2.0) or have nothing in common (1.1, MLQA).

    Example:
        >>> round(word_f1("the big lighthouse", "a lighthouse"), 3)
        0.667
    """
    got, wanted = normalize(predicted).split(), normalize(expected).split()
    if empty_matches and not (got and wanted):
        return float(got == wanted)
    return f1((Counter(got) & Counter(wanted)).total(), len(got), len(wanted))


def best_of(score: Callable[[str, str], float], predicted: str, expected: Sequence[str]) -> float:
    """The best score over an example's answers."""
    return max(score(predicted, answer) for answer in expected)


class AnswerScores:
    """SQuAD's scores of any number of questions, and MLQA's if all of them are in its languages.

    If a question has no answer, all are scored by the rules of SQuAD 2.0.

    Example:
        >>> scores = AnswerScores()
        >>> scores.add(["Ada Moss"], "keeper Ada Moss")
        >>> {name: round(value, 3) for name, value in scores.result().items()}
        {'exact_match': 0.0, 'f1': 0.8}
    """

    def __init__(self) -> None:
        # (exact match, F1) of each question by the rules of SQuAD 1.1, of SQuAD 2.0, and of MLQA.
        self._first: list[Pair] = []
        self._second: list[Pair] = []
        self._mlqa: list[Pair] = []
        self._answerable: list[bool] = []
        # The scores of the best non-empty answer by the rules of 2.0, and by how much no answer scores above it.
        self._answered: list[Pair] = []
        self._gains: list[float] = []

    def add(
        self,
        expected: Sequence[str],
        predicted: str,
        *,
        language: str | None = None,
        best_answer: str | None = None,
        no_answer_score: float = 0.0,
    ) -> None:
        """Count one question.

        Args:
            expected: its answers; empty if it has none.
            predicted: the predicted answer; empty for no answer.
            language: the language of the question, for MLQA's rules.
            best_answer: the best non-empty answer.
            no_answer_score: the score of no answer minus that of `best_answer`, to find the best threshold.
        """
        golds = list(expected) or [""]
        worded = [answer for answer in expected if normalize_squad(answer)] or [""]
        self._first.append(_both(predicted, golds, normalize_squad, False))
        self._second.append(_both(predicted, worded, normalize_squad, True))
        spoken = mlqa_language(language)
        if spoken is not None:
            self._mlqa.append(_both(predicted, golds, lambda text: normalize_mlqa(text, spoken), False))
        self._answerable.append(bool(expected))
        best = predicted if best_answer is None else best_answer
        self._answered.append(_both(best, worded, normalize_squad, True))
        self._gains.append(no_answer_score)

    def result(self) -> dict[str, float]:
        """`exact_match` and `f1`; for MLQA also `exact_match_mlqa` and `f1_mlqa`.

        If some questions have no answer, also the scores of both kinds (`…_has_answer`, `…_no_answer`), and the best
        score that a threshold on the score of no answer could reach (`…_best`), with that threshold.
        """
        all_answerable = all(self._answerable)
        scores = _means("", self._first if all_answerable else self._second)
        if self._mlqa and len(self._mlqa) == len(self._first):
            scores |= _means("_mlqa", self._mlqa)
        if not all_answerable:
            for name, kind in (("_has_answer", True), ("_no_answer", False)):
                rows = [row for row, has in zip(self._second, self._answerable, strict=True) if has is kind]
                scores |= _means(name, rows) if rows else {}
            scores |= self._best(0, "exact_match") | self._best(1, "f1")
        return scores

    def _best(self, index: int, name: str) -> dict[str, float]:
        """The best mean score over all thresholds: a question is answered if no answer scores no more than that."""
        score = float(self._answerable.count(False))  # no question is answered
        best, threshold = score, 0.0
        order = sorted(range(len(self._gains)), key=lambda number: self._gains[number])
        for rank, number in enumerate(order):
            score += self._answered[number][index] if self._answerable[number] else -1.0
            ends_tie = rank + 1 == len(order) or self._gains[order[rank + 1]] != self._gains[number]
            if ends_tie and score > best:
                best, threshold = score, self._gains[number]
        return {f"{name}_best": best / len(order), f"{name}_best_threshold": threshold}


def _both(predicted: str, expected: Sequence[str], normalize: Normalize, empty_matches: bool) -> Pair:
    return (
        best_of(lambda got, wanted: exact_match(got, wanted, normalize), predicted, expected),
        best_of(lambda got, wanted: word_f1(got, wanted, normalize, empty_matches=empty_matches), predicted, expected),
    )


def _means(ending: str, rows: Sequence[Pair]) -> dict[str, float]:
    names = (f"exact_match{ending}", f"f1{ending}")
    return {name: sum(column) / len(rows) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
