"""Decoding with the key/value cache, and the scores from which the next tokens are chosen.

Sampling: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.1 (top-k); Holtzman et al., "The
Curious Case of Neural Text Degeneration" (2020), section 3.1 (top-p). Repetition penalty: Keskar et al., "CTRL"
(2019), section 4.1. No repeated n-grams: Paulus et al., "A Deep Reinforced Model for
Abstractive Summarization" (2018), section 2.5.

Notation: b sequences, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.generation import Callbacks, GenerationSettings

Tensor = Any


class Decoder:
    """Calls the model: with the prompt first, then with one token at a time and the cache of all earlier ones.

    What changes from step to step is an argument and a result, as the loop of a graph requires: the mask, the next
    positions and the cache.
    """

    def __init__(self, model: Any, types: Tensor | None, source: Tensor | None, source_mask: Tensor | None) -> None:
        self.model, self.types, self.source, self.source_mask = model, types, source, source_mask

    def prompt(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """The prompts [b, s] to the logits [b, v] after them, in float32 or better, and the state for `step`."""
        # Padding has no position: the first real token is at 0.
        positions = tf.maximum(tf.cumsum(mask, 1) - 1, 0)
        last = tf.fill([tf.shape(tokens)[0], 1], tf.shape(tokens)[1] - 1)
        types = () if self.types is None else self.types
        return self._call(tokens, mask, positions, types, self.source, None, last)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same for the next token of each sequence, [b]."""
        mask, positions, types, cache = state
        return self._call(tokens[:, None], mask, positions, types, None, cache, None)

    def _call(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, types: Any, source: Tensor | None, cache: Any,
        at: Tensor | None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        outputs = self.model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            token_type_ids=None if isinstance(types, tuple) else types,
            encoder_hidden_states=source,
            encoder_attention_mask=self.source_mask,
            past_key_values=cache,
            use_cache=True,
            logits_at=at,
            return_dict=True,
            training=False,
        )
        mask = tf.concat([mask, tf.ones_like(mask[:, :1])], 1)
        logits = outputs.logits[:, -1]
        logits = tf.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
        types = tf.nest.map_structure(lambda each: each[:, -1:], types)
        return logits, (mask, positions[:, -1:] + 1, types, outputs.past_key_values)

    def select(self, rows: Tensor, state: Any) -> Any:
        """Keep these rows of the batch, in this order."""
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), state)

    def shapes(self, state: Any) -> Any:
        """The parts of the state's shapes that stay the same in a loop."""
        types, cache = state[2:]
        heads, width = self.model.config.num_attention_heads, self.model.config.head_dim
        whole = tf.TensorShape([None, heads, None, width])
        return (
            tf.TensorShape([None, None]),
            tf.TensorShape([None, 1]),
            tf.nest.map_structure(lambda _: tf.TensorShape([None, 1]), types),
            tf.nest.map_structure(lambda _: whole, cache),
        )


class Outside:
    """The caller's functions, called from a graph."""

    def __init__(self, current: list[Callbacks], has_processors: bool, has_criteria: bool) -> None:
        """`current` holds the functions of the present call; the graph is traced once for all of them."""
        self._current, self._has_processors, self._has_criteria = current, has_processors, has_criteria

    def stream(self, tokens: Tensor) -> Tensor:
        """The tokens [b], after the streamer was given them."""

        def call(tokens: Tensor) -> Tensor:
            [calls] = self._current
            if hasattr(calls.streamer, "put"):  # such streamers take arrays
                calls.stream(tokens.numpy())
            else:
                calls.stream(tf.cast(tokens, tf.int64))
            return tokens

        return tf.ensure_shape(tf.py_function(call, [tokens], tokens.dtype), tokens.shape)

    def process(self, texts: Tensor, scores: Tensor) -> Tensor:
        """The scores [rows, v] after the caller's processors."""
        if not self._has_processors:
            return scores

        kind = scores.dtype

        def call(texts: Tensor, scores: Tensor) -> Tensor:
            for each in self._current[0].processors:
                scores = each(texts, scores)
            return tf.cast(scores, kind)

        changed = tf.py_function(call, [tf.cast(texts, tf.int64), scores], scores.dtype)
        return tf.ensure_shape(changed, scores.shape)

    def is_stopped(self, texts: Tensor) -> Tensor:
        """[rows], whether the caller's criteria end each text [rows, length]."""
        rows = tf.shape(texts)[:1]
        if not self._has_criteria:
            return tf.zeros(rows, tf.bool)

        def call(texts: Tensor) -> Tensor:
            stopped = tf.zeros(tf.shape(texts)[:1], tf.bool)
            for each in self._current[0].criteria:
                stopped |= tf.cast(each(texts, None), tf.bool)
            return stopped

        return tf.ensure_shape(tf.py_function(call, [tf.cast(texts, tf.int64)], tf.bool), [None])


