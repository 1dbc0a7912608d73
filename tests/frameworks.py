"""PyTorch and TensorFlow behind one small interface, so that a test is written once and run on both.

Inputs go in as numpy arrays, outputs and gradients come back as numpy arrays, under the canonical names and in the
orientation of the parameter table.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.version import Version

from rembert.bridge import TARGETS
from rembert.common.config import RemBertConfig
from rembert.common.dependencies import is_installed
from rembert.common.parameters import HEADS, Kind, Parameter, parameters
from rembert.tasks.backends import installed_frameworks

GOLDEN = Path(__file__).parent / "fixtures" / "golden"

Arrays = dict[str, np.ndarray]


class PyTorch:
    """Runs a test on `rembert.pt`."""

    name = "pt"

    @staticmethod
    def model_class(head: str) -> Any:
        import rembert.pt

        return getattr(rembert.pt, HEADS[head].architecture)

    def build(self, config: RemBertConfig, head: str, dtype: str = "float32", **own: Any) -> Any:
        import torch

        return self.model_class(head)(config, **own).to(getattr(torch, dtype)).eval()

    def load(self, path: Path, head: str, **settings: Any) -> Any:
        return self.model_class(head).from_pretrained(path, **settings)

    def seed(self, number: int) -> None:
        import torch

        torch.manual_seed(number)

    def tensor(self, value: Any) -> Any:
        """Arrays, in any structure of tuples, as tensors; anything else as it is."""
        import torch

        if isinstance(value, tuple):
            return tuple(map(self.tensor, value))
        if isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":  # which torch takes from nobody
            return torch.from_numpy(value.astype(np.float32)).bfloat16()
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    def array(self, value: Any) -> Any:
        """Tensors, in any structure of tuples, as arrays."""
        import torch

        if isinstance(value, tuple):
            return tuple(map(self.array, value))
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    def call(self, model: Any, **arguments: Any) -> Any:
        """The model's own output, without a gradient."""
        import torch

        with torch.no_grad():
            return model(**{name: self.tensor(value) for name, value in arguments.items()})

    def gradients(self, model: Any, **arguments: Any) -> Arrays:
        """The gradient of the loss in every parameter."""
        model.zero_grad()
        model(**{name: self.tensor(value) for name, value in arguments.items()}).loss.backward()
        own = dict(model.named_parameters())
        result = {}
        for name in model.parameter_table():
            gradient = own[model._own_name(name)].grad
            result[name] = np.zeros(()) if gradient is None else gradient.numpy().copy()
        return result

    def state_gradients(self, model: Any, weights: np.ndarray, **arguments: Any) -> list[np.ndarray | None]:
        """The gradient in every returned hidden state of the first output's sum, weighted; None where none arrives."""
        import torch

        given = {name: self.tensor(value) for name, value in arguments.items()}
        outputs = model(**given, output_hidden_states=True)
        total = (outputs[0] * self.tensor(weights)).sum()
        found = torch.autograd.grad(total, outputs.hidden_states, allow_unused=True)
        return [None if each is None else each.numpy() for each in found]

    def base(self, model: Any) -> Any:
        """The encoder inside a head."""
        return model.base_model

    def weights(self, model: Any) -> Arrays:
        """Every parameter by canonical name."""
        state = model.state_dict()
        return {name: self.array(state[model._own_name(name)]) for name in model.parameter_table()}

    def set_weights(self, model: Any, weights: Mapping[str, np.ndarray]) -> None:
        import torch

        state = {model._own_name(name): torch.from_numpy(weights[name]) for name in model.parameter_table()}
        model.load_state_dict(state)


