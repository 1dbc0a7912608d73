"""How fast and how large `rembert.tf` is, side by side with transformers 4.57, the last with TensorFlow classes.

    python tools/bench_tf.py --oracle PYTHON [--rounds 5] [--only inference,...] [--write]

PYTHON is the interpreter of another virtual environment, with transformers 4.57, TensorFlow and tf-keras. Every
measurement is a fresh process, and the processes of both libraries take turns, so that a machine that gets slower
does so for both. A process warms up, then reports the median of `--repeats` runs; a table holds the medians of the
rounds, and of the rounds' ratios. All in float32, with random weights of the released width.

Workloads:
    inference      `tf.function` of the base model, 4 layers, batch 16 × 128, 798 of 2,048 tokens real; beside it the
                   bare matrix products of the layers for the real tokens, and for all positions
    no-padding     the same with every token real, and a mask that says so
    fine-tuning    a training step (SGD) of a sequence classifier, on the same batch
    masked-lm      a training step of a masked language model, 2 layers, batch 8 × 128, 250,300 tokens, 15 % labelled;
                   and the peak of anonymous memory beyond the weights
    loading        `from_pretrained` of the released size, the file in the page cache; beside it variables made of the
                   file's tensors, kernels transposed; and the memory beyond the weights
    traces         how often `tf.function(model, reduce_retracing=True)` traces in ten combinations of sizes
    first-NAME-L   CPU seconds of all threads, from the configuration to the end of the first `fit`, `predict` or eager
                   call (NAME) of a sequence classifier with L layers of width 64, on a padded batch of 4 × 16: what it
                   takes to build and trace a model
    later-call-L   the same for one more eager call

`--write` puts the tables into docs/performance.md, into the sections of this kind of processor, with a plot.
Needs Linux; loading needs 2.3 GB on disk, masked-lm of transformers 8 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
LENGTHS = (128, 15, 20, 20, 21, 28, 34, 36, 49, 49, 56, 59, 61, 70, 76, 76)  # 798 tokens
WIDTH, INNER, LAYERS, MLM_LAYERS, VOCABULARY = 1152, 4608, 4, 2, 250300
OURS, THEIRS, BARE, BARE_ALL = "rembert", "transformers", "bare products", "bare products, all positions"
WORKLOADS = {
    "inference": (OURS, THEIRS, BARE, BARE_ALL),
    "no-padding": (OURS, THEIRS),
    "fine-tuning": (OURS, THEIRS),
    "masked-lm": (OURS, THEIRS),
    "loading": (OURS, BARE),
    "traces": (OURS,),
    **{f"first-{name}-{layers}": (OURS, THEIRS) for name in ("fit", "predict", "call") for layers in (4, 32)},
    **{f"later-call-{layers}": (OURS, THEIRS) for layers in (4, 32)},
}
Result = dict[str, float]


def main() -> None:
    """Run the benchmark, or, in a process of its own, one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", help="the interpreter with transformers 4.57; without it, only this library")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, with commas between")
    parser.add_argument("--directory", type=Path, help="where to put the checkpoint; by default a temporary directory")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md, with a plot")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, args.repeats, args.directory)))
        return
    with tempfile.TemporaryDirectory(dir=args.directory) as place:
        names = args.only.split(",")
        results = {name: compare(name, args.oracle, args.rounds, args.repeats, Path(place)) for name in names}
    print(table(results, args.rounds, args.repeats))
    if args.write:
        from performance_page import kind, write_section

        page, file = ROOT / "docs" / "performance.md", ROOT / "docs" / f"performance_tf_{kind().lower()}.png"
        calls = {name: each for name, each in results.items() if name.startswith(("first", "later"))}
        rest = {name: each for name, each in results.items() if name not in calls}
        if rest:
            picture = f"\n\n![Seconds of each workload]({file.name})\n"
            text = table(rest, args.rounds, args.repeats) + picture
            write_section(page, f"bench_tf, {kind()}", f"TensorFlow, {kind()}", text)
            plot(rest, file)
        if calls:
            text = table(calls, args.rounds, args.repeats)
            write_section(page, f"bench_tf calls, {kind()}", f"First calls in TensorFlow, {kind()}", text)


# ------------------------------------------------------------------ the processes


