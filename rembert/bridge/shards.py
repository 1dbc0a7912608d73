"""The index of a sharded checkpoint: a JSON file with the shard of each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rembert.bridge.tensors import TensorInfo
from rembert.common import strict_json
from rembert.common.arguments import Constraint, check_argument, integer
from rembert.common.errors import CheckpointError
from rembert.common.files import MAX_JSON, open_regular

MAX_NAME = 255  # bytes; file systems allow no more
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def read_index(path: Path) -> dict[Path, list[str]]:
    """The shards that an index names, with their tensors, in the index's order.

    Raises:
        CheckpointError: the file is not an index, a shard is missing, or one is outside the index's directory.
    """
    weight_map = _weight_map(path)
    shards: dict[Path, list[str]] = {}
    for tensor, name in weight_map.items():
        if not is_file_name(name):
            raise CheckpointError(f"{path}: a shard must be a file beside the index. Received: {name!r:.200}.")
        shards.setdefault(path.parent / name, []).append(tensor)
    for shard in shards:
        if shard.is_symlink() and not _linked_like(shard, path):
            raise CheckpointError(f"{path}: shard `{shard.name}` is a link that leads out of its directory.")
        if not shard.is_file():
            raise CheckpointError(f"{path}: shard `{shard.name}` is missing.")
    return shards


def _weight_map(path: Path) -> dict[str, str]:
    try:
        with open_regular(path, CheckpointError, limit=MAX_JSON) as file:
            content = strict_json.loads(file.read())
    except CheckpointError:
        raise
    except ValueError as problem:
        raise CheckpointError(f"{path} is not JSON: {problem}") from None
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{path}: `weight_map` must map tensor names to files. Received: {weight_map!r:.80}.")
    return weight_map


def is_file_name(name: str) -> bool:
    """Whether a name is valid for a file beside the index."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return name not in (".", "..") and 0 < length <= MAX_NAME and not any(part in name for part in "/\\:\0")


def _linked_like(shard: Path, index: Path) -> bool:
    """Whether a link belongs to a download cache, in which index and shards are links into one folder of blobs."""
    return index.is_symlink() and shard.resolve().parent == index.resolve().parent


# ---------------------------------------------------------------------- writing shards


def parse_size(size: int | str | None) -> int | None:
    """A number of bytes from `2_000_000_000`, "2GB", "500MB" or "1.5GiB"; None means no limit.

    Raises:
        InputError: the size is invalid.
    """
    if size is None:
        return None
    check_argument("max_shard_size", size, _SIZE)
    return int(_bytes(size))


def _bytes(size: Any) -> float:
    """A size in bytes; 0 if it is invalid."""
    if isinstance(size, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*", size.upper())):
        return float(match[1]) * _UNITS[match[2] or ""]
    return size if integer().accepts(size) else 0


_SIZE = Constraint("a number of bytes, or text such as 2GB or 500MB", lambda size: _bytes(size) >= 1)


def plan_shards(file: str, tensors: Mapping[str, TensorInfo], limit: int | None) -> dict[str, list[str]]:
    """The tensors of each file, in order: `file` alone, or `model-00001-of-00002.safetensors` and so on.

    A tensor larger than `limit` bytes gets a shard of its own.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and limit is not None and filled + tensor.nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    if len(shards) == 1:
        return {file: shards[0]}
    stem, suffix = file.rsplit(".", 1)
    return {f"{stem}-{n:05d}-of-{len(shards):05d}.{suffix}": names for n, names in enumerate(shards, 1)}


def index_content(shards: Mapping[str, list[str]], total: int) -> dict[str, Any]:
    """An index as transformers writes it; `total` is the bytes of all values."""
    weight_map = {name: file for file, names in shards.items() for name in names}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def is_shard(name: str, file: str) -> bool:
    """Whether `name` is the name of a shard of `file`."""
    stem, suffix = file.rsplit(".", 1)
    return re.fullmatch(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{re.escape(suffix)}", name) is not None
