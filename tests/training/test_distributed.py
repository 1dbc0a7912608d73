"""Several processes, or devices, give the losses and the weights of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frameworks import CAN_SHARD_ON_CPUS, needs_pt, needs_shards_on_cpus, needs_tf
from tests.training import distributed_run
from tests.training.runs import farthest, lines, losses, write_start

PARALLEL: dict[str, dict[str, Any]] = {"ddp": {}}
if CAN_SHARD_ON_CPUS:
    PARALLEL["fsdp2"] = {"sharded": True, "accumulation_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to start from, and examples. The last batch has one: none for the second process."""
    folder = tmp_path_factory.mktemp("distributed")
    names, verbs = ("Ada", "Ben", "Eve"), ("lives", "works")
    for use, count, sentences in (("train", 17, 30), ("dev", 5, 5)):
        rows = [
            {
                "tokens": [names[n % 3], verbs[n % 2], *["now"] * (n % 4), "here"],
                "tags": ["B-PER", "O", *["O"] * (n % 4), "O"],
            }
            for n in range(count)
        ]
        (folder / f"{use}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{use}.txt").write_text("".join(f"Ferry {n} leaves from the pier.\n" for n in range(sentences)))
    write_start(folder / "start", num_hidden_layers=1)
    return folder


def _tags(folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    data = {"train": str(folder / "train.jsonl"), "evaluation": str(folder / "dev.jsonl")}
    return {**data, "output": str(output), **changes}


def _text(folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    data = {"train": str(folder / "train.txt"), "evaluation": str(folder / "dev.txt")}
    return {**data, "output": str(output), "task": "masked-lm", "epochs": 1, **changes}


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The result of one process on one device, in PyTorch."""
    distributed_run.fine_tune("pt", str(folder / "start"), **_tags(folder, folder / "alone"))
    return folder / "alone"


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """The output of two processes that make every run in PyTorch; the results are in `folder`."""
    runs = [_tags(folder, folder / name, **changes) for name, changes in PARALLEL.items()]
    if CAN_SHARD_ON_CPUS:
        runs.append(_text(folder, folder / "language", sharded=True))
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_free_port()}"]
    return _run(launcher, "pt", folder, runs)


def _run(launcher: list[str], framework: str, folder: Path, runs: list[dict[str, Any]]) -> str:
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    program = [*launcher, distributed_run.__file__, framework, str(folder / "start"), json.dumps(runs)]
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


@pytest.mark.slow
@needs_pt
@pytest.mark.parametrize("name", ["ddp", pytest.param("fsdp2", marks=needs_shards_on_cpus)])
def test_two_processes(name: str, folder: Path, alone: Path, printed: str) -> None:
    _check_same(folder / name, alone)


@pytest.mark.slow
@needs_pt
def test_every_process_knows_the_scores(printed: str) -> None:
    assert printed.count("eval_accuracy") == 2 * len(PARALLEL)  # each process prints them


@pytest.mark.slow
@needs_pt
@needs_shards_on_cpus
def test_language_model_with_sharded_weights_is_scored(folder: Path, printed: str) -> None:
    run = _text(folder, folder / "language alone")
    distributed_run.fine_tune("pt", str(folder / "start"), **run)
    last, expected = (lines(folder / name)[-1] for name in ("language", "language alone"))
    for name in ("eval_loss", "eval_perplexity", "eval_masked_accuracy"):
        assert last[name] == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.slow
@needs_pt
@needs_tf
def test_two_devices_in_tensorflow(folder: Path, alone: Path) -> None:
    _run([], "tf", folder, [_tags(folder, folder / "devices", devices=["CPU:0", "CPU:1"])])
    _check_same(folder / "devices", alone)
