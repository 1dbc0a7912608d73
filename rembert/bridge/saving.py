"""Write a checkpoint into a directory, in one file or in shards, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.format import Format, index_name, variant_name
from rembert.bridge.formats import h5, keras3, pickle, safetensors
from rembert.bridge.heads import named_head
from rembert.bridge.registry import FORMATS, TARGETS
from rembert.bridge.shards import index_content, is_shard, parse_size, plan_shards
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import TensorSource, transposed
from rembert.common.arguments import check_argument, one_of
from rembert.common.config import RemBertConfig
from rembert.common.config_files import CONFIG_NAME
from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import atomic_path, make_directory, remove_file, remove_leftovers, write_json
from rembert.common.keywords import VARIANT
from rembert.common.name_matching import canonical_name
from rembert.common.parameters import HEADS, parameters
from rembert.common.saves import saved_together
from rembert.common.uploading import upload, upload_options

DEFAULT_SHARD_SIZE = "5GB"


def save_safetensors(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str | None = DEFAULT_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
    variant: str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `model.safetensors`, or shards and `model.safetensors.index.json`, one tensor at a time.

    Args:
        directory: created if missing. Other files in it do not change; older files of this format (shards instead of a
            single file, or the reverse) are removed once the new ones are complete.
        tensors: by their names in the file.
        max_shard_size: bytes, text like "2GB", or None for a single file of any size.
        variant: a part of the files' names, as in `model.fp16.safetensors`.
        metadata: text for the files' headers; by default `{"format": "pt"}`, which transformers requires.
        progress: called with the number of bytes just written.

    Returns:
        The files that were written.

    Raises:
        InputError: the size is invalid.
        CheckpointError: the format does not have a dtype.
        OSError: the disk is full or not writable; the directory does not change.

    Example:
        >>> bias = TensorSource((3,), np.dtype("float32"), read=lambda: np.zeros(3, np.float32))
        >>> [path.name for path in save_safetensors("classifier", {"classifier.bias": bias})]
        ['model.safetensors']
    """

    def write(path: Path, tensors: Mapping[str, TensorSource], *, shard: bool = False) -> None:
        safetensors.write(path, tensors, {"format": "pt"} if metadata is None else metadata, progress)

    _check_dtypes(safetensors.FORMAT, tensors)
    return _save(safetensors.FORMAT, directory, tensors, max_shard_size, write, variant)


