"""Where examples come from: files, directories and patterns, or data in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rembert.common.errors import DataError, InputError
from rembert.common.text_files import STANDARD_INPUT, name_of
from rembert.tasks.data import DataOptions
from rembert.tasks.reading import BadLine, Location, Record, read_records
from rembert.tasks.reading.class_names import class_names, named_classes, names_beside
from rembert.tasks.reading.detection import is_data_name

Data = Any
"""A file, directory or pattern; or records in memory: an iterable of mappings, a pandas frame, a `Dataset`."""


@dataclass(frozen=True)
class Source:
    """A file of records, or records in memory.

    Attributes:
        name: for messages.
        data: a path, or an iterable of mappings.
    """

    name: str
    data: Any

    def records(self, options: DataOptions, unknown: str) -> Iterator[Record | BadLine]:
        """The records, with names in place of the integers of classes whose names are known.

        Args:
            options: how files are read.
            unknown: the format of a file that does not determine it.

        Raises:
            DataError: the file cannot be read, or an item of the data is no mapping.
        """
        if not isinstance(self.data, str | os.PathLike):
            yield from _rows(self.name, self.data)
            return
        names = names_beside(Path(self.data))
        for record in read_records(
            self.data,
            format=options.format,
            unknown=unknown,
            encoding=options.encoding,
            options=options.file_options(),
        ):
            is_named = names and isinstance(record, Record)
            yield Record(record.location, named_classes(record.fields, names)) if is_named else record  # type: ignore[union-attr]


def sources(data: Iterable[Data]) -> list[Source]:
    """The sources that are named by paths, directories and patterns, or data in memory.

    Raises:
        InputError: something else is given.
        DataError: a directory or a pattern holds no file.
    """
    return [source for each in data for source in _sources(each)]


def is_path(data: Any) -> bool:
    """Whether data are named by a path."""
    return isinstance(data, str | os.PathLike)


def source_name(data: Data) -> str:
    """The name of what was given, for messages."""
    return name_of(data) if is_path(data) else f"{type(data).__name__} in memory"


def listed(data: Data) -> list[Data]:
    """Several paths, or one path or data in memory as a list of one."""
    is_several = isinstance(data, list | tuple) and data and all(map(is_path, data))
    return list(data) if is_several else [data]


def data_files(path: str) -> list[str]:
    """The files that a path names: itself, those of a directory, or those that a pattern matches, which may be none.

    Raises:
        DataError: a directory holds no file with the extension of a format.
    """
    if path == STANDARD_INPUT or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        files = sorted(file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith("."))
        found = [str(file) for file in files if is_data_name(file)]
        if not found:
            held = ", ".join(file.name for file in files) or "no files"
            raise DataError(f"{path} must hold files with the extension of a format. Received: {held:.200}.")
        return found
    if glob.has_magic(path) and not os.path.exists(path):
        return sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    return [path]


def _sources(data: Data) -> list[Source]:
    if is_path(data):
        if not (files := data_files(os.fspath(data))):
            raise DataError(f"{os.fspath(data)} must match at least one file. Received: none.")
        return [Source(name_of(path), path) for path in files]
    if isinstance(data, Mapping):
        splits = ", ".join(map(str, data))
        raise InputError(f"`data` must be one split or file. Received: a mapping with the keys {splits:.200}.")
    if not isinstance(data, Iterable):
        raise InputError(f"`data` must be a path, or an iterable of mappings. Received: {type(data).__name__}.")
    return [Source(source_name(data), data)]


def _rows(name: str, data: Any) -> Iterator[Record]:
    """The rows of data in memory."""
    features = getattr(data, "features", None)
    names = class_names(features) if isinstance(features, Mapping) else {}
    if hasattr(data, "iterrows"):  # a frame of pandas
        columns = [str(column) for column in data.columns]
        rows: Iterable[Any] = (dict(zip(columns, row, strict=True)) for row in data.itertuples(index=False, name=None))
    else:
        rows = data
    for number, fields in enumerate(rows, 1):
        location = Location(name, None, f"row {number}")
        if not isinstance(fields, Mapping):
            raise DataError(f"{location}: a mapping of columns to values was expected. Received: {fields!r:.60}.")
        plain = {str(column): _plain(value) for column, value in fields.items()}
        yield Record(location, named_classes(plain, names))


def _plain(value: Any) -> Any:
    """A value of NumPy, pandas or Python as JSON has it; NaN and the like are None."""
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    is_missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    return None if is_missing else value
