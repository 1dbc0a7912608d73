"""A model as a function to serve: inputs by name, of any batch size and length, to outputs by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from rembert.common.config import RemBertConfig
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import HEADS
from rembert.common.trials import takes_source

Tensor = Any


def serving_signature(config: RemBertConfig, head: str, dtype: str) -> dict[str, tf.TensorSpec]:
    """The inputs of a served model: `input_ids`, `attention_mask` and `token_type_ids`, int32 of any [b, s].

    A multiple-choice model takes [b, choices, s]; one with cross-attention also `encoder_hidden_states` of `dtype`
    [b, source, e] and `encoder_attention_mask` [b, source].

    Example:
        >>> serving_signature(RemBertConfig(), "model", "float32")["input_ids"]
        TensorSpec(shape=(None, None), dtype=tf.int32, name='input_ids')
    """
    shape: list[int | None] = [None] * (3 if HEADS[head].takes_choices else 2)
    signature = {name: _spec(name, shape) for name in ("input_ids", "attention_mask", "token_type_ids")}
    if takes_source(config, head):
        signature["encoder_hidden_states"] = _spec("encoder_hidden_states", [None, None, config.hidden_size], dtype)
        signature["encoder_attention_mask"] = _spec("encoder_attention_mask", [None, None])
    return signature


def serve(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's outputs by name, without the cache, for the inputs of a signature; elements of tuples are numbered."""
    without_cache = {"use_cache": False} if HEADS[model.head].takes_cache else {}
    outputs: ModelOutput = model(**inputs, **without_cache, return_dict=True, training=False)
    return outputs.flatten()


@contextmanager
def keep_padding(model: Any) -> Iterator[None]:
    """Inside the block the model computes every position: small runtimes lack the operations to remove padding."""
    before = model.config.attn_implementation
    model.config.attn_implementation = "eager"
    try:
        yield
    finally:
        model.config.attn_implementation = before


def _spec(name: str, shape: list[int | None], dtype: str = "int32") -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name=name)
