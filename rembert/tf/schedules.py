"""`create_optimizer` with transformers' arguments: AdamW with warm-up, a polynomial decay and the usual exclusions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from rembert.common.arguments import check_argument, check_arguments, integer, number
from rembert.common.errors import InputError
from rembert.tf.optimizer import AdamW

# Biases and LayerNorms, by the names of their variables.
_UNDECAYED = {"bias": "bias", "LayerNorm.gamma": "gamma", "LayerNorm.beta": "beta"}
_CONSTRAINTS = {
    "num_train_steps": integer(at_least=1),
    "num_warmup_steps": integer(at_least=0),
    "min_lr_ratio": number(at_least=0, at_most=1),
    "weight_decay_rate": number(at_least=0),
}


@keras.saving.register_keras_serializable("rembert")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0, before another schedule begins.

    initial_learning_rate * (step / warmup_steps) ** power for the first `warmup_steps` steps, then
    decay_schedule_fn(step - warmup_steps).

    Args:
        initial_learning_rate: the rate at the end of the rise.
        decay_schedule_fn: a Keras schedule, or a function from a step to a rate; only a schedule can be saved.
        warmup_steps: the length of the rise, 1 or more.
        power: of the rise.
        name: of the schedule.

    Raises:
        InputError: `warmup_steps` is no positive integer.

    Example:
        >>> rate = WarmUp(0.5, keras.optimizers.schedules.PolynomialDecay(0.5, 10, 0.0), warmup_steps=4)
        >>> [float(rate(step)) for step in (0, 2, 4, 9)]
        [0.0, 0.25, 0.5, 0.25]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Callable[[Any], Any],
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ) -> None:
        check_argument("warmup_steps", warmup_steps, integer(at_least=1))
        super().__init__()
        self.initial_learning_rate = initial_learning_rate
        self.decay_schedule_fn = decay_schedule_fn
        self.warmup_steps = warmup_steps
        self.power = power
        self.name = name

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = self.initial_learning_rate * ops.power(step / self.warmup_steps, self.power)
        after = self.decay_schedule_fn(ops.maximum(step - self.warmup_steps, 0.0))
        return ops.where(step < self.warmup_steps, rise, after)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_schedule_fn": keras.saving.serialize_keras_object(self.decay_schedule_fn),
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        return cls(
            **{**config, "decay_schedule_fn": keras.saving.deserialize_keras_object(config["decay_schedule_fn"])}
        )


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
    include_in_weight_decay: Sequence[str] | None = None,
) -> tuple[AdamW, Any]:
    """An optimizer and its schedule, from the arguments of transformers' function of this name.

    The rate rises linearly from 0 to `init_lr`, then falls to `init_lr * min_lr_ratio` at step `num_train_steps`.

    Args:
        init_lr: the highest rate.
        num_train_steps: of the whole run, 1 or more; more than `num_warmup_steps`.
        num_warmup_steps: of the rise, 0 or more.
        min_lr_ratio: the last rate as a fraction of `init_lr`.
        adam_beta1, adam_beta2, adam_epsilon: of AdamW.
        adam_clipnorm: the largest norm of one variable's gradient.
        adam_global_clipnorm: the largest norm of all gradients together.
        weight_decay_rate: of matrices; biases and LayerNorms have none.
        power: of the fall (1 is linear).
        include_in_weight_decay: regular expressions; `bias`, `LayerNorm.gamma` and `LayerNorm.beta` have a decay where
            one of these is found in them.

    Returns:
        (optimizer, schedule): a `rembert.tf.AdamW`, whose learning rate is the schedule.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> optimizer, schedule = create_optimizer(1e-4, num_train_steps=100, num_warmup_steps=10)
        >>> round(float(schedule(10)), 6), round(float(schedule(55)), 6)
        (0.0001, 5e-05)
    """
    check_arguments(
        _CONSTRAINTS,
        {
            "num_train_steps": num_train_steps,
            "num_warmup_steps": num_warmup_steps,
            "min_lr_ratio": min_lr_ratio,
            "weight_decay_rate": weight_decay_rate,
        },
    )
    if num_warmup_steps >= num_train_steps:
        raise InputError(
            "`num_train_steps` must be more than `num_warmup_steps`. Received: "
            f"`num_train_steps={num_train_steps}` and `num_warmup_steps={num_warmup_steps}`."
        )
    schedule: Any = keras.optimizers.schedules.PolynomialDecay(
        init_lr, num_train_steps - num_warmup_steps, end_learning_rate=init_lr * min_lr_ratio, power=power
    )
    if num_warmup_steps:
        schedule = WarmUp(init_lr, schedule, num_warmup_steps)
    included = [re.compile(each) for each in include_in_weight_decay or ()]
    optimizer = AdamW(
        schedule,
        beta_1=adam_beta1,
        beta_2=adam_beta2,
        epsilon=adam_epsilon,
        weight_decay=weight_decay_rate or None,
        undecayed_names=[
            f"(^|/){name}(:|$)" for path, name in _UNDECAYED.items() if not any(each.search(path) for each in included)
        ],
        clipnorm=adam_clipnorm,
        global_clipnorm=adam_global_clipnorm,
    )
    return optimizer, schedule
