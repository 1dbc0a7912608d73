"""How fast `rembert.tf` is on a GPU: `mixed_bfloat16`, in plain graphs and with XLA.

    python tools/bench_tf_gpu.py [--rounds 3] [--repeats 5]
    python tools/bench_tf_gpu.py --tiny

32 layers of the released width, 64 rows of 512 tokens; the rates are FLOP of the layers' products and of attention for
each second, beside those of a bare product in bfloat16 in the same process. Mixed lengths are 16 to 512 tokens: plain
graphs remove the padding, XLA computes it. `--tiny` tries the code with a model of no use, on a CPU too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "input_embedding_size": 32,
    "num_hidden_layers": 1,
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements, in turns")
    parser.add_argument("--repeats", type=int, default=5, help="calls whose median counts")
    parser.add_argument("--tiny", action="store_true", help="a model of no use, to try the tool itself")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices and not args.tiny:
        parser.error("TensorFlow sees no GPU; --tiny tries the code without one")
    name = tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else "CPU"
    measurements = prepare(args.tiny)
    seconds: dict[str, list[float]] = {each: [] for each in measurements}
    for _ in range(args.rounds):
        for each, (run, _) in measurements.items():
            seconds[each].append(timed(run, args.repeats))
    products = measurements["bare product"][1] / statistics.median(seconds["bare product"])
    print(f"TensorFlow {tf.__version__}, {name}, mixed_bfloat16, {args.rounds} rounds.\n")
    print("| measurement | ms (smallest to largest) | TFLOP/s | of the bare product's |\n| --- | ---: | ---: | ---: |")
    for each, (_, flops) in measurements.items():
        taken = statistics.median(seconds[each])
        rates = f"{flops / taken / 1e12:.3g} | {flops / taken / products:.0%}" if flops else "|"
        shown = f"{taken * 1e3:.1f} ({min(seconds[each]) * 1e3:.1f} to {max(seconds[each]) * 1e3:.1f})"
        print(f"| {each} | {shown} | {rates} |")


def prepare(tiny: bool) -> dict[str, tuple[Callable[[], Any], int]]:
    """What is timed, by name, and its FLOP; 0 for mixed lengths, where they depend on the way."""
    import keras
    import tensorflow as tf

    from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification

    keras.config.set_dtype_policy("mixed_bfloat16")
    numbers = np.random.default_rng(0)
    rows, width = (4, 32) if tiny else (64, 512)
    config = RemBertConfig(**{"vocab_size": 32000, "num_hidden_layers": 32, **(TINY if tiny else {})})
    model = TFRemBertForSequenceClassification(config)
    optimizer = keras.optimizers.SGD(1e-5)
    ids = tf.constant(numbers.integers(5, 32000, (rows, width)), tf.int32)
    lengths = numbers.integers(min(16, width // 2), width + 1, (rows, 1))
    mask = tf.constant(np.arange(width) < lengths, tf.int32)
    labels = tf.zeros(rows, tf.int32)
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    flops = rows * width * config.num_hidden_layers * (2 * layer + 4 * width * config.hidden_size)
    states = tf.random.normal((rows * width, config.hidden_size), dtype="bfloat16")
    kernel = tf.random.normal((config.hidden_size, config.intermediate_size), dtype="bfloat16")
    product = tf.function(lambda: (states @ kernel)[-1, -1])
    found: dict[str, tuple[Callable[[], Any], int]] = {
        "bare product": (product, 2 * rows * width * config.hidden_size * config.intermediate_size)
    }
    for way, is_xla in (("graph", False), ("XLA", True)):

        def forward(mask: Any = None) -> Any:
            return model(input_ids=ids, attention_mask=mask, training=False).logits

        def step(mask: Any = None) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(input_ids=ids, attention_mask=mask, labels=labels, training=True).loss)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        run, train = (tf.function(each, jit_compile=is_xla) for each in (forward, step))
        found[f"inference, no padding, {way}"] = (run, flops)
        found[f"inference, mixed lengths, {way}"] = (lambda run=run: run(mask), 0)
        found[f"training step, no padding, {way}"] = (train, 3 * flops)
        found[f"training step, mixed lengths, {way}"] = (lambda train=train: train(mask), 0)
    optimizer.build(model.trainable_variables)
    return found


def timed(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call, until its result is on the host; the first one does not count."""
    run().numpy()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run().numpy()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
