"""The encoder: narrow embeddings mapped to the hidden width, a stack of layers, a pooler, and the base model.

Chung et al. (ICLR 2021), section 5. With `is_decoder` the same stack looks at earlier positions only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rembert.common.config import RemBertConfig
from rembert.common.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from rembert.pt.cache import Cache, cached_length
from rembert.pt.embeddings import RemBertEmbeddings
from rembert.pt.inputs import check_cache, check_inputs, values_can_be_read
from rembert.pt.layer import LayerContext, RemBertLayer
from rembert.pt.masks import attention_bias
from rembert.pt.packing import first_tokens, lay_out
from rembert.pt.pretrained import RemBertPreTrainedModel


class RemBertEncoder(nn.Module):
    """The mapping from the embeddings' width to the encoder's, and the layers."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = nn.Linear(config.input_embedding_size, config.hidden_size)
        self.layer = nn.ModuleList(RemBertLayer(config) for _ in range(config.num_hidden_layers))
        self.checkpointing: dict[str, Any] | None = None  # gradient checkpointing's keywords, where it is on

    def forward(
        self,
        embeddings: Tensor,
        context: LayerContext,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> dict[str, Any]:
        """[b, s, input_embedding_size] to the fields of the base model's output, all but the pooler's.

        Packed embeddings are [t, input_embedding_size], and then so are the states.
        """
        hidden_states = self.embedding_hidden_mapping_in(embeddings)  # (b, s, e)
        all_states, attentions, cross_attentions, caches = [hidden_states], [], [], []
        for index, layer in enumerate(self.layer):
            cached = past_key_values[index] if past_key_values is not None else None
            hidden_states, probabilities, cross_probabilities, cache = self._run(layer, hidden_states, context, cached)
            # What nobody asked for is not held on to.
            if output_hidden_states:
                all_states.append(hidden_states)
            if output_attentions:
                attentions.append(probabilities)
                cross_attentions.append(cross_probabilities)
            if use_cache:
                caches.append(cache)
        has_cross = output_attentions and cross_attentions[0] is not None
        return {
            "last_hidden_state": hidden_states,
            "past_key_values": tuple(caches) if use_cache else None,
            "hidden_states": tuple(all_states) if output_hidden_states else None,
            "attentions": tuple(attentions) if output_attentions else None,
            "cross_attentions": tuple(cross_attentions) if has_cross else None,
        }

    def _run(self, layer: nn.Module, *arguments: Any) -> Any:
        """A layer's output; with gradient checkpointing its insides are computed again in the backward pass."""
        if self.checkpointing is not None and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *arguments, **self.checkpointing)
        return layer(*arguments)


class RemBertPooler(nn.Module):
    """tanh of a linear layer of each sequence's first token's state."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_states: Tensor) -> Tensor:
        """[b, e] to [b, e]."""
        return torch.tanh(self.dense(first_states))


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
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Encode.

        Padding is taken out before the embeddings and put back after the last layer, so it costs nothing; its rows of
        `last_hidden_state` and `hidden_states` are zeros. A call whose attentions, cache or mask of pairs speak of
        all positions computes all of them, with the same results; so do a decoder's cross-attention, the `eager`
        implementation, and compiled and exported graphs, whose shapes cannot follow the mask's values.

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
            cu_seqlens: [n + 1] integers from 0 to t, for a batch that is packed already: sequence i is the tokens
                from cu_seqlens[i] to cu_seqlens[i + 1]. `input_ids`, `token_type_ids` and `position_ids` are then [t],
                `inputs_embeds` [t, input_embedding_size], the states [t, e] and the pooled output [n, e].
            max_seqlen: the longest sequence's length, if given at least that of `cu_seqlens`.

        Raises:
            InputError: arguments that do not go together, or indices outside their tables. The indices' values are
                not looked at inside compiled or exported graphs.
        """
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
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
        )
        config, past_length = self.config, cached_length(past_key_values)
        check_cache(
            config, past_key_values, _score_dtype(self.embeddings.word_embeddings.weight), input_ids, inputs_embeds
        )
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        use_cache = use_cache and config.is_decoder and cu_seqlens is None
        explicit = output_attentions or config.attn_implementation == "eager"

        layout = lay_out(
            (input_ids, token_type_ids, position_ids, inputs_embeds),
            attention_mask,
            cu_seqlens,
            needs_all=explicit or use_cache or past_key_values is not None or encoder_hidden_states is not None,
            can_read=all(values_can_be_read(each) for each in (attention_mask, cu_seqlens) if each is not None),
            causal=config.is_decoder,
        )
        embeddings = self.embeddings(*layout.inputs, past_length)
        context = LayerContext(source=encoder_hidden_states, explicit=explicit, packing=layout.packing)
        if layout.packing is None:
            shapes = {"length": embeddings.shape[1], "dtype": _score_dtype(embeddings), "device": embeddings.device}
            context = replace(
                context,
                bias=attention_bias(
                    layout.attention_mask, past_length=past_length, causal=config.is_decoder, **shapes
                ),
                source_bias=attention_bias(encoder_attention_mask, past_length=0, causal=False, **shapes),
            )
        fields = self.encoder(embeddings, context, past_key_values, use_cache, output_attentions, output_hidden_states)
        if output_hidden_states:
            fields["hidden_states"] = tuple(map(layout.restore, fields["hidden_states"]))
            fields["last_hidden_state"] = fields["hidden_states"][-1]
        else:
            fields["last_hidden_state"] = layout.restore(fields["last_hidden_state"])
        if self.pooler is not None:
            first = first_tokens(fields["last_hidden_state"], attention_mask, cu_seqlens)
            fields["pooler_output"] = self.pooler(first)
        return self.finish(BaseModelOutputWithPoolingAndCrossAttentions(**fields), return_dict)


def _score_dtype(embeddings: Tensor) -> torch.dtype:
    """The dtype attention scores will have: autocast's, or the embeddings' own."""
    device = embeddings.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return embeddings.dtype
