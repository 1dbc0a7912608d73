"""RemBERT for TensorFlow and Keras 3: seven model classes under the names that transformers gave them."""

from __future__ import annotations

from rembert.common.dependencies import is_installed
from rembert.common.errors import MissingDependencyError, RemBertError

if not is_installed("tensorflow"):
    raise MissingDependencyError("tensorflow", needed_for="rembert.tf", extra="tf")
if not is_installed("keras"):
    raise MissingDependencyError("keras", needed_for="rembert.tf", extra="tf")

import os
import sys

if "keras" not in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ImportError(
        "rembert.tf needs Keras' TensorFlow backend. Received: the environment variable "
        f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}. Unset it, or set it to tensorflow, and start Python again."
    )

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "rembert.tf needs Keras' TensorFlow backend. Received: the backend "
        f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
    )

from rembert.common.config import RemBertConfig
from rembert.common.tokenization import AddedToken, BatchEncoding, RemBertTokenizer, RemBertTokenizerFast
from rembert.tf.callbacks import KerasMetricCallback
from rembert.tf.data import bucket_by_length
from rembert.tf.encoder import TFRemBertModel
from rembert.tf.heads import (
    TFRemBertForMultipleChoice,
    TFRemBertForQuestionAnswering,
    TFRemBertForSequenceClassification,
    TFRemBertForTokenClassification,
)
from rembert.tf.keras_internals import keep_errors
from rembert.tf.language_models import TFRemBertForCausalLM, TFRemBertForMaskedLM
from rembert.tf.optimizer import AdamW
from rembert.tf.pretrained import TFRemBertPreTrainedModel
from rembert.tf.schedules import WarmUp, create_optimizer
from rembert.tf.structures import register_outputs

__all__ = [
    "AdamW",
    "AddedToken",
    "BatchEncoding",
    "KerasMetricCallback",
    "RemBertConfig",
    "RemBertTokenizer",
    "RemBertTokenizerFast",
    "TFRemBertForCausalLM",
    "TFRemBertForMaskedLM",
    "TFRemBertForMultipleChoice",
    "TFRemBertForQuestionAnswering",
    "TFRemBertForSequenceClassification",
    "TFRemBertForTokenClassification",
    "TFRemBertModel",
    "TFRemBertPreTrainedModel",
    "WarmUp",
    "bucket_by_length",
    "create_optimizer",
]

register_outputs()
keep_errors(RemBertError)


def __dir__() -> list[str]:
    return __all__
