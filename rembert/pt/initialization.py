"""Fresh weights: truncated normal kernels and tables, zero biases, unit norms.

As Google's BERT code initialises: normal with standard deviation `initializer_range`, cut at two of them (Devlin et
al. 2019; RemBERT's paper keeps it). `torch.manual_seed` makes it repeatable.
"""

from __future__ import annotations

from torch import nn


def initialize(module: nn.Module, deviation: float) -> None:
    """Initialise one module's own parameters, not those of its children."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm):
        nn.init.zeros_(module.bias)
