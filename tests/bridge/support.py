"""What the bridge's tests share: where the goldens lie, and the smallest checkpoints worth writing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rembert.bridge import TensorSource

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"
MODELS = sorted(path.parent.name for path in GOLDEN.glob("*/model.safetensors"))
assert len(MODELS) == 10


def source(array: np.ndarray) -> TensorSource:
    """An array as something that can be written."""
    return TensorSource(array.shape, array.dtype, lambda: array)


def sources(**arrays: np.ndarray) -> dict[str, TensorSource]:
    """Arrays as something that can be written."""
    return {name: source(array) for name, array in arrays.items()}


def raw_safetensors(path: Path, header: object, values: bytes = b"") -> Path:
    """A safetensors file with any header, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)
    return path
