"""Checkpoints as data: readers and writers of every format, conversion, inspection. No framework is imported."""

from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.comparison import Difference, TensorDifference, diff
from rembert.bridge.conversion import Conversion, convert
from rembert.bridge.inspection import Inspection, inspect
from rembert.bridge.registry import FORMATS, TARGETS
from rembert.bridge.saving import save_checkpoint, save_h5, save_keras, save_pickle, save_safetensors
from rembert.bridge.tensors import TensorInfo, TensorSource

__all__ = [
    "FORMATS",
    "TARGETS",
    "Checkpoint",
    "Conversion",
    "Difference",
    "Inspection",
    "TensorDifference",
    "TensorInfo",
    "TensorSource",
    "convert",
    "diff",
    "inspect",
    "open_checkpoint",
    "save_checkpoint",
    "save_h5",
    "save_keras",
    "save_pickle",
    "save_safetensors",
]
