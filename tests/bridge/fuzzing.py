"""Opens and reads damaged checkpoints of one format; run as a program of its own, so that a crash can be seen.

    python -m tests.bridge.fuzzing FORMAT FIRST COUNT

Input number n is always the same. Prints the number before each input and the outcome after it: `ok` (the damage
could not be seen or did no harm), `refused` (one of the library's own errors), or `wrong` with the reason.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from rembert.bridge import inspect, open_checkpoint
from rembert.bridge.formats.bundle import _table
from rembert.common.errors import RemBertError
from tests.bridge.support import GOLDEN, make_index

SECONDS = 10  # of processor time for one input, however busy the machine is
MEMORY = 2**30  # bytes beyond what the program had before the first input

Damage = Callable[[random.Random, Path], None]


def main(format: str, first: int, count: int) -> None:
    """Go through the inputs of a format."""
    prepare, damage, main_file = FORMATS[format]
    go_through(prepare, damage, lambda directory: attempt(directory / main_file), first, count)


def go_through(
    prepare: Callable[[Path], None], damage: Damage, attempt: Callable[[Path], str], first: int, count: int
) -> None:
    """Damage copies of a directory, and print the outcome of each attempt to use one."""
    with tempfile.TemporaryDirectory() as directory:
        original, copy = Path(directory) / "original", Path(directory) / "copy"
        prepare(original)
        shutil.copytree(original, copy)
        attempt(copy)  # what is imported on the way is not counted
        allowed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + MEMORY
        for number in range(first, first + count):
            print(number, end=" ", flush=True)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
            damage(random.Random(number), copy)
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            outcome = attempt(copy)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > allowed:
                outcome = "wrong: more than 1 GiB of memory"
            print(outcome, flush=True)


def attempt(path: Path) -> str:
    """Open, inspect and read everything."""
    try:
        inspect(path)
        with open_checkpoint(path) as checkpoint:
            for name, info in checkpoint.tensors.items():
                values = checkpoint.read(name)
                assert values.shape == info.shape
                values.reshape(-1)[:16].tobytes()
    except RemBertError:
        return "refused"
    except Exception as problem:
        return f"wrong: {type(problem).__name__}: {str(problem)[:200]!r}"
    return "ok"


# ---------------------------------------------------------------------- damage


def damage_bytes(chance: random.Random, path: Path, start: int = 0, end: int | None = None) -> None:
    """Change a file between two positions: bits, bytes, numbers, runs, cuts, insertions."""
    data = bytearray(path.read_bytes())
    part = data[start:end]
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not part:
            break
        place = chance.randrange(len(part))
        kind = chance.randrange(8)
        if kind == 0:
            part[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            part[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2:
            width = chance.choice((2, 4, 8))
            value = chance.choice((0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
            part[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 3:
            part[place : place + chance.randrange(1, 64)] = bytes(chance.randrange(1, 64))
        elif kind == 4:
            del part[place : place + chance.choice((1, 2, 8, 100, 5000))]
        elif kind == 5:
            part[place:place] = chance.randbytes(chance.choice((1, 2, 8, 100)))
        elif kind == 6:
            other = chance.randrange(len(part))
            width = chance.randrange(1, 64)
            part[place : place + width] = part[other : other + width]
        elif chance.randrange(4) == 0:
            del part[place:]
    path.write_bytes(bytes(data[:start]) + bytes(part) + (b"" if end is None else bytes(data[end:])))


def damage_value(chance: random.Random, value: object) -> object:
    """A JSON value with some of it changed."""
    if chance.random() < 0.15 or (not isinstance(value, dict | list) and chance.random() < 0.5):
        return chance.choice(
            (
                None,
                True,
                0,
                -1,
                1,
                2**31,
                2**63,
                2**64,
                10**300,
                1.5,
                "",
                "F32",
                "../x",
                [],
                {},
                [0],
                [0, 8],
                "x" * 1000,
            )
        )
    if isinstance(value, dict):
        chosen = set(chance.sample(sorted(value), min(len(value), chance.choice((1, 1, 2, 5)))))
        changed = {key: damage_value(chance, item) if key in chosen else item for key, item in value.items()}
        if changed and chance.random() < 0.2:
            changed[chance.choice(("__metadata__", "", "a" * 300, *changed))] = changed.pop(next(iter(chosen)))
        return changed
    if isinstance(value, list):
        return [damage_value(chance, item) for item in value][: chance.choice((0, 1, 2, 9))]
    return value + chance.choice((-1, 1, 4, 2**32)) if isinstance(value, int) else value


def damage_json(chance: random.Random, path: Path) -> None:
    """Change a JSON file: its values, or its bytes."""
    if chance.random() < 0.3:
        damage_bytes(chance, path)
    else:
        path.write_text(json.dumps(damage_value(chance, json.loads(path.read_text()))))


# ---------------------------------------------------------------------- formats


def copy_files(*names: str) -> Callable[[Path], None]:
    """Lay out a checkpoint from files of the goldens."""

    def prepare(directory: Path) -> None:
        directory.mkdir()
        for name in names:
            shutil.copyfile(GOLDEN / name, directory / Path(name).name)

    return prepare


def make_shards(directory: Path) -> None:
    """A checkpoint in shards."""
    from rembert.bridge import convert

    convert(GOLDEN / "model", directory, "pt", max_shard_size="40KB")


def make_keras(directory: Path) -> None:
    """A Keras weights file."""
    from rembert.bridge import convert

    convert(GOLDEN / "model", directory, "keras")


def make_archive(directory: Path) -> None:
    """A Keras archive, with the members Keras gives one."""
    make_keras(directory)
    model = {"class_name": "TFRemBertModel", "config": {"config": json.loads((directory / "config.json").read_text())}}
    with zipfile.ZipFile(directory / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(model))
        archive.write(directory / "model.weights.h5", "model.weights.h5")
    for name in ("model.weights.h5", "config.json"):
        (directory / name).unlink()


def make_saved_model(directory: Path) -> None:
    """A BLEURT SavedModel."""
    shutil.copytree(GOLDEN / "bleurt_savedmodel", directory)


def damage_saved_model(chance: random.Random, directory: Path) -> None:
    """Change its variables, by their structure, or one of its files."""
    path = chance.choice(sorted(path for path in directory.rglob("*") if path.is_file()))
    if path.suffix == ".json":
        damage_json(chance, path)
    elif chance.random() < 0.7:
        damage_bundle(chance, directory / "variables" / "variables.index")
    else:
        damage_bytes(chance, path)


def damage_safetensors(chance: random.Random, path: Path) -> None:
    """Change the header as JSON, with its length made to fit, or the bytes of the file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    if chance.random() < 0.4:
        damage_bytes(chance, path, 0, chance.choice((8, end, None)))
        return
    text = json.dumps(damage_value(chance, json.loads(data[8:end]))).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def damage_bundle(chance: random.Random, index: Path) -> None:
    """Change the table's entries and recompute its checksums, so that they do not hide the change; or its bytes."""
    if chance.random() < 0.3:
        damage_bytes(chance, chance.choice((index, index.with_suffix(".data-00000-of-00001"))))
        return
    entries = list(_table(index))
    scratch = index.with_name("scratch")
    for _ in range(chance.choice((1, 1, 3, 20))):
        place = chance.randrange(len(entries))
        part = chance.choice((0, 1, 1, 1))
        scratch.write_bytes(entries[place][part])
        damage_bytes(chance, scratch)
        changed = [*entries[place]]
        changed[part] = scratch.read_bytes()
        entries[place] = (changed[0], changed[1])
    scratch.unlink()
    make_index(index, sorted(entries) if chance.random() < 0.8 else entries)


