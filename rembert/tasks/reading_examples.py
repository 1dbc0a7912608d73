"""From records to the examples of a task: columns are found, records checked, malformed ones refused or counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rembert.common.errors import DataError, InputError
from rembert.tasks.columns import Columns
from rembert.tasks.examples import Example, SkippedExample
from rembert.tasks.fields import BadExample, Fields
from rembert.tasks.reading import BadLine, Record
from rembert.tasks.sources import Data, Source, sources

if TYPE_CHECKING:
    from rembert.tasks.task import Task


def read_examples(task: Task, data: Sequence[Data], *, labels: bool, keep_skipped: bool) -> Iterator[Example]:
    """The examples of files or of data in memory, one after the other; see `Task.read`."""
    if not data:
        raise InputError("`data` must name at least one file of examples. Received: none.")
    columns = columns_of(task, labels=labels)
    for source in sources(data):
        yield from _Reader(task, source, columns).examples(keep_skipped)


def columns_of(task: Task, *, labels: bool) -> Columns:
    """Finds the columns of a task's fields, with or without those of the labels."""
    return Columns(task.fields, task.layouts, task.data.columns, () if labels else task.label_fields)


def read_example(task: Task, record: Record | BadLine, columns: Columns) -> Example:
    """The example of a record. With `skip_bad_lines`, a malformed one is counted and a `SkippedExample`.

    Raises:
        DataError: the record is malformed; names its location.
    """
    try:
        if isinstance(record, BadLine):
            raise BadExample(record.reason)
        example = task.example(Fields(record, columns, task.data.language))
        task.check(example)
    except BadExample as problem:
        if not task.data.skip_bad_lines:
            raise DataError(f"{record.location}: {problem}.") from None
        task.report.skip(record.location, str(problem))
        return SkippedExample(record.location, None, None, str(problem))
    return example


class _Reader:
    """The examples of one source."""

    def __init__(self, task: Task, source: Source, columns: Columns) -> None:
        self._task, self._source, self._columns = task, source, columns
        self._name = source.name
        self._lines_by_id: dict[str, int | None] = {}
        self._has_warned = False

    def examples(self, keep_skipped: bool) -> Iterator[Example]:
        task, report = self._task, self._task.report
        found, skipped = report.examples, report.skipped
        for record in self._source.records(task.data, task.format):
            example = read_example(task, record, self._columns)
            if isinstance(example, SkippedExample):
                if keep_skipped:
                    yield example
                continue
            self._watch_id(example)
            if report.examples == found and isinstance(record, Record):
                self._tell_columns(record)
            report.examples += 1
            report.count_classes(task.classes(example))
            yield example
        if report.examples == found:
            raise DataError(f"{self._name}: at least one example was expected. Received: none{report.since(skipped)}.")

    def _watch_id(self, example: Example) -> None:
        """Warn of the first id that occurs twice."""
        if example.id is None or self._has_warned:
            return
        if example.id in self._lines_by_id:
            line = self._lines_by_id[example.id]
            at = "" if line is None else f", as in line {line}"
            self._task.report.warn(f"{example.location}: the id {example.id!r} occurs twice{at}.")
            self._has_warned = True
            self._lines_by_id.clear()
        else:
            self._lines_by_id[example.id] = example.location.line

    def _tell_columns(self, record: Record) -> None:
        """Say which column is what, and warn of usual columns that are not read."""
        task, names = self._task, list(record.fields)
        found = self._columns.of(names)
        rest = ", ".join(name for name in names if name not in found.values())
        text = ", ".join(f"{field}={column}" for field, column in found.items())
        task.report.tell(f"{self._name}: {text}" + (f"; not read: {rest:.200}" if rest else ""))
        texts = [field for field in task.fields if field not in task.label_fields]
        if unused := self._columns.unused(names, texts):
            task.report.warn(
                f"{self._name}: {', '.join(map(repr, unused))} may be text, but is not read; read is {text}. "
                "`columns` (--text-column, --text-pair-column, --column) decides."
            )
