"""Batches of a few fixed shapes for XLA and TPUs, which compile once for every shape.

Without XLA this is not needed: padding is removed before the layers (see `packing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import tensorflow as tf

from rembert.common.checks import IGNORE_INDEX
from rembert.common.errors import InputError


def bucket_by_length(
    dataset: tf.data.Dataset,
    lengths: Sequence[int] = (32, 64, 128, 256, 512),
    batch_size: int | Sequence[int] = 32,
    *,
    pad_token_id: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batch examples of similar lengths, padded to one of `lengths`; with `drop_remainder`, no other shapes occur.

    Args:
        dataset: of single examples: dicts with `input_ids` [s] (or `inputs_embeds` [s, input_embedding_size]), or
            tuples (dict, labels) or (dict, labels, weights). A missing `attention_mask` is added.
        lengths: increasing lengths to pad to. An example is padded to the first that it fits; an example longer than
            the last raises TensorFlow's `InvalidArgumentError` when it is read.
        batch_size: examples in a batch, or one number for each length.
        pad_token_id: pads `input_ids`. Labels of tokens are padded with -100, everything else with 0.
        drop_remainder: whether to drop the last, smaller batch of each length.

    Raises:
        InputError: `lengths` do not increase, the number of batch sizes is wrong, or examples have another structure.

    Example:
        >>> examples = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}, {"input_ids": [5, 6, 7, 8, 9, 10]}]
        >>> dataset = tf.data.Dataset.from_generator(
        ...     lambda: examples, output_signature={"input_ids": tf.TensorSpec([None], tf.int32)}
        ... )
        >>> for batch in bucket_by_length(dataset, lengths=(4, 8), batch_size=2):
        ...     print(batch["input_ids"].numpy().tolist())
        [[5, 6, 7, 0], [8, 0, 0, 0]]
        [[5, 6, 7, 8, 9, 10, 0, 0]]
    """
    if not lengths or lengths[0] < 1 or any(one >= two for one, two in pairwise(lengths)):
        raise InputError(f"`lengths` must be positive and increasing. Received: `lengths={lengths!r}`.")
    sizes = [batch_size] * len(lengths) if isinstance(batch_size, int) else list(batch_size)
    if len(sizes) != len(lengths):
        raise InputError(
            f"`batch_size` must be one number, or one for each of the {len(lengths)} lengths. Received: {sizes}."
        )
    inputs = _inputs(dataset.element_spec)
    name = next(
        (name for name in ("input_ids", "inputs_embeds") if isinstance(inputs, Mapping) and name in inputs), ""
    )
    if not name or len(inputs[name].shape) != (1 if name == "input_ids" else 2):
        raise InputError(
            "`dataset` must hold single examples, dicts with `input_ids` [s] or `inputs_embeds` [s, width], or tuples "
            f"that begin with one. Received: {dataset.element_spec}."
        )

    def masked(*example: Any) -> Any:
        given = dict(_inputs(example))
        tf.debugging.assert_less_equal(
            tf.shape(given[name])[0],
            lengths[-1],
            f"An example must have at most {lengths[-1]} tokens, the last of `lengths`. Truncate it, or add a length.",
        )
        if "attention_mask" not in given:
            given["attention_mask"] = tf.ones(tf.shape(given[name])[:1], tf.int32)
        return given if isinstance(dataset.element_spec, Mapping) else (given, *example[1:])

    dataset = dataset.map(masked, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.bucket_by_sequence_length(
        lambda *example: tf.shape(_inputs(example)[name])[0],
        bucket_boundaries=[length + 1 for length in lengths],
        bucket_batch_sizes=[*sizes, sizes[-1]],  # the last one, for longer examples, is not used
        padding_values=_padding(dataset.element_spec, pad_token_id),
        pad_to_bucket_boundary=True,
        drop_remainder=drop_remainder,
    )


def _inputs(example: Any) -> Any:
    return example[0] if isinstance(example, tuple) else example


def _padding(spec: Any, pad_token_id: int) -> Any:
    """The padding value of each tensor of an example."""

    def value(path: tuple[Any, ...], each: tf.TensorSpec) -> Any:
        fill = 0
        if path[-1] == "input_ids":
            fill = pad_token_id
        elif each.shape.rank and each.dtype.is_integer and (path[-1] == "labels" or path[0] == 1):
            fill = IGNORE_INDEX
        return tf.constant(fill, each.dtype)

    def walk(node: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(node, Mapping):
            return {name: walk(child, (*path, name)) for name, child in node.items()}
        if isinstance(node, tuple):
            return tuple(walk(child, (*path, place)) for place, child in enumerate(node))
        return None if node is None else value(path, node)

    return walk(spec, ())
