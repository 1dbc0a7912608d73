"""Beam search: the most probable continuations of each sequence, several at a time.

A score is the sum of the log probabilities of the new tokens; that of an ended continuation is divided by their number
to the power of the length penalty. Which continuations are kept, and when the search ends, follows transformers, so
that both find the same texts. Sampled beams are drawn without replacement: Kool et al., "Stochastic Beams and Where to
Find Them" (2019).

Notation: b sequences, n beams, k candidates, v vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rembert.common.generation import EXCLUDED, Callbacks, GenerationSettings
from rembert.pt.decoding import Decoder, add_seen, adjusted_scores, is_one_of, is_stopped, seen_tokens


class Candidates(NamedTuple):
    """The best continuations of the open beams by one token, in order of their scores.

    Attributes:
        tokens: [b, k, max_new_tokens], the new tokens.
        scores: [b, k], sums of log probabilities.
        beams: [b, k], the beam that each continues.
        is_end: [b, k], whether each is complete.
    """

    tokens: Tensor
    scores: Tensor
    beams: Tensor
    is_end: Tensor


class OpenBeams(NamedTuple):
    """The continuations that are extended next.

    Attributes:
        tokens: [b, n, max_new_tokens], the new tokens.
        scores: [b, n], sums of log probabilities.
        rows: [b × n], the row of the previous step's batch that each continues.
    """

    tokens: Tensor
    scores: Tensor
    rows: Tensor


class EndedBeams(NamedTuple):
    """The best complete continuations so far.

    Attributes:
        tokens: [b, n, max_new_tokens], the new tokens.
        counts: [b, n], the number of new tokens.
        scores: [b, n], divided by the length penalty.
        exists: [b, n], whether there is a continuation; otherwise the other fields have no meaning.
        can_improve: [b, 1], whether an open beam may still become one of them.
    """

    tokens: Tensor
    counts: Tensor
    scores: Tensor
    exists: Tensor
    can_improve: Tensor


def beam_search(
    decoder: Decoder, prompt: Tensor, mask: Tensor, settings: GenerationSettings, calls: Callbacks,
    generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """The prompts [b, s] and their best continuations, [b × num_return_sequences, s + new]."""
    logits = decoder(prompt)
    copies = torch.arange(len(prompt), device=prompt.device).repeat_interleave(settings.num_beams)
    decoder.select(copies)
    logits, prompts, mask = logits[copies], prompt[copies], mask[copies]
    seen = seen_tokens(prompts, mask, logits.shape[1]) if settings.repetition_penalty != 1 else None
    open_beams, ended = _start(prompt, logits, settings)
    for count in range(1, settings.max_new_tokens + 1):
        texts = torch.cat([prompts, open_beams.tokens[:, :, : count - 1].flatten(0, 1)], 1)
        is_real = torch.cat([mask, mask.new_ones(len(mask), count - 1)], 1)
        steps = adjusted_scores(logits.log_softmax(-1), seen, texts, is_real, count, settings, calls)
        candidates = _expand(open_beams, steps, count, settings, generator)
        candidates = _stop(candidates, prompt, count, calls)
        open_beams = _keep_open(candidates, settings)
        ended = _keep_ended(candidates, open_beams, ended, count, settings)
        if _is_done(candidates, ended, settings):
            break
        decoder.select(open_beams.rows)
        last = open_beams.tokens[:, :, count - 1].flatten()
        seen = add_seen(None if seen is None else seen[open_beams.rows], last)
        logits = decoder(last[:, None])
    returned = settings.num_return_sequences
    longest = int(ended.counts[:, :returned].max())
    tokens = ended.tokens[:, :returned, :longest].flatten(0, 1)
    return torch.cat([prompt.repeat_interleave(returned, 0), tokens], 1)


def _start(prompt: Tensor, logits: Tensor, settings: GenerationSettings) -> tuple[OpenBeams, EndedBeams]:
    """The state before the first new token: equal beams, of which only the first takes part, and no ended ones."""
    shape = (len(prompt), settings.num_beams)
    tokens = prompt.new_full((*shape, settings.max_new_tokens), settings.pad_token_id)
    excluded = logits.new_full(shape, EXCLUDED)
    scores = excluded.clone()
    scores[:, 0] = 0
    ended = EndedBeams(
        tokens,
        counts=tokens.new_zeros(shape),
        scores=excluded,
        exists=torch.zeros_like(scores, dtype=torch.bool),
        can_improve=torch.ones_like(scores[:, :1], dtype=torch.bool),
    )
    return OpenBeams(tokens, scores, torch.arange(len(logits), device=prompt.device)), ended


def _expand(
    open_beams: OpenBeams,
    steps: Tensor,
    count: int,
    settings: GenerationSettings,
    generator: torch.Generator | None,
) -> Candidates:
    """The best continuations of the open beams, or sampled ones, with `count` new tokens.

    Args:
        open_beams: of the previous step.
        steps: [b × n, v], the adjusted log probabilities of the next token.
        count: the number of new tokens with the next one.
        settings: how tokens are chosen.
        generator: of random numbers.
    """
    batch, vocabulary = len(open_beams.scores), steps.shape[1]
    total = (steps.view(batch, -1, vocabulary) + open_beams.scores[:, :, None]).view(batch, -1)  # (b, n × v)
    size = min(settings.num_candidates, total.shape[1])
    if settings.do_sample:
        noise = torch.empty_like(total).exponential_(generator=generator).log_()
        chosen = (total - noise).topk(size).indices
        chosen = chosen.gather(1, total.gather(1, chosen).argsort(descending=True, stable=True))
    else:
        chosen = total.topk(size).indices
    beams, last = chosen // vocabulary, chosen % vocabulary
    tokens = open_beams.tokens[torch.arange(batch, device=beams.device)[:, None], beams]
    tokens[:, :, count - 1] = last
    is_end = is_one_of(last, settings.eos_token_ids) | (count == settings.max_new_tokens)
    return Candidates(tokens, total.gather(1, chosen), beams, is_end)


def _stop(candidates: Candidates, prompt: Tensor, count: int, calls: Callbacks) -> Candidates:
    """The candidates, of which those are complete too that the caller's criteria end."""
    if not calls.criteria:
        return candidates
    size = candidates.tokens.shape[1]
    texts = torch.cat([prompt.repeat_interleave(size, 0), candidates.tokens[:, :, :count].flatten(0, 1)], 1)
    return candidates._replace(is_end=candidates.is_end | is_stopped(texts, calls).view(-1, size))


