"""A directory that appears complete under its name or not at all, also when the process is killed.

New content is written to `.NAME.rembert-new` beside the target. An old target is renamed to `.NAME.rembert-old`,
the new directory gets its name, and then the old one is removed. After a kill at any step, the next process that
writes to the same target recognises the step by the names: an old directory without a target is restored, an old
directory beside a target is removed, and so is a new directory that no process is writing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rembert.common.errors import InputError
from rembert.common.files import naming_path, sync_directory
from rembert.common.locks import DirectoryLock


@contextmanager
def new_directory(target: Path, *, force: bool, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Give an empty directory, which becomes `target` if the block raises no error; otherwise nothing changes.

    Args:
        target: the new directory. It may exist if it is empty.
        force: replace a directory with content.
        replaceable: whether a directory may be replaced with `force`.

    Raises:
        InputError: `target` exists and may not be replaced, or another process is writing it.
        OSError: the disk is full; names `target`.
    """
    target = target.resolve()
    fresh, old = (target.with_name(f".{target.name}.rembert-{state}") for state in ("new", "old"))
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = _claim(fresh)  # before the names are read: another process may be between its two renames
    try:
        _put_right(target, old)
        _check_target(target, force, replaceable)
        with naming_path(target):
            yield fresh
            sync_directory(fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        sync_directory(target.parent)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        lock.release()
    shutil.rmtree(old, ignore_errors=True)


def _check_target(target: Path, force: bool, replaceable: Callable[[Path], bool]) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise InputError(f"The target must be a directory. Received: {target}, which is a file.")
    if not force:
        raise InputError(f"{target} exists and is not empty. Choose another, or force (--force) its replacement.")
    if not replaceable(target):
        raise InputError(f"{target} is not a checkpoint, so it is not replaced. Choose another target.")


def _put_right(target: Path, old: Path) -> None:
    """Finish or undo what a killed process left."""
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)  # the process that left it may remove it, too
        else:
            old.rename(target)


def _claim(fresh: Path) -> DirectoryLock:
    """Make the working directory, empty it and lock it."""
    while True:
        fresh.mkdir(exist_ok=True)
        lock = DirectoryLock(fresh)
        if not lock.is_held:
            lock.release()
            raise InputError(f"Another process is writing this target: {fresh} is in use.")
        leftovers = list(fresh.iterdir()) if fresh.exists() else []
        for path in leftovers:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if lock.is_of(fresh):
            return lock
        lock.release()  # another process finished between the two steps
