"""The language models: the wide output embeddings over the base model, and the two losses on them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rembert.common.checks import IGNORE_INDEX
from rembert.common.config import RemBertConfig
from rembert.common.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from rembert.common.public_names import with_methods_of
from rembert.common.warning import warn
from rembert.tf.activations import ACTIVATIONS
from rembert.tf.cache import Cache
from rembert.tf.encoder import TFRemBertModel
from rembert.tf.generation import GenerationMixin
from rembert.tf.inputs import accepts_structures, check_prediction
from rembert.tf.keras_internals import in_xla
from rembert.tf.layers import RemBertLayerBase, dense, norm
from rembert.tf.linear_cross_entropy import is_plain_linear, linear_cross_entropy
from rembert.tf.losses import cross_entropy, ignore_padding, next_labels
from rembert.tf.pretrained import TFRemBertPreTrainedModel

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertLMPredictionHead(RemBertLayerBase):
    """Hidden states to vocabulary logits through the wide output embeddings; Chung et al. (ICLR 2021), section 4."""

    output_width = "vocab_size"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        # The loss casts the part of the table that it uses; Keras would cast a copy of the whole table.
        super().__init__(config, **{"autocast": False, **kwargs})
        self.dense = dense(config, config.output_embedding_size, "dense", self.dtype_policy)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = norm(config, self.dtype_policy)
        self.decoder = dense(config, config.vocab_size, "decoder", self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        width = self.config.output_embedding_size
        self.build_parts(dense=self.config.hidden_size, LayerNorm=width, decoder=width)

    def call(
        self,
        hidden_states: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        training: bool | None = None,
    ) -> Tensor:
        """[..., e] to [..., v]; or, given labels [...], to their mean cross entropy, without holding all logits."""
        if labels is None:
            return self.decoder(self.transform(hidden_states))
        hidden_states = ops.reshape(hidden_states, (-1, self.config.hidden_size))
        labels = ops.reshape(labels, (-1,))
        if not in_xla():  # which must know every shape
            counted = tf.where(labels != IGNORE_INDEX)[:, 0]
            hidden_states, labels = tf.gather(hidden_states, counted), tf.gather(labels, counted)
        states = self.transform(hidden_states)
        if is_plain_linear(self.decoder):
            kernel, bias = (variable.value for variable in (self.decoder.kernel, self.decoder.bias))
            return linear_cross_entropy(states, kernel, bias, labels, bool(training), label_smoothing)
        return cross_entropy(self.decoder(states), labels, label_smoothing=label_smoothing)

    def transform(self, hidden_states: Tensor) -> Tensor:
        """[..., e] to [..., output_embedding_size], what the output embeddings are compared with."""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


@keras.saving.register_keras_serializable("rembert")
class TFRemBertOnlyMLMHead(RemBertLayerBase):
    """Holds the prediction head under the name that checkpoints have for it."""

    output_width = "vocab_size"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.predictions = TFRemBertLMPredictionHead(config, name="predictions", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(predictions=self.config.hidden_size)

    def call(
        self,
        hidden_states: Tensor,
        labels: Tensor | None = None,
        label_smoothing: float = 0.0,
        training: bool | None = None,
    ) -> Tensor:
        """As `TFRemBertLMPredictionHead`."""
        return self.predictions(hidden_states, labels, label_smoothing=label_smoothing, training=training)


class TFRemBertLanguageModel(TFRemBertPreTrainedModel):
    """Base of both language models: computes the logits and the loss, each only if it is requested."""

    def get_output_embeddings(self) -> keras.layers.Dense:
        return self.cls.predictions.decoder

    def loss_and_logits(
        self, hidden_states: Tensor, labels: Tensor | None, return_logits: bool | None, training: bool | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The loss of `labels` and the logits, each None if it is not requested.

        By default, logits are not computed in training with labels, which needs the loss only.
        """
        wants_logits = not (training and labels is not None) if return_logits is None else return_logits
        smoothing = self.smoothing(training)
        if not wants_logits:
            if labels is None:
                return None, None
            return self.cls(hidden_states, labels, label_smoothing=smoothing, training=training), None
        logits = self.cls(hidden_states)
        return None if labels is None else cross_entropy(logits, labels, label_smoothing=smoothing), logits


