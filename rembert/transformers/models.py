"""The seven model classes: the modules and forward passes of `rembert.pt` in transformers' `PreTrainedModel`.

The order of the base classes says what comes from where. A class of `rembert.pt` comes first: its constructor builds
the modules and its forward pass computes. `RemBertPreTrainedModel` follows: loading, saving, initialisation,
generation and training are those of transformers.
"""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, RemBertConfig
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

import rembert.pt as pt
from rembert.common.outputs import ModelOutput
from rembert.common.parameters import head_config
from rembert.pt.encoder import RemBertEncoder as PtEncoder
from rembert.pt.inference import check_kept
from rembert.pt.language_models import RemBertOnlyMLMHead
from rembert.pt.layer import RemBertLayer as PtLayer
from rembert.transformers.cache import check_cache, keep_source, new_cache, view, with_free_positions
from rembert.transformers.configs import check_config
from rembert.transformers.masks import mask_of_keys
from rembert.transformers.outputs import translate
from rembert.transformers.transformers_internals import ModelDeclarations, attention_implementation


class _Start(nn.Module):
    """Ends the chain of constructors that transformers' begins, before that of `rembert.pt`."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


class RemBertPreTrainedModel(ModelDeclarations, PreTrainedModel, _Start, pt.RemBertPreTrainedModel):
    """Base of the seven model classes: a `PreTrainedModel` that computes as `rembert.pt`.

    Example:
        >>> from rembert.transformers import RemBertForMaskedLM, RemBertPreTrainedModel
        >>> issubclass(RemBertForMaskedLM, RemBertPreTrainedModel)
        True
    """

    config: RemBertConfig
    config_class = RemBertConfig
    base_model_prefix = "rembert"
    supports_gradient_checkpointing = True
    name_or_path: str = ""  # set by transformers; `rembert.pt` computes it

    def __init__(self, config: RemBertConfig, *inputs: Any, **keywords: Any) -> None:
        """Raises: ConfigError if no model can be built from `config`."""
        check_config(config)
        PreTrainedModel.__init__(self, head_config(config, self.head), *inputs, **keywords)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *arguments: Any, **keywords: Any) -> None:
        """As `PreTrainedModel.save_pretrained`.

        Raises:
            InputError: the parameters were dropped for inference.
        """
        if keywords.get("state_dict") is None:
            check_kept(self, "saved")
        super().save_pretrained(save_directory, *arguments, **keywords)

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the input table; transformers does so before it changes the configuration."""
        self.get_base_model().embeddings.word_embeddings = value

    def finish(self, outputs: ModelOutput, return_dict: bool | None) -> Any:
        """`outputs` as transformers' class of the same name, or as its tuple."""
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return translate(outputs) if wants_dict else outputs.to_tuple()


class RemBertLayer(GradientCheckpointingLayer, PtLayer):
    """A layer of the encoder that transformers can recompute in the backward pass."""


class RemBertEncoder(PtEncoder):
    """The linear map and the layers."""

    layer_class: ClassVar[type[PtLayer]] = RemBertLayer

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.checkpointing = None  # transformers turns each layer's recomputation on and off


