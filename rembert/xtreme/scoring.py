"""Scores of prediction files from 0 to 100, equal to those of XTREME's `evaluate.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common.errors import DataError
from rembert.common.files import read_json
from rembert.common.metrics.answers import Normalize, best_of, exact_match, normalize_mlqa, normalize_squad, word_f1
from rembert.common.text_lines import read_lines
from rembert.xtreme import reading
from rembert.xtreme.benchmark import BENCHMARK

Scores = dict[str, float]
Questions = list[tuple[str, list[str]]]  # ids with the texts of their answers
Chunk = tuple[str, int, int]


def score_file(task: str, predictions: Path, labels: Path, language: str) -> Scores:
    """The scores of one language of a task.

    Args:
        task: a key of `BENCHMARK`.
        predictions: a file as XTREME's evaluator takes it.
        labels: a file of the same form; in question answering, of SQuAD's.
        language: a code, for the rules of MLQA.

    Raises:
        DataError: a file is missing or malformed, or the two differ in length.

    Example:
        >>> _ = Path("predictions.tsv").write_text("0\\n1\\n")
        >>> _ = Path("labels.tsv").write_text("0\\n0\\n")
        >>> score_file("pawsx", Path("predictions.tsv"), Path("labels.tsv"), "de")
        {'accuracy': 50.0}
    """
    return score(task, read_predictions(task, predictions), read_labels(task, labels), language, source=predictions)


def score(task: str, predicted: Any, expected: Any, language: str, *, source: object = "predictions") -> Scores:
    """`score_file` of what `read_predictions` and `read_labels` give.

    Example:
        >>> score("pawsx", ["0", "1", "1", "0"], ["0", "1", "0", "0"], "de")
        {'accuracy': 75.0}
    """
    return _SCORES[task](predicted, expected, language, source)


def read_predictions(task: str, path: Path) -> Any:
    """The content of a prediction file: lines; sentences of tags; or, in question answering, answers by id.

    Raises:
        DataError: the file is missing or malformed.
    """
    if BENCHMARK[task].extension == "json":
        found = read_json(path, DataError)
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise DataError(f"{path}: a JSON object from ids to answers was expected.")
        return found
    return _read_rows(task, path)


def read_labels(task: str, path: Path) -> Any:
    """The content of a file of labels: as of predictions, but for questions their ids with the texts of their answers.

    Raises:
        DataError: the file is missing or malformed.
    """
    if BENCHMARK[task].extension != "json":
        return _read_rows(task, path)
    found = read_json(path, DataError)
    try:
        return [
            (str(question["id"]), [str(answer["text"]) for answer in question["answers"]])
            for article in found["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError) as problem:
        raise DataError(f"{path}: SQuAD's layout was expected, with ids and answers. Missing: {problem}.") from None


def averages(task: str, by_language: Mapping[str, Scores]) -> Scores:
    """`avg_…` of each metric, the task's score `avg_metric` (the mean of its metrics' averages), and `transfer_gap`:
    the score of English minus the mean of the other languages', where both are known.

    Example:
        >>> averages("pawsx", {"en": {"accuracy": 90.0}, "de": {"accuracy": 80.0}, "ko": {"accuracy": 70.0}})
        {'avg_accuracy': 80.0, 'avg_metric': 80.0, 'transfer_gap': 15.0}
    """
    names = next(iter(by_language.values()))
    found = {f"avg_{name}": _mean(scores[name] for scores in by_language.values()) for name in names}
    metrics = BENCHMARK[task].metrics
    found["avg_metric"] = _mean(found[f"avg_{name}"] for name in metrics)
    own = {code: _mean(scores[name] for name in metrics) for code, scores in by_language.items()}
    if "en" in own and len(own) > 1:
        found["transfer_gap"] = own["en"] - _mean(value for code, value in own.items() if code != "en")
    return found


def _accuracy(predicted: Sequence[str], expected: Sequence[str], language: str, source: object) -> Scores:
    _check_length(len(predicted), len(expected), "lines", source)
    if not expected:
        raise DataError(f"{source}: at least one prediction was expected. Received: none.")
    right = sum(one == other for one, other in zip(predicted, expected, strict=True))
    return {"accuracy": 100 * right / len(expected)}


def _pairs_f1(predicted: Sequence[str], expected: Sequence[str], language: str, source: object) -> Scores:
    got, wanted = ({tuple(line.split("\t")) for line in lines} for lines in (predicted, expected))
    return _f1(len(got & wanted), len(got), len(wanted))


def _tags_f1(whole: bool) -> Callable[..., Scores]:
    def scores(
        predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], language: str, source: object
    ) -> Scores:
        _check_length(len(predicted), len(expected), "sentences", source)
        for number, (one, other) in enumerate(zip(predicted, expected, strict=True), 1):
            _check_length(len(one), len(other), f"tags in sentence {number}", source)
        # seqeval reads all sentences as one, with an `O` after each.
        got, wanted = (
            set(chunks([tag for tags in rows for tag in (*tags, "O")], whole)) for rows in (predicted, expected)
        )
        return _f1(len(got & wanted), len(got), len(wanted))

    return scores


def _pos_f1(
    predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]], language: str, source: object
) -> Scores:
    first = _tags_f1(True)(predicted, expected, language, source)
    return {**first, "f1_seqeval_1": _tags_f1(False)(predicted, expected, language, source)["f1"]}


def _answers(normalize: Callable[[str], Normalize]) -> Callable[..., Scores]:
    def scores(predicted: Mapping[str, str], expected: Questions, language: str, source: object) -> Scores:
        if not expected:
            raise DataError(f"{source}: at least one question was expected. Received: none.")
        same = normalize(language)
        exact = f1 = 0.0
        for identity, answers in expected:
            if (given := predicted.get(identity)) is None:
                continue  # counts as wrong
            exact += best_of(lambda got, wanted: exact_match(got, wanted, same), given, answers or [""])
            f1 += best_of(lambda got, wanted: word_f1(got, wanted, same), given, answers or [""])
        return {"exact_match": 100 * exact / len(expected), "f1": 100 * f1 / len(expected)}

    return scores


_SCORES: dict[str, Callable[..., Scores]] = {
    **dict.fromkeys(("xnli", "pawsx", "tatoeba"), _accuracy),
    "udpos": _pos_f1,
    "panx": _tags_f1(True),
    **dict.fromkeys(("xquad", "tydiqa"), _answers(lambda language: normalize_squad)),
    "mlqa": _answers(lambda language: lambda text: normalize_mlqa(text, language)),
    "bucc2018": _pairs_f1,
}


def chunks(tags: Sequence[str], whole: bool = True) -> Iterator[Chunk]:
    """The chunks (kind, first word, last word) that seqeval finds by default, whatever the tags are.

    XTREME scores parts of speech with it, too: a tag's first letter is read as the prefix of an entity's tag, and
    neighbours of one kind are one chunk, unless the letter is B, E or S.

    Args:
        tags: of a sentence.
        whole: the kind is all of the tag after its last hyphen, as in the versions of seqeval before 1.0, with which
            results were published; else, as since then, the first letter is dropped, which makes the parts of speech
            CCONJ and SCONJ one kind.

    Example:
        >>> list(chunks(["NOUN", "NOUN", "SYM", "SYM"]))
        [('NOUN', 0, 1), ('SYM', 2, 2), ('SYM', 3, 3)]
    """
    letter, kind, start = "O", "", 0
    for position, tag in enumerate([*tags, "O"]):
        new, new_kind = tag[0], tag.split("-")[-1] if whole else tag[1:].split("-", 1)[-1] or "_"
        differs = kind != new_kind
        if letter in "ES" or (letter in "BI" and new in "BSO") or (letter not in "O." and differs):
            yield kind, start, position - 1
        if new in "BS" or (letter in "ESO" and new in "EI") or (new not in "O." and differs):
            start = position
        letter, kind = new, new_kind


def _read_rows(task: str, path: Path) -> Any:
    if BENCHMARK[task].group == "tagging":
        return [[tag.strip() for tag in tags] for _, tags in reading.sentences(path)]
    return [line.text.strip() for line in read_lines(path, strict=True)]


def _f1(correct: int, predicted: int, expected: int) -> Scores:
    precision = correct / predicted if predicted else 0.0
    recall = correct / expected if expected else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


def _check_length(got: int, wanted: int, what: str, source: object) -> None:
    if got != wanted:
        raise DataError(f"{source}: as many {what} as in the labels, {wanted}, were expected. Received: {got}.")


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
