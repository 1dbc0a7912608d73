"""What an interrupted run has done, in a file beside its output; the same run continues from it.

The file is `.OUTPUT.DIGEST.rembert-KIND`. The digest is that of everything that the results depend on, so another run
does not find it: the next run for the same output removes it, unless a process is still writing it.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rembert.common.errors import InputError, RemBertError
from rembert.common.files import naming_path
from rembert.common.locks import remove_if_dead, try_lock

KEPT = "What is done is kept beside the output. The same command continues."
_DIGITS = 16  # of a digest, in a name that has at most 255 bytes


def unfinished_path(output: Path, kind: str, digest: bytes) -> Path:
    """The file of a run.

    Example:
        >>> unfinished_path(Path("vectors.npy"), "vectors", bytes(32))
        PosixPath('.vectors.npy.0000000000000000.rembert-vectors')
    """
    return output.with_name(f".{output.name}.{digest.hex()[:_DIGITS]}.rembert-{kind}")


def open_unfinished(output: Path, kind: str, digest: bytes) -> BinaryIO:
    """Open the file of a run for reading and writing, empty if the run is new. The lock on it ends with the stream.

    Args:
        output: what the run writes.
        kind: of the content, such as "scores".
        digest: of everything that the results depend on, at least 8 bytes.

    Raises:
        InputError: another process is writing the same output, or something else than a file has this name.
    """
    path = unfinished_path(output, kind, digest)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"{path} must be the file of an interrupted run. Received: a link or no file. Remove it.")
    for other in output.parent.glob(f".{glob.escape(output.name)}.{'?' * _DIGITS}.rembert-{kind}"):
        if other != path and remove_if_dead(other):
            raise _busy(output)
    while True:
        stream = open(path, "r+b", opener=_create)  # noqa: SIM115 (the caller closes it)
        if try_lock(stream.fileno()) is False:
            stream.close()
            raise _busy(output)
        if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
        stream.close()  # its run ended before it was locked here: it is the output now, or gone


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _busy(output: Path) -> InputError:
    return InputError(f"Another process is writing this output. Received: {output}.")


@contextmanager
def unfinished_output(output: Path, kind: str, digest: bytes | None) -> Iterator[BinaryIO]:
    """A stream that becomes the file `output` when the block ends well, and stays for the same run when it does not.

    It is removed where the data or the call was wrong, or where no other run can continue it.

    Args:
        output: the file.
        kind: of the content, such as "vectors".
        digest: as for `open_unfinished`; None if the run cannot be repeated, because its input can be read only once.

    Raises:
        InputError: another process is writing the same output.
    """
    stream = open_unfinished(output, kind, os.urandom(8) if digest is None else digest)
    path = Path(stream.name)
    try:
        # Closing the stream writes, too.
        with noting_what_is_kept(digest is not None), naming_path(output), stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            path.replace(output)
    except BaseException as problem:
        if digest is None or isinstance(problem, RemBertError):
            path.unlink(missing_ok=True)
        raise


@contextmanager
def noting_what_is_kept(is_kept: bool = True) -> Iterator[None]:
    """Add a note to whatever interrupts the block that the same command continues; errors of the library have none."""
    try:
        yield
    except BaseException as problem:
        if is_kept and not isinstance(problem, RemBertError):
            problem.add_note(KEPT)
        raise


def keep_lines(stream: BinaryIO) -> int:
    """Keep the lines before the first one that is not a JSON object, as a kill or a crash may leave it, and go to the
    end.

    Returns:
        the number of lines.
    """
    count = end = 0
    for line in stream:
        if not line.endswith(b"\n") or not _is_object(line):
            break
        count, end = count + 1, end + len(line)
    _cut(stream, end)
    return count


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def keep_records(stream: BinaryIO, start: int, size: int, is_sound: Callable[[bytes], bool]) -> int:
    """Keep the records before the first one that is incomplete or not sound, and go to the end.

    Args:
        stream: has a header of `start` bytes, then records of `size` bytes.
        start: bytes.
        size: bytes.
        is_sound: whether a record can be a result.

    Returns:
        the number of records.
    """
    stream.seek(start)
    count = 0
    while len(record := stream.read(size)) == size and is_sound(record):
        count += 1
    _cut(stream, start + count * size)
    return count


def _cut(stream: BinaryIO, end: int) -> None:
    stream.truncate(end)
    stream.seek(end)
