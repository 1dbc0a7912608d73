"""Write docs/api.md from the docstrings: `python tools/make_api_docs.py`. Needs both frameworks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rembert
import rembert.bridge
import rembert.pt
import rembert.tf
from rembert.common import outputs
from rembert.common.parameters import HEADS

TARGET = Path(__file__).parent.parent / "docs" / "api.md"

_TOKENIZER_METHODS = (
    "from_pretrained",
    "__call__",
    "encode",
    "decode",
    "batch_decode",
    "tokenize",
    "pad",
    "build_inputs_with_special_tokens",
    "get_special_tokens_mask",
    "create_token_type_ids_from_sequences",
    "save_vocabulary",
    "save_pretrained",
)
_MODEL_METHODS = ("from_pretrained", "save_pretrained", "get_input_embeddings", "get_output_embeddings")
_ANNOTATION = re.compile(r": '([^']*)'")  # annotations are kept as text
_ADDRESS = re.compile(r"<function (\w+) at 0x\w+>")  # a function as a default is shown by its name
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Fields):$")
_ENTRY = re.compile(r"^(\*{0,2}[\w, *`]+): (.*)$")


def render() -> str:
    """The whole page."""
    return "\n".join(_page()).rstrip() + "\n"


def _page() -> Iterator[str]:
    yield "# API"
    yield ""
    yield "Made from the docstrings by `tools/make_api_docs.py`. Sizes: b batch, s sequence, t keys or real tokens,"
    yield "h heads, d width of a head, e hidden size, v vocabulary."
    yield ""
    yield "## Shared by both frameworks"
    yield ""
    yield "Importable from `rembert`, `rembert.pt` and `rembert.tf`."
    yield ""
    yield from _class(rembert.RemBertConfig, ("from_pretrained", "save_pretrained", "from_dict", "to_dict"))
    yield from _class(rembert.RemBertTokenizer, _TOKENIZER_METHODS)
    yield from _class(rembert.RemBertTokenizerFast, _TOKENIZER_METHODS[:1])
    yield "## PyTorch: `rembert.pt`"
    yield ""
    yield from _class(rembert.pt.RemBertPreTrainedModel, _MODEL_METHODS)
    for head in HEADS.values():
        yield from _class(getattr(rembert.pt, head.architecture), ("forward",))
    yield "## TensorFlow and Keras 3: `rembert.tf`"
    yield ""
    yield from _class(rembert.tf.TFRemBertPreTrainedModel, _MODEL_METHODS)
    for head in HEADS.values():
        yield from _class(getattr(rembert.tf, f"TF{head.architecture}"), ("call",))
    yield "## What models return"
    yield ""
    yield from _class(outputs.ModelOutput, ("to_tuple",), signature=False)
    for kind in outputs.OUTPUT_TYPES:
        yield from _class(kind, (), signature=False)
    yield "## Checkpoints: `rembert.bridge`"
    yield ""
    for name in rembert.bridge.__all__:
        member = getattr(rembert.bridge, name)
        if inspect.isclass(member):
            own = [key for key, value in vars(member).items() if inspect.isfunction(value) and key[0] != "_"]
            yield from _class(member, own, signature=False)
        elif inspect.isfunction(member):
            yield from _callable(name, member, level=3)


def _class(kind: type, methods: Any, *, signature: bool = True) -> Iterator[str]:
    if signature:
        yield from _callable(kind.__name__, kind, level=3)
    else:
        yield f"### {kind.__name__}"
        yield ""
        yield from _docstring(kind)
    for name in methods:
        yield from _callable(f"{kind.__name__}.{name}", getattr(kind, name), level=4)


def _callable(name: str, member: Any, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    yield ""
    yield "```python"
    yield from _signature(name.rpartition(".")[2], member)
    yield "```"
    yield ""
    yield from _docstring(member)


def _signature(name: str, member: Any) -> Iterator[str]:
    found = inspect.signature(member)
    parts: list[str] = []
    seen_star = False
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
            parts.append("*")
        seen_star |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(_ADDRESS.sub(r"\1", _ANNOTATION.sub(r": \1", str(parameter))))
    annotated = not inspect.isclass(member) and found.return_annotation is not found.empty
    returns = f" -> {str(found.return_annotation).strip(chr(39))}" if annotated else ""
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) <= 100:
        yield line
        return
    yield f"{name}("
    yield from (f"    {part}," for part in parts)
    yield f"){returns}"


def _docstring(member: Any) -> Iterator[str]:
    """A docstring as Markdown: its sections as lists, the rest as it is."""
    section = False
    text, _, example = inspect.cleandoc(member.__doc__ or "").partition("\nExample:\n")
    for line in text.splitlines():
        if title := _SECTION.match(line):
            section = True
            yield f"**{title[1]}**"
            yield ""
        elif section and line and not line.startswith(" "):
            section = False
            yield line
        elif section:
            entry = _ENTRY.match(line.removeprefix("    "))
            if entry and not line.startswith("     "):
                yield f"- `{entry[1]}`: {entry[2]}"
            else:
                yield f"  {line.strip()}" if line.strip() else ""
        else:
            yield line
    yield ""
    if example:
        yield from ("**Example**", "", "```python", *inspect.cleandoc(example).splitlines(), "```", "")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")
