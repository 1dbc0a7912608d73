"""Generation with the causal language model: greedy search, sampling and beam search.

Notation: b sequences, v vocabulary, L tokens of prompt and new ones together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rembert.common.errors import InputError
from rembert.common.generation import (
    Default,
    GenerationSettings,
    check_length,
    check_padding_side,
    check_source_mask,
    generation_settings,
)
from rembert.pt.beam_search import beam_search
from rembert.pt.decoding import Decoder, add_seen, adjusted_scores, is_one_of, seen_tokens
from rembert.pt.inputs import check_inputs


class GenerationMixin:
    """Gives a causal language model its `generate`."""

    config: Any

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
        *,
        do_sample: bool = False,
        num_beams: int = 1,
        temperature: float = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        eos_token_id: int | Sequence[int] | Default | None = Default.CONFIG,
        pad_token_id: int | None = None,
        seed: int | None = None,
        streamer: Callable[[Tensor], Any] | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Continue texts.

        Args:
            input_ids: [b, s], the prompts.
            attention_mask: [b, s], 0 at padding, which must be on the left. By default all tokens are real, including
                padding tokens.
            max_new_tokens: the largest number of new tokens.
            do_sample: sample tokens by their probability instead of choosing the most probable one.
            num_beams: the number of beams of a beam search; 1 for greedy search or sampling.
            temperature: divides the logits before sampling.
            top_k: sample among this many of the most probable tokens; None or 0 for all.
            top_p: sample among the most probable tokens that hold this much of the probability.
            repetition_penalty: above 1, tokens that are already in the text become less probable.
            length_penalty: above 0, beam search prefers long texts, below 0 short ones.
            early_stopping: when a beam search ends: True as soon as it has `num_beams` ended texts, False when a
                better one is unlikely, 'never' when a better one is impossible.
            eos_token_id: the id or ids that end a text; None for no end. By default the configuration's.
            pad_token_id: fills the rows of texts that have ended; by default the configuration's. If the model
                generates this token, it is treated as any other.
            seed: makes sampling repeatable; by default PyTorch's own random state is used.
            streamer: called with the new tokens [b] of every step; not with a beam search.
            encoder_hidden_states: [b, source, e], for a decoder with cross-attention.
            encoder_attention_mask: [b, source], non-zero where a query may attend.

        Returns:
            [b, L] int64, the prompts and the new tokens.

        Raises:
            InputError: an argument is invalid, or prompt and new tokens are longer than `max_position_embeddings`.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertForCausalLM
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
            >>> model = RemBertForCausalLM(config).eval()
            >>> model.generate(torch.tensor([[312, 5, 6]]), max_new_tokens=4, num_beams=2, eos_token_id=None).shape
            torch.Size([1, 7])
        """
        settings = generation_settings(
            self.config,
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            num_beams=num_beams,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            has_streamer=streamer is not None,
        )
        mask = _prompt_mask(
            self.config, settings, input_ids, attention_mask, encoder_hidden_states, encoder_attention_mask
        )
        tokens = input_ids.long()
        if not len(tokens):
            return tokens
        generator = None if seed is None else torch.Generator(input_ids.device).manual_seed(seed)
        decoder = Decoder(self, mask, settings, encoder_hidden_states, encoder_attention_mask)
        if settings.num_beams > 1:
            return beam_search(decoder, tokens, mask, settings, generator)
        return _one_by_one(decoder, tokens, mask, settings, generator, streamer)


def _prompt_mask(
    config: Any,
    settings: GenerationSettings,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    source: Tensor | None,
    source_mask: Tensor | None,
) -> Tensor:
    """Check the inputs and return the mask of the prompts' real tokens, [b, s] int64."""
    if attention_mask is not None and getattr(attention_mask, "ndim", 2) != 2:
        raise InputError(
            f"`attention_mask` must have the shape [batch, sequence]. Received: {list(attention_mask.shape)}."
        )
    check_inputs(
        config,
        input_ids=input_ids,
        inputs_embeds=None,
        attention_mask=attention_mask,
        token_type_ids=None,
        # With padding only the number of real tokens is limited, which is checked below.
        position_ids=None if attention_mask is None else _zeros(input_ids),
        encoder_hidden_states=source,
        encoder_attention_mask=source_mask,
        past_key_values=None,
    )
    if source_mask is not None:
        check_source_mask(source_mask.ndim)
    mask = (torch.ones_like(input_ids) if attention_mask is None else attention_mask != 0).long()
    if len(mask):
        check_padding_side(bool(mask[:, -1].all()))
        check_length(config, int(mask.sum(1).max()), settings.max_new_tokens)
    return mask


def _zeros(value: Any) -> Tensor | None:
    """Zeros of the same shape; `check_inputs` refuses what is not a tensor."""
    return torch.zeros_like(value) if isinstance(value, Tensor) else None


def _one_by_one(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    settings: GenerationSettings,
    generator: torch.Generator | None,
    streamer: Callable[[Tensor], Any] | None,
) -> Tensor:
    """Greedy search, or sampling."""
    has_ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    seen = seen_tokens(tokens, mask, decoder.model.config.vocab_size) if settings.repetition_penalty != 1 else None
    texts, given = [tokens], tokens
    for count in range(1, settings.max_new_tokens + 1):
        scores = adjusted_scores(decoder(given), seen, settings)
        if settings.do_sample:
            chosen = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
        else:
            chosen = scores.argmax(-1)
        chosen = chosen.masked_fill(has_ended, settings.pad_token_id)
        given = chosen[:, None]
        texts.append(given)
        if streamer is not None:
            streamer(chosen)
        if count == settings.max_new_tokens:
            break
        if settings.eos_token_ids:  # reading whether all have ended synchronises a GPU
            has_ended = has_ended | is_one_of(chosen, settings.eos_token_ids)
            if bool(has_ended.all()):
                break
        seen = add_seen(seen, chosen)
    return torch.cat(texts, 1)
