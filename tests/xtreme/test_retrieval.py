"""Retrieval finds what XTREME's baseline finds, as `tools/record_xtreme_retrieval.py` has recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.xtreme import retrieval
from rembert.xtreme.retrieval import best_threshold, mine, nearest

FIXTURE = Path(__file__).parents[1] / "fixtures" / "xtreme" / "retrieval.json"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """The recorded results, and the vectors with length 1."""
    content: dict[str, Any] = json.loads(FIXTURE.read_text())
    for name in ("one", "other"):
        vectors = np.array(content[name], np.float32)
        content[name] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return content


@pytest.mark.parametrize("at_once", [1 << 25, 50])
def test_the_nearest_sentences_are_the_recorded_ones(
    recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(retrieval, "_AT_ONCE", at_once)  # in several blocks
    assert nearest(recorded["other"], recorded["one"])[1][:, 0].tolist() == recorded["nearest"]


def test_mined_pairs_and_their_margins_are_the_recorded_ones(recorded: dict[str, Any]) -> None:
    mined = mine(recorded["one"], recorded["other"])
    assert [pair[:2] for pair in mined] == [tuple(pair[:2]) for pair in recorded["mined"]]
    assert [pair[2] for pair in mined] == pytest.approx([pair[2] for pair in recorded["mined"]], abs=1e-5)  # float32


def test_the_threshold_is_the_recorded_one(recorded: dict[str, Any]) -> None:
    mined = recorded["mined"]
    correct = [one == other < recorded["shared"] for one, other, _ in mined]
    threshold = best_threshold([score for *_, score in mined], correct, recorded["shared"])
    assert threshold == pytest.approx(recorded["threshold"], abs=1e-9)
    kept = [right for right, (*_, score) in zip(correct, mined, strict=True) if score >= threshold]
    assert 200 * sum(kept) / (len(kept) + recorded["shared"]) == pytest.approx(recorded["f1"], abs=1e-9)


def test_the_last_candidate_may_be_the_best() -> None:
    assert best_threshold([1.5, 1.0], [True, True], expected=2) == 1.0
    assert best_threshold([], [], expected=2) == 0.0


def test_more_neighbours_than_sentences_are_not_asked_for() -> None:
    vectors = np.eye(2, dtype=np.float32)
    assert [pair[:2] for pair in mine(vectors, vectors[:1])] == [(0, 0)]
