"""Export to ONNX. A file is compared with the model, in ONNX Runtime, before it gets its final name.

The inputs of a graph are `input_ids`, `attention_mask` and `token_type_ids` (with cross-attention also the encoder's
states and their mask), of any batch size and any length up to `max_position_embeddings`; its outputs are the model's,
by name. With `output_hidden_states` or `output_attentions` in the configuration, there are also `hidden_states.0`,
`hidden_states.1` and so on.
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

from rembert.bridge.exporting import Run, write_export
from rembert.common.arguments import check_argument, integer
from rembert.common.config import RemBertConfig
from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError
from rembert.common.exporting import EXPORT_TARGETS, TRIAL_SIZES, Exported
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import HEADS
from rembert.common.trials import Arrays, takes_source, trial_inputs
from rembert.pt.inference_layers import APPROXIMATE
from rembert.pt.packing import padding_removed_in_graphs
from rembert.pt.pretrained import RemBertPreTrainedModel

OPSETS = range(18, 23)  # the CPU kernel of 23's attention operator does not broadcast masks
# Relative to an output's largest number; in float16, tens of roundings to 11 bits add up.
_TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-2}
_WHOLE = 1.5e9  # bytes of parameters that fit one file: protocol buffers are limited to 2 GiB
_LARGEST_AXIS = 2**31 - 1  # PyTorch 2.6 and 2.7 refuse a batch without an upper bound
_MOST_CHOICES = 2**16  # the product of all axes must fit 64 bits


def export_onnx(
    model: RemBertPreTrainedModel,
    directory: str | os.PathLike[str],
    *,
    opset_version: int = 18,
    external_data: bool | None = None,
    remove_padding: bool = True,
    tokenizer_from: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Exported:
    """Write `model.onnx` and `config.json` into a new directory, if ONNX Runtime reproduces the model's results.

    The graph is traced in evaluation mode; the model's own mode does not change. There is no key/value cache: a
    decoder's graph computes whole texts. Weights keep their dtype.

    Args:
        model: any of the model classes.
        directory: a new directory; it appears complete, or not at all.
        opset_version: of ONNX's operators, one of `OPSETS`.
        external_data: True writes the weights to `model.onnx.data` beside the graph, which models of more than 1.5 GB
            require; False raises an error for such a model.
        remove_padding: whether the graph computes real tokens alone, as the model does. Its inputs and outputs are
            the same either way. False for runtimes that need shapes known beforehand, as TensorRT does. Padding is
            computed anyway with eager attention, attention probabilities or cross-attention.
        tokenizer_from: the directory of a checkpoint whose tokenizer files are copied into the new directory.
        force: replace an export at `directory`.

    Returns:
        Names, sizes, and the differences of ONNX Runtime's results from the model's.

    Raises:
        MissingDependencyError: `onnx`, `onnxscript` or `onnxruntime` is not installed.
        InputError: ONNX cannot represent the model, an argument is invalid, or `directory` exists.
        ExportError: ONNX Runtime's results differ by more than 1e-5 of an output's largest number, or 2e-2 in float16.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertModel
        >>> model = RemBertModel(RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2))
        >>> exported = export_onnx(model, "rembert-onnx")
        >>> exported.files, exported.outputs
        (['config.json', 'model.onnx'], ['last_hidden_state', 'pooler_output'])
    """
    require_packages(*EXPORT_TARGETS["onnx"].packages, needed_for="Export to ONNX")
    large = _check(model, opset_version, external_data)
    training = model.training
    model.eval()

    def write(fresh: Path) -> list[str]:
        program = _trace(model, opset_version, remove_padding)
        program.save(fresh / EXPORT_TARGETS["onnx"].file, external_data=large or bool(external_data))
        return [each.name for each in program.model.graph.inputs]

    try:
        return write_export(
            "onnx",
            directory,
            write,
            lambda fresh: _load(model, fresh / EXPORT_TARGETS["onnx"].file),
            lambda inputs: _run(model, inputs),
            config=model.config,
            head=model.head,
            dtype=str(model.dtype),
            tolerance=_TOLERANCES[model.dtype],
            tokenizer_from=tokenizer_from,
            force=force,
        )
    finally:
        model.train(training)


def _check(model: RemBertPreTrainedModel, opset_version: int, external_data: bool | None) -> bool:
    """Refuse what cannot be exported; return whether the weights are written to a separate file."""
    if not isinstance(model, RemBertPreTrainedModel):
        raise InputError(f"`model` must be one of rembert.pt's models. Received: {type(model).__name__}.")
    check_argument("opset_version", opset_version, integer(at_least=OPSETS[0], at_most=OPSETS[-1]))
    state, table = model.state_dict(), model.parameter_table()
    altered = [
        *(f"no plain parameter `{each}`" for each in map(model._own_name, table) if not _is_plain(state.get(each))),
        *(f"quantized layer `{each}`" for each, part in model.named_modules() if isinstance(part, APPROXIMATE)),
    ]
    if altered:
        raise InputError(
            "`model` must have its original parameters: a model that was quantized or prepared for inference, or has "
            f"adapters, cannot be exported. Export it first, or merge the adapters. Received: {altered[0]}."
        )
    if model.dtype not in _TOLERANCES:
        dtype = str(model.dtype).removeprefix("torch.")
        raise InputError(
            "`model` must be of float32 or float16: ONNX Runtime has no CPU kernels for others, so the export could "
            f"not be tested. Received: a model of {dtype}. Use float32 (`model.float()`, --dtype float32)."
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
    """The outputs by name, without the cache; elements of tuples are numbered."""
    without_cache = {"use_cache": False} if HEADS[model.head].takes_cache else {}
    outputs: ModelOutput = model(**inputs, **without_cache, return_dict=True)
    return outputs.flatten()


def _axes(config: RemBertConfig, head: str) -> dict[str, dict[int, Any]]:
    """The axes of variable size, by input."""
    batch = torch.export.Dim("batch", max=_LARGEST_AXIS)
    sequence = torch.export.Dim("sequence", max=config.max_position_embeddings)
    axes = {0: batch, 1: sequence}
    if HEADS[head].takes_choices:
        axes = {0: batch, 1: torch.export.Dim("choices", max=_MOST_CHOICES), 2: sequence}
    inputs = {"input_ids": axes, "attention_mask": axes, "token_type_ids": axes}
    if takes_source(config, head):
        source = {0: batch, 1: torch.export.Dim("source", max=_LARGEST_AXIS)}
        inputs |= {"encoder_hidden_states": source, "encoder_attention_mask": source}
    return inputs


def _trace(model: RemBertPreTrainedModel, opset_version: int, remove_padding: bool) -> Any:
    """The model as an ONNX program with axes of variable size."""
    axes = _axes(model.config, model.head)
    batch, length = TRIAL_SIZES[1]  # sizes of 1 would become constants
    example = _tensors(trial_inputs(model.config, model.head, batch=batch, length=length), model)
    with torch.no_grad():
        outputs = list(_call(model, example))
    with _quiet(), padding_removed_in_graphs() if remove_padding else contextlib.nullcontext():
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


def _run(model: RemBertPreTrainedModel, inputs: Arrays) -> Arrays:
    with torch.no_grad():
        return {name: tensor.cpu().numpy() for name, tensor in _call(model, _tensors(inputs, model)).items()}


def _load(model: RemBertPreTrainedModel, file: Path) -> Run:
    """The file in ONNX Runtime."""
    onnxruntime = import_module("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        arrays = {name: tensor.cpu().numpy() for name, tensor in _tensors(inputs, model).items()}
        return dict(zip(names, session.run(None, arrays), strict=True))

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's internal messages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
