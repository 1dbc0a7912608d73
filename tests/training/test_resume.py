"""A killed run resumes to the result of an uninterrupted one; a full disk harms nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rembert.common.errors import InputError
from rembert.tasks import finetune
from rembert.training.checkpoints import Checkpoints
from tests.amounts import KILLS
from tests.frameworks import needs_pt, needs_tf
from tests.training import kill_points
from tests.training.runs import digest, lines, write_examples, write_start


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint to start from, examples to train on, and examples to evaluate on."""
    folder = tmp_path_factory.mktemp("resume")
    return (
        write_start(folder / "start", num_hidden_layers=1),
        write_examples(folder / "train.jsonl", 29),
        write_examples(folder / "dev.jsonl", 9),
    )


def _check_kills(framework: str, files: tuple[Path, Path, Path], folder: Path, points: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, kill_points.__file__, framework, *map(str, files), str(folder), str(points)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    accesses, *runs = done.stdout.splitlines()
    assert int(accesses) > 100
    assert len(runs) == points
    expected = digest(folder / "whole")
    for number, *signals in map(str.split, runs):
        assert signals == [str(int(signal.SIGKILL)), "0"]
        assert digest(folder / number) == expected, number
        assert not (folder / number / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("framework", [pytest.param("pt", marks=needs_pt), pytest.param("tf", marks=needs_tf)])
def test_killed_runs_resume_to_the_same_result(framework: str, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _check_kills(framework, files, tmp_path, KILLS)


@needs_pt
def test_a_full_disk_leaves_the_last_checkpoint(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, train, dev = files
    whole, full = tmp_path / "whole", tmp_path / "full"
    arguments = {"evaluation": dev, "from_scratch": True, "batch_size": 8, "save_steps": 2, "log_steps": 1}
    finetune("sequence-classification", start, train, output=whole, **arguments)
    from rembert.training import checkpoints

    write, count = checkpoints.safetensors.write, 0

    def fails_at_the_sixth(path: Path, *rest: object) -> None:
        nonlocal count
        count += 1
        write(path, *rest)
        if count == 6:  # weights and optimizer of the third checkpoint
            path.write_bytes(path.read_bytes()[:1000])  # what fitted
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.safetensors, "write", fails_at_the_sixth)
    with pytest.raises(OSError, match="No space left"):
        finetune("sequence-classification", start, train, output=full, **arguments)
    kept = Checkpoints(full)
    assert kept.newest().step == 4
    assert sorted(path.name for path in kept.folder.iterdir())[-1] == "step-00000004"
    finetune("sequence-classification", start, train, output=full, resume=True, **arguments)
    assert digest(full) == digest(whole)


@needs_pt
def test_a_run_is_resumed_with_its_own_settings_only(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    start, train, _ = files
    output = tmp_path / "run"
    arguments = {"output": output, "from_scratch": True, "max_steps": 2}
    first = finetune("sequence-classification", start, train, **arguments)
    with pytest.raises(InputError, match=r"new or empty directory.*--resume"):
        finetune("sequence-classification", start, train, **arguments)
    with pytest.raises(InputError, match=r"learning_rate was 1e-05, now 0\.002"):
        finetune("sequence-classification", start, train, **arguments, resume=True, learning_rate=2e-3)
    with pytest.raises(InputError, match=r"options was .*'label_separator': None"):
        finetune("sequence-classification", start, train, **arguments, resume=True, options={"label_separator": ","})
    edited = tmp_path / train.name
    edited.write_text(train.read_text(encoding="utf-8").replace("soup", "stew"), encoding="utf-8")
    with pytest.raises(InputError, match="data was "):
        finetune("sequence-classification", start, edited, **arguments, resume=True)
    before = (output / "model.safetensors").stat().st_mtime_ns
    assert finetune("sequence-classification", start, train, **arguments, resume=True) == first
    assert (output / "model.safetensors").stat().st_mtime_ns == before
    assert "train_seconds" in lines(output)[-1]
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="`output` must"):
            finetune("sequence-classification", start, train, output=other, from_scratch=True, resume=resume)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
