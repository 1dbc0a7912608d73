"""Generation with the causal language model: greedy search, sampling and beam search.

The whole loop is one graph, traced once for each combination of settings, for any lengths and batch sizes.

Notation: b sequences, v vocabulary, L tokens of prompt and new ones together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import tensorflow as tf

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
from rembert.tf.beam_search import beam_search
from rembert.tf.decoding import Decoder, Outside, add_seen, adjusted_scores, is_one_of, seen_tokens
from rembert.tf.inputs import check_inputs

Tensor = Any

# For each model the variables with which its loops were traced, and the loops.
_LOOPS: WeakKeyDictionary[Any, tuple[list[Any], dict[Any, tuple[Callable[..., Tensor], list[Callbacks]]]]] = (
    WeakKeyDictionary()
)


Function = Callable[..., Any]
Processors = Function | Sequence[Function]
Criteria = Function | Sequence[Function]


class GenerationMixin:
    """Gives a causal language model its `generate`."""

    config: Any
    compute_dtype: str

    # Long: a line for each argument.
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
            seed: makes sampling repeatable; by default TensorFlow's own random state is used.
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
            >>> from rembert.tf import RemBertConfig, TFRemBertForCausalLM
            >>> config = RemBertConfig(vocab_size=1000, hidden_size=72, num_hidden_layers=2, is_decoder=True)
            >>> model = TFRemBertForCausalLM(config)
            >>> model.generate(tf.constant([[312, 5, 6]]), max_new_tokens=4, num_beams=2, eos_token_id=None).shape
            TensorShape([1, 7])
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
        if tf.executing_eagerly() and not len(mask):
            return tf.cast(input_ids, tf.int64)
        if seed is None:
            seeds = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        else:
            seeds = tf.constant(np.array([seed % 2**31, seed // 2**31 % 2**31], np.int32))
        given = (token_type_ids is not None, encoder_hidden_states is not None, encoder_attention_mask is not None)
        loop, current = _loop(self, settings, given, calls)
        current[:] = [calls]
        calls.stream(_numpy(input_ids), is_prompt=True)
        types = () if token_type_ids is None else (tf.cast(token_type_ids, tf.int32),)
        source = () if encoder_hidden_states is None else (tf.cast(encoder_hidden_states, self.compute_dtype),)
        source_mask = () if encoder_attention_mask is None else (tf.cast(encoder_attention_mask, tf.int32),)
        tokens, most = tf.cast(input_ids, tf.int32), tf.constant(settings.max_new_tokens)
        new = loop(tokens, mask, seeds, most, *types, *source, *source_mask)
        calls.end()
        prompts = tf.repeat(tf.cast(input_ids, tf.int64), settings.num_return_sequences, 0)
        return tf.concat([prompts, tf.cast(new, tf.int64)], 1)


def _prompt_mask(
    config: Any,
    settings: GenerationSettings,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    types: Tensor | None,
    source: Tensor | None,
    source_mask: Tensor | None,
) -> Tensor:
    """Check the inputs and return the mask of the prompts' real tokens, [b, s] int32."""
    if attention_mask is not None and len(getattr(attention_mask, "shape", (0, 0))) != 2:
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
        position_ids=None if attention_mask is None or input_ids is None else tf.zeros_like(input_ids),
        encoder_hidden_states=source,
        encoder_attention_mask=source_mask,
        past_key_values=None,
    )
    if source_mask is not None:
        check_source_mask(len(source_mask.shape))
    if attention_mask is None:
        mask = tf.ones_like(input_ids, tf.int32)
    else:
        attention_mask = tf.convert_to_tensor(attention_mask)
        mask = tf.cast(attention_mask != tf.zeros((), attention_mask.dtype), tf.int32)
    if tf.executing_eagerly() and len(mask):  # inside graphs values are not checked
        real = mask.numpy()
        check_padding_side(bool(real[:, -1].all()))
        check_length(config, int(real.sum(1).max()), settings.max_new_tokens)
    return mask


def _numpy(tensor: Any) -> Any:
    """The values of a tensor, which streamers of other libraries take; inside a graph the tensor itself."""
    return tensor.numpy() if hasattr(tensor, "numpy") else tensor


