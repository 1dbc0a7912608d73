"""Generation: greedy search, sampling and beam search with the causal language model.

Sampling: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.1 (top-k); Holtzman et al., "The
Curious Case of Neural Text Degeneration" (2020), section 3.1 (top-p). Repetition penalty: Keskar et al., "CTRL"
(2019), section 4.1. Beam search as transformers has it: a score is the sum of logarithms of probabilities, divided by
the number of new tokens to the power of the length penalty.

The whole loop is one graph, traced once for each way of choosing tokens and not for lengths or batches.

Notation: b texts, n beams, v pieces, L tokens of prompt and new ones together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import keras
import numpy as np
import tensorflow as tf

from rembert.common.errors import InputError
from rembert.common.generation import (
    Default,
    GenerationSettings,
    check_prompt,
    check_room,
    check_source_mask,
    generation_settings,
)
from rembert.tf.inputs import check_inputs

Tensor = Any

_OUT = -1.0e9  # added to the score of what is not to be chosen; as in transformers, whose ties are these
# Of each model, the variables that its loops were traced with, and the loops.
_LOOPS: WeakKeyDictionary[Any, tuple[list[Any], dict[Any, tuple[Callable[..., Tensor], list[Any]]]]] = (
    WeakKeyDictionary()
)


class GenerationMixin:
    """Gives a causal language model its `generate`."""

    config: Any

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
            seed: makes draws repeatable; left out, TensorFlow's own state is used.
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
        if attention_mask is not None and len(getattr(attention_mask, "shape", (0, 0))) != 2:
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
            position_ids=None if attention_mask is None or input_ids is None else tf.zeros_like(input_ids),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=None,
        )
        if encoder_attention_mask is not None:
            check_source_mask(len(encoder_attention_mask.shape))
        tokens = tf.cast(input_ids, tf.int32)
        mask = tf.ones_like(tokens)
        if attention_mask is not None:
            attention_mask = tf.convert_to_tensor(attention_mask)
            mask = tf.cast(attention_mask != tf.zeros((), attention_mask.dtype), tf.int32)
        if tf.executing_eagerly():  # values are not looked at inside graphs
            real = mask.numpy()
            if not len(real):
                return tf.cast(input_ids, tf.int64)  # no text to continue
            check_prompt(bool(real[:, -1].all()))
            check_room(self.config, int(real.sum(1).max()), settings.max_new_tokens)
        if seed is None:
            seeds = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        else:
            seeds = tf.constant(np.array([seed % 2**31, seed // 2**31 % 2**31], np.int32))
        loop, streamers = _loop(self, settings, encoder_hidden_states is not None, encoder_attention_mask is not None)
        streamers[:] = [] if streamer is None else [streamer]
        source = () if encoder_hidden_states is None else (tf.cast(encoder_hidden_states, self.compute_dtype),)  # type: ignore[attr-defined]
        source_mask = () if encoder_attention_mask is None else (tf.cast(encoder_attention_mask, tf.int32),)
        new = loop(tokens, mask, seeds, tf.constant(settings.max_new_tokens), *source, *source_mask)
        return tf.concat([tf.cast(input_ids, tf.int64), tf.cast(new, tf.int64)], 1)


def _loop(
    model: Any, settings: GenerationSettings, has_source: bool, has_mask: bool
) -> tuple[Callable[..., Tensor], list[Any]]:
    """The traced loop for these settings, from prompts to new tokens, and the list its streamer is looked up in."""
    settings = replace(settings, max_new_tokens=0)  # of any number: an argument of the loop
    variables = model.variables
    known, own = _LOOPS.get(model, ([], {}))
    if [*map(id, known)] != [*map(id, variables)]:  # resized, quantized, or with an adapter since
        own = {}
        _LOOPS[model] = variables, own
    key = (settings, has_source, has_mask)
    if key not in own:
        streamers: list[Any] = []
        # A loop that held the model would keep it for ever.
        held, generate = ref(model), _beam_search if settings.num_beams > 1 else _one_by_one
        numbers = tf.TensorSpec([None, None], tf.int32)
        signature = [numbers, numbers, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)]
        if has_source:
            signature.append(tf.TensorSpec([None, None, model.config.hidden_size], model.compute_dtype))
        if has_mask:
            signature.append(numbers)

        def run(tokens: Tensor, mask: Tensor, seeds: Tensor, new: Tensor, *sources: Tensor) -> Tensor:
            source = sources[0] if has_source else None
            source_mask = sources[-1] if has_mask else None
            return generate(_Decoder(held(), source, source_mask), tokens, mask, seeds, new, settings, streamers)

        # Concrete, as TensorFlow would take loops of several settings for one that is traced too often, and warn.
        loop = tf.function(run, input_signature=signature, autograph=False).get_concrete_function()
        own[key] = (loop, streamers)
    return own[key]


class _Decoder:
    """Calls the model: the prompt first, then a token at a time, with the cache of what was before.

    What changes from step to step is handed in and out, as a graph's loop wants it: the mask, the next positions, and
    the cache.
    """

    def __init__(self, model: Any, source: Tensor | None, source_mask: Tensor | None) -> None:
        self.model, self.source, self.source_mask = model, source, source_mask

    def prompt(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """The prompts [b, s] to the logits [b, v] after them, in float32 or better, and what the next step needs."""
        # Padding takes no position: the first real token is at 0.
        positions = tf.maximum(tf.cumsum(mask, 1) - 1, 0)
        last = tf.fill([tf.shape(tokens)[0], 1], tf.shape(tokens)[1] - 1)
        return self._call(tokens, mask, positions, self.source, None, last)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same for the next token of each text, [b]."""
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
        """Go on with these rows of the batch."""
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), state)

    def shapes(self, state: Any) -> Any:
        """What a loop may take for granted of `state`'s shapes."""
        cache = state[2]
        heads, width = self.model.config.num_attention_heads, self.model.config.head_dim
        whole = tf.TensorShape([None, heads, None, width])
        return (
            tf.TensorShape([None, None]),
            tf.TensorShape([None, 1]),
            tf.nest.map_structure(lambda _: whole, cache),
        )


