"""`from_pretrained` reads every format, in both frameworks, through the same readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.bridge import TARGETS, convert
from tests.bridge.support import GOLDEN
from tests.frameworks import Framework, needs_pt, on_both

PICKLES = ("torch-bin", "bin")


@on_both
@pytest.mark.parametrize(
    "format",
    [pytest.param(name, marks=needs_pt) if name in PICKLES else name for name in (*TARGETS, "bin", "tf1")],
)
def test_a_model_loads_from_every_format(tmp_path: Path, framework: Framework, format: str) -> None:
    if format in TARGETS:
        convert(GOLDEN / "masked_lm", tmp_path / "out", format, max_shard_size=None if format == "keras" else "50KB")
        path = tmp_path / "out"
    else:
        path = GOLDEN / "tf1_pretraining" if format == "tf1" else GOLDEN / "masked_lm" / "bin"
    with np.load(GOLDEN / "masked_lm" / "expected.npz") as expected:
        inputs = {key[3:]: values for key, values in expected.items() if key.startswith("in.") and key != "in.labels"}
        golden, mask = expected["out.logits"], expected["in.attention_mask"] == 1
    found = framework.array(framework.call(framework.load(path, "masked-lm"), **inputs).logits)
    assert np.abs(found - golden)[mask].max() <= 1e-5 * np.abs(golden[mask]).max()


@on_both
def test_a_bare_model_finds_its_pooler_beside_the_pretraining_head(tmp_path: Path, framework: Framework) -> None:
    convert(GOLDEN / "tf1_pretraining", tmp_path / "pt", "pt")
    _, report = framework.load(tmp_path / "pt", "model", output_loading_info=True)
    assert report["missing_keys"] == []
