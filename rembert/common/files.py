"""Writing files so that they appear complete under their name, or not at all."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import BufferedReader
from pathlib import Path
from typing import Any

from rembert.common import strict_json
from rembert.common.errors import InputError, NotFoundError, RemBertError
from rembert.common.locks import DirectoryLock, remove_if_dead, try_lock

MAX_JSON = 2**26  # bytes; a configuration with a name for each of 250,000 labels has a tenth of that
_KINDS = {"directory": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "device": stat.S_ISCHR, "socket": stat.S_ISSOCK}


# What a write reports of a full or damaged disk; unlike an error of `open`, it has no path.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextmanager
def naming_path(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have the errors of a full disk that the block raises name `path`, unless they have a path."""
    try:
        yield
    except OSError as problem:
        if problem.errno in _DISK_ERRORS and problem.filename is None:
            problem.filename = os.fspath(path)
        raise


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target`, and rename it to `target` if the block raises no error.

    The temporary file is in the same directory, so the rename is atomic. If the block raises an error, the temporary
    file is removed and `target` does not change. Temporary files that killed processes left of
    the same target are removed first; those of live ones are locked.

    Within `rembert.common.saves.saved_together` the file is renamed with the others of its directory.

    Raises:
        OSError: the disk is full; names `target`.
    """
    target = Path(target)
    remove_leftovers(target)
    handle, temporary = _locked_temporary(target)
    group, is_kept = Group.of(target), False
    try:
        with naming_path(target):
            yield temporary
            # mkstemp creates files that only the owner can read; a saved file follows the user's umask like any other.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        if group is None:
            temporary.replace(target)
        else:
            group.add(target.name, temporary, handle)
            is_kept = True
    finally:
        if not is_kept:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def remove_file(target: Path) -> None:
    """Remove a file that need not exist; within `rembert.common.saves.saved_together`, with the other changes."""
    group = Group.of(target)
    if group is None:
        target.unlink(missing_ok=True)
    else:
        group.removed.append(target.name)


class Group:
    """The changes of one directory that are to be made together; `rembert.common.saves` makes them.

    Attributes:
        directory: the directory, resolved.
        new: the temporary file of each file that is written, and the descriptor that holds its lock.
        removed: names of the files to be removed.
        is_committed: whether a journal lists the changes; from then on they are made, now or by the next reader.
    """

    active: ContextVar[Group | None] = ContextVar("active", default=None)

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.new: dict[str, tuple[Path, int]] = {}
        self.removed: list[str] = []
        self.is_committed = False

    @classmethod
    def of(cls, target: Path) -> Group | None:
        """The group that a file belongs to, if one is active for its directory."""
        group = cls.active.get()
        return group if group is not None and group.directory == target.parent.resolve() else None

    def add(self, name: str, temporary: Path, handle: int) -> None:
        """Take over a file that is written; it replaces one of the same name."""
        self.discard(name)
        self.new[name] = temporary, handle

    def discard(self, name: str) -> None:
        """Release the temporary file of a name, if it has one."""
        if name in self.new:
            temporary, handle = self.new.pop(name)
            if not self.is_committed:
                temporary.unlink(missing_ok=True)
            os.close(handle)

    def close(self) -> None:
        """Release all temporary files; they are removed unless the changes are committed."""
        for name in list(self.new):
            self.discard(name)


def _locked_temporary(target: Path) -> tuple[int, Path]:
    """A new temporary file beside `target`, and the descriptor that holds its lock."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try_lock(handle)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process took it for a leftover before it was locked


@contextmanager
def temporary_directory(purpose: str) -> Iterator[Path]:
    """Give a new directory among the system's temporary files, and remove it at the end of the block.

    Directories for the same purpose that killed processes left are removed first; those of live ones are locked.

    Args:
        purpose: a part of its name.
    """
    prefix, suffix = f".rembert-{purpose}-", ".tmp"  # hidden, so that no user chose it
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*{suffix}"):
        remove_if_dead(path)
    directory, lock = _locked_directory(prefix, suffix)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        lock.release()


def _locked_directory(prefix: str, suffix: str) -> tuple[Path, DirectoryLock]:
    while True:
        directory = Path(tempfile.mkdtemp(suffix, prefix))
        with suppress(FileNotFoundError):
            lock = DirectoryLock(directory)
            if lock.is_held and lock.is_of(directory):
                return directory, lock
            lock.release()
        # Another process took it for a leftover before it was locked.


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files of `target` whose processes no longer live."""
    for path in leftovers(target):
        remove_if_dead(path)


def leftovers(target: str | os.PathLike[str]) -> list[Path]:
    """The temporary files of `target`, of processes that write it now or were killed."""
    target = Path(target)
    return list(target.parent.glob(f".{glob.escape(target.name)}.*.tmp"))


def make_directory(directory: str | os.PathLike[str]) -> Path:
    """Make the directory that something is saved in, unless it exists.

    Raises:
        InputError: there is a file of that name.
    """
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise InputError(f"`save_directory` must be a directory. Received: {path}, which is a file.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented UTF-8 JSON, atomically."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def first_named(directory: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that a directory has, or None.

    A broken link and a pipe count too. Reading one of them is an error; otherwise a file of another name would be read
    in its place.

    Example:
        >>> from tempfile import mkdtemp
        >>> first_named(Path(mkdtemp()), ["model.safetensors", "pytorch_model.bin"]) is None
        True
    """
    return next((directory / name for name in names if os.path.lexists(directory / name)), None)


def open_regular(
    source: str | os.PathLike[str], error: type[Exception], *, limit: int | None = None
) -> BufferedReader:
    """Open a file for reading, if reading it ends: a regular file, and of a size that a file of its kind can have.

    Args:
        source: the file. Opening a pipe or a device that stands there does not wait.
        error: what is raised for anything else than such a file; names it.
        limit: the most bytes that it may have.

    Raises:
        OSError: there is no such file, or it cannot be opened.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if os.path.islink(source):
            raise error(f"{source} is a link to {os.readlink(source)}, which does not exist.") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for name, test in _KINDS.items() if test(status.st_mode)), "special file")
            raise error(f"{source} must be a regular file. Received: a {kind}.")
        if limit is not None and status.st_size > limit:
            raise error(f"{source} must have at most {limit} bytes. Received: {status.st_size} bytes.")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_json(source: str | os.PathLike[str], error: type[Exception]) -> Any:
    """Read a JSON file.

    Raises:
        NotFoundError: there is no such file. `error` in its place, if it is no base of that class.
        error: it is not JSON, or an object in it has a key twice; names the file.
    """
    try:
        with open_regular(source, error, limit=MAX_JSON) as file:
            return strict_json.loads(file.read())
    except FileNotFoundError:
        kind = NotFoundError if issubclass(NotFoundError, error) else error
        raise kind(f"There is no file {source}.") from None
    except RemBertError:
        raise
    except OSError as problem:
        raise error(f"{source} cannot be read: {problem.strerror or problem}.") from problem
    except ValueError as problem:
        raise error(f"{source} cannot be read as JSON: {problem}") from problem


def read_json_object(source: str | os.PathLike[str], error: type[Exception]) -> dict[str, Any]:
    """`read_json` of a file that must hold an object."""
    content = read_json(source, error)
    if not isinstance(content, dict):
        raise error(f"{source} must hold a JSON object. Received: {type(content).__name__}.")
    return content
