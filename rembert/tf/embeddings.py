"""Input embeddings: words, positions and token types, summed and normalised.

Chung et al. (ICLR 2021), section 3: the input tables are narrow (256), decoupled from the output table.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from rembert.common.config import RemBertConfig
from rembert.tf.layers import RemBertLayerBase, dropout, norm, table

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertEmbeddings(RemBertLayerBase):
    """Words + token types + positions, LayerNorm, dropout."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        policy = self.dtype_policy
        self.word_embeddings = table(config, config.vocab_size, "word_embeddings", policy)
        self.position_embeddings = table(config, config.max_position_embeddings, "position_embeddings", policy)
        self.token_type_embeddings = table(config, config.type_vocab_size, "token_type_embeddings", policy)
        self.LayerNorm = norm(config, policy)
        self.dropout = dropout(config.hidden_dropout_prob, policy)

    def build(self, input_shape: Any = None) -> None:
        width = self.config.input_embedding_size
        self.build_parts(word_embeddings=None, position_embeddings=None, token_type_embeddings=None, LayerNorm=width)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.config.input_embedding_size)

    def call(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_length: Any = 0,
        training: bool | None = None,
    ) -> Tensor:
        """[b, s] ids, or [b, s, input_embedding_size] embeddings, to [b, s, input_embedding_size].

        Packed, [t] takes the place of [b, s], and `position_ids` must be given.

        Args:
            past_length: number of positions in the cache; by default, `position_ids` start there.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed_words(input_ids)
        if position_ids is None:
            length = ops.shape(inputs_embeds)[1]
            position_ids = ops.arange(past_length, past_length + length, dtype="int32")[None]
        if token_type_ids is None:
            token_types = self.token_type_embeddings(ops.zeros((1,), dtype="int32"))  # all tokens are of type 0
        else:
            token_types = self.token_type_embeddings(token_type_ids)
        embeddings = inputs_embeds + token_types + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings), training=training)

    def embed_words(self, input_ids: Tensor) -> Tensor:
        """[b, s] to [b, s, input_embedding_size]; the row of the padding token gets no gradient, as in PyTorch."""
        words = self.word_embeddings(input_ids)
        if self.config.pad_token_id is None:
            return words
        return ops.where(ops.expand_dims(input_ids == self.config.pad_token_id, -1), ops.stop_gradient(words), words)
