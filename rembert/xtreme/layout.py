"""Where XTREME's `download_data.sh` puts the files of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rembert.common.errors import DataError
from rembert.xtreme.benchmark import BENCHMARK

# {task}: as in `TRAINING_SETS`. The first that exists is taken.
_PAIRS_AND_TAGS = ("{task}/{split}-en.tsv",)
_TRAINING: dict[str, dict[str, tuple[str, ...]]] = {
    "squad": {"train": ("squad/train-v1.1.json",), "dev": ("squad/dev-v1.1.json",)},
    # The development data are the test data here: no English examples are left to choose a model on.
    "tydiqa": {
        "train": (
            "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json",
            "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.en.train.json",
        ),
        "dev": (),
    },
}
_TEST = {
    "xquad": ("xquad/xquad.{language}.json",),
    "mlqa": (
        "mlqa/MLQA_V1/test/test-context-{language}-question-{language}.json",
        "mlqa/test/test-context-{language}-question-{language}.json",
    ),
    "tydiqa": ("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{language}.dev.json",),
    "tatoeba": ("tatoeba/{language}-en.{side}",),
    "bucc2018": ("bucc2018/{language}-en.{split}.{side}",),
}


def training_file(data: Path, training: str) -> Path:
    """The English examples to train on.

    Raises:
        DataError: the file is missing.
    """
    return _first(data, _training_names(training, "train"))


def development_file(data: Path, training: str) -> Path | None:
    """The English examples that the best model is chosen on; None if the benchmark has none.

    Raises:
        DataError: the file is missing.
    """
    names = _training_names(training, "dev")
    return _first(data, names) if names else None


def examples_file(data: Path, task: str, language: str, *, side: str = "", split: str = "test") -> Path:
    """The examples of a language.

    Args:
        data: the benchmark's directory.
        task: a key of `BENCHMARK`.
        language: a code.
        side: of a retrieval task: the language of the sentences, or `gold`.
        split: `test`, or `dev` where the task has it for every language.

    Raises:
        DataError: the file is missing.
    """
    patterns = _TEST.get(task, (f"{task}/{{split}}-{{language}}.tsv",))
    return _first(data, [name.format(language=language, side=side, split=split) for name in patterns])


def labels_file(labels: Path, task: str, language: str) -> Path:
    """The labels of a language, or the predictions for it: both have the same names."""
    return labels / task / f"test-{language}.{BENCHMARK[task].extension}"


def needed_files(data: Path, languages: Mapping[str, Sequence[str]], trained: Sequence[str]) -> list[Path]:
    """The files of a run. A directory without one of them is refused, before any work.

    Args:
        data: the benchmark's directory.
        languages: of each task.
        trained: the training sets that are needed.

    Raises:
        DataError: names the first few missing files.
    """
    if not data.is_dir():
        raise DataError(f"{data}: the directory that XTREME's download_data.sh fills was expected. Received: none.")
    found: list[Path] = []
    missing: list[str] = []

    def check(*names: str) -> None:
        if file := next((data / name for name in names if (data / name).is_file()), None):
            found.append(file)
        elif names:
            missing.append(names[0])

    for training in trained:
        check(*_training_names(training, "train"))
        check(*_training_names(training, "dev"))
    for task, codes in languages.items():
        for code in codes:
            for side, split in _parts(task, code):
                patterns = _TEST.get(task, (f"{task}/test-{{language}}.tsv",))
                check(*[name.format(language=code, side=side, split=split) for name in patterns])
    if missing:
        listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"{data}: the files of XTREME's download_data.sh were expected. Missing: {listed} ({len(missing)}). "
            "Choose others with `tasks` (--tasks) and `languages` (--languages)."
        )
    return found


def _parts(task: str, language: str) -> list[tuple[str, str]]:
    """(side, split) of the files of a language."""
    if task == "tatoeba":
        return [(language, ""), ("en", "")]
    if task == "bucc2018":
        return [(language, "test"), ("en", "test"), (language, "dev"), ("en", "dev"), ("gold", "dev")]
    return [("", "test")]


def _training_names(training: str, split: str) -> list[str]:
    names = _TRAINING.get(training, {}).get(split, _PAIRS_AND_TAGS)
    return [name.format(task=training, split=split) for name in names]


def _first(data: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (data / name).is_file():
            return data / name
    raise DataError(f"{data / names[0]}: a file of XTREME's download_data.sh was expected. Received: none.")
