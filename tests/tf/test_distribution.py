"""Training on several devices gives the losses and the weights of training on one."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")


# `compile`'s own losses and Keras' mean of them are float32; the weights after a loop or the head's loss are float64.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "of_losses", "of_weights"),
    [("loop", 1e-12, 1e-14), ("own_loss", 1e-6, 1e-14), ("compiled_loss", 1e-6, 1e-8)],
)
def test_two_devices_train_as_one(way: str, of_losses: float, of_weights: float) -> None:
    (found,) = _run(way, {})
    _check(found, of_losses, of_weights)


@pytest.mark.slow
def test_two_processes_train_as_one() -> None:
    """In a loop; `fit` of Keras 3.15 fails under this strategy."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}} for index in range(2)]
    for found in _run("loop", *({"TF_CONFIG": json.dumps(task)} for task in tasks)):
        _check(found, 1e-12, 1e-14)


def _run(way: str, *settings: dict[str, str]) -> list[dict[str, Any]]:
    """What the program prints in a process for each of several environments, all at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.tf.distributed", way],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **own},
        )
        for own in settings
    ]
    try:
        said = [process.communicate(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in said]


def _check(found: dict[str, Any], of_losses: float, of_weights: float) -> None:
    assert len(found["alone"]) > 2
    assert found["alone"][0] != found["alone"][1]  # it learns, so equal losses mean equal steps
    np.testing.assert_allclose(found["together"], found["alone"], rtol=of_losses)
    assert found["weights"] <= of_weights
