"""Models as ONNX files, tried in ONNX Runtime before they get their name.

A graph takes `input_ids`, `attention_mask` and `token_type_ids` (with cross-attention also the encoder's states and
their mask) of any batch size and any length up to `max_position_embeddings`, and gives the model's outputs by name.
What the configuration asks for with `output_hidden_states` and `output_attentions` comes as `hidden_states.0` and so
on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.conversion import copy_companions
from rembert.common.arguments import check_argument, integer
from rembert.common.config import RemBertConfig
from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError
from rembert.common.exporting import EXPORT_TARGETS, TRIAL_SIZES, Exported, compare_export, is_export
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import HEADS
from rembert.common.trials import Arrays, takes_source, trial_inputs
from rembert.pt.inference import QuantizedLinear
from rembert.pt.pretrained import RemBertPreTrainedModel

OPSETS = range(18, 23)  # 23 has an attention operator, whose CPU kernel takes no mask that is broadcast
# As a part of an output's largest number; in float16 some tens of roundings to 11 bits come together.
_TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-2}
_WHOLE = 1.5e9  # bytes of parameters up to which one file holds all: a protocol buffer ends at 2 GiB


def export_onnx(
    model: RemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    opset_version: int = 18,
    external_data: bool | None = None,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write `model.onnx` and `config.json` as a new directory, after ONNX Runtime has given the model's own numbers.

    The graph is traced as the model is in evaluation mode; the model stays as it was. It keeps no key/value cache: a
    decoder's graph computes whole texts. Weights keep their dtype.

    Args:
        model: any of the model classes.
        directory: the directory to make; it appears complete, or not at all.
        opset_version: of ONNX's operators, one of `OPSETS`.
        external_data: True puts the weights into `model.onnx.data` beside the graph, as models of more than 1.5 GB
            always have them; False refuses such a model.
        tokenizer_from: a checkpoint's directory, to copy its tokenizer files along.
        force: replace an export that stands at `directory`.

    Returns:
        Names, sizes, and how far ONNX Runtime's results are from the model's.

    Raises:
        MissingDependencyError: `onnx`, `onnxscript` or `onnxruntime` is not installed.
        InputError: a model that ONNX cannot express, an argument that cannot be used, or `directory` exists.
        ExportError: ONNX Runtime's results differ by more than 1e-5 of an output's largest number, or 2e-2 in float16.
    """
    require_packages(*EXPORT_TARGETS["onnx"].packages, needed_for="Export to ONNX")
    large = _check(model, opset_version, external_data)
    target = Path(directory)
    training = model.training
    model.eval()
    try:
        with new_directory(target, force=force, replaceable=is_export) as fresh:
            file = fresh / EXPORT_TARGETS["onnx"].file
            program = _trace(model, opset_version)
            program.save(file, external_data=large or bool(external_data))
            config = RemBertConfig.from_dict(model.config.to_dict(), dtype=str(model.dtype))
            config.architectures = [HEADS[model.head].architecture]
            config.save_pretrained(fresh)
            if tokenizer_from is not None:
                copy_companions(Path(tokenizer_from), fresh)
            inputs = [each.name for each in program.model.graph.inputs]
            del program
            shapes, differences = _try(model, file)
            sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
    finally:
        model.train(training)
    return Exported(
        target="onnx",
        directory=target,
        files=list(sizes),
        nbytes=sum(sizes.values()),
        inputs=inputs,
        outputs=list(differences),
        shapes=shapes,
        differences=differences,
    )


