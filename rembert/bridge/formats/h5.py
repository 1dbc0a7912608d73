"""TF/Keras 2 H5: `tf_model.h5` as transformers' TensorFlow classes wrote it, and the shards of one.

Datasets are found by walking the file's own hard links and mapped at their offsets; libhdf5 reads only the structure,
and the values of the rare file that stores them in chunks. Links to other files and storage outside the file are
refused. `h5py` is imported when such a file is touched, not before.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.blocks import Progress, silent, write_values
from rembert.bridge.names import from_h5_path, h5_path
from rembert.bridge.tensors import Contents, TensorSource, check_layout, map_file, turned, view
from rembert.common.errors import CheckpointError
from rembert.common.parameters import HEADS, Parameter

# Files written by Keras 2 say which Keras wrote them; readers look at the major version.
KERAS_VERSION = "2.20.1"
MAX_OBJECTS = 200_000
MAX_DEPTH = 64
# No general compression packs weights tighter than deflate packs zeros.
MAX_EXPANSION = 1032


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
    values: dict[int, TensorSource] = {}
    instance = _instance(head)
    with h5_file(path) as file:
        for name, parameter in table.items():
            if name not in tensors:
                continue
            dataset, transposed = h5_path(parameter)
            layer = dataset.split("/")[0]
            layers.setdefault(layer, []).append(f"{instance}/{dataset}")
            source = turned(tensors[name]) if transposed else tensors[name]
            place = dataset if shard else f"{layer}/{instance}/{dataset}"
            values[reserve(file, place, source)] = source
        if shard:
            write_names(file, "layer_names", [name.split("/", 1)[1] for names in layers.values() for name in names])
        else:
            write_names(file, "layer_names", list(layers))
            file.create_group("top_level_model_weights")
            for layer, names in {**layers, "top_level_model_weights": []}.items():
                write_names(file[layer], "weight_names", names)
            file.attrs["backend"] = "tensorflow"
            file.attrs["keras_version"] = KERAS_VERSION
    fill(path, values, progress)


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


# ---------------------------------------------------------------------- datasets, whatever their names mean


class Window(io.RawIOBase):
    """The part of a file that is an H5 file itself: all of it, or a member of an archive. Opened when it is used."""

    def __init__(self, path: Path, start: int = 0, size: int | None = None) -> None:
        self.path = path
        self.start = start
        self.length = path.stat().st_size if size is None else size
        self._file = path.open("rb", buffering=0)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self.length - self._position)]
        self._file.seek(self.start + self._position)
        count = self._file.readinto(view) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def read_datasets(path: Path, start: int = 0, size: int | None = None) -> dict[str, TensorSource]:
    """Every dataset of an H5 file by its path, as it stands there.

    Args:
        path: the file.
        start, size: the part of it that is the H5 file, for a member of an archive.

    Raises:
        CheckpointError: the file is damaged, a link leaves it, or a dataset claims more than it holds.
    """
    import h5py

    tensors: dict[str, TensorSource] = {}
    spans: dict[str, tuple[int, int]] = {}
    size = path.stat().st_size if size is None else size
    part = map_file(path)[start : start + size]
    try:
        with Window(path, start, size) as window, h5py.File(window, "r") as file:
            if file.userblock_size:
                raise CheckpointError(f"{path}: the file has a user block of {file.userblock_size} bytes, expected 0.")
            for name, dataset in _walk(path, file):
                tensors[name], span = _source(path, part, partial(Window, path, start, size), name, dataset)
                if span is not None:
                    spans[name] = span
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as problem:
        raise CheckpointError(f"{path}: this is no readable H5 file: {problem}") from problem
    check_layout(path, spans, 0, size)
    return tensors


def _walk(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Every dataset under its path. Each group is entered once, so that hard links in a circle end."""
    import h5py

    seen: set[int] = set()
    waiting = [("", file)]
    objects = 0
    while waiting:
        prefix, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise CheckpointError(f"{path}: group `{prefix}` stands in two places. The file is damaged.")
        seen.add(address)
        groups = []
        for key in group:
            name = f"{prefix}{key}"
            objects += 1
            if objects > MAX_OBJECTS or name.count("/") > MAX_DEPTH:
                raise CheckpointError(f"{path}: more than {MAX_OBJECTS} objects, or deeper than {MAX_DEPTH} groups.")
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise CheckpointError(
                    f"{path}: `{name}` is a link to somewhere else ({type(link).__name__}); links are not followed."
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                groups.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield name, item
        waiting += reversed(groups)


def _source(
    path: Path, part: np.ndarray, window: Callable[[], Window], name: str, dataset: Any
) -> tuple[TensorSource, tuple[int, int] | None]:
    """One dataset as a source, with its place in the file where it has one."""
    import h5py

    def refuse(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: dataset `{name}`: {reason}")

    if dataset.external or dataset.is_virtual:
        raise refuse("its values lie in other files, which are not followed.")
    size, shape, dtype = len(part), dataset.shape, dataset.dtype
    if shape is None or dtype.kind not in "fiub":
        raise refuse(f"it must hold numbers. Received: shape {shape} of {dtype}.")
    source = TensorSource(shape, dtype.newbyteorder("="), partial(_read_chunks, window, name))
    contiguous = dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    if contiguous and source.size:
        offset = dataset.id.get_offset()
        if offset is None:
            raise refuse("it holds no values.")
        span = (offset, offset + source.nbytes)
        if span[1] > size:
            raise refuse(f"it claims bytes {span[0]} to {span[1]} of a file of {size}. The file is truncated.")
        if dtype.isnative:
            source = TensorSource(shape, dtype, partial(view, part, offset, shape, dtype))
        return source, span
    stored = dataset.id.get_storage_size()
    if stored > size or source.nbytes > MAX_EXPANSION * max(stored, 1):
        raise refuse(f"it claims {source.nbytes} bytes of values; the file of {size} bytes stores {stored} for it.")
    return source, None


def _read_chunks(window: Callable[[], Window], name: str) -> np.ndarray:
    """The values of a dataset that cannot be mapped (chunked, compressed, foreign byte order), by libhdf5."""
    import h5py

    with window() as opened:
        try:
            with h5py.File(opened, "r") as file:
                values: np.ndarray = file[name][()]
                return np.asarray(values, values.dtype.newbyteorder("="))
        except (OSError, RuntimeError, ValueError, KeyError) as problem:
            raise CheckpointError(f"{opened.path}: dataset `{name}` cannot be read: {problem}") from problem


# ---------------------------------------------------------------------- writing: structure first, then values


def h5_file(path: Path) -> Any:
    """A new H5 file of the oldest layout that holds it, which every reader understands."""
    import h5py

    return h5py.File(path, "w", libver="earliest")


def reserve(file: Any, name: str, source: TensorSource) -> int:
    """Declare a dataset and give it room in the file; returns where its values go, in bytes from the start.

    libhdf5 lays the file out and never sees the values: `fill` writes them with the code that every format shares.
    """
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # so that equal content gives equal bytes
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(source.dtype, logical=True)
    space = h5py.h5s.create_simple(source.shape) if source.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=layout, lcpl=links)
    offset: int = dataset.get_offset()
    return offset


def fill(path: Path, values: Mapping[int, TensorSource], progress: Progress = silent) -> None:
    """Write the values of reserved datasets, by offset."""
    with path.open("r+b", buffering=0) as file:
        for offset, source in sorted(values.items(), key=lambda item: item[0]):
            file.seek(offset)
            write_values(file, source, progress)


def write_names(group: Any, attribute: str, names: list[str]) -> None:
    """A list of names as an attribute, the way Keras 2 writes one."""
    import h5py

    group.attrs.create(attribute, np.array(names, dtype=h5py.string_dtype()) if names else np.zeros(0))