def damages(name: str, kind: Callable[[random.Random, Path], None] = damage_bytes) -> Damage:
    """Damage one file of a checkpoint."""
    return lambda chance, directory: kind(chance, directory / name)


def damage_structure(name: str, share: float) -> Damage:
    """Damage a file whose structure is spread among its values: mostly where few zeros and no floats are."""

    def damage(chance: random.Random, directory: Path) -> None:
        path = directory / name
        size = path.stat().st_size
        ends = ((0, int(size * share)), (int(size * (1 - share)), None), (0, None))
        damage_bytes(chance, path, *chance.choice(ends))

    return damage


_TF1 = [
    f"tf1_pretraining/{name}"
    for name in ("rembert.ckpt.index", "rembert.ckpt.data-00000-of-00001", "rembert_config.json")
]
FORMATS: dict[str, tuple[Callable[[Path], None], Damage, str]] = {
    "safetensors": (
        copy_files("model/model.safetensors", "model/config.json"),
        damages("model.safetensors", damage_safetensors),
        "",
    ),
    "index": (make_shards, damages("model.safetensors.index.json", damage_json), ""),
    "config": (
        copy_files("masked_lm/model.safetensors", "masked_lm/config.json"),
        damages("config.json", damage_json),
        "",
    ),
    "bundle": (copy_files(*_TF1), damages("rembert.ckpt.index", damage_bundle), "rembert.ckpt.index"),
    "savedmodel": (make_saved_model, damage_saved_model, ""),
    "h5": (copy_files("model/tf_model.h5", "model/config.json"), damage_structure("tf_model.h5", 0.1), ""),
    "keras": (make_keras, damage_structure("model.weights.h5", 0.1), ""),
    "archive": (make_archive, damage_structure("model.keras", 0.1), ""),
    "pickle": (
        copy_files("model/bin/pytorch_model.bin", "model/config.json"),
        damage_structure("pytorch_model.bin", 0.08),
        "",
    ),
}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
