"""The weights of a new model, drawn as `rembert.common.initialization` describes; `torch.manual_seed` repeats them."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode


def initialize(module: nn.Module, deviation: float) -> None:
    """Initialise the parameters of one module, without those of its children.

    Args:
        module: any module; only linear layers, tables and norms have parameters of their own.
        deviation: the standard deviation of kernels and tables.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        nn.init.zeros_(module.bias)


class skip_initialization(TorchFunctionMode):  # a context manager, named like a function
    """Modules built inside draw no random numbers, so that loading a checkpoint does not wait for them.

    Even on the meta device the first draw takes seconds: PyTorch imports its compiler for it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
