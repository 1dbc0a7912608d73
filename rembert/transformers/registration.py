"""Which classes transformers' Auto classes return for `model_type: rembert`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import transformers
from transformers import RemBertConfig
from transformers.models.auto import tokenization_auto

from rembert.common.parameters import HEADS
from rembert.transformers import models, tokenizers

# What transformers looks up to tell whether the tokenizer that a repository names is wrong. This library's
# directories name a general one, which transformers can load without the plug-in.
_OVERRULED: set[str] = getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", set())


def register() -> None:
    """Let transformers' Auto classes, and with them pipelines and programs, use this library's RemBERT.

    Importing `rembert.transformers` calls this.

    Example:
        >>> import transformers
        >>> import rembert.transformers
        >>> config = transformers.RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> type(transformers.AutoModel.from_config(config)) is rembert.transformers.RemBertModel
        True
    """
    _register({**vars(models), **vars(tokenizers)}.__getitem__)
    _OVERRULED.add(RemBertConfig.model_type)


def unregister() -> None:
    """Let transformers' Auto classes use transformers' own RemBERT again.

    Example:
        >>> import transformers
        >>> import rembert.transformers
        >>> rembert.transformers.unregister()
        >>> config = transformers.RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> type(transformers.AutoModel.from_config(config)) is transformers.RemBertModel
        True
        >>> rembert.transformers.register()
    """
    _register(partial(getattr, transformers))
    _OVERRULED.discard(RemBertConfig.model_type)


def _register(find: Callable[[str], type]) -> None:
    """Let the Auto classes return the classes that `find` gives for their names."""
    for head in HEADS.values():
        for auto in head.auto_classes:
            getattr(transformers, auto).register(RemBertConfig, find(head.architecture), exist_ok=True)
    transformers.AutoTokenizer.register(RemBertConfig, find("RemBertTokenizer"), exist_ok=True)
