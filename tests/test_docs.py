"""The documentation is complete: its site builds, its reference has every public name, its links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("", "pt", "tf", "transformers", "tasks", "training", "bleurt", "scale", "bridge")
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
IN_TRANSFORMERS = (
    "rembert.RemBertConfig",
    "rembert.RemBertTokenizer",
    *(f"rembert.RemBertTokenizer.{method}" for method in TOKENIZER_METHODS),
    "rembert.RemBertTokenizerFast",
    *(f"rembert.RemBertTokenizerFast.{method}" for method in TOKENIZER_METHODS),
    *(f"rembert.pt.RemBert{head}" for head in HEADS),
    *(f"rembert.pt.RemBert{head}.forward" for head in HEADS),
    *(f"rembert.tf.TFRemBert{head}" for head in HEADS),
    *(f"rembert.tf.TFRemBert{head}.call" for head in HEADS),
)
# What the guides name beyond the packages' `__all__`.
IN_GUIDES = (
    "rembert.RemBertTokenizer.__call__",
    "rembert.pt.RemBertForCausalLM.generate",
    "rembert.pt.RemBertPreTrainedModel.from_pretrained",
    "rembert.pt.RemBertPreTrainedModel.freeze_embeddings",
    "rembert.pt.RemBertPreTrainedModel.gradient_checkpointing_enable",
    "rembert.pt.RemBertPreTrainedModel.head_modules",
    "rembert.pt.RemBertPreTrainedModel.optimize_for_inference",
    "rembert.pt.RemBertPreTrainedModel.quantize_dynamic",
    "rembert.pt.RemBertPreTrainedModel.resize_token_embeddings",
    "rembert.pt.exporting.export_onnx",
    "rembert.pt.sentence_transformers.RemBertTransformer",
    "rembert.tf.TFRemBertForCausalLM.generate",
    "rembert.tf.TFRemBertPreTrainedModel.from_pretrained",
    "rembert.tf.TFRemBertPreTrainedModel.freeze_embeddings",
    "rembert.tf.TFRemBertPreTrainedModel.gradient_checkpointing_enable",
    "rembert.tf.TFRemBertPreTrainedModel.resize_token_embeddings",
    "rembert.tf.adaptation.enable_lora",
    "rembert.tf.exporting.export_litert",
    "rembert.tf.exporting.export_savedmodel",
    "rembert.tf.text_serving.export_text_savedmodel",
    "rembert.tasks.embedding.embed",
    "rembert.tasks.filling.fill_mask",
    "rembert.tasks.verification.verify",
    "rembert.bridge.averaging.average",
    "rembert.bridge.trimming.trim",
    "rembert.common.outputs.SequenceClassifierOutput",
    "rembert.common.errors.CheckpointError",
)


def exported(package: str) -> list[str]:
    """The names in a package's `__all__`, found without an import: a framework may be missing."""
    tree = ast.parse((ROOT / "rembert" / package / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    prefix = f"rembert.{package}" if package else "rembert"
    return [f"{prefix}.{name}" for name in names if not name.startswith("__")]


PUBLIC = [name for package in PACKAGES for name in exported(package)]


class Element(NamedTuple):
    """A start tag of a page."""

    tag: str
    attributes: dict[str, str]


class Elements(HTMLParser):
    """The start tags of a page, and the number of words in the paragraphs below each heading of the reference."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[Element] = []
        self.words: dict[str, int] = {}
        self._described = ""
        self._in_paragraph = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.found.append(Element(tag, attributes))
        self._in_paragraph |= tag == "p"
        if "doc-heading" in attributes.get("class", ""):
            self._described = attributes.get("id", "")
            self.words[self._described] = 0

    def handle_endtag(self, tag: str) -> None:
        self._in_paragraph &= tag != "p"

    def handle_data(self, data: str) -> None:
        if self._described and self._in_paragraph:
            self.words[self._described] += len(data.split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "griffe"):
        pytest.importorskip(package)
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def reference(site: Path) -> dict[str, int]:
    """How many words describe each object of the reference, under all of its names."""
    packed = (site / "objects.inv").read_bytes().partition(b"compressed using zlib.\n")[2]
    words = {path.relative_to(site).as_posix(): Elements(path).words for path in (site / "api").glob("*.html")}
    found = {}
    for line in zlib.decompress(packed).decode().splitlines():
        name, _, _, location, _ = line.split(" ", maxsplit=4)
        page, _, anchor = location.replace("$", name).partition("#")
        if anchor in words[page]:
            found[name] = words[page][anchor]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", dict.fromkeys([*PUBLIC, *IN_TRANSFORMERS, *IN_GUIDES]))
def test_reference_describes(name: str, reference: dict[str, int]) -> None:
    assert name in reference, f"no page in docs/api has {name}"
    assert reference[name] >= 4, f"{name} has no docstring to speak of"


@pytest.mark.slow
def test_reference_has_what_the_guides_import(reference: dict[str, int]) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    imported = {
        f"{module}.{name.strip()}"
        for module, names in re.findall(r"^from (rembert[\w.]*) import (.+)$", text, re.MULTILINE)
        for name in names.split(",")
    }
    assert len(imported) > 15
    assert imported <= set(reference)


@pytest.mark.slow
def test_reference_renders_examples_and_arguments(site: Path) -> None:
    page = (site / "api" / "tasks.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt; " in page  # as highlighted code
    assert "<blockquote>" not in page  # as Markdown would read `>>>`
    assert "Parameters:" in page
    assert "Raises:" in page


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        for element in Elements(path).found:
            if element.tag != "a":  # a link is loaded when the reader follows it
                loaded = [element.attributes.get(name, "") for name in ("src", "href", "srcset", "data")]
                assert not any("//" in target for target in loaded), f"{path.name}: {element}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path.name


@pytest.mark.slow
def test_site_holds_no_paths_of_this_machine(site: Path) -> None:
    here = [str(ROOT), str(site), str(Path.home()), sys.prefix]
    for path in site.rglob("*"):
        if path.suffix in (".html", ".json", ".xml", ".inv"):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [each for each in here if each in text], path.name


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    # The hook `tools/site_navigation.py` adds the pages of tasks.
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "tasks"]
    for page in pages:
        assert page.relative_to(ROOT / "docs").as_posix() in navigation


def test_links_inside_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)  # code has no links
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_readme_leads_to_every_guide() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        if page.name not in ("changes.md", "contributing.md", "security.md"):  # files at the top of the project
            assert f"](docs/{page.name}" in text


def test_contributing_shows_code_of_this_project() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"^<!-- from (\S+) -->\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == text.count("```python") >= 5
    for source, code in shown:
        assert code in (ROOT / source).read_text(encoding="utf-8"), f"{source} no longer has this: {code}"


@pytest.mark.parametrize("package", ["common", "pt", "tf"])
def test_architecture_names_every_file(package: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "rembert" / package).iterdir():
        if not path.name.startswith("__"):
            name = path.name.removesuffix(".py") + "/" * path.is_dir()
            assert f"`{name}`" in page or f"`{package}/{name}`" in page, f"docs/architecture.md does not name {path}"


def test_every_row_of_the_fault_table_names_tests_that_exist() -> None:
    faults, tests = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)[:2]
    assert len(faults.splitlines()) == len(tests.splitlines())
    for fault, row in zip(faults.splitlines()[2:], tests.splitlines()[2:], strict=True):
        assert fault.startswith(row.split(" | ")[0]), row
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), name
