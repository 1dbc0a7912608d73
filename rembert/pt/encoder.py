"""The encoder: narrow embeddings mapped to the hidden width, a stack of layers, a pooler, and the base model.

Chung et al. (ICLR 2021), section 5. With `is_decoder` a token attends to itself and earlier tokens only.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rembert.common.config import RemBertConfig
from rembert.common.outputs import BaseModelOutputWithPoolingAndCrossAttentions, requested_outputs
from rembert.pt.cache import Cache, cached_length
from rembert.pt.embeddings import RemBertEmbeddings
from rembert.pt.inputs import check_cache, check_inputs, values_can_be_read
from rembert.pt.layer import LayerContext, RemBertLayer
from rembert.pt.masks import attention_bias
from rembert.pt.packing import Layout, choose_layout, first_tokens
from rembert.pt.pretrained import RemBertPreTrainedModel
from rembert.pt.torch_internals import sees_states


class RemBertEncoder(nn.Module):
    """A linear map from the width of the embeddings to the hidden size, and the layers."""

    layer_class: ClassVar[type[RemBertLayer]] = RemBertLayer

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = nn.Linear(config.input_embedding_size, config.hidden_size)
        self.layer = nn.ModuleList(self.layer_class(config) for _ in range(config.num_hidden_layers))
        # The keywords of gradient checkpointing if it is on; transformers 3 and 4 wrote it into configurations.
        is_on = getattr(config, "gradient_checkpointing", False)
        self.checkpointing: dict[str, Any] | None = {"use_reentrant": False} if is_on else None

    def forward(
        self,
        embeddings: Tensor,
        context: LayerContext,
        layout: Layout,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> dict[str, Any]:
        """[b, s, input_embedding_size] to the fields of the base model's output except the pooled output.

        Packed embeddings are [t, input_embedding_size]. `layout` arranges the states as the caller gets them. Hidden
        states lie on the path to the last one: each layer takes the state that is returned, not the one before it was
        arranged, so that gradients reach it.
        """
        hidden_states = self.embedding_hidden_mapping_in(embeddings)  # (b, s, e)
        all_states, attentions, cross_attentions, caches = [], [], [], []
        for index, layer in enumerate(self.layer):
            if output_hidden_states:
                all_states.append(layout.restore(hidden_states))
                hidden_states = layout.arrange(all_states[-1])
            cached = past_key_values[index] if past_key_values is not None else None
            hidden_states, *others = self._run(layer, hidden_states, context, cached)
            count = 1 + context.crosses(cached) if context.explicit else 0  # of probabilities
            # Only requested outputs are kept, so that the memory of the others is freed.
            if output_attentions:
                attentions.append(others[0])
                cross_attentions += others[1:count]
            caches.append(tuple(others[count:]))
        last = layout.restore(hidden_states)
        return {
            "last_hidden_state": last,
            "past_key_values": tuple(caches) if context.use_cache else None,
            "hidden_states": (*all_states, last) if output_hidden_states else None,
            "attentions": tuple(attentions) if output_attentions else None,
            "cross_attentions": tuple(cross_attentions) or None,
        }

    def _run(self, layer: nn.Module, *arguments: Any) -> Any:
        """A layer's output; with gradient checkpointing its activations are recomputed in the backward pass."""
        if self.checkpointing is not None and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *arguments, **self.checkpointing)
        return layer(*arguments)


