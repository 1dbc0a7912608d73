"""What the tests of the plug-in share: the same model of transformers and of this library."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from rembert import RemBertConfig
from rembert.common.parameters import HEADS, head_config
from rembert.transformers import models
from tests.parity.cases import Case


def as_transformers(config: RemBertConfig) -> transformers.RemBertConfig:
    """The same configuration in transformers' class."""
    return transformers.RemBertConfig(**config.to_diff_dict())


def build_both(case: Case, **settings: Any) -> tuple[Any, Any]:
    """A model of transformers in float64 with random weights, and the plug-in's with the same ones."""
    name = HEADS[case.head].architecture
    config = as_transformers(head_config(case.config(initializer_range=0.3, **settings), case.head))
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:  # zeros and ones would hide what is left out
                parameter.add_(torch.randn_like(parameter) * 0.3)
    ours = getattr(models, name)(config).double().eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def real_rows(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The rows of an output that mean something: those of real tokens where it has a row for each token."""
    return value[mask.bool()] if value.shape[: mask.ndim] == mask.shape else value
