"""RemBERT inside transformers: its own machinery around the modules of `rembert.pt`.

    import rembert.transformers

From here on `AutoModel…`, pipelines and Trainer use this library's RemBERT.
"""

from __future__ import annotations

from importlib.metadata import version

from rembert.common.dependencies import EXTRAS, is_installed
from rembert.common.errors import MissingDependencyError

if not (is_installed("torch") and is_installed("transformers")):
    package = "transformers" if is_installed("torch") else "torch"
    raise MissingDependencyError(package, needed_for="rembert.transformers", extra=EXTRAS["transformers"])
if int(version("transformers").split(".")[0]) < 5:  # version 4 has another base class of tokenizers
    raise MissingDependencyError(
        "transformers>=5", needed_for="rembert.transformers", extra=EXTRAS["transformers"],
        installed=version("transformers"),
    )  # fmt: skip

from typing import TYPE_CHECKING, Any

from rembert.transformers.models import (
    RemBertForCausalLM,
    RemBertForMaskedLM,
    RemBertForMultipleChoice,
    RemBertForQuestionAnswering,
    RemBertForSequenceClassification,
    RemBertForTokenClassification,
    RemBertModel,
    RemBertPreTrainedModel,
)
from rembert.transformers.registration import register, unregister
from rembert.transformers.tokenizers import RemBertTokenizer, RemBertTokenizerFast

if TYPE_CHECKING:
    from rembert.transformers.training import Trainer

__all__ = [
    "RemBertForCausalLM",
    "RemBertForMaskedLM",
    "RemBertForMultipleChoice",
    "RemBertForQuestionAnswering",
    "RemBertForSequenceClassification",
    "RemBertForTokenClassification",
    "RemBertModel",
    "RemBertPreTrainedModel",
    "RemBertTokenizer",
    "RemBertTokenizerFast",
    "Trainer",
    "register",
    "unregister",
]

register()


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # Loaded on first use: transformers' Trainer needs accelerate, and takes seconds.
    if name == "Trainer":
        from rembert.transformers.training import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
