"""Coverage-guided fuzzing (atheris) of what the library parses itself, for a bounded time.

    python tools/fuzz_readers.py READER [SEED_FILE ...] [-max_total_time=60]

READER is a key of `READERS`. Needs the package `atheris`, in a virtual environment of its own. Options of libFuzzer
begin with a dash; SEED_FILEs are valid inputs to start from, for `pickle` the `data.pkl` of a `pytorch_model.bin`.
Prints the number of inputs; ends with a traceback and a file `crash-…` at the first input whose error is not the
library's. What libraries in C read (HDF5, SentencePiece's tokens) has no coverage; damage to it is random.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rembert", "pickle", "zipfile"]):
    from rembert.bridge import open_checkpoint
    from rembert.bridge.archive import Archive
    from rembert.bridge.formats import bundle, pickle
    from rembert.common import strict_json
    from rembert.common.errors import RemBertError
    from rembert.common.tokenization.sentencepiece_model import SentencePieceModel

SECONDS = 60


def read_json(data: bytes, folder: Path) -> None:
    """A JSON file of a checkpoint."""
    strict_json.loads(data)


def read_index(data: bytes, folder: Path) -> None:
    """The index of a TensorFlow checkpoint."""
    path = folder / "model.ckpt.index"
    path.write_bytes(data)
    bundle.read_bundle(path)


def read_entry(data: bytes, folder: Path) -> None:
    """An entry of such an index, which the checksums of a whole one would protect."""
    bundle._entry(data)


def read_safetensors(data: bytes, folder: Path) -> None:
    """A safetensors file."""
    path = folder / "model.safetensors"
    path.write_bytes(data)
    with open_checkpoint(path):
        pass


def _read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name, info in checkpoint.tensors.items():
            assert checkpoint.read(name).shape == info.shape


def read_h5(data: bytes, folder: Path) -> None:
    """TensorFlow's `tf_model.h5`."""
    path = folder / "tf_model.h5"
    path.write_bytes(data)
    _read_all(path)


def read_keras(data: bytes, folder: Path) -> None:
    """Keras 3's `model.weights.h5`."""
    path = folder / "model.weights.h5"
    path.write_bytes(data)
    _read_all(path)


def read_archive(data: bytes, folder: Path) -> None:
    """A ZIP archive, as PyTorch and Keras write."""
    path = folder / "archive"
    path.write_bytes(data)
    Archive(path).verify()


def read_pickle(data: bytes, folder: Path) -> None:
    """The pickle of a `pytorch_model.bin`, in an archive with right checksums and storages of 64 bytes."""
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": data, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
        for number in range(8):
            archive.writestr(f"archive/data/{number}", bytes(64))
    _read_all(path)


def read_storages(data: bytes, folder: Path) -> None:
    """What such a pickle says of its storages, as this library reads it after PyTorch."""
    try:
        pickle._StorageClaims(io.BytesIO(data)).load()
    except Exception as problem:  # the caller names the file
        if isinstance(problem, MemoryError | RecursionError):
            raise


def read_sentencepiece(data: bytes, folder: Path) -> None:
    """A SentencePiece model, and a text in it."""
    model = SentencePieceModel(data, "sentencepiece.model")
    model.shapes, model.pad_id  # noqa: B018 - computed when it is used
    model.encode(["the of x"])


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "json": read_json,
    "index": read_index,
    "entry": read_entry,
    "safetensors": read_safetensors,
    "h5": read_h5,
    "keras": read_keras,
    "archive": read_archive,
    "pickle": read_pickle,
    "storages": read_storages,
    "sentencepiece": read_sentencepiece,
}


def main(name: str, arguments: list[str]) -> None:
    """Fuzz one reader."""
    folder = Path(tempfile.mkdtemp(prefix="rembert-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(each for each in arguments if not each.startswith("-")):
        shutil.copyfile(seed, corpus / str(number))
    options = [each for each in arguments if each.startswith("-")]
    if not any(each.startswith("-max_total_time") for each in options):
        options.append(f"-max_total_time={SECONDS}")

    def attempt(data: bytes) -> None:
        try:
            READERS[name](data, folder)
        except (RemBertError, ValueError) as problem:
            # Callers give the name of the file to a `ValueError` of the JSON reader and to `_Damage`.
            if not isinstance(problem, RemBertError | bundle._Damage) and name != "json":
                raise

    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
