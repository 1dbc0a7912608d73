"""Fine-tuning: the loop that both frameworks share, from files of examples to a directory with the best model.

    finetune("sequence-classification", "path/to/rembert", "train.tsv", evaluation="dev.tsv", output="mine")

A trainer (`pt_trainer`, `tf_trainer`) computes an update and holds the model; everything else is decided here, once:
which examples an update sees, at which rate, when the model is evaluated, which one is kept, and what is written.
"""

from __future__ import annotations

import math
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.registry import locate_checkpoint
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError, TrainingError
from rembert.common.files import atomic_path, leftovers, read_json, write_json, write_text
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.batching import LengthGroupedBatches
from rembert.tasks.data import DataOptions
from rembert.tasks.examples import Example
from rembert.tasks.frameworks import check_framework
from rembert.tasks.predicting import predict_outputs, row_length
from rembert.tasks.registry import get_task
from rembert.tasks.scoring import Output
from rembert.tasks.task import Batch, Feature, Task
from rembert.training.checkpoints import Checkpoints, Place
from rembert.training.disk_list import Spool
from rembert.training.micro_batches import cut, label_count
from rembert.training.recipe import Recipe, learning_rate
from rembert.training.reporting import METRICS, Bar, Log, Say, model_card, read_metrics, write_curves

RUN = "run.json"
# Settings that may change when a run is resumed: they do not change what comes out.
_FREE = ("accumulation_steps", "gradient_checkpointing", "log_steps", "save_steps")
_MASKS = 1  # beside the seed and the step
_END = "train_seconds"  # only the last line of a run that has ended holds it
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def finetune(
    task: str | Task,
    model: str | os.PathLike[str],
    train: Paths,
    *,
    output: str | os.PathLike[str],
    evaluation: Paths | None = None,
    framework: str = "pt",
    recipe: Recipe | None = None,
    data: DataOptions | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    devices: Sequence[str] | None = None,
    sharded: bool = False,
    say: Say | None = None,
    **changes: Any,
) -> dict[str, float]:
    """Train a model on files of examples and write the best one, loadable in both frameworks, to `output`.

    Beside the model stand its tokenizer, `metrics.jsonl`, TensorBoard events (`events/`), `curves.png`, and a model
    card. Under `torchrun` or `accelerate launch` every process calls this; the first one writes.

    Args:
        task: a key of `rembert.tasks.TASKS`, or a task made by `get_task`.
        model: the checkpoint to begin with, a directory or a name on the Hugging Face Hub. A head that it does not
            have is made afresh, the same in both frameworks.
        train: a file of examples, or several.
        output: a new or empty directory.
        evaluation: files of examples to score the model on; without them the last model is kept.
        framework: 'pt' or 'tf'.
        recipe: how to train; by default the task's.
        data: how files are read, where `task` is a name.
        options: the task's own, where `task` is a name.
        resume: go on with the run in `output`, from its newest checkpoint; where there is none, begin.
        from_scratch: take only the configuration and the tokenizer of `model`, and fresh weights.
        devices: TensorFlow's devices to train on; by default all GPUs, or the CPU.
        sharded: in PyTorch under `torchrun`, spread the parameters over the processes (FSDP2).
        say: takes lines of text on what is happening; by default nobody does.
        **changes: keys of `Recipe` that differ, as `learning_rate=2e-5`.

    Returns:
        The scores of the model that is kept, under names that begin with `eval_`, and `train_loss`: the mean
        of the last updates, as many as are logged together.

    Raises:
        InputError: an argument that cannot be used; nothing has been written.
        DataError: an example that cannot be used; names file and line.
        CheckpointError, TokenizerError: `model` is missing, damaged or lacks a part.
        TrainingError: the loss is no number any more.
        MissingDependencyError: the framework is not installed.
        OSError: the disk is full or refuses; the last checkpoint stands.
    """
    check_framework(framework)
    source = locate_checkpoint(model)
    config = RemBertConfig.from_pretrained(source)
    recipe = replace(Recipe.for_task(task) if recipe is None else recipe, **_known(changes))
    tokenizer = RemBertTokenizer.from_pretrained(source) if isinstance(task, str) else task.tokenizer
    _check_fit(config, tokenizer)
    if isinstance(task, str):
        length = row_length(config, recipe.max_length)
        task = get_task(task, tokenizer, max_length=length, data=data, **(options or {}))
    else:
        row_length(config, task.max_length)
    run = _Run(task, recipe, Path(output), os.fspath(model), framework, say or _silent)
    run.look(resume)
    run.read(_listed(train), None if evaluation is None else _listed(evaluation))
    run.settle(resume, from_scratch)
    if (result := run.result()) is not None:
        return result
    trainer = import_module(f"rembert.training.{framework}_trainer").Trainer(
        task.head,
        source,
        recipe,
        task.config_overrides(),
        from_scratch=from_scratch,
        devices=devices,
        sharded=sharded,
    )
    try:
        return run.train(trainer, whole_evaluation=sharded)
    finally:
        trainer.close()


