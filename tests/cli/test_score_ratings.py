"""A metric fine-tuned on ratings: from a BLEURT checkpoint through `rembert finetune` to `RemBertScorer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bridge import convert
from rembert.cli.main import main
from rembert.tasks import RemBertScorer
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import Framework, on_both

SENTENCES = ["the train leaves at seven", "a bird sings", "all is well", "rain fell on the hills", "she reads a book"]


def _ratings() -> list[dict[str, Any]]:
    """A perfect candidate is rated 1, another sentence 0.1."""
    return [
        {"reference": one, "candidate": other, "score": 1.0 if one == other else 0.1}
        for number, one in enumerate(SENTENCES)
        for other in (one, SENTENCES[number - 1])
    ]


@pytest.mark.slow  # twelve epochs, and in TensorFlow its graphs take a minute to make
@on_both
def test_ratings_teach_a_metric(framework: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(write_saved_model(tmp_path / "bleurt", make_variables()), tmp_path / "base", "pt")
    ratings = _ratings()
    (tmp_path / "ratings.jsonl").write_text("\n".join(map(json.dumps, ratings)))
    command = ["finetune", "sequence-classification", "--model", "base", "--train", "ratings.jsonl", "--eval",
               "ratings.jsonl", "--output", "mine", "--framework", framework.name, "--epochs", "12", "--batch-size",
               "5", "--learning-rate", "2e-3"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    last = json.loads((tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()[-1])
    given = ([row["candidate"] for row in ratings], [row["reference"] for row in ratings])
    wanted = np.array([row["score"] for row in ratings])
    before, after = (
        RemBertScorer.from_pretrained(tmp_path / name, framework=framework.name).score(*given)
        for name in ("base", "mine")
    )
    errors = [float(np.mean((found - wanted) ** 2)) for found in (before, after)]
    assert errors[1] < 0.5 * errors[0]
    # Training saw the pairs as the metric does: reference first, candidate second.
    assert last["eval_mse"] == pytest.approx(errors[1], rel=1e-4)
