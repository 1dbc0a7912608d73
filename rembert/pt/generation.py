"""Generation: greedy search, sampling and beam search with the causal language model.

Sampling: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.1 (top-k); Holtzman et al., "The
Curious Case of Neural Text Degeneration" (2020), section 3.1 (top-p). Repetition penalty: Keskar et al., "CTRL"
(2019), section 4.1. Beam search as transformers has it: a score is the sum of logarithms of probabilities, divided by
the number of new tokens to the power of the length penalty.

Notation: b texts, n beams, v pieces, L tokens of prompt and new ones together.
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
    check_prompt,
    check_room,
    check_source_mask,
    generation_settings,
)
from rembert.pt.cache import CacheBuffer
from rembert.pt.inputs import check_inputs

_OUT = -1.0e9  # added to the score of what is not to be chosen; as in transformers, whose ties are these


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
            attention_mask: [b, s], 0 for padding, which stands on the left; left out, all tokens are real, a piece of
                padding among them too.
            max_new_tokens: the most tokens to add.
            do_sample: draw tokens by their probability in place of taking the best.
            num_beams: beams of a beam search; 1 for none.
            temperature: divides the logits before a draw.
            top_k: draw among so many of the best pieces; None or 0 for all.
            top_p: draw among the best pieces that hold this much of the probability.
            repetition_penalty: above 1 makes pieces that the text holds already less likely.
            length_penalty: above 0 favours long texts in a beam search, below 0 short ones.
            early_stopping: when a beam search is over: True as soon as it has `num_beams` ended texts, False once a
                better one is unlikely, 'never' once none can come.
            eos_token_id: what ends a text, an id or several; None for nothing. Left out, the configuration's.
            pad_token_id: fills the rows of texts that have ended; left out, the configuration's. Where a model
                generates this piece it is a token as any other.
            seed: makes draws repeatable; left out, PyTorch's own state is used.
            streamer: called with the new tokens [b] of every step, without a beam search.
            encoder_hidden_states: [b, source, e], for a decoder with cross-attention.
            encoder_attention_mask: [b, source], non-zero where to look.

        Returns:
            [b, L] int64, the prompts and the new tokens.

        Raises:
            InputError: arguments that cannot be used, or prompts that leave no room for the new tokens.
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
        if attention_mask is not None and getattr(attention_mask, "ndim", 2) != 2:
            raise InputError(
                f"`attention_mask` must have the shape [batch, sequence]. Received: {list(attention_mask.shape)}."
            )
        check_inputs(
            self.config,
            input_ids=input_ids,
            inputs_embeds=None,
            attention_mask=attention_mask,
            token_type_ids=None,
            # Where rows are padded more than the positions allow, it is the real tokens that must have room.
            position_ids=None if attention_mask is None else _zeros(input_ids),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=None,
        )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask != 0
        mask = mask.long()
        if encoder_attention_mask is not None:
            check_source_mask(encoder_attention_mask.ndim)
        if not len(mask):
            return input_ids.long()  # no text to continue
        check_prompt(bool(mask[:, -1].all()))
        check_room(self.config, int(mask.sum(1).max()), settings.max_new_tokens)
        generator = None if seed is None else torch.Generator(input_ids.device).manual_seed(seed)
        step = _Decoder(self, mask, settings, encoder_hidden_states, encoder_attention_mask)
        if settings.num_beams > 1:
            return _beam_search(step, input_ids.long(), mask, settings, generator)
        return _one_by_one(step, input_ids.long(), mask, settings, generator, streamer)


class _Decoder:
    """Calls the model: the prompt first, then a token at a time, with the cache of what was before."""

    def __init__(
        self, model: Any, mask: Tensor, settings: GenerationSettings, source: Tensor | None, source_mask: Tensor | None
    ) -> None:
        self.model, self.source_mask, self.mask = model, source_mask, mask
        self.source: Tensor | None = source
        # Padding takes no position: the first real token is at 0.
        self.positions = (mask.cumsum(1) - 1).clamp(min=0)
        capacity = mask.shape[1] + settings.max_new_tokens
        self.cache: tuple[tuple[Any, ...], ...] = tuple(
            (CacheBuffer(capacity), CacheBuffer(capacity)) for _ in range(model.config.num_hidden_layers)
        )
        self.has_all = bool(mask.all())

    def __call__(self, tokens: Tensor) -> Tensor:
        """The new tokens [b, s] to the logits [b, v] after the last of them, in float32 or better."""
        batch, length = tokens.shape
        last = torch.full((batch, 1), length - 1, device=tokens.device)
        outputs = self.model(
            tokens,
            attention_mask=None if self.has_all else self.mask,
            position_ids=self.positions,
            encoder_hidden_states=self.source,
            encoder_attention_mask=self.source_mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_at=last,
            return_dict=True,
        )
        if self.source is not None:  # from now on its keys and values are in the cache
            self.cache = tuple(
                (*rooms, *own[2:]) for rooms, own in zip(self.cache, outputs.past_key_values, strict=True)
            )
            self.source = None
        self.mask = torch.cat([self.mask, self.mask.new_ones(batch, 1)], 1)
        self.positions = self.positions[:, -1:] + 1
        logits = outputs.logits[:, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        if len(rows) == len(self.mask) and bool((rows == torch.arange(len(rows), device=rows.device)).all()):
            return
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        if self.source_mask is not None and len(rows) != len(self.source_mask):
            self.source_mask = self.source_mask[rows]  # beams of one text share its source
        for key, value, *_ in self.cache:
            key.select(rows)
            value.select(rows)
        if len(self.cache[0]) == 4 and len(rows) != len(self.cache[0][2]):
            self.cache = tuple((*rooms[:2], rooms[2][rows], rooms[3][rows]) for rooms in self.cache)


def _one_by_one(
    step: _Decoder,
    tokens: Tensor,
    mask: Tensor,
    settings: GenerationSettings,
    generator: torch.Generator | None,
    streamer: Callable[[Tensor], Any] | None,
) -> Tensor:
    """Greedy search, or sampling."""
    ends = torch.tensor(settings.eos_token_ids, device=tokens.device, dtype=torch.long)
    has_ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    seen = _seen(tokens, mask, step.model.config.vocab_size) if settings.repetition_penalty != 1 else None
    texts, given = [tokens], tokens
    for index in range(settings.max_new_tokens):
        scores = _processed(step(given), seen, settings)
        if settings.do_sample:
            chosen = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        else:
            chosen = scores.argmax(-1, keepdim=True)
        chosen = chosen.masked_fill(has_ended[:, None], settings.pad_token_id)
        texts.append(chosen)
        if streamer is not None:
            streamer(chosen[:, 0])
        if index + 1 == settings.max_new_tokens:
            break
        if len(ends):  # to look whether all have ended is to wait for the device
            has_ended = has_ended | torch.isin(chosen[:, 0], ends)
            if bool(has_ended.all()):
                break
        if seen is not None:
            seen.scatter_(1, chosen, True)
        given = chosen
    return torch.cat(texts, 1)


def _beam_search(
    step: _Decoder, prompt: Tensor, mask: Tensor, settings: GenerationSettings, generator: torch.Generator | None
) -> Tensor:
    """The best ended text of each row."""
    batch = len(prompt)
    beams, device, new = settings.num_beams, prompt.device, settings.max_new_tokens
    ends = torch.tensor(settings.eos_token_ids, device=device, dtype=torch.long)
    vocabulary = step.model.config.vocab_size
    keep = min(settings.candidates, beams * vocabulary)
    rows = torch.arange(batch, device=device)[:, None]

    logits = step(prompt)
    copies = torch.arange(batch, device=device).repeat_interleave(beams)
    step.select(copies)
    logits = logits[copies]
    penalized = settings.repetition_penalty != 1
    seen = _seen(prompt, mask, vocabulary)[copies] if penalized else None

    # What is still going on; the first beam alone at the start, as all of them are the same.
    tokens = prompt.new_full((batch, beams, new), settings.pad_token_id)
    scores = torch.zeros(batch, beams, dtype=logits.dtype, device=device)
    scores[:, 1:] = _OUT
    # What has ended: its tokens, their number, its score, and whether it is there at all.
    ended_tokens = tokens.clone()
    ended_counts = torch.zeros(batch, beams, dtype=torch.long, device=device)
    ended_scores = torch.full_like(scores, _OUT)
    has_ended = torch.zeros(batch, beams, dtype=torch.bool, device=device)
    can_improve = torch.ones(batch, 1, dtype=torch.bool, device=device)

    for count in range(1, new + 1):
        steps = _processed(logits.log_softmax(-1), seen, settings)
        total = (steps.view(batch, beams, -1) + scores[:, :, None]).view(batch, -1)  # (b, n × v)
        if settings.do_sample:
            noise = torch.empty_like(total).exponential_(generator=generator).log_()
            places = (total - noise).topk(keep).indices  # a draw without putting back: Kool et al. (2019)
            places = places.gather(1, total.gather(1, places).argsort(descending=True, stable=True))
        else:
            places = total.topk(keep).indices
        candidate_scores = total.gather(1, places)
        origins, pieces = places // vocabulary, places % vocabulary
        candidates = tokens[rows, origins]  # (b, keep, new)
        candidates[:, :, count - 1] = pieces
        is_end = torch.isin(pieces, ends) | (count == new)

        going_on = (candidate_scores + is_end * _OUT).topk(beams)
        scores = going_on.values
        tokens, origins = candidates[rows, going_on.indices], origins.gather(1, going_on.indices)

        # Only an end among the best counts; the others were looked at so that enough are left to go on.
        is_counted = is_end & (torch.arange(keep, device=device) < beams)
        final = candidate_scores / count**settings.length_penalty
        is_full = has_ended.all(1, keepdim=True) & (settings.early_stopping is True)
        final = final + is_full * _OUT + ~can_improve * _OUT + ~is_counted * _OUT
        best = torch.cat([ended_scores, final], 1).topk(beams)
        ended_scores = best.values
        ended_tokens = torch.cat([ended_tokens, candidates], 1)[rows, best.indices]
        counts = torch.cat([ended_counts, torch.full_like(places, count)], 1)
        ended_counts = counts.gather(1, best.indices)
        has_ended = torch.cat([has_ended, is_counted], 1).gather(1, best.indices)

        length = new if settings.early_stopping == "never" and settings.length_penalty > 0 else count
        best_to_come = scores[:, :1] / length**settings.length_penalty
        worst = torch.where(has_ended, ended_scores.amin(1, keepdim=True), _OUT)
        can_improve = can_improve & (best_to_come > worst).any(1, keepdim=True)
        is_over = bool(has_ended.all()) and settings.early_stopping is True
        if is_over or not bool(can_improve.any()) or bool(is_end.all()):
            break
        origins = (origins + rows * beams).flatten()
        step.select(origins)
        given = tokens[:, :, count - 1].reshape(-1, 1)
        if seen is not None:
            seen = seen[origins].scatter(1, given, True)
        logits = step(given)
    longest = int(ended_counts[:, 0].max())
    return torch.cat([prompt, ended_tokens[:, 0, :longest]], 1)


def _zeros(given: Any) -> Tensor | None:
    """Zeros of the same shape; what is no tensor is refused elsewhere."""
    return torch.zeros_like(given) if isinstance(given, Tensor) else None


def _seen(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """[b, v], whether a text holds a piece; padding is no part of it."""
    seen = torch.zeros(len(tokens), vocabulary, dtype=torch.long, device=tokens.device)
    return seen.scatter_add_(1, tokens, mask) != 0


def _processed(scores: Tensor, seen: Tensor | None, settings: GenerationSettings) -> Tensor:
    """Scores [rows, v] after the repetition penalty and, where tokens are drawn, what limits the draw."""
    if seen is not None:
        penalty = settings.repetition_penalty
        scores = torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
    if not settings.do_sample:
        return scores
    scores = scores / settings.temperature
    if 0 < settings.top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(settings.top_k).values[:, -1:], -torch.inf)
    if settings.top_p < 1:
        ordered, order = scores.sort(descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        scores = scores.masked_fill((before >= settings.top_p).scatter(1, order, before >= settings.top_p), -torch.inf)
    return scores
