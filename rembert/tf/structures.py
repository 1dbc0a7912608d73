"""The output classes as Keras structures, so that functional graphs, `predict` and callbacks can unpack them."""

from __future__ import annotations

from functools import partial
from typing import Any

from rembert.common.outputs import OUTPUT_TYPES, ModelOutput
from rembert.tf.keras_internals import register_mapping


def register_outputs() -> None:
    """Tell Keras how to unpack and rebuild every output class.

    TensorFlow's own functions (`tf.nest`, used by `tf.function`) handle mappings already.
    """
    for kind in OUTPUT_TYPES:
        register_mapping(kind, _flatten, partial(_unflatten, kind))


def _flatten(output: Any) -> tuple[list[Any], tuple[str, ...], tuple[str, ...]]:
    names = tuple(output)  # a ModelOutput; optree's types ask for a function of any collection
    return list(output.values()), names, names


def _unflatten(kind: type[ModelOutput], names: tuple[str, ...], values: Any) -> ModelOutput:
    return kind(zip(names, values, strict=True))
