"""The code in docs/pytorch.md runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rembert.pt import RemBertTokenizer  # noqa: E402
from tests.frameworks import PT, small_config  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs" / "pytorch.md"
TOKENIZER = Path(__file__).parents[2] / "fixtures" / "tokenizer"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
PACKAGES = {
    "LoRA": "peft",
    "ONNX": "onnxruntime",
    "Sentence-Transformers": "sentence_transformers",
    "Several": "accelerate",
    "Trainer": "transformers",
}


def _code(section: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("section", [each for each in SECTIONS[1:] if _code(each)], ids=lambda each: each.split()[0])
def test_code_runs(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if package := PACKAGES.get(section.split()[0]):
        pytest.importorskip(package)
    tokenizer = RemBertTokenizer.from_pretrained(TOKENIZER)
    config = small_config(vocab_size=len(tokenizer), max_position_embeddings=40, num_labels=3)
    PT.build(config, "sequence-classification").save_pretrained(tmp_path / "in")
    shutil.copy(TOKENIZER / "sentencepiece.model", tmp_path / "in")
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {"checkpoint": tmp_path / "in", "directory": tmp_path / "out"}
    grouped = "torchrun" in section
    if grouped:  # as torchrun would for a single process
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        for code in (*_code(SECTIONS[0]), *_code(section)):
            exec(compile(code, str(PAGE), "exec"), names)
    finally:
        if grouped:
            torch.distributed.destroy_process_group()
    assert any((tmp_path / "out").iterdir()) == any("directory /" in code for code in _code(section))


def test_every_section_has_code_to_run() -> None:
    assert [each.split()[0] for each in SECTIONS[1:] if not _code(each)] == ["Compiling"]
