"""The Keras layers that RemBERT is made of, with its settings, and the base of its own layers."""

from __future__ import annotations

from typing import Any

import keras

from rembert.common.config import RemBertConfig
from rembert.tf.initialization import normal


def dense(config: RemBertConfig, units: int, name: str, dtype: Any) -> keras.layers.Dense:
    """A linear layer to `units` outputs."""
    return keras.layers.Dense(units, kernel_initializer=normal(config.initializer_range), name=name, dtype=dtype)


def table(config: RemBertConfig, rows: int, name: str, dtype: Any) -> keras.layers.Embedding:
    """An embedding table [rows, input_embedding_size]."""
    initializer = normal(config.initializer_range)
    return keras.layers.Embedding(
        rows, config.input_embedding_size, embeddings_initializer=initializer, name=name, dtype=dtype
    )


def norm(config: RemBertConfig, dtype: Any) -> keras.layers.LayerNormalization:
    """A LayerNorm over the last axis."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name="LayerNorm", dtype=dtype)


def build_parts(whole: keras.layers.Layer, widths: dict[str, int | None]) -> None:
    """Make the weights of a layer's parts, by attribute; each width is the last dimension of the part's input.

    All shapes follow from the configuration, so a model has its weights before it sees an input.
    """
    for name, width in widths.items():
        part = getattr(whole, name)
        for layer in part if isinstance(part, list | tuple) else [part]:
            if not layer.built:
                layer.build((None, None, width))


class RemBertLayerBase(keras.layers.Layer):
    """A layer that is made from a configuration, knows all its shapes, and is saved as its configuration."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    def build_parts(self, /, **widths: int | None) -> None:
        """Make the weights of parts; see `build_parts`."""
        build_parts(self, widths)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RemBertLayerBase:
        settings = dict(config)
        return cls(RemBertConfig.from_dict(settings.pop("config")), **settings)
