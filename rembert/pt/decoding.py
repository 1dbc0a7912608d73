"""Decoding with the key/value cache, and the scores from which the next tokens are chosen.

Sampling: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.1 (top-k); Holtzman et al., "The
Curious Case of Neural Text Degeneration" (2020), section 3.1 (top-p). Repetition penalty: Keskar et al., "CTRL"
(2019), section 4.1. No repeated n-grams: Paulus et al., "A Deep Reinforced Model for
Abstractive Summarization" (2018), section 2.5.

Notation: b sequences, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rembert.common.generation import Callbacks, GenerationSettings
from rembert.pt.cache import CacheBuffer


class Decoder:
    """Calls the model: with the prompt first, then with one token at a time and the cache of all earlier ones."""

    def __init__(
        self, model: Any, mask: Tensor, settings: GenerationSettings, types: Tensor | None, source: Tensor | None,
        source_mask: Tensor | None,
    ) -> None:  # fmt: skip
        self.model, self.source_mask, self.mask, self.types = model, source_mask, mask, types
        self.source: Tensor | None = source
        # Padding has no position: the first real token is at 0.
        self.positions = (mask.cumsum(1) - 1).clamp(min=0)
        capacity = mask.shape[1] + settings.max_new_tokens
        self.cache: tuple[tuple[Any, ...], ...] = tuple(
            (CacheBuffer(capacity), CacheBuffer(capacity)) for _ in range(model.config.num_hidden_layers)
        )
        self.is_all_real = bool(mask.all())

    def __call__(self, tokens: Tensor) -> Tensor:
        """The new tokens [b, s] to the logits [b, v] after the last of them, in float32 or better."""
        batch, length = tokens.shape
        last = torch.full((batch, 1), length - 1, device=tokens.device)
        outputs = self.model(
            tokens,
            attention_mask=None if self.is_all_real else self.mask,
            token_type_ids=self.types,
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
                (*buffers, *own[2:]) for buffers, own in zip(self.cache, outputs.past_key_values, strict=True)
            )
            self.source = None
        self.mask = torch.cat([self.mask, self.mask.new_ones(batch, 1)], 1)
        self.positions = self.positions[:, -1:] + 1
        self.types = None if self.types is None else self.types[:, -1:]
        logits = outputs.logits[:, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        if len(rows) == len(self.mask) and bool((rows == torch.arange(len(rows), device=rows.device)).all()):
            return
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        self.types = None if self.types is None else self.types[rows]
        if self.source_mask is not None and len(rows) != len(self.source_mask):
            self.source_mask = self.source_mask[rows]  # the beams of one sequence share its source
        for key, value, *_ in self.cache:
            key.select(rows)
            value.select(rows)
        if len(self.cache[0]) == 4 and len(rows) != len(self.cache[0][2]):
            self.cache = tuple((*layer[:2], layer[2][rows], layer[3][rows]) for layer in self.cache)


def seen_tokens(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """[b, v], whether each token of the vocabulary occurs in a sequence; padding does not count.

    Example:
        >>> seen_tokens(torch.tensor([[0, 2, 3]]), torch.tensor([[0, 1, 1]]), vocabulary=5).tolist()
        [[False, False, True, True, False]]
    """
    seen = torch.zeros(len(tokens), vocabulary, dtype=torch.long, device=tokens.device)
    return seen.scatter_add_(1, tokens, mask) != 0


def add_seen(seen: Tensor | None, tokens: Tensor) -> Tensor | None:
    """`seen` with one more token [b] of each sequence; None without a repetition penalty."""
    return None if seen is None else seen.scatter(1, tokens[:, None], True)


def adjusted_scores(
    scores: Tensor, seen: Tensor | None, texts: Tensor, mask: Tensor, count: int, settings: GenerationSettings,
    calls: Callbacks,
) -> Tensor:  # fmt: skip
    """Scores [b, v] after the penalties and, if tokens are sampled, after temperature, top-k and top-p.

    Args:
        scores: logits or log probabilities.
        seen: from `seen_tokens`; None without a repetition penalty.
        texts: [b, length], the tokens so far.
        mask: [b, length], 0 at padding.
        count: the number of new tokens with the next one.
        settings: the penalties and the limits; a token beyond them gets minus infinity.
        calls: the caller's functions.
    """
    if seen is not None:
        penalty = settings.repetition_penalty
        scores = torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
    if 0 < settings.no_repeat_ngram_size <= texts.shape[1]:
        scores = scores.masked_fill(_repeating(texts, mask, settings.no_repeat_ngram_size, scores), -torch.inf)
    if count <= settings.min_new_tokens and settings.eos_token_ids:
        columns = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(is_one_of(columns, settings.eos_token_ids), -torch.inf)
    for process in calls.processors:
        scores = process(texts, scores)
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


def _repeating(texts: Tensor, mask: Tensor, size: int, scores: Tensor) -> Tensor:
    """[b, v], whether a token would complete a sequence of `size` tokens that the text has already."""
    parts = texts.unfold(1, size, 1)  # (b, parts, size)
    last = texts[:, None, texts.shape[1] - size + 1 :]
    is_same = (parts[:, :, :-1] == last).all(-1) & mask.unfold(1, size, 1).bool().all(-1)
    return seen_tokens(parts[:, :, -1], is_same.long(), scores.shape[1])


def is_stopped(texts: Tensor, calls: Callbacks) -> Tensor:
    """[rows], whether the caller's criteria end each text [rows, length]."""
    stopped = torch.zeros(len(texts), dtype=torch.bool, device=texts.device)
    for criterion in calls.criteria:
        stopped = stopped | torch.as_tensor(criterion(texts, None), dtype=torch.bool, device=texts.device)
    return stopped


def is_one_of(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Whether each token is one of `ids`."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for each in ids:  # a few; a tensor of them would be copied to the device in every step
        found = found | (tokens == each)
    return found
