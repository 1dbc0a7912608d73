"""A run of the benchmark: train on English, predict every language, score, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rembert.common.errors import InputError
from rembert.common.files import read_json_object, write_json
from rembert.common.progress import silent
from rembert.tasks.backends import check_framework
from rembert.tasks.run_digest import checkpoint_files, content_digest
from rembert.training import Recipe, finetune
from rembert.training.run import OutputDirectory
from rembert.xtreme.benchmark import BENCHMARK, GROUPS, TRAINING_SETS, chosen_languages, chosen_tasks
from rembert.xtreme.layout import development_file, labels_file, needed_files, training_file
from rembert.xtreme.prediction import Predictor
from rembert.xtreme.reading import write_training_examples
from rembert.xtreme.report import write_archive, write_report
from rembert.xtreme.retrieval import Retriever
from rembert.xtreme.scoring import Scores, score_file

RUN = "xtreme.json"
_DIGESTS = "digests"  # in `RUN`, of the content of each file of data and of each checkpoint

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Settings:
    data: Path
    model: str
    output: Path
    framework: str
    labels: Path | None
    changes: Mapping[str, Any]  # of recipes
    models: Mapping[str, str]
    batch_size: int
    layer: int | None
    device: str | None
    say: Say


def run_xtreme(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    tasks: Iterable[str] | None = None,
    languages: Iterable[str] | None = None,
    framework: str = "pt",
    labels: str | os.PathLike[str] | None = None,
    models: Mapping[str, str | os.PathLike[str]] | None = None,
    resume: bool = False,
    eval_batch_size: int = 32,
    layer: int | None = None,
    device: str | None = None,
    say: Say | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train on English, predict every language, and score as XTREME's `evaluate.py` does.

    `output` gets `models/` (one for each training set, with all that `finetune` writes), `predictions/TASK/` with the
    files that XTREME's evaluator takes, `submission.zip` with them, and, where labels are known, `scores.json`,
    `scores.md` and `plots/`.

    Args:
        data: the directory that XTREME's `download_data.sh` fills.
        model: the checkpoint to start from, a directory or a name on the Hugging Face Hub.
        output: a new or empty directory.
        tasks: keys of `BENCHMARK`; by default all.
        languages: codes; by default all of each task.
        framework: 'pt' or 'tf'.
        labels: a directory with the labels of the test data, `TASK/test-LANGUAGE.tsv` or `.json`. XTREME's script
            removes them from `data`. Without them nothing is scored.
        models: fine-tuned checkpoints by the name of a task or a training set, which are not trained again; retrieval
            takes `model` itself, or the one given here.
        resume: continue the run in `output`: finished training and finished languages are kept. The files of data and
            of checkpoints must have the content that they had.
        eval_batch_size: rows at once in prediction.
        layer: whose hidden states retrieval compares; by default at 7/12 of the depth.
        device: of PyTorch, in prediction.
        say: called with lines of text on the progress.
        **changes: keys of `Recipe` that differ from the paper's, for all tasks.

    Returns:
        The content of `scores.json`: scores from 0 to 100 by task, metric and language, their means, and those of the
        groups. Empty without labels.

    Raises:
        InputError: an argument is invalid; nothing has been written.
        DataError: a file of the benchmark is missing or malformed.
        CheckpointError: a checkpoint is missing, or one of `models` was not trained for its task or
            has other labels.

    Example:
        >>> from rembert.xtreme import chosen_tasks, run_xtreme
        >>> run_xtreme("download", "google/rembert", output="results", tasks=["tydi"])
        Traceback (most recent call last):
        rembert.common.errors.InputError: `tasks` must be of xnli, pawsx, ... Received: tydi.
    """
    check_framework(framework)
    names = chosen_tasks(tasks)
    chosen = chosen_languages(names, languages)
    folder = Path(output)
    settings = _Settings(
        Path(data),
        os.fspath(model),
        folder,
        framework,
        None if labels is None else Path(labels),
        changes,
        _given_models(models or {}),
        eval_batch_size,
        layer,
        device,
        say or silent,
    )
    trainings = {
        training: [name for name in chosen if BENCHMARK[name].training == training] for training in TRAINING_SETS
    }
    trainings = {training: own for training, own in trainings.items() if own}
    recipes = {training: _recipe(training, changes) for training in trainings}
    untrained = [training for training in trainings if training not in settings.models]
    files = needed_files(settings.data, chosen, untrained)
    if settings.labels is not None:
        _check_labels(settings.labels, chosen)
    retrieved = [name for name in GROUPS["retrieval"] if name in chosen]
    checkpoints = {settings.models.get(name, settings.model) for name in (*trainings, *retrieved)}
    directory = OutputDirectory(folder, resume=resume, is_main=True, run=RUN)
    try:
        identity = _identity(settings, files, checkpoints)
        if (folder / RUN).is_file():
            identity = _continued(folder / RUN, identity)
        directory.claim()
        write_json(folder / RUN, identity)
        for training, own in trainings.items():
            _train_and_predict(settings, training, {name: chosen[name] for name in own}, recipes[training])
        for name in retrieved:
            _retrieve(settings, name, chosen[name])
        return _finish(settings, chosen)
    finally:
        directory.release()


def _train_and_predict(settings: _Settings, training: str, languages: Mapping[str, list[str]], recipe: Recipe) -> None:
    """The predictions of the tasks of a training set that are not there yet."""
    target = _predictions(settings.output)
    if not any((missing := _missing(settings, languages)).values()):
        return
    model: str | Path | None = settings.models.get(training)
    if model is None:
        model = settings.output / "models" / training
        _train(settings, training, model, recipe)
    predictor = Predictor(
        training,
        model,
        settings.framework,
        max_length=recipe.max_length,
        batch_size=settings.batch_size,
        device=settings.device,
        given=training in settings.models,
    )
    for path in predictor.write(settings.data, missing, target):
        settings.say(f"{path}: written")


