"""`rembert score --model CHECKPOINT --candidates FILE --references FILE`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rembert.bleurt import RemBertScorer
from rembert.bleurt.checkpoint import open_metric
from rembert.bleurt.files import SEGMENT_FORMATS, SegmentFiles, Survey, format_of
from rembert.bleurt.score_file import ScoreFile
from rembert.bleurt.score_files import Process, ScoredSegment, score_files, scored_segments
from rembert.bleurt.scorer import AGGREGATES
from rembert.bleurt.statistics import CONFIDENCE, RESAMPLES, compare_systems, mean_interval
from rembert.bleurt.writing import check_fields, write_scores
from rembert.cli.data_options import add_device_argument, add_framework_argument, check_output, opened_output
from rembert.cli.engine import add_engine_arguments, check_without_engine, score_on_cluster
from rembert.cli.text import say
from rembert.common.arguments import check_arguments, integer, number, optional
from rembert.common.errors import InputError
from rembert.common.files import naming_path, temporary_directory
from rembert.common.progress import Progress, silent
from rembert.common.unfinished import noting_what_is_kept
from rembert.scale.base import Input
from rembert.scale.parts import PART_FORMATS, Parts
from rembert.tasks.backends import check_framework
from rembert.tasks.reading import Record, read_records
from rembert.tasks.sources import data_files

DTYPES = ("float32", "float16", "bfloat16")


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "score",
        description="Score candidates against references with a learned metric of the BLEURT-20 family. Files are "
        "plain lines, JSON lines (.jsonl), TSV or CSV with a column `candidate` and a column `reference`. An "
        "interrupted run resumes when the same command is run again; `torchrun` distributes it over processes.",
    )
    parser.add_argument(
        "--model", required=True, metavar="CHECKPOINT", help="a BLEURT directory or ZIP archive, or a converted one"
    )
    parser.add_argument("--candidates", required=True, type=Path, metavar="FILE", help="the texts to score")
    parser.add_argument(
        "--references", type=Path, nargs="+", default=[], metavar="FILE",
        help="one or more references for each candidate; not needed if the candidates' file has them",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="the texts of a second system, for a paired bootstrap"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file of the scores; by default the standard output"
    )
    parser.add_argument(
        "--input-format",
        choices=SEGMENT_FORMATS,
        help="of all input files; by default chosen by their names, else lines of text",
    )
    parser.add_argument(
        "--output-format",
        choices=SEGMENT_FORMATS,
        help="by default chosen by the name of --output, else one score per line",
    )
    parser.add_argument("--score-field", default="score", metavar="NAME", help="name of the score in records")
    parser.add_argument(
        "--aggregate",
        choices=AGGREGATES,
        default="best",
        help="how to combine several references (default: %(default)s)",
    )
    add_framework_argument(parser)
    add_device_argument(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the computation (default: %(default)s)")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="truncate pairs to N tokens; by default BLEURT's own"
    )
    parser.add_argument(
        "--batch-tokens", type=int, metavar="N", help="tokens of a batch; by default one that suits the device"
    )
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="of intervals (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--skip-bad-lines", action="store_true", help="with --engine: skip malformed lines and count them"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--quiet", action="store_true", help="print no summary and no progress")
    add_engine_arguments(parser, rows="4096", output_format=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write and report; 0 on success. Wrong files are refused before any work."""
    _check(args)
    if args.engine is not None:
        return _run_on_cluster(args)
    process = Process.from_environment()
    if process.world_size > 1 and args.output is None:
        raise InputError("`--output` must be given when several processes score. Received: none.")
    check_framework(args.framework)
    systems = [_survey(path, args) for path in (args.candidates, args.compare) if path is not None]
    _check_systems(systems, args)
    if process.rank == 0:
        _warn_of_empty(systems)
    scorer = RemBertScorer.from_pretrained(
        args.model, framework=args.framework, device=args.device, dtype=args.dtype,
        max_length=args.max_length, batch_tokens=args.batch_tokens,
    )  # fmt: skip
    with ExitStack() as stack:
        output = args.output or stack.enter_context(temporary_directory("scores")) / "scores"
        stack.enter_context(noting_what_is_kept(args.output is not None))
        stack.enter_context(naming_path(output))
        files = []
        for system, kind in zip(systems, ("scores", "scores-compared"), strict=False):
            with Progress(system.name, silent if args.quiet or process.rank != 0 else say, unit="pairs") as progress:
                scores = score_files(
                    scorer, system.files, system.survey, output, kind=kind,
                    process=process, progress=progress, resumed=progress.start,
                )  # fmt: skip
            stack.callback(scores.close)
            files.append(scores.path)
            if process.rank == 0:
                system.take(scores, args, is_written=system is systems[0])
        if process.rank != 0:
            return 0
        for path in files:
            path.unlink()
    _print_report(_report(_Metric(scorer.name, scorer.framework, scorer.max_length), systems, args), args)
    return 0


