"""The Keras layers that RemBERT is made of, with its settings, and the base of its own layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras
import tensorflow as tf

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


def dropout(rate: float, dtype: Any) -> keras.layers.Dropout:
    """Dropout, under the same name in every model."""
    return keras.layers.Dropout(rate, name="dropout", dtype=dtype)


def norm(config: RemBertConfig, dtype: Any) -> keras.layers.LayerNormalization:
    """A LayerNorm over the last axis."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name="LayerNorm", dtype=dtype)


# The last dimension of an input [b, s, width], the whole shape of an input of another rank, or None for ids [b, s].
Width = int | tuple[int | None, ...] | None


def build_parts(whole: keras.layers.Layer, widths: dict[str, Width]) -> None:
    """Make the weights of a layer's parts, by attribute, for inputs of these widths.

    All shapes follow from the configuration, so a model has its weights before it sees an input.
    """
    for name, width in widths.items():
        part = getattr(whole, name)
        shape = width if isinstance(width, tuple) else (None, None) if width is None else (None, None, width)
        for layer in part if isinstance(part, list | tuple) else [part]:
            if not layer.built or isinstance(layer, keras.layers.Dropout):  # which then shows its shape in a summary
                layer.build(shape)


def layers_inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all those that it holds in attributes, or in lists there, in the order in which they were set."""
    found: dict[int, keras.layers.Layer] = {}

    def visit(value: Any) -> None:
        if isinstance(value, list | tuple):
            for each in value:
                visit(each)
        elif isinstance(value, keras.layers.Layer) and id(value) not in found:
            found[id(value)] = value
            visit(list(vars(value).values()))

    visit(layer)
    return list(found.values())


def named_parts(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers in a layer's public attributes, and in lists and dicts there, by attribute: `layer.0`."""

    def inside(name: str, value: Any) -> Iterator[tuple[str, keras.layers.Layer]]:
        if isinstance(value, keras.layers.Layer):
            yield name, value
        elif isinstance(value, list | tuple):
            for index, each in enumerate(value):
                yield from inside(f"{name}.{index}" if name else str(index), each)
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from inside(f"{name}.{key}", each)

    if isinstance(layer, keras.Sequential):
        yield from inside("", layer.layers)
        return
    for name, value in vars(layer).items():
        if not name.startswith("_"):
            yield from inside(name, value)


def named_layers(layer: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """A layer and all layers inside it, by the path of attributes to them; that of the layer itself is empty."""
    yield path, layer
    for name, part in named_parts(layer):
        yield from named_layers(part, f"{path}.{name}" if path else name)


def checkpointed(layer: keras.layers.Layer) -> Callable[..., tuple[Any, None, None, tuple[()]]]:
    """A layer of the encoder with gradient checkpointing: its activations are recomputed in the backward pass.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). `keras.remat` would draw other dropout masks
    the second time, which makes the gradients wrong; here both passes use the same seeds. Only the states are
    returned: other results of the layer would be kept.
    """

    def call(
        hidden_states: Any, bias: Any = None, *, source: Any = None, **rest: Any
    ) -> tuple[Any, None, None, tuple[()]]:
        generators = [each.seed_generator for each in layers_inside(layer) if hasattr(each, "seed_generator")]
        seeds = [(generator.state, generator.next()) for generator in generators]

        def states(*given: Any) -> Any:
            with keras.StatelessScope(state_mapping=seeds):
                return layer(given[0], bias, source=given[1] if given[1:] else None, **rest)[0]

        given = [hidden_states] if source is None else [hidden_states, source]
        return tf.recompute_grad(states)(*given), None, None, ()

    return call


class RemBertLayerBase(keras.layers.Layer):
    """A layer that is made from a configuration, knows all its shapes, and is saved as its configuration."""

    output_width: ClassVar[str] = "hidden_size"  # the key of the configuration that holds it

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    def build_parts(self, /, **widths: Width) -> None:
        """Make the weights of parts; see `build_parts`."""
        build_parts(self, widths)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the states that the layer returns, for the shape of those that it takes."""
        return (*input_shape[:-1], getattr(self.config, self.output_width))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """What a symbolic call returns: all results. Keras would return the states alone."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RemBertLayerBase:
        settings = dict(config)
        return cls(RemBertConfig.from_dict(settings.pop("config")), **settings)
