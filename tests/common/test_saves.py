"""A save of several files is seen whole or not at all, also when the process is killed between two of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert import RemBertConfig, RemBertTokenizer
from rembert.bridge import open_checkpoint, save_checkpoint
from rembert.common import saves
from rembert.common.errors import CheckpointError
from rembert.common.files import temporary_directory, write_json, write_text
from rembert.common.locks import DirectoryLock
from rembert.common.parameters import parameters
from rembert.common.saves import JOURNAL, finish_save, saved_together
from tests.common.tokenizer_cases import MODEL
from tests.frameworks import needs_pt, small_config

_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"})


def _save(directory: Path, value: int, to: str, size: int | None) -> None:
    """A checkpoint whose weights are all `value`, and whose configuration says so too."""
    config = small_config(initializer_range=float(value))
    tensors = {
        name: np.full(parameter.shape, value, np.float32) for name, parameter in parameters(config, "model").items()
    }
    save_checkpoint(directory, tensors, config, to=to, head="model", max_shard_size=size)


def _values(directory: Path) -> set[float]:
    """Every value of the weights and of the configuration, as a reader finds them."""
    with open_checkpoint(directory) as checkpoint:
        assert checkpoint.config is not None
        weights = {float(value) for name in checkpoint.tensors for value in np.unique(checkpoint.read(name))}
        return weights | {checkpoint.config.initializer_range}


def _in_a_fork(work: Callable[[], None]) -> int:
    """The signal that ended `work` in a child process, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _killed_at(step: int, directory: Path, work: Callable[[], None]) -> int:
    def run() -> None:
        accesses = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal accesses
            if event in _EVENTS and str(directory) in str(arguments[0]):
                accesses += 1
                if accesses == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work()

    return _in_a_fork(run)


@pytest.mark.parametrize(
    ("to", "before", "after"),
    [
        ("pt", None, None),
        pytest.param("pt", 5_000, 5_000, marks=pytest.mark.slow),
        pytest.param("pt", 5_000, None, marks=pytest.mark.slow),
        pytest.param("pt", None, 5_000, marks=pytest.mark.slow),
        pytest.param("tf", 5_000, 5_000, marks=pytest.mark.slow),
        pytest.param("keras", None, None, marks=pytest.mark.slow),
        pytest.param("torch-bin", 5_000, 5_000, marks=[needs_pt, pytest.mark.slow]),
    ],
)
def test_a_save_killed_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, to: str, before: int | None, after: int | None
) -> None:
    old, target = tmp_path / "old", tmp_path / "target"
    _save(old, 1, to, before)
    seen, step = set(), 0
    while True:
        step += 1
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(old, target)
        if _killed_at(step, target, lambda: _save(target, 2, to, after)) == 0:
            break
        found = _values(target)
        assert found in ({1.0}, {2.0}), step
        seen |= found
        assert not (target / JOURNAL).exists()
        _save(target, 3, to, after)
        assert _values(target) == {3.0}
        assert not [path.name for path in target.iterdir() if path.name.startswith(".")], step
    assert step > 8
    assert seen == {1.0, 2.0}
    assert _values(target) == {2.0}


def test_an_interrupt_between_two_renames_mixes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own cleaning up runs then, which it does not after a kill."""
    _save(tmp_path, 1, "pt", 5_000)
    replace, count = Path.replace, 0

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal count
        count += target.name != JOURNAL
        if count == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _save(tmp_path, 2, "pt", 5_000)
    monkeypatch.undo()
    assert (tmp_path / JOURNAL).exists()
    assert _values(tmp_path) == {2.0}
    assert not list(tmp_path.glob(".*"))


def test_a_save_replaces_files_from_the_future(tmp_path: Path) -> None:
    """The clock of another machine may be ahead of this one."""
    _save(tmp_path, 1, "pt", None)
    for path in tmp_path.iterdir():
        os.utime(path, (path.stat().st_mtime + 10_000,) * 2)
    _save(tmp_path, 2, "pt", None)
    assert _values(tmp_path) == {2.0}


def test_a_reader_of_one_file_finishes_the_save_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 1, "pt", None)

    def killed() -> None:
        monkeypatch.setattr(saves, "_make_changes", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        _save(tmp_path, 2, "pt", None)

    assert _in_a_fork(killed) == signal.SIGKILL
    assert _values(tmp_path / "model.safetensors") == {2.0}


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    _save(tmp_path, 1, "pt", 5_000)

    def fill() -> None:
        with saved_together(tmp_path):
            _save(tmp_path, 2, "pt", None)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert _values(tmp_path) == {1.0}
    assert not list(tmp_path.glob(".*"))


def test_a_tokenizer_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (RemBertTokenizer(MODEL, model_max_length=length) for length in (7, 9))
    first.add_tokens(["one"])
    second.add_tokens(["two"], special_tokens=True)
    first.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write(target: str, content: Any) -> None:
        if Path(target).name == "special_tokens_map.json":
            raise KeyboardInterrupt
        write_json(target, content)

    with monkeypatch.context() as patch:
        patch.setattr("rembert.common.tokenization.tokenizer.write_json", write)
        with pytest.raises(KeyboardInterrupt):
            second.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    RemBertTokenizer(MODEL).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before.keys() - {"added_tokens.json"}


def test_what_another_program_wrote_after_a_kill_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")

    def killed() -> None:
        monkeypatch.setattr(saves, "_make_changes", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with saved_together(tmp_path):
            write_text(tmp_path / "a", "new")
            write_text(tmp_path / "b", "new")

    assert _in_a_fork(killed) == signal.SIGKILL
    later = (tmp_path / JOURNAL).stat().st_mtime_ns + 10**9
    (tmp_path / "a").write_text("by another")
    os.utime(tmp_path / "a", ns=(later, later))
    finish_save(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "by another", "b": "new"}


@pytest.mark.parametrize(
    "content",
    [
        5,
        {"rename": {}, "remove": ["../x"]},
        {"rename": {".a.1.tmp": "b"}, "remove": []},
        {"rename": {"a.tmp": "a"}, "remove": []},
        {"rename": {"..%2f.a.tmp": "/etc/a"}, "remove": []},
        {"rename": [], "remove": []},
    ],
)
def test_a_journal_of_other_content_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / JOURNAL).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="must be the journal of a save"):
        RemBertConfig.from_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


def test_savers_take_turns(tmp_path: Path) -> None:
    """The last save wins as a whole."""
    threads = [threading.Thread(target=_save, args=(tmp_path, value, "pt", 5_000)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_values(tmp_path)) == 1
    assert not list(tmp_path.glob(".*"))
    lock = DirectoryLock(tmp_path)
    assert lock.is_held
    lock.release()


def test_temporary_directories_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an unpacked metric or of an upload hold gigabytes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def killed() -> None:
        with temporary_directory("trim") as directory:
            (directory / "inner").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

    assert _in_a_fork(killed) == signal.SIGKILL
    [dead] = tmp_path.iterdir()
    with temporary_directory("other"):
        assert dead.exists()
    with temporary_directory("trim") as first, temporary_directory("trim") as second:
        assert {*tmp_path.iterdir()} == {first, second}
    assert not list(tmp_path.iterdir())