def save_h5(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    *,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `tf_model.h5` in the layout of transformers' TensorFlow classes, or shards of it and their index.

    Args:
        directory, max_shard_size, progress: as for `save_safetensors`.
        tensors: by canonical name, in PyTorch's orientation.
        config: the model's, for the parameter table.
        head: a key of `HEADS`; names the model in the file.

    Raises:
        CheckpointError: a tensor is not a parameter of this head, or has a dtype that H5 does not have (bfloat16).

    Example:
        >>> bias = TensorSource((3,), np.dtype("float32"), read=lambda: np.zeros(3, np.float32))
        >>> config = RemBertConfig(num_labels=3)
        >>> files = save_h5("classifier-h5", {"classifier.bias": bias}, config, "sequence-classification")
        >>> [path.name for path in files]
        ['tf_model.h5']
    """
    return _save_model(h5.FORMAT, directory, tensors, config, head, max_shard_size, progress)


def save_keras(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    *,
    progress: Progress = silent,
) -> list[Path]:
    """Write `model.weights.h5`, for `TFRemBert….load_weights`.

    Arguments and errors are those of `save_h5`; there are no shards.

    Example:
        >>> bias = TensorSource((3,), np.dtype("float32"), read=lambda: np.zeros(3, np.float32))
        >>> config = RemBertConfig(num_labels=3)
        >>> files = save_keras("classifier-keras", {"classifier.bias": bias}, config, "sequence-classification")
        >>> [path.name for path in files]
        ['model.weights.h5']
    """
    return _save_model(keras3.FORMAT, directory, tensors, config, head, None, progress)


def save_pickle(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str | None = None,
    variant: str | None = None,
    progress: Progress = silent,
    write: Callable[..., None] | None = None,
) -> list[Path]:
    """Write `pytorch_model.bin` through `torch.save`, or shards of it and their index.

    Other arguments and the result are those of `save_safetensors`.

    Args:
        directory: created if missing.
        tensors: by their names in the file.
        write: writes a file in place of `torch.save`, as `Format.write`.

    Raises:
        MissingDependencyError: torch is not installed.

    Example:
        >>> bias = TensorSource((3,), np.dtype("float32"), read=lambda: np.zeros(3, np.float32))
        >>> [path.name for path in save_pickle("classifier-bin", {"classifier.bias": bias})]
        ['pytorch_model.bin']
    """
    _check_dtypes(pickle.FORMAT, tensors)
    write = partial(pickle.write, progress=progress) if write is None else write
    return _save(pickle.FORMAT, directory, tensors, max_shard_size, write, variant)


def save_checkpoint(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray | TensorSource],
    config: RemBertConfig,
    *,
    to: str = "pt",
    head: str | None = None,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write weights in the format `to`, and `config.json`.

    Args:
        directory, max_shard_size, progress: as for `save_safetensors`.
        tensors: arrays, or sources that are read one at a time, in PyTorch's orientation; by canonical name, or by the
            name in a bare encoder's file.
        config: the model's.
        to: one of `TARGETS`.
        head: a key of `HEADS`; by default the one that `config.architectures` names.

    Returns:
        The files that were written.

    Raises:
        InputError: `to` or `head` is unknown, no head is given, or the format has no shards.
        MissingDependencyError: the format needs torch, which is not installed.
        CheckpointError: the format does not have a dtype, or a tensor is not a parameter of this head.

    Example:
        >>> config = RemBertConfig(num_labels=3)
        >>> weights = {"classifier.bias": np.zeros(3, np.float32)}
        >>> files = save_checkpoint("classifier", weights, config, head="sequence-classification")
        >>> [path.name for path in files]
        ['model.safetensors', 'config.json']
    """
    format = target_format(to)
    head = named_head(config) if head is None else head
    check_argument("head", head, one_of(HEADS))
    assert head is not None
    sources = {
        canonical_name(name) or name: tensor
        if isinstance(tensor, TensorSource)
        else TensorSource(tensor.shape, tensor.dtype, tensor.view)
        for name, tensor in tensors.items()
    }
    with saved_together(directory):
        files = _save_model(format, directory, sources, config, head, max_shard_size, progress)
        config.save_pretrained(directory)
    return [*files, Path(directory) / CONFIG_NAME]


def save_model(
    save_directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    *,
    max_shard_size: int | str | None,
    variant: str | None,
    push_to_hub: bool,
    keywords: dict[str, Any],
    write: Callable[[Path], list[Path]] | None = None,
) -> None:
    """Write a model's weights and its configuration, as `save_pretrained` of both frameworks does.

    Args:
        save_directory, tensors, max_shard_size, variant: as for `save_safetensors`.
        config: the configuration.
        push_to_hub: upload the files that were written.
        keywords: those of `push_to_hub`.
        write: writes the weights into a directory in another format than safetensors, and returns the files.

    Raises:
        InputError: `save_directory` is a file, or an argument is invalid.
        KeywordError: a keyword is unknown.
    """
    check_argument("variant", variant, VARIANT)
    options = upload_options(push_to_hub, keywords, Path(save_directory))
    directory = make_directory(save_directory)
    with saved_together(directory):
        if write is None:
            files = save_safetensors(directory, tensors, max_shard_size=max_shard_size, variant=variant)
        else:
            files = write(directory)
            _remove_formats_read_before(directory, files, variant)
        config.save_pretrained(directory)
    if options is not None:
        names = [*(path.name for path in files), CONFIG_NAME]
        upload(directory, names, options, partial(superseded_files, variant=variant))


def target_format(to: str) -> Format:
    """The format that `to` names, after a check that it can be written here.

    Raises:
        InputError: `to` is not a key of `TARGETS`.
        MissingDependencyError: the format needs a package that is not installed.
    """
    check_argument("to", to, one_of(TARGETS))
    format = TARGETS[to]
    require_packages(*format.packages, needed_for=f"Writing {format.files[0]}")
    return format


def _save_model(
    format: Format,
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    max_shard_size: int | str | None,
    progress: Progress,
) -> list[Path]:
    """Write canonical tensors with the names, the order and the orientation of a format."""
    assert format.write is not None
    assert format.stored_name is not None
    table = parameters(config, head, pooler=True)
    if unknown := [name for name in tensors if name not in table]:
        raise CheckpointError(f"`{unknown[0]:.200}` is not a parameter of a {head} model, so it cannot be written.")
    _check_dtypes(format, tensors)
    stored: dict[str, TensorSource] = {}
    for name, parameter in table.items():
        if name in tensors:
            own_name, is_transposed = format.stored_name(parameter, head)
            stored[own_name] = transposed(tensors[name]) if is_transposed else tensors[name]
    return _save(format, directory, stored, max_shard_size, partial(format.write, progress=progress))


def _save(
    format: Format,
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    max_shard_size: int | str | None,
    write: Callable[..., None],
    variant: str | None = None,
) -> list[Path]:
    """Plan shards, write them all, and have them appear together."""
    if max_shard_size is not None and not format.can_shard:
        raise InputError(f"{format.files[0]} has no shards. Received: `max_shard_size={max_shard_size!r}`.")
    directory, file = Path(directory), variant_name(format.files[0], variant)
    shards = plan_shards(file, tensors, parse_size(max_shard_size))
    directory.mkdir(parents=True, exist_ok=True)
    sharded = len(shards) > 1
    index = index_name(format.files[0], variant)
    with saved_together(directory):
        for shard, names in shards.items():
            with atomic_path(directory / shard) as path:
                write(path, {name: tensors[name] for name in names}, shard=sharded)
        if sharded:
            total = sum(tensor.nbytes for tensor in tensors.values())
            write_json(directory / index, index_content(shards, total))
        written = [directory / shard for shard in shards] + ([directory / index] if sharded else [])
        _remove_older_files(directory, file, index, written)
    return written


def _check_dtypes(format: Format, tensors: Mapping[str, TensorSource]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype.name not in format.dtypes:
            raise CheckpointError(
                f"{format.files[0]} cannot hold the dtype of tensor `{name:.200}`. Received: {tensor.dtype}. Convert "
                f"it to one of {', '.join(format.dtypes)}."
            )


def _remove_formats_read_before(directory: Path, files: list[Path], variant: str | None) -> None:
    """Remove older weights of the formats that a reader of the directory prefers to the one of `files`."""
    for file, index in _layouts_up_to([path.name for path in files], variant):
        _remove_older_files(directory, file, index, files)


def _layouts_up_to(written: Collection[str], variant: str | None) -> Iterator[tuple[str, str]]:
    """The single file and the index of each format, up to that of the written files, in the order of reading."""
    for format in FORMATS.values():
        file, index = variant_name(format.files[0], variant), index_name(format.files[0], variant)
        yield file, index
        if any(name in (file, index) or is_shard(name, file) for name in written):
            return


def superseded_files(names: Iterable[str], written: Collection[str], variant: str | None = None) -> list[str]:
    """Older weights that a reader would take for the ones just written, or for part of them.

    Args:
        names: of the files in the same directory or repository.
        written: names of the new files.
        variant: as for `save_safetensors`.

    Example:
        >>> superseded_files(["config.json", "model.safetensors", "tf_model.h5"], ["pytorch_model.bin"])
        ['model.safetensors']
    """
    layouts = list(_layouts_up_to(written, variant))
    return [
        name
        for name in names
        if name not in written and any(name in layout or is_shard(name, layout[0]) for layout in layouts)
    ]


def _remove_older_files(directory: Path, file: str, index: str, written: list[Path]) -> None:
    """Remove older files of the same format, which a reader would take for part of the new ones.

    The temporary files that a killed save of that layout has left go with it.
    """
    older = [directory / file, directory / index]
    older += sorted(path for path in directory.iterdir() if is_shard(path.name, file))
    for path in older:
        if path not in written:
            remove_file(path)
    stem = file.rsplit(".", 1)[0]
    for path in directory.glob(f".{stem}*.tmp"):
        remove_leftovers(path.with_name(path.name[1:].rsplit(".", 2)[0]))
