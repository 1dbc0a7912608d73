"""Several files of a directory that change together, also when the process is killed between two of them.

All new files are written under temporary names first. Then a journal, `.rembert-save.json`, says which temporary file
gets which name and which files are removed; from the moment it appears, the save counts. The changes are made, and the
journal is removed. A reader that finds a journal finishes its changes before it reads anything.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import Group, read_json, sync_directory, write_json
from rembert.common.locks import DirectoryLock

JOURNAL = ".rembert-save.json"
_PATIENCE = 60.0  # seconds to wait for another process that changes names
_PAUSE = 0.02  # seconds
_THREADS = threading.Lock()


@contextmanager
def saved_together(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Have everything that the block writes into `directory` with `atomic_path` appear at once when it ends well.

    When the block raises, nothing has changed. Blocks may be nested: the outermost one makes the changes.

    Raises:
        InputError: another process keeps the directory locked.
        CheckpointError: the journal of an interrupted save cannot be used.
    """
    path = Path(directory).resolve()
    active = Group.active.get()
    if active is not None and active.directory == path:
        yield
        return
    finish_save(path)
    group = Group(path)
    try:
        token = Group.active.set(group)
        try:
            yield
        finally:
            Group.active.reset(token)
        _commit(group)
    finally:
        group.close()


def finish_save(directory: Path) -> None:
    """Make the changes that a killed process has left in the journal of `directory`, if there is one.

    Raises:
        InputError: another process keeps the directory locked.
        CheckpointError: the journal is damaged, or files cannot be renamed here.
    """
    journal = directory / JOURNAL
    if not journal.exists():
        return
    try:
        with _locked(directory):
            if journal.exists():
                renamed, removed = _read_journal(journal)
                _make_changes(directory, _not_replaced_since(journal, renamed), removed)
    except OSError as problem:
        raise CheckpointError(
            f"{directory}: a save was interrupted while its files were renamed, and cannot be finished here. Make the "
            f"directory writable and load it again. Received: {problem}"
        ) from problem


def _commit(group: Group) -> None:
    renamed = {temporary.name: name for name, (temporary, _) in group.new.items()}
    removed = [name for name in group.removed if name not in group.new]
    if not renamed:
        return
    with _locked(group.directory):
        write_json(group.directory / JOURNAL, {"rename": renamed, "remove": removed})
        group.is_committed = True  # whatever is raised from here on, the next reader makes the changes
        sync_directory(group.directory)
        _make_changes(group.directory, renamed, removed)


def _make_changes(directory: Path, renamed: dict[str, str], removed: list[str]) -> None:
    """Rename and remove files, then remove the journal. Repeating it after an interruption does the rest."""
    for temporary, name in renamed.items():
        if (directory / temporary).exists():
            (directory / temporary).replace(directory / name)
    for name in removed:
        (directory / name).unlink(missing_ok=True)
    sync_directory(directory)
    (directory / JOURNAL).unlink()


def _not_replaced_since(journal: Path, renamed: dict[str, str]) -> dict[str, str]:
    """The changes without files that another program has written since the interruption: those stay."""
    written = journal.stat().st_mtime_ns
    kept = {}
    for temporary, name in renamed.items():
        target = journal.with_name(name)
        if target.exists() and target.stat().st_mtime_ns > written:
            journal.with_name(temporary).unlink(missing_ok=True)
        else:
            kept[temporary] = name
    return kept


def _read_journal(journal: Path) -> tuple[dict[str, str], list[str]]:
    content = read_json(journal, CheckpointError)
    renamed = content.get("rename") if isinstance(content, dict) else None
    removed = content.get("remove") if isinstance(content, dict) else None
    if (
        not isinstance(renamed, dict)
        or not isinstance(removed, list)
        or not all(map(_is_plain_name, [*renamed.values(), *removed]))
        or not all(
            _is_plain_name(key) and key.startswith(f".{name}.") and key.endswith(".tmp")
            for key, name in renamed.items()
        )
    ):
        raise CheckpointError(f"{journal} must be the journal of a save. Received other content: {content!r:.200}.")
    return renamed, removed


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not any(part in name for part in "/\\:\0")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """The lock of `directory`, which others hold only while they rename their files.

    A process that has locked a whole directory, as `convert` does, goes on.
    """
    with _THREADS:
        if DirectoryLock.is_own(directory):
            yield
            return
        end = time.monotonic() + _PATIENCE
        while not (lock := DirectoryLock(directory)).is_held:
            lock.release()
            if time.monotonic() > end:
                raise InputError(
                    f"Another process has locked {directory} for {_PATIENCE:.0f} seconds. Try again later."
                )
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            lock.release()
