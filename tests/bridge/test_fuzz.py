"""Damaged checkpoints of every format, in child processes under limits of time and memory."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.amounts import DAMAGED

ROOT = Path(__file__).parent.parent.parent
FEW = 60  # inputs of the default suite; the slow part goes on from there
OURS = ("safetensors", "index", "config", "bundle", "savedmodel")
PARSED_BY_C = ("h5", "keras", "archive", "pickle")
AT_ONCE = 400  # inputs of one program: in TensorFlow, each training takes 2 MB that are not given back


def run(format: str, first: int, count: int, program: str = "tests.bridge.fuzzing") -> dict[int, str]:
    """Outcomes by input number. An input that ends the program gets that as its outcome, and the rest goes on."""
    outcomes = {}
    while len(outcomes) < count:
        start = first + len(outcomes)
        command = [sys.executable, "-m", program, format, str(start), str(min(AT_ONCE, first + count - start))]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        found = re.findall(r"^(\d+) (.*)$", result.stdout, re.MULTILINE)
        assert found, result.stderr
        outcomes.update({int(number): outcome for number, outcome in found})
        if result.returncode != 0:
            outcomes[max(outcomes)] = f"died: {result.returncode}"
    return outcomes


def check(format: str, outcomes: dict[int, str]) -> None:
    """No outcome but the good ones; where a C library parses, its crashes are counted and reported."""
    wrong = {number: outcome for number, outcome in outcomes.items() if outcome not in ("ok", "refused")}
    crashes = {number: outcome for number, outcome in wrong.items() if outcome.startswith("died")}
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("ok", "refused")}
    print(f"{format}: {len(outcomes)} inputs, {counts}, {len(crashes)} crashes: {crashes}")
    if format in PARSED_BY_C:
        # A crash inside libhdf5 or torch is theirs; the signal of the time limit is no crash.
        assert f"died: {-signal.SIGVTALRM}" not in crashes.values()
        wrong = {number: outcome for number, outcome in wrong.items() if number not in crashes}
        assert len(crashes) <= len(outcomes) // 100
    assert not wrong
    assert counts["refused"] > len(outcomes) // 10, "the damage is seen at all"


@pytest.mark.parametrize("format", list(OURS))
def test_a_few_damaged_files(format: str) -> None:
    check(format, run(format, 0, FEW))


@pytest.mark.slow
@pytest.mark.parametrize("format", [*OURS, *PARSED_BY_C])
def test_many_damaged_files(format: str) -> None:
    check(format, run(format, FEW, DAMAGED))