def _check(model: RemBertPreTrainedModel, opset_version: int, external_data: bool | None) -> bool:
    """Refuse what cannot be exported; say whether the weights need a file of their own."""
    if not isinstance(model, RemBertPreTrainedModel):
        raise InputError(f"`model` must be one of rembert.pt's models. Received: {type(model).__name__}.")
    check_argument("opset_version", opset_version, integer(at_least=OPSETS[0], at_most=OPSETS[-1]))
    state, table = model.state_dict(), model.parameter_table()
    foreign = [
        *(f"no plain parameter `{each}`" for each in map(model._own_name, table) if not _is_plain(state.get(each))),
        *(f"quantized layer `{each}`" for each, part in model.named_modules() if isinstance(part, QuantizedLinear)),
    ]
    if foreign:
        raise InputError(
            "`model` must have its parameters as they were trained: one that was quantized or prepared for inference, "
            f"or has adapters, cannot be exported. Export it before, or merge them. Received: {foreign[0]}."
        )
    if model.dtype not in _TOLERANCES:
        dtype = str(model.dtype).removeprefix("torch.")
        raise InputError(
            "`model` must be of float32 or float16: ONNX Runtime has no CPU kernels for others, so the export could "
            f"not be tried. Received: a model of {dtype}. Use float32 (`model.float()`, --dtype float32)."
        )
    large = sum(parameter.nbytes for parameter in model.parameters()) > _WHOLE
    if large and external_data is False:
        raise InputError(
            "A model of more than 1.5 GB needs a file for its weights beside the graph. Received: "
            "`external_data=False`. Leave it out."
        )
    return large


def _is_plain(tensor: Any) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point() and tensor.device.type != "meta"


class _Graph(nn.Module):
    """A model as a function of tensors, in order, to tensors by name."""

    def __init__(self, model: RemBertPreTrainedModel, inputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        return _call(self.model, dict(zip(self.inputs, tensors, strict=True)))


def _call(model: RemBertPreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs by name, without the cache; those inside tuples are numbered."""
    without_cache = {"use_cache": False} if HEADS[model.head].takes_cache else {}
    outputs: ModelOutput = model(**inputs, **without_cache, return_dict=True)
    return outputs.flatten()


def _axes(config: RemBertConfig, head: str) -> dict[str, dict[int, Any]]:
    """For each input, the axes whose sizes are left open."""
    batch = torch.export.Dim("batch")
    sequence = torch.export.Dim("sequence", max=config.max_position_embeddings)
    axes = {0: batch, 1: sequence}
    if HEADS[head].takes_choices:
        axes = {0: batch, 1: torch.export.Dim("choices"), 2: sequence}
    inputs = {"input_ids": axes, "attention_mask": axes, "token_type_ids": axes}
    if takes_source(config, head):
        source = {0: batch, 1: torch.export.Dim("source")}
        inputs |= {"encoder_hidden_states": source, "encoder_attention_mask": source}
    return inputs


def _trace(model: RemBertPreTrainedModel, opset_version: int) -> Any:
    """The model as an ONNX program, its axes open."""
    axes = _axes(model.config, model.head)
    batch, length = TRIAL_SIZES[1]  # sizes of 1 would be taken for constants
    example = _tensors(trial_inputs(model.config, model.head, batch=batch, length=length), model)
    with torch.no_grad():
        outputs = list(_call(model, example))
    with _quiet():
        program = torch.onnx.export(
            _Graph(model, list(axes)).eval(),
            tuple(example[name] for name in axes),
            input_names=list(axes),
            output_names=outputs,
            dynamic_shapes=(tuple(axes.values()),),
            opset_version=opset_version,
            dynamo=True,
            verbose=False,
        )
    return program


def _tensors(inputs: Arrays, model: RemBertPreTrainedModel) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(array).to(model.device) for name, array in inputs.items()}
    return {name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _try(model: RemBertPreTrainedModel, file: Path) -> tuple[list[tuple[int, ...]], dict[str, float]]:
    """Run the file in ONNX Runtime beside the model."""
    onnxruntime = import_module("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def expected(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return {name: tensor.cpu().numpy() for name, tensor in _call(model, _tensors(inputs, model)).items()}

    def written(inputs: Arrays) -> Arrays:
        feed = {name: tensor.cpu().numpy() for name, tensor in _tensors(inputs, model).items()}
        return dict(zip(names, session.run(None, feed), strict=True))

    return compare_export(model.config, model.head, expected, written, _TOLERANCES[model.dtype])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own workings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
