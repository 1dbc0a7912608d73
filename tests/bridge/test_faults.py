"""Real faults, in other processes: a conversion that is killed, a full disk, two writers to one directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.support import GOLDEN
from tests.frameworks import needs_pt

ROOT = Path(__file__).parent.parent.parent


def python(program: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, with this checkout in its path."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


# Forks a process for every step n of a conversion, and has it killed at the n-th call that could change a file. After
# each, the old or the new content must be there whole, and the same call again must end with the new and no debris.
KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    from rembert.bridge import convert
    import h5py  # imported before the fork, so that steps are counted from the conversion on

    source, old, place, to = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    target = place / "target"

    def content(directory):
        return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.is_dir() else None

    def forked(work):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        return os.waitpid(child, 0)[1]

    def killed_at(step):
        steps = 0
        def hook(event, arguments):
            nonlocal steps
            if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.copyfile") or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            ):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        convert(source, target, to, force=True)

    def undisturbed():
        convert(source, target, to, force=True)

    shutil.copytree(old, place / "old")
    assert forked(undisturbed) == 0
    before, after = content(place / "old"), content(target)
    assert before != after
    step = 0
    while True:
        step += 1
        shutil.rmtree(target)
        shutil.copytree(place / "old", target)
        status = forked(lambda: killed_at(step))
        if status == 0:
            break
        aside = place / ".target.rembert-old"
        assert content(target) in (before, after) or (content(target) is None and content(aside) == before), step
        assert forked(undisturbed) == 0, step
        assert content(target) == after, step
        assert sorted(path.name for path in place.iterdir()) == ["old", "target"], step
    print(step)
"""


@pytest.mark.parametrize("to", ["pt", "tf"])
def test_killed_at_any_step_nothing_is_lost(tmp_path: Path, to: str) -> None:
    result = python(KILLED, GOLDEN / "model", GOLDEN / "token_classification", tmp_path, to)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10, "there are more steps than this at which it can be killed"


def test_a_restored_output_is_not_overwritten_without_force(tmp_path: Path) -> None:
    """Killed between its two renames, with the old output aside; then called without force."""
    shutil.copytree(GOLDEN / "model", tmp_path / ".target.rembert-old")
    result = python(
        "import sys; from rembert.cli.main import main; sys.exit(main(sys.argv[1:]))",
        *("convert", GOLDEN / "masked_lm", tmp_path / "target", "--to", "pt"),
    )
    assert result.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    expected = (GOLDEN / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "target" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize(
    ("to", "force"),
    [
        *(("pt", False), ("tf", False), ("keras", False), ("pt", True), ("tf", True)),
        pytest.param("torch-bin", False, marks=needs_pt),
    ],
)
def test_a_size_limit_leaves_nothing_behind(tmp_path: Path, to: str, force: bool) -> None:
    """Files may have at most 60 kB: every format's weights need more."""
    if force:
        shutil.copytree(GOLDEN / "token_classification", tmp_path / "out")
    command = f"ulimit -f 60; {sys.executable} -m rembert convert {GOLDEN / 'model'} {tmp_path / 'out'} --to {to}"
    result = subprocess.run(
        ["bash", "-c", command + (" --force" if force else "")], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("rembert: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if force else [])
    if force:
        expected = (GOLDEN / "token_classification" / "model.safetensors").read_bytes()
        assert (tmp_path / "out" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("to", ["pt", "tf", "keras"])
@pytest.mark.parametrize("size", ["20k", "92k"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, to: str, size: str) -> None:
    """A file system of its own, smaller than the checkpoint; needs a kernel that lets users mount one."""
    script = f"""
        mount -t tmpfs -o size={size} none {tmp_path} || exit 99
        {sys.executable} -m rembert convert {GOLDEN / "model"} {tmp_path}/out --to {to}
        code=$?
        ls -A {tmp_path}
        exit $code
    """
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip(f"no file system can be mounted here: {result.stderr}")
    assert result.returncode == 1, result.stderr
    assert "No space left" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == "", "nothing is left"


def test_two_processes_do_not_write_one_target(tmp_path: Path) -> None:
    """While one fills the directory, another call is refused and the first ends well."""
    program = """
        import subprocess, sys
        from rembert.bridge import convert
        other = []
        def progress(done, total):
            if not other:
                command = [sys.executable, "-m", "rembert", "convert", sys.argv[1], sys.argv[2], "--to", "pt"]
                other.append(subprocess.run(command, capture_output=True, text=True))
        convert(sys.argv[1], sys.argv[2], "pt", progress=progress)
        print(other[0].returncode, other[0].stderr)
    """
    result = python(program, GOLDEN / "model", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("2 rembert: Another process is writing this target")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from rembert.bridge import convert
        import rembert.cli.convert as command
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        def interrupt(*counts):
            os.kill(os.getpid(), signal.SIGINT)
        command.convert = lambda *a, **k: convert(*a, **{**k, "progress": interrupt})
        from rembert.cli.main import main
        sys.exit(main(["convert", sys.argv[1], sys.argv[2], "--to", "pt"]))
    """
    result = python(program, GOLDEN / "model", tmp_path / "out")
    assert result.returncode == 130, result.stderr
    assert result.stderr == "rembert: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_the_source_is_never_opened_for_writing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "model", source, ignore=shutil.ignore_patterns("bin", "*.npz"))
    program = """
        import os, sys
        from rembert.bridge import convert, inspect
        source = os.path.realpath(sys.argv[1])
        def hook(event, arguments):
            if event == "open" and str(arguments[0]).startswith(source):
                assert not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), arguments
        sys.addaudithook(hook)
        for file in ("model.safetensors", "tf_model.h5"):
            convert(f"{source}/{file}", f"{sys.argv[2]}/{file}", "pt")
            inspect(f"{source}/{file}")
    """
    before = {path.name: path.stat().st_mtime_ns for path in source.iterdir()}
    result = python(program, source, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {path.name: path.stat().st_mtime_ns for path in source.iterdir()} == before
    assert os.listdir(tmp_path / "out")
