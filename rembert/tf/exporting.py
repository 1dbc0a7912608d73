"""Export to SavedModel and LiteRT (the twin: ONNX). A file is compared with the model before it gets its final name.

The inputs of a graph are `input_ids`, `attention_mask` and `token_type_ids` as int32 (with cross-attention also the
encoder's states and their mask), of any batch size and any length up to `max_position_embeddings`; its outputs are the
model's, by name. With `output_hidden_states` or `output_attentions` in the configuration, there are also
`hidden_states.0`, `hidden_states.1` and so on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.bridge.exporting import Run, write_export
from rembert.common.errors import ExportError, InputError
from rembert.common.exporting import EXPORT_TARGETS, Exported, check_litert_size
from rembert.common.trials import Arrays
from rembert.tf.adaptation import NO_LITERT, check_plain
from rembert.tf.pretrained import TFRemBertPreTrainedModel
from rembert.tf.serving import keep_padding, serve, serving_signature

SIGNATURE = "serving_default"
# Other signatures of a SavedModel: the integers' dtype, and whether `token_type_ids` is among the inputs.
VARIANTS = {
    "without_types": (tf.int32, False),
    "int64": (tf.int64, True),
    "int64_without_types": (tf.int64, False),
}
# Relative to an output's largest number; in half precision, tens of roundings to 11 or 8 bits add up.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
_INT8 = 1e-1


def export_savedmodel(
    model: TFRemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write a SavedModel and `config.json` into a new directory, if the loaded file reproduces the model's results.

    It is served without this library and without Keras. Its signature `serving_default` takes and returns tensors by
    name. Padding is removed as in the model. There is no key/value cache: a decoder's graph computes whole texts.

    Args:
        model: any of the model classes.
        directory: a new directory; it appears complete, or not at all.
        tokenizer_from: the directory of a checkpoint whose tokenizer files are copied into the new directory.
        force: replace an export at `directory`.

    Returns:
        Names, sizes, and the differences of the loaded function's results from the model's.

    Raises:
        InputError: `model` is not one of `rembert.tf`'s, or `directory` exists.
        ExportError: the results differ by more than 1e-5 of an output's largest number in float32, 1e-10 in float64,
            2e-2 in float16, 1e-1 in bfloat16; or TensorFlow cannot write the file, as on a full disk.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertModel
        >>> model = TFRemBertModel(RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2))
        >>> exported = export_savedmodel(model, "rembert-savedmodel")
        >>> "saved_model.pb" in exported.files
        True
    """
    _check(model)

    def write(fresh: Path) -> None:
        graph = _graph(model)
        variants = {name: _variant(model, graph, *kind) for name, kind in VARIANTS.items()}
        write_graphs(_Served(model), fresh, {SIGNATURE: graph, **variants})

    def load(fresh: Path) -> Run:
        function = tf.saved_model.load(str(fresh)).signatures[SIGNATURE]
        return lambda inputs: _arrays(function(**{name: tf.constant(array) for name, array in inputs.items()}))

    return _export(model, "savedmodel", directory, write, load, tokenizer_from, force)


def write_graphs(served: tf.Module, directory: Path, signatures: dict[str, Any]) -> None:
    """Write a SavedModel.

    Raises:
        ExportError: TensorFlow cannot write it, as on a full disk; names the file.
    """
    try:
        tf.saved_model.save(served, str(directory), signatures=signatures)
    except tf.errors.OpError as problem:
        raise ExportError(f"The SavedModel cannot be written: {problem.message}") from problem


