"""The encoder: narrow embeddings mapped to the hidden width, a stack of layers, a pooler, and the base model.

Chung et al. (ICLR 2021), section 5. With `is_decoder` a token attends to itself and earlier tokens only.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from rembert.common.config import RemBertConfig
from rembert.common.outputs import BaseModelOutputWithPoolingAndCrossAttentions, requested_outputs
from rembert.tf.cache import Cache, cached_length
from rembert.tf.embeddings import TFRemBertEmbeddings
from rembert.tf.inputs import accepts_structures, check_cache, check_inputs
from rembert.tf.layer import TFRemBertLayer
from rembert.tf.layers import RemBertLayerBase, checkpointed, dense
from rembert.tf.masks import attention_bias
from rembert.tf.packing import Layout, choose_layout, first_tokens
from rembert.tf.pretrained import TFRemBertPreTrainedModel

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertEncoder(RemBertLayerBase):
    """A linear map from the width of the embeddings to the hidden size, and the layers."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.embedding_hidden_mapping_in = dense(
            config, config.hidden_size, "embedding_hidden_mapping_in", self.dtype_policy
        )
        self.layer = [
            TFRemBertLayer(config, name=f"layer_{index}", dtype=self.dtype_policy)
            for index in range(config.num_hidden_layers)
        ]
        # transformers 3 and 4 wrote it into configurations.
        self.checkpointing = bool(getattr(config, "gradient_checkpointing", False))

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(embedding_hidden_mapping_in=self.config.input_embedding_size, layer=self.config.hidden_size)

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The parts that `summary(expand_nested=True)` lists."""
        return [self.embedding_hidden_mapping_in, *self.layer]

    def call(
        self,
        embeddings: Tensor,
        bias: Tensor | tuple[Tensor, ...] | None = None,
        source: Tensor | None = None,
        source_bias: Tensor | None = None,
        *,
        layout: Layout,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """[b, s, input_embedding_size] to the fields of the base model's output except the pooled output.

        Packed embeddings are [t, input_embedding_size]. `layout` arranges the states as the caller gets them. Hidden
        states lie on the path to the last one: each layer takes the state that is returned, not the one before it was
        arranged, so that gradients reach it.
        """
        hidden_states = self.embedding_hidden_mapping_in(embeddings)  # (b, s, e)
        all_states, attentions, cross_attentions, caches = [], [], [], []
        recompute = self.checkpointing and training and not (use_cache or output_attentions)
        for index, layer in enumerate(self.layer):
            if output_hidden_states:
                all_states.append(layout.restore(hidden_states))
                hidden_states = layout.arrange(all_states[-1])
            cached = past_key_values[index] if past_key_values is not None else None
            hidden_states, probabilities, cross_probabilities, cache = (checkpointed(layer) if recompute else layer)(
                hidden_states,
                bias,
                source=source,
                source_bias=source_bias,
                cached=cached,
                packing=layout.packing,
                training=training,
            )
            # Only requested outputs are kept, so that the memory of the others is freed.
            if output_attentions:
                attentions.append(probabilities)
                cross_attentions.append(cross_probabilities)
            if use_cache:
                caches.append(cache)
        has_cross = output_attentions and cross_attentions[0] is not None
        last = layout.restore(hidden_states)
        return {
            "last_hidden_state": last,
            "past_key_values": tuple(caches) if use_cache else None,
            "hidden_states": (*all_states, last) if output_hidden_states else None,
            "attentions": tuple(attentions) if output_attentions else None,
            "cross_attentions": tuple(cross_attentions) if has_cross else None,
        }


@keras.saving.register_keras_serializable("rembert")
class TFRemBertPooler(RemBertLayerBase):
    """tanh(W x + b) of the state x of each sequence's first token."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dense = dense(config, config.hidden_size, "dense", self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(dense=(None, self.config.hidden_size))

    def call(self, first_states: Tensor) -> Tensor:
        """[b, e] to [b, e]."""
        return ops.tanh(self.dense(first_states))


