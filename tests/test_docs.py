"""The documentation says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEADS = (
    "Model",
    "ForCausalLM",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
TOKENIZER_METHODS = (
    "build_inputs_with_special_tokens",
    "get_special_tokens_mask",
    "create_token_type_ids_from_sequences",
    "save_vocabulary",
)
# Every class and method that the RemBERT page of transformers' documentation describes.
DOCUMENTED = [
    "RemBertConfig",
    "RemBertTokenizer",
    *(f"RemBertTokenizer.{method}" for method in TOKENIZER_METHODS),
    "RemBertTokenizerFast",
    *(f"RemBert{head}" for head in HEADS),
    *(f"RemBert{head}.forward" for head in HEADS),
    *(f"TFRemBert{head}" for head in HEADS),
    *(f"TFRemBert{head}.call" for head in HEADS),
]


def test_api_page_is_up_to_date() -> None:
    render = runpy.run_path(str(ROOT / "tools" / "make_api_docs.py"))["render"]
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == render(), "run python tools/make_api_docs.py"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_api_page_describes(name: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    section = re.search(rf"^#{{3,4}} {re.escape(name)}\n(.*?)(?=^#{{2,4}} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"docs/api.md has no section {name}"
    words = re.sub(r"```.*?```", "", section[1], flags=re.DOTALL).split()
    assert len(words) >= 4, f"{name} has no docstring to speak of"


def test_links_inside_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)  # in code, `x[1](2)` is no link
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