def _one_by_one(
    decoder: _Decoder,
    tokens: Tensor,
    mask: Tensor,
    seeds: Tensor,
    new: Tensor,
    settings: GenerationSettings,
    streamers: list[Any],
) -> Tensor:
    """Greedy search, or sampling."""
    batch = tf.shape(tokens)[0]
    seen = _seen(tokens, mask, decoder.model.config.vocab_size) if settings.repetition_penalty != 1 else ()

    def choose(logits: Tensor, seen: Any, has_ended: Tensor, count: Tensor) -> tuple[Tensor, Any, Tensor]:
        scores = _processed(logits, seen, settings)
        if settings.do_sample:
            chosen = tf.random.stateless_categorical(scores, 1, seeds + tf.stack([0, count]), dtype=tf.int32)[:, 0]
        else:
            chosen = tf.argmax(scores, -1, output_type=tf.int32)
        chosen = tf.where(has_ended, settings.pad_token_id, chosen)

        def stream(tokens: Tensor) -> Tensor:
            for streamer in streamers:
                streamer(tf.cast(tokens, tf.int64))
            return tokens

        # What is heard goes on into the next step: a loop runs several at once where nothing ties them.
        chosen = tf.ensure_shape(tf.py_function(stream, [chosen], tf.int32), [None])
        return chosen, _with(seen, chosen), has_ended | _is_one_of(chosen, settings.eos_token_ids)

    def going_on(count: Tensor, texts: Tensor, has_ended: Tensor, *_: Any) -> Tensor:
        return (count < new) & ~tf.reduce_all(has_ended)

    def step(count: Tensor, texts: Tensor, has_ended: Tensor, seen: Any, state: Any) -> Any:
        logits, state = decoder.step(texts[:, -1], state)
        chosen, seen, has_ended = choose(logits, seen, has_ended, count)
        return count + 1, tf.concat([texts, chosen[:, None]], 1), has_ended, seen, state

    logits, state = decoder.prompt(tokens, mask)
    chosen, seen, has_ended = choose(logits, seen, tf.zeros([batch], tf.bool), tf.constant(0))
    row, table = tf.TensorShape([None]), tf.TensorShape([None, None])
    return tf.while_loop(
        going_on,
        step,
        (tf.constant(1), chosen[:, None], has_ended, seen, state),
        (tf.TensorShape([]), table, row, tf.nest.map_structure(lambda _: table, seen), decoder.shapes(state)),
    )[1]


