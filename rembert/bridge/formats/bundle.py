"""TensorFlow's tensor bundle, read without TensorFlow: an index of offsets (`NAME.index`) beside raw data
(`NAME.data-00000-of-00001`). TF1 checkpoints and a SavedModel's variables are bundles.

The index is a sorted table in LevelDB's file layout: blocks of key-value pairs, an index block that lists them, a
footer that finds it. Values are protocol buffers: one header under the empty key, then one entry per variable with
dtype, shape, position and CRC-32C. Every checksum is verified: the index's when it is opened, a variable's when read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.crc32c import crc32c, masked
from rembert.bridge.tensors import BFLOAT16, TensorSource, check_layout, map_file, view
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

MAX_INDEX = 64 * 2**20  # bytes; the released model's has about 100 KB
MAX_DIMENSIONS = 8
MAX_SHARDS = 10_000

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
# The numeric dtypes of the enum DataType.
_DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: BFLOAT16,
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
DTYPES = tuple(dtype.name for dtype in _DTYPES.values())


def read_bundle(index: Path) -> dict[str, TensorSource | None]:
    """Every variable of a bundle by its name; None for one that is not numeric (text, resources).

    Args:
        index: the path of the `.index` file.

    Raises:
        CheckpointError: the index or a data file is damaged or missing; names the file, the variable, the reason.
    """
    try:
        entries = dict(_table(index))
    except _Damage as problem:
        raise CheckpointError(f"{index}: this is not a readable index of a tensor bundle: {problem}") from None
    data = _data_files(index, entries.pop(b"", b""))
    variables: dict[str, TensorSource | None] = {}
    spans: dict[Path, dict[str, tuple[int, int]]] = {path: {} for path in data}
    maps = {path: map_file(path) for path in data}
    for key, value in entries.items():
        name = key.decode("utf-8", "replace")
        try:
            entry = _entry(value)
            if not 0 <= entry.shard < len(data):
                raise _Damage(f"it lies in data file {entry.shard} of {len(data)}")
        except _Damage as problem:
            raise CheckpointError(f"{index}: variable `{name:.200}`: {problem}") from None
        path = data[entry.shard]
        spans[path][name] = (entry.offset, entry.offset + entry.size)
        dtype = _DTYPES.get(entry.dtype)
        if dtype is None:
            variables[name] = None
            continue
        if math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise CheckpointError(
                f"{index}: variable `{name:.200}`: shape {list(entry.shape)} of {dtype} takes "
                f"{math.prod(entry.shape) * dtype.itemsize} bytes, while the index says {entry.size}."
            )
        read = partial(_read, path, name, maps[path], entry, dtype)
        variables[name] = TensorSource(entry.shape, dtype, read)
    for path, inside in spans.items():
        check_layout(path, inside, 0, len(maps[path]))
    return variables


class _Damage(ValueError):
    """An error in the bytes; the caller adds the name of their file."""


class _Entry:
    """One variable's entry in the index."""

    def __init__(self) -> None:
        self.dtype = self.shard = self.offset = self.size = self.crc = 0
        self.shape: tuple[int, ...] = ()


def _read(path: Path, name: str, mapped: np.ndarray, entry: _Entry, dtype: np.dtype) -> np.ndarray:
    if masked(crc32c(mapped[entry.offset : entry.offset + entry.size])) != entry.crc:
        raise CheckpointError(f"{path}: variable `{name}` does not match its checksum. The file is damaged.")
    return view(mapped, entry.offset, entry.shape, dtype)


def _data_files(index: Path, header: bytes) -> list[Path]:
    """The data files of a bundle, from its header."""
    try:
        fields = dict(_fields(header))
    except _Damage as problem:
        raise CheckpointError(f"{index}: the header of the bundle is damaged: {problem}") from None
    count = fields.get(1, 0)
    if not isinstance(count, int) or not 1 <= count <= MAX_SHARDS or fields.get(2, 0) != 0:
        raise CheckpointError(
            f"{index}: the bundle must be little-endian and have 1 to {MAX_SHARDS} data files. "
            f"Received: {count!r:.80} data files and endianness {fields.get(2, 0)!r:.80}."
        )
    stem = index.name.removesuffix(".index")
    data = [index.with_name(f"{stem}.data-{number:05d}-of-{count:05d}") for number in range(count)]
    for path in data:
        if not path.is_file():
            raise CheckpointError(f"{index}: its data file {path.name} is missing.")
    return data


