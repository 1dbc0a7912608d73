"""Which directories `run_xtreme` starts in and resumes. Training and prediction are replaced by fixed labels."""

from __future__ import annotations

import json
import resource
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rembert.common.errors import InputError
from rembert.common.locks import DirectoryLock
from rembert.training import run as training_run
from rembert.xtreme import run_xtreme, running
from tests.frameworks import needs_pt
from tests.xtreme.data import write_benchmark

pytestmark = needs_pt  # the framework that a run trains in by default

_GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden" / "model"


class _Labels:
    """A predictor that always writes the same."""

    text = "0\n"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        pass

    def write(self, data: Path, languages: Any, target: Any) -> Iterator[Path]:
        for task, codes in languages.items():
            for code in codes:
                path = target(task, code)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.text)
                yield path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a benchmark and a checkpoint to start from."""
    write_benchmark(tmp_path)
    (tmp_path / "start").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(_GOLDEN / name, tmp_path / "start")
    monkeypatch.setattr(running, "finetune", lambda *arguments, **settings: {})
    monkeypatch.setattr(running, "Predictor", _Labels)
    return tmp_path


def start(root: Path, *, resume: bool = False, tasks: tuple[str, ...] = ("pawsx",)) -> None:
    run_xtreme(root / "download", root / "start", output=root / "out", tasks=tasks, languages=["de"], resume=resume)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_file_was_whole_starts_again(root: Path, resume: bool) -> None:
    (root / "out").mkdir()
    (root / "out" / ".xtreme.json.a1b2c3d4.tmp").write_text('{"data"')
    start(root, resume=resume)
    assert {path.name for path in (root / "out").iterdir()} == {
        *("xtreme.json", "examples", "predictions", "submission.zip")
    }


@pytest.mark.parametrize("exists", [False, True])
def test_the_directory_is_checked_after_it_is_locked(
    root: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = root / "out"
    if exists:
        out.mkdir()

    def lock_after_another_run(directory: Path) -> DirectoryLock:
        (directory / "xtreme.json").write_text("{}")
        return DirectoryLock(directory)

    for module in (running, training_run):
        monkeypatch.setattr(module, "DirectoryLock", lock_after_another_run, raising=False)
    with pytest.raises(InputError, match=r"another process has written|new or empty directory"):
        start(root)
    assert [path.name for path in out.iterdir()] == ["xtreme.json"]
    held = DirectoryLock(out)  # which the refused run has released
    assert held.is_held
    held.release()


@pytest.mark.parametrize("name", ["download/pawsx/test-de.tsv", "download/pawsx/train-en.tsv", "start/config.json"])
def test_a_run_is_resumed_with_the_files_that_it_began_with(root: Path, name: str) -> None:
    start(root)
    before = (root / "out" / "xtreme.json").read_bytes()
    changed = root / name
    kept = changed.read_bytes()
    changed.write_bytes(kept + b"\n")
    named = "start" if name.startswith("start") else name
    with pytest.raises(InputError, match=rf"files that it began with. Received other content in .*{named} "):
        start(root, resume=True)
    assert (root / "out" / "xtreme.json").read_bytes() == before
    changed.write_bytes(kept)  # at another time: the content counts
    start(root, resume=True)
    assert (root / "out" / "xtreme.json").read_bytes() == before


def test_added_tasks_add_their_files(root: Path) -> None:
    start(root)
    start(root, resume=True, tasks=("xnli",))
    (root / "download" / "pawsx" / "test-de.tsv").write_text("another\trow\n")
    with pytest.raises(InputError, match="Received other content"):
        start(root, resume=True, tasks=("xnli", "pawsx"))


def test_a_run_without_digests_is_refused(root: Path) -> None:
    start(root)
    path = root / "out" / "xtreme.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "digests": 5}))
    with pytest.raises(InputError, match=r"xtreme\.json must hold the digests .* Received: 5"):
        start(root, resume=True)


@pytest.mark.parametrize(("limit", "file"), [(10, "xtreme.json"), (1800, "submission.zip")])
def test_a_run_continues_after_a_full_disk(root: Path, limit: int, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Labels, "text", secrets.token_hex(850))  # two of them, packed, have more than the limit
    tasks = ("pawsx", "xnli")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: .*{file}"):
            start(root, tasks=tasks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out = root / "out"
    assert [path for path in out.rglob("*") if path.name.endswith(".tmp")] == []
    assert out.exists() == (file != "xtreme.json")
    start(root, resume=True, tasks=tasks)
    assert (out / "submission.zip").is_file()
