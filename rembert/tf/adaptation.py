"""Changes of a model after its creation: Keras' LoRA, int8 weights, and frozen weights.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), section 4.1: W + (alpha / rank) A B, where
only A and B are trained. Keras implements both for a single layer; this file selects the layers, and records what a
saved model needs to be rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.arguments import check_argument, integer
from rembert.common.errors import InputError
from rembert.common.parameters import BASE_PREFIX, Kind, Parameter
from rembert.tf.layers import named_layers

Model = Any  # a TFRemBertPreTrainedModel; its file imports this one


def enable_lora(
    model: Model, rank: int, *, alpha: float | None = None, targets: Sequence[str] = ("query", "value")
) -> None:
    """Add trainable low-rank matrices to linear layers of the encoder, and freeze the encoder's own weights.

    The layers of the head remain trainable. Until it is trained, the model computes the same as before.
    `save_pretrained` and `save_weights` write the sums.

    Args:
        model: any of the model classes, quantized or not. It must be compiled afterwards, not before.
        rank: of the matrices, 1 or more.
        alpha: the product of the matrices is scaled by alpha / rank; by default by 1.
        targets: the last part of the layers' names: `query`, `key`, `value`, `dense`.

    Raises:
        InputError: the rank is below 1, no layer has a name of `targets`, or the model already has LoRA.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertForSequenceClassification(config)
        >>> enable_lora(model, rank=8)
        >>> model.num_parameters(only_trainable=True)
        4754
    """
    check_argument("rank", rank, integer(at_least=1))
    if isinstance(targets, str):
        targets = (targets,)
    chosen, names = [], set()
    for name, parameter in model.parameter_table().items():
        if parameter.kind is Kind.KERNEL and name.startswith(BASE_PREFIX):
            last = name.split(".")[-2]
            names.add(last)
            if last in targets:
                chosen.append(model._holder(parameter))
    unknown = [name for name in targets if name not in names]
    if unknown or not chosen:
        received = ", ".join(unknown) or "none"
        raise InputError(f"`targets` must be names of {', '.join(sorted(names))}. Received: {received}.")
    if any(layer.lora_enabled for layer in chosen):
        raise InputError("`model` has LoRA already: a layer can have it only once.")
    for variable in _own_variables(model.get_base_model()):
        variable.trainable = False
    for layer in chosen:
        layer.enable_lora(rank, lora_alpha=alpha)


def adaptations(model: Model) -> dict[str, Any]:
    """What a saved model records beside its configuration; empty if no layer was changed.

    Returns:
        `layers`: by name, the quantized dtype policy and LoRA's rank and alpha. `frozen`: parameters out of training.
        `frozen_layers`: paths of the layers whose `trainable` is False.
    """
    layers: dict[str, dict[str, Any]] = {}
    frozen = []
    for name, layer, parameter in _holders(model):
        done: dict[str, Any] = {}
        if layer.dtype_policy.quantization_mode is not None:
            done["quantization"] = layer.dtype_policy.quantization_mode
        if getattr(layer, "lora_enabled", False):
            done |= {"lora_rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
        if done and parameter.kind in (Kind.KERNEL, Kind.EMBEDDING):
            layers[name.rpartition(".")[0]] = done
        variable = _variable(layer, parameter)
        if not variable.trainable and not (done and parameter.kind is not Kind.BIAS):
            frozen.append(name)
    frozen_layers = [path for path, layer in named_layers(model) if not layer.trainable]
    found = {"layers": layers, "frozen": frozen, "frozen_layers": frozen_layers}
    return {key: value for key, value in found.items() if value}


def adapt(model: Model, done: Mapping[str, Any]) -> None:
    """Apply the result of `adaptations` to a new model; its weights are loaded afterwards."""
    layers, frozen = done.get("layers", {}), set(done.get("frozen", ()))
    frozen_layers = set(done.get("frozen_layers", ()))
    for path, layer in named_layers(model) if frozen_layers else ():
        layer.trainable = path not in frozen_layers  # for all layers inside too, which come later
    for name, layer, parameter in _holders(model):
        if name in frozen:
            _variable(layer, parameter).trainable = False
        own = layers.get(name.rpartition(".")[0])
        if own and parameter.kind in (Kind.KERNEL, Kind.EMBEDDING):
            if "quantization" in own:
                layer.quantize(own["quantization"])
            if "lora_rank" in own:
                layer.enable_lora(own["lora_rank"], lora_alpha=own["lora_alpha"])


def is_adapted(model: Model) -> bool:
    """Whether a layer is quantized or has LoRA, so that its variables differ from the parameter table."""
    return "layers" in adaptations(model)


# Where a quantized model is refused, and what to do instead.
NO_CHECKPOINT = (
    "A quantized model cannot be saved as a checkpoint, which holds floating-point weights. Save it with "
    "`model.save('NAME.keras')` or `model.save_weights('NAME.weights.h5')`."
)
NO_LITERT = (
    "A quantized model cannot be converted to LiteRT, whose operations take other 8-bit weights than Keras'. Use "
    "`rembert.tf.exporting.export_litert(model, directory, int8=True)` on the model before `quantize`."
)


def check_plain(model: Model, refusal: str) -> None:
    """Refuse a quantized model where floating-point weights are needed.

    Raises:
        InputError: names a layer and its quantization.
    """
    for name, own in adaptations(model).get("layers", {}).items():
        if "quantization" in own:
            raise InputError(f"{refusal} Received: {name} in {own['quantization']}.")


def merged(layer: keras.layers.Layer, parameter: Parameter) -> np.ndarray:
    """A parameter's value including LoRA's update, in the variable's own dtype and Keras' orientation."""
    value = _variable(layer, parameter).value
    if getattr(layer, "lora_enabled", False) and parameter.kind in (Kind.KERNEL, Kind.EMBEDDING):
        a, b = (
            (layer.lora_kernel_a, layer.lora_kernel_b)
            if parameter.kind is Kind.KERNEL
            else (layer.lora_embeddings_a, layer.lora_embeddings_b)
        )
        wide = tf.matmul(tf.cast(a.value, tf.float64), tf.cast(b.value, tf.float64)) * (
            layer.lora_alpha / layer.lora_rank
        )
        value = tf.cast(tf.cast(value, tf.float64) + wide, value.dtype)
    return np.asarray(value)


def _holders(model: Model) -> Iterator[tuple[str, keras.layers.Layer, Parameter]]:
    for name, parameter in model.parameter_table().items():
        yield name, model._holder(parameter), parameter


# The attributes `kernel` and `embeddings` of a layer with LoRA are sums; its variables are found by name.
def _variable(layer: keras.layers.Layer, parameter: Parameter) -> keras.Variable:
    names = {Kind.KERNEL: "kernel", Kind.EMBEDDING: "embeddings", Kind.BIAS: "bias", Kind.SCALE: "gamma"}
    name = names.get(parameter.kind, "beta")
    return next(variable for variable in layer.variables if variable.name == name)


def _own_variables(model: Model) -> list[keras.Variable]:
    return [variable for variable in model.trainable_variables if tf.as_dtype(variable.dtype).is_floating]
