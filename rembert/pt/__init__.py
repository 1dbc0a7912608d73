"""RemBERT for PyTorch: seven model classes under the names that transformers gives them."""

from __future__ import annotations

from rembert.common.dependencies import is_installed
from rembert.common.errors import MissingDependencyError

if not is_installed("torch"):
    raise MissingDependencyError("torch", needed_for="rembert.pt", extra="pt")

from typing import TYPE_CHECKING, Any

from rembert.common.config import RemBertConfig
from rembert.pt.encoder import RemBertModel
from rembert.pt.heads import (
    RemBertForMultipleChoice,
    RemBertForQuestionAnswering,
    RemBertForSequenceClassification,
    RemBertForTokenClassification,
)
from rembert.pt.language_models import RemBertForCausalLM, RemBertForMaskedLM
from rembert.pt.pretrained import RemBertPreTrainedModel
from rembert.pt.structures import register_outputs

if TYPE_CHECKING:
    from rembert.common.tokenization import AddedToken, BatchEncoding, RemBertTokenizer, RemBertTokenizerFast

__all__ = [
    "AddedToken",
    "BatchEncoding",
    "RemBertConfig",
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
]

register_outputs()


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # The tokenizers load on first use, as in `rembert` itself.
    if name in ("AddedToken", "BatchEncoding", "RemBertTokenizer", "RemBertTokenizerFast"):
        import rembert

        return getattr(rembert, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
