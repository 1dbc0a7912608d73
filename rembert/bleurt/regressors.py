"""The model behind the scores, in either framework: batches of pairs in, numbers out. Imported when it is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rembert.bleurt.pairs import Pair
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.tasks.frameworks import model_class

HEAD = "sequence-classification"  # with one number as its label
_PADDED = ("input_ids", "attention_mask", "token_type_ids")
# Positions of a batch. More brings a CPU nothing, while a GPU's cores want to be filled.
_CPU_TOKENS, _GPU_TOKENS = 4096, 32768


class Regressor(Protocol):
    """What gives a batch of pairs its scores.

    Attributes:
        model: the framework's own model, a sequence classifier with one output.
        batch_tokens: how many positions a batch should have for good speed.
    """

    model: Any
    batch_tokens: int

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The scores [b], float64."""


def load_regressor(
    framework: str, path: Path, config: RemBertConfig, *, device: str | None = None, dtype: str | None = None
) -> Regressor:
    """The model of a checkpoint's directory.

    Args:
        framework: "pt" or "tf".
        path: the directory.
        config: as the checkpoint has it, or changed.
        device: PyTorch's name of a device; by default a GPU where there is one. TensorFlow places by itself.
        dtype: of the weights and the computation; by default float32.

    Raises:
        InputError: there is no such framework, or `device` for TensorFlow.
        MissingDependencyError: the framework is not installed; names the extra that brings it.
        CheckpointError: the checkpoint does not fit.
    """
    if framework == "tf" and device is not None:
        raise InputError(
            f"`device` is for PyTorch; TensorFlow takes the GPUs of CUDA_VISIBLE_DEVICES. Received: {device!r}."
        )
    loaded = model_class(framework, HEAD)
    place = _device(device) if framework == "pt" else None
    model = loaded.from_pretrained(path, config=config, dtype=dtype or "float32")
    return TensorFlowRegressor(model) if place is None else PyTorchRegressor(model.to(place))


class PyTorchRegressor:
    """Scores of a `RemBertForSequenceClassification`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.batch_tokens = _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        import torch

        inputs = {name: torch.from_numpy(array).to(self.model.device) for name, array in packed(pairs).items()}
        with torch.inference_mode():
            scores: np.ndarray = self.model(**inputs).logits[:, 0].double().cpu().numpy()
        return scores


class TensorFlowRegressor:
    """Scores of a `TFRemBertForSequenceClassification`, from one graph for all shapes."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self.model = model
        self.batch_tokens = _GPU_TOKENS if tf.config.list_physical_devices("GPU") else _CPU_TOKENS
        signature = [tf.TensorSpec([None, None], tf.int32, name) for name in _PADDED]

        @tf.function(input_signature=signature)
        def score(*arrays: Any) -> Any:
            outputs = self.model(**dict(zip(_PADDED, arrays, strict=True)), training=False)
            return tf.cast(outputs.logits[:, 0], tf.float64)

        self._score = score

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        inputs = padded(pairs)  # the model takes the padding out by itself
        scores: np.ndarray = self._score(*(inputs[name] for name in _PADDED)).numpy()
        return scores


def packed(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """The model's arguments without padding: `input_ids` and `token_type_ids` [t], `cu_seqlens` [b + 1], all int32."""
    return {
        "input_ids": np.concatenate([pair.ids for pair in pairs]),
        "token_type_ids": np.concatenate([pair.types for pair in pairs]),
        "cu_seqlens": np.cumsum([0, *(len(pair.ids) for pair in pairs)], dtype=np.int32),
    }


def padded(pairs: Sequence[Pair], length: int | None = None) -> dict[str, np.ndarray]:
    """The model's arguments `input_ids`, `attention_mask` and `token_type_ids`, each [b, s] int32.

    Padding is 0 in all three, as BLEURT pads. Rows are as long as the longest, or as `length` says.
    """
    width = max((len(pair.ids) for pair in pairs), default=0) if length is None else length
    batch = {name: np.zeros((len(pairs), width), np.int32) for name in _PADDED}
    for row, pair in enumerate(pairs):
        count = len(pair.ids)
        batch["input_ids"][row, :count] = pair.ids
        batch["attention_mask"][row, :count] = 1
        batch["token_type_ids"][row, pair.first : count] = 1
    return batch


def _device(name: str | None) -> Any:
    """PyTorch's device of this name; by default the GPU of this process, or the CPU.

    Raises:
        InputError: there is none of this name.
        MissingDependencyError: PyTorch is not installed.
    """
    import torch

    if name is None:
        local = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device(f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as problem:
        first = str(problem).splitlines()[0]
        raise InputError(f"`device` must be one that PyTorch has here. Received: {name!r} ({first}).") from None
    return place
