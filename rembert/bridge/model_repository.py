"""The directories in which inference servers expect models: numbered versions, and Triton's `config.pbtxt`.

The fields are those of `model_config.proto` of Triton Inference Server.
"""

from __future__ import annotations

import os
from pathlib import Path

from rembert.common.errors import InputError
from rembert.common.exporting import EXPORT_TARGETS
from rembert.common.files import write_text

# The format of exports that a server takes.
SERVERS = {"tf-serving": "savedmodel", "triton": "onnx"}
TRITON_CONFIG = "config.pbtxt"
_TYPES = {1: "TYPE_FP32", 6: "TYPE_INT32", 7: "TYPE_INT64", 10: "TYPE_FP16", 11: "TYPE_FP64"}  # by ONNX' own number
_LARGEST_BATCH = 64
_QUEUE_MICROSECONDS = 2000


def next_version(directory: str | os.PathLike[str]) -> Path:
    """The directory of a model's next version: the servers load the one with the highest number.

    Raises:
        InputError: there is a file of that name.

    Example:
        >>> Path("models/topics/2").mkdir(parents=True)
        >>> next_version("models/topics")
        PosixPath('models/topics/3')
    """
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise InputError(f"`OUT` must be a directory. Received: {path}, which is a file.")
    found = [int(each.name) for each in path.iterdir() if each.name.isdecimal()] if path.is_dir() else []
    return path / str(max(found, default=0) + 1)


def write_triton_config(version: Path) -> Path:
    """Write `config.pbtxt` beside a version that holds an ONNX model; its name, inputs and outputs are the graph's.

    Triton computes requests together that have the same lengths.

    Args:
        version: the directory of the version.

    Returns:
        The file.
    """
    import onnx

    graph = onnx.load(version / EXPORT_TARGETS["onnx"].file, load_external_data=False).graph
    lines = [
        f'name: "{version.parent.resolve().name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {_LARGEST_BATCH}",
        *(_tensor("input", each) for each in graph.input),
        *(_tensor("output", each) for each in graph.output),
        f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_MICROSECONDS} }}",
    ]
    write_text(version.parent / TRITON_CONFIG, "\n".join(lines) + "\n")
    return version.parent / TRITON_CONFIG


def _tensor(kind: str, value: object) -> str:
    """An input or output; its first axis is the batch, which Triton adds itself."""
    found = value.type.tensor_type  # type: ignore[attr-defined]
    sizes = ", ".join(str(axis.dim_value or -1) for axis in list(found.shape.dim)[1:])
    name = value.name  # type: ignore[attr-defined]
    return f'{kind} [ {{ name: "{name}" data_type: {_TYPES[found.elem_type]} dims: [ {sizes} ] }} ]'
