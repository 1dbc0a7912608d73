"""From files to the examples of a task: columns are found, records checked, malformed ones refused or counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rembert.common.errors import DataError, InputError
from rembert.common.text_lines import name_of
from rembert.tasks.columns import Columns
from rembert.tasks.examples import Example, SkippedExample
from rembert.tasks.fields import BadExample, Fields
from rembert.tasks.reading import BadLine, Record, read_records

if TYPE_CHECKING:
    from rembert.tasks.task import Task


def read_examples(
    task: Task, paths: Sequence[str | os.PathLike[str]], *, labels: bool, keep_skipped: bool
) -> Iterator[Example]:
    """The examples of files, one file after the other; see `Task.read`."""
    if not paths:
        raise InputError("`paths` must name at least one file of examples. Received: none.")
    columns = Columns(task.fields, task.layouts, task.data.columns, () if labels else task.label_fields)
    for path in paths:
        yield from _Source(task, path, columns).examples(keep_skipped)


class _Source:
    """The examples of one file."""

    def __init__(self, task: Task, path: str | os.PathLike[str], columns: Columns) -> None:
        self._task, self._path, self._columns = task, path, columns
        self._name = name_of(path)
        self._lines_by_id: dict[str, int | None] = {}

    def examples(self, keep_skipped: bool) -> Iterator[Example]:
        task, report = self._task, self._task.report
        found, skipped = report.examples, report.skipped
        for record in read_records(self._path, format=task.data.format, unknown=task.format):
            try:
                if isinstance(record, BadLine):
                    raise BadExample(record.reason)
                example = self._checked(record)
            except BadExample as problem:
                if not task.data.skip_bad_lines:
                    raise DataError(f"{record.location}: {problem}.") from None
                report.skip(record.location, str(problem))
                if keep_skipped:
                    yield SkippedExample(record.location, None, None, str(problem))
                continue
            if report.examples == found:
                self._tell_columns(record)
            report.examples += 1
            report.count_classes(task.classes(example))
            yield example
        if report.examples == found:
            raise DataError(f"{self._name}: at least one example was expected. Received: none{report.since(skipped)}.")

    def _checked(self, record: Record) -> Example:
        """The example of a record.

        Raises:
            BadExample: it is malformed, or its id has occurred before.
        """
        example = self._task.example(Fields(record, self._columns, self._task.data.language))
        if example.id is not None:
            if example.id in self._lines_by_id:
                line = self._lines_by_id[example.id]
                at = "" if line is None else f", as in line {line}"
                raise BadExample(f"each id must occur once. Received twice: {example.id!r}{at}")
            self._lines_by_id[example.id] = record.location.line
        self._task.check(example)
        return example

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
