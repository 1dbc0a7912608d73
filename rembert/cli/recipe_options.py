"""The arguments of the commands that train: a flag for each key of a recipe."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import Any

from rembert.common.errors import InputError
from rembert.tasks import TASKS
from rembert.tasks.registry import task_class
from rembert.training import Recipe
from rembert.training.recipe import BALANCED, PRECISIONS, SCHEDULES

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
    "class_weights": (
        {"nargs": "+", "metavar": "X"},
        "weights of the classes in the loss: 'balanced', or a number for each, in the order of the labels",
    ),
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


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; the default of each is None: what is not given is left to the task."""
    recipe = parser.add_argument_group("recipe", "Defaults are the task's; see rembert.tasks.Recipe.")
    defaults = asdict(Recipe())
    by_task = {name for task in TASKS for name in task_class(task).recipe}
    for name, (argument, text) in _RECIPE.items():
        default = "" if defaults[name] is None or name in by_task or argument is _FLAG else f" ({defaults[name]})"
        recipe.add_argument(
            f"--{name.replace('_', '-')}", default=None, help=(text + default).replace("%", "%%"), **argument
        )
    recipe.add_argument("--bf16", action="store_true", help="short for --precision bfloat16")


def recipe_changes(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of a recipe that were given.

    Raises:
        InputError: `--bf16` beside another precision, or class weights that are no numbers.
    """
    names = [field.name for field in fields(Recipe)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if args.bf16 and given.setdefault("precision", "bfloat16") != "bfloat16":
        raise InputError(f"`--bf16` and `--precision` must agree. Received: `--precision {given['precision']}`.")
    if "class_weights" in given:
        given["class_weights"] = _weights(given["class_weights"])
    if given.get("max_grad_norm") == 0:
        given["max_grad_norm"] = None
    if given.get("dropout") == -1:
        given["dropout"] = None
    return given


def _weights(words: list[str]) -> str | list[float]:
    if len(words) == 1 and words[0] == BALANCED:
        return BALANCED
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(
            f"`--class-weights` must be {BALANCED} or numbers, one for each class. Received: {' '.join(words):.200}."
        ) from None
