"""Multiple choice: each choice is encoded with the prompt, in the columns of several data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tasks.support import (
    TOKENIZER,
    lines,
    opened,
)


@pytest.mark.parametrize(
    ("row", "first", "pairs", "label"),
    [
        (
            {
                "premise": "下雨了。",
                "choice1": "地湿了。",
                "choice2": "太阳出来了。",
                "question": "effect",
                "label": 0,
            },
            0,
            [
                ("下雨了。 What happened as a result?", "地湿了。"),
                ("下雨了。 What happened as a result?", "太阳出来了。"),
            ],
            0,
        ),
        (
            {
                "sent1": "Sie steht.",
                "sent2": "Dann",
                "ending0": "geht sie.",
                "ending1": "liegt sie.",
                "label": "1",
            },
            0,
            [("Sie steht.", "Dann geht sie."), ("Sie steht.", "Dann liegt sie.")],
            1,
        ),
        (
            {
                "flores_passage": "Mvua ilinyesha.",
                "question": "Nini kilitokea?",
                **{f"mc_answer{number}": f"jibu {number}" for number in range(1, 5)},
                "correct_answer_num": "4",
            },
            1,
            [("Mvua ilinyesha. Nini kilitokea?", f"jibu {number}") for number in range(1, 5)],
            3,
        ),
        (
            {"question": "2 + 2?", "choices": {"text": ["3", "4", "5"], "label": ["A", "B", "C"]}, "answer": "B"},
            0,
            [("2 + 2?", "3"), ("2 + 2?", "4"), ("2 + 2?", "5")],
            1,
        ),
    ],
    ids=["xcopa", "swag", "belebele", "arc"],
)
def test_choices_are_pairs(
    tmp_path: Path, row: dict[str, Any], first: int, pairs: list[tuple[str, str]], label: int
) -> None:
    task, [example] = opened("multiple-choice", lines(tmp_path / "a.jsonl", [row]), first_choice=first)
    [feature] = task.features(example)
    batch = task.collate([feature, feature])
    expected = TOKENIZER()([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="np")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(batch[name], np.stack([expected[name]] * 2))
    assert batch["labels"].tolist() == [label, label]
    logits = np.zeros(len(pairs))
    logits[label] = 3.0
    assert task.score([example], [[{"logits": logits}]]) == {"accuracy": 1.0}
    found = task.decode(example, [{"logits": logits}])
    assert (found["label"], found["choice"]) == (label + first, pairs[label][1])
