"""Decoding with the key/value cache, and the scores from which the next tokens are chosen.

Sampling: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.1 (top-k); Holtzman et al., "The
Curious Case of Neural Text Degeneration" (2020), section 3.1 (top-p). Repetition penalty: Keskar et al., "CTRL"
(2019), section 4.1.

Notation: b sequences, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.generation import GenerationSettings

Tensor = Any


class Decoder:
    """Calls the model: with the prompt first, then with one token at a time and the cache of all earlier ones.

    What changes from step to step is an argument and a result, as the loop of a graph requires: the mask, the next
    positions and the cache.
    """

    def __init__(self, model: Any, source: Tensor | None, source_mask: Tensor | None) -> None:
        self.model, self.source, self.source_mask = model, source, source_mask

    def prompt(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """The prompts [b, s] to the logits [b, v] after them, in float32 or better, and the state for `step`."""
        # Padding has no position: the first real token is at 0.
        positions = tf.maximum(tf.cumsum(mask, 1) - 1, 0)
        last = tf.fill([tf.shape(tokens)[0], 1], tf.shape(tokens)[1] - 1)
        return self._call(tokens, mask, positions, self.source, None, last)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same for the next token of each sequence, [b]."""
        mask, positions, cache = state
        return self._call(tokens[:, None], mask, positions, None, cache, None)

    def _call(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, source: Tensor | None, cache: Any, at: Tensor | None
    ) -> tuple[Tensor, Any]:
        outputs = self.model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
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
        return logits, (mask, positions[:, -1:] + 1, outputs.past_key_values)

    def select(self, rows: Tensor, state: Any) -> Any:
        """Keep these rows of the batch, in this order."""
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), state)

    def shapes(self, state: Any) -> Any:
        """The parts of the state's shapes that stay the same in a loop."""
        cache = state[2]
        heads, width = self.model.config.num_attention_heads, self.model.config.head_dim
        whole = tf.TensorShape([None, heads, None, width])
        return (
            tf.TensorShape([None, None]),
            tf.TensorShape([None, 1]),
            tf.nest.map_structure(lambda _: whole, cache),
        )


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


def adjusted_scores(scores: Tensor, seen: Any, settings: GenerationSettings) -> Tensor:
    """Scores [b, v] after the repetition penalty and, if tokens are sampled, after temperature, top-k and top-p.

    Args:
        scores: logits or log probabilities.
        seen: from `seen_tokens`; () without a repetition penalty.
        settings: the penalty and the limits; a token beyond them gets minus infinity.
    """
    if settings.repetition_penalty != 1:
        penalty = settings.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    if not settings.do_sample:
        return scores
    scores = scores / settings.temperature
    excluded = tf.constant(-np.inf, scores.dtype)
    if 0 < settings.top_k < scores.shape[-1]:
        scores = tf.where(scores < tf.math.top_k(scores, settings.top_k).values[:, -1:], excluded, scores)
    if settings.top_p < 1:
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        before = tf.cumsum(tf.nn.softmax(tf.gather(scores, order, batch_dims=1)), 1, exclusive=True)
        is_beyond = tf.gather(before >= settings.top_p, tf.argsort(order), batch_dims=1)
        scores = tf.where(is_beyond, excluded, scores)
    return scores


def is_one_of(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Whether each token is one of `ids`."""
    if not ids:
        return tf.zeros_like(tokens, tf.bool)
    return tf.reduce_any(tokens[..., None] == tf.constant(ids, tokens.dtype), -1)
