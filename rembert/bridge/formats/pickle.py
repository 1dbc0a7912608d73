"""PyTorch pickle: `pytorch_model.bin`, a ZIP archive of one pickle and the raw storages it refers to.

Only torch reads the pickle, with `weights_only=True`, so that nothing in the file is executed; the storages are
mapped, so that nothing is copied. The archive is checked before torch reads it, and its members' checksums before the
first value is read.
"""

from __future__ import annotations

import io
import pickle
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rembert.bridge.archive import Archive
from rembert.bridge.format import Format
from rembert.bridge.formats.safetensors import stored_name
from rembert.bridge.streaming import Progress, silent, write_values
from rembert.bridge.tensors import BFLOAT16, Contents, TensorSource, map_descriptor, view
from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

# Bytes of one element, by the names that torch gives to typed storages.
_ITEM_SIZES = {
    **dict.fromkeys(("ComplexDoubleStorage",), 16),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage", "QInt8Storage", "QUInt8Storage"), 1),
    **dict.fromkeys(("UntypedStorage", "QUInt4x2Storage", "QUInt2x4Storage"), 1),
}
MAX_PICKLE = 64 * 2**20  # bytes of the pickle itself, which holds names, shapes and offsets, no values


def read(path: Path) -> Contents:
    """The tensors of one file, by their names in it, in the file's order.

    Raises:
        MissingDependencyError: torch is not installed.
        CheckpointError: the archive is damaged, or holds anything but tensors by name.
    """
    require_packages("torch", needed_for="Reading a PyTorch pickle")
    import torch

    archive, root = _archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as problem:  # torch raises any error of its unpickler
        raise CheckpointError(
            f"{path}: this is not a pickle of tensors only, and nothing else in one is executed: {_reason(problem)}"
        ) from problem
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: the pickle must hold tensors by name. Received: {type(content).__name__}.")
    _check_storages(archive, root)
    return Contents({name: _source(path, torch, name, value, archive) for name, value in content.items()})


def write(
    path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = silent
) -> None:
    """Write one file through `torch.save`.

    Tensors that are not a plain view of their file (transposed, converted) are first written to a temporary file
    beside `path`, because torch needs all values at once and the memory may be smaller than the checkpoint.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    require_packages("torch", needed_for="Writing a PyTorch pickle")
    import torch

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
        # torch names the archive's folder after the file; with an open file, the bytes are always the same.
        with path.open("wb") as file:
            torch.save(content, file)
    progress(sum(tensor.nbytes for tensor in tensors.values()))


def _archive(path: Path) -> tuple[Archive, str]:
    """The archive, in torch's format since version 1.6, and the name of its folder."""
    with open_regular(path, CheckpointError) as file:
        is_archive = file.read(4) == b"PK\x03\x04"
    if not is_archive:
        raise CheckpointError(
            f"{path}: this is not a ZIP archive as torch has written since version 1.6. An older file "
            "can be loaded and saved once with torch itself."
        )
    archive = Archive(path)
    pickles = {name: member.size for name, member in archive.members.items() if name.endswith("/data.pkl")}
    if len(pickles) != 1 or max(pickles.values()) > MAX_PICKLE:
        raise CheckpointError(
            f"{path}: the archive must hold one pickle of at most {MAX_PICKLE} bytes. Received: pickles of "
            f"{list(pickles.values())} bytes."
        )
    return archive, next(iter(pickles)).removesuffix("data.pkl")


def _check_storages(archive: Archive, root: str) -> None:
    """Refuse a storage whose size in the pickle is not that of its member in the archive.

    torch does not compare the two when it maps a file: a storage that is longer than its member would continue into
    the next member's header, and those bytes would become weights.
    """
    claims = _StorageClaims(io.BytesIO(archive.read(f"{root}data.pkl", MAX_PICKLE)))
    try:
        claims.load()
    except Exception as problem:  # torch accepts some pickles that Python's own reader does not
        raise CheckpointError(f"{archive.path}: its pickle is damaged: {problem}") from None
    for key, claimed in claims.sizes.items():
        member = archive.members.get(f"{root}data/{key}")
        held = "no member" if member is None else f"{member.size} bytes"
        if member is None or member.size != claimed:
            raise CheckpointError(
                f"{archive.path}: storage `{key:.100}` must take {claimed} bytes. Received: {held}. The file is "
                "damaged."
            )


class _Inert:
    """Replaces every object of a pickle but its storages. It does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# The implementation in Python: the one in C allocates memory for any object number in a damaged file.
class _StorageClaims(pickle._Unpickler):
    """What a pickle that torch has accepted says of its storages: bytes by key. Nothing in the pickle is executed."""

    # torch writes and accepts no byte arrays; Python would allocate as many bytes as a damaged one claims.
    dispatch: ClassVar = {
        code: read for code, read in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        return type(global_name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        _, storage, key, _, count = pid
        self.sizes[key] = count * _ITEM_SIZES[storage.__name__]
        return _Inert()


def _reason(problem: Exception) -> str:
    """torch's error, without its advice to load the file unsafely."""
    text = str(problem)
    named = re.search(r"GLOBAL (\S+)", text)
    if named:
        return f"it refers to `{named[1]:.100}`."
    return "it is damaged." if "weights_only" in text or not text else text.split("\n")[0][:200]


def _as_torch(torch: Any, values: np.ndarray) -> Any:
    if values.dtype == BFLOAT16:
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _source(path: Path, torch: Any, name: Any, value: Any, archive: Archive) -> TensorSource:
    """One entry of the pickle as a source."""
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
        archive.verify()
        return values

    return TensorSource(tuple(tensor.shape), values.dtype, values_checked)


FORMAT = Format(
    name="pickle",
    files=("pytorch_model.bin", "pytorch_model-*-of-*.bin"),
    pattern=r".*\.(bin|pt|pth)",
    read=read,
    dtypes=(
        *("float64", "float32", "float16", "bfloat16"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    ),
    checksums="ZIP members, compared when values are read",
    packages=("torch",),
    target="torch-bin",
    write=write,
    stored_name=stored_name,
)
