"""Metrics over whole predictions in `fit`: Keras' own see one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.checks import IGNORE_INDEX
from rembert.common.errors import InputError
from rembert.common.parameters import find_head


class KerasMetricCallback(keras.callbacks.Callback):
    """Computes metrics over all predictions for a dataset at the end of each epoch, under transformers' name.

    The results are added to the logs, where `History`, `EarlyStopping` and other callbacks that come later find them.
    Batches of several lengths are padded with -100.

    Args:
        metric_fn: from (predictions, labels) to a dict of numbers. Each is an array, or a dict of arrays by name if
            there are several.
        eval_dataset: a `tf.data.Dataset` of batches (inputs, labels), as `prepare_tf_dataset` makes them, or of inputs
            with labels among them; or arrays in one of these two forms, with `batch_size`.
        output_cols: the names of the outputs to keep; by default the model's logits.
        label_cols: the names of labels among the inputs; by default those of the model's head.
        batch_size: of arrays.
        predict_with_generate: whether predictions are the tokens of `model.generate`.
        use_xla_generation: accepted and not used: `generate` compiles its own graph.
        generate_kwargs: arguments of `generate`.

    Raises:
        InputError: arrays without `batch_size`, or a dataset without labels.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertForSequenceClassification(config)
        >>> rows = {"input_ids": np.array([[312, 5, 313], [312, 6, 313]]), "labels": np.array([1, 0])}
        >>> def accuracy(predictions_and_labels):
        ...     logits, labels = predictions_and_labels
        ...     return {"whole_accuracy": float(np.mean(logits.argmax(-1) == labels))}
        >>> metric = KerasMetricCallback(accuracy, rows, batch_size=1)
        >>> model.compile("sgd")
        >>> history = model.fit(rows, callbacks=[metric], verbose=0).history
        >>> sorted(history)
        ['loss', 'whole_accuracy']
    """

    def __init__(
        self,
        metric_fn: Callable[[tuple[Any, Any]], Mapping[str, Any]],
        eval_dataset: Any,
        output_cols: Sequence[str] | None = None,
        label_cols: Sequence[str] | None = None,
        batch_size: int | None = None,
        predict_with_generate: bool = False,
        use_xla_generation: bool = False,
        generate_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(eval_dataset, tf.data.Dataset):
            if batch_size is None:
                raise InputError("`batch_size` must be given for an `eval_dataset` of arrays. Received: None.")
            eval_dataset = tf.data.Dataset.from_tensor_slices(eval_dataset).batch(batch_size)
        self.metric_fn = metric_fn
        self.eval_dataset = eval_dataset
        self.output_cols = output_cols
        self.label_cols = label_cols
        self.predict_with_generate = predict_with_generate
        self.generate_kwargs = dict(generate_kwargs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        predictions, labels = [], []
        for batch in self.eval_dataset:
            inputs, targets = self._taken_apart(batch)
            labels.append(targets)
            if self.predict_with_generate:
                tokens = self.model.generate(**_prompt(inputs), **self.generate_kwargs)
                predictions.append({"tokens": getattr(tokens, "sequences", tokens)})
            else:
                predictions.append(self._kept(self.model.predict_on_batch(inputs)))
        results = dict(self.metric_fn((_together(predictions), _together(labels))))
        if logs is not None:
            logs.update(results)

    def _taken_apart(self, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inputs and the labels of a batch, by name."""
        inputs, targets = batch[:2] if isinstance(batch, tuple) else (batch, None)
        names = list(self.label_cols or find_head(self.model.head).labels)
        given = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
        labels = {name: given.pop(name) for name in names if name in given}
        if targets is not None:
            labels |= dict(targets) if isinstance(targets, Mapping) else {"labels": targets}
        if not labels:
            raise InputError(
                "`eval_dataset` must have labels, as a second element or among the inputs. Received: "
                f"{', '.join(given)}."
            )
        return given, labels

    def _kept(self, outputs: Any) -> dict[str, Any]:
        if not isinstance(outputs, Mapping):
            return {"outputs": outputs}
        logits = [name for name in find_head(self.model.head).logits if name in outputs]
        return {name: outputs[name] for name in self.output_cols or logits or outputs}


def _prompt(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}


def _together(batches: list[dict[str, Any]]) -> Any:
    """The columns of all batches, padded with -100 to one shape; the array itself if there is a single column."""
    columns = {name: _concatenated([np.asarray(batch[name]) for batch in batches]) for name in batches[0]}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    shape = np.max([array.shape[1:] for array in arrays], axis=0).astype(int).tolist()
    whole = np.full((sum(map(len, arrays)), *shape), IGNORE_INDEX, arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return whole