class TensorFlow:
    """Runs a test on `rembert.tf`."""

    name = "tf"

    @staticmethod
    def model_class(head: str) -> Any:
        import rembert.tf

        return getattr(rembert.tf, f"TF{HEADS[head].architecture}")

    def build(self, config: RemBertConfig, head: str, dtype: str = "float32", **own: Any) -> Any:
        return self.model_class(head)(config, dtype=dtype, **own)

    def load(self, path: Path, head: str, **settings: Any) -> Any:
        return self.model_class(head).from_pretrained(path, **settings)

    def seed(self, number: int) -> None:
        import keras

        keras.utils.set_random_seed(number)

    def tensor(self, value: Any) -> Any:
        """Arrays, in any structure of tuples, as tensors; anything else as it is."""
        import tensorflow as tf

        if isinstance(value, tuple):
            return tuple(map(self.tensor, value))
        return tf.constant(value) if isinstance(value, np.ndarray) else value

    def array(self, value: Any) -> Any:
        """Tensors, in any structure of tuples, as arrays."""
        if isinstance(value, tuple):
            return tuple(map(self.array, value))
        array = np.asarray(value)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    def call(self, model: Any, **arguments: Any) -> Any:
        """The model's own output, without a gradient."""
        return model(**{name: self.tensor(value) for name, value in arguments.items()})

    def gradients(self, model: Any, **arguments: Any) -> Arrays:
        """The gradient of the loss in every parameter."""
        import tensorflow as tf

        table = model.parameter_table()
        variables = [model.variable(parameter).value for parameter in table.values()]
        with tf.GradientTape() as tape:
            loss = model(**{name: self.tensor(value) for name, value in arguments.items()}).loss
        result = {}
        for parameter, gradient in zip(table.values(), tape.gradient(loss, variables), strict=True):
            array = np.zeros(()) if gradient is None else tf.convert_to_tensor(gradient).numpy()
            result[parameter.name] = _transposed_kernel(array, parameter)
        return result

    def state_gradients(self, model: Any, weights: np.ndarray, **arguments: Any) -> list[np.ndarray | None]:
        """The gradient in every returned hidden state of the first output's sum, weighted; None where none arrives."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = model(
                **{name: self.tensor(value) for name, value in arguments.items()}, output_hidden_states=True
            )
            total = tf.reduce_sum(outputs[0] * weights)
        return [None if each is None else each.numpy() for each in tape.gradient(total, list(outputs.hidden_states))]

    def base(self, model: Any) -> Any:
        """The encoder inside a head."""
        return model.get_base_model()

    def weights(self, model: Any) -> Arrays:
        """Every parameter by canonical name."""
        table = model.parameter_table()
        return {name: _transposed_kernel(self.array(model.variable(table[name]).value), table[name]) for name in table}

    def set_weights(self, model: Any, weights: Mapping[str, np.ndarray]) -> None:
        for name, parameter in model.parameter_table().items():
            model.variable(parameter).assign(_transposed_kernel(weights[name], parameter))


PT, TF = PyTorch(), TensorFlow()
Framework = PyTorch | TensorFlow


def train_once(framework: Framework, model: Any, inputs: Arrays) -> None:
    """One step of gradient descent."""
    if framework is PT:
        import torch

        optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
        model.train()(**{name: framework.tensor(array) for name, array in inputs.items()}).loss.backward()
        optimizer.step()
    else:
        model.compile(optimizer="sgd")
        model.train_on_batch(inputs)


def needs(*packages: str) -> pytest.MarkDecorator:
    """A mark for a test, or for one of its cases: skipped where a package is missing, and the reason names it."""
    missing = [package for package in packages if not is_installed(package)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def is_older(package: str, version: str) -> bool:
    """Whether a package is installed in an earlier version."""
    return is_installed(package) and Version(importlib.metadata.version(package)) < Version(version)


def needs_newer(package: str, version: str, reason: str) -> pytest.MarkDecorator:
    """A mark for a test of what a package can do from some version on; the reason names it."""
    return pytest.mark.skipif(is_older(package, version), reason=f"needs {package} {version}: {reason}")


needs_pt = needs("torch")
needs_one_graph = needs_newer(
    "torch", "2.7", "earlier ones break the graph at the models' outputs, which are mappings"
)
CAN_SHARD_ON_CPUS = not is_older("torch", "2.7")
needs_shards_on_cpus = needs_newer("torch", "2.7", "earlier ones shard on GPUs only")
needs_tf = needs("tensorflow", "keras")
needs_a_framework = pytest.mark.skipif(not installed_frameworks(), reason="not installed: torch, tensorflow")
# A test with an argument `framework` runs on each.
on_both = pytest.mark.parametrize(
    "framework", [pytest.param(PT, id="pt", marks=needs_pt), pytest.param(TF, id="tf", marks=needs_tf)]
)
# For tests whose graphs take seconds in TensorFlow.
on_both_tf_slow = pytest.mark.parametrize(
    "framework",
    [pytest.param(PT, id="pt", marks=needs_pt), pytest.param(TF, id="tf", marks=[needs_tf, pytest.mark.slow])],
)
# The formats that can be written here: pickles are torch's own.
WRITABLE = tuple(to for to, format in TARGETS.items() if all(map(is_installed, format.packages)))


def small_config(**changes: Any) -> RemBertConfig:
    """A configuration of a model that runs in milliseconds; no two of its sizes are the same."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "input_embedding_size": 10,
        "output_embedding_size": 14,
        "intermediate_size": 22,
        "max_position_embeddings": 18,
        "type_vocab_size": 2,
        "num_labels": 5,
    }
    if "id2label" in changes:
        del sizes["num_labels"]
    return RemBertConfig(**{**sizes, **changes})


