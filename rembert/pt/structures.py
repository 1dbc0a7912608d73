"""The output classes as PyTorch structures, so that compilers and data parallelism can unpack them."""

from __future__ import annotations

from functools import partial
from typing import Any

from rembert.common.outputs import OUTPUT_TYPES, ModelOutput
from rembert.pt.torch_internals import register_mapping


def register_outputs() -> None:
    """Tell PyTorch how to unpack and rebuild every output class."""
    for kind in OUTPUT_TYPES:
        register_mapping(kind, _flatten, partial(_unflatten, kind))


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output)


def _unflatten(kind: type[ModelOutput], values: Any, names: list[str]) -> ModelOutput:
    return kind(zip(names, values, strict=True))
