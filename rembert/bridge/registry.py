"""The formats that are read, and how a path leads to one of them."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rembert.bridge.formats import h5, keras3, pickle, safetensors, tf1
from rembert.bridge.tensors import Contents
from rembert.common.errors import CheckpointError


@dataclass(frozen=True)
class Format:
    """One checkpoint format: how its files are found and how one of them is read.

    Attributes:
        name: what commands and messages call it.
        files: how its files are called, for messages.
        locate: the main file (values, or the index of shards) in a directory; None where there is none.
        accepts: a regular expression for the name of a main file.
        read: the contents of one file of values.
        index_name: the name `read` uses for a tensor, from the name an index of shards uses.
    """

    name: str
    files: str
    locate: Callable[[Path], Path | None]
    accepts: str
    read: Callable[[Path], Contents]
    index_name: Callable[[str], str] = str


def _named(file: str) -> Callable[[Path], Path | None]:
    """Find a file by its name, or else its index of shards."""
    return lambda directory: next(
        (directory / name for name in (file, f"{file}.index.json") if (directory / name).is_file()), None
    )


def _keras(directory: Path) -> Path | None:
    """The Keras 3 weights of a directory: by their usual name, or the only ones there."""
    found = [directory / name for name in ("model.weights.h5", "model.keras") if (directory / name).is_file()]
    found = found[:1] or sorted(path for end in ("*.weights.h5", "*.keras") for path in directory.glob(end))
    if len(found) > 1:
        raise CheckpointError(f"{directory} holds several Keras files: {_listed(found)}. Give the path of one.")
    return found[0] if found else None


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _saved_model(directory: Path) -> Path | None:
    index = directory / "variables" / "variables.index"
    return index if index.is_file() else None


def _tf1(directory: Path) -> Path | None:
    """The one TF1 checkpoint of a directory, or the one that its `checkpoint` file says is the latest."""
    found = sorted(
        path for path in directory.glob("*.index") if any(directory.glob(f"{glob.escape(path.stem)}.data-*-of-*"))
    )
    if len(found) > 1 and (directory / "checkpoint").is_file():
        state = (directory / "checkpoint").read_bytes()[:65536].decode("utf-8", "replace")
        latest = re.match(r'\s*model_checkpoint_path:\s*"(?:[^"]*[/\\])?([^"/\\]+)"', state)
        found = [path for path in found if latest and path.stem == latest[1]] or found
    if len(found) > 1:
        raise CheckpointError(
            f"{directory} holds several TF1 checkpoints: {', '.join(path.stem for path in found)}. "
            "Give the path of one."
        )
    return found[0] if found else None


# In the order in which a directory that holds several is read.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("safetensors", "model.safetensors", _named("model.safetensors"), r".*\.safetensors", safetensors.read),
        Format("pickle", "pytorch_model.bin", _named("pytorch_model.bin"), r".*\.(bin|pt|pth)", pickle.read),
        Format(
            "h5", "tf_model.h5", _named("tf_model.h5"), r"(?!.*\.weights\.h5$).*\.(h5|hdf5)", h5.read, h5.tensor_name
        ),
        Format("keras", "model.weights.h5, model.keras", _keras, r".*(\.weights\.h5|\.keras)", keras3.read),
        Format("tf1", "NAME.ckpt.index", _tf1, r"(?!variables\.).*\.index", tf1.read),
        Format("savedmodel", "variables/variables.index", _saved_model, r"variables\.index", tf1.read),
    )
}


def find(path: Path, format: str | None) -> tuple[Format, Path]:
    """The format and the main file (values, or an index) of what `path` names."""
    wanted = [FORMATS[format]] if format else list(FORMATS.values())
    if path.name == "saved_model.pb":
        path = path.parent
    if path.is_dir():
        for candidate in wanted:
            main = candidate.locate(path)
            if main is not None:
                return candidate, main
        raise CheckpointError(
            f"{path} holds no checkpoint{f' of format {format}' if format else ''}. Looked for: "
            f"{', '.join(candidate.files for candidate in wanted)}, and indexes of shards."
        )
    # TensorFlow calls a checkpoint by what its files' names share.
    bundle = path.with_name(re.sub(r"(\.index|\.data-\d+-of-\d+)?$", "", path.name) + ".index")
    main = bundle if bundle.is_file() else path
    if not main.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: neither a directory nor a file.")
    for candidate in wanted:
        if re.fullmatch(candidate.accepts, main.name.removesuffix(".index.json")):
            return candidate, main
    raise CheckpointError(
        f"{path} is of no format that is known by its name. Known: "
        f"{', '.join(candidate.files for candidate in wanted)}."
    )
