"""Models as SavedModel and LiteRT files, tried before they get their name; the twin writes ONNX.

A graph takes `input_ids`, `attention_mask` and `token_type_ids` as int32 (with cross-attention also the encoder's
states and their mask) of any batch size and any length up to `max_position_embeddings`, and gives the model's outputs
by name. What the configuration asks for with `output_hidden_states` and `output_attentions` comes as
`hidden_states.0` and so on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.conversion import copy_companions
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.exporting import EXPORT_TARGETS, Exported, check_litert_size, compare_export, is_export
from rembert.common.parameters import HEADS
from rembert.common.trials import Arrays
from rembert.tf.pretrained import TFRemBertPreTrainedModel
from rembert.tf.serving import keep_padding, serve, serving_signature

SIGNATURE = "serving_default"
# A part of the output's largest number. Half precision: some tens of roundings to 11 and 8 bits.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}

Run = Callable[[Arrays], Arrays]


def export_savedmodel(
    model: TFRemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write a SavedModel and `config.json` as a new directory, after it was loaded and gave the model's own numbers.

    It is served without this library and without Keras. Its signature `serving_default` takes and gives tensors by
    name. Padding is taken out as in the model. It keeps no key/value cache: a decoder's graph computes whole texts.

    Args:
        model: any of the model classes.
        directory: the directory to make; it appears complete, or not at all.
        tokenizer_from: a checkpoint's directory, to copy its tokenizer files along.
        force: replace an export that stands at `directory`.

    Returns:
        Names, sizes, and how far the loaded function's results are from the model's.

    Raises:
        InputError: no model of this library, or `directory` exists.
        ExportError: the results differ by more than 1e-5 of an output's largest number in float32, 1e-10 in float64,
            2e-2 in float16, 1e-1 in bfloat16.
    """
    _check(model)

    def write(fresh: Path) -> None:
        tf.saved_model.save(_Served(model), str(fresh), signatures={SIGNATURE: _graph(model)})

    def load(fresh: Path) -> Run:
        function = tf.saved_model.load(str(fresh)).signatures[SIGNATURE]
        return lambda inputs: _arrays(function(**{name: tf.constant(array) for name, array in inputs.items()}))

    return _export(model, "savedmodel", Path(directory), write, load, tokenizer_from, force)


def export_litert(
    model: TFRemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write `model.tflite` and `config.json` as a new directory, after the interpreter gave the model's own numbers.

    The file holds LiteRT's own operations alone, none of TensorFlow's, with batch and length left open. Every
    position is computed: LiteRT has nothing to take padding out with. Arguments and result as `export_savedmodel`.

    Raises:
        InputError: a model that is not float32, one whose file would end beyond 2 GB, or `directory` exists.
        ExportError: the results differ by more than 1e-5 of an output's largest number.
    """
    _check(model)
    if model.dtype_policy.name != "float32":
        raise InputError(
            "`model` must be of float32: LiteRT's kernels know no other for every operation. Load it with "
            f"`dtype='float32'`. Received: a model of {model.dtype_policy.name}."
        )
    table = model.parameter_table()
    check_litert_size(sum(parameter.size for parameter in table.values()))

    def write(fresh: Path) -> None:
        with keep_padding(model):
            graph = _graph(model)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], _Served(model))
        (fresh / EXPORT_TARGETS["litert"].file).write_bytes(converter.convert())

    def load(fresh: Path) -> Run:
        with warnings.catch_warnings():
            # TensorFlow's own interpreter will move to the package ai_edge_litert; until then it is the one at hand.
            warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated", category=UserWarning)
            interpreter = tf.lite.Interpreter(str(fresh / EXPORT_TARGETS["litert"].file))
        runner = interpreter.get_signature_runner()
        return lambda inputs: {name: array.copy() for name, array in runner(**inputs).items()}

    return _export(model, "litert", Path(directory), write, load, tokenizer_from, force)


def _check(model: Any) -> None:
    if not isinstance(model, TFRemBertPreTrainedModel):
        raise InputError(f"`model` must be one of rembert.tf's models. Received: {type(model).__name__}.")


class _Served(tf.Module):
    """What holds a graph's variables, and nothing of Keras: its classes are not wanted where the graph is served."""

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


def _export(
    model: TFRemBertPreTrainedModel,
    target: str,
    directory: Path,
    write: Callable[[Path], None],
    load: Callable[[Path], Run],
    tokenizer_from: str | os.PathLike[str] | None,
    force: bool,
) -> Exported:
    signature = serving_signature(model.config, model.head, model.compute_dtype)

    def as_served(inputs: Arrays) -> Arrays:
        return {name: inputs[name].astype(spec.dtype.as_numpy_dtype) for name, spec in signature.items()}

    with new_directory(directory, force=force, replaceable=is_export) as fresh:
        write(fresh)
        config = RemBertConfig.from_dict(model.config.to_dict(), dtype=model.variable_dtype)
        config.architectures = [HEADS[model.head].architecture]
        config.save_pretrained(fresh)
        if tokenizer_from is not None:
            copy_companions(Path(tokenizer_from), fresh)
        run = load(fresh)

        def expected(inputs: Arrays) -> Arrays:
            return _arrays(serve(model, as_served(inputs)))

        def written(inputs: Arrays) -> Arrays:
            outputs = run(as_served(inputs))
            return {name: outputs[name].astype(np.float64) for name in sorted(outputs)}

        tolerance = _TOLERANCES[model.compute_dtype]
        shapes, differences = compare_export(model.config, model.head, expected, written, tolerance)
        sizes = {
            path.relative_to(fresh).as_posix(): path.stat().st_size
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
    return Exported(
        target=target,
        directory=directory,
        files=list(sizes),
        nbytes=sum(sizes.values()),
        inputs=list(signature),
        outputs=list(differences),
        shapes=shapes,
        differences=differences,
    )


def _arrays(outputs: dict[str, Any]) -> Arrays:
    """Tensors as float64 arrays, in the order of their names: a loaded signature has no other."""
    return {name: np.asarray(outputs[name]).astype(np.float64) for name in sorted(outputs)}
