"""Beam search: the most probable continuations of each sequence, several at a time.

A score is the sum of the log probabilities of the new tokens; that of an ended continuation is divided by their number
to the power of the length penalty. Which continuations are kept, and when the search ends, follows transformers, so
that both find the same texts. Sampled beams are drawn without replacement: Kool et al., "Stochastic Beams and Where to
Find Them" (2019).

Notation: b sequences, n beams, k candidates, v vocabulary, c new tokens so far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from rembert.common.generation import EXCLUDED, GenerationSettings
from rembert.tf.decoding import Decoder, Outside, add_seen, adjusted_scores, is_one_of, seen_tokens

Tensor = Any


class Candidates(NamedTuple):
    """The best continuations of the open beams by one token, in order of their scores.

    Attributes:
        tokens: [b, k, c], the new tokens.
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
        tokens: [b, n, c], the new tokens.
        scores: [b, n], sums of log probabilities.
        rows: [b × n], the row of the previous step's batch that each continues.
    """

    tokens: Tensor
    scores: Tensor
    rows: Tensor


class EndedBeams(NamedTuple):
    """The best complete continuations so far.

    Attributes:
        tokens: [b, n, c], the new tokens.
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
    decoder: Decoder, prompt: Tensor, mask: Tensor, seeds: Tensor, most: Tensor, settings: GenerationSettings,
    outside: Outside,
) -> Tensor:  # fmt: skip
    """The new tokens of the best continuations of the prompts [b, s], [b × num_return_sequences, new].

    Args:
        decoder: of the model.
        prompt: [b, s] int32.
        mask: [b, s], 0 at padding.
        seeds: [2], of random numbers.
        most: the largest number of new tokens, in place of `settings.max_new_tokens`.
        settings: how tokens are chosen.
        outside: the caller's functions.
    """
    logits, state = decoder.prompt(prompt, mask)
    copies = tf.repeat(tf.range(tf.shape(prompt)[0]), settings.num_beams)
    logits, state, prompts, mask = decoder.select(copies, (logits, state, prompt, mask))
    if decoder.source_mask is not None:
        decoder.source_mask = tf.gather(decoder.source_mask, copies)  # the beams of one sequence share its source
    seen = seen_tokens(prompts, mask, logits.shape[1]) if settings.repetition_penalty != 1 else ()

    def advance(count: Tensor, logits: Tensor, seen: Any, open_beams: OpenBeams, ended: EndedBeams) -> Any:
        new = _flat(open_beams.tokens)
        texts, is_real = tf.concat([prompts, new], 1), tf.concat([mask, tf.ones_like(new)], 1)
        steps = adjusted_scores(tf.nn.log_softmax(logits), seen, texts, is_real, count, settings, outside)
        candidates = _expand(open_beams, steps, count, most, settings, seeds)
        candidates = _stop(candidates, prompt, outside)
        open_beams = _keep_open(candidates, settings)
        ended = _keep_ended(candidates, open_beams, ended, count, most, settings)
        return open_beams, ended, _is_done(candidates, ended, settings)

    def step(count: Tensor, is_done: Tensor, open_beams: OpenBeams, ended: EndedBeams, seen: Any, state: Any) -> Any:
        last = tf.reshape(open_beams.tokens[:, :, -1], [-1])
        state, seen = decoder.select(open_beams.rows, (state, seen))
        seen = add_seen(seen, last)
        logits, state = decoder.step(last, state)
        open_beams, ended, is_done = advance(count + 1, logits, seen, open_beams, ended)
        return count + 1, is_done, open_beams, ended, seen, state

    open_beams, ended, is_done = advance(tf.constant(1), logits, seen, *_start(prompt, logits, settings))
    each, tokens = tf.TensorShape([None, settings.num_beams]), tf.TensorShape([None, settings.num_beams, None])
    ended = tf.while_loop(
        lambda count, is_done, *_: ~is_done,
        step,
        (tf.constant(1), is_done, open_beams, ended, seen, state),
        (
            tf.TensorShape([]),
            tf.TensorShape([]),
            OpenBeams(tokens, each, rows=tf.TensorShape([None])),
            EndedBeams(tokens, each, each, each, can_improve=tf.TensorShape([None, 1])),
            tf.nest.map_structure(lambda _: tf.TensorShape([None, None]), seen),
            decoder.shapes(state),
        ),
    )[3]
    returned = settings.num_return_sequences
    return _flat(ended.tokens[:, :returned, : tf.reduce_max(ended.counts[:, :returned])])


def _start(prompt: Tensor, logits: Tensor, settings: GenerationSettings) -> tuple[OpenBeams, EndedBeams]:
    """The state before the first new token: equal beams, of which only the first takes part, and no ended ones."""
    batch, beams = tf.shape(prompt)[0], settings.num_beams
    tokens = tf.zeros([batch, beams, 0], tf.int32)
    first = tf.constant([[0.0] + [EXCLUDED] * (beams - 1)], logits.dtype)
    ended = EndedBeams(
        tokens,
        counts=tf.zeros([batch, beams], tf.int32),
        scores=tf.fill([batch, beams], tf.constant(EXCLUDED, logits.dtype)),
        exists=tf.zeros([batch, beams], tf.bool),
        can_improve=tf.ones([batch, 1], tf.bool),
    )
    return OpenBeams(tokens, tf.tile(first, [batch, 1]), tf.range(batch * beams)), ended


