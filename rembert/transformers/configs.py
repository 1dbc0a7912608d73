"""transformers' configuration as that of this library, which says whether a model can be built from it."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import RemBertConfig

import rembert.common.config as common
from rembert.common.arguments import check_argument, instance_of
from rembert.common.errors import ConfigError

# What both classes have under the same name and with the same meaning. transformers' RemBERT has no tables to tie.
_KEYS = tuple(
    name
    for name in inspect.signature(common.RemBertConfig.__init__).parameters
    if name not in ("self", "tie_word_embeddings") and name in inspect.signature(RemBertConfig.__init__).parameters
)


def check_config(config: Any) -> None:
    """Refuse a configuration from which no model can be built.

    Raises:
        ConfigError: it is not transformers' RemBertConfig, or a value is invalid; the message quotes it.
    """
    check_argument("config", config, instance_of(RemBertConfig), ConfigError)
    common.RemBertConfig(**{name: getattr(config, name) for name in _KEYS})
