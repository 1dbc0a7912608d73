"""Small methods that users of transformers call on a model, the same in both frameworks."""

from __future__ import annotations

from typing import Any

from rembert.common.config import RemBertConfig
from rembert.common.uploading import PushToHub


class ModelMethods(PushToHub):
    """Methods of every model that need its configuration alone."""

    config: RemBertConfig

    @property
    def name_or_path(self) -> str:
        """Where the model was loaded from; empty for a new one."""
        return self.config.name_or_path

    @classmethod
    def can_generate(cls) -> bool:
        """Whether the class has `generate`."""
        return hasattr(cls, "generate")

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: RemBERT's input and output embeddings differ in width. transformers' tools call it."""

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose how attention is computed.

        Args:
            attn_implementation: one of `rembert.common.config_values.ATTENTION_IMPLEMENTATIONS`.

        Raises:
            ConfigError: it is none of them.
        """
        self.config.update({"attn_implementation": attn_implementation})