def _retrieve(settings: _Settings, task: str, languages: list[str]) -> None:
    """The predictions of a retrieval task that are not there yet."""
    if any((missing := _missing(settings, {task: languages})).values()):
        retriever = Retriever(
            settings.models.get(task, settings.model),
            settings.framework,
            layer=settings.layer,
            max_length=settings.changes.get("max_length"),
            batch_size=settings.batch_size,
            device=settings.device,
        )
        for path in retriever.write(settings.data, missing, _predictions(settings.output)):
            settings.say(f"{path}: written")


def _missing(settings: _Settings, languages: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The languages of each task that have no predictions."""
    target = _predictions(settings.output)
    found = {name: [code for code in codes if not target(name, code).is_file()] for name, codes in languages.items()}
    for name in (name for name, codes in found.items() if not codes):
        settings.say(f"{name}: all languages are predicted")
    return found


def _train(settings: _Settings, training: str, model: Path, recipe: Recipe) -> None:
    examples = settings.output / "examples" / training
    task = TRAINING_SETS[training].task
    files: dict[str, Path] = {}
    for split, source in (
        ("train", training_file(settings.data, training)),
        ("dev", development_file(settings.data, training)),
    ):
        if source is not None:
            files[split] = examples / f"{split}.jsonl"
            if left_out := write_training_examples(task, source, files[split]):
                settings.say(f"{source}: {left_out} example(s) without a text or a label left out")
    finetune(
        task.name,
        settings.model,
        files["train"],
        evaluation=files.get("dev"),
        output=model,
        framework=settings.framework,
        recipe=recipe,
        options=TRAINING_SETS[training].options,
        resume=True,
        say=settings.say,
    )


def _finish(settings: _Settings, languages: Mapping[str, list[str]]) -> dict[str, Any]:
    """The archive and, with labels, the scores of all predictions."""
    target = _predictions(settings.output)
    files = [(name, target(name, code)) for name, codes in languages.items() for code in codes]
    write_archive(settings.output / "submission.zip", files)
    if settings.labels is None:
        settings.say("no scores: `labels` (--labels) names no directory with the labels of the test data")
        return {}
    scores: dict[str, dict[str, Scores]] = {
        name: {
            code: score_file(name, target(name, code), labels_file(settings.labels, name, code), code)
            for code in codes
        }
        for name, codes in languages.items()
    }
    return write_report(settings.output, scores, settings.model, settings.say)


def _predictions(output: Path) -> Callable[[str, str], Path]:
    return lambda task, language: labels_file(output / "predictions", task, language)


def _recipe(training: str, changes: Mapping[str, Any]) -> Recipe:
    declared = TRAINING_SETS[training]
    return Recipe.for_task(declared.task.name, **{**declared.recipe, **changes})


def _given_models(models: Mapping[str, str | os.PathLike[str]]) -> dict[str, str]:
    """The given checkpoints by training set, or by the name of a retrieval task.

    Raises:
        InputError: a name is of no task and no training set, or two checkpoints are given for one.
    """
    found: dict[str, str] = {}
    for name, path in models.items():
        if name not in TRAINING_SETS and name not in BENCHMARK:
            known = sorted({*TRAINING_SETS, *BENCHMARK})
            raise InputError(f"`models` must be for {', '.join(known)}. Received: {name}.")
        training = name if name in TRAINING_SETS else BENCHMARK[name].training or name
        if found.setdefault(training, os.fspath(path)) != os.fspath(path):
            raise InputError(
                f"`models` must have one checkpoint for {training}. Received: {found[training]} and {path}."
            )
    return found


def _check_labels(labels: Path, languages: Mapping[str, list[str]]) -> None:
    missing = [
        str(path)
        for name, codes in languages.items()
        for code in codes
        if not (path := labels_file(labels, name, code)).is_file()
    ]
    if missing:
        raise InputError(
            f"`labels` must hold a file for each task and language. Missing: {', '.join(missing[:5])} "
            f"({len(missing)} in all)."
        )


def _identity(settings: _Settings, files: Iterable[Path], checkpoints: Iterable[str]) -> dict[str, Any]:
    """What must be equal for predictions to belong to one run: its settings, and the content of its files."""
    sources = {**{str(file): [file] for file in files}, **{name: checkpoint_files(name) for name in checkpoints}}
    return {
        "data": str(settings.data),
        "model": settings.model,
        "framework": settings.framework,
        "recipe": dict(settings.changes),
        "models": dict(settings.models),
        "layer": settings.layer,
        _DIGESTS: {name: content_digest(own).hex() for name, own in sources.items()},
    }


def _continued(run: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of the run in a file, to which tasks and languages may have been added.

    Raises:
        InputError: it is another run's, or a file that both read has changed.
    """
    before = read_json_object(run, InputError)
    digests = before.get(_DIGESTS)
    if not isinstance(digests, dict):
        raise InputError(f"{run} must hold the digests of the files of a run. Received: {digests!r:.100}.")
    changed = [
        f"{name} was {before.get(name)!r}, now {value!r}"
        for name, value in now.items()
        if name != _DIGESTS and before.get(name) != value
    ]
    if changed:
        raise InputError(f"A run must be resumed with its own settings. Received: {'; '.join(changed):.600}.")
    others = [name for name, digest in now[_DIGESTS].items() if digests.get(name, digest) != digest]
    if others:
        raise InputError(
            f"A run must be resumed with the files that it began with. Received other content in {others[0]} "
            f"({len(others)} in all)."
        )
    return {**now, _DIGESTS: {**digests, **now[_DIGESTS]}}
