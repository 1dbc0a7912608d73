"""Runs of fine-tuning by several processes, or several devices of TensorFlow; see `test_distributed`.

python distributed_run.py FRAMEWORK START RUNS

RUNS is a JSON list: for each run `train`, `evaluation` and `output`, and other settings that differ from those below.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def fine_tune(framework: str, start: str, **settings: Any) -> dict[str, float]:
    """The scores of one run in float64."""
    from rembert.tasks import finetune

    defaults = {"task": "token-classification", "epochs": 2, "batch_size": 8, "log_steps": 1, "learning_rate": 1e-2}
    settings = {**defaults, **settings}
    task, train = settings.pop("task"), settings.pop("train")
    return finetune(task, start, train, framework=framework, from_scratch=True, precision="float64", **settings)


def main(framework: str, start: str, runs: list[dict[str, Any]]) -> None:
    for number, run in enumerate(runs):
        if run.get("devices"):
            _make_devices(len(run["devices"]))
        if number == 1:
            _join(Path(run["output"]).with_suffix(".meeting"))
        print(json.dumps(fine_tune(framework, start, **run)), flush=True)
    if len(runs) > 1:
        _leave()


def _make_devices(count: int) -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _join(meeting: Path) -> None:
    """Join the other processes again. The group that torchrun prepares can be joined once: the first run left it."""
    import torch.distributed as dist

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)


def _leave() -> None:
    """Leave the group together with the other processes, and end.

    A thread of the group that asks for the interpreter while it shuts down aborts the process, though every result is
    written by then: this happened once in some fifty runs.
    """
    import torch.distributed as dist

    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    framework, start, runs = sys.argv[1:]
    main(framework, start, json.loads(runs))