def _expand(
    open_beams: OpenBeams,
    steps: Tensor,
    count: Tensor,
    most: Tensor,
    settings: GenerationSettings,
    seeds: Tensor,
) -> Candidates:
    """The best continuations of the open beams, or sampled ones, with `count` new tokens.

    Args:
        open_beams: of the previous step.
        steps: [b × n, v], the adjusted log probabilities of the next token.
        count: the number of new tokens with the next one.
        most: the largest number of new tokens.
        settings: how tokens are chosen.
        seeds: of random numbers.
    """
    batch, beams, vocabulary = tf.shape(open_beams.scores)[0], settings.num_beams, steps.shape[1]
    total = tf.reshape(steps, [batch, beams, vocabulary]) + open_beams.scores[:, :, None]
    total = tf.reshape(total, [batch, beams * vocabulary])
    size = min(settings.num_candidates, beams * vocabulary)
    if settings.do_sample:
        uniform = tf.random.stateless_uniform(
            tf.shape(total), seeds + tf.stack([0, count]), minval=1e-20, dtype=total.dtype
        )
        chosen = tf.math.top_k(total - tf.math.log(-tf.math.log(uniform)), size).indices
        order = tf.argsort(tf.gather(total, chosen, batch_dims=1), direction="DESCENDING", stable=True)
        chosen = tf.gather(chosen, order, batch_dims=1)
    else:
        chosen = tf.math.top_k(total, size).indices
    origins, last = chosen // vocabulary, chosen % vocabulary
    tokens = tf.concat([tf.gather(open_beams.tokens, origins, batch_dims=1), last[:, :, None]], 2)
    is_end = is_one_of(last, settings.eos_token_ids) | (count == most)
    return Candidates(tokens, tf.gather(total, chosen, batch_dims=1), origins, is_end)


def _stop(candidates: Candidates, prompt: Tensor, outside: Outside) -> Candidates:
    """The candidates, of which those are complete too that the caller's criteria end."""
    size = tf.shape(candidates.tokens)[1]
    texts = tf.concat([tf.repeat(prompt, size, 0), _flat(candidates.tokens)], 1)
    stopped = tf.reshape(outside.is_stopped(texts), tf.shape(candidates.is_end))
    return candidates._replace(is_end=candidates.is_end | stopped)


def _flat(tokens: Tensor) -> Tensor:
    """[b, n, c] to [b × n, c]."""
    shape = tf.shape(tokens)
    return tf.reshape(tokens, tf.stack([shape[0] * shape[1], shape[2]]))


def _keep_open(candidates: Candidates, settings: GenerationSettings) -> OpenBeams:
    """The best candidates that are not complete."""
    scores, best = tf.math.top_k(
        candidates.scores + _excluded(candidates.is_end, candidates.scores), settings.num_beams
    )
    first = tf.range(tf.shape(best)[0])[:, None] * settings.num_beams
    rows = tf.gather(candidates.beams, best, batch_dims=1) + first
    return OpenBeams(tf.gather(candidates.tokens, best, batch_dims=1), scores, tf.reshape(rows, [-1]))


def _keep_ended(
    candidates: Candidates,
    open_beams: OpenBeams,
    ended: EndedBeams,
    count: Tensor,
    most: Tensor,
    settings: GenerationSettings,
) -> EndedBeams:
    """The best of the ended beams and of the candidates that are complete.

    Only a complete candidate among the first n counts; the others serve to fill the open beams.
    """

    def power(length: Tensor) -> Tensor:
        return tf.cast(length, candidates.scores.dtype) ** settings.length_penalty

    index = tf.range(candidates.scores.shape[1])
    is_counted = candidates.is_end & (index < settings.num_beams)
    is_full = tf.reduce_all(ended.exists, 1, keepdims=True) & settings.stops_when_full
    scores = candidates.scores / power(count)
    for is_excluded in (is_full, ~ended.can_improve, ~is_counted):
        scores += _excluded(is_excluded, scores)
    values, best = tf.math.top_k(tf.concat([ended.scores, scores], 1), settings.num_beams)
    # Earlier ended beams are shorter; what fills them is cut off or replaced at the end.
    padded = tf.pad(ended.tokens, [[0, 0], [0, 0], [0, 1]], constant_values=settings.pad_token_id)
    tokens = tf.gather(tf.concat([padded, candidates.tokens], 1), best, batch_dims=1)
    counts = tf.concat([ended.counts, tf.fill(tf.shape(candidates.beams), count)], 1)
    exists = tf.gather(tf.concat([ended.exists, is_counted], 1), best, batch_dims=1)

    reachable = open_beams.scores[:, :1] / power(most if settings.assumes_full_length else count)
    worst = tf.where(exists, tf.reduce_min(values, 1, keepdims=True), tf.constant(EXCLUDED, values.dtype))
    can_improve = ended.can_improve & tf.reduce_any(reachable > worst, 1, keepdims=True)
    return EndedBeams(tokens, tf.gather(counts, best, batch_dims=1), values, exists, can_improve)


def _is_done(candidates: Candidates, ended: EndedBeams, settings: GenerationSettings) -> Tensor:
    """Whether the search ends: no open beam can improve the result, or none is left."""
    is_done = ~tf.reduce_any(ended.can_improve) | tf.reduce_all(candidates.is_end)
    return is_done | tf.reduce_all(ended.exists) if settings.stops_when_full else is_done


def _excluded(is_excluded: Tensor, scores: Tensor) -> Tensor:
    """What is added to scores: `EXCLUDED` or 0."""
    return tf.cast(is_excluded, scores.dtype) * EXCLUDED
