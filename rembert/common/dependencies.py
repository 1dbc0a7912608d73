"""Optional packages: the extra that installs each, and the check that they are installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from rembert.common.errors import MissingDependencyError

# The extra that installs a package, by the name that is imported.
EXTRAS = {
    "torch": "pt",
    "tensorflow": "tf",
    "keras": "tf",
    "tensorflow_text": "text",
    "huggingface_hub": "hub",
    "matplotlib": "tasks",
    "tensorboard": "tasks",
    "optuna": "search",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "pyarrow": "data",
    "zstandard": "data",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sentence_transformers": "sentence-transformers",
    "transformers": "transformers",
    "ray": "ray",
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported. Nothing is imported, so the answer takes no time."""
    if package in sys.modules:
        return sys.modules[package] is not None
    found = find_spec(package)
    return found is not None and found.origin is not None  # a folder of that name, without code, has no origin


def require_packages(*packages: str, needed_for: str) -> None:
    """Raise an error unless optional packages are installed.

    Args:
        packages: names that are imported, keys of `EXTRAS`.
        needed_for: the feature, for the message.

    Raises:
        MissingDependencyError: one is not installed; names the extra that installs it.
    """
    for package in packages:
        if not is_installed(package):
            raise MissingDependencyError(package, needed_for=needed_for, extra=EXTRAS[package])
