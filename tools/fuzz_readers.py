"""Coverage-guided fuzzing (atheris) of what the library parses itself, for a bounded time.

    python tools/fuzz_readers.py {json,index,entry,safetensors} [SEED_FILE ...] [-max_total_time=60]

Needs the package `atheris`, in a virtual environment of its own. Options of libFuzzer begin with a dash; SEED_FILEs
are valid inputs to start from. Prints the number of inputs; ends with a traceback and a file `crash-…` at the first
input whose error is not the library's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rembert"]):
    from rembert.bridge import open_checkpoint
    from rembert.bridge.formats import bundle
    from rembert.common import strict_json
    from rembert.common.errors import RemBertError

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


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "json": read_json,
    "index": read_index,
    "entry": read_entry,
    "safetensors": read_safetensors,
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
