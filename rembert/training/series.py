"""Several runs of one recipe: with other seeds, on folds of the data, or with the settings that Optuna proposes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.registry import locate_checkpoint
from rembert.common.arguments import check_argument, integer
from rembert.common.dependencies import require_packages
from rembert.common.errors import DataError, InputError
from rembert.common.files import write_json
from rembert.tasks.data import DataOptions
from rembert.tasks.examples import SkippedExample
from rembert.tasks.languages import language_files
from rembert.tasks.reading import BadLine
from rembert.tasks.sources import Data, is_path, listed, sources
from rembert.tasks.task import Task
from rembert.training.finetuning import chosen_recipe, chosen_task, finetune
from rembert.training.recipe import Recipe
from rembert.training.reporting import Reporter

SUMMARY = "summary.json"


class Series:
    """Runs that differ in a few settings, each in a directory of its own, and a summary of their scores.

    Args:
        task: a key of `rembert.tasks.TASKS`.
        model: the checkpoint that every run starts from.
        output: a new or empty directory; the runs are in it.
        resume: continue the runs in `output`; finished ones are not repeated.
        recipe: how to train; by default the task's.
        data, options: as for `finetune`.
        from_scratch: as for `finetune`.
        say: called with lines of text on the progress.
        **settings: further arguments of `finetune`.

    Raises:
        InputError: an argument is invalid, or the directory is not empty.

    Example:
        >>> rows = [{"text": f"{word} {number}", "label": word} for number in range(4) for word in ("sea", "sky")]
        >>> recipe = Recipe.for_task("sequence-classification", max_steps=1)
        >>> series = Series("sequence-classification", "google/rembert", output="folds", recipe=recipe)
        >>> sorted(series.folds(rows, 2)["mean"])
        ['eval_accuracy', 'eval_f1_macro', 'eval_f1_micro', 'eval_loss', 'train_loss']
    """

    def __init__(
        self,
        task: str,
        model: str | os.PathLike[str],
        *,
        output: str | os.PathLike[str],
        resume: bool = False,
        recipe: Recipe | None = None,
        data: DataOptions | None = None,
        options: Mapping[str, Any] | None = None,
        from_scratch: bool = False,
        say: Reporter | None = None,
        **settings: Any,
    ) -> None:
        self._name, self._model, self._output = task, model, Path(output)
        self._recipe = chosen_recipe(task, recipe, {})
        self._data, self._options, self._from_scratch = data, options, from_scratch
        self._settings, self._say = settings, say
        if self._output.exists() and (not self._output.is_dir() or (not resume and any(self._output.iterdir()))):
            raise InputError(f"`output` must be a new or empty directory, unless resumed. Received: {self._output}.")
        self._runs: list[dict[str, Any]] = []

    def seeds(self, train: Data, seeds: Sequence[int], evaluation: Data | None = None) -> dict[str, Any]:
        """A run with each of several seeds, in `seed-N`.

        Returns:
            The content of `summary.json`: `runs`, each with its name and scores, and `mean` and `std` (the sample
            standard deviation) of each score.
        """
        _check_several("seeds", seeds)
        for seed in seeds:
            self._run(f"seed-{seed}", train, evaluation, seed=seed)
        return self._summary()

    def folds(self, train: Data, folds: int) -> dict[str, Any]:
        """Cross-validation: a run on all but each of `folds` parts of the data, evaluated on that part, in `fold-N`.

        Examples are dealt out at random, by the recipe's seed, so that each class is spread evenly. They are kept in
        memory.

        Returns:
            As `seeds`.
        """
        check_argument("folds", folds, integer(at_least=2))
        rows, numbers = self._dealt(train, folds)
        for fold in range(folds):
            parts: tuple[list[Any], list[Any]] = ([], [])
            for row, number in zip(rows, numbers, strict=True):
                parts[number == fold].append(row)
            self._run(f"fold-{fold + 1}", *parts)
        return self._summary()

    def search(
        self, train: Data, evaluation: Data, space: Mapping[str, Sequence[Any] | tuple[float, float]], trials: int
    ) -> dict[str, Any]:
        """Runs with the settings that Optuna's TPE sampler proposes, in `trial-N`.

        The sampler has the recipe's seed, so a resumed search proposes the same settings.

        Args:
            train, evaluation: as for `finetune`.
            space: by the key of a recipe, a list of values, or a tuple of the lowest and the highest number: integers
                if both are, and on a logarithmic scale if the highest is ten times the lowest or more.
            trials: the number of runs.

        Returns:
            As `seeds`, and `best`: the name of the best run.

        Raises:
            MissingDependencyError: Optuna is not installed.
        """
        require_packages("optuna", needed_for="The search for settings")
        import optuna

        check_argument("trials", trials, integer(at_least=1))
        for name in space:
            chosen_recipe(self._name, self._recipe, {name: getattr(self._recipe, name, None)})  # refuses other names
        best: tuple[float, str] | None = None

        def value(trial: Any) -> float:
            nonlocal best
            changes = {name: _proposed(trial, name, values) for name, values in space.items()}
            name = f"trial-{trial.number + 1}"
            task, scores = self._run(name, train, evaluation, **changes)
            metric = self._recipe.metric or task.metric
            declared = task.score_of(metric)
            found = scores[f"eval_{metric}"] * (-1 if declared is not None and declared.lower_is_better else 1)
            if best is None or found > best[0]:
                best = (found, name)
            return found

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=self._recipe.seed))
        study.optimize(value, n_trials=trials)
        assert best is not None
        return self._summary(best=best[1])

    def _run(self, name: str, train: Data, evaluation: Data | None, **changes: Any) -> tuple[Task, dict[str, float]]:
        """One run; its task, which knows its metric, and its scores."""
        if self._say is not None:
            self._say(f"{name}: " + (", ".join(f"{key} {value}" for key, value in changes.items()) or "starts"))
        recipe = chosen_recipe(self._name, self._recipe, changes)
        task = self._task(recipe)
        scores = finetune(
            task,
            self._model,
            train,
            evaluation=evaluation,
            output=self._output / name,
            recipe=recipe,
            resume=True,
            from_scratch=self._from_scratch,
            say=self._say,
            **self._settings,
        )
        self._runs.append({"run": name, **changes, **scores})
        return task, scores

    def _task(self, recipe: Recipe) -> Task:
        source = locate_checkpoint(self._model)
        return chosen_task(self._name, source, recipe, self._data, self._options, from_scratch=self._from_scratch)

    def _summary(self, **more: Any) -> dict[str, Any]:
        names = [name for name in self._runs[0] if name.startswith(("eval_", "train_"))]
        values = {name: np.array([run[name] for run in self._runs]) for name in names}
        summary = {
            **more,
            "runs": self._runs,
            "mean": {name: float(each.mean()) for name, each in values.items()},
            "std": {name: float(each.std(ddof=1)) if len(each) > 1 else 0.0 for name, each in values.items()},
        }
        write_json(self._output / SUMMARY, summary)
        return summary

    def _dealt(self, train: Data, folds: int) -> tuple[list[Any], list[int]]:
        """The records, and the number of the fold of each."""
        task = self._task(self._recipe)
        rows = list(_records(task, train))
        examples = task.read(rows, keep_skipped=True)
        classes = [() if isinstance(each, SkippedExample) else tuple(task.classes(each)) for each in examples]
        if len(rows) < folds:
            raise DataError(f"At least {folds} examples were expected, one for each fold. Received: {len(rows)}.")
        order = np.random.default_rng(self._recipe.seed).permutation(len(rows))
        numbers = [0] * len(rows)
        for place, row in enumerate(sorted(order, key=lambda row: classes[row])):  # stable: random within a class
            numbers[row] = place % folds
        return rows, numbers


def _records(task: Task, data: Data) -> Iterator[dict[str, Any]]:
    """The records of files or of data in memory as dictionaries, with the languages that the files' names give."""
    given = listed(data)
    if not all(map(is_path, given)):
        yield from (_fields(task, record) for source in sources(given) for record in source.records(task.data, ""))
        return
    for file in language_files(given):
        for source in sources([file.path]):
            for record in source.records(task.data, task.format):
                fields = _fields(task, record)
                yield fields if file.language is None else {**fields, "language": file.language}


def _fields(task: Task, record: Any) -> dict[str, Any]:
    if isinstance(record, BadLine):
        if not task.data.skip_bad_lines:
            raise DataError(f"{record.location}: {record.reason}.")
        return {}  # which is skipped again when it is read
    return dict(record.fields)


def _check_several(name: str, values: Sequence[int]) -> None:
    if len(set(values)) != len(values) or len(values) < 2:
        raise InputError(f"`{name}` must be two or more different numbers. Received: {list(values)}.")


def _proposed(trial: Any, name: str, values: Sequence[Any] | tuple[float, float]) -> Any:
    if not isinstance(values, tuple):
        return trial.suggest_categorical(name, list(values))
    low, high = values
    is_wide = low > 0 and high >= 10 * low
    suggest: Callable[..., Any] = (
        trial.suggest_int if isinstance(low, int) and isinstance(high, int) else trial.suggest_float
    )
    return suggest(name, low, high, log=is_wide)
