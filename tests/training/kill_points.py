"""A run of fine-tuning that kills itself with SIGKILL when it has touched the disk so many times.

    python kill_points.py FRAMEWORK START TRAIN DEV OUTPUT KILL_AT

With KILL_AT 0 the run ends, and how often it has touched the disk is printed. Run as a program, so that nothing of a
killed run is cleaned up.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# What Python reports before it opens, makes, renames or removes something.
_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"})


def run(framework: str, start: Path, train: Path, dev: Path, output: Path, kill_at: int) -> int:
    """Train in `output`, or go on there; killed before its `kill_at`-th touch of the disk there.

    Returns:
        how often the disk was touched.
    """
    from rembert.tasks import finetune

    touched = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touched
        if event in _EVENTS and str(arguments[0]).startswith(str(output)):
            touched += 1
            if touched == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    finetune(
        "sequence-classification",
        start,
        train,
        evaluation=dev,
        output=output,
        framework=framework,
        resume=True,
        from_scratch=True,
        batch_size=8,
        epochs=2,
        learning_rate=1e-2,
        dropout=0.1,
        save_steps=2,
        log_steps=1,
        max_length=16,
    )
    return touched


if __name__ == "__main__":
    framework, *paths, kill_at = sys.argv[1:]
    print(run(framework, *map(Path, paths), int(kill_at)))  # type: ignore[arg-type]
