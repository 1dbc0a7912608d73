"""Rows on disk: what comes back, and what reading to train takes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np

from rembert.tasks import Recipe, get_task
from rembert.training.disk_list import Spool
from rembert.training.loop import _Run
from tests.tasks.support import TOKENIZER


def test_items_come_back_in_any_order() -> None:
    rows = [{"input_ids": np.arange(length, dtype=np.int32), "labels": [length]} for length in (3, 0, 5)]
    spool = Spool(iter(rows))
    assert len(spool) == 3
    for number in (2, 0, 1, 2):
        assert spool[number]["labels"] == rows[number]["labels"]
        np.testing.assert_array_equal(spool[number]["input_ids"], rows[number]["input_ids"])
        assert spool[number]["input_ids"].dtype == np.int32
    assert [len(row["input_ids"]) for row in spool] == [3, 0, 5]
    assert len(Spool(())) == 0


def test_reading_to_train_takes_no_more_memory_for_more_text(tmp_path: Path) -> None:
    peaks = []
    for count in (600, 600, 2400):  # the first warms the tokenizer up
        path = tmp_path / f"{count}.jsonl"
        text = "word " * 40
        rows = ({"text": f"{number} {text}", "label": "ab"[number % 2]} for number in range(count))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = _Run(
            get_task("sequence-classification", TOKENIZER(), max_length=64), Recipe(), tmp_path, "", "pt", print
        )
        tracemalloc.start()
        run.read([path], [path])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert run.data["training"]["rows"] == len(run.features) == len(run.batches.lengths) == count
    assert peaks[2] - peaks[1] < 1800 * 100  # an example and its row have some 1,500 bytes
