"""The output classes as PyTorch structures, so that compilers and data parallelism can take them apart."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils import _pytree as pytree

from rembert.common.outputs import OUTPUT_TYPES, ModelOutput


def register_outputs() -> None:
    """Tell torch's pytree how every output class is taken apart and put together."""
    for kind in OUTPUT_TYPES:
        pytree.register_pytree_node(
            kind,
            _flatten,
            partial(_unflatten, kind),
            serialized_type_name=f"{kind.__module__}.{kind.__name__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output)


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(pytree.MappingKey(name), value) for name, value in output.items()], list(output)


def _unflatten(kind: type[ModelOutput], values: Any, names: list[str]) -> ModelOutput:
    return kind(zip(names, values, strict=True))
