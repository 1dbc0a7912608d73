"""safetensors: a JSON header of names, dtypes, shapes and offsets, then the values. The library's home format.

The `safetensors` package checks the header: its structure, and that the tensors fill the file without overlaps and
holes. The code here does what the package cannot:

- values are mapped copy-on-write and never copied; the package's arrays are copies, and it has no float8 for NumPy;
- a name that occurs twice is refused (the package uses the last one), and so is a header over `MAX_HEADER`;
- a file is written one tensor at a time, transposed and converted on the way; the package needs all values in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from rembert.bridge.format import Format
from rembert.bridge.streaming import Progress, silent, write_values
from rembert.bridge.tensors import BFLOAT16, Contents, TensorSource, map_file, view
from rembert.common import strict_json
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular
from rembert.common.parameters import Parameter, file_name

# Enough for 100,000 tensors, a hundred times what a large RemBERT has; a hostile header cannot fill the memory.
MAX_HEADER = 16 * 2**20
MAX_DIMENSIONS, MAX_SIZE = 8, 2**48  # of a tensor; NumPy refuses a larger size even where another size is 0

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read(path: Path) -> Contents:
    """The tensors of one file, by their names in it, in the file's order.

    Raises:
        CheckpointError: the file is damaged; names the file and the reason.
    """
    entries, start = _read_header(path)
    mapped = map_file(path)
    tensors: dict[str, TensorSource] = {}
    for name, entry in entries.items():
        shape, dtype = tuple(entry["shape"]), _DTYPES.get(entry["dtype"])
        if dtype is None or len(shape) > MAX_DIMENSIONS or math.prod(size or 1 for size in shape) > MAX_SIZE:
            raise CheckpointError(
                f"{path}: tensor `{name:.200}` must have at most {MAX_DIMENSIONS} dimensions and one of the dtypes "
                f"{', '.join(_DTYPES)}. Received: {entry['dtype']} of the shape {list(shape)!r:.200}."
            )
        offset = start + entry["data_offsets"][0]
        tensors[name] = TensorSource(shape, dtype, partial(view, mapped, offset, shape, dtype))
    return Contents(tensors)


def write(
    path: Path,
    tensors: Mapping[str, TensorSource],
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> None:
    """Write one file, a tensor at a time: wide dtypes first, then by name, so equal content gives equal bytes.

    Raises:
        CheckpointError: the format does not have a dtype.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"safetensors has no dtype for tensor `{name}`. Received: {tensor.dtype}.")
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the values start aligned
    with path.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            write_values(file, tensors[name], progress)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The entries of a header that the package has checked, and where the values start."""
    with open_regular(path, CheckpointError) as file:
        length = int.from_bytes(file.read(8), "little")
        if MAX_HEADER < length <= path.stat().st_size:
            raise CheckpointError(f"{path}: the header must have at most {MAX_HEADER} bytes. Received: {length}.")
        try:
            with safe_open(path, framework="np"):
                pass
            header = strict_json.loads(file.read(length))
        except (SafetensorError, ValueError) as problem:
            raise CheckpointError(f"{path} is truncated, damaged or not a safetensors file: {problem}.") from None
    header.pop("__metadata__", None)
    return header, 8 + length


# ---------------------------------------------------------------------- the format


def _write(
    path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = silent
) -> None:
    write(path, tensors, {"format": "pt"}, progress)  # the metadata that transformers expects


def stored_name(parameter: Parameter, head: str) -> tuple[str, bool]:
    """PyTorch's own name and orientation."""
    return file_name(parameter.name, head), False


FORMAT = Format(
    name="safetensors",
    files=("model.safetensors", "model-*-of-*.safetensors"),
    pattern=r".*\.safetensors",
    read=read,
    dtypes=tuple(dtype.name for dtype in _NAMES),
    checksums="none in this format: a changed value cannot be detected",
    target="pt",
    write=_write,
    stored_name=stored_name,
)
