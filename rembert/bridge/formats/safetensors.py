"""safetensors: a JSON header of names, dtypes, shapes and offsets, then the values. The library's home format.

Refused before anything is read: a header longer than `MAX_HEADER` or the file, one that is not the JSON object the
format describes, a name twice, an unknown dtype, a shape that disagrees with its offsets, tensors that overlap, leave
holes, or reach beyond the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from rembert.bridge import strict_json
from rembert.bridge.format import Format
from rembert.bridge.streaming import Progress, silent, write_values
from rembert.bridge.tensors import BFLOAT16, Contents, TensorSource, check_layout, map_file, view
from rembert.common.errors import CheckpointError
from rembert.common.parameters import Parameter, file_name

# Room for 100,000 tensors, a hundred times what a large RemBERT has; a hostile header cannot fill the memory.
MAX_HEADER = 16 * 2**20
MAX_DIMENSIONS = 8

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


class Header(NamedTuple):
    """A checked header: the tensors' entries, the free text beside them, and where the values start and end."""

    entries: dict[str, Any]
    metadata: dict[str, str]
    start: int
    end: int


def read(path: Path) -> Contents:
    """The tensors of one file, by the names that stand in it, in the file's order.

    Raises:
        CheckpointError: the file is damaged; names the file, the tensor and the reason.
    """
    header = read_header(path)
    tensors: dict[str, TensorSource] = {}
    spans: dict[str, tuple[int, int]] = {}
    mapped = map_file(path)
    for name, entry in header.entries.items():
        shape, dtype, (first, last) = _entry(path, name, entry)
        spans[name] = (header.start + first, header.start + last)
        tensors[name] = TensorSource(shape, dtype, partial(view, mapped, header.start + first, shape, dtype))
    check_layout(path, spans, header.start, header.end)
    if sum(last - first for first, last in spans.values()) != header.end - header.start:
        raise CheckpointError(f"{path}: the file holds bytes that belong to no tensor. It is damaged.")
    return Contents(tensors)


def write(
    path: Path,
    tensors: Mapping[str, TensorSource],
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> None:
    """Write one file, a tensor at a time: wide dtypes first, then by name, so equal content gives equal bytes.

    Raises:
        CheckpointError: a dtype that the format has no name for.
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


# ---------------------------------------------------------------------- the header


def read_header(path: Path) -> Header:
    """Read and check a file's header, entries apart.

    Raises:
        CheckpointError: the file is too short, or its header is not what the format describes.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise CheckpointError(f"{path}: a safetensors file starts with 8 bytes of header length; it has {size}.")
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise CheckpointError(
                f"{path}: the header claims {length} bytes, the file holds {size - 8} after its start. The file is "
                "truncated or no safetensors file."
            )
        if length > MAX_HEADER:
            raise CheckpointError(f"{path}: the header must have at most {MAX_HEADER} bytes. Received: {length}.")
        text = file.read(length)
    try:
        header = strict_json.loads(text)
    except ValueError as problem:
        raise CheckpointError(f"{path}: the header is not JSON: {problem}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object. Received: {type(header).__name__}.")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise CheckpointError(f"{path}: `__metadata__` must map text to text. Received: {notes!r:.80}.")
    return Header(header, notes, 8 + length, size)


def _entry(path: Path, name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, tuple[int, int]]:
    """Shape, dtype and offsets of one tensor."""

    def refuse(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: tensor `{name:.200}`: {reason}")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse(f"its entry must have dtype, shape and data_offsets. Received: {entry!r:.80}.")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise refuse(f"`dtype` must be one of {', '.join(_DTYPES)}. Received: {entry['dtype']!r:.80}.")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"`shape` must be a list of at most {MAX_DIMENSIONS} sizes. Received: {shape!r:.80}.")
    if not _counts(offsets) or len(offsets) != 2:
        raise refuse(f"`data_offsets` must be two offsets. Received: {offsets!r:.80}.")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise refuse(
            f"shape {shape!r:.80} of {entry['dtype']} takes {math.prod(shape) * dtype.itemsize} bytes, while "
            f"`data_offsets` {offsets!r:.80} hold {offsets[1] - offsets[0]}."
        )
    return tuple(shape), dtype, (offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    """Whether `values` is a list of integers in [0, 2**63)."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


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