def _beam_search(
    decoder: _Decoder,
    prompt: Tensor,
    mask: Tensor,
    seeds: Tensor,
    new: Tensor,
    settings: GenerationSettings,
    streamers: list[Any],
) -> Tensor:
    """The best ended text of each row."""
    batch, beams, vocabulary = tf.shape(prompt)[0], settings.num_beams, decoder.model.config.vocab_size
    keep = min(settings.candidates, beams * vocabulary)
    rows = tf.range(batch)[:, None]

    logits, state = decoder.prompt(prompt, mask)
    copies = tf.repeat(tf.range(batch), beams)
    logits, state = decoder.select(copies, (logits, state))
    if decoder.source_mask is not None:
        decoder.source_mask = tf.gather(decoder.source_mask, copies)  # beams of one text share its source
    seen: Any = ()
    if settings.repetition_penalty != 1:
        seen = tf.gather(_seen(prompt, mask, vocabulary), copies)

    def power(length: Tensor) -> Tensor:
        return tf.cast(length, logits.dtype) ** settings.length_penalty

    def advance(count: Tensor, logits: Tensor, seen: Any, open_: Any, ended: Any) -> Any:
        """One step of the search: from every beam's next logits to the beams to go on with, and whether it is over."""
        tokens, scores, can_improve = open_
        ended_tokens, ended_counts, ended_scores, has_ended = ended
        steps = _processed(tf.nn.log_softmax(logits), seen, settings)
        total = tf.reshape(tf.reshape(steps, [batch, beams, vocabulary]) + scores[:, :, None], [batch, -1])
        if settings.do_sample:
            # A draw without putting back: Kool et al. (2019).
            uniform = tf.random.stateless_uniform(
                tf.shape(total), seeds + tf.stack([0, count]), minval=1e-20, dtype=total.dtype
            )
            places = tf.math.top_k(total - tf.math.log(-tf.math.log(uniform)), keep).indices
            order = tf.argsort(tf.gather(total, places, batch_dims=1), direction="DESCENDING", stable=True)
            places = tf.gather(places, order, batch_dims=1)
        else:
            places = tf.math.top_k(total, keep).indices
        candidate_scores = tf.gather(total, places, batch_dims=1)
        origins, pieces = places // vocabulary, places % vocabulary
        candidates = tf.concat([tf.gather(tokens, origins, batch_dims=1), pieces[:, :, None]], 2)  # (b, keep, count)
        is_end = _is_one_of(pieces, settings.eos_token_ids) | (count == new)

        out, nothing = tf.constant(_OUT, total.dtype), tf.zeros((), total.dtype)
        next_scores, best = tf.math.top_k(candidate_scores + tf.where(is_end, out, nothing), beams)
        tokens, origins = tf.gather(candidates, best, batch_dims=1), tf.gather(origins, best, batch_dims=1)

        # Only an end among the best counts; the others were looked at so that enough are left to go on.
        is_counted = is_end & (tf.range(keep) < beams)
        final = candidate_scores / power(count)
        if settings.early_stopping is True:
            final += tf.where(tf.reduce_all(has_ended, 1, keepdims=True), out, nothing)
        final += tf.where(can_improve, nothing, out) + tf.where(is_counted, nothing, out)
        ended_scores, best = tf.math.top_k(tf.concat([ended_scores, final], 1), beams)
        # What ended earlier is shorter; what fills it is cut off or replaced in the end.
        padded = tf.pad(ended_tokens, [[0, 0], [0, 0], [0, 1]], constant_values=settings.pad_token_id)
        ended_tokens = tf.gather(tf.concat([padded, candidates], 1), best, batch_dims=1)
        counts = tf.concat([ended_counts, tf.fill(tf.shape(places), count)], 1)
        ended_counts = tf.gather(counts, best, batch_dims=1)
        has_ended = tf.gather(tf.concat([has_ended, is_counted], 1), best, batch_dims=1)

        to_the_end = settings.early_stopping == "never" and settings.length_penalty > 0
        best_to_come = next_scores[:, :1] / power(new if to_the_end else count)
        worst = tf.where(has_ended, tf.reduce_min(ended_scores, 1, keepdims=True), out)
        can_improve &= tf.reduce_any(best_to_come > worst, 1, keepdims=True)
        is_over = ~tf.reduce_any(can_improve) | tf.reduce_all(is_end)
        if settings.early_stopping is True:
            is_over |= tf.reduce_all(has_ended)
        open_, ended = (tokens, next_scores, can_improve), (ended_tokens, ended_counts, ended_scores, has_ended)
        return open_, ended, tf.reshape(origins + rows * beams, [-1]), is_over

    def step(count: Tensor, is_over: Tensor, origins: Tensor, open_: Any, ended: Any, seen: Any, state: Any) -> Any:
        given = tf.reshape(open_[0][:, :, -1], [-1])
        state, seen = decoder.select(origins, (state, seen))
        seen = _with(seen, given)
        logits, state = decoder.step(given, state)
        open_, ended, origins, is_over = advance(count + 1, logits, seen, open_, ended)
        return count + 1, is_over, origins, open_, ended, seen, state

    # What is still going on: tokens, scores (the first beam alone at the start, as all of them are the same), and
    # whether a row can still become better. What has ended: tokens, their number, score, whether it is there at all.
    no_tokens = tf.zeros([batch, beams, 0], tf.int32)
    first = tf.constant([[0.0] + [_OUT] * (beams - 1)], logits.dtype)
    open_ = (no_tokens, tf.tile(first, [batch, 1]), tf.ones([batch, 1], tf.bool))
    ended = (
        no_tokens,
        tf.zeros([batch, beams], tf.int32),
        tf.fill([batch, beams], tf.constant(_OUT, logits.dtype)),
        tf.zeros([batch, beams], tf.bool),
    )
    open_, ended, origins, is_over = advance(tf.constant(1), logits, seen, open_, ended)
    some, row = tf.TensorShape([None, beams]), tf.TensorShape([None])
    texts = tf.TensorShape([None, beams, None])
    _, _, _, _, ended, _, _ = tf.while_loop(
        lambda count, is_over, *_: ~is_over,
        step,
        (tf.constant(1), is_over, origins, open_, ended, seen, state),
        (
            tf.TensorShape([]),
            tf.TensorShape([]),
            row,
            (texts, some, tf.TensorShape([None, 1])),
            (texts, some, some, some),
            tf.nest.map_structure(lambda _: tf.TensorShape([None, None]), seen),
            decoder.shapes(state),
        ),
    )
    return ended[0][:, 0, : tf.reduce_max(ended[1][:, 0])]


