"""The output classes as Keras structures, so that functional graphs, `predict` and callbacks can take them apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import optree

from rembert.common.outputs import OUTPUT_TYPES, ModelOutput


def register_outputs() -> None:
    """Tell Keras' tree library how every output class is taken apart and put together.

    TensorFlow's own (`tf.nest`, used by `tf.function`) needs no telling: it knows mappings.
    """
    for kind in OUTPUT_TYPES:
        optree.register_pytree_node(kind, _flatten, partial(_unflatten, kind), namespace="keras")


def _flatten(output: Any) -> tuple[list[Any], tuple[str, ...], tuple[str, ...]]:
    names = tuple(output)  # a ModelOutput; optree's types ask for a function of any collection
    return list(output.values()), names, names


def _unflatten(kind: type[ModelOutput], names: tuple[str, ...], values: Any) -> ModelOutput:
    return kind(zip(names, values, strict=True))
