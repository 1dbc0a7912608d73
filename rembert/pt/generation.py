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
    Callbacks,
    Default,
    GenerationSettings,
    callbacks,
    check_length,
    check_others,
    check_padding_side,
    check_source_mask,
    generation_settings,
    prompt_of,
)
from rembert.pt.beam_search import beam_search
from rembert.pt.decoding import Decoder, add_seen, adjusted_scores, is_one_of, is_stopped, seen_tokens
from rembert.pt.inputs import check_inputs

Function = Callable[..., Any]
Processors = Function | Sequence[Function]
Criteria = Function | Sequence[Function]


class GenerationMixin:
    """Gives a causal language model its `generate`."""

    config: Any

    # Long: a line for each argument.
    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        *,
        inputs: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        max_length: int | None = None,
        min_new_tokens: int | None = None,
        min_length: int | None = None,
        do_sample: bool = False,
        num_beams: int = 1,
        temperature: float = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        num_return_sequences: int = 1,
        no_repeat_ngram_size: int | None = None,
        use_cache: bool | None = True,
        logits_processor: Processors | None = None,
        stopping_criteria: Criteria | None = None,
        eos_token_id: int | Sequence[int] | Default | None = Default.CONFIG,
        pad_token_id: int | None = None,
        seed: int | None = None,
        streamer: Any = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        """Continue texts.

        Args:
            input_ids, inputs: [b, s], the prompts, under either name.
            attention_mask: [b, s], 0 at padding, which must be on the left. By default all tokens are real, including
                padding tokens.
            max_new_tokens: the largest number of new tokens, by default 20.
            token_type_ids: [b, s], the prompts' token types; new tokens have the type of the last one.
            max_length: instead of `max_new_tokens`, the largest number of tokens with the prompt's row.
            min_new_tokens, min_length: before this number of new tokens, or of tokens with the prompt's row, no text
                ends.
            do_sample: sample tokens by their probability instead of choosing the most probable one.
            num_beams: the number of beams of a beam search; 1 for greedy search or sampling.
            temperature: divides the logits before sampling.
            top_k: sample among this many of the most probable tokens; None or 0 for all.
            top_p: sample among the most probable tokens that hold this much of the probability.
            repetition_penalty: above 1, tokens that are already in the text become less probable.
            length_penalty: above 0, beam search prefers long texts, below 0 short ones.
            early_stopping: when a beam search ends: True as soon as it has `num_beams` ended texts, False when a
                better one is unlikely, 'never' when a better one is impossible.
            num_return_sequences: the number of continuations of each prompt, which follow each other in the result:
                sampled ones, or the best of a beam search.
            no_repeat_ngram_size: no sequence of this many tokens occurs twice in a text; None or 0 for no limit.
            use_cache: has no effect: keys and values are always kept, and the tokens are the same without.
            logits_processor: a function or a list of functions, each of the texts so far [rows, length] and the scores
                of the next token [rows, v], that return scores. Scores are logits, in beam search log probabilities,
                after the penalties and before temperature, top-k and top-p.
            stopping_criteria: a function or a list of functions, each of the texts [rows, length] and None, that say
                whether texts end: one bool or [rows].
            eos_token_id: the id or ids that end a text; None for no end. By default the configuration's.
            pad_token_id: fills the rows of texts that have ended; by default the configuration's. If the model
                generates this token, it is treated as any other.
            seed: makes sampling repeatable; by default PyTorch's own random state is used.
            streamer: called with the new tokens [b] of every step; not with a beam search. An object with `put` and
                `end`, such as transformers' `TextStreamer`, gets the prompts first.
            encoder_hidden_states: [b, source, e], for a decoder with cross-attention.
            encoder_attention_mask: [b, source], non-zero where a query may attend.

        Returns:
            [b × num_return_sequences, L] int64, the prompts and the new tokens.

        Raises:
            InputError: an argument is invalid, or prompt and new tokens are longer than `max_position_embeddings`.
            KeywordError: an argument that only transformers' `generate` has.

        Example:
            >>> from rembert.pt import RemBertConfig, RemBertForCausalLM
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
            >>> model = RemBertForCausalLM(config).eval()
            >>> model.generate(torch.tensor([[312, 5, 6]]), max_new_tokens=4, num_beams=2, eos_token_id=None).shape
            torch.Size([1, 7])
        """
        check_others(others)
        input_ids = prompt_of(input_ids, inputs)
        settings = generation_settings(
            self.config,
            GenerationMixin.generate,
            prompts=input_ids,
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            min_new_tokens=min_new_tokens,
            min_length=min_length,
            num_return_sequences=num_return_sequences,
            no_repeat_ngram_size=no_repeat_ngram_size,
            use_cache=use_cache,
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
        calls = callbacks(logits_processor, stopping_criteria, streamer)
        mask = _prompt_mask(
            self.config,
            settings,
            input_ids,
            attention_mask,
            token_type_ids,
            encoder_hidden_states,
            encoder_attention_mask,
        )
        tokens = input_ids.long()
        if not len(tokens):
            return tokens
        generator = None if seed is None else torch.Generator(input_ids.device).manual_seed(seed)
        decoder = Decoder(self, mask, settings, token_type_ids, encoder_hidden_states, encoder_attention_mask)
        if settings.num_beams > 1:
            return beam_search(decoder, tokens, mask, settings, calls, generator)
        return _one_by_one(decoder, tokens, mask, settings, calls, generator)


def _prompt_mask(
    config: Any,
    settings: GenerationSettings,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    types: Tensor | None,
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
        token_type_ids=types,
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
    calls: Callbacks,
    generator: torch.Generator | None,
) -> Tensor:
    """Greedy search, or sampling."""
    calls.stream(tokens, is_prompt=True)
    logits = decoder(tokens)
    copies = torch.arange(len(tokens), device=tokens.device).repeat_interleave(settings.num_return_sequences)
    decoder.select(copies)
    logits, texts, mask = logits[copies], tokens[copies], mask[copies]
    has_ended = torch.zeros(len(texts), dtype=torch.bool, device=tokens.device)
    seen = seen_tokens(texts, mask, logits.shape[1]) if settings.repetition_penalty != 1 else None
    for count in range(1, settings.max_new_tokens + 1):
        scores = adjusted_scores(logits, seen, texts, mask, count, settings, calls)
        if settings.do_sample:
            chosen = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
        else:
            chosen = scores.argmax(-1)
        chosen = chosen.masked_fill(has_ended, settings.pad_token_id)
        texts = torch.cat([texts, chosen[:, None]], 1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        calls.stream(chosen)
        if count == settings.max_new_tokens:
            break
        if settings.eos_token_ids or calls.criteria:  # reading whether all have ended synchronises a GPU
            has_ended = has_ended | is_one_of(chosen, settings.eos_token_ids) | is_stopped(texts, calls)
            if bool(has_ended.all()):
                break
        seen = add_seen(seen, chosen)
        logits = decoder(chosen[:, None])
    calls.end()
    return texts
