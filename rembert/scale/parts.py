"""The output of a run on a cluster: a directory with one file for each block of the input, and the run's settings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.files import atomic_path, leftovers, read_json_object, remove_leftovers, write_json
from rembert.common.locks import DirectoryLock, remove_if_dead
from rembert.scale.batches import as_columns

RUN = "run.json"
PART_FORMATS = ("jsonl", "csv", "parquet")
KEPT = "The parts that are done are kept. The same command continues."
_COMPLETE = "complete"


class Block(NamedTuple):
    """The place of a block in the input.

    Attributes:
        source: the number of its file.
        number: of the block in the file.
    """

    source: int
    number: int


class Parts:
    """The parts of a run; `opened_parts` gives them."""

    def __init__(self, directory: Path, format: str) -> None:
        self.directory = directory
        self.format = format

    def path(self, block: Block) -> Path:
        """The file of a block. In the order of their names, the parts have the order of the input."""
        return self.directory / f"part-{block.source:05}-{block.number:07}.{self.format}"

    def has(self, block: Block) -> bool:
        """Whether a block is done."""
        return self.path(block).is_file()

    def files(self) -> list[Path]:
        """The parts that are done, in the order of the input."""
        return sorted(self.directory.glob(f"part-*.{self.format}"))

    def put(self, block: Block, content: bytes) -> None:
        """Write the file of a block, which appears when it is complete."""
        with atomic_path(self.path(block)) as temporary:
            temporary.write_bytes(content)


@contextmanager
def opened_parts(directory: Path, format: str, settings: Mapping[str, Any]) -> Iterator[Parts]:
    """The parts of a run, new or to be continued; the run is complete when the block ends well.

    Args:
        directory: the output; its parent must exist.
        format: one of `PART_FORMATS`.
        settings: everything that the results depend on, as JSON has it.

    Raises:
        InputError: the directory holds something else, another run, or a complete one; or another process writes
            to it.
    """
    _check_directory(directory)
    is_new = not directory.exists()
    directory.mkdir(exist_ok=True)
    lock = DirectoryLock(directory)
    parts = Parts(directory, format)
    is_ours = False  # whether the directory holds this run
    try:
        if not lock.is_held:
            raise InputError(f"Another process is writing this output. Received: {directory}.")
        remove_leftovers(directory / RUN)
        if any(directory.iterdir()):
            _check_same_run(directory, settings)
        else:
            write_json(directory / RUN, {**settings, _COMPLETE: False})
        is_ours = True
        for leftover in directory.glob(".part-*.tmp"):
            remove_if_dead(leftover)
        yield parts
        write_json(directory / RUN, {**settings, _COMPLETE: True})
    except BaseException as problem:
        if is_ours and parts.files():
            problem.add_note(KEPT)
        elif is_ours:  # nothing is done: the directory is as it was
            (directory / RUN).unlink(missing_ok=True)
            if is_new:
                directory.rmdir()
        raise
    finally:
        lock.release()


def part_content(rows: Sequence[Mapping[str, Any]], format: str) -> bytes:
    """Rows as a file.

    Args:
        rows: of results. In CSV, lists and objects are JSON; in Parquet, columns without a value are left out.
        format: one of `PART_FORMATS`.

    Example:
        >>> part_content([{"id": "a", "scores": {"food": 0.75}}], "csv")
        b'id,scores\\na,"{""food"": 0.75}"\\n'
    """
    if format == "jsonl":
        return "".join(_json(row) + "\n" for row in rows).encode()
    columns = as_columns(rows)
    if format == "parquet":
        from pyarrow import BufferOutputStream, table
        from pyarrow.parquet import write_table

        kept = {name: values for name, values in columns.items() if any(value is not None for value in values)}
        sink = BufferOutputStream()
        write_table(table(kept), sink)
        return bytes(sink.getvalue())
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for values in zip(*columns.values(), strict=True):
        writer.writerow([value if value is None or isinstance(value, str) else _json(value) for value in values])
    return stream.getvalue().encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda array: array.tolist())


def _check_directory(directory: Path) -> None:
    if (directory.exists() and not directory.is_dir()) or not directory.parent.is_dir():
        raise InputError(f"`--output` must be a directory in an existing directory. Received: {directory}.")
    if not directory.is_dir() or (directory / RUN).is_file():
        return
    others = set(directory.iterdir()) - set(leftovers(directory / RUN))
    if others:
        held = ", ".join(sorted(path.name for path in others))
        raise InputError(
            f"`--output` must be a new or empty directory. Received: {directory}, which holds {held:.200}."
        )


def _check_same_run(directory: Path, settings: Mapping[str, Any]) -> None:
    before = read_json_object(directory / RUN, InputError)
    is_complete = before.pop(_COMPLETE, None)
    changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if changed:
        listed = "; ".join(f"{name} was {before.get(name)!r}, now {settings.get(name)!r}" for name in changed)
        raise InputError(f"`--output` must be new, or that of the same run. Received: {directory}: {listed:.600}.")
    if is_complete:
        raise InputError(f"`--output` must be new. Received: {directory}, whose run is complete.")