# ---------------------------------------------------------------------- the sorted table


def _table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The key-value pairs of a table file."""
    size = path.stat().st_size
    if not _FOOTER <= size <= MAX_INDEX:
        raise _Damage(f"it must have {_FOOTER} to {MAX_INDEX} bytes, and has {size}")
    with open_regular(path, CheckpointError) as file:
        content = file.read()
    footer = content[-_FOOTER:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise _Damage("its last bytes are not those of a table")
    position = 0
    handles = []
    for _ in range(4):  # offset and size of the metaindex block, then of the index block
        number, position = _varint(footer, position)
        handles.append(number)
    if footer[position:-8].strip(b"\0"):
        raise _Damage("its footer holds more than it should")
    for _ in _block(content, handles[0], handles[1]):  # the metaindex: empty, but its checksum is checked
        raise _Damage("it has a metaindex, which TensorFlow does not write")
    previous, read = None, 0
    for _, handle in _block(content, handles[2], handles[3]):
        offset, position = _varint(handle, 0)
        length, _ = _varint(handle, position)
        read += length
        if read > size:
            raise _Damage("a block is listed twice")
        for key, value in _block(content, offset, length):
            if previous is not None and key <= previous:
                raise _Damage(f"variable `{key.decode('utf-8', 'replace'):.200}` is out of order or occurs twice")
            previous = key
            yield key, value


def _block(content: bytes, offset: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of one block. A key says how many bytes it shares with the one before it."""
    if offset + length + 5 > len(content) - _FOOTER:
        raise _Damage(f"a block of {length} bytes at {offset} does not fit the file")
    block, kind = content[offset : offset + length], content[offset + length]
    stored = int.from_bytes(content[offset + length + 1 : offset + length + 5], "little")
    if masked(crc32c(np.frombuffer(content, np.uint8, length + 1, offset))) != stored:
        raise _Damage(f"the block at {offset} does not match its checksum")
    if kind != 0:
        raise _Damage(f"the block at {offset} is compressed (type {kind}), which TensorFlow does not write")
    if length < 4:
        raise _Damage(f"the block at {offset} has no end")
    end = length - 4 - 4 * int.from_bytes(block[-4:], "little")  # restart points, which a full scan does not need
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        size, position = _varint(block, position)
        if shared > len(key) or position + fresh + size > end:
            raise _Damage(f"a key or value in the block at {offset} does not fit it")
        key = key[:shared] + block[position : position + fresh]
        yield key, block[position + fresh : position + fresh + size]
        position += fresh + size
    if position != max(end, 0) or end < 0:
        raise _Damage(f"the block at {offset} has no proper end")


# ---------------------------------------------------------------------- protocol buffers


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of at most 64 bits, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _Damage("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position
    raise _Damage("a number has more than 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: a number for a varint or fixed-size field, bytes for anything with a length."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _Damage(f"a field has the unknown wire type {kind}")
        if position + length > len(message):
            raise _Damage("a field is cut off")
        content = message[position : position + length]
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")
        position += length


def _entry(message: bytes) -> _Entry:
    """A variable's entry: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6, slices 7."""
    entry = _Entry()
    names = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc"}
    for number, value in _fields(message):
        if number == 7:
            raise _Damage("it is saved in slices, which are not supported. Save it whole")
        if number == 2:
            if not isinstance(value, bytes):
                raise _Damage("its shape is not a message")
            entry.shape = _shape(value)
        elif number in names:
            if not isinstance(value, int) or value >= 2**63:
                raise _Damage(f"its {names[number]} is not a number of 0 or more")
            setattr(entry, names[number], value)
    return entry


def _shape(message: bytes) -> tuple[int, ...]:
    """A shape: every dimension (2) a message with its size (1); a size of 0 is left out."""
    shape = []
    for number, value in _fields(message):
        if number == 2:
            size = dict(_fields(value)).get(1, 0) if isinstance(value, bytes) else -1
            if not isinstance(size, int) or not 0 <= size < 2**63:
                raise _Damage("its shape has a size that is not a number of 0 or more")
            shape.append(size)
        elif number == 3 and value:
            raise _Damage("its shape is unknown")
    if len(shape) > MAX_DIMENSIONS:
        raise _Damage(f"its shape must have at most {MAX_DIMENSIONS} dimensions, and has {len(shape)}")
    return tuple(shape)
