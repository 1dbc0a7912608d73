"""Every name of transformers that is not public: what it is for.

No other file of `rembert` uses such a name. The class attributes are part of what transformers asks of a model class,
though their names begin with an underscore.

| name | what it is for | without it |
| --- | --- | --- |
| `config._attn_implementation` | the implementation of attention that was chosen | fused attention |
| `PreTrainedModel._supports_sdpa` | says that a model has fused attention | `eager` attention |
| `PreTrainedModel._no_split_modules` | the modules that stay on one device | no `device_map="auto"` |
"""

from __future__ import annotations

from typing import Any


class ModelDeclarations:
    """What transformers reads from a model class."""

    _supports_sdpa = True
    _no_split_modules = ("RemBertEmbeddings", "RemBertLayer")


def attention_implementation(config: Any) -> str:
    """How attention is computed: `eager`, or another name for fused attention."""
    return getattr(config, "_attn_implementation", None) or "sdpa"
