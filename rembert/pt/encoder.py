"""The encoder: narrow embeddings mapped to the hidden width, a stack of layers, a pooler, and the base model.

Chung et al. (ICLR 2021), section 5. With `is_decoder` the same stack looks at earlier positions only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.common.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from rembert.pt.cache import Cache, cached_length
from rembert.pt.embeddings import RemBertEmbeddings
from rembert.pt.inputs import check_inputs
from rembert.pt.layer import LayerContext, RemBertLayer
from rembert.pt.masks import attention_bias
from rembert.pt.pretrained import RemBertPreTrainedModel


class RemBertEncoder(nn.Module):
    """The mapping from the embeddings' width to the encoder's, and the layers."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = nn.Linear(config.input_embedding_size, config.hidden_size)
        self.layer = nn.ModuleList(RemBertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        embeddings: Tensor,
        context: LayerContext,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
    ) -> dict[str, Any]:
        """[b, s, input_embedding_size] to the fields of the base model's output, all but the pooler's."""
        hidden_states = self.embedding_hidden_mapping_in(embeddings)  # (b, s, e)
        all_states, attentions, cross_attentions, caches = [hidden_states], [], [], []
        for index, layer in enumerate(self.layer):
            cached = past_key_values[index] if past_key_values is not None else None
            hidden_states, probabilities, cross_probabilities, cache = layer(hidden_states, context, cached)
            all_states.append(hidden_states)
            attentions.append(probabilities)
            cross_attentions.append(cross_probabilities)
            caches.append(cache)
        has_cross = context.output_attentions and cross_attentions[0] is not None
        return {
            "last_hidden_state": hidden_states,
            "past_key_values": tuple(caches) if use_cache else None,
            "hidden_states": tuple(all_states) if output_hidden_states else None,
            "attentions": tuple(attentions) if context.output_attentions else None,
            "cross_attentions": tuple(cross_attentions) if has_cross else None,
        }


class RemBertPooler(nn.Module):
    """tanh of a linear layer of the first token's state."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, s, e] to [b, e]."""
        return torch.tanh(self.dense(hidden_states[:, 0]))


class RemBertModel(RemBertPreTrainedModel):
    """The base model: embeddings, encoder and pooler.

    Args:
        config: the sizes and settings.
        add_pooling_layer: whether there is a pooler; heads without one leave it out.
    """

    head = "model"
    _own_arguments = ("add_pooling_layer",)

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = RemBertEmbeddings(config)
        self.encoder = RemBertEncoder(config)
        self.pooler = RemBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Encode.

        Args:
            input_ids: [b, s] piece ids.
            attention_mask: [b, past + s], non-zero for real tokens; or [b, s, past + s], non-zero where a query may
                look, which a decoder takes as it is. Left out: all are real.
            token_type_ids: [b, s], all 0 where left out.
            position_ids: [b, s] or [1, s], counted from the end of the cache where left out.
            inputs_embeds: [b, s, input_embedding_size], in place of `input_ids`.
            encoder_hidden_states: [b, source, e], for a decoder with cross-attention.
            encoder_attention_mask: [b, source] or [b, s, source], non-zero where to look.
            past_key_values: the cache that an earlier call returned.
            use_cache: whether a decoder returns its cache; by default as the configuration says.
            output_attentions: whether to return attention probabilities.
            output_hidden_states: whether to return the hidden states between layers.
            return_dict: False for a plain tuple.

        Raises:
            InputError: arguments that do not go together, or indices outside their tables. The indices' values are
                not looked at inside compiled or exported graphs.
        """
        past_length = cached_length(past_key_values)
        check_inputs(
            self.config,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
        )
        embeddings = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, past_length)
        dtype, device, length = _score_dtype(embeddings), embeddings.device, embeddings.shape[1]
        context = LayerContext(
            bias=attention_bias(
                attention_mask,
                length=length,
                past_length=past_length,
                causal=self.config.is_decoder,
                dtype=dtype,
                device=device,
            ),
            source=encoder_hidden_states,
            source_bias=attention_bias(
                encoder_attention_mask, length=length, past_length=0, causal=False, dtype=dtype, device=device
            ),
            output_attentions=self.config.output_attentions if output_attentions is None else output_attentions,
        )
        wants_cache = self.config.use_cache if use_cache is None else use_cache
        fields = self.encoder(
            embeddings,
            context,
            past_key_values=past_key_values,
            use_cache=wants_cache and self.config.is_decoder,
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        )
        if self.pooler is not None:
            fields["pooler_output"] = self.pooler(fields["last_hidden_state"])
        return self.finish(BaseModelOutputWithPoolingAndCrossAttentions(**fields), return_dict)


def _score_dtype(embeddings: Tensor) -> torch.dtype:
    """The dtype attention scores will have: autocast's, or the embeddings' own."""
    device = embeddings.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return embeddings.dtype
