"""Question answering: windows of a context, and the answer from their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from rembert.tasks import Task, get_task
from rembert.tasks.examples import Example
from tests.tasks.support import (
    CONTEXT,
    TOKENIZER,
    config,
    lines,
    opened,
    squad_file,
)


def windowed(path: Path, **options: Any) -> tuple[Task, list[Example]]:
    return opened("question-answering", path, **{"max_length": 40, "stride": 8, "max_question_length": 12, **options})


def test_windows_cover_the_context_and_the_answer(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    assert task.config_overrides() == {"num_labels": 2, "no_answer_threshold": 0.0}
    features = task.features(examples[0])
    assert len(features) > 1
    covered = np.zeros(len(CONTEXT), bool)
    held = 0
    for feature in features:
        assert len(feature["input_ids"]) <= 40
        for start, end in feature["spans"]:
            covered[max(start, 0) : max(end, 0)] = True
        first, last = feature["start_positions"], feature["end_positions"]
        if first:
            held += 1
            assert CONTEXT[feature["spans"][first][0] : feature["spans"][last][1]] == "сорок минут"
        else:
            assert last == 0
    assert held >= 1
    assert all(covered[i] or CONTEXT[i].isspace() for i in range(len(CONTEXT)))
    assert [feature["start_positions"] for feature in task.features(examples[2])] == [0] * len(
        task.features(examples[2])
    )


@pytest.mark.parametrize("context", [" Paris is big. ", "\u200bParis is big.\u200b", "Paris"])
def test_an_answer_may_have_characters_without_a_token_at_its_edges(context: str, tmp_path: Path) -> None:
    # At the start of a context no token has the characters that the normaliser removes.
    for answer in (context, context.rstrip(), context[: context.index("s") + 1]):
        record = {"id": "1", "question": "What?", "context": context, "answers": [{"text": answer, "answer_start": 0}]}
        (tmp_path / "a.jsonl").write_text(json.dumps(record), "utf-8")
        task, examples = windowed(tmp_path / "a.jsonl")
        [feature] = task.features(examples[0])
        spans = feature["spans"]
        first, last = feature["start_positions"], feature["end_positions"]
        found = context[spans[first][0] : spans[last][1]]
        assert found.strip("\u200b ") == answer.strip("\u200b "), answer
        assert "answers_in_no_window" not in task.report.to_dict()


def test_an_answer_that_no_window_holds_is_counted(tmp_path: Path) -> None:
    context = " ".join(f"word{number}" for number in range(60))
    record = {"id": "1", "question": "What?", "context": context, "answers": [{"text": context, "answer_start": 0}]}
    short = record | {"id": "2", "answers": [{"text": "word0", "answer_start": 0}]}
    none = record | {"id": "3", "answers": []}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, (record, short, none))), "utf-8")
    task, examples = windowed(tmp_path / "a.jsonl")
    assert all(feature["start_positions"] == 0 for feature in task.features(examples[0]))
    for example in examples[1:]:
        task.features(example)
    assert task.report.to_dict()["answers_in_no_window"] == 1


def sure(task: Task, example: Example, start: int, end: int, null: float = 0.0) -> list[dict[str, np.ndarray]]:
    """What a model would give that is sure of the characters from `start` to `end`."""
    features = task.features(example)
    width = max(len(feature["input_ids"]) for feature in features)
    starts, ends = np.full((2, len(features), width), -5.0, np.float32)
    starts[:, 0] = ends[:, 0] = null / 2
    for row, feature in enumerate(features):
        starts[row, : len(feature["spans"])][feature["spans"][:, 0] == start] = 4.0
        ends[row, : len(feature["spans"])][feature["spans"][:, 1] == end] = 4.0
    return task.outputs(features, {"start_logits": starts, "end_logits": ends})


def test_the_predicted_answer_is_decoded(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    at = CONTEXT.index("сорок минут")
    outputs = sure(task, examples[0], at, at + len("сорок минут"))
    found = task.decode(examples[0], outputs)
    assert (found["id"], found["answer"], found["start"], found["end"]) == ("q1", "сорок минут", at, at + 11)
    assert found["n_best"][0]["score"] > 0.99
    assert task.score([examples[0]], [outputs]) == {"exact_match": 1.0, "f1": 1.0}


def test_no_answer_is_given_where_its_score_is_higher(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    unsure = sure(task, examples[2], 0, 3, null=20.0)
    assert task.decode(examples[2], unsure)["answer"] == ""
    assert task.decode(examples[2], unsure)["no_answer_score"] > 0.99
    never = get_task(
        "question-answering", TOKENIZER(), max_length=40, stride=8, max_question_length=12, no_answer_threshold=1e9
    )
    never.prepare(examples)
    assert never.decode(examples[2], unsure)["answer"] != ""
    later = get_task("question-answering", TOKENIZER(), max_length=40, stride=8, max_question_length=12)
    later.prepare(config=config(**task.config_overrides()))
    assert later.no_answer_threshold == 0.0
    scores = task.score([examples[2]], [unsure])
    assert scores["exact_match_no_answer"] == 1.0


def test_long_questions_are_truncated(tmp_path: Path) -> None:
    row = {"question": "warum " * 60, "context": "Darum.", "answers": [{"text": "Darum", "answer_start": 0}]}
    task, [example] = windowed(lines(tmp_path / "a.jsonl", [row]))
    [feature] = task.features(example)
    assert len(feature["input_ids"]) <= 40
    assert task.report.truncated == 1
    with pytest.raises(InputError, match="stride=30"):
        windowed(tmp_path / "a.jsonl", stride=30)