@keras.saving.register_keras_serializable("rembert")
class TFRemBertForMaskedLM(TFRemBertLanguageModel):
    """Predicts the tokens that `[MASK]` hides.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertForMaskedLM
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = TFRemBertForMaskedLM(config)
        >>> outputs = model(tf.constant([[312, 5, 4, 313]]))
        >>> outputs.logits.shape
        TensorShape([1, 4, 1000])
    """

    head = "masked-lm"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if config.is_decoder:
            warn("A masked language model attends in both directions. Received: `is_decoder=True`.")
        self.rembert = TFRemBertModel(self.config, add_pooling_layer=False, name="rembert", dtype=self.dtype_policy)
        self.cls = TFRemBertOnlyMLMHead(config, name="cls", dtype=self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(rembert=None, cls=self.config.hidden_size)

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
        labels: Tensor | None = None,
        logits_at: Tensor | None = None,
        return_logits: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        training: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels`. The arguments not named here are those of `TFRemBertModel`.

        Of packed inputs logits are [t, v], `labels` [t], `logits_at` [k].

        Args:
            labels: [b, s] token ids; -100 and labels on padding are ignored.
            logits_at: [b, k] positions: only these have logits, [b, k, v], and `labels` are [b, k].
            return_logits: whether to return logits; by default unless `training` is true and `labels` are given.
                Without them the loss takes far less time and memory: it is computed at labelled positions only.

        Raises:
            InputError: arguments contradict each other, labels are outside the vocabulary, or positions outside
                the sequence.
        """
        check_prediction(labels, logits_at, self.config.vocab_size, input_ids, inputs_embeds)
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        states = outputs.last_hidden_state
        if logits_at is not None:
            states, attention_mask = at_positions(states, attention_mask, logits_at)
        targets = None if labels is None else ignore_padding(labels, attention_mask)
        loss, logits = self.loss_and_logits(states, targets, return_logits, training)
        result = MaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


@keras.saving.register_keras_serializable("rembert")
@with_methods_of(GenerationMixin)
class TFRemBertForCausalLM(GenerationMixin, TFRemBertLanguageModel):
    """Predicts the next token. Its configuration needs `is_decoder=True`.

    Example:
        >>> from rembert.tf import RemBertConfig, TFRemBertForCausalLM
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
        >>> model = TFRemBertForCausalLM(config)
        >>> outputs = model(tf.constant([[312, 5, 6]]), labels=tf.constant([[312, 5, 6]]))
        >>> outputs.loss.shape, outputs.logits.shape
        (TensorShape([]), TensorShape([1, 3, 1000]))
    """

    head = "causal-lm"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if not config.is_decoder:
            warn(
                "A causal language model needs `is_decoder=True`; without it, tokens attend to later tokens.",
            )
        self.rembert = TFRemBertModel(self.config, add_pooling_layer=False, name="rembert", dtype=self.dtype_policy)
        self.cls = TFRemBertOnlyMLMHead(config, name="cls", dtype=self.dtype_policy)
        self.post_init()

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(rembert=None, cls=self.config.hidden_size)

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
        labels: Tensor | None = None,
        logits_at: Tensor | None = None,
        return_logits: bool | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        training: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels`. The arguments not named here are those of `TFRemBertModel`.

        Of packed inputs logits are [t, v], `labels` [t], `logits_at` [k].

        Args:
            labels: [b, s] token ids, where logits at i predict the label at i + 1; -100, labels on padding and what
                padding would predict are ignored.
            logits_at: [b, k] positions: only these have logits, [b, k, v], and `labels` are [b, k]: the token that
                each of them predicts.
            return_logits: as in `TFRemBertForMaskedLM`.

        Raises:
            InputError: arguments contradict each other, labels are outside the vocabulary, or positions outside
                the sequence.
        """
        check_prediction(labels, logits_at, self.config.vocab_size, input_ids, inputs_embeds)
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            training=training,
        )
        states, targets = outputs.last_hidden_state, labels
        if logits_at is not None:
            states, attention_mask = at_positions(states, attention_mask, logits_at)
            targets = None if labels is None else ignore_padding(labels, attention_mask)
        elif labels is not None:
            targets = next_labels(labels, attention_mask, cu_seqlens)
        loss, logits = self.loss_and_logits(states, targets, return_logits, training)
        result = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return self.finish(result, return_dict)


def at_positions(
    hidden_states: Tensor, attention_mask: Tensor | None, positions: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The states, and a mask of tokens, at chosen positions.

    Args:
        hidden_states: [b, s, e], or [t, e] of packed sequences.
        attention_mask: as the model received it.
        positions: [b, k], or [k] of packed sequences.
    """
    batch_dims = len(hidden_states.shape) - 2
    if attention_mask is not None and len(attention_mask.shape) == 2:
        length = ops.shape(hidden_states)[1]
        attention_mask = tf.gather(attention_mask[:, -length:], positions, batch_dims=1)
    return tf.gather(hidden_states, positions, batch_dims=batch_dims), attention_mask
