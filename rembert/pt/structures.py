"""The output classes as PyTorch structures, so that compilers and data parallelism can unpack them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rembert.common.outputs import OUTPUT_TYPES, ModelOutput
from rembert.pt.torch_internals import register_mapping


def register_outputs() -> None:
    """Tell PyTorch how to unpack and rebuild every output class, and that a trace returns it as a dict."""
    for kind in OUTPUT_TYPES:
        torch.jit.ignore(kind)  # `torch.jit.trace` would compile the class, without what it inherits from `dict`
        register_mapping(kind, _flatten, partial(_unflatten, kind))


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output)


def _unflatten(kind: type[ModelOutput], values: Any, names: list[str]) -> ModelOutput:
    return kind(zip(names, values, strict=True))