def seen_tokens(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """[b, v], whether each token of the vocabulary occurs in a sequence; padding does not count.

    Example:
        >>> seen_tokens(tf.constant([[0, 2, 3]]), tf.constant([[0, 1, 1]]), vocabulary=5).numpy().tolist()
        [[False, False, True, True, False]]
    """
    rows = tf.broadcast_to(tf.range(tf.shape(tokens)[0])[:, None], tf.shape(tokens))
    shape = tf.stack([tf.shape(tokens)[0], vocabulary])
    return tf.scatter_nd(tf.stack([rows, tokens], -1), mask, shape) != 0


def add_seen(seen: Any, tokens: Tensor) -> Any:
    """`seen` with one more token [b] of each sequence; () without a repetition penalty."""
    if isinstance(seen, tuple):
        return seen
    indices = tf.stack([tf.range(tf.shape(tokens)[0]), tokens], 1)
    return tf.tensor_scatter_nd_update(seen, indices, tf.ones_like(tokens, tf.bool))


def adjusted_scores(
    scores: Tensor, seen: Any, texts: Tensor, mask: Tensor, count: Tensor, settings: GenerationSettings,
    outside: Outside,
) -> Tensor:  # fmt: skip
    """Scores [b, v] after the penalties and, if tokens are sampled, after temperature, top-k and top-p.

    Args:
        scores: logits or log probabilities.
        seen: from `seen_tokens`; () without a repetition penalty.
        texts: [b, length], the tokens so far.
        mask: [b, length], 0 at padding.
        count: the number of new tokens with the next one.
        settings: the penalties and the limits; a token beyond them gets minus infinity.
        outside: the caller's functions.
    """
    excluded = tf.constant(-np.inf, scores.dtype)
    if settings.repetition_penalty != 1:
        penalty = settings.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    if settings.no_repeat_ngram_size > 0:
        scores = tf.where(_repeating(texts, mask, settings.no_repeat_ngram_size, scores.shape[1]), excluded, scores)
    if settings.min_new_tokens > 0 and settings.eos_token_ids:
        is_end = is_one_of(tf.range(scores.shape[1]), settings.eos_token_ids)
        scores = tf.where(is_end & (count <= settings.min_new_tokens), excluded, scores)
    scores = outside.process(texts, scores)
    if not settings.do_sample:
        return scores
    scores = scores / settings.temperature
    if 0 < settings.top_k < scores.shape[-1]:
        scores = tf.where(scores < tf.math.top_k(scores, settings.top_k).values[:, -1:], excluded, scores)
    if settings.top_p < 1:
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        before = tf.cumsum(tf.nn.softmax(tf.gather(scores, order, batch_dims=1)), 1, exclusive=True)
        is_beyond = tf.gather(before >= settings.top_p, tf.argsort(order), batch_dims=1)
        scores = tf.where(is_beyond, excluded, scores)
    return scores


def _repeating(texts: Tensor, mask: Tensor, size: int, vocabulary: int) -> Tensor:
    """[b, v], whether a token would complete a sequence of `size` tokens that the text has already."""
    starts = tf.range(tf.maximum(tf.shape(texts)[1] - size + 1, 0))
    at = starts[:, None] + tf.range(size)  # (parts, size)
    parts = tf.gather(texts, at, axis=1)  # (b, parts, size)
    last = texts[:, None, tf.maximum(tf.shape(texts)[1] - size + 1, 0) :]
    last = last[:, :, : size - 1]  # a text that is shorter has no parts
    is_same = tf.reduce_all(parts[:, :, :-1] == last, -1) & tf.reduce_all(tf.gather(mask, at, axis=1) != 0, -1)
    return seen_tokens(parts[:, :, -1], tf.cast(is_same, tf.int32), vocabulary)


def is_one_of(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Whether each token is one of `ids`."""
    if not ids:
        return tf.zeros_like(tokens, tf.bool)
    return tf.reduce_any(tokens[..., None] == tf.constant(ids, tokens.dtype), -1)
