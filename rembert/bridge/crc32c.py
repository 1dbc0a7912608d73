"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, fast enough for gigabytes.

A CRC is linear: that of a joined text follows from those of its parts. So a block is laid out in rows of words, numpy
advances all columns at once with two table look-ups a row, and neighbouring columns are then joined in pairs.
Everything works on the raw register (no initial value, no final inversion); `crc32c` adds both at the end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from rembert.bridge.streaming import THREADS

_POLYNOMIAL = 0x82F63B78  # reflected
_BLOCK = 16 * 2**20  # bytes that one thread takes at a time
_LANES = 2**16  # so many that a numpy call's own cost does not count


def crc32c(data: np.ndarray) -> int:
    """The CRC-32C of an array [n] of uint8."""
    blocks = [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)]
    register = 0
    if len(blocks) > 2:
        with ThreadPoolExecutor(THREADS) as pool:
            registers = list(pool.map(_register, blocks))
    else:
        registers = [_register(block) for block in blocks]
    for block, joined in zip(blocks, registers, strict=True):
        register = _append_zeros(register, len(block)) ^ joined
    return register ^ _append_zeros(0xFFFFFFFF, len(data)) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A CRC as TensorFlow's and LevelDB's files store it: rotated, plus a constant."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _register(data: np.ndarray) -> int:
    """The register after a block: in lanes as far as they divide it, then byte by byte."""
    register = 0
    lanes = _LANES
    while lanes > 16:
        length = len(data) // lanes // 4 * 4
        if length:
            here, data = data[: length * lanes], data[length * lanes :]
            register = _append_zeros(register, len(here)) ^ _in_lanes(here, lanes)
        lanes //= 8
    table = _byte_table()
    for byte in data.tobytes():
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _in_lanes(data: np.ndarray, lanes: int) -> int:
    """The register after words in rows of `lanes` (a power of two): each column is a lane of its own.

    Between two words of a lane lies the rest of a row, so a lane advances by as many zero bytes as a row has.
    """
    low, high = _word_tables(4 * lanes)
    registers, uppers = np.zeros(lanes, np.uint32), np.empty(lanes, np.uint32)
    lower, upper = np.empty(lanes, np.intp), np.empty(lanes, np.intp)
    for row in np.frombuffer(data, "<u4").reshape(-1, lanes):
        np.bitwise_and(registers, 0xFFFF, out=lower)
        np.right_shift(registers, 16, out=upper)
        np.take(low, lower, out=registers, mode="clip")  # "clip" spares the check; 16 bits are never out of range
        np.take(high, upper, out=uppers, mode="clip")
        registers ^= uppers
        registers ^= row
    length = 4
    while len(registers) > 1:
        registers = _apply(_zeros_operator(length), registers[0::2]) ^ registers[1::2]
        length *= 2
    return _append_zeros(int(registers[0]), 4)


def _append_zeros(register: int, count: int) -> int:
    return int(_apply(_zeros_operator(count), np.array([register], np.uint32))[0])


@cache
def _zeros_operator(count: int) -> np.ndarray:
    """What `count` zero bytes do to a register: tables [4, 256], one for each of its bytes."""
    if count == 0:
        return np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    if count == 1:
        identity = _zeros_operator(0)
        return np.array(_byte_table(), np.uint32)[identity & 0xFF] ^ (identity >> 8)
    half = _zeros_operator(count // 2)
    twice = _apply(half, half)
    return _apply(_zeros_operator(1), twice) if count % 2 else twice


def _apply(operator: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """A linear operator on every register: the sum of what it does to each of the four bytes."""
    return (
        operator[0][registers & 0xFF]
        ^ operator[1][(registers >> 8) & 0xFF]
        ^ operator[2][(registers >> 16) & 0xFF]
        ^ operator[3][registers >> 24]
    )


@cache
def _byte_table() -> list[int]:
    """The register after each byte."""
    table = list(range(256))
    for _ in range(8):
        table = [(value >> 1) ^ (_POLYNOMIAL if value & 1 else 0) for value in table]
    return table


@cache
def _word_tables(count: int) -> tuple[np.ndarray, np.ndarray]:
    """What `count` zero bytes do to a register, by its lower and by its upper half."""
    values = np.arange(2**16, dtype=np.uint32)
    operator = _zeros_operator(count)
    return _apply(operator, values), _apply(operator, values << 16)
