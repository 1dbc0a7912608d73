"""The model card: metadata that the Hub reads, and how the model was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rembert.training.model_card import model_card
from rembert.training.result import _licence

GIVEN: dict[str, Any] = {
    "task": "sequence-classification",
    "head": "sequence-classification",
    "source": "google/rembert",
    "framework": "pt",
    "data": {"training": {"files": ["a.tsv"], "examples": 3, "rows": 3, "truncated": 0, "skipped": 0}},
    "recipe": {"epochs": 3},
    "scores": {"eval_accuracy": 0.5, "eval_f1_macro": 0.4, "eval_loss": 1.0},
    "updates": 9,
    "best_step": 6,
    "labels": ["a", "b"],
    "has_curves": False,
    "seconds": 90.0,
}


def metadata(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    start, found, rest = card.split("---\n", 2)
    assert not start
    assert rest.startswith("\n# RemBERT for")
    return yaml.safe_load(found)


def test_the_hub_reads_the_metadata() -> None:
    assert metadata(model_card(**GIVEN, base_model="google/rembert", licence="apache-2.0")) == {
        "library_name": "rembert",
        "tags": ["rembert", "sequence-classification"],
        "pipeline_tag": "text-classification",
        "base_model": "google/rembert",
        "license": "apache-2.0",
        "metrics": ["accuracy"],
    }
    assert "base_model" not in metadata(model_card(**GIVEN))


def test_the_card_says_how_long_training_took() -> None:
    assert "after 1.5 minutes, with Python 3." in model_card(**GIVEN)


def test_the_licence_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert _licence(card) is None
    card.write_text("---\nlanguage: [sw]\nlicense: apache-2.0\ntags: [x]\n---\n\nlicense: mit\n")
    assert _licence(card) == "apache-2.0"
    card.write_text("# A card\n\nlicense: mit\n")
    assert _licence(card) is None
