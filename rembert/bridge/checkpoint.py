"""Find a checkpoint's files, whatever their format, and show its tensors under PyTorch's names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from rembert.bridge.formats import h5, safetensors
from rembert.bridge.index import read_index
from rembert.bridge.tensors import TensorInfo, TensorSource
from rembert.common.config import CONFIG_NAME, GOOGLE_CONFIG_NAMES, RemBertConfig
from rembert.common.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Format:
    """One checkpoint format: how its files are called and how one of them is read.

    `file` is its name in a checkpoint directory (its index is `file` + `.index.json`), `pattern` what a file of it
    given by its path is called. `index_name` gives the name `read` uses for a tensor as an index spells it.
    """

    name: str
    file: str
    pattern: str
    read: Callable[[Path], dict[str, TensorSource]]
    index_name: Callable[[str], str] = str


# In the order in which a directory that holds several is read.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("safetensors", "model.safetensors", r".*\.safetensors", safetensors.read),
        Format("h5", "tf_model.h5", r".*\.(h5|hdf5)", h5.read, h5.tensor_name),
    )
}


class Checkpoint:
    """The tensors of a checkpoint, single file or shards. A context manager; made by `open_checkpoint`.

    Attributes:
        path: the directory or file that was asked for.
        format: the format's short name, a key of `FORMATS`.
        files: the files that hold the values.
        config: the configuration beside them, or None where there is none.
        tensors: shape (in PyTorch's orientation) and dtype of every tensor, in the files' order. Names are the
            files' own for safetensors and pickles, canonical ones for the TensorFlow formats.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        files: list[Path],
        config: RemBertConfig | None,
        tensors: Mapping[str, TensorSource],
    ) -> None:
        self.path = path
        self.format = format
        self.files = files
        self.config = config
        self._sources = dict(tensors)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._sources

    @property
    def directory(self) -> Path:
        """Where config and tokenizer files lie."""
        return self.path if self.path.is_dir() else self.path.parent

    def source(self, name: str) -> TensorSource:
        """One tensor as a source, for a writer.

        Raises:
            CheckpointError: there is no such tensor, or the checkpoint was closed.
        """
        try:
            return self._sources[name]
        except KeyError:
            raise CheckpointError(
                f"{self.path} has no tensor `{name}`, or was closed. It holds {len(self._sources)} tensors."
            ) from None

    def read(self, name: str) -> np.ndarray:
        """The values of one tensor, in PyTorch's orientation.

        The array can be written to. Wherever the format allows it is a view on a private memory map (transposed, for
        a kernel of a TensorFlow format): nothing is copied, and the file never changes.

        Raises:
            CheckpointError: there is no such tensor, the checkpoint was closed, or its values are damaged.
        """
        return self.source(name).read()

    def close(self) -> None:
        """Let go of the files. Arrays that were read stay valid."""
        self._sources.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(path: str | os.PathLike[str], *, format: str | None = None) -> Checkpoint:
    """Open a checkpoint: a directory, a file of values, or the index of a sharded one.

    Only structure is read here; values are read as they are asked for.

    Args:
        path: what to open. A directory with several formats is read in the order of `FORMATS`.
        format: a key of `FORMATS`, to read that one and no other.

    Raises:
        InputError: `format` is unknown.
        CheckpointError: nothing is found, or what is found is damaged; names file, tensor and reason.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise InputError(f"`format` must be one of {', '.join(FORMATS)}. Received: `format={format!r}`.")
    found, main = _find(path, format)
    if main.name.endswith(".index.json"):
        shards = read_index(main)
        tensors: dict[str, TensorSource] = {}
        for shard, names in shards.items():
            _add_shard(tensors, main, shard, {found.index_name(name) for name in names}, found.read(shard))
        files = list(shards)
    else:
        tensors, files = found.read(main), [main]
    return Checkpoint(path, found.name, files, read_config(path if path.is_dir() else path.parent), tensors)


def read_config(directory: Path) -> RemBertConfig | None:
    """The configuration in a checkpoint's directory; None where there is none.

    Raises:
        ConfigError: it is there and cannot be used.
    """
    if any((directory / name).is_file() for name in (CONFIG_NAME, *GOOGLE_CONFIG_NAMES)):
        return RemBertConfig.from_pretrained(directory)
    return None


def _find(path: Path, format: str | None) -> tuple[Format, Path]:
    """The format and the main file (values, or an index) of what `path` names."""
    wanted = [FORMATS[format]] if format else list(FORMATS.values())
    if path.is_dir():
        for candidate in wanted:
            for name in (candidate.file, f"{candidate.file}.index.json"):
                if (path / name).is_file():
                    return candidate, path / name
        raise CheckpointError(
            f"{path} holds no checkpoint{f' of format {format}' if format else ''}. Looked for: "
            f"{', '.join(candidate.file for candidate in wanted)}, and their indexes."
        )
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: neither a directory nor a file.")
    for candidate in wanted:
        if re.fullmatch(candidate.pattern, path.name.removesuffix(".index.json")):
            return candidate, path
    raise CheckpointError(
        f"{path} is of no format that is known by its name. Known: {', '.join(FORMATS)}; `format` says which it is."
    )


def _add_shard(
    tensors: dict[str, TensorSource], index: Path, shard: Path, listed: set[str], found: Mapping[str, TensorSource]
) -> None:
    """Add one shard's tensors, refusing what the index and the shards do not agree on."""
    for name in listed - found.keys():
        raise CheckpointError(f"{shard}: the shard lacks tensor `{name}`, which {index.name} places there.")
    for name, source in found.items():
        if name not in listed:
            raise CheckpointError(f"{shard}: {index.name} does not place tensor `{name}` in this shard.")
        tensors[name] = source
