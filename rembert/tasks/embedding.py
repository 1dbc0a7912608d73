"""Vectors of texts: the mean of their tokens' hidden states."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rembert.common.arguments import check_argument, integer
from rembert.common.collation.padding import pad_inputs
from rembert.common.files import atomic_path
from rembert.tasks.backends import running
from rembert.tasks.batching import in_sorted_batches
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.examples import Example
from rembert.tasks.predicting import model_inputs
from rembert.tasks.task import Feature


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
) -> Iterator[np.ndarray]:
    """A vector [e] of float32 for each example, in order: the mean over its tokens, `[CLS]` and `[SEP]` included.

    Args:
        task: encodes the texts.
        model: a base model of either framework.
        examples: from `task.read`.
        batch_size: the maximum number of rows in a batch.
        layer: the hidden states to take, 0 for the encoder's input, -1 for the last layer.
        normalize: divide each vector by its length.

    Raises:
        InputError: there is no such layer.

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
    with running(model) as runner:

        def vectors(features: list[Feature]) -> list[np.ndarray]:
            batch = pad_inputs(features, task.pad_token_id)
            states = runner.hidden_states(model_inputs(batch), -1 if layer == count - 1 else layer)
            mask = batch["attention_mask"][..., None].astype(np.float32)
            means = (states * mask).sum(1) / mask.sum(1)
            if normalize:
                means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            return list(means.astype(np.float32, copy=False))

        rows = (feature for _, features in task.stream_features(examples) for feature in features)
        yield from in_sorted_batches(rows, vectors, length=task.length, batch_size=batch_size)


def write_vectors(path: str | os.PathLike[str], vectors: Iterable[np.ndarray], width: int) -> int:
    """Write vectors [width] as they come to a `.npy` file of [n, width] float32. The file appears when it is complete.

    Returns:
        The number of vectors, n.
    """
    count = 0
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        _write_header(stream, 0, width)
        start = stream.tell()
        for vector in vectors:
            stream.write(np.ascontiguousarray(vector, "<f4").tobytes())
            count += 1
        # numpy pads the header, so that any number of rows fits.
        stream.seek(0)
        _write_header(stream, count, width)
        assert stream.tell() == start
    return count


def _write_header(stream: Any, rows: int, width: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(stream, header)
