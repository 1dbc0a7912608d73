"""The outputs of `rembert.pt` as transformers' classes of the same names."""

from __future__ import annotations

from typing import Any

from transformers import modeling_outputs

from rembert.common.outputs import ModelOutput


def translate(outputs: ModelOutput) -> Any:
    """The same fields in transformers' class of the same name."""
    return getattr(modeling_outputs, type(outputs).__name__)(**outputs)