class _Run:
    """One run: its data, its directory, and its loop."""

    def __init__(self, task: Task, recipe: Recipe, output: Path, source: str, framework: str, say: Say) -> None:
        self.task, self.recipe, self.output = task, recipe, output
        self.source, self.framework = source, framework
        self._told = say
        self.checkpoints = Checkpoints(output)
        self.held_out: Spool[Example] | None = None
        self.data: dict[str, dict[str, Any]] = {}
        self.first = int(os.environ.get("RANK", "0")) == 0  # of the processes that train together

    def say(self, text: str) -> None:
        if self.first:
            self._told(text)

    # ------------------------------------------------------------------ data

    def read(self, train: list[Path], evaluation: list[Path] | None) -> None:
        """Read all examples, settle the labels, and encode the rows to train on. All of them stay on disk."""
        if evaluation is None:
            for name in ("metric", "patience"):
                if (value := getattr(self.recipe, name)) is not None:
                    raise InputError(f"`{name}` needs `evaluation` data (--eval). Received: `{name}={value!r}` alone.")
        examples = Spool(self._labelled(self.task.read(*train)))
        self.task.prepare(examples)
        if self.recipe.label_smoothing and getattr(self.task, "problem_type", None) == "regression":
            raise InputError(
                "`label_smoothing` must be 0 for regression, whose targets are no probabilities. Received: "
                f"`label_smoothing={self.recipe.label_smoothing}`."
            )
        rows = _Rows(self.task)
        self.features = Spool(rows.noted(self.task.training_features(examples)))
        examples.close()
        if not rows.lengths:
            raise DataError(f"Examples to train on were expected in {_names(train)}. Received: none.")
        self._count("training", train, rows)
        self.batches = LengthGroupedBatches(rows.lengths, self.recipe.batch_size, seed=self.recipe.seed)
        if evaluation is not None:
            self.held_out = Spool(filter(self.task.has_label, self.task.read(*evaluation)))
            if not len(self.held_out):
                raise DataError(f"Examples with labels were expected in {_names(evaluation)}. Received: none.")
            # Encoded here to be looked at, and counted: again at each evaluation.
            rows = _Rows(self.task)
            encoded = self.task.stream_features(self.held_out)
            for _ in rows.noted(feature for _, features in encoded for feature in features):
                pass
            self._count("evaluation", evaluation, rows, examples=len(self.held_out))
        self.epoch_steps = len(self.batches)
        self.total_steps = max(1, round(self.recipe.epochs * self.epoch_steps))
        if self.recipe.max_steps is not None:
            self.total_steps = min(self.total_steps, self.recipe.max_steps)

    def _labelled(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples, without those that have no label where bad lines are left out: to training these are bad."""
        for example in examples:
            if self.task.data.skip_bad_lines and not self.task.has_label(example):
                self.task.report.examples -= 1
                self.task.report.skip(example.location, "a label was expected. Received: none")
            else:
                yield example

    def _count(self, use: str, paths: list[Path], rows: _Rows, examples: int | None = None) -> None:
        """Note what was read since the last note; `examples` of it are used, or all."""
        before = {key: sum(found[key] for found in self.data.values()) for key in ("examples", "truncated", "skipped")}
        now = self.task.report.to_dict()
        found = {key: now[key] - before[key] for key in before}
        unused = 0 if examples is None else found["examples"] - examples
        found["examples"] -= unused
        count = len(rows.lengths)
        self.data[use] = {
            "files": [path.name for path in paths], "rows": count, **found, "digest": rows.digest.hexdigest()
        }  # fmt: skip
        text = f"{use}: {found['examples']} examples"
        text += f" in {count} rows" if count != found["examples"] else ""
        text += f", {unused} without a label left out" if unused else ""
        text += f", {found['truncated']} cut to {self.task.max_length} pieces" if found["truncated"] else ""
        text += f", {found['skipped']} bad lines left out" if found["skipped"] else ""
        self.say(text)
        for reason in self.task.report.reasons[before["skipped"] :]:
            self.say(f"    {reason}")

    # ------------------------------------------------------------------ the directory

    def settle(self, resume: bool, from_scratch: bool) -> None:
        """Note what the run is, once all data are read.

        Raises:
            InputError: another run than this one stands in the directory.
        """
        self.settings = {
            "task": self.task.name,
            "model": self.source,
            "data": self.data,
            "max_length": self.task.max_length,
            "options": {option.name: getattr(self.task, option.name) for option in self.task.options},
            "labels": self.task.labels,
            "from_scratch": from_scratch,
            "recipe": asdict(self.recipe),
        }
        path = self.output / RUN
        if self.first and resume and path.is_file():
            before = read_json(path, InputError)
            if not isinstance(before, dict) or not isinstance(before.get("recipe"), dict):
                raise InputError(f"{path} must be what a run has written there. Received another file.")
            _check_same(before, self.settings)

    def look(self, resume: bool) -> None:
        """Look at the directory before any work; the first process looks and writes.

        Raises:
            InputError: it is not empty, and no run to resume.
        """
        if not self.first:
            return
        started = (self.output / RUN).is_file()
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"`output` must be a directory. Received: {self.output}, which is a file.")
        # A run that was killed at its first step may have left half of its first file.
        others = set(self.output.iterdir()) - set(leftovers(self.output / RUN)) if self.output.is_dir() else set()
        if not resume and others:
            hint = "Resume its run (--resume), or choose another." if started else "Choose another."
            raise InputError(f"`output` must be a new or empty directory. Received: {self.output}. {hint}")
        if resume and not started and others:
            raise InputError(f"`output` must hold a run to resume. Received: {self.output}, where there is no {RUN}.")

    def result(self) -> dict[str, float] | None:
        """The result of a run that has ended already, or None."""
        lines = read_metrics(self.output / METRICS)
        if not lines or _END not in lines[-1] or self.checkpoints.newest() is not None:
            return None
        if self.first:
            self.checkpoints.remove()  # what a kill between the last two steps has left
        self.say(f"{self.output}: this run has ended already")
        return {name: value for name, value in lines[-1].items() if name.startswith("eval_") or name == "train_loss"}

    # ------------------------------------------------------------------ the loop

    def train(self, trainer: Any, *, whole_evaluation: bool) -> dict[str, float]:
        """All updates that are still to be made, and the result."""
        task, recipe = self.task, self.recipe
        self.trainer = trainer
        self.whole_evaluation = whole_evaluation
        self.count = partial(label_count, task.head, problem_type=trainer.config.problem_type)
        place = self._begin()
        self.log = Log(self.output, place.step, self.say) if self.first else None
        mine = trainer.parallel * recipe.accumulation_steps  # pieces that this process computes
        waiting: list[Any] = []
        norm: Any = 0.0
        logged = time.perf_counter()
        with Bar(self.total_steps, place.step) as bar:
            for step, rows in self._updates(place):
                started = time.perf_counter()
                rate = learning_rate(recipe, step, self.total_steps)
                batch = task.collate([self.features[row] for row in rows], self._masks(step))
                pieces = cut(batch, mine * trainer.world, self.count)
                loss, norm = trainer.train_step(pieces[trainer.rank * mine :][:mine], rate, step)
                waiting.append(loss)
                place.step = step + 1
                bar.step()
                evaluates, saves = self._due(place.step)
                if saves or evaluates or place.step % recipe.log_steps == 0:
                    mean = self._mean(waiting, place.step)
                    speed = len(waiting) / (time.perf_counter() - logged)
                    self._note(place, loss=mean, learning_rate=rate, gradient_norm=float(norm), steps_per_second=speed)
                    bar.show(loss=mean, rate=rate)
                    waiting, logged = [], time.perf_counter()
                if evaluates:
                    self._evaluate(place)
                place.seconds += time.perf_counter() - started
                if evaluates or saves:
                    place.stopped = self._has_stalled(place)
                    self.checkpoints.write(place, trainer)
                    logged = time.perf_counter()
                if place.stopped:
                    break
        return self._finish(place)

    def _begin(self) -> Place:
        """The place to go on from, with the trainer's state taken up."""
        place = self.checkpoints.newest()
        if self.trainer.fresh:
            fresh = self.trainer.fresh
            shown = ", ".join(fresh) if len(fresh) <= 6 else f"{', '.join(fresh[:3])} and {len(fresh) - 3} more"
            self.say(f"fresh weights: {shown}")
        if place is None:
            self._check_metric()
        if self.first:
            self.output.mkdir(parents=True, exist_ok=True)
            for path in leftovers(self.output / RUN):
                path.unlink()
            write_json(self.output / RUN, self.settings)
        if place is None:
            self.say(f"{self.total_steps} updates, {self.epoch_steps} an epoch")
            return Place()
        self.trainer.load(self.checkpoints.path(place.step), self.checkpoints.optimizer(place.step), place.step)
        self.say(f"resumed after update {place.step} of {self.total_steps}")
        return place

    def _updates(self, place: Place) -> Iterator[tuple[int, list[int]]]:
        """The number of each update to come, and the rows that it sees."""
        step = place.step
        while step < self.total_steps and not place.stopped:
            epoch, done = divmod(step, self.epoch_steps)
            self.batches.set_epoch(epoch)
            for rows in islice(self.batches, done, done + self.total_steps - step):
                yield step, rows
                step += 1

    def _masks(self, step: int) -> np.random.Generator:
        """Draws what a batch draws anew; another generator than the one of the order, and the same after a kill."""
        return np.random.default_rng([self.recipe.seed, step, _MASKS])

    def _due(self, step: int) -> tuple[bool, bool]:
        """Whether, after so many updates, the model is evaluated, and whether a checkpoint is written."""
        recipe = self.recipe
        turn = step == self.total_steps or step % (recipe.eval_steps or self.epoch_steps) == 0
        return turn and self.held_out is not None, turn or (
            recipe.save_steps is not None and step % recipe.save_steps == 0
        )

    def _mean(self, losses: list[Any], step: int) -> float:
        mean = math.fsum(map(float, losses)) / len(losses)
        if math.isfinite(mean):
            return mean
        newest = self.checkpoints.newest()
        kept = f" The checkpoint after update {newest.step} stands." if newest else ""
        raise TrainingError(
            f"The loss must be a number. Received: {mean} by update {step}. Lower the learning rate (now "
            f"{self.recipe.learning_rate:g}), lengthen the warm-up, or clip gradients.{kept}"
        )

    def _evaluate(self, place: Place) -> None:
        """Score the model, and note whether it is the best so far."""
        assert self.held_out is not None  # or it was not due
        alone = self.whole_evaluation or self.trainer.world == 1
        scores = self._scores(self.held_out, alone)
        name = self._metric
        if name not in scores:
            raise InputError(f"`metric` must be one of {', '.join(scores)}. Received: `metric={name!r}`.")
        value = scores[name]
        better = self._is_better(value, place.best_value)
        place.evaluations += 1
        place.without_gain = 0 if better else place.without_gain + 1
        named = {f"eval_{key}": number for key, number in scores.items()}
        if better:
            place.best_step, place.best_value, place.best_scores = place.step, value, named
        self._note(place, **named)
        self.say(f"update {place.step}: {_shown(named, name)}" + (" (best so far)" if better else ""))

    @property
    def _metric(self) -> str:
        return self.recipe.metric or self.task.metric

    def _check_metric(self) -> None:
        """Refuse a score that does not come out of the first examples, before the first update.

        Raises:
            InputError: names those there are.
        """
        if self.recipe.metric is None or self.held_out is None:
            return
        scores = self._scores(islice(self.held_out, self.recipe.batch_size), alone=True)
        # Variants, as of a language, may come with other examples.
        if not any(self._metric == name or self._metric.startswith(f"{name}_") for name in scores):
            raise InputError(f"`metric` must be one of {', '.join(scores)}. Received: `metric={self._metric!r}`.")

    def _scores(self, examples: Iterable[Example], alone: bool) -> dict[str, float]:
        """The task's scores of the model now, and its mean loss; the processes share the work unless `alone`."""
        task, trainer = self.task, self.trainer
        if not alone:
            examples = islice(examples, trainer.rank, None, trainer.world)
        totals = np.zeros(2)  # of the loss, and of the labels it is a mean over

        def run(batch: Mapping[str, np.ndarray]) -> Batch:
            results: Batch = trainer.predict(batch)
            if "loss" in results:
                labels = self.count(batch)
                totals[:] += float(results["loss"]) * labels, labels
            return results

        with trainer.runner(task) if task.takes_label_scores else nullcontext(run) as running:
            found = predict_outputs(task, trainer.model, examples, batch_size=self.recipe.batch_size, run=running)
            if alone:
                scores = task.score_pairs(found)  # one after the other: outputs are not held
            else:
                parts: list[tuple[list[tuple[Example, list[Output]]], np.ndarray]] = trainer.gather(
                    (list(found), totals)
                )
                scores = task.score_pairs(pair for pairs, _ in parts for pair in pairs)
                totals = np.sum([part for _, part in parts], axis=0)
        loss = {"loss": float(totals[0] / totals[1])} if totals[1] else {}
        return {**scores, **loss}

    def _is_better(self, value: float, best: float | None) -> bool:
        if best is None or math.isnan(best):
            return True
        if math.isnan(value):
            return False
        score = self.task.score_of(self._metric)
        return value < best if score is not None and score.lower_is_better else value > best

    def _has_stalled(self, place: Place) -> bool:
        stalled = self.recipe.patience is not None and place.without_gain >= self.recipe.patience
        if stalled and place.step < self.total_steps:
            self.say(f"stopped after update {place.step}: {place.without_gain} evaluations without a better score")
        return stalled

    def _note(self, place: Place, **values: float) -> None:
        if self.log is not None:
            self.log.add({"step": place.step, "epoch": round(place.step / self.epoch_steps, 6), **values})

    # ------------------------------------------------------------------ the result

    def _finish(self, place: Place) -> dict[str, float]:
        """Put the best model, or the last, where it belongs, and write all there is to say of it."""
        best = place.best_step or place.step
        scores = dict(place.best_scores)
        if self.log is not None:
            losses = [line["loss"] for line in self.log.lines if "loss" in line]
            result = {"train_loss": losses[-1] if losses else math.nan, **scores}
            if self.checkpoints.path(best).is_dir():
                _put(self.checkpoints.path(best), self.output)
            self.task.tokenizer.save_pretrained(self.output)
            if not self.log.lines or _END not in self.log.lines[-1]:
                self._note(place, best_step=best, **{_END: round(place.seconds, 3)}, **result)
            self.log.close()
            metric = f"eval_{self._metric}" if scores else None
            write_curves(self.output, self.log.lines, metric, self.say)
            self._write_card(place, scores)
            self.checkpoints.remove()
            self.say(f"{self.output}: the model after update {best} of {place.step}")
        else:
            result = {}
        [result, *_] = self.trainer.gather(result)
        return result

    def _write_card(self, place: Place, scores: Mapping[str, float]) -> None:
        text = model_card(
            task=self.task.name,
            head=self.task.head,
            source=Path(self.source).name if Path(self.source).is_dir() else self.source,
            framework=self.framework,
            data=self.data,
            recipe={**asdict(self.recipe), "max_length": self.task.max_length},
            scores=scores,
            updates=place.step,
            best_step=place.best_step,
            labels=self.task.labels,
            has_curves=(self.output / "curves.png").is_file(),
        )
        write_text(self.output / "README.md", text)


class _Rows:
    """What is kept in memory of rows: their lengths, and a digest by which a resumed run knows them again."""

    def __init__(self, task: Task) -> None:
        self._length = task.length
        self.lengths = array("l")
        self.digest = blake2b(digest_size=16)

    def noted(self, features: Iterable[Feature]) -> Iterator[Feature]:
        """The features as they come."""
        for feature in features:
            self.lengths.append(self._length(feature))
            for name, value in feature.items():
                self.digest.update(name.encode())
                for part in value if isinstance(value, list) else [value]:
                    self.digest.update(np.asarray(part).tobytes())
            yield feature


def _known(changes: Mapping[str, Any]) -> dict[str, Any]:
    known = asdict(Recipe())
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise TypeError(
            f"finetune() got an unexpected keyword: {', '.join(unknown)}. A recipe has the keys {', '.join(known)}."
        )
    return dict(changes)


def _check_fit(config: RemBertConfig, tokenizer: RemBertTokenizer) -> None:
    """Refuse a vocabulary that the model has no rows for."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"The tokenizer must have no more pieces than the model's vocabulary of {config.vocab_size}. Received: "
            f"{len(tokenizer)} pieces."
        )


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run under other settings: it would be neither the one nor the other."""
    old, new = ({**each, **each.get("recipe", {})} for each in (before, now))
    for name in ("recipe", *_FREE):
        old.pop(name, None)
        new.pop(name, None)
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        told = "; ".join(f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed)
        raise InputError(f"A run must be resumed with the settings it began with. Received: {told:.600}.")


def _put(checkpoint: Path, output: Path) -> None:
    """The model's files of a checkpoint into the run's directory, each by its name once it is whole."""
    weights = sorted(checkpoint.glob("model*.safetensors*"), key=lambda path: path.suffix == ".json")
    for path in [*weights, checkpoint / "config.json"]:
        with atomic_path(output / path.name) as temporary:
            temporary.unlink()
            try:
                temporary.hardlink_to(path)  # both names until the checkpoint is removed: no byte is copied
            except OSError:
                temporary.write_bytes(path.read_bytes())


def _shown(scores: Mapping[str, float], metric: str) -> str:
    first = f"eval_{metric}"
    names = [first, *(name for name in scores if name != first)][:4]
    return ", ".join(f"{name} {scores[name]:.4f}" for name in names)


def _listed(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _silent(text: str) -> None:
    """Nobody listens."""
