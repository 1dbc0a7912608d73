"""The recipe of a training run: all hyperparameters, checked, with defaults for each task.

The defaults suit the released model, 576 million parameters. Chung et al. (ICLR 2021), appendix, fine-tune it for 3
epochs at learning rates of 8e-6 (PAWS-X), 1e-5 (XNLI), 9e-6 (SQuAD) and 3e-5 (parts of speech) with batches of 128,
and 8e-6 with batches of 64 (named entities). A batch here is 32, which suits smaller data; at that size, others report
3e-6 to 2e-5, and that the model collapses at rates that suit smaller encoders. A model of a few layers needs 1e-4 and
more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from rembert.common.arguments import (
    BOOLEAN,
    TEXT,
    Constraint,
    check_arguments,
    integer,
    number,
    one_of,
    optional,
    plain,
)
from rembert.common.errors import InputError
from rembert.common.loss_settings import WEIGHTS
from rembert.tasks.registry import task_class
from rembert.tasks.task import Task

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16", "float64")
BALANCED = "balanced"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The same recipe gives the same numbers in both frameworks.

    Args:
        epochs: passes over the training data; may be a fraction.
        max_steps: stop after this number of updates, instead of `epochs`.
        batch_size: examples of one update, over all devices and micro-batches.
        accumulation_steps: compute each batch in this number of micro-batches, one after the other, and update once.
            Takes less memory and gives the same result.
        learning_rate: the peak, at the end of the warm-up.
        schedule: after the warm-up, `linear` and `cosine` fall to 0 one update after the last, `constant` stays.
        warmup: the fraction of all updates in which the learning rate rises, in [0, 1).
        weight_decay: decoupled (Loshchilov and Hutter, 2019), on kernels and tables, not on biases and norms.
        layer_decay: each layer's learning rate is this times the rate of the layer above it; 1 for one rate.
        beta1, beta2, epsilon: of AdamW as in PyTorch: `epsilon` is added after the bias correction.
        max_grad_norm: gradients are scaled down to this global norm; None leaves them as they are.
        label_smoothing: in [0, 1); the fraction of the target's probability that is spread evenly: over the classes,
            over the real positions of an answer's window, over the vocabulary of a language model; with several labels
            at once, each target moves towards one half. It must be 0 for regression.
        class_weights: the weight of each class in the training loss, in the order of the task's labels; or 'balanced',
            the number of labels divided by the number of classes and by that of the class's own labels.
        dropout: of hidden states, attention and classifier alike; None keeps the checkpoint's rates.
        freeze_embeddings: do not train the input embeddings (tables and norm, 64 of the released 576 million).
        precision: `float32`, `bfloat16` (the computation; weights and optimizer stay float32), or `float64`.
        gradient_checkpointing: keep fewer activations and recompute them in the backward pass.
        seed: of the order of the data, new weights, masking and dropout.
        max_length: longest input in tokens; by default the model's `max_position_embeddings`.
        eval_steps: evaluate every this number of updates; by default after each epoch.
        save_steps: also write a checkpoint every this number of updates, beside the one of each evaluation.
        log_steps: log the training loss every this number of updates.
        patience: stop after this number of evaluations in a row without improvement; None never stops.
        metric: the score that decides which checkpoint is the best; by default the task's own. For errors and losses
            (`loss`, `perplexity`, `pseudo_perplexity`, `mse`) lower is better.

    Raises:
        InputError: a value is out of range; the message quotes it.

    Example:
        >>> recipe = Recipe.for_task("multiple-choice", epochs=5)
        >>> recipe.epochs, recipe.batch_size, recipe.learning_rate
        (5, 16, 8e-06)
        >>> Recipe(warmup=1.5)
        Traceback (most recent call last):
        rembert.common.errors.InputError: `warmup` must be a number in [0, 1). Received: `warmup=1.5`.
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
    class_weights: str | list[float] | None = None
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
        for name, value in vars(self).items():
            value = list(map(plain, value)) if isinstance(value, tuple | list) else plain(value)
            object.__setattr__(self, name, value)  # JSON has no NumPy numbers and no tuples
        check_arguments(_CONSTRAINTS, vars(self))
        if self.accumulation_steps > self.batch_size:
            raise InputError(
                "`accumulation_steps` must not exceed `batch_size`: each micro-batch needs an example. Received: "
                f"`accumulation_steps={self.accumulation_steps}` and `batch_size={self.batch_size}`."
            )

    @classmethod
    def for_task(cls, task: str | Task, **changes: Any) -> Recipe:
        """The defaults of a task, with `changes`.

        Raises:
            InputError: a task or key is unknown, or a value is out of range.
        """
        declared = (task_class(task) if isinstance(task, str) else task).recipe
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise InputError(f"A recipe has the keys {', '.join(known)}. Received also: {', '.join(unknown)}.")
        return replace(cls(**declared), **changes)


_COUNT = integer(at_least=1)
_POSITIVE = number(above=0)
_FRACTION = number(at_least=0, below=1)
_CONSTRAINTS = {
    "epochs": _POSITIVE,
    "max_steps": optional(_COUNT),
    "batch_size": _COUNT,
    "accumulation_steps": _COUNT,
    "learning_rate": _POSITIVE,
    "schedule": one_of(SCHEDULES),
    "warmup": _FRACTION,
    "weight_decay": number(at_least=0),
    "layer_decay": number(above=0, at_most=1),
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "epsilon": _POSITIVE,
    "max_grad_norm": optional(_POSITIVE),
    "label_smoothing": _FRACTION,
    "class_weights": optional(
        Constraint(f"{BALANCED!r}, or {WEIGHTS.wording}", lambda v: v == BALANCED or WEIGHTS.accepts(v))
    ),
    "dropout": optional(_FRACTION),
    "freeze_embeddings": BOOLEAN,
    "precision": one_of(PRECISIONS),
    "gradient_checkpointing": BOOLEAN,
    "seed": integer(at_least=0),
    "max_length": optional(_COUNT),
    "eval_steps": optional(_COUNT),
    "save_steps": optional(_COUNT),
    "log_steps": _COUNT,
    "patience": optional(_COUNT),
    "metric": optional(TEXT),
}
