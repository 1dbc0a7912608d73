"""The names inside Google's releases: a TF1 checkpoint of RemBERT, and the variables of a BLEURT SavedModel.

The encoder's names follow the parameter table. The names of the pre-training head are not published, so that head is
recognised by its layers and shapes. An optimizer's state is left out.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from rembert.bridge.format import Format
from rembert.bridge.formats.bundle import DTYPES, read_bundle
from rembert.bridge.tensors import Contents, TensorSource, is_float, transposed
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

_LEAVES = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_WORDS = "rembert.embeddings.word_embeddings.weight"
_MAPPING = "rembert.encoder.embedding_hidden_mapping_in.weight"


def read(index: Path) -> Contents:
    """The tensors of a bundle by canonical name; other variables keep their names.

    Args:
        index: the path of the `.index` file.

    Raises:
        CheckpointError: the bundle is damaged, or two variables are the same parameter.
    """
    variables = read_bundle(index)
    left_out = [name for name in variables if _is_no_weight(name, variables)]
    weights = {name: source for name, source in variables.items() if source is not None and name not in left_out}
    tensors: dict[str, TensorSource] = {}
    foreign: dict[str, TensorSource] = {}
    for name, source in weights.items():
        canonical, is_transposed = canonical_name(name) or (None, False)
        if canonical is None:
            foreign[name] = source
        elif canonical in tensors:
            raise CheckpointError(f"{index}: `{canonical}` is stored twice, once as variable `{name}`.")
        else:
            tensors[canonical] = transposed(source) if is_transposed and len(source.shape) == 2 else source
    return Contents({**tensors, **_pretraining_head(tensors, foreign)}, left_out)


def canonical_name(name: str) -> tuple[str, bool] | None:
    """The canonical name of a variable, and whether it is stored transposed; None for a name without a rule.

    `bert/encoder/layer_3/output/dense/kernel` is `rembert.encoder.layer.3.output.dense.weight`, transposed;
    `dense/kernel` is BLEURT's regression layer, `classifier.weight`.
    """
    name = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    root, *parts = name.split("/")
    if root == "dense" and len(parts) == 1 and parts[0] in ("kernel", "bias"):
        return f"classifier.{_LEAVES[parts[0]]}", parts[0] == "kernel"
    if root not in ("bert", "rembert") or len(parts) < 2 or parts[0] not in ("embeddings", "encoder", "pooler"):
        return None
    leaf = parts[-1]
    if parts[0] == "embeddings" and len(parts) == 2:  # a table is a variable itself, not a layer's kernel
        return f"rembert.embeddings.{leaf}.weight", False
    if leaf not in _LEAVES:
        return None
    layers = [re.sub(r"^layer_(\d+)$", r"layer.\1", part) for part in parts[:-1]]
    return ".".join(["rembert", *layers, _LEAVES[leaf]]), leaf == "kernel"


def _is_no_weight(name: str, variables: dict[str, TensorSource | None]) -> bool:
    """Whether a variable is an optimizer's slot (its name continues that of another variable) or a counter."""
    source = variables[name]
    if source is None or not is_float(source.dtype) or source.shape == ():
        return True
    return "/" in name and name.rsplit("/", 1)[0] in variables


def _pretraining_head(encoder: dict[str, TensorSource], foreign: dict[str, TensorSource]) -> dict[str, TensorSource]:
    """Give the masked-LM head its canonical names if all of its six variables are there.

    The output table is the matrix with a row (or a column) per word; its other side is the output embedding's width.
    From these two sizes and the hidden size the rest follows.
    """
    if _WORDS not in encoder or _MAPPING not in encoder:
        return foreign
    vocabulary, hidden = encoder[_WORDS].shape[0], encoder[_MAPPING].shape[0]
    tables = [name for name, source in foreign.items() if len(source.shape) == 2 and vocabulary in source.shape]
    if len(tables) != 1:
        return foreign
    table = foreign[tables[0]]
    upright = table if table.shape[0] == vocabulary else transposed(table)
    width = upright.shape[1]
    head: dict[str, TensorSource] = {}
    rest: dict[str, TensorSource] = {}
    for name, source in foreign.items():
        leaf = re.split(r"[/_]", name)[-1]
        part = None
        if name == tables[0]:
            part, source = "decoder.weight", upright
        elif source.shape == (hidden, width) and leaf != "weights":
            part, source = "dense.weight", transposed(source)
        elif source.shape == (width,) and leaf in ("gamma", "beta"):
            part = f"LayerNorm.{_LEAVES[leaf]}"
        elif source.shape == (width,) and leaf == "bias":
            part = "dense.bias"
        elif source.shape == (vocabulary,) and leaf == "bias":
            part = "decoder.bias"
        if part is None or f"cls.predictions.{part}" in head:
            rest[name] = source
        else:
            head[f"cls.predictions.{part}"] = source
    return {**head, **rest} if len(head) == 6 else foreign


# ---------------------------------------------------------------------- the formats


def _locate_tf1(directory: Path) -> Path | None:
    """The only TF1 checkpoint of a directory, or the latest one according to its `checkpoint` file."""
    found = sorted(
        path for path in directory.glob("*.index") if any(directory.glob(f"{glob.escape(path.stem)}.data-*-of-*"))
    )
    if len(found) > 1 and (directory / "checkpoint").is_file():
        with open_regular(directory / "checkpoint", CheckpointError) as file:
            state = file.read(65536).decode("utf-8", "replace")
        latest = re.match(r'\s*model_checkpoint_path:\s*"(?:[^"]*[/\\])?([^"/\\]+)"', state)
        found = [path for path in found if latest and path.stem == latest[1]] or found
    if len(found) > 1:
        listed = ", ".join(path.stem for path in found)
        raise CheckpointError(f"{directory} holds several TF1 checkpoints: {listed}. Give the path of one.")
    return found[0] if found else None


def _locate_variables(directory: Path) -> Path | None:
    index = directory / "variables" / "variables.index"
    return index if index.is_file() else None


_CHECKSUMS = "CRC-32C of every variable, compared when values are read"
TF1 = Format(
    name="tf1",
    files=("*.ckpt.index", "*.ckpt.data-*-of-*"),
    pattern=r"(?!variables\.).*\.index",
    read=read,
    dtypes=DTYPES,
    checksums=_CHECKSUMS,
    locate=_locate_tf1,
)
SAVED_MODEL = Format(
    name="savedmodel",
    files=("variables/variables.index", "variables/variables.data-*-of-*", "saved_model.pb"),
    pattern=r"variables\.index",
    read=read,
    dtypes=DTYPES,
    checksums=_CHECKSUMS,
    locate=_locate_variables,
)
