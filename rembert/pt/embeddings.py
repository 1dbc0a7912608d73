"""Input embeddings: words, positions and token types, summed and normalised.

Chung et al. (ICLR 2021), section 3: the input tables are narrow (256), decoupled from the output table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rembert.common.config import RemBertConfig


class RemBertEmbeddings(nn.Module):
    """Words + token types + positions, LayerNorm, dropout."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        width = config.input_embedding_size
        # `padding_idx`: the row of the padding token gets no gradient, as in transformers.
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_length: int = 0,
    ) -> Tensor:
        """[b, s] ids, or [b, s, input_embedding_size] embeddings, to [b, s, input_embedding_size].

        Packed, [t] takes the place of [b, s], and `position_ids` must be given.

        Args:
            past_length: number of positions in the cache; by default, `position_ids` start there.
        """
        if inputs_embeds is None:
            inputs_embeds = _rows(self.word_embeddings, input_ids)
        if position_ids is None:
            length = inputs_embeds.shape[1]
            position_ids = torch.arange(past_length, past_length + length, device=inputs_embeds.device)[None]
        if token_type_ids is None:
            token_type_ids = position_ids.new_zeros(1)  # all tokens are of type 0
        token_types = _rows(self.token_type_embeddings, token_type_ids)
        embeddings = inputs_embeds + token_types + _rows(self.position_embeddings, position_ids)
        return self.dropout(self.LayerNorm(embeddings))


def _rows(table: nn.Embedding, indices: Tensor | None) -> Tensor:
    """The rows of a table; PyTorch itself looks up 32- and 64-bit indices only."""
    assert indices is not None  # the base model refuses a call without inputs
    return table(indices if indices.dtype == torch.int32 else indices.long())
