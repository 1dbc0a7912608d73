"""The tasks by name."""

from __future__ import annotations

import pytest

from rembert.common.errors import InputError
from rembert.common.parameters import HEADS
from rembert.tasks import TASKS, get_task
from tests.tasks.support import (
    TOKENIZER,
)


def test_every_head_has_a_task() -> None:
    tasks = [get_task(name, TOKENIZER(), max_length=256) for name in TASKS]
    assert [task.name for task in tasks] == list(TASKS)
    assert {task.head for task in tasks} == set(HEADS) - {"model"}
    with pytest.raises(InputError, match="translation"):
        get_task("translation", TOKENIZER())
    with pytest.raises(InputError, match="max_length=2"):
        get_task("masked-lm", TOKENIZER(), max_length=2)
