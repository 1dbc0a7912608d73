"""The language models: the wide output embeddings over the base model, and the two losses on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rembert.common.checks import IGNORE_INDEX
from rembert.common.config import RemBertConfig
from rembert.common.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput
from rembert.common.public_names import with_methods_of
from rembert.common.warning import warn
from rembert.pt.activations import ACTIVATIONS
from rembert.pt.cache import Cache
from rembert.pt.generation import GenerationMixin
from rembert.pt.inputs import check_prediction, kept_positions, values_can_be_read
from rembert.pt.linear_cross_entropy import is_plain_linear, linear_cross_entropy
from rembert.pt.losses import cross_entropy, ignore_padding, next_labels, share_of_items
from rembert.pt.pretrained import RemBertPreTrainedModel


class RemBertLMPredictionHead(nn.Module):
    """Hidden states to vocabulary logits through the wide output embeddings; Chung et al. (ICLR 2021), section 4."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.output_embedding_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.output_embedding_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.output_embedding_size, config.vocab_size)

    def forward(self, hidden_states: Tensor, labels: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
        """[..., e] to [..., v]; or, given labels [...], to their mean cross entropy, without holding all logits."""
        if labels is None:
            return self.decoder(self.transform(hidden_states))
        hidden_states, labels = hidden_states.flatten(0, -2), labels.flatten()
        if values_can_be_read(labels):  # a graph must know every shape
            counted = labels != IGNORE_INDEX
            hidden_states, labels = hidden_states[counted], labels[counted]
        states = self.transform(hidden_states)
        if is_plain_linear(self.decoder):
            return linear_cross_entropy(states, self.decoder.weight, self.decoder.bias, labels, label_smoothing)
        return cross_entropy(self.decoder(states), labels, label_smoothing=label_smoothing)

    def transform(self, hidden_states: Tensor) -> Tensor:
        """[..., e] to [..., output_embedding_size], what the output embeddings are compared with."""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class RemBertOnlyMLMHead(nn.Module):
    """Holds the prediction head under the name that checkpoints have for it."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.predictions = RemBertLMPredictionHead(config)

    def forward(self, hidden_states: Tensor, labels: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
        """As `RemBertLMPredictionHead`."""
        return self.predictions(hidden_states, labels, label_smoothing)


class RemBertLanguageModel(RemBertPreTrainedModel):
    """Base of both language models: computes the logits and the loss, each only if it is requested."""

    cls: RemBertOnlyMLMHead

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def loss_and_logits(
        self,
        hidden_states: Tensor,
        labels: Tensor | None,
        return_logits: bool | None,
        num_items: Tensor | int | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The loss of `labels` and the logits, each None if it is not requested.

        By default, logits are not computed in training with labels, which needs the loss only.
        """
        wants_logits = not (self.training and labels is not None) if return_logits is None else return_logits
        smoothing = self.smoothing(self.training)
        logits = self.cls(hidden_states) if wants_logits else None
        if labels is None:
            return None, logits
        if logits is None:
            loss = self.cls(hidden_states, labels, smoothing)
        else:
            loss = cross_entropy(logits, labels, label_smoothing=smoothing)
        return share_of_items(loss, labels, num_items), logits


class RemBertForMaskedLM(RemBertLanguageModel):
    """Predicts the tokens that `[MASK]` hides.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForMaskedLM
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> model = RemBertForMaskedLM(config)
        >>> outputs = model(torch.tensor([[312, 5, 4, 313]]))
        >>> outputs.logits.shape
        torch.Size([1, 4, 1000])
    """

    head = "masked-lm"

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            warn("A masked language model attends in both directions. Received: `is_decoder=True`.")
        self.rembert = self.base_class(self.config, add_pooling_layer=False)
        self.cls = RemBertOnlyMLMHead(config)
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
        labels: Tensor | None = None,
        logits_at: Tensor | None = None,
        return_logits: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        head_mask: None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels`. The arguments not named here are those of `RemBertModel`.

        Of packed inputs logits are [t, v], `labels` [t], `logits_at` [k].

        Args:
            labels: [b, s] token ids; -100 and labels on padding are ignored.
            logits_at: [b, k] positions: only these have logits, [b, k, v], and `labels` are [b, k].
            return_logits: whether to return logits; by default unless the model is in training mode and `labels` are
                given. Without them the loss takes far less time and memory: it is computed at labelled positions only.

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
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        states = outputs.last_hidden_state
        if logits_at is not None:
            states, attention_mask = at_positions(states, attention_mask, logits_at)
        targets = None if labels is None else ignore_padding(labels, attention_mask)
        loss, logits = self.loss_and_logits(states, targets, return_logits, num_items_in_batch)
        result = MaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.finish(result, return_dict)


@with_methods_of(GenerationMixin)
class RemBertForCausalLM(GenerationMixin, RemBertLanguageModel):
    """Predicts the next token. Its configuration needs `is_decoder=True`.

    Example:
        >>> import torch
        >>> from rembert.pt import RemBertConfig, RemBertForCausalLM
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
        >>> model = RemBertForCausalLM(config).eval()
        >>> outputs = model(torch.tensor([[312, 5, 6]]), labels=torch.tensor([[312, 5, 6]]))
        >>> outputs.loss.shape, outputs.logits.shape
        (torch.Size([]), torch.Size([1, 3, 1000]))
    """

    head = "causal-lm"
    loss_type = "ForCausalLM"  # by which transformers' Trainer knows that the first label of a row is not predicted

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            warn(
                "A causal language model needs `is_decoder=True`; without it, tokens attend to later tokens.",
            )
        self.rembert = self.base_class(self.config, add_pooling_layer=False)
        self.cls = RemBertOnlyMLMHead(config)
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
        labels: Tensor | None = None,
        logits_at: Tensor | None = None,
        return_logits: bool | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        head_mask: None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Logits [b, s, v], and the mean loss of `labels`. The arguments not named here are those of `RemBertModel`.

        Of packed inputs logits are [t, v], `labels` [t], `logits_at` [k].

        Args:
            labels: [b, s] token ids, where logits at i predict the label at i + 1; -100, labels on padding and what
                padding would predict are ignored.
            logits_at: [b, k] positions: only these have logits, [b, k, v], and `labels` are [b, k]: the token that
                each of them predicts.
            return_logits: as in `RemBertForMaskedLM`.
            logits_to_keep: another form of `logits_at`: how many of the last positions, 0 for all; or positions, [k]
                or [b, k], where negative ones count from the end. Packed inputs take `logits_at`.

        Raises:
            InputError: arguments contradict each other, labels are outside the vocabulary, or positions outside
                the sequence.
        """
        logits_at = kept_positions(logits_to_keep, logits_at, input_ids, inputs_embeds, cu_seqlens)
        check_prediction(labels, logits_at, self.config.vocab_size, input_ids, inputs_embeds)
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
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        states, targets = outputs.last_hidden_state, labels
        if logits_at is not None:
            states, attention_mask = at_positions(states, attention_mask, logits_at)
            targets = None if labels is None else ignore_padding(labels, attention_mask)
        elif labels is not None:
            targets = next_labels(labels, attention_mask, cu_seqlens)
        loss, logits = self.loss_and_logits(states, targets, return_logits, num_items_in_batch)
        result = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )
        return self.finish(result, return_dict)

    # PEFT's `generate` passes it on. Here, its settings are arguments of `generate`.
    generation_config: None = None

    def prepare_inputs_for_generation(self, input_ids: Tensor, **arguments: Any) -> dict[str, Any]:
        """The arguments of the next call, by name: a hook that PEFT requires of a causal language model."""
        return {"input_ids": input_ids, **arguments}


def at_positions(
    hidden_states: Tensor, attention_mask: Tensor | None, positions: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The states, and a mask of tokens, at chosen positions.

    Args:
        hidden_states: [b, s, e], or [t, e] of packed sequences.
        attention_mask: as the model received it.
        positions: [b, k], or [k] of packed sequences.
    """
    positions = positions.long()
    if hidden_states.ndim == 2:
        return hidden_states[positions], None
    if attention_mask is not None and attention_mask.ndim == 2:
        attention_mask = attention_mask[:, -hidden_states.shape[1] :].gather(1, positions)
    # Not `take_along_dim`, which makes compiled graphs of a single length.
    return hidden_states.gather(1, positions[..., None].expand(-1, -1, hidden_states.shape[2])), attention_mask
