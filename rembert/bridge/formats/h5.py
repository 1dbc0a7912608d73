"""TF/Keras 2 H5: `tf_model.h5` as transformers' TensorFlow classes wrote it, and the shards of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.format import Format
from rembert.bridge.hdf5 import DTYPES, new_file, read_datasets
from rembert.bridge.names import from_h5_path, h5_path
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import Contents, TensorSource, transposed
from rembert.common.errors import CheckpointError
from rembert.common.parameters import HEADS, Parameter

# Keras 2 records its version in its files; readers check the major version.
KERAS_VERSION = "2.20.1"


def read(path: Path) -> Contents:
    """The tensors of one file by canonical name, in PyTorch's orientation; other datasets keep their paths.

    Raises:
        CheckpointError: the file is damaged or refers to other files; names the file, the dataset and the reason.
    """
    tensors: dict[str, TensorSource] = {}
    for dataset, source in read_datasets(path).items():
        name, is_transposed = _canonical(dataset)
        if name in tensors:
            raise CheckpointError(f"{path}: `{name}` is stored twice, once as dataset `{dataset}`.")
        tensors[name] = transposed(source) if is_transposed and len(source.shape) == 2 else source
    return Contents(tensors)


def write(
    path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False, progress: Progress = silent
) -> None:
    """Write one file as transformers' TensorFlow classes do; see `rembert.bridge.format.Write`.

    A shard is flat: its dataset paths lack the groups of the layer and of the model's instance.
    """
    layers: dict[str, list[str]] = {}
    with new_file(path, progress) as (file, add):
        for name, source in tensors.items():
            dataset = name.split("/", 1)[1]
            layer = dataset.split("/")[0]
            layers.setdefault(layer, []).append(name)
            add(dataset if shard else f"{layer}/{name}", source)
        if shard:
            _write_names(file, "layer_names", [name.split("/", 1)[1] for names in layers.values() for name in names])
        else:
            _write_names(file, "layer_names", list(layers))
            file.create_group("top_level_model_weights")
            for layer, names in {**layers, "top_level_model_weights": []}.items():
                _write_names(file[layer], "weight_names", names)
            file.attrs["backend"] = "tensorflow"
            file.attrs["keras_version"] = KERAS_VERSION


def stored_name(parameter: Parameter, head: str) -> tuple[str, bool]:
    """The name of a weight in `tf_model.h5` and its index, and whether it is stored transposed.

    It begins with the name that Keras gives to an instance of the head's class: `tf_rem_bert_for_masked_lm/…`.
    """
    instance = "tf_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", HEADS[head].architecture).lower()
    path, is_transposed = h5_path(parameter)
    return f"{instance}/{path}", is_transposed


def _from_index(name: str) -> str:
    return _canonical(name)[0]


def _canonical(path: str) -> tuple[str, bool]:
    """A dataset's canonical name, or its path if it is not a parameter, and whether it is stored transposed."""
    return from_h5_path(path) or (path, False)


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    """A list of names as an attribute, the way Keras 2 writes one."""
    import h5py

    group.attrs.create(attribute, np.array(names, dtype=h5py.string_dtype()) if names else np.zeros(0))


FORMAT = Format(
    name="h5",
    files=("tf_model.h5", "tf_model-*-of-*.h5"),
    pattern=r"(?!.*\.weights\.h5$).*\.(h5|hdf5)",
    read=read,
    dtypes=DTYPES,
    checksums="none in this format: a changed value cannot be detected",
    framework="tf",
    from_index=_from_index,
    target="tf",
    write=write,
    stored_name=stored_name,
)