def _loop(
    model: Any, settings: GenerationSettings, given: tuple[bool, bool, bool], calls: Callbacks
) -> tuple[Callable[..., Tensor], list[Callbacks]]:
    """The traced loop, from prompts to new tokens, and the list that the caller's functions are read from.

    Args:
        model: the model.
        settings: how tokens are chosen.
        given: whether there are token types, a source, and a mask of the source.
        calls: the caller's functions, of which only the numbers matter here.
    """
    settings = replace(settings, max_new_tokens=0)  # the number is an argument of the loop
    variables = model.variables
    known, own = _LOOPS.get(model, ([], {}))
    if [*map(id, known)] != [*map(id, variables)]:  # since then resized, quantized or adapted
        own = {}
        _LOOPS[model] = variables, own
    key = (settings, given, len(calls.processors), len(calls.criteria))
    if key not in own:
        current = [calls]
        outside = Outside(current, bool(calls.processors), bool(calls.criteria))
        held = ref(model)  # a strong reference would keep the model alive for ever
        numbers = tf.TensorSpec([None, None], tf.int32)
        signature = [numbers, numbers, tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)]
        states = tf.TensorSpec([None, None, model.config.hidden_size], model.compute_dtype)
        signature += [spec for spec, is_given in zip((numbers, states, numbers), given, strict=True) if is_given]

        def run(tokens: Tensor, mask: Tensor, seeds: Tensor, most: Tensor, *more: Tensor) -> Tensor:
            rest = iter(more)
            types, source, source_mask = (next(rest) if is_given else None for is_given in given)
            decoder = Decoder(held(), types, source, source_mask)
            if settings.num_beams > 1:
                return beam_search(decoder, tokens, mask, seeds, most, settings, outside)
            return _one_by_one(decoder, tokens, mask, seeds, most, settings, outside)

        # A concrete function: TensorFlow would warn that one function is traced too often.
        loop = tf.function(run, input_signature=signature, autograph=False).get_concrete_function()
        own[key] = (loop, current)
    return own[key]


def _one_by_one(
    decoder: Decoder,
    tokens: Tensor,
    mask: Tensor,
    seeds: Tensor,
    most: Tensor,
    settings: GenerationSettings,
    outside: Outside,
) -> Tensor:
    """Greedy search, or sampling."""

    def choose(logits: Tensor, texts: Tensor, seen: Any, has_ended: Tensor, count: Tensor) -> Any:
        new = tf.shape(texts)[1] - tf.shape(mask)[1]
        is_real = tf.concat([mask, tf.ones([tf.shape(mask)[0], new], tf.int32)], 1)
        scores = adjusted_scores(logits, seen, texts, is_real, count + 1, settings, outside)
        if settings.do_sample:
            chosen = tf.random.stateless_categorical(scores, 1, seeds + tf.stack([0, count]), dtype=tf.int32)[:, 0]
        else:
            chosen = tf.argmax(scores, -1, output_type=tf.int32)
        # The next step uses what `stream` returns: steps without a dependency would run at the same time.
        chosen = outside.stream(tf.where(has_ended, settings.pad_token_id, chosen))
        texts = tf.concat([texts, chosen[:, None]], 1)
        has_ended = has_ended | is_one_of(chosen, settings.eos_token_ids) | outside.is_stopped(texts)
        return texts, add_seen(seen, chosen), has_ended

    def step(count: Tensor, texts: Tensor, has_ended: Tensor, seen: Any, state: Any) -> Any:
        logits, state = decoder.step(texts[:, -1], state)
        texts, seen, has_ended = choose(logits, texts, seen, has_ended, count)
        return count + 1, texts, has_ended, seen, state

    logits, state = decoder.prompt(tokens, mask)
    if settings.num_return_sequences > 1:
        copies = tf.repeat(tf.range(tf.shape(tokens)[0]), settings.num_return_sequences)
        logits, state, tokens, mask = decoder.select(copies, (logits, state, tokens, mask))
        if decoder.source_mask is not None:
            decoder.source_mask = tf.gather(decoder.source_mask, copies)
    batch = tf.shape(tokens)[0]
    seen = seen_tokens(tokens, mask, logits.shape[1]) if settings.repetition_penalty != 1 else ()
    texts, seen, has_ended = choose(logits, tokens, seen, tf.zeros([batch], tf.bool), tf.constant(0))
    row, table = tf.TensorShape([None]), tf.TensorShape([None, None])
    found = tf.while_loop(
        lambda count, texts, has_ended, *_: (count < most) & ~tf.reduce_all(has_ended),
        step,
        (tf.constant(1), texts, has_ended, seen, state),
        (tf.TensorShape([]), table, row, tf.nest.map_structure(lambda _: table, seen), decoder.shapes(state)),
    )[1]
    return found[:, tf.shape(tokens)[1] :]
