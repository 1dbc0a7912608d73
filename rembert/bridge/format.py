"""The declaration of a checkpoint format, which commands, readers and writers use instead of comparing names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rembert.bridge.streaming import Progress
from rembert.bridge.tensors import Contents, TensorSource
from rembert.common.files import first_named
from rembert.common.parameters import Parameter


class Write(Protocol):
    """Writes one file of values."""

    def __call__(
        self, path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = ...
    ) -> None:
        """Write `tensors`, which have their stored names and orientation.

        Args:
            path: the file.
            tensors: what to write, in the order of the parameter table.
            shard: whether the file is one of several.
            progress: called with the number of bytes just written.
        """


@dataclass(frozen=True)
class Format:
    """One checkpoint format.

    Attributes:
        name: its key in `FORMATS`, for commands and messages.
        files: patterns of the files that hold the values, relative to the checkpoint's directory. The first is the
            name of a single file.
        pattern: a regular expression for the name of any file of values.
        read: reads one file of values.
        dtypes: names of the dtypes that a file can hold.
        checksums: how a changed value is detected, in words.
        framework: the framework that the format belongs to, "pt" or "tf"; both load every format.
        locate: finds the file of values in a directory; by default the first of `files`, or the index of its shards.
        from_index: the name that `read` gives a tensor, from its name in an index of shards.
        packages: optional packages that reading and writing need.
        target: the format's name in `convert --to`; None for a format that is only read.
        write: writes one file of values.
        stored_name: the name that a file gives to a parameter of a model with this head, and whether it stores the
            matrix transposed. Required with `write`.
        can_shard: whether the values may be split into several files.
    """

    name: str
    files: tuple[str, ...]
    pattern: str
    read: Callable[[Path], Contents]
    dtypes: tuple[str, ...]
    checksums: str
    framework: str = "pt"
    locate: Callable[[Path], Path | None] | None = None
    from_index: Callable[[str], str] = str
    packages: tuple[str, ...] = ()
    target: str | None = None
    write: Write | None = None
    stored_name: Callable[[Parameter, str], tuple[str, bool]] | None = None
    can_shard: bool = True

    def find_in(self, directory: Path, variant: str | None = None) -> Path | None:
        """The file of values in a directory, or the index of shards, or None."""
        if self.locate is not None:
            return None if variant else self.locate(directory)
        names = (variant_name(self.files[0], variant), index_name(self.files[0], variant))
        return first_named(directory, names)


def variant_name(name: str, variant: str | None) -> str:
    """The name, or pattern, of a file of values in a variant of a checkpoint, as transformers forms it.

    Example:
        >>> variant_name("model.safetensors", "fp16"), variant_name("model-*-of-*.safetensors", "fp16")
        ('model.fp16.safetensors', 'model.fp16-*-of-*.safetensors')
    """
    return re.sub(r"^[^.-]+", rf"\g<0>.{variant}", name) if variant else name


def index_name(file: str, variant: str | None = None) -> str:
    """The name of the index of shards, from the name that a single file has.

    Example:
        >>> index_name("model.safetensors"), index_name("model.safetensors", "fp16")
        ('model.safetensors.index.json', 'model.safetensors.index.fp16.json')
    """
    return f"{file}.index.{variant}.json" if variant else f"{file}.index.json"


def without_index(name: str) -> str:
    """The name of a single file, from that of an index of shards; any other name unchanged."""
    return re.sub(r"\.index(\.\w+)?\.json$", "", name)
