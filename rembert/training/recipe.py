"""The recipe of a training run: every number that decides its result, checked, with defaults for each task.

The defaults are meant for the released model, 576 million parameters. Chung et al. (ICLR 2021), appendix, fine-tune it
for 3 epochs at 8e-6 (PAWS-X), 1e-5 (XNLI), 9e-6 (SQuAD) and 3e-5 (parts of speech) with batches of 128, and at 8e-6
with batches of 64 (named entities). A batch here is 32, which suits smaller data; others report 3e-6 to 2e-5 at that
size, and that the model collapses at rates that suit smaller encoders. A model of a few layers wants 1e-4 and more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from rembert.common.errors import InputError
from rembert.common.parameters import Kind, Parameter
from rembert.tasks.registry import task_class
from rembert.tasks.task import Task

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The same recipe gives the same numbers in both frameworks.

    Args:
        epochs: times through the training data; may be a fraction.
        max_steps: stop after so many updates, whatever `epochs` says.
        batch_size: examples of one update, over all devices and parts.
        accumulation_steps: compute each batch in so many parts, one after the other, and update once. Takes less
            memory and gives the same result.
        learning_rate: at the end of the warm-up.
        schedule: after the warm-up, `linear` and `cosine` fall to 0 one update after the last, `constant` stays.
        warmup: the part of all updates in which the rate rises linearly, in [0, 1).
        weight_decay: decoupled (Loshchilov and Hutter, 2019), on kernels and tables; not on biases and norms.
        layer_decay: each layer's rate is this times the rate of the layer above it; 1 for one rate.
        beta1, beta2, epsilon: of AdamW as PyTorch has it: `epsilon` is added after the bias correction.
        max_grad_norm: gradients are scaled down to this global norm; None leaves them as they are.
        label_smoothing: in [0, 1); a part of the target's probability that is spread evenly: over the classes, over
            the real positions of an answer's window, over the vocabulary of a language model; several labels at once
            are each drawn to one half. Regression has none.
        dropout: of hidden states, attention and classifier alike; None keeps what the checkpoint's config says.
        freeze_embeddings: do not train the input embeddings: tables and norm, 64 of the released 576 million.
        precision: `float32`, `bfloat16` (computed in it, weights and optimizer stay float32), or `float64`.
        gradient_checkpointing: keep fewer activations and compute them again.
        seed: of the order of the data, of fresh weights, of masking and of dropout.
        max_length: longest input in pieces; by default the model's `max_position_embeddings`.
        eval_steps: evaluate after so many updates; by default after each epoch.
        save_steps: also write a checkpoint after so many updates, beside the one of each evaluation.
        log_steps: write the training loss after so many updates.
        patience: stop after so many evaluations in a row without a better `metric`; None never stops.
        metric: which score is the best checkpoint's; by default the task's own. Errors and losses (`loss`,
            `perplexity`, `pseudo_perplexity`, `mse`) are better when smaller.

    Raises:
        InputError: a value outside its range; the message quotes it.
    """

    epochs: float = 3
    max_steps: int | None = None
    batch_size: int = 32
    accumulation_steps: int = 1
    learning_rate: float = 1e-5
    schedule: str = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0
    label_smoothing: float = 0.0
    dropout: float | None = 0.0
    freeze_embeddings: bool = False
    precision: str = "float32"
    gradient_checkpointing: bool = False
    seed: int = 0
    max_length: int | None = None
    eval_steps: int | None = None
    save_steps: int | None = None
    log_steps: int = 10
    patience: int | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        for name, (accepts, range_) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not accepts(value):
                optional = " or None" if name in _OPTIONAL else ""
                raise InputError(f"`{name}` must be {range_}{optional}. Received: `{name}={value!r}`.")
        if self.accumulation_steps > self.batch_size:
            raise InputError(
                "`accumulation_steps` must not exceed `batch_size`: each part needs an example. Received: "
                f"`accumulation_steps={self.accumulation_steps}` and `batch_size={self.batch_size}`."
            )

    @classmethod
    def for_task(cls, task: str | Task, **changes: Any) -> Recipe:
        """The defaults of a task, with `changes`.

        Raises:
            InputError: an unknown task or key, or a value outside its range.
        """
        declared = (task_class(task) if isinstance(task, str) else task).recipe
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise InputError(f"A recipe has the keys {', '.join(known)}. Received also: {', '.join(unknown)}.")
        return replace(cls(**declared), **changes)


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """The rate of update number `step`, counted from 0, of `total_steps`.

    It rises over the first `warmup * total_steps` updates, from one part of the peak to the whole, and falls so that
    one update more would have rate 0.
    """
    warmup_steps = math.ceil(recipe.warmup * total_steps)
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - done)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return recipe.learning_rate


