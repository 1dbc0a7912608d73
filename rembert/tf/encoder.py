"""The encoder: narrow embeddings mapped to the hidden width, a stack of layers, a pooler, and the base model.

Chung et al. (ICLR 2021), section 5. With `is_decoder` the same stack looks at earlier positions only.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from rembert.common.config import RemBertConfig
from rembert.common.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from rembert.tf.cache import Cache, cached_length
from rembert.tf.embeddings import TFRemBertEmbeddings
from rembert.tf.inputs import accepts_structures, check_inputs
from rembert.tf.layer import TFRemBertLayer
from rembert.tf.layers import RemBertLayerBase, dense
from rembert.tf.masks import attention_bias
from rembert.tf.pretrained import TFRemBertPreTrainedModel

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertEncoder(RemBertLayerBase):
    """The mapping from the embeddings' width to the encoder's, and the layers."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.embedding_hidden_mapping_in = dense(
            config, config.hidden_size, "embedding_hidden_mapping_in", self.dtype_policy
        )
        self.layer = [
            TFRemBertLayer(config, name=f"layer_{index}", dtype=self.dtype_policy)
            for index in range(config.num_hidden_layers)
        ]

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(embedding_hidden_mapping_in=self.config.input_embedding_size, layer=None)

    def call(
        self,
        embeddings: Tensor,
        bias: Tensor | None = None,
        source: Tensor | None = None,
        source_bias: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """[b, s, input_embedding_size] to the fields of the base model's output, all but the pooler's."""
        hidden_states = self.embedding_hidden_mapping_in(embeddings)  # (b, s, e)
        all_states, attentions, cross_attentions, caches = [hidden_states], [], [], []
        for index, layer in enumerate(self.layer):
            cached = past_key_values[index] if past_key_values is not None else None
            hidden_states, probabilities, cross_probabilities, cache = layer(
                hidden_states, bias, source=source, source_bias=source_bias, cached=cached, training=training
            )
            all_states.append(hidden_states)
            attentions.append(probabilities)
            cross_attentions.append(cross_probabilities)
            caches.append(cache)
        has_cross = output_attentions and cross_attentions[0] is not None
        return {
            "last_hidden_state": hidden_states,
            "past_key_values": tuple(caches) if use_cache else None,
            "hidden_states": tuple(all_states) if output_hidden_states else None,
            "attentions": tuple(attentions) if output_attentions else None,
            "cross_attentions": tuple(cross_attentions) if has_cross else None,
        }


@keras.saving.register_keras_serializable("rembert")
class TFRemBertPooler(RemBertLayerBase):
    """tanh of a linear layer of the first token's state."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dense = dense(config, config.hidden_size, "dense", self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(dense=self.config.hidden_size)

    def call(self, hidden_states: Tensor) -> Tensor:
        """[b, s, e] to [b, e]."""
        return ops.tanh(self.dense(hidden_states[:, 0]))


@keras.saving.register_keras_serializable("rembert")
class TFRemBertModel(TFRemBertPreTrainedModel):
    """The base model: embeddings, encoder and pooler.

    Args:
        config: the sizes and settings.
        add_pooling_layer: whether there is a pooler; heads without one leave it out.
        **kwargs: Keras' own: `name`, `dtype`, `trainable`.
    """

    head = "model"
    _own_arguments = ("add_pooling_layer",)

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.add_pooling_layer = add_pooling_layer
        self.embeddings = TFRemBertEmbeddings(config, name="embeddings", dtype=self.dtype_policy)
        self.encoder = TFRemBertEncoder(config, name="encoder", dtype=self.dtype_policy)
        self.pooler = TFRemBertPooler(config, name="pooler", dtype=self.dtype_policy) if add_pooling_layer else None
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(embeddings=None, encoder=None)
        if self.pooler is not None:
            self.build_parts(pooler=None)

    @accepts_structures
    def call(
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
        training: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Encode.

        Args:
            input_ids: [b, s] piece ids; or a dict of arguments by name, or a tuple of them in this order.
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
            training: whether dropout is on.

        Raises:
            InputError: arguments that do not go together, or indices outside their tables. The indices' values are
                not looked at inside graphs (`tf.function`, `fit`, `predict`).
        """
        inputs = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
        }
        check_inputs(self.config, past_key_values=past_key_values, **inputs)
        past_length = cached_length(past_key_values)
        embeddings = self.embeddings(
            input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            past_length=past_length,
            training=training,
        )
        length, dtype = ops.shape(embeddings)[1], self.compute_dtype
        wants_cache = self.config.use_cache if use_cache is None else use_cache
        fields = self.encoder(
            embeddings,
            attention_bias(
                attention_mask,
                length=length,
                past_length=past_length,
                causal=self.config.is_decoder,
                dtype=dtype,
            ),
            source=encoder_hidden_states,
            source_bias=attention_bias(
                encoder_attention_mask, length=length, past_length=0, causal=False, dtype=dtype
            ),
            past_key_values=past_key_values,
            use_cache=wants_cache and self.config.is_decoder,
            output_attentions=self.config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
            training=training,
        )
        if self.pooler is not None:
            fields = {**fields, "pooler_output": self.pooler(fields["last_hidden_state"])}
        return self.finish(BaseModelOutputWithPoolingAndCrossAttentions(**fields), return_dict)
