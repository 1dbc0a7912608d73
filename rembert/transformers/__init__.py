"""RemBERT inside transformers: its own machinery around the modules of `rembert.pt`.

    import rembert.transformers

From here on `AutoModel…`, pipelines and Trainer use this library's RemBERT.
"""

from __future__ import annotations

from rembert.common.dependencies import EXTRAS, is_installed
from rembert.common.errors import MissingDependencyError

if not (is_installed("torch") and is_installed("transformers")):
    package = "transformers" if is_installed("torch") else "torch"
    raise MissingDependencyError(package, needed_for="rembert.transformers", extra=EXTRAS["transformers"])

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
    "register",
    "unregister",
]

register()