@dataclass(frozen=True)
class Group:
    """Parameters that are updated alike: by canonical name, the factor of their rate, and their weight decay."""

    names: tuple[str, ...]
    rate_factor: float
    weight_decay: float


def parameter_groups(recipe: Recipe, table: Mapping[str, Parameter]) -> list[Group]:
    """The parameters of a model that are trained, in groups; frozen ones are in none.

    Args:
        recipe: says what is frozen and how rates and decay differ.
        table: the model's parameters by canonical name.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    layers = 1 + max((_layer(name) for name in table), default=0)
    for name, parameter in table.items():
        if recipe.freeze_embeddings and name.startswith(_EMBEDDINGS):
            continue
        decay = recipe.weight_decay if parameter.kind in (Kind.KERNEL, Kind.EMBEDDING) else 0.0
        groups.setdefault((recipe.layer_decay ** _depth(name, layers), decay), []).append(name)
    return [Group(tuple(names), factor, decay) for (factor, decay), names in groups.items()]


_EMBEDDINGS = "rembert.embeddings."
_LAYER = "rembert.encoder.layer."


def _layer(name: str) -> int:
    return int(name.removeprefix(_LAYER).split(".")[0]) if name.startswith(_LAYER) else -1


def _depth(name: str, layers: int) -> int:
    """How many layers lie above a parameter: 0 in the head, 1 in the uppermost layer, one more than all below it."""
    if name.startswith(_LAYER):
        return layers - _layer(name)
    return layers + 1 if name.startswith((_EMBEDDINGS, "rembert.encoder.")) else 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_POSITIVE = (lambda value: _number(value) and value > 0, "a positive number")
_NOT_NEGATIVE = (lambda value: _number(value) and value >= 0, "a number of 0 or more")
_PART = (lambda value: _number(value) and 0 <= value < 1, "a number in [0, 1)")
_COUNT = (lambda value: _whole(value, 1), "a positive integer")
_FLAG = (lambda value: isinstance(value, bool), "True or False")

_RANGES: dict[str, tuple[Any, str]] = {
    "epochs": _POSITIVE,
    "max_steps": _COUNT,
    "batch_size": _COUNT,
    "accumulation_steps": _COUNT,
    "learning_rate": _POSITIVE,
    "schedule": (lambda value: value in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "warmup": _PART,
    "weight_decay": _NOT_NEGATIVE,
    "layer_decay": (lambda value: _number(value) and 0 < value <= 1, "a number in (0, 1]"),
    "beta1": _PART,
    "beta2": _PART,
    "epsilon": _POSITIVE,
    "max_grad_norm": _POSITIVE,
    "label_smoothing": _PART,
    "dropout": _PART,
    "freeze_embeddings": _FLAG,
    "precision": (lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "gradient_checkpointing": _FLAG,
    "seed": (lambda value: _whole(value, 0), "an integer of 0 or more"),
    "max_length": _COUNT,
    "eval_steps": _COUNT,
    "save_steps": _COUNT,
    "log_steps": _COUNT,
    "patience": _COUNT,
    "metric": (lambda value: isinstance(value, str) and value != "", "the name of a score"),
}
_OPTIONAL = ("max_steps", "max_grad_norm", "dropout", "max_length", "eval_steps", "save_steps", "patience", "metric")
