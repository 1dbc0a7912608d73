"""`rembert finetune TASK`: train a checkpoint on files of examples."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rembert.cli.data_options import (
    add_data_arguments,
    add_framework_argument,
    add_task_argument,
    data_options,
    score_lines,
    task_options,
)
from rembert.cli.text import table
from rembert.common.errors import InputError
from rembert.tasks import TASKS
from rembert.tasks.registry import task_class
from rembert.training import Recipe, finetune
from rembert.training.recipe import PRECISIONS, SCHEDULES
from rembert.training.run import is_main_process

_INTEGER, _NUMBER, _FLAG = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}, {"action": "store_true"}
# The flag of each key of a recipe: its argument, and its help text.
_RECIPE: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": (_NUMBER, "passes over the training data"),
    "max_steps": (_INTEGER, "stop after N updates"),
    "batch_size": (_INTEGER, "examples of an update, over all devices"),
    "accumulation_steps": (_INTEGER, "compute each batch in N micro-batches: less memory, the same result"),
    "learning_rate": (_NUMBER, "the peak, at the end of the warm-up"),
    "schedule": ({"choices": SCHEDULES}, "of the learning rate after the warm-up"),
    "warmup": (_NUMBER, "fraction of all updates in which the learning rate rises"),
    "weight_decay": (_NUMBER, "decoupled, on kernels and tables"),
    "layer_decay": (_NUMBER, "learning rate of a layer as a fraction of that of the layer above"),
    "beta1": (_NUMBER, "of AdamW"),
    "beta2": (_NUMBER, "of AdamW"),
    "epsilon": (_NUMBER, "of AdamW"),
    "max_grad_norm": (_NUMBER, "clip gradients to this global norm; 0 for no clipping"),
    "label_smoothing": (_NUMBER, "fraction of a label's probability that is spread evenly"),
    "dropout": (_NUMBER, "everywhere in the model; -1 for the rates in the checkpoint's config"),
    "freeze_embeddings": (_FLAG, "do not train the input embeddings"),
    "precision": ({"choices": PRECISIONS}, "of the computation"),
    "gradient_checkpointing": (_FLAG, "recompute activations in the backward pass: less memory, more time"),
    "seed": (_INTEGER, "of data order, fresh weights, masks and dropout"),
    "eval_steps": (_INTEGER, "evaluate every N updates (each epoch)"),
    "save_steps": (_INTEGER, "also write a checkpoint every N updates"),
    "log_steps": (_INTEGER, "log the loss every N updates"),
    "patience": (_INTEGER, "stop after N evaluations in a row without improvement"),
    "metric": ({"metavar": "NAME"}, "the score that decides which model is best (the task's own)"),
}


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "finetune",
        description="Train a checkpoint on files of examples and write the best model, its tokenizer, metrics.jsonl, "
        "curves.png, TensorBoard events and a model card into a directory that both frameworks load. With --resume, "
        "a killed run continues and gives the same result.",
    )
    add_task_argument(parser)
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="the checkpoint to start from")
    parser.add_argument("--train", required=True, nargs="+", metavar="FILE", help="examples to train on")
    parser.add_argument("--eval", nargs="+", metavar="FILE", help="labelled examples to score the model on")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add_framework_argument(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in DIR, or start it")
    parser.add_argument("--from-scratch", action="store_true", help="use CHECKPOINT's config and tokenizer only")
    parser.add_argument("--sharded", action="store_true", help="PyTorch, under torchrun: shard the weights (FSDP2)")
    parser.add_argument("--quiet", action="store_true", help="print only the scores, and errors")
    add_data_arguments(parser)
    recipe = parser.add_argument_group("recipe", "Defaults are the task's; see rembert.tasks.Recipe.")
    defaults = asdict(Recipe())
    by_task = {name for task in TASKS for name in task_class(task).recipe}
    for name, (argument, text) in _RECIPE.items():
        default = "" if defaults[name] is None or name in by_task or argument is _FLAG else f" ({defaults[name]})"
        recipe.add_argument(
            f"--{name.replace('_', '-')}", default=None, help=(text + default).replace("%", "%%"), **argument
        )
    recipe.add_argument("--bf16", action="store_true", help="short for --precision bfloat16")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print the scores; returns 0. Invalid data raises a `RemBertError`."""
    scores = finetune(
        args.task,
        args.model,
        args.train,
        evaluation=args.eval,
        output=args.output,
        framework=args.framework,
        recipe=_recipe(args),
        data=data_options(args),
        options=task_options(args),
        resume=args.resume,
        from_scratch=args.from_scratch,
        sharded=args.sharded,
        say=None if args.quiet else _say,
    )
    if is_main_process():
        print(table(score_lines(scores), right=(1,)))
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    """The task's recipe with the given flags.

    Raises:
        InputError: a value outside its range, or `--bf16` beside another precision.
    """
    names = [field.name for field in fields(Recipe)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if args.bf16 and given.setdefault("precision", "bfloat16") != "bfloat16":
        raise InputError(f"`--bf16` and `--precision` must agree. Received: `--precision {given['precision']}`.")
    if given.get("max_grad_norm") == 0:
        given["max_grad_norm"] = None
    if given.get("dropout") == -1:
        given["dropout"] = None
    return Recipe.for_task(args.task, **given)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
