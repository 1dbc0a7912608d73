"""The Python code of the README and of guides that no other test runs: it runs in order, on small checkpoints.

`docs/pytorch.md`, `docs/tensorflow.md` and `docs/tasks` have their own tests.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bridge import open_checkpoint, save_checkpoint
from rembert.common.parameters import parameters
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import GOLDEN, needs_pt, needs_tf
from tests.tasks.support import TOKENIZER, config

ROOT = Path(__file__).parent.parent


def run(page: str) -> dict[str, Any]:
    """Run all Python code of a page; returns its names."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(code, page, "exec"), names)
    return names


def save(directory: Path, head: str) -> None:
    """A small checkpoint with random weights and the fixture's tokenizer."""
    sizes = config(max_position_embeddings=256)
    draw = np.random.default_rng(0)
    weights = {
        name: draw.normal(scale=0.1, size=parameter.shape).astype(np.float32)
        for name, parameter in parameters(sizes, head, pooler=head != "causal-lm").items()
    }
    save_checkpoint(directory, weights, sizes, head=head)
    TOKENIZER().save_pretrained(directory)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@needs_pt
@needs_tf
@pytest.mark.filterwarnings("ignore:.*newly initiali[sz]ed")
def test_readme_gives_the_same_numbers_in_both_frameworks(tmp_path: Path) -> None:
    save(tmp_path / "path" / "to" / "rembert", "masked-lm")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    logits = []
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S):
        exec(compile(code, "README.md", "exec"), names)
        logits.append(np.asarray(names["outputs"].logits.detach() if not logits else names["outputs"].logits))
    assert len(logits) == 2
    np.testing.assert_allclose(*logits, atol=1e-5 * np.abs(logits[0]).max())


@needs_pt
def test_generation_continues_both_prompts(tmp_path: Path) -> None:
    save(tmp_path / "path" / "to" / "decoder", "causal-lm")
    names = run("docs/generation.md")
    assert names["tokens"].shape == (2, names["batch"]["input_ids"].shape[1] + 30)


@needs_pt
def test_tokenizers_encode_the_examples(tmp_path: Path) -> None:
    TOKENIZER().save_pretrained(tmp_path / "path" / "to" / "checkpoint")
    assert run("docs/tokenizers.md")["batch"]["input_ids"].shape[0] == 2


def test_checkpoints_are_converted_and_written(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "tf1_pretraining", tmp_path / "google-release")
    names = run("docs/checkpoints.md")
    assert names["words"].dtype == np.float32
    bias = "rembert.pooler.dense.bias"
    with open_checkpoint("rembert-pt") as whole, open_checkpoint("rembert-halved") as halved:
        assert whole.tensors[bias].dtype == np.float16
        np.testing.assert_array_equal(halved.read(bias), whole.read(bias) / 2)


@needs_pt
def test_bleurt_scores_have_gradients(tmp_path: Path) -> None:
    write_saved_model(tmp_path / "BLEURT-20", make_variables())
    names = run("docs/bleurt.md")
    assert names["scores"].shape == (2,)
    assert names["embeds"].grad.abs().max() > 0