def _seen(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """[b, v], whether a text holds a piece; padding is no part of it."""
    rows = tf.broadcast_to(tf.range(tf.shape(tokens)[0])[:, None], tf.shape(tokens))
    shape = tf.stack([tf.shape(tokens)[0], vocabulary])
    return tf.scatter_nd(tf.stack([rows, tokens], -1), mask, shape) != 0


def _with(seen: Any, tokens: Tensor) -> Any:
    """`seen` with one more token [b] for each text, or nothing where nothing is kept."""
    if isinstance(seen, tuple):
        return seen
    places = tf.stack([tf.range(tf.shape(tokens)[0]), tokens], 1)
    return tf.tensor_scatter_nd_update(seen, places, tf.ones_like(tokens, tf.bool))


def _is_one_of(tokens: Tensor, ids: tuple[int, ...]) -> Tensor:
    if not ids:
        return tf.zeros_like(tokens, tf.bool)
    return tf.reduce_any(tokens[..., None] == tf.constant(ids, tokens.dtype), -1)


def _processed(scores: Tensor, seen: Any, settings: GenerationSettings) -> Tensor:
    """Scores [rows, v] after the repetition penalty and, where tokens are drawn, what limits the draw."""
    if settings.repetition_penalty != 1:
        penalty = settings.repetition_penalty
        scores = tf.where(seen, tf.where(scores < 0, scores * penalty, scores / penalty), scores)
    if not settings.do_sample:
        return scores
    scores = scores / settings.temperature
    nothing = tf.constant(-np.inf, scores.dtype)
    if 0 < settings.top_k < scores.shape[-1]:
        scores = tf.where(scores < tf.math.top_k(scores, settings.top_k).values[:, -1:], nothing, scores)
    if settings.top_p < 1:
        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        before = tf.cumsum(tf.nn.softmax(tf.gather(scores, order, batch_dims=1)), 1, exclusive=True)
        left_out = tf.gather(before >= settings.top_p, tf.argsort(order), batch_dims=1)
        scores = tf.where(left_out, nothing, scores)
    return scores
