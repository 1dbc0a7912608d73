"""A full disk: every command and save names the file, leaves its target as it was, and nothing beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frameworks import needs, needs_pt, needs_tf

ROOT = Path(__file__).parent.parent.parent
_RESUMED = ("embed", "predict", "score-kept")  # keep what is done beside the target, as after a kill
_KEPT = "The same command continues."


@pytest.mark.parametrize(
    ("framework", "count"),
    [
        pytest.param("pt", 21, marks=needs_pt),
        pytest.param("tf", 5, marks=[needs_tf, needs_pt, pytest.mark.slow]),
        pytest.param("export-pt", 1, marks=[needs("torch", "onnx", "onnxscript", "onnxruntime"), pytest.mark.slow]),
        pytest.param("export-tf", 2, marks=[needs_tf, needs_pt, pytest.mark.slow]),
    ],
)
def test_a_full_disk(framework: str, count: int, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = [sys.executable, "-m", "tests.cli.full_disk", framework, str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(found) == count
    for each in found:
        assert "File too large" in each["said"], each
        assert ("rembert-trim-" if each["case"] == "trim" else "target") in each["said"], each
        assert "Traceback" not in each["said"], each
        assert each["same"] or each["case"] == "demo", each  # it keeps the files that were complete
        if each["case"] in _RESUMED:
            assert _KEPT in each["said"], each
            assert len(each["left"]) == 1, each
        elif each["case"] != "score":
            assert each["left"] == [], each
