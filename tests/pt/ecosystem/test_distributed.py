"""Two processes under torchrun give the losses and weights of one: DDP, FSDP2, and DDP through accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_gloo_available():
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

from tests.frameworks import CAN_SHARD_ON_CPUS, PT, needs_shards_on_cpus  # noqa: E402
from tests.pt.ecosystem.distributed_worker import NAMES, alone  # noqa: E402

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("distributed_worker.py")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _run(*arguments: object) -> None:
    # Both processes talk over the machine's own interface, wherever its name would be looked up.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-m", *TORCHRUN, str(WORKER), *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def _same_as_alone(head: str, way: str, directory: Path) -> None:
    losses, model = alone(head)
    assert losses[0] != losses[-1]
    assert json.loads((directory / f"{way}.json").read_text()) == pytest.approx(losses, rel=1e-5)
    saved = PT.load(directory / way, head)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(dict(saved.named_parameters())[name], parameter, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_under_torchrun(tmp_path: Path) -> None:
    ways = ("ddp", "fsdp") if CAN_SHARD_ON_CPUS else ("ddp",)
    _run(tmp_path, "sequence-classification", *ways)
    for way in ways:
        _same_as_alone("sequence-classification", way, tmp_path)


@needs_shards_on_cpus
@pytest.mark.slow
def test_a_language_model_under_torchrun(tmp_path: Path) -> None:
    _run(tmp_path, "masked-lm", "ddp", "fsdp")
    for way in ("ddp", "fsdp"):
        _same_as_alone("masked-lm", way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("head", NAMES)
def test_two_processes_through_accelerate(head: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    _run(tmp_path, head, "accelerate")
    _same_as_alone(head, "accelerate", tmp_path)
