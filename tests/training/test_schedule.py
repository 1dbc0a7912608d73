"""The schedule: which rows an update sees, and what follows it."""

from __future__ import annotations

import pytest

from rembert.training.recipe import Recipe
from rembert.training.schedule import Schedule

LENGTHS = [5, 9, 3, 7, 4, 8, 6]  # of seven rows: batches of 3, 3 and 1


def test_each_epoch_has_every_row_once() -> None:
    schedule = Schedule(Recipe(batch_size=3, epochs=2), LENGTHS, evaluates=False)
    updates = list(schedule.updates())
    assert (schedule.epoch_steps, schedule.total_steps) == (3, 6)
    assert [update.step for update in updates] == list(range(6))
    for epoch in (updates[:3], updates[3:]):
        assert sorted(row for update in epoch for row in update.rows) == list(range(7))
    assert [update.rows for update in updates[:3]] != [update.rows for update in updates[3:]]


@pytest.mark.parametrize("after", [1, 3, 5, 6])
def test_a_resumed_schedule_continues(after: int) -> None:
    recipe = Recipe(batch_size=3, epochs=2, seed=4)
    whole = list(Schedule(recipe, LENGTHS, evaluates=True).updates())
    rest = list(Schedule(recipe, LENGTHS, evaluates=True).updates(after=after))
    assert [(each.step, each.rows, each.learning_rate) for each in rest] == [
        (each.step, each.rows, each.learning_rate) for each in whole[after:]
    ]
    assert [each.generator.random() for each in rest] == [each.generator.random() for each in whole[after:]]


@pytest.mark.parametrize(
    ("changes", "total"),
    [({"epochs": 0.1}, 1), ({"epochs": 1.4}, 4), ({"max_steps": 2}, 2), ({"epochs": 1, "max_steps": 99}, 3)],
)
def test_epochs_and_max_steps_limit_the_updates(changes: dict[str, float], total: int) -> None:
    schedule = Schedule(Recipe(**{"batch_size": 3, **changes}), LENGTHS, evaluates=False)
    assert schedule.total_steps == len(list(schedule.updates())) == total


def test_logs_evaluations_and_checkpoints_follow_their_updates() -> None:
    def after(evaluates: bool, **changes: int) -> list[list[int]]:
        schedule = Schedule(Recipe(batch_size=3, epochs=3, **changes), LENGTHS, evaluates=evaluates)
        updates = list(schedule.updates())
        return [
            [update.step + 1 for update in updates if getattr(update, name)] for name in ("logs", "evaluates", "saves")
        ]

    # By default each epoch ends with an evaluation and a checkpoint; both are logged.
    assert after(True) == [[3, 6, 9], [3, 6, 9], [3, 6, 9]]
    assert after(False) == [[3, 6, 9], [], [3, 6, 9]]
    # The last update is always evaluated and saved.
    assert after(True, eval_steps=4) == [[4, 8, 9], [4, 8, 9], [4, 8, 9]]
    assert after(True, eval_steps=4, save_steps=3, log_steps=5) == [[3, 4, 5, 6, 8, 9], [4, 8, 9], [3, 4, 6, 8, 9]]
