"""`from_pretrained` reads every format, in both frameworks, through the same readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.bridge import convert
from tests.bridge.support import GOLDEN

WRITTEN = ("pt", "tf", "keras", "torch-bin")


def logits(framework: str, path: Path) -> np.ndarray:
    """The golden's logits by a model loaded from `path`."""
    with np.load(GOLDEN / "masked_lm" / "expected.npz") as expected:
        inputs = {key[3:]: values for key, values in expected.items() if key.startswith("in.") and key != "in.labels"}
    if framework == "pt":
        torch = pytest.importorskip("torch")
        from rembert.pt import RemBertForMaskedLM

        model = RemBertForMaskedLM.from_pretrained(path)
        with torch.no_grad():
            return model(**{key: torch.from_numpy(values) for key, values in inputs.items()}).logits.numpy()
    pytest.importorskip("tensorflow")
    from rembert.tf import TFRemBertForMaskedLM

    return np.array(TFRemBertForMaskedLM.from_pretrained(path)(inputs).logits)


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("format", [*WRITTEN, "bin", "tf1"])
def test_a_model_loads_from_every_format(tmp_path: Path, framework: str, format: str) -> None:
    if format in WRITTEN:
        convert(GOLDEN / "masked_lm", tmp_path / "out", format, max_shard_size=None if format == "keras" else "50KB")
        path = tmp_path / "out"
    else:
        path = GOLDEN / "tf1_pretraining" if format == "tf1" else GOLDEN / "masked_lm" / "bin"
    with np.load(GOLDEN / "masked_lm" / "expected.npz") as expected:
        golden, mask = expected["out.logits"], expected["in.attention_mask"] == 1
    found = logits(framework, path)
    assert np.abs(found - golden)[mask].max() <= 1e-5 * np.abs(golden[mask]).max()


@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_a_bare_model_finds_its_pooler_beside_the_pretraining_head(tmp_path: Path, framework: str) -> None:
    module = pytest.importorskip(f"rembert.{framework}")
    convert(GOLDEN / "tf1_pretraining", tmp_path / "pt", "pt")
    name = "RemBertModel" if framework == "pt" else "TFRemBertModel"
    _, report = getattr(module, name).from_pretrained(tmp_path / "pt", output_loading_info=True)
    assert report["missing_keys"] == []