def random_weights(config: RemBertConfig, head: str, seed: int = 0, dtype: str = "float64", **own: Any) -> Arrays:
    """Weights for every parameter, biases and norms too: a fresh model's zeros and ones would hide them."""
    numbers = np.random.default_rng(seed)
    pooler = own.get("add_pooling_layer")
    weights = {}
    for name, parameter in parameters(config, head, pooler=pooler).items():
        values = numbers.standard_normal(parameter.shape)
        width = parameter.shape[-1]
        scale = {Kind.KERNEL: width**-0.5, Kind.SCALE: 0.2}.get(parameter.kind, 0.4)
        weights[name] = (values * scale + (parameter.kind is Kind.SCALE)).astype(dtype)
    return weights


def flat(framework: Framework, outputs: Mapping[str, Any]) -> Arrays:
    """A model's output as arrays; what is a tuple gets a number: `hidden_states.0`, `past_key_values.1.0`."""
    result: Arrays = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, tuple):
            for index, part in enumerate(value):
                add(f"{name}.{index}", part)
        else:
            result[name] = framework.array(value)

    for name, value in outputs.items():
        add(name, value)
    return result


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a part of the largest expected number."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    largest = np.abs(expected).max(initial=0.0)
    return float(np.abs(actual - expected).max(initial=0.0) / (largest or 1.0))


def scale_of_gradient(name: str, head: str, layers: int) -> str:
    """The parameter whose gradient's largest number is the scale for this one's: itself, nearly always.

    Some biases shift all that one softmax takes by the same amount, and softmax takes that away again, so that their
    gradients are zero but for rounding: a key's bias, a classifier's of choices, and, where all positions compete, the
    last two of a question answering model. The weight beside the bias is rounded alike.
    """
    shifts = {
        "multiple-choice": ("classifier.bias",),
        "question-answering": ("qa_outputs.bias", f"rembert.encoder.layer.{layers - 1}.output.LayerNorm.bias"),
    }
    is_zero = name.endswith("self.key.bias") or name in shifts.get(head, ())
    return name.removesuffix("bias") + "weight" if is_zero else name


def _transposed_kernel(array: np.ndarray, parameter: Parameter) -> np.ndarray:
    return array.T if parameter.kind is Kind.KERNEL else array
