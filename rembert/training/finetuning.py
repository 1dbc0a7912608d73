"""`finetune`: from files of examples to a directory with the best model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rembert.bridge.registry import locate_checkpoint
from rembert.common.arguments import check_argument, number, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.progress import silent
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.backends import check_framework
from rembert.tasks.data import DataOptions
from rembert.tasks.predicting import row_length
from rembert.tasks.registry import get_task
from rembert.tasks.run_digest import sampled_digests
from rembert.tasks.sources import Data, listed
from rembert.tasks.task import Task
from rembert.training.data import read_training_data
from rembert.training.initial_model import kept_labels
from rembert.training.loop import train_model
from rembert.training.recipe import Recipe
from rembert.training.reporting import Reporter
from rembert.training.run import OutputDirectory, Plan, is_main_process
from rembert.training.trackers import check_trackers


def finetune(
    task: str | Task,
    model: str | os.PathLike[str],
    train: Data,
    *,
    output: str | os.PathLike[str],
    evaluation: Data | None = None,
    framework: str = "pt",
    recipe: Recipe | None = None,
    data: DataOptions | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    devices: Sequence[str] | None = None,
    sharded: bool = False,
    timeout: float | None = None,
    trackers: Sequence[str] = (),
    say: Reporter | None = None,
    **changes: Any,
) -> dict[str, float]:
    """Train a model on files of examples and write the best one, loadable in both frameworks, to `output`.

    The directory also gets the tokenizer, `metrics.jsonl`, TensorBoard events (`events/`), `curves.png`, and a
    model card. Under `torchrun` or `accelerate launch` every process calls this function; the first one writes.

    Args:
        task: a key of `rembert.tasks.TASKS`, or a task made by `get_task`.
        model: the checkpoint to start from, a directory or a name on the Hugging Face Hub. A head that it lacks, or
            that was trained for another head or other classes, is newly initialised, alike in both frameworks. If it
            was trained for all classes of the data, its classes and their order are kept.
        train: a file of examples, a directory, or several; or records in memory, as `Task.read` takes them.
        output: a new or empty directory.
        evaluation: examples to score the model on; without them the last model is kept.
        framework: 'pt' or 'tf'.
        recipe: how to train; by default the task's.
        data: how files are read, if `task` is a name.
        options: the task's own, if `task` is a name.
        resume: continue the run in `output` from its newest checkpoint; without a checkpoint, start it.
        from_scratch: use only the configuration and the tokenizer of `model`, with newly initialised weights.
        devices: names of TensorFlow devices to train on; by default all GPUs, or the CPU.
        sharded: in PyTorch under `torchrun`, shard the parameters over the processes (FSDP2).
        timeout: in PyTorch under `torchrun`, the seconds that a process waits for the others before it fails; by
            default PyTorch's own, half an hour, with NCCL ten minutes.
        trackers: 'wandb' and 'mlflow', to log the metrics there, too; see `rembert.training.trackers`.
        say: called with lines of text on the progress; by default nothing is reported.
        **changes: keys of `Recipe` that differ, such as `learning_rate=2e-5`.

    Returns:
        The scores of the saved model, with names that begin with `eval_`, and `train_loss`, the last training
        loss in `metrics.jsonl`.

    Raises:
        InputError: an argument is invalid; nothing has been written.
        DataError: an example is invalid; names file and line.
        CheckpointError, TokenizerError: `model` is missing, damaged or incomplete.
        TrainingError: the loss became NaN or infinite.
        MissingDependencyError: the framework or the client of a tracker is not installed.
        OSError: the disk is full or not writable; the last checkpoint is unchanged.
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM (code 143) arrived during training; the update was finished
            and a checkpoint written, from which `resume` continues.

    Example:
        >>> import json
        >>> texts = {"food": ["Bread and soup.", "A ripe lemon."], "sky": ["It rains.", "The wind turned."]}
        >>> rows = [{"text": text, "label": label} for label in texts for text in texts[label]]
        >>> _ = Path("train.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        >>> scores = finetune(
        ...     "sequence-classification",
        ...     "google/rembert",
        ...     "train.jsonl",
        ...     evaluation="train.jsonl",
        ...     output="topics",
        ...     epochs=2,
        ...     batch_size=2,
        ... )
        >>> sorted(scores)
        ['eval_accuracy', 'eval_f1_macro', 'eval_f1_micro', 'eval_loss', 'train_loss']
        >>> Path("topics/model.safetensors").exists()
        True
    """
    check_argument("timeout", timeout, optional(number(above=0)))
    check_framework(framework)
    check_trackers(trackers)
    source = locate_checkpoint(model)
    recipe = chosen_recipe(task, recipe, changes)
    task = chosen_task(task, source, recipe, data, options, from_scratch=from_scratch)
    is_main = is_main_process()
    report = say if say is not None and is_main else silent
    task.report.say = say if is_main else silent
    files = sampled_digests(source, weights=not from_scratch)
    plan = Plan(task, recipe, os.fspath(model), files, framework, from_scratch, trackers)
    directory = OutputDirectory(Path(output), resume=resume, is_main=is_main)
    try:
        held_out = None if evaluation is None else listed(evaluation)
        examples = read_training_data(task, recipe, listed(train), held_out, report)
        run = directory.open_run(plan, examples.summary, report)
        if (scores := run.finished_scores()) is not None:
            return scores
        trainer = import_module(f"rembert.training.{framework}_trainer").Trainer(
            task.head,
            source,
            recipe,
            task.config_overrides(),
            from_scratch=from_scratch,
            devices=devices,
            sharded=sharded,
            timeout=timeout,
        )
        trainer.model.class_weights = examples.class_weights
        try:
            directory.claim()
            return train_model(run, examples, trainer, whole_evaluation=sharded)
        finally:
            trainer.close()
    finally:
        directory.release()


def chosen_recipe(task: str | Task, recipe: Recipe | None, changes: Mapping[str, Any]) -> Recipe:
    """The recipe, by default the task's, with `changes`."""
    known = asdict(Recipe())
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise TypeError(
            f"finetune() got an unexpected keyword: {', '.join(unknown)}. A recipe has the keys {', '.join(known)}."
        )
    return replace(Recipe.for_task(task) if recipe is None else recipe, **changes)


def chosen_task(
    task: str | Task,
    source: str | os.PathLike[str],
    recipe: Recipe,
    data: DataOptions | None,
    options: Mapping[str, Any] | None,
    *,
    from_scratch: bool,
) -> Task:
    """The task, by default with the checkpoint's tokenizer; it must suit the checkpoint's configuration, and knows the
    classes that the checkpoint was trained for."""
    config = RemBertConfig.from_pretrained(source)
    tokenizer = RemBertTokenizer.from_pretrained(source) if isinstance(task, str) else task.tokenizer
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"The tokenizer must have at most as many tokens as the model's vocabulary ({config.vocab_size}). "
            f"Received: {len(tokenizer)} tokens."
        )
    if isinstance(task, str):
        length = row_length(config, recipe.max_length)
        task = get_task(task, tokenizer, max_length=length, data=data, **(options or {}))
    row_length(config, task.max_length)
    task.known_labels = [] if from_scratch else kept_labels(config, task.head)
    return task
