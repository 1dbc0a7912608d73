"""Masked language modelling: rows of joined texts, and masks. The rows are those of causal models, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.tasks import get_task
from tests.tasks.support import (
    POEM,
    TOKENIZER,
    opened,
)


@pytest.mark.parametrize("name", ["masked-lm", "causal-lm"])
def test_texts_fill_rows_completely(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(POEM, encoding="utf-8")
    task, examples = opened(name, path, max_length=24)
    texts = [line for line in POEM.split("\n") if line.strip()]
    whole = [index for text in texts for index in TOKENIZER()(text)["input_ids"]]
    joined = list(task.training_features(examples))
    assert [index for feature in joined for index in feature["input_ids"]] == whole
    assert {len(feature["input_ids"]) for feature in joined[:-1]} == {24}
    alone = [
        index for example in examples for feature in task.features(example) for index in feature["input_ids"][1:-1]
    ]
    assert alone == [index for text in texts for index in TOKENIZER()(text, add_special_tokens=False)["input_ids"]]
    apart = get_task(name, TOKENIZER(), max_length=24, join=False)
    assert len(list(apart.training_features(examples))) == sum(len(task.features(example)) for example in examples)


def test_masks_are_random_in_training_and_fixed_in_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(POEM, encoding="utf-8")
    task, examples = opened("masked-lm", path)
    features = [feature for example in examples for feature in task.features(example)]
    rng = np.random.default_rng(0)
    first, second = task.collate(features, rng), task.collate(features, rng)
    assert (first["labels"] != second["labels"]).any()
    standing = task.collate(features)
    # The same masks in whatever company a row comes.
    alone = task.collate(features[1:2])
    width = len(features[1]["input_ids"])
    np.testing.assert_array_equal(alone["input_ids"][0], standing["input_ids"][1, :width])
    masked = standing["labels"] != -100
    assert (standing["input_ids"][masked] != standing["labels"][masked]).any()
    assert not (masked & (standing["attention_mask"] == 0)).any()


def test_every_token_is_masked_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Die Fähre fährt um acht.\n", encoding="utf-8")
    task, [example] = opened("masked-lm", path, every_token=True)
    ids = TOKENIZER()("Die Fähre fährt um acht.")["input_ids"]
    batch = task.collate(task.features(example))
    assert len(batch["input_ids"]) == len(ids) - 2
    for row in range(len(ids) - 2):
        expected = list(ids)
        expected[row + 1] = TOKENIZER().mask_token_id
        assert batch["input_ids"][row].tolist() == expected
        assert batch["labels"][row].tolist() == [-100] * (row + 1) + [ids[row + 1]] + [-100] * (len(ids) - row - 2)


def test_tokens_begin_words_after_spaces_and_in_scripts_without_them() -> None:
    from rembert.tasks.definitions.masked_lm import _starts_word

    assert [_starts_word(token) for token in ("▁haus", "tür", "渡", "ー", "ไทย", "s", "▁")] == [
        True, False, True, True, True, False, True
    ]  # fmt: skip
