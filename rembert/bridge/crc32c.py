"""CRC-32C (Castagnoli), the checksum of TensorFlow's files: by `google-crc32c` if it is installed, otherwise by NumPy.

The NumPy implementation uses that a CRC is linear: it splits a block into lanes, advances the registers of all lanes
together, byte by byte, and joins neighbouring lanes in pairs. It processes about 100 MB/s, the package 6 GB/s.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from rembert.common.dependencies import is_installed

_POLYNOMIAL = 0x82F63B78  # reflected
_BLOCK = 2**24  # bytes that are split into lanes at a time
_LANES = 2**15  # at most: their registers stay in the processor's cache
_SHORTEST_LANE = 16  # bytes; each byte of a lane costs calls of NumPy, however few lanes there are


def crc32c(data: np.ndarray) -> int:
    """The CRC-32C of an array [n] of uint8.

    Example:
        >>> import numpy as np
        >>> hex(crc32c(np.frombuffer(b"123456789", np.uint8)))
        '0xe3069283'
    """
    if is_installed("google_crc32c"):
        import google_crc32c

        return int(google_crc32c.value(data))
    register = 0xFFFFFFFF
    for start in range(0, len(data), _BLOCK):
        register = _extended(register, data[start : start + _BLOCK])
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A CRC as TensorFlow's and LevelDB's files store it: rotated, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _extended(register: int, data: np.ndarray) -> int:
    """The register after more data."""
    if len(data) < 4:
        return int(_advanced(np.array([register], np.uint32), data[:, None])[0])
    lanes = min(_LANES, 1 << max(0, (len(data) // _SHORTEST_LANE).bit_length() - 1))
    length = -(-len(data) // lanes)
    # Leading zeros leave an empty register empty, and a register acts as if it were added to the next four bytes.
    padded = np.zeros(lanes * length, np.uint8)
    padded[-len(data) :] = data
    padded[len(padded) - len(data) :][:4] ^= np.array([register], "<u4").view(np.uint8)
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    registers = _advanced(np.zeros(lanes, np.uint32), columns)
    # The effect of one lane's length of zeros on each bit of a register.
    operator = _advanced(_BITS, np.zeros((length, 1), np.uint8))
    while len(registers) > 1:
        registers = _applied(operator, registers[0::2]) ^ registers[1::2]
        operator = _applied(operator, operator)
    return int(registers[0])


def _advanced(registers: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Registers [lanes] after a column of bytes each, [n, lanes] (or [n, 1], the same for all)."""
    table = _byte_table()
    for column in columns:
        registers = np.take(table, (registers ^ column) & 0xFF) ^ (registers >> 8)
    return registers


def _applied(operator: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """A linear operator, given by its effect on each bit [32], applied to registers [n]."""
    bits = registers[:, None] & _BITS != 0
    joined: np.ndarray = np.bitwise_xor.reduce(np.where(bits, operator, 0), axis=1)
    return joined


_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


@cache
def _byte_table() -> np.ndarray:
    """The register after each byte [256]."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table
