"""CSV and TSV files with the names of the columns in the first line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.records import BadLine, Location, Record

# A field in quotes, with the quotes inside doubled. Any other field of a TSV file is not changed.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_tsv(path: str | os.PathLike[str]) -> Iterator[Record | BadLine]:
    """Records of a TSV file: one per line, with tabs between the fields.

    Some programs quote a field that holds a quote, others do not. A field in quotes, with all quotes inside doubled,
    is unquoted; any other field is not changed.
    """
    header: list[str] | None = None
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
            continue
        location, line = item
        if not line.strip():
            continue
        row = [_unquoted(field) for field in line.split("\t")]
        if header is None:
            header = row
            if problem := _header_problem(header):
                yield BadLine(location, problem)
                return
            continue
        yield _record(location, header, row)


def read_csv(path: str | os.PathLike[str]) -> Iterator[Record | BadLine]:
    """Records of a CSV file (RFC 4180: fields in quotes may hold commas, doubled quotes and line breaks)."""
    feed = _LineFeed(path)
    rows = csv.reader(feed, strict=True)
    header: list[str] | None = None
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
            rows = csv.reader(feed, strict=True)
            continue
        yield from feed.taken()
        if not any(row):
            continue
        if header is None:
            header = row
            if problem_of_header := _header_problem(header):
                yield BadLine(feed.location(), problem_of_header)
                return
            continue
        yield _record(feed.location(), header, row)


class _LineFeed:
    """Lines with their ends, as `csv` reads them, and the location of each row's first line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lines = lines(path)
        self._bad: list[BadLine] = []
        self.start: Location | None = None
        self._last = Location(os.fspath(path))

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        for item in self._lines:
            if isinstance(item, BadLine):
                self._bad.append(item)
                continue
            self._last = item[0]
            self.start = self.start or item[0]
            return item[1] + "\n"
        raise StopIteration

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


def _header_problem(header: list[str]) -> str | None:
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"the first line must name each column once. Received twice: {', '.join(twice)}" if twice else None


def _record(location: Location, header: list[str], row: list[str]) -> Record | BadLine:
    if len(row) != len(header):
        return BadLine(location, f"{len(header)} columns ({', '.join(header)}) were expected. Received: {len(row)}")
    return Record(location, dict(zip(header, row, strict=True)))