def export_litert(
    model: TFRemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
    int8: bool = False,
) -> Exported:
    """Write `model.tflite` and `config.json` into a new directory, if the loaded file reproduces the results.

    The file uses only LiteRT's own operations, with batches and lengths of any size. Padding is computed: LiteRT lacks
    the operations to remove it. The other arguments and the result are those of `export_savedmodel`.

    Args:
        int8: kernels and tables in 8 bits: a third of the size or less, with an error of some hundredths.

    Raises:
        InputError: the model is not float32 or quantized, its file would exceed 2 GB, or `directory` exists.
        ExportError: the results differ by more than 1e-5 of an output's largest number; with `int8` by more than 1e-1.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertModel
        >>> model = TFRemBertModel(RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2))
        >>> exported = export_litert(model, "rembert-litert")
        >>> "model.tflite" in exported.files
        True
    """
    _check(model)
    if model.dtype_policy.name != "float32":
        raise InputError(
            "`model` must be of float32: LiteRT has no kernels of other dtypes for some operations. Load it with "
            f"`dtype='float32'`. Received: a model of {model.dtype_policy.name}."
        )
    check_plain(model, NO_LITERT)
    table = model.parameter_table()
    check_litert_size(sum(parameter.size for parameter in table.values()))

    def write(fresh: Path) -> None:
        with keep_padding(model):
            graph = _graph(model)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], _Served(model))
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if int8 else []
        (fresh / EXPORT_TARGETS["litert"].file).write_bytes(converter.convert())

    def load(fresh: Path) -> Run:
        with warnings.catch_warnings():
            # TensorFlow's own interpreter will move to the package ai_edge_litert; until then this one is available.
            warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
            interpreter = tf.lite.Interpreter(str(fresh / EXPORT_TARGETS["litert"].file))
        runner = interpreter.get_signature_runner()
        return lambda inputs: {name: array.copy() for name, array in runner(**inputs).items()}

    return _export(model, "litert", directory, write, load, tokenizer_from, force, _INT8 if int8 else None)


def _check(model: Any) -> None:
    if not isinstance(model, TFRemBertPreTrainedModel):
        raise InputError(f"`model` must be one of rembert.tf's models. Received: {type(model).__name__}.")


class _Served(tf.Module):
    """Holds a graph's variables, without Keras' classes, which are not needed for serving."""

    def __init__(self, model: TFRemBertPreTrainedModel) -> None:
        super().__init__()
        self.held = [variable.value for variable in model.variables]


def _graph(model: TFRemBertPreTrainedModel) -> Any:
    """The model traced once, for any batch and length."""
    signature = serving_signature(model.config, model.head, model.compute_dtype)

    @tf.function(autograph=False)
    def graph(**inputs: Any) -> dict[str, Any]:
        return serve(model, inputs)

    return graph.get_concrete_function(**signature)


def _variant(model: TFRemBertPreTrainedModel, graph: Any, dtype: tf.DType, with_types: bool) -> Any:
    """The traced model behind another signature: integers are cast, and token types left out are 0."""
    specs = serving_signature(model.config, model.head, model.compute_dtype)

    @tf.function(autograph=False)
    def variant(**inputs: Any) -> dict[str, Any]:
        given = {name: tf.cast(tensor, specs[name].dtype) for name, tensor in inputs.items()}
        return graph(**{"token_type_ids": tf.zeros_like(given["input_ids"]), **given})

    return variant.get_concrete_function(
        **{
            name: tf.TensorSpec(spec.shape, dtype if spec.dtype.is_integer else spec.dtype, name=name)
            for name, spec in specs.items()
            if with_types or name != "token_type_ids"
        }
    )


def _export(
    model: TFRemBertPreTrainedModel,
    target: str,
    directory: str | os.PathLike[str],
    write: Callable[[Path], None],
    load: Callable[[Path], Run],
    tokenizer_from: str | os.PathLike[str] | None,
    force: bool,
    tolerance: float | None = None,
) -> Exported:
    signature = serving_signature(model.config, model.head, model.compute_dtype)

    def as_served(inputs: Arrays) -> Arrays:
        return {name: inputs[name].astype(spec.dtype.as_numpy_dtype) for name, spec in signature.items()}

    def write_and_name(fresh: Path) -> list[str]:
        write(fresh)
        return list(signature)

    def load_and_cast(fresh: Path) -> Run:
        run = load(fresh)
        return lambda inputs: _arrays(run(as_served(inputs)))

    return write_export(
        target,
        directory,
        write_and_name,
        load_and_cast,
        lambda inputs: _arrays(serve(model, as_served(inputs))),
        config=model.config,
        head=model.head,
        dtype=model.variable_dtype,
        tolerance=tolerance or _TOLERANCES[model.compute_dtype],
        tokenizer_from=tokenizer_from,
        force=force,
    )


def _arrays(outputs: dict[str, Any]) -> Arrays:
    """Tensors as float64 arrays, sorted by name: a loaded signature has no other order."""
    return {name: np.asarray(outputs[name]).astype(np.float64) for name in sorted(outputs)}