def compare(workload: str, oracle: str | None, rounds: int, repeats: int, place: Path) -> dict[str, list[Result]]:
    """The results of every round, by subject; the subjects take turns."""
    subjects = [subject for subject in WORKLOADS[workload] if subject != THEIRS or oracle]
    if workload == "loading":
        from bench_bridge import make_checkpoint

        make_checkpoint(place, "model")
    results: dict[str, list[Result]] = {subject: [] for subject in subjects}
    for _ in range(rounds if workload != "traces" else 1):
        for subject in subjects:
            python = oracle if subject == THEIRS and oracle else sys.executable
            command = [python, __file__, "--measure", workload, subject, "--repeats", str(repeats)]
            environment = {
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TF_USE_LEGACY_KERAS": str(int(subject == THEIRS)),
            }
            done = subprocess.run(
                [*command, "--directory", str(place)], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            results[subject].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {workload}, {subject}: {results[subject][-1]}", flush=True)
    return results


def measure(workload: str, subject: str, repeats: int, place: Path) -> Result:
    """One measurement, in this process."""
    if workload == "loading":
        return loading(subject, place)
    if workload == "traces":
        return traces()
    if workload.startswith(("first", "later")):
        return first_call(workload, subject, repeats)
    peak = Peak()
    run, weights = bare_products(subject) if subject in (BARE, BARE_ALL) else model_run(workload, subject)
    run()  # traced, and every buffer made
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "memory beyond the weights (GB)": (peak.stop() - weights) / 1e9}


def batch(workload: str) -> dict[str, np.ndarray]:
    """The inputs of a workload."""
    numbers = np.random.default_rng(0)
    rows = 8 if workload == "masked-lm" else len(LENGTHS)
    ids = numbers.integers(5, VOCABULARY, (rows, 128)).astype(np.int32)
    mask = np.ones_like(ids)
    if workload in ("inference", "fine-tuning"):
        mask = (np.arange(128) < np.array(LENGTHS)[:, None]).astype(np.int32)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if workload == "fine-tuning":
        inputs["labels"] = numbers.integers(0, 2, rows).astype(np.int32)
    if workload == "masked-lm":
        inputs["labels"] = np.where(numbers.random(ids.shape) < 0.15, ids, -100).astype(np.int32)
    return inputs


