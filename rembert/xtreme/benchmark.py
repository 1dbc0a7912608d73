"""The tasks of XTREME (Hu et al., ICML 2020): languages, metrics, groups, and the English data to train on.

Recipes are those of Chung et al. (ICLR 2021), appendix: 3 epochs; lengths, strides and the choice of the best model
on English development data follow XTREME's baselines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rembert.common.errors import InputError
from rembert.tasks.definitions.question_answering import QuestionAnswering
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.definitions.token_classification import TokenClassification
from rembert.tasks.task import Task


@dataclass(frozen=True)
class TrainingSet:
    """English data to train on, and how.

    Attributes:
        task: what is trained.
        recipe: what differs from the task's own recipe.
        options: of the task.
        labels: of the benchmark, if a model must have just these.
    """

    task: type[Task]
    recipe: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of the benchmark.

    Attributes:
        title: in tables.
        group: of tasks whose mean is reported.
        languages: of the test data, as codes.
        metrics: whose means over the languages are averaged to the task's score.
        training: a key of `TRAINING_SETS`; None for retrieval, which takes the model as it is.
        extension: of the prediction files.
    """

    title: str
    group: str
    languages: tuple[str, ...]
    metrics: tuple[str, ...]
    training: str | None = None
    extension: str = "tsv"


_SENTENCES = {"epochs": 3, "batch_size": 128, "max_length": 128}
_QUESTIONS = {"epochs": 3, "batch_size": 128, "learning_rate": 9e-6, "max_length": 384}
_WINDOWS = {"stride": 128, "max_question_length": 64}

TRAINING_SETS: dict[str, TrainingSet] = {
    "xnli": TrainingSet(
        SequenceClassification,
        {**_SENTENCES, "learning_rate": 1e-5},
        labels=frozenset({"contradiction", "entailment", "neutral"}),
    ),
    "pawsx": TrainingSet(SequenceClassification, {**_SENTENCES, "learning_rate": 8e-6}, labels=frozenset({"0", "1"})),
    "udpos": TrainingSet(TokenClassification, {**_SENTENCES, "learning_rate": 3e-5}),
    "panx": TrainingSet(
        TokenClassification,
        {**_SENTENCES, "learning_rate": 8e-6, "batch_size": 64},
        labels=frozenset(["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]),
    ),
    "squad": TrainingSet(QuestionAnswering, _QUESTIONS, _WINDOWS),
    # Few questions: the batch of XTREME's own script, train_qa.sh.
    "tydiqa": TrainingSet(QuestionAnswering, {**_QUESTIONS, "batch_size": 32}, _WINDOWS),
}
"""The English data by name. XQuAD and MLQA share a model, which is trained on SQuAD."""


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ANSWERS = ("exact_match", "f1")

BENCHMARK: dict[str, BenchmarkTask] = {
    "xnli": BenchmarkTask(
        "XNLI", "classification", _codes("ar bg de el en es fr hi ru sw th tr ur vi zh"), ("accuracy",), "xnli"
    ),
    "pawsx": BenchmarkTask("PAWS-X", "classification", _codes("de en es fr ja ko zh"), ("accuracy",), "pawsx"),
    "udpos": BenchmarkTask(
        "POS",
        "tagging",
        _codes("af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"),
        ("f1",),
        "udpos",
    ),
    "panx": BenchmarkTask(
        "NER",
        "tagging",
        _codes(
            "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl "
            "tr ur vi yo zh"
        ),
        ("f1",),
        "panx",
    ),
    "xquad": BenchmarkTask("XQuAD", "qa", _codes("ar de el en es hi ru th tr vi zh"), _ANSWERS, "squad", "json"),
    "mlqa": BenchmarkTask("MLQA", "qa", _codes("ar de en es hi vi zh"), _ANSWERS, "squad", "json"),
    "tydiqa": BenchmarkTask("TyDiQA", "qa", _codes("ar bn en fi id ko ru sw te"), _ANSWERS, "tydiqa", "json"),
    "bucc2018": BenchmarkTask("BUCC", "retrieval", _codes("de fr ru zh"), ("f1",)),
    "tatoeba": BenchmarkTask(
        "Tatoeba",
        "retrieval",
        _codes(
            "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi "
            "zh"
        ),
        ("accuracy",),
    ),
}
"""The tasks by the names that XTREME's files have, in the order of tables."""

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, task in BENCHMARK.items() if task.group == group)
    for group in ("classification", "tagging", "qa", "retrieval")
}


def chosen_tasks(names: Iterable[str] | None) -> list[str]:
    """The tasks of these names in the order of `BENCHMARK`; all for None.

    Raises:
        InputError: there is no such task.

    Example:
        >>> chosen_tasks(["xquad", "pawsx"])
        ['pawsx', 'xquad']
    """
    if names is None:
        return list(BENCHMARK)
    given = list(names)
    unknown = sorted(set(given) - set(BENCHMARK))
    if unknown or not given:
        raise InputError(f"`tasks` must be of {', '.join(BENCHMARK)}. Received: {', '.join(unknown) or 'none'}.")
    return [name for name in BENCHMARK if name in given]


def chosen_languages(tasks: Sequence[str], codes: Iterable[str] | None) -> dict[str, list[str]]:
    """The languages of each task that are among `codes`; all for None. A task without any is left out.

    Raises:
        InputError: no task has a language of this code.

    Example:
        >>> chosen_languages(["pawsx", "tydiqa"], ["en", "ko", "sw"])
        {'pawsx': ['en', 'ko'], 'tydiqa': ['en', 'ko', 'sw']}
    """
    known = {code for name in tasks for code in BENCHMARK[name].languages}
    given = known if codes is None else set(codes)
    if unknown := sorted(given - known):
        raise InputError(
            f"`languages` must be of the tasks {', '.join(tasks)}: {', '.join(sorted(known))}. Received: "
            f"{', '.join(unknown)}."
        )
    found = {name: [code for code in BENCHMARK[name].languages if code in given] for name in tasks}
    return {name: languages for name, languages in found.items() if languages}
