"""Several processes, or devices, give the losses and the weights of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.frameworks import needs_pt, needs_tf
from tests.training.runs import farthest, lines, losses, write_start

PROGRAM = Path(__file__).parent / "distributed_run.py"
Begun = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A start, and examples of which the last batch has one: the second process has none of it."""
    folder = tmp_path_factory.mktemp("distributed")
    names, verbs = ("Ada", "Ben", "Eve"), ("lives", "works")
    for use, count in (("train", 17), ("dev", 5)):
        rows = [
            {
                "tokens": [names[n % 3], verbs[n % 2], *["now"] * (n % 4), "here"],
                "tags": ["B-PER", "O", *["O"] * (n % 4), "O"],
            }
            for n in range(count)
        ]
        (folder / f"{use}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_start(folder / "start"), folder / "train.jsonl", folder / "dev.jsonl"


@pytest.fixture(scope="module")
def alone(begun: Begun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one process on one device, in PyTorch."""
    output = tmp_path_factory.mktemp("alone") / "run"
    _run([sys.executable], "pt", begun, output)
    return output


def _run(launcher: list[str], framework: str, begun: Begun, output: Path, **changes: object) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    arguments = [str(PROGRAM), framework, *map(str, begun), str(output), json.dumps(changes)]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _torchrun() -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}"]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _check_same(output: Path, alone: Path) -> None:
    np.testing.assert_allclose(losses(output), losses(alone), rtol=1e-10)
    assert len(losses(output)) == 6
    assert farthest(output, alone) < 1e-9
    last, expected = lines(output)[-1], lines(alone)[-1]
    for name, value in expected.items():
        if name != "train_seconds":
            assert last[name] == pytest.approx(value, rel=1e-9), name


@needs_pt
@pytest.mark.parametrize("changes", [{}, {"sharded": True, "accumulation_steps": 2}], ids=["ddp", "fsdp2"])
def test_two_processes(changes: dict[str, object], begun: Begun, alone: Path, tmp_path: Path) -> None:
    printed = _run(_torchrun(), "pt", begun, tmp_path / "run", **changes)
    _check_same(tmp_path / "run", alone)
    assert printed.count("eval_accuracy") == 2  # both know the scores, one has written them


@needs_pt
def test_a_language_model_is_scored_where_its_weights_are_spread(begun: Begun, tmp_path: Path) -> None:
    train, dev = tmp_path / "train.txt", tmp_path / "dev.txt"
    for path, count in ((train, 30), (dev, 5)):
        path.write_text("".join(f"Ferry {number} leaves from the pier.\n" for number in range(count)))
    texts = (begun[0], train, dev)
    _run([sys.executable], "pt", texts, tmp_path / "alone", task="masked-lm", epochs=1)
    _run(_torchrun(), "pt", texts, tmp_path / "run", task="masked-lm", epochs=1, sharded=True)
    last, expected = (lines(tmp_path / name)[-1] for name in ("run", "alone"))
    for name in ("eval_loss", "eval_perplexity", "eval_masked_accuracy"):
        assert last[name] == pytest.approx(expected[name], rel=1e-6), name


@needs_pt
@needs_tf
def test_two_devices_in_tensorflow(begun: Begun, alone: Path, tmp_path: Path) -> None:
    _run([sys.executable], "tf", begun, tmp_path / "run", devices=["CPU:0", "CPU:1"])
    _check_same(tmp_path / "run", alone)
