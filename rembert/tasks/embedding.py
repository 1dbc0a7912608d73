"""Vectors of texts: the mean of their tokens' hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np

from rembert.common.arguments import check_argument, integer
from rembert.common.collation.padding import pad_inputs
from rembert.common.unfinished import keep_records
from rembert.tasks.backends import Runner, running
from rembert.tasks.batching import in_sorted_batches, without_first
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.examples import Example
from rembert.tasks.predicting import model_inputs
from rembert.tasks.task import Feature

_FLOAT = np.dtype("<f4")


class Texts(SequenceClassification):
    """Texts, or pairs of texts, without their labels; by default a file has one text per line."""

    format = "text"

    def _label(self, value: Any, column: str | None) -> None:
        return None


def embed(
    task: Texts,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 32,
    layer: int = -1,
    normalize: bool = False,
    skip: int = 0,
    runner: Runner | None = None,
) -> Iterator[np.ndarray]:
    """A vector [e] of float32 for each example, in order: the mean over its tokens, `[CLS]` and `[SEP]` included.
    That of a malformed line that was skipped (`keep_skipped` of `task.read`) is NaN.

    Args:
        task: encodes the texts.
        model: a base model of either framework.
        examples: from `task.read`.
        batch_size: the maximum number of rows in a batch.
        layer: the hidden states to take, 0 for the encoder's input, -1 for the last layer.
        normalize: divide each vector by its length.
        skip: the number of examples at the start that are read and encoded, but not run.
        runner: of this model, to reuse TensorFlow's graph.

    Raises:
        InputError: there is no such layer, or there are fewer than `skip` examples.

    Example:
        >>> from pathlib import Path
        >>> from rembert import RemBertTokenizer
        >>> from rembert.pt import RemBertModel
        >>> _ = Path("texts.txt").write_text("The ferry leaves at nine.")
        >>> model = RemBertModel.from_pretrained("google/rembert")
        >>> task = Texts(RemBertTokenizer.from_pretrained("google/rembert"), max_length=64)
        >>> [vector] = embed(task, model, task.read("texts.txt"), normalize=True)
        >>> vector.shape == (model.config.hidden_size,)
        True
    """
    count = model.config.num_hidden_layers + 1
    check_argument("layer", layer, integer(at_least=-count, at_most=count - 1))
    nothing = np.full(model.config.hidden_size, np.nan, np.float32)
    with running(model) if runner is None else nullcontext(runner) as used:

        def vectors(features: list[Feature]) -> list[np.ndarray]:
            real = [feature for feature in features if feature]
            if not real:
                return [nothing] * len(features)
            batch = pad_inputs(real, task.pad_token_id)
            states = used.hidden_states(model_inputs(batch), -1 if layer == count - 1 else layer)
            mask = batch["attention_mask"][..., None].astype(np.float32)
            means = (states * mask).sum(1) / mask.sum(1)
            if normalize:
                means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            found = iter(means.astype(np.float32, copy=False))
            return [next(found) if feature else nothing for feature in features]

        def length(feature: Feature) -> int:
            return task.length(feature) if feature else 0

        # Each text has one feature; a line that was skipped has none.
        rows = (features[0] if features else {} for _, features in task.stream_features(examples))
        yield from in_sorted_batches(without_first(skip, rows), vectors, length=length, batch_size=batch_size)


class VectorFile:
    """Writes vectors [width] as they come to a `.npy` file of [n, width] float32.

    Args:
        stream: of the file, for reading and writing. Vectors that an interrupted run has written stay, up to the
            first that is incomplete, holds other values than numbers, or is zero, as a crash of the machine leaves
            what was not yet on disk.
        width: the length of a vector.

    Attributes:
        count: the number of vectors in the file.

    Example:
        >>> with open("vectors.npy", "w+b") as stream:
        ...     vectors = VectorFile(stream, width=2)
        ...     vectors.add(np.array([0.5, 1.5]))
        ...     vectors.finish()
        >>> np.load("vectors.npy")
        array([[0.5, 1.5]], dtype=float32)
    """

    def __init__(self, stream: BinaryIO, width: int) -> None:
        self._stream = stream
        self._width = width
        start = self._write_header(0)
        self.count = keep_records(stream, start, width * _FLOAT.itemsize, _is_vector)

    def add(self, vector: np.ndarray) -> None:
        """Append a vector."""
        self._stream.write(np.ascontiguousarray(vector, _FLOAT).tobytes())
        self.count += 1

    def finish(self) -> None:
        """Write the number of vectors into the header."""
        self._write_header(self.count)

    def _write_header(self, rows: int) -> int:
        """Write the header at the start, and return its size, which is the same for any number of rows."""
        self._stream.seek(0)
        header = {"descr": _FLOAT.str, "fortran_order": False, "shape": (rows, self._width)}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()


def _is_vector(record: bytes) -> bool:
    values = np.frombuffer(record, _FLOAT)
    return bool(values.any() and (np.isfinite(values).all() or np.isnan(values).all()))  # NaN: of a skipped line
