"""How fast `rembert convert` is, against `cp` of the same file: pairs of both, each followed by `sync`.

    python tools/bench_bridge.py [--model {base,masked-lm}] [--pairs 5] [--directory DIR]

Makes a checkpoint of the released model's size with random weights, then converts PyTorch -> TensorFlow -> PyTorch.
Prints, per direction, the seconds of every pair, the median of their ratios, and the peak of anonymous memory
(`RssAnon`; mapped files are the page cache's, not the process's). Checks that the round trip is bit for bit.
Needs Linux, and three times the checkpoint's size on disk (2.3 GB; masked-lm 4 GB).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import used_memory

from rembert import RemBertConfig
from rembert.bridge import TensorSource, save_checkpoint
from rembert.common.parameters import Parameter, parameters

HEADS = {"base": "model", "masked-lm": "masked-lm"}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(HEADS), default="base")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to work; by default a new temporary directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as place:
        run(Path(place), HEADS[args.model], args.pairs)


def run(place: Path, head: str, pairs: int) -> None:
    """Make the checkpoint, then time both directions."""
    source = place / "source"
    make_checkpoint(source, head)
    size = (source / "model.safetensors").stat().st_size
    print(f"{head}: {size / 1e9:.2f} GB", flush=True)
    for origin, to, target, file in (
        (source, "tf", place / "tf", "model.safetensors"),
        (place / "tf", "pt", place / "pt", "tf_model.h5"),
    ):
        ratios, peak = [], 0
        for _ in range(pairs):
            copied = timed(["cp", str(origin / file), str(place / "copy")])[0]
            (place / "copy").unlink()
            shutil.rmtree(target, ignore_errors=True)
            os.sync()
            command = [sys.executable, "-m", "rembert", "convert", str(origin), str(target), "--to", to, "--quiet"]
            converted, memory = timed(command)
            ratios.append(converted / copied)
            peak = max(peak, memory)
            print(f"  to {to}: cp {copied:.2f} s, convert {converted:.2f} s, {ratios[-1]:.2f} times", flush=True)
        print(f"to {to}: median {statistics.median(ratios):.2f} times cp, peak anonymous memory {peak / 1e9:.2f} GB")
    same = subprocess.run(["cmp", source / "model.safetensors", place / "pt" / "model.safetensors"]).returncode == 0
    print(f"round trip bit for bit: {'yes' if same else 'NO'}")


def make_checkpoint(directory: Path, head: str) -> None:
    """Write random weights of the released model's shapes."""
    config = RemBertConfig(architectures=["RemBertModel" if head == "model" else "RemBertForMaskedLM"])

    def random(parameter: Parameter) -> TensorSource:
        dtype = np.dtype(np.float32)
        return TensorSource(
            parameter.shape, dtype, lambda: np.random.default_rng(0).standard_normal(parameter.shape, np.float32)
        )

    save_checkpoint(directory, {name: random(p) for name, p in parameters(config, head).items()}, config)


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds until a command's output is on disk, and its peak of anonymous memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    peak = 0
    while process.poll() is None:
        peak = max(peak, used_memory(process=process.pid))
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    os.sync()
    return time.perf_counter() - started, peak


if __name__ == "__main__":
    main()
