"""Files of candidates and references: plain lines, JSON lines, Parquet, CSV or TSV with named columns."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from rembert.common.arguments import check_argument, one_of, optional
from rembert.common.errors import DataError, InputError
from rembert.tasks.fields import BadExample
from rembert.tasks.reading import BadLine, Location, Record, read_records
from rembert.tasks.reading.lines import lines

SEGMENT_FORMATS = ("text", "jsonl", "tsv", "csv", "parquet")

_BY_EXTENSION = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
}
_CANDIDATE = ("candidate", "hypothesis", "translation")
_REFERENCE = re.compile(r"references?|references?_?\d+")


class Segment(NamedTuple):
    """A candidate with its references, and its record if the file has records."""

    candidate: str
    references: tuple[str, ...]
    fields: dict[str, Any] | None


@dataclass(frozen=True)
class Survey:
    """The result of a first pass over all files.

    Attributes:
        segments: the number of candidates.
        pairs: the number of pairs of a candidate and a reference.
        empty: the number of empty texts.
        most_references: the largest number of references of one candidate.
        digest: of all texts.
        references: the digest of the references only.
    """

    segments: int
    pairs: int
    empty: int
    most_references: int
    digest: bytes
    references: bytes


class SegmentFiles:
    """The segments of files; every iteration reads them again.

    The extension of a file's name gives its format (`.jsonl`, `.tsv`, `.csv`, `.parquet`, without a `.gz`); any other
    name means one text per line. Records have a `candidate`, and `reference` or `references` (in JSON a string or a
    list of strings; in tables every column `reference`, `reference_2`, …). Files of references have one line, or
    record, per candidate.
    """

    def __init__(
        self, candidates: str | os.PathLike[str], references: Sequence[str | os.PathLike[str]] = (), *,
        format: str | None = None,
    ) -> None:  # fmt: skip
        """Open nothing yet.

        Args:
            candidates: the file of candidates, which may hold references, too.
            references: files of references; they follow those of the candidates' file.
            format: one of `SEGMENT_FORMATS` for all files; by default by their names.

        Raises:
            InputError: there is no such format, or lines of candidates without a file of references.
        """
        check_argument("format", format, optional(one_of(SEGMENT_FORMATS)))
        self.candidates = Path(candidates)
        self.references = [Path(path) for path in references]
        self.format = format
        if not self.references and self.format_of(self.candidates) == "text":
            raise InputError(
                f"`references` must name a file, since the lines of {self.candidates} are candidates. Received: no "
                "file of references."
            )

    def format_of(self, path: Path) -> str:
        """The format of a file, one of `SEGMENT_FORMATS`."""
        return self.format or format_of(path)

    def __iter__(self) -> Iterator[Segment]:
        """Every candidate with its references.

        Raises:
            DataError: a file cannot be read, a line is malformed, or the files have different lengths.
        """
        for segment in self.segments():
            if isinstance(segment, BadLine):
                raise DataError(f"{segment.location}: {segment.reason}.")
            yield segment

    def segments(self) -> Iterator[Segment | BadLine]:
        """Every candidate with its references; a `BadLine` for one of which a line is malformed.

        Raises:
            DataError: a file cannot be read, or the files have different lengths.
        """
        files = [self.candidates, *self.references]
        readers = [self._read(path, is_candidates=number == 0) for number, path in enumerate(files)]
        for rows in zip_longest(*readers):
            if any(row is None for row in rows):
                raise self._different_lengths()
            yield _segment(rows)

    def survey(self, *, skip_bad_lines: bool = False) -> Survey:
        """Read everything once, to find all errors before any work.

        Args:
            skip_bad_lines: whether malformed lines are left out.

        Raises:
            DataError: as for iterating, or there is no candidate.
        """
        segments = pairs = empty = most = 0
        candidates, references = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        found = (each for each in self.segments() if isinstance(each, Segment)) if skip_bad_lines else self
        for segment in found:
            segments += 1
            pairs += len(segment.references)
            most = max(most, len(segment.references))
            empty += sum(not text.strip() for text in (segment.candidate, *segment.references))
            _add(candidates, segment.candidate)
            references.update(len(segment.references).to_bytes(8, "little"))
            for text in segment.references:
                _add(references, text)
        if not segments:
            raise DataError(f"{self.candidates}: at least one candidate was expected. Received: none.")
        whole = hashlib.blake2b(candidates.digest() + references.digest(), digest_size=16).digest()
        return Survey(segments, pairs, empty, most, whole, references.digest())

    def _read(self, path: Path, *, is_candidates: bool) -> Iterator[_Row | BadLine]:
        format = self.format_of(path)
        if format == "text":
            for line in lines(path):
                if isinstance(line, BadLine):
                    yield line
                    continue
                location, text = line
                yield _Row(location, text, (), None) if is_candidates else _Row(location, "", (text,), None)
            return
        for record in read_records(path, format=format):
            yield _row(record, is_candidates=is_candidates)

    def _different_lengths(self) -> DataError:
        counts = [
            f"{path} with {sum(1 for _ in self._read(path, is_candidates=number == 0))}"
            for number, path in enumerate([self.candidates, *self.references])
        ]
        return DataError(
            f"{self.candidates}: candidates and references must have the same number of lines. Received: "
            f"{', '.join(counts)}."
        )


def format_of(path: Path) -> str:
    """The format by a file's name, one of `SEGMENT_FORMATS`."""
    return _BY_EXTENSION.get(os.path.splitext(path.name.lower().removesuffix(".gz"))[1], "text")


