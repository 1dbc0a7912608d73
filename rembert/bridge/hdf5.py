"""HDF5 files: libhdf5 handles the structure; the values are mapped and written here.

Reading follows the file's own hard links and maps datasets in the file; libhdf5 reads only the rare dataset that is
stored in chunks, or in a number format that NumPy does not have. Links to other files and storage in other files are
refused. Writing builds the structure in memory first, so that a full disk raises an ordinary OSError, which libhdf5
does not. `h5py` is imported on first use.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.streaming import Progress, silent, write_values
from rembert.bridge.tensors import TensorSource, check_layout, map_file, view
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

MAX_OBJECTS = 200_000
MAX_DEPTH = 64
# No compression of weights exceeds deflate's of zeros.
MAX_EXPANSION = 1032
# A chunk may be larger than a small resizable dataset: h5py's defaults are below a megabyte.
MAX_SPARE_CHUNK = 2**20

DTYPES = ("float32", "float16", "float64")  # HDF5 has no bfloat16

_PAGE = 4096


def read_datasets(path: Path, start: int = 0, size: int | None = None) -> dict[str, TensorSource]:
    """Every dataset of an H5 file by its path.

    Args:
        path: the file.
        start, size: the part of it that is the H5 file, for a member of an archive.

    Raises:
        CheckpointError: the file is damaged, a link leads out of it, or a dataset claims more bytes than it has.
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
        raise CheckpointError(f"{path}: this is not a readable H5 file: {problem}") from problem
    check_layout(path, spans, 0, size)
    return tensors


def _walk(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Every dataset by its path. Each group is visited once, so that circular hard links end."""
    import h5py

    seen: set[int] = set()
    waiting = [("", file)]
    objects = 0
    while waiting:
        prefix, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise CheckpointError(f"{path}: group `{prefix}` has two paths. The file is damaged.")
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
                    f"{path}: `{name}` is a link to another object ({type(link).__name__}); links are not followed."
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
    """One dataset as a source, and its position in the file, if it has one."""
    import h5py

    def refuse(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: dataset `{name}`: {reason}")

    if dataset.external or dataset.is_virtual:
        raise refuse("its values are in other files, which are not read.")
    size, shape, dtype = len(part), dataset.shape, dataset.dtype
    if shape is None or dtype.kind not in "fiub":
        raise refuse(f"it must hold numbers. Received: shape {shape} of {dtype}.")
    source = TensorSource(shape, dtype.newbyteorder("="), partial(_read_by_library, window, name))
    stored_type = dataset.id.get_type()
    if dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and source.size:
        offset = dataset.id.get_offset()
        if offset is None:
            raise refuse("it holds no values.")
        span = (offset, offset + source.size * stored_type.get_size())
        if span[1] > size:
            raise refuse(f"it claims bytes {span[0]} to {span[1]} of a file of {size}. The file is truncated.")
        # h5py names the nearest dtype of numpy; other bits (bfloat16, padding, another byte order) are not that dtype.
        if stored_type == h5py.h5t.py_create(dtype.newbyteorder("=")):
            source = TensorSource(shape, dtype, partial(view, part, offset, shape, dtype))
        return source, span
    stored = dataset.id.get_storage_size()
    if stored > size or source.nbytes > MAX_EXPANSION * max(stored, 1):
        raise refuse(f"it claims {source.nbytes} bytes of values; the file of {size} bytes stores {stored} for it.")
    chunk = math.prod(dataset.chunks or (0,)) * dtype.itemsize
    if chunk > max(source.nbytes, MAX_SPARE_CHUNK):  # libhdf5 unpacks whole chunks
        raise refuse(f"it claims chunks of {chunk} bytes for {source.nbytes} bytes of values.")
    return source, None


def _read_by_library(window: Callable[[], Window], name: str) -> np.ndarray:
    """The values of a dataset that cannot be mapped (chunks, compression, an unknown number format)."""
    import h5py

    with window() as opened:
        try:
            with h5py.File(opened, "r") as file:
                values: np.ndarray = file[name][()]
                return np.asarray(values, values.dtype.newbyteorder("="))
        except (OSError, RuntimeError, ValueError, KeyError) as problem:
            raise CheckpointError(f"{opened.path}: dataset `{name}` cannot be read: {problem}") from problem


class Window(io.RawIOBase):
    """An H5 file: a whole file, or a member of an archive. It is opened when it is used."""

    def __init__(self, path: Path, start: int = 0, size: int | None = None) -> None:
        self.path = path
        self.start = start
        self.length = path.stat().st_size if size is None else size
        self._file = open_regular(path, CheckpointError)
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


# ---------------------------------------------------------------------- writing


@contextmanager
def new_file(path: Path, progress: Progress = silent) -> Iterator[tuple[Any, Callable[[str, TensorSource], None]]]:
    """Write an H5 file; gives the h5py file for the structure, and a function that adds a dataset.

    `add(name, source)` reserves a dataset's space; at the end of the block, the structure is written to `path`,
    then the values, in the order of their positions. Equal content gives equal bytes.

    Raises:
        OSError: the disk is full or not writable.
    """
    import h5py

    sketch = _Sketch()
    values: dict[int, TensorSource] = {}
    with h5py.File(
        sketch, "w", libver="earliest"
    ) as file:  # the oldest version of the format, which every reader supports

        def add(name: str, source: TensorSource) -> None:
            values[_reserve(file, name, source)] = source

        yield file, add
    with path.open("wb", buffering=0) as target:
        sketch.copy_to(target)
        for offset, source in sorted(values.items(), key=lambda item: item[0]):
            target.seek(offset)
            write_values(target, source, progress)


def _reserve(file: Any, name: str, source: TensorSource) -> int:
    """Declare a dataset and reserve its space in the file; returns the position of its values in bytes."""
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


class _Sketch(io.RawIOBase):
    """A sparse file in memory, which stores only the pages that were written: the structure of a large file."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        for place, number, inside, count in self._spans(len(content)):
            page = self._pages.setdefault(number, bytearray(_PAGE))
            page[inside : inside + count] = content[place : place + count]
        self._position += len(content)
        self._size = max(self._size, self._position)
        return len(content)

    def readinto(self, buffer: Any) -> int:
        content = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        for place, number, inside, count in self._spans(len(content)):
            content[place : place + count] = self._pages.get(number, bytes(_PAGE))[inside : inside + count]
        self._position += len(content)
        return len(content)

    def copy_to(self, target: Any) -> None:
        """Write the pages to a file of the full size."""
        target.truncate(self._size)
        for number, page in sorted(self._pages.items()):
            target.seek(number * _PAGE)
            left = memoryview(page)[: self._size - number * _PAGE]
            while left:
                left = left[target.write(left) :]

    def _spans(self, size: int) -> Iterator[tuple[int, int, int, int]]:
        """The next `size` bytes by page: their offset, the page's number, the offset in it, the count."""
        done = 0
        while done < size:
            number, inside = divmod(self._position + done, _PAGE)
            count = min(size - done, _PAGE - inside)
            yield done, number, inside, count
            done += count