class RemBertPooler(nn.Module):
    """tanh(W x + b) of the state x of each sequence's first token."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.tanh = nn.Tanh()  # a module, which Captum's DeepLift has a rule for

    def forward(self, first_states: Tensor) -> Tensor:
        """[b, e] to [b, e]."""
        return self.tanh(self.dense(first_states))


class RemBertModel(RemBertPreTrainedModel):
    """The base model: embeddings, encoder and pooler.

    Args:
        config: the sizes and settings.
        add_pooling_layer: whether there is a pooler; heads without one leave it out.

    Example:
        >>> from rembert.pt import RemBertConfig, RemBertModel
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = RemBertModel(config)
        >>> outputs = model(torch.tensor([[312, 5, 6, 313]]))
        >>> outputs.last_hidden_state.shape, outputs.pooler_output.shape
        (torch.Size([1, 4, 72]), torch.Size([1, 72]))
    """

    head = "model"
    encoder_class: ClassVar[type[RemBertEncoder]] = RemBertEncoder
    _own_arguments = ("add_pooling_layer",)

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = RemBertEmbeddings(self.config)
        self.encoder = self.encoder_class(self.config)
        self.pooler = RemBertPooler(self.config) if add_pooling_layer else None
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
        head_mask: None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Encode.

        Padding is removed before the embeddings and restored after the last layer, so it costs nothing; its rows of
        `last_hidden_state` and `hidden_states` are zeros. Every position is computed, with the same results, if the
        call involves attention probabilities, a cache, a [b, s, t] mask or cross-attention, in the `eager`
        implementation, where a hook sees the states of a module inside, and in compiled and exported graphs, whose
        shapes cannot depend on the mask's values.

        Args:
            input_ids: [b, s] token ids.
            attention_mask: [b, past + s], non-zero for real tokens; or [b, s, past + s], non-zero where a query may
                attend, which a decoder uses unchanged. By default all tokens are real.
            token_type_ids: [b, s]; by default all 0.
            position_ids: [b, s] or [1, s]; by default they continue after the cache.
            inputs_embeds: [b, s, input_embedding_size], in place of `input_ids`.
            encoder_hidden_states: [b, source, e], for a decoder with cross-attention.
            encoder_attention_mask: [b, source] or [b, s, source], non-zero where a query may attend.
            past_key_values: the cache that an earlier call returned.
            use_cache: whether a decoder returns its cache; by default `config.use_cache`, and False in training.
            output_attentions: whether to return attention probabilities.
            output_hidden_states: whether to return the hidden states between layers.
            return_dict: False for a plain tuple.
            cu_seqlens: [n + 1] integers from 0 to t, for a batch that is already packed: sequence i is the tokens
                from cu_seqlens[i] to cu_seqlens[i + 1]. `input_ids`, `token_type_ids` and `position_ids` are then [t],
                `inputs_embeds` [t, input_embedding_size], the states [t, e] and the pooled output [n, e].
            max_seqlen: the length of the longest sequence, or an upper bound of it; optional.
            head_mask: None; heads cannot be masked.

        Raises:
            InputError: arguments do not fit each other, or indices are outside their tables. The values of indices are
                not checked inside compiled or exported graphs.
        """
        config, table = self.config, self.embeddings.word_embeddings
        check_inputs(
            config,
            table,
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
            head_mask=head_mask,
        )
        check_cache(config, past_key_values, _score_dtype(table.weight), input_ids, inputs_embeds)
        requested = requested_outputs(config, output_attentions, output_hidden_states, use_cache, self.training)
        use_cache, past_length = requested.cache and cu_seqlens is None, cached_length(past_key_values)
        explicit = requested.attentions or self.attention_implementation == "eager"
        can_read = all(values_can_be_read(each) for each in (attention_mask, cu_seqlens) if each is not None)
        # A hook on a module inside expects [b, s, ...], not the packed [t, ...].
        is_watched = can_read and attention_mask is not None and sees_states(self.embeddings, self.encoder)
        needs_all = explicit or use_cache or past_key_values is not None or encoder_hidden_states is not None
        layout = choose_layout(
            (input_ids, token_type_ids, position_ids, inputs_embeds),
            attention_mask,
            cu_seqlens,
            compute_all=needs_all or is_watched,
            can_read=can_read,
            causal=config.is_decoder,
        )
        embeddings = self.embeddings(*layout.inputs, past_length)
        bias, source_bias = self._biases(embeddings, layout, encoder_attention_mask, past_length)
        context = LayerContext(bias, encoder_hidden_states, source_bias, explicit, use_cache, layout.packing)
        fields = self.encoder(
            embeddings, context, layout, past_key_values, requested.attentions, requested.hidden_states
        )
        if self.pooler is not None:
            first = first_tokens(fields["last_hidden_state"], attention_mask, cu_seqlens)
            fields["pooler_output"] = self.pooler(first)
        return self.finish(BaseModelOutputWithPoolingAndCrossAttentions(**fields), return_dict)

    @property
    def attention_implementation(self) -> str:
        """How attention is computed, one of `rembert.common.config_values.ATTENTION_IMPLEMENTATIONS`."""
        return self.config.attn_implementation

    def _biases(
        self, embeddings: Tensor, layout: Layout, source_mask: Tensor | None, past_length: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """What is added to the scores of self-attention and of cross-attention; None for packed states."""
        if layout.packing is not None:
            return None, None
        shapes: Any = {"length": embeddings.shape[1], "dtype": _score_dtype(embeddings), "device": embeddings.device}
        causal = self.config.is_decoder
        bias = attention_bias(layout.attention_mask, past_length=past_length, causal=causal, **shapes)
        return bias, attention_bias(source_mask, past_length=0, causal=False, **shapes)


RemBertPreTrainedModel.base_class = RemBertModel


def _score_dtype(embeddings: Tensor) -> torch.dtype:
    """The dtype of attention scores: that of autocast, or that of the embeddings."""
    device = embeddings.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return embeddings.dtype
