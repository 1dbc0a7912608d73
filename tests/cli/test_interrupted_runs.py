"""`predict` and `embed` that are interrupted: what stays, and which run continues it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.unfinished import KEPT, open_unfinished, unfinished_path
from rembert.tasks import batching
from tests.frameworks import PT, Framework, needs_pt, on_both_tf_slow, random_weights
from tests.tasks.support import TOKENIZER, config

TEXTS = [f"{'wort ' * (1 + 7 * number % 5)}{number}" for number in range(9)]
Call = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Framework], Path]:
    made: dict[str, Path] = {}

    def checkpoint_of(framework: Framework) -> Path:
        if framework.name not in made:
            settings = config(id2label={0: "a", 1: "b"})
            model = framework.build(settings, "sequence-classification")
            framework.set_weights(model, random_weights(settings, "sequence-classification", dtype="float32"))
            made[framework.name] = tmp_path_factory.mktemp("checkpoint")
            model.save_pretrained(made[framework.name])
            TOKENIZER().save_pretrained(made[framework.name])
        return made[framework.name]

    return checkpoint_of


@pytest.fixture
def call(
    checkpoint: Callable[[Framework], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Framework], Call]:
    """Runs a command over the texts, two at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batching, "_WINDOW", 1)
    Path("in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def command(name: str, framework: Framework) -> Call:
        path = str(checkpoint(framework))
        start = ["predict", "sequence-classification", "--model", path] if name == "predict" else ["embed", path]
        options = ["--framework", framework.name, "--batch-size", "2", "--data", "in.jsonl", "--output", "out"]
        return lambda *more: main([*start, *options, *map(str, more)])

    return command


def read(name: str) -> Any:
    """The numbers of the output."""
    if name == "embed":
        return np.load("out")
    return np.array([json.loads(line)["score"] for line in Path("out").read_text().splitlines()])


def batches(
    monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None, by: type[BaseException] = OSError
) -> list[int]:
    """The sizes of the windows that are computed; after a number of them, the run is interrupted."""
    sizes: list[int] = []
    whole = batching.sorted_batches

    def counted(lengths: Any, *rest: Any) -> Any:
        if len(sizes) == stop_after:
            raise by
        sizes.append(len(lengths))
        return whole(lengths, *rest)

    monkeypatch.setattr(batching, "sorted_batches", counted)
    return sizes


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name != "in.jsonl")