@keras.saving.register_keras_serializable("rembert")
class TFRemBertModel(TFRemBertPreTrainedModel):
    """The base model: embeddings, encoder and pooler.

    Args:
        config: the sizes and settings.
        add_pooling_layer: whether there is a pooler; heads without one leave it out.
        **kwargs: Keras' own: `name`, `dtype`, `trainable`.

    Example:
        >>> import tensorflow as tf
        >>> from rembert.tf import RemBertConfig, TFRemBertModel
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertModel(config)
        >>> outputs = model(tf.constant([[312, 5, 6, 313]]))
        >>> outputs.last_hidden_state.shape, outputs.pooler_output.shape
        (TensorShape([1, 4, 72]), TensorShape([1, 72]))
    """

    head = "model"
    _own_arguments = ("add_pooling_layer",)

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.add_pooling_layer = add_pooling_layer
        self.embeddings = TFRemBertEmbeddings(self.config, name="embeddings", dtype=self.dtype_policy)
        self.encoder = TFRemBertEncoder(self.config, name="encoder", dtype=self.dtype_policy)
        self.pooler = (
            TFRemBertPooler(self.config, name="pooler", dtype=self.dtype_policy) if add_pooling_layer else None
        )
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(embeddings=None, encoder=self.config.input_embedding_size)
        if self.pooler is not None:
            self.build_parts(pooler=(None, self.config.hidden_size))

    @accepts_structures
    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: None = None,
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
        training: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Encode.

        Padding is removed before the embeddings and restored after the last layer, so it costs nothing; its rows of
        `last_hidden_state` and `hidden_states` are zeros. Every position is computed, with the same results, if the
        call involves attention probabilities, a cache, a [b, s, t] mask or cross-attention, in the `eager`
        implementation, and in XLA (`jit_compile=True`, TPUs), whose shapes cannot depend on the mask's values.

        Args:
            input_ids: [b, s] token ids; or a dict of arguments by name, or a tuple of them in this order.
            attention_mask: [b, past + s], non-zero for real tokens; or [b, s, past + s], non-zero where a query may
                attend, which a decoder uses unchanged. By default all tokens are real.
            token_type_ids: [b, s]; by default all 0.
            position_ids: [b, s] or [1, s]; by default they continue after the cache.
            head_mask: None; heads cannot be masked. transformers 4 has it in this place.
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
            training: whether dropout is on.

        Raises:
            InputError: arguments do not fit each other, or indices are outside their tables. The values of indices are
                not checked inside graphs (`tf.function`, `fit`, `predict`).
        """
        given = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "cu_seqlens": cu_seqlens,
        }
        check_inputs(self.config, head_mask=head_mask, past_key_values=past_key_values, max_seqlen=max_seqlen, **given)
        check_cache(self.config, past_key_values, self.compute_dtype, input_ids, inputs_embeds)
        config, past_length = self.config, cached_length(past_key_values)
        requested = requested_outputs(config, output_attentions, output_hidden_states, use_cache, bool(training))
        use_cache = requested.cache and cu_seqlens is None
        explicit = requested.attentions or config.attn_implementation == "eager"
        layout = choose_layout(
            (input_ids, token_type_ids, position_ids, inputs_embeds),
            attention_mask,
            cu_seqlens,
            compute_all=explicit or use_cache or past_key_values is not None or encoder_hidden_states is not None,
            causal=config.is_decoder,
        )
        embeddings = self.embeddings(*layout.inputs, past_length=past_length, training=training)
        bias, source_bias = self._biases(embeddings, layout, encoder_attention_mask, past_length)
        fields = self.encoder(
            embeddings,
            bias,
            source=encoder_hidden_states,
            source_bias=source_bias,
            layout=layout,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=requested.attentions,
            output_hidden_states=requested.hidden_states,
            training=training,
        )
        if self.pooler is not None:
            first = first_tokens(fields["last_hidden_state"], attention_mask, cu_seqlens)
            fields["pooler_output"] = self.pooler(first)
        return self.finish(BaseModelOutputWithPoolingAndCrossAttentions(**fields), return_dict)

    def _biases(
        self, embeddings: Tensor, layout: Layout, source_mask: Tensor | None, past_length: Any
    ) -> tuple[Any, Tensor | None]:
        """What is added to the scores of self-attention (of packed states for each group) and of cross-attention."""
        causal, dtype, length = self.config.is_decoder, self.compute_dtype, ops.shape(embeddings)[1]
        source_bias = attention_bias(source_mask, length=length, past_length=0, causal=False, dtype=dtype)
        if layout.packing is None:
            mask = layout.attention_mask
            bias = attention_bias(mask, length=length, past_length=past_length, causal=causal, dtype=dtype)
            return bias, source_bias
        groups = layout.packing.groups
        biases = (
            attention_bias(group.mask, length=group.shape[1], past_length=0, causal=causal, dtype=dtype)
            for group in groups
        )
        return tuple(biases), source_bias
