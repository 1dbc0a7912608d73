"""The weights of a new model, drawn as `rembert.common.initialization` describes; `torch.manual_seed` repeats them."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode


def initialize(module: nn.Module, deviation: float) -> None:
    """Initialise one module's own parameters, not those of its children."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=deviation)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        nn.init.zeros_(module.bias)


class initialization_left_out(TorchFunctionMode):
    """Modules built inside draw no random numbers: whoever loads a checkpoint does not wait for them.

    On the meta device a draw gives nothing, yet takes seconds the first time: PyTorch imports its compiler for it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
