"""What the bridge's tests share: where the goldens lie, and the smallest checkpoints worth writing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rembert.bridge import TensorSource
from rembert.bridge.crc32c import crc32c, masked

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


def make_index(path: Path, entries: list[tuple[bytes, bytes]]) -> None:
    """A table with one block, every checksum right, from key-value pairs."""

    def block(pairs: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        body = b"".join(
            b"\0" + put_varint(len(key)) + put_varint(len(value)) + key + value for key, value in pairs
        ) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")  # fmt: skip
        return body, body + b"\0" + masked(crc32c(np.frombuffer(body + b"\0", np.uint8))).to_bytes(4, "little")

    body, first = block(entries)
    handle = put_varint(0) + put_varint(len(body))
    top, second = block([(b"\xff", handle)])
    empty, third = block([])
    positions = (len(first) + len(second), len(empty), len(first), len(top))
    footer = b"".join(map(put_varint, positions)).ljust(40, b"\0")
    path.write_bytes(first + second + third + footer + (0xDB4775248B80FB57).to_bytes(8, "little"))


def put_varint(value: int) -> bytes:
    """A number as protocol buffers and LevelDB write it."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
