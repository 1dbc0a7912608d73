"""Training over two nodes: two network namespaces of this machine, joined by a cable of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frameworks import needs_pt
from tests.training import distributed_run
from tests.training.runs import farthest, losses, write_start
from tests.training.test_distributed import PARALLEL

pytestmark = [needs_pt, pytest.mark.slow]
NODES = {f"rembert-{os.getpid()}-{number}": f"10.77.0.{number}" for number in (1, 2)}
PORT, SECONDS = 29500, 300
EPOCHS = 12


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Two namespaces with a pair of virtual interfaces."""
    if shutil.which("ip") is None or not all(_ip("netns", "add", name) for name in NODES):
        pytest.skip("network namespaces need `ip` and the right to make them")
    first, second = NODES
    assert _ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
    for name, address in NODES.items():
        assert _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
        assert _ip("-n", name, "link", "set", "cable", "up")
        assert _ip("-n", name, "link", "set", "lo", "up")
    yield
    for name in NODES:
        _ip("netns", "delete", name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    rows = [
        {"tokens": ["Ada", "lives", *["now"] * (n % 4)], "tags": ["B-PER", "O", *["O"] * (n % 4)]} for n in range(17)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_start(folder / "start", num_hidden_layers=1)
    return folder


def settings(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    data = {"train": str(folder / "train.jsonl"), "evaluation": str(folder / "train.jsonl")}
    return {**data, "output": str(folder / name), "epochs": EPOCHS, "save_steps": 1, **changes}


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The result of one process."""
    distributed_run.fine_tune("pt", str(folder / "start"), **settings(folder, "alone"))
    return folder / "alone"


def start(folder: Path, run: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """`torchrun` on both nodes, each with one process."""
    (master, *_) = NODES.values()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "cable",
    }
    program = [distributed_run.__file__, "pt", str(folder / "start"), json.dumps([run])]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--master_addr={master}"]
    torchrun.append(f"--master_port={PORT}")
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *torchrun, f"--node_rank={rank}", *program],
            env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for rank, name in enumerate(NODES)
    ]  # fmt: skip


def kill(node: str) -> None:
    """Everything that runs on a node, at once."""
    for pid in subprocess.run(["ip", "netns", "pids", node], capture_output=True, text=True).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def wait_for_updates(output: Path, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while not (output / "metrics.jsonl").is_file() or len(losses(output)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", PARALLEL)
def test_a_node_is_killed_and_the_run_resumed(kind: str, folder: Path, alone: Path) -> None:
    run, output = settings(folder, kind, **PARALLEL[kind], timeout=120), folder / kind
    nodes = start(folder, run)
    try:
        wait_for_updates(output, 4)
        kill(list(NODES)[1])
        assert nodes[0].wait(SECONDS) != 0
        assert len(losses(output)) < len(losses(alone))
    finally:
        for name, process in zip(NODES, nodes, strict=True):
            kill(name)
            process.wait()
    nodes = start(folder, {**run, "resume": True})
    assert [node.wait(SECONDS) for node in nodes] == [0, 0]
    np.testing.assert_allclose(losses(output), losses(alone), rtol=1e-9)
    assert farthest(output, alone) < 1e-8


@pytest.mark.parametrize("kind", PARALLEL)
def test_a_node_that_is_cut_off_ends_the_run_in_time(kind: str, folder: Path) -> None:
    """A node that loses its network or its power ends no connection: the others would wait for half an hour."""
    run, output = settings(folder, f"{kind}-cut", **PARALLEL[kind], timeout=60), folder / f"{kind}-cut"
    second = list(NODES)[1]
    nodes = start(folder, run)
    try:
        wait_for_updates(output, 3)
        assert _ip("-n", second, "link", "set", "cable", "down")
        assert nodes[0].wait(SECONDS) != 0
    finally:
        for name, process in zip(NODES, nodes, strict=True):
            kill(name)
            process.wait()
        _ip("-n", second, "link", "set", "cable", "up")
