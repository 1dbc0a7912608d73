"""Rows on disk: the items that come back, and the memory that reading to train takes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rembert.tasks import Recipe, get_task
from rembert.training.data import read_training_data
from rembert.training.disk_list import DiskList
from tests.tasks.support import TOKENIZER


def test_items_come_back_in_any_order() -> None:
    rows = [{"input_ids": np.arange(length, dtype=np.int32), "labels": [length]} for length in (3, 0, 5)]
    found = DiskList(iter(rows))
    assert len(found) == 3
    for number in (2, 0, 1, 2):
        assert found[number]["labels"] == rows[number]["labels"]
        np.testing.assert_array_equal(found[number]["input_ids"], rows[number]["input_ids"])
        assert found[number]["input_ids"].dtype == np.int32
    assert [len(row["input_ids"]) for row in found] == [3, 0, 5]
    assert len(DiskList(())) == 0


@pytest.mark.slow
def test_reading_to_train_takes_no_more_memory_for_more_text(tmp_path: Path) -> None:
    peaks = []
    for count in (600, 600, 2400):  # the first warms the tokenizer up
        path = tmp_path / f"{count}.jsonl"
        text = "word " * 40
        rows = ({"text": f"{number} {text}", "label": "ab"[number % 2]} for number in range(count))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = get_task("sequence-classification", TOKENIZER(), max_length=64)
        tracemalloc.start()
        data = read_training_data(task, Recipe(), [path], [path], print)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert data.summary["training"]["rows"] == len(data.rows) == len(data.row_lengths) == count
    # An example and its row take some 1,500 bytes; another thread of the tests may take some meanwhile.
    assert peaks[2] - peaks[1] < 1800 * 300
