"""What the exporters of both frameworks share: trial inputs, the comparison after writing, and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rembert.common.config import RemBertConfig
from rembert.common.errors import ExportError, InputError
from rembert.common.parameters import HEADS

Arrays = dict[str, np.ndarray]

# The file that makes a directory an export, by target.
FILES = {"onnx": "model.onnx", "savedmodel": "saved_model.pb", "litert": "model.tflite"}
# The packages that write a target and try what was written, beside the framework.
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
LITERT_LIMIT = 2**31  # bytes: offsets in a LiteRT file are signed 32-bit numbers
CHOICES = 2  # of a multiple-choice model's trial inputs
_SOURCE = 5  # length of the states that cross-attention looks at


@dataclass(frozen=True)
class Exported:
    """What an exporter wrote.

    Attributes:
        target: the format, a key of `FILES`.
        directory: where the files are.
        files: their names.
        nbytes: their size together.
        inputs, outputs: the names of the graph's inputs and outputs.
        shapes: the shapes of `input_ids` that the written graph was tried with.
        differences: for each output, the largest difference from the model, as a part of the largest number in it.
    """

    target: str
    directory: Path
    files: list[str]
    nbytes: int
    inputs: list[str]
    outputs: list[str]
    shapes: list[tuple[int, ...]]
    differences: dict[str, float]


def trial_inputs(config: RemBertConfig, head: str, *, seed: int = 0) -> Iterator[Arrays]:
    """Inputs of several sizes: a single token, the longest sequence, and padding right, left, in between and all over.

    Integers are int64. For a multiple-choice model they are [b, choices, s].
    """
    draw = np.random.default_rng(seed)
    longest = config.max_position_embeddings
    for batch, length in ((1, 1), (5, min(13, longest)), (1, longest)):
        rows = (batch, CHOICES) if HEADS[head].takes_choices else (batch,)
        mask = np.ones((*rows, length), np.int64)
        if batch > 1:
            mask[0, ..., length // 2 + 1 :] = 0
            mask[1, ..., : length // 2] = 0
        if batch > 3:
            mask[2, ..., 1:-1:2] = 0
            mask[3] = 0
        inputs: Arrays = {
            "input_ids": np.asarray(draw.integers(0, config.vocab_size, mask.shape)),
            "attention_mask": mask,
            "token_type_ids": np.asarray(draw.integers(0, config.type_vocab_size, mask.shape)),
        }
        if takes_source(config, head):
            inputs["encoder_hidden_states"] = draw.standard_normal((batch, _SOURCE, config.hidden_size))
            inputs["encoder_attention_mask"] = draw.integers(0, 2, (batch, _SOURCE))
        yield inputs


def takes_source(config: RemBertConfig, head: str) -> bool:
    """Whether a model of this head attends to an encoder's states."""
    return config.add_cross_attention and HEADS[head].takes_source


def compare(
    trials: Iterator[Arrays],
    expected: Callable[[Arrays], Mapping[str, np.ndarray]],
    written: Callable[[Arrays], Mapping[str, np.ndarray]],
    tolerance: float,
) -> tuple[list[tuple[int, ...]], dict[str, float]]:
    """Run the model and what was written on the same inputs.

    Args:
        trials: the inputs, from `trial_inputs`.
        expected: the model: inputs to outputs by name.
        written: the same for what was written.
        tolerance: the largest difference allowed, as a part of the largest number in the output.

    Returns:
        The shapes of `input_ids`, and the largest difference of each output over all inputs.

    Raises:
        ExportError: an output is missing, has another shape, or differs by more.
    """
    shapes: list[tuple[int, ...]] = []
    largest: dict[str, float] = {}  # difference
    scale: dict[str, float] = {}
    for inputs in trials:
        shape = inputs["input_ids"].shape
        shapes.append(shape)
        ours, theirs = expected(inputs), written(inputs)
        if list(ours) != list(theirs):
            raise ExportError(f"What was written has other outputs than the model: {list(theirs)} for {list(ours)}.")
        for name, one in ours.items():
            other = theirs[name]
            if one.shape != other.shape:
                raise ExportError(
                    f"What was written gives another shape: `{name}` is {list(other.shape)} where the model gives "
                    f"{list(one.shape)}, for `input_ids` of the shape {list(shape)}."
                )
            # np.maximum and not max(): a difference that is no number stays one.
            largest[name] = float(np.maximum(largest.get(name, 0.0), np.abs(one - other).max()))
            scale[name] = float(np.maximum(scale.get(name, 0.0), np.abs(one).max()))
    found = {name: largest[name] / (scale[name] or 1.0) for name in largest}
    for name, difference in found.items():
        if not difference <= tolerance:
            raise ExportError(
                f"What was written computes something else: `{name}` differs by {difference:.1e} of its largest "
                f"number; {tolerance:.1e} is allowed."
            )
    return shapes, found


def is_export(directory: Path) -> bool:
    """Whether a directory is one that an exporter has written, which `force` may replace."""
    return any((directory / name).is_file() for name in FILES.values())


def check_litert_size(numbers: int) -> None:
    """Refuse a float32 model whose LiteRT file would end beyond 2 GB.

    Args:
        numbers: of the parameters together.

    Raises:
        InputError: quotes the size.
    """
    if numbers * 4 >= LITERT_LIMIT:
        raise InputError(
            f"A LiteRT file ends at 2 GB. Received: a model whose float32 parameters take {numbers * 4 / 1e9:.1f} GB. "
            "Export it as a SavedModel, trim its vocabulary, or use fewer layers."
        )
