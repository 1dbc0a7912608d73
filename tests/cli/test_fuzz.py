"""Damaged files for `from_pretrained` in both frameworks and for commands, in child processes under limits."""

from __future__ import annotations

import pytest

from tests.amounts import DAMAGED
from tests.bridge.test_fuzz import FEW, check, run
from tests.cli import resume_fuzzing
from tests.cli.fuzzing import FAMILIES
from tests.frameworks import needs_pt, needs_tf

MARKS = {name: needs_tf if name == "load-tf" else needs_pt for name in FAMILIES}


@needs_pt
def test_a_few_damaged_files() -> None:
    check("predict", run("predict", 0, 30, "tests.cli.fuzzing"))


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param(name, marks=mark) for name, mark in MARKS.items()])
def test_many_damaged_files(family: str) -> None:
    check(family, run(family, FEW, DAMAGED, "tests.cli.fuzzing"))


@needs_pt
@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=needs_tf) if name.endswith("-tf") else name for name in resume_fuzzing.FAMILIES],
)
def test_many_damaged_runs(family: str) -> None:
    check(family, run(family, 0, DAMAGED, "tests.cli.resume_fuzzing"))
