"""The settings of generation, their defaults, the caller's functions, and checks of arguments. Needs no framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any

import numpy as np

from rembert.common.arguments import (
    BOOLEAN,
    Constraint,
    boolean_or,
    check_argument,
    check_arguments,
    integer,
    number,
    optional,
    plain,
)
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError, KeywordError
from rembert.common.warning import warn

_POSITIVE = number(above=0)
_CONSTRAINTS = {
    "max_new_tokens": integer(at_least=1),
    "num_beams": integer(at_least=1),
    "do_sample": BOOLEAN,
    "temperature": _POSITIVE,
    "top_k": integer(at_least=0),
    "top_p": number(above=0, at_most=1),
    "repetition_penalty": _POSITIVE,
    "length_penalty": number(),
    "early_stopping": boolean_or(("never",)),
    "num_return_sequences": integer(at_least=1),
    "no_repeat_ngram_size": integer(at_least=0),
    "min_new_tokens": integer(at_least=0),
}
_LENGTHS = {"max_length": optional(integer(at_least=1)), "min_length": optional(integer(at_least=0))}
_NEW_TOKENS = 20  # the default of `max_new_tokens`
# Added to the score of a beam that must not be chosen; transformers adds the same, so that ties are equal.
EXCLUDED = -1.0e9


class Default(Enum):
    """The default of an argument for which None is a value."""

    CONFIG = "the configuration's"


@dataclass(frozen=True)
class GenerationSettings:
    """How tokens are chosen, after all checks and defaults. `RemBertForCausalLM.generate` describes the fields."""

    max_new_tokens: int
    do_sample: bool
    num_beams: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    length_penalty: float
    early_stopping: bool | str
    num_return_sequences: int
    no_repeat_ngram_size: int
    min_new_tokens: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int

    @property
    def num_candidates(self) -> int:
        """The number of continuations that a step of beam search considers: enough to fill the open beams."""
        return max(2, 1 + len(self.eos_token_ids)) * self.num_beams

    @property
    def stops_when_full(self) -> bool:
        """Whether beam search ends as soon as it has `num_beams` ended texts."""
        return self.early_stopping is True

    @property
    def assumes_full_length(self) -> bool:
        """Whether the best score that an open beam can reach is that of the longest text."""
        return self.early_stopping == "never" and self.length_penalty > 0


@dataclass(frozen=True)
class Callbacks:
    """The functions of the caller.

    Attributes:
        processors: each takes the texts so far [rows, length] and the scores of the next token [rows, v], and returns
            scores.
        criteria: each takes the texts [rows, length] and None, and returns whether they end: one bool, or [rows].
        streamer: a function of the new tokens of every step, or an object with `put` and `end`, as transformers'
            streamers have.
    """

    processors: tuple[Callable[..., Any], ...] = ()
    criteria: tuple[Callable[..., Any], ...] = ()
    streamer: Any = None

    def stream(self, tokens: Any, *, is_prompt: bool = False) -> None:
        """Give the streamer the tokens of a step [b], or the prompts [b, s] if it has `put`."""
        if hasattr(self.streamer, "put"):
            self.streamer.put(tokens)
        elif self.streamer is not None and not is_prompt:
            self.streamer(tokens)

    def end(self) -> None:
        """Tell the streamer that no token follows."""
        if hasattr(self.streamer, "end"):
            self.streamer.end()


def callbacks(logits_processor: Any, stopping_criteria: Any, streamer: Any) -> Callbacks:
    """The caller's functions, from the arguments as they were given: None, one function, or a list of them.

    Raises:
        InputError: something that cannot be called.

    Example:
        >>> len(callbacks(None, [lambda texts, scores: False], print).criteria)
        1
    """
    if streamer is not None and not callable(streamer) and not hasattr(streamer, "put"):
        raise InputError(
            f"`streamer` must be a function, or an object with `put` and `end`. Received: `streamer={streamer!r:.80}`."
        )
    return Callbacks(
        _functions("logits_processor", logits_processor), _functions("stopping_criteria", stopping_criteria), streamer
    )


def _functions(name: str, given: Any) -> tuple[Callable[..., Any], ...]:
    listed = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    for each in listed:
        if not callable(each):
            raise InputError(f"`{name}` must be functions. Received: `{name}={given!r:.80}`.")
    return listed


# Arguments of transformers' `generate` that this library does not have.
_ELSEWHERE = frozenset(
    {
        *("generation_config", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "custom_generate"),
        *("negative_prompt_ids", "negative_prompt_attention_mask", "use_model_defaults", "tokenizer", "stop_strings"),
        *("max_time", "num_beam_groups", "penalty_alpha", "dola_layers", "cache_implementation", "cache_config"),
        *("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "diversity_penalty", "encoder_repetition_penalty"),
        *("bad_words_ids", "force_words_ids", "renormalize_logits", "constraints", "forced_bos_token_id"),
        *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
        *("begin_suppress_tokens", "sequence_bias", "token_healing", "guidance_scale", "watermarking_config"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("encoder_no_repeat_ngram_size", "decoder_start_token_id", "bos_token_id", "prompt_lookup_num_tokens"),
        *("inputs_embeds", "position_ids", "past_key_values", "return_legacy_cache", "top_h", "compile_config"),
        *("low_memory", "logits_to_keep", "cache_position", "disable_compile"),
    }
)


# None means the default, as in an unset field of transformers' GenerationConfig.
_WITH_DEFAULT = (
    *("num_return_sequences", "num_beams", "do_sample", "temperature", "repetition_penalty", "length_penalty"),
    "early_stopping",
)


def check_others(others: dict[str, Any]) -> None:
    """Refuse arguments that `generate` does not have; None and False, which ask for nothing, pass for known ones.

    Raises:
        KeywordError: names the argument, and where generation with it is to be had.
    """
    for name, value in others.items():
        if name not in _ELSEWHERE:
            close = get_close_matches(name, inspect.signature(generation_settings).parameters, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise KeywordError(f"`generate` has no argument `{name}`. Received: `{name}={value!r:.80}`.{hint}")
        if value is not None and value is not False:
            raise KeywordError(
                f"`generate` has no argument `{name}` here. Received: `{name}={value!r:.80}`. With `import "
                "rembert.transformers`, transformers' own `generate` has every option for the same model."
            )


def prompt_of(input_ids: Any, inputs: Any) -> Any:
    """The prompts, which have two names.

    Raises:
        InputError: both or neither are given.
    """
    if (input_ids is None) == (inputs is None):
        received = "neither" if inputs is None else "both"
        raise InputError(f"Prompts must be given as `input_ids`, or as `inputs`. Received: {received}.")
    return inputs if input_ids is None else input_ids


# Long: a line for each argument.
def generation_settings(
    config: RemBertConfig,
    generate: Callable[..., Any],
    *,
    prompts: Any,
    max_new_tokens: Any,
    max_length: Any,
    min_new_tokens: Any,
    min_length: Any,
    num_return_sequences: Any,
    no_repeat_ngram_size: Any,
    use_cache: Any,
    do_sample: Any,
    num_beams: Any,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    repetition_penalty: Any,
    length_penalty: Any,
    early_stopping: Any,
    eos_token_id: Any,
    pad_token_id: Any,
    has_streamer: bool,
) -> GenerationSettings:
    """The settings from the given arguments of `generate`, whose signature has the defaults.

    Raises:
        InputError: the model is not a decoder, or an argument is outside its range.
    """
    if not config.is_decoder:
        raise InputError("Generation needs a model with `is_decoder=True`. Received: `is_decoder=False`.")
    shape: Sequence[int] = getattr(prompts, "shape", ())
    longest, shortest = _new_tokens(
        shape[-1] if len(shape) == 2 else 0, max_new_tokens, max_length, min_new_tokens, min_length
    )
    check_argument("use_cache", True if use_cache is None else use_cache, BOOLEAN)
    given = {
        "max_new_tokens": longest,
        "min_new_tokens": shortest,
        "num_return_sequences": num_return_sequences,
        "no_repeat_ngram_size": 0 if no_repeat_ngram_size is None else no_repeat_ngram_size,
        "num_beams": num_beams,
        "do_sample": do_sample,
        "temperature": temperature,
        "top_k": 0 if top_k is None else top_k,
        "top_p": 1.0 if top_p is None else top_p,
        "repetition_penalty": repetition_penalty,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    signature = inspect.signature(generate).parameters
    for name in _WITH_DEFAULT:
        given[name] = signature[name].default if given[name] is None else given[name]
    given = {name: plain(value) for name, value in given.items()}
    check_arguments(_CONSTRAINTS, given)
    if has_streamer and given["num_beams"] > 1:
        raise InputError(
            "`streamer` needs final tokens, which beam search has only at its end. Received: "
            f"`num_beams={num_beams}`. Omit one of the two."
        )
    _check_returned(given)
    if config.vocab_size < 2:
        raise InputError(f"Generation needs two tokens to choose from. Received: `vocab_size={config.vocab_size}`.")
    ends = _eos_token_ids(config, eos_token_id)
    if pad_token_id is None:
        pad_token_id = next((each for each in (config.pad_token_id, *ends) if each is not None), 0)
    pad_token_id = plain(pad_token_id)
    check_argument("pad_token_id", pad_token_id, _token_id(config))
    given["top_k"] = min(given["top_k"], config.vocab_size)
    numbers = ("temperature", "top_p", "repetition_penalty", "length_penalty")
    given.update({name: float(given[name]) for name in numbers})
    return GenerationSettings(**given, eos_token_ids=ends, pad_token_id=pad_token_id)


def _new_tokens(
    prompt: int, max_new_tokens: Any, max_length: Any, min_new_tokens: Any, min_length: Any
) -> tuple[Any, Any]:
    """The largest and the smallest number of new tokens after `prompt` tokens."""
    lengths = {name: plain(value) for name, value in (("max_length", max_length), ("min_length", min_length))}
    check_arguments(_LENGTHS, lengths)
    longest, shortest = plain(max_new_tokens), plain(min_new_tokens)
    if longest is None:
        longest = _NEW_TOKENS if lengths["max_length"] is None else lengths["max_length"] - prompt
        if longest < 1:
            raise InputError(
                f"`max_length` counts the prompt too, and must be more than its {prompt} tokens. Received: "
                f"`max_length={max_length}`. Use `max_new_tokens`."
            )
    elif lengths["max_length"] is not None:
        warn(
            f"`max_new_tokens={max_new_tokens}` and `max_length={max_length}` are both given; the first one is used.",
        )
    if shortest is None:
        shortest = 0 if lengths["min_length"] is None else max(lengths["min_length"] - prompt, 0)
    return longest, shortest


def _check_returned(given: dict[str, Any]) -> None:
    """Refuse more sequences than there are, and a minimum above the maximum."""
    count, beams = given["num_return_sequences"], given["num_beams"]
    if count > beams and (beams > 1 or not given["do_sample"]):
        raise InputError(
            "`num_return_sequences` must be at most `num_beams`, or tokens must be sampled. Received: "
            f"`num_return_sequences={count}` and `num_beams={beams}`."
        )
    if given["min_new_tokens"] > given["max_new_tokens"]:
        raise InputError(
            "The least number of new tokens, from `min_new_tokens` or `min_length`, must be at most the largest, from "
            f"`max_new_tokens` (by default {_NEW_TOKENS}) or `max_length`. Received: {given['min_new_tokens']} and "
            f"{given['max_new_tokens']}."
        )


def _eos_token_ids(config: RemBertConfig, given: Any) -> tuple[int, ...]:
    """The ids that end a text, from an id, a sequence, an array or a tensor of them, or None."""
    ends = config.eos_token_id if given is Default.CONFIG else given
    if ends is None:
        ends = ()
    elif hasattr(ends, "__array__"):  # a framework's tensor, or NumPy's
        ends = np.asarray(ends).tolist()
    ids = tuple(map(plain, ends)) if isinstance(ends, Sequence) and not isinstance(ends, str) else (ends,)
    if given is Default.CONFIG:  # the default ids may be outside a small vocabulary
        ids = tuple(token for token in ids if token < config.vocab_size)
    for token in ids:
        check_argument("eos_token_id", token, _token_id(config))
    return ids


def _token_id(config: RemBertConfig) -> Constraint:
    return integer(at_least=0, at_most=config.vocab_size - 1)


def check_source_mask(dimensions: int) -> None:
    """Refuse a mask of the source with a dimension for the prompt's tokens, as new tokens have no row in it.

    Raises:
        InputError: quotes the number of dimensions.
    """
    if dimensions != 2:
        raise InputError(
            "`encoder_attention_mask` must have the shape [batch, source] in generation. Received: "
            f"{dimensions} dimensions."
        )


def check_length(config: RemBertConfig, longest_prompt: int, max_new_tokens: int) -> None:
    """Refuse a prompt that is too long for the new tokens to have positions.

    Raises:
        InputError: quotes the lengths.
    """
    limit = config.max_position_embeddings
    if longest_prompt + max_new_tokens > limit:
        raise InputError(
            f"Prompt and new tokens may be at most `max_position_embeddings={limit}` tokens together. Received: "
            f"{longest_prompt} tokens in the longest prompt, with {max_new_tokens} new ones. Shorten the prompt, or "
            f"pass a smaller `max_new_tokens` (by default {_NEW_TOKENS})."
        )


def check_padding_side(last_tokens_are_real: bool) -> None:
    """Refuse prompts with padding at the end.

    Raises:
        InputError: names the side on which padding belongs.
    """
    if not last_tokens_are_real:
        raise InputError(
            "Prompts must be padded on the left: new tokens follow the last one. Received: an `attention_mask` with a "
            "0 in its last column. Use a tokenizer with `padding_side='left'`."
        )