def _add(digest: Any, text: str) -> None:
    encoded = text.encode()
    digest.update(len(encoded).to_bytes(8, "little") + encoded)


class _Row(NamedTuple):
    """A line of one file: its candidate (empty in a file of references), its references, and its record."""

    location: Location
    candidate: str
    references: tuple[str, ...]
    fields: dict[str, Any] | None


def segment_of(record: Record | BadLine) -> Segment | BadLine:
    """The segment of a record that has a candidate and its references."""
    return _segment([_row(record, is_candidates=True)])


def _segment(rows: Sequence[_Row | BadLine]) -> Segment | BadLine:
    """The segment of one line of each file."""
    whole = [row for row in rows if isinstance(row, _Row)]
    if len(whole) < len(rows):
        return next(row for row in rows if isinstance(row, BadLine))
    references = tuple(text for row in whole for text in row.references)
    if not references:
        return BadLine(whole[0].location, "a candidate must have a reference. Received: none")
    return Segment(whole[0].candidate, references, whole[0].fields)


def _row(record: Record | BadLine, *, is_candidates: bool) -> _Row | BadLine:
    if isinstance(record, BadLine):
        return record
    location, fields = record
    try:
        candidate = _candidate(fields) if is_candidates else ""
        references = _references(fields)
        if not references and not is_candidates:
            raise BadExample(f"a field 'reference' was expected. Received: {_listed(fields)}")
    except BadExample as problem:
        return BadLine(location, str(problem))
    return _Row(location, candidate, references, fields if is_candidates else None)


def _candidate(fields: dict[str, Any]) -> str:
    name = next((name for name in _CANDIDATE if name in fields), None)
    if name is None:
        raise BadExample(f"a field 'candidate' was expected. Received: {_listed(fields)}")
    return _text(name, fields[name])


def _references(fields: dict[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for name, value in fields.items():
        if _REFERENCE.fullmatch(name):
            values = value if isinstance(value, list) else [value]
            found += [_text(name, one) for one in values]
    return tuple(found)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadExample(f"'{name}' must be a string. Received: {type(value).__name__} {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadExample(f"'{name}' must be valid Unicode. Received: a lone surrogate in {value!a:.60}") from None
    return value


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in fields) or "none"
