"""TF/Keras 2 H5: `tf_model.h5` as transformers' TensorFlow classes wrote it, and the shards of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.hdf5 import new_file, read_datasets
from rembert.bridge.names import from_h5_path, h5_path
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import Contents, TensorSource, turned
from rembert.common.errors import CheckpointError
from rembert.common.parameters import HEADS, Parameter

# Files written by Keras 2 say which Keras wrote them; readers look at the major version.
KERAS_VERSION = "2.20.1"


def read(path: Path) -> Contents:
    """The tensors of one file by canonical name, in PyTorch's orientation; a foreign dataset keeps its path.

    Raises:
        CheckpointError: the file is damaged or refers to other files; names the file, the dataset and the reason.
    """
    tensors: dict[str, TensorSource] = {}
    for dataset, source in read_datasets(path).items():
        name, transposed = _meaning(dataset)
        if name in tensors:
            raise CheckpointError(f"{path}: `{name}` stands there twice, once as dataset `{dataset}`.")
        tensors[name] = turned(source) if transposed and len(source.shape) == 2 else source
    return Contents(tensors)


def write(
    path: Path,
    tensors: Mapping[str, TensorSource],
    table: Mapping[str, Parameter],
    head: str,
    *,
    shard: bool = False,
    progress: Progress = silent,
) -> None:
    """Write one file in the layout of transformers' TensorFlow classes.

    Args:
        path: the file.
        tensors: what to write, by canonical name.
        table: the parameters of `head`, which give every tensor's kind.
        head: names the model's instance in the file.
        shard: the flat layout of a shard: dataset paths without the layer's and the instance's groups.
        progress: called with the bytes just written.
    """
    layers: dict[str, list[str]] = {}
    instance = _instance(head)
    with new_file(path, progress) as (file, reserve):
        for name, parameter in table.items():
            if name not in tensors:
                continue
            dataset, transposed = h5_path(parameter)
            layer = dataset.split("/")[0]
            layers.setdefault(layer, []).append(f"{instance}/{dataset}")
            source = turned(tensors[name]) if transposed else tensors[name]
            place = dataset if shard else f"{layer}/{instance}/{dataset}"
            reserve(place, source)
        if shard:
            _write_names(file, "layer_names", [name.split("/", 1)[1] for names in layers.values() for name in names])
        else:
            _write_names(file, "layer_names", list(layers))
            file.create_group("top_level_model_weights")
            for layer, names in {**layers, "top_level_model_weights": []}.items():
                _write_names(file[layer], "weight_names", names)
            file.attrs["backend"] = "tensorflow"
            file.attrs["keras_version"] = KERAS_VERSION


def weight_name(parameter: Parameter, head: str) -> str:
    """The name of a parameter in `tf_model.h5.index.json`."""
    return f"{_instance(head)}/{h5_path(parameter)[0]}"


def _instance(head: str) -> str:
    """The name Keras gives to an instance of a head's TensorFlow class: `tf_rem_bert_for_masked_lm`."""
    return "tf_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", HEADS[head].architecture).lower()


def tensor_name(path: str) -> str:
    """The name under which `read` shows a dataset, or what an index calls one."""
    return _meaning(path)[0]


def _meaning(path: str) -> tuple[str, bool]:
    """A dataset's canonical name and whether it stands transposed; a foreign dataset keeps its path."""
    return from_h5_path(path) or (path, False)


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    """A list of names as an attribute, the way Keras 2 writes one."""
    import h5py

    group.attrs.create(attribute, np.array(names, dtype=h5py.string_dtype()) if names else np.zeros(0))
