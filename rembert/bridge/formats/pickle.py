"""PyTorch pickle: `pytorch_model.bin`, a ZIP archive of one pickle and the raw storages it refers to.

Read by torch alone, with `weights_only=True`, so that nothing in the file is executed, and mapped, so that nothing is
copied. The archive is checked before torch sees it, and its members' checksums before the first value is read.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.blocks import Progress, silent, write_values
from rembert.bridge.tensors import BFLOAT16, Contents, TensorSource, map_descriptor, map_file, view
from rembert.common.errors import CheckpointError, MissingDependencyError

MAX_PICKLE = 64 * 2**20  # bytes of the pickle itself, which holds names, shapes and offsets, no values
MAX_MEMBERS = 200_000


def read(path: Path) -> Contents:
    """The tensors of one file, by the names that stand in it, in the file's order.

    Raises:
        MissingDependencyError: torch is not installed.
        CheckpointError: the archive is damaged, or holds anything but tensors by name.
    """
    torch = _torch("Reading a PyTorch pickle")
    check = _checked_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as problem:  # torch raises whatever its unpickler met
        raise CheckpointError(
            f"{path}: this is no pickle of tensors alone, and nothing else in one is executed: {_reason(problem)}"
        ) from problem
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: the pickle must hold tensors by name. Received: {type(content).__name__}.")
    return Contents({name: _source(path, torch, name, value, check) for name, value in content.items()})


def write(path: Path, tensors: Mapping[str, TensorSource], progress: Progress = silent) -> None:
    """Write one file through `torch.save`.

    Tensors that are not a plain view of their file (transposed, converted) are laid out in a scratch file beside
    `path` first, because torch wants all values at once and the memory may be smaller than the checkpoint.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _torch("Writing a PyTorch pickle")
    with tempfile.TemporaryFile(dir=path.parent, buffering=0) as scratch:
        places: dict[str, int] = {}
        plain: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            values = tensor.read()
            if values.dtype == tensor.dtype and values.flags.c_contiguous:
                plain[name] = values
            else:
                scratch.seek(-scratch.tell() % 64, 1)
                places[name] = scratch.tell()
                write_values(scratch, tensor)
        mapped = map_descriptor(scratch.fileno())
        content = {}
        for name, tensor in tensors.items():
            values = plain[name] if name in plain else view(mapped, places[name], tensor.shape, tensor.dtype)
            content[name] = _as_torch(torch, values)
        # torch names the archive's folder after the file; given an open file instead, the bytes are always the same.
        with path.open("wb") as file:
            torch.save(content, file)
    progress(sum(tensor.nbytes for tensor in tensors.values()))


def _torch(needed_for: str) -> Any:
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", needed_for=needed_for, extra="pt") from None
    return torch


def _reason(problem: Exception) -> str:
    """What torch found, without its advice to load the file unsafely."""
    text = str(problem)
    named = re.search(r"GLOBAL (\S+)", text)
    if named:
        return f"it refers to `{named[1]:.100}`."
    return "it is damaged." if "weights_only" in text or not text else text.split("\n")[0][:200]


def _as_torch(torch: Any, values: np.ndarray) -> Any:
    if values.dtype == BFLOAT16:
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _source(path: Path, torch: Any, name: Any, value: Any, check: Any) -> TensorSource:
    """One entry of the pickle as a source; `check` verifies the archive's checksums, once."""
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise CheckpointError(
            f"{path}: the pickle must hold tensors by name and nothing else. Received: {type(value).__name__} under "
            f"{name!r:.100}."
        )
    tensor = value.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{path}: tensor `{name:.200}` must hold plain values. Received: {tensor.layout}.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor `{name:.200}` claims more values than the file holds for it.")
    try:
        bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        values = bits.numpy() if bits is tensor else bits.numpy().view(BFLOAT16)
    except (TypeError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: tensor `{name:.200}` of {tensor.dtype} cannot be used: {problem}") from None

    def values_checked() -> np.ndarray:
        check()
        return values

    return TensorSource(tuple(tensor.shape), values.dtype, values_checked)


# ---------------------------------------------------------------------- the archive


def _checked_archive(path: Path) -> Any:
    """Check the archive's structure; returns a function that verifies its checksums at the first call."""

    def refuse(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: {reason}")

    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            starts = {member.filename: _data_start(archive, member) for member in members}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as problem:
        raise refuse(
            f"this is no ZIP archive as torch has written since version 1.6 ({problem}). An older file can be loaded "
            "and saved once with torch itself."
        ) from None
    if len(members) > MAX_MEMBERS or len({member.filename for member in members}) != len(members):
        raise refuse(f"the archive has a member twice, or more than {MAX_MEMBERS}.")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise refuse(f"member `{member.filename}` is compressed or encrypted, which torch does not write.")
        if member.file_size != member.compress_size or starts[member.filename] + member.file_size > size:
            raise refuse(f"member `{member.filename}` claims {member.file_size} bytes, more than the file holds.")
        if member.filename.endswith("/data.pkl") and member.file_size > MAX_PICKLE:
            raise refuse(f"the pickle must have at most {MAX_PICKLE} bytes. Received: {member.file_size}.")
    if sum(member.filename.endswith("/data.pkl") for member in members) != 1:
        raise refuse("the archive must hold one pickle (`data.pkl`).")
    pending = list(members)

    def verify() -> None:
        mapped = map_file(path) if pending else None
        while pending and mapped is not None:
            member = pending[-1]
            start = starts[member.filename]
            if zlib.crc32(mapped[start : start + member.file_size].data) != member.CRC:
                raise refuse(f"member `{member.filename}` does not match its checksum. The file is damaged.")
            pending.pop()

    return verify


def _data_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes start: behind its own header, whose length the directory does not tell."""
    file = archive.fp
    assert file is not None
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"member `{member.filename}` has no header")
    return (
        member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    )
