"""Training on several devices gives the losses and the weights of training on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.tf.distributed", way],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["alone"]) > 2
    assert found["alone"][0] != found["alone"][1]  # it learns, so equal losses mean equal steps
    np.testing.assert_allclose(found["together"], found["alone"], rtol=of_losses)
    assert found["weights"] <= of_weights
