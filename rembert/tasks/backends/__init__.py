"""One interface to both frameworks, for everything that runs a model outside training.

`backends/pt.py` and `backends/tf.py` implement `Backend` alike. A file, and with it its framework, is imported when it
is first used.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from rembert.common.arguments import check_argument, one_of
from rembert.common.config import RemBertConfig
from rembert.common.dependencies import is_installed, require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import BASE_MODEL, HEADS

FRAMEWORKS = ("pt", "tf")
_PACKAGES = {"pt": ("torch",), "tf": ("tensorflow", "keras")}

Arrays = dict[str, np.ndarray]
Inputs = Mapping[str, np.ndarray]


class Runner(Protocol):
    """Runs one model on batches of arrays, without gradients and without dropout.

    Results are arrays of float32, or of float64 if the model computes in it.
    """

    def outputs(self, inputs: Inputs) -> Arrays:
        """The tensors of the model's output by name.

        Args:
            inputs: the model's arguments by name.
        """

    def hidden_states(self, inputs: Inputs, layer: int) -> np.ndarray:
        """Hidden states [b, s, e] of a base model.

        Args:
            inputs: the model's arguments by name.
            layer: 0 for the encoder's input, -1 for the last layer.
        """

    def label_scores(self, inputs: Inputs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A language model's log-probabilities [b, k] of the tokens `ids`, and the ids [b, k] of the most likely ones.
        The logits of the vocabulary do not leave the device.

        Args:
            inputs: the model's arguments by name, among them `logits_at` [b, k].
            ids: of the tokens, int64.
        """


class Backend(Protocol):
    """The functions of each framework's file."""

    def model_class(self, head: str) -> Any:
        """The class of the models of a head, a key of `HEADS`."""

    def find_device(self, name: str | None) -> Any:
        """The device of this name; by default a GPU if there is one.

        Raises:
            InputError: there is no such device, or the framework places its models itself.
        """

    def place(self, model: Any, device: Any) -> Any:
        """The model on a device that `find_device` gave."""

    def initialize(self, model: Any, names: Iterable[str], seed: int = 0) -> None:
        """Give parameters their initial values, which are the same in both frameworks.

        Args:
            model: any of the model classes.
            names: of the parameters in the model's own file, as a loading report has them.
            seed: of the random numbers.
        """

    def is_on_gpu(self, model: Any) -> bool:
        """Whether the model computes on a GPU."""

    def evaluating(self, model: Any) -> AbstractContextManager[None]:
        """A context in which the model is in evaluation mode; afterwards it is in its previous mode."""

    def make_runner(self, model: Any) -> Runner:
        """A runner for many batches. Keep it: TensorFlow builds its graph once per runner."""

    def run_once(self, model: Any, inputs: Inputs) -> Arrays:
        """`outputs` of a runner for a single batch, without a graph."""


if TYPE_CHECKING:
    from rembert.tasks.backends import pt, tf

    _BACKENDS: tuple[Backend, Backend] = (pt, tf)  # the type checker compares both with the interface


def installed_frameworks() -> tuple[str, ...]:
    """The members of `FRAMEWORKS` that are installed. None is imported."""
    return tuple(name for name in FRAMEWORKS if all(map(is_installed, _PACKAGES[name])))


def default_framework(preferred: str = "pt") -> str:
    """The framework `preferred`, or the other one if only that is installed."""
    installed = installed_frameworks()
    return installed[0] if len(installed) == 1 else preferred


def check_framework(framework: str) -> None:
    """Refuse a framework that is not installed, without importing it.

    Raises:
        InputError: it is neither 'pt' nor 'tf'.
        MissingDependencyError: the framework is not installed; names the extra that installs it.
    """
    check_argument("framework", framework, one_of(FRAMEWORKS))
    require_packages(*_PACKAGES[framework], needed_for=f"rembert.{framework}")


