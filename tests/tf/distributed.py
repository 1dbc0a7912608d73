"""Training on two logical devices beside one, as a program: the devices must be made before anything else runs.

With the environment variable TF_CONFIG it is one of several processes that train together.

Prints one JSON object: the losses and the largest difference of the weights for each way of training.
"""

from __future__ import annotations

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

DEVICES = 2
BATCH, LENGTH, BATCHES = 8, 7, 2


def main(way: str) -> None:
    strategy = _strategy()
    keras.utils.set_random_seed(0)  # each process makes the same first model
    alone, start = _train(way, tf.distribute.get_strategy(), None)
    together, _ = _train(way, strategy, start)
    print(json.dumps({"alone": alone[0], "together": together[0], "weights": _difference(alone[1], together[1])}))


def _strategy() -> tf.distribute.Strategy:
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * DEVICES)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(DEVICES)])


def _train(way: str, strategy: tf.distribute.Strategy, start: list[np.ndarray] | None) -> tuple[tuple, list]:
    from rembert.tf import TFRemBertForSequenceClassification
    from tests.frameworks import small_config

    with strategy.scope():
        # Dropout differs on every device, so there is none.
        config = small_config(
            num_hidden_layers=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            classifier_dropout_prob=0.0,
        )
        model = TFRemBertForSequenceClassification(config, dtype="float64")
        if start is not None:
            model.set_weights(start)
        start = model.get_weights()
        optimizer = keras.optimizers.SGD(0.1)
        if way == "compiled_loss":
            model.compile(
                optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
            )
        elif way == "own_loss":
            model.compile(optimizer)
        else:
            optimizer.build(model.trainable_variables)
    if way == "loop":
        losses = _loop(model, optimizer, strategy)
    else:
        losses = model.fit(_data(), epochs=2, verbose=0).history["loss"]
        losses.append(model.evaluate(_data(), verbose=0, return_dict=True)["loss"])
    return (losses, model.get_weights()), start


def _data() -> tf.data.Dataset:
    draw = np.random.default_rng(0)
    rows = BATCH * BATCHES
    lengths = draw.integers(1, LENGTH + 1, (rows, 1))
    inputs = {
        "input_ids": draw.integers(1, 20, (rows, LENGTH)).astype("int32"),
        "attention_mask": (np.arange(LENGTH) < lengths).astype("int32"),
    }
    labels = draw.integers(0, 2, rows).astype("int32")
    return tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(BATCH, drop_remainder=True)


def _loop(model: keras.Model, optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy) -> list[float]:
    @tf.function
    def step(batch: tuple) -> tf.Tensor:
        def on_device(inputs: dict, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = model(inputs, labels=labels, training=True).loss / strategy.num_replicas_in_sync
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        losses = strategy.run(on_device, args=batch)
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    return [float(step(batch)) for _ in range(2) for batch in strategy.experimental_distribute_dataset(_data())]


def _difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True) if a.dtype.kind == "f")


if __name__ == "__main__":
    main(sys.argv[1])
