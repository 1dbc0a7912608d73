"""Small checkpoints and texts of which the results of one process are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rembert.bridge import save_checkpoint
from tests.frameworks import random_weights
from tests.tasks.support import TOKENIZER, config

TEXTS = [f"{'wort ' * (1 + 7 * number % 5)}{number}" for number in range(23)]


def write_checkpoint(directory: Path) -> Path:
    """A classifier with its tokenizer."""
    settings = config(id2label={0: "a", 1: "b"})
    weights = random_weights(settings, "sequence-classification", dtype="float32")
    save_checkpoint(directory, weights, settings, head="sequence-classification")
    TOKENIZER().save_pretrained(directory)
    return directory


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read_lines(paths: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
