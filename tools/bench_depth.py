"""The released encoder, 32 layers and 576 million parameters, in both frameworks, beside transformers.

    python tools/bench_depth.py [--oracle PYTHON] [--only NAME ...] [--subjects NAME ...] [--layers 32] [--write]

PYTHON is the interpreter of another virtual environment with transformers 4.57, TensorFlow and tf-keras, the last with
TensorFlow classes. Each measurement is a process of its own. Weights are random, and in float32.

Workloads:
    loading          `from_pretrained` of a classifier's checkpoint, the file in the page cache
    inference        a classifier on a batch of 16 × 128, 798 of 2,048 tokens real
    training         a step of AdamW on half of that batch
    checkpointing    the same with gradient checkpointing
    lora             the same with LoRA of rank 8 on queries and values alone

A table has the seconds of the first call and of the second, real tokens per second, and the peak of the process's
memory without mapped files. `--write` puts it into docs/performance.md. Needs Linux, 20 GB of memory for `training` in
transformers, and 2.3 GB on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from memory import Peak

ROOT = Path(__file__).parents[1]
LENGTHS = (53, 128, 26, 79, 15, 38, 60, 28, 75, 20, 58, 29, 73, 26, 54, 36)  # 798 tokens
SUBJECTS = {
    "pt": "rembert.pt",
    "transformers": "transformers 5, PyTorch",
    "tf": "rembert.tf",
    "oracle": "transformers 4.57, TensorFlow",
}
WORKLOADS = ("loading", "inference", "training", "checkpointing", "lora")
MISSING = {("oracle", "checkpointing"), ("oracle", "lora")}  # those classes have neither
RATE = 1e-5


def main() -> None:
    """Run the benchmark, or, in a process of its own, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", help="the interpreter with transformers 4.57; without it, that one is left out")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--subjects", nargs="+", choices=tuple(SUBJECTS), default=tuple(SUBJECTS))
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, args.layers)))
        return
    results: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for workload in args.only:
            for subject in args.subjects:
                if (subject, workload) not in MISSING and (subject != "oracle" or args.oracle):
                    results[workload, subject] = child(workload, subject, directory, args)
    text = table(results, args.layers)
    print(text)
    if args.write:
        from performance_page import kind, write_section

        write_section(
            ROOT / "docs" / "performance.md", f"bench_depth, {kind()}", f"The released depth, {kind()}", text
        )


