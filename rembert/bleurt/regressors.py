"""The model behind the scores, in either framework: batches of pairs in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bleurt.pairs import Pair
from rembert.common.config import RemBertConfig
from rembert.tasks.backends import find_device, get_backend, load_trained

HEAD = "sequence-classification"  # with one number as its label
_PADDED = ("input_ids", "attention_mask", "token_type_ids")
# Tokens of a batch. A CPU gains nothing from more, a GPU needs them.
_CPU_TOKENS, _GPU_TOKENS = 4096, 32768


class Regressor:
    """Scores batches of pairs.

    Args:
        framework: "pt" or "tf".
        model: of that framework, a sequence classifier with one output.

    Attributes:
        model: the framework's own model.
        batch_tokens: the number of tokens of a batch that suits the device.
    """

    def __init__(self, framework: str, model: Any) -> None:
        backend = get_backend(framework)
        self.model = model
        self.batch_tokens = _GPU_TOKENS if backend.is_on_gpu(model) else _CPU_TOKENS
        self._runner = backend.make_runner(model)
        # In TensorFlow, the model itself removes the padding.
        self._arguments = packed if framework == "pt" else padded

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The scores [b], float64."""
        logits = self._runner.outputs(self._arguments(pairs))["logits"]
        return logits[:, 0].astype(np.float64)


def load_regressor(
    framework: str, path: Path, config: RemBertConfig, *, device: str | None = None, dtype: str | None = None
) -> Regressor:
    """The model of a checkpoint's directory.

    Args:
        framework: "pt" or "tf".
        path: the directory.
        config: the checkpoint's, or a changed copy.
        device: of PyTorch; by default a GPU if there is one.
        dtype: of the weights and the computation; by default float32.

    Raises:
        InputError: there is no such framework or device.
        MissingDependencyError: the framework is not installed; names the extra that installs it.
        CheckpointError: the checkpoint does not fit.
    """
    found = find_device(framework, device)
    model = load_trained(framework, HEAD, path, device=found, config=config, dtype=dtype or "float32")
    return Regressor(framework, model)


def packed(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """The model's arguments without padding: `input_ids` and `token_type_ids` [t], `cu_seqlens` [b + 1], all int32."""
    return {
        "input_ids": np.concatenate([pair.ids for pair in pairs]),
        "token_type_ids": np.concatenate([pair.types for pair in pairs]),
        "cu_seqlens": np.cumsum([0, *(len(pair.ids) for pair in pairs)], dtype=np.int32),
    }


def padded(pairs: Sequence[Pair], length: int | None = None) -> dict[str, np.ndarray]:
    """The model's arguments `input_ids`, `attention_mask` and `token_type_ids`, each [b, s] int32.

    Rows are as long as the longest one, or `length`. Padding is 0 in all three, as in BLEURT.
    """
    width = max((len(pair.ids) for pair in pairs), default=0) if length is None else length
    batch = {name: np.zeros((len(pairs), width), np.int32) for name in _PADDED}
    for row, pair in enumerate(pairs):
        count = len(pair.ids)
        batch["input_ids"][row, :count] = pair.ids
        batch["attention_mask"][row, :count] = 1
        batch["token_type_ids"][row, pair.first : count] = 1
    return batch