def get_backend(framework: str) -> Backend:
    """The backend of a framework, 'pt' or 'tf'; errors as for `check_framework`."""
    check_framework(framework)
    if framework == "tf":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides TensorFlow's messages at start-up
        if "torch" in sys.modules and "tensorflow" not in sys.modules:
            # Triton 3.8, which PyTorch loads with its first optimizer, crashes when it is loaded after TensorFlow.
            with suppress(ImportError):
                import_module("triton")
    return cast(Backend, import_module(f"{__name__}.{framework}"))


def framework_of(model: Any) -> str:
    """'pt' or 'tf': the framework of a model.

    Raises:
        InputError: it is a model of neither.
    """
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is not None and isinstance(model, torch.nn.Module):
        return "pt"
    if keras is not None and isinstance(model, keras.Model):
        return "tf"
    raise InputError(f"`model` must be a model of rembert.pt or rembert.tf. Received: {type(model).__name__}.")


def find_device(framework: str, name: str | None) -> Any:
    """The device of this name for `load_model`; by default a GPU if there is one.

    Args:
        framework: 'pt' or 'tf'. TensorFlow places its models itself.
        name: of a device of PyTorch, or None.

    Raises:
        InputError: there is no such device, or one is named for TensorFlow.
        MissingDependencyError: the framework is not installed.
    """
    return get_backend(framework).find_device(name)


def load_model(
    framework: str, head: str, path: str | os.PathLike[str], *, device: Any = None, **options: Any
) -> tuple[Any, dict[str, list[Any]]]:
    """A model from a checkpoint, in evaluation mode, without warnings.

    Args:
        framework: 'pt' or 'tf'.
        head: a key of `HEADS`.
        path: the checkpoint.
        device: what `find_device` gave; by default the model stays where the framework puts it.
        **options: of `from_pretrained`.

    Returns:
        The model, and the loading report of `from_pretrained`: `missing_keys` and others.

    Raises:
        CheckpointError: the checkpoint does not fit.
        MissingDependencyError: the framework is not installed.
    """
    backend = get_backend(framework)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report lists what is missing
        model, report = backend.model_class(head).from_pretrained(path, output_loading_info=True, **options)
    return (model if device is None else backend.place(model, device)), report


def load_trained(framework: str, head: str, path: str | os.PathLike[str], **options: Any) -> Any:
    """A model with all its parameters from the checkpoint; arguments as for `load_model`.

    Raises:
        CheckpointError: the checkpoint does not fit, lacks a parameter, so that predictions would be random, or was
            trained with another head, whose parameters mean something else.
        MissingDependencyError: the framework is not installed.
    """
    model, report = load_model(framework, head, path, **options)
    if report["missing_keys"]:
        raise CheckpointError(
            f"{Path(path)} was not trained for {head}: it lacks {', '.join(report['missing_keys'][:6])}. Fine-tune it "
            "first."
        )
    _check_head(head, path, options.get("config"))
    return model


def _check_head(head: str, path: str | os.PathLike[str], config: RemBertConfig | None) -> None:
    """Refuse a checkpoint whose `architectures` name another head with parameters of its own: heads share names.

    Raises:
        CheckpointError: it was trained with another head.
    """
    config = RemBertConfig.from_pretrained(path) if config is None else config
    named = [name.removeprefix("TF") for name in config.architectures or ()]
    found = [other for other in HEADS.values() if other.architecture in named]
    if head == BASE_MODEL or not found or any(each.means_the_same(HEADS[head]) for each in found):
        return
    raise CheckpointError(
        f"{Path(path)} was trained for {found[0].name}, as its `architectures` say. Received: {head}. Use it for "
        f"{found[0].name}, or fine-tune it for {head} first."
    )


@contextmanager
def running(model: Any) -> Iterator[Runner]:
    """A runner of a model of either framework, in evaluation mode until the context ends.

    Raises:
        InputError: the model is of neither framework.
    """
    backend = get_backend(framework_of(model))
    with backend.evaluating(model):
        yield backend.make_runner(model)
