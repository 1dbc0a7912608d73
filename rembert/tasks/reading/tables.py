"""CSV and TSV files whose first line names the columns."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.records import BadLine, Place, Record

# A field in quotes, in which a quote is written twice. Anything else in a TSV file stands for itself.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_tsv(path: str | os.PathLike[str]) -> Iterator[Record | BadLine]:
    """Records of a TSV file: one line each, fields between tabs.

    Some programs put a field that holds a quote in quotes, and others write it as it is. A field that is quoted
    throughout, with the quotes inside doubled, is taken out of them; every other field is as it stands.
    """
    header: list[str] | None = None
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
            continue
        place, line = item
        if not line.strip():
            continue
        row = [_unquoted(field) for field in line.split("\t")]
        if header is None:
            header = row
            if problem := _header_problem(header):
                yield BadLine(place, problem)
                return
            continue
        yield _record(place, header, row)


def read_csv(path: str | os.PathLike[str]) -> Iterator[Record | BadLine]:
    """Records of a CSV file (RFC 4180: fields in quotes may hold commas, doubled quotes and line breaks)."""
    feed = _Feed(path)
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
            # A quote that is never closed takes the lines after it along.
            yield BadLine(feed.place(), f"a line of CSV was expected. Received: {problem}{feed.extent()}")
            # What csv holds of the broken row is gone with it; it goes on at the next line.
            rows = csv.reader(feed, strict=True)
            continue
        yield from feed.taken()
        if not any(row):
            continue
        if header is None:
            header = row
            if problem_of_header := _header_problem(header):
                yield BadLine(feed.place(), problem_of_header)
                return
            continue
        yield _record(feed.place(), header, row)


class _Feed:
    """Lines for `csv`, which wants their ends, and the place of the first of each row."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._lines = lines(path)
        self._bad: list[BadLine] = []
        self.start: Place | None = None
        self._last = Place(os.fspath(path))

    def __iter__(self) -> _Feed:
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

    def place(self) -> Place:
        return self.start or self._last

    def extent(self) -> str:
        """Up to which line a row went, where it is not the one on which it began."""
        return "" if self.place() == self._last else f", up to line {self._last.line}"

    def taken(self) -> list[BadLine]:
        """The lines since the last call that were not text."""
        bad, self._bad = self._bad, []
        return bad


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and _QUOTED.fullmatch(field) else field


def _header_problem(header: list[str]) -> str | None:
    twice = sorted({name for name in header if header.count(name) > 1})
    return f"the first line must name each column once. Received twice: {', '.join(twice)}" if twice else None


def _record(place: Place, header: list[str], row: list[str]) -> Record | BadLine:
    if len(row) != len(header):
        return BadLine(place, f"{len(header)} columns ({', '.join(header)}) were expected. Received: {len(row)}")
    return Record(place, dict(zip(header, row, strict=True)))