def model_run(workload: str, subject: str) -> tuple[Callable[[], Any], int]:
    """What is timed of a library, and the bytes of its weights."""
    import tensorflow as tf

    head = {"fine-tuning": "ForSequenceClassification", "masked-lm": "ForMaskedLM"}.get(workload, "Model")
    layers = MLM_LAYERS if workload == "masked-lm" else LAYERS
    library, keras = libraries(subject)
    config = library.RemBertConfig(num_hidden_layers=layers, num_labels=2)
    model = getattr(library, f"TFRemBert{head}")(config)
    inputs = {name: tf.constant(array) for name, array in batch(workload).items()}
    if "labels" not in inputs:
        call = tf.function(lambda **given: model(**given, training=False).last_hidden_state)
        run = lambda: call(**inputs).numpy()  # noqa: E731
    else:
        if subject == THEIRS:
            model(**inputs)  # makes its weights
        optimizer = keras.optimizers.SGD(1e-5)

        @tf.function
        def step(**given: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model(**given, training=True).loss
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return tf.reduce_mean(loss)

        run = lambda: step(**inputs).numpy()  # noqa: E731
    run()
    return run, 4 * sum(int(np.prod(weight.shape)) for weight in model.weights)


def libraries(subject: str) -> tuple[Any, Any]:
    """A library with model classes, and the Keras that it works with."""
    if subject == OURS:
        import keras

        import rembert.tf

        return rembert.tf, keras
    import tf_keras
    import transformers

    return transformers, tf_keras


def first_call(workload: str, subject: str, repeats: int) -> Result:
    """CPU seconds of the first call of a small model, or of a later one."""
    import tensorflow as tf

    when, name, layers = workload.split("-")
    library, keras = libraries(subject)
    model_class = library.TFRemBertForSequenceClassification
    sizes = {"hidden_size": 64, "input_embedding_size": 32, "output_embedding_size": 32, "intermediate_size": 128}
    config = library.RemBertConfig(vocab_size=1000, num_hidden_layers=int(layers), num_attention_heads=4, **sizes)
    mask = np.arange(16) < np.array([16, 5, 9, 12])[:, None]
    inputs = {"input_ids": np.where(mask, 7, config.pad_token_id), "attention_mask": mask}
    inputs = {key: array.astype(np.int32) for key, array in inputs.items()}
    tensors = {key: tf.constant(array) for key, array in inputs.items()}
    tf.ones((2, 2)) @ tf.ones((2, 2))  # TensorFlow has started
    started = time.process_time()
    model = model_class(config)
    if name == "fit":
        model.compile(keras.optimizers.Adam(1e-5))
        model.fit({**inputs, "labels": np.array([0, 1, 1, 0], np.int32)}, batch_size=4, verbose=0)
    elif name == "predict":
        model.predict(inputs, verbose=0)
    else:
        model(tensors)
    if when == "first":
        return {"seconds": time.process_time() - started}
    seconds = []
    for _ in range(4 * repeats):
        started = time.process_time()
        model(tensors)
        seconds.append(time.process_time() - started)
    return {"seconds": statistics.median(seconds)}


def bare_products(subject: str) -> tuple[Callable[[], Any], int]:
    """The matrix products of the layers, and nothing else."""
    import tensorflow as tf

    rows = sum(LENGTHS) if subject == BARE else 128 * len(LENGTHS)
    shapes = LAYERS * [*4 * [(WIDTH, WIDTH)], (WIDTH, INNER), (INNER, WIDTH)]
    kernels = [tf.Variable(tf.random.normal(shape)) for shape in shapes]
    states = {width: tf.random.normal((rows, width)) for width in (WIDTH, INNER)}

    @tf.function
    def products() -> Any:
        # One number of each: nothing is left out, and little is done beside.
        return tf.add_n([(states[kernel.shape[0]] @ kernel)[-1, -1] for kernel in kernels])

    return lambda: products().numpy(), 4 * sum(int(np.prod(shape)) for shape in shapes)


def loading(subject: str, place: Path) -> Result:
    """Seconds of `from_pretrained`, without the import, and the peak of memory beyond the weights."""
    import tensorflow as tf

    import rembert.tf
    from rembert.bridge import open_checkpoint
    from rembert.common.parameters import Kind, parameters

    file = place / "model.safetensors"
    with file.open("rb") as content:
        while content.read(1 << 24):  # into the page cache
            pass
    peak, started = Peak(), time.perf_counter()
    if subject == OURS:
        kept: Any = rembert.tf.TFRemBertModel.from_pretrained(place)
    else:
        kernels = {
            name for name, each in parameters(rembert.tf.RemBertConfig(), "model").items() if each.kind is Kind.KERNEL
        }
        with open_checkpoint(place) as checkpoint:
            arrays = ((name, checkpoint.read(name)) for name in checkpoint.tensors)
            kept = [tf.Variable(array.T if name in kernels else array) for name, array in arrays]
    seconds = time.perf_counter() - started
    del kept
    return {"seconds": seconds, "memory beyond the weights (GB)": (peak.stop() - file.stat().st_size) / 1e9}


def traces() -> Result:
    """Traces in ten combinations of batch and length."""
    import tensorflow as tf

    from rembert.tf import RemBertConfig, TFRemBertModel

    model = TFRemBertModel(RemBertConfig(vocab_size=100, num_hidden_layers=1))
    call = tf.function(model, reduce_retracing=True)
    for rows in (1, 2, 3, 5, 8):
        for length in (16, 40):
            ids = tf.ones((rows, length), "int32")
            call(ids, attention_mask=ids)
    return {"traces": call.experimental_get_tracing_count()}


# ------------------------------------------------------------------ what is told


def ratio(results: dict[str, list[Result]], subject: str, other: str, key: str = "seconds") -> float | None:
    """The median of the rounds' ratios; None where one of the two was not measured."""
    if subject not in results or other not in results:
        return None
    pairs = zip(results[subject], results[other], strict=True)
    return statistics.median(one[key] / two[key] for one, two in pairs)


def table(results: dict[str, dict[str, list[Result]]], rounds: int, repeats: int) -> str:
    """The results in Markdown."""
    from importlib.metadata import version

    from performance_page import processor

    lines = [
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, {os.cpu_count()} cores of {processor()}, "
        f"float32; medians of {rounds} rounds of alternating processes, each the median of {repeats} "
        f"runs. `python tools/bench_tf.py` says what each workload is.",
        "",
        "| workload | subject | seconds (smallest to largest) | memory beyond the weights | time beside rembert's |",
        "| --- | --- | --- | --- | --- |",
    ]
    for workload, by_subject in results.items():
        for subject, rows in by_subject.items():
            if "traces" in rows[0]:
                lines.append(f"| traces, ten sizes | {subject} | {rows[0]['traces']} traces | | |")
                continue
            seconds, *memory = (statistics.median(row[key] for row in rows) for key in rows[0])
            beside = ratio(by_subject, subject, OURS)
            every = [row["seconds"] for row in rows]
            shown = f"{seconds:.3g} ({min(every):.3g} to {max(every):.3g})"
            gigabytes = "".join(f"{each:.2f} GB" for each in memory)
            lines.append(f"| {workload} | {subject} | {shown} | {gigabytes} | {beside:.2f} |")
    return "\n".join(lines)


def plot(results: dict[str, dict[str, list[Result]]], file: Path) -> None:
    """Bars of every subject's seconds, by workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    timed = {name: each for name, each in results.items() if name != "traces"}
    figure, axes = plt.subplots(1, len(timed), figsize=(3 * len(timed), 3.2), squeeze=False)
    for axis, (workload, by_subject) in zip(axes[0], timed.items(), strict=True):
        for place, (subject, rows) in enumerate(by_subject.items()):
            seconds = [row["seconds"] for row in rows]
            axis.bar(place, statistics.median(seconds), color=f"C{[OURS, THEIRS, BARE, BARE_ALL].index(subject)}")
            axis.plot([place] * len(seconds), seconds, "k.", markersize=3)
        axis.set_xticks(range(len(by_subject)), [subject.replace(" ", "\n") for subject in by_subject], fontsize=7)
        axis.set_title(workload, fontsize=9)
        axis.set_ylabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
