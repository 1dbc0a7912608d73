"""The examples in docstrings run and print what they say.

They run in a directory that holds a small checkpoint as `google/rembert` and a small metric as `BLEURT-20`, so that
they can load the models under the names that readers use.
"""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from rembert.bridge import save_checkpoint
from rembert.common.parameters import parameters
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import needs_pt, needs_tf
from tests.tasks.support import TOKENIZER, config

ROOT = Path(__file__).parent.parent
# What the examples of a package need beside the core dependencies.
_NEEDS = {"pt": (needs_pt,), "tf": (needs_tf,), "tasks": (needs_pt,), "training": (needs_pt,), "bleurt": (needs_pt,)}


def _modules() -> list[object]:
    cases = []
    for path in sorted((ROOT / "rembert").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            cases.append(pytest.param(name, marks=_NEEDS.get(parts[1], ()), id=name))
    return cases


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    draw = np.random.default_rng(0)
    sizes = config(max_position_embeddings=256)
    weights = {
        name: draw.normal(scale=0.1, size=parameter.shape).astype(np.float32)
        for name, parameter in parameters(sizes, "masked-lm", pooler=True).items()
    }
    save_checkpoint(directory / "google" / "rembert", weights, sizes, head="masked-lm")
    TOKENIZER().save_pretrained(directory / "google" / "rembert")
    write_saved_model(directory / "BLEURT-20", make_variables())
    return directory


@pytest.mark.filterwarnings("ignore:.*are not used by this model")  # a base model of a masked language model
@pytest.mark.parametrize("module", _modules())
def test_examples_run(module: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    result = doctest.testmod(
        import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, report=True
    )
    assert result.attempted
    assert not result.failed
