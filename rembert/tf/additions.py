"""The weights of layers that a subclass or a caller adds to a model, under the names that PyTorch would give them.

PyTorch has `state_dict`, so this file has no twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from rembert.bridge import TensorSource
from rembert.bridge.tensors import DTYPES
from rembert.common.name_matching import canonical_name
from rembert.common.parameters import BASE_MODEL, CUSTOM, Kind, Parameter
from rembert.tf.layers import named_parts
from rembert.tf.serving import serving_signature

Model = Any  # a TFRemBertPreTrainedModel, whose file imports this one

# Layers that PyTorch has too: their variables are named, and a kernel oriented, as in PyTorch.
_SHARED: dict[type, dict[str, Kind]] = {
    keras.layers.Dense: {"kernel": Kind.KERNEL, "bias": Kind.BIAS},
    keras.layers.Embedding: {"embeddings": Kind.EMBEDDING},
    keras.layers.LayerNormalization: {"gamma": Kind.SCALE, "beta": Kind.SHIFT},
}


@dataclass(frozen=True)
class Addition:
    """A variable that is not in the parameter table, and the name and shape of its tensor in a checkpoint."""

    parameter: Parameter
    variable: keras.Variable

    @property
    def source(self) -> TensorSource:
        """The tensor to save."""
        name = self.variable.dtype
        return TensorSource(shape=self.parameter.shape, dtype=DTYPES.get(name) or np.dtype(name), read=self._read)

    def assign(self, value: np.ndarray) -> None:
        """Take the value of a tensor from a checkpoint."""
        self.variable.assign(value.T if self.parameter.kind is Kind.KERNEL else value)

    def _read(self) -> np.ndarray:
        value = np.asarray(self.variable.value)
        return np.ascontiguousarray(value.T if self.parameter.kind is Kind.KERNEL else value)


def additions(model: Model) -> dict[str, Addition]:
    """The variables of added layers by canonical name; layers that have no variables yet are left out."""
    found = {}
    for path, layer in _added_layers(model):
        named = {id(value): name for name, value in vars(model).items()} if layer is model else {}
        shared = next((names for kind, names in _SHARED.items() if type(layer) is kind), {})
        taken: set[str] = set()
        for variable in _own_weights(layer):
            kind, shape = shared.get(variable.name, Kind.BIAS), tuple(variable.shape)
            last = named.get(id(variable), variable.name) if variable.name not in shared else _in_pytorch(kind)
            while last in taken:  # a layer that hides its parts
                last += "_"
            taken.add(last)
            name = canonical_name(f"{path}.{last}" if path else last) or ""
            found[name] = Addition(Parameter(name, shape[::-1] if kind is Kind.KERNEL else shape, kind), variable)
    return found


def is_extended(model: Model) -> bool:
    """Whether a model has layers beside those of the parameter table."""
    return any(_added_layers(model))


def built_additions(model: Model) -> dict[str, Addition]:
    """The variables of added layers by canonical name; a model that has some is built for it."""
    if not is_extended(model):
        return {}
    if model.parameter_table():
        model.build(model._ids_shape)
    build_additions(model)
    return additions(model)


def build_additions(model: Model) -> None:
    """Create the variables that wait for their first input, by a symbolic call of the model."""
    layers = [model.get_base_model(), *(layer for _, layer in _added_layers(model))]
    if all(layer.built for layer in layers if layer is not model):
        return
    head = BASE_MODEL if model.head == CUSTOM else model.head
    signature = serving_signature(model.config, head, model.compute_dtype)
    model({name: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=name) for name, spec in signature.items()})


def _in_pytorch(kind: Kind) -> str:
    return "bias" if kind in (Kind.BIAS, Kind.SHIFT) else "weight"


def _own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer that are not those of a layer inside it."""
    inner = {id(variable) for _, part in named_parts(layer) for variable in part.weights}
    return [variable for variable in layer.weights if id(variable) not in inner]


def _added_layers(model: Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer with variables of its own that the parameter table does not know, with the path to it.

    The model itself is the first one if it has variables of its own.
    """
    known = {id(model._holder(parameter)) for parameter in model.parameter_table().values()}
    seen = {id(model)}

    def visit(path: str, layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
        for name, part in named_parts(layer):
            if id(part) in known or id(part) in seen:
                continue
            seen.add(id(part))
            inner = f"{path}.{name}" if path else name
            # Dropout and this library's models and layers have no variables of their own.
            if not isinstance(part, keras.layers.Dropout) and not type(part).__module__.startswith("rembert."):
                yield inner, part
            yield from visit(inner, part)

    if _own_weights(model):
        yield "", model
    yield from visit("", model)
