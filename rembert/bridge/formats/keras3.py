"""Keras 3: `.weights.h5` as `TFRemBert….save_weights` writes it, and the `.keras` archive around one.

The archive's own `config.json` holds the model's configuration; it is used if there is none beside the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rembert.bridge.archive import Archive
from rembert.bridge.format import Format
from rembert.bridge.hdf5 import DTYPES, new_file, read_datasets
from rembert.bridge.names import from_keras_path, keras_path
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import Contents, TensorSource, is_float, transposed
from rembert.common import strict_json
from rembert.common.errors import CheckpointError
from rembert.common.files import MAX_JSON, first_named

_WEIGHTS = "model.weights.h5"


def read(path: Path) -> Contents:
    """The tensors of one file by canonical name, in PyTorch's orientation; a foreign variable keeps its path.

    Raises:
        CheckpointError: the file is damaged; names the file, the variable and the reason.
    """
    if path.suffix == ".keras":
        return _read_archive(path)
    return _contents(path, read_datasets(path))


def write(
    path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = silent
) -> None:
    """Write a weights file for `TFRemBert….load_weights`; see `rembert.bridge.format.Write`."""
    with new_file(path, progress) as (_, add):
        for name, source in tensors.items():
            add(name, source)


def _read_archive(path: Path) -> Contents:
    archive = Archive(path)
    weights = archive.members.get(_WEIGHTS)
    if weights is None:
        raise CheckpointError(
            f"{path}: the archive holds no `{_WEIGHTS}`. Received: {', '.join(archive.members)[:200]}."
        )
    datasets = read_datasets(path, weights.start, weights.size)
    verified = {name: _verified(archive, source) for name, source in datasets.items()}
    return _contents(path, verified, _model_config(archive))


def _verified(archive: Archive, source: TensorSource) -> TensorSource:
    """A source that compares the archive's checksums before it reads."""

    def read() -> Any:
        archive.verify()
        return source.read()

    return TensorSource(source.shape, source.dtype, read)


def _contents(path: Path, datasets: Mapping[str, TensorSource], config: dict[str, Any] | None = None) -> Contents:
    contents = Contents({}, config=config)
    for dataset, source in datasets.items():
        if dataset.startswith("optimizer/") or not is_float(source.dtype) or source.shape == ():
            contents.left_out.append(dataset)  # the optimizer's state, counters, the seeds of dropout
            continue
        name, is_transposed = from_keras_path(dataset, len(source.shape)) or (dataset, False)
        if name in contents.tensors:
            raise CheckpointError(f"{path}: `{name}` is stored twice, once as `{dataset}`.")
        contents.tensors[name] = transposed(source) if is_transposed else source
    return contents


def _model_config(archive: Archive) -> dict[str, Any] | None:
    """The configuration of the model in an archive; None if it is not a model of this library."""
    try:
        content = strict_json.loads(archive.read("config.json", MAX_JSON))
    except ValueError as problem:
        raise CheckpointError(f"{archive.path}: `config.json` in the archive is not JSON: {problem}") from None
    inner = content.get("config") if isinstance(content, dict) else None
    keys = inner.get("config") if isinstance(inner, dict) else None
    return keys if isinstance(keys, dict) and keys.get("model_type") == "rembert" else None


def _locate(directory: Path) -> Path | None:
    """The Keras 3 weights of a directory: the file of the usual name, or the only one."""
    usual = first_named(directory, (_WEIGHTS, "model.keras"))
    if usual is not None:
        return usual
    found = sorted(path for end in ("*.weights.h5", "*.keras") for path in directory.glob(end))
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise CheckpointError(f"{directory} holds several Keras files: {listed}. Give the path of one.")
    return found[0] if found else None


FORMAT = Format(
    name="keras",
    files=(_WEIGHTS, "model.keras"),
    pattern=r".*(\.weights\.h5|\.keras)",
    read=read,
    dtypes=DTYPES,
    checksums="in a .keras archive, compared when values are read; none in .weights.h5",
    framework="tf",
    locate=_locate,
    target="keras",
    write=write,
    stored_name=keras_path,
    can_shard=False,
)
