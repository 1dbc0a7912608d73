"""Models of TensorFlow outside training: found, placed and run. `pt.py` is the twin: the same functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

import rembert.tf
from rembert.common.errors import InputError
from rembert.common.initialization import initial_values
from rembert.common.parameters import HEADS, Kind, file_name
from rembert.tasks.backends import Arrays, Inputs


def model_class(head: str) -> Any:
    """The class of the models of a head."""
    return getattr(rembert.tf, f"TF{HEADS[head].architecture}")


def find_device(name: str | None) -> None:
    """None: TensorFlow places its models itself.

    Raises:
        InputError: a name.
    """
    if name is not None:
        raise InputError(
            "`device` must be None in TensorFlow, which uses the GPUs of CUDA_VISIBLE_DEVICES. Received: "
            f"`device={name!r}`."
        )


def place(model: Any, device: None) -> Any:
    """The model, unchanged: TensorFlow places it."""
    return model


def initialize(model: Any, names: Iterable[str], seed: int = 0) -> None:
    """Give parameters their initial values, the same as in PyTorch."""
    declared = {file_name(name, model.head): parameter for name, parameter in model.parameter_table().items()}
    for name in names:
        values = initial_values(declared[name], model.config.initializer_range, seed)
        is_kernel = declared[name].kind is Kind.KERNEL
        model.variable(declared[name]).assign(values.T if is_kernel else values)


def is_on_gpu(model: Any) -> bool:
    """Whether the model computes on a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def evaluating(model: Any) -> AbstractContextManager[None]:
    """An empty context: `training` is an argument of every call."""
    return nullcontext()


class Runner:
    """Runs a model on batches of arrays; see `rembert.tasks.backends.Runner`. Each method has one graph for batches of
    all shapes.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graphs: dict[tuple[Any, ...], Callable[[Any], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graphs": {}}  # graphs cannot be pickled; they are traced again

    def outputs(self, inputs: Inputs) -> Arrays:
        """The tensors of the model's output by name."""
        found = self._graph("outputs", lambda given: _tensors(self._model(**given, training=False)), inputs)
        return {name: _array(value) for name, value in found.items()}

    def hidden_states(self, inputs: Inputs, layer: int) -> np.ndarray:
        """Hidden states [b, s, e] of a base model."""

        def states(given: dict[str, Any]) -> Any:
            if layer == -1:
                return self._model(**given, training=False).last_hidden_state
            return self._model(**given, output_hidden_states=True, training=False).hidden_states[layer]

        return _array(self._graph(f"hidden_states {layer}", states, inputs))

    def label_scores(self, inputs: Inputs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities [b, k] of the token `ids`, and the ids [b, k] of the most likely tokens."""

        def scores(given: dict[str, Any]) -> Any:
            arguments = {name: value for name, value in given.items() if name != "ids"}
            logits = tf.cast(self._model(**arguments, training=False).logits, tf.float32)
            of_labels = tf.gather(logits, given["ids"], batch_dims=2)
            return of_labels - tf.reduce_logsumexp(logits, -1), tf.argmax(logits, -1)

        of_labels, likely = self._graph("label_scores", scores, {**inputs, "ids": ids})
        return _array(of_labels), _array(likely)

    def _graph(self, name: str, compute: Callable[[Any], Any], inputs: Inputs) -> Any:
        key = (name, *((each, array.dtype.name, array.ndim) for each, array in inputs.items()))
        if key not in self._graphs:
            signature = {each: tf.TensorSpec([None] * array.ndim, array.dtype) for each, array in inputs.items()}
            self._graphs[key] = tf.function(compute, input_signature=[signature])
        return self._graphs[key]({each: tf.convert_to_tensor(array) for each, array in inputs.items()})


def make_runner(model: Any) -> Runner:
    """A runner for many batches, which keeps its graphs."""
    return Runner(model)


def run_once(model: Any, inputs: Inputs) -> Arrays:
    """`outputs` of a runner for a single batch, without a graph."""
    return {name: _array(value) for name, value in _tensors(model(**inputs, training=False)).items()}


def _tensors(outputs: Any) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if tf.is_tensor(value)}


def _array(value: Any) -> np.ndarray:
    """A tensor as an array, in float32 if its dtype is float16 or unknown to NumPy."""
    if value.dtype.is_floating and value.dtype.size < 4:
        value = tf.cast(value, tf.float32)
    array: np.ndarray = value.numpy()
    return array