@on_both_tf_slow
@pytest.mark.parametrize("name", ["predict", "embed"])
def test_an_interrupted_run_continues(
    call: Any, name: str, framework: Framework, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = call(name, framework)
    assert run() == 0
    expected = read(name)
    Path("out").write_text("what was there")
    with monkeypatch.context() as patched:
        done = batches(patched, stop_after=3, by=KeyboardInterrupt)
        capfd.readouterr()
        assert run() == 130
    assert f"rembert: interrupted\nrembert: {KEPT}\n" in capfd.readouterr().err  # TensorFlow may write there, too
    assert Path("out").read_text() == "what was there"
    [kept, _] = left()
    with open(kept, "ab") as stream:
        stream.write(b'{"half')  # as a kill leaves it
    with monkeypatch.context() as patched:
        rest = batches(patched)
        assert run() == 0
    assert "resumed after 6 " in capfd.readouterr().err
    assert (sum(done), sum(rest)) == (6, 3)
    np.testing.assert_allclose(read(name), expected, rtol=1e-5, atol=1e-6)  # other neighbours in a batch
    assert left() == ["out"]


@needs_pt
@pytest.mark.parametrize("name", ["predict", "embed"])
def test_what_cannot_be_a_result_is_computed_again(call: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a crash of the machine leaves a file: of its full length, with zeros that were not yet on the disk."""
    run = call(name, PT)
    assert run() == 0
    expected = read(name)
    Path("out").unlink()
    with monkeypatch.context() as patched:
        batches(patched, stop_after=3)
        assert run() == 1
    [kept] = left()
    size = Path(kept).stat().st_size
    start = (128 + 3 * 64 - size) if name == "embed" else -30  # numpy's header, three vectors; or in the last line
    with open(kept, "r+b") as stream:
        stream.seek(start, os.SEEK_END)
        stream.write(bytes(-start))
    with monkeypatch.context() as patched:
        computed = batches(patched)
        assert run() == 0
    assert sum(computed) == len(TEXTS) - (3 if name == "embed" else 5)
    np.testing.assert_allclose(read(name), expected, rtol=1e-5, atol=1e-6)


@needs_pt
@pytest.mark.parametrize("name", ["predict", "embed"])
def test_more_results_than_examples_are_refused(
    call: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = call(name, PT)
    with monkeypatch.context() as patched:
        batches(patched, stop_after=4)
        assert run() == 1
    [kept] = left()
    content = Path(kept).read_bytes()
    Path(kept).write_bytes(content + content[128 if name == "embed" else 0 :])
    assert run() == 2
    assert "`skip` must be at most the number of examples, 9. Received: `skip=16`" in capsys.readouterr().err
    assert left() == []
    assert run() == 0
    assert len(read(name)) == len(TEXTS)


@needs_pt
def test_only_a_file_is_continued(call: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A link with its name could lead to any file, and a pipe would keep it waiting."""
    run = call("embed", PT)
    with monkeypatch.context() as patched:
        batches(patched, stop_after=1)
        assert run() == 1
    [kept] = left()
    for make in (lambda: Path(kept).symlink_to("in.jsonl"), lambda: os.mkfifo(kept), lambda: Path(kept).mkdir()):
        Path(kept).unlink()
        make()
        assert run() == 2
        assert f"{kept} must be the file of an interrupted run" in capsys.readouterr().err


@needs_pt
@pytest.mark.parametrize("name", ["predict", "embed"])
@pytest.mark.parametrize("change", ["texts", "model", "length", "option"])
def test_what_another_run_has_done_is_not_used(
    call: Any, name: str, change: str, monkeypatch: pytest.MonkeyPatch, checkpoint: Any
) -> None:
    run = call(name, PT)
    with monkeypatch.context() as patched:
        batches(patched, stop_after=2)
        assert run() == 1
    more: tuple[object, ...] = ()
    if change == "texts":
        lines = Path("in.jsonl").read_text().splitlines(keepends=True)
        Path("in.jsonl").write_text("".join(reversed(lines)))
    elif change == "model":
        os.utime(checkpoint(PT) / "model.safetensors")
    else:
        more = (
            ("--max-length", 5)
            if change == "length"
            else ("--normalize",)
            if name == "embed"
            else ("--language", "sw")
        )
    with monkeypatch.context() as patched:
        computed = batches(patched)
        assert run(*more) == 0
    assert sum(computed) == len(TEXTS)
    assert left() == ["out"]


@needs_pt
def test_a_second_process_is_refused(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = call("embed", PT)
    for digest in (None, bytes(32)):  # another run for the same output, too
        with open_unfinished(Path("out"), "vectors", digest or bytes(range(32))):
            assert run() == 2
    assert "Another process is writing this output. Received: out" in capsys.readouterr().err
    assert run() == 0
    assert left() == ["out"]


@needs_pt
def test_only_files_can_be_continued(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    run = call("embed", PT)
    with monkeypatch.context() as patched:
        batches(patched, stop_after=0)
        if (child := os.fork()) == 0:
            Path("pipe").write_text("eins\nzwei\n")
            os._exit(0)
        assert run("--data", "pipe") == 1
        os.waitpid(child, 0)
    assert left() == ["pipe"]
    assert run("--output", "pipe") == 2
    assert Path("pipe").is_fifo()


@needs_pt
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signals_keep_what_is_done(call: Any, checkpoint: Any, sent: signal.Signals, code: int) -> None:
    """In another process, whose signals have their usual handlers."""
    program = """
        import os, signal, sys
        from rembert.tasks import batching
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        batching._WINDOW, whole, seen = 1, batching.sorted_batches, []
        def counted(*arguments):
            if len(seen) == 2:
                os.kill(os.getpid(), int(sys.argv[1]))
            seen.append(arguments)
            return whole(*arguments)
        batching.sorted_batches = counted
        from rembert.cli.main import main
        sys.exit(main(sys.argv[2:]))
    """
    start = [sys.executable, "-c", textwrap.dedent(program), str(int(sent)), "embed", str(checkpoint(PT))]
    options = ["--framework", "pt", "--batch-size", "2", "--data", "in.jsonl", "--output", "out"]
    path = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run([*start, *options], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == code, ended.stderr
    assert KEPT in ended.stderr
    assert "Traceback" not in ended.stderr
    [kept] = left()
    assert (Path(kept).stat().st_size - 128) == 4 * 16 * 4  # vectors of 16 numbers after numpy's header
    assert call("embed", PT)() == 0
    assert left() == ["out"]


def test_an_unfinished_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = {unfinished_path(tmp_path / "a", kind, bytes([n]) * 32).name for kind in "xy" for n in range(2)}
    assert len(names) == 4
