"""Open a checkpoint of any format: its files, its configuration, and its tensors in PyTorch's orientation."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rembert.bridge.format import Format, without_index
from rembert.bridge.heads import recognise_head
from rembert.bridge.registry import FORMATS, find, locate_checkpoint
from rembert.bridge.shards import read_index
from rembert.bridge.tensors import DTYPES, Contents, TensorInfo, TensorSource, is_float
from rembert.common.arguments import check_argument, one_of, optional
from rembert.common.config import RemBertConfig
from rembert.common.config_files import CONFIG_NAME, GOOGLE_CONFIG_NAMES
from rembert.common.errors import CheckpointError, ConfigError, RemBertError
from rembert.common.files import first_named, read_json
from rembert.common.keywords import HubOptions
from rembert.common.parameters import HEADS

_ERF = b"\x12\x03Erf"  # a node of a saved graph that computes the error function: field 2, three letters


# The tensor and the axis that determine each size.
_SIZE_OF = {
    "vocab_size": ("rembert.embeddings.word_embeddings.weight", 0),
    "input_embedding_size": ("rembert.embeddings.word_embeddings.weight", 1),
    "max_position_embeddings": ("rembert.embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("rembert.embeddings.token_type_embeddings.weight", 0),
    "hidden_size": ("rembert.encoder.embedding_hidden_mapping_in.weight", 0),
    "intermediate_size": ("rembert.encoder.layer.0.intermediate.dense.weight", 0),
    "output_embedding_size": ("cls.predictions.decoder.weight", 1),
}


class Checkpoint:
    """The tensors of a checkpoint, single file or shards. A context manager; `open_checkpoint` returns it.

    Attributes:
        path: the directory or file that was opened.
        directory: that of the configuration and the tokenizer.
        format: the format's short name, a key of `FORMATS`.
        files: the files that hold the values.
        config: the configuration, or None.
        tensors: shape (in PyTorch's orientation) and dtype of every tensor, in the files' order. Names are the
            files' own for safetensors and pickles, canonical ones for the TensorFlow formats.
        left_out: names in the files that are not weights: an optimizer's state, counters, text.

    Example:
        >>> with open_checkpoint("google/rembert") as checkpoint:
        ...     checkpoint.format, checkpoint.config.model_type
        ...     table = checkpoint.read("rembert.embeddings.word_embeddings.weight")
        ('safetensors', 'rembert')
        >>> table.ndim, table.dtype
        (2, dtype('float32'))
    """

    def __init__(
        self,
        path: Path,
        directory: Path,
        format: str,
        files: list[Path],
        config: RemBertConfig | None,
        contents: Contents,
    ) -> None:
        self.path = path
        self.directory = directory
        self.format = format
        self.files = files
        self.config = config
        self.left_out = contents.left_out
        self._sources = contents.tensors

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._sources

    def source(self, name: str) -> TensorSource:
        """One tensor as a source, for a writer.

        Raises:
            CheckpointError: there is no such tensor, or the checkpoint was closed.
        """
        try:
            return self._sources[name]
        except KeyError:
            raise CheckpointError(
                f"{self.path} has no tensor `{name}`, or was closed. It holds {len(self._sources)} tensors."
            ) from None

    def read(self, name: str) -> np.ndarray:
        """The values of one tensor, in PyTorch's orientation.

        The array can be written to. Wherever the format allows it is a view on a private memory map (transposed, for
        a kernel of a TensorFlow format): nothing is copied, and the file never changes.

        Raises:
            CheckpointError: there is no such tensor, the checkpoint was closed, or its values are damaged.
        """
        return self.source(name).read()

    def require_floats(self, names: Iterable[str]) -> None:
        """Refuse tensors that cannot be weights because they hold integers, as quantized and damaged files do.

        Raises:
            CheckpointError: names the first such tensor and its dtype.
        """
        check_floats(self.path, {name: self.source(name) for name in names})

    def close(self) -> None:
        """Close the files. Arrays that were read remain valid."""
        self._sources.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_floats(source: Path | str, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse tensors that hold integers, as `Checkpoint.require_floats`; `source` is for the message."""
    for name, tensor in tensors.items():
        if not is_float(tensor.dtype):
            raise CheckpointError(
                f"{source}: `{name}` must hold floating-point numbers ({', '.join(DTYPES)}). Received: {tensor.dtype}."
            )


def open_checkpoint(
    path: str | os.PathLike[str], *, format: str | None = None, hub: HubOptions | None = None
) -> Checkpoint:
    """Open a checkpoint: a directory, a file of values, or the index of a sharded one.

    Only the structure is read; each tensor's values are read on demand.

    Args:
        path: what to open; a name like "google/rembert" that is not a path is looked up on the Hugging Face Hub. In a
            directory with several formats, the first in the order of `FORMATS` is read.
        format: a key of `FORMATS`, to read this format only.
        hub: how a repository is downloaded, the subfolder, and the variant of the weights.

    Raises:
        InputError: `format` is unknown.
        MissingDependencyError: a package that the format or the Hub needs is not installed.
        NotFoundError: nothing is found.
        CheckpointError: what is found is damaged; names file, tensor and reason.

    Example:
        >>> with open_checkpoint("google/rembert") as checkpoint:
        ...     "cls.predictions.decoder.weight" in checkpoint.tensors
        True
    """
    check_argument("format", format, optional(one_of(FORMATS)))
    path = locate_checkpoint(path, hub)
    found, main = find(path, format, None if hub is None else hub.variant)
    files = [main]
    if without_index(main.name) != main.name:
        shards = read_index(main)
        contents = Contents({})
        for shard, names in shards.items():
            _add_shard(contents, main, shard, {found.from_index(name) for name in names}, _read(found, shard))
        files = list(shards)
    else:
        contents = _read(found, main)
    directory = main.parent.parent if main.parent.name == "variables" else main.parent
    config = read_config(directory, contents.tensors)
    if config is None and contents.config is not None:
        try:
            config = RemBertConfig.from_dict(contents.config)
        except ConfigError as problem:
            raise ConfigError(f"{main}: {problem}") from None
    return Checkpoint(path, directory, found.name, files, config, contents)


def _read(format: Format, file: Path) -> Contents:
    try:
        return format.read(file)
    except RemBertError:  # some are an OSError too
        raise
    except OSError as problem:  # a socket, a link to itself, a file that may not be read or was just removed
        raise CheckpointError(f"{file} cannot be read: {problem.strerror or problem}") from problem


def read_config(directory: Path, tensors: Mapping[str, TensorInfo]) -> RemBertConfig | None:
    """The configuration in a checkpoint's directory, or None.

    Google's files do not describe heads and labels: the tensors determine these, and the sizes that the file omits (a
    distilled model has other sizes than RemBERT). BLEURT's `gelu` is the tanh form (see
    `RemBertConfig.from_pretrained`), except where its graph computes the error function.

    Raises:
        ConfigError: it is invalid.
    """
    file = first_named(directory, (CONFIG_NAME, *GOOGLE_CONFIG_NAMES))
    if file is None:
        return None
    if file.name == CONFIG_NAME:
        return RemBertConfig.from_pretrained(directory)
    config = RemBertConfig.from_pretrained(directory, **_omitted_sizes(file, tensors))
    classifier = tensors.get("classifier.weight")
    if classifier is not None and len(classifier.shape) == 2:
        config.num_labels = classifier.shape[0]
    config.architectures = [HEADS[recognise_head(config, tensors)].architecture]
    stated = read_json(file, ConfigError).get("hidden_act", "gelu")
    if stated == "gelu" and config.hidden_act == "gelu_new" and _computes_erf(directory / "saved_model.pb"):
        config.hidden_act = "gelu"
    return config


def _omitted_sizes(file: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """The sizes that Google's file omits, from the tensors' shapes.

    Raises:
        ConfigError: the file omits the number of heads, which no shape determines.
    """
    content = read_json(file, ConfigError)
    if not isinstance(content, dict):
        return {}  # refused where it is read
    encoder = "rembert.encoder.layer."
    layers = {name.removeprefix(encoder).split(".")[0] for name in tensors if name.startswith(encoder)}
    sizes = {"num_hidden_layers": len(layers)} if layers else {}
    for size, (name, axis) in _SIZE_OF.items():
        if name in tensors and len(tensors[name].shape) == 2:
            sizes[size] = tensors[name].shape[axis]
    if layers and "num_attention_heads" not in content:
        raise ConfigError(
            f"{file} must have `num_attention_heads`, which no shape determines. Received: a file without it."
        )
    if "embedding_size" in content:
        sizes.pop("input_embedding_size", None)
    return {size: value for size, value in sizes.items() if size not in content}


def _computes_erf(graph: Path) -> bool:
    """Whether a saved graph has a node that computes the error function."""
    if not graph.is_file() or graph.stat().st_size == 0:
        return False
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_ERF) >= 0


def _add_shard(contents: Contents, index: Path, shard: Path, listed: set[str], found: Contents) -> None:
    """Add one shard's tensors; raise an error if the index and the shard contradict each other."""
    for name in listed - found.tensors.keys():
        raise CheckpointError(f"{shard}: the shard lacks tensor `{name}`, which {index.name} places there.")
    contents.left_out.extend(found.left_out)
    for name, source in found.tensors.items():
        if name not in listed:
            raise CheckpointError(f"{shard}: {index.name} does not place tensor `{name}` in this shard.")
        contents.tensors[name] = source
