"""Optional packages: which extra of ours brings each, and a check before any work that needs one."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from rembert.common.errors import MissingDependencyError

# The extra that brings a package, by the name that is imported.
EXTRAS = {
    "torch": "pt",
    "tensorflow": "tf",
    "keras": "tf",
    "tensorflow_text": "text",
    "huggingface_hub": "hub",
    "matplotlib": "tasks",
    "tensorboard": "tasks",
    "tqdm": "tasks",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sentence_transformers": "sentence-transformers",
}


def is_installed(package: str) -> bool:
    """Whether a package can be imported. Nothing is imported, so the answer takes no time."""
    if package in sys.modules:
        return sys.modules[package] is not None
    found = find_spec(package)
    return found is not None and found.origin is not None  # a folder of that name, without code, has no origin


def require_packages(*packages: str, needed_for: str) -> None:
    """Refuse to go on without optional packages.

    Args:
        packages: names that are imported, keys of `EXTRAS`.
        needed_for: what was asked for, as the message says it.

    Raises:
        MissingDependencyError: one is not installed; names the extra that brings it.
    """
    for package in packages:
        if not is_installed(package):
            raise MissingDependencyError(package, needed_for=needed_for, extra=EXTRAS[package])
