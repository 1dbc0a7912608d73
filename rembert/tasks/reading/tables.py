"""CSV and TSV files, with the names of the columns in the first line, or columns by number."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from rembert.common.errors import InputError
from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Location, Record

# A field in quotes, with the quotes inside doubled. Any other field of a TSV file is not changed.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')  # the first line of some files of Excel
_LONGEST_FIELD = 1 << 30  # characters; the default of `csv` is 131,072

csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))


def read_tsv(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """Records of a TSV file: one per line, with tabs between the fields.

    Some programs quote a field that holds a quote, others do not. A field in quotes, with all quotes inside doubled,
    is unquoted; any other field is not changed.
    """
    table = _Table(options)
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
            continue
        location, line = item
        if not line.strip():
            continue
        found = table.row(location, [_unquoted(field) for field in line.split(options.delimiter or "\t")])
        if found is not None:
            yield found
        if table.is_broken:
            return


def read_csv(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """Records of a CSV file (RFC 4180: fields in quotes may hold delimiters, doubled quotes and line breaks).

    The delimiter is that which the first line has most of, or that of a line `sep=;` before it.
    """
    feed = _LineFeed(path)
    delimiter = options.delimiter or feed.delimiter()
    if len(delimiter) != 1:
        raise InputError(f"`delimiter` must be one character. Received: {delimiter!r}.")
    rows = csv.reader(feed, strict=True, delimiter=delimiter)
    table = _Table(options)
    while True:
        feed.start = None
        try:
            row = next(rows)
        except StopIteration:
            yield from feed.taken()
            return
        except csv.Error as problem:
            yield from feed.taken()
            # A quote that is never closed swallows the lines after it.
            yield BadLine(feed.location(), f"a line of CSV was expected. Received: {problem}{feed.extent()}")
            # A new reader drops the broken row and continues at the next line.
            rows = csv.reader(feed, strict=True, delimiter=delimiter)
            continue
        yield from feed.taken()
        if any(row) and (found := table.row(feed.location(), row)) is not None:
            yield found
        if table.is_broken:
            return


class _Table:
    """The names of the columns, and the records of the rows.

    Attributes:
        is_broken: whether the first line cannot name columns.
    """

    def __init__(self, options: FileOptions) -> None:
        self._options = options
        self._header: list[str] | None = None
        self.is_broken = False

    def row(self, location: Location, row: list[str]) -> Record | BadLine | None:
        """The record of a row; None for the names of the columns."""
        if self._header is None:
            if not self._is_without_header(row):
                return self._take_header(location, row)
            self._header = [str(number) for number in range(1, len(row) + 1)]
        if len(row) != len(self._header):
            names = ", ".join(self._header)
            return BadLine(location, f"{len(self._header)} columns ({names}) were expected. Received: {len(row)}")
        return Record(location, dict(zip(self._header, row, strict=True)))

    def _is_without_header(self, first: list[str]) -> bool:
        if self._options.header is not None:
            return not self._options.header
        numbers = [name for name in self._options.named if name]
        return bool(numbers) and all(map(str.isdigit, numbers)) and not set(numbers) & set(first)

    def _take_header(self, location: Location, row: list[str]) -> BadLine | None:
        self._header = row
        twice = sorted({name for name in row if row.count(name) > 1})
        if not twice:
            return None
        self.is_broken = True
        return BadLine(
            location,
            f"the first line must name each column once, or the columns be named by number (--text-column 2). "
            f"Received twice: {', '.join(twice)}",
        )


class _LineFeed:
    """Lines with their ends, as `csv` reads them, and the location of each row's first line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lines = lines(path)
        self._bad: list[BadLine] = []
        self._first: tuple[Location, str] | None = None  # looked at, not yet read
        self.start: Location | None = None
        self._last = Location(os.fspath(path))

    def delimiter(self) -> str:
        """The delimiter of the first line."""
        for item in self._lines:
            if isinstance(item, BadLine):
                self._bad.append(item)
            elif (match := _SEPARATOR_LINE.fullmatch(item[1])) is not None:
                return match[1]
            elif item[1].strip():
                self._first = item
                outside = re.sub(r'"[^"]*"', "", item[1])  # of quotes
                return max(_DELIMITERS, key=outside.count)
        return _DELIMITERS[0]

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        if self._first is not None:
            first, self._first = self._first, None
            return self._taken_line(first)
        for item in self._lines:
            if isinstance(item, BadLine):
                self._bad.append(item)
                continue
            return self._taken_line(item)
        raise StopIteration

    def _taken_line(self, item: tuple[Location, str]) -> str:
        self._last = item[0]
        self.start = self.start or item[0]
        return item[1] + "\n"

    def location(self) -> Location:
        return self.start or self._last

    def extent(self) -> str:
        """A phrase for the last line of a row, where it is not the first."""
        return "" if self.location() == self._last else f", up to line {self._last.line}"

    def taken(self) -> list[BadLine]:
        """The lines since the last call that are not valid text."""
        bad, self._bad = self._bad, []
        return bad


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and _QUOTED.fullmatch(field) else field
