"""Parquet files, read by PyArrow."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rembert.common.dependencies import require_packages
from rembert.common.errors import DataError
from rembert.common.text_files import STANDARD_INPUT, name_of
from rembert.tasks.reading.class_names import named_classes, names_in_metadata
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Location, Record

_METADATA = b"huggingface"  # the key under which `datasets` keeps the names of classes


def read_parquet(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """The rows of a Parquet file. Integers that stand for classes become their names, if the file holds them.

    Raises:
        MissingDependencyError: PyArrow is not installed.
        DataError: the file cannot be read, or comes from a pipe: its index is at its end.
    """
    require_packages("pyarrow", needed_for=f"Reading {name_of(path)}")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    name = name_of(path)
    if os.fspath(path) == STANDARD_INPUT:
        raise DataError(f"{name}: a file was expected, because the index of Parquet is at its end. Received: a pipe.")
    try:
        with ParquetFile(os.fspath(path)) as file:
            names = names_in_metadata((file.schema_arrow.metadata or {}).get(_METADATA, b"{}"))
            number = 0
            for batch in file.iter_batches(1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(Location(name, None, f"row {number}"), named_classes(fields, names))
    except (ArrowException, OSError) as problem:
        raise DataError(f"{name} cannot be read as Parquet: {problem}.") from problem
