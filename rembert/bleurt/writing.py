"""Scores in files: one per line, JSON lines, TSV or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, TextIO

from rembert.bleurt.score_files import ScoredSegment
from rembert.common.errors import InputError

_DIGITS = 7  # decimal places, the precision of a float32 near 1


def check_fields(fields: Collection[str], column: str, *, many: bool) -> None:
    """Refuse to overwrite a field of the input.

    Args:
        fields: of the input.
        column: the name of the score.
        many: whether best, mean and all scores are written, too.

    Raises:
        InputError: quotes its name.
    """
    kinds = ("cut", "best", "mean", "all") if many else ("cut",)
    for name in (column, *(f"{column}_{kind}" for kind in kinds)):
        if name in fields:
            raise InputError(
                f"The name of the scores must differ from the input's fields. Received: {name!r}. Choose another one "
                "with `--score-field`."
            )


def write_scores(
    stream: TextIO, segments: Iterable[ScoredSegment], *, format: str, column: str, aggregate: str, many: bool,
    keep_columns: bool,
) -> None:  # fmt: skip
    """Write a line for every segment.

    Args:
        stream: to write to, without translation of line ends.
        segments: in the input's order.
        format: "text" (the score alone), "jsonl" (with the record of the input, or else the texts), "tsv" or "csv"
            (a table).
        column: the name of the score.
        aggregate: of several references, "best" or "mean".
        many: whether a candidate has several references: then best, mean and all scores are written, too.
        keep_columns: whether the columns of the input, a table, come first.

    Raises:
        InputError: a record already has a field of that name.
    """

    def found(segment: ScoredSegment) -> dict[str, Any]:
        return found_scores(segment, column=column, aggregate=aggregate, many=many)

    if format == "text":
        stream.writelines(f"{found(segment)[column]}\n" for segment in segments)
    elif format == "jsonl":
        for scored in segments:
            record = scored_record(scored, column=column, aggregate=aggregate, many=many)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    else:
        _write_table(stream, segments, found, column, many, "," if format == "csv" else "\t", keep_columns)


def found_scores(segment: ScoredSegment, *, column: str, aggregate: str, many: bool) -> dict[str, Any]:
    """The scores of a segment by name; arguments as for `write_scores`."""
    found: dict[str, Any] = {column: round(getattr(segment, aggregate), _DIGITS)}
    if many:
        found |= {f"{column}_best": round(segment.best, _DIGITS), f"{column}_mean": round(segment.mean, _DIGITS)}
        found[f"{column}_all"] = [round(score.value, _DIGITS) for score in segment.scores]
    return found


def scored_record(scored: ScoredSegment, *, column: str, aggregate: str, many: bool) -> dict[str, Any]:
    """The record of a segment with its scores, as JSON lines have it; arguments as for `write_scores`.

    Raises:
        InputError: the record already has a field of that name.
    """
    fields = scored.segment.fields
    if fields is None:
        fields = {"candidate": scored.segment.candidate, "references": list(scored.segment.references)}
    check_fields(fields, column, many=many)
    cut = {f"{column}_cut": scored.cut} if scored.cut else {}
    return fields | found_scores(scored, column=column, aggregate=aggregate, many=many) | cut


def _write_table(
    stream: TextIO, segments: Iterable[ScoredSegment], found: Callable[[ScoredSegment], dict[str, Any]], column: str,
    many: bool, delimiter: str, keep_columns: bool,
) -> None:  # fmt: skip
    # In TSV, too, only a field with a quote, a tab or a line break is quoted.
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    for number, scored in enumerate(segments):
        row = found(scored)
        row = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}
        fields = (scored.segment.fields or {}) if keep_columns else {}
        if number == 0:
            check_fields(fields, column, many=many)
            writer.writerow([*fields, *row])
        writer.writerow([*fields.values(), *row.values()])
