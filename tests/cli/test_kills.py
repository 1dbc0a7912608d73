"""Commands that are killed at random moments leave the old output or the new one, and end well when run again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.amounts import KILLS
from tests.cli.killing import COMMANDS
from tests.frameworks import needs_pt, needs_tf

ROOT = Path(__file__).parent.parent.parent


def _check(command: str, folder: Path, points: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = [sys.executable, "-m", "tests.cli.killing", command, str(folder), str(points)]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    accesses, *states = ended.stdout.splitlines()
    assert int(accesses.split()[0]) >= 3
    assert len(states) == points
    print(f"{command}: {dict(Counter(states))}, {accesses}")
    between = {"between"} if command == "trim" else set()  # the same call finishes it
    assert set(states) <= {"old", "new", "ended"} | between


@needs_pt
def test_a_few_kills(tmp_path: Path) -> None:
    _check("embed", tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=needs_tf if name.startswith("save-tf") else needs_pt) for name in COMMANDS]
)
def test_many_kills(command: str, tmp_path: Path) -> None:
    _check(command, tmp_path, KILLS)
