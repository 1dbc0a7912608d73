"""Common code of the exporters: the report, and the comparison of an export with the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rembert.common.config import RemBertConfig
from rembert.common.errors import ExportError, InputError
from rembert.common.trials import Arrays, OutputDifference, output_differences, trial_inputs


@dataclass(frozen=True)
class ExportTarget:
    """A format to export to.

    Attributes:
        framework: 'pt' or 'tf', which writes it.
        function: the name of the exporter in the framework's `exporting` module.
        file: the file that makes a directory an export of this format.
        description: completes "OUT holds …" in a help text.
        options: arguments of this exporter only.
        packages: the packages that the exporter needs beside the framework.
    """

    framework: str
    function: str
    file: str
    description: str
    options: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


EXPORT_TARGETS = {
    "onnx": ExportTarget(
        "pt",
        "export_onnx",
        "model.onnx",
        "model.onnx, for ONNX Runtime",
        options=("opset_version", "external_data", "remove_padding"),
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    "savedmodel": ExportTarget(
        "tf", "export_savedmodel", "saved_model.pb", "saved_model.pb and variables, for TensorFlow and its servers"
    ),
    "litert": ExportTarget(
        "tf", "export_litert", "model.tflite", "model.tflite, for LiteRT; up to 2 GB", options=("int8",)
    ),
}
LITERT_LIMIT = 2**31  # bytes: offsets in a LiteRT file are signed 32-bit numbers
# Batch size and length of the inputs that an export is tested with; None is the longest sequence.
TRIAL_SIZES: tuple[tuple[int, int | None], ...] = ((1, 1), (5, 13), (1, None))


@dataclass(frozen=True)
class Exported:
    """The report of an exporter.

    Attributes:
        target: the format, a key of `EXPORT_TARGETS`.
        directory: where the files are.
        files: their names.
        nbytes: their size together.
        inputs, outputs: the names of the graph's inputs and outputs.
        shapes: the shapes of `input_ids` in the comparison with the model.
        differences: the largest difference of each output from the model's, relative to the largest magnitude in it.
    """

    target: str
    directory: Path
    files: list[str]
    nbytes: int
    inputs: list[str]
    outputs: list[str]
    shapes: list[tuple[int, ...]]
    differences: dict[str, float]


def compare_export(
    config: RemBertConfig,
    head: str,
    expected: Callable[[Arrays], Arrays],
    written: Callable[[Arrays], Arrays],
    tolerance: float,
) -> tuple[list[tuple[int, ...]], dict[str, float]]:
    """Run a model and its export on the same inputs: a single token, several padded rows, the longest sequence.

    Args:
        config: of the model.
        head: a key of `HEADS`.
        expected: the model: inputs to outputs by name.
        written: the export.
        tolerance: the largest difference allowed, relative to the largest magnitude in the output.

    Returns:
        The shapes of `input_ids`, and the largest difference of each output over all inputs.

    Raises:
        ExportError: an output is missing, has another shape, or differs by more than the tolerance.
    """
    shapes: list[tuple[int, ...]] = []
    found: dict[str, OutputDifference] = {}
    for batch, length in TRIAL_SIZES:
        inputs = trial_inputs(config, head, batch=batch, length=length)
        shapes.append(inputs["input_ids"].shape)
        ours, theirs = expected(inputs), written(inputs)
        if list(ours) != list(theirs):
            raise ExportError(f"The export has other outputs than the model: {list(theirs)} instead of {list(ours)}.")
        for name, output in ours.items():
            if theirs[name].shape != output.shape:
                raise ExportError(
                    f"The export gives another shape: `{name}` is {list(theirs[name].shape)} where the model gives "
                    f"{list(output.shape)}, for `input_ids` of the shape {list(shapes[-1])}."
                )
        for name, difference in output_differences(ours, theirs).items():
            found[name] = found[name] | difference if name in found else difference
    for name, difference in found.items():
        if not difference.relative <= tolerance:  # a NaN fails too
            raise ExportError(
                f"The export differs from the model: `{name}` differs by {difference.relative:.1e} of its largest "
                f"magnitude; {tolerance:.1e} is allowed."
            )
    return shapes, {name: difference.relative for name, difference in found.items()}


def is_export(directory: Path) -> bool:
    """Whether a directory holds an export, which `force` may replace."""
    return any((directory / target.file).is_file() for target in EXPORT_TARGETS.values())


def check_litert_size(numbers: int) -> None:
    """Refuse a float32 model with a LiteRT file of more than 2 GB.

    Args:
        numbers: the size of all parameters together.

    Raises:
        InputError: the file would be too large; the message quotes the size.
    """
    if numbers * 4 >= LITERT_LIMIT:
        raise InputError(
            f"A LiteRT file can hold 2 GB. Received: a model with {numbers * 4 / 1e9:.1f} GB of float32 parameters. "
            "Export it as a SavedModel, trim its vocabulary, or use fewer layers."
        )
