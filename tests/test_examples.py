"""Every public class and function has an example in its docstring; the examples run and print what they say.

They run in a directory that holds a small checkpoint as `google/rembert` and a small metric as `BLEURT-20`, so that
they can load the models under the names that readers use.
"""

from __future__ import annotations

import doctest
import inspect
import pydoc
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bridge import save_checkpoint
from rembert.common.parameters import parameters
from tests.bleurt.cases import make_variables, write_saved_model
from tests.frameworks import needs, needs_pt, needs_tf
from tests.tasks.support import TOKENIZER, config
from tests.test_docs import IN_GUIDES, IN_TRANSFORMERS, PUBLIC

ROOT = Path(__file__).parent.parent
# What the examples of a package need beside the core dependencies.
_NEEDS = {
    "pt": (needs_pt,),
    "tf": (needs_tf,),
    "tasks": (needs_pt,),
    "training": (needs_pt,),
    "bleurt": (needs_pt,),
    "xtreme": (needs_pt,),
    "scale": (needs_pt,),
    "transformers": (needs("torch", "transformers"),),
}
# Modules whose examples need another package, or take long because they write and compare an export.
_MARKS = {
    "rembert.bridge.saving": (needs_pt,),  # pickles are torch's own
    "rembert.pt.exporting": (needs("onnx", "onnxscript", "onnxruntime"), pytest.mark.slow),
    "rembert.pt.peft_targets": (needs("peft"),),
    "rembert.pt.sentence_transformers": (needs("sentence_transformers"), pytest.mark.slow),
    "rembert.tf.exporting": (pytest.mark.slow,),
    "rembert.transformers.training": (needs("accelerate"),),
    "rembert.tf.text_serving": (needs("tensorflow_text"), pytest.mark.slow),
}
# Results that no user creates, and the function whose example shows each.
_SHOWN_BY = {
    "rembert.bridge.Conversion": "rembert.bridge.convert",
    "rembert.bridge.Inspection": "rembert.bridge.inspect",
    "rembert.bridge.trimming.Trimming": "rembert.bridge.trimming.trim",
    "rembert.common.errors.CheckpointError": "rembert.common.errors.RemBertError",
    "rembert.common.exporting.Exported": "rembert.pt.exporting.export_onnx",
    "rembert.common.outputs.SequenceClassifierOutput": "rembert.common.outputs.ModelOutput",
    "rembert.tasks.verification.Verification": "rembert.tasks.verification.verify",
}


def _public() -> list[object]:
    """The public classes and functions, without `forward` and `call`: the examples of their classes use them."""
    pages = (ROOT / "docs" / "api").glob("*.md")
    listed = [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]
    names = sorted({*PUBLIC, *IN_TRANSFORMERS, *IN_GUIDES, *listed, *_SHOWN_BY.values()} - {*_SHOWN_BY})
    cases = []
    for name in names:
        if not name.endswith((".forward", ".call")):
            package = next((each for each in _MARKS if name.startswith(f"{each}.")), name)
            marks = (*_NEEDS.get(name.split(".")[1], ()), *_MARKS.get(package, ()))
            cases.append(pytest.param(name, marks=marks, id=name))
    return cases


@pytest.mark.parametrize("name", _public())
def test_public_objects_have_an_example(name: str) -> None:
    found = pydoc.locate(name)
    assert found is not None
    if inspect.isclass(found) or inspect.isfunction(found):  # not a table, or a name for a type
        assert ">>> " in (vars(found)["__doc__"] or "" if inspect.isclass(found) else found.__doc__ or "")


def _modules() -> list[object]:
    cases = []
    for path in sorted((ROOT / "rembert").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            cases.append(pytest.param(name, marks=(*_NEEDS.get(parts[1], ()), *_MARKS.get(name, ())), id=name))
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
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for case in Finder().find(import_module(module)):
        runner.run(case)
    result = runner.summarize()
    assert result.attempted
    assert not result.failed


class Finder(doctest.DocTestFinder):
    """Finds what is defined in a module's file, also methods that have the name of the public class with them."""

    def _from_module(self, module: Any, object: Any) -> bool:
        if inspect.isfunction(object):
            code = getattr(inspect.unwrap(object), "__code__", None)  # a wrapped builtin has none
            return code is not None and code.co_filename == module.__file__
        return bool(super()._from_module(module, object))  # type: ignore[misc]


def test_examples_of_inherited_methods_are_found() -> None:
    module = import_module("rembert.common.tokenization.rows")
    assert any(case.name.endswith("RowBuilder.prepare_for_model") and case.examples for case in Finder().find(module))
