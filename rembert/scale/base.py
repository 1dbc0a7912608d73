"""What the functions of batches share: rows in and out, and the model that a process loads once."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple

from rembert.bleurt.files import Segment
from rembert.common.arguments import check_argument, one_of
from rembert.common.errors import InputError
from rembert.scale.batches import as_batch, as_columns, columns_of
from rembert.tasks import DataOptions
from rembert.tasks.backends import FRAMEWORKS
from rembert.tasks.data import Report
from rembert.tasks.reading import BadLine, Record
from rembert.tasks.sources import Source

ERROR = "error"  # the column of what is wrong with a row that was skipped
_MODELS = 2  # that a process keeps

Row = dict[str, Any]
Item = Record | Segment | BadLine


class Input(NamedTuple):
    """What is read together: one file, or a file of candidates with its files of references.

    Attributes:
        paths: the files.
        language: of all examples, or None.
        format: of the files of segments; by default by their names.
    """

    paths: tuple[str, ...]
    language: str | None = None
    format: str | None = None


class BatchFunction(ABC):
    """Runs a model on batches of rows; see `Predict`, `Embed` and `Score`.

    Args:
        checkpoint: the model; a path becomes an absolute one.
        framework: 'pt' or 'tf'.
        device: of PyTorch; by default a GPU if there is one.
        keep: columns of the input that the output has, too.
        skip_bad_rows: whether a malformed row gets its `error` instead of raising `DataError`.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], framework: str, device: str | None, keep: Iterable[str],
        skip_bad_rows: bool,
    ) -> None:  # fmt: skip
        check_argument("framework", framework, one_of(FRAMEWORKS))
        self.checkpoint = os.path.abspath(checkpoint) if os.path.exists(checkpoint) else os.fspath(checkpoint)
        self.framework = framework
        self.device = device
        self.keep = tuple(keep)
        self.skip_bad_rows = skip_bad_rows

    def __call__(self, batch: Any) -> Any:
        """The results for a batch, of the batch's own kind.

        Args:
            batch: a mapping of column names to arrays or lists, a pandas frame, a PyArrow table; or an iterator of
                such batches, whose results are an iterator, too.

        Raises:
            DataError: a row is malformed; names its number, from 1.
            InputError: the batch is nothing of these, or lacks a column of `keep`.
        """
        if isinstance(batch, Iterator):
            return map(self, batch)
        columns = columns_of(batch)
        if missing := [name for name in self.keep if name not in columns]:
            raise InputError(f"`keep` must name columns of the batch. Received: {missing}; it has {list(columns)}.")
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        found = as_columns(self.rows(list(Source("batch", rows).records(self._options(), ""))))
        if self.skip_bad_rows and found:
            found.setdefault(ERROR, [None] * len(rows))
        if clash := [name for name in self.keep if name in found]:
            raise InputError(f"`keep` must not name columns of the results. Received: {clash}.")
        return as_batch({**{name: columns[name] for name in self.keep}, **found}, batch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchFunction) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def _settings(self) -> str:
        return f"{type(self).__name__} {sorted(vars(self).items())!r}"

    def _options(self) -> DataOptions:
        return DataOptions(skip_bad_lines=self.skip_bad_rows)

    def loaded(self) -> Any:
        """What `load` returned in this process, the first time."""
        with _LOCK:
            if self not in _LOADED:
                while len(_LOADED) >= _MODELS:
                    _LOADED.pop(next(iter(_LOADED)))
                _LOADED[self] = self.load()
            return _LOADED[self]

    @abstractmethod
    def load(self) -> Any:
        """The model with what it needs to run."""

    @abstractmethod
    def read(self, source: Input) -> Iterator[Item]:
        """The records of files, and malformed lines."""

    @abstractmethod
    def rows(self, records: Sequence[Any]) -> list[Row]:
        """A row of results for each record, or for each item of `read`.

        Raises:
            DataError: a record is malformed, and not to be skipped; names its location.
        """

    def report(self) -> Report:
        """What was counted in this process since the last call, beside rows: truncated texts and the like."""
        return Report()

    def file_rows(self, items: Sequence[Item]) -> list[Row]:
        """A row of a file of results for each item of `read`."""
        return self.rows(items)


_LOADED: dict[BatchFunction, Any] = {}  # the oldest first
_LOCK = Lock()
