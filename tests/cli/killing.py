"""Kills commands with SIGKILL at random moments and runs them again; a program, so that no test forks its own process.

    python -m tests.cli.killing COMMAND FOLDER POINTS

Every other kill comes at a random access to the disk, where names change, the others at a random time. Prints a line
for each kill: `old` or `new` for what was there afterwards (`ended` if the command was faster, `between` if the target
had no name between two renames), or `wrong` and why.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rembert import RemBertConfig
from rembert.bridge import open_checkpoint
from rembert.cli.main import main
from rembert.tasks import batching
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import PT, TF, random_weights, small_config
from tests.training.runs import write_start

_EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"})
_TEXTS = [f"The train and the bus {'again ' * (number % 5)}{number}" for number in range(40)]

Work = Callable[[], object]
Read = Callable[[Path], Any]


def checkpoint(directory: Path) -> Any:
    """Every value of the weights, and the configuration."""
    with open_checkpoint(directory) as opened:
        assert opened.config is not None
        values = {name: np.array(opened.read(name)) for name in sorted(opened.tensors)}
        return [opened.config.initializer_range, opened.config.vocab_size, *values, *values.values()]


def numbers(path: Path) -> Any:
    """The vectors, the scores, or the probabilities of predictions in a file."""
    if path.read_bytes()[:6] == b"\x93NUMPY":
        return [np.load(path)]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [np.array([list(each["scores"].values()) if isinstance(each, dict) else [each] for each in found])]


def same(one: Any, other: Any) -> bool:
    """Whether two contents are the same; the numbers of other batches may differ in their last digits."""
    return len(one) == len(other) and all(
        np.shape(a) == np.shape(b) and (np.allclose(a, b, atol=1e-5) if isinstance(a, np.ndarray) else a == b)
        for a, b in zip(one, other, strict=True)
    )


def forked(work: Work, after: float | None = None) -> int:
    """Run `work` in a child, killed after some seconds; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(0 if not work() else 1)
        except BaseException as problem:
            print(repr(problem), file=sys.stderr, flush=True)
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)  # a child that has ended waits to be seen
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the command failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def watched(work: Work, folder: Path, count: Path | None = None, kill_at: int = 0) -> Work:
    """`work`, killed at an access to the disk in `folder`, or counting them into a file."""

    def run() -> object:
        accesses = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal accesses
            if event in _EVENTS and str(folder) in str(arguments[0]):
                accesses += 1
                if accesses == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        result = work()
        if count is not None:
            count.write_text(str(accesses))
        return result

    return run


def attempt(work: Work, read: Read, target: Path, contents: tuple[Any, Any], after: float | None) -> str:
    """Kill once, look at what is there, and run again."""
    old, new = contents
    ended = forked(work, after)
    if not target.exists():
        return "between"
    found = read(target)
    state = "new" if same(found, new) else "old" if same(found, old) else "wrong: mixed"
    if ended == 0 and after is None:
        state = "ended" if state == "new" else f"wrong: {state}"
    return state


def kill_at_random(work: Work, read: Read, before: Path, target: Path, points: int) -> None:
    """All kills of one command; `before` is a copy of what is at `target` at first."""
    count = target.parent.parent / "count"

    def restore() -> None:
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        (shutil.copytree if before.is_dir() else shutil.copyfile)(before, target)

    restore()
    forked(watched(work, target.parent, count))
    started = time.monotonic()
    forked(work)
    seconds, accesses = time.monotonic() - started, int(count.read_text())
    contents, names = (read(before), read(target)), sorted(path.name for path in target.parent.rglob("*"))
    assert not same(*contents)
    print(f"{accesses} accesses", flush=True)
    chance = random.Random(points)
    for number in range(points):
        restore()
        if number % 2:
            state = attempt(work, read, target, contents, chance.uniform(0, seconds))
        else:
            kill_at = chance.randint(1, accesses)
            state = attempt(watched(work, target.parent, kill_at=kill_at), read, target, contents, None)
        forked(work)
        if not same(read(target), contents[1]):
            state = "wrong: the same command ended with something else"
        if (left := sorted(path.name for path in target.parent.rglob("*"))) != names:
            state = f"wrong: left behind {sorted(set(left) - set(names))}"
        print(state, flush=True)


# ---------------------------------------------------------------------- commands


def saving(name: str, folder: Path) -> tuple[Work, Read, Path]:
    """`save_pretrained` of a framework, in one file or in shards, over an older checkpoint."""
    _, framework_name, kind = name.split("-")
    framework = PT if framework_name == "pt" else TF
    size = "20KB" if kind == "sharded" else "5GB"

    def save(value: float, directory: Path) -> None:
        settings = small_config(initializer_range=value)
        model = framework.build(settings, "model")
        weights = random_weights(settings, "model", dtype="float32")
        framework.set_weights(model, {name: np.full_like(array, value) for name, array in weights.items()})
        model.save_pretrained(directory, max_shard_size=size)

    forked(lambda: save(1.0, folder / "before"))  # in a child: TensorFlow cannot be forked once it has computed
    return lambda: save(2.0, folder / "out" / "target"), checkpoint, folder / "before"


def running(name: str, folder: Path) -> tuple[Work, Read, Path]:
    """`predict`, `embed` and `score` of some texts, two at a time, over an older output."""
    batching._WINDOW = 2
    output = folder / "out" / "target"
    lines = folder / "texts"
    lines.write_text("".join(f"{text}\n" for text in _TEXTS))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in _TEXTS))
    if name == "score":
        model = write_saved_model(folder / "bleurt", make_variables())
        arguments = ["--model", model, "--candidates", lines, "--references", lines, "--batch-tokens", 40, "--quiet"]
    else:
        start = write_start(folder / "start")
        settings = RemBertConfig.from_pretrained(start, num_labels=2)
        built = PT.build(settings, "sequence-classification")
        PT.set_weights(built, random_weights(settings, "sequence-classification", dtype="float32"))
        built.save_pretrained(start)
        chosen = ["sequence-classification", "--model", start] if name == "predict" else [start]
        arguments = [*chosen, "--data", folder / "texts.jsonl", "--batch-size", 2]
    before = folder / "before"
    before.write_text("")
    return lambda: main([name, *map(str, [*arguments, "--output", output])]), numbers, before


def trimming(name: str, folder: Path) -> tuple[Work, Read, Path]:
    """`trim`, over an older checkpoint."""
    start = write_start(folder / "start")
    settings = RemBertConfig.from_pretrained(start)
    built = PT.build(settings, "model")
    built.save_pretrained(start)
    corpus = folder / "corpus"
    corpus.write_text("The bread and the soup.\n" * 9)
    arguments = ["trim", start, folder / "out" / "target", "--corpus", corpus, "--force", "--quiet"]
    shutil.copytree(start, folder / "before")
    return lambda: main([*map(str, arguments)]), checkpoint, folder / "before"


COMMANDS: dict[str, Callable[[str, Path], tuple[Work, Read, Path]]] = {
    **{f"save-{name}-{kind}": saving for name in ("pt", "tf") for kind in ("single", "sharded")},
    **dict.fromkeys(("predict", "embed", "score"), running),
    "trim": trimming,
}


if __name__ == "__main__":
    command, folder, points = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    (folder / "out").mkdir(parents=True)
    if command in ("trim", "score"):  # TensorFlow leaves its own temporary files after a kill
        tempfile.tempdir = str(folder / "out")
    work, read, before = COMMANDS[command](command, folder)
    kill_at_random(work, read, before, folder / "out" / "target", points)