def child(workload: str, subject: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own; `{"problem": ...}` where it failed."""
    python = args.oracle if subject == "oracle" else sys.executable
    command = [python, __file__, "--layers", str(args.layers), "--measure", workload, subject, directory]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"TF_USE_LEGACY_KERAS": "1"} if subject == "oracle" else {}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    failed = done.returncode or not lines
    result = (
        {"problem": (done.stderr.strip() or str(done.returncode)).splitlines()[-1]}
        if failed
        else json.loads(lines[-1])
    )
    print(f"{workload} {subject}: {result}", file=sys.stderr)
    return result


# ------------------------------------------------------------------ one measurement


def measure(workload: str, subject: str, directory: str, layers: int) -> dict[str, Any]:
    """Seconds of two calls, the real tokens of one, and the peak of memory."""
    build, prepare = {"pt": (build_pt, steps_pt), "transformers": (build_pt, steps_pt)}.get(
        subject, (build_tf, steps_tf)
    )
    with Peak() as peak:
        if workload == "loading":
            path = Path(directory) / subject
            if not path.exists():  # made in another process, whose memory does not count
                make = f"from bench_depth import *; {build.__name__}({subject!r}, {layers})"
                make += f".save_pretrained({str(path)!r})"
                subprocess.run([sys.executable, "-c", make], check=True, cwd=ROOT / "tools", capture_output=True)
            for file in path.iterdir():  # into the page cache
                file.read_bytes() if file.stat().st_size < 2**20 else subprocess.run(["cat", file], stdout=-3)
            kind = classifier(subject)  # imported before the clock starts
            start = time.perf_counter()
            model = kind.from_pretrained(str(path))
            return {"first": time.perf_counter() - start, "peak": peak.highest, "kept": bool(model)}
        model = build(subject, layers)
        call, tokens = prepare(model, workload, subject)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "second": seconds[1], "tokens": tokens, "peak": peak.highest}


def library(subject: str) -> Any:
    """The package of the classes."""
    if subject == "pt":
        import rembert.pt as package
    elif subject == "tf":
        import rembert.tf as package
    else:
        import transformers as package
    return package


def classifier(subject: str) -> Any:
    """The class of the sequence classifier."""
    prefix = "TF" if subject in ("tf", "oracle") else ""
    return getattr(library(subject), f"{prefix}RemBertForSequenceClassification")


def config(subject: str, layers: int) -> Any:
    """The released sizes."""
    return library(subject).RemBertConfig(num_hidden_layers=layers, num_labels=3)


def batch(rows: int) -> dict[str, np.ndarray]:
    """The first rows of the mixed lengths."""
    numbers, lengths = np.random.default_rng(0), np.array(LENGTHS[:rows])[:, None]
    mask = (np.arange(max(LENGTHS)) < lengths).astype(np.int64)
    ids = numbers.integers(5, 250000, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def build_pt(subject: str, layers: int) -> Any:
    """A classifier in PyTorch."""
    return classifier(subject)(config(subject, layers))


def steps_pt(model: Any, workload: str, subject: str) -> tuple[Callable[[], Any], int]:
    """A call in PyTorch, and its number of real tokens."""
    import torch

    if workload == "inference":
        inputs = {name: torch.from_numpy(array) for name, array in batch(16).items()}
        model.eval()

        def infer() -> Any:
            with torch.inference_mode():
                return model(**inputs)

        return infer, int(inputs["attention_mask"].sum())
    inputs = {name: torch.from_numpy(array) for name, array in batch(8).items()}
    labels = torch.arange(8) % 3
    model.train()
    if workload == "checkpointing":
        model.gradient_checkpointing_enable()
    if workload == "lora":
        import peft

        model = peft.get_peft_model(
            model, peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
        )
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=RATE)

    def step() -> None:
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, int(inputs["attention_mask"].sum())


def build_tf(subject: str, layers: int) -> Any:
    """A classifier in TensorFlow; transformers' is built by a first call."""
    model = classifier(subject)(config(subject, layers))
    if subject == "oracle":
        model.build_in_name_scope()
    return model


def steps_tf(model: Any, workload: str, subject: str) -> tuple[Callable[[], Any], int]:
    """A call in TensorFlow, a `tf.function`, and its number of real tokens."""
    import tensorflow as tf

    inputs = {name: tf.constant(array.astype(np.int32)) for name, array in batch(16).items()}
    tokens = int(tf.reduce_sum(inputs["attention_mask"]))
    if workload == "inference":
        function = tf.function(lambda: model(inputs, training=False).logits)
        return function, tokens
    inputs = {name: tf.constant(array.astype(np.int32)) for name, array in batch(8).items()}
    tokens = int(tf.reduce_sum(inputs["attention_mask"]))
    inputs["labels"] = tf.range(8) % 3
    if workload == "checkpointing":
        model.gradient_checkpointing_enable()
    if workload == "lora":
        model.enable_lora(8)
    if subject == "oracle":
        import tf_keras as keras
    else:
        import keras
    model.compile(optimizer=keras.optimizers.AdamW(RATE))
    labels = inputs.pop("labels")
    return (
        lambda: model.train_on_batch({**inputs, "labels": labels} if subject == "oracle" else inputs, labels)
    ), tokens


# ------------------------------------------------------------------ what is shown


def table(results: dict[tuple[str, str], dict[str, Any]], layers: int) -> str:
    """The results in Markdown."""
    from performance_page import processor

    lines = [
        f"{layers} layers, float32, {os.cpu_count()} cores of {processor()}; one process for each row.",
        "",
        "| workload | subject | first call | second call | real tokens per second | peak memory |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (workload, subject), found in results.items():
        name = f"| {workload} | {SUBJECTS[subject]} |"
        if "problem" in found:
            lines.append(f"{name} {found['problem']} | | | |")
            continue
        second = f"{found['second']:.1f} s" if "second" in found else ""
        rate = f"{found['tokens'] / found['second']:.0f}" if "second" in found else ""
        lines.append(f"{name} {found['first']:.1f} s | {second} | {rate} | {found['peak'] / 1e9:.2f} GB |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