def _run_on_cluster(args: argparse.Namespace) -> int:
    files = data_files(str(args.candidates))
    if len(files) != 1 and args.references:
        raise InputError(f"`--references` must belong to one file of candidates. Received: {len(files)} files.")
    segments = [SegmentFiles(path, args.references, format=args.input_format) for path in files]
    systems = [_System(each, each.survey(skip_bad_lines=args.skip_bad_lines)) for each in segments]
    _warn_of_empty(systems)
    many = any(system.survey.most_references > 1 for system in systems)
    inputs = [Input((path, *map(str, args.references)), format=args.input_format) for path in files]
    parts = score_on_cluster(args, inputs, [system.survey.digest for system in systems], many=many)
    with open_metric(args.model, max_length=args.max_length) as found:
        metric = _Metric(found.name, args.framework, found.max_length)
    _print_report(_report(metric, [_combined(systems, parts, args)], args), args)
    return 0


def _combined(systems: list[_System], parts: Parts, args: argparse.Namespace) -> _System:
    """Several files as one, with the scores in the parts."""
    whole = systems[0]
    whole.name = str(args.candidates)
    surveys = [system.survey for system in systems]
    totals = {name: sum(getattr(each, name) for each in surveys) for name in ("segments", "pairs", "empty")}
    whole.survey = replace(surveys[0], **totals)
    records = (record.fields for path in parts.files() for record in read_records(path) if isinstance(record, Record))
    scores = array("d")  # grows by the numbers alone
    for row in records:
        if row.get(args.score_field) not in (None, ""):
            scores.append(float(row[args.score_field]))
            whole.cut += int(row.get(f"{args.score_field}_cut") or 0)
    whole.values = np.asarray(scores)
    return whole


class _Metric(NamedTuple):
    """What the report says of the metric."""

    name: str
    framework: str
    max_length: int


class _System:
    """The texts of one system, and their scores."""

    def __init__(self, files: SegmentFiles, survey: Survey) -> None:
        self.files = files
        self.name = str(files.candidates)
        self.survey = survey
        self.values = np.empty(0)  # [segments], for the statistics
        self.cut = 0

    def take(self, scores: ScoreFile, args: argparse.Namespace, *, is_written: bool) -> None:
        """Read the scores once: keep their aggregates, count truncated pairs, and write them."""
        with naming_path(tempfile.gettempdir()), tempfile.TemporaryFile() as file:
            # Memory-mapped, so that memory does not grow with the files. A full disk shows here, not as a SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.survey.segments * np.dtype(np.float64).itemsize)
            self.values = np.memmap(file, np.float64, "w+", shape=(self.survey.segments,))
        segments = self._taken(scored_segments(self.files, scores), args.aggregate)
        if not is_written:
            for _ in segments:
                pass
            return
        with opened_output(args.output) as stream:
            write_scores(
                stream,
                segments,
                format=_output_format(args),
                column=args.score_field,
                aggregate=args.aggregate,
                many=self.survey.most_references > 1,
                keep_columns=self.files.format_of(self.files.candidates) in ("tsv", "csv"),
            )

    def _taken(self, segments: Iterator[ScoredSegment], aggregate: str) -> Iterator[ScoredSegment]:
        for index, segment in enumerate(segments):
            self.values[index] = getattr(segment, aggregate)
            self.cut += segment.cut
            yield segment


# ---------------------------------------------------------------------- checks


_CONSTRAINTS = {
    "--resamples": integer(at_least=1),
    "--confidence": number(above=0, below=1),
    "--seed": integer(at_least=0),
    "--batch-tokens": optional(integer(at_least=1)),
}


