"""The framework a model runs in: chosen by name, imported when it is used."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from rembert.common.arguments import check_argument, one_of
from rembert.common.dependencies import is_installed, require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import HEADS

FRAMEWORKS = ("pt", "tf")
_PACKAGES = {"pt": ("torch",), "tf": ("tensorflow", "keras")}


def installed_frameworks() -> tuple[str, ...]:
    """Those of `FRAMEWORKS` that are installed. None is imported."""
    return tuple(name for name in FRAMEWORKS if all(map(is_installed, _PACKAGES[name])))


def default_framework(preferred: str = "pt") -> str:
    """The framework `preferred`, or the other one where only that is installed."""
    installed = installed_frameworks()
    return installed[0] if len(installed) == 1 else preferred


def check_framework(framework: str) -> None:
    """Refuse a framework that cannot be used, without importing it.

    Raises:
        InputError: it is neither 'pt' nor 'tf'.
        MissingDependencyError: the framework is not installed; names the extra that brings it.
    """
    check_argument("framework", framework, one_of(FRAMEWORKS))
    require_packages(*_PACKAGES[framework], needed_for=f"rembert.{framework}")


def framework_module(framework: str) -> ModuleType:
    """`rembert.pt` or `rembert.tf`; raises what `check_framework` does."""
    check_framework(framework)
    if framework == "tf":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes are not ours to print
    return import_module(f"rembert.{framework}")


def model_class(framework: str, head: str) -> Any:
    """The class of a head in a framework; raises what `framework_module` does."""
    return getattr(framework_module(framework), ("TF" if framework == "tf" else "") + HEADS[head].architecture)


def framework_of_model(model: Any) -> str:
    """'pt' or 'tf': what a model's class is of.

    Raises:
        InputError: it is a model of neither.
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is not None and isinstance(model, torch.nn.Module):
        return "pt"
    if keras is not None and isinstance(model, keras.Model):
        return "tf"
    raise InputError(f"The model must be one of rembert.pt or rembert.tf. Received: {type(model).__name__}.")


def load_trained(framework: str, head: str, path: str | os.PathLike[str], **options: Any) -> Any:
    """A model all of whose parameters are in the checkpoint, so that its predictions mean something.

    Raises:
        CheckpointError: it does not fit, or the head is not in it.
        MissingDependencyError: the framework is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is unused is another head's; what is missing is refused below
        model, report = model_class(framework, head).from_pretrained(path, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise CheckpointError(
            f"{Path(path)} was not trained for {head}: it does not hold {', '.join(report['missing_keys'][:6])}. "
            "Fine-tune it first."
        )
    return model


def move_to_device(model: Any, device: str | None) -> Any:
    """The model on a device of PyTorch's: the one named, else a GPU where there is one. TensorFlow places its own.

    Raises:
        InputError: a device for TensorFlow, or one that PyTorch does not have.
    """
    if framework_of_model(model) == "tf":
        if device is not None:
            raise InputError(f"`device` is for PyTorch: TensorFlow takes a GPU by itself. Received: {device!r}.")
        return model
    import torch

    try:
        return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"`device` must be one that PyTorch has. Received: {device!r} ({problem}).") from problem
