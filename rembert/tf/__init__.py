"""RemBERT for PyTorch: seven model classes under the names transformers gives them."""

from __future__ import annotations

try:
    import tensorflow  # noqa: F401
except ImportError as problem:
    from rembert.common.errors import MissingDependencyError

    raise MissingDependencyError("torch", needed_for="rembert.tf", extra="pt") from problem

from typing import TYPE_CHECKING, Any

from rembert.common.config import RemBertConfig
from rembert.tf.encoder import TFRemBertModel
from rembert.tf.heads import (
    TFRemBertForCausalLM,
    TFRemBertForMaskedLM,
    TFRemBertForMultipleChoice,
    TFRemBertForQuestionAnswering,
    TFRemBertForSequenceClassification,
    TFRemBertForTokenClassification,
)
from rembert.tf.pretrained import TFRemBertPreTrainedModel
from rembert.tf.structures import register_outputs

if TYPE_CHECKING:
    from rembert.common.tokenizer import RemBertTokenizer, RemBertTokenizerFast

__all__ = [
    "RemBertConfig",
    "TFRemBertForCausalLM",
    "TFRemBertForMaskedLM",
    "TFRemBertForMultipleChoice",
    "TFRemBertForQuestionAnswering",
    "TFRemBertForSequenceClassification",
    "TFRemBertForTokenClassification",
    "TFRemBertModel",
    "TFRemBertPreTrainedModel",
    "RemBertTokenizer",
    "RemBertTokenizerFast",
]

register_outputs()


def __getattr__(name: str) -> Any:
    # The tokenizers load on first use, as in `rembert` itself.
    if name in ("RemBertTokenizer", "RemBertTokenizerFast"):
        import rembert

        return getattr(rembert, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
