"""AdamW by PyTorch's definition, for training in Keras that gives PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class AdamW(keras.optimizers.Optimizer):
    """AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2) as `torch.optim.AdamW` computes it.

    Keras' own adds epsilon before the bias correction, which makes it larger in the first steps, and its default is
    1e-7. Here epsilon is added after, the decay comes before the step, and the corrections are computed in float64.
    Gradients of tables are dense, so rows that a batch does not use go on moving, as in PyTorch.

    Args:
        learning_rate: a number, a Keras schedule, or a callable without arguments.
        beta_1, beta_2: decay of the two moments.
        epsilon: added to the root of the corrected second moment.
        weight_decay: part of a variable that one step at rate 1 takes away. `exclude_from_weight_decay` leaves
            variables out.
        **kwargs: of every Keras optimizer (`global_clipnorm`, `use_ema`, `name`, …).
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = 1e-2,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._rate_factors: dict[Any, float] = {}

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def scale_learning_rate(self, variables: Iterable[Any], factor: float) -> None:
        """Give variables a rate of their own: `factor` times the learning rate, in the step and in the decay."""
        self._rate_factors.update({self._var_key(variable): factor for variable in variables})

    def moments(self, variable: Any) -> tuple[Any, Any]:
        """The first and second moment of a variable that the optimizer was built with."""
        index = self._get_variable_index(variable)
        return self._momentums[index], self._velocities[index]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        dtype = variable.dtype
        gradient = tf.cast(tf.convert_to_tensor(gradient), dtype)
        rate = tf.cast(learning_rate, "float64") * self._rate_factors.get(self._var_key(variable), 1.0)
        step = tf.cast(self.iterations + 1, "float64")
        first_correction = 1 - tf.pow(tf.constant(self.beta_1, "float64"), step)
        second_correction = tf.sqrt(1 - tf.pow(tf.constant(self.beta_2, "float64"), step))
        first, second = self.moments(variable)
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign(variable, variable * tf.cast(1 - rate * self.weight_decay, dtype))
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign(second, second * self.beta_2 + tf.square(gradient) * (1 - self.beta_2))
        denominator = tf.sqrt(tf.convert_to_tensor(second)) / tf.cast(second_correction, dtype) + self.epsilon
        self.assign_sub(variable, tf.cast(rate / first_correction, dtype) * first / denominator)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: `update_step` decays each variable at its own rate."""

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the optimizer; factors of `scale_learning_rate` belong to variables and are not in it."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