def _keep_open(candidates: Candidates, settings: GenerationSettings) -> OpenBeams:
    """The best candidates that are not complete."""
    best = (candidates.scores + candidates.is_end * EXCLUDED).topk(settings.num_beams)
    first = torch.arange(len(best.indices), device=best.indices.device)[:, None]
    rows = candidates.beams.gather(1, best.indices) + first * settings.num_beams
    return OpenBeams(candidates.tokens[first, best.indices], best.values, rows.flatten())


def _keep_ended(
    candidates: Candidates, open_beams: OpenBeams, ended: EndedBeams, count: int, settings: GenerationSettings
) -> EndedBeams:
    """The best of the ended beams and of the candidates that are complete.

    Only a complete candidate among the first n counts; the others serve to fill the open beams.
    """
    index = torch.arange(candidates.scores.shape[1], device=candidates.scores.device)
    is_counted = candidates.is_end & (index < settings.num_beams)
    is_full = ended.exists.all(1, keepdim=True) & settings.stops_when_full
    scores = candidates.scores / count**settings.length_penalty
    for is_excluded in (is_full, ~ended.can_improve, ~is_counted):
        scores = scores + is_excluded * EXCLUDED
    best = torch.cat([ended.scores, scores], 1).topk(settings.num_beams)
    row = torch.arange(len(scores), device=scores.device)[:, None]
    tokens = torch.cat([ended.tokens, candidates.tokens], 1)[row, best.indices]
    counts = torch.cat([ended.counts, torch.full_like(candidates.beams, count)], 1).gather(1, best.indices)
    exists = torch.cat([ended.exists, is_counted], 1).gather(1, best.indices)

    length = settings.max_new_tokens if settings.assumes_full_length else count
    reachable = open_beams.scores[:, :1] / length**settings.length_penalty
    worst = torch.where(exists, best.values.amin(1, keepdim=True), EXCLUDED)
    can_improve = ended.can_improve & (reachable > worst).any(1, keepdim=True)
    return EndedBeams(tokens, counts, best.values, exists, can_improve)


def _is_done(candidates: Candidates, ended: EndedBeams, settings: GenerationSettings) -> bool:
    """Whether the search ends: no open beam can improve the result, or none is left."""
    if settings.stops_when_full and bool(ended.exists.all()):
        return True
    return not bool(ended.can_improve.any()) or bool(candidates.is_end.all())
