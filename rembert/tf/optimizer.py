"""AdamW by PyTorch's definition, so that training in Keras gives the same results as in PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from rembert.common.errors import InputError
from rembert.tf.keras_internals import OwnDecayOptimizer, variable_key

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class AdamW(OwnDecayOptimizer):
    """AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2) as `torch.optim.AdamW` computes it.

    Keras' own adds epsilon before the bias correction, which makes it larger in the first steps, and its default is
    1e-7. Here epsilon is added after, the decay comes before the step, and the corrections are computed in float64.
    Gradients of tables are dense, so rows that a batch does not use continue to change, as in PyTorch.

    Args:
        learning_rate: a number, a Keras schedule, or a callable without arguments.
        beta_1, beta_2: decay of the two moments.
        epsilon: added to the root of the corrected second moment.
        weight_decay: the fraction of a variable that a step at learning rate 1 subtracts. `exclude_from_weight_decay`
            excludes variables.
        undecayed_names: regular expressions; a variable whose name contains a match has no decay.
        **kwargs: of every Keras optimizer (`global_clipnorm`, `use_ema`, `name`, …).

    Example:
        >>> variable = keras.Variable([1.0])
        >>> optimizer = AdamW(learning_rate=0.1, weight_decay=0.0)
        >>> optimizer.apply([keras.ops.array([2.0])], [variable])
        >>> round(float(variable.value[0]), 4)
        0.9
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = 1e-2,
        undecayed_names: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._rate_factors: dict[str, float] = {}
        self._undecayed: frozenset[str] = frozenset()
        self._undecayed_names: frozenset[str] = frozenset(undecayed_names)
        self._indices: dict[str, int] = {}

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        self._indices = {variable_key(self, variable): index for index, variable in enumerate(variables)}

    def exclude_from_weight_decay(
        self, var_list: Iterable[Any] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Exclude variables from the decay: these, and those whose names contain a match of one of the expressions."""
        self._undecayed = frozenset(variable_key(self, variable) for variable in var_list or ())
        self._undecayed_names = frozenset(var_names or ())

    def scale_learning_rate(self, variables: Iterable[Any], factor: float) -> None:
        """Multiply the learning rate of variables by `factor`, in the step and in the decay."""
        self._rate_factors.update({variable_key(self, variable): factor for variable in variables})

    def moments(self, variable: Any) -> tuple[Any, Any]:
        """The first and second moment of a variable that the optimizer was built with."""
        index = self._indices.get(variable_key(self, variable))
        if index is None:
            raise InputError(
                "`variable` must be one that the optimizer was built with, on the same device. Received: "
                f"`variable={variable.name}`."
            )
        return self._momentums[index], self._velocities[index]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        dtype = variable.dtype
        gradient = tf.cast(tf.convert_to_tensor(gradient), dtype)
        rate = tf.cast(learning_rate, "float64") * self._rate_factors.get(variable_key(self, variable), 1.0)
        step = tf.cast(self.iterations + 1, "float64")
        first_correction = 1 - tf.pow(tf.constant(self.beta_1, "float64"), step)
        second_correction = tf.sqrt(1 - tf.pow(tf.constant(self.beta_2, "float64"), step))
        first, second = self.moments(variable)
        decay = self.own_weight_decay
        if decay and self._is_decayed(variable):
            self.assign(variable, variable * tf.cast(1 - rate * decay, dtype))
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign(second, second * self.beta_2 + tf.square(gradient) * (1 - self.beta_2))
        denominator = tf.sqrt(tf.convert_to_tensor(second)) / tf.cast(second_correction, dtype) + self.epsilon
        self.assign_sub(variable, tf.cast(rate / first_correction, dtype) * first / denominator)

    def _is_decayed(self, variable: Any) -> bool:
        named = any(re.search(expression, variable.name) for expression in self._undecayed_names)
        return not named and variable_key(self, variable) not in self._undecayed

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without what belongs to variables: factors of the rate, and a `var_list`."""
        own = {"weight_decay": self.own_weight_decay, "undecayed_names": sorted(self._undecayed_names)}
        return {**super().get_config(), **own, "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
