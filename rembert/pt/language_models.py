"""The language models: the wide output embeddings over the base model, and the two losses on them."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.common.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from rembert.pt.activations import ACTIVATIONS
from rembert.pt.cache import Cache
from rembert.pt.encoder import RemBertModel
from rembert.pt.inputs import check_token_labels
from rembert.pt.losses import causal_lm_loss, token_loss
from rembert.pt.pretrained import RemBertPreTrainedModel


class RemBertLMPredictionHead(nn.Module):
    """Hidden states to vocabulary logits through the wide output embeddings; Chung et al. (ICLR 2021), section 4."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.output_embedding_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.output_embedding_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.output_embedding_size, config.vocab_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., e] to [..., v]."""
        return self.decoder(self.LayerNorm(self.activation(self.dense(hidden_states))))


class RemBertOnlyMLMHead(nn.Module):
    """Holds the prediction head under the name that checkpoints have for it."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.predictions = RemBertLMPredictionHead(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., e] to [..., v]."""
        return self.predictions(hidden_states)


class RemBertForMaskedLM(RemBertPreTrainedModel):
    """Predicts the pieces under `[MASK]`."""

    head = "masked-lm"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            warnings.warn(
                "A masked language model looks both ways; this `config` says `is_decoder=True`.", stacklevel=2
            )
        self.rembert = RemBertModel(config, add_pooling_layer=False)
        self.cls = RemBertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels` [b, s] (piece ids; -100 and padding are ignored).

        The other arguments are those of `RemBertModel`.

        Raises:
            InputError: arguments that do not go together, or labels outside the vocabulary.
        """
        if labels is not None:
            check_token_labels(labels, self.config.vocab_size, "pieces", input_ids, inputs_embeds)
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls(outputs.last_hidden_state)
        result = MaskedLMOutput(
            loss=None if labels is None else token_loss(logits, labels, attention_mask),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


class RemBertForCausalLM(RemBertPreTrainedModel):
    """Predicts the next piece. A model of its own needs `is_decoder=True`."""

    head = "causal-lm"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            warnings.warn("A causal language model needs `is_decoder=True`: this one looks ahead.", stacklevel=2)
        self.rembert = RemBertModel(config, add_pooling_layer=False)
        self.cls = RemBertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels` [b, s], where logits at i predict the label at i + 1.

        Labels of -100 and on padding are ignored. The other arguments are those of `RemBertModel`.

        Raises:
            InputError: arguments that do not go together, or labels outside the vocabulary.
        """
        if labels is not None:
            check_token_labels(labels, self.config.vocab_size, "pieces", input_ids, inputs_embeds)
        outputs = self.rembert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls(outputs.last_hidden_state)
        result = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_lm_loss(logits, labels, attention_mask),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return self.finish(result, return_dict)
