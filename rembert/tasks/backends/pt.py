"""Models of PyTorch outside training: found, placed and run. `tf.py` is the twin: the same functions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rembert.pt
from rembert.common.errors import InputError
from rembert.common.initialization import initial_values
from rembert.common.parameters import HEADS, file_name
from rembert.tasks.backends import Arrays, Inputs


def model_class(head: str) -> Any:
    """The class of the models of a head."""
    return getattr(rembert.pt, HEADS[head].architecture)


def find_device(name: str | None) -> torch.device:
    """The device of this name; by default the CPU, or the GPU of this process (`LOCAL_RANK`).

    Raises:
        InputError: there is no such device.
    """
    if name is None:
        local = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device(f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise InputError(
            f"`device` must be one that PyTorch has here, for example cpu. Received: `device={name!r}` ({reason})."
        ) from None
    return device


def place(model: Any, device: torch.device) -> Any:
    """The model on a device."""
    return model.to(device)


def initialize(model: Any, names: Iterable[str], seed: int = 0) -> None:
    """Give parameters their initial values, the same as in TensorFlow."""
    declared = {file_name(name, model.head): parameter for name, parameter in model.parameter_table().items()}
    with torch.no_grad():
        for name in names:
            values = initial_values(declared[name], model.config.initializer_range, seed)
            model.get_parameter(name).copy_(torch.from_numpy(values))


def is_on_gpu(model: Any) -> bool:
    """Whether the model computes on a GPU."""
    return _device(model).type != "cpu"


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A context in which the model is in evaluation mode; afterwards it is in its previous mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Runner:
    """Runs a model on batches of arrays; see `rembert.tasks.backends.Runner`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> Arrays:
        """The tensors of the model's output by name."""
        return {name: _array(value) for name, value in self._call(inputs).items() if isinstance(value, Tensor)}

    @torch.inference_mode()
    def hidden_states(self, inputs: Inputs, layer: int) -> np.ndarray:
        """Hidden states [b, s, e] of a base model."""
        if layer == -1:
            return _array(self._call(inputs).last_hidden_state)
        return _array(self._call(inputs, output_hidden_states=True).hidden_states[layer])

    @torch.inference_mode()
    def label_scores(self, inputs: Inputs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities [b, k] of the token `ids`, and the ids [b, k] of the most likely tokens."""
        logits = self._call(inputs).logits.float()
        of_labels = logits.gather(-1, torch.from_numpy(ids).to(logits.device)[..., None])[..., 0]
        return _array(of_labels - logits.logsumexp(-1)), _array(logits.argmax(-1))

    def _call(self, inputs: Inputs, **options: Any) -> Any:
        device = _device(self._model)
        return self._model(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()}, **options)


def make_runner(model: Any) -> Runner:
    """A runner for many batches."""
    return Runner(model)


def run_once(model: Any, inputs: Inputs) -> Arrays:
    """`outputs` of a runner for a single batch."""
    return Runner(model).outputs(inputs)


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _array(value: Tensor) -> np.ndarray:
    """A tensor as an array, in float32 if its dtype is float16 or unknown to NumPy."""
    if value.is_floating_point() and value.dtype.itemsize < 4:
        value = value.float()
    array: np.ndarray = value.cpu().numpy()
    return array
