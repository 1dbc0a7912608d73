"""PEFT's methods on the models of the plug-in, with transformers' own loading and saving."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import rembert.transformers  # noqa: E402
from tests.frameworks import PT  # noqa: E402
from tests.parity.cases import build  # noqa: E402
from tests.pt.ecosystem.test_peft import CLASSIFIER, SIZES, by_method, check_method  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@by_method
def test_methods_with_their_default_modules(method: str, tmp_path: Path) -> None:
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    build(PT, CLASSIFIER, CLASSIFIER.config(**SIZES), dtype="float32").save_pretrained(tmp_path / "base")
    assert isinstance(load(tmp_path / "base"), rembert.transformers.RemBertForSequenceClassification)
    check_method(method, lambda: load(tmp_path / "base"), load, tmp_path)
