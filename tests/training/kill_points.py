"""A run of fine-tuning that kills itself with SIGKILL at a given access to the disk.

    python kill_points.py FRAMEWORK START TRAIN DEV FOLDER POINTS

Each run is a forked child, which has the framework imported already. It is a program so that nothing cleans up after a
killed run, and no test kills its own process.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

# The audit events that Python raises before it opens, makes, renames or removes something.
_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"})
# With the trainers, what a first update and a first report import.
_REPORTS = ("matplotlib.backends.backend_agg", "tensorboard.summary.writer.record_writer")
_IMPORTED = {
    "pt": ("rembert.training.pt_trainer", "torch._dynamo", *_REPORTS),
    "tf": ("rembert.training.tf_trainer", *_REPORTS),
}


def run(framework: str, start: Path, train: Path, dev: Path, output: Path, kill_at: int) -> int:
    """Train in `output`, or resume there; killed before its access number `kill_at` to the disk there.

    Returns:
        The number of accesses.
    """
    from rembert.tasks import finetune

    accesses = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal accesses
        if event in _EVENTS and str(arguments[0]).startswith(str(output)):
            accesses += 1
            if accesses == kill_at:
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
    return accesses


def run_in_forks(framework: str, start: Path, train: Path, dev: Path, folder: Path, points: int) -> None:
    """An uninterrupted run, and runs killed at `points` accesses and resumed, each in a forked child.

    Prints the number of accesses of the uninterrupted run; then for each killed run the access, the signal that ended
    the run, and the signal, or 0, that ended the resumed run.
    """
    # Imported once here, not by every run. TensorFlow must not compute before it is forked, so nothing runs here.
    for module in _IMPORTED[framework]:
        with suppress(ImportError):
            import_module(module)
    if framework == "tf":
        import_module("tensorflow").config.run_functions_eagerly(True)  # tracing would take most of a short run
    count = folder / "count"

    def run_in_a_fork(output: Path, kill_at: int) -> int:
        def work() -> None:
            count.write_text(str(run(framework, start, train, dev, output, kill_at)))

        return _in_a_fork(work)

    run_in_a_fork(folder / "whole", 0)
    accesses = int(count.read_text())
    print(accesses, flush=True)
    # The first accesses, before there is a run to resume, and some of the others.
    first = (1, 2, 3, 4)[: points // 2]
    others = random.Random(accesses).sample(range(5, accesses + 1), points - len(first))
    for number in (*first, *sorted(others)):
        print(number, *(run_in_a_fork(folder / str(number), kill_at) for kill_at in (number, 0)), flush=True)


def _in_a_fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process and return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as problem:
            print(repr(problem), file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    framework, start, train, dev, folder, points = sys.argv[1:]
    run_in_forks(framework, Path(start), Path(train), Path(dev), Path(folder), int(points))
