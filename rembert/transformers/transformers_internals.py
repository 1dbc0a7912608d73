"""Every name of transformers that is not public: what it is for.

No other file of `rembert` uses such a name. The class attributes are part of what transformers asks of a model class,
though their names begin with an underscore.

| name | what it is for | without it |
| --- | --- | --- |
| `config._attn_implementation` | the implementation of attention that was chosen | fused attention |
| `PreTrainedModel._supports_sdpa` | says that a model has fused attention | `eager` attention |
| `PreTrainedModel._no_split_modules` | the modules that stay on one device | no `device_map="auto"` |
| `TokenizersBackend._patch_mistral_regex` | changes large vocabularies that may be Mistral's | nothing to prevent |
| `_spm_precompiled_charsmap` | the normaliser that goes with `vocab` | no normaliser |
"""

from __future__ import annotations

from typing import Any


class ModelDeclarations:
    """What transformers reads from a model class."""

    _supports_sdpa = True
    _no_split_modules = ("RemBertEmbeddings", "RemBertLayer")


class TokenizerDeclarations:
    """What transformers does to a tokenizer class."""

    @classmethod
    def _patch_mistral_regex(cls, tokenizer: Any, *arguments: Any, **keywords: Any) -> Any:
        """The backend as it is: it is not Mistral's, and the Hub need not be asked."""
        return tokenizer


def take_charsmap(settings: dict[str, Any]) -> bytes:
    """Remove the normaliser's table from a constructor's arguments; empty if there is none."""
    return settings.pop("_spm_precompiled_charsmap", None) or b""


def attention_implementation(config: Any) -> str:
    """How attention is computed: `eager`, or another name for fused attention."""
    return getattr(config, "_attn_implementation", None) or "sdpa"