def _check(args: argparse.Namespace) -> None:
    check_arguments(_CONSTRAINTS, {f"--{name.replace('_', '-')}": value for name, value in vars(args).items()})
    if args.engine is None:
        check_without_engine(args)
        check_output(args.output)
    _check_engine(args)
    for path in (args.candidates, args.compare, *args.references):
        is_directory = args.engine is not None and path == args.candidates and path.is_dir()
        if path is not None and (str(path) == "-" or (path.exists() and not path.is_file() and not is_directory)):
            raise InputError(f"Texts to score must be regular files, which can be read twice. Received: {path}.")
    if args.output is None:
        return
    for path in (args.candidates, args.compare, *args.references):
        if path is not None and path.exists() and args.output.exists() and path.samefile(args.output):
            raise InputError(f"`--output` must not be an input file. Received: {args.output}.")


def _check_engine(args: argparse.Namespace) -> None:
    """Refuse what only one of both ways to run can do."""
    if args.engine is None:
        if args.skip_bad_lines:
            raise InputError("`--skip-bad-lines` must be used with `--engine`. Received: no engine.")
        if _output_format(args) == "parquet":
            raise InputError(f"Parquet must be written with `--engine`. Received: {args.output}.")
        return
    if args.compare is not None:
        raise InputError("`--compare` must be used without `--engine`. Received: both.")
    if args.output_format not in (None, *PART_FORMATS):
        raise InputError(f"Parts must be {', '.join(PART_FORMATS)}. Received: `--output-format {args.output_format}`.")


def _survey(path: Path, args: argparse.Namespace) -> _System:
    files = SegmentFiles(path, args.references, format=args.input_format)
    return _System(files, files.survey())


def _check_systems(systems: list[_System], args: argparse.Namespace) -> None:
    if _output_format(args) != "text":
        first = next(iter(systems[0].files))
        check_fields(first.fields or (), args.score_field, many=systems[0].survey.most_references > 1)
    if len(systems) == 2 and systems[0].survey.references != systems[1].survey.references:
        raise InputError(
            f"Both systems must have the same references. Received: {args.candidates} with "
            f"{systems[0].survey.segments} candidates and {args.compare} with {systems[1].survey.segments}, and "
            "different references."
        )


def _warn_of_empty(systems: list[_System]) -> None:
    for system in systems:
        if system.survey.empty:
            print(
                f"rembert: {system.name}: {system.survey.empty:,} empty texts among candidates and "
                "references; they are scored like any other",
                file=sys.stderr,
            )


def _output_format(args: argparse.Namespace) -> str:
    if args.output_format is not None:
        return str(args.output_format)
    return "text" if args.output is None else format_of(args.output)


# ---------------------------------------------------------------------- the report


def _report(metric: _Metric, systems: list[_System], args: argparse.Namespace) -> dict[str, Any]:
    bootstrap = {"resamples": args.resamples, "confidence": args.confidence, "seed": args.seed}
    report: dict[str, Any] = {
        "model": metric.name,
        "framework": metric.framework,
        "max_length": metric.max_length,
        "aggregate": args.aggregate,
        "bootstrap": bootstrap,
        "systems": [
            {
                "file": system.name,
                "segments": system.survey.segments,
                "pairs": system.survey.pairs,
                "empty": system.survey.empty,
                "cut": system.cut,
                **asdict(mean_interval(system.values, **bootstrap)),
            }
            for system in systems
        ],
    }
    if len(systems) == 2:
        report["comparison"] = asdict(compare_systems(systems[0].values, systems[1].values, **bootstrap))
    return report


def _print_report(report: dict[str, Any], args: argparse.Namespace) -> None:
    if not args.quiet:
        text = json.dumps(report, indent=2) if args.json else "\n".join(_lines(report))
        print(text, file=sys.stderr if args.output is None else sys.stdout)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    settings = report["bootstrap"]
    yield f"{report['model']}, {settings['confidence']:.0%} intervals from {settings['resamples']:,} resamples"
    for system in report["systems"]:
        kind = f", {report['aggregate']} of their references" if system["pairs"] > system["segments"] else ""
        yield f"{system['file']}: {_interval(system)} on {system['segments']:,} segments{kind}"
        if system["cut"]:
            yield f"{system['cut']:,} of {system['pairs']:,} pairs were truncated to {report['max_length']} tokens"
    if "comparison" in report:
        found = report["comparison"]
        yield (
            f"difference: {_interval(found['difference'])}, p = {found['p_value']:.4f}; the first is better in "
            f"{found['wins']:.1%} of the resamples"
        )


def _interval(found: dict[str, Any]) -> str:
    return f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