class RemBertModel(pt.RemBertModel, RemBertPreTrainedModel):
    """The base model: embeddings, encoder and pooler.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> RemBertModel(config)(torch.tensor([[312, 5, 6, 313]])).last_hidden_state.shape
        torch.Size([1, 4, 72])
    """

    encoder_class: ClassVar[type[PtEncoder]] = RemBertEncoder

    @property
    def attention_implementation(self) -> str:
        return attention_implementation(self.config)

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
    ) -> Any:
        """As `rembert.pt.RemBertModel`, with transformers' caches and masks of four dimensions.

        The arguments not named here are those of `rembert.pt.RemBertModel`.

        Args:
            attention_mask: as there, or [b, 1, s, t]: True, or 0.0, where a query may attend. A single row, [b, 1, 1,
                t], is for all queries, and a single mask for the whole batch.
            encoder_attention_mask: likewise.
            past_key_values: any cache of transformers; it is extended in place.
            use_cache: whether a decoder returns its cache, a new one if none was given; by default
                `config.use_cache`.

        Raises:
            InputError: arguments do not fit each other, or indices are outside their tables.
        """
        check_cache(past_key_values)
        given = input_ids if input_ids is not None else inputs_embeds
        wants_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        can_cache = self.config.is_decoder and cu_seqlens is None and not self._recomputes()
        cache = past_key_values
        if cache is None and wants_cache and can_cache:
            cache = new_cache(self.config.add_cross_attention)
        views = None
        attention_mask = mask_of_keys("attention_mask", attention_mask, given, causal=self.config.is_decoder)
        if cache is not None and given is not None:
            views = view(cache, self.config.num_hidden_layers, given.shape[1])
            attention_mask, position_ids = with_free_positions(cache, views, given, attention_mask, position_ids)
        outputs: Any = super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states,
            mask_of_keys("encoder_attention_mask", encoder_attention_mask, given),
            views,
            use_cache=cache is not None,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cu_seqlens=cu_seqlens,
            max_seqlen=max_seqlen,
            head_mask=head_mask,
        )
        if cache is not None:
            keep_source(cache, outputs.past_key_values)
            outputs.past_key_values = cache if wants_cache else None
        if self.config.return_dict if return_dict is None else return_dict:
            return outputs
        return (outputs.last_hidden_state, outputs.pooler_output, *outputs.to_tuple()[1 + (self.pooler is not None) :])

    def _recomputes(self) -> bool:
        """Whether the backward pass computes layers a second time, which would extend a cache a second time."""
        return self.training and any(getattr(layer, "gradient_checkpointing", False) for layer in self.encoder.layer)


class _Head(RemBertPreTrainedModel):
    """A model with the `RemBertModel` of this file inside."""

    base_class: ClassVar[type[pt.RemBertModel]] = RemBertModel


class _LanguageModel(_Head):
    """A model whose output table can be replaced, as when the vocabulary grows."""

    cls: RemBertOnlyMLMHead

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output table."""
        self.cls.predictions.decoder = new_embeddings


class RemBertForMaskedLM(pt.RemBertForMaskedLM, _LanguageModel):
    """Predicts the tokens under `[MASK]`.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> RemBertForMaskedLM(config)(torch.tensor([[312, 5, 6, 313]])).logits.shape
        torch.Size([1, 4, 1000])
    """


class RemBertForCausalLM(GenerationMixin, pt.RemBertForCausalLM, _LanguageModel):
    """Predicts the next token, and generates with all of transformers' options.

    `forward` also takes transformers' `shift_labels` [b, s] in place of `labels`: logits at i predict the label at i.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
        >>> model = RemBertForCausalLM(config).eval()
        >>> model.generate(torch.tensor([[312, 5]]), max_new_tokens=3, min_new_tokens=3, num_beams=2).shape
        torch.Size([1, 5])
    """

    @wraps(pt.RemBertForCausalLM.forward)
    def forward(  # type: ignore[override]
        self, *arguments: Any, shift_labels: Tensor | None = None, **keywords: Any
    ) -> Any:
        # `shift_labels` is not in the signature: Trainer takes each name in it with "label" for one that batches have.
        if shift_labels is not None:  # logits at i predict the label at i, at every position
            keywords |= {"labels": shift_labels, "logits_to_keep": sys.maxsize}
        return super().forward(*arguments, **keywords)


class RemBertForSequenceClassification(pt.RemBertForSequenceClassification, _Head):
    """Classifies, or rates, a text or a pair of texts from the pooled output.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> RemBertForSequenceClassification(config)(torch.tensor([[312, 5, 6, 313]])).logits.shape
        torch.Size([1, 3])
    """


class RemBertForMultipleChoice(pt.RemBertForMultipleChoice, _Head):
    """Chooses among several continuations, each encoded with the text by itself.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> RemBertForMultipleChoice(config)(torch.tensor([[[312, 5, 313], [312, 6, 313]]])).logits.shape
        torch.Size([1, 2])
    """


class RemBertForTokenClassification(pt.RemBertForTokenClassification, _Head):
    """Classifies every token, as for named entities or parts of speech.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, num_labels=3)
        >>> RemBertForTokenClassification(config)(torch.tensor([[312, 5, 6, 313]])).logits.shape
        torch.Size([1, 4, 3])
    """


class RemBertForQuestionAnswering(pt.RemBertForQuestionAnswering, _Head):
    """Finds where an answer starts and ends.

    Example:
        >>> import torch
        >>> from transformers import RemBertConfig
        >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2)
        >>> RemBertForQuestionAnswering(config)(torch.tensor([[312, 5, 6, 313]])).start_logits.shape
        torch.Size([1, 4])
    """
